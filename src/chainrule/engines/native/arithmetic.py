"""Signs, rounding, extremes, neighbours, and division with a remainder, for floats, integers and truth values."""

import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.engines.native.polynomial import (
    FORMATS,
    NUMBERS,
    Pair,
    bits_of,
    float_of,
    floats,
    power_of_two,
    shift,
)
from chainrule.engines.native.roots import divide_exactly

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES = (
    "abs", "sign", "copysign", "nextafter", "floor", "ceil", "rint", "maximum", "minimum", "remainder", "floor_divide",
)  # fmt: skip
DIVISION_BY_ZERO, NEGATIVE_POWER = 1, 2  # what Vectors.fail is told
SIGNED = (dtypes.int32, dtypes.int64)


def _lifted(m: "Vectors", a: Any, b: Any) -> Pair:
    dtype = (b if isinstance(a, NUMBERS) else a).dtype
    return m.lift(a, dtype), m.lift(b, dtype)


def _instruction(m: "Vectors", name: str, a: "Value", b: "Value") -> "Value":
    return m.value(m.f.op(f"{name} {a.type} {a.x}, {b.x}"), a.dtype)


# -- signs and neighbours


def abs(m: "Vectors", x: "Value") -> "Value":
    """|x|; the least integer stays as it is."""
    if dtypes.is_float(x.dtype):
        return m.call("fabs", x)
    return m.where(x < 0, -x, x) if x.dtype in SIGNED else x


def sign(m: "Vectors", x: "Value") -> "Value":
    """−1, 0 or 1; NaN stays."""
    if not dtypes.is_float(x.dtype):
        positive = m.astype(x != 0, x.dtype)
        return m.where(x < 0, -1, positive) if x.dtype in SIGNED else positive
    unit = m.call("copysign", m.constant(1, x.dtype), x)
    return m.where(x == 0.0, 0.0, m.where(x == x, unit, x))


def copysign(m: "Vectors", a: Any, b: Any) -> "Value":
    """|a| with the sign of b."""
    return m.call("copysign", *floats(m, a, b))


def nextafter(m: "Vectors", a: Any, b: Any) -> "Value":
    """The neighbour of a towards b."""
    a, b = floats(m, a, b)
    smallest = float_of(m, bits_of(m, m.call("copysign", m.constant(0, a.dtype), b)) | 1)
    bits = bits_of(m, a)
    step = m.where((a < b) ^ (a < 0.0), bits + 1, bits - 1)
    moved = m.where(a == 0.0, smallest, float_of(m, step))
    return m.where(a == b, b, m.where((a == a) & (b == b), moved, a + b))


# -- rounding


def rint(m: "Vectors", x: "Value") -> "Value":
    """The nearest integer, the even one of two."""
    if not dtypes.is_float(x.dtype):
        return x
    if _rounds(m):
        return m.call("roundeven", x)
    big = 2.0**52 if x.dtype == dtypes.float64 else 2.0**23  # from here on all numbers are integers
    size = m.call("fabs", x)
    return m.call("copysign", m.where(size < big, (size + big) - big, x), x)


def _rounds(m: "Vectors") -> bool:
    """Whether rounding is an instruction; elsewhere LLVM would call a function that is not there."""
    return not m.host.x86 or m.host.has("sse4.1") or m.host.has("avx")


def floor(m: "Vectors", x: "Value") -> "Value":
    """The largest integer that is not above x."""
    if not dtypes.is_float(x.dtype):
        return x
    if _rounds(m):
        return m.call("floor", x)
    near = rint(m, x)
    return m.call("copysign", m.where(near > x, near - 1.0, near), x)


def ceil(m: "Vectors", x: "Value") -> "Value":
    """The smallest integer that is not below x."""
    if not dtypes.is_float(x.dtype):
        return x
    return m.call("ceil", x) if _rounds(m) else -floor(m, -x)


# -- extremes


def maximum(m: "Vectors", a: Any, b: Any) -> "Value":
    """The larger one; NaN if either is."""
    return _extreme(m, "or", "gt", a, b)


def minimum(m: "Vectors", a: Any, b: Any) -> "Value":
    """The smaller one; NaN if either is."""
    return _extreme(m, "and", "lt", a, b)


def _extreme(m: "Vectors", of_truth: str, order: str, a: Any, b: Any) -> "Value":
    if isinstance(a, NUMBERS):
        a, b = b, a
    known = isinstance(b, NUMBERS) and not math.isnan(b)
    a, b = _lifted(m, a, b)
    if a.dtype == dtypes.bool_:
        return _instruction(m, of_truth, a, b)
    better = m.compare("o" + order, order, b, a) if known else m.compare("o" + order, order, a, b)
    if known:
        return m.where(better, b, a)  # NaN is a
    best = m.where(better, a, b)  # one instruction on x86; NaN of b passes, that of a is put in
    return m.where(a == a, best, a) if dtypes.is_float(a.dtype) else best


# -- division with a remainder


def reject(m: "Vectors", condition: "Value", code: int) -> None:
    """Report an error in the lanes where the condition holds, if there is whom to tell."""
    if m.fail is not None:
        m.fail(condition, code, None)


