"""What losses check before they compute, and the reduction they end with."""

from collections.abc import Sequence
from typing import Any, Literal

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError
from chainrule.functions.statistics import sum
from chainrule.primitives.operators import broadcast_to, cast_to

Reduction = Literal["none", "mean", "sum"]


def predictions(name: str, x: Any, argument: str = "input") -> Tensor:
    """What a network computed: floats, or a DTypeError."""
    x = as_tensor(x)
    if not dtypes.is_float(x.dtype):
        raise DTypeError(
            f"{name}: {argument} is what is learned from and must be floating point; got {x.dtype.name}. "
            f"Are {argument} and target exchanged? Otherwise cast it: {argument}.astype('float32')."
        )
    return x


def alike(name: str, arguments: Sequence[str], *given: Any) -> list[Tensor]:
    """Tensors of one shape and one floating dtype. The first is a prediction; other integers become floats."""
    first = predictions(name, given[0], arguments[0])
    tensors = [first, *(as_tensor(x) for x in given[1:])]
    for argument, x in zip(arguments[1:], tensors[1:], strict=True):
        if x.shape != first.shape:
            raise ShapeError(mismatch(name, arguments[0], first.shape, argument, x.shape))
    dtype = dtypes.promote(*[x.dtype for x in tensors])
    return [cast_to(x, dtype) for x in tensors]


def mismatch(name: str, first: str, expected: Shape, second: str, got: Shape) -> str:
    """Why two shapes that differ are an error, and what to do."""
    message = f"{name}: {first} has shape {expected} and {second} has shape {got}; they must be equal."
    squeezed = [n for n in expected if n != 1] == [n for n in got if n != 1]
    if not squeezed:
        return message
    return (
        f"{message} Broadcasting would compare each row with every other. They differ by axes of extent 1: "
        f"write {second}.reshape({expected})."
    )


def weights(name: str, weight: Any, like: Tensor, argument: str = "weight") -> Tensor:
    """A weight for each element of `like`, given in a shape that stretches to it."""
    weight = as_tensor(weight)
    lead = like.ndim - weight.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(weight.shape, like.shape[lead:], strict=True)):
        raise ShapeError(f"{name}: {argument} has shape {weight.shape}, which does not stretch to {like.shape}.")
    return broadcast_to(cast_to(weight, like.dtype), like.shape)


def between_0_and_1(name: str, x: Tensor, argument: str, remedy: str) -> None:
    """DataError for numbers that are no probabilities; NaN passes, and so does what has no value yet."""
    if x.value is not None and ((x.value < 0) | (x.value > 1)).any():
        worst = x.value[(x.value < 0) | (x.value > 1)][0]
        raise DataError(f"{name}: {argument} must lie between 0 and 1; it contains {worst}. {remedy}")


def signs(name: str, target: Tensor) -> None:
    """DataError unless a known target is made of 1 and −1."""
    if target.value is not None and (abs(target.value) != 1).any():
        worst = target.value[abs(target.value) != 1][0]
        raise DataError(
            f"{name}: target must be 1 or -1 everywhere; it contains {worst}. For 0 and 1 give 2 * target - 1."
        )


def check_reduction(name: str, reduction: str, allowed: Sequence[str] = ("none", "mean", "sum")) -> None:
    """ConfigError for an unknown reduction."""
    if reduction not in allowed:
        raise ConfigError(
            f"{name}: reduction={reduction!r} is not known; it is one of {', '.join(map(repr, allowed))}."
        )


def reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The losses as they are, their sum, or their mean."""
    check_reduction(name, reduction)
    if reduction == "none":
        return losses
    return sum(losses) if reduction == "sum" else sum(losses) / filled(name, losses)


def filled(name: str, losses: Tensor) -> int:
    """How many losses there are; ShapeError for none, whose mean is not defined."""
    if not losses.size:
        raise ShapeError(f"{name}: an empty batch has no mean (losses of shape {losses.shape}). Leave it out, or sum.")
    return losses.size
