"""What the elementary functions are made of: formats, polynomials, sums and products with their rounding errors.

Coefficients in these files are minimax fits by Remez's exchange at 60 digits (mpmath), for the weight that makes the
error relative to the function's value, rounded to the dtype. The accuracy that results is the table `ULP`; tests hold
every function to it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule import dtypes

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

ULP = {
    "exp": (1.1, 1.5),
    "expm1": (1.7, 2.0),
    "log": (1.0, 1.2),
    "log1p": (1.5, 1.5),
    "power": (0.51, 1.5),
    "sqrt": (0.5, 0.5),
    "tanh": (2.3, 2.7),
    "erf": (1.5, 3.0),
    "sin": (0.51, 1.0),
    "cos": (0.51, 1.0),
    "tan": (0.51, 2.5),
    "arcsin": (2.5, 2.5),
    "arccos": (1.5, 1.5),
    "arctan": (2.5, 2.5),
    "arctan2": (2.5, 2.5),
}
"""The largest error in units in the last place, float32 and float64, on processors with fused multiply-add; without
it, functions that are not computed in a wider format may err by one unit more. sin, cos and tan hold for all finite
arguments."""


class Format(NamedTuple):
    """How a float is laid out. Adding `magic` rounds to an integer, which then stands in the low bits."""

    integer: dtypes.DType
    mantissa: int  # bits after the leading one
    bias: int
    smallest: float  # normal
    magic: float
    magic_bits: int
    root_half: int  # bits of sqrt(1/2)


FORMATS = {
    dtypes.float32: Format(dtypes.int32, 23, 127, 2.0**-126, 1.5 * 2.0**23, 0x4B400000, 0x3F3504F3),
    dtypes.float64: Format(dtypes.int64, 52, 1023, 2.0**-1022, 1.5 * 2.0**52, 0x4338 << 48, 0x3FE6A09E667F3BCD),
}
NUMBERS = (int, float, np.generic)
Pair = tuple["Value", "Value"]  # a sum of two floats, the second below half a unit of the first


def floats(m: "Vectors", *operands: Any) -> "list[Value]":
    """The operands as float32 or float64: halves as the float32 that they are in registers, integers as float64."""
    first = next(x for x in operands if not isinstance(x, NUMBERS))
    return [m.astype(x, _working(x.dtype)) for x in (m.lift(x, first.dtype) for x in operands)]


def _working(dtype: dtypes.DType) -> dtypes.DType:
    return dtypes.float32 if dtype in dtypes.HALVES else dtype if dtypes.is_float(dtype) else dtypes.float64


def has_fma(m: "Vectors") -> bool:
    """Whether a · b + c with one rounding is an instruction."""
    return not m.host.x86 or m.host.has("fma") or m.host.has("avx512f")


def multiply_add(m: "Vectors", a: "Value", b: Any, c: Any) -> "Value":
    """a · b + c, rounded once where that is an instruction and twice where not."""
    return m.fma(a, b, c) if has_fma(m) else a * b + c


def horner(m: "Vectors", x: "Value", coefficients: Sequence[float]) -> "Value":
    """c[0] + c[1] x + c[2] x² + …"""
    result = m.constant(coefficients[-1], x.dtype)
    for c in coefficients[-2::-1]:
        result = multiply_add(m, result, x, c)
    return result


def bits_of(m: "Vectors", x: "Value") -> "Value":
    """The bits of a float as a signed integer."""
    return m.bitcast(x, FORMATS[x.dtype].integer)


def float_of(m: "Vectors", x: "Value") -> "Value":
    """A float from its bits."""
    return m.bitcast(x, dtypes.float32 if x.dtype.itemsize == 4 else dtypes.float64)


def shift(m: "Vectors", instruction: str, x: "Value", count: int) -> "Value":
    """shl, lshr or ashr by a count below the width."""
    return m.value(m.f.op(f"{instruction} {x.type} {x.x}, {m.constant(count, x.dtype).x}"), x.dtype)


def power_of_two(m: "Vectors", n: "Value", dtype: dtypes.DType) -> "Value":
    """2ⁿ for integers n such that it is a normal number."""
    form = FORMATS[dtype]
    return float_of(m, shift(m, "shl", n + form.bias, form.mantissa))


def at_most(m: "Vectors", x: "Value", bound: float) -> "Value":
    """min(x, bound); NaN stays."""
    return m.where(x > bound, bound, x)


def at_least(m: "Vectors", x: "Value", bound: float) -> "Value":
    """max(x, bound); NaN stays."""
    return m.where(x < bound, bound, x)


def two_sum(a: "Value", b: "Value") -> Pair:
    """a + b, and what rounding lost of it (Knuth, "The Art of Computer Programming", vol. 2, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def fast_two_sum(a: "Value", b: "Value") -> Pair:
    """The same for |a| ≥ |b| (Dekker, "A floating-point technique for extending the available precision", 1971)."""
    total = a + b
    return total, b - (total - a)


def two_product(m: "Vectors", a: "Value", b: "Value") -> Pair:
    """a · b, and what rounding lost of it. Without fma by Dekker's splitting, for operands below 2^996."""
    product = a * b
    if has_fma(m):
        return product, m.fma(a, b, -product)
    (a1, a2), (b1, b2) = split(m, a), split(m, b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def split(m: "Vectors", x: "Value") -> Pair:
    """A float64 as two halves of 26 bits."""
    wide = x * (2.0**27 + 1)
    high = wide - (wide - x)
    return high, x - high
