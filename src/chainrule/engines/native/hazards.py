"""Hazards: where threads have to wait for each other.

Each kernel lists the memory that it reads and writes. Where two of them overlap, one side writes, and threads do not
keep to parts that are cut alike, there is a barrier. One test of addresses covers values, memory that several values
use one after the other, and the workspaces of loops.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chainrule.engines.native.cuts import reads_own_matrix
from chainrule.engines.native.division import Columns, Flat, Rows, Single, Together
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, is_lookup
from chainrule.primitives import contract
from chainrule.program.program import CONSTANT

if TYPE_CHECKING:
    from chainrule.engines.native.plan import NativePlan, PlannedKernel


@dataclass(frozen=True)
class Touch:
    """A range of memory that a kernel reads or writes. `own`: each thread touches only its part, cut this way."""

    lo: int
    hi: int
    writes: bool
    own: object


def _touches(plan: "NativePlan", planned: "PlannedKernel", part: bool = False) -> list[Touch]:
    """What a kernel touches, and those with it that it goes through, too."""
    if planned.run and not part:
        return [] if planned.absorbed else [touch for one in planned.run for touch in _touches(plan, one, True)]
    grouping, kernel = plan.grouping, planned.kernel
    found = []
    written = {x for k in plan.kernels for x in k.kernel.outputs}
    if planned.loop is not None:
        found.append(Touch(planned.workspace, planned.workspace + planned.loop.arena_bytes, True, None))
    for x in kernel.outputs:
        lo, hi = _range(plan, x)
        found.append(Touch(lo, hi, True, _own(plan, planned, x, True)))
    for x in kernel.inputs:
        if (plan.places[x].external is None or x in written) and grouping.nodes[x].primitive is not CONSTANT:
            lo, hi = _range(plan, x)
            found.append(Touch(lo, hi, False, _own(plan, planned, x, False)))
    return found


def _range(plan: "NativePlan", x: int) -> tuple[int, int]:
    """The memory of a value. What is written where a table says overlaps nothing else: far from all that is here."""
    place = plan.places[x]
    start = place.offset if place.external is None else (1 << 50) + (x << 40)
    return start, start + plan.sizes[x]


def _own(plan: "NativePlan", planned: "PlannedKernel", x: int, writes: bool) -> object:
    """What tells which part of `x` a thread touches, by its units alone; None: it may touch any part."""
    share, kernel, node = planned.share, planned.kernel, plan.grouping.nodes[x]
    if isinstance(share, Together):
        return None
    if isinstance(share, Single):
        return "the first thread"
    if isinstance(share, Flat):
        extent = "of a run" if planned.run else node.size
        return (share, planned.lanes, extent) if writes or node.size > 1 else None
    if planned.stack > 1 and x not in plan.storage:
        own = writes or reads_own_matrix(plan.grouping, kernel, x, planned.stack)
        return ("matrices", planned.stack) if own else None
    if planned.form in ("single", "window", "sparse", "winograd"):
        return None
    if kernel.gates > 1 and not isinstance(share, Rows):
        return None
    if planned.form == "contract" and writes and node.size * kernel.gates < kernel.size:  # sums down the columns
        return None
    batch = kernel.sizes[0] if len(kernel.sizes) == 3 else 1
    cut = kernel.sizes[-1] if isinstance(share, Columns) else kernel.sizes[-2]  # equal shares may be of other extents
    mark = (share, node.size, batch, cut, planned.turned)
    if writes:
        return mark
    for n in kernel.nodes:
        for k, y in enumerate(plan.grouping.nodes[n].inputs):
            if plan.grouping.views[y].base == x and not _own_read(plan, planned, n, k):
                return None
    return mark


def _own_read(plan: "NativePlan", planned: "PlannedKernel", n: int, k: int) -> bool:
    """Whether a thread reads of operand `k` of node `n` only what belongs to its units."""
    grouping, kernel, share = plan.grouping, planned.kernel, planned.share
    node, view = grouping.nodes[n], grouping.views[grouping.nodes[n].inputs[k]]
    size = grouping.nodes[view.base].size
    if grouping.virtual(n):
        return False
    table = is_lookup(grouping.nodes, node) and k == 0
    plain = grouping.reduces(n) or (grouping.elementwise(n) and not table)
    if plain and isinstance(share, Rows) and kernel.kind == "rows" and _row_by_row(grouping, kernel, view):
        return True
    if not view.dense:
        panel = node.primitive is contract.matmul and view.base in plan.storage
        return panel and k == 1 and isinstance(share, Columns) and not planned.turned and _straight(planned)
    if node.primitive is contract.matmul:
        if planned.turned or node.ndim != 2:
            return False
        return isinstance(share, Rows) if k == 0 else isinstance(share, Columns) and _straight(planned)
    if table:
        return False
    of_rows = kernel.kind == "rows" and isinstance(share, Rows) and size == kernel.sizes[0]
    of_gates = kernel.gates > 1 and size == kernel.size // kernel.gates
    return size == kernel.size or of_rows or of_gates


def _row_by_row(grouping: Grouping, kernel: Kernel, view: View) -> bool:
    """Whether each row of a row kernel reads a part of that row of an operand which has as many rows."""
    rows, size = kernel.sizes[0], grouping.nodes[view.base].size
    blocks = grouping.blocks(kernel, "full", view)
    if not rows or size % rows or blocks is None or blocks[0] not in ([], [(rows, size // rows)]):
        return False
    steps = [(n - 1) * stride for n, stride in blocks[1]]
    reach = [view.offset + sum(s for s in steps if s < 0), view.offset + sum(s for s in steps if s > 0)]
    return min(reach) >= 0 and max(reach) < size // rows


def _straight(planned: "PlannedKernel") -> bool:
    return planned.tiles is not None and planned.tiles.contraction.b_straight


def place_barriers(plan: "NativePlan") -> None:
    """A barrier goes where memory overlaps, one side writes, and threads do not keep to parts cut alike.

    Between two steps of a training there is one in any case, between those of a loop where they need it.
    """
    begin = 0  # the kernel behind the last barrier
    for planned in plan.kernels:
        planned.barrier = False
    found = [_touches(plan, planned) for planned in plan.kernels]
    for i in range(len(found)):
        guarded = i == plan.schedule.guard and i > 0
        clashing = [k for k in range(begin, i) if _clashes(found[i], found[k])]
        if guarded or clashing:
            begin = i if guarded else _before_stack(plan, i, clashing[-1] + 1)
            plan.kernels[begin].barrier = True
    since = [touch for touches in found[begin:] for touch in touches]
    copied = _copies(plan)
    plan.finish_barrier = _clashes(copied, since)
    since = copied if plan.finish_barrier else since + copied
    first = next((i for i, planned in enumerate(plan.kernels) if planned.barrier), len(plan.kernels))
    plan.repeat_barrier = any(_clashes(touches, since) for touches in found[:first])


def _before_stack(plan: "NativePlan", i: int, first: int) -> int:
    """Where a barrier before kernel `i` parts no kernels that are called together: at `first` or behind it."""
    stack = plan.kernels[i].stack
    start = i
    while stack > 1 and start > 0 and plan.kernels[start - 1].stack == stack and not plan.kernels[start].barrier:
        start -= 1
    return start if start >= first else i


def _copies(plan: "NativePlan") -> list[Touch]:
    """What is touched when new state is copied over the old: in a loop by the threads that made it."""
    found = []
    home = {n: planned for planned in plan.kernels for n in planned.kernel.outputs}
    for new, old in plan.schedule.copied.items():
        own = _own(plan, home[new], new, True) if rows_to_copy(plan, new) else None
        found += [Touch(*_range(plan, new), False, own), Touch(*_range(plan, old), True, own)]
    return found


def rows_to_copy(plan: "NativePlan", new: int) -> Rows | None:
    """The cut by which new state is copied over the old, where each thread can copy the rows that it made."""
    planned = next(planned for planned in plan.kernels if new in planned.kernel.outputs)
    share, rows = planned.share, planned.kernel.sizes[-2:-1]
    whole = plan.grouping.nodes[new].size in (planned.kernel.size, planned.kernel.size // planned.kernel.gates)
    if not (plan.inside and isinstance(share, Rows) and planned.form in ("rows", "contract") and whole):
        return None
    return share if rows == (share.rows,) and planned.kernel.size else None


def _clashes(touches: list[Touch], since: list[Touch]) -> bool:
    return any(_clash(a, b) for a in touches for b in since)


def _clash(a: Touch, b: Touch) -> bool:
    if not (a.writes or b.writes) or a.hi <= b.lo or b.hi <= a.lo:
        return False
    return a.own is None or b.own is None or (a.own, a.lo, a.hi) != (b.own, b.lo, b.hi)
