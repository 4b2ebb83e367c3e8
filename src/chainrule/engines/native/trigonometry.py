"""Sine, cosine, tangent and their inverses."""

import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.engines.native.polynomial import bits_of, float_of, floats, horner, multiply_add, shift
from chainrule.engines.native.reduction import Angle, quarter_turns
from chainrule.engines.native.roots import divide_exactly

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES = ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2")
# On |r| ≤ π/4, in z = r²: (sin r / r − 1) / z and (cos r − 1 + z/2) / z². The short ones serve float32.
SIN_SHORT = (-0.16666666641607078, 0.008333329383590602, -0.00019839334085189214, 2.7183042453584537e-06)
COS_SHORT = (0.04166666662279328, -0.001388888375033479, 2.4799519182420814e-05, -2.7210168503207553e-07)
SIN = (-0.16666666666666632, 0.008333333333322413, -0.0001984126982980781, 2.7557313691914556e-06,
       -2.5050758114304356e-08, 1.5896795581325762e-10)  # fmt: skip
COS = (0.0416666666666666, -0.0013888888888874125, 2.480158728948219e-05, -2.75573143523331e-07,
       2.0875723273092856e-09, -1.135964778982823e-11)  # fmt: skip
# (arcsin x / x − 1) / x² in x² on [0, ½], and (arctan x / x − 1) / x² in x² on [0, √2 − 1]
ARCSIN = {
    dtypes.float32: (
        0.16666753590106964, 0.07495232671499252, 0.04547834396362305, 0.024140991270542145, 0.04223054274916649,
    ),
    dtypes.float64: (
        0.16666666666666763, 0.07499999999970096, 0.04464285717528836, 0.030381942675192408, 0.022372215907885126,
        0.017351595471471113, 0.01398101880814809, 0.011397291305070875, 0.010789328654365134, 0.0036721638153688592,
        0.021790684629538197, -0.02111675542367251, 0.03270217562284792,
    ),
}  # fmt: skip
ARCTAN = {
    dtypes.float32: (
        -0.33333316445350647, 0.1999848335981369, -0.1424373835325241, 0.10595140606164932, -0.06081157177686691,
    ),
    dtypes.float64: (
        -0.333333333333332, 0.19999999999953663, -0.14285714280204073, 0.11111110783816315, -0.09090897767122398,
        0.07692060362500425, -0.06663105463961881, 0.05847897456312539, -0.05039331138511007, 0.03806496325662866,
        -0.017907353324374067,
    ),
}  # fmt: skip
QUARTER_PI = {  # the first part ends in zeros: up to 4 times it is exact
    dtypes.float32: (0.785398006439209, 1.5695823663008923e-07),
    dtypes.float64: (0.7853981633974483, 3.061616997868383e-17),
}
FAR = {dtypes.float32: 2.0**126, dtypes.float64: 2.0**1022}


def sin(m: "Vectors", x: "Value") -> "Value":
    """The sine of an angle in radians; NaN for infinite ones."""
    (x,) = floats(m, x)
    angle = _reduced(m, x)
    sine, cosine = _both(m, angle)
    return m.where(x == 0.0, x, _back(m, _signed(m, angle.quarters, _choice(m, angle.quarters, cosine, sine)), x))


def cos(m: "Vectors", x: "Value") -> "Value":
    """The cosine of an angle in radians; NaN for infinite ones."""
    (x,) = floats(m, x)
    angle = _reduced(m, x)
    sine, cosine = _both(m, angle)
    return _back(m, _signed(m, angle.quarters + 1, _choice(m, angle.quarters, sine, cosine)), x)


def tan(m: "Vectors", x: "Value") -> "Value":
    """The tangent of an angle in radians; NaN for infinite ones."""
    (x,) = floats(m, x)
    angle = _reduced(m, x)
    sine, cosine = _both(m, angle)
    top, bottom = _choice(m, angle.quarters, -cosine, sine), _choice(m, angle.quarters, sine, cosine)
    return m.where(x == 0.0, x, _back(m, divide_exactly(m, top, bottom), x))


def _reduced(m: "Vectors", x: "Value") -> Angle:
    return quarter_turns(m, m.astype(x, dtypes.float64), short=x.dtype == dtypes.float32)


def _back(m: "Vectors", result: "Value", x: "Value") -> "Value":
    return m.astype(result, x.dtype)


def _choice(m: "Vectors", quarters: "Value", odd: "Value", even: "Value") -> "Value":
    return m.where((quarters & 1) != 0, odd, even)


