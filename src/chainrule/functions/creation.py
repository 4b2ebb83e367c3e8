"""Making tensors. Without `dtype`, floats are float32 and integers int64. Constants take the memory of one number."""

import math
import operator
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, wrap
from chainrule.core.tensor import full as constant
from chainrule.core.tensor import tensor as make_tensor
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError
from chainrule.functions.axes import reshaped, shape_of
from chainrule.functions.choice import where
from chainrule.primitives import operators
from chainrule.primitives.index import iota
from chainrule.primitives.operators import cast_to


def _dtype(dtype: Any, otherwise: dtypes.DType) -> dtypes.DType:
    return otherwise if dtype is None else dtypes.as_dtype(dtype)


def zeros(shape: Any, dtype: Any = None) -> Tensor:
    """Zeros.

    >>> import chainrule as cr
    >>> cr.zeros((1, 2)).tolist()
    [[0.0, 0.0]]
    """
    return constant(shape_of("zeros", shape), 0, _dtype(dtype, dtypes.default_float))


def ones(shape: Any, dtype: Any = None) -> Tensor:
    """Ones.

    >>> import chainrule as cr
    >>> cr.ones((1, 2)).tolist()
    [[1.0, 1.0]]
    """
    return constant(shape_of("ones", shape), 1, _dtype(dtype, dtypes.default_float))


