"""One list of calls that covers the functions of the Array API: for gradients, for tracing, for every engine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import chainrule.functions as cr


class Case(NamedTuple):
    """A function of tensors and inputs for it. `smooth`: its derivatives there can be compared with numerical ones."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    smooth: bool = True


rng = np.random.default_rng(7)


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return rng.uniform(low, high, shape)


def apart(*shape: int) -> np.ndarray:
    """Numbers none of which is near another, near 0 or near an integer: away from kinks and ties."""
    n = int(np.prod(shape))
    return (rng.permutation(n) - n // 2 + 0.3 + 0.2 * rng.random(n)).reshape(shape)


def whole(*shape: int, low: int = 0, high: int = 5) -> np.ndarray:
    return rng.integers(low, high, shape)


def truth(*shape: int) -> np.ndarray:
    return rng.random(shape) < 0.5


def case(name: str, function: Callable[..., Any], *inputs: np.ndarray, smooth: bool = True) -> Case:
    return Case(name, function, inputs, smooth)


ELEMENTWISE = [
    case("abs", cr.abs, apart(3, 4)),
    case("acos", cr.acos, real(3, 4, low=-0.8, high=0.8)),
    case("acosh", cr.acosh, real(3, 4, low=1.5, high=4)),
    case("acosh large", cr.acosh, np.array([1e9, 1e12, 1.1]), smooth=False),
    case("add", cr.add, real(3, 1), real(4)),
    case("asin", cr.asin, real(3, 4, low=-0.8, high=0.8)),
    case("asinh", cr.asinh, real(3, 4)),
    case("asinh large", cr.asinh, np.array([-1e9, 1e300, 1e-300]), smooth=False),
    case("atan", cr.atan, real(3, 4)),
    case("atan2", cr.atan2, real(3, 4), real(4, low=0.5)),
    case("atanh", cr.atanh, real(3, 4, low=-0.8, high=0.8)),
    case("bitwise_and", cr.bitwise_and, whole(3, 4), whole(4), smooth=False),
    case("bitwise_invert", cr.bitwise_invert, whole(3, 4), smooth=False),
    case("bitwise_left_shift", cr.bitwise_left_shift, whole(3, 4), whole(4), smooth=False),
    case("bitwise_or", cr.bitwise_or, truth(3, 4), truth(4), smooth=False),
    case("bitwise_right_shift", cr.bitwise_right_shift, whole(3, 4, low=-90, high=90), whole(4), smooth=False),
    case("bitwise_xor", cr.bitwise_xor, whole(3, 4), whole(4), smooth=False),
    case("ceil", cr.ceil, apart(3, 4)),
    case("clip", lambda x: cr.clip(x, -2, 3), apart(3, 4)),
    case("clip by tensors", cr.clip, apart(3, 4), real(4, low=-3, high=-2), real(3, 1, low=2, high=2.2)),
    case("copysign", cr.copysign, apart(3, 4), apart(4)),
    case("cos", cr.cos, real(3, 4)),
    case("cosh", cr.cosh, real(3, 4)),
    case("divide", cr.divide, real(3, 4), real(4, low=0.5)),
    case("equal", cr.equal, whole(3, 4), whole(4), smooth=False),
    case("exp", cr.exp, real(3, 4)),
    case("expm1", cr.expm1, real(3, 4)),
    case("floor", cr.floor, apart(3, 4)),
    case("floor_divide", cr.floor_divide, whole(3, 4, low=-9, high=9), whole(4, low=1), smooth=False),
    case("greater", cr.greater, real(3, 4), real(4), smooth=False),
    case("greater_equal", cr.greater_equal, whole(3, 4), whole(4), smooth=False),
    case("hypot", cr.hypot, real(3, 4), real(4)),
    case("isfinite", cr.isfinite, np.array([0.0, np.inf, np.nan]), smooth=False),
    case("isinf", cr.isinf, np.array([0.0, -np.inf, np.nan]), smooth=False),
    case("isnan", cr.isnan, np.array([0.0, np.inf, np.nan]), smooth=False),
    case("less", cr.less, real(3, 4), real(4), smooth=False),
    case("less_equal", cr.less_equal, whole(3, 4), whole(4), smooth=False),
    case("log", cr.log, real(3, 4, low=0.3)),
    case("log10", cr.log10, real(3, 4, low=0.3)),
    case("log1p", cr.log1p, real(3, 4, low=-0.6)),
    case("log2", cr.log2, real(3, 4, low=0.3)),
    case("logaddexp", cr.logaddexp, real(3, 4), real(4)),
    case("logaddexp of equals", cr.logaddexp, np.ones(3), np.ones(3)),
    case("logical_and", cr.logical_and, truth(3, 4), truth(4), smooth=False),
    case("logical_not", cr.logical_not, truth(3, 4), smooth=False),
    case("logical_or", cr.logical_or, truth(3, 4), whole(4, high=2), smooth=False),
    case("logical_xor", cr.logical_xor, truth(3, 4), real(4), smooth=False),
    case("maximum", cr.maximum, apart(3, 4), real(4, low=-0.2, high=0.2)),
    case("minimum", cr.minimum, apart(3, 4), real(4, low=-0.2, high=0.2)),
    case("multiply", cr.multiply, real(3, 1), real(4)),
    case("negative", cr.negative, real(3, 4)),
    case("nextafter", cr.nextafter, real(3, 4), real(4), smooth=False),
    case("not_equal", cr.not_equal, whole(3, 4), whole(4), smooth=False),
    case("positive", cr.positive, real(3, 4)),
    case("pow", cr.pow, real(3, 4, low=0.3), real(4)),
    case("pow of a constant", lambda x: cr.pow(x, 3) + cr.pow(x, 2.5), real(3, 4, low=0.3)),
    case("reciprocal", cr.reciprocal, real(3, 4, low=0.5)),
    case("remainder", cr.remainder, real(3, 4, low=1.1, high=1.9), real(4, low=0.8, high=1.0)),
    case("round", cr.round, apart(3, 4)),
    case("sign", cr.sign, apart(3, 4)),
    case("signbit", cr.signbit, real(3, 4), smooth=False),
    case("sin", cr.sin, real(3, 4)),
    case("sinh", cr.sinh, real(3, 4)),
    case("sqrt", cr.sqrt, real(3, 4, low=0.3)),
    case("square", cr.square, real(3, 4)),
    case("subtract", cr.subtract, real(3, 1), real(4)),
    case("tan", cr.tan, real(3, 4, low=-1, high=1)),
    case("tanh", cr.tanh, real(3, 4)),
    case("trunc", cr.trunc, apart(3, 4)),
    case("where", lambda c, a, b: cr.where(c, a, b), truth(3, 4), real(4), real(3, 1)),
]

STATISTICS = [
    case("sum", cr.sum, real(3, 4)),
    case("sum of an axis", lambda x: cr.sum(x, -1, keepdims=True), real(3, 4)),
    case("sum of integers", cr.sum, whole(3, 4), smooth=False),
    case("prod", lambda x: cr.prod(x, axis=(0, 2)), real(2, 3, 2)),
    case("prod with zeros", cr.prod, np.array([[1.0, 0.0, 2.0], [3.0, 4.0, 0.0]])),
    case("max", lambda x: cr.max(x, axis=0), apart(3, 4)),
    case("min", lambda x: cr.min(x, axis=(0, 1)), apart(3, 4)),
    case("mean", lambda x: cr.mean(x, axis=1), real(3, 4)),
    case("mean of integers", cr.mean, whole(3, 4), smooth=False),
    case("var", lambda x: cr.var(x, axis=0), real(3, 4)),
    case("var of a sample", lambda x: cr.var(x, correction=1, keepdims=True), real(3, 4)),
    case("std", lambda x: cr.std(x, axis=(0, 2), correction=1), real(2, 3, 4)),
    case("cumulative_sum", lambda x: cr.cumulative_sum(x, axis=1, include_initial=True), real(3, 4)),
    case("cumulative_prod", lambda x: cr.cumulative_prod(x, axis=-1), real(3, 5)),
    case("cumulative_prod with zeros", cr.cumulative_prod, np.array([1.0, 0.0, 2.0, 0.0, 3.0])),
]

MANIPULATION = [
    case("broadcast_arrays", cr.broadcast_arrays, real(3, 1), real(2)),
    case("broadcast_to", lambda x: cr.broadcast_to(x, (2, 3, 4)), real(3, 1)),
    case("concat", lambda a, b: cr.concat([a, b], axis=1), real(2, 3), real(2, 1)),
    case("concat flat", lambda a, b: cr.concat([a, b], axis=None), real(2, 3), real(2, 1)),
    case("expand_dims", lambda x: cr.expand_dims(x, axis=(0, -1)), real(2, 3)),
    case("flip", lambda x: cr.flip(x, axis=1), real(2, 3)),
    case("flip all", cr.flip, real(2, 3)),
    case("moveaxis", lambda x: cr.moveaxis(x, (0, 1), (-1, 0)), real(2, 3, 4)),
    case("pad", lambda x: cr.pad(x, ((1, 2), (0, 1))), real(2, 3)),
    case("pad with a value", lambda x, v: cr.pad(x, (1, 2), value=v), real(2, 3), real()),
    case("pad by the edge", lambda x: cr.pad(x, (1, 2), mode="edge"), real(2, 3)),
    case("pad by reflection", lambda x: cr.pad(x, (1, 2), mode="reflect"), real(3, 3)),
    case("pad by wrapping", lambda x: cr.pad(x, (1, 2), mode="wrap"), real(2, 3)),
    case("permute_dims", lambda x: cr.permute_dims(x, (2, 0, 1)), real(2, 3, 4)),
    case("repeat", lambda x: cr.repeat(x, 2, axis=0), real(2, 3)),
    case("repeat each", lambda x: cr.repeat(x, np.array([2, 0, 3]), axis=1), real(2, 3)),
    case("reshape", lambda x: cr.reshape(x, (3, -1)), real(2, 3)),
    case("roll", lambda x: cr.roll(x, (1, -2), axis=(0, 1)), real(2, 3)),
    case("roll flat", lambda x: cr.roll(x, 2), real(2, 3)),
    case("squeeze", lambda x: cr.squeeze(x, axis=0), real(1, 3, 1)),
    case("stack", lambda a, b: cr.stack([a, b], axis=-1), real(2, 3), real(2, 3)),
    case("tile", lambda x: cr.tile(x, (2, 1, 3)), real(2, 3)),
    case("unstack", lambda x: cr.unstack(x, axis=1), real(2, 3)),
]

CREATION = [
    case("full", lambda v: cr.full((2, 3), v), real()),
    case("full_like", lambda x, v: cr.full_like(x, v) + x, real(2, 3), real(1)),
    case("linspace", lambda a, b: cr.linspace(a, b, 5), real(), real()),
    case("zeros_like", lambda x: cr.zeros_like(x) + x, real(2, 3)),
    case("ones_like", lambda x: cr.ones_like(x) * x, real(2, 3)),
    case("meshgrid", cr.meshgrid, real(2), real(3), real(2)),
    case("tril", cr.tril, real(2, 3, 3)),
    case("triu", lambda x: cr.triu(x, k=1), real(3, 4)),
]

SEARCHING = [
    case("all", lambda x: cr.all(x, axis=0), truth(2, 5), smooth=False),
    case("any", lambda x: cr.any(x, axis=0, keepdims=True), whole(2, 5, high=2), smooth=False),
    case("argmax", lambda x: cr.argmax(x, axis=1), real(3, 4), smooth=False),
    case("argmax flat", cr.argmax, real(3, 4), smooth=False),
    case("argmin", lambda x: cr.argmin(x, axis=0, keepdims=True), real(3, 4), smooth=False),
    case("argsort", cr.argsort, whole(3, 9), smooth=False),
    case("argsort descending", lambda x: cr.argsort(x, axis=0, descending=True), whole(9, 3), smooth=False),
    case("count_nonzero", lambda x: cr.count_nonzero(x, axis=1), whole(3, 4, high=2), smooth=False),
    case("diff", lambda x: cr.diff(x, n=2), real(3, 4)),
    case("searchsorted", lambda a, v: cr.searchsorted(a, v), np.array([1.0, 2.0, 2.0, 3.0]), real(2, 3), smooth=False),
    case("searchsorted right", lambda a, v: cr.searchsorted(a, v, side="right"), np.arange(4), whole(5), smooth=False),
    case("sort", lambda x: cr.sort(x, axis=0), apart(3, 4)),
    case("sort descending", lambda x: cr.sort(x, descending=True), apart(3, 4)),
    case("take", lambda x, i: cr.take(x, i, axis=1), real(2, 3, 2), whole(2, 2, low=-3, high=3)),
    case("take_along_axis", cr.take_along_axis, real(2, 3), whole(2, 4, low=-3, high=3)),
    case("scatter_add", lambda x, i, u: cr.scatter_add(x, i, u, axis=1), real(2, 3), whole(4, high=3), real(2, 4)),
]

LINEAR_ALGEBRA = [
    case("diagonal", lambda x: cr.diagonal(x, offset=1), real(2, 3, 4)),
    case("matmul", cr.matmul, real(2, 1, 3, 4), real(3, 4, 2)),
    case("matmul of vectors", cr.matmul, real(4), real(4)),
    case("matrix_norm", cr.matrix_norm, real(2, 3, 4)),
    case("matrix_norm 1", lambda x: cr.matrix_norm(x, ord=1), apart(2, 3, 4)),
    case("matrix_norm inf", lambda x: cr.matrix_norm(x, ord=np.inf, keepdims=True), apart(2, 3, 4)),
    case("matrix_transpose", cr.matrix_transpose, real(2, 3, 4)),
    case("norm", cr.norm, real(3, 4)),
    case("norm of columns", lambda x: cr.norm(x, ord=3, axis=0), apart(3, 4)),
    case("outer", cr.outer, real(3), real(4)),
    case("trace", cr.trace, real(2, 3, 4)),
    case("vecdot", lambda a, b: cr.vecdot(a, b, axis=-2), real(2, 3, 4), real(3, 1)),
    case("vector_norm", lambda x: cr.vector_norm(x, axis=1), real(3, 4)),
    case("vector_norm 1", lambda x: cr.vector_norm(x, ord=1), apart(3, 4)),
    case("vector_norm inf", lambda x: cr.vector_norm(x, axis=0, ord=np.inf), apart(3, 4)),
    case("tensordot", lambda a, b: cr.tensordot(a, b, axes=([0, 2], [1, 0])), real(2, 3, 4), real(4, 2, 5)),
    case("einsum matrix product", lambda a, b: cr.einsum("ij,jk->ik", a, b), real(2, 3), real(3, 4)),
    case("einsum attention", lambda q, k: cr.einsum("bqhd,bkhd->bhqk", q, k), real(2, 3, 2, 4), real(2, 5, 2, 4)),
    case("einsum diagonal", lambda a: cr.einsum("...ii->...i", a), real(2, 3, 3)),
    case("einsum three", lambda a, b, c: cr.einsum("i,ij,j", a, b, c), real(3), real(3, 4), real(4)),
]

CASES = ELEMENTWISE + STATISTICS + MANIPULATION + CREATION + SEARCHING + LINEAR_ALGEBRA
