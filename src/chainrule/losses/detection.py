"""Losses for finding objects: of boxes, and of classes of which one is far more frequent than the others."""

from typing import Any

from chainrule.core.tensor import Tensor
from chainrule.detection.boxes import boxes_of, giou_of, iou_of, overlap
from chainrule.errors import ConfigError
from chainrule.functions.activations import log_softmax, sigmoid
from chainrule.functions.choice import where
from chainrule.functions.exponential import expm1
from chainrule.functions.precision import rounded_once
from chainrule.functions.statistics import sum
from chainrule.losses.checks import Reduction, alike, between_0_and_1, check_reduction, filled, predictions, reduced
from chainrule.losses.classification import at_target, binary_cross_entropy_with_logits, class_axis, classes_of

PAIR = ("input", "target")


def _boxes(name: str, input: Any, target: Any) -> tuple[Tensor, Tensor]:
    predicted, true = alike(name, PAIR, input, target)
    return boxes_of(name, predicted, "input"), true


@rounded_once
def iou(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """1 − IoU of boxes (x1, y1, x2, y2), from 0 to 1. Boxes that do not overlap give 1, and no gradient: see giou.

    input, target (..., 4) -> (), or (...) with reduction="none". Raises ShapeError when shapes differ or the mean is of
    nothing, DTypeError for an input that is not floating point.
    Source: Yu et al., "UnitBox: an advanced object detection network" (2016), whose loss is −log IoU.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.iou(cr.tensor([[0.0, 0.0, 2.0, 2.0]]), cr.tensor([[0.0, 0.0, 2.0, 1.0]])))
    0.5
    """
    return reduced("iou", 1 - iou_of(overlap(*_boxes("iou", input, target))), reduction)


@rounded_once
def giou(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """1 − generalised IoU of boxes (x1, y1, x2, y2), from 0 to 2; it also draws boxes together that do not overlap.

    Shapes and errors as for iou. Source: Rezatofighi et al., "Generalized intersection over union" (2019).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.giou(cr.tensor([[0.0, 0.0, 1.0, 1.0]]), cr.tensor([[3.0, 0.0, 4.0, 1.0]])))
    1.5
    """
    return reduced("giou", 1 - giou_of(overlap(*_boxes("giou", input, target))), reduction)


def _modulated(name: str, missed: Tensor, gamma: float) -> Tensor:
    """missed ** gamma. Where nothing was missed it is 0 with all its derivatives, also for a gamma below 1."""
    if not gamma >= 0:
        raise ConfigError(f"{name}: gamma={gamma} is a power of at least 0; 0 leaves the cross-entropy as it is.")
    if not gamma:
        return missed * 0 + 1
    nothing = missed == 0
    return where(nothing, 0, where(nothing, 1, missed) ** gamma)


@rounded_once
def sigmoid_focal(
    input: Tensor, target: Tensor, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """Binary cross-entropy of logits, times (1 − p)^gamma: what is right already counts for little.

    p is the probability given to the true answer. input and target (0, 1, or between) of one shape -> (), or that
    shape with reduction="none". `alpha` weighs the answers 1, and 1 − alpha the answers 0; None: all alike. Raises what
    binary_cross_entropy_with_logits raises, and ConfigError for an alpha outside of [0, 1] or a negative gamma.
    Source: Lin et al., "Focal loss for dense object detection" (2017), equation 5.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> losses.sigmoid_focal(cr.tensor([0.0, 0.0]), cr.tensor([1.0, 0.0]), reduction="none").tolist()
    [0.043..., 0.129...]
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ConfigError(f"sigmoid_focal: alpha={alpha} is a weight from 0 to 1, or None for none.")
    input, target = alike("sigmoid_focal", PAIR, input, target)
    between_0_and_1("sigmoid_focal", target, "target", "It says yes (1) or no (0).")
    losses = binary_cross_entropy_with_logits(input, target, reduction="none")
    missed = sigmoid(input) * (1 - target) + sigmoid(-input) * target
    losses = _modulated("sigmoid_focal", missed, gamma) * losses
    if alpha is not None:
        losses = (alpha * target + (1 - alpha) * (1 - target)) * losses
    return reduced("sigmoid_focal", losses, reduction)


@rounded_once
def focal(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of logits, times (1 − p)^gamma for the probability p of the target: one of several classes.

    Shapes, weights, their mean, and errors are those of cross_entropy with class indices, which gamma=0 gives;
    ConfigError for a negative gamma. Source: Lin et al., "Focal loss for dense object detection" (2017), equation 4.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.focal(cr.tensor([[0.0, 0.0]]), cr.tensor([1])))  # log 2 / 4
    0.173...
    """
    check_reduction("focal", reduction)
    input = predictions("focal", input)
    log_p = log_softmax(input, axis=class_axis("focal", input))
    found = classes_of("focal", log_p, target, weight, ignore_index)
    log_p = at_target(log_p, found)
    losses = -_modulated("focal", -expm1(log_p), gamma) * log_p * found.weight
    if reduction == "mean" and filled("focal", losses):
        return sum(losses) / sum(found.weight)
    return reduced("focal", losses, reduction)
