"""The processes of a workload, taking turns: A B C A B C ..., so that drift of the machine hits all alike."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks import ROOT, SOURCE, workloads
from benchmarks.peers import CHAINRULE, Entry, entries, environment
from benchmarks.progress import Progress
from benchmarks.worker import Job
from benchmarks.workloads import Workload

SETTLE = 0.3  # seconds between two turns, in which the threads of the one before fall asleep
TOLERANCE = 1e-4  # between the losses of two libraries after the same steps, relative and absolute
RESTLESS = 0.05  # share of the waiting time that a process may use the processor; more is reported
ANSWER_WITHIN = 900.0  # seconds, after which a process is given up


class WorkerFailed(Exception):
    """A process ended, or told of an error."""


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    peers: tuple[str, ...]
    engine: str
    threads: int = 2
    rounds: int = 3
    seconds: float = 1.0
    samples: int = 3
    settle: float = SETTLE
    quick: bool = False


@dataclass
class Measured:
    """What one entry gave. `rounds` are the medians of the rounds, in seconds per step."""

    entry: Entry
    rounds: list[float] = field(default_factory=list)
    peak_megabytes: float = math.nan
    losses: list[float] = field(default_factory=list)
    waited: float = 0.0
    busy: float = 0.0
    error: str = ""

    @property
    def seconds(self) -> float:
        """The median of the rounds' medians; NaN without any."""
        return statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def restless(self) -> bool:
        """Whether it used the processor while others were timed."""
        return self.busy > RESTLESS * self.waited + 0.1


@dataclass
class Outcome:
    """All that was measured for a workload. `peak` is the FMA peak of one thread in GFLOP/s, NaN if unknown."""

    workload: Workload
    measured: list[Measured]
    peak: float

    def of(self, peer: str, mode: str | None = None) -> Measured | None:
        """The fastest of a peer's entries."""
        found = [m for m in self.measured if m.entry.peer == peer and mode in (None, m.entry.mode) and m.rounds]
        return min(found, key=lambda m: m.seconds, default=None)

    @property
    def best_peer(self) -> Measured | None:
        """The fastest entry of any other library, in any mode and number of threads."""
        found = [m for m in self.measured if m.entry.counted and m.rounds]
        return min(found, key=lambda m: m.seconds, default=None)

    def ratio(self, mode: str) -> float:
        """How many times the best peer chainrule is; NaN where one of them is missing."""
        own, best = self.of(CHAINRULE, mode), self.best_peer
        return best.seconds / own.seconds if own and best else math.nan

    @property
    def runs(self) -> bool:
        """Whether chainrule itself runs."""
        return self.of(CHAINRULE) is not None

    @property
    def sound(self) -> bool:
        """Whether everybody ran, and did the same work."""
        return not self.disagreements and not any(m.error for m in self.measured)

    @property
    def disagreements(self) -> list[str]:
        """Entries whose losses are not those of chainrule's single calls."""
        known = [m for m in self.measured if m.losses]
        if not known:
            return []
        expected = next((m for m in known if (m.entry.peer, m.entry.mode) == (CHAINRULE, "call")), known[0])
        return [
            f"{m.entry.title}: losses {m.losses}, but {expected.entry.title}: {expected.losses}"
            for m in known
            if not agree(m.losses, expected.losses[: m.entry.checked_steps])
        ]


def agree(a: list[float], b: list[float]) -> bool:
    """Whether two libraries went the same way."""
    close = (math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for x, y in zip(a, b, strict=False))
    return len(a) == len(b) and all(close)


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a process that is timed: threads, this tree, and bytecode as everybody has it."""
    paths = [SOURCE, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | environment(threads) | {"PYTHONPATH": os.pathsep.join(paths)}


class Worker:
    """A process of `benchmarks.worker`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in close)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"], cwd=ROOT, env=child_environment(job.threads), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip

    def close(self) -> None:
        """End the process; more than once does no harm."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # of a request that nobody reads any more
                    stream.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer. Raises WorkerFailed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        limit = threading.Timer(ANSWER_WITHIN, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            limit.cancel()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:]
            raise WorkerFailed(f"the process ended with code {self.process.returncode}: {' '.join(last)}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer


class Turn:
    """An entry with its process; after an error it sits out."""

    def __init__(self, entry: Entry, workload: Workload, plan: Plan) -> None:
        self.result = Measured(entry)
        self.settle = plan.settle
        self.job = Job(
            workload.name, entry.peer, entry.mode, entry.threads, plan.engine, plan.seconds, plan.samples, plan.quick
        )
        self.worker = Worker(self.job)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.result.error:
            return {}
        try:
            answer = self.worker.ask(request)
        except WorkerFailed as error:
            self.result.error = str(error)
            return {}
        self.result.waited += answer.get("waited", 0.0)
        self.result.busy += answer.get("busy", 0.0)
        time.sleep(self.settle)
        return answer

    def start(self) -> None:
        """Make the network, compile, find how many steps fill the time."""
        self._ask(self.job.to_json())

    def round(self) -> None:
        """Time it once more."""
        answer = self._ask({"do": "round"})
        if answer:
            self.result.rounds.append(statistics.median(answer["samples"]))

    def finish(self) -> None:
        """Ask for memory and losses, and end the process."""
        answer = self._ask({"do": "finish"})
        if answer:
            self.result.peak_megabytes, self.result.losses = answer["peak_megabytes"], answer["losses"]
        self.worker.close()


def measure(workload: Workload, plan: Plan, progress: Progress) -> Outcome:
    """Time everything for one workload."""
    peak = measure_peak(workload.dtype)
    turns: list[Turn] = []
    try:
        for entry in entries(workload, plan.peers, plan.threads):
            progress.show(f"{workload.name}: starting {entry.title}")
            turns.append(Turn(entry, workload, plan))
            turns[-1].start()
            progress.advance()
        for number in range(1, plan.rounds + 1):
            for turn in turns:
                progress.show(f"{workload.name}: round {number} of {plan.rounds}, {turn.result.entry.title}")
                turn.round()
                progress.advance()
        for turn in turns:
            turn.finish()
    finally:
        for turn in turns:
            turn.worker.close()
    return Outcome(workload, [turn.result for turn in turns], peak)


def measure_peak(dtype: str) -> float:
    """The FMA peak of one thread, measured in a process of its own, in GFLOP/s."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peak", dtype], cwd=ROOT, env=child_environment(1), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return float(done.stdout) if done.returncode == 0 else math.nan


def measure_all(names: Iterable[str], plan: Plan) -> list[Outcome]:
    """Time all workloads of these names."""
    chosen = [workloads.find(name, plan.quick) for name in names]
    turns = [len(entries(workload, plan.peers, plan.threads)) for workload in chosen]
    with Progress(sum(turns) * (1 + plan.rounds)) as progress:
        return [measure(workload, plan, progress) for workload in chosen]
