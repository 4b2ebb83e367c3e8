"""Products with looked-up rows: the same values, on a table."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.engines.reference import ReferenceExecutable
from chainrule.passes.common import common
from chainrule.passes.dead import dead
from chainrule.passes.lookups import lookups
from chainrule.passes.pipeline import optimise
from chainrule.program.program import verify

rng = np.random.default_rng(0)


def products(f, *xs):
    """The sizes of the products that are left; the values are the same."""
    program = optimise(cr.trace_program(f, *xs))
    moved = dead(common(verify(lookups(program))))
    arrays = [np.asarray(x) for x in xs]
    for expected, found in zip(ReferenceExecutable(program)(arrays), ReferenceExecutable(moved)(arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    return [n.shape for n in moved.nodes if n.primitive.name == "matmul"], moved


def inputs(count):
    table, weight = (wrap(rng.uniform(-1, 1, shape)) for shape in ((5, 4), (4, 7)))
    return table, weight, wrap(rng.integers(0, 5, count))


@pytest.mark.parametrize("count", [(6, 2), (40,)])
def test_a_projection_of_an_embedding_is_one_of_the_table(count):
    def f(table, weight, numbers):
        def loss(table, weight):
            y = cr.reshape(cr.take(table, numbers, axis=0), (-1, 4)) @ weight
            return cr.sum(cr.tanh(y) ** 2)

        return cr.value_and_grad(loss, (0, 1))(table, weight)

    shapes, program = products(f, *inputs(count))
    assert sorted(shapes) == [(4, 7), (5, 4), (5, 7)]
    assert [n.primitive.name for n in program.nodes if n.ndim == 2].count("scatter_add") == 1


def test_the_gradient_of_a_weight_that_stands_turned():
    def f(table, weight, numbers):
        return cr.take(table, numbers, axis=0), cr.grad(lambda w: cr.sum((cr.take(table, numbers, axis=0) @ w.T) ** 3))(
            weight.T
        )

    shapes, _ = products(f, *inputs((40,)))
    assert all(rows <= 7 for rows, _ in shapes)


@pytest.mark.parametrize("steps_first", [False, True])
def test_rows_in_another_order(steps_first):
    """A network that takes the batch first, before one that goes along the steps."""

    def f(table, weight, numbers):
        def loss(table, weight):
            x = cr.take(table, numbers, axis=0)
            x = cr.permute_dims(x, (1, 0, 2)) if steps_first else x
            y = cr.reshape(x, (-1, 4)) @ weight
            return cr.sum(cr.tanh(y) ** 2 * cr.reshape(cr.arange(12, dtype=cr.float64), (12, 1)))

        return cr.value_and_grad(loss, (0, 1))(table, weight)

    shapes, program = products(f, *inputs((6, 2)))
    assert sorted(shapes) == [(4, 7), (5, 4), (5, 7)]
    moved = [n.shape for n in program.nodes if n.primitive.name == "transpose" and n.ndim == 3]
    assert not moved


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_rows_that_nobody_looks_up_do_no_harm(number):
    table, weight, _ = inputs((1,))
    numbers = wrap(np.arange(12) % 4)  # not the last row

    def f(table, weight):
        return cr.value_and_grad(lambda t, w: cr.sum((cr.take(t, numbers, axis=0) @ w) ** 2), (0, 1))(table, weight)

    broken = np.asarray(table).copy()
    broken[4] = number
    shapes, _ = products(f, wrap(broken), weight)
    assert sorted(shapes) == [(4, 7), (5, 4), (5, 7)]
    heavy = np.asarray(weight).copy()
    heavy[1, 2] = number
    products(f, table, wrap(heavy))


def test_few_lookups_in_a_long_table_stay():
    f = lambda table, weight, numbers: cr.take(table, numbers, axis=0) @ weight
    assert products(f, *inputs((3,)))[0] == [(3, 7)]


def test_rows_added_to_others_stay():
    def f(table, weight, numbers):
        return cr.scatter_add(table, numbers, cr.ones((40, 7), dtype=cr.float64) @ weight.T)

    assert products(f, *inputs((40,)))[0] == [(40, 4)]


@pytest.mark.parametrize("count", [(6, 2), (40,)])
@pytest.mark.parametrize("shape", [(7,), (1, 7)])
def test_a_row_that_is_added_to_all_is_added_to_the_table(count, shape):
    row = wrap(rng.uniform(-1, 1, shape))

    def f(table, weight, numbers, row):
        y = cr.reshape(cr.take(table, numbers, axis=0), (-1, 4)) @ weight
        return row + y, y * 2.0

    _, program = products(f, *inputs(count), row)
    assert [n.shape for n in program.nodes if n.primitive.name == "add" and n.dtype == cr.float64] == [(5, 7)]


@pytest.mark.parametrize("shape", [(40, 7), (40, 1), (1, 1)])
def test_other_addends_stay(shape):
    def f(table, numbers, other):
        return cr.take(table, numbers, axis=0) + other

    table = wrap(rng.uniform(-1, 1, (5, 7)))
    _, program = products(f, table, inputs((40,))[2], wrap(rng.uniform(-1, 1, shape)))
    assert [n.shape for n in program.nodes if n.primitive.name == "add" and n.dtype == cr.float64] == [(40, 7)]
