"""Primitives over sliding windows, channels last: the winner of each, reading it, and giving back to it.

A winner is the number of a tap in its window (row-major), in a byte where the window allows it.
"""

from math import prod
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.convolve import check_windows, windows
from chainrule.primitives.samples import Input, Sample, real


def _places(
    name: str, size: Shape, window: Shape, strides: Shape, low: Shape, high: Shape, steps: Shape
) -> tuple[int, ...]:
    check_windows(name, len(size), {"window": window, "strides": strides, "steps": steps}, {"low": low, "high": high})
    if min((*low, *high), default=0) < 0:
        raise ShapeError(f"{name}: low={low} and high={high} say how far windows reach outside, and are not negative.")
    axes = zip(size, window, strides, low, high, steps, strict=True)
    return tuple(windows(*axis) for axis in axes)


def winner_dtype(window: Shape) -> dtypes.DType:
    """What numbers the taps of a window."""
    return dtypes.uint8 if prod(window) <= 256 else dtypes.int32


def _infer_argmax(x: Tensor, window: Shape, **attributes: Shape) -> TypeOf:
    if not dtypes.is_float(x.dtype) or x.ndim < 2:
        raise DTypeError(f"window_argmax: expected real numbers (batch, *space, channels), got {x.dtype} {x.shape}.")
    places = _places("window_argmax", x.shape[1:-1], window, **attributes)
    return (x.shape[0], *places, x.shape[-1]), winner_dtype(window)


def _sample(x: Shape, windowed: Shape | None = None, **attributes: Shape) -> Any:
    inputs = [real(*x, apart=0.1)]
    if windowed is not None:
        inputs.append(Input(windowed, "integer", 0, prod(attributes["window"])))
    return Sample(tuple(inputs), attributes)


_PLAIN = {"window": (2,), "strides": (2,), "low": (0,), "high": (0,), "steps": (1,)}
_LAPPING = {"window": (3, 2), "strides": (2, 1), "low": (1, 0), "high": (1, 1), "steps": (1, 2)}
_INSIDE = {"window": (3, 2), "strides": (1, 2), "low": (0, 0), "high": (0, 0), "steps": (1, 2)}

window_argmax: Primitive = Primitive(
    "window_argmax",
    "window",
    lambda m, x, **attributes: m.window_argmax(x, **attributes),
    _infer_argmax,
    samples=(_sample((2, 6, 3), **_PLAIN), _sample((2, 5, 4, 3), **_LAPPING), _sample((1, 1, 2), **_PLAIN)),
)
"""The first largest tap of each window: x (batch, *space, channels) -> (batch, *places, channels) of bytes.

NaN wins. What lies outside never does, unless all taps are there: then the first one.
"""


def _check_winners(name: str, x: Tensor, winners: Tensor, shape: Shape) -> None:
    if not dtypes.is_float(x.dtype):
        raise DTypeError(f"{name}: expected real numbers, got {x.dtype.name}.")
    if winners.shape != shape or not dtypes.is_integer(winners.dtype):
        raise ShapeError(f"{name}: winners {winners.dtype} {winners.shape}; expected integers {shape}.")


def _infer_take(x: Tensor, winners: Tensor, **attributes: Shape) -> TypeOf:
    places = _places("window_take", x.shape[1:-1], **attributes)
    shape = (x.shape[0], *places, x.shape[-1])
    _check_winners("window_take", x, winners, shape)
    return shape, x.dtype


window_take: Primitive = Primitive(
    "window_take",
    "window",
    lambda m, x, winners, **attributes: m.window_take(x, winners, **attributes),
    _infer_take,
    lambda dy, y, x, winners, **attributes: (
        lambda: window_put(dy, winners, size=x.shape[1:-1], **attributes),
        None,
    ),
    "dx = dy, given back to the tap that was read",
    (
        _sample((2, 6, 3), (2, 3, 3), **_PLAIN),
        _sample((2, 5, 4, 3), (2, 3, 3, 3), **_LAPPING),
        _sample((2, 4, 5, 2), (2, 2, 2, 2), **_INSIDE),
    ),
)
"""The numbered tap of each window: x (batch, *space, channels), winners (batch, *places, channels) -> as winners.

A tap outside reads 0. Numbers that no tap has read 0 too.
"""


def _infer_put(dy: Tensor, winners: Tensor, size: Shape, **attributes: Shape) -> TypeOf:
    places = _places("window_put", size, **attributes)
    _check_winners("window_put", dy, winners, (dy.shape[0], *places, dy.shape[-1]))
    if dy.shape != winners.shape:
        raise ShapeError(f"window_put: gradient {dy.shape} and winners {winners.shape} differ in shape.")
    return (dy.shape[0], *size, dy.shape[-1]), dy.dtype


window_put: Primitive = Primitive(
    "window_put",
    "window",
    lambda m, dy, winners, **attributes: m.window_put(dy, winners, **attributes),
    _infer_put,
    lambda d, y, dy, winners, size, **attributes: (lambda: window_take(d, winners, **attributes), None),
    "ddy = the gradient at the tap that was given to",
    (
        _sample((2, 3, 3), (2, 3, 3), size=(6,), **_PLAIN),
        _sample((2, 3, 3, 3), (2, 3, 3, 3), size=(5, 4), **_LAPPING),
        _sample((2, 2, 2, 2), (2, 2, 2, 2), size=(4, 5), **_INSIDE),
    ),
)
"""Zeros (batch, *size, channels), and to the numbered tap of each window its dy added; what falls outside is lost.

An element that several windows chose adds up in the order of its taps in those windows.
"""


def tap_offsets(window: Shape, steps: Shape) -> list[Shape]:
    """Where each tap stands from the start of its window, in row-major order."""
    return [tuple(i * s for i, s in zip(index, steps, strict=True)) for index in np.ndindex(*window)]
