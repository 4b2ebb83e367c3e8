"""What does not change moves out of loops."""

import numpy as np

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.engines.reference import ReferenceExecutable
from chainrule.passes.hoist import hoist
from chainrule.program.program import verify


def lowered(f, *xs):
    program = cr.trace_program(f, *xs)
    moved = verify(hoist(program))
    arrays = [np.asarray(x) for x in xs]
    for expected, found in zip(ReferenceExecutable(program)(arrays), ReferenceExecutable(moved)(arrays), strict=True):
        np.testing.assert_array_equal(found, expected)
    (loop,) = [n for n in moved.nodes if n.primitive.kind == "control"]
    return [n.primitive.name for n in moved.nodes], [n.primitive.name for n in loop.attributes["body"].nodes]


def real(*shape):
    return wrap(np.random.default_rng(len(shape)).uniform(-1, 1, shape))


def test_the_derivative_of_a_product_turns_its_weight_once():
    def f(h, x, w):
        return cr.grad(lambda w: cr.sum(cr.scan(lambda h, x: (cr.tanh(h @ w) + x, None), h, x)[0]))(w)

    program = cr.trace_program(f, real(2, 4), real(5, 2, 4), real(4, 4))
    bodies = [n.attributes["body"] for n in hoist(program).nodes if n.primitive.kind == "control"]
    assert all("transpose" not in [n.primitive.name for n in body.nodes] for body in bodies)


def test_loops_in_loops():
    def f(h, x, w):
        def outer(h, row):
            last, _ = cr.scan(lambda h, x: (h * cr.sin(w) + x * cr.exp(row[0]), None), h, row)
            return last, None

        return cr.scan(outer, h, x)[0]

    names, inside = lowered(f, real(3), real(4, 5, 3), real(3))
    assert "sin" in names and "sin" not in inside
    assert "exp" in inside  # it changes with the outer step, not with the inner one


def test_numbers_and_what_costs_nothing_stay():
    names, inside = lowered(lambda h, x: cr.scan(lambda h, x: (h * 0.5 + x, None), h, x)[0], real(3), real(4, 3))
    assert "mul" in inside and names.count("mul") == 0
