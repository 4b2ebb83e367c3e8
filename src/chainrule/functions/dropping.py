"""Dropout of whole channels, and dropout that keeps mean and variance. Plain dropout stands in functions.layers."""

import math
from typing import Any

from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ShapeError
from chainrule.functions.choice import where
from chainrule.functions.layers import dropout
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.functions.windows import AXES_NAMED
from chainrule.random import Generator

SELU_FLOOR = 1.7580993408473766  # minus what selu tends to on the left: its scale times its alpha


def _kept(x: Tensor, shape: Shape, p: float, generator: Generator | Tensor | None) -> Tensor:
    """True with probability 1 − p, in `shape`, which broadcasts against x."""
    return dropout(full(shape, 1, x.dtype), p, generator=generator) > 0


def _of_channels(x: Tensor, lead: int) -> Shape:
    return (*x.shape[:lead], *(1,) * (x.ndim - lead))


def _channel_dropout(name: str, axes: int, x: Any, p: float, training: bool, generator: Any) -> Tensor:
    x = real(name, x)
    named = AXES_NAMED[axes]
    if x.ndim == 3 and axes == 2:  # PyTorch reads it as (N, C, L), and is going to read it as (C, H, W)
        raise ShapeError(f"{name}: expected (N, C, H, W); of {x.shape} make x[None] (one image), or use dropout1d.")
    if x.ndim not in (axes + 1, axes + 2):
        raise ShapeError(f"{name}: expected (N, C, {named}), or (C, {named}) for one example; got shape {x.shape}.")
    if not training or p == 0:
        return dropout(x, p, training)
    keep = _kept(x, _of_channels(x, x.ndim - axes), p, generator)
    return where(keep, x * (1 / (1 - p)) if p < 1 else x, 0)


@rounded_once
def dropout1d(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None
) -> Tensor:
    """In training, set each channel to 0 with probability `p` and multiply the others by 1 / (1 − p).

    x (N, C, L) or (C, L); keeps the shape. Neighbours in a convolution's output are alike, so that dropping elements
    one by one takes little away. `generator` and errors as in `dropout`; ShapeError for another number of axes. Source:
    Tompson et al., "Efficient object localization using convolutional networks" (2015).

    >>> import chainrule as cr
    >>> cr.dropout1d(cr.ones((1, 3, 2)), 0.5, generator=cr.random.key(0)).tolist()
    [[[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]]
    """
    return _channel_dropout("dropout1d", 1, x, p, training, generator)


@rounded_once
def dropout2d(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None
) -> Tensor:
    """In training, set each channel of an image to 0 with probability `p` and multiply the others by 1 / (1 − p).

    x (N, C, H, W); keeps the shape. Otherwise as `dropout1d`.

    >>> import chainrule as cr
    >>> cr.dropout2d(cr.ones((1, 4, 1, 2)), 0.5, generator=cr.random.key(0)).tolist()
    [[[[2.0, 2.0]], [[2.0, 2.0]], [[2.0, 2.0]], [[0.0, 0.0]]]]
    """
    return _channel_dropout("dropout2d", 2, x, p, training, generator)


@rounded_once
def dropout3d(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None
) -> Tensor:
    """In training, set each channel of a volume to 0 with probability `p` and multiply the others by 1 / (1 − p).

    x (N, C, D, H, W) or (C, D, H, W); keeps the shape. Otherwise as `dropout1d`.

    >>> import chainrule as cr
    >>> cr.dropout3d(cr.ones((2, 3, 4, 4, 4)), 0.5, training=False).shape
    (2, 3, 4, 4, 4)
    """
    return _channel_dropout("dropout3d", 3, x, p, training, generator)


def _alpha_dropout(name: str, x: Any, p: float, training: bool, generator: Any, whole_channels: bool) -> Tensor:
    x = real(name, x)
    if whole_channels and x.ndim < 2:
        raise ShapeError(f"{name}: expected (N, C, ...); got shape {x.shape}.")
    if not training or p == 0:
        return dropout(x, p, training)
    keep = _kept(x, _of_channels(x, 2) if whole_channels else x.shape, p, generator)
    if p == 1:
        return where(keep, x, 0)
    # a · (x or −floor) + b has mean 0 and variance 1 when x has
    a = 1 / math.sqrt((1 - p) * (1 + p * SELU_FLOOR**2))
    b = a * p * SELU_FLOOR
    return where(keep, x * a + b, b - a * SELU_FLOOR)


@rounded_once
def alpha_dropout(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None
) -> Tensor:
    """Dropout for networks of SELU units: dropped elements go to the floor of selu, then all are scaled and shifted.

    Any shape; keeps it, and the mean and variance of inputs with mean 0 and variance 1. `generator` and errors as in
    `dropout`. Source: Klambauer et al., "Self-normalizing neural networks" (2017).

    >>> import chainrule as cr
    >>> cr.alpha_dropout(cr.zeros(4), 0.5, generator=cr.random.key(0)).tolist()
    [0.779..., 0.779..., 0.779..., -0.779...]
    """
    return _alpha_dropout("alpha_dropout", x, p, training, generator, False)


@rounded_once
def feature_alpha_dropout(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None
) -> Tensor:
    """`alpha_dropout` of whole channels.

    x (N, C, ...); keeps the shape. Raises ShapeError for fewer than two axes; otherwise as `alpha_dropout`.

    >>> import chainrule as cr
    >>> cr.feature_alpha_dropout(cr.zeros((1, 1, 2)), 0.5, generator=cr.random.key(0)).tolist()
    [[[0.779..., 0.779...]]]
    """
    return _alpha_dropout("feature_alpha_dropout", x, p, training, generator, True)
