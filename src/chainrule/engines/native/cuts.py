"""Cuts that kernels share, so that each thread finds what it wrote and need not wait for others: rows, stacks, images.

Kernels of a stack of products, as for the heads of an attention, go further: where no barrier lies between them they
are called for one matrix after the other, all of them for the first one, then all of them for the second. What one
writes the next one finds in the nearest cache, and the scores of all heads are never asked for at once. Convolutions
and pooling go through a batch in the same way, some images at a time.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import gcd, prod
from typing import TYPE_CHECKING

from chainrule.engines.native.division import Batches, Rows
from chainrule.engines.native.host import Host
from chainrule.engines.native.rows import scratch_bytes
from chainrule.engines.native.tile_plans import Divide
from chainrule.engines.native.tiles import Contraction
from chainrule.engines.native.winograd_blocks import FEWEST_TILES, blocks_of
from chainrule.passes.convolutions import depthwise
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, is_lookup, split
from chainrule.passes.winograd import winograd_convolution

if TYPE_CHECKING:
    from chainrule.engines.native.plan import NativePlan, PlannedKernel

FEWEST_ROWS = 8  # that each thread is to have of a product in a loop
FEWEST_MATRICES = 4  # that each thread is to have of a stack
PART = 3  # what a part of a batch touches takes one part in so many of the second cache, if it can


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
            shared = grouping.multiplies(n) and k == 1 and prod(node.shape[:-2]) % count  # the right operand of all
            if (is_lookup(grouping.nodes, node) and k == 0) or shared or size % count:
                return False
            if grouping.slides(n):
                if not _own_images(grouping, kernel, n, k, count):
                    return False
                continue
            blocks = split(*_with_cut(view, count), _cut(grouping, kernel, n, view, count))
            if blocks is None or blocks[0] != [(count, size // count)]:
                return False
            steps = [(extent - 1) * stride for block in blocks[1:] for extent, stride in block]
            least = view.offset + sum(step for step in steps if step < 0)
            if least < 0 or view.offset + sum(step for step in steps if step > 0) >= size // count:
                return False
    return True


def _with_cut(view: View, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape and strides of a view, where the axis that a cut into so many parts goes through is two axes."""
    before = 1
    for k, n in enumerate(view.shape):
        parts = count // before
        if before * n > count and count % before == 0 and n % parts == 0:
            shape = (*view.shape[:k], parts, n // parts, *view.shape[k + 1 :])
            stride = view.strides[k]
            return shape, (*view.strides[:k], stride * (n // parts), stride, *view.strides[k + 1 :])
        before *= n
    return view.shape, view.strides


def _own_images(grouping: Grouping, kernel: Kernel, n: int, k: int, count: int) -> bool:
    """The same of an operand of a convolution or of pooling, whose images are cut."""
    node = grouping.nodes[n]
    view = grouping.views[node.inputs[k]]
    summed = grouping.virtual(n) and grouping.sums_places(kernel)  # of some images in each product of a stack
    weights = k == 1 and node.primitive in (winograd_convolution, depthwise)
    kept = view.shape[-2] == 1 if grouping.virtual(n) else node.shape[0] == view.shape[0]  # a stack may be of groups
    uncut = view.shape[0] % count or (summed and kernel.sizes[0] % count)
    return view.dense and kept and not weights and not uncut


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


# -- images


def take_over_images(plan: "NativePlan") -> None:
    """Convolutions and pooling that read what one before them makes are cut into the same parts of the batch."""
    home = {n: k for k in plan.kernels for n in k.kernel.outputs}
    run: list[PlannedKernel] = []
    units = 0
    for planned in plan.kernels:
        common = gcd(units, _units(plan, planned))
        if run and _goes_on(plan, planned, [x for x in planned.kernel.inputs if home.get(x) in run], common):
            run.append(planned)
            units = common
            continue
        _cut_images(plan, run)
        units = _units(plan, planned)
        run = [planned]
    _cut_images(plan, run)


def _batch(plan: "NativePlan", planned: "PlannedKernel") -> int:
    """The images of a convolution by Winograd's transforms; 1 where it is one of the other kernels of these."""
    nodes = plan.grouping.nodes
    return next((nodes[n].shape[0] for n in planned.kernel.nodes if nodes[n].primitive is winograd_convolution), 1)


def _has_images(plan: "NativePlan", planned: "PlannedKernel") -> bool:
    window = planned.tiles is not None and planned.tiles.contraction.window is not None
    return planned.form in ("window", "winograd") or window


def _units(plan: "NativePlan", planned: "PlannedKernel") -> int:
    """How many equal parts of the batch a kernel can be cut into, at most."""
    kernel, share, nodes = planned.kernel, planned.share, plan.grouping.nodes
    if planned.run or any(x in plan.storage for x in kernel.outputs):
        return 1
    if planned.form == "window" and isinstance(share, Rows):
        return gcd(share.count, nodes[kernel.nodes[-1]].shape[0])
    if planned.form == "winograd":
        return _batch(plan, planned)
    if planned.form in ("contract", "columns") and isinstance(share, Batches):
        return share.count
    if planned.form == "contract" and isinstance(share, Rows):
        window = planned.tiles and planned.tiles.contraction.window
        whole = not share.larger and not planned.turned and kernel.gates == 1
        return gcd(share.count, window.batch if window else 0) if whole else 1
    wide = planned.form in ("rows", "flat") and kernel.sizes[-1] >= planned.lanes
    return kernel.sizes[0] if wide else 1


def _goes_on(plan: "NativePlan", planned: "PlannedKernel", made: list[int], units: int) -> bool:
    """Whether a kernel reads something `made` before it, of each part no more than the same part."""
    enough = units >= FEWEST_MATRICES * plan.host.cores
    return bool(made) and enough and all(reads_own_matrix(plan.grouping, planned.kernel, x, units) for x in made)


def _cut_images(plan: "NativePlan", run: "list[PlannedKernel]") -> None:
    """Cut the kernels of a run alike; those by Winograd's transforms stay as they are where no part suits them."""
    units = gcd(*[_units(plan, planned) for planned in run])
    if len(run) < 2 or not any(_has_images(plan, planned) for planned in run):
        return
    nodes = plan.grouping.nodes
    values = {x for k in run for x in k.kernel.outputs}
    values |= {x for k in run for x in k.kernel.inputs if reads_own_matrix(plan.grouping, k.kernel, x, units)}
    total = sum(nodes[x].nbytes for x in values)
    counts = [n for n in range(FEWEST_MATRICES * plan.host.cores, units + 1) if units % n == 0]
    fitting = [n for n in counts if total // n <= plan.host.l2_bytes // PART]
    tiled = [planned for planned in run if planned.form == "winograd"]
    fewest = min([_tiles(plan, planned) for planned in tiled], default=0)
    if tiled and (not fitting or fewest // fitting[0] < FEWEST_TILES):
        for wanted, part in groupby(run, lambda planned: planned not in tiled):
            if wanted:
                _cut_images(plan, list(part))
        return
    count = [*fitting, units][0]
    for planned in run:
        planned.stack = count
        if planned.form == "winograd":
            planned.share = Batches(_batch(plan, planned))
        if planned.form in ("rows", "flat"):
            planned.form, planned.share = "rows", Rows(count, planned.kernel.sizes[0] // count, 0)
            planned.scratch_bytes = scratch_bytes(plan.grouping, planned.kernel, planned.lanes)


def _tiles(plan: "NativePlan", planned: "PlannedKernel") -> int:
    """The tiles of a convolution by Winograd's transforms."""
    n = next(n for n in planned.kernel.nodes if plan.grouping.nodes[n].primitive is winograd_convolution)
    return blocks_of(plan.grouping, n, plan.host).tiles
