"""Elementwise arithmetic: sums, products, rounding, signs. Operands broadcast and promote (see chainrule.dtypes)."""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError
from chainrule.functions.choice import over, where
from chainrule.functions.lifting import composed, numbers, real
from chainrule.primitives import elementwise as e
from chainrule.primitives import operators
from chainrule.primitives.operators import lift


def add(a: Any, b: Any, /) -> Tensor:
    """The sum a + b.

    >>> import chainrule as cr
    >>> cr.add(cr.tensor([1.0, 2.0]), 10).tolist()
    [11.0, 12.0]
    """
    return operators.add(a, b)


def subtract(a: Any, b: Any, /) -> Tensor:
    """The difference a − b.

    >>> import chainrule as cr
    >>> cr.subtract(cr.tensor([1.0, 2.0]), 10).tolist()
    [-9.0, -8.0]
    """
    return e.sub(*numbers("subtract", a, b))


def multiply(a: Any, b: Any, /) -> Tensor:
    """The product a · b, element by element.

    >>> import chainrule as cr
    >>> cr.multiply(cr.tensor([1.0, 2.0]), cr.tensor([[2.0], [3.0]])).tolist()
    [[2.0, 4.0], [3.0, 6.0]]
    """
    return operators.multiply(a, b)


def divide(a: Any, b: Any, /) -> Tensor:
    """The quotient a / b; integers give float32. Division by zero gives inf, and 0 / 0 NaN.

    >>> import chainrule as cr
    >>> cr.divide(cr.tensor([1, 2]), 4).tolist()
    [0.25, 0.5]
    """
    return operators.divide(a, b)


def floor_divide(a: Any, b: Any, /) -> Tensor:
    """The quotient rounded down: a = b · floor_divide(a, b) + remainder(a, b). No gradient.

    Raises DivisionByZero for integers by zero.

    >>> import chainrule as cr
    >>> cr.floor_divide(cr.tensor([7, -7]), 2).tolist()
    [3, -4]
    """
    return operators.floor_divide(*numbers("floor_divide", a, b))


def remainder(a: Any, b: Any, /) -> Tensor:
    """What `floor_divide` leaves, with the sign of `b`. DivisionByZero for integers by zero.

    >>> import chainrule as cr
    >>> cr.remainder(cr.tensor([7.0, -7.0]), 3.0).tolist()
    [1.0, 2.0]
    """
    return e.mod(*numbers("remainder", a, b))


def pow(a: Any, b: Any, /) -> Tensor:
    """`a` to the power of `b`; 0 to the power of 0 is 1. For a negative base the gradient by `b` is NaN.

    Raises DTypeError for an integer to a negative integer power: the result would be a fraction.

    >>> import chainrule as cr
    >>> cr.pow(cr.tensor([2.0, 3.0]), 2).tolist()
    [4.0, 9.0]
    """
    if isinstance(a, Tensor) and dtypes.is_float(a.dtype):
        return operators.power(a, b)
    a, b = numbers("pow", a, b)
    if dtypes.is_integer(a.dtype) and b.value is not None and np.any(b.value < 0):
        raise DTypeError("pow: an integer to a negative power is a fraction. Convert first: x.astype(cr.float32).")
    return e.pow(a, b)


def negative(x: Any, /) -> Tensor:
    """−x.

    >>> import chainrule as cr
    >>> cr.negative(cr.tensor([1.0, -2.0])).tolist()
    [-1.0, 2.0]
    """
    return e.neg(*numbers("negative", x))


def positive(x: Any, /) -> Tensor:
    """`x` itself.

    >>> import chainrule as cr
    >>> cr.positive(cr.tensor([1.0, -2.0])).tolist()
    [1.0, -2.0]
    """
    return numbers("positive", x)[0]


def abs(x: Any, /) -> Tensor:
    """The absolute value |x|. The gradient at 0 is 0.

    >>> import chainrule as cr
    >>> cr.abs(cr.tensor([1.0, -2.0])).tolist()
    [1.0, 2.0]
    """
    return e.abs(as_tensor(x))


