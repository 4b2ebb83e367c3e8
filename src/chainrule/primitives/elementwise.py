"""Primitives that work element by element. All inputs have one shape: operators broadcast and promote before.

Conventions: ties share the gradient (maximum of two equals gives each half), kinks take the subgradient 0
(abs'(0) = 0), steps (floor, round, sign, comparisons) have none, NaN passes through everything.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Primitive, TypeOf
from chainrule.core.tensor import Tensor, full
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.samples import Sample, bits, boolean, integer, real, sample

ONE = (sample(real(3, 4)),)
TWO = (sample(real(3, 4), real(3, 4)),)
INTEGERS = (sample(integer(3, 4), integer(3, 4)), sample(boolean(3), boolean(3)))


def check_shapes(name: str, inputs: tuple[Tensor, ...]) -> None:
    """Raise ShapeError unless all inputs have one shape."""
    if any(x.shape != inputs[0].shape for x in inputs):
        raise ShapeError(f"{name}: shapes {', '.join(str(x.shape) for x in inputs)} differ; broadcast them first.")


def elementwise(
    name: str,
    meaning: Callable[..., Any],
    vjp: Callable[..., tuple[Any, ...]] | None = None,
    rule: str = "dx = 0",
    samples: tuple[Sample, ...] = ONE,
    dtype: Callable[..., dtypes.DType] = lambda *inputs, **attributes: inputs[0].dtype,
    mixed: bool = False,
    refuses: tuple[dtypes.DType, ...] = (),
) -> Primitive:
    """Declare one. `dtype` infers that of the result; `mixed` allows inputs of different dtypes."""

    def infer(*inputs: Tensor, **attributes: Any) -> TypeOf:
        check_shapes(name, inputs)
        if not mixed and any(x.dtype != inputs[0].dtype for x in inputs):
            raise DTypeError(f"{name}: dtypes {', '.join(x.dtype.name for x in inputs)} differ; cast them first.")
        if inputs[0].dtype in refuses:
            raise DTypeError(f"{name} does not take {inputs[0].dtype.name}. Convert first: x.astype(...).")
        return inputs[0].shape, dtype(*inputs, **attributes)

    return Primitive(name, "elementwise", meaning, infer, vjp, rule, samples)


def truth(*inputs: Tensor, **attributes: Any) -> dtypes.DType:
    """The dtype of comparisons."""
    return dtypes.bool_


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape and dtype of `x`."""
    return full(x.shape, 0, x.dtype)


# -- arithmetic
add: Primitive = elementwise("add", lambda m, a, b: a + b, lambda dy, y, a, b: (dy, dy), "da = dy, db = dy", TWO)
sub: Primitive = elementwise(
    "sub",
    lambda m, a, b: a - b,
    lambda dy, y, a, b: (dy, -dy),
    "da = dy, db = −dy",
    TWO,
    refuses=(dtypes.bool_,),
)
mul: Primitive = elementwise(
    "mul", lambda m, a, b: a * b, lambda dy, y, a, b: (dy * b, dy * a), "da = dy · b, db = dy · a", TWO
)
div: Primitive = elementwise(
    "div",
    lambda m, a, b: a / b,
    lambda dy, y, a, b: (dy / b, -(dy * y) / b),
    "da = dy / b, db = −dy · y / b",
    (sample(real(3, 4), real(3, 4, low=0.5)),),
)
neg: Primitive = elementwise("neg", lambda m, a: -a, lambda dy, y, a: (-dy,), "da = −dy", refuses=(dtypes.bool_,))
pow: Primitive = elementwise(
    "pow",
    lambda m, a, b: m.power(a, b),
    lambda dy, y, a, b: (dy * b * pow(a, _where_zero(b, 1) - 1), dy * y * log(_base_of_logarithm(a, b))),
    "da = dy · b · a^(b−1), db = dy · y · log a",
    (sample(real(3, 4, low=0.3), real(3, 4)),),
)


def _where_zero(x: Tensor, instead: float) -> Tensor:
    """`x`, but `instead` where it is 0: there b · a^(b−1) is 0 for every a, also for a = 0."""
    return where(equal(x, zeros_like(x)), full(x.shape, instead, x.dtype), x)


def _base_of_logarithm(a: Tensor, b: Tensor) -> Tensor:
    """`a`, but 1 where 0 is raised to a power that is not negative: the power stays as it is, whatever b does."""
    return where(bit_and(equal(a, zeros_like(a)), less_equal(zeros_like(b), b)), full(a.shape, 1, a.dtype), a)


