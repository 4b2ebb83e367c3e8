"""One cause, one diagnosis: what follows from another fault is told with it, not beside it."""

from collections.abc import Iterable
from dataclasses import replace

from chainrule.diagnosis.diagnosis import SEVERITIES, Diagnosis

BACKWARD = {"vanishing-gradients", "exploding-gradients", "dead-relus", "saturated-units", "frozen-layer"}
STEPS = {"learning-rate-too-high", "learning-rate-too-low", "update-ratio", "plateau", "gradient-noise"}
STEPS |= {"capacity", "no-signal"}
SIGNALS = {"bad-initialisation", "confident-at-start", "batch-norm-statistics"}

EXPLAINS: dict[str, set[str]] = {
    "loss-mismatch": BACKWARD | STEPS | SIGNALS | {"unscaled-targets"},
    "unscaled-inputs": BACKWARD | STEPS | SIGNALS,
    "symmetric-units": BACKWARD | STEPS | SIGNALS,
    "dead-relus": {"frozen-layer", "vanishing-gradients"} | STEPS,
    "exploding-gradients": BACKWARD | STEPS | SIGNALS,
    "vanishing-gradients": {"saturated-units", "frozen-layer", "bad-initialisation"} | STEPS,
    "saturated-units": {"vanishing-gradients", "frozen-layer", "confident-at-start"} | STEPS,
    "bad-initialisation": {"frozen-layer", "confident-at-start", "batch-norm-statistics"} | STEPS,
    "frozen-layer": STEPS - {"learning-rate-too-high"},
    "confident-at-start": STEPS,
    "unscaled-targets": STEPS | {"exploding-gradients", "confident-at-start", "dead-relus"},
    "learning-rate-too-high": BACKWARD | STEPS | SIGNALS,
    "learning-rate-too-low": STEPS - {"learning-rate-too-high"},
    "tiny-batches": {"batch-norm-statistics", "gradient-noise"},
    "constant-features": STEPS,
    "class-imbalance": {"plateau", "capacity", "no-signal"},
    "label-noise": {"plateau", "capacity", "no-signal"},
    "update-ratio": {"plateau", "capacity", "no-signal"},
    "leakage": {"duplicated-features"},
}
"""What each kind brings about. Of two that bring about each other the first in this order counts."""

OF_TRAINING = {"learning-rate-too-high", "unscaled-inputs", "unscaled-targets", "symmetric-units", "bad-initialisation"}
OF_TRAINING |= {"exploding-gradients", "vanishing-gradients", "confident-at-start", "saturated-units", "loss-mismatch"}
"""Causes that go on to spoil what was sound at first: units that die in the trial are told with them."""

ORDER = {kind: i for i, kind in enumerate(EXPLAINS)}


def fold(found: Iterable[Diagnosis], late: Iterable[Diagnosis] = ()) -> list[Diagnosis]:
    """The causes alone, the gravest first; each names in its evidence what follows from it.

    `late` are diagnoses that were not there before some trial steps: every cause in `found` goes before them.

    >>> from chainrule.diagnosis.diagnosis import Diagnosis
    >>> from chainrule.diagnosis.folding import fold
    >>> high, flat = (Diagnosis(kind, "error", "", kind) for kind in ("learning-rate-too-high", "plateau"))
    >>> [(d.kind, d.evidence) for d in fold([flat, high])]
    [('learning-rate-too-high', ('it follows: plateau',))]
    """
    kept: list[Diagnosis] = []
    first = sorted(found, key=_rank)
    known = {d.kind for d in first}
    for d in first:
        _add(kept, d, [d.kind in EXPLAINS.get(k.kind, ()) for k in kept])
    for d in sorted(late, key=_rank):
        if d.kind not in known:
            _add(kept, d, [d.kind in EXPLAINS.get(k.kind, ()) or k.kind in OF_TRAINING for k in kept])
    return sorted(kept, key=lambda d: SEVERITIES.index(d.severity))


def _add(kept: list[Diagnosis], d: Diagnosis, follows: list[bool]) -> None:
    """Tell it with the first grave one that it follows from, or on its own."""
    cause = next((i for i, k in enumerate(kept) if follows[i] and k.severity != "note"), -1)
    if cause < 0:
        kept.append(d)
    else:
        kept[cause] = replace(kept[cause], evidence=(*kept[cause].evidence, f"it follows: {d.message}"))


def _rank(d: Diagnosis) -> int:
    return ORDER.get(d.kind, len(ORDER))
