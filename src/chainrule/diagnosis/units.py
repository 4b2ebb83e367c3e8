"""Units that have stopped to tell rows apart: dead ReLUs, saturated sigmoids, units that are copies of each other."""

from collections.abc import Sequence

import numpy as np

from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.gradients import matrices, spread_of_inputs
from chainrule.diagnosis.statistics import LayerStatistics, Statistics
from chainrule.diagnosis.words import counted, layer_named, number, share

MANY_DEAD = 0.4
"""A share of dead units that is worth a word: "as much as 40 %" may die of a learning rate that is too high, say the
course notes of Stanford's CS231n (Karpathy, "Neural networks part 1", on ReLU)."""

MANY_SATURATED = 0.5
"""Where most outputs are flat, most of what the layer does cannot be learned."""

ENOUGH_ROWS = 30
"""A unit that is 0 in n rows is active in less than 3 / n of all (the rule of three, at 95 %): 10 % here."""


def dead(found: Statistics) -> list[Diagnosis]:
    """Layers many of whose ReLUs are 0 in all rows: neither they nor the weights before them can learn."""
    told = []
    for layer in found.layers:
        if layer.dead_units is not None:
            told += dead_among(layer, layer.dead_units, layer.output.shape[0])
    return gathered(told)


def dead_among(layer: LayerStatistics, units: np.ndarray, rows: int) -> list[Diagnosis]:
    """What to say of a layer whose `units` were 0 in so many rows."""
    if rows < ENOUGH_ROWS or units.mean() < MANY_DEAD:
        return []
    count, all_dead = int(units.sum()), bool(units.all())
    evidence = [f"they are 0, with slope 0, in all {rows:,} rows looked at"]
    if layer.input is not None:
        others = tuple([axis for axis in range(layer.input.ndim) if axis != layer.unit_axis])
        wide = np.nan_to_num(np.asarray(layer.input, np.float64), posinf=0.0, neginf=0.0)
        mean, std = wide.mean(axis=others)[units], wide.std(axis=others)[units]
        evidence.append(
            f"their inputs are {number(float(mean.mean()))} ± {number(float(std.mean()))} (mean ± deviation)"
        )
    if all_dead:
        evidence.append("so no gradient passes, and nothing before it learns")
    return [
        Diagnosis(
            "dead-relus",
            "error" if all_dead else "warning",
            layer.path,
            f"{layer_named(layer.path, layer.layer)}: {count} of {counted(units.size, 'unit')} are dead",
            tuple(evidence),
            "Look at the biases before it; try a lower learning rate, nn.init.kaiming_normal, LeakyReLU or GELU.",
        )
    ]


def saturated(found: Statistics) -> list[Diagnosis]:
    """Hidden layers most of whose sigmoids or tanhs are flat. The last layer may be sure of itself."""
    told = []
    for layer in found.layers[:-1]:
        if layer.saturated is None or layer.saturated < MANY_SATURATED:
            continue
        told.append(
            Diagnosis(
                "saturated-units",
                "warning",
                layer.path,
                f"{layer_named(layer.path, layer.layer)}: {share(layer.saturated)} of the outputs are saturated",
                (
                    f"their slope is < 0.01, at most {'0.25' if 'igmoid' in layer.layer else '1'} is possible",
                    *spread_of_inputs(layer),
                ),
                "Try smaller initial weights (nn.init.xavier_uniform), scaled inputs, a normalisation layer before it, "
                "or ReLU.",
            )
        )
    return gathered(told)


def gathered(told: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The gravest of several of one kind, with the others in its evidence: they have one cause."""
    if not told:
        return []
    first = min(told, key=lambda d: d.severity)
    others = tuple([f"likewise {d.message}" for d in told if d is not first])
    return [Diagnosis(first.kind, first.severity, first.where, first.message, first.evidence + others, first.remedy)]


def symmetric(found: Statistics) -> list[Diagnosis]:
    """Layers whose units are copies of each other and get the same gradients: they stay so for ever."""
    told = []
    for layer in found.layers[:-1]:
        for p in matrices(found, layer):
            if layer.layer.startswith("Embedding") or p.value.shape[0] < 2 or p.gradient is None:
                continue
            if not np.isfinite(p.gradient).all():
                continue
            rows = np.concatenate([p.value.reshape(len(p.value), -1), _rounded(p.gradient)], axis=1)
            kinds = len(np.unique(rows, axis=0))
            if kinds * 2 > len(rows):
                continue
            zero = not p.value.any()
            told.append(
                Diagnosis(
                    "symmetric-units",
                    "error",
                    layer.path,
                    f"{layer_named(layer.path, layer.layer)}: its {len(rows)} units are "
                    + ("all alike" if kinds == 1 else f"copies of {kinds}"),
                    (
                        f"their weights are {'all 0' if zero else 'equal'}, and so are their gradients: no step will "
                        "ever "
                        "tell them apart",
                    ),
                    "Give them random first weights: nn.init.kaiming_normal, xavier_normal, or the layer's own.",
                )
            )
    return gathered(told)


def _rounded(gradient: np.ndarray) -> np.ndarray:
    """Gradients to a millionth of the largest: sums that differ in their order alone are equal."""
    flat = np.asarray(gradient, np.float64).reshape(len(gradient), -1)
    largest = float(np.abs(flat).max(initial=0.0))
    return np.round(flat / largest * 1e5) if largest > 0 else flat