mod: Primitive = elementwise(
    "mod",
    lambda m, a, b: m.remainder(a, b),
    lambda dy, y, a, b: (dy, -dy * floor(a / b)),
    "da = dy, db = −dy · ⌊a / b⌋",
    (sample(real(3, 4, low=1.1, high=1.9), real(3, 4, low=0.8, high=1.0)), sample(integer(9), integer(9, low=1))),
)
floordiv: Primitive = elementwise(
    "floordiv", lambda m, a, b: m.floor_divide(a, b), samples=(sample(integer(9), integer(9, low=1)),)
)
floor: Primitive = elementwise("floor", lambda m, x: m.floor(x))
ceil: Primitive = elementwise("ceil", lambda m, x: m.ceil(x))
round: Primitive = elementwise("round", lambda m, x: m.rint(x))
sign: Primitive = elementwise("sign", lambda m, x: m.sign(x))
abs: Primitive = elementwise("abs", lambda m, x: m.abs(x), lambda dy, y, x: (dy * sign(x),), "dx = dy · sign x")
maximum: Primitive = elementwise(
    "maximum",
    lambda m, a, b: m.maximum(a, b),
    lambda dy, y, a, b: (dy * _share(a, b), dy * _share(b, a)),
    "da = dy where a > b, half of it where they are equal",
    TWO,
)
minimum: Primitive = elementwise(
    "minimum",
    lambda m, a, b: m.minimum(a, b),
    lambda dy, y, a, b: (dy * _share(b, a), dy * _share(a, b)),
    "da = dy where a < b, half of it where they are equal",
    TWO,
)
copysign: Primitive = elementwise(
    "copysign",
    lambda m, a, b: m.copysign(a, b),
    lambda dy, y, a, b: (dy * sign(a) * copysign(full(b.shape, 1, b.dtype), b), None),
    "da = dy · sign a · sign b",
    TWO,
)
nextafter: Primitive = elementwise(
    "nextafter", lambda m, a, b: m.nextafter(a, b), lambda dy, y, a, b: (dy, None), "da = dy", TWO
)


def _share(a: Tensor, b: Tensor) -> Tensor:
    """The share of a in the gradient of maximum(a, b): 1, ½ or 0, and NaN where either is NaN."""
    one, half = full(a.shape, 1, a.dtype), full(a.shape, 0.5, a.dtype)
    return where(less(b, a), one, where(equal(a, b), half, where(less(a, b), zeros_like(a), a + b)))


# -- exponentials, logarithms, roots
exp: Primitive = elementwise("exp", lambda m, x: m.exp(x), lambda dy, y, x: (dy * y,), "dx = dy · y")
expm1: Primitive = elementwise("expm1", lambda m, x: m.expm1(x), lambda dy, y, x: (dy * exp(x),), "dx = dy · exp x")
log: Primitive = elementwise(
    "log", lambda m, x: m.log(x), lambda dy, y, x: (dy / x,), "dx = dy / x", (sample(real(3, 4, low=0.3)),)
)
log1p: Primitive = elementwise(
    "log1p",
    lambda m, x: m.log1p(x),
    lambda dy, y, x: (dy / (1 + x),),
    "dx = dy / (1 + x)",
    (sample(real(5, low=-0.6)),),
)
sqrt: Primitive = elementwise(
    "sqrt", lambda m, x: m.sqrt(x), lambda dy, y, x: (dy * 0.5 / y,), "dx = dy / 2y", (sample(real(3, 4, low=0.3)),)
)

# -- trigonometry
sin: Primitive = elementwise("sin", lambda m, x: m.sin(x), lambda dy, y, x: (dy * cos(x),), "dx = dy · cos x")
cos: Primitive = elementwise("cos", lambda m, x: m.cos(x), lambda dy, y, x: (-dy * sin(x),), "dx = −dy · sin x")
tan: Primitive = elementwise(
    "tan", lambda m, x: m.tan(x), lambda dy, y, x: (dy * (1 + y * y),), "dx = dy · (1 + y²)",
    (sample(real(5, low=-1, high=1)),),
)  # fmt: skip
asin: Primitive = elementwise(
    "asin", lambda m, x: m.arcsin(x), lambda dy, y, x: (dy / sqrt(1 - x * x),), "dx = dy / √(1 − x²)",
    (sample(real(5, low=-0.8, high=0.8)),),
)  # fmt: skip
acos: Primitive = elementwise(
    "acos", lambda m, x: m.arccos(x), lambda dy, y, x: (-dy / sqrt(1 - x * x),), "dx = −dy / √(1 − x²)",
    (sample(real(5, low=-0.8, high=0.8)),),
)  # fmt: skip
atan: Primitive = elementwise(
    "atan", lambda m, x: m.arctan(x), lambda dy, y, x: (dy / (1 + x * x),), "dx = dy / (1 + x²)"
)
atan2: Primitive = elementwise(
    "atan2",
    lambda m, a, b: m.arctan2(a, b),
    lambda dy, y, a, b: (dy * _over_square(b, a, b), -dy * _over_square(a, a, b)),
    "da = dy · b / (a² + b²), db = −dy · a / (a² + b²)",
    (sample(real(3, 4, low=0.5), real(3, 4)),),
)


