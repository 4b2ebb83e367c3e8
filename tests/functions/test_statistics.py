"""Reductions against NumPy: axes, dtypes, empty axes; gradients where elements are equal or zero."""

import math
import warnings
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import chainrule.functions as cr
from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor
from chainrule.errors import ShapeError

NAN, INF = math.nan, math.inf
REDUCTIONS = {
    "sum": np.sum, "prod": np.prod, "mean": np.mean, "var": np.var, "std": np.std, "max": np.max, "min": np.min,
}  # fmt: skip


def small_numbers(dtype: Any) -> st.SearchStrategy[Any]:
    kinds = {"f": st.floats(-2, 2, width=32), "b": st.booleans()}
    return kinds.get(np.dtype(dtype).kind, st.integers(0, 3))


@st.composite
def array_and_axes(draw: st.DrawFn, dtype: Any, min_side: int = 0) -> tuple[np.ndarray, Any]:
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=min_side, max_side=4))
    x = draw(arrays.arrays(dtype, shape, elements=small_numbers(dtype)))
    choices: list[st.SearchStrategy[Any]] = [st.none()]
    if shape:
        choices.append(st.integers(-len(shape), len(shape) - 1))
        choices.append(arrays.valid_tuple_axes(len(shape)))
    return x, draw(st.one_of(choices))


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reductions_of_floats(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    x, axis = data.draw(array_and_axes(dtype, min_side=1 if name in ("max", "min") else 0))
    keepdims = data.draw(st.booleans())
    y = getattr(cr, name)(tensor(x), axis=axis, keepdims=keepdims)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # NumPy warns about the mean of nothing
        expected = np.asarray(REDUCTIONS[name](wide, axis=axis, keepdims=keepdims))
    assert y.dtype == dtype
    assert y.shape == expected.shape
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(np.asarray(y), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint32, np.int32, np.int64])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_reductions_of_integers(name: str, dtype: Any, data: st.DataObject) -> None:
    x, axis = data.draw(array_and_axes(dtype, min_side=1))
    y = getattr(cr, name)(tensor(x), axis=axis)
    expected = np.asarray(REDUCTIONS[name](x, axis=axis))
    assert y.dtype == {"sum": np.int64, "prod": np.int64, "mean": np.float32}.get(name, dtype)
    np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-6)


def test_integer_sums_do_not_wrap_around() -> None:
    assert cr.sum(tensor(np.full(300, 255, np.uint8))).item() == 300 * 255
    assert cr.sum(tensor(np.full(4, 2**31 - 1, np.int32))).item() == 4 * (2**31 - 1)
    assert cr.sum(tensor(np.full(4, 2**32 - 1, np.uint32))).item() == 4 * (2**32 - 1)
    assert cr.sum(tensor(np.full(4, 1, np.int32)), dtype=np.int32).dtype == np.int32
    assert cr.mean(tensor(np.full(4, 2**31 - 1, np.int32))).item() == np.float32(2**31 - 1)


def test_nothing_at_all() -> None:
    nothing = tensor(np.zeros((0, 3), np.float32))
    assert cr.sum(nothing, axis=0).tolist() == [0, 0, 0]
    assert cr.prod(nothing, axis=0).tolist() == [1, 1, 1]
    assert cr.sum(nothing, axis=1).shape == (0,)
    assert np.isnan(np.asarray(cr.mean(nothing, axis=0))).all()
    assert np.isnan(np.asarray(cr.var(nothing, axis=0))).all()
    assert cr.max(nothing, axis=1).shape == (0,)
    for f in (cr.max, cr.min):
        with pytest.raises(ShapeError):
            f(nothing, axis=0)


@pytest.mark.parametrize("name", [*REDUCTIONS, "all", "any", "count_nonzero"])
@pytest.mark.parametrize("axis", [2, -3, (0, 2), (0, 0), (1, -1), 1.5, "0", (0, None)])
def test_wrong_axes_are_refused(name: str, axis: Any) -> None:
    with pytest.raises(ShapeError, match=name):
        getattr(cr, name)(tensor(np.ones((2, 3))), axis=axis)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_nan_passes_through(name: str) -> None:
    assert math.isnan(getattr(cr, name)(tensor([1.0, NAN, 2.0])).item())


