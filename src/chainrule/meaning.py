"""The `m` that primitive meanings are run with on NumPy arrays: NumPy's names, and the few that NumPy lacks.

A meaning is written once, `lambda m, x: m.tanh(x)`, and run with this module, with the emitter of a compiling engine,
or with another array library. So it may use only the names below and Python's operators.
"""

import builtins
import math
from collections.abc import Callable

import numpy as np
from numpy import (  # noqa: F401  (the vocabulary of meanings)
    abs,
    all,
    any,
    arccos,
    arcsin,
    arctan,
    arctan2,
    argmax,
    argmin,
    ceil,
    concatenate,
    copysign,
    cos,
    cumsum,
    exp,
    expm1,
    flip,
    floor,
    log,
    log1p,
    logical_not,
    maximum,
    minimum,
    nextafter,
    reshape,
    rint,
    sign,
    sin,
    sqrt,
    tan,
    tanh,
    transpose,
    where,
)

from chainrule.blas import single_threaded
from chainrule.errors import DivisionByZero, DTypeError, IndexOutOfRange

# The bits of a result follow from the values alone, not from how they lie in memory, since a pass may spare a copy.
# NumPy's sums and extremes follow the strides; so does BLAS for a vector, for the product of a matrix with itself, and
# on some processors for a small one that it is told to take as a transpose.
SMALL_PRODUCT = 1 << 22
"""Multiplications: for products of up to a million OpenBLAS has other code, a piece for each order of the operands."""


