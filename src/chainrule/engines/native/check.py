"""Proof that a plan is sound, before any code is written from it: a wrong plan gives wrong numbers without a word.

Every value that is read was made before, in the same kernel or stored by an earlier one; every operand is one that its
kernel can index; no view leaves its memory; no memory is written while somebody still reads what was there; and nothing
that can fail comes after state was overwritten.
"""

from collections.abc import Iterator
from itertools import accumulate, product

from chainrule.engines.native.cuts import chains, reads_own_matrix
from chainrule.engines.native.division import Batches, Columns, Rows
from chainrule.engines.native.places import FIRST
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.storage import DENSE, full_members
from chainrule.errors import CompileError
from chainrule.passes.copies import in_order, is_piece, is_start, matrix
from chainrule.passes.gates import gate_of
from chainrule.passes.in_place import may_fail
from chainrule.passes.kernels import Kernel, Level
from chainrule.passes.views import View, in_memory, is_lookup, with_pitch
from chainrule.passes.winograd import winograd_convolution
from chainrule.primitives import contract

FOREVER = 1 << 60


def verify_plan(plan: NativePlan) -> NativePlan:
    """Check everything that the writers of code rely on; CompileError names what is wrong. Returns the plan."""
    for problem in _problems(plan):
        raise CompileError(f"The plan of {plan.program.name} is wrong: {problem}. This is a mistake of chainrule's.")
    return plan


def _problems(plan: NativePlan) -> Iterator[str]:
    yield from _views(plan)
    yield from _values(plan)
    for planned in plan.kernels:
        yield from _operands(plan, planned)
        yield from _panels(plan, planned)
        yield from _padded(plan, planned)
        yield from _sums(plan, planned)
        if planned.loop is not None:
            yield from _problems(planned.loop)
    if not plan.inside:
        yield from _guard(plan)
    yield from _memory(plan)
    for planned in plan.kernels:
        if planned.run and not planned.absorbed:
            yield from _run(plan, planned)
    for chain in chains(plan.kernels):
        if len(chain) > 1:
            yield from _matrices(plan, chain)
        yield from _parts(plan, chain)


def _views(plan: NativePlan) -> Iterator[str]:
    """Every element of a view is an element of its base."""
    nodes = plan.grouping.nodes
    for i, view in enumerate(plan.grouping.views):
        if 0 in view.shape or not in_memory(nodes[view.base]):
            continue
        steps = [(n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True)]
        first = view.offset + sum(step for step in steps if step < 0)
        last = view.offset + sum(step for step in steps if step > 0)
        if first < 0 or last >= nodes[view.base].size:
            yield f"the view %{i} reads elements {first} to {last} of %{view.base}, which has {nodes[view.base].size}"


def _values(plan: NativePlan) -> Iterator[str]:
    """Each value is stored once, and before it is read."""
    grouping, stored = plan.grouping, set[int]()
    for planned in plan.kernels:
        members = set[int]()
        for n in planned.kernel.nodes:
            for x in grouping.bases(n):
                if in_memory(grouping.nodes[x]) and x not in members and x not in planned.kernel.inputs:
                    yield f"{planned.name} has no %{x} for %{n}"
            members.add(n)
        for x in planned.kernel.inputs:
            if grouping.computed(x) and x not in stored:
                yield f"{planned.name} reads %{x}, which nobody has stored"
        for x in planned.kernel.outputs:
            if x in stored or x not in members:
                yield f"{planned.name} stores %{x}, which is stored already or not computed there"
            stored.add(x)
    for out in plan.program.outputs:
        node, view = grouping.nodes[out.node], grouping.views[out.node]
        if node.size and (view.base not in stored or not view.dense or grouping.nodes[view.base].size != node.size):
            yield f"the output {out.name} is not stored as it is to come out"


# -- operands


def _operands(plan: NativePlan, planned: PlannedKernel) -> Iterator[str]:
    """Each operand of a kernel can be found there."""
    grouping, kernel = plan.grouping, planned.kernel
    members = set(kernel.nodes)
    for n in kernel.nodes:
        node = grouping.nodes[n]
        for k, view in enumerate(grouping.views[x] for x in node.inputs):
            if is_lookup(grouping.nodes, node) and k == 0 and kernel.kind != "single":
                fits = view.base not in members
            elif node.primitive is contract.matmul:
                windows = k == 0 and grouping.virtual(view.base)
                fits = windows or (view.base not in members and matrix(view) is not None)
            elif grouping.virtual(n):
                fits = view.base not in members and view.dense
            elif kernel.kind == "single":
                start = is_start(grouping.nodes, node, node.inputs[k], view)
                in_any = start or not in_order(node.primitive) or is_piece(node, node.inputs[k], view)
                fits = view.contiguous if planned.loop is not None else in_any or view.dense
            elif node.primitive is winograd_convolution:
                fits = view.base not in members and view.dense
            elif view.base in members:
                fits = _member_fits(plan, kernel, n, view)
            else:
                fits = grouping.blocks(kernel, _reading_level(plan, kernel, n), view) is not None
            if not fits:
                yield f"{planned.name} ({kernel}) cannot read {view} for %{n} ({node.primitive.name})"


