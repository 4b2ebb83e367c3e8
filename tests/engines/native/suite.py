"""What the engine's suite is made of: the engine with plans verified, on so many threads, in guarded memory or not."""

import os
from unittest.mock import patch

import numpy as np
from tests.engines.native.turns import in_turns

from chainrule import dtypes, tree
from chainrule.compile import Compiled
from chainrule.core.tensor import wrap
from chainrule.engines.native import executable as executables
from chainrule.engines.native import threads as workers
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.emit import emit
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.native.executable import NativeExecutable, NativeSession
from chainrule.engines.native.host import detect
from chainrule.engines.native.jit import compile_object
from chainrule.engines.native.lowering import lower
from chainrule.engines.native.manifest import manifest_of
from chainrule.engines.native.memory import Arena, _forbid
from chainrule.engines.native.places import FIRST
from chainrule.engines.native.plan import make_plan
from chainrule.engines.native.tile_plans import choose
from chainrule.errors import ChainruleError

GUARDED = os.environ.get("CHAINRULE_TEST_GUARDED") == "1"  # set by test_suite_guarded.py in a process of its own
TURNS = os.environ.get("CHAINRULE_TEST_TURNS")  # the same of test_suite_turns.py: "forwards" or "backwards"
IN_TURNS = 7  # threads, where they take turns
TOLERANCE = {dtypes.float32: 2e-5, dtypes.float64: 1e-12, dtypes.float16: 2e-3, dtypes.bfloat16: 1.6e-2}


class Insistent:
    """A watchdog that never takes threads away."""

    def threads(self, wanted):
        return wanted

    def record(self, *arguments):
        pass


class SuiteExecutable(NativeExecutable):
    """Its Sessions insist on their threads."""

    guards: tuple[int, ...] = ()
    turns: str | None = None

    def open(self):
        kind = GuardedSession if self.guards else TurnsSession if self.turns else NativeSession
        session = kind(self)
        session.task.watchdog = Insistent()
        return session


class TurnsSession(NativeSession):
    """Waits for all of its threads, and begins with NaN in all memory."""

    def _work_in(self, arena):
        arena.array[FIRST:] = 0xFF
        super()._work_in(arena)

    def _run(self, steps):
        with patch.object(workers, "ROUSE", 60.0):
            return super()._run(steps)


class GuardedSession(NativeSession):
    """Every buffer, passed arrays and results too, ends where a page begins that nobody may touch."""

    def __init__(self, executable):
        self.guards, self.whole = executable.guards, executable.manifest.arena_bytes
        self.arenas = []
        with patch.object(executables, "Arena", self._arena), patch.object(executables, "STAGED", 1 << 60):
            super().__init__(executable)
        self.results = [self._array(slot) for slot in self.manifest.outputs if slot.updates is None]
        for k, array in enumerate(self.results):
            self.outs[k] = self._at(array)

    def _arena(self, nbytes):
        page = os.sysconf("SC_PAGESIZE")
        arena = Arena(nbytes, guard=True, alignment=page if nbytes == self.whole else 64)
        if nbytes == self.whole:
            arena.array[:] = 0
            for at in self.guards:
                _forbid(arena.address + at, page)
        self.arenas.append(arena)
        return arena

    def _array(self, slot):
        arena = Arena(slot.nbytes, guard=True, alignment=slot.dtype.itemsize)
        self.arenas.append(arena)
        return arena.array.view(slot.dtype).reshape(slot.shape)

    def _staging(self, k, slot):
        array = self._array(slot)
        self.table[k] = self._at(array)
        return array

    def _run(self, steps):
        ended = super()._run(steps)
        assert all(arena.intact for arena in self.arenas)
        return ended


class SuiteEngine(NativeEngine):
    """Plans are verified; nothing is remembered on disk. `compiled` holds (program, manifest, code, plan) of each."""

    def __init__(self, threads=1, guarded=GUARDED, host=None, choose=choose, turns=TURNS):
        super().__init__(IN_TURNS if turns else threads)
        self.guarded, self.host, self.choose, self.turns = guarded, host or detect(), choose, turns
        self.compiled = []

    def plan(self, program, held=()):
        low = lower(program)
        stays = {low.inputs[k] for k in held} | {out.updates for out in low.outputs if out.updates is not None}
        kept = tuple(i for i in low.inputs if i in stays)
        return verify_plan(make_plan(low, kept, self.host, self.choose, self.guarded))

    def compile(self, program, held=()):
        plan = self.plan(program, held)
        text = emit(plan)
        code = compile_object(in_turns(text, self.turns) if self.turns else text, plan.host)
        self.compiled.append((program, manifest_of(program, plan), code, plan))
        return _executable(self.compiled[-1], self.threads, self.turns)


