"""Images and signals at another resolution: `interpolate`, with PyTorch's modes and arguments.

| mode                       | each new element is                                                         |
|----------------------------|-----------------------------------------------------------------------------|
| nearest                    | the old one at ⌊i · step⌋, which lies half an element off                    |
| nearest-exact              | the old one at ⌊(i + ½) · step⌋                                              |
| linear, bilinear, trilinear| between its two neighbours along each axis, by distance                      |
| bicubic                    | on a cubic through four neighbours along each axis                           |
| area                       | the average over the window that it stands for, as in adaptive pooling       |

All but the first two are a product with a matrix of constants along each axis, so derivatives are products again.
Element i stands at (i + ½) · step − ½, where step is the old extent n over the new one m, so that the borders of both
images coincide; with `align_corners` at i · (n − 1) / (m − 1), so that the centres of the corner elements do.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions import adaptive_pooling
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.functions.searching import take
from chainrule.functions.windows import AXES_NAMED, per_axis, weighted_along
from chainrule.primitives.layout import broadcast, reshape

AXES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}  # of space, that a mode is for
MODES = ("nearest", "nearest-exact", *AXES, "area")
AREA = {
    1: adaptive_pooling.adaptive_avg_pool1d,
    2: adaptive_pooling.adaptive_avg_pool2d,
    3: adaptive_pooling.adaptive_avg_pool3d,
}


@rounded_once
def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """The same signal, image or volume with other extents.

    x (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> (N, C, *size). Give `size`, or `scale_factor`: then extents are
    ⌊n · scale_factor⌋, and steps 1 / scale_factor, or with `recompute_scale_factor` n over the new extent. Modes:
    "nearest", "nearest-exact", "linear" (one axis), "bilinear" and "bicubic" (two), "trilinear" (three), "area".
    `antialias` (bilinear and bicubic) takes wider windows when it makes images smaller, as image libraries do. Raises
    ConfigError for arguments that do not go together, ShapeError for another number of axes. Source: Keys, "Cubic
    convolution interpolation for digital image processing" (1981), with a = −¾, and −½ with antialias.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[1.0, 3.0]]])
    >>> cr.interpolate(x, scale_factor=2).tolist()
    [[[1.0, 1.0, 3.0, 3.0]]]
    >>> cr.interpolate(x, size=4, mode="linear").tolist()
    [[[1.0, 1.5, 2.5, 3.0]]]
    """
    x = as_tensor(x) if mode.startswith("nearest") else real("interpolate", x)
    _check(x, mode, align_corners, antialias)
    axes = x.ndim - 2
    wanted, scales = _extents(x, size, scale_factor)
    steps = [n / m for n, m in zip(x.shape[2:], wanted, strict=True)]
    if scales is not None and not recompute_scale_factor:
        steps = [1 / s for s in scales]
    if mode == "area":
        return AREA[axes](x, wanted)
    if mode.startswith("nearest"):
        shift = 0.5 if mode == "nearest-exact" else 0.0
        places = zip(x.shape[2:], wanted, steps, strict=True)
        return _taken(x, [_nearest(n, m, step, shift) for n, m, step in places])
    for axis, (m, step) in enumerate(zip(wanted, steps, strict=True), start=2):
        n = x.shape[axis]
        if align_corners:
            step = (n - 1) / (m - 1) if m > 1 else 0.0
        weights = _smoothed(n, m, step, mode) if antialias else _between(n, m, step, mode, bool(align_corners))
        if m != n or not np.array_equal(weights, np.eye(n)):
            x = weighted_along(x, axis, weights)
    return x


def _check(x: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode not in MODES:
        raise ConfigError(f"interpolate: mode {mode!r} is unknown. Modes: {', '.join(MODES)}.")
    axes = x.ndim - 2
    if axes not in AXES_NAMED or axes != AXES.get(mode, axes):
        named = [AXES_NAMED[AXES[mode]]] if mode in AXES else AXES_NAMED.values()
        expected = " or ".join(f"(N, C, {n})" for n in named)
        raise ShapeError(f"interpolate: mode {mode!r} takes {expected}; got shape {x.shape}.")
    if align_corners is not None and mode not in AXES:
        raise ConfigError(f"interpolate: align_corners is for {', '.join(AXES)}; mode {mode!r} has no use for it.")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ConfigError(f"interpolate: antialias is for bilinear and bicubic, not for mode {mode!r}.")
    if not min(x.shape[2:]):
        raise ShapeError(f"interpolate: an input of shape {x.shape} has nothing to interpolate.")


def _extents(x: Tensor, size: Any, scale_factor: Any) -> tuple[Shape, tuple[float, ...] | None]:
    """The new extents, and the scale factors if they were given."""
    axes = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ConfigError("interpolate: give either size or scale_factor.")
    if size is not None:
        return per_axis("interpolate", "size", size, axes), None
    given = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * axes
    if len(given) != axes or not all(isinstance(s, (int, float)) and math.isfinite(s) and s > 0 for s in given):
        raise ConfigError(
            f"interpolate: scale_factor is a positive number or {axes} of them; got {scale_factor!r:.80}."
        )
    wanted = tuple(math.floor(n * s) for n, s in zip(x.shape[2:], given, strict=True))
    if min(wanted) < 1:
        raise ConfigError(f"interpolate: scale_factor={scale_factor} leaves nothing of shape {x.shape}.")
    return wanted, given


def _nearest(n: int, m: int, step: float, shift: float) -> np.ndarray:
    """Which of n elements each of m becomes."""
    i = np.arange(m)
    if step == n / m:  # without rounding: i · (n / m) may fall short of a whole number
        return (2 * i + int(2 * shift)) * n // (2 * m)
    return np.minimum(np.floor((i + shift) * step), n - 1).astype(np.int64)


def _taken(x: Tensor, places: list[np.ndarray]) -> Tensor:
    """The elements at `places`, along each axis of space; whole repetitions are a broadcast."""
    factors = []
    for axis, place in enumerate(places, start=2):
        n, m = x.shape[axis], len(place)
        whole = m % n == 0 and np.array_equal(place, np.repeat(np.arange(n), m // n))
        factors.append(m // n if whole else 1)
        if not whole:
            x = take(x, wrap(place), axis=axis)
    if max(factors) == 1:
        return x
    space = x.shape[2:]
    apart = reshape(x, shape=(*x.shape[:2], *[k for n in space for k in (n, 1)]))
    wide = broadcast(apart, shape=(*x.shape[:2], *[k for pair in zip(space, factors, strict=True) for k in pair]))
    return reshape(wide, shape=(*x.shape[:2], *[n * f for n, f in zip(space, factors, strict=True)]))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The weight of a neighbour at this distance (Keys, equation 4, with `a` for its −½)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0.0)


def _between(n: int, m: int, step: float, mode: str, align_corners: bool) -> np.ndarray:
    """(m, n): the weights of the old elements in each new one. What lies outside is the outermost element."""
    at = np.arange(m) * step if align_corners else (np.arange(m) + 0.5) * step - 0.5
    cubic = mode == "bicubic"
    if not cubic:
        at = np.clip(at, 0, n - 1)
    weights = np.zeros((m, n))
    for tap in range(-1, 3) if cubic else range(2):
        place = np.floor(at) + tap
        weight = _cubic(at - place, -0.75) if cubic else _linear(at - place)
        np.add.at(weights, (np.arange(m), np.clip(place, 0, n - 1).astype(np.int64)), weight)
    return weights


def _smoothed(n: int, m: int, step: float, mode: str) -> np.ndarray:
    """(m, n): weights over windows as wide as a step, for images that get smaller, normalised to sum to 1."""
    width = max(step, 1.0)
    shape: Callable[[np.ndarray], np.ndarray] = _linear if mode == "bilinear" else lambda d: _cubic(d, -0.5)
    reach = width * (1 if mode == "bilinear" else 2)
    centre = (np.arange(m) + 0.5) * step
    first = np.maximum(np.trunc(centre - reach + 0.5), 0)
    last = np.minimum(np.trunc(centre + reach + 0.5), n)
    j = np.arange(n)
    inside = (j >= first[:, None]) & (j < last[:, None])
    weights = np.where(inside, shape((j + 0.5 - centre[:, None]) / width), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
