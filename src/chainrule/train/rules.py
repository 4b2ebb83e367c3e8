"""Rules that watch a training and end it with a reason; what `chainrule.train.stop` offers, and how `fit` asks them."""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chainrule.errors import ConfigError

Mode = Literal["min", "max"]


class Rule:
    """A reason to stop. Subclasses override one of the questions; each answers with the reason, or None to go on.

    `fit` works on a copy, so a rule can be used again. What a rule remembers belongs to checkpoints: `state` returns it
    as JSON values, and `load` takes it back.

    >>> import chainrule as cr
    >>> class Thrice(cr.stop.Rule):
    ...     def after_epoch(self, epoch, row):
    ...         return "three epochs are enough" if epoch >= 3 else None
    >>> Thrice().after_epoch(3, {"loss": 0.5})
    'three epochs are enough'
    """

    monitor: str | None = None

    def bind(self, modes: "Modes") -> None:
        """Called once before training with the names that can be monitored; ConfigError for an unknown one."""

    def after_step(self, step: int, seconds: float) -> str | None:
        """Asked after each update. `seconds` is the time trained so far, that before interruptions included."""
        return None

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> str | None:
        """Asked after each epoch (counted from 1) with its row of the history."""
        return None

    def state(self) -> dict[str, Any]:
        """What must be known to go on after an interruption."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""


class Modes(dict[str, Mode | None]):
    """The columns of the history that can be monitored, and whether less ('min') or more ('max') of each is better.

    None stands for a metric that does not say. `default` is what is monitored when nothing is said.
    """

    def __init__(self, modes: Mapping[str, Mode | None], default: str) -> None:
        super().__init__(modes)
        self.default = default

    def of(self, monitor: str | None) -> tuple[str, Mode]:
        """The name to monitor and its mode; ConfigError when there is no such column, or it has no mode."""
        name = self.default if monitor is None else monitor
        if name not in self:
            close = difflib.get_close_matches(name, self, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            hint = (
                ""
                if any(k.startswith("validation_") for k in self)
                else " Names with validation_ need validation data."
            )
            raise ConfigError(f"There is no {name!r} to monitor.{guess} There are: {', '.join(self)}.{hint}")
        mode = self[name]
        if mode is None:
            raise ConfigError(
                f"{name!r} does not say whether less or more of it is better. Wrap the function: "
                "cr.metrics.Mean(function, mode='min') or mode='max'."
            )
        return name, mode


def better(value: float, best: float, mode: Mode, by: float = 0.0) -> bool:
    """Whether `value` improves on `best` by more than `by`; NaN never does, and every number improves on a NaN."""
    if math.isnan(value) or math.isnan(best):
        return math.isnan(best) and not math.isnan(value)
    return value < best - by if mode == "min" else value > best + by


def spoken(name: str) -> str:
    """A column of the history in words: validation_loss is the validation loss."""
    return name.replace("_", " ")


@dataclass
class Plateau(Rule):
    """See `plateau`."""

    patience: int
    min_delta: float
    monitor: str | None
    mode: Mode = "min"
    name: str = ""
    best: float = math.nan
    waited: int = 0

    def bind(self, modes: Modes) -> None:
        """Find out what to monitor."""
        self.name, self.mode = modes.of(self.monitor)

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> str | None:
        """Stop when too many epochs have gone by without improvement."""
        if better(row[self.name], self.best, self.mode, self.min_delta if not math.isnan(self.best) else 0.0):
            self.best, self.waited = float(row[self.name]), 0
            return None
        self.waited += 1
        if self.waited < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{spoken(self.name)} has not improved{by} for {_counted(self.patience, 'epoch')}"

    def state(self) -> dict[str, Any]:
        """The best value so far and the epochs since."""
        return {"best": self.best, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.best, self.waited = state["best"], state["waited"]


@dataclass
class Threshold(Rule):
    """See `threshold`."""

    value: float
    monitor: str | None
    mode: Mode = "min"
    name: str = ""

    def bind(self, modes: Modes) -> None:
        """Find out what to monitor."""
        self.name, self.mode = modes.of(self.monitor)

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> str | None:
        """Stop when the value is as good as asked for."""
        value = row[self.name]
        if math.isnan(value) or (value > self.value if self.mode == "min" else value < self.value):
            return None
        return f"{spoken(self.name)} has reached {value:.4g} (asked for: {self.value:g})"


@dataclass
class Epochs(Rule):
    """See `epochs`."""

    count: int

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> str | None:
        """Stop after so many epochs."""
        return f"all {_counted(self.count, 'epoch')} done" if epoch >= self.count else None


@dataclass
class Time(Rule):
    """See `time`."""

    limit: float

    def after_step(self, step: int, seconds: float) -> str | None:
        """Stop between two steps when the time is up."""
        return f"the time limit of {self.limit:g} seconds is reached" if seconds >= self.limit else None


@dataclass
class AnyOf:
    """The rules of a training, asked one after the other."""

    rules: list[Rule] = field(default_factory=list)

    @property
    def remembering(self) -> list[Rule]:
        """Those that a checkpoint holds: an epoch limit has nothing to remember, and may be another one next time."""
        return [rule for rule in self.rules if not isinstance(rule, Epochs)]

    @property
    def want_each_step(self) -> bool:
        """Whether one of them has to be asked after every single step. A time limit has not."""
        return any(type(rule).after_step not in (Rule.after_step, Time.after_step) for rule in self.rules)

    def seconds_left(self, seconds: float) -> float:
        """Until a time limit is reached, when so many have gone by."""
        return min([rule.limit - seconds for rule in self.rules if isinstance(rule, Time)], default=math.inf)

    def after_step(self, step: int, seconds: float) -> str | None:
        """The first reason to stop now, between two steps."""
        return next((r for rule in self.rules if (r := rule.after_step(step, seconds))), None)

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> str | None:
        """The first reason to stop after this epoch. Every rule is asked, since each counts for itself."""
        return next((r for r in [rule.after_epoch(epoch, row) for rule in self.rules] if r), None)


def plateau(patience: int = 10, min_delta: float = 0.0, monitor: str | None = None) -> Rule:
    """Stop when a value has not improved by more than `min_delta` for `patience` epochs.

    `monitor` is a column of the history; by default validation_loss, or loss where there are no validation data.
    Whether less or more is better, the metric knows. Raises ConfigError for a patience below 1 or a negative min_delta.
    Source: Prechelt, "Early stopping - but when?" (1998).

    >>> import chainrule as cr
    >>> rule = cr.stop.plateau(patience=2, monitor="validation_accuracy")
    """
    if not _is_count(patience):
        raise ConfigError(f"patience is a number of epochs, at least 1; got {patience!r}.")
    if not _is_number(min_delta) or not min_delta >= 0:
        raise ConfigError(f"min_delta is a number of at least 0; got {min_delta!r}.")
    return Plateau(int(patience), float(min_delta), monitor)


def threshold(value: float, monitor: str | None = None) -> Rule:
    """Stop when a column of the history is as good as `value`: at most that for a loss, at least that for an accuracy.

    >>> import chainrule as cr
    >>> rule = cr.stop.threshold(0.99, monitor="validation_accuracy")
    """
    if not _is_number(value) or math.isnan(value):
        raise ConfigError(f"The threshold is a number; got {value!r}.")
    return Threshold(float(value), monitor)


def epochs(count: int) -> Rule:
    """Stop after `count` epochs.

    >>> import chainrule as cr
    >>> rules = [cr.stop.epochs(100), cr.stop.plateau(5)]
    """
    if not _is_count(count):
        raise ConfigError(f"epochs is a whole number of at least 1; got {count!r}.")
    return Epochs(int(count))


def time(seconds: float) -> Rule:
    """Stop, between two steps, when `seconds` seconds have been spent training (those before an interruption count).

    >>> import chainrule as cr
    >>> rule = cr.stop.time(60)
    """
    if not _is_number(seconds) or not seconds > 0:
        raise ConfigError(f"A time limit is a number of seconds above 0; got {seconds!r}.")
    return Time(float(seconds))


def as_rules(stop: Any) -> list[Rule]:
    """`stop` as a list: None, a rule, or several. ConfigError for anything else."""
    rules = [] if stop is None else list(stop) if isinstance(stop, Iterable) else [stop]
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ConfigError(
                f"stop={rule!r:.80} is no stopping rule. Try cr.stop.plateau(patience=10), or a list of such."
            )
    return rules


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
