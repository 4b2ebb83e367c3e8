"""What a metric is: something that takes in batches of predictions and targets, and gives one value for all of them."""

import copy
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.train.rules import Mode


class Metric:
    """Base class of metrics. A subclass writes `update` and `compute`, and keeps what it adds up in `self.sums`.

    `sums` is a dict of NumPy arrays, so that a checkpoint can hold it. `mode` says whether less or more is better.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> class Largest(cr.metrics.Metric):
    ...     name, mode = "largest_error", "min"
    ...     def update(self, prediction, target):
    ...         self.keep("largest", np.maximum(self.sums.get("largest", 0.0), np.abs(prediction - target).max()))
    ...     def compute(self):
    ...         return float(self.sums["largest"])
    >>> Largest()([1.0, 2.0], [1.0, 4.0])
    2.0
    """

    name: str = "metric"
    mode: Mode | None = None
    by_rows = False
    """Whether several batches may be taken in as one, with the same outcome to the bit."""

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass that takes in batches in a way of its own says anew whether it goes by rows."""
        super().__init_subclass__(**options)
        if "update" in vars(cls) and "by_rows" not in vars(cls):
            cls.by_rows = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Begin with nothing added up, whether or not a subclass calls an `__init__`."""
        metric = super().__new__(cls)
        metric.sums = {}
        return metric

    sums: dict[str, np.ndarray]

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in one batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """The value over all batches since `reset`; NaN where it is not defined."""
        raise NotImplementedError

    def reset(self) -> None:
        """Begin anew."""
        self.sums = {}

    def fresh(self) -> Self:
        """A copy that has taken in nothing yet."""
        alone = copy.copy(self)
        alone.reset()
        return alone

    def __call__(self, prediction: Any, target: Any) -> Any:
        """The value for these predictions alone, whatever was taken in before."""
        alone = self.fresh()
        alone.update(_arrays(prediction), _arrays(target))
        return alone.compute()

    def keep(self, name: str, value: Any) -> None:
        """Set one of the sums."""
        self.sums[name] = np.asarray(value)

    def count(self, name: str, number: Any) -> None:
        """Add integers to one of the sums."""
        self.keep(name, self.sums.get(name, np.int64(0)) + number)

    def add(self, name: str, values: np.ndarray) -> None:
        """Add numbers (n, ...) to one of the sums, one after the other along the first axis, in float64."""
        before = self.sums.get(name, np.zeros(values.shape[1:]))
        # accumulate adds strictly in order, which sum does not: so it matters not where one batch ends.
        self.keep(name, np.add.accumulate(np.concatenate([before[None], values.astype(np.float64)]), axis=0)[-1])

    def extend(self, name: str, values: np.ndarray) -> None:
        """Append values to one of the sums: for metrics that need to see all of them at once."""
        self.keep(name, np.concatenate([self.sums[name], values]) if name in self.sums else values.copy())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


def ratio(part: Any, whole: Any) -> float:
    """part / whole; NaN for nothing of nothing."""
    return float(part) / float(whole) if whole else math.nan


def shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, element by element; 0 where whole is 0."""
    return part / np.maximum(whole, 1)


def rows_of(values: Any) -> int:
    """The number of rows of an array, or of the first array in a tuple or dict."""
    while isinstance(values, (dict, tuple)):
        values = next(iter(values.values() if isinstance(values, dict) else values))
    return len(values)


def _arrays(values: Any) -> Any:
    """The same structure with arrays in the place of lists and tensors."""
    if isinstance(values, dict):
        return {name: _arrays(value) for name, value in values.items()}
    return tuple([_arrays(value) for value in values]) if isinstance(values, tuple) else np.asarray(values)


def as_array(values: Any) -> np.ndarray:
    """One array in a dtype of NumPy's own; DataError for a tuple or dict of them."""
    if isinstance(values, (dict, tuple)):
        raise DataError(
            "This metric takes one array of predictions and one of targets; the model returned a "
            f"{type(values).__name__}. Write a metric of your own: see cr.metrics.Metric."
        )
    array = np.asarray(values)
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)  # bfloat16 is no kind of NumPy's


class Mean(Metric):
    """The mean over rows of a function (prediction, target) -> one number a row, or one for the batch.

    `mode` ('min' or 'max') is needed only where the metric is monitored.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> bias = cr.metrics.Mean(lambda prediction, target: prediction - target, name="bias")
    >>> bias([1.0, 2.0], [0.0, 0.0])
    1.5
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None, mode: Mode | None = None) -> None:
        if mode not in (None, "min", "max"):
            raise ConfigError(f"mode is 'min' or 'max'; got {mode!r}.")
        self.function, self.mode = function, mode
        self.name = name or getattr(function, "__name__", type(function).__name__).strip("<>")

    def update(self, prediction: Any, target: Any) -> None:
        """Take in one batch."""
        values, rows = np.asarray(self.function(prediction, target), np.float64), rows_of(prediction)
        if values.ndim and len(values) != rows:
            raise ShapeError(
                f"The metric {self.name} gave shape {values.shape} for {rows} rows; expected one number, or one a row."
            )
        self.add("sum", np.full(rows, values) if values.ndim == 0 else values.reshape(rows, -1).mean(axis=1))
        self.count("rows", rows)

    def compute(self) -> float:
        """The mean."""
        return ratio(self.sums.get("sum", 0.0), self.sums.get("rows", 0))
