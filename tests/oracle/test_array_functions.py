"""Primitives and array functions against PyTorch in float64: values, gradients, gradients of gradients."""

import math

import numpy as np
import pytest
import torch
from tests.functions.cases import CASES

from chainrule import dtypes, tensor
from chainrule.primitives import ALL

SAME_NAME = {
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos", "cosh",
    "divide", "exp", "expm1", "floor", "hypot", "log", "log10", "log1p", "log2", "logaddexp", "maximum", "minimum",
    "multiply", "negative", "positive", "pow", "reciprocal", "remainder", "round", "sign", "sin", "sinh", "sqrt",
    "square", "subtract", "tan", "tanh", "trunc", "where", "sum", "outer", "trace", "diff", "matmul", "tril",
}  # fmt: skip
OTHERWISE = {
    "clip": lambda x: torch.clip(x, -2, 3),
    "clip by tensors": torch.clip,
    "logaddexp of equals": torch.logaddexp,
    "pow of a constant": lambda x: x**3 + x**2.5,
    "sum of an axis": lambda x: x.sum(-1, keepdim=True),
    "prod": lambda x: x.prod(0).prod(1),
    "prod with zeros": torch.prod,
    "max": lambda x: x.amax(0),
    "min": lambda x: x.amin((0, 1)),
    "mean": lambda x: x.mean(1),
    "var": lambda x: x.var(0, correction=0),
    "var of a sample": lambda x: x.var(correction=1, keepdim=True).reshape(1, 1),
    "std": lambda x: x.std((0, 2), correction=1),
    "cumulative_sum": lambda x: torch.nn.functional.pad(x.cumsum(1), (1, 0)),
    "cumulative_prod": lambda x: x.cumprod(-1),
    "cumulative_prod with zeros": lambda x: x.cumprod(0),
    "broadcast_to": lambda x: x.broadcast_to(2, 3, 4),
    "concat": lambda a, b: torch.cat([a, b], 1),
    "concat flat": lambda a, b: torch.cat([a.ravel(), b.ravel()]),
    "expand_dims": lambda x: x[None, ..., None],
    "flip": lambda x: x.flip(1),
    "flip all": lambda x: x.flip(0, 1),
    "moveaxis": lambda x: x.moveaxis((0, 1), (-1, 0)),
    "pad": lambda x: torch.nn.functional.pad(x, (0, 1, 1, 2)),
    "pad by the edge": lambda x: torch.nn.functional.pad(x[None, None], (1, 2, 1, 2), "replicate")[0, 0],
    "pad by reflection": lambda x: torch.nn.functional.pad(x[None, None], (1, 2, 1, 2), "reflect")[0, 0],
    "pad by wrapping": lambda x: torch.nn.functional.pad(x[None, None], (1, 2, 1, 2), "circular")[0, 0],
    "permute_dims": lambda x: x.permute(2, 0, 1),
    "repeat": lambda x: x.repeat_interleave(2, 0),
    "repeat each": lambda x: x.repeat_interleave(torch.tensor([2, 0, 3]), 1),
    "reshape": lambda x: x.reshape(3, -1),
    "roll": lambda x: x.roll((1, -2), (0, 1)),
    "roll flat": lambda x: x.roll(2),
    "squeeze": lambda x: x.squeeze(0),
    "stack": lambda a, b: torch.stack([a, b], -1),
    "tile": lambda x: x.tile(2, 1, 3),
    "linspace": lambda a, b: a + (b - a) * torch.linspace(0, 1, 5, dtype=torch.float64),
    "triu": lambda x: x.triu(1),
    "sort": lambda x: x.sort(0).values,
    "sort descending": lambda x: x.sort(descending=True).values,
    "take": lambda x, i: x[:, i % 3],
    "take_along_axis": lambda x, i: x.take_along_dim(i % 3, 1),
    "scatter_add": lambda x, i, u: x.index_add(1, i, u),
    "diagonal": lambda x: x.diagonal(1, -2, -1),
    "diff": lambda x: x.diff(2),
    "matmul of vectors": torch.matmul,
    "matrix_norm": torch.linalg.matrix_norm,
    "matrix_norm 1": lambda x: torch.linalg.matrix_norm(x, 1),
    "matrix_norm inf": lambda x: torch.linalg.matrix_norm(x, torch.inf, keepdim=True),
    "matrix_transpose": lambda x: x.mT,
    "norm": torch.linalg.vector_norm,
    "norm of columns": lambda x: torch.linalg.vector_norm(x, 3, 0),
    "trace": lambda x: x.diagonal(0, -2, -1).sum(-1),
    "vecdot": lambda a, b: torch.linalg.vecdot(a, b, dim=-2),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "vector_norm 1": lambda x: torch.linalg.vector_norm(x, 1),
    "vector_norm inf": lambda x: torch.linalg.vector_norm(x, torch.inf, 0),
    "tensordot": lambda a, b: torch.tensordot(a, b, ([0, 2], [1, 0])),
    "einsum matrix product": lambda a, b: torch.einsum("ij,jk->ik", a, b),
    "einsum attention": lambda q, k: torch.einsum("bqhd,bkhd->bhqk", q, k),
    "einsum diagonal": lambda a: torch.einsum("...ii->...i", a),
    "einsum three": lambda a, b, c: torch.einsum("i,ij,j", a, b, c),
}
ELSEWHERE = {  # several results, or nothing in PyTorch to compare with; numerical derivatives in tests/functions
    "broadcast_arrays", "meshgrid", "unstack", "full", "full_like", "zeros_like", "ones_like", "pad with a value",
}  # fmt: skip
PIECEWISE_LINEAR_OR_ANGULAR = {"vector_norm inf", "matrix_norm inf", "matrix_norm 1", "vector_norm 1"}


