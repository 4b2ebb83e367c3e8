"""`resume`: interrupted in every way, the run ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import chainrule
from chainrule.cli import report
from chainrule.train.store import Run

PROGRAM = "from chainrule.cli.main import run; run()"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(chainrule.__file__).parents[1])}
OPTIONS = ["--epochs", "8", "--patience", "0", "--checkpoint-every", "3 steps"]


def same(one, two):
    """Whether two runs ended with the same weights, optimiser and history."""
    for which in ("last", "best"):
        a, b = (Run.open(path).load(which) for path in (one, two))
        assert a.step == b.step
        assert a.tensors.keys() == b.tensors.keys()
        assert all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    times = {"seconds"}
    histories = [
        [{k: v for k, v in row.items() if k not in times} for row in Run.open(p).history()] for p in (one, two)
    ]
    assert histories[0] == histories[1]
    return True


@pytest.fixture
def interrupting(monkeypatch):
    """`interrupting(epoch, signal)`: the signal comes in that epoch, once."""

    def at(epoch, number=signal.SIGINT):
        class Live(report.Live):
            def __init__(self, silent):
                super().__init__(silent)
                inner, self.done = self.epoch, False

                def epoch_and_signal(standing):
                    inner(standing)
                    if standing.epoch == epoch and not self.done:
                        self.done = True
                        signal.raise_signal(number)

                self.epoch = epoch_and_signal

        monkeypatch.setattr(report, "Live", Live)

    return at


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_how_to_go_on_and_resuming_gives_the_same_bits(cli, tmp_path, interrupting, number, code):
    assert cli("train", "iris", *OPTIONS, "--name", "whole", "-q").code == 0
    interrupting(3, number)
    shown = cli("train", "iris", *OPTIONS, "--name", "cut")
    assert shown.code == code
    assert "Go on with: chainrule resume runs/cut" in shown.err
    assert "interrupted" in cli("runs").out
    interrupting(6)
    assert cli("resume", "runs/cut", "-q").code == 130
    interrupting(None)
    shown = cli("resume", "runs/cut", "--json")
    assert shown.code == 0
    assert json.loads(shown.out)["scores"] == json.loads(cli("evaluate", "whole", "--json").out)["scores"]
    assert same(tmp_path / "runs/whole", tmp_path / "runs/cut")


def test_a_run_that_has_ended_stays_as_it_is_and_says_how_to_go_on(cli, iris_run):
    before = cli("evaluate", iris_run).out
    shown = cli("resume", iris_run, "-q")
    assert shown.code == 0
    assert "stopped: all 10 epochs done" in shown.out
    assert "To go on: --epochs 110 --patience 0" in shown.err
    assert cli("evaluate", iris_run).out == before


def test_more_epochs_than_it_had(cli, tmp_path):
    assert cli("train", "iris", "--epochs", 3, "--name", "longer", "-q").code == 0
    assert cli("train", "iris", "--epochs", 6, "--name", "whole", "-q").code == 0
    assert json.loads(cli("resume", "longer", "--epochs", 6, "--json").out)["epochs"] == 6
    a, b = (Run.open(tmp_path / "runs" / name).load("best").tensors for name in ("longer", "whole"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_another_patience(cli):
    shown = cli("train", "iris", "--lr", 1e-9, "--patience", 1, "--epochs", 50, "--name", "stuck", "--json")
    ended = json.loads(shown.out)["epochs"]
    assert ended < 50
    assert "patience" in cli("resume", "stuck", "--epochs", 60, "-q").err
    assert json.loads(cli("resume", "stuck", "--epochs", 60, "--patience", 0, "--json").out)["epochs"] == 60


def test_somebody_else_trains_it(cli, iris_run, tmp_path):
    with Run.open(tmp_path / iris_run, train=True):
        shown = cli("resume", iris_run)
    assert shown.code == 2
    assert "is being trained by" in shown.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of Unix")
def test_killed_again_and_again(cli, tmp_path):
    options = [*OPTIONS, "--epochs", "20"]
    assert cli("train", "digits", *options, "--name", "whole", "-q").code == 0
    command = [sys.executable, "-c", PROGRAM]
    arguments = ["train", "digits", *options, "--name", "cut", "-q"]
    for wait in (1.2, 1.5, 1.9, 1.4, 4.0):  # the last: on a slow machine the others may all be too early
        process = subprocess.Popen([*command, *arguments], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
        if (tmp_path / "runs/cut/config.json").exists():
            arguments = ["resume", "cut", "-q"]
    assert arguments[0] == "resume"
    assert cli("resume", "cut", "-q").code == 0
    assert same(tmp_path / "runs/whole", tmp_path / "runs/cut")