def sign(x: Any, /) -> Tensor:
    """−1, 0 or 1, as x is negative, zero or positive; NaN for NaN. The gradient is 0.

    >>> import chainrule as cr
    >>> cr.sign(cr.tensor([-5.0, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return e.sign(*numbers("sign", x))


def square(x: Any, /) -> Tensor:
    """x².

    >>> import chainrule as cr
    >>> cr.square(cr.tensor([3, -4])).tolist()
    [9, 16]
    """
    x = as_tensor(x)
    return e.mul(x, x)


def reciprocal(x: Any, /) -> Tensor:
    """1 / x; integers give float32.

    >>> import chainrule as cr
    >>> cr.reciprocal(cr.tensor([2.0, -4.0])).tolist()
    [0.5, -0.25]
    """
    return 1 / real("reciprocal", x)


def sqrt(x: Any, /) -> Tensor:
    """The square root; NaN for negative numbers. The gradient at 0 is inf.

    >>> import chainrule as cr
    >>> cr.sqrt(cr.tensor([4.0, 2.25])).tolist()
    [2.0, 1.5]
    """
    return e.sqrt(real("sqrt", x))


def maximum(a: Any, b: Any, /) -> Tensor:
    """The larger of a and b; NaN where either is NaN. Equals share the gradient.

    >>> import chainrule as cr
    >>> cr.maximum(cr.tensor([1.0, 5.0]), 3.0).tolist()
    [3.0, 5.0]
    """
    return operators.maximum(a, b)


def minimum(a: Any, b: Any, /) -> Tensor:
    """The smaller of a and b; NaN where either is NaN. Equals share the gradient.

    >>> import chainrule as cr
    >>> cr.minimum(cr.tensor([1.0, 5.0]), 3.0).tolist()
    [1.0, 3.0]
    """
    return operators.minimum(a, b)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    a, b = e.abs(a), e.abs(b)
    large, small = e.maximum(a, b), e.minimum(a, b)
    ratio = small / where(large == 0, 1, large)
    infinite = (a == np.inf) | (b == np.inf)
    return where(infinite, np.inf, large * e.sqrt(1 + ratio * ratio))


_hypot_ruled = composed("hypot", _hypot, lambda dy, y, a, b: (dy * over(a, y), dy * over(b, y)))


def hypot(a: Any, b: Any, /) -> Tensor:
    """√(a² + b²) without overflow or underflow on the way; inf if either is infinite. The gradient at (0, 0) is 0.

    >>> import chainrule as cr
    >>> cr.hypot(cr.tensor([3.0, 0.0]), cr.tensor([4.0, 0.0])).tolist()
    [5.0, 0.0]
    """
    return _hypot_ruled(a, b)


def copysign(a: Any, b: Any, /) -> Tensor:
    """The magnitude of `a` with the sign of `b` (that of −0.0 too). No gradient by `b`; by `a` it is 0 at 0.

    >>> import chainrule as cr
    >>> cr.copysign(cr.tensor([1.0, -2.0]), -0.0).tolist()
    [-1.0, -2.0]
    """
    return e.copysign(*lift("copysign", (a, b), to_float=True))


def nextafter(a: Any, b: Any, /) -> Tensor:
    """The next float after `a` on the way to `b`. No gradient. float32 and float64 only (else DTypeError).

    >>> import chainrule as cr
    >>> float(cr.nextafter(cr.tensor(1.0), 2.0)) - 1.0
    1.1920928955078125e-07
    """
    a, b = lift("nextafter", (a, b), to_float=True)
    if a.dtype in dtypes.HALVES:
        raise DTypeError(f"nextafter takes float32 and float64; got {a.dtype.name}, which is computed in float32.")
    return e.nextafter(a, b)


def floor(x: Any, /) -> Tensor:
    """Rounded down to an integer; the dtype stays. The gradient is 0.

    >>> import chainrule as cr
    >>> cr.floor(cr.tensor([1.7, -1.2])).tolist()
    [1.0, -2.0]
    """
    x = as_tensor(x)
    return e.floor(x) if dtypes.is_float(x.dtype) else x


def ceil(x: Any, /) -> Tensor:
    """Rounded up to an integer; the dtype stays. The gradient is 0.

    >>> import chainrule as cr
    >>> cr.ceil(cr.tensor([1.2, -1.7])).tolist()
    [2.0, -1.0]
    """
    x = as_tensor(x)
    return e.ceil(x) if dtypes.is_float(x.dtype) else x


def trunc(x: Any, /) -> Tensor:
    """Rounded towards zero; the dtype stays. The gradient is 0.

    >>> import chainrule as cr
    >>> cr.trunc(cr.tensor([1.7, -1.7])).tolist()
    [1.0, -1.0]
    """
    x = as_tensor(x)
    return where(x < 0, e.ceil(x), e.floor(x)) if dtypes.is_float(x.dtype) else x


def round(x: Any, /) -> Tensor:
    """Rounded to the nearest integer, halves to the even one; the dtype stays. The gradient is 0.

    >>> import chainrule as cr
    >>> cr.round(cr.tensor([0.5, 1.5, 1.7])).tolist()
    [0.0, 2.0, 2.0]
    """
    x = as_tensor(x)
    return e.round(x) if dtypes.is_float(x.dtype) else x
