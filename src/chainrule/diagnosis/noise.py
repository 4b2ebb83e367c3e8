"""How far the gradients of batches differ: the gradient noise scale."""

from collections.abc import Sequence

import numpy as np

from chainrule.diagnosis.case import Case, Noise
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.words import counted, number

DROWNED, WASTED = 1000.0, 1000.0
"""At a batch of noise scale / k rows a step makes 1 / (1 + k) of the progress of one without noise; at k times the
noise scale a k-th of the rows would do as well. Within a factor of a thousand it is a matter of taste and cost."""

EARLY = 0.5
"""The noise scale is judged while half of the loss of a constant answer is left: where little is to be learned the
gradient itself goes to 0, and noise is all there is."""


def noise_scale(
    gradients: Sequence[np.ndarray], batch_size: int, whole: np.ndarray | None = None, rows: int = 0
) -> Noise | None:
    """From the gradients of several batches at the same weights, as flat vectors; None where they do not tell.

    A few batches cannot tell a gradient that is much smaller than the noise in their mean from none at all. `whole`,
    the gradient of many rows, can, as far as their number goes: then the scale is no more than `rows`.

    With |g|² of single batches and of their mean, |G|² = (k |ḡ|² − mean |g|²) / (k − 1) and
    tr Σ = B (mean |g|² − |ḡ|²) · k / (k − 1); the scale is tr Σ / |G|².
    Source: McCandlish et al., "An empirical model of large-batch training" (2018), appendix A.1.

    >>> import numpy as np
    >>> from chainrule.diagnosis.noise import noise_scale
    >>> found = noise_scale([np.array([2.0, 0.0]), np.array([0.0, 2.0])], batch_size=8)
    >>> found is None
    True
    >>> found = noise_scale([np.array([2.0, 1.0]), np.array([2.0, -1.0])], batch_size=8)
    >>> round(found.scale, 2)
    5.33
    >>> found = noise_scale([np.array([4.0, 0.0]), np.array([0.0, 4.0])], 1, whole=np.array([0.2, 0.2]), rows=400)
    >>> round(found.scale)
    398
    """
    k = len(gradients)
    if k < 2:
        return None
    single = float(np.mean([np.vdot(g, g) for g in gradients]))
    if whole is not None and rows > batch_size:
        large = float(np.vdot(whole, whole))
        spread = (single - large) / (1 / batch_size - 1 / rows)
        true = max((rows * large - batch_size * single) / (rows - batch_size), spread / rows)
        return Noise(spread / true, k, batch_size, rows) if spread > 0 and np.isfinite(single) else None
    mean = np.mean(gradients, axis=0)
    together = float(np.vdot(mean, mean))
    true, spread = (k * together - single) / (k - 1), batch_size * (single - together) * k / (k - 1)
    if not (true > 0 and spread > 0 and np.isfinite(single)):
        return None  # the mean of so few batches is noise, or there is none at all
    return Noise(spread / true, k, batch_size)


def scale(case: Case) -> list[Diagnosis]:
    """Batches that are out of all proportion to the noise."""
    found = case.noise
    loss = None if case.before is None else case.before.loss
    if found is None or found.batches < 4 or loss is None or not case.constant or loss < EARLY * case.constant:
        return []
    ratio = found.scale / case.batch_size
    if 1 / WASTED <= ratio <= DROWNED:
        return []
    what = f"the gradient noise scale is about {counted(round(found.scale), 'row')}, the batch has {case.batch_size:,}"
    if ratio > DROWNED and found.rows <= DROWNED * case.batch_size:
        return []  # too few rows to say so
    if ratio > DROWNED:
        return [
            Diagnosis(
                "gradient-noise",
                "note",
                "",
                f"{what}: a step is nearly all noise",
                (f"it makes {number(1 / (1 + ratio))} of the progress of one without noise (McCandlish et al., 2018)",),
                "Larger batches, or a lower learning rate.",
            )
        ]
    return [
        Diagnosis(
            "gradient-noise",
            "note",
            "",
            f"{what}: its rows say the same many times over",
            ("smaller batches make as good steps (McCandlish et al., 2018)",),
            "Smaller batches, and more of them.",
        )
    ]
