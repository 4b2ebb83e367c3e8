"""Weights of the wrong size to begin with: signals that grow or shrink on their way, answers that are far too
certain."""

import math

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.gradients import weighted, weights_of
from chainrule.diagnosis.statistics import LayerStatistics, Statistics
from chainrule.diagnosis.words import layer_named, number

GROWN = 100.0
"""A signal whose deviation over the rows changes by more than this from the first layer to the last hidden one: He et
al. (2015) choose first weights so that it stays the same. With fewer than three layers nothing builds up."""

WORSE_THAN_GUESSING = 2.0
"""A loss of more than twice that of the best constant answer: the network is sure of what is wrong. Fresh networks
should begin at about the loss of a guess, log(classes), which a rare class makes larger than that of the best
answer."""


def signal(found: Statistics) -> list[Diagnosis]:
    """Signals that grow or shrink from layer to layer."""
    layers = weighted(found)[:-1]
    if len(layers) < 3:
        return []
    first, last = spread(layers[0]), spread(layers[-1])
    if not (first > 0 and math.isfinite(first) and math.isfinite(last)):
        return []
    factor = last / first
    if 1 / GROWN <= factor <= GROWN:
        return []
    what = "grows" if factor > 1 else "shrinks"
    remedy = "smaller" if factor > 1 else "larger"
    shown = layers[-1]
    return [
        Diagnosis(
            "bad-initialisation",
            "warning",
            shown.path,
            f"the signal {what} on its way: rows differ by {number(first)} behind "
            f"{layer_named(layers[0].path, layers[0].layer)}, and by {number(last)} behind "
            f"{layer_named(shown.path, shown.layer)}",
            tuple(line for line in (weights_of(found, layers),) if line),
            f"Try {remedy} initial weights: nn.init.kaiming_normal for ReLU, xavier_normal for tanh; or normalisation "
            "layers.",
        )
    ]


def spread(layer: LayerStatistics) -> float:
    """By how much the rows differ: the deviation of a unit over the rows, as root mean square over the units."""
    output = np.asarray(layer.output, np.float64)
    if output.ndim < 2 or len(output) < 2 or not np.isfinite(output).all():
        return math.inf
    return float(np.sqrt(np.mean(output.var(axis=0))))


def confident(case: Case) -> list[Diagnosis]:
    """Answers that are far worse than a guess."""
    found, constant = case.before, case.constant
    if found is None or found.loss is None or constant is None or case.prediction is None or case.prediction.ndim < 2:
        return []
    guess = math.log(max(case.prediction.shape[1], case.prediction.shape[-1], 2))
    if "cross_entropy" not in case.loss or not found.loss > WORSE_THAN_GUESSING * max(constant, guess):
        return []
    size = float(np.sqrt(np.mean(np.square(case.prediction, dtype=np.float64))))
    layers = weighted(found)
    lines = [f"the outputs before the loss are {number(size)} in the root mean square; about 1 or less is usual"]
    lines.append(weights_of(found, layers))
    return [
        Diagnosis(
            "confident-at-start",
            "warning",
            layers[-1].path if layers else "",
            f"the loss is {number(found.loss)}, while always giving the shares of the classes makes "
            f"{number(constant)}: "
            "the network is sure of wrong answers",
            tuple(line for line in lines if line),
            "Try smaller first weights, above all of the last layer, or scale the inputs.",
        )
    ]
