"""The cheap rules while a training runs: each fault is told once, when it has lasted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.diagnosis import fitting, gradients, rates, units
from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.folding import fold
from chainrule.diagnosis.statistics import LayerStatistics, Statistics

RULES = (units.symmetric, units.saturated, gradients.flow, gradients.frozen, rates.updates)


class Watch:
    """Looks at a training from time to time, and tells what is new.

    A fault counts when it is seen `lasting` times in a row, and is told again only after it was away as often. One look
    sees a single batch: a ReLU is dead when it is 0 in all rows of `lasting` looks in a row. `keeps_best` says whether
    the training keeps the weights of its best epoch, in which case overfitting is a note.

    >>> from chainrule.diagnosis import Watch
    >>> rows = [{"epoch": i, "loss": 1 / i, "validation_loss": 1 + 0.1 * abs(i - 3)} for i in range(1, 13)]
    >>> watch = Watch(lasting=2)
    >>> [[d.kind for d in watch.look(None, rows)] for _ in range(3)]
    [[], ['overfitting'], []]
    """

    def __init__(self, lasting: int = 3, keeps_best: bool = False) -> None:
        self.lasting, self.keeps_best = lasting, keeps_best
        self._seen: dict[tuple[str, str], int] = {}  # how often in a row
        self._away: dict[tuple[str, str], int] = {}  # of those that were told: how often not, in a row
        self._idle: dict[tuple[str, int], list[np.ndarray]] = {}  # of each ReLU layer: units without a positive row

    def look(self, statistics: Statistics | None, history_rows: Sequence[Mapping[str, Any]] = ()) -> list[Diagnosis]:
        """The diagnoses that are new. `statistics` are those of a step, or None; `history_rows` all epochs so far."""
        found = fitting.overfitting(Case(history=history_rows, keeps_best=self.keeps_best))
        if statistics is not None:
            found += [d for rule in RULES for d in rule(statistics)] + self._dead(statistics)
        found = fold(found)
        here = {(d.kind, d.where) for d in found}
        for key in [key for key in self._away if key not in here]:
            self._away[key] += 1
            if self._away[key] >= self.lasting:
                del self._away[key]
        self._seen = {key: self._seen.get(key, 0) + 1 for key in here}
        news = []
        for d in found:
            key = d.kind, d.where
            if key in self._away:
                self._away[key] = 0
            elif self._seen[key] >= self.lasting:
                self._away[key] = 0
                news.append(d)
        return news

    def _dead(self, statistics: Statistics) -> list[Diagnosis]:
        """Dead in the rows of the last looks together."""
        found = []
        for layer in statistics.layers:
            units_now = layer.dead_units
            if units_now is None:
                continue
            before = self._idle.setdefault((layer.path, layer.call), [])
            if before and before[0].shape != units_now.shape:
                before.clear()
            before.append(units_now)
            del before[: -self.lasting]
            if len(before) == self.lasting:
                found += units.dead_among(layer, np.logical_and.reduce(before), self.lasting * _rows(layer))
        return units.gathered(found)


def _rows(layer: LayerStatistics) -> int:
    return int(layer.output.shape[0]) if layer.output.ndim else 0
