"""Why a gradient is what it is: the contributions that it is the sum of, each upstream × local derivative."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.explain.arrays import number_to_json
from chainrule.explain.graph import Edge, Graph, Node
from chainrule.explain.local import column, slopes

Index = tuple[int, ...]
WIDTH = 8  # contributions that are shown of each sum
DEPTH = 3


@dataclass(frozen=True)
class Rest:
    """The contributions that are not shown: how many, and their sum."""

    count: int
    value: float


@dataclass
class Why:
    """One gradient and what it is made of.

    name      '0.weight[3, 41]': what the gradient is by
    node      the number of the node in the explanation, and `index` the element of it
    value     the gradient by it: the sum of `children` and `rest`
    part      upstream × local derivative: what this one adds to the gradient above it; at the root the gradient itself
    upstream, local  the two factors; None at the root
    share     part ÷ the gradient above it; None at the root, or where that is 0
    text      the same in words
    through   what the gradient passes unchanged on its way: names of nodes

    `expand` fills in the children of one that has none yet.
    """

    name: str
    node: int
    index: Index
    value: float
    part: float
    upstream: float | None = None
    local: float | None = None
    share: float | None = None
    text: str = ""
    through: tuple[str, ...] = ()
    children: "list[Why]" = field(default_factory=list)
    rest: Rest | None = None
    expanded: bool = False
    source: "Finder | None" = field(default=None, repr=False)

    def expand(self, depth: int = 1, width: int = WIDTH) -> "Why":
        """Find the contributions, largest first, `depth` levels down; returns itself."""
        if depth > 0 and self.source is not None:
            self.source.fill(self, width)
            for child in self.children:
                child.expand(depth - 1, width)
        return self

    def __iter__(self) -> "Iterator[Why]":
        """This one and all below it that have been expanded."""
        yield self
        for child in self.children:
            yield from child

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        rest = None if self.rest is None else {"count": self.rest.count, "value": number_to_json(self.rest.value)}
        numbers = {"value": self.value, "part": self.part, "upstream": self.upstream, "local": self.local}
        return {
            "name": self.name,
            "what": "gradient",
            **{name: None if x is None else number_to_json(x) for name, x in numbers.items()},
            "share": None if self.share is None else number_to_json(self.share),
            "text": self.text,
            "through": list(self.through),
            "node": self.node,
            "index": list(self.index),
            "children": [child.to_dict() for child in self.children],
            "rest": rest,
        }


@dataclass(frozen=True)
class Term:
    """One contribution: the element of a consumer, its gradient, and the local derivative."""

    edge: Edge
    index: Index
    upstream: float
    local: float

    @property
    def value(self) -> float:
        """What it adds."""
        return self.upstream * self.local


class Finder:
    """Finds contributions in a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._slopes: dict[Edge, np.ndarray | None] = {}

    def root(self, node: Node, index: Index) -> Why:
        """The gradient by one element of a node."""
        assert node.gradient is not None
        value = float(node.gradient[index])
        return Why(element(node, index), node.id, index, value, value, text=self._speak(node, index), source=self)

    def fill(self, why: Why, width: int) -> None:
        """Give one its children, the largest first."""
        if why.expanded:
            return
        why.expanded = True
        through: list[str] = []
        node, index = self.graph.nodes[why.node], why.index
        terms = self.terms(node, index)
        while len(terms) == 1 and terms[0].local == 1:  # it only passes through
            node, index = self.graph.nodes[terms[0].edge.node], terms[0].index
            through.append(element(node, index))
            terms = self.terms(node, index)
        why.through = tuple(through)
        terms.sort(key=lambda term: -abs(term.value) if np.isfinite(term.value) else -np.inf)
        shown = [term for term in terms if term.value != 0] or terms[:1]
        shown = shown if len(shown) <= width else shown[:width]
        total = sum(term.value for term in terms)
        why.children = [self._child(term, total) for term in shown]
        if len(terms) > len(shown):  # those that add 0 among them
            why.rest = Rest(len(terms) - len(shown), float(sum(t.value for t in terms[len(shown) :])))

    def terms(self, node: Node, index: Index) -> list[Term]:
        """All contributions to the gradient by one element that are not 0."""
        found = []
        for edge in self.graph.consumers.get(node.id, []):
            consumer = self.graph.nodes[edge.node]
            upstream = consumer.gradient
            if upstream is None:
                continue
            local = self._local(edge, consumer, index)
            if isinstance(local, float):
                found.append(Term(edge, index, float(upstream[index]), local)) if local != 0 else None
                continue
            places = [tuple(map(int, place)) for place in np.argwhere(local != 0)]
            found += [Term(edge, place, float(upstream[place]), float(local[place])) for place in places]
        return found

    def _local(self, edge: Edge, consumer: Node, index: Index) -> Any:
        """∂consumer/∂element: a number for an elementwise operation, else an array of the consumer's shape."""
        inputs = [self.graph.nodes[i].value for i in consumer.inputs]
        if edge not in self._slopes:
            self._slopes[edge] = slopes(consumer, edge.position, inputs)
        slope = self._slopes[edge]
        return column(consumer, edge.position, inputs, index) if slope is None else float(slope[index])

    def _child(self, term: Term, total: float) -> Why:
        node = self.graph.nodes[term.edge.node]
        share = term.value / total if total and np.isfinite(total) else None
        factor = self._factor(term)
        return Why(
            element(node, term.index), node.id, term.index, term.upstream, term.value, term.upstream, term.local, share,
            f"{self._speak(node, term.index)} × {factor}" if factor else self._speak(node, term.index), source=self,
        )  # fmt: skip

    def _speak(self, node: Node, index: Index) -> str:
        """'∂loss/∂ unit 3 of 0 Linear, row 0'."""
        if node.role:
            return f"∂loss/∂{element(node, index)}"
        where = f"{node.location.module} {node.location.layer}".strip()
        of = f"{where or node.op} {list(index)}" if index else where or node.op
        return f"error of {of}" + (f" ({node.op})" if where else "")

    def _factor(self, term: Term) -> str:
        """What the local derivative is: the other operand of a product, or the slope of a function."""
        node = self.graph.nodes[term.edge.node]
        if node.tensor.primitive.name in ("mul", "matmul", "convolve") and len(node.inputs) == 2:
            other = self.graph.nodes[node.inputs[1 - term.edge.position]]
            while not other.role and other.tensor.primitive.kind == "layout" and len(other.inputs) == 1:
                other = self.graph.nodes[other.inputs[0]]
            return other.label
        return "" if term.local in (1, -1) else f"slope of {node.op}"


def element(node: Node, index: Index) -> str:
    """'0.weight[3, 41]', or '%12[0, 3]' of a node without a name."""
    name = node.name or f"%{node.id}"
    return f"{name}[{', '.join(map(str, index))}]" if index else name
