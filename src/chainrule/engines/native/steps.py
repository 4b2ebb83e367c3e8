"""The kernels of a step called in their order, and what lies between and behind them."""

from chainrule.engines.native.cuts import chains
from chainrule.engines.native.division import Batches, Rows
from chainrule.engines.native.evaluate import in_pitch
from chainrule.engines.native.hazards import rows_to_copy
from chainrule.engines.native.ir import SCALARS, Function, Index
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.storage import DENSE
from chainrule.primitives import contract

WHOLE: tuple[Index, Index] = ("%thread", "%threads")


def barrier(f: Function) -> None:
    """Wait for the other threads."""
    f.call("barrier", ("ptr", "%sync"), ("i64", "%threads"))


def calls(plan: NativePlan, f: Function, scratch: str, kernels: list[PlannedKernel]) -> None:
    """Call the kernels, with barriers where they are due; behind the place where errors are looked for there is one."""
    for k, chain in enumerate(chains([planned for planned in kernels if not planned.absorbed])):
        if chain[0].barrier and (k or plan.schedule.guard == 0 or plan.inside):
            barrier(f)
        if len(chain) == 1 and not in_parts(chain[0]):
            call(plan, f, scratch, chain[0])
            continue
        with f.loop(*f.slice(chain[0].stack, "%thread", "%threads")) as loop:
            _point(plan, f, scratch, chain, loop.counter)
            for planned in chain:
                call(plan, f, scratch, planned, (loop.counter, planned.stack))


def _point(plan: NativePlan, f: Function, scratch: str, chain: list[PlannedKernel], unit: Index) -> None:
    """Tell the kernels of a chain where values begin of which there is one part alone: so far before it."""
    for x in [x for planned in chain for x in planned.kernel.outputs if x in plan.parts]:
        part = plan.parts[x]
        begin = f.address(scratch, f.sub(plan.parts_at + part.at, f.mul(unit, part.size)), "i8")
        f.store("ptr", begin, f.address("%table", len(plan.passed) + part.number, "ptr"), 8)


def in_parts(planned: PlannedKernel) -> bool:
    """Whether threads share out parts of several units, which may be other units than they would get one by one."""
    return planned.stack > 1 and isinstance(planned.share, Batches | Rows) and planned.share.count != planned.stack


def call(
    plan: NativePlan, f: Function, scratch: str, planned: PlannedKernel, part: tuple[Index, Index] = WHOLE
) -> None:
    """Call a kernel for a thread's part of it, or for any other: `part` (0, 2) is the first half of its units."""
    operands: list[tuple[str, Index]] = []
    if planned.form == "contract":
        operands = [("ptr", pointer) for pointer in _operands(plan, f, planned)]
    shared = [("ptr", "%arena"), ("ptr", "%table"), ("ptr", scratch), ("i64", part[0]), ("i64", part[1])]
    together = [("ptr", "%sync")] if planned.loop is not None else []
    f.call(planned.name, *operands, *shared, *together)


def _operands(plan: NativePlan, f: Function, planned: PlannedKernel) -> list[str]:
    """Where A, B and C of a contraction begin."""
    grouping = plan.grouping
    product = next(n for n in planned.kernel.nodes if grouping.nodes[n].primitive is contract.matmul)
    a, b = (grouping.views[x] for x in grouping.nodes[product].inputs)
    a, b = (in_pitch(grouping.nodes, view, plan.storage.get(view.base, DENSE).pitch) for view in (a, b))
    if grouping.virtual(a.base):
        a = grouping.views[grouping.nodes[a.base].inputs[0]]
    if planned.turned:
        a, b = b, a
    return [*[pointer_of(plan, f, view.base, view.offset) for view in (a, b)], pointer_of(plan, f, planned.result, 0)]


def pointer_of(plan: NativePlan, f: Function, x: int, offset: int) -> str:
    """The address of an element of a value."""
    place = plan.places[x]
    if place.external is None:
        return f.address("%arena", place.offset + offset * plan.grouping.nodes[x].dtype.itemsize, "i8")
    pointer = f.load("ptr", f.address("%table", place.external, "ptr"), 8)
    return f.address(pointer, offset, SCALARS[plan.grouping.nodes[x].dtype])


def copy_part(f: Function, source: str, to: str, size: int, rows: Rows | None = None) -> None:
    """This thread's part of a copy of so many bytes, which may be cut in the way that rows are."""
    if rows is not None:
        ends = f.slice(rows.count, "%thread", "%threads")
        start, end = (f.mul(rows.first(f, unit), size // rows.rows) for unit in ends)
    else:
        lo, hi = f.slice(-(-size // 64), "%thread", "%threads")
        start, end = f.mul(lo, 64), f.min(f.mul(hi, 64), size)
    count = f.sub(end, start)
    a, b = (f.address(pointer, start, "i8") for pointer in (source, to))
    with f.when(f.compare("sgt", count, 0)):
        f.effect("llvm.memcpy.p0.p0.i64", ("ptr", b), ("ptr", a), ("i64", count), ("i1", "false"))


def finish(plan: NativePlan, f: Function) -> None:
    """New state that has memory of its own is copied over the old, once nobody reads that any more."""
    if not plan.schedule.copied:
        return
    if plan.finish_barrier:
        barrier(f)
    for new, old in plan.schedule.copied.items():
        places = pointer_of(plan, f, new, 0), pointer_of(plan, f, old, 0)
        rows = rows_to_copy(plan, new)
        copy_part(f, *places, plan.grouping.nodes[old].nbytes if rows else plan.sizes[old], rows)
