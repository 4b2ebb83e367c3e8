"""The libraries that are timed side by side do the same work: the same losses, in every mode."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as command
from benchmarks import runner, workloads
from benchmarks.peers import OWN_MODES, Entry, modes
from benchmarks.progress import Progress
from benchmarks.worker import Job

TOLERANCE = 1e-4


def thorough(*names):
    """Tests that CI does without: starting and compiling takes long."""
    return [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.thorough]) for name in names]


@pytest.mark.parametrize("peer", ["torch", "jax"])
@pytest.mark.parametrize("name", ["mlp-tiny", "mlp-tab-all", *thorough("ae", "float64")])
def test_the_first_losses_are_the_same(name, peer):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    plan = runner.Plan((peer,), "reference", 1, **command.QUICK)
    outcome = runner.measure(workloads.find(name, quick=True), plan, Progress(100))
    assert [m.error for m in outcome.measured] == [""] * len(outcome.measured)
    assert {m.entry.mode for m in outcome.measured} == {*OWN_MODES, *modes(outcome.workload, peer)}
    expected = outcome.measured[0].losses
    assert len(set(expected)) == 3
    for m in outcome.measured:
        np.testing.assert_allclose(m.losses, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=m.entry.title)


EVERY_MODE = ("lenet", "text-cnn", "gru")
IN_CI = ("lenet", "lstm", "gpt", "conv-ae", "text-cnn")
OTHERS = [workload.name for workload in workloads.NETWORKS if workload.name not in IN_CI]


def first_losses(name, entry):
    """What a process of this entry gives."""
    job = Job(name, entry.peer, entry.mode, entry.threads, "reference", 0.01, 1, True)
    process = runner.Worker(job)
    try:
        process.ask(job.to_json())
        return process.ask({"do": "finish"})["losses"]
    finally:
        process.close()


@pytest.mark.parametrize("name", [*IN_CI, *thorough(*OTHERS)])
def test_larger_networks_lose_the_same(name):
    """In the first mode of each peer, and on some networks in all: starting and compiling takes long."""
    w = workloads.find(name, quick=True)
    expected = first_losses(name, Entry("chainrule", "call", 1))
    assert len(set(expected)) == 3
    for peer in ("torch", "jax"):
        if importlib.util.find_spec(peer) is None:
            pytest.skip(f"{peer} is not installed")
        for number, mode in enumerate(modes(w, peer)):
            if name == "conv-ae" or (name in EVERY_MODE and "compiled" not in mode) or not number:
                entry = Entry(peer, mode, 1)
                found = first_losses(name, entry)
                assert len(found) == entry.checked_steps
                np.testing.assert_allclose(
                    found, expected[: len(found)], rtol=TOLERANCE, atol=TOLERANCE, err_msg=entry.title
                )


def test_scikit_learn_trains():
    """It has weights of its own, so there is only to see that it runs, on classes, one number, and many."""
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    plan = runner.Plan(("sklearn",), "reference", 1, **command.QUICK)
    for name in ("mlp-tab", "float64"):
        outcome = runner.measure(workloads.find(name, quick=True), plan, Progress(100))
        assert outcome.sound
        assert outcome.best_peer.seconds > 0
