"""Outputs and targets: a last layer that does not go with the loss, amounts of another size than networks give out."""

import math

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.words import number, share

Array = np.ndarray

RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, math.inf)}
"""What a last layer can give out."""

OUTSIDE = 0.01
"""The share of targets out of reach that counts."""

LARGE, SMALL = 100.0, 1e-3
"""Targets beyond these need weights, or steps, a hundred times larger (or smaller) than first weights are."""


def mismatch(case: Case) -> list[Diagnosis]:
    """Outputs that cannot be what the loss or the targets ask for."""
    found, output, loss = case.before, case.prediction, case.loss
    if found is None or output is None or not found.layers:
        return []
    last = found.layers[-1]
    name = last.layer.lower() if last.output.shape == output.shape and np.array_equal(last.output, output) else ""
    logits = loss in ("cross_entropy", "CrossEntropyLoss")
    if logits and output.ndim >= 2 and output.shape[1] > 1 and _sums_to_1(output):
        return [
            _wrong_output(
                last.path,
                "softmax before cross_entropy, which takes a softmax itself",
                "probabilities "
                "between 0 and 1 as logits differ by 1 at most: the loss cannot fall below "
                f"{number(math.log(1 + (output.shape[1] - 1) / math.e))}",
                "Leave the softmax out: give the logits.",
            )
        ]
    if name == "sigmoid" and (logits or "with_logits" in loss or "WithLogits" in loss):
        return [
            _wrong_output(
                last.path,
                f"sigmoid before {loss}, which takes one itself",
                "a logit between 0 and 1 makes probabilities between 0.5 and 0.73",
                "Leave the sigmoid out.",
            )
        ]
    if name == "relu" and logits:
        return [
            _wrong_output(
                last.path,
                f"ReLU before {loss}: logits that are never negative",
                "classes whose logit is 0 get no gradient",
                "Leave the last ReLU out.",
            )
        ]
    target = case.target
    if target is None or target.shape != output.shape or target.dtype.kind != "f" or not name:
        return []
    low, high = RANGES.get(name, (-math.inf, math.inf))
    outside = float(np.mean((target < low) | (target > high)))
    if outside < OUTSIDE:
        return []
    reach, least, most = f"{low:g} … {'∞' if high == math.inf else f'{high:g}'}", target.min(), target.max()
    return [
        _wrong_output(
            last.path,
            f"targets that {last.layer} cannot reach",
            f"{share(outside)} of them lie outside of {reach}: from {number(float(least))} to {number(float(most))}",
            "Leave the last activation out, or scale the targets into its range.",
        )
    ]


def _sums_to_1(output: Array) -> bool:
    wide = np.asarray(output, np.float64)
    return bool((wide >= 0).all() and np.allclose(wide.sum(axis=1), 1, atol=1e-3))


def _wrong_output(path: str, what: str, why: str, remedy: str) -> Diagnosis:
    return Diagnosis("loss-mismatch", "error", path, f"output and loss do not go together: {what}", (why,), remedy)


def amounts(case: Case) -> list[Diagnosis]:
    """Targets of another size than a network gives out."""
    y = case.target
    if y is None or y.dtype.kind != "f" or case.prediction is None or y.shape != case.prediction.shape or not y.size:
        return []
    size, spread = float(np.sqrt(np.mean(np.square(y, dtype=np.float64)))), float(np.std(y, dtype=np.float64))
    reached = float(np.sqrt(np.mean(np.square(case.prediction, dtype=np.float64))))
    # A network that has learned the targets by now needs no help.
    if not (size > LARGE and reached < 0.1 * size) and not (0 < size < SMALL and reached > 10 * size):
        return []
    return [
        Diagnosis(
            "unscaled-targets",
            "warning",
            "",
            f"the targets are {number(size)} (root mean square), the outputs {number(reached)}",
            (
                f"the targets have mean {number(float(np.mean(y)))} and deviation {number(spread)}; first weights make "
                "outputs of about 1",
            ),
            "Learn (y − mean) / std by the training rows, and scale the predictions back.",
        )
    ]
