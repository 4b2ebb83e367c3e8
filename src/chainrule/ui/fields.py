"""The fields of a JSON object that somebody sent, each taken once and checked, and none left over."""

import math
from collections.abc import Sequence
from typing import Any

from chainrule.ui.answers import Refused

REQUIRED: Any = object()


class Fields:
    """An object to take fields from. All refuse with 400 and say what was sent and what was expected.

    >>> from chainrule.ui.fields import Fields
    >>> fields = Fields({"rows": 20, "noise": 0.1})
    >>> fields.whole("rows", 1, 100), fields.number("noise", 0, 1), fields.whole("seed", 0, 9, default=3)
    (20, 0.1, 3)
    >>> fields.end()
    """

    def __init__(self, values: dict[str, Any], what: str = "the body") -> None:
        self.values, self.what = dict(values), what

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The field as it was sent."""
        value = self.values.pop(name, default)
        if value is REQUIRED:
            raise Refused(400, f"{self.what} lacks the field {name!r}.")
        return value

    def whole(self, name: str, low: int, high: int, default: Any = REQUIRED) -> int:
        """A whole number within bounds."""
        return self._whole(name, self.take(name, default), low, high)

    def number(self, name: str, low: float, high: float, default: Any = REQUIRED, above: bool = False) -> float:
        """A number within bounds; `above` leaves out the lower one."""
        value = self.take(name, default)
        if not _is_number(value) or not low <= value <= high or (above and value == low):
            self._refuse(name, value, f"a number {'above' if above else 'from'} {low:,} to {high:,}")
        return float(value)

    def choice(self, name: str, choices: Sequence[str], default: Any = REQUIRED) -> str:
        """One of some words."""
        value = self.take(name, default)
        if not isinstance(value, str) or value not in choices:
            self._refuse(name, value, f"one of {', '.join(choices)}")
        return str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            self._refuse(name, value, "true or false")
        return bool(value)

    def choices(self, name: str, choices: Sequence[str], default: Any = REQUIRED) -> list[str]:
        """At least one of some words, none twice."""
        value = self.take(name, default)
        if (
            not isinstance(value, list)
            or not 1 <= len(value) <= len(choices)
            or not all(isinstance(x, str) and x in choices for x in value)
            or len(set(value)) < len(value)
        ):
            self._refuse(name, value, f"a list of some of {', '.join(choices)}, none twice")
        return list(value)

    def wholes(self, name: str, low: int, high: int, most: int, default: Any = REQUIRED) -> list[int]:
        """A list of at most so many whole numbers within bounds."""
        value = self.take(name, default)
        if not isinstance(value, list) or len(value) > most:
            self._refuse(name, value, f"a list of at most {most} whole numbers")
        return [self._whole(f"{name}[{i}]", x, low, high) for i, x in enumerate(value)]

    def numbers(self, name: str, least: int, most: int) -> list[float]:
        """A list of numbers of such a length."""
        value = self.take(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            self._refuse(name, value, f"a list of {least:,} to {most:,} numbers")
        for i, x in enumerate(value):
            if not _is_number(x):
                self._refuse(f"{name}[{i}]", x, "a number")
        return [float(x) for x in value]

    def inner(self, name: str) -> "Fields":
        """An object within."""
        value = self.take(name)
        if not isinstance(value, dict):
            self._refuse(name, value, "an object")
        return Fields(value, name)

    def end(self) -> None:
        """Refuse the fields that nobody took."""
        if self.values:
            names = ", ".join(repr(name[:40]) for name in list(self.values)[:5])
            raise Refused(400, f"{self.what} has fields that are unknown here: {names}.")

    def _whole(self, name: str, value: Any, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._refuse(name, value, f"a whole number from {low:,} to {high:,}")
        return int(value)

    def _refuse(self, name: str, value: Any, expected: str) -> None:
        shown = f"a list of {len(value):,}" if isinstance(value, list) and len(value) > 5 else repr(value)[:60]
        raise Refused(400, f"{name} is {shown}; expected {expected}.")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
