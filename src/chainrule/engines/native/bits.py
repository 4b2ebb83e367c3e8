"""Shifts, conversions between dtypes, and the 16-bit floats, all without calls into a run-time library."""

from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.engines.native.polynomial import NUMBERS, shift

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES: tuple[str, ...] = ()
SIGNED = (dtypes.int32, dtypes.int64)


# -- shifts


def shift_left(m: "Vectors", x: "Value", count: Any) -> "Value":
    """x · 2^count; 0 for counts below 0 or from the width on, as in NumPy."""
    if isinstance(count, NUMBERS):
        return shift(m, "shl", x, int(count)) if 0 <= int(count) < _width(x) else m.constant(0, x.dtype)
    return m.where(_in_range(m, count), _shift_by(m, "shl", x, count, 0), 0)


def shift_right(m: "Vectors", x: "Value", count: Any) -> "Value":
    """⌊x / 2^count⌋; counts below 0 or from the width on leave the sign alone, as in NumPy."""
    last = _width(x) - 1
    signed = x.dtype in SIGNED
    instruction = "ashr" if signed else "lshr"
    if isinstance(count, NUMBERS):
        if 0 <= int(count) <= last:
            return shift(m, instruction, x, int(count))
        return shift(m, "ashr", x, last) if signed else m.constant(0, x.dtype)
    shifted = _shift_by(m, instruction, x, count, last)
    return shifted if signed else m.where(_in_range(m, count), shifted, 0)


def _width(x: "Value") -> int:
    return 8 * x.dtype.itemsize


def _in_range(m: "Vectors", count: "Value") -> "Value":
    width = m.constant(_width(count), count.dtype)
    return m.value(m.f.op(f"icmp ult {count.type} {count.x}, {width.x}"), dtypes.bool_)


def _shift_by(m: "Vectors", instruction: str, x: "Value", count: "Value", instead: int) -> "Value":
    safe = m.where(_in_range(m, count), count, instead)  # larger counts are undefined in LLVM
    return m.value(m.f.op(f"{instruction} {x.type} {x.x}, {safe.x}"), x.dtype)


# -- conversions


def convert(m: "Vectors", x: "Value", dtype: dtypes.DType) -> "Value":
    """x as another dtype: NumPy's results, with those of x86-64 where a float has no integer of the dtype.

    NaN and numbers outside become the least int32 or int64; uint8 and uint32 take the low bits of the int32 or int64.
    """
    if x.dtype == dtype:
        return x
    if dtype == dtypes.bool_:
        return x != 0
    if x.dtype in dtypes.HALVES:
        x = m.value(x.x, dtypes.float32)  # what it is in registers
    if dtype in dtypes.HALVES:
        narrow = _round_to_odd(m, x) if (x.dtype, dtype) == (dtypes.float64, dtypes.float16) else x
        return rounded(m, convert(m, narrow, dtypes.float32), dtype)
    if x.dtype == dtype:
        return x
    if not dtypes.is_float(x.dtype):
        return _cast(m, _from_integer(x.dtype, dtype), x, dtype)
    if dtypes.is_float(dtype):
        return _cast(m, "fpext" if dtype == dtypes.float64 else "fptrunc", x, dtype)
    if dtype in SIGNED:
        return _truncated(m, x, dtype)
    return _cast(m, "trunc", _truncated(m, x, dtypes.int64 if dtype == dtypes.uint32 else dtypes.int32), dtype)


def _cast(m: "Vectors", instruction: str, x: "Value", dtype: dtypes.DType) -> "Value":
    if instruction == "":
        return m.value(x.x, dtype)
    return m.value(m.f.op(f"{instruction} {x.type} {x.x} to {m.type(dtype)}"), dtype)


def _from_integer(source: dtypes.DType, dtype: dtypes.DType) -> str:
    """The instruction that converts integers and truth values."""
    signed = source in SIGNED
    if dtypes.is_float(dtype):
        return "sitofp" if signed else "uitofp"
    here, there = (0 if d == dtypes.bool_ else d.itemsize for d in (source, dtype))
    return "" if here == there else "trunc" if here > there else "sext" if signed else "zext"


def _truncated(m: "Vectors", x: "Value", dtype: dtypes.DType) -> "Value":
    """A float without its fraction as int32 or int64; LLVM leaves numbers outside undefined."""
    limit = 2.0 ** (8 * dtype.itemsize - 1)
    inside = (x >= -limit) & (x < limit)
    return m.where(inside, _cast(m, "fptosi", m.where(inside, x, 0.0), dtype), -int(limit))


def _round_to_odd(m: "Vectors", x: "Value") -> "Value":
    """float64 → float32 such that rounding once more, to float16, gives what one rounding would give."""
    near = _cast(m, "fptrunc", x, dtypes.float32)
    back = _cast(m, "fpext", near, dtypes.float64)
    bits = m.bitcast(near, dtypes.int32)
    away = (back > x) ^ (x < 0)  # rounded away from zero: step back
    even = (bits & 1) == 0
    inexact = (back < x) | (back > x)
    odd = m.where(away, bits - 1, bits + 1)
    return m.bitcast(m.where(inexact & even, odd, bits), dtypes.float32)


