"""`runs`, `summary`, `check-gradients`, `find-lr`, `doctor`: looking closer."""

import json

import pytest

from chainrule.cli import check_gradients, doctor
from chainrule.core.autodiff import value_and_grad
from chainrule.version import __version__


def test_no_runs_yet(cli):
    shown = cli("runs")
    assert (shown.code, shown.out) == (0, "There are no runs in runs. Begin one: chainrule train digits\n")
    assert json.loads(cli("runs", "--json").out) == []


def test_runs_in_the_order_in_which_they_began(cli, houses_run, iris_run):
    header, first, second = cli("runs").out.splitlines()
    assert header.split() == ["run", "status", "epochs", "best", "at", "time", "begun"]
    assert first.split()[:3] == ["houses", "finished", "15"]
    assert second.split()[:3] == ["iris", "finished", "10"]
    found = json.loads(cli("runs", "--json").out)
    assert [run["name"] for run in found] == ["houses", "iris"]
    assert found[1]["best"]["metric"] == "validation_loss"


def test_a_damaged_run_is_in_the_list_with_the_reason(cli, iris_run, tmp_path):
    (tmp_path / iris_run / "config.json").write_text("{")
    shown = cli("runs")
    assert shown.code == 0
    assert "damaged" in shown.out
    assert "config.json is not valid JSON" in shown.err


def test_a_file_is_no_folder_of_runs(cli, table):
    table("runs", "")
    shown = cli("runs")
    assert shown.code == 2
    assert "runs is a file" in shown.err


def layers(shown):
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith(" path")) :]


def test_summary_of_a_run(cli, iris_run):
    shown = cli("summary", iris_run)
    assert "finished: all 10 epochs done" in shown.out
    assert "classes      setosa, versicolor, virginica" in shown.out
    table = layers(shown)
    assert table[2].split() == [
        "0",
        "Linear",
        "(rows,",
        "64)",
        "weight",
        "(64,",
        "4),",
        "bias",
        "(64,)",
        "320",
        "1.28",
        "kB",
    ]
    assert table[-1] == "4,675 parameters, 18.7 kB"


def test_summary_of_a_source_is_that_of_its_run(cli, iris_run, tmp_path):
    assert layers(cli("summary", "iris")) == layers(cli("summary", iris_run))
    assert "39 parameters" in cli("summary", "wine", "--layers", "none", "--ignore", "ash").out
    assert len(list((tmp_path / "runs").iterdir())) == 1  # nothing was trained


def test_summary_of_nothing(cli):
    shown = cli("summary", "nowhere")
    assert shown.code == 2
    assert "there is no file nowhere" in shown.err


@pytest.mark.parametrize(
    "options", [["iris"], ["diabetes", "--norm", "batch"], ["wine", "--norm", "layer", "--activation", "gelu"]]
)
def test_gradients_agree_with_numerical_ones(cli, options):
    assert cli("train", *options, "--epochs", 3, "--name", "run", "-q").code == 0
    shown = cli("check-gradients", "run", "--elements", 10)
    assert shown.code == 0, shown.err
    assert "✗" not in shown.out
    found = json.loads(cli("check-gradients", "run", "--elements", 3, "--json").out)
    assert all(one["passed"] and one["difference"] < 1e-6 for one in found)
    assert (
        len(found)
        == {"none": 6, "batch": 10, "layer": 10}[
            dict(zip(options[1::2], options[2::2], strict=True)).get("--norm", "none")
        ]
    )


def test_a_wrong_gradient_is_found_and_named(cli, iris_run, monkeypatch):
    def slightly_wrong(loss):
        def both(model):
            value, gradients = value_and_grad(loss)(model)
            return value, {**gradients, "3.bias": gradients["3.bias"] * 1.001}

        return both

    monkeypatch.setattr(check_gradients, "value_and_grad", slightly_wrong)
    shown = cli("check-gradients", iris_run, "--elements", 64)
    assert shown.code == 1
    assert shown.out.count("✗") == 1
    assert "The gradient of 3.bias at" in shown.err
    assert "numerically" in shown.err


def test_a_learning_rate_is_found_and_drawn(cli):
    shown = cli("find-lr", "breast_cancer")
    assert shown.code == 0
    assert shown.out.count("•") > 30
    assert "suggestion   --lr " in shown.out
    assert json.loads(cli("find-lr", "breast_cancer", "--steps", 60, "--json").out)["suggestion"] > 1e-5


def test_the_rate_that_was_found_trains(cli):
    rate = json.loads(cli("find-lr", "breast_cancer", "--json").out)["suggestion"]
    found = json.loads(cli("train", "breast_cancer", "--lr", rate, "--json").out)
    assert found["scores"]["test"]["accuracy"] > 0.94


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "lbfgs"], "there is no rate to find"),
        (["--smallest", "1", "--largest", "0.1"], "expected 0 < smallest < largest"),
        (["--steps", "2"], "at least 3"),
    ],
)
def test_rates_that_make_no_sense(cli, options, message):
    shown = cli("find-lr", "iris", *options)
    assert shown.code == 2
    assert message in shown.err


def test_doctor_finds_this_place_healthy(cli):
    shown = cli("doctor")
    assert shown.code == 0
    assert "✓ derivatives" in shown.out
    assert "✓ engine reference: exclusive or" in shown.out
    found = json.loads(cli("doctor", "--json").out)
    assert found["chainrule"] == __version__
    assert found["healthy"]
    assert found["cores"] >= found["cores_allowed"] >= 1


def test_doctor_misses_a_package(cli, monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    shown = cli("doctor")
    assert shown.code == 1
    assert "✗ no-such-package is missing" in shown.out
    assert "pip install no-such-package" in shown.err


def test_doctor_notices_when_derivatives_or_training_are_wrong(cli, monkeypatch):
    monkeypatch.setattr(
        doctor, "check_gradients", lambda *_, **__: (_ for _ in ()).throw(doctor.GradientError("off by 2"))
    )
    monkeypatch.setattr(doctor, "step", lambda model, optimizer, x, y: doctor.mse(model(x), y))  # no update
    shown = cli("doctor")
    assert shown.code == 1
    assert "✗ derivatives: off by 2" in shown.out
    assert "✗ engine reference" in shown.out
    assert "derivatives, engine native, engine reference" in shown.err