@pytest.mark.parametrize("half", [dtypes.float16, dtypes.bfloat16])
def test_halves_do_not_overflow_on_the_way(half: Any) -> None:
    x = tensor(np.full(100, 3000.0, np.float32)).astype(half)
    for f, expected in ((cr.mean, 3000.0), (cr.var, 0.0), (cr.std, 0.0)):
        y = f(x)
        assert y.dtype == half
        assert float(y) == pytest.approx(expected, rel=0.01)


# -- variance


@pytest.mark.parametrize("number", [0.1, 1e-30, -7.3, 1e30, 3.3e-5])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_elements_have_variance_zero_and_gradient_zero(number: float, n: int, dtype: Any) -> None:
    x = tensor(np.full(n, number, dtype))
    assert cr.var(x).item() == 0
    assert cr.std(x).item() == 0
    assert cr.sum(cr.abs(grad(cr.std)(x))).item() == 0
    assert cr.sum(cr.abs(grad(lambda x: cr.sum(grad(cr.std)(x)))(x))).item() == 0


def test_the_variance_of_numbers_far_from_zero() -> None:
    x = (np.array([1.0, 2.0, 3.0, 4.0]) + 2.0**20).astype(np.float32)
    assert cr.var(tensor(x)).item() == 1.25


@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_corrections(correction: float) -> None:
    x = np.random.default_rng(0).normal(size=(4, 5))
    expected = np.var(x, axis=1) * 5 / (5 - correction)
    np.testing.assert_allclose(np.asarray(cr.var(tensor(x), axis=1, correction=correction)), expected, rtol=1e-13)
    np.testing.assert_allclose(
        np.asarray(cr.std(tensor(x), axis=1, correction=correction)), np.sqrt(expected), rtol=1e-13
    )


def test_a_correction_of_all_elements_leaves_nothing_to_divide_by() -> None:
    assert math.isnan(cr.var(tensor([1.0]), correction=1).item())
    assert cr.var(tensor([1.0, 2.0]), correction=3).item() == INF


def test_some_rows_of_std_may_be_constant() -> None:
    x = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    g = np.asarray(grad(lambda x: cr.sum(cr.std(x, axis=1)))(tensor(x)))
    np.testing.assert_allclose(g[0], (x[0] - x[0].mean()) / (3 * x[0].std()), rtol=1e-12)
    assert g[1].tolist() == [0, 0, 0]


# -- extremes share their gradient


@pytest.mark.parametrize(("f", "x"), [(cr.max, [1.0, 3.0, 3.0]), (cr.min, [3.0, 1.0, 1.0])])
def test_equals_share_the_gradient(f: Any, x: list[float]) -> None:
    assert grad(f)(tensor(x)).tolist() == [0.0, 0.5, 0.5]


# -- running sums and products


@pytest.mark.parametrize("f", [cr.cumulative_sum, cr.cumulative_prod])
@pytest.mark.parametrize("include_initial", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_cumulative(f: Any, include_initial: bool, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int32, np.uint8, np.bool_]))
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    x = data.draw(arrays.arrays(dtype, shape, elements=small_numbers(dtype)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    y = f(tensor(x), axis=axis, include_initial=include_initial)
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64)
    expected = (np.cumsum if f is cr.cumulative_sum else np.cumprod)(wide, axis=axis)
    if include_initial:
        first_shape = [1 if a == axis % x.ndim else n for a, n in enumerate(shape)]
        first = np.full(first_shape, 0 if f is cr.cumulative_sum else 1, wide.dtype)
        expected = np.concatenate([first, expected], axis=axis)
    assert y.dtype == (dtype if x.dtype.kind == "f" else np.int64)
    np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-5, atol=1e-5)


def test_cumulative_needs_an_axis() -> None:
    for f in (cr.cumulative_sum, cr.cumulative_prod):
        with pytest.raises(ShapeError, match="say along which"):
            f(tensor(np.ones((2, 2))))
        with pytest.raises(ShapeError):
            f(tensor(1.0))
        with pytest.raises(ShapeError):
            f(tensor([1.0]), axis=1)


@pytest.mark.parametrize("zeros", [[], [0], [2], [0, 3], [1, 2, 4]])
def test_products_with_zeros_have_right_derivatives(zeros: list[int]) -> None:
    x = np.array([1.5, -0.5, 2.0, 0.7, -1.2])
    x[zeros] = 0
    check_gradients(cr.prod, tensor(x), order=2)
    check_gradients(cr.cumulative_prod, tensor(x), order=2)
