"""Losses for classes and probabilities: cross-entropies and what they are made of."""

from typing import Any, Literal, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions.activations import log_softmax
from chainrule.functions.choice import clip, where
from chainrule.functions.custom import custom_vjp
from chainrule.functions.precision import rounded_once
from chainrule.functions.statistics import sum
from chainrule.losses.checks import (
    Reduction,
    alike,
    between_0_and_1,
    check_reduction,
    filled,
    mismatch,
    predictions,
    reduced,
    weights,
)
from chainrule.primitives import elementwise as e
from chainrule.primitives.index import iota, take
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import broadcast_to, cast_to, maximum

# -- one of several classes


class Classes(NamedTuple):
    """Targets that are class indices, looked at. The input is (classes,) or (batch, classes, ...)."""

    axis: int  # of the classes
    hit: Tensor  # as the input: whether this is the class of a target that counts
    ignored: Tensor  # as the target: whether it is not to count
    weight: Tensor  # as the target: the weight of its class, 0 where it is ignored


def class_axis(name: str, input: Tensor) -> int:
    """Where the classes stand: on axis 1, as in PyTorch, or on the only axis."""
    if not input.ndim or not input.shape[min(input.ndim - 1, 1)]:
        raise ShapeError(f"{name}: expected (classes,) or (batch, classes, ...); got shape {input.shape}.")
    return min(input.ndim - 1, 1)


def classes_of(name: str, input: Tensor, target: Any, weight: Any, ignore_index: int | None) -> Classes:
    """Check class indices against the input; where one is and how much it weighs."""
    axis, target = class_axis(name, input), as_tensor(target)
    classes = input.shape[axis]
    _check_indices(name, input, axis, target)
    target = cast_to(target, dtypes.int64)
    ignored = full(target.shape, False, dtypes.bool_) if ignore_index is None else target == ignore_index
    if target.value is not None and ignored.value is not None:
        wrong = ((target.value < 0) | (target.value >= classes)) & ~ignored.value
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise IndexOutOfRange(
                f"{name}: the target at {at} is {target.value[at]}, but the input of shape {input.shape} has {classes} "
                f"classes, 0 to {classes - 1}{'' if ignore_index is None else f' (and {ignore_index} to ignore one)'}."
            )
    # Looked up even when all classes weigh 1: in a traced function this is what refuses a class that does not exist.
    weight = take(class_weights(name, weight, classes, input.dtype), where(ignored, 0, target))
    column = reshape(where(ignored, -1, target), shape=(*target.shape[:axis], 1, *target.shape[axis:]))
    hit = e.equal(broadcast_to(column, input.shape), iota(shape=input.shape, axis=axis, dtype=dtypes.int64))
    return Classes(axis, hit, ignored, where(ignored, 0, weight))


def _check_indices(name: str, input: Tensor, axis: int, target: Tensor) -> None:
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if not dtypes.is_integer(target.dtype):
        raise DTypeError(f"{name}: class indices are integers; got {target.dtype.name}. Cast: target.astype('int64').")
    if target.shape == expected:
        return
    message = f"{name}: for an input of shape {input.shape}, class indices have shape {expected}; got {target.shape}."
    if target.shape == input.shape:
        message += " For probabilities of the classes (one-hot rows, say) cast the target to floats."
    elif [n for n in target.shape if n != 1] == [n for n in expected if n != 1]:
        message += f" Write target.reshape({expected})."
    raise ShapeError(message)


def class_weights(name: str, weight: Any, classes: int, dtype: dtypes.DType) -> Tensor:
    """The weight of each class, (classes,)."""
    if weight is None:
        return full((classes,), 1, dtype)
    weight = as_tensor(weight)
    if weight.shape != (classes,):
        raise ShapeError(f"{name}: weight has shape {weight.shape}; expected {(classes,)}, one for each class.")
    return cast_to(weight, dtype)


