"""Space into channels and back: pixel_shuffle, channel_shuffle, and windows as columns (unfold, fold)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ShapeError
from chainrule.functions.searching import scatter_add, take
from chainrule.functions.windows import batched, per_axis, unbatched
from chainrule.primitives.layout import pad, reshape, slice, transpose

Numbers = int | Sequence[int]


def _factor(name: str, argument: str, value: Any) -> int:
    return per_axis(name, argument, value, 1)[0]


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Channels into space: each r · r channels become one channel of r times the extents, r = `upscale_factor`.

    x (..., C · r², H, W) -> (..., C, H · r, W · r). The sub-pixel convolution of super-resolution is a convolution with
    this behind it. Raises ShapeError unless r² divides the channels. Source: Shi et al., "Real-time single image and
    video super-resolution using an efficient sub-pixel convolutional neural network" (2016).

    >>> import chainrule as cr
    >>> cr.pixel_shuffle(cr.reshape(cr.arange(4), (4, 1, 1)), 2).tolist()
    [[[0, 1], [2, 3]]]
    """
    x, r = as_tensor(x), _factor("pixel_shuffle", "upscale_factor", upscale_factor)
    if x.ndim < 3 or x.shape[-3] % (r * r):
        raise ShapeError(f"pixel_shuffle: expected (..., C · {r * r}, H, W); got shape {x.shape}.")
    *lead, channels, high, wide = x.shape
    n = len(lead)
    x = reshape(x, shape=(*lead, channels // (r * r), r, r, high, wide))
    x = transpose(x, axes=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(x, shape=(*lead, channels // (r * r), high * r, wide * r))


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """Space into channels, the inverse of `pixel_shuffle`: each block of r · r pixels becomes r² channels.

    x (..., C, H · r, W · r) -> (..., C · r², H, W), r = `downscale_factor`. Raises ShapeError unless r divides H and W.

    >>> import chainrule as cr
    >>> cr.pixel_unshuffle(cr.tensor([[[0, 1], [2, 3]]]), 2).tolist()
    [[[0]], [[1]], [[2]], [[3]]]
    """
    x, r = as_tensor(x), _factor("pixel_unshuffle", "downscale_factor", downscale_factor)
    if x.ndim < 3 or x.shape[-2] % r or x.shape[-1] % r:
        raise ShapeError(f"pixel_unshuffle: expected (..., C, H · {r}, W · {r}); got shape {x.shape}.")
    *lead, channels, high, wide = x.shape
    n = len(lead)
    x = reshape(x, shape=(*lead, channels, high // r, r, wide // r, r))
    x = transpose(x, axes=(*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(x, shape=(*lead, channels * r * r, high // r, wide // r))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal out the channels, so that the next grouped convolution sees some of every group.

    x (N, C, ...) -> the same shape: channels (g, k) in the order (k, g). Raises ShapeError unless `groups` divides C.
    Source: Zhang et al., "ShuffleNet: an extremely efficient convolutional neural network for mobile devices" (2018).

    >>> import chainrule as cr
    >>> cr.channel_shuffle(cr.tensor([[1, 2, 3, 4]]), 2).tolist()
    [[1, 3, 2, 4]]
    """
    x, groups = as_tensor(x), _factor("channel_shuffle", "groups", groups)
    if x.ndim < 2 or x.shape[1] % groups:
        raise ShapeError(f"channel_shuffle: {groups} groups need (N, C, ...) with C a multiple; got shape {x.shape}.")
    rows, channels, *space = x.shape
    apart = reshape(x, shape=(rows, groups, channels // groups, *space))
    return reshape(transpose(apart, axes=(0, 2, 1, *range(3, apart.ndim))), shape=x.shape)


def _places(
    name: str, size: Shape, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[list[np.ndarray], Shape]:
    """For each axis which element of the padded input tap k of window p is, (kernel, windows); and the padding."""
    kernel = per_axis(name, "kernel_size", kernel_size, 2)
    dilation, stride = per_axis(name, "dilation", dilation, 2), per_axis(name, "stride", stride, 2)
    padding = per_axis(name, "padding", padding, 2, least=0)
    places = []
    for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True):
        free = n + 2 * p - (k - 1) * d - 1
        if free < 0:
            raise ShapeError(f"{name}: kernel_size={kernel} does not fit into {size} padded by {padding}.")
        places.append(np.arange(k)[:, None] * d + np.arange(free // s + 1) * s)
    return places, padding


def unfold(x: Tensor, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1) -> Tensor:
    """The windows of an image as columns ("im2col"): a convolution is a matrix product with them.

    x (N, C, H, W) or (C, H, W) -> (N, C · KH · KW, windows), windows row by row. Raises ShapeError when no window fits,
    ConfigError for settings that make no sense.

    >>> import chainrule as cr
    >>> cr.unfold(cr.tensor([[[1, 2], [3, 4]]]), (1, 2)).tolist()
    [[1, 3], [2, 4]]
    """
    x, is_batch = batched("unfold", as_tensor(x), 2)
    places, padding = _places("unfold", x.shape[2:], kernel_size, dilation, padding, stride)
    sides = (0, 0, *padding)
    x = pad(x, low=sides, high=sides, interior=(0,) * 4) if any(padding) else x
    x = take(x, wrap(places[0]), axis=2)  # (N, C, KH, windows down, W)
    x = take(x, wrap(places[1]), axis=4)  # (N, C, KH, windows down, KW, windows across)
    x = transpose(x, axes=(0, 1, 2, 4, 3, 5))
    rows, channels, *taps, down, across = x.shape
    return unbatched(reshape(x, shape=(rows, channels * taps[0] * taps[1], down * across)), is_batch)


def fold(
    x: Tensor,
    output_size: Numbers,
    kernel_size: Numbers,
    dilation: Numbers = 1,
    padding: Numbers = 0,
    stride: Numbers = 1,
) -> Tensor:
    """Columns back to an image, where windows overlap their sums: the transpose of `unfold`, not its inverse.

    x (N, C · KH · KW, windows), or without N -> (N, C, *output_size). Raises ShapeError when rows or windows are not as
    many as `unfold` gives for these settings, ConfigError for settings that make no sense.

    >>> import chainrule as cr
    >>> cr.fold(cr.ones((1, 2, 2)), (1, 3), (1, 2)).tolist()
    [[[[1.0, 2.0, 1.0]]]]
    """
    x, is_batch = batched("fold", as_tensor(x), 1)
    size = per_axis("fold", "output_size", output_size, 2)
    places, padding = _places("fold", size, kernel_size, dilation, padding, stride)
    (kh, down), (kw, across) = (p.shape for p in places)
    if x.shape[1] % (kh * kw) or x.shape[2] != down * across:
        raise ShapeError(
            f"fold: from {size} windows of {(kh, kw)} are {down} · {across} columns of C · {kh * kw} rows; got shape "
            f"{x.shape}."
        )
    rows, channels = x.shape[0], x.shape[1] // (kh * kw)
    x = reshape(x, shape=(rows, channels, kh, kw, down, across))
    x = transpose(x, axes=(0, 1, 2, 4, 3, 5))  # (N, C, KH, windows down, KW, windows across)
    high, wide = (n + 2 * p for n, p in zip(size, padding, strict=True))
    x = scatter_add(full((rows, channels, kh, down, wide), 0, x.dtype), wrap(places[1]), x, axis=4)
    x = scatter_add(full((rows, channels, high, wide), 0, x.dtype), wrap(places[0]), x, axis=2)
    if any(padding):
        stop = (rows, channels, *[n + p for n, p in zip(size, padding, strict=True)])
        x = slice(x, start=(0, 0, *padding), stop=stop, step=(1,) * 4)
    return unbatched(x, is_batch)
