"""What stands between `x + 1` and a primitive: scalars become tensors, dtypes promote, shapes broadcast, explicitly."""

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Primitive, Shape
from chainrule.core.tensor import Tensor, attach, full
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives import elementwise as e
from chainrule.primitives.contract import matmul as matmul_primitive
from chainrule.primitives.contract import swap_last
from chainrule.primitives.layout import broadcast, reshape, transpose

Operator = Callable[..., Tensor]
SCALARS = (bool, int, float, np.generic)


def cast_to(x: Tensor, dtype: dtypes.DType) -> Tensor:
    """`x` in another dtype; itself if it has that one."""
    return x if x.dtype == dtype else e.cast(x, dtype=dtype)


def broadcast_to(x: Tensor, shape: Shape) -> Tensor:
    """`x` stretched to `shape`; itself if it has that one."""
    return x if x.shape == shape else broadcast(x, shape=shape)


def common_shape(name: str, *shapes: Shape) -> Shape:
    """The shape that all of them broadcast to; ShapeError names the operation and the shapes."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(str(s) for s in shapes)
        raise ShapeError(
            f"{name}: shapes {listed} do not broadcast. Axes are matched from the right; extents must be equal or 1."
        ) from None


def lift(name: str, values: tuple[Any, ...], to_float: bool = False) -> list[Tensor]:
    """Tensors of one dtype and one shape for operands that are tensors, arrays or Python scalars."""
    given = [x for x in values if not isinstance(x, SCALARS)]
    for x in given:
        if not isinstance(x, (Tensor, np.ndarray, list, tuple)):
            raise DTypeError(f"{name}: {x!r:.100} of type {type(x).__name__} is neither a tensor nor a number.")
    tensors = {id(x): as_tensor(x) for x in given}
    dtype = dtypes.promote(*[t.dtype for t in tensors.values()]) if tensors else None
    for x in values:
        if isinstance(x, SCALARS):
            weak = dtypes.scalar_dtype(x, dtype)
            dtype = weak if dtype is None else dtypes.promote(dtype, weak)
    assert dtype is not None
    if to_float and not dtypes.is_float(dtype):
        dtype = dtypes.default_float
    shape = common_shape(name, *[t.shape for t in tensors.values()])
    return [
        full(shape, x, dtype) if isinstance(x, SCALARS) else broadcast_to(cast_to(tensors[id(x)], dtype), shape)
        for x in values
    ]


def _ready(values: tuple[Any, ...], to_float: bool) -> bool:
    """Whether the operands need no conversion: most of those inside networks."""
    first = values[0]
    return (
        all([type(x) is Tensor for x in values])
        and all([x.dtype == first.dtype and x.shape == first.shape for x in values])
        and (not to_float or dtypes.is_float(first.dtype))
    )


def operator(primitive: Primitive, to_float: bool = False) -> Operator:
    """The public form of an elementwise primitive."""

    def call(*values: Any) -> Tensor:
        return primitive(*values) if _ready(values, to_float) else primitive(*lift(primitive.name, values, to_float))

    call.__name__ = call.__qualname__ = primitive.name
    return call


add, subtract, multiply = operator(e.add), operator(e.sub), operator(e.mul)
divide = operator(e.div, to_float=True)
floor_divide_integers, remainder = operator(e.floordiv), operator(e.mod)
maximum, minimum = operator(e.maximum), operator(e.minimum)
equal, less, less_equal = operator(e.equal), operator(e.less), operator(e.less_equal)
bitwise_and, bitwise_or, bitwise_xor = operator(e.bit_and), operator(e.bit_or), operator(e.bit_xor)
left_shift, right_shift, invert = operator(e.shift_left), operator(e.shift_right), operator(e.bit_not)
_power = operator(e.pow)


def greater(a: Any, b: Any) -> Tensor:
    """a > b."""
    return less(b, a)


def greater_equal(a: Any, b: Any) -> Tensor:
    """a ≥ b."""
    return less_equal(b, a)


def not_equal(a: Any, b: Any) -> Tensor:
    """a ≠ b, true for NaN."""
    return e.bit_not(equal(a, b))


def floor_divide(a: Any, b: Any) -> Tensor:
    """⌊a / b⌋ in the promoted dtype, of the true quotient."""
    a, b = lift("floor_divide", (a, b))
    if not dtypes.is_float(a.dtype):
        return e.floordiv(a, b)
    # The rounded quotient may be whole where the true one is just below: 1 / 0.1 is 10, but 0.1 is more than a tenth.
    exact = e.round((a - e.mod(a, b)) / b)
    return e.where(e.abs(exact) < np.inf, exact, e.floor(a / b))


def power(a: Any, b: Any) -> Tensor:
    """a to the power of b. Small constant exponents become products, roots and reciprocals, which are exact."""
    if isinstance(a, Tensor) and isinstance(b, (int, float)) and not isinstance(b, bool) and dtypes.is_float(a.dtype):
        if b == 1:
            return a
        if b == 2:
            return a * a
        if b == 3:
            return a * a * a
        if b == -1:
            return 1 / a
        if b == 0.5:
            return e.sqrt(a)
    return _power(a, b)


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product of the last two axes; axes before them broadcast; vectors lose their axis again.

    Raises ShapeError when the inner extents differ or an operand has no axes.

    >>> import chainrule as cr
    >>> cr.matmul(cr.ones((2, 3)), cr.ones((3, 4))).shape
    (2, 4)
    """
    a, b = as_tensor(a), as_tensor(b)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul: shapes {a.shape} and {b.shape}; a number has no rows. Use * instead.")
    dtype = dtypes.promote(a.dtype, b.dtype)
    left = reshape(a, shape=(1, *a.shape)) if a.ndim == 1 else a
    right = reshape(b, shape=(*b.shape, 1)) if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(
            f"matmul: {a.shape} @ {b.shape}: the inner extents {left.shape[-1]} and {right.shape[-2]} differ."
        )
    batch = common_shape("matmul", left.shape[:-2], right.shape[:-2])
    left = broadcast_to(cast_to(left, dtype), batch + left.shape[-2:])
    right = broadcast_to(cast_to(right, dtype), batch + right.shape[-2:])
    y = matmul_primitive(left, right)
    rows, columns = y.shape[-2:]
    shape = (*batch, *((rows,) if a.ndim > 1 else ()), *((columns,) if b.ndim > 1 else ()))
    return y if y.shape == shape else reshape(y, shape=shape)


