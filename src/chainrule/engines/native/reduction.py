"""Angles reduced to a quarter turn: x = n π/2 + r with |r| ≤ π/4, for every finite float."""

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from chainrule import dtypes
from chainrule.engines.native.ir import Function, Verbatim
from chainrule.engines.native.polynomial import (
    bits_of,
    fast_two_sum,
    float_of,
    multiply_add,
    shift,
    two_product,
    two_sum,
)

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

LIMIT = 2.0**20  # below, n times each of the first three parts of π/2 is exact
# π/2 as three numbers of 33 bits and what is left of it
PARTS = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
TWO_OVER_PI = 0.6366197723675814
# 64 zeros and the first 1,280 binary digits of 2/π in words of 64 bits
DIGITS = (
    0x0, -0x5d067c91b1bbead7, -0x3d8a82e0acb2240, -0x249d6a66c3bc6fbf, -0x1ae9c5421443a9f, -0x48db91c5bdb22d20,
    0x6492eea09d1921c, -0x1e214e34ed658c2, -0x177dca0ad144bb7c, -0x16638fd94ba081bf, 0x3991d639835339f4,
    -0x637ba0744206d7c5, 0x1ff897ffde05980f, -0x10d0ee74a5f592e1, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab, -0xf3043df650bc9e3,
)  # fmt: skip


class Angle(NamedTuple):
    """What is left of an angle, r + tail, and the number of quarter turns, of which the two low bits count."""

    r: "Value"
    tail: "Value | None"
    quarters: "Value"


def quarter_turns(m: "Vectors", x: "Value", short: bool) -> Angle:
    """Reduce float64 angles; `short` ones are float32 numbers, and a remainder without a tail will do."""
    nearest = multiply_add(m, x, TWO_OVER_PI, 1.5 * 2.0**52)
    n = nearest - 1.5 * 2.0**52
    first = x - n * PARTS[0]  # exact
    if short:
        angle = Angle(first - n * PARTS[1] - n * PARTS[2], None, bits_of(m, nearest))
    else:
        r, lost = two_sum(first, -(n * PARTS[1]))
        r, more = two_sum(r, -(n * PARTS[2]))
        angle = Angle(*fast_two_sum(r, (lost + more) - n * PARTS[3]), bits_of(m, nearest))
    size = m.call("fabs", x)
    return _unless_large(m, x, (size >= LIMIT) & (size < float("inf")), angle)


def _unless_large(m: "Vectors", x: "Value", large: "Value", angle: Angle) -> Angle:
    """The angle, but by the digits of 2/π in the lanes that are large; the call is left out where there are none."""
    f = m.f
    values = [v for v in angle if v is not None]
    before, far, end = f.current, f.label(), f.label()
    f.line(f"br i1 {m.any_lane(large)}, label %{far}, label %{end}")
    f.block(far)
    kinds = [dtypes.float64, dtypes.float64, dtypes.int64]
    returns = "{ " + ", ".join(m.type(kind) for kind in kinds) + " }"
    found = f.call(_by_digits(m, returns), (x.type, m.where(large, x, LIMIT).x), returns=returns)
    wanted = (0, 2) if angle.tail is None else (0, 1, 2)
    far_values = [m.value(f.op(f"extractvalue {returns} {found}, {i}"), kinds[i]) for i in wanted]
    far_values = [m.where(large, a, b) for a, b in zip(far_values, values, strict=True)]
    f.line(f"br label %{end}")
    f.block(end)
    r, *tail, quarters = (
        m.value(f.op(f"phi {a.type} [ {a.x}, %{before} ], [ {b.x}, %{far} ]"), a.dtype)
        for a, b in zip(values, far_values, strict=True)
    )
    return Angle(r, tail[0] if tail else None, quarters)