def at_target(values: Tensor, found: Classes) -> Tensor:
    """The value of each target's class. (batch, classes, ...) -> (batch, ...)"""
    return sum(where(found.hit, values, 0), axis=found.axis)


@rounded_once
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−log softmax(input) at the target: the loss of a classifier, given its logits.

    input (classes,) or (batch, classes, ...); target: class indices () or (batch, ...), or probabilities of the shape
    of input -> (), or with reduction="none" the shape of the indices. `weight` (classes,) weighs the classes; the
    mean over indices divides by the sum of their weights, that over probabilities by their number. Targets equal to
    `ignore_index` count for nothing (if all do, the mean is NaN). `label_smoothing` mixes the target with equal
    probabilities. Raises ShapeError, DTypeError or IndexOutOfRange for a target that does not fit, ConfigError for a
    smoothing outside [0, 1]. Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 6.2.2.3; Szegedy
    et al., "Rethinking the Inception architecture" (2016), section 7.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.cross_entropy(cr.tensor([[0.0, 0.0], [300.0, -300.0]]), cr.tensor([0, 1])))
    300.346...
    """
    check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"cross_entropy: label_smoothing={label_smoothing} is a share between 0 and 1.")
    input, target = predictions("cross_entropy", input), as_tensor(target)
    log_p = log_softmax(input, axis=class_axis("cross_entropy", input))
    if dtypes.is_float(target.dtype):
        return _of_probabilities(log_p, target, weight, reduction, label_smoothing)
    found = classes_of("cross_entropy", log_p, target, weight, ignore_index)
    losses = -at_target(log_p, found) * found.weight
    if label_smoothing:
        classes = log_p.shape[found.axis]
        each = log_p if weight is None else log_p * _along(class_weights("", weight, classes, log_p.dtype), log_p)
        even = where(found.ignored, 0, -sum(each, axis=found.axis) / classes)
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    return _weighted("cross_entropy", losses, found.weight, reduction)


def _along(weight: Tensor, input: Tensor) -> Tensor:
    """(classes,) in the shape that broadcasts against (batch, classes, ...)."""
    return weight if input.ndim == 1 else reshape(weight, shape=(1, weight.size, *(1,) * (input.ndim - 2)))


def _of_probabilities(log_p: Tensor, target: Tensor, weight: Any, reduction: str, label_smoothing: float) -> Tensor:
    if target.shape != log_p.shape:
        raise ShapeError(
            mismatch("cross_entropy", "input", log_p.shape, "target", target.shape)
            + " (A floating-point target gives the probability of each class. For class indices cast it to integers.)"
        )
    axis = class_axis("cross_entropy", log_p)
    classes = log_p.shape[axis]
    target = cast_to(target, log_p.dtype)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / classes
    each = target * log_p
    if weight is not None:
        each = each * _along(class_weights("cross_entropy", weight, classes, log_p.dtype), log_p)
    return reduced("cross_entropy", -sum(each, axis=axis), reduction)


def _weighted(name: str, losses: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Losses that are weighted already; their mean divides by the sum of the weights."""
    if reduction == "mean" and filled(name, losses):
        return sum(losses) / sum(weight)
    return reduced(name, losses, reduction)


@rounded_once
def nll(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the log probability of the target's class: cross_entropy on logarithms of probabilities.

    Shapes, weights, and errors as for cross_entropy with class indices. On logits use cross_entropy, which is as
    exact as nll(log_softmax(x)); nll(log(softmax(x))) is infinite where a probability underflows.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.nll(cr.tensor([[-0.5, -2.0]]), cr.tensor([1])))
    2.0
    """
    check_reduction("nll", reduction)
    input = predictions("nll", input)
    found = classes_of("nll", input, target, weight, ignore_index)
    return _weighted("nll", -at_target(input, found) * found.weight, found.weight, reduction)


# -- yes or no


def _bce(p: Tensor, target: Tensor) -> Tensor:
    return -(target * clip(e.log(p), -100) + (1 - target) * clip(e.log1p(-p), -100))


def _bce_rule(dy: Tensor, y: Tensor, p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The slope (p − target) / p(1 − p) is finite at 0 and 1, and not lost where the logarithm is held at −100."""
    slope = (p - target) / maximum(p * (1 - p), 1e-12)
    return dy * slope, dy * (clip(e.log1p(-p), -100) - clip(e.log(p), -100))


