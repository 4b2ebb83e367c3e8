"""The threads that compiled code runs on: one pool for the process, made of Python threads that are in native code.

A call from ctypes lets other Python threads run, so Python's own threads are all that is needed. Between tasks a worker
looks for the next one natively, then goes to sleep in Python, from where it takes some tenths of a millisecond to wake.
It looks for about as long as the last task took, so that waiting costs no more than work did: for a millisecond at
least, and not for long, so that a process that does something else has its cores. Who finds the pool in use, or its
workers asleep for too long, runs alone: results do not depend on the number of threads.
"""

import ctypes
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from chainrule.engines.native import barrier, cache, host, jit
from chainrule.engines.native.memory import Arena
from chainrule.engines.native.watchdog import Watchdog
from chainrule.errors import ConfigError

AT_MOST = 8  # threads by default: more seldom pay for networks of the size that a CPU trains
SPIN = 1e-3  # seconds that a worker looks for work before it sleeps, at least
LINGER = 10e-3  # and at most, after a task that took as long
LIMIT = 20e-6  # seconds that a thread waits at a barrier before it offers its core to others
OVERSUBSCRIBED = 4  # pauses that it waits where there are more threads than cores
PATIENCE = 32  # offers of the core between two looks at the clock, while workers wake
ROUSE = 10e-3  # seconds in which workers must have woken
SLEEPY = 0.5  # seconds for which nobody tries to wake them when they had not


def resolve(threads: int | None) -> int:
    """How many threads to use: `threads`, else the environment variable CHAINRULE_THREADS, else the cores, at most 8.

    Raises ConfigError for what is no number from 1 to 256.
    """
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)):
            raise ConfigError(f"threads={threads!r} is no whole number. Give 1, 2, ..., or None for the default.")
        return _checked(int(threads), f"threads={threads}")
    text = os.environ.get("CHAINRULE_THREADS", "").strip()
    if not text:
        return min(host.detect().cores, AT_MOST)
    if not text.isdecimal():
        raise ConfigError(f"CHAINRULE_THREADS={text!r} is no whole number. Set it to 1, 2, ..., or unset it.")
    return _checked(int(text), f"CHAINRULE_THREADS={text}")


def _checked(threads: int, source: str) -> int:
    if not 1 <= threads <= barrier.MAX_THREADS:
        raise ConfigError(
            f"{source}: there must be from 1 to {barrier.MAX_THREADS} threads. This machine has "
            f"{host.detect().cores} cores; more threads than cores make nothing faster."
        )
    return threads


class Task:
    """A function in native code with its arguments, ready to be run: `void f(arguments..., i64 thread, i64 threads)`.

    `arguments` are up to 8 integers or addresses; `task[k] = value` changes one between runs. Whoever has the task
    keeps the library and the memory that it points to. A task is run by one caller at a time.
    """

    def __init__(self, function: int, arguments: Sequence[int]) -> None:
        if len(arguments) > barrier.MAX_ARGUMENTS:
            raise ValueError(f"a task has up to {barrier.MAX_ARGUMENTS} arguments, not {len(arguments)}")
        self._words = (ctypes.c_int64 * barrier.TASK_WORDS)(function, len(arguments), *arguments)
        self.address = ctypes.addressof(self._words)
        self.watchdog = Watchdog()
        self.alone_until = 0.0  # workers could not be woken: until then nobody tries

    def __setitem__(self, number: int, value: int) -> None:
        if not 0 <= number < self._words[1]:
            raise IndexError(f"a task of {self._words[1]} arguments has no argument {number}")
        self._words[2 + number] = value


