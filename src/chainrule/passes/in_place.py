"""The order of kernels, and new state in the memory of the old.

A new value takes the place of the old one after all its readers. Where that is impossible it gets memory of its own,
and is copied over at the end of the step. What can fail (an index out of range) comes before what overwrites state, so
that a step that fails leaves everything as it was.
"""

import heapq
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.control import LOOPS
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import is_lookup
from chainrule.program.program import Node

SMALL = 1 << 13
"""Elements of each value of a kernel that may wait."""
MAY_FAIL = ("take", "scatter_add")
MAY_FAIL_ON_INTEGERS = ("floordiv", "mod", "pow")


@dataclass
class Schedule:
    """Kernels in an order to run them.

    in_place   for each new value that overwrites an old one: the input whose memory it takes
    copied     for each new value with memory of its own: the input to copy it to
    guard      the number of kernels after which errors are looked for, before anything is overwritten (0: never)
    """

    kernels: list[Kernel]
    in_place: dict[int, int]
    copied: dict[int, int]
    guard: int


def may_fail(grouping: Grouping, n: int) -> bool:
    """Whether a node can find its operands wrong."""
    return _fallible(grouping.nodes[n])


def _fallible(node: Node) -> bool:
    if node.primitive in LOOPS:
        return any(map(_fallible, node.attributes["body"].nodes))
    if node.primitive.name in MAY_FAIL_ON_INTEGERS:
        return not dtypes.is_float(node.dtype)
    return node.primitive.name in MAY_FAIL


def _element_by_element(grouping: Grouping, kernel: Kernel, old: int, new: int) -> bool:
    """Whether a kernel reads `old` only where it writes `new`, and before it does."""
    level = grouping.level(kernel, new)
    reduces = any(grouping.nodes[n].primitive.kind == "reduce" for n in kernel.nodes)
    if kernel.kind == "single" or (kernel.kind == "rows" and reduces and level == "full"):
        return False
    for n in kernel.nodes:
        for k, view in enumerate(grouping.views[x] for x in grouping.nodes[n].inputs):
            if view.base != old:
                continue
            same = grouping.elementwise(n) and grouping.level(kernel, n) == level and view.dense
            if not same or (k == 0 and is_lookup(grouping.nodes, grouping.nodes[n])):
                return False
    return True


def schedule(grouping: Grouping) -> Schedule:
    """Order the kernels of a grouping."""
    home = {n: kernel for kernel in grouping.kernels for n in kernel.outputs}
    state = {}
    for out in grouping.program.outputs:
        if out.updates is not None and grouping.nodes[out.node].size:
            state[grouping.views[out.node].base] = out.updates
    in_place = {new: old for new, old in state.items() if _element_by_element(grouping, home[new], old, new)}
    fallible = [k for k in grouping.kernels if any(may_fail(grouping, n) for n in k.nodes)]
    data = _data_edges(grouping, home)
    reach = _reach(grouping.kernels, data)
    for new, old in list(in_place.items()):
        writer = home[new]
        read_later = [k for k in grouping.kernels if old in k.inputs and k is not writer and id(writer) in reach[id(k)]]
        fails_later = [k for k in fallible if k is writer or id(writer) in reach[id(k)]]
        if read_later or fails_later:
            del in_place[new]
    order = _order(grouping, data, in_place, home, fallible)
    if order is None:
        in_place = {}
        order = _order(grouping, data, in_place, home, fallible)
    assert order is not None
    copied = {new: old for new, old in state.items() if new not in in_place}
    guard = max([order.index(k) + 1 for k in fallible], default=0)
    return Schedule(order, in_place, copied, guard)


Edges = dict[int, set[int]]  # for each kernel (by identity) the kernels that come before it


def _data_edges(grouping: Grouping, home: dict[int, Kernel]) -> Edges:
    return {id(k): {id(home[x]) for x in k.inputs if x in home and home[x] is not k} for k in grouping.kernels}


def _reach(kernels: list[Kernel], data: Edges) -> Edges:
    """For each kernel itself and all that come before it; kernels are in an order of the data."""
    reach: Edges = {}
    for kernel in kernels:
        reach[id(kernel)] = {id(kernel)}.union(*[reach[k] for k in data[id(kernel)]])
    return reach


def _order(
    grouping: Grouping, data: Edges, in_place: dict[int, int], home: dict[int, Kernel], fallible: list[Kernel]
) -> list[Kernel] | None:
    """The first order in which all edges point forward, small ends last; None when there is a cycle."""
    kernels = grouping.kernels
    before = {k: set(found) for k, found in data.items()}
    for new, old in in_place.items():
        writer = home[new]
        before[id(writer)] |= {id(k) for k in kernels if old in k.inputs and k is not writer}
        before[id(writer)] |= {id(k) for k in fallible if k is not writer}
    small = _small_ends(grouping, data)
    number = {id(k): (id(k) in small, i) for i, k in enumerate(kernels)}
    after: Edges = {id(k): set() for k in kernels}
    for k, found in before.items():
        for other in found:
            after[other].add(k)
    waiting = {k: len(found) for k, found in before.items()}
    ready = [number[k] for k, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        kernel = kernels[heapq.heappop(ready)[1]]
        order.append(kernel)
        for k in after[id(kernel)]:
            waiting[k] -= 1
            if not waiting[k]:
                heapq.heappush(ready, number[k])
    return order if len(order) == len(kernels) else None


def _small_ends(grouping: Grouping, data: Edges) -> set[int]:
    """Kernels of a few elements that no larger one waits for: they would stand between those that go through images."""
    found, needed = set[int](), set[int]()
    if not any(map(grouping.slides, range(len(grouping.nodes)))):
        return found
    for kernel in reversed(grouping.kernels):
        few = all(grouping.nodes[x].size <= SMALL for x in [*kernel.inputs, *kernel.outputs])
        if few and kernel.kind != "contract" and id(kernel) not in needed:
            found.add(id(kernel))
        else:
            needed |= data[id(kernel)]
    return found
