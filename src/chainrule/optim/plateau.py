"""Lower the learning rate when a metric no longer improves."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.saving import restored
from chainrule.optim.settings import count, number, one_of


class ReduceOnPlateau:
    """Multiplies every learning rate of `optimizer` by `factor` after more than `patience` updates without improvement.

    With mode 'min', x improves on the best when x < best · (1 − threshold) (threshold_mode 'rel') or x < best −
    threshold ('abs'); with mode 'max' the other way round. After a reduction `cooldown` updates are not counted. No
    rate falls below min_lr, and changes of eps or less are left out. A NaN is no improvement. Arguments are those of
    PyTorch's ReduceLROnPlateau. It runs beside the training loop, not inside a compiled step, which needs no new
    compilation for it. Raises ConfigError for an optimiser that follows a schedule.

    >>> from chainrule import optim
    >>> optimizer = optim.SGD(lr=0.5)
    >>> plateau = optim.ReduceOnPlateau(optimizer, factor=0.5, patience=1)
    >>> [plateau.update(loss) for loss in (1.0, 0.9, 0.9, 0.9)], optimizer.lr
    ([False, False, False, True], 0.25)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if optimizer.schedules:
            raise ConfigError(
                f"The learning rate follows {next(iter(optimizer.schedules.values()))!r}; a plateau cannot lower it. "
                "Give the optimiser a number as lr."
            )
        self.optimizer = optimizer
        self.mode, self.threshold_mode = (
            one_of("mode", mode, ("min", "max")),
            one_of("threshold_mode", threshold_mode, ("rel", "abs")),
        )
        self.factor = number("factor", factor, 0, below=1)
        self.patience, self.cooldown = count("patience", patience), count("cooldown", cooldown)
        self.threshold, self.min_lr, self.eps = (
            number(name, x, 0) for name, x in (("threshold", threshold), ("min_lr", min_lr), ("eps", eps))
        )
        self.best = math.inf if mode == "min" else -math.inf
        self.bad, self.resting = 0, 0

    def update(self, metric: Any) -> bool:
        """Note the metric of one epoch (a number or a scalar tensor); returns whether a learning rate was lowered."""
        value = float(metric)
        if self._improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.resting > 0:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad <= self.patience:
            return False
        self.resting, self.bad = self.cooldown, 0
        return self._lower()

    def _improves(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * value < sign * self.best * (1 - sign * self.threshold)
        return sign * value < sign * self.best - self.threshold

    def _lower(self) -> bool:
        old = {label: float(rate) for label, rate in self.optimizer.rates.items()}
        new = {label: max(rate * self.factor, self.min_lr) for label, rate in old.items()}
        changed = {
            label: wrap(np.asarray(new[label], np.float64)) for label in old if old[label] - new[label] > self.eps
        }
        self.optimizer.rates = {**self.optimizer.rates, **changed}
        return bool(changed)

    def state_dict(self) -> dict[str, Tensor]:
        """What is to be remembered: 'best', 'bad' and 'resting'. The rates are in the optimiser's state."""
        return {
            "best": wrap(np.asarray(self.best, np.float64)),
            "bad": wrap(np.asarray(self.bad, np.int64)),
            "resting": wrap(np.asarray(self.resting, np.int64)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict`. StateError unless names, shapes and dtypes agree."""
        loaded = restored(self.state_dict(), state, "ReduceOnPlateau")
        self.best, self.bad, self.resting = float(loaded["best"]), int(loaded["bad"]), int(loaded["resting"])
