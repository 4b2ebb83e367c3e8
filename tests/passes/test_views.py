"""Layout operations as index maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.programs import real, traced
from tests.program.test_random_programs import Recipe

from chainrule.compile import trace_program
from chainrule.engines.native.lowering import lower
from chainrule.passes.views import View, collapse, dense_strides, in_memory, reshaped, split, views
from chainrule.primitives import layout


def elements(view):
    """The element of the base that stands at each place."""
    at = np.full(view.shape, view.offset)
    for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        at = at + stride * np.arange(n).reshape([-1 if k == axis else 1 for k in range(len(view.shape))])
    return at


CASES = {
    "transpose": (lambda x: layout.transpose(x, axes=(2, 0, 1)), (2, 3, 4)),
    "broadcast": (lambda x: layout.broadcast(x, shape=(5, 3, 4)), (3, 1)),
    "slice": (lambda x: layout.slice(x, start=(8, 1), stop=(0, 6), step=(-3, 2)), (9, 7)),
    "reshape": (lambda x: layout.reshape(x, shape=(4, 3, 2)), (2, 3, 4)),
    "reshape of a transpose": (lambda x: layout.reshape(x.T, shape=(2, 2, 3)), (3, 4)),
    "reshape of a slice": (
        lambda x: layout.reshape(layout.slice(x, start=(0, 1), stop=(6, 4), step=(2, 1)), shape=(3, 1, 3)),
        (6, 5),
    ),
    "broadcast of a flip": (lambda x: layout.broadcast(layout.flip(x, (0,)), shape=(2, 7)), (7,)),
    "reshape of a broadcast": (lambda x: layout.reshape(layout.broadcast(x, shape=(3, 4)), shape=(2, 6)), (1, 1)),
    "all of them": (
        lambda x: layout.flip(layout.reshape(layout.broadcast(x.T, shape=(2, 4, 3)), shape=(2, 2, 2, 3)), (1, 3)),
        (3, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_view_names_the_elements(name):
    f, shape = CASES[name]
    x = real(*shape)
    program = traced(f, x)
    out = program.outputs[0].node
    view = views(program)[out]
    assert view.base == program.inputs[0]
    np.testing.assert_array_equal(np.asarray(x).ravel()[elements(view)], np.asarray(f(x)))


def test_a_reshape_that_no_strides_express_has_memory_of_its_own():
    program = traced(lambda x: layout.reshape(x.T, shape=(2, 6)), real(4, 3))
    out = program.outputs[0].node
    assert views(program)[out] == View(out, (2, 6), (6, 1), 0)


def test_collapse_and_split():
    assert collapse((2, 1, 3, 4), (12, 5, 4, 1)) == [(24, 1)]
    assert collapse((3, 4), (-4, -1)) == [(12, -1)]
    assert collapse((2, 3), (0, 0)) == [(6, 0)]
    assert split((2, 3, 4), (12, 4, 1), (2, 12)) == [[(2, 12)], [(12, 1)]]
    assert split((2, 3, 4), (12, 4, 1), (4, 6)) is None
    assert split((5, 1, 1), (1, 1, 1), (5, 1)) == [[(5, 1)], []]


@given(
    st.permutations([2, 3, 4, 1]), st.sampled_from([(24,), (6, 4), (2, 12), (4, 3, 2), (1, 24), (8, 3), (2, 2, 2, 3)])
)
def test_reshaped_strides_are_right_or_none(axes, new):
    x = np.arange(24).reshape(2, 3, 4, 1).transpose([[2, 3, 4, 1].index(n) for n in axes])[::-1]
    strides = tuple(s // x.itemsize for s in x.strides)
    found = reshaped(x.shape, strides, new)
    if found is None:
        assert not np.may_share_memory(x.reshape(new), x)  # NumPy cannot either
    else:
        offset = x.ravel()[0]
        np.testing.assert_array_equal(elements(View(0, new, found, offset)), x.reshape(new))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_no_view_leaves_its_base(seed):
    recipe = Recipe(seed, 20)
    program = lower(trace_program(recipe.results, *recipe.inputs))
    for view in views(program):
        base = program.nodes[view.base]
        if 0 not in view.shape and in_memory(base):
            at = elements(view)
            assert at.min(initial=0) >= 0
            assert at.max(initial=0) < base.size


def test_dense_is_all_of_a_memory_in_order():
    assert View(0, (3, 4), (4, 1)).dense
    assert View(0, (3, 1, 4), (4, 9, 1)).dense
    assert not View(0, (4, 3), (1, 4)).dense
    assert not View(0, (3, 4), (4, 1), 1).dense
    assert not View(0, (3, 4), (0, 1)).dense
    assert dense_strides((2, 3, 4)) == (12, 4, 1)