def floor_divide(m: "Vectors", a: Any, b: Any) -> "Value":
    """⌊a / b⌋ as NumPy computes it; m.fail is told of integers divided by 0."""
    a, b = _lifted(m, a, b)
    if a.dtype == dtypes.bool_:
        return a & b
    if not dtypes.is_float(a.dtype):
        return _integer_division(m, a, b)[0]
    a, b = floats(m, a, b)
    rest = _fmod(m, a, b)
    adjusted = (rest != 0.0) & ((b < 0.0) ^ (rest < 0.0))
    quotient = divide_exactly(m, a - rest, b)
    quotient = m.where(adjusted, quotient - 1.0, quotient)
    below = floor(m, quotient)
    below = m.where(quotient - below > 0.5, below + 1.0, below)
    plain = divide_exactly(m, a, b)
    result = m.where(quotient == 0.0, m.call("copysign", m.constant(0, a.dtype), plain), below)
    return m.where(b == 0.0, plain, result)


def remainder(m: "Vectors", a: Any, b: Any) -> "Value":
    """a − b ⌊a / b⌋, exact, with the sign of b; m.fail is told of integers divided by 0."""
    a, b = _lifted(m, a, b)
    if a.dtype == dtypes.bool_:
        return m.constant(False, a.dtype)
    if not dtypes.is_float(a.dtype):
        return _integer_division(m, a, b)[1]
    a, b = floats(m, a, b)
    rest = _fmod(m, a, b)
    adjusted = m.where((b < 0.0) ^ (rest < 0.0), rest + b, rest)
    result = m.where(rest == 0.0, m.call("copysign", rest, b), adjusted)
    return m.where((b == 0.0) | (rest != rest), rest, result)


def _integer_division(m: "Vectors", a: "Value", b: "Value") -> Pair:
    """⌊a / b⌋ and what is left. The processor would trap at b = 0, and at −1 under the least integer."""
    reject(m, b == 0, DIVISION_BY_ZERO)
    if a.dtype not in SIGNED:
        safe = m.where(b == 0, 1, b)
        return _instruction(m, "udiv", a, safe), _instruction(m, "urem", a, safe)
    least = -(2 ** (8 * a.dtype.itemsize - 1))
    safe = m.where((b == 0) | ((b == -1) & (a == least)), 1, b)
    quotient = _instruction(m, "sdiv", a, safe)
    rest = a - quotient * safe
    crosses = (rest != 0) & ((rest < 0) ^ (safe < 0))
    return m.where(crosses, quotient - 1, quotient), m.where(crosses, rest + safe, rest)


def _fmod(m: "Vectors", a: "Value", b: "Value") -> "Value":
    """What is left of a when |b| is taken away as often as fits, exactly, with the sign of a.

    Long division in base 2²⁵: each turn takes away q · 2^s · |b| with an integer q below 2²⁶, which is exact in two
    parts. One turn does while |a / b| < 2²⁵; at most 84 are needed.
    """
    wide_a, wide_b = (m.call("fabs", m.astype(x, dtypes.float64)) for x in (a, b))
    possible = (wide_a < math.inf) & (wide_b > 0.0)
    divisor = m.where(possible, wide_b, 1.0)
    rest = _take_away(m, m.where(possible, wide_a, 0.0), divisor)
    rest = m.call("copysign", m.astype(rest, a.dtype), a)
    return m.where(possible, rest, m.constant(math.nan, a.dtype))


def _take_away(m: "Vectors", start: "Value", divisor: "Value") -> "Value":
    """The loop of `_fmod`: while any lane holds at least its divisor."""
    f, exponent = m.f, _exponent(m, divisor)
    before, head, body, end = f.current, f.label(), f.label(), f.label()
    f.line(f"br label %{head}")
    f.block(head)
    rest = m.value(f.op("phi @"), start.dtype)
    at = len(f.lines) - 1
    more = rest >= divisor
    f.line(f"br i1 {m.any_lane(more)}, label %{body}, label %{end}")
    f.block(body)
    steps = _exponent(m, rest) - exponent - 24
    steps = m.where(steps > 0, steps, 0)
    half = shift(m, "lshr", steps, 1)
    part = divisor * power_of_two(m, half, start.dtype) * power_of_two(m, steps - half, start.dtype)
    count = m.astype(m.astype(divide_exactly(m, rest, part), dtypes.int32), start.dtype)
    high = float_of(m, bits_of(m, part) & -(1 << 27))
    left = (rest - count * high) - count * (part - high)
    left = m.where(left < 0.0, left + part, left)
    left = m.where(more, left, rest)
    latch = f.current
    f.line(f"br label %{head}")
    f.lines[at] = f.lines[at].replace("phi @", f"phi {rest.type} [ {start.x}, %{before} ], [ {left.x}, %{latch} ]")
    f.block(end)
    return rest


def _exponent(m: "Vectors", x: "Value") -> "Value":
    """⌊log2 x⌋ of float64 x > 0, as int64."""
    tiny = x < FORMATS[x.dtype].smallest
    bits = bits_of(m, m.where(tiny, x * 2.0**64, x))
    return shift(m, "lshr", bits, 52) - m.where(tiny, m.constant(1023 + 64, bits.dtype), 1023)