def _reading_level(plan: NativePlan, kernel: Kernel, n: int) -> Level:
    level = plan.grouping.level(kernel, n) or "full"
    return "full" if plan.grouping.reduces(n) else level


def _member_fits(plan: NativePlan, kernel: Kernel, n: int, view: View) -> bool:
    """Whether an operand computed in the same kernel is met element by element, or as the value of a row."""
    grouping = plan.grouping
    of_x, level = grouping.level(kernel, view.base), _reading_level(plan, kernel, n)
    if grouping.joins(n):
        beside = _size(view) == kernel.size and view.shape[-1] == kernel.sizes[1]
        return of_x == "full" and view.dense and beside and grouping.nodes[n].shape[-1] % kernel.sizes[1] == 0
    if (of_x, level) == ("full", "gate"):
        return gate_of(kernel, view) is not None
    if view.dense and (of_x == level or 1 in kernel.sizes):
        return grouping.nodes[view.base].size == _size(view)
    if of_x != "row" or level != "full":
        return False
    blocks = grouping.blocks(kernel, "full", view)
    rows, columns = kernel.sizes
    return blocks is not None and blocks[0] in ([], [(rows, 1)]) and blocks[1] in ([], [(columns, 0)])


def _size(view: View) -> int:
    result = 1
    for n in view.shape:
        result *= n
    return result


def _panels(plan: NativePlan, planned: PlannedKernel) -> Iterator[str]:
    """Values in panels are met by products as right operands, and by kernels whose full values all lie alike."""
    grouping, kernel = plan.grouping, planned.kernel
    touched = [x for x in [*kernel.inputs, *kernel.outputs] if plan.storage.get(x, DENSE).panel]
    if not touched:
        return
    if planned.form not in ("flat", "contract"):
        yield f"{planned.name} ({planned.form}) meets %{touched[0]} in panels"
    product = [n for n in kernel.nodes if grouping.nodes[n].primitive is contract.matmul]
    right = {grouping.views[grouping.nodes[n].inputs[1]].base for n in product}
    left = {grouping.views[grouping.nodes[n].inputs[0]].base for n in product}
    met = {v.base for n in kernel.nodes if n not in product for v in grouping.operands(n)} | set(kernel.outputs)
    alike = {plan.storage.get(x, DENSE) for x in met if x in plan.places and grouping.nodes[x].size > 1}
    if left & set(touched) or (met & set(touched) and len(alike) > 1):
        yield f"{planned.name} meets values in panels beside others"
    if any(plan.storage.get(x, DENSE).panel and plan.storage[x].gates != kernel.gates for x in right):
        yield f"{planned.name} reads panels of other gates than its own"
    if not set(touched) <= right | met:
        yield f"{planned.name} reads panels in another way than it can"


def _padded(plan: NativePlan, planned: PlannedKernel) -> Iterator[str]:
    """Padded rows are written where all values lie alike, and read there or by strides that can be told."""
    grouping, kernel = plan.grouping, planned.kernel
    for x in [*kernel.inputs, *kernel.outputs]:
        storage = plan.storage.get(x, DENSE)
        if not storage.pitch:
            continue
        alike = {plan.storage.get(y, DENSE) for y in full_members(grouping, kernel)}
        rows = planned.form == "rows" and kernel.sizes == grouping.nodes[x].shape
        if planned.form not in ("flat", "contract") and x in kernel.outputs and not rows:
            yield f"{planned.name} ({planned.form}) writes padded rows of %{x}"
        if planned.form in ("flat", "contract") and x in full_members(grouping, kernel) and len(alike) > 1:
            yield f"{planned.name} meets padded rows of %{x} beside others"
        views = [v for n in kernel.nodes for i in grouping.nodes[n].inputs if (v := grouping.views[i]).base == x]
        told = all(v.dense or with_pitch(v, grouping.nodes[x].shape[1], storage.pitch) for v in views)
        if not told or planned.form in ("single", "window", "sparse", "winograd", "loop"):
            yield f"{planned.name} ({planned.form}) cannot read padded rows of %{x}"


