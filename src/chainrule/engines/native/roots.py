"""Division, square root, and the multiplication with addition that other processors have as an instruction."""

from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.engines.native.polynomial import bits_of, float_of, floats, two_product, two_sum

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NEAREST = ("i32", 4)  # the rounding mode that is set
NAMES = ("divide", "sqrt")


def divide(m: "Vectors", a: Any, b: Any) -> "Value":
    """a / b, correctly rounded; of integers in float64, as in NumPy."""
    return divide_exactly(m, *floats(m, a, b))


def divide_exactly(m: "Vectors", a: "Value", b: "Value") -> "Value":
    """a / b of floats of one dtype, correctly rounded."""
    return m.value(m.f.op(f"fdiv {a.type} {a.x}, {b.x}"), a.dtype)


def sqrt(m: "Vectors", x: "Value") -> "Value":
    """√x, correctly rounded."""
    (x,) = floats(m, x)
    return m.call("sqrt", x)


def scalef(m: "Vectors", x: "Value", n: "Value") -> "Value":
    """x · 2ⁿ on whole vectors of AVX-512, where n is a float with an integral value."""
    kind = "ps" if x.dtype == dtypes.float32 else "pd"
    return _avx512(m, f"mask.scalef.{kind}", x, (n.type, n.x), NEAREST)


def _avx512(m: "Vectors", name: str, x: "Value", *arguments: tuple[str, Any]) -> "Value":
    """An instruction on all lanes; a rounding mode stands after the mask."""
    last = [a for a in arguments if a is NEAREST]
    masked = ((x.type, "zeroinitializer"), (f"i{m.lanes}", -1))
    operands = [(x.type, x.x), *[a for a in arguments if a is not NEAREST], *masked, *last]
    return m.value(m.f.intrinsic(f"llvm.x86.avx512.{name}.512", x.type, *operands), x.dtype)


def fused(m: "Vectors", a: "Value", b: "Value", c: "Value") -> "Value":
    """a · b + c rounded once, on a processor without that instruction.

    float32 is exact (in float64, rounded to odd: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
    2008); float64 may be half a unit off, and is rounded twice where a · b comes near the largest number.
    """
    if a.dtype == dtypes.float64:
        product, lost = two_product(m, a, b)
        total, rest = two_sum(product, c)
        result = total + (rest + lost)
        return m.where(result == result, result, a * b + c)
    a, b, c = (m.astype(x, dtypes.float64) for x in (a, b, c))
    total, lost = two_sum(a * b, c)
    bits = bits_of(m, total)
    toward = m.where((lost < 0) ^ (total < 0), bits - 1, bits + 1)
    inexact = ((lost < 0) | (lost > 0)) & ((bits & 1) == 0)
    return m.astype(float_of(m, m.where(inexact, toward, bits)), dtypes.float32)
