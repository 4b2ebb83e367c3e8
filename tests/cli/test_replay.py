"""`replay` and `diff`: a step of a run made again, two steps, two runs; and everything that can be wrong."""

import hashlib
import json

import pytest

from chainrule.cli import diff as diff_command
from chainrule.cli import replay as replay_command
from chainrule.cli.replay import explanation_of
from chainrule.train.store import Run

OPTIONS = ["--epochs", "12", "--patience", "0", "-q"]


def contents(folder):
    """What is in a folder, but for what SQLite puts beside a file that it reads."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(("-shm", "-wal"))]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_step_is_made_again_to_the_bit(cli, iris_run, tmp_path):
    recorded = {row["step"]: row["batch_loss"] for row in Run.open(tmp_path / iris_run).history()}
    before = contents(tmp_path / iris_run)
    shown = cli("replay", iris_run, "--step", 7)
    assert shown.code == 0, shown.err
    assert f"loss         {recorded[7]!r}   (as recorded, to the bit)" in shown.out
    assert "step         7 of 40, in epoch 2" in shown.out
    assert "of the training data" in shown.out
    assert "replayed     " in shown.out
    assert [line.split()[0] for line in shown.out.splitlines() if line.startswith(" ")][:2] == ["layer", "0"]
    assert contents(tmp_path / iris_run) == before


def test_as_json(cli, iris_run, tmp_path):
    recorded = {row["step"]: row["batch_loss"] for row in Run.open(tmp_path / iris_run).history()}
    for step in (1, 4, 5, 40):
        found = json.loads(cli("replay", "iris", "--step", step, "--json").out)
        assert found["loss"] == found["recorded"] == recorded[step]
        assert found["exact"] is True
        assert found["epoch"] == (step - 1) // 4 + 1
        assert len(found["rows"]) == (24 if step % 4 == 0 else 32)
        assert found["layers"]["0"]["gradient"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "sgd", "--schedule", "plateau", "--epochs", "30", "--patience", "4"],
        ["--schedule", "cosine", "--ema", "0.9", "--clip-norm", "0.1"],
        ["--norm", "batch", "--class-weight", "balanced", "--dropout", "0.3"],
        ["--optimizer", "lbfgs", "--epochs", "3"],
        ["--engine", "reference"],
    ],
    ids=lambda options: options[1],
)
def test_whatever_the_run_was_trained_with(cli, table, options):
    table("houses.csv")
    classes = "--class-weight" in options
    source = ["iris"] if classes else ["houses.csv", "-t", "price"]
    assert cli("train", *source, *OPTIONS, *options, "--name", "run").code == 0
    last = Run.open("runs/run").history()[-1]["step"]
    for step in (1, last // 2, last):
        shown = cli("replay", "run", "--step", max(step, 1), "--json")
        assert shown.code == 0, shown.err
        assert json.loads(shown.out)["exact"] is True


def test_two_steps(cli, iris_run):
    shown = cli("diff", "iris", "--steps", 1, 40)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[0].split() == ["step", "1", "step", "40"]
    assert "weights moved" in shown.out
    assert "of 40 steps replayed" in shown.out
    found = json.loads(cli("diff", "iris", "--steps", 1, 40, "--json").out)
    assert (found["first"]["step"], found["second"]["step"]) == (1, 40)
    assert found["second"]["loss"] < found["first"]["loss"]


@pytest.fixture
def two_runs(cli, table):
    """Two runs on tables that differ in one cell of one row."""
    path = table("houses.csv")
    assert cli("train", path, "-t", "price", *OPTIONS, "--name", "one").code == 0
    lines = path.read_text().splitlines()
    size, rest = lines[50].split(",", 1)
    lines[50] = f"{float(size) + 0.001:.3f},{rest}"
    other = table("other.csv", "\n".join(lines) + "\n")
    assert cli("train", other, "-t", "price", *OPTIONS, "--name", "other").code == 0


def test_two_runs(cli, two_runs):
    shown = cli("diff", "one", "other")
    assert shown.code == 0, shown.err
    assert "source.digest" in shown.out
    assert "parting      at step 1, in epoch 1: equal before it, not after it" in shown.out
    assert "first value  %" in shown.out
    assert "steps replayed" in shown.out
    found = json.loads(cli("diff", "one", "other", "--json").out)
    assert found["parting"]["node"]["inputs"] == ["x"]
    assert found["replayed"] < found["total"] / 2


def test_two_runs_and_two_steps(cli, two_runs):
    shown = cli("diff", "one", "other", "--steps", 3, 4)
    assert shown.code == 0, shown.err
    assert "one: step 3  other: step 4" in shown.out


def test_a_run_beside_itself(cli, iris_run):
    shown = cli("diff", "iris", "iris")
    assert shown.code == 0, shown.err
    assert "settings     the same" in shown.out
    assert "parting      none: their states are equal after step 40" in shown.out


def test_other_seeds(cli):
    for seed in (1, 2):
        assert cli("train", "iris", *OPTIONS, "--seed", seed, "--name", f"seed{seed}").code == 0
    shown = cli("diff", "seed1", "seed2")
    assert shown.code == 0, shown.err
    assert "parting      before the first step: they begin with another 0.weight" in shown.out
    assert "options.data.seed" in shown.out


def test_what_was_recorded_needs_no_data(cli, two_runs, tmp_path):
    (tmp_path / "other.csv").unlink()
    shown = cli("diff", "one", "other", "--recorded")
    assert shown.code == 0, shown.err
    assert "states       equal after step 0" in shown.out
    assert json.loads(cli("diff", "one", "other", "--recorded", "--json").out)["replayed"] == 0
    assert diff_command.difference_of(tmp_path / "runs/one", tmp_path / "runs/other")["parting"] is None
    shown = cli("diff", "one", "other")
    assert shown.code == 2
    assert "The data of other are gone" in shown.err
    assert "--recorded" in shown.err


def test_data_that_were_moved(cli, houses_run, tmp_path):
    (tmp_path / "houses.csv").rename(tmp_path / "moved.csv")
    assert cli("replay", houses_run, "--step", 3).code == 2
    shown = cli("replay", houses_run, "--step", 3, "--source", "moved.csv")
    assert shown.code == 0, shown.err
    assert "as recorded, to the bit" in shown.out
    assert cli("diff", houses_run, houses_run, "--source", "moved.csv", "--other-source", "moved.csv").code == 0


# -- what is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay", "runs/iris", "--step", "41"], "Step 41 is out of range: runs/iris has made the steps 1 to 40."),
        (["replay", "runs/iris", "--step", "0"], "0 is too low"),
        (["replay", "runs/iris", "--step", "soon"], '"soon" is no whole number'),
        (["replay", "runs/iris"], "Missing option '--step'"),
        (["replay", "runs/iriss", "--step", "1"], "There is no run runs/iriss. Did you mean runs/iris?"),
        (["replay", "runs/iris", "--step", "1", "--row", "99", "--html", "x.html"], "has the rows 0 to 31"),
        (["diff", "runs/iris"], "--steps 100 200, or another run"),
        (["diff", "runs/iris", "--steps", "1", "41"], "Step 41 is out of range: runs/iris has made the steps 1 to 40."),
        (["diff", "runs/iris", "--steps", "0", "1"], "Step 0 is out of range"),
        (["diff", "runs/iris", "--steps", "1"], "requires 2 arguments"),
        (["diff", "runs/iris", "runs/nothing"], "There is no run runs/nothing."),
        (["diff", "runs/iris", "runs/iris", "--recorded", "--steps", "1", "2"], "Give one of the two"),
        (["diff", "--steps", "1", "2"], "Missing argument 'RUN'"),
    ],
)
def test_what_makes_no_sense(cli, iris_run, arguments, words):
    shown = cli(*arguments)
    assert shown.code == 2
    assert words in shown.err


def test_data_that_are_gone_or_others(cli, houses_run, tmp_path):
    source = tmp_path / "houses.csv"
    whole = source.read_text()
    source.write_text(whole.replace("Bonn", "Ulm", 1))
    for command in (["replay", houses_run, "--step", "3"], ["diff", houses_run, "--steps", "1", "2"]):
        shown = cli(*command)
        assert shown.code == 2
        assert "has changed since houses was made" in shown.err
    source.unlink()
    shown = cli("replay", houses_run, "--step", 3)
    assert shown.code == 2
    assert "The data of houses are gone" in shown.err


@pytest.mark.filterwarnings("default")
def test_damage(cli, iris_run, tmp_path):
    for path in (tmp_path / iris_run / "milestones").iterdir():
        path.write_bytes(path.read_bytes()[:-9] + b"something")
    shown = cli("replay", iris_run, "--step", 30)
    assert shown.code == 0
    assert "is damaged" in shown.err
    assert "as recorded, to the bit" in shown.out


# -- the explanation


@pytest.fixture
def page(monkeypatch):
    """What would be written, and opened."""
    seen = {}
    monkeypatch.setattr(replay_command, "write_page", lambda told, path: seen.update(told=told, path=path))
    monkeypatch.setattr(replay_command.webbrowser, "open", lambda address: seen.update(address=address))
    return seen


def test_the_explanation_is_written_where_it_is_wanted(cli, iris_run, page):
    shown = cli("replay", iris_run, "--step", 7, "--html", "step.html")
    assert shown.code == 0, shown.err
    assert str(page["path"]) == "step.html"
    assert page["told"]["format"] == "chainrule explanation 1"
    assert page["told"]["step"] == 7
    assert page["told"]["loss"] == json.loads(cli("replay", iris_run, "--step", 7, "--json").out)["loss"]
    assert "address" not in page
    assert "step.html" in shown.err


def test_the_explanation_is_opened_and_the_run_is_not_touched(cli, iris_run, page, tmp_path):
    before = contents(tmp_path / iris_run)
    shown = cli("replay", iris_run, "--step", 7, "--open", "--json")
    assert json.loads(shown.out)["step"] == 7
    assert page["address"].startswith("file://") and page["address"].endswith("iris-step-7.html")
    assert contents(tmp_path / iris_run) == before


def test_an_explanation_for_the_web_app(iris_run, tmp_path, cli):
    told = explanation_of(tmp_path / iris_run, 7)
    assert (told["step"], told["rows"]) == (7, 32)