class Again(NativeEngine):
    """Takes the code that another engine made, in the same order."""

    def __init__(self, engine, threads):
        super().__init__(threads)
        self.compiled, self.turns = iter(engine.compiled), engine.turns

    def compile(self, program, held=()):
        return _executable(next(self.compiled), self.threads, self.turns)


def _executable(compiled, threads, turns):
    program, manifest, code, plan = compiled
    made = SuiteExecutable(program, manifest, code, threads, lambda: plan)
    made.guards, made.turns = tuple(plan.guards), turns
    return made


def native(f, threads=1, guarded=GUARDED, host=None, choose=choose, turns=TURNS):
    """The compiled function."""
    compiled = Compiled(f, "reference")
    compiled.engine = SuiteEngine(threads, guarded, host, choose, turns)
    return compiled


def reference(f):
    """The same by the reference engine."""
    return Compiled(f, "reference")


def on_threads(compiled, threads):
    """A compiled function with its machine code, to be run on other threads: nothing is compiled again."""
    other = Compiled(compiled.function, "reference")
    other.engine = Again(compiled.engine, threads)
    return other


def real(*shape, dtype=np.float32, seed=0):
    """Numbers between −1 and 1, always the same of a shape and a seed."""
    return wrap(np.random.default_rng([seed, *shape]).uniform(-1, 1, shape).astype(dtype))


def compare(f, *xs, rtol=2e-5, threads=2, others=(), **how):
    """Hold a function against the reference, and the bits on other numbers of threads against each other.

    Returns the compiled function.
    """
    compiled = native(f, threads, **how)
    found = compiled(*xs)
    for a, b in zip(found, f(*xs), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(np.asarray(a), b, rtol=rtol, atol=rtol * max(1.0, np.abs(b).max(initial=0)))
    for number in others:
        assert bits(on_threads(compiled, number)(*xs)) == bits(found), number
    return compiled


def plans(compiled):
    """The plan of a compiled function, and those of its loops."""
    *_, plan = compiled.engine.compiled[0]
    return [plan, *[k.loop for k in plan.kernels if k.loop is not None]]


def leaves(result):
    """All arrays in a result."""
    return [np.asarray(leaf.value) for leaf in tree.flatten(result).leaves]


def flushed(x):
    """Denormal numbers are 0 in compiled code."""
    x = np.asarray(x)
    if not dtypes.is_float(x.dtype):
        return x
    wide = x.astype(np.float64)
    smallest = 2.0**-1022 if x.dtype == dtypes.float64 else 2.0**-126
    return np.where(np.abs(wide) < smallest, 0.0, wide)


def assert_close(found, expected, tolerance=None, context=""):
    """Shapes and dtypes are equal; whole numbers exactly, floats within the tolerance of their dtype."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), context
    if not dtypes.is_float(found.dtype):
        np.testing.assert_array_equal(found, expected, err_msg=str(context))
        return
    bound = TOLERANCE[expected.dtype] if tolerance is None else tolerance
    np.testing.assert_allclose(flushed(found), flushed(expected), rtol=bound, atol=bound, err_msg=str(context))


def check(f, *inputs, tolerance=None, context=""):
    """A function of tensors gives the same on both engines."""
    for x, y in zip(leaves(native(f)(*inputs)), leaves(reference(f)(*inputs)), strict=True):
        assert_close(x, y, tolerance, context)


def bits(result):
    """Every bit of a result; all NaNs are one."""
    found = []
    for x in leaves(result):
        x = np.array(x)
        if dtypes.is_float(x.dtype):
            x[np.isnan(x)] = np.nan
        found.append((x.shape, x.dtype, x.tobytes()))
    return found


def raised(f, *arguments):
    """The class of error that both engines raise; None where neither does."""
    classes = []
    for compiled in (reference(f), native(f)):
        try:
            compiled(*arguments)
            classes.append(None)
        except ChainruleError as problem:
            classes.append(type(problem))
    assert classes[0] is classes[1], classes
    return classes[0]
