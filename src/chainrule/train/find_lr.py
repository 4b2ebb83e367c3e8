"""The learning-rate finder: raise the rate from step to step, and look at what the loss does."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.errors import ConfigError, Diverged
from chainrule.nn import Module
from chainrule.optim import LBFGS, Optimizer
from chainrule.train.batches import row_order
from chainrule.train.loop import Setup
from chainrule.train.progress import number
from chainrule.train.settings import Settings
from chainrule.train.setup import make_setup
from chainrule.train.state import Snapshot

SMOOTHING = 0.9  # how much of the running mean of the loss stays at each step
BEGUN = 0.1  # the descent has begun when this share of the whole fall is behind


@dataclass(frozen=True)
class LearningRates:
    """What `find_lr` saw: for each rate tried the loss of its batch, and the running mean of these, smoothed.

    Two rules of thumb: `suggestion` is the rate where the smoothed loss fell most steeply, `cautious` a tenth of that
    where it was lowest.

    >>> import chainrule as cr
    >>> found = cr.train.LearningRates([0.1, 1.0], [3.0, 2.0], [3.0, 2.5], suggestion=1.0, cautious=0.1)
    >>> found.table[1]
    {'rate': 1.0, 'loss': 2.0, 'smoothed': 2.5}
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float
    cautious: float

    @property
    def table(self) -> list[dict[str, float]]:
        """A row for each rate: rate, loss, smoothed."""
        columns = zip(self.rates, self.losses, self.smoothed, strict=True)
        return [{"rate": rate, "loss": loss, "smoothed": smoothed} for rate, loss, smoothed in columns]

    def __str__(self) -> str:
        shown = range(0, len(self.rates), max(1, len(self.rates) // 20))
        lines = [f" {'rate':>9}  {'loss':>9}"]
        for i in shown:
            here = "  < steepest" if i <= self.rates.index(self.suggestion) < i + shown.step else ""
            lines.append(f" {self.rates[i]:9.3g}  {number(self.smoothed[i]):>9}{here}")
        last = f"suggestion {self.suggestion:.2g} (steepest descent); a tenth of the lowest: {self.cautious:.2g}"
        return "\n".join([*lines, last])


def find_lr(
    model: Module, data: Any, *, loss: Any, optimizer: Optimizer, smallest: float = 1e-7, largest: float = 10.0,
    steps: int = 100, batch_size: int = 32, seed: int = 0, engine: str = DEFAULT_ENGINE, class_weight: Any = None,
    sample_weight: Any = None, clip_norm: float | None = None, blow_up: float = 4.0,
    threads: int | None = None, precision: str = STANDARD,
) -> LearningRates:  # fmt: skip
    """Try rates from `smallest` to `largest`, growing by one factor each step; model and optimiser stay as they were.

    It ends early when the smoothed loss is more than `blow_up` times the lowest so far, or not a number. The other
    arguments are those of `fit`. Raises ConfigError for a range that is none, and Diverged when the loss is no number
    at the smallest rate already.
    Source: Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> found = cr.find_lr(nn.Linear(1, 1), (x, 3 * x), loss=losses.mse, optimizer=optim.SGD(lr=0.1))
    >>> 1e-3 < found.suggestion < 10
    True
    """
    settings = Settings(
        1, batch_size, seed, True, engine, clip_norm, False, None, class_weight, threads=threads, precision=precision
    )
    _check_range(smallest, largest, steps)
    if isinstance(optimizer, LBFGS):
        raise ConfigError(
            "LBFGS finds the length of its steps by itself (line_search_fn='strong_wolfe'): nothing to find."
        )
    before = Snapshot(Snapshot.objects_of(model, optimizer))
    try:
        setup = make_setup(
            model,
            data,
            loss=loss,
            optimizer=optimizer,
            sample_weight=sample_weight,
            progress="silent",
            settings=settings,
        )
        model.seed(settings.seed)
        model.train()
        tried, seen = _sweep(setup, np.geomspace(smallest, largest, steps).tolist(), blow_up)
    finally:
        before.restore()
    smoothed = _smoothed(seen)
    lowest = tried[int(np.argmin(smoothed))]
    return LearningRates(tried, seen, smoothed, tried[_steepest(smoothed)], lowest / 10)


def _check_range(smallest: float, largest: float, steps: int) -> None:
    if not 0 < smallest < largest < math.inf:
        raise ConfigError(f"smallest={smallest!r} and largest={largest!r}: expected 0 < smallest < largest.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 3:
        raise ConfigError(f"steps is a whole number of at least 3; got {steps!r}.")


def _sweep(setup: Setup, rates: list[float], blow_up: float) -> tuple[list[float], list[float]]:
    """The rates that were tried and the loss of the batch at each, before its update."""
    s = setup.settings
    seen: list[float] = []
    order = np.zeros(0, np.int64)
    epoch, at = 0, 0
    for rate in rates:
        if at >= len(order):
            epoch, at = epoch + 1, 0
            order = row_order(s.seed, epoch, setup.data.rows)
        batch = setup.data.gather(order[at : at + s.batch_size], setup.dtype)
        at += s.batch_size
        setup.optimizer.lr = rate
        outcome = setup.steps.train(setup.model, setup.optimizer, None, batch)
        if not math.isfinite(outcome.loss):
            break
        seen.append(outcome.loss)
        smoothed = _smoothed(seen)
        lowest = min(smoothed)
        if smoothed[-1] - lowest > (blow_up - 1) * max(abs(lowest), smoothed[0] - lowest):
            break
        if not outcome.finite:
            break
    if not seen:
        raise Diverged(
            "find_lr: the loss is not a number at the smallest rate already, so the rate is not the reason. Look "
            "at the scale of the inputs, the initial weights and the loss."
        )
    return rates[: len(seen)], seen


def _smoothed(losses: list[float]) -> list[float]:
    """The running mean, exponentially weighted and corrected for its start."""
    mean, result = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        result.append(mean / (1 - SMOOTHING**i))
    return result


def _steepest(smoothed: list[float]) -> int:
    """Where the smoothed loss falls fastest by the logarithm of the rate, on its way from the start to the lowest.

    At the smallest rates nothing is learned, and the loss moves only because batches differ. So the way begins after
    the last time that the loss was still within a tenth of its fall from where it started.
    """
    lowest = int(np.argmin(smoothed))
    start = float(np.mean(smoothed[: max(1, lowest // 5)]))
    level = start - BEGUN * (start - smoothed[lowest])
    begin = max((i for i in range(lowest) if smoothed[i] >= level), default=0)
    if lowest - begin < 1:
        return lowest
    return begin + int(np.argmin(np.gradient(np.asarray(smoothed[begin : lowest + 1]))))
