"""What to do about a value that is not finite, by what made it."""

import math
from typing import NamedTuple

import numpy as np

from chainrule.train.nonfinite import Finding

UNSCALED = 100.0  # inputs beyond this are asked to be scaled
LOGITS = "losses on logits instead of log(softmax(x)) or probabilities"
GUARD = "guard the argument before, not the result after: log(where(x > 0, x, 1)) has a finite derivative everywhere"


class Circumstances(NamedTuple):
    """What a step was made with: the learning rate, whether gradients are clipped, the largest input."""

    lr: float
    clipped: bool
    largest_input: float


def remedies(finding: Finding | None, at: Circumstances) -> list[str]:
    """What to try, the likeliest first. Without a finding all that helps now and then."""
    if finding is None:
        return [*_scaling(at), *_slower(at), LOGITS]
    if finding.op == "input":
        if "rates." in finding.name:
            return ["a learning rate that is finite: look at the schedule"]
        return [f"{finding.name} was not finite before the step: look at how it was initialised or loaded"]
    if finding.op == "constant":
        return ["an infinite constant (of a mask, say) reached the loss: select with cr.where after the arithmetic"]
    if finding.part == "update":
        return _slower(at)
    return _backward(finding, at) if finding.part == "backward" else _forward(finding, at)


def _forward(finding: Finding, at: Circumstances) -> list[str]:
    op, given = finding.op, finding.inputs
    nan = math.isnan(finding.value)
    if op in ("log", "log1p"):
        pole = 0.0 if op == "log" else -1.0
        if given[0] == pole:
            return ["cross_entropy on logits instead of the log of a probability; or clip it: cr.clip(p, 1e-7, 1)"]
        return [f"{op} takes numbers above {pole:g}: look at what comes before it"]
    if op in ("sqrt", "asin", "acos") and nan:
        return [f"{op}({finding.inputs[0]:.4g}) is no real number: clip its argument to where it is defined"]
    if op in ("div", "mod") and len(given) == 2 and given[1] == 0:
        return ["add a small number to the denominator, or divide by cr.where(d == 0, 1, d)"]
    if op == "pow" and len(given) == 2 and (nan or given[0] == 0):
        return ["a power of 0 or of a negative number: clip the base to above 0, or use whole exponents"]
    if op in ("exp", "expm1"):
        return [f"{LOGITS}, or cr.logsumexp, which do not overflow", *_scaling(at), *_slower(at)]
    if nan and not all(np.isfinite(given)):
        return ["∞ − ∞ or ∞ · 0 of infinities put in on purpose, by a mask say: leave something unmasked in every row"]
    return [*_overflow(finding), *_scaling(at), *_slower(at)]


def _backward(finding: Finding, at: Circumstances) -> list[str]:
    of = finding.of.partition("(")[0]
    if finding.op == "div" and len(finding.inputs) == 2 and finding.inputs[1] == 0:
        if of.startswith("sqrt"):
            return ["the slope of √ at 0 is infinite: write cr.sqrt(x + 1e-12), or sqrt(where(x > 0, x, 1))"]
        return [f"the slope is infinite there; {GUARD}"]
    if of.startswith(("sqrt", "log", "pow", "asin", "acos", "div")) and not all(np.isfinite(finding.inputs)):
        return [GUARD]
    return [*_overflow(finding), *_scaling(at), *_slower(at)]


def _overflow(finding: Finding) -> list[str]:
    if finding.dtype == "float16":
        return ["float16 ends at 65,504: bfloat16 or float32 do not"]
    return []


def _scaling(at: Circumstances) -> list[str]:
    return ["scale the inputs to about the range −1 to 1"] if at.largest_input > UNSCALED else []


def _slower(at: Circumstances) -> list[str]:
    tips = []
    if at.lr > 0:
        tips.append(f"a lower learning rate (it is {at.lr:.3g}; try {at.lr / 10:.2g}, or cr.find_lr)")
    return tips if at.clipped else [*tips, "clip_norm=1.0"]
