"""Where values lie: one arena, in which values whose lives do not overlap share memory.

What only the kernels of one chain touch (cuts.py) is there in parts: each thread has memory for the part that it works
on, the same for one part after the other, and so what it writes stays in its cache.
"""

from mmap import PAGESIZE
from typing import TYPE_CHECKING, NamedTuple

from chainrule.engines.native.cuts import chains, cut_of_products
from chainrule.engines.native.division import up
from chainrule.engines.native.evaluate import Place
from chainrule.engines.native.storage import DENSE
from chainrule.passes.views import in_memory
from chainrule.program.program import CONSTANT

if TYPE_CHECKING:
    from chainrule.engines.native.plan import NativePlan

ALIGNMENT = 64
STOP = 64  # the arena begins with (code, value, node, step) of an error; then a flag that stops the steps
WATCH = 72
FIRST = 128


def bytes_of(plan: "NativePlan", x: int) -> int:
    """The memory of a value, rounded up to whole cache lines; exact where it is guarded."""
    node = plan.grouping.nodes[x]
    elements = plan.storage.get(x, DENSE).elements(node.shape)
    return up(max(elements, 1) * node.dtype.itemsize, 1 if plan.guarded else ALIGNMENT)


def _put(plan: "NativePlan", x: int, at: int) -> int:
    """Give a value memory from `at` on. Where it ends, or where the page behind it does."""
    size = bytes_of(plan, x)
    end = at + size
    if plan.guarded:
        end = at + up(size, PAGESIZE)
        plan.guards.append(end)
    plan.places[x], plan.sizes[x] = Place(end - size, pitch=plan.storage.get(x, DENSE).pitch), size
    return end + PAGESIZE if plan.guarded else end


class Part(NamedTuple):
    """Where one part lies of a value of which each thread has one at a time: `at` in memory of its own, `size` bytes.

    `number`: of those in its chain, which share the entries of the thread's table with those of other chains.
    """

    number: int
    at: int
    size: int


def parts_of(plan: "NativePlan") -> dict[int, Part]:
    """The values that nobody reads but the kernels that are called together with their maker."""
    nodes, found, near = plan.grouping.nodes, dict[int, Part](), _near(plan)
    kept = {*plan.results, *plan.schedule.in_place, *plan.schedule.copied, *plan.storage}
    for chain in chains(plan.kernels):
        number = at = 0
        for x in [x for planned in chain for x in planned.kernel.outputs if len(chain) > 1]:
            if x in near - kept and nodes[x].size % chain[0].stack == 0:
                found[x] = Part(number, at, nodes[x].nbytes // chain[0].stack)
                number, at = number + 1, at + up(found[x].size, ALIGNMENT)
    return found


def _near(plan: "NativePlan") -> set[int]:
    """The values that kernels of one chain read, that of their maker, and no others."""
    made, read = dict[int, int](), dict[int, set[int]]()
    for i, chain in enumerate(chains(plan.kernels)):
        for planned in chain:
            made |= dict.fromkeys(planned.kernel.outputs, i)
            for x in planned.kernel.inputs:
                read.setdefault(x, set()).add(i)
    return {x for x, found in read.items() if found == {made.get(x)}}


def apart(plan: "NativePlan") -> set[int]:
    """The values of which threads have parts although kernels read them that a barrier parts from their maker."""
    return plan.parts.keys() - _near(plan)


def place_values(plan: "NativePlan") -> None:
    """State first, then constants, then temporaries, which share memory where their lives do not overlap."""
    nodes, order = plan.grouping.nodes, plan.schedule
    plan.places, plan.sizes, plan.guards = {}, {}, []
    at = up(FIRST, PAGESIZE) if plan.guarded else FIRST

    def put(x: int) -> None:
        nonlocal at
        if x not in plan.places:
            for y in plan.lines.get(x, (x,)):
                at = _put(plan, y, at)

    for k, x in enumerate(plan.passed):
        plan.places[x] = Place(0, k)
    for x in plan.held:
        put(x)
    for new, old in order.in_place.items():
        plan.places[new], plan.sizes[new] = plan.places[old], plan.sizes[old]
    for new in order.copied:
        put(new)
    plan.state_bytes = at
    for k, x in enumerate(plan.results if plan.inside else ()):
        plan.places[x], plan.sizes[x] = Place(0, len(plan.passed) + k), nodes[x].nbytes
    for x, part in plan.parts.items():
        plan.places[x], plan.sizes[x] = Place(0, len(plan.passed) + part.number), nodes[x].nbytes
    for x in plan.results:
        if x not in plan.places and nodes[x].size == 0:
            plan.places[x], plan.sizes[x] = Place(FIRST), 0
    for kernel in order.kernels:
        for x in kernel.inputs:
            if nodes[x].primitive is CONSTANT and in_memory(nodes[x]) and x not in plan.places:
                put(x)
    if plan.guarded:
        for planned in plan.kernels:
            if planned.loop is not None:
                planned.workspace, at = at, at + up(planned.loop.arena_bytes, PAGESIZE) + PAGESIZE
                plan.guards.append(at - PAGESIZE)
        for x in [x for k in order.kernels for x in k.outputs if x not in plan.places]:
            put(x)
    else:
        at = _temporaries(plan, up(at, 4096))
    plan.arena_bytes = at + ALIGNMENT


def _temporaries(plan: "NativePlan", start: int) -> int:
    """First fit by the order of kernels. The end of the memory used.

    In a loop whose threads keep to their rows no two values share memory: that would make them wait. Nor do two that
    the kernels of one stack touch.
    """
    apart = plan.inside and bool(cut_of_products(plan))
    kernels, results = plan.schedule.kernels, set(plan.results)
    ends: list[int] = []  # for each kernel the last one of its chain
    for chain in chains(plan.kernels):
        ends += [len(ends) + len(chain) - 1] * len(chain)
    last = {x: ends[i] for i, kernel in enumerate(kernels) for x in kernel.outputs}
    for i, kernel in enumerate(kernels):
        for x in kernel.inputs:
            last[x] = ends[i]
    end = start
    alive: list[tuple[int, int, int]] = []  # (last kernel, from, to)
    for i, kernel in enumerate(kernels):
        if not apart:
            alive = [part for part in alive if part[0] >= i]
        for x in kernel.outputs:
            if x not in plan.places:
                line = plan.lines.get(x, (x,))
                at = _gap(alive, start, sum(bytes_of(plan, y) for y in line))
                for y in line:
                    plan.places[y], plan.sizes[y] = Place(at, pitch=plan.storage.get(y, DENSE).pitch), bytes_of(plan, y)
                    alive.append((1 << 60 if y in results else last[y], at, at + plan.sizes[y]))
                    at += plan.sizes[y]
                end = max(end, at)
        inner = plan.kernels[i].loop
        if inner is not None:
            at = plan.kernels[i].workspace = _gap(alive, start, up(inner.arena_bytes, ALIGNMENT))
            alive.append((i, at, at + up(inner.arena_bytes, ALIGNMENT)))
            end = max(end, alive[-1][2])
    return end


def _gap(alive: list[tuple[int, int, int]], start: int, size: int) -> int:
    """The first place where so many bytes are free."""
    at = start
    for _, lo, hi in sorted(alive, key=lambda part: part[1]):
        if at + size <= lo:
            break
        at = max(at, hi)
    return at
