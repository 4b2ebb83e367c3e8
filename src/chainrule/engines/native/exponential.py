"""Exponentials and logarithms."""

import math
from typing import TYPE_CHECKING, NamedTuple

from chainrule import dtypes
from chainrule.engines.native.polynomial import (
    FORMATS,
    at_least,
    at_most,
    bits_of,
    float_of,
    floats,
    horner,
    multiply_add,
    power_of_two,
    shift,
)
from chainrule.engines.native.roots import divide_exactly, scalef

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES = ("exp", "expm1", "log", "log1p")
LOG2_E = 1.4426950408889634
LN2 = {  # the first part has so many zeros at its end that n times it is exact
    dtypes.float32: (0.693145751953125, 1.428606765330187e-06),
    dtypes.float64: (0.693147180559663, 2.8235290563031577e-13),
}
# (exp r − 1 − r) / r² on ±ln(2)/2
EXP = {
    dtypes.float32: (
        0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814540579915047,
    ),
    dtypes.float64: (
        0.5, 0.16666666666666682, 0.041666666666666095, 0.008333333333316982, 0.0013888888889116338,
        0.00019841269896515984, 2.4801586925761446e-05, 2.755723472706659e-06, 2.7557582245946156e-07,
        2.5112084741030748e-08, 2.082659356624296e-09,
    ),
}  # fmt: skip
# (log(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f ≤ √2
LOG_FLOAT32 = (
    0.3333333134651184, -0.2500081956386566, 0.20001226663589478, -0.16623356938362122, 0.14201761782169342,
    -0.13160187005996704, 0.12761566042900085, -0.07634476572275162,
)  # fmt: skip
# (log((1 + s) / (1 − s)) − 2s) / s³ as a polynomial in s² for the same range of (1 + s) / (1 − s)
LOG_FLOAT64 = (
    0.6666666666666735, 0.39999999999411096, 0.2857142874326161, 0.22222198476075672, 0.18183569736043637,
    0.15313903323649325, 0.1479750710618119,
)  # fmt: skip


class Exponent(NamedTuple):
    """n as a float and as an integer."""

    number: "Value"
    integer: "Value"


def reduced(m: "Vectors", x: "Value") -> "tuple[Exponent, Value]":
    """x = n ln 2 + r with |r| ≤ ln(2)/2: n, and exp(r) − 1."""
    form = FORMATS[x.dtype]
    high, low = LN2[x.dtype]
    shifted = multiply_add(m, x, LOG2_E, form.magic)
    n = shifted - form.magic
    r = multiply_add(m, n, -low, multiply_add(m, n, -high, x))
    exponent = Exponent(n, bits_of(m, shifted) - form.magic_bits)
    return exponent, multiply_add(m, r * r, horner(m, r, EXP[x.dtype]), r)


def scale(m: "Vectors", x: "Value", n: Exponent) -> "Value":
    """x · 2ⁿ, rounded once, for x near 1 and n within twice the exponents of normal numbers."""
    if m.host.has("avx512f") and (m.lanes, x.dtype.itemsize) in ((16, 4), (8, 8)):
        return scalef(m, x, n.number)  # the same bits as below
    half = shift(m, "lshr", n.integer + 4096, 1) - 2048  # a logical shift: AVX2 lacks the arithmetic one of 64 bits
    return x * power_of_two(m, half, x.dtype) * power_of_two(m, n.integer - half, x.dtype)


def exp(m: "Vectors", x: "Value") -> "Value":
    """e^x, gradually to 0 and to infinity."""
    (x,) = floats(m, x)
    lowest, highest = (-104.0, 89.0) if x.dtype == dtypes.float32 else (-746.0, 710.0)
    n, e = reduced(m, at_most(m, at_least(m, x, lowest), highest))
    return scale(m, e + 1.0, n)


def exp_normal(m: "Vectors", x: "Value") -> "Value":
    """e^x where the result is known to be a normal number."""
    n, e = reduced(m, x)
    power = power_of_two(m, n.integer, x.dtype)
    return multiply_add(m, e, power, power)


