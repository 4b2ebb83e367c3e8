"""Moving elements about, against NumPy."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import chainrule.functions as cr
from chainrule.compile import compile
from chainrule.core.autodiff import grad
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import ConfigError, DTypeError, ShapeError, TracedValueError

DTYPES = [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]


def numbered(shape: tuple[int, ...], dtype: Any = np.int64) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


def assert_same(y: Tensor, expected: np.ndarray) -> None:
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(y), expected)


@st.composite
def any_array(draw: st.DrawFn, min_dims: int = 0, max_dims: int = 4, min_side: int = 0) -> np.ndarray:
    shape = draw(arrays.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=4))
    return numbered(shape, draw(st.sampled_from(DTYPES)))


def axis_in(x: np.ndarray) -> st.SearchStrategy[int]:
    return st.integers(-x.ndim, x.ndim - 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_permute_moveaxis_flip(data: st.DataObject) -> None:
    x = data.draw(any_array())
    order = data.draw(st.permutations(range(x.ndim)))
    assert_same(cr.permute_dims(x, tuple(order)), np.transpose(x, order))
    if x.ndim:
        k = data.draw(st.integers(1, x.ndim))
        source, destination = tuple(order[:k]), tuple(a - x.ndim for a in data.draw(st.permutations(range(x.ndim)))[:k])
        assert_same(cr.moveaxis(x, source, destination), np.moveaxis(x, source, destination))
        axes = data.draw(arrays.valid_tuple_axes(x.ndim))
        assert_same(cr.flip(x, axis=axes), np.flip(x, axes))
    assert_same(cr.flip(x), np.flip(x))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reshape(data: st.DataObject) -> None:
    x = data.draw(any_array(min_side=1))
    size, shape = x.size, []
    while size > 1:
        n = data.draw(st.sampled_from([k for k in range(2, size + 1) if size % k == 0]))
        shape.append(n)
        size //= n
    assert_same(cr.reshape(x, tuple(shape)), x.reshape(shape))
    if shape:
        shape[data.draw(st.integers(0, len(shape) - 1))] = -1
        assert_same(cr.reshape(x, tuple(shape)), x.reshape(shape))
    assert_same(cr.reshape(x, -1), x.reshape(-1))


def test_reshape_of_nothing() -> None:
    nothing = np.zeros((0, 3))
    assert cr.reshape(nothing, (3, 0)).shape == (3, 0)
    assert cr.reshape(nothing, (5, -1)).shape == (5, 0)
    with pytest.raises(ShapeError):
        cr.reshape(nothing, (0, -1))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_expand_and_squeeze(data: st.DataObject) -> None:
    x = data.draw(any_array(max_dims=3))
    axes = data.draw(arrays.valid_tuple_axes(x.ndim + 2, min_size=2, max_size=2))
    wide = cr.expand_dims(x, axis=axes)
    assert_same(wide, np.expand_dims(x, axes))
    assert_same(cr.squeeze(wide, axis=axes), x)
    assert_same(cr.squeeze(wide), np.squeeze(np.expand_dims(x, axes)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_broadcasting(data: st.DataObject) -> None:
    shapes = data.draw(arrays.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0))
    xs = [
        numbered(shape, kind) for shape, kind in zip(shapes.input_shapes, (np.float32, np.int32, np.bool_), strict=True)
    ]
    for x, y, expected in zip(xs, cr.broadcast_arrays(*xs), np.broadcast_arrays(*xs), strict=True):
        assert_same(y, expected)
        assert_same(cr.broadcast_to(x, shapes.result_shape), expected)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_concat_stack_unstack(data: st.DataObject) -> None:
    x = data.draw(any_array(min_dims=1, max_dims=3))
    axis = data.draw(axis_in(x))
    other = x.astype(np.float64) + 100
    expected = np.concatenate([x, other, x], axis=axis).astype(np.float64)
    assert_same(cr.concat([x, tensor(other), x], axis=axis), expected)
    assert_same(cr.concat([x], axis=axis), x)
    assert_same(cr.concat([x, x], axis=None), np.concatenate([x, x], axis=None))
    place = data.draw(st.integers(-x.ndim - 1, x.ndim))
    together = cr.stack([x, x + x, x], axis=place)
    assert_same(together, np.stack([x, x + x, x], axis=place))
    parts = cr.unstack(together, axis=place)
    assert len(parts) == 3
    assert_same(parts[1], x + x)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_roll(data: st.DataObject) -> None:
    x = data.draw(any_array(min_dims=1))
    shift = data.draw(st.integers(-7, 7))
    assert_same(cr.roll(x, shift), np.roll(x, shift))
    axes = data.draw(st.lists(axis_in(x), min_size=1, max_size=3))  # one may come twice
    shifts = [data.draw(st.integers(-7, 7)) for _ in axes]
    assert_same(cr.roll(x, tuple(shifts), axis=tuple(axes)), np.roll(x, shifts, axes))
    assert_same(cr.roll(x, shift, axis=axes[0]), np.roll(x, shift, axes[0]))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_repeat_and_tile(data: st.DataObject) -> None:
    x = data.draw(any_array(min_dims=1, max_dims=3))
    axis, times = data.draw(axis_in(x)), data.draw(st.integers(0, 3))
    assert_same(cr.repeat(x, times, axis=axis), np.repeat(x, times, axis=axis))
    assert_same(cr.repeat(x, times), np.repeat(x, times))
    each = data.draw(arrays.arrays(np.int64, x.shape[axis], elements=st.integers(0, 3)))
    assert_same(cr.repeat(x, tensor(each), axis=axis), np.repeat(x, each, axis=axis))
    reps = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    assert_same(cr.tile(x, reps), np.tile(x, reps))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pad(mode: Any, data: st.DataObject) -> None:
    x = data.draw(any_array(min_dims=1, max_dims=3, min_side=1))
    widths = tuple((data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))) for _ in range(x.ndim))
    assert_same(cr.pad(x, widths, mode=mode), np.pad(x, widths, mode=mode))
    assert_same(cr.pad(x, widths[0], mode=mode), np.pad(x, widths[0], mode=mode))
    assert_same(cr.pad(x, 2, mode=mode), np.pad(x, 2, mode=mode))


def test_pad_with_values() -> None:
    x = numbered((2, 3), np.float32)
    assert_same(cr.pad(x, ((1, 0), (0, 2)), value=-INF), np.pad(x, ((1, 0), (0, 2)), constant_values=-INF))
    assert_same(cr.pad(numbered((2,)), 1, value=7), np.array([7, 0, 1, 7]))
    assert_same(cr.pad(np.zeros((0, 2), np.float32), 1, value=2.0), np.full((2, 4), 2, np.float32))
    with pytest.raises(DTypeError, match="pad"):
        cr.pad(numbered((2,)), 1, value=0.5)
    g = grad(lambda v: cr.sum(cr.pad(tensor([1.0, 2.0]), (1, 2), value=v)))(tensor(5.0))
    assert float(g) == 3


INF = math.inf
x23 = np.ones((2, 3))


@pytest.mark.parametrize(
    "bad",
    [
        lambda: cr.reshape(x23, (4, 2)),
        lambda: cr.reshape(x23, (4, -1)),
        lambda: cr.reshape(x23, (-1, -1)),
        lambda: cr.reshape(x23, (-2, -3)),
        lambda: cr.permute_dims(x23, (0,)),
        lambda: cr.permute_dims(x23, (0, 0)),
        lambda: cr.permute_dims(x23, (0, 2)),
        lambda: cr.moveaxis(x23, (0, 1), 0),
        lambda: cr.moveaxis(x23, 3, 0),
        lambda: cr.expand_dims(x23, 3),
        lambda: cr.expand_dims(x23, (0, 0)),
        lambda: cr.squeeze(x23, 0),
        lambda: cr.squeeze(x23, 5),
        lambda: cr.broadcast_to(x23, (2, 4)),
        lambda: cr.broadcast_to(x23, (3,)),
        lambda: cr.broadcast_to(x23, (-1, 2, 3)),
        lambda: cr.broadcast_arrays(x23, np.ones(2)),
        lambda: cr.concat([]),
        lambda: cr.concat([x23, np.ones(3)]),
        lambda: cr.concat([x23, np.ones((2, 2))]),
        lambda: cr.concat([x23, x23], axis=2),
        lambda: cr.concat([np.ones(()), np.ones(())]),
        lambda: cr.stack([x23, np.ones((3, 2))]),
        lambda: cr.stack([x23], axis=3),
        lambda: cr.unstack(np.ones(())),
        lambda: cr.flip(x23, axis=2),
        lambda: cr.flip(x23, axis=(1, 1)),
        lambda: cr.roll(x23, (1, 2, 3), axis=(0, 1)),
        lambda: cr.roll(x23, 1, axis=2),
        lambda: cr.repeat(x23, -1),
        lambda: cr.repeat(x23, [1, 2, 3], axis=0),
        lambda: cr.repeat(x23, 2, axis=2),
        lambda: cr.tile(x23, (-1,)),
        lambda: cr.pad(x23, ((1, 2), (3, 4), (5, 6))),
        lambda: cr.pad(x23, -1),
        lambda: cr.pad(x23, 0.5),
        lambda: cr.pad(np.ones((0,)), 1, mode="edge"),
    ],
)
def test_what_does_not_fit_is_refused(bad: Callable[[], Any]) -> None:
    with pytest.raises(ShapeError):
        bad()


def test_other_mistakes() -> None:
    with pytest.raises(ConfigError, match="mirror"):
        cr.pad(x23, 1, mode="mirror")
    with pytest.raises(DTypeError, match="repeats"):
        cr.repeat(x23, 1.5)


def test_repeats_must_be_known() -> None:
    with pytest.raises(TracedValueError):
        compile(lambda x, n: cr.repeat(x, n))(tensor([1.0, 2.0]), tensor([1, 2]))


def test_nothing_is_copied_where_nothing_changes() -> None:
    x = tensor(x23)
    assert cr.reshape(x, (2, 3)) is x
    assert cr.broadcast_to(x, (2, 3)) is x
    assert cr.permute_dims(x, (0, 1)) is x
    assert cr.roll(x, 0) is not None
    assert np.asarray(cr.broadcast_to(tensor(1.0), (1000, 1000))).strides == (0, 0)
