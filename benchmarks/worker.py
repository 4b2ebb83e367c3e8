"""A process that holds one library, ready to train one workload, and times it whenever it is asked.

It reads requests and writes answers as lines of JSON: first a Job, then {"do": "round"} as often as wanted, then
{"do": "finish"}. Between two requests it only waits, and tells how much processor time that took all the same, so that
the threads of one library cannot disturb another unnoticed.
"""

import json
import math
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from benchmarks import peers, workloads
from benchmarks.peers import Contender, Entry

MOST_PASSES = 1 << 30


@dataclass(frozen=True)
class Job:
    """What a worker does. A round takes `seconds`, divided among `samples`."""

    workload: str
    peer: str
    mode: str
    threads: int
    engine: str
    seconds: float
    samples: int
    quick: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the first line."""
        return asdict(self)


def calibrate(contender: Contender, seconds: float) -> int:
    """Warm up, and find how many passes over the data take about `seconds`."""
    contender.run(1)  # compiles
    passes = 1
    while passes < MOST_PASSES:
        taken = contender.run(passes)
        if taken >= seconds / 2:
            return max(1, math.ceil(passes * seconds / taken))
        passes = max(2 * passes, int(passes * seconds / 2 / max(taken, 1e-9)))
    return passes


def peak_megabytes() -> float:
    """The most memory that this process has had at any time, in units of 10⁶ bytes.

    Linux tells it for this program alone; the value of `getrusage` may include what the parent had before it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def waiting(requests: TextIO) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """The requests, each with the seconds that were waited for it, and the processor time spent meanwhile."""
    while True:
        start, busy = time.perf_counter(), time.process_time()
        line = requests.readline()
        if not line:
            return
        waited = {"waited": time.perf_counter() - start, "busy": time.process_time() - busy}
        yield json.loads(line), waited


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until the requests end."""

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    job = Job(**json.loads(requests.readline()))
    try:
        workload = workloads.find(job.workload, job.quick)
        module = peers.load(job.peer)
        contender = module.contender(workload, job.mode, job.threads, job.engine)
        passes = calibrate(contender, job.seconds / job.samples)
        answer(passes=passes)
        for request, waited in waiting(requests):
            if request["do"] == "round":
                contender.run(1)  # what cooled down while others ran
                steps = passes * workload.batches
                answer(samples=[contender.run(passes) / steps for _ in range(job.samples)], **waited)
            else:
                peak = peak_megabytes()
                checked = workload.deterministic
                steps = Entry(job.peer, job.mode, job.threads).checked_steps
                found = module.losses(checked, job.mode, job.threads, job.engine, steps)
                answer(peak_megabytes=peak, losses=found, **waited)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        raise


def main() -> None:
    """Serve on the standard streams; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.filterwarnings("ignore", message=".*(?:converge|iterations).*")  # of scikit-learn, which stops early here
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
