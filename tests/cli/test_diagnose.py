"""`diagnose`: for data before training, and for runs."""

import json


def test_data_before_any_training(cli):
    shown = cli("diagnose", "iris")
    assert shown.code == 0
    assert "nothing wrong was found" in shown.out
    assert "next: chainrule train iris" in shown.out


def test_a_fault_with_its_evidence_and_remedy(cli):
    shown = cli("diagnose", "iris", "--optimizer", "sgd", "--lr", "100")
    assert shown.code == 0
    assert "error        the learning rate is too high" in shown.out
    assert "at a hundredth of the rate" in shown.out or "at a tenth of the rate" in shown.out
    assert "chainrule find-lr" in shown.out and "cr.find_lr" not in shown.out


def test_a_run_stays_as_it_is(cli, iris_run, tmp_path):
    def content():
        return {
            p.name: p.read_bytes() for p in (tmp_path / iris_run).rglob("*") if p.is_file() and "sqlite-" not in p.name
        }

    before = content()
    shown = cli("diagnose", iris_run, "--json")
    told = json.loads(shown.out)
    assert shown.code == 0 and told["healthy"] is True
    assert told["facts"]["loss"] < told["facts"]["constant_loss"]
    assert content() == before


def test_options_of_training_are_not_for_runs(cli, iris_run):
    shown = cli("diagnose", iris_run, "--lr", "3")
    assert shown.code == 2
    assert "is a run, which has its options already" in shown.err
    assert cli("diagnose", "iris", "--source", "iris.csv").code == 2
    assert cli("diagnose", "iris", "--steps", "3").code == 2


def test_a_column_that_gives_the_target_away(cli, table):
    lines = ["size,age,code,sold"]
    lines += [
        f"{(i * 7) % 31},{(i * 5) % 17},{100 + 50 * (i % 2)}.{i % 7},{'yes' if i % 2 else 'no'}" for i in range(200)
    ]
    path = table("sales.csv", "\n".join(lines) + "\n")
    shown = cli("diagnose", path, "--target", "sold", "--json")
    told = json.loads(shown.out)
    assert [d["kind"] for d in told["diagnoses"]] == ["leakage"]
    assert "(code)" in told["diagnoses"][0]["message"]
