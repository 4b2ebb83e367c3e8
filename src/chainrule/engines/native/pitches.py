"""Rows that begin where vectors do.

A temporary matrix whose rows are no whole number of vectors, 100 columns say, gets rows of 112: no vector of it crosses
a line then. Products, rows and columns read it by its strides anyway; what works on flat memory takes the padding
along, whatever that holds. So only who meets the value decides whether it can lie like this; `with_pitch` tells where.
"""

from chainrule.engines.native.storage import Classes, Storage, full_members, product_of, uniform
from chainrule.passes.grouping import Grouping
from chainrule.passes.in_place import Schedule, may_fail
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, with_pitch
from chainrule.passes.winograd import winograd_convolution

FEWEST = 8  # rows
SLACK = 8  # no more than this part of a row is padding
SETS = 1024  # bytes: rows this far apart fall into the same few sets of the first cache


def pitches(grouping: Grouping, plan: Schedule, lanes: int) -> dict[int, Storage]:
    """The values that get padded rows. `lanes`: float32 in a vector."""
    wanted = {x: pitch for k in plan.kernels for x in k.outputs if (pitch := _pitch(grouping, plan, x, lanes))}
    classes, refused = Classes(), set[int]()
    for kernel in plan.kernels:
        touched = wanted.keys() & {*kernel.inputs, *kernel.outputs}
        if not touched:
            continue
        members = full_members(grouping, kernel) if _flat_or_product(grouping, kernel) else set()
        for x in members:
            classes.union(x, next(iter(members)))
        refused |= {x for x in touched if not _can_meet(grouping, kernel, x, x in members, lanes)}
        refused |= members - wanted.keys()
    lost = {classes.find(x) for x in refused}
    return {x: Storage(pitch=pitch) for x, pitch in wanted.items() if classes.find(x) not in lost}


def _pitch(grouping: Grouping, plan: Schedule, x: int, lanes: int) -> int:
    """The pitch that a value would like its rows to have; 0 where they may stay as they are."""
    node = grouping.nodes[x]
    if node.ndim != 2 or node.shape[0] < FEWEST or x in plan.in_place or x in plan.copied:
        return 0
    if any(grouping.views[out.node].base == x for out in grouping.program.outputs):
        return 0
    columns = node.shape[1]
    pitch = -(-columns // lanes) * lanes
    little = 0 < (pitch - columns) * SLACK <= columns
    return pitch if little and pitch * node.dtype.itemsize % SETS else 0


def _flat_or_product(grouping: Grouping, kernel: Kernel) -> bool:
    """Whether it works on all its full values alike: element after element, or where a tile of a product lies."""
    return kernel.kind == "contract" or (kernel.kind == "rows" and uniform(grouping, kernel))


def _can_meet(grouping: Grouping, kernel: Kernel, x: int, member: bool, lanes: int) -> bool:
    """Whether a kernel can do with padded rows of a value that it reads or makes."""
    if kernel.kind == "single" or kernel.gates > 1:
        return False
    if any(grouping.nodes[n].primitive is winograd_convolution or grouping.virtual(n) for n in kernel.nodes):
        return False
    if member and any(may_fail(grouping, n) for n in kernel.nodes):  # it would look at the padding
        return False
    rows = kernel.kind == "rows" and kernel.sizes == grouping.nodes[x].shape and kernel.sizes[1] > lanes
    if not member and x in kernel.outputs and not rows:
        return False
    product = product_of(grouping, kernel)
    for n in kernel.nodes:
        for view in (grouping.views[i] for i in grouping.nodes[n].inputs):
            if view.base != x:
                continue
            dense = member and view.dense and grouping.nodes[n].size == kernel.size
            if n == product:
                fits = grouping.nodes[n].ndim == 2 and _expressible(grouping, view)
            elif kernel.kind == "rows" and not member and not rows:
                fits = False
            else:
                fits = dense or _expressible(grouping, view)
            if not fits:
                return False
    return True


def _expressible(grouping: Grouping, view: View) -> bool:
    return with_pitch(view, grouping.nodes[view.base].shape[1], 1) is not None
