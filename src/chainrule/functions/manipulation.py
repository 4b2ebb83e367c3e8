"""Moving elements about: shapes, axes, joining, repeating. ShapeError where shapes do not fit or an axis is missing."""

import builtins
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, wrap
from chainrule.core.tensor import full as constant
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.functions.axes import axes_of, axis_of, reshaped, shape_of
from chainrule.functions.searching import take
from chainrule.primitives import layout, operators
from chainrule.primitives.operators import cast_to, common_shape

PAD_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def reshape(x: Any, /, shape: Any) -> Tensor:
    """The same elements, in row-major order, in another shape. One extent may be −1: it follows from the others.

    >>> import chainrule as cr
    >>> cr.reshape(cr.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    x = as_tensor(x)
    wanted = [operator.index(n) for n in shape] if isinstance(shape, (tuple, list)) else [operator.index(shape)]
    if wanted.count(-1) == 1:
        rest = math.prod(n for n in wanted if n != -1)
        if rest <= 0 or x.size % rest:
            raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fit into {tuple(wanted)}.")
        wanted[wanted.index(-1)] = x.size // rest
    if builtins.min(wanted, default=0) < 0:
        raise ShapeError(f"reshape: shape {tuple(wanted)}; one extent may be -1, others cannot be negative.")
    return reshaped(x, wanted)


def permute_dims(x: Any, /, axes: Sequence[int]) -> Tensor:
    """The axes in another order: axis i of the result is axis `axes[i]` of `x`.

    >>> import chainrule as cr
    >>> cr.permute_dims(cr.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    x = as_tensor(x)
    order = axes_of("permute_dims", tuple(axes), x.ndim)
    if len(order) != x.ndim:
        raise ShapeError(f"permute_dims: {tuple(axes)} must name each of the {x.ndim} axes of shape {x.shape} once.")
    return x if order == tuple(range(x.ndim)) else layout.transpose(x, axes=order)


def moveaxis(x: Any, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Tensor:
    """The axes `source` moved to the places `destination`; the others keep their order.

    >>> import chainrule as cr
    >>> cr.moveaxis(cr.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = as_tensor(x)
    moved = axes_of("moveaxis", source, x.ndim)
    places = axes_of("moveaxis", destination, x.ndim)
    if len(moved) != len(places):
        raise ShapeError(f"moveaxis: {len(moved)} axes {source} cannot go to {len(places)} places {destination}.")
    order = [a for a in range(x.ndim) if a not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return permute_dims(x, order)


def expand_dims(x: Any, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """New axes of extent 1, which stand at the places `axis` of the result.

    >>> import chainrule as cr
    >>> cr.expand_dims(cr.zeros((2, 3)), axis=1).shape
    (2, 1, 3)
    """
    x = as_tensor(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    new = axes_of("expand_dims", axis, x.ndim + count)
    old = iter(x.shape)
    return reshaped(x, [1 if i in new else next(old) for i in range(x.ndim + count)])


def squeeze(x: Any, /, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the axes `axis`, which must have extent 1; None for all that have.

    >>> import chainrule as cr
    >>> cr.squeeze(cr.zeros((1, 3, 1)), axis=0).shape
    (3, 1)
    """
    x = as_tensor(x)
    axes = tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else axes_of("squeeze", axis, x.ndim)
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of shape {x.shape} has extent {x.shape[a]}; only 1 can be left out.")
    return reshaped(x, [n for i, n in enumerate(x.shape) if i not in axes])


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """`x` stretched to `shape`: new axes in front, and axes of extent 1 repeated. No memory is taken.

    >>> import chainrule as cr
    >>> cr.broadcast_to(cr.tensor([1, 2]), (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    return operators.broadcast_to(as_tensor(x), shape_of("broadcast_to", shape))


def broadcast_arrays(*arrays: Any) -> list[Tensor]:
    """All of them stretched to the shape that they have in common.

    >>> import chainrule as cr
    >>> [x.shape for x in cr.broadcast_arrays(cr.zeros((3, 1)), cr.zeros(2))]
    [(3, 2), (3, 2)]
    """
    tensors = [as_tensor(x) for x in arrays]
    shape = common_shape("broadcast_arrays", *[x.shape for x in tensors])
    return [operators.broadcast_to(x, shape) for x in tensors]


def _listed(name: str, arrays: Any) -> list[Tensor]:
    """Several tensors of one dtype."""
    tensors = [as_tensor(x) for x in arrays]
    if not tensors:
        raise ShapeError(f"{name} takes at least one tensor; got none.")
    dtype = dtypes.promote(*[x.dtype for x in tensors])
    return [cast_to(x, dtype) for x in tensors]


def concat(arrays: Sequence[Any], /, axis: int | None = 0) -> Tensor:
    """Joined one after the other along `axis`; None flattens them first. Dtypes promote.

    >>> import chainrule as cr
    >>> cr.concat([cr.tensor([1, 2]), cr.tensor([3])]).tolist()
    [1, 2, 3]
    """
    tensors = _listed("concat", arrays)
    if axis is None:
        tensors, axis = [reshaped(x, (x.size,)) for x in tensors], 0
    along = axis_of("concat", axis, tensors[0].ndim)
    if any(x.ndim != tensors[0].ndim for x in tensors):
        raise ShapeError(f"concat: shapes {', '.join(str(x.shape) for x in tensors)} differ in the number of axes.")
    return tensors[0] if len(tensors) == 1 else layout.concat(*tensors, axis=along)


def stack(arrays: Sequence[Any], /, axis: int = 0) -> Tensor:
    """Joined along a new axis, which stands at the place `axis` of the result. Shapes must be equal; dtypes promote.

    >>> import chainrule as cr
    >>> cr.stack([cr.tensor([1, 2]), cr.tensor([3, 4])], axis=1).tolist()
    [[1, 3], [2, 4]]
    """
    tensors = _listed("stack", arrays)
    if any(x.shape != tensors[0].shape for x in tensors):
        raise ShapeError(f"stack: shapes {', '.join(str(x.shape) for x in tensors)} differ.")
    place = axis_of("stack", axis, tensors[0].ndim + 1)
    return concat([expand_dims(x, place) for x in tensors], place)


def unstack(x: Any, /, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of `x` along `axis`, without that axis.

    >>> import chainrule as cr
    >>> [part.tolist() for part in cr.unstack(cr.tensor([[1, 2], [3, 4]]))]
    [[1, 2], [3, 4]]
    """
    x = as_tensor(x)
    along = axis_of("unstack", axis, x.ndim)
    before = (slice(None),) * along
    return tuple(x[(*before, i)] for i in range(x.shape[along]))


def flip(x: Any, /, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Elements in reverse order along `axis`; None for all axes.

    >>> import chainrule as cr
    >>> cr.flip(cr.tensor([1, 2, 3])).tolist()
    [3, 2, 1]
    """
    x = as_tensor(x)
    return layout.flip(x, axes_of("flip", axis, x.ndim))


def roll(x: Any, /, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Elements moved `shift` places along `axis`; those that leave at one end come in at the other.

    With None the tensor is rolled as if it were flat. Several shifts and axes go together one by one.

    >>> import chainrule as cr
    >>> cr.roll(cr.tensor([1, 2, 3, 4]), 1).tolist()
    [4, 1, 2, 3]
    """
    x = as_tensor(x)
    if axis is None:
        return reshaped(roll(reshaped(x, (x.size,)), shift, 0), x.shape)
    axes = tuple(axis_of("roll", a, x.ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    shifts = tuple(shift) if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts {shifts} for {len(axes)} axes {axes}.")
    for by, a in zip(shifts, axes, strict=True):
        n = x.shape[a]
        first = (n - operator.index(by)) % n if n else 0
        if first:
            before = (slice(None),) * a
            x = concat([x[(*before, slice(first, None))], x[(*before, slice(first))]], a)
    return x


def repeat(x: Any, repeats: Any, /, axis: int | None = None) -> Tensor:
    """Each element repeated `repeats` times along `axis`; None flattens first.

    `repeats` is an integer, or one for each element along the axis, whose values must be known (they make the shape;
    else TracedValueError).

    >>> import chainrule as cr
    >>> cr.repeat(cr.tensor([1, 2, 3]), cr.tensor([2, 0, 1])).tolist()
    [1, 1, 3]
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    along = axis_of("repeat", axis, x.ndim)
    n = x.shape[along]
    counts = as_tensor(repeats).known("repeat(..., repeats)")
    if counts.dtype.kind not in "iu":
        raise DTypeError(f"repeat: repeats must be integers; got {counts.dtype.name}.")
    if counts.size and counts.min() < 0:
        raise ShapeError(f"repeat: {counts.min()} repeats; expected 0 or more.")
    if counts.ndim > 1 or counts.size not in (1, n):
        raise ShapeError(
            f"repeat: repeats of shape {counts.shape} for axis {along} of shape {x.shape}; expected ({n},)."
        )
    if counts.size == 1:
        times = int(counts.reshape(-1)[0])
        between = expand_dims(x, along + 1)
        wide = operators.broadcast_to(between, _with_extent(between.shape, along + 1, times))
        return reshaped(wide, _with_extent(x.shape, along, n * times))
    return take(x, wrap(np.repeat(np.arange(n), counts)), axis=along)


def tile(x: Any, repetitions: int | Sequence[int], /) -> Tensor:
    """The whole tensor repeated, `repetitions` times along each axis; the shorter list counts from the last axis.

    >>> import chainrule as cr
    >>> cr.tile(cr.tensor([1, 2]), (2, 2)).tolist()
    [[1, 2, 1, 2], [1, 2, 1, 2]]
    """
    x = as_tensor(x)
    times = shape_of("tile", repetitions)
    ndim = builtins.max(x.ndim, len(times))
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - x.ndim) + x.shape
    # each extent n becomes (1, n), then (times, n), then times · n
    apart = reshaped(x, [k for n in shape for k in (1, n)])
    wide = operators.broadcast_to(apart, tuple(k for t, n in zip(times, shape, strict=True) for k in (t, n)))
    return reshaped(wide, [t * n for t, n in zip(times, shape, strict=True)])


def pad(x: Any, widths: Any, /, mode: str = "constant", value: Any = 0) -> Tensor:
    """More elements before and after those of each axis.

    `widths` is one number for everywhere, a pair (before, after) for every axis, or such a pair for each axis.
    `mode`: 'constant' adds `value`; 'edge' repeats the outermost element; 'reflect' mirrors without it, 'symmetric'
    with it; 'wrap' goes on at the other end. Raises ConfigError for another mode, ShapeError for widths that do not
    fit.

    >>> import chainrule as cr
    >>> cr.pad(cr.tensor([1, 2, 3]), (1, 2), mode="reflect").tolist()
    [2, 1, 2, 3, 2, 1]
    """
    x = as_tensor(x)
    pairs = _pairs(x, widths)
    if mode not in PAD_MODES:
        raise ConfigError(f"pad: mode {mode!r} is unknown. Modes: {', '.join(PAD_MODES)}.")
    if mode == "constant":
        return _pad_constant(x, pairs, value)
    for axis, (n, pair) in enumerate(zip(x.shape, pairs, strict=True)):
        if n == 0 and any(pair):
            raise ShapeError(f"pad: mode {mode!r} has nothing to repeat along axis {axis} of shape {x.shape}.")
        if any(pair):
            x = take(x, wrap(np.pad(np.arange(n), pair, mode=mode)), axis=axis)  # type: ignore[call-overload]
    return x


def _pad_constant(x: Tensor, pairs: list[tuple[int, int]], value: Any) -> Tensor:
    if isinstance(value, (bool, int, float)) and value == 0:
        low, high = (tuple(pair[k] for pair in pairs) for k in (0, 1))
        return layout.pad(x, low=low, high=high, interior=(0,) * x.ndim) if any(low + high) else x
    fill = value if isinstance(value, Tensor) else constant((), value, dtypes.scalar_dtype(value, x.dtype))
    if fill.ndim:
        raise ShapeError(f"pad: the value is one number; got shape {fill.shape}.")
    if dtypes.promote(fill.dtype, x.dtype) != x.dtype:
        raise DTypeError(f"pad: a value of dtype {fill.dtype.name} does not fit into a tensor of {x.dtype.name}.")
    fill = cast_to(fill, x.dtype)
    for axis, pair in enumerate(pairs):
        blocks = [operators.broadcast_to(fill, _with_extent(x.shape, axis, width)) for width in pair]
        x = concat([blocks[0], x, blocks[1]], axis) if any(pair) else x
    return x


def _with_extent(shape: Shape, axis: int, n: int) -> Shape:
    return (*shape[:axis], n, *shape[axis + 1 :])


def _pairs(x: Tensor, widths: Any) -> list[tuple[int, int]]:
    try:
        pairs = np.broadcast_to(np.asarray(widths), (x.ndim, 2))
    except ValueError:
        raise ShapeError(
            f"pad: widths {widths!r:.80} do not fit shape {x.shape}; give a number, a pair (before, after), or "
            f"one pair for each of the {x.ndim} axes."
        ) from None
    if pairs.size and (pairs.dtype.kind not in "iu" or pairs.min() < 0):
        raise ShapeError(f"pad: widths are integers from 0 on; got {widths!r:.80}.")
    return [(int(a), int(b)) for a, b in pairs]
