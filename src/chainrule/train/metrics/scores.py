"""Metrics of classification that need the scores themselves, not only the class that has the highest."""

import math

import numpy as np

from chainrule.errors import ConfigError, DataError
from chainrule.train.metrics.base import as_array, ratio
from chainrule.train.metrics.classes import IGNORED, ClassMetric, unlike


class TopK(ClassMetric):
    """The share of rows whose true class is among the k highest scores. Of equal scores the first counts as higher.

    >>> import chainrule as cr
    >>> cr.metrics.TopK(2)([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], [1, 0])
    0.5
    """

    by_rows = True

    def __init__(self, k: int = 5, ignore_index: int = IGNORED, name: str | None = None) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ConfigError(f"TopK: k is a whole number of at least 1; got {k!r}.")
        super().__init__(None, ignore_index, name or f"top{k}")
        self.k = k

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        scores = as_array(prediction)
        truth = self._integers(scores, as_array(target))
        scores = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
        truth = truth.reshape(-1)
        scores, truth = scores[truth != self.ignore_index], truth[truth != self.ignore_index]
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        earlier = np.arange(scores.shape[1]) < truth[:, None]
        ahead = ~(scores <= own) | ((scores == own) & earlier)  # NaN is ahead of everything, so it helps nobody
        self.count("right", np.count_nonzero(ahead.sum(axis=1) < self.k))
        self.count("rows", len(truth))

    def compute(self) -> float:
        """A number from 0 to 1."""
        return ratio(self.sums.get("right", 0), self.sums.get("rows", 0))


class AUC(ClassMetric):
    """The area under the ROC curve: how likely a row of class 1 scores higher than one of class 0 (equal scores: half).

    Scores are (rows,), (rows, 1), or (rows, 2), where the difference of the two counts. Keeps all scores; counts pairs
    exactly. NaN where a class is missing. Source: Hanley and McNeil, "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve" (1982).

    >>> import chainrule as cr
    >>> cr.metrics.AUC()([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """

    name = "auc"
    by_rows = True

    def __init__(self, ignore_index: int = IGNORED, name: str | None = None) -> None:
        super().__init__(None, ignore_index, name)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        scores, truth = as_array(prediction), as_array(target)
        if scores.ndim > 2 or (scores.ndim == 2 and scores.shape[1] > 2):
            raise ConfigError(f"auc is for two classes; the predictions have shape {scores.shape}.")
        if scores.ndim == 2 and scores.shape[1] == 2:
            wide = scores.astype(np.float64)
            truth = truth.argmax(axis=1) if truth.shape == scores.shape else truth
            scores = wide[:, 1] - wide[:, 0]
        if scores.size != truth.size:
            raise unlike(self.name, scores, truth)
        scores, truth = scores.reshape(-1), truth.reshape(-1)
        scores, truth = scores[truth != self.ignore_index], truth[truth != self.ignore_index]
        if not np.isin(truth, (0, 1)).all():
            raise DataError(f"auc: the targets are 0 and 1; got {truth[~np.isin(truth, (0, 1))][0]}.")
        self.extend("scores", scores.astype(np.float64))
        self.extend("truth", truth.astype(np.bool_))

    def compute(self) -> float:
        """A number from 0 to 1; 0.5 for scores that tell nothing."""
        if "scores" not in self.sums or np.isnan(self.sums["scores"]).any():
            return math.nan
        _, place = np.unique(self.sums["scores"], return_inverse=True)
        truth = self.sums["truth"]
        of_1 = np.bincount(place[truth], minlength=int(place.max(initial=0)) + 1)
        of_0 = np.bincount(place[~truth], minlength=len(of_1))
        pairs = int(of_1.sum()) * int(of_0.sum())
        won_twice = int(np.sum(of_1 * (2 * (np.cumsum(of_0) - of_0) + of_0)))
        return won_twice / (2 * pairs) if pairs else math.nan


class Perplexity(ClassMetric):
    """exp of the mean cross-entropy of the targets, from logits (rows, classes, ...): 1 at best, classes when guessing.

    >>> import chainrule as cr
    >>> cr.metrics.Perplexity()([[0.0, 0.0], [1.0, 1.0]], [0, 1])
    2.0
    """

    name = "perplexity"
    mode = "min"
    by_rows = True

    def __init__(self, ignore_index: int = IGNORED, name: str | None = None) -> None:
        super().__init__(None, ignore_index, name)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        logits = as_array(prediction).astype(np.float64)
        if logits.ndim < 2:
            raise unlike(self.name, logits, as_array(target))
        truth = self._integers(logits, as_array(target)).reshape(-1)
        logits = np.ascontiguousarray(np.moveaxis(logits, 1, -1)).reshape(-1, logits.shape[1])
        logits, truth = logits[truth != self.ignore_index], truth[truth != self.ignore_index]
        with np.errstate(all="ignore"):  # infinite logits give NaN or infinity, which says it
            top = logits.max(axis=1, keepdims=True)
            log_total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
            self.add("surprise", log_total - np.take_along_axis(logits, truth[:, None], axis=1)[:, 0])
        self.count("rows", len(truth))

    def compute(self) -> float:
        """A number of at least 1."""
        with np.errstate(over="ignore"):
            return float(np.exp(ratio(self.sums.get("surprise", 0.0), self.sums.get("rows", 0))))
