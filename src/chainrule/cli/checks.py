"""Checks of the words and numbers that options take: each returns the value, or says what would be right."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from chainrule.errors import ConfigError
from chainrule.train.recorder import Every

AUGMENTATIONS = ("shift", "flip")


def unknown(what: str, word: str, known: Sequence[str]) -> str:
    """The sentence about a word that is none of those known."""
    close = difflib.get_close_matches(word, known, 1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'"{word}" is no {what}.{hint} Known: {", ".join(known)}.'


def choice(what: str, known: Sequence[str]) -> Callable[[str | None], str | None]:
    """A check that a word is one of those known; - and _ are the same here."""

    def check(word: str | None) -> str | None:
        if word is None:
            return None
        plain = word.strip().lower().replace("-", "_")
        if plain not in known:
            raise typer.BadParameter(unknown(what, word, known))
        return plain

    return check


def choices(what: str, known: Sequence[str]) -> Callable[[list[str]], list[str]]:
    """The same check for an option that may be repeated."""
    check = choice(what, known)
    return lambda given: [str(check(word)) for word in given]


def whole(low: int) -> Callable[[str | int], int]:
    """A reader of whole numbers of at least `low`."""

    def read(given: str | int) -> int:
        try:
            number = int(given)
        except ValueError:
            raise typer.BadParameter(f'"{given}" is no whole number.') from None
        if number < low:
            raise typer.BadParameter(f"{number} is too low: at least {low} makes sense.")
        return number

    return read


def real(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Callable[[str | float], float]:
    """A reader of finite numbers from `low` to `high`; with `above`, `low` itself is too low."""

    def read(given: str | float) -> float:
        try:
            number = float(given)
        except ValueError:
            raise typer.BadParameter(f'"{given}" is no number.') from None
        if not math.isfinite(number):
            raise typer.BadParameter(f'"{given}" is no finite number.')
        if number < low or (above and number == low):
            raise typer.BadParameter(f"{number:g} is too low: it must be {'above' if above else 'at least'} {low:g}.")
        if number > high:
            raise typer.BadParameter(f"{number:g} is too high: at most {high:g} makes sense.")
        return number

    return read


def check_layers(text: str) -> str:
    """Widths of hidden layers as text, `64,64`; `auto`; or `none` for no hidden layer."""
    plain = text.strip().lower()
    if plain in ("auto", "none"):
        return plain
    widths = [part.strip() for part in plain.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,5}", width) for width in widths):
        raise typer.BadParameter(
            f'"{text}" is no list of widths: write 64,64 for two hidden layers of 64 units, or none.'
        )
    return ",".join(widths)


def check_channels(text: str) -> str:
    """Channels of the stages of a network as text, `32,64`, or `auto`."""
    if text.strip().lower() == "none":
        raise typer.BadParameter("a network with convolutions has one stage at least: write 32,64, or auto.")
    return check_layers(text)


def check_augment(text: str) -> str:
    """What is done to training images at random, as text: `shift,flip`, `none` or `auto`."""
    words = [word.strip().lower() for word in text.split(",")]
    if len(words) > 1 or words[0] not in ("auto", "none"):
        for word in words:
            if word not in AUGMENTATIONS:
                raise typer.BadParameter(unknown("augmentation", word, ("auto", "none", *AUGMENTATIONS)))
    return ",".join(dict.fromkeys(words))


def check_size(text: str | None) -> str | None:
    """The size of images as text, `64` or `64x48`."""
    if text is not None and not image_size(text):
        raise typer.BadParameter(f'"{text}" is no size: write 64 for squares, 64x48 for width and height.')
    return text


def image_size(text: str) -> tuple[int, int] | None:
    """(height, width) from a text `64` or `WIDTHxHEIGHT`; None where it is none.

    >>> from chainrule.cli.checks import image_size
    >>> image_size("64x48"), image_size("32"), image_size("large")
    ((48, 64), (32, 32), None)
    """
    found = re.fullmatch(r"\s*([1-9][0-9]{0,3})\s*(?:[x×]\s*([1-9][0-9]{0,3}))?\s*", text.lower())
    return (int(found[2] or found[1]), int(found[1])) if found else None


UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def check_time(text: str | None) -> str | None:
    """A time as text: seconds, or with a unit, such as `90`, `10m`, `1.5h`."""
    if text is not None and not seconds(text):
        raise typer.BadParameter(f'"{text}" is no time: write 90 for seconds, 10m for minutes, 1.5h for hours.')
    return text


def seconds(text: str) -> float:
    """A time in seconds; 0 where the text is none.

    >>> from chainrule.cli.checks import seconds
    >>> seconds("90"), seconds("1.5h"), seconds("soon")
    (90.0, 5400.0, 0)
    """
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]*)\s*", text.lower())
    return float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else 0


def check_every(text: str) -> str:
    """How often a checkpoint is written, as text that `fit` takes; a bare number counts steps."""
    try:
        Every.of(text := f"{text} steps" if text.isdigit() else text)
    except ConfigError:
        raise typer.BadParameter(f'"{text}" says nothing: write 30 s, 5 min, or 500 steps.') from None
    return text


def absolute(text: str) -> str:
    """The path of a folder, which stays right when a run is gone on with elsewhere."""
    return str(Path(text).expanduser().absolute())


def check_record(text: str) -> str:
    """How often layers and parameters are looked at: auto, off, or every so many steps."""
    if text not in ("auto", "off") and not (text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f'"{text}" says nothing: write auto, off, or a number of steps such as 100.')
    return text


def check_kinds(pairs: list[str]) -> list[str]:
    """Pairs COLUMN=KIND."""
    for pair in pairs:
        if not pair.partition("=")[2]:
            raise typer.BadParameter(f'"{pair}" is no COLUMN=KIND, such as zip=category.')
    return pairs


def words(what: str, known: Sequence[str]) -> dict[str, Any]:
    """The settings of an option that takes one of these words: its check, and what completion offers."""
    return {"callback": choice(what, known), "autocompletion": completion(known)}


def completion(known: Sequence[str]) -> Callable[[str], list[str]]:
    """The words that begin as what was typed so far."""
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]
