"""From `python -c` to the first finished step of mlp-tiny, and the seconds to compile each workload.

Times are those of whole processes, seen from outside. 'empty cache' is a fresh folder for compiled code; what the
system keeps of files that were read before stays as it is.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import ROOT, report
from benchmarks.progress import Progress
from benchmarks.runner import WorkerFailed, child_environment

DATA = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.standard_normal((16, 4)).astype(np.float32), rng.integers(0, 3, 16)
"""

CHAINRULE = (
    DATA
    + """
import chainrule as cr
from chainrule import losses, nn, optim
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = optim.Adam(lr=1e-3)
def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss
print(float(cr.compile(step, engine="ENGINE")(model, optimizer, x, y)), flush=True)
"""
)

TORCH = (
    DATA
    + """
import torch
from torch import nn
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
loss.backward()
optimizer.step()
print(float(loss), flush=True)
"""
)

JAX = (
    DATA
    + """
import jax
import jax.numpy as jnp
tree = jax.tree.map
params = [(rng.uniform(-a**-.5, a**-.5, (a, b)).astype(np.float32), np.zeros(b, np.float32))
          for a, b in ((4, 16), (16, 16), (16, 3))]
zeros = tree(np.zeros_like, params)
def loss_of(params, x, y):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    log_p = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()
def step(params, m, v, t, x, y):
    loss, grads = jax.value_and_grad(loss_of)(params, x, y)
    m = tree(lambda m, g: .9 * m + .1 * g, m, grads)
    v = tree(lambda v, g: .999 * v + .001 * g * g, v, grads)
    c1, c2 = 1 / (1 - .9**t), 1 / (1 - .999**t)
    return tree(lambda p, m, v: p - 1e-3 * c1 * m / (jnp.sqrt(c2 * v) + 1e-8), params, m, v), m, v, loss
*state, loss = jax.jit(step)(params, zeros, zeros, np.float32(1), x, y)
jax.block_until_ready(state)
print(float(loss), flush=True)
"""
)

JAX_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Start(NamedTuple):
    """A program, and the variable that names its cache folder, '' for none. `fresh`: an empty one each time."""

    title: str
    code: str
    cache: str = ""
    fresh: bool = False


class Timed(NamedTuple):
    """Seconds until the loss was printed, and until the process had ended."""

    first_step: float
    whole: float


def starts(chosen: Sequence[str], engine: str) -> list[Start]:
    """What is started."""
    own = CHAINRULE.replace("ENGINE", engine)
    result = [
        Start("python alone", "print(0, flush=True)"),
        Start("numpy and the data alone", DATA + "print(0, flush=True)"),
        Start("chainrule, warm cache", own, "CHAINRULE_CACHE_DIR"),
        Start("chainrule, empty cache", own, "CHAINRULE_CACHE_DIR", True),
    ]
    if "torch" in chosen:
        result.append(Start("PyTorch", TORCH))
    if "jax" in chosen:
        result.append(Start("JAX, warm cache", JAX, "JAX_COMPILATION_CACHE_DIR"))
        result.append(Start("JAX, empty cache", JAX, "JAX_COMPILATION_CACHE_DIR", True))
    return result


def time_start(start: Start, folder: str, threads: int) -> Timed:
    """Start it once. Raises WorkerFailed when it prints no number."""
    environment = child_environment(threads) | JAX_CACHE
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        if start.cache:
            kept = os.path.join(folder, start.title.partition(",")[0])
            environment[start.cache] = empty if start.fresh else kept
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", start.code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        first_step = time.perf_counter() - began
        _, errors = process.communicate()
        whole = time.perf_counter() - began
    if not line:
        raise WorkerFailed(f"{start.title}: {' '.join(errors.strip().splitlines()[-1:])}")
    return Timed(first_step, whole)


