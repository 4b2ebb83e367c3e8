"""What moves elements, looks up, adds up by numbers, and works along an axis: shared out among threads, bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import GUARDED, bits, native, on_threads, reference

from chainrule import dtypes, errors
from chainrule.core.tensor import full, tensor, wrap
from chainrule.engines.native import boxes, singles
from chainrule.engines.native.division import Columns, Rows, Single
from chainrule.primitives import ALL, index, layout

THREADS = (2, 3, 4, 7)


@pytest.fixture(autouse=True)
def everything_is_shared_out(monkeypatch):
    monkeypatch.setattr(singles, "WORTH", 0)


def numbers(*shape, dtype=np.float32, seed=0):
    """With zeros of both signs, and what is not a number."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype) == np.bool_:
        return wrap(rng.random(shape) < 0.5)
    x = rng.integers(0, 9, shape).astype(dtype)
    return wrap(np.where(rng.random(shape) < 0.1, np.array(-0.0), x).astype(dtype))


def shares(compiled):
    """The cuts of the kernels of single nodes."""
    return [k.share for k in compiled.engine.compiled[0][3].kernels if k.form == "single"]


def same_everywhere(f, *inputs, alone=False):
    """A function gives the bits of the reference engine, on any threads; the cuts."""
    compiled = native(f)
    found = bits(compiled(*inputs))
    assert found == bits(reference(f)(*inputs))
    if not GUARDED:
        for threads in THREADS:
            other = on_threads(compiled, threads)
            assert all(bits(other(*inputs)) == found for _ in range(3)), threads
    cuts = shares(compiled)
    assert alone or not any(isinstance(cut, Single) for cut in cuts), cuts
    return cuts


# -- moving


@pytest.mark.parametrize("worth", [0, 1 << 20])
def test_one_number_far_apart(worth, monkeypatch):
    """Found by recipes: a constant with places between its elements along the last axis."""
    apart = {"low": (1, 2, 0), "high": (2, 2, 2), "interior": (1, 0, 1)}
    monkeypatch.setattr(singles, "WORTH", worth)
    for number in (1, -0.0, 7):
        never, ones = full((2, 3, 4), False, dtypes.bool_), full((2, 3, 4), number, dtypes.float32)
        same_everywhere(lambda x: layout.pad(ALL["where"](never, x, ones), **apart), numbers(2, 3, 4), alone=True)  # noqa: B023


@pytest.mark.parametrize("shape", [(40, 3), (3, 40), (2, 3, 17), (5, 200), (300,), (1, 33, 4), (2, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bfloat16, dtypes.bool_, dtypes.int64], ids=str)
def test_padding(shape, dtype):
    ones, zeros, n = (1,) * len(shape), (0,) * len(shape), len(shape)
    last = (*zeros[:-1], 2)

    def f(x, y):
        sizes = ((ones, zeros, zeros), (zeros, last, last), (last, ones, ones), (zeros, ones, zeros))
        for low, high, interior in sizes:
            yield layout.pad(x, low=low, high=high, interior=interior)
            yield layout.pad(layout.flip(y, (n - 1,)), low=low, high=high, interior=interior)
            yield layout.pad(layout.transpose(x, axes=tuple(reversed(range(n)))), low=low, high=high, interior=interior)
            yield layout.pad(full(shape, 1, dtype), low=low, high=high, interior=interior)
            start = layout.slice(x, start=zeros, stop=(*shape[:-1], 1), step=ones)
            yield layout.pad(layout.broadcast(start, shape=shape), low=low, high=high, interior=interior)

    same_everywhere(lambda x, y: list(f(x, y)), numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("lengths", [(1, 1), (20, 1, 30), (3, 5), (64, 200)])
def test_concatenation(axis, lengths):
    def shape(n):
        return tuple(n if a == axis else s for a, s in enumerate((4, 3, 5)))

    def f(xs):
        yield layout.concat(*xs, axis=axis)
        turned = [layout.transpose(x, axes=(2, 1, 0)) for x in xs]
        yield layout.concat(*turned, axis=2 - axis)
        yield layout.concat(*xs, full(shape(2), 0.0, dtypes.float32), full(shape(70), -0.0, dtypes.float32), axis=axis)
        positions = index.iota(shape=shape(9), axis=axis, dtype=dtypes.float32)
        yield layout.concat(positions, *xs, full(shape(1), 3.0, dtypes.float32), axis=axis)

    same_everywhere(lambda xs: list(f(xs)), [numbers(*shape(n), seed=n) for n in lengths])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.data(),
    st.sampled_from([np.float32, np.float64, np.uint8, dtypes.float16]),
)
def test_any_padding_of_any_order(shape, data, dtype):
    each = st.tuples(*[st.integers(0, 3)] * len(shape))
    low, high, interior = (data.draw(each) for _ in range(3))
    axes = data.draw(st.permutations(range(len(shape))))

    def f(x):
        return layout.pad(layout.transpose(x, axes=tuple(axes)), low=low, high=high, interior=interior)

    same_everywhere(f, numbers(*shape, dtype=dtype), alone=True)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 300, 1100])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float16, dtypes.uint8, dtypes.bool_], ids=str)
