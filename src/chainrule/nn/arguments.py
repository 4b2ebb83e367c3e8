"""Checks of what layers are made with, in the words of the layer."""

import operator
from typing import Any

from chainrule.errors import ConfigError


def size(layer: str, name: str, value: Any, least: int = 0) -> int:
    """A whole number, at least `least`; ConfigError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        hint = " Divide with //." if isinstance(value, float) else ""
        raise ConfigError(f"{layer}: {name} is a whole number, not {value!r:.80}.{hint}") from None
    if number < least or isinstance(value, bool):
        raise ConfigError(f"{layer}: {name} is a whole number of at least {least}, not {value!r}.")
    return number


def sizes(layer: str, name: str, value: Any) -> tuple[int, ...]:
    """A shape, given as one whole number or several; ConfigError when it is empty or no shape."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not given:
        raise ConfigError(f"{layer}: {name} is empty; give the extents of the last axes.")
    return tuple(size(layer, name, n) for n in given)


def probability(layer: str, name: str, value: float) -> float:
    """A number from 0 to 1; ConfigError for anything else, NaN included."""
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{layer}: {name} is a probability from 0 to 1, not {value!r}.")
    return value
