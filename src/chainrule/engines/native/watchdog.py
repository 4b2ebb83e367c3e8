"""Fewer threads while other processes want the cores.

Threads that wait for each other at barriers advance together or not at all: when the system gives one of their cores
to another process for some milliseconds, all of them stand still, and two threads can be slower than one. Barriers
count the waits that take long. They may also be long for a good reason (one thread has more to do than the others), so
long waits are a suspicion only: what is done about it is decided by measuring. That, too, costs time, since fewer
threads run than are wanted. So a hiccup is let pass, and what was tried in vain is not tried again soon.
"""

import time
from collections.abc import Callable

WINDOW = 0.05  # seconds of work that one measurement takes
SUSPICIOUS = 30.0  # long waits a second from which on fewer threads are tried
IN_A_ROW = 3  # so many suspicious measurements, one after the other, make a case
BETTER = 0.95  # what is tried must take less than this much of the time
WORSE = 1.2  # work must take so much longer than when fewer threads were tried in vain, to try them again soon
FIRST_PATIENCE, LAST_PATIENCE = 0.5, 30.0  # seconds until the next trial; doubled each time that nothing came of it
RETURN_PATIENCE = 4.0  # the last patience on the way back to more threads


class Watchdog:
    """Chooses how many threads one task runs on, from how long its runs take.

    Where many waits are long in several windows, half as many threads are tried for one window, and kept if that is
    faster than the fastest of these. After a while the number that is wanted is tried again. `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begin(0)

    def _begin(self, wanted: int) -> None:
        self._wanted = self._present = wanted
        self._trial: int | None = None
        self._cost = 0.0  # seconds for a piece of work with the present number of threads
        self._up, self._down = _Direction(RETURN_PATIENCE), _Direction(LAST_PATIENCE)
        self._suspicious: list[float] = []  # what work cost in the suspicious windows, the latest in a row
        self._clear()

    def _clear(self) -> None:
        self._seconds, self._waits, self._work = 0.0, 0, 0.0

    def threads(self, wanted: int) -> int:
        """On how many threads to run now, where so many are wanted."""
        if wanted != self._wanted:
            self._begin(wanted)
        if self._trial is None and self._present < wanted and self._cost > 0 and self._clock() >= self._up.next:
            self._trial = wanted
            self._clear()
        return self._present if self._trial is None else self._trial

    def record(self, threads: int, seconds: float, waits: int, work: float = 1.0) -> None:
        """What a run took: seconds, long waits, and how much work it was (in any unit, such as steps)."""
        if threads != (self._present if self._trial is None else self._trial):
            return  # the run could not have the threads that it should have
        self._seconds += seconds
        self._waits += waits
        self._work += work
        if self._seconds >= WINDOW:
            self._judge(self._seconds / self._work, self._waits / self._seconds)
            self._clear()

    def _judge(self, cost: float, waits_a_second: float) -> None:
        now = self._clock()
        if self._trial is None:
            latest = [*self._suspicious, cost][-IN_A_ROW:]
            self._suspicious = latest if waits_a_second > SUSPICIOUS else []
            self._cost = min(self._suspicious, default=cost)
            if len(self._suspicious) >= IN_A_ROW and self._present > 1 and self._down.due(now, self._cost):
                self._trial = self._present // 2
            return
        if cost < BETTER * self._cost:
            fewer = self._trial < self._present
            self._present, self._cost = self._trial, cost
            self._up, self._down = _Direction(RETURN_PATIENCE), _Direction(LAST_PATIENCE)
            (self._up if fewer else self._down).wait(now)  # not back at once
        else:
            (self._down if self._trial < self._present else self._up).fail(now, self._cost)
        self._trial, self._suspicious = None, []


class _Direction:
    """When more, or fewer, threads may be tried next."""

    def __init__(self, longest: float) -> None:
        self.next = self.latest = 0.0
        self.patience, self.longest = FIRST_PATIENCE, longest
        self.cost = 0.0  # of work when a trial failed

    def due(self, now: float, cost: float) -> bool:
        """Whether to try now, when work costs so much."""
        return now >= self.next and (cost > WORSE * self.cost or now >= self.latest)

    def wait(self, now: float) -> None:
        self.next = now + self.patience

    def fail(self, now: float, cost: float) -> None:
        self.patience = min(2 * self.patience, self.longest)
        self.cost, self.latest = cost, now + self.longest
        self.wait(now)
