"""`--record`, `--tensorboard` and `export`."""

import json

import pytest

from chainrule.train.store import Run

SHORT = ["--epochs", "3", "--patience", "0", "-q"]


def test_layers_and_parameters_are_recorded_as_often_as_asked(cli, tmp_path):
    assert cli("train", "iris", "--name", "some", "--record", "5", *SHORT).code == 0
    assert [s["step"] for s in Run.open(tmp_path / "runs/some").snapshots()] == [1, 6, 11]
    assert cli("train", "iris", "--name", "none", "--record", "off", *SHORT).code == 0
    assert Run.open(tmp_path / "runs/none").snapshots() == []


@pytest.mark.parametrize("wrong", ["0", "often", "-3", "1.5"])
def test_what_says_nothing_is_told(cli, wrong):
    shown = cli("train", "iris", f"--record={wrong}", *SHORT)
    assert shown.code == 2 and "auto, off, or a number of steps" in shown.err


def test_event_files_are_written_along_and_the_run_goes_on_with_them(cli, tmp_path):
    assert cli("train", "iris", "--name", "a", "--record", "5", "--tensorboard", "events", *SHORT).code == 0
    (first,) = (tmp_path / "events").iterdir()
    assert b"parameters/0.weight/update" in first.read_bytes() and b"validation_loss" in first.read_bytes()
    assert cli("resume", "runs/a", "--epochs", "5", "--patience", "0", "-q").code == 0
    assert len(list((tmp_path / "events").iterdir())) == 2
    assert [s["step"] for s in Run.open(tmp_path / "runs/a").snapshots()] == [1, 6, 11, 16]


def test_a_run_is_exported_afterwards(cli, tmp_path):
    cli("train", "iris", "--name", "a", "--record", "5", *SHORT)
    shown = cli("export", "a", "--tensorboard", "events")
    assert shown.code == 0 and "3 recordings" in shown.out and "tensorboard --logdir events" in shown.out
    (file,) = (tmp_path / "events").iterdir()
    assert b"layers/0 Linear/output" in file.read_bytes()
    told = json.loads(cli("export", "a", "--tensorboard", "events", "--json").out)
    assert told["recordings"] == 3 and told["path"].startswith("events")


def test_exporting_what_is_no_run_or_to_where_nothing_can_be_written(cli, tmp_path):
    shown = cli("export", "nothing", "--tensorboard", "events")
    assert shown.code == 2 and "nothing" in shown.err
    cli("train", "iris", "--name", "a", *SHORT)
    (tmp_path / "file").write_text("")
    shown = cli("export", "a", "--tensorboard", "file/events")
    assert shown.code == 2 and "cannot be written" in shown.err
