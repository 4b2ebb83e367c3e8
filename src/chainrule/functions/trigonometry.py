"""Trigonometric and hyperbolic functions. Angles are in radians; integers give float32.

The hyperbolic functions other than tanh are composed of exponentials and logarithms in forms that neither cancel near 0
nor overflow before the result does. Source of the inverse ones: Kahan, "Branch cuts for complex elementary functions"
(1987).
"""

import math
from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor
from chainrule.functions.arithmetic import hypot
from chainrule.functions.choice import where
from chainrule.functions.lifting import composed, real
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import lift


def sin(x: Any, /) -> Tensor:
    """The sine.

    >>> import chainrule as cr
    >>> cr.sin(cr.tensor(0.0)).item()
    0.0
    """
    return e.sin(real("sin", x))


def cos(x: Any, /) -> Tensor:
    """The cosine.

    >>> import chainrule as cr
    >>> cr.cos(cr.tensor(0.0)).item()
    1.0
    """
    return e.cos(real("cos", x))


def tan(x: Any, /) -> Tensor:
    """The tangent.

    >>> import chainrule as cr
    >>> cr.tan(cr.tensor(0.0)).item()
    0.0
    """
    return e.tan(real("tan", x))


def asin(x: Any, /) -> Tensor:
    """The angle in [−π/2, π/2] whose sine is x; NaN outside of [−1, 1]. The gradient at ±1 is inf.

    >>> import chainrule as cr
    >>> round(float(cr.asin(cr.tensor(1.0))), 4)
    1.5708
    """
    return e.asin(real("asin", x))


def acos(x: Any, /) -> Tensor:
    """The angle in [0, π] whose cosine is x; NaN outside of [−1, 1]. The gradient at ±1 is −inf.

    >>> import chainrule as cr
    >>> cr.acos(cr.tensor(1.0)).item()
    0.0
    """
    return e.acos(real("acos", x))


def atan(x: Any, /) -> Tensor:
    """The angle in [−π/2, π/2] whose tangent is x.

    >>> import chainrule as cr
    >>> round(float(cr.atan(cr.tensor(1.0))), 4)
    0.7854
    """
    return e.atan(real("atan", x))


def atan2(a: Any, b: Any, /) -> Tensor:
    """The angle in [−π, π] of the point with ordinate `a` and abscissa `b`.

    >>> import chainrule as cr
    >>> round(float(cr.atan2(cr.tensor(1.0), -1.0)), 4)
    2.3562
    """
    return e.atan2(*lift("atan2", (a, b), to_float=True))


# exp(x/2) − 1 and exp(−x/2) − 1 have opposite signs, so that their difference, 2 sinh(x/2), does not cancel; sinh x is
# 2 sinh(x/2) cosh(x/2), and cosh x is 1 + 2 sinh²(x/2).


def _sinh(x: Tensor) -> Tensor:
    up, down = e.expm1(x * 0.5), e.expm1(x * -0.5)
    return (up - down) * (0.5 * (2 + (up + down)))


def _cosh(x: Tensor) -> Tensor:
    twice = e.expm1(x * 0.5) - e.expm1(x * -0.5)
    return 1 + twice * (0.5 * twice)


_sinh_ruled = composed("sinh", _sinh, lambda dy, y, x: (dy * cosh(x),))
_cosh_ruled = composed("cosh", _cosh, lambda dy, y, x: (dy * sinh(x),))


def sinh(x: Any, /) -> Tensor:
    """The hyperbolic sine (exp x − exp −x) / 2.

    >>> import chainrule as cr
    >>> cr.sinh(cr.tensor(0.0)).item()
    0.0
    """
    return _sinh_ruled(x)


def cosh(x: Any, /) -> Tensor:
    """The hyperbolic cosine (exp x + exp −x) / 2.

    >>> import chainrule as cr
    >>> cr.cosh(cr.tensor(0.0)).item()
    1.0
    """
    return _cosh_ruled(x)


def tanh(x: Any, /) -> Tensor:
    """The hyperbolic tangent sinh x / cosh x.

    >>> import chainrule as cr
    >>> cr.tanh(cr.tensor([0.0, 100.0])).tolist()
    [0.0, 1.0]
    """
    return e.tanh(real("tanh", x))


def _asinh(x: Tensor) -> Tensor:
    size = e.abs(x)
    squared = size * size
    near = e.log1p(size + squared / (1 + e.sqrt(1 + squared)))
    far = e.log(size) + math.log(2)  # beyond 1/√eps, where √(1 + x²) is x and x² may overflow
    return e.copysign(where(size > float(np.finfo(x.dtype).eps) ** -0.5, far, near), x)


def _acosh(x: Tensor) -> Tensor:
    above = x - 1
    near = e.log1p(above + e.sqrt(above) * e.sqrt(x + 1))
    far = e.log(x) + math.log(2)
    return where(x > float(np.finfo(x.dtype).eps) ** -0.5, far, near)


def _atanh(x: Tensor) -> Tensor:
    size = e.abs(x)
    return e.copysign(0.5 * e.log1p(2 * size / (1 - size)), x)


_asinh_ruled = composed("asinh", _asinh, lambda dy, y, x: (dy / hypot(x, 1),))
_acosh_ruled = composed("acosh", _acosh, lambda dy, y, x: (dy / (e.sqrt(x - 1) * e.sqrt(x + 1)),))
_atanh_ruled = composed("atanh", _atanh, lambda dy, y, x: (dy / ((1 - x) * (1 + x)),))


def asinh(x: Any, /) -> Tensor:
    """The number whose hyperbolic sine is x.

    >>> import chainrule as cr
    >>> round(float(cr.asinh(cr.tensor(1e30))), 4)
    69.7707
    """
    return _asinh_ruled(x)


def acosh(x: Any, /) -> Tensor:
    """The number ≥ 0 whose hyperbolic cosine is x; NaN below 1. The gradient at 1 is inf.

    >>> import chainrule as cr
    >>> cr.acosh(cr.tensor(1.0)).item()
    0.0
    """
    return _acosh_ruled(x)


def atanh(x: Any, /) -> Tensor:
    """The number whose hyperbolic tangent is x; ±inf at ±1, NaN beyond.

    >>> import chainrule as cr
    >>> cr.atanh(cr.tensor([0.0, 1.0])).tolist()
    [0.0, inf]
    """
    return _atanh_ruled(x)