def _over_square(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x / (a² + b²), scaled so that the squares neither overflow nor vanish; 0 at the origin."""
    scale = _where_zero(maximum(abs(a), abs(b)), 1)
    u, v = a / scale, b / scale
    return x / scale / _where_zero(u * u + v * v, 1) / scale


# -- the units of networks
tanh: Primitive = elementwise(
    "tanh", lambda m, x: m.tanh(x), lambda dy, y, x: (dy * (1 - y * y),), "dx = dy · (1 − y²)"
)
sigmoid: Primitive = elementwise(
    "sigmoid", lambda m, x: 1 / (1 + m.exp(-x)), lambda dy, y, x: (dy * (y * (1 - y)),), "dx = dy · y · (1 − y)"
)
softplus: Primitive = elementwise(
    "softplus",
    lambda m, x: m.maximum(x, 0) + m.log1p(m.exp(-m.abs(x))),
    lambda dy, y, x: (dy * sigmoid(x),),
    "dx = dy · sigmoid x",
)
erf: Primitive = elementwise(
    "erf",
    lambda m, x: m.erf(x),
    lambda dy, y, x: (dy * (2 / math.sqrt(math.pi)) * exp(-(x * x)),),
    "dx = dy · 2/√π · exp(−x²)",
)

# -- comparisons, logic, bits
equal: Primitive = elementwise("equal", lambda m, a, b: a == b, samples=TWO + INTEGERS, dtype=truth)
less: Primitive = elementwise("less", lambda m, a, b: a < b, samples=TWO + INTEGERS, dtype=truth)
less_equal: Primitive = elementwise("less_equal", lambda m, a, b: a <= b, samples=TWO + INTEGERS, dtype=truth)
bit_and: Primitive = elementwise("and", lambda m, a, b: a & b, samples=INTEGERS, refuses=dtypes.FLOATS)
bit_or: Primitive = elementwise("or", lambda m, a, b: a | b, samples=INTEGERS, refuses=dtypes.FLOATS)
bit_xor: Primitive = elementwise("xor", lambda m, a, b: a ^ b, samples=INTEGERS, refuses=dtypes.FLOATS)
bit_not: Primitive = elementwise(
    "not", lambda m, a: ~a, samples=(sample(integer(5)), sample(boolean(5))), refuses=dtypes.FLOATS
)
shift_left: Primitive = elementwise(
    "shift_left",
    lambda m, a, b: a << b,
    samples=(sample(integer(9), integer(9, low=0)),),
    refuses=(dtypes.bool_, *dtypes.FLOATS),
)
shift_right: Primitive = elementwise(
    "shift_right",
    lambda m, a, b: a >> b,
    samples=(sample(integer(9), integer(9, low=0)),),
    refuses=(dtypes.bool_, *dtypes.FLOATS),
)

# -- choice and conversion
where: Primitive = elementwise(
    "where",
    lambda m, c, a, b: m.where(c, a, b),
    lambda dy, y, c, a, b: (None, where(c, dy, zeros_like(dy)), where(c, zeros_like(dy), dy)),
    "da = dy where c, db = dy where not c",
    (sample(boolean(3, 4), real(3, 4), real(3, 4)),),
    dtype=lambda c, a, b: a.dtype,
    mixed=True,
)
cast: Primitive = elementwise(
    "cast",
    lambda m, x, dtype: m.astype(x, dtype),
    lambda dy, y, x, dtype: (cast(dy, dtype=x.dtype) if dtypes.is_float(x.dtype) and dtypes.is_float(dtype) else None,),
    "dx = dy, converted back",
    (
        *tuple(sample(real(3, 4), dtype=d) for d in (dtypes.float32, dtypes.float64, dtypes.int64, dtypes.bfloat16)),
        sample(integer(4), dtype=dtypes.float32),
        sample(boolean(4), dtype=dtypes.int32),
    ),
    dtype=lambda x, dtype: dtype,
)


def _threefry(m: Any, c0: Any, c1: Any, k0: Any, k1: Any) -> Any:
    """Threefry-2x32 with 20 rounds: the first of its two words."""
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    a, b = c0 + keys[0], c1 + keys[1]
    for group in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            a = a + b
            b = ((b << np.uint32(r)) | (b >> np.uint32(32 - r))) ^ a
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + np.uint32(group + 1)
    return a


random_bits: Primitive = elementwise(  # Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)
    "random_bits", _threefry, samples=(sample(bits(7), bits(7), bits(7), bits(7)),)
)
