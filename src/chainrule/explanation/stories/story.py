"""A story: the numbers of a layer in the terms and the order of the textbook. What tells it looks at a View."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.explanation.arrays import WHOLE, array_to_json
from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.local import handed
from chainrule.explanation.unroll import Loop, leads
from chainrule.explanation.updates import Update

Array = np.ndarray
Axes = tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """One line of a story: a name, a symbol, a formula, what the axes are, and the numbers."""

    name: str
    symbol: str
    formula: str
    axes: Axes
    value: Array

    def to_dict(self, whole: int = WHOLE) -> dict[str, Any]:
        """As JSON values; arrays of more than `whole` elements in brief."""
        return {
            "name": self.name,
            "symbol": self.symbol,
            "formula": self.formula,
            "axes": list(self.axes),
            "value": array_to_json(self.value, whole),
        }


@dataclass
class Story:
    """The terms of a layer, in order. `story["slope"]` is the value of the term of that name.

    kind  'neurons', 'activation', 'convolution', 'normalisation', 'recurrent', 'attention' or 'loss'
    """

    kind: str
    terms: list[Term] = field(default_factory=list)

    def add(self, name: str, symbol: str, formula: str, axes: Sequence[str], value: Array | None) -> None:
        """Append a term; nothing where there is no value."""
        if value is not None:
            known = tuple(axes) if len(axes) == value.ndim else tuple([f"axis {k}" for k in range(value.ndim)])
            self.terms.append(Term(name, symbol, formula, known, np.asarray(value)))

    def __contains__(self, name: str) -> bool:
        return any(term.name == name for term in self.terms)

    def __getitem__(self, name: str) -> Array:
        found = next((term for term in self.terms if term.name == name), None)
        if found is None:
            raise KeyError(f"No term {name!r}; there are {', '.join(term.name for term in self.terms)}.")
        return found.value

    def to_dict(self, whole: int = WHOLE) -> dict[str, Any]:
        """As JSON values; arrays of more than `whole` elements in brief."""
        return {"kind": self.kind, "terms": [term.to_dict(whole) for term in self.terms]}


@dataclass(frozen=True)
class View:
    """A part of the graph that a story is told of: one call of a module, as a rule.

    path, layer, module  where it stands, its class, the module itself (None where no module stands for it)
    inputs, outputs      nodes that it was given, and that it returned
    nodes                what it computed, in order
    updates              what the optimiser made of each parameter, by name
    axes                 what the axes of a node are, by its number, where that is known
    """

    graph: Graph
    path: str
    layer: str
    module: Any
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    updates: Mapping[str, Update]
    axes: Mapping[int, Axes]

    @cached_property
    def parameters(self) -> tuple[Node, ...]:
        """The parameters that its nodes read, in order, frozen ones too."""
        found = {i: self.graph.nodes[i] for node in self.nodes for i in node.inputs}
        return tuple([node for _, node in sorted(found.items()) if is_parameter(node)])

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The loops in it."""
        return tuple([self.graph.loops[node.id] for node in self.nodes if node.id in self.graph.loops])

    def axes_of(self, node: Node, last: str = "unit") -> Axes:
        """What the axes of a node are: as for layers of its kind, else rows, places and units."""
        known = self.axes.get(node.id)
        if known is not None and len(known) == len(node.shape):
            return known
        return usual_axes(len(node.shape), last)

    def gradient(self, node: Node) -> Array | None:
        """What this view adds to the gradient by a node: of a weight that is used twice, the part of this use."""
        inside = {n.id for n in self.nodes}
        edges = self.graph.consumers.get(node.id, [])
        if all(edge.node in inside for edge in edges):
            return node.gradient
        parts = [self.graph.nodes[edge.node].downstream(edge.position) for edge in edges if edge.node in inside]
        found = [part for part in parts if part is not None]
        return np.sum(found, axis=0) if found else None

    def update(self, node: Node) -> tuple[str, Array] | None:
        """The formula and the value of the update of a parameter; None where it has none."""
        update = self.updates.get(node.name)
        if update is None:
            return None
        return (update.terms[-1].formula if update.terms else "Δw", update.change)

    def add_update(self, story: Story, node: Node, axes: Sequence[str], name: str, symbol: str) -> None:
        """The term of the update of a parameter, where it has one."""
        found = self.update(node)
        if found is not None:
            story.add(name, symbol, found[0].replace("Δw", symbol), axes, found[1])


def is_parameter(node: Node) -> bool:
    """Whether it is a parameter of the model, trained or frozen."""
    return node.role in ("parameter", "frozen")


def usual_axes(count: int, last: str = "unit") -> Axes:
    """('unit',), ('row', 'unit'), ('row', 'position', 'unit'), …"""
    middle = ("position",) if count == 3 else tuple([f"position {k}" for k in range(1, count - 1)])
    return () if count == 0 else (last,) if count == 1 else ("row", *middle, last)


def pull_back(graph: Graph, nodes: Iterable[Node], seeds: Mapping[int, Array]) -> dict[int, Array]:
    """Gradients of a part of the graph in float64: what `seeds` (by node) hand back through `nodes`, by the rules."""
    found = {i: np.asarray(seed, np.float64) for i, seed in seeds.items()}
    for node in reversed(list(nodes)):
        upstream = found.get(node.id)
        if upstream is None:
            continue
        operands = [graph.nodes[i].value for i in node.inputs]
        for position, i in enumerate(node.inputs):
            given = handed(node, position, operands, upstream) if leads(node, position) else None
            if given is not None:
                found[i] = found[i] + given if i in found else given
    return found


def wide(array: Array) -> Array:
    """The array in float64."""
    return array.astype(np.float64) if dtypes.is_float(array.dtype) else array
