"""`x[...]`: integers, slices, None, Ellipsis, boolean masks with known values, and integer tensors.

Basic indices become one slice and one reshape; integer indices become one `take` of linear row numbers.
Where NumPy moves the axes of separated advanced indices to the front, so does this.
"""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, attach
from chainrule.errors import DTypeError, IndexOutOfRange, TracedValueError
from chainrule.primitives import elementwise as e
from chainrule.primitives.index import take
from chainrule.primitives.layout import reshape, transpose
from chainrule.primitives.layout import slice as slice_primitive
from chainrule.primitives.operators import broadcast_to, cast_to, common_shape


def getitem(x: Tensor, index: Any) -> Tensor:
    """`x[index]`; IndexOutOfRange for too many indices or one outside, DTypeError for an index of floats."""
    items = _expanded(x, index if isinstance(index, tuple) else (index,))
    basic, advanced, new_axes = [], {}, []
    axis = position = 0
    for item in items:
        if item is None:
            new_axes.append(position)
            position += 1
        elif isinstance(item, slice):
            basic.append(item)
            axis, position = axis + 1, position + 1
        elif isinstance(item, Tensor):
            basic.append(slice(None))
            advanced[position] = item
            axis, position = axis + 1, position + 1
        else:
            basic.append(item)
            axis += 1
    y = _basic(x, basic, new_axes)
    return _advanced(y, advanced) if advanced else y


def _expanded(x: Tensor, items: tuple[Any, ...]) -> list[Any]:
    """One item for each axis, Ellipsis written out, masks turned into integer tensors."""
    result: list[Any] = []
    for item in items:
        if item is None or item is Ellipsis or isinstance(item, slice):
            result.append(item)
        elif isinstance(item, (bool, np.bool_)):
            raise DTypeError("A single truth value is no index; use cr.where, or a mask of the tensor's shape.")
        elif isinstance(item, (int, np.integer)):
            result.append(int(item))
        else:
            array = as_tensor(item)
            if array.dtype == dtypes.bool_ and array.ndim:
                result.extend(_mask(array))
            elif dtypes.is_integer(array.dtype):
                result.append(int(array) if array.ndim == 0 and array.value is not None else array)
            elif isinstance(item, (list, tuple)) and not item:
                result.append(cast_to(array, dtypes.int64))
            else:
                raise DTypeError(f"An index must be of integers, slices or truth values; got {array.dtype.name}.")
    taken = sum(1 for item in result if item is not None and item is not Ellipsis)
    if taken > x.ndim or sum(1 for item in result if item is Ellipsis) > 1:
        raise IndexOutOfRange(f"{taken} indices for a tensor of shape {x.shape} (and at most one ...).")
    whole = [slice(None)] * (x.ndim - taken)
    at = next((i for i, item in enumerate(result) if item is Ellipsis), None)
    return result + whole if at is None else result[:at] + whole + result[at + 1 :]


def _mask(mask: Tensor) -> list[Tensor]:
    if mask.value is None:
        raise TracedValueError(
            "A traced mask as an index would give a shape that is not known while tracing. "
            "Use cr.where(mask, x, 0), or index outside of the compiled function."
        )
    return [as_tensor(part) for part in np.nonzero(mask.value)]


def _basic(x: Tensor, items: list[Any], new_axes: list[int]) -> Tensor:
    start, stop, step, shape = [], [], [], []
    for axis, (item, n) in enumerate(zip(items, x.shape, strict=True)):
        if isinstance(item, slice):
            a, b, s = item.indices(n)
            size = len(range(a, b, s))
            shape.append(size)
            start.append(a if size else 0)
            stop.append(b if size else 0)
            step.append(s)
        else:
            if not -n <= item < n:
                raise IndexOutOfRange(f"index {item} is outside of axis {axis}, which has {n} elements.")
            start.append(item % n)
            stop.append(item % n + 1)
            step.append(1)
    y = x
    if (start, stop, step) != ([0] * x.ndim, list(x.shape), [1] * x.ndim):
        y = slice_primitive(x, start=tuple(start), stop=tuple(stop), step=tuple(step))
    for position in new_axes:
        shape.insert(position, 1)
    return y if y.shape == tuple(shape) else reshape(y, shape=tuple(shape))


def _advanced(x: Tensor, indices: dict[int, Tensor]) -> Tensor:
    axes = sorted(indices)
    rest = [a for a in range(x.ndim) if a not in indices]
    shape = common_shape("index", *[i.shape for i in indices.values()])
    front = transpose(x, axes=(*axes, *rest)) if axes != list(range(len(axes))) else x
    row = None
    for axis in axes:
        n = x.shape[axis]
        at = wrapped(indices[axis], n)
        at = broadcast_to(at, shape)
        row = at if row is None else row * n + at
    assert row is not None
    rows = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    y = take(reshape(front, shape=(rows, *front.shape[len(axes) :])), row)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    if together and axes[0] > 0:  # the new axes stand where the indices stood
        k = len(shape)
        before = [k + i for i in range(axes[0])]
        after = [k + i for i in range(axes[0], len(rest))]
        y = transpose(y, axes=(*before, *range(k), *after))
    return y


def wrapped(index: Tensor, n: int) -> Tensor:
    """An index where −1 stands for n − 1. Each axis is checked here, since a linear row number would hide a mistake."""
    index = cast_to(index, dtypes.int64)
    if index.value is not None:
        bad = index.value[(index.value < -n) | (index.value >= n)]
        if bad.size:
            raise IndexOutOfRange(f"index {bad.flat[0]} is outside of an axis of {n} elements.")
        if index.value.size == 0 or index.value.min() >= 0:
            return index
    return e.where(index < 0, index + n, index)


attach({"__getitem__": getitem})