def _in_order(reduction: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda x, **options: reduction(np.ascontiguousarray(x) if x.ndim else x, **options)


max, min, prod, sum = (_in_order(f) for f in (np.max, np.min, np.prod, np.sum))


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of (stacks of) matrices."""
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    small = rows * depth * columns <= SMALL_PRODUCT or rows == 1 or columns == 1
    a, b = (np.ascontiguousarray(x) if small or not _dense(x) else x for x in (a, b))
    if np.may_share_memory(a, b):
        b = b.copy()
    with single_threaded:
        return np.matmul(a, b)


def _dense(x: np.ndarray) -> bool:
    """Whether each matrix is contiguous, by rows or by columns."""
    rows, columns = x.shape[-2:]
    return x.strides[-2:] in ((columns * x.itemsize, x.itemsize), (x.itemsize, rows * x.itemsize))


# erf(x) / x as a polynomial in x² on [0, 1], and exp(x²) (x + 1) erfc(x) as one in (x - 3) / (x + 3) on [1, 6]:
# Chebyshev fits made with mpmath.chebyfit at 40 digits; errors 1.3e-19 and below 1e-18.
_SMALL = (
    5.957176147748911e-11,
    -1.1372848856791674e-09,
    1.4659775274047436e-08,
    -1.6350312701054695e-07,
    1.6461000484121368e-06,
    -1.4925595266831182e-05,
    0.0001205533111164271,
    -0.000854832698083379,
    0.0052239776248180145,
    -0.026866170645076792,
    0.11283791670954879,
    -0.3761263890318375,
    1.1283791670955126,
)
_LARGE = (
    3.3362911910912165e-07,
    1.5820552388630566e-06,
    1.515561147143741e-07,
    -9.01832122163137e-06,
    -1.4980718670570854e-06,
    5.6126012691473006e-05,
    -2.0552756407544187e-05,
    -0.0003672891486442872,
    0.000645814241286808,
    0.0016185691617889284,
    -0.009750689293283725,
    0.021957764011734694,
    -0.02380391310866519,
    -0.010235388898996915,
    0.09902075367944004,
    -0.23092733308380925,
    0.7160046047255598,
)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, computed in float64: within 1 ulp in float32, 3 ulp in float64."""
    z = np.asarray(x, np.float64)
    a = np.abs(z)
    squared = z * z
    small = np.zeros_like(z)
    for c in _SMALL:
        small = small * squared + c
    large = np.zeros_like(z)
    t = (a - 3.0) / (a + 3.0)
    for c in _LARGE:
        large = large * t + c
    large = np.copysign(1.0 - np.exp(-squared) * large / (a + 1.0), z)
    large = np.where(a >= 6.0, np.sign(z), large)
    return np.where(a < 1.0, z * small, large).astype(x.dtype)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a · b + c: rounded once in float32 (save where float64 already rounds to the middle), twice in float64."""
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    return a * b + c


def floor_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide and round down; DivisionByZero for integers by zero."""
    _check_divisor(b)
    return np.floor_divide(a, b)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What is left by `floor_divide`; it has the sign of `b`."""
    _check_divisor(b)
    return np.remainder(a, b)


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a` to the power of `b`; DTypeError for an integer to a negative one."""
    if b.dtype.kind == "i" and np.any(b < 0):
        raise DTypeError("an integer to a negative power is a fraction. Convert first: x.astype(cr.float32).")
    return np.power(a, b)


def _check_divisor(b: np.ndarray) -> None:
    if b.dtype.kind in "iu" and not np.all(b):
        raise DivisionByZero("an integer is divided by zero.")


def astype(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert; floats become integers by truncation."""
    return x.astype(dtype)


def broadcast_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A view with stride 0 along the repeated axes, made directly: numpy.broadcast_to takes twice as long."""
    lead = len(shape) - x.ndim
    strides = [0] * lead + [0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)]
    if x.dtype.hasobject or x.size == 0:
        return np.broadcast_to(x, shape)
    if not x.flags.c_contiguous:
        return np.broadcast_to(x, shape)
    return np.ndarray(shape, x.dtype, x, 0, strides)


def take(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of `x` along its first axis; IndexError for an index outside."""
    _check_index(index, x.shape[0])
    return x[index]


def scatter_add(x: np.ndarray, index: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """A copy of `x` with `updates` added at its rows `index`, in the order of the index: repeated rows add up."""
    _check_index(index, x.shape[0])
    result = x.copy()
    np.add.at(result, index, updates)
    return result


def _check_index(index: np.ndarray, size: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= size):
        worst = index.min() if index.min() < 0 else index.max()
        raise IndexOutOfRange(f"index {worst} is outside of an axis of size {size}.")


def pad(x: np.ndarray, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> np.ndarray:
    """Zeros before, after and between the elements of each axis."""
    shape = [a + n + builtins.max(n - 1, 0) * i + b for n, a, b, i in zip(x.shape, low, high, interior, strict=True)]
    result = np.zeros(shape, x.dtype)
    ends = [a + builtins.max(n * (i + 1) - i, 0) for n, a, i in zip(x.shape, low, interior, strict=True)]
    inner = [slice(a, end, i + 1) for a, end, i in zip(low, ends, interior, strict=True)]
    result[tuple(inner)] = x
    return result


def argsort(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """A stable order along `axis`; NaN stands last when ascending and first when descending, as in PyTorch."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    n = x.shape[axis]
    return n - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


def iota(shape: tuple[int, ...], axis: int | None, dtype: np.dtype) -> np.ndarray:
    """The position of each element along `axis`, or with None its position in the flat array."""
    if axis is None:
        return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=dtype).reshape(shape)
    line = np.arange(shape[axis], dtype=dtype).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(line, shape)


# -- windows: see primitives.convolve and primitives.window for what the attributes mean


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    input_step: tuple[int, ...],
    kernel_step: tuple[int, ...],
) -> np.ndarray:
    """x (batch, *space, groups, in) with w (*window, groups, in, out): windows in rows, and one product a group."""
    spatial, window = len(strides), w.shape[:-3]
    groups, taken, out = w.shape[-3:]
    places = _windowed(_framed(x, low, high, input_step, 0), window, strides, kernel_step)
    taps = math.prod(window) * taken
    kernel = np.moveaxis(w, -3, 0).reshape(groups, taps, out)
    result = np.zeros((*places.shape[: spatial + 1], groups, out), x.dtype)
    for g in range(groups if result.size and taps else 0):
        rows = places[..., g, :].reshape(-1, taps)
        result[..., g, :] = matmul(rows, kernel[g]).reshape(result[..., g, :].shape)
    return result


