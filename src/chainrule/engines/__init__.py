"""Engines: each turns a Program into something that runs. `ENGINES` lists those that are there, by name."""

from chainrule.engines.base import Engine, Executable
from chainrule.engines.reference import ReferenceEngine
from chainrule.errors import ConfigError

ENGINES: dict[str, Engine] = {"reference": ReferenceEngine()}


def find(name: str) -> Engine:
    """The engine called `name`; ConfigError lists those that there are."""
    if name not in ENGINES:
        raise ConfigError(f"There is no engine {name!r}. Engines: {', '.join(ENGINES)}.")
    return ENGINES[name]


__all__ = ["ENGINES", "Engine", "Executable", "find"]
