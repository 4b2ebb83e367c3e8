"""The memory plan: how long each value lives, and the most bytes that are alive at once."""

from dataclasses import dataclass

from chainrule.program.program import CONSTANT, INPUT, Program

VIEWS = ("reshape", "transpose", "broadcast", "slice")  # they may share the memory of their input


@dataclass(frozen=True)
class MemoryPlan:
    """For each node the storage that it lives in and that storage's last reader; bytes without inputs and constants.

    storage     the node whose memory it shares; itself unless it is a view
    last_use    for each storage the number of the last node that reads it (len(nodes) when it comes out)
    peak_bytes  the most bytes of computed values alive at once
    peak_at     the node during which that is
    """

    storage: tuple[int, ...]
    last_use: tuple[int, ...]
    peak_bytes: int
    peak_at: int


def plan_memory(program: Program) -> MemoryPlan:
    """Follow the nodes in order, counting a value from the node that makes it to its last reader."""
    end = len(program.nodes)
    storage: list[int] = []
    for i, node in enumerate(program.nodes):
        storage.append(storage[node.inputs[0]] if node.primitive.name in VIEWS else i)
    last = list(range(end))
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            last[storage[x]] = max(last[storage[x]], i)
    for out in program.outputs:
        last[storage[out.node]] = end
    alive = peak = peak_at = 0
    ending: dict[int, list[int]] = {}
    for i, node in enumerate(program.nodes):
        if storage[i] == i and node.primitive not in (INPUT, CONSTANT):
            alive += node.nbytes
            ending.setdefault(last[i], []).append(node.nbytes)
        if alive > peak:
            peak, peak_at = alive, i
        alive -= sum(ending.pop(i, ()))
    return MemoryPlan(tuple(storage), tuple(last[s] for s in storage), peak, peak_at)
