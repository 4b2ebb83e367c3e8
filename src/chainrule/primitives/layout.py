"""Primitives that move elements, and `sum`, which is what `broadcast` becomes in the backward pass.

Reductions keep their axes (with extent 1), so a broadcast of the gradient fits again without further ado.
"""

import builtins
from typing import Any

import numpy as np

from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.samples import integer, real, sample


def kept(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """The shape after a reduction over `axes`."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


# -- reshape and transpose


def _infer_reshape(x: Tensor, shape: Shape) -> TypeOf:
    if int(np.prod(shape, dtype=np.int64)) != x.size:
        raise ShapeError(f"reshape: shape {x.shape} has {x.size} elements and does not fit into {shape}.")
    return shape, x.dtype


reshape: Primitive = Primitive(
    "reshape",
    "layout",
    lambda m, x, shape: m.reshape(x, shape),
    _infer_reshape,
    lambda dy, y, x, shape: (reshape(dy, shape=x.shape),),
    "dx = dy in the shape of x",
    (sample(real(3, 4), shape=(2, 6)), sample(real(0, 3), shape=(3, 0, 2)), sample(real(1), shape=())),
)


def _infer_transpose(x: Tensor, axes: tuple[int, ...]) -> TypeOf:
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"transpose: axes {axes} are no order of the {x.ndim} axes of shape {x.shape}.")
    return tuple(x.shape[a] for a in axes), x.dtype


transpose: Primitive = Primitive(
    "transpose",
    "layout",
    lambda m, x, axes: m.transpose(x, axes),
    _infer_transpose,
    lambda dy, y, x, axes: (transpose(dy, axes=tuple(axes.index(i) for i in range(len(axes)))),),
    "dx = dy with its axes put back",
    (sample(real(3, 4), axes=(1, 0)), sample(real(2, 3, 4), axes=(2, 0, 1))),
)

# -- broadcast and sum: each is the other's derivative


def _infer_broadcast(x: Tensor, shape: Shape) -> TypeOf:
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, s) for n, s in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"broadcast: shape {x.shape} does not stretch to {shape}.")
    return shape, x.dtype


def _broadcast_vjp(dy: Tensor, y: Tensor, x: Tensor, shape: Shape) -> tuple[Tensor]:
    lead = len(shape) - x.ndim
    axes = tuple(i for i, s in enumerate(shape) if i < lead or (x.shape[i - lead] == 1 and s != 1))
    return (reshape(sum(dy, axes=axes) if axes else dy, shape=x.shape),)


broadcast: Primitive = Primitive(
    "broadcast",
    "layout",
    lambda m, x, shape: m.broadcast_to(x, shape),
    _infer_broadcast,
    _broadcast_vjp,
    "dx = dy summed over the repeated axes",
    (
        sample(real(1, 4), shape=(3, 4)),
        sample(real(3, 1), shape=(2, 3, 4)),
        sample(real(), shape=(2, 2)),
        sample(real(1, 3), shape=(0, 3)),
    ),
)


def _infer_sum(x: Tensor, axes: tuple[int, ...]) -> TypeOf:
    if x.dtype == np.bool_:
        raise DTypeError("sum: cast truth values to integers first.")
    return kept(x.shape, axes), x.dtype


sum: Primitive = Primitive(
    "sum",
    "reduce",
    lambda m, x, axes: m.sum(x, axis=axes, keepdims=True, dtype=x.dtype),
    _infer_sum,
    lambda dy, y, x, axes: (broadcast(dy, shape=x.shape),),
    "dx = dy, repeated",
    (
        sample(real(3, 4), axes=(1,)),
        sample(real(3, 4, 2), axes=(0, 2)),
        sample(real(0, 3), axes=(0,)),
        sample(integer(5), axes=(0,)),
    ),
)

# -- slice and pad: each is the other's derivative


def slice_lengths(start: Shape, stop: Shape, step: Shape) -> Shape:
    """How many elements range(start, stop, step) has along each axis."""
    return tuple(len(range(a, b, s)) for a, b, s in zip(start, stop, step, strict=True))


def _infer_slice(x: Tensor, start: Shape, stop: Shape, step: Shape) -> TypeOf:
    lengths = slice_lengths(start, stop, step)
    for n, a, s, size in zip(x.shape, start, step, lengths, strict=True):
        if size and not (0 <= a < n and 0 <= a + (size - 1) * s < n):
            raise ShapeError(f"slice: start {start}, stop {stop}, step {step} leave the shape {x.shape}.")
    return lengths, x.dtype


def _slice_meaning(m: Any, x: Any, start: Shape, stop: Shape, step: Shape) -> Any:
    ends = (None if b < 0 else b for b in stop)
    part = x[tuple([builtins.slice(a, b, s) for a, b, s in zip(start, ends, step, strict=True)])]
    return part.copy() if min(step, default=1) < 0 else part  # NumPy rounds otherwise where arrays run backwards


def _slice_vjp(dy: Tensor, y: Tensor, x: Tensor, start: Shape, stop: Shape, step: Shape) -> tuple[Tensor]:
    backwards = [s < 0 for s in step]
    if any(backwards):
        dy = flip(dy, tuple(i for i, b in enumerate(backwards) if b))
    last = [a + (n - 1) * s for a, s, n in zip(start, step, y.shape, strict=True)]
    low = [min(a, b) if n else 0 for a, b, n in zip(start, last, y.shape, strict=True)]
    high = [size - 1 - max(a, b) if n else size for a, b, n, size in zip(start, last, y.shape, x.shape, strict=True)]
    return (pad(dy, low=tuple(low), high=tuple(high), interior=tuple(abs(s) - 1 for s in step)),)


slice: Primitive = Primitive(
    "slice",
    "layout",
    _slice_meaning,
    _infer_slice,
    _slice_vjp,
    "dx = dy at the places taken, 0 elsewhere",
    (
        sample(real(5, 4), start=(1, 0), stop=(5, 4), step=(2, 3)),
        sample(real(5, 4), start=(4, 3), stop=(-1, 0), step=(-1, -2)),
        sample(real(5), start=(2,), stop=(2,), step=(1,)),
    ),
)


def flip(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Reverse the order along `axes`: a slice with step −1."""
    ends = [(n - 1, -1, -1) if i in axes and n else (0, n, 1) for i, n in enumerate(x.shape)]
    start, stop, step = (tuple(e[k] for e in ends) for k in range(3))
    return slice(x, start=start, stop=stop, step=step)


def _infer_pad(x: Tensor, low: Shape, high: Shape, interior: Shape) -> TypeOf:
    if min((*low, *high, *interior), default=0) < 0:
        raise ShapeError(f"pad: low {low}, high {high} and interior {interior} cannot be negative.")
    shape = zip(x.shape, low, high, interior, strict=True)
    return tuple(a + n + max(n - 1, 0) * i + b for n, a, b, i in shape), x.dtype


def _pad_vjp(dy: Tensor, y: Tensor, x: Tensor, low: Shape, high: Shape, interior: Shape) -> tuple[Tensor]:
    step = tuple(i + 1 for i in interior)
    stop = tuple(a + (n - 1) * s + 1 if n else a for a, n, s in zip(low, x.shape, step, strict=True))
    return (slice(dy, start=low, stop=stop, step=step),)


pad: Primitive = Primitive(
    "pad",
    "layout",
    lambda m, x, low, high, interior: m.pad(x, low, high, interior),
    _infer_pad,
    _pad_vjp,
    "dx = dy where x stands",
    (
        sample(real(3, 2), low=(1, 0), high=(0, 2), interior=(0, 0)),
        sample(real(3), low=(2,), high=(1,), interior=(2,)),
        sample(real(0, 2), low=(1, 1), high=(1, 0), interior=(1, 1)),
        sample(real(), low=(), high=(), interior=()),
    ),
)

# -- concat


def _infer_concat(*xs: Tensor, axis: int) -> TypeOf:
    rest = {x.shape[:axis] + x.shape[axis + 1 :] for x in xs}
    if len(rest) != 1 or len({x.ndim for x in xs}) != 1:
        raise ShapeError(f"concat along axis {axis}: shapes {', '.join(str(x.shape) for x in xs)} do not fit together.")
    if len({x.dtype for x in xs}) != 1:
        raise DTypeError(f"concat: dtypes {', '.join(x.dtype.name for x in xs)} differ; cast them first.")
    first = xs[0].shape
    total = int(np.sum([x.shape[axis] for x in xs]))
    return (*first[:axis], total, *first[axis + 1 :]), xs[0].dtype


def _concat_vjp(dy: Tensor, y: Tensor, *xs: Tensor, axis: int) -> tuple[Tensor, ...]:
    parts, begin = [], 0
    for x in xs:
        start = tuple(begin if i == axis else 0 for i in range(x.ndim))
        stop = tuple(begin + n if i == axis else n for i, n in enumerate(x.shape))
        parts.append(slice(dy, start=start, stop=stop, step=(1,) * x.ndim))
        begin += x.shape[axis]
    return tuple(parts)


concat: Primitive = Primitive(
    "concat",
    "layout",
    lambda m, *xs, axis: m.concatenate(xs, axis=axis),
    _infer_concat,
    _concat_vjp,
    "dx = the part of dy where x stands",
    (sample(real(2, 3), real(2, 1), axis=1), sample(real(2), real(0), real(3), axis=0)),
)
