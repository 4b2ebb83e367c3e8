"""Engines: each turns a Program into something that runs. `ENGINES` lists those that are there, by name."""

from collections.abc import Callable

from chainrule.engines.base import PRECISIONS, STANDARD, Engine, Executable, Session
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.reference import ReferenceEngine
from chainrule.errors import ConfigError

ENGINES: dict[str, Engine] = {"native": NativeEngine(), "reference": ReferenceEngine()}
DEFAULT_ENGINE = "native"


def find(name: str, threads: int | None = None, autotune: bool = False, precision: str = STANDARD) -> Engine:
    """The engine called `name`, on so many threads (None: as many as pay); ConfigError lists those that there are."""
    if name not in ENGINES:
        raise ConfigError(f"There is no engine {name!r}. Engines: {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise ConfigError(f"There is no precision {precision!r}. Precisions: {', '.join(PRECISIONS)}.")
    engine = ENGINES[name]
    if threads is None and not autotune and precision == STANDARD:
        return engine
    on: Callable[[int | None, bool, str], Engine] | None = getattr(engine, "on", None)
    if on is None:
        raise ConfigError(
            f"threads={threads!r}, autotune={autotune!r}, precision={precision!r}: the {name} engine has nothing to "
            "choose. Leave them out."
        )
    return on(threads, autotune, precision)


__all__ = ["DEFAULT_ENGINE", "ENGINES", "PRECISIONS", "STANDARD", "Engine", "Executable", "Session", "find"]
