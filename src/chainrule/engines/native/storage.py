"""How values lie in memory: dense and row-major, or weights in the panels that their product reads.

Values that meet element by element share one storage (a weight, its gradient's moments, its new value), so that they
can be worked through as one flat memory, whatever its order. A weight lies in panels when all who touch it can do with
that: products, and kernels that treat every element alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from chainrule.engines.native.evaluate import in_pitch
from chainrule.engines.native.tiles import Contraction, Plan, Window
from chainrule.passes.convolutions import by_places
from chainrule.passes.copies import matrix
from chainrule.passes.grouping import Grouping
from chainrule.passes.in_place import Schedule
from chainrule.passes.kernels import Kernel, few_columns
from chainrule.passes.views import View
from chainrule.primitives import contract

ROWS = 128
"""Rows of the products for which panels of state are chosen, however many there are: a Program for the last rows of an
epoch, or for the evaluation, then finds weights as the others leave them."""


@dataclass(frozen=True)
class Storage:
    """A matrix in panels of `panel` columns, zero-padded, of its transpose where it is `turned`; panel 0: dense.

    With `gates`, a panel has so many columns of each gate: in each row those of the first, then those of the second.
    With a `pitch` rows are that far apart (see pitches.py).
    """

    panel: int = 0
    turned: bool = False
    gates: int = 1
    pitch: int = 0

    def elements(self, shape: tuple[int, ...]) -> int:
        """How many elements the memory holds."""
        size = 1
        for n in shape:
            size *= n
        if self.pitch:
            return shape[0] * self.pitch
        if not self.panel:
            return size
        rows, columns = shape[::-1] if self.turned else shape
        return -(-(columns // self.gates) // self.panel) * self.panel * self.gates * rows


DENSE = Storage()


class Classes:
    """Sets of values that share a storage."""

    def __init__(self) -> None:
        self.above: dict[int, int] = {}

    def find(self, x: int) -> int:
        """What stands for the set of x."""
        while self.above.setdefault(x, x) != x:
            x = self.above[x]
        return x

    def union(self, a: int, b: int) -> None:
        """Put two sets together."""
        self.above[self.find(a)] = self.find(b)


def product_of(grouping: Grouping, kernel: Kernel) -> int | None:
    """The contraction of a kernel."""
    return next((n for n in kernel.nodes if grouping.nodes[n].primitive is contract.matmul), None)


def storages(
    grouping: Grouping, plan: Schedule, held: set[int], choose: Callable[[Contraction], Plan], inside: bool = False
) -> dict[int, Storage]:
    """The storage of every value that is not dense. `held` are the inputs that the engine keeps; `inside` of a loop the
    constants that it copies."""
    classes, dense = Classes(), _must_be_dense(grouping, plan, held)
    for new, old in {**plan.in_place, **plan.copied}.items():
        classes.union(new, old)
    alike = {id(k): uniform(grouping, k) for k in plan.kernels}
    for kernel in plan.kernels:
        members = full_members(grouping, kernel)
        if not alike[id(kernel)]:
            dense |= members
        for x in members:
            classes.union(x, next(iter(members)))
    wanted: dict[int, Storage] = {}
    for kernel in plan.kernels:
        n = product_of(grouping, kernel)
        if n is None:
            continue
        a, b = (grouping.views[x] for x in grouping.nodes[n].inputs)
        dense.add(a.base)
        ours = b.base in held and (inside or kernel.gates == 1)
        storage = _wanted(grouping, kernel, n, choose, inside) if ours else None
        if storage is None or kernel.kind != "contract":
            dense.add(b.base)
        else:
            wanted.setdefault(classes.find(b.base), storage)
    dense_classes = {classes.find(x) for x in dense}
    values = {x for kernel in plan.kernels for x in [*kernel.inputs, *kernel.outputs]}
    values |= {x for pair in [*plan.in_place.items(), *plan.copied.items()] for x in pair}
    found = {
        x: wanted[classes.find(x)] for x in values if classes.find(x) in wanted and classes.find(x) not in dense_classes
    }
    for kernel in plan.kernels:  # a turned result makes its right operand a left one, which has to be dense
        n = product_of(grouping, kernel)
        members = full_members(grouping, kernel)
        right = None if n is None else grouping.views[grouping.nodes[n].inputs[1]].base
        lost = set[int]()
        if right in found and any(found.get(x, DENSE).turned for x in members):
            lost = {classes.find(x) for x in members}
        if right in found and found[right].gates != kernel.gates:  # panels of another product
            lost |= {classes.find(right)}
        found = {x: storage for x, storage in found.items() if classes.find(x) not in lost}
    return found


def _must_be_dense(grouping: Grouping, plan: Schedule, held: set[int]) -> set[int]:
    """Passed arrays, constants, results, and what is read in any other way than element by element or as a matrix."""
    dense = {grouping.views[out.node].base for out in grouping.program.outputs if out.updates is None}
    for i, node in enumerate(grouping.nodes):
        if node.primitive.kind == "source" and i not in held:
            dense.add(i)
        if node.ndim != 2:
            dense.add(i)
    for kernel in plan.kernels:
        if kernel.kind == "single":
            dense |= {*kernel.inputs, *kernel.outputs}
        for n in kernel.nodes:
            if grouping.virtual(n):
                dense.add(grouping.bases(n)[0])
            elif grouping.nodes[n].primitive is not contract.matmul:
                dense |= {
                    view.base
                    for view in map(grouping.views.__getitem__, grouping.nodes[n].inputs)
                    if not _whole(grouping, kernel, view)
                }
    return dense


def _whole(grouping: Grouping, kernel: Kernel, view: View) -> bool:
    return view.dense and grouping.nodes[view.base].size == kernel.size


def full_members(grouping: Grouping, kernel: Kernel) -> set[int]:
    """Stored values that a kernel meets element by element, all of them."""
    found = {n for n in kernel.outputs if grouping.nodes[n].size == kernel.size}
    members = set(kernel.nodes)
    for n in kernel.nodes:
        if grouping.nodes[n].primitive is not contract.matmul and not grouping.virtual(n):
            found |= {
                v.base
                for v in grouping.operands(n)
                if v.base not in members and _whole(grouping, kernel, v) and v.base in kernel.inputs
            }
    return found


def uniform(grouping: Grouping, kernel: Kernel) -> bool:
    """Whether a kernel treats every element alike: no reductions, no values of rows or columns, no positions."""
    if kernel.kind not in ("contract", "rows"):
        return False
    for n in kernel.nodes:
        node = grouping.nodes[n]
        if node.primitive is contract.matmul and kernel.kind == "contract":
            continue
        if not grouping.elementwise(n) or node.size != kernel.size:
            return False
        for view in grouping.operands(n):
            base = grouping.nodes[view.base]
            single = base.size == 1 and base.primitive.name != "iota"
            if not single and not (_whole(grouping, kernel, view) and base.primitive.name != "iota"):
                return False
    return True


def _wanted(
    grouping: Grouping, kernel: Kernel, n: int, choose: Callable[[Contraction], Plan], inside: bool
) -> Storage | None:
    """The panels in which a product would like to find its right operand."""
    b = grouping.views[grouping.nodes[n].inputs[1]]
    base, node = grouping.nodes[b.base], grouping.nodes[n]
    strides = matrix(b)
    if strides is None or node.ndim != 2 or base.ndim != 2 or base.size != b.shape[0] * b.shape[1] or b.offset:
        return None
    if few_columns(grouping.program, grouping.views, n) or 1 in base.shape:
        return None
    turned = strides[1] == 1 and b.shape[0] > 1
    if not turned and strides[2] != 1:
        return None
    (depth, columns), gates = b.shape, kernel.gates
    product = Contraction(ROWS, columns, depth, depth, columns, columns, dtype=node.dtype)
    if inside:  # in panels nothing is turned
        product = replace(contraction_of(grouping, n, {}, gates=gates), b_depth=columns, b_column=1)
    width = choose(product).width
    return None if gates > 1 and product.span % width else Storage(width, turned, gates)


def window_of(grouping: Grouping, a: View) -> Window | None:
    """What a matrix of windows is made of; None where the operand is another value."""
    node = grouping.nodes[a.base]
    if not grouping.virtual(a.base):
        return None
    turned = by_places(a.shape, a.strides, node.shape)
    batch, *space, groups, channels = grouping.nodes[node.inputs[0]].shape
    parts = a.shape[0] if turned and groups == 1 else 1
    return Window(batch, tuple(space), groups, channels, **node.attributes, turned=turned, parts=parts)


def contraction_of(
    grouping: Grouping, n: int, found: dict[int, Storage], result: Storage = DENSE, gates: int = 1
) -> Contraction:
    """The product `n`, or the transposed one where its result lies in panels of its transpose.

    `found` tells which operands lie in panels.
    """
    node = grouping.nodes[n]
    a, b = (grouping.views[x] for x in node.inputs)
    a, b = (in_pitch(grouping.nodes, view, found.get(view.base, DENSE).pitch) for view in (a, b))
    sa, sb = matrix(a), matrix(b)
    if sa is None or sb is None:
        raise AssertionError(f"%{n}: an operand is no matrix: {a}, {b}")
    rows, columns = node.shape[-2:]
    depth = a.shape[-1]
    stack = node.size // (rows * columns)
    left, right = (sa[0], sa[1], sa[2]), (sb[0], sb[1], sb[2])
    if result.turned:
        rows, columns = columns, rows
        left, right = (sb[0], sb[2], sb[1]), (sa[0], sa[2], sa[1])
        if found.get(b.base, DENSE).panel:
            raise AssertionError(f"%{n}: a left operand in panels")
    panel = DENSE if result.turned else found.get(b.base, DENSE)
    straight = (right[1], right[2])
    if panel.panel:  # strides inside of panels are the contraction's own affair: which axis is contiguous matters
        transposed = panel.turned != (right[1] == 1 and depth > 1 and right[2] != 1)
        straight = (1, columns) if transposed else (columns, 1)
    window = window_of(grouping, a)
    if window is not None:
        left = (window.channels if window.parts == 1 else 0, *left[1:])
    return Contraction(
        rows, columns, depth, batch=stack, dtype=node.dtype, window=window,
        a_batch=left[0], a_row=left[1], a_depth=left[2],
        b_batch=right[0], b_depth=straight[0], b_column=straight[1], b_panel=panel.panel,
        c_batch=rows * columns, c_row=result.pitch or columns, c_panel=result.panel, gates=gates,
    )  # fmt: skip
