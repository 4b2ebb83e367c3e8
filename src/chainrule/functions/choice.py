"""Choosing between values: `where` and what is made of it."""

from typing import Any

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import SCALARS, broadcast_to, common_shape, lift


def where(condition: Any, a: Any, b: Any, /) -> Tensor:
    """Elements of `a` where `condition` is true, of `b` elsewhere. All three broadcast; `a` and `b` promote.

    The gradient flows to the element that was chosen. Raises DTypeError unless the condition is made of truth values.

    >>> import chainrule as cr
    >>> x = cr.tensor([-1.0, 2.0])
    >>> cr.where(x > 0, x, 0).tolist()
    [0.0, 2.0]
    """
    condition = as_tensor(condition)
    if condition.dtype != dtypes.bool_:
        raise DTypeError(f"where: the condition must be truth values; got {condition.dtype.name}. Write x != 0.")
    a, b = lift("where", (a, b))
    shape = common_shape("where", condition.shape, a.shape)
    return e.where(*[broadcast_to(x, shape) for x in (condition, a, b)])


def over(x: Any, y: Tensor) -> Tensor:
    """x / y, but 0, with derivatives 0, where y is 0: what lengths and standard deviations do at their kink."""
    zero = y == 0
    return where(zero, 0, x / where(zero, 1, y))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """`x` limited to the range from `min` to `max`; None leaves a side open. Where they cross, `max` holds.

    The gradient is 0 at the limits themselves, as at any kink. NaN stays NaN, and a limit that is NaN gives NaN.

    >>> import chainrule as cr
    >>> cr.clip(cr.tensor([-3.0, 0.5, 7.0]), -1, 1).tolist()
    [-1.0, 0.5, 1.0]
    """
    y = as_tensor(x)
    if min is not None:
        y, low = lift("clip", (y, min))
        y = e.where(_holds(e.less_equal(y, low), min, low), low, y)
    if max is not None:
        y, high = lift("clip", (y, max))
        y = e.where(_holds(e.less_equal(high, y), max, high), high, y)
    return y


def _holds(beyond: Tensor, given: Any, limit: Tensor) -> Tensor:
    """Where the limit takes the place of the element: beyond it, or where the limit is NaN."""
    if not dtypes.is_float(limit.dtype) or (isinstance(given, SCALARS) and given == given):
        return beyond
    return e.bit_or(beyond, e.bit_not(e.equal(limit, limit)))
