"""What the rules look at: a network, its data, and what some trial steps on copies have shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.diagnosis.statistics import Statistics

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Trial:
    """Steps from the present state at `factor` times the learning rate: the loss of the same rows before and after.

    `finite` is False where they ended in numbers that are none.
    """

    factor: float
    steps: int
    before: float
    after: float
    finite: bool = True

    @property
    def fall(self) -> float:
        """By how much the loss fell; −inf where it ended in no number."""
        return self.before - self.after if self.finite else -np.inf


@dataclass(frozen=True, eq=False)
class Curvature:
    """The largest eigenvalue of the (preconditioned) Hessian, and the rate beyond which steps along it grow."""

    sharpness: float
    limit: float
    preconditioned: bool


@dataclass(frozen=True, eq=False)
class Noise:
    """The gradient noise scale in rows, from `batches` gradients of `batch_size` rows each, and one of all `rows`
    where these are not 0: more than that it cannot be told to be."""

    scale: float
    batches: int
    batch_size: int
    rows: int = 0


@dataclass(frozen=True, eq=False)
class Case:
    """Everything that is known.

    x, y, x_validation, y_validation   the data: arrays, or trees of arrays; None for what there is not
    rows              the numbers of the rows of the sample that `before` and `after` saw
    feature_names     of the columns of x, where x is a table; may be empty
    loss              the name of the loss, such as 'cross_entropy'
    batch_size        rows of a step;  weighted: whether rows or classes have weights
    before            a step from the present state, looked into, on a sample of rows; `after`: the same after the trial
    prediction, target  the output for the sample and what it should be; None where they are no single arrays
    constant          the loss of the best constant prediction on the sample; None where unknown
    rate              the learning rate; None where it follows a schedule
    trials            what steps at several multiples of the rate did
    one_batch         what fitting a single batch by heart came to, as (loss, loss of the best constant there); None
                      where that was not tried, or no batch was found that has anything to be learned
    unseen            the lowest loss on rows left out of a longer trial, and that of the best constant answer to them
    normalisers       by path of a batch normalisation: (batch mean, batch variance, running mean, running variance,
                      batches tracked, momentum)
    history           rows of past epochs;  keeps_best: whether the weights are those of the best epoch
    """

    x: Any = None
    y: Any = None
    x_validation: Any = None
    y_validation: Any = None
    rows: Array | None = None
    feature_names: Sequence[str] = ()
    loss: str = ""
    batch_size: int = 32
    weighted: bool = False
    before: Statistics | None = None
    after: Statistics | None = None
    prediction: Array | None = None
    target: Array | None = None
    constant: float | None = None
    rate: float | None = None
    optimizer: str = ""
    trials: Sequence[Trial] = ()
    one_batch: tuple[float, float] | None = None
    unseen: tuple[float, float] | None = None
    curvature: Curvature | None = None
    noise: Noise | None = None
    normalisers: Mapping[str, tuple[Array, Array, Array, Array, int, float]] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    keeps_best: bool = False

    @property
    def labels(self) -> Array | None:
        """The classes of the rows, where the targets are numbers of classes."""
        y = self.y
        if isinstance(y, np.ndarray) and y.dtype.kind in "iub" and (y.ndim == 1 or y.shape[1:] == (1,)):
            return y.reshape(-1)
        return None

    def trial(self, factor: float) -> Trial | None:
        """The trial at that multiple of the rate."""
        return next((t for t in self.trials if t.factor == factor), None)
