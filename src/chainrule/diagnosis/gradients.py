"""Vanishing and exploding gradients, and layers that get none: how much of the gradient each layer passes on."""

import math
from collections.abc import Sequence

import numpy as np

from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.statistics import SQUASHING, LayerStatistics, ParameterStatistics, Statistics
from chainrule.diagnosis.words import layer_named, number, share

Array = np.ndarray

LITTLE = 0.01
"""A layer that passes on less than this share of the gradient blocks it."""

VANISHED, EXPLODED = 1e-3, 1e3
"""From the last layer with weights to the first: beyond these factors, layers with one learning rate learn at speeds
that differ by three orders of magnitude. Glorot and Bengio (2010) and He et al. (2015) want a factor near 1."""

NOTHING = 1e-30


def norm(array: Array | None) -> float:
    """The length of an array as one vector; 0 for None. Infinite where it is not finite."""
    if array is None or not array.size:
        return 0.0
    wide = np.asarray(array, np.float64)
    largest = float(np.abs(wide).max())
    if not math.isfinite(largest):
        return math.inf
    return largest * float(np.linalg.norm(wide / largest)) if largest > 0 else 0.0


def passed(layer: LayerStatistics) -> float | None:
    """What share of the gradient a layer passes on, by length; None where none came to it, or none could go on."""
    arrived = norm(layer.gradient)
    if layer.input_gradient is None or not NOTHING < arrived < math.inf:
        return None
    return norm(layer.input_gradient) / arrived


def matrices(found: Statistics, layer: LayerStatistics) -> list[ParameterStatistics]:
    """The weights of a layer: its own parameters with two axes or more."""
    begin = f"{layer.path}." if layer.path else ""
    return [p for p in found.parameters if p.name.startswith(begin) and p.value.ndim >= 2 and layer.module is not None]


def weighted(found: Statistics) -> list[LayerStatistics]:
    """The layers with weights that the gradient came to, in the order of the forward pass."""
    return [x for x in found.layers if matrices(found, x) and x.gradient is not None and norm(x.gradient) > NOTHING]


def flow(found: Statistics) -> list[Diagnosis]:
    """Layers that block the gradient, and networks in which it shrinks or grows from layer to layer."""
    blocked = _blocked(found)
    layers = weighted(found)
    if blocked or len(layers) < 2:
        return blocked
    first, last = norm(layers[0].gradient), norm(layers[-1].gradient)
    if not math.isfinite(first) or first / last > EXPLODED:
        return [_exploding(found, layers, first / last)]
    return [_vanishing(found, layers, first / last)] if first / last < VANISHED else []


def _blocked(found: Statistics) -> list[Diagnosis]:
    """Activations that pass on next to nothing, as one diagnosis. A layer with no gradient to pass on is not to
    blame."""
    layers = [x for x in found.layers[:-1] if x.layer in SQUASHING and x.slope is not None]
    shares = [(s, x) for x in layers if (s := passed(x)) is not None and s < LITTLE]
    if not shares:
        return []
    least, worst = min(shares, key=lambda pair: pair[0])
    name = worst.layer.lower() + "s"
    evidence = [f"{share(worst.saturated or 0.0)} of its {name} have slope < 0.01"]
    evidence += spread_of_inputs(worst)
    others = [f"{layer_named(x.path, x.layer)} {share(s)}" for s, x in shares if x is not worst]
    evidence += [f"likewise {', '.join(others)}"] if others else []
    return [
        Diagnosis(
            "vanishing-gradients",
            "error" if least < 1e-4 else "warning",
            worst.path,
            f"{layer_named(worst.path, worst.layer)} passes on {share(least)} of the gradient",
            tuple(evidence),
            "Try ReLU, smaller initial weights (Xavier: nn.init.xavier_uniform), scaled inputs, or a normalisation "
            "layer before it.",
        )
    ]


def spread_of_inputs(layer: LayerStatistics) -> list[str]:
    """How far the inputs of an activation lie from 0."""
    if layer.input is None:
        return []
    size = float(np.sqrt(np.mean(np.square(layer.input, dtype=np.float64))))
    return [f"the inputs to them are {number(size)} in the root mean square"]


