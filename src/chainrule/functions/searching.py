"""Looking up and searching: positions of extremes, of true elements, sorted order; taking elements by position.

Positions are int64 and have no gradient; values taken by position have. Negative positions count from the end;
IndexOutOfRange for one outside. `where` stands in `chainrule.functions.choice`.
"""

import math
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Primitive
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.functions.axes import Axis, axes_of, axis_of, reduced, reshaped, without
from chainrule.functions.comparison import truth
from chainrule.functions.statistics import sum
from chainrule.primitives import elementwise as e
from chainrule.primitives import index, layout, operators, reduce
from chainrule.primitives.indexing import wrapped
from chainrule.primitives.operators import cast_to, common_shape


def _position(name: str, primitive: Primitive, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    if axis is None:
        flat = primitive(reshaped(x, (x.size,)), axes=(0,))
        return reshaped(flat, (1,) * x.ndim if keepdims else ())
    return reduced(primitive, x, (axis_of(name, axis, x.ndim),), keepdims)


def argmax(x: Any, /, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first largest element along `axis`; None: in the flat tensor. NaN counts as largest.

    Raises ShapeError when there are no elements.

    >>> import chainrule as cr
    >>> cr.argmax(cr.tensor([[1, 9, 2], [5, 3, 4]]), axis=1).tolist()
    [1, 0]
    """
    return _position("argmax", reduce.argmax, x, axis, keepdims)


def argmin(x: Any, /, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first smallest element along `axis`; None: in the flat tensor. NaN counts as smallest.

    Raises ShapeError when there are no elements.

    >>> import chainrule as cr
    >>> cr.argmin(cr.tensor([[1, 9, 2], [5, 3, 4]]), axis=1).tolist()
    [0, 1]
    """
    return _position("argmin", reduce.argmin, x, axis, keepdims)


def all(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements along `axis` are true; true for none. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.all(cr.tensor([[True, False], [True, True]]), axis=1).tolist()
    [False, True]
    """
    x = truth(x)
    return reduced(reduce.all, x, axes_of("all", axis, x.ndim), keepdims)


def any(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether any element along `axis` is true; false for none. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.any(cr.tensor([[True, False], [False, False]]), axis=1).tolist()
    [True, False]
    """
    x = truth(x)
    return reduced(reduce.any, x, axes_of("any", axis, x.ndim), keepdims)


def count_nonzero(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements along `axis` are not 0, as int64.

    >>> import chainrule as cr
    >>> cr.count_nonzero(cr.tensor([[0, 1], [2, 3]]), axis=0).tolist()
    [1, 2]
    """
    x = truth(x)
    return sum(x, axes_of("count_nonzero", axis, x.ndim), keepdims)


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Where the elements are that are not 0: for each axis a tensor of positions, together in row-major order.

    How many there are depends on the values, so a traced tensor raises TracedValueError; a scalar raises ShapeError.

    >>> import chainrule as cr
    >>> [i.tolist() for i in cr.nonzero(cr.tensor([[0, 7], [8, 0]]))]
    [[0, 1], [1, 0]]
    """
    x = as_tensor(x)
    if x.ndim == 0:
        raise ShapeError("nonzero: a tensor without axes has no positions.")
    return tuple(wrap(positions) for positions in np.nonzero(x.known("nonzero")))


def argsort(x: Any, /, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions that sort `x` along `axis`. Equals keep their order, whatever `stable` says; NaN counts as largest.

    >>> import chainrule as cr
    >>> cr.argsort(cr.tensor([3.0, 1.0, 2.0])).tolist()
    [1, 2, 0]
    """
    x = as_tensor(x)
    return index.argsort(x, axis=axis_of("argsort", axis, x.ndim), descending=descending)


def sort(x: Any, /, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """`x` in ascending or descending order along `axis`; NaN counts as largest. Gradients follow the elements.

    >>> import chainrule as cr
    >>> cr.sort(cr.tensor([3.0, 1.0, 2.0]), descending=True).tolist()
    [3.0, 2.0, 1.0]
    """
    x = as_tensor(x)
    return take_along_axis(x, argsort(x, axis, descending), axis)


def searchsorted(a: Any, v: Any, /, side: str = "left", sorter: Any = None) -> Tensor:
    """Where the values `v` would have to be put into the ascending vector `a` to keep it ascending.

    'left': before equals, a[i − 1] < v ≤ a[i]; 'right': after them, a[i − 1] ≤ v < a[i]. `sorter` holds positions that
    sort `a`. The result has the shape of `v`. Raises ShapeError unless `a` is a vector, ConfigError for another side.

    >>> import chainrule as cr
    >>> cr.searchsorted(cr.tensor([1, 2, 2, 3]), cr.tensor([2, 5]), side="right").tolist()
    [3, 4]
    """
    a = as_tensor(a)
    v = full((), v, dtypes.scalar_dtype(v, a.dtype)) if isinstance(v, operators.SCALARS) else as_tensor(v)
    if a.ndim != 1:
        raise ShapeError(f"searchsorted: the sorted values must be a vector; got shape {a.shape}.")
    if side not in ("left", "right"):
        raise ConfigError(f"searchsorted: side is 'left' or 'right'; got {side!r}.")
    if sorter is not None:
        a = take(a, sorter, axis=0)
    dtype = dtypes.promote(a.dtype, v.dtype)
    a, values = cast_to(a, dtype), cast_to(reshaped(v, (v.size,)), dtype)
    # Sort both together: what stands before a value is then the elements of `a` below it, and other values.
    first = side == "left"
    both = layout.concat(*((values, a) if first else (a, values)), axis=0)
    ranks = _ranks(both)[: v.size] if first else _ranks(both)[a.size :]
    return reshaped(ranks - _ranks(values), v.shape)


def _ranks(x: Tensor) -> Tensor:
    """The place of each element of a vector in the sorted order."""
    return argsort(argsort(x))


def take(x: Any, indices: Any, /, axis: int | None = None) -> Tensor:
    """The parts of `x` at the positions `indices` along `axis` (needed unless there is one axis only).

    The axes of `indices` take the place of the axis. Gradients of a part taken repeatedly add up.

    >>> import chainrule as cr
    >>> cr.take(cr.tensor([[1, 2], [3, 4]]), cr.tensor([1, 1, 0]), axis=0).tolist()
    [[3, 4], [3, 4], [1, 2]]
    """
    x, along = _axis_needed("take", x, axis)
    positions = _positions("take", indices, x.shape[along])
    if along == 0:
        return index.take(x, positions)
    order = (along, *(a for a in range(x.ndim) if a != along))
    taken = index.take(layout.transpose(x, axes=order), positions)
    k = positions.ndim
    return layout.transpose(taken, axes=(*range(k, k + along), *range(k), *range(k + along, taken.ndim)))


def _axis_needed(name: str, x: Any, axis: int | None) -> tuple[Tensor, int]:
    x = as_tensor(x)
    if axis is None and x.ndim != 1:
        raise ShapeError(f"{name}: shape {x.shape} has {x.ndim} axes; say along which one: axis=...")
    return x, axis_of(name, 0 if axis is None else axis, x.ndim)


def _positions(name: str, indices: Any, n: int) -> Tensor:
    positions = as_tensor(indices)
    if isinstance(indices, (list, tuple)) and positions.size == 0:
        positions = cast_to(positions, dtypes.int64)
    if not dtypes.is_integer(positions.dtype):
        raise DTypeError(f"{name}: positions must be integers; got {positions.dtype.name}.")
    return wrapped(positions, n)


def take_along_axis(x: Any, indices: Any, /, axis: int = -1) -> Tensor:
    """Elements of `x` at positions along `axis` that differ from place to place: what `argsort` and `argmax` return.

    `indices` has as many axes as `x`; those other than `axis` broadcast.

    >>> import chainrule as cr
    >>> cr.take_along_axis(cr.tensor([[5, 6], [7, 8]]), cr.tensor([[1], [0]]), axis=1).tolist()
    [[6], [7]]
    """
    x = as_tensor(x)
    along = axis_of("take_along_axis", axis, x.ndim)
    positions = _positions("take_along_axis", indices, x.shape[along])
    if positions.ndim != x.ndim:
        raise ShapeError(
            f"take_along_axis: positions of shape {positions.shape} for shape {x.shape}; both need as many axes."
        )
    shape = common_shape("take_along_axis", without(x.shape, (along,)), without(positions.shape, (along,)))
    rows = operators.broadcast_to(positions, (*shape[:along], positions.shape[along], *shape[along:]))
    strides = [math.prod(x.shape[a + 1 :]) for a in range(x.ndim)]
    start = np.zeros((1,) * x.ndim, np.int64)  # the place in the flat tensor where each line along the axis begins
    for a in range(x.ndim):
        if a != along:
            start = start + strides[a] * np.arange(x.shape[a]).reshape([-1 if i == a else 1 for i in range(x.ndim)])
    return index.take(reshaped(x, (x.size,)), wrap(start) + rows * strides[along])


def scatter_add(x: Any, indices: Any, updates: Any, /, axis: int = 0) -> Tensor:
    """`x` with `updates` added where take(x, indices, axis) would read: repeated positions add up.

    `updates` broadcasts to the shape that `take` would return. The sum is taken in the order of the indices.

    >>> import chainrule as cr
    >>> cr.scatter_add(cr.zeros(3), cr.tensor([0, 2, 0]), cr.tensor([1.0, 2.0, 3.0])).tolist()
    [4.0, 0.0, 2.0]
    """
    x, given = as_tensor(x), as_tensor(updates)
    along = axis_of("scatter_add", axis, x.ndim)
    positions = _positions("scatter_add", indices, x.shape[along])
    if dtypes.promote(x.dtype, given.dtype) != x.dtype:
        raise DTypeError(f"scatter_add: updates of {given.dtype.name} do not fit into a tensor of {x.dtype.name}.")
    shape = x.shape[:along] + positions.shape + x.shape[along + 1 :]
    if common_shape("scatter_add", given.shape, shape) != shape:
        raise ShapeError(f"scatter_add: updates of shape {given.shape}; expected {shape}, or what broadcasts to it.")
    given = operators.broadcast_to(cast_to(given, x.dtype), shape)
    k = positions.ndim
    order = (along, *(a for a in range(x.ndim) if a != along))
    front = (*range(along, along + k), *range(along), *range(along + k, given.ndim))
    added = index.scatter_add(layout.transpose(x, axes=order), positions, layout.transpose(given, axes=front))
    return layout.transpose(added, axes=tuple(order.index(a) for a in range(x.ndim)))


def diff(x: Any, /, *, axis: int = -1, n: int = 1) -> Tensor:
    """Differences of neighbours along `axis`, taken `n` times: each time the axis gets shorter by one.

    >>> import chainrule as cr
    >>> cr.diff(cr.tensor([1, 4, 9, 16])).tolist()
    [3, 5, 7]
    """
    x = as_tensor(x)
    along = axis_of("diff", axis, x.ndim)
    if n < 0:
        raise ConfigError(f"diff: n is the number of times, from 0 on; got {n}.")
    if x.dtype == dtypes.bool_:
        raise DTypeError("diff takes numbers, not truth values. Convert them: x.astype(cr.int64).")
    before = (slice(None),) * along
    for _ in range(n):
        x = e.sub(x[(*before, slice(1, None))], x[(*before, slice(None, -1))])
    return x
