"""Ctrl-C and SIGTERM, heard between two steps instead of in the middle of one."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training between two steps. `result` is the FitResult so far; its `run` can be resumed.

    It is a KeyboardInterrupt, so that `except Exception` does not swallow it.

    >>> import chainrule as cr
    >>> issubclass(cr.train.Interrupted, KeyboardInterrupt)
    True
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class Signals:
    """While it is entered, the first Ctrl-C or SIGTERM is noted in `pending`; a second one kills the process.

    Signals are the business of the main thread: in others nothing is changed, and nothing heard.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = number
        for each in self.before:
            signal.signal(each, signal.SIG_DFL)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not set by Python, which cannot set it again
                signal.signal(number, handler)

    @property
    def name(self) -> str:
        """What was heard, for people."""
        return "Ctrl-C" if self.pending == signal.SIGINT else "SIGTERM"
