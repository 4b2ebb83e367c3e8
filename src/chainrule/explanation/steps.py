"""What stands between a loop that is taken apart and its surroundings, as primitives with rules like any other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.primitives import layout


def _at_step(m: Any, x: Any, step: int) -> Any:
    return x[step]


def _into_steps(dy: Tensor, y: Tensor, x: Tensor, step: int) -> tuple[Tensor]:
    rest = (0,) * (x.ndim - 1)
    one = layout.reshape(dy, shape=(1, *dy.shape))
    return (layout.pad(one, low=(step, *rest), high=(x.shape[0] - 1 - step, *rest), interior=(0,) * x.ndim),)


STEP = Primitive(
    "step", "layout", _at_step, lambda x, step: (x.shape[1:], x.dtype), _into_steps, "dx = dy at this step"
)
"""The slice of a sequence that a time step gets."""


def _collected(m: Any, *arrays: Any, starts: tuple[int, ...], size: int) -> Any:
    result = np.zeros(size, arrays[0].dtype)
    for start, array in zip(starts, arrays, strict=True):
        result[start : start + array.size] = array.reshape(-1)
    return result


def _infer_collected(*inputs: Tensor, starts: tuple[int, ...], size: int) -> TypeOf:
    return (size,), inputs[0].dtype


def _piece(dy: Tensor, start: int, shape: Shape) -> Callable[[], Tensor]:
    stop = start + int(np.prod(shape, dtype=np.int64))
    return lambda: layout.reshape(layout.slice(dy, start=(start,), stop=(stop,), step=(1,)), shape=shape)


STEPS = Primitive(
    "steps",
    "layout",
    _collected,
    _infer_collected,
    lambda dy, y, *xs, starts, size: tuple([_piece(dy, s, x.shape) for s, x in zip(starts, xs, strict=True)]),
    "dx = the part of dy that stands for it",
)
"""What the steps of a loop produced, one behind the other."""
