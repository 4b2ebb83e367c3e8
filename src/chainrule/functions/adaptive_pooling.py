"""Adaptive pooling: as many windows as are asked for, as equal as the extents allow.

Of n elements and m windows, window i goes from ⌊i · n / m⌋ to ⌈(i + 1) · n / m⌉; neighbours overlap where m does not
divide n. The gradient of a maximum goes to the first of the largest elements, as in chainrule.functions.pooling.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.lifting import real
from chainrule.functions.pooling import positions
from chainrule.functions.precision import rounded_once
from chainrule.functions.searching import take
from chainrule.functions.windows import (
    batched,
    channels_first,
    channels_last,
    per_axis,
    summed_in_blocks,
    unbatched,
    weighted_along,
)
from chainrule.primitives.window import window_argmax, window_take

OutputSize = int | Sequence[int | None] | None


def _outputs(name: str, x: Tensor, output_size: Any) -> Shape:
    """The extents that are asked for; None keeps one."""
    size = x.shape[2:]
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * len(size)
    if len(given) != len(size):
        raise ConfigError(f"{name}: output_size={output_size!r} has {len(given)} numbers; expected 1 or {len(size)}.")
    if not min(size):
        raise ShapeError(f"{name}: an input of shape {x.shape} has nothing to pool.")
    wanted = tuple(n if m is None else m for n, m in zip(size, given, strict=True))
    return per_axis(name, "output_size", wanted, len(size))


def _bounds(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the m windows over n elements begin and end."""
    i = np.arange(m)
    return i * n // m, -(-(i + 1) * n // m)


def _adaptive_avg_pool(name: str, axes: int, x: Any, output_size: Any) -> Tensor:
    x, is_batch = batched(name, real(name, x), axes)
    wanted = _outputs(name, x, output_size)
    blocks = tuple(1 if n % m else n // m for n, m in zip(x.shape[2:], wanted, strict=True))
    if max(blocks) > 1:
        x = summed_in_blocks(x, blocks) / int(np.prod(blocks))
    for axis, m in enumerate(wanted, start=2):
        n = x.shape[axis]
        if n != m:
            begin, end = _bounds(n, m)
            inside = (np.arange(n) >= begin[:, None]) & (np.arange(n) < end[:, None])
            x = weighted_along(x, axis, inside / (end - begin)[:, None])
    return unbatched(x, is_batch)


def _adaptive_max_pool(name: str, axes: int, x: Any, output_size: Any, return_indices: bool) -> Any:
    x, is_batch = batched(name, real(name, x), axes)
    wanted = _outputs(name, x, output_size)
    size, places = x.shape[2:], []  # places[a] (windows, taps): which element along axis a each tap of each window is
    for axis, (n, m) in enumerate(zip(size, wanted, strict=True), start=2):
        begin, end = _bounds(n, m)
        window = int((end - begin).max())
        # A shorter window repeats its last element, which never wins against itself: the first winner counts.
        places.append(np.minimum(begin[:, None] + np.arange(window), end[:, None] - 1))
        if n % m:
            x = take(x, wrap(places[-1].reshape(-1)), axis=axis)
    kernel = tuple(p.shape[1] for p in places)
    none = (0,) * axes
    attributes = {"window": kernel, "strides": kernel, "low": none, "high": none, "steps": (1,) * axes}
    last = channels_last(x)
    winners = window_argmax(last, **attributes)
    y = unbatched(channels_first(window_take(last, winners, **attributes)), is_batch)
    if not return_indices:
        return y
    return y, unbatched(channels_first(positions(winners, places, size)), is_batch)


@rounded_once
def adaptive_avg_pool1d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Averages along one axis, `output_size` of them, whatever the extent.

    x (N, C, L) or (C, L) -> (N, C, output_size). Raises ConfigError for a size that is no positive whole number,
    ShapeError for an input that does not fit.

    >>> import chainrule as cr
    >>> cr.adaptive_avg_pool1d(cr.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[2.0, 4.0]]]
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, x, output_size)


@rounded_once
def adaptive_avg_pool2d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Averages over two axes, (H', W') of them, whatever the extents.

    x (N, C, H, W) or (C, H, W) -> (N, C, *output_size); one number stands for both, None keeps an extent. Errors as in
    `adaptive_avg_pool1d`.

    >>> import chainrule as cr
    >>> cr.adaptive_avg_pool2d(cr.ones((5, 3, 7, 9)), (1, None)).shape
    (5, 3, 1, 9)
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, x, output_size)


@rounded_once
def adaptive_avg_pool3d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Averages over three axes, (D', H', W') of them, whatever the extents.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, *output_size); one number stands for all, None keeps an extent. Errors
    as in `adaptive_avg_pool1d`.

    >>> import chainrule as cr
    >>> cr.adaptive_avg_pool3d(cr.ones((2, 3, 4, 5, 6)), 2).shape
    (2, 3, 2, 2, 2)
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, x, output_size)


def adaptive_max_pool1d(x: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest elements along one axis, `output_size` of them, whatever the extent.

    x (N, C, L) or (C, L) -> (N, C, output_size); with `return_indices` also where each stands along L, int64. The
    gradient goes to the first of equal winners. Errors as in `adaptive_avg_pool1d`.

    >>> import chainrule as cr
    >>> cr.adaptive_max_pool1d(cr.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[3.0, 5.0]]]
    """
    return _adaptive_max_pool("adaptive_max_pool1d", 1, x, output_size, return_indices)


def adaptive_max_pool2d(x: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest elements over two axes, (H', W') of them, whatever the extents.

    x (N, C, H, W) or (C, H, W) -> (N, C, *output_size); one number stands for both, None keeps an extent. Indices count
    through an image, row by row. Errors as in `adaptive_avg_pool1d`.

    >>> import chainrule as cr
    >>> cr.adaptive_max_pool2d(cr.ones((5, 3, 7, 9)), 2).shape
    (5, 3, 2, 2)
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, x, output_size, return_indices)


def adaptive_max_pool3d(x: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest elements over three axes, (D', H', W') of them, whatever the extents.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, *output_size); sizes, indices and errors as in `adaptive_max_pool2d`.

    >>> import chainrule as cr
    >>> cr.adaptive_max_pool3d(cr.ones((2, 3, 4, 5, 6)), (2, 2, None)).shape
    (2, 3, 2, 2, 6)
    """
    return _adaptive_max_pool("adaptive_max_pool3d", 3, x, output_size, return_indices)
