"""The suite again with threads that take turns, in both orders: nobody reads what another one may not have made yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engines.native import suite
from tests.engines.native.suite import bits, native, plans, real
from tests.engines.native.turns import ORDERS

import chainrule as cr
from chainrule import nn
from chainrule.engines.native import cuts, hazards

ROOT = Path(__file__).parents[3]
FILES = (
    "primitives", "functions", "training", "windows", "sparse", "winograd", "sums", "gates", "pitches", "flat",
    "stacks", "images", "loops", "layers", "random",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("one_of", [pytest.param(1, id="all", marks=pytest.mark.thorough), pytest.param(6, id="some")])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("file", FILES)
def test_the_suite_gives_the_same_in_any_order_of_threads(file, order, one_of):
    path = Path(__file__).with_name(f"test_suite_{file}.py")
    some = ("-p", "tests.engines.native.one_of", f"--one-of={one_of}")
    command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *some, "-m", "not slow", str(path)]
    found = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "CHAINRULE_TEST_TURNS": order, "PYTHONPATH": found}
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


def chained(x, w, v):
    return cr.softmax(cr.tanh(x @ w) @ v, axis=1).T @ cr.exp(x @ w)


CHAINED = real(37, 21), real(21, 53), real(53, 21)


@pytest.mark.parametrize("order", ORDERS)
def test_any_order_gives_the_same_bits(order):
    assert bits(native(chained, turns=order)(*CHAINED)) == bits(native(chained, turns=None)(*CHAINED))


def noticed(f, xs, **how):
    """Whether one of the orders gives other bits than one thread does."""
    alone = bits(native(f, turns=None, **how)(*xs))
    return any(bits(native(f, turns=order, **how)(*xs)) != alone for order in ORDERS)


def test_each_barrier_that_is_missing_is_noticed(monkeypatch):
    compiled = native(chained)
    compiled(*CHAINED)
    barriers = [k for k, planned in enumerate(plans(compiled)[0].kernels) if planned.barrier]
    assert len(barriers) > 2
    for missing in barriers:

        def without(plan, missing=missing):
            plan.kernels[missing].barrier = False
            return plan

        with monkeypatch.context() as patch:
            patch.setattr(suite, "verify_plan", without)
            assert noticed(chained, CHAINED), missing


def test_parts_that_read_other_parts_are_noticed(monkeypatch):
    """Where groups were taken for parts of a batch, as chainrule once did."""
    layers = nn.AvgPool2d(2), nn.Tanh(), nn.Conv2d(32, 32, 3, groups=8, generator=cr.random.Generator(0)), nn.Tanh()
    model, x = nn.Sequential(*layers), real(8, 32, 12, 12)

    def gradients(x):
        return tuple(cr.grad(lambda m: cr.sum(m(x) ** 2))(model).values())

    assert not noticed(gradients, [x])
    for module in (cuts, hazards):
        monkeypatch.setattr(module, "reads_own_matrix", lambda *_: True)
    monkeypatch.setattr(suite, "verify_plan", lambda plan: plan)
    assert noticed(gradients, [x])