def _by_digits(m: "Vectors", returns: str) -> str:
    """The name of the function that reduces large angles, written once for each number of lanes."""
    module = m.f.module
    name = f"quarter_turns_{m.lanes}"
    if name not in module.functions:
        if "digits_of_two_over_pi" not in module.functions:
            listed = ", ".join(f"i64 {word}" for word in DIGITS)
            array = f"@digits_of_two_over_pi = internal constant [{len(DIGITS)} x i64] [{listed}]\n"
            module.add("digits_of_two_over_pi", Verbatim(array))
        function = Function(module, name, [f"{m.type(dtypes.float64)} x"], returns=returns)
        inner = type(m)(function, m.lanes, m.host)
        result, kinds = "poison", returns
        for i, value in enumerate(_digits_angle(inner, inner.value("%x", dtypes.float64))):
            result = function.op(f"insertvalue {kinds} {result}, {value.type} {value.x}, {i}")
        function.ret(f"{returns} {result}")
    return name


def _digits_angle(m: "Vectors", x: "Value") -> "tuple[Value, Value, Value]":
    """Multiply by those digits of 2/π that matter.

    After Payne and Hanek, "Radian reduction for trigonometric functions" (1983).
    x = ±M · 2^e with 53 bits of M: the digits above 2^(2−e) make whole turns and are passed over; the next 192 give the
    fraction of a turn to 128 bits, of which the closest that a float comes to a quarter turn leaves 66.
    """
    bits = bits_of(m, x)
    magnitude = shift(m, "shl", bits, 1)
    position = shift(m, "lshr", magnitude, 53) - (1075 - 62)
    significand = (bits & ((1 << 52) - 1)) | (1 << 52)
    index, offset = shift(m, "lshr", position, 6), position & 63
    words = [m.gather("@digits_of_two_over_pi", index + i, dtypes.int64) for i in range(4)]
    digits = [m.call("fshl", a, b, offset) for a, b in pairwise(words)]
    turn = _turn(m, significand, digits)
    wide = f"<{m.lanes} x i128>"

    def word(instruction: str, text: str, count: int) -> "Value":
        moved = m.f.op(f"{instruction} {wide} {text}, splat (i128 {count})")
        return m.value(m.f.op(f"trunc {wide} {moved} to {m.type(dtypes.int64)}"), dtypes.int64)

    quarters = word("lshr", m.f.op(f"add {wide} {turn}, splat (i128 {1 << 125})"), 126)
    high, low = word("lshr", turn, 62), shift(m, "shl", word("lshr", turn, 0), 2)
    # the fraction of a quarter, from −½ to ½, in pieces that are exact as floats
    top = m.astype(high & -4096, dtypes.float64) * 2.0**-64
    middle = m.astype(shift(m, "shl", high & 4095, 40) | shift(m, "lshr", low, 24), dtypes.float64) * 2.0**-104
    fraction, rest = two_sum(top, middle + m.astype(low & ((1 << 24) - 1), dtypes.float64) * 2.0**-128)
    r, lost = two_product(m, fraction, m.constant(HALF_PI[0], x.dtype))
    tail = multiply_add(m, fraction, HALF_PI[1], multiply_add(m, rest, HALF_PI[0], lost))
    r, tail = fast_two_sum(r, tail)
    sign = bits & -(1 << 63)
    r, tail = (float_of(m, bits_of(m, value) ^ sign) for value in (r, tail))
    return r, tail, m.where(bits < 0, -quarters, quarters)


def _turn(m: "Vectors", significand: "Value", digits: "list[Value]") -> str:
    """significand · 0.digits without whole turns, in units of 2^−128."""
    wide = f"<{m.lanes} x i128>"

    def widen(value: "Value") -> str:
        return m.f.op(f"zext {value.type} {value.x} to {wide}")

    def op(text: str) -> str:
        return m.f.op(text)

    first = op(f"shl {wide} {widen(significand * digits[0])}, splat (i128 64)")
    factor = widen(significand)
    second = op(f"mul {wide} {factor}, {widen(digits[1])}")
    third = op(f"lshr {wide} {op(f'mul {wide} {factor}, {widen(digits[2])}')}, splat (i128 64)")
    return op(f"add {wide} {op(f'add {wide} {first}, {second}')}, {third}")
