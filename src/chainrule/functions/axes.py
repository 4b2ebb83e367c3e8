"""Axes and shapes as users give them: one integer or several, negative ones counted from the end."""

import operator
from collections.abc import Iterable
from typing import Any

from chainrule.core.primitive import Primitive, Shape
from chainrule.core.tensor import Tensor
from chainrule.errors import ShapeError
from chainrule.primitives.layout import reshape

Axis = int | tuple[int, ...] | None


def axis_of(name: str, axis: Any, ndim: int) -> int:
    """One axis as a number from 0 on; ShapeError when there is no such axis or it is not an integer."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise ShapeError(f"{name}: axis {axis!r:.60} is not an integer.") from None
    if not -ndim <= number < ndim:
        existing = f"its axes are 0 to {ndim - 1}, or -1 to {-ndim} from the end" if ndim else "it has no axes"
        raise ShapeError(f"{name}: there is no axis {number} in a tensor with {ndim} axes; {existing}.")
    return number % ndim


def axes_of(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as numbers from 0 on: all of them for None; ShapeError for one given twice."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(axis_of(name, a, ndim) for a in given)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{name}: axis {tuple(given)} names an axis twice; the tensor has {ndim} axes.")
    return axes


def shape_of(name: str, shape: Any) -> Shape:
    """A shape given as an integer or several; ShapeError for negative extents and for what is no integer."""
    given = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, Tensor) else (shape,)
    try:
        extents = tuple(operator.index(n) for n in given)
    except TypeError:
        raise ShapeError(f"{name}: a shape is made of integers; got {shape!r:.80}.") from None
    if min(extents, default=0) < 0:
        raise ShapeError(f"{name}: an extent cannot be negative; got shape {extents}.")
    return extents


def reshaped(x: Tensor, shape: Iterable[int]) -> Tensor:
    """`x` in another shape; itself if it has that one."""
    shape = tuple(shape)
    return x if x.shape == shape else reshape(x, shape=shape)


def without(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """`shape` with the extents of `axes` left out."""
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def reduced(primitive: Primitive, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """A reduction over `axes`, which stay with extent 1 or vanish."""
    y = primitive(x, axes=axes)
    return y if keepdims else reshaped(y, without(x.shape, axes))
