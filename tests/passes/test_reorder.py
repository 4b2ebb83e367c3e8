"""Values in short rows are put in order before they are met element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, plans, real

import chainrule as cr
from chainrule.passes.reorder import reorder, reorders


def momentum(weight, mean, gradient):
    """An update that meets a turned gradient twice, once with itself."""
    g = cr.permute_dims(gradient, (3, 2, 0, 1))
    mean = 0.9 * mean + g
    return weight - 0.1 * mean / cr.sqrt(g * g + 1.0), mean


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (3, 2, 16, 33), (1, 7, 4, 4), (1, 1, 3, 5), (2, 2, 1, 1)])
def test_updates_of_turned_gradients(shape, dtype):
    turned = tuple(shape[k] for k in (3, 2, 0, 1))
    arrays = [real(*s, dtype=dtype) for s in (turned, turned, shape)]
    compare(momentum, *arrays, others=(1, 3), rtol={"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}[dtype])


def test_all_but_the_copy_is_flat():
    compiled = compare(momentum, real(32, 16, 3, 3), real(32, 16, 3, 3), real(3, 3, 16, 32))
    (plan,) = plans(compiled)
    forms = {planned.form: [plan.grouping.nodes[n].primitive for n in planned.kernel.nodes] for planned in plan.kernels}
    assert forms["rows"] == [reorder]
    assert "flat" in forms


def test_long_rows_and_what_meets_nothing_in_order_stay_as_they_are():
    wide = cr.trace_program(momentum, cr.zeros((9, 4, 3, 8)), cr.zeros((9, 4, 3, 8)), cr.zeros((3, 8, 4, 9)))
    alone = cr.trace_program(lambda x: cr.exp(cr.permute_dims(x, (1, 0))), cr.zeros((3, 40)))
    assert all(reorders(program) is program for program in (wide, alone))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_of_any_axes(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    axes = data.draw(st.permutations(range(len(shape))))
    turned = tuple(shape[k] for k in axes)

    def f(x, y, z):
        t = cr.permute_dims(x, axes)
        return t * y + t, cr.maximum(t, z), cr.sum(t * t, -1)

    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    arrays = [rng.normal(size=s).astype(np.float32) for s in (shape, turned, turned)]
    compare(f, *arrays, rtol=1e-5)