_bce_ruled = custom_vjp(_bce, _bce_rule)


@rounded_once
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """−(target · log input + (1 − target) · log(1 − input)) for probabilities `input`.

    input and target of one shape, weight of a shape that stretches to it. Logarithms are held at −100, and the slope's
    denominator at 1e-12, as in PyTorch. Raises ShapeError when shapes do not fit, DTypeError for an input that is not
    floating point, DataError for numbers outside [0, 1].

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> losses.binary_cross_entropy(cr.tensor([0.5, 0.0]), cr.tensor([1.0, 1.0]), reduction="none").tolist()
    [0.6931..., 100.0]
    """
    p, target = alike("binary_cross_entropy", ("input", "target"), input, target)
    remedy = "For logits use binary_cross_entropy_with_logits."
    between_0_and_1("binary_cross_entropy", p, "input", remedy)
    between_0_and_1("binary_cross_entropy", target, "target", "Number two classes 0 and 1.")
    losses = _bce_ruled(p, target)
    if weight is not None:
        losses = losses * weights("binary_cross_entropy", weight, losses)
    return reduced("binary_cross_entropy", losses, reduction)


@rounded_once
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow or cancellation at any logit.

    input and target of one shape; weight and pos_weight (the weight of target 1) of shapes that stretch to it.
    Raises ShapeError when shapes do not fit, DTypeError for an input that is not floating point, DataError for a target
    outside [0, 1].

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> x, y = cr.tensor([0.0, 300.0, -300.0]), cr.tensor([1.0, 1.0, 1.0])
    >>> losses.binary_cross_entropy_with_logits(x, y, reduction="none").tolist()
    [0.6931..., 0.0, 300.0]
    """
    name = "binary_cross_entropy_with_logits"
    x, target = alike(name, ("input", "target"), input, target)
    between_0_and_1(name, target, "target", "Number two classes 0 and 1.")
    yes = target if pos_weight is None else target * weights(name, pos_weight, x, "pos_weight")
    losses = yes * e.softplus(-x) + (1 - target) * e.softplus(x)
    if weight is not None:
        losses = losses * weights(name, weight, losses)
    return reduced(name, losses, reduction)


# -- between distributions


@rounded_once
def kl_div(
    input: Tensor,
    target: Tensor,
    reduction: Literal["none", "mean", "sum", "batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence, element by element: target · (log target − input), where input is log probabilities.

    input and target of one shape; with `log_target` the target is log probabilities too. A target of 0 gives 0.
    Mathematically right is reduction="batchmean", the sum divided by the first extent; "mean" divides by all
    elements, as in PyTorch. Raises ShapeError when shapes differ, DTypeError for an input that is not floating point.
    Source: Kullback and Leibler, "On information and sufficiency" (1951).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> log_p = cr.log_softmax(cr.tensor([[0.0, 0.0]]))
    >>> float(losses.kl_div(log_p, cr.tensor([[1.0, 0.0]]), reduction="batchmean"))
    0.6931...
    """
    check_reduction("kl_div", reduction, ("none", "mean", "sum", "batchmean"))
    x, target = alike("kl_div", ("input", "target"), input, target)
    nothing = target == (-float("inf") if log_target else 0)
    safe = where(nothing, 1, target)
    each = e.exp(safe) * (safe - x) if log_target else safe * (e.log(safe) - x)
    losses = where(nothing, 0, each)
    if reduction == "batchmean" and filled("kl_div", losses):
        return sum(losses) / (losses.shape[0] if losses.ndim else 1)
    return reduced("kl_div", losses, "sum" if reduction == "batchmean" else reduction)
