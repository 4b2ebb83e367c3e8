"""Positions and sorting, against NumPy; gradients of what is taken by position."""

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
from chainrule.errors import ChainruleError, ConfigError, DTypeError, IndexOutOfRange, ShapeError, TracedValueError

NAN, INF = math.nan, math.inf


def assert_same(y: Tensor, expected: np.ndarray) -> None:
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(y), expected)


@st.composite
def few_values(draw: st.DrawFn, min_dims: int = 1, min_side: int = 0) -> np.ndarray:
    """Small whole numbers, so that equals are frequent."""
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8]))
    shape = draw(arrays.array_shapes(min_dims=min_dims, max_dims=3, min_side=min_side, max_side=5))
    return draw(arrays.arrays(dtype, shape, elements=st.integers(0, 3)))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_argmax_argmin(data: st.DataObject) -> None:
    x = data.draw(few_values(min_dims=0, min_side=1))
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1))) if x.ndim else None
    keepdims = data.draw(st.booleans())
    for f, oracle in ((cr.argmax, np.argmax), (cr.argmin, np.argmin)):
        assert_same(f(x, axis=axis, keepdims=keepdims), np.asarray(oracle(x, axis=axis, keepdims=keepdims)))


def test_argmax_of_nan_and_of_nothing() -> None:
    assert cr.argmax(tensor([1.0, NAN, 3.0])).item() == 1
    assert cr.argmin(tensor([1.0, NAN, -3.0])).item() == 1
    assert cr.argmax(np.zeros((0, 3)), axis=1).shape == (0,)
    with pytest.raises(ShapeError):
        cr.argmax(np.zeros((0, 3)), axis=0)
    with pytest.raises(ShapeError):
        cr.argmax(np.zeros(0))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_all_any_count(data: st.DataObject) -> None:
    x = data.draw(few_values(min_dims=0))
    axis = data.draw(st.one_of(st.none(), arrays.valid_tuple_axes(x.ndim)))
    keepdims = data.draw(st.booleans())
    for f, oracle in ((cr.all, np.all), (cr.any, np.any), (cr.count_nonzero, np.count_nonzero)):
        expected = np.asarray(oracle(x, axis=axis, keepdims=keepdims))
        assert_same(
            f(x, axis=axis, keepdims=keepdims), expected.astype(np.int64 if f is cr.count_nonzero else np.bool_)
        )


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_sort_and_argsort(data: st.DataObject) -> None:
    x = data.draw(few_values())
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    assert_same(cr.sort(x, axis=axis), np.sort(x, axis=axis))
    assert_same(cr.argsort(x, axis=axis), np.argsort(x, axis=axis, kind="stable"))
    descending = -x.astype(np.int64)
    assert_same(cr.argsort(x, axis=axis, descending=True), np.argsort(descending, axis=axis, kind="stable"))
    assert_same(cr.sort(x, axis=axis, descending=True), (-np.sort(descending, axis=axis)).astype(x.dtype))


def test_sort_of_nan_and_infinities() -> None:
    x = tensor([NAN, INF, -INF, 0.0, NAN])
    np.testing.assert_array_equal(np.asarray(cr.sort(x)), [-INF, 0, INF, NAN, NAN])
    np.testing.assert_array_equal(np.asarray(cr.sort(x, descending=True)), [NAN, NAN, INF, 0, -INF])


def test_gradients_of_sort_follow_the_elements() -> None:
    weights = tensor([1.0, 2.0, 3.0])
    assert grad(lambda x: cr.sum(cr.sort(x) * weights))(tensor([30.0, 10.0, 20.0])).tolist() == [3, 1, 2]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_searchsorted(data: st.DataObject) -> None:
    kinds = st.sampled_from([np.float32, np.float64, np.int32])
    numbers = st.integers(0, 5)
    a = np.sort(data.draw(arrays.arrays(data.draw(kinds), st.integers(0, 6), elements=numbers)))
    v = data.draw(
        arrays.arrays(data.draw(kinds), arrays.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=numbers)
    )
    side = data.draw(st.sampled_from(["left", "right"]))
    assert_same(cr.searchsorted(a, v, side=side), np.asarray(np.searchsorted(a, v, side=side)))


def test_searchsorted_with_a_sorter_and_python_numbers() -> None:
    a = np.array([3.0, 1.0, 0.1])
    assert cr.searchsorted(a, 0.1, side="right", sorter=cr.argsort(a)).item() == 1
    assert cr.searchsorted(a, 0.1, sorter=np.argsort(a)).item() == 0
    with pytest.raises(ConfigError):
        cr.searchsorted(a, 1.0, side="middle")
    with pytest.raises(ShapeError):
        cr.searchsorted(np.ones((2, 2)), 1.0)


