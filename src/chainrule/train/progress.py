"""What is shown while a network trains. `fit` reports to a Progress; which one, `progress='auto'` finds out.

'rich' (progress_rich.py) draws a bar on a terminal, 'plain' prints lines, 'silent' nothing.
Everything goes to the standard error stream, so that results can be piped.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from chainrule.errors import ConfigError

EVERY = 10.0  # seconds between two lines of PlainProgress


@dataclass
class Standing:
    """How far a training is. `epochs` and `seconds_left` are None where nobody knows; `row` ends the history.

    >>> import chainrule as cr
    >>> cr.train.Standing(epoch=1, epochs=10, batch=3, batches=20, loss=0.5).seconds_left is None
    True
    """

    epoch: int
    epochs: int | None
    batch: int
    batches: int
    loss: float
    rows_per_second: float = 0.0
    seconds_left: float | None = None
    row: Mapping[str, float] = field(default_factory=dict)
    monitor: str = ""
    best: float | None = None
    best_epoch: int | None = None
    device: str = ""  # what the steps run on, where the engine tells


class Progress(Protocol):
    """Something that shows how a training goes: four methods. Hand an object that has them to `fit(progress=...)`.

    With a fifth, `say(text)`, it is told of diagnoses, too.

    >>> import chainrule as cr
    >>> class Dots(cr.train.SilentProgress):
    ...     def epoch(self, standing):
    ...         print(".", end="")
    """

    def start(self, standing: Standing) -> None:
        """Training begins, or goes on after an interruption."""

    def step(self, standing: Standing) -> None:
        """Some steps were made; called about ten times a second."""

    def epoch(self, standing: Standing) -> None:
        """An epoch is complete and its row in the history."""

    def finish(self, message: str) -> None:
        """Training is over; the message says why."""


class SilentProgress:
    """Shows nothing.

    >>> import chainrule as cr
    >>> cr.train.SilentProgress().finish("stopped")
    """

    def start(self, standing: Standing) -> None:
        """Nothing."""

    def step(self, standing: Standing) -> None:
        """Nothing."""

    def epoch(self, standing: Standing) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def finish(self, message: str) -> None:
        """Nothing."""


class PlainProgress:
    """Prints a line an epoch, and one every ten seconds while an epoch lasts; but not more than one a second.

    The first and the last epoch always have their line.

    >>> import sys
    >>> import chainrule as cr
    >>> cr.train.PlainProgress(file=sys.stdout).finish("stopped: all 10 epochs done")
    stopped: all 10 epochs done
    """

    def __init__(self, file: TextIO | None = None, every: float = EVERY, pause: float = 1.0) -> None:
        self.file, self.every, self.pause = file, every, pause
        self.printed_at = 0.0
        self.held = ""  # the line of an epoch that came too soon after another

    def _print(self, line: str) -> None:
        print(line, file=self.file if self.file is not None else sys.stderr, flush=True)
        self.printed_at, self.held = time.monotonic(), ""

    def start(self, standing: Standing) -> None:
        """Begin to count the time; say what it runs on."""
        if standing.device:
            self._print(standing.device)
        self.printed_at, self.held = time.monotonic() - self.pause, ""

    def step(self, standing: Standing) -> None:
        """Print where we are, if it has been quiet for long."""
        if time.monotonic() - self.printed_at >= self.every:
            self._print(describe(standing, inside=True))

    def epoch(self, standing: Standing) -> None:
        """Print the row, unless the last line is only just there."""
        line = describe(standing)
        if time.monotonic() - self.printed_at >= self.pause:
            self._print(line)
        else:
            self.held = line

    def say(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def finish(self, message: str) -> None:
        """Print the last row and why it ended."""
        if self.held:
            self._print(self.held)
        self._print(message)


def describe(at: Standing, inside: bool = False) -> str:
    """One line about a training.

    >>> from chainrule.train.progress import Standing, describe
    >>> row = {"loss": 0.214, "validation_loss": 0.238, "seconds": 9.0}
    >>> describe(Standing(31, 100, 258, 258, 0.214, 1.9e6, 2.0, row, "validation_loss", 0.236, 24))
    'epoch  31/100  loss 0.214  validation loss 0.238 (best 0.236 at 24)  1.9 M rows/s  0:02 left'
    """
    parts = [f"epoch {at.epoch:>{len(str(at.epochs)) if at.epochs else 3}}{f'/{at.epochs}' if at.epochs else ''}"]
    if inside:
        parts += [f"batch {at.batch}/{at.batches}", f"loss {number(at.loss)}"]
    else:
        parts += [values(at)]
    if at.rows_per_second:
        parts.append(f"{rate(at.rows_per_second)} rows/s")
    if at.seconds_left is not None and (at.epochs is None or at.epoch < at.epochs or inside):
        parts.append(f"{clock(at.seconds_left)} left")
    return "  ".join(parts)


def values(at: Standing, terse: bool = False) -> str:
    """The columns of the last row, the best value behind the one that is monitored; terse: that one and the loss."""
    parts = []
    for name, value in at.row.items():
        if name in ("epoch", "step", "seconds", "learning_rate") or (terse and name not in ("loss", at.monitor)):
            continue
        best = f" (best {number(at.best)} at {at.best_epoch})" if name == at.monitor and at.best is not None else ""
        parts.append(f"{name.replace('_', ' ')} {number(value)}{best}")
    return "  ".join(parts)


def number(value: float) -> str:
    """A loss or metric in three or four digits.

    >>> from chainrule.train.progress import number
    >>> number(0.2143), number(1234.5), number(0.00001234)
    ('0.214', '1234', '1.23e-05')
    """
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def rate(value: float) -> str:
    """A rate with its unit prefix.

    >>> from chainrule.train.progress import rate
    >>> rate(1.94e6), rate(23456), rate(312)
    ('1.9 M', '23 k', '312')
    """
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.{1 if value < 10 * size else 0}f}{prefix}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss.

    >>> from chainrule.train.progress import clock
    >>> clock(62.4), clock(3723)
    ('1:02', '1:02:03')
    """
    whole = round(max(0.0, seconds))
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def on_terminal() -> bool:
    """Whether somebody looks at a terminal that can draw."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def find(progress: Any) -> Progress:
    """The Progress for 'plain' or 'silent', or an object that is one; ConfigError otherwise."""
    if progress == "silent":
        return SilentProgress()
    if progress == "plain":
        return PlainProgress()
    if all(callable(getattr(progress, method, None)) for method in ("start", "step", "epoch", "finish")):
        return progress
    raise ConfigError(
        f"progress={progress!r:.80} is not known: 'auto', 'rich', 'plain', 'silent', or an object with the "
        "methods start, step, epoch and finish."
    )
