"""Transposes that move down and vanish."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.engines.reference import ReferenceExecutable
from chainrule.passes.dead import dead
from chainrule.passes.sink import sink
from chainrule.primitives import layout
from chainrule.program.program import verify


def real(*shape):
    return wrap(np.random.default_rng(len(shape)).uniform(-2, 2, shape))


def last(x):
    return cr.permute_dims(x, (0, 2, 3, 1))


def first(x):
    return cr.permute_dims(x, (0, 3, 1, 2))


def sunk(f, *xs):
    """The Program after the pass, whose values are the same; and how many transposes it has left."""
    program = cr.trace_program(f, *xs)
    lowered = dead(verify(sink(program)))
    arrays = [np.asarray(x) for x in xs]
    for expected, found in zip(ReferenceExecutable(program)(arrays), ReferenceExecutable(lowered)(arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)  # sums follow the order of the elements
    return lowered, sum(n.primitive is layout.transpose for n in lowered.nodes)


def test_there_and_back_is_nothing():
    _, count = sunk(lambda x: last(cr.relu(first(x * 1.5))), real(2, 3, 4, 5))
    assert count == 0


@pytest.mark.parametrize(
    "f",
    [
        lambda x: cr.mean(x, axis=(0, 2, 3), keepdims=True),
        lambda x: x[:, 1:, ::2, ::-1],
        lambda x: cr.softmax(x, axis=1),
        lambda x: (x - cr.mean(x, axis=1, keepdims=True)) * cr.reshape(cr.arange(5, dtype=cr.float64), (1, 5, 1, 1)),
        lambda x: cr.argmax(x, axis=2, keepdims=True).astype(cr.float64) + x,
        lambda x: cr.where(x > 0, x, cr.exp(x)) + 1.0,
    ],
)
def test_what_can_be_done_in_any_order_is(f):
    lowered, _ = sunk(lambda x: last(f(first(x * 1.5))), real(2, 3, 4, 5))
    moved = [lowered.nodes[n.inputs[0]] for n in lowered.nodes if n.primitive is layout.transpose]
    assert all(n.primitive.name in ("constant", "broadcast") for n in moved)


def test_what_depends_on_the_order_gets_the_transpose():
    program, count = sunk(
        lambda x: cr.reshape(cr.relu(first(x * 1.5)), (2, 60)) @ cr.ones((60, 3), dtype=cr.float64), real(2, 3, 4, 5)
    )
    assert count == 1
    assert program.nodes[program.outputs[0].node].shape == (2, 3)


def test_operands_in_two_orders_meet():
    _, count = sunk(lambda x, y: cr.relu(first(x * 1.5)) * (y + 1.0), real(2, 4, 5, 3), real(2, 3, 4, 5))
    assert count == 2  # one for the other operand, one for the result


def test_outputs_keep_their_order():
    program, _ = sunk(first, real(2, 3, 4, 5))
    assert program.nodes[program.outputs[0].node].shape == (2, 5, 3, 4)
