"""Sums, products, means, variances and extremes over axes.

`axis` is one axis, several, or None for all; with `keepdims` the axes stay with extent 1. ShapeError for an axis that
does not exist or is named twice. Integers and truth values add up in int64. float16 and bfloat16 are computed in
float32.
"""

import builtins
import math
from typing import Any

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ShapeError
from chainrule.functions.axes import Axis, axes_of, axis_of, reduced
from chainrule.functions.choice import over
from chainrule.functions.custom import custom_vjp
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.primitives import elementwise as e
from chainrule.primitives import reduce
from chainrule.primitives.layout import concat
from chainrule.primitives.layout import sum as sum_primitive
from chainrule.primitives.operators import cast_to


def _accumulated(x: Any, dtype: Any) -> Tensor:
    """`x` in the dtype that its sums and products have."""
    x = as_tensor(x)
    if dtype is not None:
        return cast_to(x, dtypes.as_dtype(dtype))
    return x if dtypes.is_float(x.dtype) else cast_to(x, dtypes.int64)


def sum(x: Any, /, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `axis`; 0 for no elements. Integers and truth values give int64, unless `dtype` says otherwise.

    >>> import chainrule as cr
    >>> cr.sum(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).tolist()
    [4.0, 6.0]
    """
    x = _accumulated(x, dtype)
    return reduced(sum_primitive, x, axes_of("sum", axis, x.ndim), keepdims)


def prod(x: Any, /, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over `axis`; 1 for no elements. The gradient is right for elements that are 0, too.

    >>> import chainrule as cr
    >>> cr.prod(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1).tolist()
    [2.0, 12.0]
    """
    x = _accumulated(x, dtype)
    return reduced(reduce.prod, x, axes_of("prod", axis, x.ndim), keepdims)


def max(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element along `axis`; NaN if there is one. Equals share the gradient. ShapeError for no elements.

    >>> import chainrule as cr
    >>> cr.max(cr.tensor([[1.0, 7.0], [3.0, 4.0]]), axis=1).tolist()
    [7.0, 4.0]
    """
    x = as_tensor(x)
    return reduced(reduce.max, x, axes_of("max", axis, x.ndim), keepdims)


def min(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element along `axis`; NaN if there is one. Equals share the gradient. ShapeError for no elements.

    >>> import chainrule as cr
    >>> cr.min(cr.tensor([[1.0, 7.0], [3.0, 4.0]]), axis=1).tolist()
    [1.0, 3.0]
    """
    x = as_tensor(x)
    return reduced(reduce.min, x, axes_of("min", axis, x.ndim), keepdims)


def _count(x: Tensor, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


@rounded_once
def mean(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over `axis`; NaN for no elements. Integers give float32.

    >>> import chainrule as cr
    >>> cr.mean(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).tolist()
    [2.0, 3.0]
    """
    x = as_tensor(x)
    axes = axes_of("mean", axis, x.ndim)
    return sum(x, axes, keepdims) / _count(x, axes)


@rounded_once
def var(x: Any, /, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance over `axis`: squared distances from the mean, added up and divided by n − `correction`.

    `correction` 0 is that of a population (NumPy's default and that of the Array API standard; PyTorch's is 1), 1 that
    of a sample (Bessel). It is 0 exactly where all elements are equal, and NaN or inf for n ≤ `correction`.
    Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), the two-pass algorithm.

    >>> import chainrule as cr
    >>> cr.var(cr.tensor([1.0, 2.0, 3.0]), correction=1).item()
    1.0
    """
    x = real("var", x)
    axes = axes_of("var", axis, x.ndim)
    # The rounding error of the mean would make equal elements differ from it; the mean of the distances takes it out.
    shift = stop_gradient(mean(x, axes, keepdims=True))
    distance = x - (shift + mean(x - shift, axes, keepdims=True))
    return sum(distance * distance, axes, keepdims) / builtins.max(_count(x, axes) - correction, 0.0)


_root = custom_vjp(lambda v: e.sqrt(v), lambda dy, y, v: (over(0.5 * dy, y),))


@rounded_once
def std(x: Any, /, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`, the square root of `var`. Its gradient where all elements are equal is 0.

    >>> import chainrule as cr
    >>> cr.std(cr.tensor([1.0, 2.0, 3.0]), correction=1).item()
    1.0
    """
    x = as_tensor(x)
    return _root(var(x, axes_of("std", axis, x.ndim), correction, keepdims))


def cumulative_sum(x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The running sum along `axis` (needed unless there is one axis only), with `include_initial` from 0 on.

    Integers and truth values give int64, unless `dtype` says otherwise.

    >>> import chainrule as cr
    >>> cr.cumulative_sum(cr.tensor([1, 2, 3]), include_initial=True).tolist()
    [0, 1, 3, 6]
    """
    x = _accumulated(x, dtype)
    along = _only_axis("cumulative_sum", axis, x)
    y = reduce.cumsum(x, axis=along, reverse=False)
    return _with_initial(y, along, 0) if include_initial else y


@rounded_once
def cumulative_prod(x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The running product along `axis` (needed unless there is one axis only), with `include_initial` from 1 on.

    The gradient is right for elements that are 0, too.

    >>> import chainrule as cr
    >>> cr.cumulative_prod(cr.tensor([1, 2, 3, 4])).tolist()
    [1, 2, 6, 24]
    """
    x = _accumulated(x, dtype)
    along = _only_axis("cumulative_prod", axis, x)
    y = reduce.cumulative_product(x, along)
    return _with_initial(y, along, 1) if include_initial else y


def _only_axis(name: str, axis: int | None, x: Tensor) -> int:
    if axis is None and x.ndim != 1:
        raise ShapeError(f"{name}: shape {x.shape} has {x.ndim} axes; say along which one: {name}(x, axis=...).")
    return axis_of(name, 0 if axis is None else axis, x.ndim)


def _with_initial(y: Tensor, axis: int, number: int) -> Tensor:
    first = full(tuple(1 if i == axis else n for i, n in enumerate(y.shape)), number, y.dtype)
    return concat(first, y, axis=axis)