class Pool:
    """The workers of this process; `pool()` gives the one that there is.

    `sync` is the address that tasks hand to `@barrier` (barrier.py).
    """

    def __init__(self) -> None:
        machine = host.detect()
        library = _runtime(machine)
        self._serve = library.function("serve", 2)
        self._launch = library.function("launch", 6, ctypes.c_int64)
        self._alone = library.function("alone", 1)
        self._memory = Arena(barrier.JOB_BYTES + barrier.SYNC_BYTES, alignment=barrier.LINE)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._memory))  # workers outlive the interpreter: never freed
        self._job = self._memory.address
        self.sync = self._job + barrier.JOB_BYTES
        self._cores = machine.cores
        pause = _seconds_of_a_pause(library)
        self._pause, self._limit = pause, int(LIMIT / pause)
        self._patience = ctypes.c_int64.from_address(self._job + barrier.PATIENCE)
        self.wakings = 0  # how often sleeping workers were woken
        self._states = self._memory.array[barrier.STATES : barrier.JOB_BYTES].view(np.int64)[:: barrier.LINE // 8]
        self._reset()

    def _reset(self) -> None:
        """Begin without workers; also in the child of a fork, which has its parent's memory but not its threads."""
        self._memory.array[:] = 0
        self._states[:] = barrier.PARKED
        self._linger(SPIN)
        self._wakers: list[Any] = []  # a lock for each worker, who sleeps by acquiring it
        self._growing = threading.Lock()

    def _linger(self, seconds: float) -> None:
        """Let workers look for work for so long before they sleep."""
        self._lingering = min(max(seconds, SPIN), LINGER)
        self._patience.value = int(self._lingering / self._pause)

    @property
    def workers(self) -> int:
        """How many threads the pool has, beside its callers."""
        return len(self._wakers)

    @property
    def asleep(self) -> bool:
        """Whether all workers sleep."""
        return bool((self._states == barrier.PARKED).all())

    def run(self, task: Task, threads: int, work: float = 1.0) -> int:
        """Run a task on up to so many threads, the caller's included, and wait for it; on how many it ran.

        `work` says how much it is compared with other runs of this task, such as the number of steps: the watchdog
        compares their speed.
        """
        if threads == 1:
            self._alone(task.address)
            return 1
        allowed = task.watchdog.threads(threads)
        begun = time.perf_counter()
        if allowed > 1:
            limit = self._limit if allowed <= self._cores else OVERSUBSCRIBED
            waits = self._launch(self._job, self.sync, task.address, allowed, limit, 0)
            if waits == barrier.ASLEEP:
                waits, begun = self._rouse(task, allowed, limit)
            if waits >= 0:
                seconds = time.perf_counter() - begun
                if seconds > SPIN or self._lingering > SPIN:
                    self._linger(seconds if allowed <= self._cores else SPIN)
                task.watchdog.record(allowed, seconds, waits, work)
                return allowed
            begun = time.perf_counter()
        self._alone(task.address)
        task.watchdog.record(1, time.perf_counter() - begun, 0, work)
        return 1

    def _rouse(self, task: Task, threads: int, limit: int) -> tuple[int, float]:
        """Wake the workers, then launch; what `launch` answered, and when it was called."""
        begun = time.perf_counter()
        if begun < task.alone_until or not self._grow(threads - 1):
            return barrier.ASLEEP, begun
        for k in range(1, threads):
            waker = self._wakers[k - 1]
            if self._states[k] == barrier.PARKED and waker.locked():
                with suppress(RuntimeError):  # another caller was faster
                    waker.release()
                    self.wakings += 1
        deadline = begun + ROUSE
        while True:
            waits = self._launch(self._job, self.sync, task.address, threads, limit, PATIENCE)
            if waits != barrier.ASLEEP:
                return waits, begun
            begun = time.perf_counter()
            if begun > deadline:
                task.alone_until = begun + SLEEPY
                return waits, begun

    def _grow(self, workers: int) -> bool:
        """Have so many workers; False where the system gives no more threads."""
        with self._growing:
            while len(self._wakers) < workers:
                waker = threading.Lock()
                waker.acquire()
                number = len(self._wakers) + 1
                worker = threading.Thread(
                    target=self._work, args=(number, waker), name=f"chainrule-{number}", daemon=True
                )
                try:
                    worker.start()
                except RuntimeError:  # too many threads, or the interpreter is shutting down
                    return False
                self._wakers.append(waker)
        return True

    def _work(self, number: int, waker: Any) -> None:
        serve, job = self._serve, self._job
        while True:
            serve(job, number)
            waker.acquire()


def _runtime(machine: host.Host) -> jit.Library:
    text = barrier.runtime(machine)
    key = cache.digest("runtime", jit.version(), text, repr(machine))
    entry = cache.get(key)
    if entry is None:
        entry = cache.Entry(jit.compile_object(text, machine), {})
        cache.put(key, entry)
    return jit.Library(entry.code)


def _seconds_of_a_pause(library: jit.Library) -> float:
    """The quickest of some measurements: the others were disturbed."""
    rest = library.function("rest", 1)
    count, quickest = 2000, 1.0
    for _ in range(5):
        begun = time.perf_counter()
        rest(count)
        quickest = min(quickest, (time.perf_counter() - begun) / count)
    return max(quickest, 1e-10)


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """The pool of this process."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool()
    return _pool


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    if _pool is not None:
        _pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