def _framed(
    x: np.ndarray, low: tuple[int, ...], high: tuple[int, ...], steps: tuple[int, ...], fill: float
) -> np.ndarray:
    """x (batch, *space, ...) spread by `steps`, with so many elements more (or less) before and after each axis."""
    spatial = len(low)
    sizes = [builtins.max(0, (n - 1) * s + 1) for n, s in zip(x.shape[1:], steps, strict=False)]
    shape = [builtins.max(0, n + a + b) for n, a, b in zip(sizes, low, high, strict=True)]
    result = np.full((x.shape[0], *shape, *x.shape[spatial + 1 :]), fill, x.dtype)
    into, of = [slice(None)], [slice(None)]
    for n, a, step, size in zip(x.shape[1:], low, steps, shape, strict=False):
        first = builtins.max(0, -(a // step))  # the first element that is not cut off
        last = builtins.min(n, (size - 1 - a) // step + 1)
        of.append(slice(first, builtins.max(first, last)))
        into.append(
            slice(first * step + a, builtins.max(first, last) * step + a - step + 1 if last > first else 0, step)
        )
    if all([s.stop > (s.start or 0) for s in of[1:]]):
        result[tuple(into)] = x[tuple(of)]
    return result


def _windowed(x: np.ndarray, window: tuple[int, ...], strides: tuple[int, ...], steps: tuple[int, ...]) -> np.ndarray:
    """A view (batch, *places, *window, ...) of x (batch, *space, ...)."""
    spatial = len(window)
    free = [n - builtins.max(0, (k - 1) * step + 1) for n, k, step in zip(x.shape[1:], window, steps, strict=False)]
    places = [0 if n < 0 else n // stride + 1 for n, stride in zip(free, strides, strict=True)]
    inner = x.strides[1 : spatial + 1]
    apart = [s * stride for s, stride in zip(inner, strides, strict=True)]
    within = [s * step for s, step in zip(inner, steps, strict=True)]
    shape = (x.shape[0], *places, *window, *x.shape[spatial + 1 :])
    if 0 in shape:
        return np.empty(shape, x.dtype)
    return np.ndarray(shape, x.dtype, x, 0, (x.strides[0], *apart, *within, *x.strides[spatial + 1 :]))


def _taps(
    x: np.ndarray,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    steps: tuple[int, ...],
    fill: float,
) -> np.ndarray:
    """(batch, *places, taps, channels)"""
    places = _windowed(_framed(x, low, high, (1,) * len(low), fill), window, strides, steps)
    spatial = len(window)
    return places.reshape(*places.shape[: spatial + 1], math.prod(window), x.shape[-1])


def window_argmax(x: np.ndarray, window: tuple[int, ...], **attributes: tuple[int, ...]) -> np.ndarray:
    """The number of the first largest tap of each window; NaN wins, and what is outside does only where all is."""
    taps = _taps(x, window, **attributes, fill=-np.inf)
    inside = _taps(np.ones((1, *x.shape[1:-1], 1), bool), window, **attributes, fill=False)
    found = np.argmax(taps, axis=-2)
    lost = ~np.take_along_axis(np.broadcast_to(inside, taps.shape), found[..., None, :], -2)[..., 0, :]
    dtype = np.uint8 if taps.shape[-2] <= 256 else np.int32
    return np.where(lost, np.argmax(inside, axis=-2), found).astype(dtype)


def window_take(
    x: np.ndarray, winners: np.ndarray, window: tuple[int, ...], **attributes: tuple[int, ...]
) -> np.ndarray:
    """The numbered tap of each window; 0 where it lies outside or there is none of this number."""
    taps = _taps(x, window, **attributes, fill=0)
    index = winners.astype(np.int64)[..., None, :]
    known = (index >= 0) & (index < taps.shape[-2])
    found = np.take_along_axis(taps, np.where(known, index, 0), -2)
    return np.where(known, found, 0).astype(x.dtype)[..., 0, :]


def window_put(
    dy: np.ndarray,
    winners: np.ndarray,
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    steps: tuple[int, ...],
) -> np.ndarray:
    """dy at the numbered tap of each window, added up tap after tap."""
    framed = np.zeros(
        (dy.shape[0], *[n + a + b for n, a, b in zip(size, low, high, strict=True)], dy.shape[-1]), dy.dtype
    )
    for number, tap in enumerate(np.ndindex(*window)):
        places = tuple(
            slice(i * step, i * step + (p - 1) * stride + 1 if p else 0, stride)
            for i, step, p, stride in zip(tap, steps, dy.shape[1:], strides, strict=False)
        )
        framed[(slice(None), *places)] += np.where(winners == number, dy, 0)
    ends = zip(low, size, strict=True)
    return framed[(slice(None), *[slice(a, a + n) for a, n in ends])]


def patches(
    x: np.ndarray,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    steps: tuple[int, ...],
    places: tuple[int, ...],
) -> np.ndarray:
    """x (batch, *space, groups, in) -> (groups, batch · places, window · in): windows in rows."""
    axes = zip(x.shape[1:], window, strides, low, steps, places, strict=False)
    high = tuple((p - 1) * s + (k - 1) * t + 1 - a - n for n, k, s, a, t, p in axes)
    found = _windowed(_framed(x, low, high, (1,) * len(low), 0), window, strides, steps)
    return np.moveaxis(found, -2, 0).reshape(x.shape[-2], x.shape[0] * math.prod(places), -1)


def depthwise(
    x: np.ndarray,
    w: np.ndarray,
    strides: tuple[int, ...],
    low: tuple[int, ...],
    steps: tuple[int, ...],
    places: tuple[int, ...],
) -> np.ndarray:
    """x (batch, *space, channels), w (*window, channels) -> (batch, *places, channels)."""
    window, channels = w.shape[:-1], x.shape[-1]
    rows = patches(x[..., None], window, strides, low, steps, places)  # (channels, batch · places, window)
    return matmul(rows, w.reshape(-1, channels).T[..., None])[..., 0].T.reshape(x.shape[0], *places, channels)


def depthwise_gradient(
    x: np.ndarray,
    dy: np.ndarray,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    steps: tuple[int, ...],
) -> np.ndarray:
    """x (batch, *space, channels), dy (batch, *places, channels) -> (*window, channels)."""
    channels = x.shape[-1]
    rows = patches(x[..., None], window, strides, low, steps, dy.shape[1:-1])  # (channels, batch · places, window)
    columns = dy.reshape(-1, channels).T[..., None]
    return matmul(rows.transpose(0, 2, 1), columns).reshape(channels, *window).transpose(*range(1, len(window) + 1), 0)


def spread_product(
    dy: np.ndarray,
    w: np.ndarray,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    steps: tuple[int, ...],
) -> np.ndarray:
    """dy (batch, *places, in), w (in, *window, out) -> (batch, *size, out): each place gives to its window."""
    spatial = len(size)
    reach = [(k - 1) * t for k, t in zip(w.shape[1:], steps, strict=False)]
    before = tuple(r - a for r, a in zip(reach, low, strict=True))
    axes = zip(size, dy.shape[1:], strides, reach, before, strict=False)
    after = tuple(n - builtins.max(0, (p - 1) * s + 1) + r - b for n, p, s, r, b in axes)
    turned = np.moveaxis(np.flip(w, tuple(range(1, spatial + 1))), 0, -2)[..., None, :, :]
    ones = (1,) * spatial
    return convolve(dy[..., None, :], turned, ones, before, after, strides, steps)[..., 0, :]


def gathered_product(
    x: np.ndarray,
    dy: np.ndarray,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    steps: tuple[int, ...],
) -> np.ndarray:
    """x (batch, *space, in), dy (batch, *places, out) -> (out, *window, in): the windows, weighted and added up."""
    rows = patches(x[..., None, :], window, strides, low, steps, dy.shape[1:-1])[0]
    return matmul(dy.reshape(-1, dy.shape[-1]).T, rows).reshape(dy.shape[-1], *window, x.shape[-1])
