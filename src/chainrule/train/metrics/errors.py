"""Metrics of regression: means over all elements of predictions and targets, both (rows,) or (rows, outputs)."""

import math

import numpy as np

from chainrule.errors import ShapeError
from chainrule.train.metrics.base import Metric, as_array, ratio


def matched(name: str, prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, of one shape. (rows, 1) and (rows,) are brought together; ShapeError for other differences."""
    prediction, target = (as_array(values).astype(np.float64, order="C") for values in (prediction, target))
    if {prediction.shape, target.shape} == {(len(target),), (len(target), 1)}:
        prediction, target = prediction.reshape(-1), target.reshape(-1)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"{name}: predictions have shape {prediction.shape} and targets {target.shape}; expected the same."
        )
    return prediction, target


class _ErrorMetric(Metric):
    mode = "min"
    by_rows = True

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).name

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        prediction, target = matched(self.name, prediction, target)
        with np.errstate(all="ignore"):
            self.add("sum", self.measure(prediction - target).reshape(-1))
        self.count("elements", target.size)

    def measure(self, error: np.ndarray) -> np.ndarray:
        """What is averaged."""
        return error * error

    def compute(self) -> float:
        """The mean."""
        return ratio(self.sums.get("sum", 0.0), self.sums.get("elements", 0))


class MSE(_ErrorMetric):
    """The mean squared error.

    >>> import chainrule as cr
    >>> cr.metrics.MSE()([1.0, 2.0], [1.0, 4.0])
    2.0
    """

    name = "mse"


class RMSE(_ErrorMetric):
    """The root of the mean squared error, in the unit of the targets.

    >>> import chainrule as cr
    >>> cr.metrics.RMSE()([1.0, 2.0], [4.0, 5.0])
    3.0
    """

    name = "rmse"

    def compute(self) -> float:
        """The root of the mean."""
        return math.sqrt(super().compute())


class MAE(_ErrorMetric):
    """The mean absolute error, in the unit of the targets.

    >>> import chainrule as cr
    >>> cr.metrics.MAE()([1.0, 2.0], [1.0, 4.0])
    1.0
    """

    name = "mae"

    def measure(self, error: np.ndarray) -> np.ndarray:
        """What is averaged."""
        return np.abs(error)


class R2(Metric):
    """The coefficient of determination: 1 − squared errors / squared deviations of the targets from their mean.

    1 is perfect, 0 as good as always answering the mean. Of several outputs the mean over them. Where all targets are
    equal it is 1 for perfect predictions and else 0.

    >>> import chainrule as cr
    >>> cr.metrics.R2()([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.785714...
    """

    name = "r2"
    mode = "max"
    by_rows = True

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).name

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        prediction, target = (a.reshape(len(a), -1) for a in matched(self.name, prediction, target))
        if not len(target):
            return
        # Deviations from the first target, not the targets: the sum of their squares loses no digits to the mean.
        first = self.sums.setdefault("first", target[0].copy())
        with np.errstate(all="ignore"):
            self.add("errors", (prediction - target) ** 2)
            self.add("deviations", target - first)
            self.add("squares", (target - first) ** 2)
        self.count("rows", len(target))

    def compute(self) -> float:
        """A number of at most 1."""
        if "rows" not in self.sums:
            return math.nan
        errors = self.sums["errors"]
        spread = self.sums["squares"] - self.sums["deviations"] ** 2 / self.sums["rows"]
        constant = self.sums["squares"] == 0
        values = 1 - errors / np.where(spread > 0, spread, 1)
        return float(np.where(constant | (spread <= 0), np.where(errors == 0, 1.0, 0.0 * errors), values).mean())