# -- halves


def rounded(m: "Vectors", x: "Value", dtype: dtypes.DType) -> "Value":
    """A float32 rounded to the nearest float16 or bfloat16, ties to even: still a float in registers."""
    x = m.value(x.x, dtypes.float32)
    if dtype == dtypes.bfloat16:
        return m.value(m.bitcast(_rounded_bits(m, x), dtypes.float32).x, dtype)
    if _has_float16(m):
        half = m.f.op(f"fptrunc {x.type} {x.x} to <{m.lanes} x half>")
        return m.value(m.f.op(f"fpext <{m.lanes} x half> {half} to {x.type}"), dtype)
    magnitude = m.bitcast(m.bitcast(x, dtypes.uint32) & 0x7FFFFFFF, dtypes.float32)
    u = m.bitcast(magnitude, dtypes.uint32)
    normal = m.bitcast((u + 0xFFF + (shift(m, "lshr", u, 13) & 1)) & 0xFFFFE000, dtypes.float32)
    result = m.where(magnitude < 2.0**-14, (magnitude + 0.5) - 0.5, normal)  # a unit of 0.5 is float16's smallest
    result = m.where(magnitude >= 65520.0, float("inf"), result)
    result = m.where(x == x, result, magnitude)
    sign = m.bitcast(x, dtypes.uint32) & 0x80000000
    return m.value(m.bitcast(m.bitcast(result, dtypes.uint32) | sign, dtypes.float32).x, dtype)


def _rounded_bits(m: "Vectors", x: "Value") -> "Value":
    """The bits of a float32 rounded to bfloat16, low half 0. NaN stays NaN: its quiet bit is set, not carried over."""
    u = m.bitcast(x, dtypes.uint32)
    near = u + 0x7FFF + (shift(m, "lshr", u, 16) & 1)
    return m.where(x == x, near, u | 0x00400000) & 0xFFFF0000


def _has_float16(m: "Vectors") -> bool:
    """Whether float16 converts by an instruction; elsewhere LLVM would call a function that is not there."""
    return m.host.has("f16c") or m.host.has("avx512f") or m.host.triple.startswith(("aarch64", "arm64"))


def widen_half(m: "Vectors", x: str, dtype: dtypes.DType) -> "Value":
    """From memory, `<lanes x half>` or `<lanes x bfloat>`, to registers."""
    if dtype == dtypes.float16 and _has_float16(m):
        return m.value(m.f.op(f"fpext <{m.lanes} x half> {x} to {m.type(dtype)}"), dtype)
    kind = "half" if dtype == dtypes.float16 else "bfloat"
    short = m.f.op(f"bitcast <{m.lanes} x {kind}> {x} to <{m.lanes} x i16>")
    u = m.value(m.f.op(f"zext <{m.lanes} x i16> {short} to {m.type(dtypes.uint32)}"), dtypes.uint32)
    if dtype == dtypes.bfloat16:
        return m.value(m.bitcast(shift(m, "shl", u, 16), dtypes.float32).x, dtype)
    exponent, sign = u & 0x7C00, shift(m, "shl", u & 0x8000, 16)
    moved = shift(m, "shl", u & 0x7FFF, 13)
    full = m.constant(224 << 23, u.dtype)  # infinity and NaN keep the largest exponent
    normal = moved + m.where(exponent == 0x7C00, full, 112 << 23)
    small = convert(m, u & 0x3FF, dtypes.float32) * 2.0**-24
    magnitude = m.where(exponent == 0, m.bitcast(small, dtypes.uint32), normal)
    return m.value(m.bitcast(magnitude | sign, dtypes.float32).x, dtype)


def narrow_half(m: "Vectors", value: "Value") -> str:
    """From registers to how it lies in memory, rounded to the nearest."""
    x = m.value(value.x, dtypes.float32)
    if value.dtype == dtypes.float16 and _has_float16(m):
        return m.f.op(f"fptrunc {x.type} {x.x} to <{m.lanes} x half>")
    if value.dtype == dtypes.bfloat16:
        u, kind = shift(m, "lshr", _rounded_bits(m, x), 16), "bfloat"
    else:
        u, kind = _float16_bits(m, x), "half"
    short = m.f.op(f"trunc {u.type} {u.x} to <{m.lanes} x i16>")
    return m.f.op(f"bitcast <{m.lanes} x i16> {short} to <{m.lanes} x {kind}>")


def _float16_bits(m: "Vectors", x: "Value") -> "Value":
    whole = m.bitcast(rounded(m, x, dtypes.float16), dtypes.uint32)
    u = whole & 0x7FFFFFFF
    magnitude = m.bitcast(u, dtypes.float32)
    small = m.bitcast(magnitude + 0.5, dtypes.uint32) - 0x3F000000  # in units of float16's smallest
    result = m.where(magnitude < 2.0**-14, small, shift(m, "lshr", u, 13) - (112 << 10))
    beyond = m.where(magnitude == magnitude, m.constant(0x7C00, u.dtype), 0x7E00)  # infinity or NaN
    result = m.where(magnitude < float("inf"), result, beyond)
    return result | (shift(m, "lshr", whole, 16) & 0x8000)
