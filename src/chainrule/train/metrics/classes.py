"""Metrics of classification. Shares are of exact counts."""

import math
from typing import Any

import numpy as np

from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.train.metrics.base import Metric, as_array, ratio, shares
from chainrule.train.rules import Mode

IGNORED = -100  # the target that says "do not count this one", as in cross_entropy


class ClassMetric(Metric):
    """Base of metrics that compare classes.

    threshold     with one score a row, the score above which it is of class 1: 0 for logits, 0.5 for probabilities;
                  with several, a threshold makes each column a question of its own (multi-label); without one, the
                  largest score wins
    ignore_index  the integer target that is not counted
    """

    mode: Mode | None = "max"

    def __init__(self, threshold: float | None = None, ignore_index: int = IGNORED, name: str | None = None) -> None:
        self.threshold, self.ignore_index = threshold, ignore_index
        self.boundary = 0.0 if threshold is None else threshold  # with one score a row
        self.name = name or type(self).name

    def labels(self, prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Predicted and true classes, flat, without those to ignore; and the number of classes."""
        binary = prediction.ndim == 1 or prediction.shape[1] == 1 or self.threshold is not None
        if binary:
            if prediction.size != target.size or len(prediction) != len(target):
                raise unlike(self.name, prediction, target)
            guess, truth = prediction.reshape(-1) > self.boundary, target.reshape(-1)
            counted = truth != self.ignore_index
            truth = truth[counted]
            if not np.isin(truth, (0, 1)).all():
                raise DataError(
                    f"{self.name}: with one score a row the targets are 0 and 1; got "
                    f"{truth[~np.isin(truth, (0, 1))][0]}."
                )
            return guess[counted].astype(np.int64), truth.astype(np.int64), 2
        classes = prediction.shape[1]
        guess = prediction.argmax(axis=1)
        truth = target.argmax(axis=1) if target.shape == prediction.shape else self._integers(prediction, target)
        guess, truth = guess.reshape(-1), truth.reshape(-1)
        counted = truth != self.ignore_index
        return guess[counted], truth[counted], classes

    def _integers(self, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Targets as class numbers, checked."""
        if target.ndim == prediction.ndim and target.shape[1] == 1:
            target = target[:, 0]
        if target.shape != prediction.shape[:1] + prediction.shape[2:]:
            raise unlike(self.name, prediction, target)
        truth = target.astype(np.int64)
        wrong = ((truth < 0) | (truth >= prediction.shape[1]) | (truth != target)) & (truth != self.ignore_index)
        if wrong.any():
            raise DataError(
                f"{self.name}: the target {target[wrong][0]} is none of the {prediction.shape[1]} classes, "
                f"0 to {prediction.shape[1] - 1}."
            )
        return truth


def unlike(name: str, prediction: np.ndarray, target: np.ndarray) -> ShapeError:
    """The error that says how the two shapes should fit."""
    return ShapeError(
        f"{name}: predictions of shape {prediction.shape} and targets of shape {target.shape} do not fit. "
        "Expected (rows, classes) with (rows,), or two equal shapes."
    )


class Accuracy(ClassMetric):
    """The share of right answers.

    >>> import chainrule as cr
    >>> cr.metrics.Accuracy()([0.3, -2.0, 1.0, 4.0], [1, 0, 0, 1])
    0.75
    """

    name = "accuracy"
    by_rows = True

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        guess, truth, _ = self.labels(as_array(prediction), as_array(target))
        self.count("right", np.count_nonzero(guess == truth))
        self.count("rows", len(truth))

    def compute(self) -> float:
        """A number from 0 to 1."""
        return ratio(self.sums.get("right", 0), self.sums.get("rows", 0))


class ConfusionMatrix(ClassMetric):
    """How often class i (row) was taken for class j (column): int64 (classes, classes).

    >>> import chainrule as cr
    >>> cr.metrics.ConfusionMatrix()([0.3, -2.0, 1.0, 4.0], [1, 0, 0, 1])
    array([[1, 1],
           [0, 2]])
    """

    name = "confusion_matrix"
    mode: Mode | None = None
    by_rows = True

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        guess, truth, classes = self.labels(as_array(prediction), as_array(target))
        matrix = np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)
        self.count("matrix", matrix)

    @property
    def matrix(self) -> np.ndarray:
        """The counts so far."""
        return self.sums.get("matrix", np.zeros((2, 2), np.int64))

    def compute(self) -> Any:
        """The counts."""
        return self.matrix


class Averaged(ConfusionMatrix):
    """Base of precision, recall and F1: a share for each class, and how to make one number of them.

    average   'binary': class 1 alone; 'macro': the mean over the classes that occur, among the targets or the answers;
              'micro': all rows together; None: an array, a value a class; 'auto': binary with two classes, else macro
    A share of nothing is 0.
    """

    mode = "max"

    def __init__(
        self, average: str | None = "auto", threshold: float | None = None, ignore_index: int = IGNORED,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if average not in ("auto", "binary", "macro", "micro", None):
            raise ConfigError(f"average is 'auto', 'binary', 'macro', 'micro' or None; got {average!r}.")
        super().__init__(threshold, ignore_index, name)
        self.average = average

    def share(self, right: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
        """The value, from the counts of right answers, of answers and of targets of each class."""
        raise NotImplementedError

    def compute(self) -> Any:
        """A number from 0 to 1, or an array of them for average=None."""
        matrix = self.matrix
        right, answered, true = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
        average = self.average
        if average == "auto":
            average = "binary" if len(matrix) == 2 else "macro"
        if average == "micro":
            return float(self.share(right.sum(), answered.sum(), true.sum()))
        values = self.share(right, answered, true)
        if average == "binary":
            if len(matrix) != 2:
                raise ConfigError(
                    f"{self.name}: average='binary' is for two classes; there are {len(matrix)}. Try 'macro'."
                )
            return float(values[1])
        occurs = (answered + true) > 0
        return values if average is None else float(values[occurs].mean()) if occurs.any() else math.nan


class Precision(Averaged):
    """Of the answers "this class", the share that is right.

    >>> import chainrule as cr
    >>> cr.metrics.Precision()([0.3, -2.0, 1.0, 4.0], [1, 0, 0, 1])
    0.6666666666666666
    """

    name = "precision"

    def share(self, right: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Right answers among answers."""
        return shares(right, answered)


class Recall(Averaged):
    """Of the rows of a class, the share that was found.

    >>> import chainrule as cr
    >>> cr.metrics.Recall()([0.3, -2.0, 1.0, 4.0], [1, 0, 0, 1])
    1.0
    """

    name = "recall"

    def share(self, right: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Right answers among targets."""
        return shares(right, true)


class F1(Averaged):
    """The harmonic mean of precision and recall: 2 · right / (answers + targets).

    >>> import chainrule as cr
    >>> cr.metrics.F1()([0.3, -2.0, 1.0, 4.0], [1, 0, 0, 1])
    0.8
    """

    name = "f1"

    def share(self, right: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Twice the right answers among answers and targets."""
        return shares(2 * right, answered + true)
