"""Which nodes become one kernel, and what is stored between kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import native
from tests.passes.programs import kernels, real, traced
from tests.program.test_random_programs import Recipe

import chainrule as cr
from chainrule.compile import trace_program
from chainrule.core.tensor import wrap
from chainrule.engines.native.lowering import lower
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import reduction_sizes
from chainrule.passes.views import in_memory
from chainrule.primitives import index, layout


def test_a_chain_is_one_kernel():
    assert kernels(lambda x: cr.tanh(x * 2 + 1) / x, real(7, 9)) == [
        ("rows", (7, 9), ["fma", "tanh", "div"], 1),
    ]  # fmt: skip


def test_what_follows_a_product_is_its_epilogue():
    found = kernels(lambda x, w, b: cr.relu(x @ w + b), real(20, 30), real(30, 40), real(40))
    assert found == [("contract", (1, 20, 40), ["matmul", "add", "less_equal", "where"], 1)]


def test_a_product_into_few_columns_is_a_row_operation():
    found = kernels(lambda x, w: cr.softmax(x @ w.T, axis=1), real(20, 30), real(3, 30))
    assert [(kind, sizes) for kind, sizes, _, _ in found] == [("rows", (20, 3))]


def test_softmax_is_one_pass_over_rows():
    assert [k[:2] for k in kernels(lambda x: cr.softmax(x, axis=1), real(20, 30))] == [("rows", (20, 30))]


def test_sums_down_columns_share_a_kernel():
    found = kernels(lambda x: (cr.sum(x, axis=0), cr.sum(x * x, axis=0), cr.max(cr.exp(x), axis=0)), real(20, 30))
    assert [k[:2] for k in found if k[0] == "columns"] == [("columns", (1, 20, 30))]


def test_what_looks_things_up_is_alone():
    found = kernels(lambda x, i: index.take(x + 1, i) * 2, real(9, 4), wrap(np.array([3, 2, 2])))
    assert [k[0] for k in found].count("single") == 1
    assert next(k[2] for k in found if k[0] == "single") == ["take"]


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 4), (1,), ("rows", (3, 4))),
        ((3, 4), (0,), ("columns", (1, 3, 4))),
        ((2, 3, 4), (1,), ("columns", (2, 3, 4))),
        ((2, 3, 4), (1, 2), ("rows", (2, 12))),
        ((3, 1), (1,), ("rows", (3, 1))),
        ((3, 1, 1), (0,), ("rows", (1, 3))),
        ((5,), (), ("rows", (5, 1))),
    ],
)
def test_how_a_reduction_is_cut(shape, axes, expected):
    assert reduction_sizes(shape, axes) == expected


# -- what was found by random Programs


def agree(f, *inputs):
    for a, b in zip(native(f)(*inputs), f(*inputs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)


def test_a_cheap_chain_is_not_made_again_where_it_is_read_in_another_order():
    agree(
        lambda a, b: [layout.reshape(layout.transpose(a + b, axes=(3, 1, 0, 2)), shape=(12,))],
        real(3, 1, 2, 2),
        real(3, 1, 2, 2),
    )


def test_a_single_number_taken_from_what_waits_has_it_stored():
    agree(lambda x, i: [index.take(x, i), layout.slice(index.take(x, i), start=(1, 1), stop=(-1, 2), step=(-2, 1))],
          real(16), wrap(np.array([[1, 2], [3, 4]])))  # fmt: skip


def test_rows_that_are_no_axis_of_memory_are_put_in_order_before_they_are_summed():
    agree(lambda x: [layout.sum(layout.transpose(x, axes=(1, 0, 2)), axes=(1, 2)), x + 1], real(2, 2, 5))


def test_positions_in_a_flat_kernel_count_on():
    agree(lambda: [index.iota(shape=(3, 17), axis=None, dtype=cr.int64) * 2])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31))
def test_every_value_that_is_read_is_computed_there_or_stored_before(seed):
    recipe = Recipe(seed, 25)
    grouping = Grouping(lower(trace_program(recipe.results, *recipe.inputs)))
    stored = set()
    for kernel in grouping.kernels:
        members = set()
        for n in kernel.nodes:
            for x in grouping.bases(n):
                ready = x in members or x in kernel.inputs or not in_memory(grouping.nodes[x])
                assert ready, f"%{n} reads %{x}"
            members.add(n)
        assert {x for x in kernel.inputs if grouping.computed(x)} <= stored
        assert set(kernel.outputs) <= members
        assert not set(kernel.outputs) & stored
        stored |= set(kernel.outputs)
    assert all(grouping.views[o.node].base in stored for o in grouping.program.outputs if grouping.nodes[o.node].size)


def test_reductions_depend_on_sizes_alone():
    """More results change neither the kind nor the cut of a reduction."""
    x = real(33, 20)
    one = kernels(lambda x: cr.sum(cr.exp(x), axis=0), x)
    two = kernels(lambda x: (cr.sum(cr.exp(x), axis=0), cr.exp(x), x * 2), x)
    cut = lambda found: [(k[0], k[1]) for k in found if "sum" in k[2]]
    assert cut(one) == cut(two) == [("columns", (1, 33, 20))]


def test_grouping_is_the_same_each_time():
    f = lambda x, w: cr.grad(lambda w: cr.mean(cr.tanh(x @ w)))(w)
    assert kernels(f, x := real(9, 8), w := real(8, 7)) == kernels(f, x, w)
    assert len(traced(f, x, w).nodes) > 3