@settings(max_examples=60, deadline=None)
@given(x=few_values())
def test_nonzero(x: np.ndarray) -> None:
    got, expected = cr.nonzero(x), np.nonzero(x)
    assert len(got) == len(expected)
    for y, wanted in zip(got, expected, strict=True):
        assert_same(y, wanted)


def test_nonzero_needs_axes_and_values() -> None:
    with pytest.raises(ShapeError):
        cr.nonzero(tensor(1.0))
    with pytest.raises(TracedValueError, match="nonzero"):
        compile(cr.nonzero)(tensor([1.0]))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_take(data: st.DataObject) -> None:
    x = data.draw(few_values(min_side=1))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    indices = data.draw(arrays.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    assert_same(cr.take(x, indices, axis=axis), np.take(x, indices, axis=axis))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_take_along_axis(data: st.DataObject) -> None:
    x = data.draw(few_values(min_side=1))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    shape = [data.draw(st.sampled_from([1, k])) for k in x.shape]  # the other axes broadcast
    shape[axis] = data.draw(st.integers(0, 4))
    indices = data.draw(arrays.arrays(np.int64, tuple(shape), elements=st.integers(-n, n - 1)))
    assert_same(cr.take_along_axis(x, indices, axis=axis), np.take_along_axis(x, indices, axis=axis))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_scatter_add(data: st.DataObject) -> None:
    x = data.draw(few_values(min_side=1))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    indices = data.draw(arrays.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    a, k = axis % x.ndim, indices.ndim
    taken = np.take(x, indices, axis=axis)
    updates = (np.arange(taken.size).reshape(taken.shape) % 5).astype(x.dtype)
    expected = np.moveaxis(x.copy(), axis, 0)
    front = np.moveaxis(updates, tuple(range(a, a + k)), tuple(range(k)))
    for place in np.ndindex(indices.shape):
        expected[indices[place]] += front[place]
    assert_same(cr.scatter_add(x, indices, updates, axis=axis), np.moveaxis(expected, 0, axis))
    ones = cr.scatter_add(x, indices, np.ones((), x.dtype), axis=axis)
    assert_same(ones, np.asarray(cr.scatter_add(x, indices, np.ones_like(updates), axis=axis)))


def test_gradients_of_what_is_taken_twice_add_up() -> None:
    x, i = tensor([1.0, 2.0, 3.0]), tensor([2, 0, 2])
    assert grad(lambda x: cr.sum(cr.take(x, i)))(x).tolist() == [1, 0, 2]
    assert grad(lambda x: cr.sum(cr.take_along_axis(x, i)))(x).tolist() == [1, 0, 2]
    assert grad(lambda u: cr.sum(cr.scatter_add(x, i, u) * x))(x).tolist() == [3, 1, 3]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_diff(n: int) -> None:
    x = np.random.default_rng(0).integers(0, 9, (3, 4))
    assert_same(cr.diff(x, n=n), np.diff(x, n=n))
    assert_same(cr.diff(x, axis=0, n=n), np.diff(x, axis=0, n=n))


x23 = np.ones((2, 3))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: cr.take(x23, [0]), ShapeError),
        (lambda: cr.take(x23, [0], axis=2), ShapeError),
        (lambda: cr.take(1.0, [0], axis=0), ShapeError),
        (lambda: cr.take(x23, [2], axis=0), IndexOutOfRange),
        (lambda: cr.take(x23, [-3], axis=0), IndexOutOfRange),
        (lambda: cr.take(x23, [0.5], axis=0), DTypeError),
        (lambda: cr.take(x23, [True, False], axis=0), DTypeError),
        (lambda: cr.take(np.ones((0, 2)), [0], axis=0), IndexOutOfRange),
        (lambda: cr.take_along_axis(x23, [0], axis=0), ShapeError),
        (lambda: cr.take_along_axis(x23, [[0], [0], [0]], axis=1), ShapeError),
        (lambda: cr.take_along_axis(x23, [[3]], axis=1), IndexOutOfRange),
        (lambda: cr.scatter_add(x23, [2], [1.0]), IndexOutOfRange),
        (lambda: cr.scatter_add(x23, [0], np.ones((2, 2))), ShapeError),
        (lambda: cr.scatter_add(x23, [0], np.ones((2, 3))), ShapeError),
        (lambda: cr.scatter_add(np.ones(2, np.float32), [0], np.ones(1)), DTypeError),
        (lambda: cr.sort(1.0), ShapeError),
        (lambda: cr.argsort(x23, axis=2), ShapeError),
        (lambda: cr.argmax(x23, axis=(0, 1)), ShapeError),
        (lambda: cr.diff(x23, n=-1), ConfigError),
        (lambda: cr.diff(np.array([True, False])), DTypeError),
        (lambda: cr.diff(1.0), ShapeError),
    ],
)
def test_mistakes(bad: Callable[[], Any], error: type[Exception]) -> None:
    assert issubclass(error, ChainruleError)
    with pytest.raises(error):
        bad()