def _sums(plan: NativePlan, planned: PlannedKernel) -> Iterator[str]:
    """What adds up the columns of a product's result belongs to one thread."""
    kernel, share = planned.kernel, planned.share
    if kernel.kind == "contract" and any(map(plan.grouping.reduces, kernel.nodes)):
        if planned.form == "winograd":
            whole = isinstance(share, Batches) and share.count == kernel.sizes[0]
        else:
            whole = isinstance(share, Columns if kernel.sizes[0] == 1 else Batches)
        if not whole or planned.turned:
            yield f"{planned.name} splits a sum between threads"


def _run(plan: NativePlan, first: PlannedKernel) -> Iterator[str]:
    """The kernels of a run follow each other, do the same, and what they touch lies alike."""
    at = plan.kernels.index(first)
    if plan.kernels[at : at + len(first.run)] != first.run or any(k.absorbed != (k is not first) for k in first.run):
        yield f"{first.name} is not followed by those that it goes through"
    lines = list(zip(*[_values_of(plan, planned.kernel) for planned in first.run], strict=True))
    size, sizes = plan.grouping.nodes[lines[0][0]].dtype.itemsize, [plan.sizes[x] for x in lines[0]]
    begins = [0, *accumulate(sizes)]
    found = {tuple([plan.places[x].offset - plan.places[line[0]].offset for x in line]) for line in lines}
    alike = found == {tuple(begins[:-1])} and all([plan.sizes[x] for x in line] == sizes for line in lines)
    passed = any(plan.places[x].external is not None for line in lines for x in line)
    if passed or not alike or begins[-1] != first.elements * size:
        yield f"{first.name} goes through memory in which values do not lie alike"
    if any(k.form != "flat" or k.share != first.share for k in first.run):
        yield f"{first.name} does not go through the whole of its memory"
    meanings = {tuple([plan.grouping.nodes[n].primitive for n in planned.kernel.nodes]) for planned in first.run}
    if len(meanings) > 1 or any(planned.barrier for planned in first.run[1:]):
        yield f"{first.name} goes through values of which others are computed"


def _values_of(plan: NativePlan, kernel: Kernel) -> list[int]:
    """The values that a flat kernel goes through: those of its size that it reads and stores."""
    read = [v.base for n in kernel.nodes for v in plan.grouping.operands(n) if v.base not in kernel.nodes]
    return [*[x for x in dict.fromkeys(read) if plan.grouping.nodes[x].size == kernel.size], *kernel.outputs]


def _matrices(plan: NativePlan, chain: list[PlannedKernel]) -> Iterator[str]:
    """Kernels that are called part by part have the same parts, and read of each other those alone."""
    before: list[PlannedKernel] = []
    for planned in chain:
        kernel, share, count = planned.kernel, planned.share, planned.stack
        whole = isinstance(share, Batches) or (isinstance(share, Rows) and not share.larger)
        if not (isinstance(share, Batches | Rows) and whole and share.count % count == 0):
            yield f"{planned.name} is not cut into {count} equal parts"
        for other in before:
            for x in kernel.inputs:
                if x in other.kernel.outputs and not reads_own_matrix(plan.grouping, kernel, x, count):
                    yield f"{planned.name} reads of %{x} what {other.name} has not made yet"
            for x, y in product([*kernel.inputs, *kernel.outputs], other.kernel.outputs):
                if x != y and _overlap(plan, x, y):
                    yield f"{other.name} writes %{y} where {planned.name} looks for %{x}"
            for x, y in product(kernel.outputs, other.kernel.inputs):
                own = plan.places[x] == plan.places[y] and reads_own_matrix(plan.grouping, other.kernel, y, count)
                if _overlap(plan, x, y) and not own:
                    yield f"{planned.name} writes %{x} where {other.name} looks for %{y}"
        before.append(planned)


def _parts(plan: NativePlan, chain: list[PlannedKernel]) -> Iterator[str]:
    """Values of which a thread has one part at a time are touched by kernels that are called together, and no others;
    these parts lie apart, in the thread's memory."""
    made = [x for planned in chain for x in planned.kernel.outputs if x in plan.parts]
    kept = {*plan.results, *plan.schedule.in_place, *plan.schedule.copied}
    for planned in chain:
        for x in planned.kernel.inputs:
            if x in plan.parts and x not in made:
                yield f"{planned.name} reads %{x}, of which there is one part at a time"
    for x in made:
        part, place = plan.parts[x], plan.places[x]
        whole = len(chain) > 1 and part.size * chain[0].stack == plan.grouping.nodes[x].nbytes and x not in kept
        if not whole or place.external != len(plan.passed) + part.number:
            yield f"a part of %{x} is not enough, or has no place"
        for y in made:
            other = plan.parts[y]
            apart = part.at >= other.at + other.size or other.at >= part.at + part.size
            if x != y and (not apart or part.number == other.number):
                yield f"the part of %{x} overlaps that of %{y}"


