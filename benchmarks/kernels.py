"""Where the time of a step goes: each kernel of the native engine, by the processor's counter of cycles.

The counter is read before and behind each kernel and each wait for other threads, on every thread, by code that is
written into the step. Counters end up in memory of this process, so nothing of it is kept on disk.
"""

import argparse
import ctypes
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import ROOT, report, workloads
from benchmarks.progress import Progress
from benchmarks.runner import WorkerFailed, child_environment

SHOWN = 20
"""Rows of a table; the kernels behind these are put together."""
COUNTER = "llvm.readcyclecounter"
MOST = 4096
"""Kernels of a step that have counters."""


@dataclass
class Counters:
    """Cycles by thread and kernel, waiting before it and working in it, and the kernels in the order of their code."""

    threads: int
    kernels: list[tuple[Any, Any]] = field(default_factory=list)  # (plan, planned kernel)

    def __post_init__(self) -> None:
        self.cycles = np.zeros((self.threads, MOST, 2), np.int64)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Steps that are compiled meanwhile count."""
        from chainrule.engines.native import steps  # in the worker alone

        waits: dict[Any, tuple[int, str, str]] = {}  # by function: where its last wait ends, and its counts
        call, barrier = steps.call, steps.barrier

        def timed_barrier(f: Any) -> None:
            begun = f.intrinsic(COUNTER, "i64")
            barrier(f)
            ended = f.intrinsic(COUNTER, "i64")
            waits[f] = len(f.lines), begun, ended

        def timed_call(plan: Any, f: Any, scratch: str, planned: Any, *part: Any) -> None:
            number = len(self.kernels)
            self.kernels.append((plan, planned))
            end, *counts = waits.get(f, (-1, "", ""))
            if end == len(f.lines):
                self._add(f, number, 0, *counts)
            begun = f.intrinsic(COUNTER, "i64")
            call(plan, f, scratch, planned, *part)
            self._add(f, number, 1, begun, f.intrinsic(COUNTER, "i64"))

        with patch.object(steps, "call", timed_call), patch.object(steps, "barrier", timed_barrier):
            yield

    def _add(self, f: Any, number: int, part: int, begun: str, ended: str) -> None:
        """Add a stretch to the counter of the thread that it is measured on."""
        start = f.op(f"inttoptr i64 {self.cycles.ctypes.data} to ptr")
        at = f.address(start, f.add(f.mul("%thread", MOST * 2), number * 2 + part), "i64")
        f.store("i64", f.add(f.load("i64", at, 8), f.sub(ended, begun)), at, 8)


def cycles_in_a_second() -> float:
    """How fast the counter counts."""
    from chainrule.engines.native.host import detect
    from chainrule.engines.native.ir import Function, Module
    from chainrule.engines.native.jit import Library, compile_object

    module = Module()
    f = Function(module, "count", (), returns="i64", internal=False)
    f.ret(f"i64 {f.intrinsic(COUNTER, 'i64')}")
    count = Library(compile_object(module.text(), detect())).function("count", 0, returns=ctypes.c_int64)
    first, begun = count(), time.perf_counter()
    time.sleep(0.1)
    return float((count() - first) / (time.perf_counter() - begun))


def flops_of(plan: Any, planned: Any) -> float:
    """Floating-point operations of the products of a kernel, as they are done: Winograd's are fewer."""
    from chainrule.engines.native import winograd
    from chainrule.primitives import contract

    nodes, total = plan.grouping.nodes, 0
    for n in planned.kernel.nodes:
        if nodes[n].primitive is contract.matmul:
            total += 2 * nodes[n].size * nodes[nodes[n].inputs[0]].shape[-1]
        elif nodes[n].primitive in winograd.PRODUCTS:
            total += 2 * winograd.multiplications(plan.grouping, n)
    return float(total)


def work(name: str, threads: int, seconds: float, quick: bool) -> dict[str, Any]:
    """Measure one workload in this process: µs a step, and each kernel with its waits."""
    from benchmarks.peers.chainrule_peer import Calls

    workload = workloads.find(name, quick=quick)
    calls, counters = Calls(workload, "native"), Counters(threads)
    with counters.writing():
        calls.run(1)
    pace = cycles_in_a_second()
    counters.cycles[:] = 0
    taken, steps = 0.0, 0
    while taken < seconds:
        taken, steps = taken + calls.run(1), steps + len(calls.batches)
    micros = counters.cycles.mean(axis=0) / pace / steps * 1e6
    rows = []
    for k, (plan, planned) in enumerate(counters.kernels):
        nodes = plan.grouping.nodes
        rows.append({
            "name": planned.name, "form": planned.form, "kernel": repr(planned.kernel), "inside": plan.inside,
            "nodes": [nodes[n].primitive.name for n in planned.kernel.nodes],
            "waits": float(micros[k, 0]), "works": float(micros[k, 1]), "flops": flops_of(plan, planned),
        })  # fmt: skip
    return {"workload": name, "step": taken / steps * 1e6, "kernels": rows}


def measure_kernels(names: Sequence[str], threads: int, seconds: float, quick: bool = False) -> list[dict[str, Any]]:
    """Each workload in a process of its own. Raises WorkerFailed."""
    found = []
    environment = child_environment(threads) | {"CHAINRULE_CACHE": "0"}
    with Progress(len(names)) as progress:
        for name in names:
            progress.show(f"kernels: {name}")
            options = ["--threads", str(threads), "--seconds", str(seconds), *(["--quick"] if quick else [])]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.kernels", name, *options], cwd=ROOT, env=environment,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise WorkerFailed(f"{name}: {' '.join(done.stderr.strip().splitlines()[-1:])}")
            found.append(json.loads(done.stdout))
            progress.advance()
    return found


def kernel_table(found: dict[str, Any]) -> str:
    """The kernels that take longest, those inside of loops beside the loop that they are part of."""
    rows = sorted(found["kernels"], key=lambda row: -row["works"] - row["waits"])
    cells = []
    for row in rows[:SHOWN]:
        rate = row["flops"] / row["works"] / 1e3 if row["flops"] and row["works"] and not row["inside"] else math.nan
        names = " ".join(row["nodes"][:4]) + (" …" if len(row["nodes"]) > 4 else "")
        of = f"{row['name']} ({'in a loop, ' * row['inside']}{row['form']}) {row['kernel']}: {names}"
        share = 100 * (row["works"] + row["waits"]) / found["step"]
        cells.append([of, f"{share:.1f} %", *map(report.number, (row["works"], row["waits"], rate))])
    rest = [row for row in rows[SHOWN:] if not row["inside"]]
    if rest:
        works, waits = (sum(row[part] for row in rest) for part in ("works", "waits"))
        share = f"{100 * (works + waits) / found['step']:.1f} %"
        cells.append([f"{len(rest)} others", share, *map(report.number, (works, waits, math.nan))])
    title = f"{found['workload']}: {report.number(found['step'])} µs a step"
    return f"{title}\n\n" + report.table(["kernel", "share", "µs", "waits before, µs", "GFLOP/s"], cells)


def main(argv: Sequence[str] | None = None) -> int:
    """The process that measures one workload; prints JSON."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    options.add_argument("workload")
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--quick", action="store_true")
    a = options.parse_args(argv)
    print(json.dumps(work(a.workload, a.threads, a.seconds, a.quick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
