"""The training step in each library. A module here is loaded in a process of its own, by `benchmarks.worker`.

Each has `contender(workload, mode, threads, engine)`, which makes the network and puts the data where the library wants
them, and `losses(workload, mode, threads, engine, steps)`: the losses of the first steps, from the same weights and on
the same batches in every library, so that it can be seen that all do the same work.
"""

import importlib
import importlib.util
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from benchmarks.layers import Activation, Linear
from benchmarks.workloads import Workload

CHAINRULE = "chainrule"
PACKAGES = {"torch": "torch", "jax": "jax", "sklearn": "scikit-learn"}  # peer: what pip calls it
TITLES = {CHAINRULE: "chainrule", "torch": "PyTorch", "jax": "JAX", "sklearn": "scikit-learn"}
OWN_MODES = ("epoch", "call")
PERCEPTRON_MODES = {"torch": ("eager", "fused"), "jax": ("jit", "jit, inline", "scan"), "sklearn": ("partial_fit",)}
COMPILERS = ("g++", "clang++", "c++")  # PyTorch's compiler needs one of them
CHECKED_STEPS = 3
NOT_A_LOOP = {("jax", "scan")}  # a whole epoch in one call: shown, but not among the loops of steps that are compared


class Contender(Protocol):
    """A library ready to train."""

    def run(self, passes: int) -> float:
        """Go over all batches so many times, and return the seconds that took, once the last result is there."""


class Losses(Protocol):
    """The losses of the first steps."""

    def __call__(self, workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
        """One number for each step."""


@dataclass(frozen=True)
class Entry:
    """Who is timed, and how: a library, a way to use it, a number of threads."""

    peer: str
    mode: str
    threads: int

    @property
    def counted(self) -> bool:
        """Whether it is among those that chainrule is compared with."""
        return self.peer != CHAINRULE and (self.peer, self.mode) not in NOT_A_LOOP

    @property
    def checked_steps(self) -> int:
        """How many losses are those of everybody. Adam that leaves rows alone is another one from the third on."""
        return 2 if "sparse" in self.mode else CHECKED_STEPS

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{TITLES[self.peer]} {self.mode}, {self.threads} thread{'s' * (self.threads > 1)}"


def load(peer: str) -> ModuleType:
    """The module of a peer."""
    return importlib.import_module(f"benchmarks.peers.{peer}_peer")


def installed(peer: str) -> bool:
    """Whether a peer can be timed here."""
    return importlib.util.find_spec(peer) is not None


def environment(threads: int) -> dict[str, str]:
    """The variables by which every library is told how many threads to use. They must be set before it starts."""
    count = str(threads)
    names = (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
        "CHAINRULE_THREADS",
        "NPROC",  # the size of XLA's thread pools
    )  # fmt: skip
    flags = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    return dict.fromkeys(names, count) | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def modes(workload: Workload, peer: str) -> tuple[str, ...]:
    """The ways to use a library for a workload; none where it cannot do it."""
    if peer == CHAINRULE:
        return OWN_MODES
    if peer == "sklearn":
        simple = all(isinstance(layer, (Linear, Activation)) for layer in workload.layers)
        return PERCEPTRON_MODES[peer] if simple and not workload.clip_norm else ()
    if workload.perceptron:
        return PERCEPTRON_MODES[peer]
    if peer == "jax":
        return ("jit", "jit, unrolled") if workload.recurrent else ("jit",)
    layouts = ("", ", channels last") if workload.images else ("",)
    result = ["eager", *(f"fused{layout}" for layout in layouts)]
    if any(map(shutil.which, COMPILERS)):
        result += [f"compiled{layout}" for layout in layouts]
    return (*result, "fused, sparse") if workload.sparse else tuple(result)


def entries(workload: Workload, peers: Iterable[str], threads: int) -> list[Entry]:
    """All that is timed for a workload: chainrule, then each peer in each mode with one thread and with `threads`.

    What PyTorch compiles has `threads` alone, since each time takes it a minute or more.
    """
    result = [Entry(CHAINRULE, mode, threads) for mode in OWN_MODES]
    for peer in peers:
        for mode in modes(workload, peer):
            counts = {threads} if "compiled" in mode else {1, threads}
            result += [Entry(peer, mode, n) for n in sorted(counts, reverse=True)]
    return result
