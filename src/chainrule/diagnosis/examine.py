"""All rules, applied to one case."""

from collections.abc import Callable

from chainrule.diagnosis import data, fitting, gradients, initial, labels, noise, normalisation, outputs, rates, units
from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.folding import fold
from chainrule.diagnosis.statistics import Statistics

OF_STEPS: tuple[Callable[[Statistics], list[Diagnosis]], ...] = (
    units.symmetric,
    units.dead,
    units.saturated,
    gradients.flow,
    gradients.frozen,
    initial.signal,
    rates.updates,
)
"""Rules that look at one observed step."""

OF_CASES: tuple[Callable[[Case], list[Diagnosis]], ...] = (
    data.scale,
    data.constant,
    data.duplicated,
    outputs.mismatch,
    outputs.amounts,
    labels.imbalance,
    labels.noise,
    labels.leakage,
    labels.twins,
    initial.confident,
    normalisation.small_batches,
    normalisation.running,
    rates.too_high,
    rates.too_low,
    noise.scale,
    fitting.overfitting,
    fitting.plateau,
)
"""Rules that look at everything."""


def examine(case: Case) -> list[Diagnosis]:
    """The causes that the rules find, the gravest first.

    >>> import numpy as np
    >>> from chainrule.diagnosis.case import Case
    >>> from chainrule.diagnosis.examine import examine
    >>> x = np.stack([np.arange(9.0), np.ones(9)], axis=1)
    >>> [d.kind for d in examine(Case(x=x))]
    ['constant-features']
    """
    found = [d for rule in OF_CASES for d in rule(case)]
    now = of_step(case.before)
    known = {(d.kind, d.where) for d in now}
    later = [d for d in of_step(case.after) if (d.kind, d.where) not in known]
    return fold([*found, *now], later)


def of_step(found: Statistics | None) -> list[Diagnosis]:
    """What the rules find in one observed step."""
    return [] if found is None else [d for rule in OF_STEPS for d in rule(found)]
