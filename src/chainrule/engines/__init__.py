"""Engines: each turns a Program into something that runs. `ENGINES` lists those that are there, by name."""

from collections.abc import Callable

from chainrule.engines.base import Engine, Executable, Session
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.reference import ReferenceEngine
from chainrule.errors import ConfigError

ENGINES: dict[str, Engine] = {"native": NativeEngine(), "reference": ReferenceEngine()}
DEFAULT_ENGINE = "native"


def find(name: str, threads: int | None = None, autotune: bool = False) -> Engine:
    """The engine called `name`, on so many threads (None: as many as pay); ConfigError lists those that there are."""
    if name not in ENGINES:
        raise ConfigError(f"There is no engine {name!r}. Engines: {', '.join(ENGINES)}.")
    engine = ENGINES[name]
    if threads is None and not autotune:
        return engine
    on: Callable[[int | None, bool], Engine] | None = getattr(engine, "on", None)
    if on is None:
        raise ConfigError(
            f"threads={threads!r}, autotune={autotune!r}: the {name} engine has nothing to choose. Leave them out."
        )
    return on(threads, autotune)


__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "Executable", "Session", "find"]