def _steps(found: Statistics, layers: Sequence[LayerStatistics]) -> tuple[float, float]:
    """By what factors activations, and layers with weights, change the length of the gradient, on (geometric)
    average."""
    of_weights = [s for x in layers[1:] if (s := passed(x)) is not None and s > 0]
    between = [x for x in found.layers if x.slope is not None and x is not found.layers[-1]]
    of_slopes = [s for x in between if (s := passed(x)) is not None and s > 0]
    return _average(of_slopes), _average(of_weights)


def _average(factors: list[float]) -> float:
    return math.exp(sum(map(math.log, factors)) / len(factors)) if factors else 1.0


def _vanishing(found: Statistics, layers: Sequence[LayerStatistics], factor: float) -> Diagnosis:
    slopes, weights = _steps(found, layers)
    evidence = [
        f"an activation passes on {share(slopes)} of it on average, a layer with weights {share(weights)}",
        weights_of(found, layers),
    ]
    kinds = {x.layer.lower() for x in found.layers if x.slope is not None}
    if slopes < weights:
        what = "activations"
        slope = "the slope of a sigmoid is at most 0.25: " if "sigmoid" in kinds else ""
        remedy = f"{slope}try ReLU or tanh, a normalisation layer between, or residual connections (nn.Residual)."
    else:
        what = "small weights"
        remedy = "Try larger initial weights: nn.init.kaiming_normal for ReLU, xavier_normal for tanh; or nn.LayerNorm."
    first, last = layers[0], layers[-1]
    return Diagnosis(
        "vanishing-gradients",
        "error" if factor < VANISHED**2 else "warning",
        first.path,
        f"{share(factor)} of the gradient at {layer_named(last.path, last.layer)} arrives at "
        f"{layer_named(first.path, first.layer)}, lost to {what} on the way",
        tuple(line for line in evidence if line),
        remedy[:1].upper() + remedy[1:],
    )


def _exploding(found: Statistics, layers: Sequence[LayerStatistics], factor: float) -> Diagnosis:
    first, last = layers[0], layers[-1]
    grows = f"{number(factor)} times" if math.isfinite(factor) else "beyond all bounds"
    evidence = [f"a layer with weights makes it {number(_steps(found, layers)[1])} times as long on average"]
    evidence.append(weights_of(found, layers))
    return Diagnosis(
        "exploding-gradients",
        "error",
        first.path,
        f"the gradient grows {grows} from {layer_named(last.path, last.layer)} back to "
        f"{layer_named(first.path, first.layer)}",
        tuple(line for line in evidence if line),
        "Try smaller initial weights (nn.init.kaiming_normal for ReLU, xavier_normal for tanh), a normalisation layer, "
        "or clip_norm=1.0.",
    )


def weights_of(found: Statistics, layers: Sequence[LayerStatistics]) -> str:
    """How large hidden weights are beside what He et al. (2015) ask for."""
    ratios = []
    for layer in layers:
        for p in matrices(found, layer):
            fan_in = p.value[0].size
            ratios.append(float(np.std(p.value)) / math.sqrt(2 / fan_in))
    if not ratios:
        return ""
    middle = number(float(np.median(ratios)))
    return f"weights have {middle} times the standard deviation √(2 / fan-in) of He et al. (2015)"


def frozen(found: Statistics) -> list[Diagnosis]:
    """Weights that no gradient comes to, though they are to be trained."""
    weights = [p for p in found.parameters if p.value.ndim >= 2]
    still = [p for p in weights if p.gradient is None or not np.any(p.gradient)]
    if not still:
        return []
    cut = [p for p in still if p.gradient is None]
    shown = (cut or still)[0]
    why = (
        "the loss does not depend on it: no path leads from one to the other"
        if cut
        else "its gradient is 0 for every row: what it feeds is multiplied by 0, or constant"
    )
    all_of_them = len(still) == len(weights)
    others = ", ".join(p.name for p in still if p is not shown)
    return [
        Diagnosis(
            "frozen-layer",
            "error" if all_of_them else "warning",
            shown.name,
            f"{shown.name} does not learn: no gradient comes to it" + (f" (nor to {others})" if others else ""),
            (why,),
            "Use the layer in forward, take stop_gradient away; or freeze it on purpose: requires_grad_(False).",
        )
    ]
