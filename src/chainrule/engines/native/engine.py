"""The native engine: plan, write, compile, remember."""

import logging
import warnings

from chainrule.engines.base import STANDARD, Executable
from chainrule.engines.native import autotune, cache, tile_plans
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.emit import emit
from chainrule.engines.native.executable import NativeExecutable
from chainrule.engines.native.host import detect
from chainrule.engines.native.jit import compile_object
from chainrule.engines.native.key import key_of
from chainrule.engines.native.lowering import lower
from chainrule.engines.native.manifest import Manifest, from_json, manifest_of, to_json
from chainrule.engines.native.plan import NativePlan, make_plan
from chainrule.engines.native.split import SplitExecutable, lowered
from chainrule.engines.native.threads import resolve
from chainrule.program.program import Program

log = logging.getLogger(__name__)
_told: set[str] = set()


class NativeEngine:
    """Compiles Programs to machine code. Results do not depend on `threads`; `autotune` times tiles and remembers."""

    name = "native"
    chunks = True

    def __init__(self, threads: int | None = None, autotune: bool = False, precision: str = STANDARD) -> None:
        self.threads, self.autotune, self.precision = threads, autotune, precision

    def on(self, threads: int | None, autotune: bool = False, precision: str = STANDARD) -> "NativeEngine":
        """The same on so many threads (None: as many as pay); `autotune`: see autotune.py, `precision`: base.py."""
        return NativeEngine(None if threads is None else resolve(threads), autotune, precision)

    def compile(self, program: Program, held: tuple[int, ...] = ()) -> Executable:
        """Machine code for the Program, from the disk where it is there.

        Nodes that there is no native code for are left to the reference engine.
        """
        key = key_of(program, held, detect(), str(self.autotune), self.precision)
        found = _remembered(key) if key is not None else None
        if found is not None:
            return NativeExecutable(program, *found, self.threads, lambda: self.plan(program, held))
        foreign = {program.nodes[n].primitive.name for n in range(len(program.nodes)) if not lowered(program, n)}
        if foreign:
            _tell(foreign)
            return SplitExecutable(program, self.compile)
        plan = self.plan(program, held)
        code = compile_object(emit(plan), plan.host)
        manifest = manifest_of(program, plan)
        if key is not None:
            cache.put(key, cache.Entry(code, to_json(manifest)))
        return NativeExecutable(program, manifest, code, self.threads, lambda: plan)

    def plan(self, program: Program, held: tuple[int, ...] = ()) -> NativePlan:
        """What is decided before code is written."""
        low = lower(program, self.precision)
        stays = {low.inputs[k] for k in held} | {out.updates for out in low.outputs if out.updates is not None}
        choose = autotune.choose if self.autotune else tile_plans.choose
        return verify_plan(make_plan(low, tuple(i for i in low.inputs if i in stays), detect(), choose))


def _remembered(key: str) -> tuple[Manifest, bytes] | None:
    entry = cache.get(key)
    if entry is None:
        return None
    try:
        return from_json(entry.manifest), entry.code
    except (KeyError, TypeError, ValueError) as problem:
        log.debug("what was remembered is not understood, and made anew: %r", problem)
        return None


def _tell(names: set[str]) -> None:
    """Say once what is not native."""
    new = names - _told
    _told.update(names)
    if new:
        warnings.warn(
            f"There is no native code for {', '.join(sorted(new))}: steps with it are split there, and that part is "
            "run by the reference engine, which is slower. explain_plan() lists where.",
            stacklevel=4,
        )
