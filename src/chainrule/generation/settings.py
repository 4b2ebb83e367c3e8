"""The settings of `generate`, checked: those of another method are a misunderstanding, and so are some values."""

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from chainrule import dtypes
from chainrule.errors import ConfigError
from chainrule.generation.choosing import Rule, number
from chainrule.generation.prompts import Ending
from chainrule.random import Generator

Method = Literal["greedy", "sample", "beam"]
OWNERS: dict[str, Method] = {
    "temperature": "sample", "top_k": "sample", "top_p": "sample", "generator": "sample",
    "beams": "beam", "length_penalty": "beam", "early_stopping": "beam",
}  # fmt: skip
LEAST = {"max_new_tokens": 0, "top_k": 1, "beams": 1, "repetition_stop": 1, "pad": 0, "window": 1, "max_length": 1}


@dataclass(frozen=True)
class Settings:
    """What `generate` takes beside model and prompt; None where nothing is given."""

    max_new_tokens: int
    method: Method
    temperature: float | None
    top_k: int | None
    top_p: float | None
    generator: Generator | None
    beams: int | None
    length_penalty: float | None
    early_stopping: bool | None
    repetition_penalty: float | None
    repetition_stop: int | None
    eos: int | Iterable[int] | None
    pad: int | None
    window: int | None
    max_length: int | None
    engine: str

    def __post_init__(self) -> None:
        if self.method not in ("greedy", "sample", "beam"):
            raise ConfigError(f"generate: method is 'greedy', 'sample' or 'beam'; got {self.method!r}.")
        for name, method in OWNERS.items():
            if getattr(self, name) is not None and method != self.method:
                raise ConfigError(f"generate: {name} is for method={method!r}; the method is {self.method!r}.")
        for name, least in LEAST.items():
            _whole(name, getattr(self, name), least)
        if self.method == "sample" and self.generator is None:
            raise ConfigError(
                "generate: sampling draws random numbers; give generator=chainrule.random.Generator(seed)."
            )
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ConfigError(
                f"generate: temperature={self.temperature} must be positive. For the most likely token take "
                "method='greedy'."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"generate: top_p={self.top_p} is a probability, more than 0 and at most 1.")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < float("inf"):
            raise ConfigError(
                f"generate: repetition_penalty={self.repetition_penalty} must be positive; more than 1 discourages."
            )

    @property
    def rule(self) -> Rule:
        """How a token is chosen."""
        warm = 1.0 if self.temperature is None else self.temperature
        return Rule(
            temperature=number(warm) if self.method == "sample" else None,
            top_k=number(self.top_k, dtypes.int64),
            top_p=number(self.top_p),
            repetition_penalty=number(self.repetition_penalty),
        )

    @property
    def ends(self) -> list[int]:
        """The tokens that end a sequence."""
        given = () if self.eos is None else self.eos if isinstance(self.eos, Iterable) else (self.eos,)
        return [operator.index(token) for token in given]

    @property
    def ending(self) -> Ending:
        """When a sequence is over."""
        return Ending(self.ends, self.repetition_stop)

    @property
    def padding(self) -> int:
        """The token that stands behind a sequence that is over."""
        return (self.ends or [0])[0] if self.pad is None else self.pad


def _whole(name: str, value: Any, least: int) -> None:
    if value is None and name != "max_new_tokens":
        return
    try:
        enough = operator.index(value) >= least
    except TypeError:
        enough = False
    if not enough:
        raise ConfigError(f"generate: {name} is a whole number of at least {least}; got {value!r:.80}.")
