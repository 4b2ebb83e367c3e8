"""The libraries that are timed side by side do the same work: the same losses, in every mode."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as command
from benchmarks import runner, workloads
from benchmarks.peers import MODES
from benchmarks.progress import Progress

TOLERANCE = 1e-4


@pytest.mark.parametrize("peer", ["torch", "jax"])
@pytest.mark.parametrize("name", ["mlp-tiny", "ae", "mlp-tab-all", "float64"])
def test_the_first_losses_are_the_same(name, peer):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    plan = runner.Plan((peer,), "reference", 1, **command.QUICK)
    outcome = runner.measure(workloads.find(name, quick=True), plan, Progress(100))
    assert [m.error for m in outcome.measured] == [""] * len(outcome.measured)
    assert {m.entry.mode for m in outcome.measured} == {*MODES["chainrule"], *MODES[peer]}
    expected = outcome.measured[0].losses
    assert len(set(expected)) == 3
    for m in outcome.measured:
        np.testing.assert_allclose(m.losses, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=m.entry.title)


def test_scikit_learn_trains():
    """It has weights of its own, so there is only to see that it runs, on classes, one number, and many."""
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    plan = runner.Plan(("sklearn",), "reference", 1, **command.QUICK)
    for name in ("mlp-tab", "float64"):
        outcome = runner.measure(workloads.find(name, quick=True), plan, Progress(100))
        assert outcome.sound
        assert outcome.best_peer.seconds > 0
