"""Cuts that kernels share, so that each thread finds what it wrote and need not wait for others: rows and stacks.

Kernels of a stack of products, as for the heads of an attention, go further: where no barrier lies between them they
are called for one matrix after the other, all of them for the first one, then all of them for the second. What one
writes the next one finds in the nearest cache, and the scores of all heads are never asked for at once.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from chainrule.engines.native.division import Batches, Rows
from chainrule.engines.native.host import Host
from chainrule.engines.native.rows import scratch_bytes
from chainrule.engines.native.tiles import Contraction, Divide
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, is_lookup, split

if TYPE_CHECKING:
    from chainrule.engines.native.plan import NativePlan, PlannedKernel

FEWEST_ROWS = 8  # that each thread is to have of a product in a loop
FEWEST_MATRICES = 4  # that each thread is to have of a stack


def by_rows(plan: "NativePlan", c: Contraction) -> Divide:
    """In a loop threads keep to their rows, all products cut alike, so that they need not wait for each other."""
    if not plan.inside or not enough_rows(c, plan.host):
        return None
    return cut_of_products(plan).get(c.rows, Rows)


def enough_rows(c: Contraction, host: Host) -> bool:
    """Whether a product in a loop has rows for all threads, and a right operand that fits into each one's cache."""
    small = c.depth * c.columns * c.in_registers.itemsize <= host.l2_bytes // 2
    return small and c.batch == 1 and c.window is None and c.rows >= FEWEST_ROWS * host.cores


def cut_of_products(plan: "NativePlan") -> dict[int, Rows]:
    """The cuts of the products that are cut by rows, by the number of rows."""
    shares = [k.share for k in plan.kernels if k.form == "contract" and isinstance(k.share, Rows)]
    return {share.rows: share for share in shares}


def take_over_rows(plan: "NativePlan") -> None:
    """A row kernel takes over the cut of the kernel that makes its operand: each thread then finds what it wrote.

    In a loop it takes over that of the products with as many rows, for what it writes is read in the next step.
    """
    home = {n: k for k in plan.kernels for n in k.kernel.outputs}
    cuts = cut_of_products(plan) if plan.inside else {}
    for planned in plan.kernels:
        if planned.form in ("rows", "flat") and planned.kernel.sizes[0] in cuts:
            planned.form, planned.share = "rows", cuts[planned.kernel.sizes[0]]
            planned.scratch_bytes = scratch_bytes(plan.grouping, planned.kernel, planned.lanes)
            continue
        if planned.form != "rows" or not isinstance(planned.share, Rows):
            continue
        for x in planned.kernel.inputs:
            source = home.get(x)
            if source is None or source.turned or not isinstance(source.share, Rows):
                continue
            rows = planned.kernel.sizes[0]
            if source.share.rows == rows and plan.grouping.nodes[x].size % rows == 0:
                planned.share = source.share
                break


# -- stacks


def take_over_stacks(plan: "NativePlan") -> None:
    """A row kernel that reads a stack of products matrix by matrix is cut into the same matrices."""
    home = {n: k for k in plan.kernels for n in k.kernel.outputs}
    for planned in plan.kernels:
        if planned.form in ("contract", "columns") and isinstance(planned.share, Batches):
            planned.stack = planned.share.count
        if planned.form in ("rows", "flat") and not planned.run:  # a run is one memory, cut as such
            sources = [x for x in planned.kernel.inputs if x in home and home[x].stack > 1]
            count = next((home[x].stack for x in sources if _fits_stack(plan, planned, x, home[x].stack)), 1)
            if count > 1:
                planned.form, planned.stack = "rows", count
                planned.share = Rows(count, planned.kernel.sizes[0] // count, 0)
                planned.scratch_bytes = scratch_bytes(plan.grouping, planned.kernel, planned.lanes)


def _fits_stack(plan: "NativePlan", planned: "PlannedKernel", x: int, count: int) -> bool:
    """Whether a row kernel can be cut into so many matrices, enough for all threads, of which each reads its part of
    `x`."""
    kernel = planned.kernel
    plain = not any(y in plan.storage for y in [*kernel.inputs, *kernel.outputs])
    enough = count >= FEWEST_MATRICES * plan.host.cores and kernel.sizes[0] % count == 0
    return plain and enough and reads_own_matrix(plan.grouping, kernel, x, count)


def reads_own_matrix(grouping: Grouping, kernel: Kernel, x: int, count: int) -> bool:
    """Whether a kernel, of the first of `count` matrices, reads only the first of as many equal parts of `x`, of the
    second one the second part, and so on."""
    size = grouping.nodes[x].size
    for n in kernel.nodes:
        node = grouping.nodes[n]
        for k, view in enumerate(grouping.views[i] for i in node.inputs):
            if view.base != x:
                continue
            if grouping.virtual(n) or (is_lookup(grouping.nodes, node) and k == 0) or size % count:
                return False
            blocks = split(view.shape, view.strides, _cut(grouping, kernel, n, view, count))
            if blocks is None or blocks[0] != [(count, size // count)]:
                return False
            steps = [(extent - 1) * stride for block in blocks[1:] for extent, stride in block]
            least = view.offset + sum(step for step in steps if step < 0)
            if least < 0 or view.offset + sum(step for step in steps if step > 0) >= size // count:
                return False
    return True


def _cut(grouping: Grouping, kernel: Kernel, n: int, view: View, count: int) -> tuple[int, ...]:
    """How an operand of a node is cut into matrices: (matrices, rows in each, columns)."""
    columns = kernel.sizes[-1]
    if grouping.multiplies(n):
        return count, prod(view.shape[:-1]) // count, view.shape[-1]
    level = "full" if grouping.reduces(n) else grouping.level(kernel, n)
    if level == "column":
        return count, columns
    rows = prod(kernel.sizes[:-1]) // count
    return (count, rows) if level == "row" else (count, rows, columns)


def chains(kernels: Sequence["PlannedKernel"]) -> Iterator[list["PlannedKernel"]]:
    """The kernels one by one, save those of one stack that follow each other without a barrier: these together."""
    chain: list[PlannedKernel] = []
    for planned in kernels:
        if chain and (planned.barrier or planned.stack != chain[-1].stack or planned.stack == 1):
            yield chain
            chain = []
        chain.append(planned)
    if chain:
        yield chain