def reversed_operands(f: Operator) -> Operator:
    """f with its two operands exchanged."""
    return lambda a, b: f(b, a)


def _transposed(x: Tensor) -> Tensor:
    """`x.T`: all axes in reverse order."""
    return transpose(x, axes=tuple(reversed(range(x.ndim))))


def _matrix_transposed(x: Tensor) -> Tensor:
    """`x.mT`: the last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"mT: shape {x.shape} is no stack of matrices.")
    return swap_last(x)


BOTH_WAYS: dict[str, Operator] = {
    "add": add, "sub": subtract, "mul": multiply, "truediv": divide, "floordiv": floor_divide, "mod": remainder,
    "pow": power, "matmul": matmul, "and": bitwise_and, "or": bitwise_or, "xor": bitwise_xor,
    "lshift": left_shift, "rshift": right_shift,
}  # fmt: skip
attach({f"__{name}__": f for name, f in BOTH_WAYS.items()})
attach({f"__r{name}__": reversed_operands(f) for name, f in BOTH_WAYS.items()})
attach({"__lt__": less, "__le__": less_equal, "__gt__": greater, "__ge__": greater_equal})
attach({"__eq__": equal, "__ne__": not_equal, "__invert__": invert})
attach({"__neg__": operator(e.neg), "__pos__": lambda x: x, "__abs__": operator(e.abs)})
attach({"astype": lambda x, dtype: cast_to(x, dtypes.as_dtype(dtype))})
attach({"T": property(_transposed), "mT": property(_matrix_transposed)})
