"""A compiled Program: its code, and sessions that hold the memory it works in."""

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.engines.base import Chunk, Session
from chainrule.engines.native.explain import explain
from chainrule.engines.native.host import processor
from chainrule.engines.native.jit import Library
from chainrule.engines.native.manifest import Manifest, Slot
from chainrule.engines.native.memory import Arena
from chainrule.engines.native.places import FIRST, STOP, WATCH
from chainrule.engines.native.plan import NativePlan
from chainrule.engines.native.storage import Storage
from chainrule.engines.native.threads import Task, pool, resolve
from chainrule.errors import DivisionByZero, DTypeError, IndexOutOfRange
from chainrule.passes.in_place import MAY_FAIL as LOOKUPS
from chainrule.program.program import Program

STAGED = 1 << 16  # bytes: smaller arrays are copied to a fixed place, since asking for their address takes as long
SHARED = 20.0  # microseconds of work in a step from which on more than one thread pays
GIVEN_BACK = 16 << 20  # bytes: memory of that size goes back to the system when another session takes what it holds
LOOKED_AT = 1 << 16  # numbers tested for infinity in one go, so that the answers stay in the cache

Pieces = list[tuple[tuple[slice, ...], np.ndarray]]  # parts of an array, and the memory that each lies in


class NativeExecutable:
    """A Program in machine code."""

    def __init__(
        self, program: Program, manifest: Manifest, code: bytes, threads: int | None, plan: Callable[[], NativePlan]
    ) -> None:
        self.program, self.manifest, self._plan = program, manifest, plan
        self.library = Library(code)
        self.address = self.library.address("epoch")
        self.threads = 1 if threads is None and manifest.work < SHARED else resolve(threads)
        self._whole: NativeSession | None = None
        self._lock = threading.Lock()

    def open(self) -> "NativeSession":
        """A new session."""
        return NativeSession(self)

    def explain(self) -> str:
        """The plan in five steps, as text."""
        return explain(self._plan())

    def describe(self) -> str:
        """The processor, and the plan for it in a few words."""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        kernels = f"{self.manifest.kernels} kernel{'s' * (self.manifest.kernels > 1)}"
        return f"{processor()}, {threads}; {kernels} in {_bytes(self.manifest.arena_bytes)}"

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once: held inputs are copied in, and new values out."""
        manifest = self.manifest
        held, passed = ([np.ascontiguousarray(inputs[k]) for k in part] for part in (manifest.held, manifest.passed))
        with self._lock:  # several threads may call one function
            if self._whole is None:
                self._whole = self.open()
            self._whole.load(held)
            results = iter(self._whole.step(passed))
            state = iter(self._whole.fetch())
        return [next(results) if out.updates is None else next(state) for out in self.program.outputs]


class NativeSession:
    """Memory for one run of steps after another: the state stays in it."""

    def __init__(self, executable: NativeExecutable) -> None:
        self.executable, self.manifest = executable, executable.manifest
        manifest = self.manifest
        self.threads = executable.threads
        self.passed = [manifest.inputs[k] for k in manifest.passed]
        self.held = [manifest.inputs[k] for k in manifest.held]
        self.updated = [slot for slot in manifest.outputs if slot.updates is not None]
        self.results = [np.empty(s.shape, s.dtype) for s in manifest.outputs if s.updates is None]
        self.scratch = Arena(manifest.scratch_bytes * self.threads)
        self.table = np.zeros(max(len(self.passed), 1), np.int64)
        self.feed = np.zeros(1 + 2 * len(self.passed), np.int64)
        self.outs = np.zeros(max(len(self.results), 1), np.int64)
        places = [0, self._at(self.table), self.scratch.address]
        self.task = Task(executable.address, [*places, 1, self._at(self.feed), self._at(self.outs), pool().sync])
        self._work_in(Arena(manifest.arena_bytes))
        self.staged = [self._staging(k, slot) for k, slot in enumerate(self.passed)]
        for k, array in enumerate(self.results):
            self.outs[k] = self._at(array)
        self.batches: dict[int, np.ndarray] = {}  # memory for the rows of a step, by passed input
        self.saved: list[np.ndarray] = []  # the memory of what a step updates, as it was
        self.large = [k for k, array in enumerate(self.results) if array.nbytes > STAGED]
        self.pool = pool()

    def _work_in(self, arena: Arena) -> None:
        self.arena, self.task[0] = arena, arena.address
        self._seen: dict[int, tuple[np.ndarray, Pieces]] = {}  # the memory of a slot, by its id
        self.header = (ctypes.c_int64 * (FIRST // 8)).from_address(arena.address)
        for n, slot in self.manifest.constants:
            self._put(slot, self.executable.program.nodes[n].attributes["value"])

    @staticmethod
    def _at(array: np.ndarray) -> int:
        return int(array.ctypes.data)

    def _staging(self, k: int, slot: Slot) -> np.ndarray | None:
        if slot.nbytes > STAGED:
            return None
        array = np.empty(slot.shape, slot.dtype)
        self.table[k] = self._at(array)
        return array

    # -- the border between arrays and their storage

    def _pieces(self, slot: Slot) -> Pieces:
        """Parts of an array and the memory that each lies in, seen in the same shape."""
        return self._see(slot)[1]

    def _memory(self, slot: Slot) -> np.ndarray:
        return self._see(slot)[0]

    def _see(self, slot: Slot) -> tuple[np.ndarray, Pieces]:
        seen = self._seen.get(id(slot))
        if seen is None:
            memory = self.arena.array[slice(*_extent(slot))]
            seen = self._seen[id(slot)] = memory, _pieces(memory, slot)
        return seen

    def _put(self, slot: Slot, array: np.ndarray) -> None:
        for part, memory in self._pieces(slot):
            memory[...] = array[part] if part else array

    def _get(self, slot: Slot) -> np.ndarray:
        array = np.empty(slot.shape, slot.dtype)
        for part, memory in self._pieces(slot):
            array[part or ...] = memory
        return array

    def load(self, arrays: Sequence[np.ndarray | None]) -> None:
        """Copy in the held inputs."""
        for slot, array in zip(self.held, arrays, strict=True):
            if array is not None:
                self._put(slot, array)

    def fetch(self) -> list[np.ndarray]:
        """The present values of the held inputs that the Program updates."""
        return [self._get(slot) for slot in self.updated]

    def get(self, held: int) -> np.ndarray:
        """The present value of a held input."""
        return self._get(self.held[held])

    # -- from one session to another

    def copy(self, other: Session, theirs: int, mine: int) -> bool:
        """Copy a held input of another session, as it lies there if it lies alike here."""
        if not isinstance(other, NativeSession):
            return False
        source, target = other.held[theirs], self.held[mine]
        if (source.shape, source.dtype, source.storage) == (target.shape, target.dtype, target.storage):
            self._memory(target)[...] = other._memory(source)
        else:
            self._put(target, other._get(source))
        return True

    def take(self, other: Session) -> bool:
        """Take over what another session holds: its memory as it is, where the held inputs lie in the same places."""
        if not isinstance(other, NativeSession) or list(map(_kind, self.held)) != list(map(_kind, other.held)):
            return False
        arena, alike = other.arena, list(map(_lies, self.held)) == list(map(_lies, other.held))
        saved, other.saved = other.saved, []
        if alike and len(arena.array) >= self.manifest.arena_bytes:
            other._work_in(Arena(other.manifest.arena_bytes))
            self._work_in(arena)
            self.saved = saved if list(map(_lies, self.updated)) == list(map(_lies, other.updated)) else []
            return True
        del saved
        for k in range(len(self.held)):
            self.copy(other, k, k)
        if len(arena.array) >= GIVEN_BACK:
            other._work_in(Arena(other.manifest.arena_bytes))
        return True

    # -- running

    def step(self, passed: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One run on the passed inputs: the results."""
        for k, array in enumerate(passed):
            staged = self.staged[k]
            if staged is None:
                self.table[k] = array.ctypes.data
            else:
                staged[...] = array
        for k in self.large:  # memory of its own; what is small is copied out instead
            self.results[k] = np.empty_like(self.results[k])
            self.outs[k] = self._at(self.results[k])
        _, error = self._run(1)
        if error is not None:
            raise error
        return [a.copy() for a in self.results] if not self.large else self._handed_out()

    def _handed_out(self) -> list[np.ndarray]:
        return [array if k in self.large else array.copy() for k, array in enumerate(self.results)]

    def chunk(self, sources: Sequence[np.ndarray], rows: np.ndarray, steps: int, watch: bool) -> Chunk:
        """Many runs, on rows of the sources; see `engines.base`."""
        rows = np.ascontiguousarray(rows, np.int64)
        self._feed(sources, rows)
        results = [np.empty((steps, *array.shape), array.dtype) for array in self.results]
        for k, array in enumerate(results):
            self.outs[k] = self._at(array)
        self.header[WATCH // 8] = watch
        try:
            made, error = self._run(steps)
        finally:
            self.feed[0] = self.header[WATCH // 8] = 0
            for k, array in enumerate(self.results):
                self.outs[k] = self._at(array)
        return Chunk([array[:made] for array in results], error)

    def _feed(self, sources: Sequence[np.ndarray], rows: np.ndarray) -> None:
        """Tell the code where the rows come from, and the memory that those of a step go to."""
        for k, (slot, source) in enumerate(zip(self.passed, sources, strict=True)):
            other = source.dtype != slot.dtype
            if source.shape[1:] != slot.shape[1:] or not source.flags.c_contiguous or not slot.shape:
                raise AssertionError(f"rows of {source.shape} do not fill {slot.shape}, or are not dense")
            if other and {source.dtype, slot.dtype} != {dtypes.float32, dtypes.float64}:
                raise AssertionError(f"rows of {source.dtype} do not fill {slot.dtype}")
            if k not in self.batches:
                staged = self.staged[k]
                self.batches[k] = np.empty(slot.shape, slot.dtype) if staged is None else staged
            self.table[k] = self._at(self.batches[k])
            self.feed[1 + 2 * k], self.feed[2 + 2 * k] = self._at(source), other
        self.feed[0] = self._at(rows)

    def _run(self, steps: int) -> tuple[int, Exception | None]:
        """How many steps were completed, and the error that ended them."""
        self.task[3] = steps
        self.pool.run(self.task, self.threads, steps)
        header = self.header
        if not header[0] and not header[STOP // 8]:
            return steps, None
        last, error = header[3], self._error() if header[0] else None
        ctypes.memset(header, 0, FIRST)
        return last + (error is None), error

    def save(self) -> None:
        """Remember the held inputs that steps change."""
        present = [self._memory(slot) for slot in self.updated if slot.place is not None]
        self.saved = self.saved or [np.empty_like(memory) for memory in present]
        for saved, memory in zip(self.saved, present, strict=True):
            np.copyto(saved, memory)

    def restore(self) -> None:
        """Go back to what `save` remembered."""
        for saved, slot in zip(self.saved, [slot for slot in self.updated if slot.place is not None], strict=True):
            np.copyto(self._memory(slot), saved)

    @property
    def remembers(self) -> bool:
        """Whether there is something to restore."""
        return bool(self.saved)

    def forget(self) -> None:
        """Let go of what `save` remembered."""
        self.saved = []

    def finite(self, held: Sequence[int]) -> bool:
        """Whether these held inputs are finite."""
        return all(_finite(memory) for k in held for _, memory in self._pieces(self.held[k]))

    def _error(self) -> Exception:
        value, number = self.header[1], self.header[2]
        failure = self.manifest.failures[number]
        where = f" (in {failure.location})" if failure.location else ""
        if failure.primitive in LOOKUPS:
            return IndexOutOfRange(f"index {value} is outside of an axis of size {failure.extent}{where}.")
        if failure.primitive == "pow":
            return DTypeError(
                f"an integer to a negative power is a fraction{where}. Convert first: x.astype(cr.float32)."
            )
        return DivisionByZero(f"an integer is divided by zero{where}.")


def _pieces(memory: np.ndarray, slot: Slot) -> Pieces:
    if slot.place is None:
        return []
    whole = memory.view(slot.dtype)
    return _panels(whole, slot.shape, slot.storage) if slot.storage.panel else [((), whole.reshape(slot.shape))]


def _panels(memory: np.ndarray, shape: tuple[int, ...], storage: Storage) -> Pieces:
    rows, columns = shape[::-1] if storage.turned else shape
    panels = memory.reshape(math.ceil(columns / storage.panel), rows, storage.panel)
    found: Pieces = []
    for k, panel in enumerate(panels):
        span = slice(k * storage.panel, min((k + 1) * storage.panel, columns))
        inside = panel[:, : span.stop - span.start]
        found.append(((span, slice(None)), inside.T) if storage.turned else ((slice(None), span), inside))
    return found


def _extent(slot: Slot) -> tuple[int, int]:
    """Where the memory of a value begins and ends in the arena."""
    if slot.place is None:
        return 0, 0
    return slot.place.offset, slot.place.offset + slot.storage.elements(slot.shape) * slot.dtype.itemsize


def _kind(slot: Slot) -> tuple[Any, ...]:
    return slot.shape, slot.dtype


def _lies(slot: Slot) -> tuple[Any, ...]:
    return slot.shape, slot.dtype, slot.place, slot.storage


def _finite(memory: np.ndarray) -> bool:
    flat = memory.ravel("K") if memory.flags.forc else memory
    rows = max(1, LOOKED_AT // max(1, flat[:1].size))
    return all(bool(np.isfinite(flat[i : i + rows]).all()) for i in range(0, len(flat), rows))


def _bytes(count: int) -> str:
    for size, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