def test_rows_of_any_length(width, dtype):
    table, number = numbers(11, width, dtype=dtype), wrap(np.arange(33).reshape(3, 11) * 7 % 11)
    assert same_everywhere(lambda t, i: index.take(t, i), table, number) == [Rows(33, 1, 0)]


def test_few_long_rows_are_shared_out_by_their_columns():
    table, number = numbers(5, 1500), wrap(np.array([4, 0, 4]))
    assert same_everywhere(lambda t, i: index.take(t, i), table, number) == [Columns(24, singles.LINE)]


def test_all_ways_of_moving_bytes_are_taken():
    """Short, in a loop, with a rest, by the system."""
    assert boxes.INLINE * 64 < 1100 < boxes.LONG < 4 * 1500
    for width in (1025, 2000):
        same_everywhere(lambda t, i: index.take(t, i), numbers(40, width), wrap(np.arange(40)[::-1].copy()))


# -- adding up by numbers


@pytest.mark.parametrize("width", [1, 3, 16, 64, 65, 200])
def test_sums_by_number_add_in_order(width):
    rng = np.random.default_rng(2)
    updates = wrap(rng.normal(size=(300, width)).astype(np.float32))
    number, table = wrap(rng.integers(0, 40, 300)), wrap(rng.normal(size=(40, width)).astype(np.float32))
    starts = (0.0, -0.0, 2.5)
    cuts = same_everywhere(
        lambda t, i, u: [
            index.scatter_add(t, i, u),
            *[index.scatter_add(full((40, width), s, dtypes.float32), i, u) for s in starts],
        ],
        table,
        number,
        updates,
    )
    assert set(cuts) <= {Rows(40, 1, 0), Columns(-(-width // 16), 16), Columns(-(-width // 8), 8)} | {
        Columns(-(-width // 4), 4)
    }


def test_a_number_that_sums_begin_with_needs_no_memory():
    def f(i, u):
        return index.scatter_add(full((1000, 70), 0.0, dtypes.float32), i, u)

    compiled = native(f)
    compiled(wrap(np.array([3, 999])), numbers(2, 70))
    kernels = compiled.engine.compiled[0][3].kernels
    assert [k.form for k in kernels] == ["single"]


def test_sums_in_several_dtypes():
    number = wrap(np.array([2, 0, 2, 2, 1]))
    for dtype in (dtypes.float64, dtypes.int32, dtypes.uint8, dtypes.bfloat16):
        for width in (1, 70):
            same_everywhere(
                lambda t, i, u: index.scatter_add(t, i, u),
                numbers(3, width, dtype=dtype), number, numbers(5, width, dtype=dtype, seed=3),
            )  # fmt: skip


# -- along an axis


@pytest.mark.parametrize("shape", [(40, 6, 5), (2, 6, 40), (3, 300), (300, 3), (1, 7, 33)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lines(shape, axis):
    axis %= len(shape)

    def f(x):
        found = [ALL["cumsum"](x, axis=axis, reverse=r) for r in (False, True)]
        found += [ALL[name](x, axes=(axis,)) for name in ("argmax", "argmin")]
        return found + [index.argsort(x, axis=axis, descending=d) for d in (False, True)]

    one_vector = axis == 0 and shape[0] == 300  # of neighbouring lines, which cannot be shared out
    same_everywhere(f, numbers(*shape), alone=one_vector)


# -- how it is cut


def test_what_is_small_stays_on_one_thread(monkeypatch):
    monkeypatch.undo()
    compiled = native(lambda x: [layout.concat(x, x, axis=0), layout.pad(x, low=(1, 0), high=(0, 0), interior=(0, 0))])
    compiled(numbers(20, 20))
    assert shares(compiled) == [Single(), Single()]
    compiled = native(lambda x: layout.concat(x, x, axis=0))
    compiled(numbers(200, 100))
    assert shares(compiled) == [Rows(400, 1, 0)]


# -- errors


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("width", [1, 70, 1500])
def test_a_number_outside_is_reported_whoever_finds_it(threads, width):
    def take(t, i, u):
        return index.take(t, i)

    def scatter_add(t, i, u):
        return index.scatter_add(t, i, u)

    table, updates = numbers(50, width), numbers(40, width)
    for f in (take, scatter_add):
        compiled = native(f, threads=threads)
        for at in (0, 17, 39):
            wrong = np.arange(40)
            wrong[at] = 50 + at
            with pytest.raises(errors.IndexOutOfRange, match=f"index {50 + at} is outside of an axis of size 50"):
                compiled(table, wrap(wrong), updates)
        right = wrap(np.arange(40))
        assert bits(compiled(table, right, updates)) == bits(f(table, right, updates))


def test_of_several_numbers_outside_one_is_named():
    wrong = tensor(np.arange(40) + 1000)
    compiled = native(lambda t, i: [index.take(t, i), index.take(t * 2.0, i + 1)], threads=4)
    for _ in range(20):
        with pytest.raises(errors.IndexOutOfRange) as caught:
            compiled(numbers(50, 3), wrong)
        number = int(str(caught.value).split()[1])
        assert 1000 <= number <= 1040
