"""An explanation as JSON values: which nodes are written, and how much of their arrays."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.explanation.arrays import WHOLE, array_to_json
from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.local import slopes
from chainrule.explanation.unroll import Inside, Returned

if TYPE_CHECKING:
    from chainrule.explanation.explanation import Parameter

UNFOLDED = 16384  # numbers inside of a loop whose steps are written one by one
BUDGET = 1_000_000  # numbers of nodes that are written, about
LEVELS = (WHOLE, 1024, 256, 64)


def fitting(graph: Graph) -> int:
    """How many elements an array may have that is written whole, so that the whole stays within its budget."""
    nodes = list(shown(graph))
    sizes = np.array([node.tensor.size for node in nodes])
    copies = np.array([2 + 2 * len(node.inputs) for node in nodes])  # value, gradient; what it hands down, by what
    return next((most for most in LEVELS if (np.minimum(sizes, most) * copies).sum() <= BUDGET), LEVELS[-1])


def shown(graph: Graph) -> Iterator[Node]:
    """The nodes, with large loops as one node."""
    for node in graph.nodes:
        folded = isinstance(node, (Inside, Returned)) and node.loop.size > UNFOLDED
        if not folded:
            yield node
        elif isinstance(node, Returned):
            yield _outside(node)


def _outside(returned: Returned) -> Node:
    """A loop as one node, that has what the loop was given as inputs."""
    loop = returned.loop
    return Node(returned.id, loop.tensor, loop.given, returned.name, "", returned.observation)


def _array(array: np.ndarray | None, whole: int) -> dict[str, Any] | None:
    return None if array is None else array_to_json(array, whole)


def node_to_json(node: Node, graph: Graph, whole: int) -> dict[str, Any]:
    """A node as JSON values, with what it hands to each of its inputs."""
    handed = []
    for position, to in enumerate(node.inputs):
        found = node.downstream(position)
        if found is not None:
            local = slopes(node, position, [graph.nodes[i].value for i in node.inputs])
            handed.append({"to": to, "value": _array(found, whole), "local": _array(local, whole)})
    where = node.location
    return {
        "id": node.id, "op": node.op, "inputs": list(node.inputs), "shape": list(node.shape),
        "dtype": node.tensor.dtype.name, "name": node.name, "role": node.role, "module": where.module,
        "layer": where.layer, "file": where.file, "line": where.line, "source": node.source, "rule": node.rule,
        "value": _array(node.value, whole), "gradient": _array(node.gradient, whole), "downstream": handed,
        "observed": node.observed,
    }  # fmt: skip


def parameter_to_json(p: "Parameter", whole: int) -> dict[str, Any]:
    """A parameter as JSON values: value, gradient, state and terms of its update."""
    update = p.update
    told: dict[str, Any] = {
        "name": p.name,
        "node": None if p.node is None else p.node.id,
        "value": _array(p.value, whole),
        "gradient": _array(p.gradient, whole),
        "update": None,
        "state": [],
        "terms": [],
    }
    if update is None:
        return told
    return told | {
        "update": _array(update.change, whole),
        "state": [
            {"name": s.name, "before": _array(s.before, whole), "after": _array(s.after, whole)} for s in update.slots
        ],
        "terms": [
            {"name": t.name, "symbol": t.symbol, "formula": t.formula, "value": _array(t.value, whole)}
            for t in update.terms
        ],
    }