def theirs(name):
    if name in OTHERWISE:
        return OTHERWISE[name]
    return getattr(torch, name) if name in SAME_NAME else None


def closed_over_integers(function, inputs, wrap):
    """The function of the floating-point inputs alone."""

    def call(*floats):
        given = iter(floats)
        return function(*[next(given) if x.dtype == np.float64 else wrap(x) for x in inputs])

    return call


SMOOTH = [c for c in CASES if c.smooth and c.name not in ELSEWHERE]


def test_every_smooth_function_is_compared():
    assert [c.name for c in SMOOTH if theirs(c.name) is None] == []


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
def test_functions(case, agree):
    floats = [x for x in case.inputs if x.dtype == np.float64]
    ours = closed_over_integers(case.function, case.inputs, lambda x: x)
    reference = closed_over_integers(theirs(case.name), case.inputs, torch.from_numpy)
    agree(ours, reference, *floats, order=1 if case.name in PIECEWISE_LINEAR_OR_ANGULAR else 2)


def strided(x, start, stop, step):
    for axis, where in enumerate(zip(start, stop, step, strict=True)):
        x = x.index_select(axis, torch.tensor(range(*where), dtype=torch.int64))
    return x


def placed(x, axis, size, positions):
    """Zeros along an axis, with the elements of x at these positions."""
    shape = list(x.shape)
    shape[axis] = size
    return torch.zeros(shape, dtype=x.dtype).index_copy(axis, torch.as_tensor(positions), x)


def framed(x, low, high, apart):
    """x (batch, *space, ...), its elements so far apart, with so many zeros around it, or so many elements less."""
    for axis, (before, after, step) in enumerate(zip(low, high, apart, strict=True), start=1):
        size = (x.shape[axis] - 1) * step + 1
        x = placed(x, axis, size, range(0, size, step))
        x = placed(x, axis, size + max(before, 0) + max(after, 0), range(max(before, 0), max(before, 0) + size))
        x = x.narrow(axis, max(-before, 0), x.shape[axis] - max(-before, 0) - max(-after, 0))
    return x


def windowed(x, window, strides, steps):
    """(batch, *space, ...) -> (batch, places, taps, ...), both in row-major order."""
    spatial = len(window)
    for axis, (count, stride, step) in enumerate(zip(window, strides, steps, strict=True)):
        places = max(0, x.shape[1 + 2 * axis] - (count - 1) * step - 1 + stride) // stride
        where = torch.arange(places)[:, None] * stride + torch.arange(count) * step
        x = x.index_select(1 + 2 * axis, where.reshape(-1)).unflatten(1 + 2 * axis, (places, count))
    order = (0, *range(1, 2 * spatial, 2), *range(2, 2 * spatial + 1, 2), *range(2 * spatial + 1, x.ndim))
    x = x.permute(order)
    places, rest = x.shape[1 : spatial + 1], x.shape[2 * spatial + 1 :]
    return x.reshape(x.shape[0], math.prod(places), math.prod(window), *rest), places


