"""Flat passes: what an optimiser does to parameters of any shape, in one pass over one memory.

The nodes that make a new weight from the old one, its gradient and its moments are the same for every parameter. Where
they cannot join the product that makes the gradient (the norm of all gradients comes first, or gradients are added up
over several steps), kernels that are flat and follow each other are taken apart into chains, one for each parameter,
and chains that do the same become a run. What stands at the same place in the chains of a run is to lie one after the
other in memory, in the same order everywhere; then one kernel, that of the first chain, goes through all of it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import groupby

from chainrule.passes.grouping import Grouping
from chainrule.passes.in_place import Schedule, may_fail
from chainrule.passes.kernels import Kernel
from chainrule.program.program import plain

Run = list[Kernel]  # kernels that do the same to values of different shapes
Lines = dict[int, tuple[int, ...]]


def is_flat(grouping: Grouping, kernel: Kernel) -> bool:
    """Whether every operand of a kernel is a flat memory like its outputs, or one number."""
    if not all(grouping.elementwise(n) and grouping.nodes[n].size == kernel.size for n in kernel.nodes):
        return False
    members = set(kernel.nodes)
    for n in kernel.nodes:
        for view in grouping.operands(n):
            base = grouping.nodes[view.base]
            if view.base in members or (base.size == 1 and base.primitive.name != "iota"):
                continue
            if not view.dense or base.size != kernel.size or base.primitive.name == "iota":
                return False
    return True


def flat_runs(grouping: Grouping, schedule: Schedule, held: Sequence[int]) -> tuple[Schedule, list[Run], Lines]:
    """The order of kernels with chains of a run next to each other; the runs; for each of their values those that are
    to lie one after the other, itself among them. `held`: the inputs that are state."""
    finder = _Finder(grouping, schedule, frozenset(held))
    head, tail = schedule.kernels[: schedule.guard], schedule.kernels[schedule.guard :]
    kernels = list(head)
    for fits, group in groupby(tail, finder.fits):
        stretch = list(group)
        kernels += finder.stretch(stretch) if fits else stretch
    return replace(schedule, kernels=kernels), finder.runs, finder.line_of


@dataclass
class _Chain:
    """Nodes of one kernel that depend on each other; `values`: what they read and store, in an order of their own."""

    kernel: Kernel  # that they were a part of
    nodes: list[int]
    outputs: list[int]
    values: list[int]
    reads: frozenset[int]
    key: Hashable  # equal for chains that do the same


class _Finder:
    def __init__(self, grouping: Grouping, schedule: Schedule, held: frozenset[int]) -> None:
        self.grouping, self.schedule, self.held = grouping, schedule, held
        self.nodes = grouping.nodes
        self.runs: list[Run] = []
        self.line_of: Lines = {}

    def fits(self, kernel: Kernel) -> bool:
        """Whether a kernel can be taken apart."""
        plain_rows = kernel.kind == "rows" and kernel.size > 1 and is_flat(self.grouping, kernel)
        return plain_rows and not any(may_fail(self.grouping, n) for n in kernel.nodes)

    def stretch(self, kernels: list[Kernel]) -> list[Kernel]:
        """Kernels that follow each other, with their chains in runs where that can be."""
        chains = [chain for kernel in kernels for chain in self._chains(kernel)]
        alike: dict[Hashable, list[_Chain]] = {}
        for chain in chains:
            alike.setdefault(chain.key, []).append(chain)
        before, groups = dict(self.line_of), list[list[_Chain]]()
        for group in alike.values():
            if len(group) > 1 and self._can_lie(group):
                self._remember(group)
                groups.append(group)
        chosen = {id(chain) for group in groups for chain in group}
        for kernel in kernels:
            rest = [chain for chain in chains if chain.kernel is kernel and id(chain) not in chosen]
            groups += [rest] if rest else []
        order = self._order(groups)
        if order is None:
            self.line_of = before
            return kernels
        found: list[Kernel] = []
        for group in order:
            if id(group[0]) in chosen:
                self.runs.append([_together([chain]) for chain in group])
                found += self.runs[-1]
            else:
                found.append(_together(group))
        return found

    # -- chains

    def _chains(self, kernel: Kernel) -> list[_Chain]:
        """The nodes of a kernel, apart where they do not depend on each other."""
        of: dict[int, list[int]] = {}
        for n in kernel.nodes:
            joined = {id(of[x]): of[x] for x in self.grouping.bases(n) if x in of}
            nodes = [x for part in joined.values() for x in part] + [n]
            of |= dict.fromkeys(nodes, nodes)
        parts = list({id(part): part for part in of.values()}.values())
        return [self._chain(kernel, sorted(part, key=kernel.nodes.index)) for part in parts]

    def _chain(self, kernel: Kernel, nodes: list[int]) -> _Chain:
        outputs, values, key = [n for n in nodes if n in kernel.outputs], list[int](), list[Hashable]()
        for n in nodes:
            operands: list[Hashable] = []
            for view in self.grouping.operands(n):
                x = view.base
                if x in nodes:
                    operands.append(("node", nodes.index(x)))
                elif self.nodes[x].size == 1:
                    operands.append(("number", x))
                else:
                    if x not in values:
                        values.append(x)
                    operands.append(("value", values.index(x), self._kind(x)))
            node = self.nodes[n]
            stored = self._kind(n) if n in outputs else None
            key.append((node.primitive, plain(node.attributes), node.dtype, stored, *operands))
        reads = frozenset(x for n in nodes for x in self.grouping.bases(n))
        return _Chain(kernel, nodes, outputs, values + outputs, reads, tuple(key))

    def _kind(self, x: int) -> str:
        """What decides where a value lies."""
        if x in self.schedule.in_place:
            return "in place"
        if x in self.schedule.copied:
            return "copied"
        return "state" if x in self.held else "temporary" if self.grouping.computed(x) else "outside"

    # -- runs

    def _can_lie(self, group: list[_Chain]) -> bool:
        """Whether the values of chains can lie one after the other, each beside the same others wherever it is met."""
        lines = self._lines(group)
        first = [x for line in lines for x in line[:1]]
        if len({self.nodes[x].dtype.itemsize for x in first}) > 1 or self._dependent(group):
            return False
        beside = dict(self.line_of)
        for line in lines:
            outside = any(self._kind(x) == "outside" for x in line)
            if outside or len(set(line)) < len(line) or any(beside.setdefault(x, line) != line for x in line):
                return False
        return True

    def _lines(self, group: list[_Chain]) -> list[tuple[int, ...]]:
        """What is to lie one after the other: the values at each place of the chains, the new where the old ones do."""
        places = zip(*[chain.values for chain in group], strict=True)
        return [tuple([self.schedule.in_place.get(x, x) for x in place]) for place in places]

    def _dependent(self, group: list[_Chain]) -> bool:
        """Whether a chain reads what another one makes or overwrites."""
        writer = {x: chain for chain in group for n in chain.outputs for x in (n, self.schedule.in_place.get(n, n))}
        return any(writer.get(x, chain) is not chain for chain in group for x in chain.reads)

    def _remember(self, group: list[_Chain]) -> None:
        for line in self._lines(group):
            self.line_of |= dict.fromkeys(line, line)

    def _order(self, groups: list[list[_Chain]]) -> list[list[_Chain]] | None:
        """The groups in an order that can be run, makers before readers before who overwrites; None without one."""
        made = {n: k for k, group in enumerate(groups) for chain in group for n in chain.outputs}
        writer = {self.schedule.in_place[n]: k for n, k in made.items() if n in self.schedule.in_place}
        sorter: TopologicalSorter[int] = TopologicalSorter({k: () for k in range(len(groups))})
        for k, group in enumerate(groups):
            for x in [x for chain in group for x in chain.reads]:
                if made.get(x, k) != k:
                    sorter.add(k, made[x])
                if writer.get(x, k) != k:
                    sorter.add(writer[x], k)
        try:
            return [groups[k] for k in sorter.static_order()]
        except CycleError:
            return None


def _together(chains: list[_Chain]) -> Kernel:
    """A kernel of some chains of one."""
    kernel = chains[0].kernel
    nodes = {n for chain in chains for n in chain.nodes}
    reads = {x for chain in chains for x in chain.reads}
    return replace(
        kernel,
        nodes=[n for n in kernel.nodes if n in nodes],
        outputs=[n for n in kernel.outputs if n in nodes],
        inputs=[x for x in kernel.inputs if x in reads],
    )
