"""What a run costs beside the training itself: the losses it notes, its milestones, and looking at layers now and then.

The same training is made in turns, bare and with a run as `fit` keeps it by default; what a turn of the one takes is
held against the bare turn beside it. Machines change their pace by more than what is measured here, so there are many
turns, the order changes from round to round, and the median of the ratios counts. Beside it stands what the run's own
functions take by the clock, as a share of the turn: that is steady, but does not see what they do to caches and to
threads that went to sleep meanwhile.
"""

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT, report
from benchmarks.progress import Progress
from benchmarks.runner import WorkerFailed, child_environment

USUAL = ("mlp-tab", "mnist-mlp", "mnist-mlp-b128", "lenet", "lstm")
VARIANTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "run alone": {"record": None, "milestones": 0},
    "by default": {},
}

WORKER = """
import sys
from benchmarks import recording
recording.work(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), bool(sys.argv[5]))
"""


class Inside:
    """Adds up the seconds that functions take which a bare training does without, or calls less often."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watch(self, owner: type, name: str) -> None:
        """Take the time of a method from now on; what is called inside of another counts once."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            begun, self._depth = time.perf_counter(), self._depth + 1
            try:
                return method(*arguments, **options)
            finally:
                self._depth -= 1
                self.seconds += 0.0 if self._depth else time.perf_counter() - begun

        setattr(owner, name, timed)

    def watch_all(self) -> None:
        """Probes, milestones, the database, checkpoints; and moving the state back into the engine after a look."""
        from chainrule.train import chunks, loop, recorder, recording  # in the worker alone

        for owner, names in {
            recording.Recording: ("due", "take"),
            loop.Training: ("_milestone",),
            recorder.Recorder: ("losses", "row", "save"),
            chunks.Chunks: ("enter",),
        }.items():
            for name in names:
                self.watch(owner, name)


def turn(epoch: Any, variant: str, epochs: int, inside: Inside) -> dict[str, float]:
    """Train once: seconds by the clock and of processors, those inside, and how often the run looked at the layers."""
    from chainrule.train import Run  # in the worker alone

    with tempfile.TemporaryDirectory() as folder:
        options = dict(VARIANTS[variant])
        if variant != "bare":
            options["run_dir"] = str(Path(folder) / "run")
        inside.seconds = 0.0
        clock, processors = time.perf_counter(), time.process_time()
        epoch.fit(epochs, **options)
        clock, processors = time.perf_counter() - clock, time.process_time() - processors
        looks = len(Run.open(options["run_dir"]).snapshots()) if "run_dir" in options else 0
    return {"clock": clock, "processors": processors, "inside": inside.seconds / clock, "looks": looks}


def work(name: str, engine: str, rounds: int, seconds: float, quick: bool) -> None:
    """Measure one workload, in a process of its own; what comes out is printed, a line of JSON for each turn."""
    from benchmarks import workloads
    from benchmarks.peers.chainrule_peer import Epoch

    inside = Inside()
    inside.watch_all()
    epoch = Epoch(workloads.find(name, quick=quick), engine)
    epochs, taken = 1, 0.0
    while (taken := turn(epoch, "bare", epochs, inside)["clock"]) < seconds / 2:
        epochs *= 2
    epochs = max(2, round(epochs * seconds / taken))
    for variant in VARIANTS:
        turn(epoch, variant, 2, inside)
    for number in range(rounds):
        for variant in list(VARIANTS)[:: -1 if number % 2 else 1]:
            found = {"variant": variant, "round": number, "epochs": epochs} | turn(epoch, variant, epochs, inside)
            print(json.dumps(found), flush=True)


def measure_recording(
    names: Sequence[str], engine: str, threads: int, rounds: int, seconds: float, quick: bool = False
) -> list[dict[str, Any]]:
    """All turns of all workloads. Raises WorkerFailed."""
    found: list[dict[str, Any]] = []
    with Progress(len(names) * rounds * len(VARIANTS)) as progress:
        for name in names:
            progress.show(f"recording: {name}")
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, name, engine, str(rounds), str(seconds), "quick" if quick else ""],
                cwd=ROOT, env=child_environment(threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout is not None
            turns = []
            for line in process.stdout:
                turns.append(json.loads(line))
                progress.advance()
                progress.show(f"recording: {name}")
            _, errors = process.communicate()
            if process.returncode:
                raise WorkerFailed(f"{name}: {' '.join(errors.strip().splitlines()[-1:])}")
            found.append({"workload": name, "turns": turns})
    return found


def ratios(turns: Sequence[dict[str, Any]], variant: str, measure: str) -> list[float]:
    """What the variant takes more than the bare training of the same round, as a share of it."""
    bare = {turn["round"]: turn[measure] for turn in turns if turn["variant"] == "bare"}
    return [turn[measure] / bare[turn["round"]] - 1 for turn in turns if turn["variant"] == variant]


def recording_table(found: Sequence[dict[str, Any]]) -> str:
    """Per cent: the median, and the quartiles, of what comes to a bare training."""
    rows = []
    for row in found:
        turns = row["turns"]
        bare = [turn["clock"] for turn in turns if turn["variant"] == "bare"]
        inside = {v: statistics.median([t["inside"] for t in turns if t["variant"] == v]) for v in VARIANTS}
        looks = [turn["looks"] for turn in turns if turn["variant"] == "by default"]
        cells = [_spread(ratios(turns, v, m)) for v in ("run alone", "by default") for m in ("clock", "processors")]
        rows.append([row["workload"], f"{statistics.median(bare):.1f}", *cells])
        rows[-1] += [f"{100 * (inside['by default'] - inside['bare']):.1f} %", f"{statistics.median(looks):.0f}"]
    head = ["", "bare: seconds", "run alone: clock", "processors", "by default: clock", "processors", "inside", "looks"]
    return report.table(head, rows)


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:+.1f} %"
    low, middle, high = (100 * value for value in statistics.quantiles(values, n=4, method="inclusive"))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"