def _overlap(plan: NativePlan, x: int, y: int) -> bool:
    """Whether two values of the arena lie in the same memory, if only in part."""
    a, b = plan.places[x], plan.places[y]
    if a.external is not None or b.external is not None:
        return False
    return a.offset < b.offset + plan.sizes[y] and b.offset < a.offset + plan.sizes[x]


# -- memory


def _guard(plan: NativePlan) -> Iterator[str]:
    """What can fail comes first: nothing that fails is behind the place where errors are looked for."""
    guard = plan.schedule.guard
    for i, planned in enumerate(plan.kernels):
        if i >= guard and any(may_fail(plan.grouping, n) for n in planned.kernel.nodes):
            yield f"{planned.name} may fail after errors were looked for"
        for x in planned.kernel.outputs:
            if i < guard and x in plan.schedule.in_place:
                yield f"{planned.name} overwrites state before errors were looked for"


def _memory(plan: NativePlan) -> Iterator[str]:
    """Memory is written only where no value lies that somebody still reads."""
    alive: list[tuple[int, int, int, int, int]] = []  # (first kernel, last kernel, from, to, node)
    order, grouping = plan.schedule, plan.grouping
    reads = {x: i for i, k in enumerate(plan.kernels) for x in k.kernel.inputs}
    writes = {x: i for i, k in enumerate(plan.kernels) for x in k.kernel.outputs}
    kept = {grouping.views[out.node].base for out in plan.program.outputs}
    replaced = {old: new for new, old in order.in_place.items()}
    for x, place in plan.places.items():
        if place.external is not None or plan.sizes[x] == 0:
            continue
        first, last = writes.get(x, -1), FOREVER if x in kept else reads.get(x, writes.get(x, -1))
        if x not in writes:
            last = writes[replaced[x]] - 1 if x in replaced else FOREVER
            if x in replaced:
                yield from _overwritten(plan, x, replaced[x], reads.get(x, -1), writes[replaced[x]])
        elements = plan.storage.get(x, DENSE).elements(grouping.nodes[x].shape)
        if plan.sizes[x] < elements * grouping.nodes[x].dtype.itemsize:
            yield f"%{x} has too little memory"
        if place.offset < FIRST or place.offset + plan.sizes[x] > plan.arena_bytes:
            yield f"%{x} lies outside of the arena"
        alive.append((first, last, place.offset, place.offset + plan.sizes[x], x))
    for i, planned in enumerate(plan.kernels):
        if planned.loop is not None:
            at, end = planned.workspace, planned.workspace + planned.loop.arena_bytes
            if end > plan.arena_bytes:
                yield f"the steps of {planned.name} work outside of the arena"
            alive.append((i, i, at, end, planned.kernel.nodes[0]))
    alive.sort(key=lambda part: part[2])
    open_parts: list[tuple[int, int, int, int, int]] = []
    for part in alive:
        open_parts = [other for other in open_parts if other[3] > part[2]]
        for other in open_parts:
            if part[0] <= other[1] and other[0] <= part[1]:
                yield f"%{other[4]} and %{part[4]} are alive at once in the same memory"
        open_parts.append(part)


def _overwritten(plan: NativePlan, old: int, new: int, last: int, writer: int) -> Iterator[str]:
    """An old value may be read up to the kernel that overwrites it, and there only where the new one is written."""
    if plan.places[old] != plan.places[new] or plan.storage.get(old, DENSE) != plan.storage.get(new, DENSE):
        yield f"%{new} does not lie where %{old} does"
    if last > writer:
        yield f"%{old} is read after %{new} was written over it"
    grouping, kernel = plan.grouping, plan.kernels[writer].kernel
    level = grouping.level(kernel, new)
    for n in kernel.nodes:
        for k, view in enumerate(grouping.views[x] for x in grouping.nodes[n].inputs):
            if view.base == old:
                table = k == 0 and is_lookup(grouping.nodes, grouping.nodes[n])
                same = view.dense and grouping.elementwise(n) and grouping.level(kernel, n) == level
                if table or not same or kernel.kind == "single":
                    yield f"{plan.kernels[writer].name} overwrites %{old} before %{n} has read it"
