"""Checking the settings of optimisers, transforms and schedules, with messages that say what would be right."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from chainrule.errors import ConfigError


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, below: float = math.inf) -> float:
    """`value` as a float with low ≤ value ≤ high and value < below; ConfigError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise ConfigError(f"{name} is a number; got {value!r:.80}.")
    value = float(value)
    if not (low <= value <= high and value < below):
        if low == -math.inf:
            bounds = f"below {below:g}" if below < math.inf else f"at most {high:g}"
        elif below < math.inf:
            bounds = f"in [{low:g}, {below:g})"
        else:
            bounds = f"in [{low:g}, {high:g}]" if high < math.inf else f"at least {low:g}, and finite"
        raise ConfigError(f"{name} must be {bounds}; got {value!r}.")
    return value


def count(name: str, value: Any, low: int = 0) -> int:
    """`value` as an int of at least `low`; ConfigError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ConfigError(f"{name} is a whole number of at least {low}; got {value!r:.80}.")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; ConfigError for anything but True and False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is True or False; got {value!r:.80}.")
    return value


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two decay rates in [0, 1), as `betas` takes them."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{name} is a pair of numbers such as (0.9, 0.999); got {value!r:.80}.")
    return number(f"{name}[0]", value[0], 0, below=1), number(f"{name}[1]", value[1], 0, below=1)


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """`value` if it is among `allowed`; ConfigError otherwise."""
    if value not in allowed:
        raise ConfigError(f"{name} is one of {', '.join(map(repr, allowed))}; got {value!r:.80}.")
    return value


def close_to(name: str, known: Iterable[str]) -> str:
    """A hint ' Did you mean ...?' for an unknown name, or ''."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names for a message, the first few of them."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
