"""Powers: of floats by a logarithm with twice the digits, of integers by squaring."""

import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.engines.native.arithmetic import NEGATIVE_POWER, reject, rint
from chainrule.engines.native.exponential import LN2, exp, log, parts, reduced, scale
from chainrule.engines.native.polynomial import (
    NUMBERS,
    Pair,
    at_least,
    at_most,
    fast_two_sum,
    floats,
    horner,
    multiply_add,
    two_product,
    two_sum,
)
from chainrule.engines.native.roots import divide_exactly

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES = ("power",)
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
# (log((1 + s) / (1 − s)) − 2s − 2s³/3) / s⁵ as a polynomial in s², for √½ ≤ (1 + s) / (1 − s) ≤ √2
LOG_TAIL = (
    0.4, 0.28571428571428376, 0.22222222222291066, 0.18181818169176145, 0.1538461676019441, 0.1333324005551564,
    0.1176868605704448, 0.10422688529848584, 0.11014904988969788,
)  # fmt: skip


def power(m: "Vectors", a: Any, b: Any) -> "Value":
    """a^b with the limits of IEEE 754; integers wrap around, and m.fail is told of negative exponents."""
    dtype = (b if isinstance(a, NUMBERS) else a).dtype
    if dtype == dtypes.bool_:
        return m.lift(a, dtype) | ~m.lift(b, dtype)
    if dtypes.is_integer(dtype):
        return _integer_power(m, m.lift(a, dtype), m.lift(b, dtype))
    x, y = floats(m, a, b)
    if x.dtype == dtypes.float64:
        return _with_limits(m, x, y, _magnitude(m, m.call("fabs", x), y))
    x, y = m.astype(x, dtypes.float64), m.astype(y, dtypes.float64)
    return m.astype(_with_limits(m, x, y, exp(m, y * log(m, m.call("fabs", x)))), dtypes.float32)


def _with_limits(m: "Vectors", x: "Value", y: "Value", magnitude: "Value") -> "Value":
    """x^y from |x|^y."""
    whole = rint(m, y) == y
    half = y * 0.5
    odd = whole & (rint(m, half) != half)
    unit = ((x == 1.0) | ((x == -1.0) & (y == y))) | (y == 0.0)
    magnitude = m.where(unit, 1.0, magnitude)
    signed = m.where(odd, m.call("copysign", magnitude, x), magnitude)
    return m.where((x < 0.0) & (x > -math.inf) & ~whole & (y == y), math.nan, signed)


def _magnitude(m: "Vectors", x: "Value", y: "Value") -> "Value":
    """x^y for x ≥ 0 in float64, save where x is 1 or y is 0."""
    high, low = _logarithm(m, x)
    product, rest = two_product(m, y, high)
    rest = multiply_add(m, y, low, rest)
    slope = m.where(x == 0.0, m.constant(-math.inf, x.dtype), math.inf)
    product = m.where((x == 0.0) | (x == math.inf), y * slope, m.where(x == x, product, x))
    rest = m.where((product > -1000.0) & (product < 1000.0), rest, 0.0)
    n, e = reduced(m, at_most(m, at_least(m, product, -1000.0), 1000.0))
    return scale(m, (e + multiply_add(m, e, rest, rest)) + 1.0, n)


def _logarithm(m: "Vectors", x: "Value") -> Pair:
    """log x as a sum of two, to about 65 bits: 2 artanh s with s = f / (2 + f)."""
    f, k = parts(m, x)
    bottom = f + 2.0
    lost = f - (bottom - 2.0)
    s = divide_exactly(m, f, bottom)
    product, error = two_product(m, s, bottom)
    s_low = divide_exactly(m, ((f - product) - error) - s * lost, bottom)
    z, z_low = two_product(m, s, s)
    z_low = multiply_add(m, s * 2.0, s_low, z_low)
    q, q_low = fast_two_sum(m.constant(TWO_THIRDS[0], x.dtype), z * horner(m, z, LOG_TAIL))
    q_low = q_low + TWO_THIRDS[1]
    w, w_low = two_product(m, z, q)
    w_low = multiply_add(m, z, q_low, multiply_add(m, z_low, q, w_low))
    g, g_low = fast_two_sum(m.constant(2.0, x.dtype), w)
    g_low = g_low + w_low
    high, low = two_product(m, s, g)
    low = multiply_add(m, s, g_low, multiply_add(m, s_low, g, low))
    total, rest = two_sum(k * LN2[x.dtype][0], high)
    return fast_two_sum(total, rest + multiply_add(m, k, LN2[x.dtype][1], low))


def _integer_power(m: "Vectors", a: "Value", b: "Value") -> "Value":
    """By repeated squaring, a bit of the exponent at a time."""
    if b.dtype in (dtypes.int32, dtypes.int64):
        negative = b < 0
        reject(m, negative, NEGATIVE_POWER)
        b = m.where(negative, 0, b)
    one = m.constant(1, a.dtype)
    with m.f.loop(0, 8 * a.dtype.itemsize, carry=[(a.type, one.x), (a.type, a.x), (b.type, b.x)]) as loop:
        result, base, exponent = (m.value(x, a.dtype) for x in loop.carried)
        result = m.where((exponent & 1) != 0, result * base, result)
        loop.next = [result.x, (base * base).x, (exponent >> 1).x]
    return m.value(loop.out[0], a.dtype)