def expm1(m: "Vectors", x: "Value") -> "Value":
    """e^x − 1, accurate also where x is small."""
    (x,) = floats(m, x)
    lowest, highest = (-18.0, 89.0) if x.dtype == dtypes.float32 else (-38.0, 710.0)
    return m.call("copysign", expm1_bounded(m, at_most(m, at_least(m, x, lowest), highest)), x)


def expm1_bounded(m: "Vectors", x: "Value") -> "Value":
    """The same without the limits."""
    n, e = reduced(m, x)
    half = power_of_two(m, n.integer - 1, x.dtype)  # half of 2ⁿ, which may be too large
    return m.where(n.number == 0.0, e, multiply_add(m, e, half, half - 0.5) * 2.0)


def log(m: "Vectors", x: "Value") -> "Value":
    """The natural logarithm: −∞ at 0, NaN below."""
    (x,) = floats(m, x)
    result = log_of_parts(m, *parts(m, x))
    return _with_limits(m, x, x, result)


def parts(m: "Vectors", x: "Value") -> "tuple[Value, Value]":
    """x = 2^k (1 + f) with √½ ≤ 1 + f < √2, for finite x > 0: f and k."""
    form = FORMATS[x.dtype]
    tiny = x < form.smallest
    grown = form.mantissa + 1
    aligned = bits_of(m, m.where(tiny, x * 2.0**grown, x)) - (form.root_half - (form.bias << form.mantissa))
    f = float_of(m, (aligned & ((1 << form.mantissa) - 1)) + form.root_half) - 1.0
    zero = form.magic + form.bias
    k = float_of(m, shift(m, "lshr", aligned, form.mantissa) + form.magic_bits) - m.where(
        tiny, m.constant(zero + grown, x.dtype), zero
    )
    return f, k


def log_of_parts(m: "Vectors", f: "Value", k: "Value") -> "Value":
    """log(1 + f) + k ln 2. In float64 with fewer terms but a division (Ng and Bentley's method in FreeBSD's libm)."""
    high, low = LN2[f.dtype]
    if f.dtype == dtypes.float32:
        square = f * f
        rest = multiply_add(m, k, low, square * f * horner(m, f, LOG_FLOAT32))
        return multiply_add(m, k, high, multiply_add(m, square, -0.5, rest) + f)
    s = divide_exactly(m, f, f + 2.0)
    z, half_square = s * s, f * f * 0.5
    rest = multiply_add(m, s, multiply_add(m, z, horner(m, z, LOG_FLOAT64), half_square), k * low)
    return multiply_add(m, k, high, f - (half_square - rest))


def log1p(m: "Vectors", x: "Value") -> "Value":
    """log(1 + x), accurate also where x is small."""
    (x,) = floats(m, x)
    form = FORMATS[x.dtype]
    one = form.bias << form.mantissa
    u = x + 1.0  # only to find k, so that its rounding does not matter
    exponent = (bits_of(m, u) - (form.root_half - one)) & -(1 << form.mantissa)
    shifted = exponent - one
    # f = x / 2^k + (1 / 2^k − 1); four times 1 / 2^k is a normal number for all k
    four = float_of(m, (one + (2 << form.mantissa)) - shifted)
    f = float_of(m, bits_of(m, x) - shifted) + multiply_add(m, four, 0.25, -1.0)
    k = float_of(m, shift(m, "lshr", exponent, form.mantissa) + form.magic_bits) - (form.magic + form.bias)
    return m.where(x == 0.0, x, _with_limits(m, x, u, log_of_parts(m, f, k)))


def _with_limits(m: "Vectors", x: "Value", argument: "Value", result: "Value") -> "Value":
    """A logarithm where the argument has one, else its limit; `x` is what it is the function of."""
    beyond = m.where(argument == 0.0, -math.inf, m.where(argument < 0.0, math.nan, x))
    return m.where((argument > 0.0) & (x < math.inf), result, beyond)
