"""Sums of pieces that do not overlap, and lookups in order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.programs import assert_keeps, kernels, names, real, run, traced

import chainrule as cr
from chainrule import dtypes, nn
from chainrule.core.tensor import full, wrap
from chainrule.engines.native.lowering import lower
from chainrule.passes.dead import dead
from chainrule.passes.disjoint import disjoint
from chainrule.passes.grouping import Grouping
from chainrule.primitives import index, layout
from chainrule.program.program import observe, verify


def joined(f, *inputs):
    """The primitives after the pass, whose values have the same bits."""
    program = traced(f, *inputs)
    after = dead(verify(disjoint(program)))
    for a, b in zip(run(after, *inputs), run(program, *inputs), strict=True):
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    return names(after)


def zeros_of_both_signs(*shape, dtype="float32"):
    x = np.random.default_rng(1).normal(size=shape).astype(dtype)
    return wrap(np.where(x > 0.5, np.array(-0.0, dtype), x))


def around(x, axis, start, size):
    """x with zeros around it."""
    low = [start if a == axis else 0 for a in range(x.ndim)]
    high = [size - start - x.shape[axis] if a == axis else 0 for a in range(x.ndim)]
    return layout.pad(x, low=tuple(low), high=tuple(high), interior=(0,) * x.ndim)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16], ids=str)
def test_pieces_that_cover_everything_are_joined(dtype):
    x, y, z = (zeros_of_both_signs(3, n, dtype=dtype) for n in (2, 5, 1))
    assert joined(lambda x, y, z: around(y, 1, 2, 8) + (around(z, 1, 7, 8) + around(x, 1, 0, 8)), x, y, z) == ["join"]


def test_whole_numbers_and_truth_values_too():
    x, y = wrap(np.arange(6).reshape(3, 2)), wrap(np.arange(3).reshape(3, 1))
    assert joined(lambda x, y: around(x, 1, 1, 3) + around(y, 1, 0, 3), x, y) == ["join"]


def test_where_no_piece_is_there_are_zeros():
    x, y = real(2, 4), real(3, 4)
    found = joined(lambda x, y: around(x, 0, 1, 9) + around(y, 0, 5, 9), x, y)
    assert [name for name in found if name != "broadcast"] == ["join"]
    program = disjoint(traced(lambda x, y: around(x, 0, 1, 9) + around(y, 0, 5, 9), x, y))
    (join,) = [n for n in program.nodes if n.primitive.name == "join"]
    assert [program.nodes[i].shape[0] for i in join.inputs] == [1, 2, 2, 3, 1]


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y: around(x, 0, 0, 6) + around(y, 0, 1, 6),
        lambda x, y: around(x, 0, 0, 6) + around(x, 0, 0, 6),
        lambda x, y: around(around(x, 0, 0, 3), 1, 0, 3) + around(around(x, 1, 1, 3), 0, 1, 3),
        lambda x, y: (
            layout.pad(x, low=(0, 0), high=(1, 1), interior=(0, 0))
            + layout.pad(x, low=(1, 0), high=(0, 1), interior=(0, 0))
        ),
        lambda x, y: layout.pad(x, low=(0, 0), high=(1, 0), interior=(1, 0)) + around(x, 0, 2, 4),
        lambda x, y: around(x, 0, 0, 6) + (around(y, 0, 4, 6) + 1),
    ],
    ids=["overlap", "twice", "other axes", "both axes", "in steps", "not zero elsewhere"],
)
def test_other_sums_stay_sums(f):
    assert "join" not in joined(f, real(2, 2), real(2, 2))


def test_a_part_of_a_sum_that_overlaps_is_joined():
    x = real(2, 3)
    found = joined(lambda x: (around(x, 0, 0, 4) + around(x, 0, 2, 4)) + around(x, 0, 1, 4), x)
    assert found.count("join") == 1 and found.count("add") == 1


def test_a_sum_on_the_way_that_somebody_else_reads_is_joined_as_well():
    def f(x, y):
        first = around(x, 0, 0, 5) + around(x, 0, 2, 5)
        return first + around(y, 0, 4, 5), first * 2

    assert sorted(n for n in joined(f, real(2, 3), real(1, 3)) if n != "broadcast") == ["join", "join", "mul"]


def test_looking_changes_nothing():
    x = zeros_of_both_signs(2, 3)
    program = traced(lambda x: (around(x, 0, 0, 6) + around(x, 0, 2, 6)) + around(x, 0, 4, 6), x)
    inside = [n for n, node in enumerate(program.nodes) if node.primitive.name in ("pad", "add")]
    plain, seen = disjoint(program), disjoint(observe(program, inside))
    assert run(plain, x)[0].tobytes() == run(seen, x)[0].tobytes()
    for n, value in zip(inside, run(seen, x)[1:], strict=True):
        assert value.tobytes() == run(observe(program, [n]), x)[1].tobytes()


def test_a_sequence_taken_apart_step_by_step():
    def f(x):
        return cr.grad(lambda x: cr.sum(sum(cr.tanh(x[:, t] * (t + 1)) for t in range(9))))(x)

    found = joined(f, real(3, 9, 4))
    assert found.count("join") == 1 and "pad" not in found


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_pieces(data):
    """In any order, nested in any way, with gaps."""
    axis, size = data.draw(st.integers(0, 2)), data.draw(st.integers(2, 12))
    cuts = sorted(data.draw(st.sets(st.integers(0, size), min_size=2, max_size=6)))
    pieces = data.draw(st.permutations(list(pairwise(cuts))))
    pieces = pieces[: data.draw(st.integers(1, len(pieces)))]

    def f(xs):
        pads = [around(x, axis, start, size) for x, (start, _) in zip(xs, pieces, strict=True)]
        while len(pads) > 1:
            k = data.draw(st.integers(0, len(pads) - 2))
            pads[k : k + 2] = [pads[k] + pads[k + 1]]
        return pads[0]

    shapes = [tuple(b - a if k == axis else 2 for k in range(3)) for a, b in pieces]
    xs = [zeros_of_both_signs(*shape) for shape in shapes]
    program = traced(f, xs)
    after = dead(verify(disjoint(program)))
    assert run(after, *xs)[0].tobytes() == run(program, *xs)[0].tobytes()
    assert names(after).count("join") == (len(pieces) > 1)


# -- heads


def test_pieces_that_are_put_in_order_are_joined_before():
    def f(*xs):
        turned = [layout.reshape(layout.transpose(x, axes=(0, 2, 1, 3)), shape=(2, 5, 12)) for x in xs[:2]]
        return around(turned[0], 2, 0, 36) + around(turned[1], 2, 24, 36) + around(xs[2], 2, 12, 36)

    xs = [zeros_of_both_signs(2, 3, 5, 4), zeros_of_both_signs(2, 3, 5, 4), zeros_of_both_signs(2, 5, 12)]
    program = disjoint(traced(f, *xs))
    (join,) = [n for n in program.nodes if n.primitive.name == "join"]
    assert join.shape == (2, 5, 9, 4)
    joined(f, *xs)


def test_pieces_of_other_lengths_are_joined_as_they_are():
    def f(x, y):
        turned = layout.reshape(layout.transpose(x, axes=(0, 2, 1, 3)), shape=(2, 5, 12))
        return around(turned, 2, 0, 15) + around(y, 2, 12, 15)

    assert joined(f, real(2, 3, 5, 4), real(2, 5, 3)).count("join") == 1


def test_attention_puts_its_gradients_together_at_once():
    attention = nn.MultiheadAttention(32, 4, generator=cr.random.Generator(0))
    step = cr.compile(lambda m, x: cr.value_and_grad(lambda m: cr.sum(m(x, x, x)[0] ** 2))(m), engine="reference")
    x = real(4, 16, 32)
    step(attention, x)
    found = [k for k in kernels_of(step.program) if "pad" in k or "join" in k]
    assert found == [["join"]]


def kernels_of(program):
    grouping = Grouping(lower(program))
    return [[grouping.nodes[n].primitive.name for n in k.nodes] for k in grouping.kernels]


# -- lookups in order


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_first_rows_are_a_slice(count):
    x = zeros_of_both_signs(7, 3)
    for shape, axis in (((count,), 0), ((1, count), None)):
        numbers = lambda: index.iota(shape=shape, axis=axis, dtype=dtypes.int32)  # noqa: B023
        assert "take" not in joined(lambda x: index.take(x, numbers()), x)  # noqa: B023


def test_other_lookups_stay():
    x = real(7, 3)
    assert "take" in names(disjoint(traced(lambda x: index.take(x, cr.arange(8)), x)))  # which is an error
    assert "take" in joined(lambda x: index.take(x, cr.arange(3) * 2), x)
    assert "take" in joined(lambda x: index.take(x, wrap(np.array([0, 1, 2]))), x)  # values of constants are not asked
    stretched = lambda x: index.take(x, layout.broadcast(cr.arange(3), shape=(2, 3)))
    assert "take" in joined(stretched, x)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bfloat16, dtypes.int32], ids=str)
@pytest.mark.parametrize("count", [1, 4, 7])
def test_what_is_added_to_the_first_rows_is_joined_with_zeros(count, dtype):
    updates = zeros_of_both_signs(count, 3).astype(dtype)
    f = lambda u: index.scatter_add(full((7, 3), 0, dtype), cr.arange(count), u)
    found = joined(f, updates)
    assert "scatter_add" not in found and ("add" if count == 7 else "join") in found


@pytest.mark.parametrize("start", [1.0, -0.0])
def test_what_is_added_to_something_else_is_not(start):
    f = lambda u: index.scatter_add(full((7, 3), start, dtypes.float32), cr.arange(4), u)
    assert "scatter_add" in joined(f, zeros_of_both_signs(4, 3))


def test_learned_positions_need_no_lookup():
    def f(weight, x):
        return cr.grad(lambda w: cr.sum((index.take(w, cr.arange(5)) + x) ** 2))(weight)

    found = [name for kernel in kernels(f, real(9, 4), real(2, 5, 4)) for name in kernel[2]]
    assert "take" not in found and "scatter_add" not in found and "join" in found


def test_the_values_stay():
    assert_keeps(disjoint, lambda x: cr.grad(lambda x: cr.sum(x[:, :3] * x[:, 3:6] + x[:, 6:]))(x), real(4, 9))