def _signed(m: "Vectors", quarters: "Value", x: "Value") -> "Value":
    """−x in the second half of a turn."""
    return float_of(m, bits_of(m, x) ^ shift(m, "shl", quarters & 2, 62))


def _both(m: "Vectors", angle: Angle) -> "tuple[Value, Value]":
    """Sine and cosine of what is left of an angle."""
    r, tail = angle.r, angle.tail
    z = r * r
    if tail is None:
        sine = multiply_add(m, r * z, horner(m, z, SIN_SHORT), r)
        return sine, multiply_add(m, z, multiply_add(m, z, horner(m, z, COS_SHORT), -0.5), 1.0)
    half = z * 0.5
    sine = r + multiply_add(m, r * z, horner(m, z, SIN), tail * (1.0 - half))
    near = 1.0 - half
    rest = multiply_add(m, z * z, horner(m, z, COS), -(r * tail))
    return sine, near + (((1.0 - near) - half) + rest)


# -- inverses


def arcsin(m: "Vectors", x: "Value") -> "Value":
    """The angle in [−π/2, π/2] with this sine; NaN outside of [−1, 1]."""
    (x,) = floats(m, x)
    large, value = _arc(m, x)
    high, low = (2 * part for part in QUARTER_PI[x.dtype])
    return m.call("copysign", m.where(large, high - (value * 2.0 - low), value), x)


def arccos(m: "Vectors", x: "Value") -> "Value":
    """The angle in [0, π] with this cosine; NaN outside of [−1, 1]."""
    (x,) = floats(m, x)
    large, value = _arc(m, x)
    high, low = (2 * part for part in QUARTER_PI[x.dtype])
    twice = value * 2.0
    outer = m.where(x < 0.0, 2 * high - (twice - 2 * low), twice)
    return m.where(large, outer, high - (m.call("copysign", value, x) - low))


def _arc(m: "Vectors", x: "Value") -> "tuple[Value, Value]":
    """arcsin |x| up to ½, and from there on arcsin √((1 − |x|) / 2), which is (π/2 − arcsin |x|) / 2; and which."""
    size = m.call("fabs", x)
    large = size > 0.5
    square = m.where(large, (1.0 - size) * 0.5, size * size)
    root = m.where(large, m.call("sqrt", square), size)
    return large, multiply_add(m, root * square, horner(m, square, ARCSIN[x.dtype]), root)


def arctan(m: "Vectors", x: "Value") -> "Value":
    """The angle in [−π/2, π/2] with this tangent."""
    (x,) = floats(m, x)
    return m.call("copysign", _angle(m, m.call("fabs", x), m.constant(1, x.dtype)), x)


def arctan2(m: "Vectors", y: Any, x: Any) -> "Value":
    """The angle in [−π, π] from the first axis to the point (x, y), with the limits of IEEE 754."""
    y, x = floats(m, y, x)
    a, b = m.call("fabs", y), m.call("fabs", x)
    far = m.where((a > FAR[x.dtype]) | (b > FAR[x.dtype]), m.constant(0.25, x.dtype), 1.0)
    angle = _angle(m, a * far, b * far, bits_of(m, x) < 0)
    return m.call("copysign", angle, y)


def _angle(m: "Vectors", a: "Value", b: "Value", left: "Value | None" = None) -> "Value":
    """The angle of the point (b, a) in the first quadrant, or of (−b, a) where `left`.

    t = q + q³ … is the angle of (larger, smaller), or what it lacks of π/4; the angle is k π/4 ± t.
    """
    over = a > b
    small, large = m.where(over, b, a), m.where(over, a, b)
    infinite = small == math.inf
    diagonal = (small > large * 0.41421356) | infinite
    top = m.where(infinite, 0.0, m.where(diagonal, small - large, small))
    bottom = m.where(large == 0.0, 1.0, m.where(diagonal, small + large, large))
    q = divide_exactly(m, top, bottom)
    z = q * q
    t = multiply_add(m, q * z, horner(m, z, ARCTAN[a.dtype]), q)
    k = m.where(diagonal, m.constant(1, a.dtype), 0.0)
    k, t = m.where(over, 2.0 - k, k), m.where(over, -t, t)
    if left is not None:
        k, t = m.where(left, 4.0 - k, k), m.where(left, -t, t)
    high, low = QUARTER_PI[a.dtype]
    return multiply_add(m, k, high, multiply_add(m, k, low, t))
