"""How functions take their operands, and how those made of several primitives get a derivative of their own."""

from collections.abc import Callable
from typing import Any

from chainrule import dtypes
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError
from chainrule.functions.custom import custom_vjp
from chainrule.functions.precision import rounded_once
from chainrule.primitives.operators import lift


def real(name: str, x: Any) -> Tensor:
    """`x` as a floating-point tensor: integers and truth values become float32."""
    if isinstance(x, Tensor) and dtypes.is_float(x.dtype):
        return x
    return lift(name, (x,), to_float=True)[0]


def numbers(name: str, *values: Any) -> list[Tensor]:
    """Tensors of one dtype and one shape; DTypeError for truth values, which `name` does not take."""
    tensors = lift(name, values)
    if tensors[0].dtype == dtypes.bool_:
        raise DTypeError(f"{name} takes numbers, not truth values. Convert them: x.astype(cr.int64).")
    return tensors


def composed(
    name: str, forward: Callable[..., Tensor], rule: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., Tensor]:
    """An elementwise function made of primitives, with the derivative `rule(dy, y, *inputs)`.

    A rule of its own keeps the derivative as accurate as the function: what `forward` does to avoid overflow
    and cancellation (choices between two formulas, scaling) need not be differentiated.
    """
    ruled = custom_vjp(forward, rule)

    @rounded_once
    def call(*values: Any) -> Tensor:
        return ruled(*lift(name, values, to_float=True))

    return call
