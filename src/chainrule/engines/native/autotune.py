"""Tiles by trial: the plans that look best are timed on the machine, and the fastest is remembered on disk.

All plans give the same bits, so a choice by the clock changes the speed alone.
"""

import time
from functools import partial

import numpy as np

from chainrule.engines.native import cache
from chainrule.engines.native.contraction import emit
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Module
from chainrule.engines.native.jit import Library, compile_object
from chainrule.engines.native.memory import Arena
from chainrule.engines.native.threads import Task, pool
from chainrule.engines.native.tile_plans import Divide, candidates
from chainrule.engines.native.tiles import Contraction, Plan
from chainrule.passes.views import Axes

TRIED = 6  # plans
SECONDS = 0.02  # spent on each, at least


def choose(contraction: Contraction, host: Host, once: bool = False, divide: Divide = None) -> Plan:
    """The plan that was fastest on this machine, with one thread."""
    plans = candidates(contraction, host, once, divide)[:TRIED]
    if len(plans) == 1 or contraction.empty or not contraction.depth:
        return plans[0]
    key = cache.digest("tiles", repr(contraction), repr(host), repr(once), repr(divide), str(len(plans)))
    known = cache.get(key)
    number = known.manifest.get("fastest") if known is not None else None
    if not isinstance(number, int) or not 0 <= number < len(plans):
        seconds = _measure(plans, host)
        number = int(np.argmin(seconds))
        cache.put(key, cache.Entry(b"", {"fastest": number, "seconds": seconds}))
    return plans[number]


def _measure(plans: list[Plan], host: Host) -> list[float]:
    """Seconds of each plan: the least of several runs, in turns, so that a busy moment hits all alike."""
    module = Module()
    for k, plan in enumerate(plans):
        emit(module, f"plan{k}", plan, host, internal=False)
    library = Library(compile_object(module.text(), host))
    arenas = [Arena(n) for n in _bytes(plans)]
    tasks = [
        Task(library.address(f"plan{k}"), [*[a.address for a in arenas[:3]], 0, 0, arenas[3].address])
        for k in range(len(plans))
    ]
    best = [float("inf")] * len(plans)
    spent = 0.0
    while spent < SECONDS * len(plans):
        for k, run in enumerate(partial(pool().run, task, 1) for task in tasks):
            begun = time.perf_counter()
            run()
            seconds = time.perf_counter() - begun
            best[k], spent = min(best[k], seconds), spent + seconds
    return best


def _bytes(plans: list[Plan]) -> list[int]:
    """Enough memory for A, B, C and the scratch of every plan, whatever the strides."""
    c = plans[0].contraction
    size = c.dtype.itemsize
    a = _reach(c.a_batch, c.batch) + c.rows * c.a_row + c.depth * c.a_depth
    b = (
        _reach(c.b_batch, c.batch)
        + c.depth * c.b_depth
        + (c.columns + c.b_panel) * max(c.b_column, c.depth if c.b_panel else 1)
    )
    b += (c.depth + c.b_panel) * c.columns if c.b_panel else 0
    out = c.batch * c.c_batch + c.rows * (c.c_row + c.c_panel + c.columns)
    return [(n + 4096) * size for n in (a, b, out)] + [max(plan.scratch_bytes for plan in plans) + 4096]


def _reach(axes: Axes, count: int) -> int:
    """How many elements there are between the first matrix of a stack and the end of the last one, at most."""
    return count * axes if isinstance(axes, int) else sum(extent * stride for extent, stride in axes)
