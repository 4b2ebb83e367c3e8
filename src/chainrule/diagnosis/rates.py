"""Steps that are too long or too short, judged by experiment: the same steps at other multiples of the rate."""

import math
from collections.abc import Sequence

import numpy as np

from chainrule.diagnosis.case import Case, Curvature, Trial
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.statistics import ParameterStatistics, Statistics
from chainrule.diagnosis.words import number

LOST = 0.1
"""A rise of the loss that counts, in units of the loss of the best constant answer: a tenth of all there is to
learn."""

LINEAR = 50.0
"""A rate is too low when a hundred times of it (or more) makes at least 50 times the progress: so far progress is all
but proportional to the rate, as along a straight line, and curvature, which limits the rate, is nowhere to be felt."""

HIGHER = (100.0, 1e4, 1e6)
"""The multiples that are tried, until one makes progress that is worth it."""

WORTH = 0.1
"""The progress at a higher rate must be worth it: a tenth of all there is to learn."""

UNEVEN = 1e-3
"""Layers whose relative step is so many times below the median of all; and then below one millionth: ‖Δw‖ / ‖w‖ should
be "around 1e-3" (Karpathy, Stanford CS231n, "Neural networks part 3: ratio of weights:updates")."""

STILL, VIOLENT = 1e-6, 0.5


def too_high(case: Case) -> list[Diagnosis]:
    """The loss rises, or does not fall, while steps of a tenth of the length make it fall."""
    own, shorter, shortest = case.trial(1.0), case.trial(0.1), case.trial(0.01)
    if own is None or shorter is None:
        return []
    unit = case.constant if case.constant else own.before
    better = max((t for t in (shorter, shortest) if t is not None), key=lambda t: t.fall)
    rose = not own.finite or -own.fall > LOST * unit
    helps = better.finite and (better.fall > 0 or own.fall < 10 * min(better.fall, 0.0))
    stuck = own.fall <= 0 and better.fall > LOST * unit and own.before > 0.5 * unit
    if not ((rose and helps) or stuck):
        return []
    first = _story(own)
    evidence = [_story(better)]
    if case.curvature is not None and case.rate:
        evidence.append(_beyond(case.curvature, case.rate))
    suggestion = f"lr={number(case.rate * better.factor)}, or " if case.rate else ""
    return [
        Diagnosis(
            "learning-rate-too-high",
            "error",
            "",
            f"the learning rate is too high: {first}",
            tuple(evidence),
            f"Try {suggestion}cr.find_lr; a warm-up; or clip_norm=1.0.",
        )
    ]


def _story(trial: Trial) -> str:
    what = {1.0: "at the rate given", 0.1: "at a tenth of the rate", 0.01: "at a hundredth of the rate"}.get(
        trial.factor, f"at {trial.factor:,.0f} times the rate"
    )
    end = number(trial.after) if trial.finite else "no number"
    return f"{what} {trial.steps} steps take the loss from {number(trial.before)} to {end}"


def _beyond(curvature: Curvature, rate: float) -> str:
    """How the rate compares with the edge of stability. Source: Cohen et al. (2021), and (2022) for adaptive
    methods."""
    what = "preconditioned Hessian" if curvature.preconditioned else "Hessian"
    limit = curvature.limit / curvature.sharpness
    relation = f"{number(rate / limit)} times" if rate > limit else f"below ({number(rate / limit)} times)"
    return (
        f"the largest eigenvalue of the {what} is {number(curvature.sharpness)}: steps along it grow from a rate of "
        f"{number(limit)} on; the rate is {relation} that"
    )


def too_low(case: Case) -> list[Diagnosis]:
    """Progress is proportional to the rate even at a hundred times of it: so it could go much faster."""
    own = case.trial(1.0)
    if own is None or not own.finite or case.rate is None:
        return []
    unit = case.constant if case.constant else own.before
    for factor in HIGHER:
        much = case.trial(factor)
        if much is not None and much.fall >= WORTH * unit and much.fall >= LINEAR * max(own.fall, 0.0):
            return [
                Diagnosis(
                    "learning-rate-too-low",
                    "warning",
                    "",
                    f"the learning rate is too low: {_story(own)}",
                    (_story(much),),
                    f"Try lr={number(case.rate * factor / 10)} to {number(case.rate * factor)}; or cr.find_lr.",
                )
            ]
    return []


def updates(found: Statistics) -> list[Diagnosis]:
    """Layers whose weights hardly move while others do, or are overthrown in a single step."""
    told = [(p, r) for p in found.parameters if p.value.ndim >= 2 and (r := relative(p)) is not None]
    if not told:
        return []
    violent = [(p, r) for p, r in told if r > VIOLENT]
    middle = float(np.median([r for _, r in told]))
    still = [
        (p, r) for p, r in told if r < STILL and r < UNEVEN * middle and p.gradient is not None and p.gradient.any()
    ]
    if not violent and not still:
        return []
    p, r = max(violent, key=lambda pair: pair[1]) if violent else min(still, key=lambda pair: pair[1])
    others = [f"{q.name} {number(s)}" for q, s in told if q is not p]
    return [
        Diagnosis(
            "update-ratio",
            "warning",
            p.name,
            f"a step changes {p.name} by {number(r)} of its size"
            + (": its weights are hardly their own" if violent else ", far less than the others: it stands still"),
            (f"‖Δw‖ / ‖w‖ of the others: {', '.join(others[:4])}" if others else "", "about 0.001 is healthy (CS231n)"),
            "Try a lower learning rate."
            if violent
            else "Is its learning rate lower (groups=), or are its weights far too large?",
        )
    ]


def relative(p: ParameterStatistics) -> float | None:
    """‖Δw‖ / ‖w‖; None for weights that begin at 0 or nearly so, whose first step is large whatever the rate."""
    fan_in = p.value[0].size if p.value.ndim >= 2 else 1
    size = float(np.sqrt(np.mean(np.square(p.value, dtype=np.float64))))
    ratio = p.ratio
    return ratio if ratio is not None and math.isfinite(ratio) and size > 1e-2 / math.sqrt(fan_in) else None


def curvature_limit(optimizer: str, settings: dict[str, float]) -> float | None:
    """rate × sharpness beyond which steps along the sharpest direction grow; None for other optimisers.

    Gradient descent 2; with heavy-ball momentum β 2 (1 + β); for Adam's moving average β₁, whose steps are (1 − β₁)
    times as long, 2 (1 + β₁) / (1 − β₁), which is 38 for 0.9. Source: Cohen et al., "Gradient descent on neural
    networks typically occurs at the edge of stability" (2021);
    "Adaptive gradient methods at the edge of stability" (2022).

    >>> from chainrule.diagnosis.rates import curvature_limit
    >>> curvature_limit("SGD", {"momentum": 0.0}), round(curvature_limit("Adam", {"beta1": 0.9}))
    (2.0, 38)
    """
    if optimizer == "SGD":
        return 2.0 * (1 + settings.get("momentum", 0.0))
    if optimizer in ("Adam", "AdamW"):
        beta = settings["beta1"]
        return 2.0 * (1 + beta) / (1 - beta)
    return 2.0 if optimizer == "RMSprop" else None


def progress(trials: Sequence[Trial]) -> float:
    """The lowest loss that any trial came to."""
    return min((t.after for t in trials if t.finite), default=math.inf)
