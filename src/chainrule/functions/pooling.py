"""Pooling: the largest or the average of each window, with PyTorch's arguments.

The gradient of a maximum goes to the first of the largest elements of a window, in row-major order, and to no other, as
in PyTorch: one byte a window is enough to remember it. Elsewhere in chainrule equal elements share. NaN is larger than
any number. Padding counts as −∞ for a maximum and as 0 for an average.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.functions.windows import (
    batched,
    channels_first,
    channels_last,
    per_axis,
    summed_in_blocks,
    unbatched,
)
from chainrule.primitives.convolve import convolve
from chainrule.primitives.index import take
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import cast_to
from chainrule.primitives.window import window_argmax, window_take

Numbers = int | Sequence[int]


def _high(
    name: str, x: Tensor, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool
) -> Shape:
    """How far windows reach over the end of each axis. ShapeError or ConfigError where windows make no sense.

    With `ceil_mode` a last window may reach out further, if it begins inside or in the padding in front.
    """
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if any(2 * p > r for p, r in zip(padding, reach, strict=True)):
        raise ConfigError(
            f"{name}: padding={padding} is more than half of what a window reaches over, {reach}; windows of nothing "
            "but padding have no result."
        )
    size = x.shape[2:]
    if not min(size) or any(n + 2 * p < r for n, p, r in zip(size, padding, reach, strict=True)):
        raise ShapeError(
            f"{name}: a window that reaches over {reach} elements does not fit into an input of shape {x.shape} padded "
            f"by {padding}. Use a smaller window, or more padding."
        )
    if not ceil_mode:
        return padding
    high = []
    for n, r, s, p in zip(size, reach, stride, padding, strict=True):
        places = -((r - n - 2 * p) // s) + 1
        places -= (places - 1) * s >= n + p
        high.append(max(0, (places - 1) * s + r - n - p))
    return tuple(high)


# -- the largest


def _max_pool(
    name: str,
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    x, is_batch = batched(name, real(name, x), axes)
    kernel = per_axis(name, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None else per_axis(name, "stride", stride, axes)
    padding = per_axis(name, "padding", padding, axes, least=0)
    dilation = per_axis(name, "dilation", dilation, axes)
    high = _high(name, x, kernel, stride, padding, dilation, ceil_mode)
    attributes = {"window": kernel, "strides": stride, "low": padding, "high": high, "steps": dilation}
    last = channels_last(x)
    winners = window_argmax(last, **attributes)
    places = []  # (windows, taps): which element along each axis each tap of each window is
    for n, m, k, s, p, d in zip(x.shape[2:], winners.shape[1:], kernel, stride, padding, dilation, strict=False):
        places.append(np.arange(m)[:, None] * s + np.arange(k) * d - p)
        if not ((places[-1] >= 0) & (places[-1] < n)).any(axis=1).all():
            raise ShapeError(
                f"{name}: with padding={padding} and dilation={dilation} a window holds nothing of {x.shape}."
            )
    y = unbatched(channels_first(window_take(last, winners, **attributes)), is_batch)
    if not return_indices:
        return y
    return y, unbatched(channels_first(positions(winners, places, x.shape[2:])), is_batch)


def positions(winners: Tensor, places: list[np.ndarray], size: Shape) -> Tensor:
    """Where in the flattened space the winner of each window stands: (N, *windows, C) -> the same, int64.

    `places` has for each axis of space, of extent `size`, the element that each tap of each window is: (windows, taps).
    """
    kernel = tuple(p.shape[1] for p in places)
    taps = np.indices(kernel).reshape(len(kernel), -1)
    tap = cast_to(winners, dtypes.int64)
    total = full((), 0, dtypes.int64)
    for a, place in enumerate(places):
        row = np.arange(len(place)).reshape([-1 if i == a + 1 else 1 for i in range(winners.ndim)]) * kernel[a]
        flat = place.reshape(-1) * math.prod(size[a + 1 :])
        total = total + take(wrap(flat), take(wrap(taps[a]), tap) + wrap(row))
    return total


def max_pool1d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window along one axis.

    x (N, C, L) or (C, L) -> (N, C, L') with L' = ⌊(L + 2 · padding − dilation · (kernel_size − 1) − 1) / stride⌋ + 1;
    `ceil_mode` rounds up, so that the last window may reach over the end. Without `stride` windows lie side by side.
    With `return_indices` also where each stands along L, int64 of the same shape. The gradient goes to the first of
    equal winners. Raises ShapeError when no window fits, ConfigError for settings that make no sense.

    >>> import chainrule as cr
    >>> cr.max_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 5.0, 4.0]]]), 2).tolist()
    [[[3.0, 5.0]]]
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window over two axes.

    x (N, C, H, W) or (C, H, W) -> (N, C, H', W'); extents and errors as in `max_pool1d`. Numbers are given once, or as
    (vertical, horizontal). Indices count through an image, row by row. The gradient goes to the first of equal winners.

    >>> import chainrule as cr
    >>> cr.max_pool2d(cr.reshape(cr.arange(16.0), (1, 1, 4, 4)), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window over three axes.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W'); extents, indices and errors as in `max_pool2d`.

    >>> import chainrule as cr
    >>> cr.max_pool3d(cr.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# -- the average


def _avg_pool(
    name: str,
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    x, is_batch = batched(name, real(name, x), axes)
    kernel = per_axis(name, "kernel_size", kernel_size, axes)
    stride = kernel if stride is None else per_axis(name, "stride", stride, axes)
    padding = per_axis(name, "padding", padding, axes, least=0)
    if divisor_override == 0:
        raise ConfigError(f"{name}: divisor_override=0 would divide by zero.")
    ones = (1,) * axes
    high = _high(name, x, kernel, stride, padding, ones, ceil_mode)
    if stride == kernel and not any(padding) and not any(high):
        total = summed_in_blocks(x, kernel)
    else:
        last = channels_last(x)
        last = reshape(last, shape=(*last.shape, 1))  # each channel is a group by itself
        weights = full((*kernel, x.shape[1], 1, 1), 1, x.dtype)
        total = convolve(last, weights, strides=stride, low=padding, high=high, input_step=ones, kernel_step=ones)
        total = channels_first(reshape(total, shape=total.shape[:-1]))
    if divisor_override is not None:
        return unbatched(total / divisor_override, is_batch)
    counts = _counts(x.shape[2:], total.shape[2:], kernel, stride, padding, count_include_pad)
    same = np.all(counts == counts.flat[0])
    return unbatched(total / (counts.flat[0].item() if same else wrap(counts.astype(x.dtype))), is_batch)


def _counts(size: Shape, places: Shape, kernel: Shape, stride: Shape, padding: Shape, with_padding: bool) -> np.ndarray:
    """How many elements each window averages over, of shape `places`. What lies behind the padding never counts."""
    counts = np.ones((1,) * len(size))
    for a, (n, m, k, s, p) in enumerate(zip(size, places, kernel, stride, padding, strict=True)):
        start = np.arange(m) * s - p
        stop = np.minimum(start + k, n + p)
        count = stop - start if with_padding else np.minimum(stop, n) - np.maximum(start, 0)
        counts = counts * count.reshape([-1 if i == a else 1 for i in range(len(size))])
    return counts


@rounded_once
def avg_pool1d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The average of each window along one axis.

    x (N, C, L) or (C, L) -> (N, C, L') with L' = ⌊(L + 2 · padding − kernel_size) / stride⌋ + 1; `ceil_mode` rounds up,
    so that the last window may reach over the end. Without `stride` windows lie side by side. Zeros of the padding
    count as elements unless count_include_pad=False. Raises ShapeError when no window fits, ConfigError for settings
    that make no sense.

    >>> import chainrule as cr
    >>> cr.avg_pool1d(cr.tensor([[[1.0, 3.0, 2.0, 5.0]]]), 2).tolist()
    [[[2.0, 3.5]]]
    """
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@rounded_once
def avg_pool2d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window over two axes.

    x (N, C, H, W) or (C, H, W) -> (N, C, H', W'); extents and errors as in `avg_pool1d`. `divisor_override` divides all
    sums by one number.

    >>> import chainrule as cr
    >>> cr.avg_pool2d(cr.reshape(cr.arange(16.0), (1, 1, 4, 4)), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@rounded_once
def avg_pool3d(
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window over three axes.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W'); extents, divisor and errors as in `avg_pool2d`.

    >>> import chainrule as cr
    >>> cr.avg_pool3d(cr.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _avg_pool("avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
