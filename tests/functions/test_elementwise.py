"""The elementwise functions against NumPy: shapes, dtypes, extreme values, accuracy; gradients at special points."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import chainrule.functions as cr
from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import ChainruleError, DivisionByZero, DTypeError, ShapeError

NAN, INF = math.nan, math.inf
ONE = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh, "exp": np.exp, "expm1": np.expm1,
    "floor": np.floor, "isfinite": np.isfinite, "isinf": np.isinf, "isnan": np.isnan, "log": np.log, "log10": np.log10,
    "log1p": np.log1p, "log2": np.log2, "logical_not": np.logical_not, "negative": np.negative, "positive": np.positive,
    "reciprocal": np.reciprocal, "round": np.rint, "sign": np.sign, "signbit": np.signbit, "sin": np.sin,
    "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square, "tan": np.tan, "tanh": np.tanh, "trunc": np.trunc,
}  # fmt: skip
TWO = {
    "add": np.add, "atan2": np.arctan2, "copysign": np.copysign, "divide": np.divide, "equal": np.equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "hypot": np.hypot, "less": np.less,
    "less_equal": np.less_equal, "logaddexp": np.logaddexp, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor, "maximum": np.maximum, "minimum": np.minimum, "multiply": np.multiply,
    "nextafter": np.nextafter, "not_equal": np.not_equal, "pow": np.power, "remainder": np.remainder,
    "subtract": np.subtract,
}  # fmt: skip
BITS = {
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.left_shift, "bitwise_right_shift": np.right_shift,
}  # fmt: skip
EXTREMES = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 88.9, -88.9, 300.0, -300.0, 709.9, 1e-8, -1e-8, 1e-30, -1e-30,
    1e30, -1e30, 3e38, -3e38, 1e-40, -1e-40, 1e-45, 5e-324, 1e308, -1e308, 2.0**24, 1000.0, INF, -INF, NAN,
]  # fmt: skip
FLOATS = [np.float32, np.float64]


def quietly(f: Callable[..., Any], *inputs: Any) -> Any:
    with np.errstate(all="ignore"):
        return f(*inputs)


def extremes(dtype: Any) -> np.ndarray:
    return quietly(np.array(EXTREMES).astype, dtype)


def assert_close(y: Tensor, expected: np.ndarray, ulps: int = 8) -> None:
    """Equal but for a few units in the last place; infinities, NaN and the signs of zeros must be equal."""
    got = np.asarray(y)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    tiny = float(np.finfo(expected.dtype).smallest_normal) * float(np.finfo(expected.dtype).eps)
    np.testing.assert_allclose(got, expected, rtol=ulps * float(np.finfo(expected.dtype).eps), atol=ulps * tiny)
    zeros = (got == 0) & (expected == 0)
    np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(expected)[zeros])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ONE)
def test_extreme_values_of_functions_of_one(name: str, dtype: Any) -> None:
    x = extremes(dtype)
    assert_close(getattr(cr, name)(tensor(x)), quietly(ONE[name], x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", TWO)
def test_extreme_values_of_functions_of_two(name: str, dtype: Any) -> None:
    a, b = (x.reshape(-1) for x in np.meshgrid(extremes(dtype), extremes(dtype)))
    assert_close(getattr(cr, name)(tensor(a), tensor(b)), quietly(TWO[name], a, b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floor_divide_of_floats(dtype: Any) -> None:
    a, b = (x.reshape(-1) for x in np.meshgrid(extremes(dtype), extremes(dtype)))
    finite = np.isfinite(a) & np.isfinite(b)
    got = np.asarray(cr.floor_divide(tensor(a), tensor(b)))
    np.testing.assert_array_equal(got[finite], quietly(np.floor_divide, a, b)[finite])
    tenths = np.arange(-100, 101) / np.asarray(10, dtype)
    a, b = tenths[:, None].astype(dtype), tenths.astype(dtype)
    np.testing.assert_array_equal(np.asarray(cr.floor_divide(a, b)), quietly(np.floor_divide, a, b))


def test_floor_divide_of_infinities() -> None:
    assert cr.floor_divide(tensor([INF, -INF, 1.0]), tensor([2.0, 2.0, INF])).tolist() == [INF, -INF, 0.0]
    assert math.isnan(float(cr.floor_divide(tensor(INF), INF)))


SMALL_SHAPES = arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0)


def real_elements(dtype: Any) -> st.SearchStrategy[float]:
    return st.floats(-300, 300, width=np.dtype(dtype).itemsize * 8)


@pytest.mark.parametrize("name", ONE)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_functions_of_one_on_any_shape(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    x = data.draw(arrays.arrays(dtype, shape, elements=real_elements(dtype)))
    assert_close(getattr(cr, name)(tensor(x)), np.asarray(quietly(ONE[name], x)))


@pytest.mark.parametrize("name", TWO)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_functions_of_two_broadcast_and_promote(name: str, data: st.DataObject) -> None:
    shapes = data.draw(SMALL_SHAPES)
    kinds = [data.draw(st.sampled_from(FLOATS)) for _ in range(2)]
    a, b = (
        data.draw(arrays.arrays(kind, shape, elements=real_elements(kind)))
        for kind, shape in zip(kinds, shapes.input_shapes, strict=True)
    )
    y = getattr(cr, name)(tensor(a), tensor(b))
    assert y.shape == shapes.result_shape
    wide = np.result_type(a, b)
    assert_close(y, np.asarray(quietly(TWO[name], a.astype(wide), b.astype(wide))))


INTEGERS = [np.uint8, np.uint32, np.int32, np.int64]
SAME_DTYPE = ["abs", "ceil", "floor", "positive", "round", "sign", "square", "trunc"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", SAME_DTYPE)
def test_integers_stay_integers(name: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    x = np.array([0, 1, 2, 15, info.max, info.max - 1, info.min + 1], dtype)
    expected = x if name in ("ceil", "floor", "positive", "round", "trunc") else ONE[name](x)
    assert_close(getattr(cr, name)(tensor(x)), expected)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.bool_])
@pytest.mark.parametrize("name", sorted(set(ONE) - set(SAME_DTYPE) - {"negative", "signbit"}))
def test_integers_become_float32_where_the_result_is_real(name: str, dtype: Any) -> None:
    x = np.array([0, 1, 1, 0] if dtype == np.bool_ else [0, 1, 2, 7], dtype)
    expected = quietly(ONE[name], x.astype(np.float32))
    assert_close(getattr(cr, name)(tensor(x)), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "remainder", "floor_divide", "maximum", "minimum", "pow"]
)
def test_arithmetic_of_integers(name: str, dtype: Any) -> None:
    a, b = np.array([0, 9, 7, 120], dtype), np.array([3, 2, 1, 1], dtype)
    expected = (TWO | {"floor_divide": np.floor_divide})[name](a, b)
    assert_close(getattr(cr, name)(tensor(a), tensor(b)), expected)


@pytest.mark.parametrize("name", ["remainder", "floor_divide"])
def test_signs_of_integer_division(name: str) -> None:
    a, b = np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3])
    assert_close(getattr(cr, name)(tensor(a), tensor(b)), {"remainder": a % b, "floor_divide": a // b}[name])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", BITS)
def test_bits(name: str, dtype: Any) -> None:
    a, b = np.array([0, 1, 6, 100], dtype)[:, None], np.array([0, 1, 3, 7], dtype)
    assert_close(getattr(cr, name)(tensor(a), tensor(b)), BITS[name](a, b))
    assert_close(cr.bitwise_invert(tensor(a)), ~a)


def test_bits_of_truth_values() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert_close(cr.bitwise_and(tensor(a), tensor(b)), a & b)
    assert_close(cr.bitwise_or(tensor(a), b), a | b)
    assert_close(cr.bitwise_xor(tensor(a), True), ~a)
    assert_close(cr.bitwise_invert(tensor(a)), ~a)


@pytest.mark.parametrize(
    ("f", "inputs"),
    [
        (cr.bitwise_and, (1.5, 2.0)),
        (cr.bitwise_invert, (1.5,)),
        (cr.bitwise_left_shift, (True, False)),
        (cr.negative, (True,)),
        (cr.subtract, (np.array([True]), np.array([True]))),
        (cr.sign, (np.array([True]),)),
        (cr.pow, (np.array([2, 3]), -1)),
        (cr.pow, (np.array([2, 3]), np.array([1, -1]))),
        (cr.where, (np.array([1.0]), 1, 2)),
        (cr.nextafter, (np.ones(1, np.float16), np.ones(1, np.float16))),
        (cr.add, (np.ones(1, np.complex64), 1)),
        (cr.add, ("one", 1)),
    ],
)
def test_wrong_dtypes_are_refused(f: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    with pytest.raises(DTypeError):
        f(*inputs)


def test_integer_division_by_zero() -> None:
    with pytest.raises(DivisionByZero):
        cr.floor_divide(tensor([1, 2]), 0)
    with pytest.raises(DivisionByZero):
        cr.remainder(tensor([1, 2]), tensor([1, 0]))


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(ShapeError, match=r"hypot.*\(2,\).*\(3,\)"):
        cr.hypot(tensor([1.0, 2.0]), tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("half", [dtypes.float16, dtypes.bfloat16])
@pytest.mark.parametrize("name", ["sinh", "cosh", "asinh", "acosh", "atanh", "log2", "log10"])
def test_halves_are_computed_in_float32_and_rounded_once(name: str, half: Any) -> None:
    x = tensor(np.array([0.1, 0.7, 1.0, 1.5, 9.7])).astype(half)
    y = getattr(cr, name)(x)
    assert y.dtype == half
    expected = getattr(cr, name)(x.astype(np.float32)).astype(half)
    np.testing.assert_array_equal(np.asarray(y.astype(np.float32)), np.asarray(expected.astype(np.float32)))


# -- accuracy: against a wider float


def magnitudes(low: float, high: float, n: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.exp(rng.uniform(math.log(low), math.log(high), n)) * rng.choice([-1.0, 1.0], n)


WIDER = {np.float32: np.float64, np.float64: np.longdouble}
ACCURACY = [
    ("sinh", np.sinh, magnitudes(1e-30, 89.3)),
    ("cosh", np.cosh, magnitudes(1e-30, 89.3)),
    ("asinh", np.arcsinh, magnitudes(1e-30, 3e38)),
    ("acosh", np.arccosh, np.concatenate([1 + abs(magnitudes(1e-7, 1e3)), abs(magnitudes(1.1, 3e38))])),
    ("atanh", np.arctanh, np.concatenate([magnitudes(1e-30, 0.999), 1 - abs(magnitudes(1e-6, 0.9))])),
    ("log2", np.log2, np.concatenate([abs(magnitudes(1e-37, 3e38)), abs(magnitudes(0.5, 2))])),
    ("log10", np.log10, np.concatenate([abs(magnitudes(1e-37, 3e38)), abs(magnitudes(0.5, 2))])),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "oracle", "x"), ACCURACY, ids=[a[0] for a in ACCURACY])
def test_compositions_are_accurate(name: str, oracle: Callable[..., Any], x: np.ndarray, dtype: Any) -> None:
    x = x.astype(dtype)
    expected = oracle(x.astype(WIDER[dtype]))
    y = np.asarray(getattr(cr, name)(tensor(x))).astype(WIDER[dtype])
    assert np.max(np.abs(y - expected) / np.spacing(np.abs(expected.astype(dtype)))) < 5


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("low", [1e-44, 1e-30, 1e-3, 1e29])
def test_hypot_is_accurate(low: float, dtype: Any) -> None:
    a, b = magnitudes(low, low * 1e6).astype(dtype), magnitudes(low, low * 1e6)[::-1].astype(dtype)
    expected = np.hypot(a.astype(WIDER[dtype]), b.astype(WIDER[dtype]))
    y = np.asarray(cr.hypot(tensor(a), tensor(b))).astype(WIDER[dtype])
    assert np.max(np.abs(y - expected) / np.spacing(np.abs(expected.astype(dtype)))) < 4


def test_sinh_and_cosh_near_overflow() -> None:
    x = tensor(np.array([89.4, -89.4, 89.5, -89.5], np.float32))  # the limit is log(2 · 3.4028e38) = 89.416
    assert np.isfinite(np.asarray(cr.sinh(x))).tolist() == [True, True, False, False]
    assert np.isfinite(np.asarray(cr.cosh(x))).tolist() == [True, True, False, False]


@pytest.mark.parametrize("dtype", FLOATS)
def test_logarithms_of_whole_powers_are_whole(dtype: Any) -> None:
    twos, tens = np.arange(-120, 121), np.arange(-36, 37)
    np.testing.assert_array_equal(np.asarray(cr.log2(tensor((2.0**twos).astype(dtype)))), twos)
    powers = np.array([float(f"1e{k}") for k in tens]).astype(dtype)
    np.testing.assert_array_equal(np.asarray(cr.log10(tensor(powers))), tens)


# -- gradients at special points


def slope(f: Callable[[Tensor], Tensor], x: float, order: int = 1, dtype: Any = np.float64) -> float:
    for _ in range(order):
        f = grad(f)
    with warnings.catch_warnings(action="error"):
        return float(f(tensor(x, dtype=dtype)))


@pytest.mark.parametrize(
    ("f", "x", "first", "second"),
    [
        (cr.abs, 0.0, 0.0, 0.0),
        (cr.sign, 1.0, 0.0, 0.0),
        (cr.floor, 1.5, 0.0, 0.0),
        (cr.round, 0.5, 0.0, 0.0),
        (cr.asinh, 0.0, 1.0, 0.0),
        (cr.asinh, 1e200, 1e-200, 0.0),
        (cr.asinh, -1e200, 1e-200, 0.0),
        (cr.asinh, 1e-200, 1.0, -1e-200),
        (cr.atanh, 0.0, 1.0, 0.0),
        (cr.sinh, 0.0, 1.0, 0.0),
        (cr.cosh, 0.0, 0.0, 1.0),
        (cr.sinh, 710.0, math.cosh(710), math.cosh(710)),
        (cr.tanh, 400.0, 0.0, 0.0),
        (cr.tanh, -400.0, 0.0, 0.0),
        (lambda x: cr.hypot(x, 0.0), 0.0, 0.0, 0.0),
        (lambda x: cr.hypot(x, 4.0), 3.0, 0.6, 0.128),
        (lambda x: cr.logaddexp(x, x), 5.0, 1.0, 0.0),
        (lambda x: cr.logaddexp(x, -INF), 5.0, 1.0, 0.0),
        (lambda x: cr.logaddexp(x, 1e4), 0.0, 0.0, 0.0),
        (lambda x: cr.logaddexp(x, -1e4), 0.0, 1.0, 0.0),
        (lambda x: cr.logaddexp(x, 2.0), 2.0, 0.5, 0.25),
        (lambda x: cr.clip(x, -1, 1), 1.0, 0.0, 0.0),
        (lambda x: cr.clip(x, -1, 1), -1.0, 0.0, 0.0),
        (lambda x: cr.clip(x, -1, 1), 0.5, 1.0, 0.0),
        (lambda x: cr.maximum(x, 0.0), 0.0, 0.5, 0.0),
        (lambda x: cr.maximum(x, x), 0.0, 1.0, 0.0),
        (lambda x: cr.copysign(x, -1.0), 2.0, -1.0, 0.0),
        (lambda x: cr.pow(x, 2), 0.0, 0.0, 2.0),
        (lambda x: cr.log10(1000.0 * x), 1.0, 1 / math.log(10), -1 / math.log(10)),
        (lambda x: cr.where(x > 0, cr.sqrt(x), 0.0), 4.0, 0.25, -1 / 32),
    ],
)
def test_gradients_at_special_points(f: Callable[..., Tensor], x: float, first: float, second: float) -> None:
    assert slope(f, x) == pytest.approx(first, rel=1e-12, abs=0)
    assert slope(f, x, order=2) == pytest.approx(second, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_gradient_of_hypot_neither_over_nor_underflows_in_float32(size: float) -> None:
    x = tensor(np.array([3.0, -4.0], np.float32) * np.float32(size))
    g = grad(lambda x: cr.hypot(x[0], x[1]))(x)
    np.testing.assert_allclose(np.asarray(g), [0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in ONE if n not in ("sign", "signbit") and not n.startswith(("is", "log"))])
def test_nan_stays_nan(name: str) -> None:
    assert math.isnan(float(getattr(cr, name)(tensor(NAN))))


# -- where and clip


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_where_broadcasts_all_three(data: st.DataObject) -> None:
    shapes = data.draw(arrays.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0))
    c, a, b = (
        data.draw(arrays.arrays(kind, shape))
        for kind, shape in zip((np.bool_, np.float32, np.int32), shapes.input_shapes, strict=True)
    )
    y = cr.where(tensor(c), tensor(a), tensor(b))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(y), np.where(c, a, b.astype(np.float32)))


def test_where_with_python_numbers() -> None:
    assert cr.where(tensor([True, False]), 1, 0).tolist() == [1, 0]
    assert cr.where(True, 1.0, 2).dtype == np.float32


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (None, 0.5), (0.5, None), (None, None), (2, -2), (0, INF)])
def test_clip(low: Any, high: Any) -> None:
    x = extremes(np.float64)
    expected = np.clip(x, low, high) if (low, high) != (None, None) else x
    np.testing.assert_array_equal(np.asarray(cr.clip(tensor(x), low, high)), expected)


def test_clip_by_tensors_and_nan() -> None:
    x = tensor(np.array([1.0, 5.0, NAN, 2.0]))
    low = tensor(np.array([2.0, 2.0, 2.0, NAN]))
    np.testing.assert_array_equal(np.asarray(cr.clip(x, low)), [2.0, 5.0, NAN, NAN])
    assert np.isnan(np.asarray(cr.clip(x, max=NAN))).all()
    assert cr.clip(tensor([1, 5, 9]), 2, 7).tolist() == [2, 5, 7]
    assert cr.clip(tensor([1, 5, 9]), 2, 7).dtype == np.int64


def test_everything_raised_on_purpose_is_ours() -> None:
    for bad in (lambda: cr.add("a", 1), lambda: cr.pow(tensor([1]), -1), lambda: cr.add(np.ones(2), np.ones(3))):
        with pytest.raises(ChainruleError):
            bad()
