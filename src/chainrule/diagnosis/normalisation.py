"""Batch normalisation: running statistics that are not those of the data, and batches too small to have any."""

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.words import counted, layer_named, number, share

FEW = 4
"""Batches of so few rows estimate a variance to about ±70 % (√(2 / (n − 1)) for n = 4 is 0.82); Wu and He (2018,
figure 1) see the error of a ResNet rise from batches of 8 down."""

OFF, WIDER = 1.0, 4.0
"""A channel is off where its running mean lies more than a deviation away, or the variance differs by more than four
times: then most of what training normalised is not normalised in evaluation."""

SETTLED = 3.0
"""Time constants after which running statistics have forgotten where they began (5 % is left)."""


def small_batches(case: Case) -> list[Diagnosis]:
    """Batch normalisation over a handful of rows."""
    if not case.normalisers or case.batch_size > FEW:
        return []
    path = next(iter(case.normalisers))
    return [
        Diagnosis(
            "tiny-batches",
            "warning",
            path,
            f"{layer_named(path, 'BatchNorm')} normalises over batches of {counted(case.batch_size, 'row')}",
            (
                f"a variance from {case.batch_size} rows is wrong by about "
                f"±{share(min(1.0, (2 / max(case.batch_size - 1, 1)) ** 0.5))}",
            ),
            "Try batches of 16 rows or more, or nn.GroupNorm or nn.LayerNorm, which need no batch.",
        )
    ]


def running(case: Case) -> list[Diagnosis]:
    """Running statistics that are far from those of the data: evaluation computes something else than training."""
    told = []
    for path, (mean, var, running_mean, running_var, tracked, momentum) in case.normalisers.items():
        if not tracked * momentum >= SETTLED and tracked < 100:
            continue  # they have not had the time
        std = np.sqrt(np.maximum(var, 1e-12))
        away = np.abs(running_mean - mean) / std
        wider = np.maximum(running_var / np.maximum(var, 1e-12), var / np.maximum(running_var, 1e-12))
        off = float(np.mean((away > OFF) | (wider > WIDER)))
        if off > 0.5:
            told.append((path, off, float(np.median(away)), float(np.median(wider)), tracked, momentum))
    if not told:
        return []
    path, off, away_by, wider_by, tracked, momentum = told[0]
    slow = tracked * momentum < SETTLED
    evidence = [
        f"running means lie {number(away_by)} deviations away, variances differ by a factor of {number(wider_by)} "
        "(medians)",
        f"{tracked:,} batches tracked with momentum {number(momentum)}",
    ]
    evidence += [f"likewise {', '.join(t[0] for t in told[1:])}"] if len(told) > 1 else []
    return [
        Diagnosis(
            "batch-norm-statistics",
            "warning",
            path,
            f"{layer_named(path, 'BatchNorm')}: the running statistics of {share(off)} of the channels are not those "
            "of the data",
            tuple(evidence),
            "Use a larger momentum (0.1)."
            if slow
            else "Are the data scaled in another way, or buffers missing? Run some batches in training mode.",
        )
    ]
