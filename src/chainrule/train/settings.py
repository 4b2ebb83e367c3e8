"""The settings of a training that are plain values: what a run remembers, and `resume` need not be told again."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.engines import find as find_engine
from chainrule.errors import ConfigError
from chainrule.train.batches import check_seed


@dataclass(frozen=True)
class Settings:
    """The plain arguments of `fit`, checked. ConfigError for one that makes no sense."""

    epochs: int | None = None
    batch_size: int = 32
    seed: int = 0
    shuffle: bool = True
    engine: str = DEFAULT_ENGINE
    clip_norm: float | None = None
    keep_best: bool = True
    monitor: str | None = None
    class_weight: Any = None
    checkpoint_every: int | str = "30 s"
    threads: int | None = None
    precision: str = STANDARD
    milestones: int = 256
    record: Any = "auto"

    def __post_init__(self) -> None:
        if self.epochs is not None and not _is_count(self.epochs):
            raise ConfigError(f"epochs is a whole number of at least 1, or None; got {self.epochs!r}.")
        if not _is_count(self.batch_size):
            raise ConfigError(f"batch_size is a whole number of rows, at least 1; got {self.batch_size!r}.")
        check_seed(self.seed)
        find_engine(self.engine, self.threads, precision=self.precision)
        clip = self.clip_norm
        if clip is not None and (
            isinstance(clip, bool) or not isinstance(clip, numbers.Real) or not 0 < clip < math.inf
        ):
            raise ConfigError(f"clip_norm is a number above 0, or None; got {clip!r}.")
        if self.milestones is False or (self.milestones != 0 and not _is_count(self.milestones)):
            raise ConfigError(
                f"milestones is a whole number of megabytes, or 0 for none; got {self.milestones!r}. They are what "
                "cr.replay goes back to."
            )
        record = ("auto" if self.record else None) if isinstance(self.record, bool) else self.record
        object.__setattr__(self, "record", record)
        if record not in ("auto", None) and not _is_count(record):
            raise ConfigError(f"record is 'auto', a number of steps (100), or False for none; got {record!r:.80}.")
        for name in ("shuffle", "keep_best"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is True or False; got {getattr(self, name)!r:.80}.")
        if isinstance(self.class_weight, (np.ndarray, tuple)):
            object.__setattr__(self, "class_weight", np.asarray(self.class_weight).tolist())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        values = dataclasses.asdict(self)
        if isinstance(self.class_weight, Mapping):  # its keys are numbers, which those of JSON are not
            pairs = [[_plain(label), float(weight)] for label, weight in self.class_weight.items()]
            values["class_weight"] = {"pairs": pairs}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Take back what `to_json` returned."""
        settings = dict(values)
        if isinstance(settings["class_weight"], dict):
            settings["class_weight"] = {label: weight for label, weight in settings["class_weight"]["pairs"]}
        return cls(**settings)


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
