"""What is being timed, and the time left, on stderr."""

import sys
import time
from typing import Self

EVERY = 5.0  # seconds between two lines where there is no terminal


class Progress:
    """Counts pieces of work of about equal length. On a terminal one line is written over and over."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.started = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Tell what begins now."""
        now = time.monotonic()
        if not self.terminal and now - self.shown < EVERY and self.done:
            return
        self.shown = now
        line = f"{self.done}/{self.total}  {text}{self.left(now)}"
        print(
            f"\r\x1b[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def left(self, now: float) -> str:
        """The time left, as text; nothing before anything is done."""
        if not self.done:
            return ""
        minutes = (now - self.started) / self.done * (self.total - self.done) / 60
        return f"  (about {minutes:.0f} min left)" if minutes >= 1 else f"  (about {60 * minutes:.0f} s left)"

    def advance(self) -> None:
        """A piece is done."""
        self.done += 1