def measure_startup(chosen: Sequence[str], engine: str, threads: int, rounds: int) -> dict[str, list[Timed]]:
    """Each start once to warm up, then in turns."""
    found: dict[str, list[Timed]] = {}
    listed = starts(chosen, engine)
    with tempfile.TemporaryDirectory() as folder, Progress(len(listed) * (rounds + 1)) as progress:
        for number in range(rounds + 1):
            for start in listed:
                progress.show(f"startup: {start.title}")
                timed = time_start(start, folder, threads)
                if number:
                    found.setdefault(start.title, []).append(timed)
                progress.advance()
    return found


def startup_table(found: dict[str, list[Timed]]) -> str:
    """Medians."""
    rows = [
        [title, *(f"{statistics.median(column):.3f}" for column in zip(*times, strict=True))]
        for title, times in found.items()
    ]
    return report.table(["seconds", "to the first step", "to the end of the process"], rows)


COMPILED = """
import json, sys, time
from benchmarks import workloads
from benchmarks.peers import chainrule_peer
workload = workloads.find(sys.argv[1], quick=True) if sys.argv[3] else workloads.few(sys.argv[1])
calls = chainrule_peer.Calls(workload, sys.argv[2])
inside = []
class Watched:
    def __init__(self, engine):
        self.engine = engine
    def __getattr__(self, name):
        return getattr(self.engine, name)
    def compile(self, *arguments, **options):
        start = time.perf_counter()
        made = self.engine.compile(*arguments, **options)
        inside.append(time.perf_counter() - start)
        return made
calls.step.engine = Watched(calls.step.engine)
def call():
    start = time.perf_counter()
    float(calls.step(calls.model, calls.optimizer, *calls.batches[0]))
    return time.perf_counter() - start
first = call()
usual = sorted(call() for _ in range(5))[2]
epoch = chainrule_peer.Epoch(workload, sys.argv[2])
rows = epoch.fit(2).columns["seconds"]
print(json.dumps({"call": first - usual, "engine": sum(inside), "epoch": rows[0] - (rows[1] - rows[0])}))
"""


class Compilation(NamedTuple):
    """Seconds: the first call beyond a usual one, the engine's part of that, the first epoch beyond the second."""

    call: float
    engine: float
    epoch: float


def time_compilation(name: str, engine: str, threads: int, folder: str, quick: bool = False) -> Compilation:
    """Compile a workload in a fresh process, with the given cache folder; `quick`: a small one. Raises WorkerFailed."""
    environment = child_environment(threads) | {"CHAINRULE_CACHE_DIR": folder}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, name, engine, "quick" if quick else ""], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise WorkerFailed(f"{name}: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return Compilation(**json.loads(done.stdout))


def measure_compilation(
    names: Sequence[str], engine: str, threads: int, rounds: int, quick: bool = False
) -> list[dict[str, Any]]:
    """For each workload medians over the rounds: with an empty cache, and in a second process that finds it filled."""
    result = []
    with Progress(len(names) * rounds) as progress:
        for name in names:
            cold, disk = [], []
            for _ in range(rounds):
                progress.show(f"compile: {name}")
                with tempfile.TemporaryDirectory() as folder:
                    cold.append(time_compilation(name, engine, threads, folder, quick))
                    disk.append(time_compilation(name, engine, threads, folder, quick))
                progress.advance()
            result.append({"workload": name, "cold": _medians(cold)._asdict(), "disk": _medians(disk)._asdict()})
    return result


def _medians(found: Sequence[Compilation]) -> Compilation:
    return Compilation(*(statistics.median(column) for column in zip(*found, strict=True)))


def compile_table(found: Sequence[dict[str, Any]]) -> str:
    """Milliseconds."""
    rows = [
        [
            row["workload"],
            *(f"{1000 * row[when][part]:.0f}" for when in ("cold", "disk") for part in Compilation._fields),
        ]
        for row in found
    ]
    head = ["milliseconds", "cold: call", "engine's part", "epoch", "from disk: call", "engine's part", "epoch"]
    return report.table(head, rows)
