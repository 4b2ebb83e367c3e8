"""Server-sent events: the news of a run that another process trains.

Source: WHATWG, HTML Living Standard, "Server-sent events".
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import anyio
from anyio import to_thread

from chainrule.errors import ChainruleError
from chainrule.train.store import Run
from chainrule.ui.answers import to_json

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
UNSEEN_SECONDS = 2.0  # after so long the run is read even if its files look untouched: their clocks are coarse
ROWS, SNAPSHOTS = 500, 20  # at most, in an event

Event = tuple[str, dict[str, Any]]


class Follower:
    """Reads what is new in a run since it was last asked.

    It begins with the step `after` itself: whoever knows that step may know it from before all of it was written.
    """

    def __init__(self, run: Run, after: int | None) -> None:
        self.run, self.after = run, after
        self.status: str | None = None
        self.history = Unseen(after)
        self.snapshots = Unseen(after)
        self.diagnoses = 0  # how many were told
        self.files: Any = None
        self.read_at = -UNSEEN_SECONDS

    def news(self) -> list[Event]:
        """The events since the last call. Afterwards `status` is as it was before they were read."""
        # The status first: once it is final, whatever is read after it is complete.
        before, self.status = self.status, self.run.status
        events: list[Event] = []
        if self._touched() or before != self.status:
            events += _pieces("history", "rows", self.history.of(self.run.history), ROWS)
            events += _pieces("snapshots", "snapshots", self.snapshots.of(self.run.snapshots), SNAPSHOTS)
            found = self.run.diagnoses(_from(self.after))
            events += _pieces("diagnoses", "diagnoses", found[self.diagnoses :], ROWS)
            self.diagnoses = max(self.diagnoses, len(found))
        if before != self.status:
            events.append(("status", {"status": self.status, "reason": self.run.summary().reason}))
        return events

    @property
    def ended(self) -> bool:
        """Whether no more is to be expected."""
        return self.status not in (None, "running")

    @property
    def place(self) -> int | None:
        """Where to go on from after a lost connection."""
        return self.history.last

    def _touched(self) -> bool:
        """Whether somebody may have written since the last call."""
        files = tuple([_stamp(f"{self.run.path / 'metrics.sqlite'}{end}") for end in ("", "-wal")])
        now = time.monotonic()
        if files == self.files and now - self.read_at < UNSEEN_SECONDS:
            return False
        self.files, self.read_at = files, now
        return True


class Unseen:
    """Rows that come in the order of their steps. The last one may still grow, and is then told again, whole."""

    def __init__(self, after: int | None) -> None:
        self.last = after
        self.told: dict[str, Any] = {}

    def of(self, read: Callable[[int | None], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """What is new; `read` gives the rows after a step."""
        rows = read(_from(self.last))
        # NaN differs from itself, so rows are compared by what would be sent.
        if rows and rows[0]["step"] == self.last and to_json(rows[0]) == to_json(self.told):
            rows = rows[1:]
        if rows:
            self.last, self.told = rows[-1]["step"], rows[-1]
        return rows


def _from(step: int | None) -> int | None:
    """What to read `after`, to get this step too."""
    return None if step is None else step - 1


def _pieces(event: str, name: str, rows: Sequence[Any], most: int) -> Iterator[Event]:
    for start in range(0, len(rows), most):
        yield event, {name: rows[start : start + most]}


def _stamp(path: str) -> Any:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def stream(run: Run, after: int | None, closing: Callable[[], bool]) -> AsyncIterator[str]:
    """The events of a run as text, until it has ended or the server ends."""
    follower = Follower(run, after)
    spoken_at = time.monotonic()
    while not closing():
        try:
            texts = await to_thread.run_sync(lambda: [message(event) for event in follower.news()])
        except ChainruleError as error:  # the folder was deleted, say
            yield message(("status", {"status": "damaged", "reason": str(error)}))
            return
        for text in texts:
            yield text
        if texts and follower.place is not None:
            yield f"id: {follower.place}\n\n"
        if follower.ended:
            return
        if texts:
            spoken_at = time.monotonic()
        elif time.monotonic() - spoken_at >= HEARTBEAT_SECONDS:
            yield ": still there\n\n"
            spoken_at = time.monotonic()
        await anyio.sleep(POLL_SECONDS)


def message(event: Event) -> str:
    """An event as it is sent.

    >>> from chainrule.ui.events import message
    >>> print(message(("status", {"status": "running", "reason": ""})), end="")
    event: status
    data: {"status":"running","reason":""}
    <BLANKLINE>
    """
    name, data = event
    return f"event: {name}\ndata: {to_json(data)}\n\n"