def convolve(x, w, strides, low, high, input_step, kernel_step):
    taps, places = windowed(framed(x, low, high, input_step), w.shape[:-3], strides, kernel_step)
    y = torch.einsum("npkgi,kgio->npgo", taps, w.reshape(-1, *w.shape[-3:]))
    return y.reshape(x.shape[0], *places, *w.shape[-3::2])


def window_take(x, winners, window, strides, low, high, steps):
    taps, places = windowed(framed(x, low, high, (1,) * len(low)), window, strides, steps)
    chosen = taps.gather(2, winners.reshape(*taps.shape[:2], 1, -1))
    return chosen.reshape(x.shape[0], *places, -1)


def window_put(dy, winners, size, window, strides, low, high, steps):
    total = 0
    for number, tap in enumerate(np.ndindex(*window)):
        given = torch.where(winners == number, dy, 0)
        for axis, (at, n, before, after) in enumerate(zip(tap, size, low, high, strict=True)):
            first, places = at * steps[axis], given.shape[axis + 1]
            where = [first + p * strides[axis] for p in range(places)]
            given = placed(given, axis + 1, n + before + after, where)
        total = total + given
    for axis, (n, before) in enumerate(zip(size, low, strict=True), start=1):
        total = total.narrow(axis, before, n)
    return total


PRIMITIVES = {
    "convolve": convolve, "window_take": window_take, "window_put": window_put,
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg, "pow": torch.pow,
    "mod": torch.remainder, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "sign": torch.sign,
    "abs": torch.abs, "maximum": torch.maximum, "minimum": torch.minimum, "copysign": torch.copysign, "exp": torch.exp,
    "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "sin": torch.sin,
    "cos": torch.cos, "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan,
    "atan2": torch.atan2, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus,
    "erf": torch.erf, "where": torch.where, "matmul": torch.matmul,
    "cast": lambda x, dtype: x.to(torch.float64),
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.permute(axes),
    "broadcast": lambda x, shape: x.broadcast_to(shape),
    "sum": lambda x, axes: x.sum(axes, keepdim=True),
    "max": lambda x, axes: x.amax(axes, keepdim=True),
    "min": lambda x, axes: x.amin(axes, keepdim=True),
    "prod": lambda x, axes: x.prod(axes[0], keepdim=True) if len(axes) == 1 else
        x.prod(axes[0], keepdim=True).prod(axes[1], keepdim=True),
    "cumsum": lambda x, axis, reverse: x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis),
    "slice": strided,
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "take": lambda x, index: x[index],
    "scatter_add": lambda x, index, updates: x.index_put((index,), updates, accumulate=True),
}  # fmt: skip
WITHOUT_COUNTERPART = {"pad", "nextafter"}  # interior padding; PyTorch has no derivative of nextafter


def differentiated():
    for primitive in ALL.values():
        for i, sample in enumerate(primitive.samples):
            wide = sample.attributes.get("dtype", dtypes.float64) == dtypes.float64
            if primitive.vjp is not None and sample.smooth and wide and primitive.name not in WITHOUT_COUNTERPART:
                yield pytest.param(primitive, sample, id=f"{primitive.name}-{i}")


@pytest.mark.parametrize(("primitive", "sample"), list(differentiated()))
def test_primitives(primitive, sample, agree):
    rng = np.random.default_rng(1)
    inputs = [i.draw(rng, np.dtype(np.float64)) for i in sample.inputs]
    reference = PRIMITIVES[primitive.name]

    ours = closed_over_integers(lambda *xs: primitive(*xs, **sample.attributes), inputs, tensor)
    torchs = closed_over_integers(lambda *xs: reference(*xs, **sample.attributes), inputs, torch.from_numpy)
    agree(ours, torchs, *[x for x in inputs if x.dtype == np.float64])