def empty(shape: Any, dtype: Any = None) -> Tensor:
    """Zeros: a tensor cannot be written to, so there is no use in leaving it unset.

    >>> import chainrule as cr
    >>> cr.empty((2, 0)).shape
    (2, 0)
    """
    return zeros(shape, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """One number everywhere: a Python number, or a tensor with one element (which may be differentiated).

    >>> import chainrule as cr
    >>> cr.full((1, 2), 7).tolist()
    [[7, 7]]
    """
    extents = shape_of("full", shape)
    if isinstance(fill_value, operators.SCALARS):
        otherwise = fill_value.dtype if isinstance(fill_value, np.generic) else dtypes.scalar_dtype(fill_value, None)
        return constant(extents, fill_value, _dtype(dtype, otherwise))
    value = as_tensor(fill_value)
    if value.size != 1:
        raise ShapeError(f"full: the value is one number; got shape {value.shape}.")
    return operators.broadcast_to(reshaped(cast_to(value, _dtype(dtype, value.dtype)), ()), extents)


def zeros_like(x: Any, /, dtype: Any = None) -> Tensor:
    """Zeros of the shape (and dtype) of `x`.

    >>> import chainrule as cr
    >>> cr.zeros_like(cr.tensor([1, 2])).tolist()
    [0, 0]
    """
    x = as_tensor(x)
    return constant(x.shape, 0, _dtype(dtype, x.dtype))


def ones_like(x: Any, /, dtype: Any = None) -> Tensor:
    """Ones of the shape (and dtype) of `x`.

    >>> import chainrule as cr
    >>> cr.ones_like(cr.tensor([1, 2])).tolist()
    [1, 1]
    """
    x = as_tensor(x)
    return constant(x.shape, 1, _dtype(dtype, x.dtype))


def empty_like(x: Any, /, dtype: Any = None) -> Tensor:
    """Zeros of the shape (and dtype) of `x`: see `empty`.

    >>> import chainrule as cr
    >>> cr.empty_like(cr.tensor([1, 2])).shape
    (2,)
    """
    return zeros_like(x, dtype)


def full_like(x: Any, /, fill_value: Any, dtype: Any = None) -> Tensor:
    """One number everywhere, in the shape (and dtype) of `x`.

    >>> import chainrule as cr
    >>> cr.full_like(cr.tensor([1.0, 2.0]), 7).tolist()
    [7.0, 7.0]
    """
    x = as_tensor(x)
    return full(x.shape, fill_value, _dtype(dtype, x.dtype))


def arange(start: Any, /, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """start, start + step, … before `stop`; with one argument from 0 to before it. int64 if all three are integers.

    Raises ConfigError for step 0.

    >>> import chainrule as cr
    >>> cr.arange(3).tolist(), cr.arange(1, 2, 0.5).tolist()
    ([0, 1, 2], [1.0, 1.5])
    """
    first, last = (0, start) if stop is None else (start, stop)
    first, last, by = (x.item() if isinstance(x, (Tensor, np.generic)) else x for x in (first, last, step))
    if by == 0:
        raise ConfigError("arange: the step is 0; it would never arrive.")
    whole = all(isinstance(x, int) for x in (first, last, by))
    kind = _dtype(dtype, dtypes.default_integer if whole else dtypes.default_float)
    count = max(-((first - last) // by) if whole else math.ceil((last - first) / by), 0)
    if (first, by) == (0, 1):
        return iota(shape=(count,), axis=0, dtype=kind)
    return wrap((first + by * np.arange(count)).astype(kind))  # in int64 or float64, rounded once


def linspace(start: Any, stop: Any, /, num: int, dtype: Any = None, endpoint: bool = True) -> Tensor:
    """`num` numbers at equal distances from `start` to `stop`, which is the last one if `endpoint`.

    `start` and `stop` may be tensors with one number; gradients flow to them.

    >>> import chainrule as cr
    >>> cr.linspace(0, 1, 5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    number = operator.index(num)
    if number < 0:
        raise ShapeError(f"linspace: {number} numbers; expected 0 or more.")
    if not isinstance(start, Tensor) and not isinstance(stop, Tensor):
        kind = _dtype(dtype, dtypes.default_float)
        return wrap(np.linspace(float(start), float(stop), number, endpoint=endpoint).astype(kind))
    first, last = operators.lift("linspace", (start, stop), to_float=True)
    if first.ndim:
        raise ShapeError(f"linspace: start and stop are numbers; got shape {first.shape}.")
    part = wrap(np.linspace(0, 1, number, endpoint=endpoint).astype(first.dtype))
    return cast_to((1 - part) * first + part * last, _dtype(dtype, first.dtype))


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None) -> Tensor:
    """Ones on the diagonal `k` (above the main one for k > 0), zeros elsewhere.

    >>> import chainrule as cr
    >>> cr.eye(2, 3, k=1).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, columns = shape_of("eye", (n_rows, n_rows if n_cols is None else n_cols))
    return wrap(np.eye(rows, columns, k, dtype=_dtype(dtype, dtypes.default_float)))


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangles of a stack of matrices: zeros above the diagonal `k`.

    >>> import chainrule as cr
    >>> cr.tril(cr.ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    x = _matrices("tril", x)
    return where(_lower(x, k), x, 0)


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangles of a stack of matrices: zeros below the diagonal `k`.

    >>> import chainrule as cr
    >>> cr.triu(cr.ones((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    x = _matrices("triu", x)
    return where(_lower(x, k - 1), 0, x)


def _matrices(name: str, x: Any) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"{name}: shape {x.shape} is no stack of matrices.")
    return x


def _lower(x: Tensor, k: int) -> Tensor:
    """Which elements stand on or below the diagonal `k`."""
    rows, columns = x.shape[-2:]
    return wrap(np.tri(rows, columns, k, dtype=np.bool_))


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Tensor]:
    """For vectors, the coordinates of the grid that they span: one tensor for each.

    indexing 'xy': the first vector runs along columns (axis 1), as in pictures; 'ij': along the first axis.

    >>> import chainrule as cr
    >>> x, y = cr.meshgrid(cr.tensor([1, 2, 3]), cr.tensor([4, 5]))
    >>> x.tolist(), y.tolist()
    ([[1, 2, 3], [1, 2, 3]], [[4, 4, 4], [5, 5, 5]])
    """
    if indexing not in ("xy", "ij"):
        raise ConfigError(f"meshgrid: indexing is 'xy' or 'ij'; got {indexing!r}.")
    vectors = [as_tensor(x) for x in arrays]
    if any(x.ndim > 1 for x in vectors):
        raise ShapeError(f"meshgrid takes vectors; got shapes {', '.join(str(x.shape) for x in vectors)}.")
    axes = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        axes[:2] = [1, 0]
    sizes = [x.size for x in vectors]
    shape = tuple(sizes[axes.index(i)] for i in range(len(vectors)))
    return [
        operators.broadcast_to(reshaped(x, [n if i == a else 1 for i, n in enumerate(shape)]), shape)
        for x, a in zip(vectors, axes, strict=True)
    ]


def asarray(x: Any, /, dtype: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor of what is given: a tensor stays as it is, everything else is copied as by `tensor`.

    >>> import chainrule as cr
    >>> cr.asarray([1, 2], dtype=cr.float32).tolist()
    [1.0, 2.0]
    """
    if isinstance(x, Tensor):
        return cast_to(x, _dtype(dtype, x.dtype))
    if copy is False:
        raise DataError("asarray(copy=False): a tensor never shares memory that somebody else may write to.")
    return make_tensor(x, dtype=dtype)


def from_dlpack(x: Any, /, copy: bool | None = None) -> Tensor:
    """A tensor of what another library holds in the CPU's memory and offers by the DLPack protocol; a copy.

    Raises DTypeError for what is no such object or has a dtype that chainrule does not have.

    >>> import chainrule as cr
    >>> import numpy as np
    >>> cr.from_dlpack(np.arange(3)).tolist()
    [0, 1, 2]
    """
    if isinstance(x, Tensor):
        return x
    if copy is False:
        raise DataError("from_dlpack(copy=False): a tensor never shares memory that somebody else may write to.")
    try:
        array = np.from_dlpack(x)
    except (AttributeError, BufferError, RuntimeError, TypeError) as e:
        raise DTypeError(f"from_dlpack: {type(x).__name__} cannot be read: {e}.") from None
    return make_tensor(array)
