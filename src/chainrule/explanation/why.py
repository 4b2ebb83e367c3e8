"""Why a gradient is what it is: the contributions that it is the sum of, each upstream × local derivative."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.explanation import terminal
from chainrule.explanation.arrays import number_to_json
from chainrule.explanation.graph import Edge, Graph, Node
from chainrule.explanation.local import column, slopes
from chainrule.explanation.places import Index, forward, misses
from chainrule.explanation.stories.pointwise import Pointwise, of_calls
from chainrule.explanation.words import Chain, Words, element

WIDTH = 8  # contributions that are shown of each sum
DEPTH = 3
NEGLIGIBLE = 1e-3  # of the largest contribution: what is less is not shown, but added up
SINGLE = 32  # levels with one contribution that are not counted as levels


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
    text      the same in words; `error` speaks of the upstream gradient, `factor` of the local derivative
    note      what the model returned and should have; why there are no contributions
    through   what the gradient passes unchanged on its way: names of nodes

    `expand` fills in the children of one that has none yet. `show` prints the tree.
    """

    name: str
    node: int
    index: Index
    value: float
    part: float
    upstream: float | None = None
    local: float | None = None
    share: float | None = None
    error: str = ""
    factor: str = ""
    note: str = ""
    through: tuple[str, ...] = ()
    children: "list[Why]" = field(default_factory=list)
    rest: Rest | None = None
    expanded: bool = False
    source: "Finder | None" = field(default=None, repr=False)
    parameter: Any = field(default=None, repr=False)  # the Parameter that it is an element of, at the root

    @property
    def text(self) -> str:
        """The two factors in words: 'error of unit 3 in row 0 (0 Linear) × input 17 in row 0 (x)'."""
        error = f"{self.error} [{self.note}]" if self.note else self.error
        return f"{error} × {self.factor}" if self.factor else error

    def expand(self, depth: int = 1, width: int = WIDTH) -> "Why":
        """Find the contributions, largest first, `depth` levels down; returns itself.

        Levels with one contribution do not count. Below what the model returned lies the loss: it is opened when asked
        for by `expand` of that very one.
        """
        waiting = [(self, depth, SINGLE)]
        while waiting and self.source is not None:
            why, left, free = waiting.pop()
            if left <= 0 or (why is not self and self.source.returned(why)):
                continue
            self.source.fill(why, width)
            alone = len(why.children) == 1 and why.rest is None and free > 0
            waiting += [(child, left if alone else left - 1, free - alone) for child in why.children]
        return self

    def show(self, console: Any = None) -> None:
        """Print it as a tree, with colours on a terminal."""
        terminal.show_why(self, console)

    def __str__(self) -> str:
        return "\n".join(terminal.why_lines(self))

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
            "note": self.note,
            "through": list(self.through),
            "node": self.node,
            "index": list(self.index),
            "children": [child.to_dict() for child in self.children],
            "rest": rest,
        }


@dataclass(frozen=True)
class Term:
    """One contribution: the element of a consumer, its gradient, and the local derivative.

    `function` is what lies between where that is an activation of several operations, told as one.
    """

    edge: Edge
    index: Index
    upstream: float
    local: float
    function: str = ""

    @property
    def value(self) -> float:
        """What it adds."""
        return self.upstream * self.local


class Finder:
    """Finds contributions in a graph."""

    def __init__(self, graph: Graph, words: Words) -> None:
        self.graph, self.words = graph, words
        self._slopes: dict[Edge, np.ndarray | None] = {}
        self._activations = of_calls(graph)

    def root(self, node: Node, index: Index) -> Why:
        """The gradient by one element of a node."""
        assert node.gradient is not None
        value = float(node.gradient[index])
        chain = self.chain(node, index)
        error = f"∂loss/∂{element(node, index)}" if node.role else self.words.error(chain)
        note = self.words.note(chain)
        return Why(element(node, index), node.id, index, value, value, error=error, note=note, source=self)

    def fill(self, why: Why, width: int) -> None:
        """Give one its children, the largest first."""
        if why.expanded:
            return
        why.expanded = True
        chain = self.chain(self.graph.nodes[why.node], why.index)
        terms = self.terms(*chain[-1])
        parameter = chain[0][0].role == "parameter"  # what it is added to, or multiplied with, is a line of its own
        while len(terms) == 1 and terms[0].local == 1 and not (parameter or self._weighs(terms[0].edge)):
            chain += self.chain(self.graph.nodes[terms[0].edge.node], terms[0].index)
            terms = self.terms(*chain[-1])
        why.through = tuple([element(node, index) for node, index in chain[1:]])
        terms.sort(key=lambda term: -abs(term.value) if np.isfinite(term.value) else -np.inf)
        least = NEGLIGIBLE * abs(terms[0].value) if terms else 0.0
        shown = [t for t in terms[:width] if t.value != 0 and not abs(t.value) < least] or terms[:1]
        total = sum(term.value for term in terms)
        why.children = [self._child(term, chain[-1][1], total) for term in shown]
        if len(terms) > len(shown):  # those that add 0 among them
            why.rest = Rest(len(terms) - len(shown), float(sum(t.value for t in terms[len(shown) :])))
        if not terms and self.graph.consumers.get(chain[-1][0].id) and not why.note:
            why.note = f"nothing comes back: {self._because(*chain[-1])}"

    def _because(self, node: Node, index: Index) -> str:
        """Why no gradient comes back to an element of a node that is used."""
        edges = self._edges(node, index)
        if node.id in self._activations:
            return f"the slope of {self._activations[node.id].name} is 0 here"
        if not edges:
            return "nothing depends on it"
        consumer = self.graph.nodes[edges[0].node]
        if len(edges) == 1 and self._weighs(edges[0]):
            return "what it is multiplied with is 0"
        if len(edges) == 1 and consumer.tensor.primitive.kind == "elementwise":
            return f"the slope of {consumer.location.layer or consumer.op} is 0 here"
        return "the local derivative is 0 here"

    def chain(self, node: Node, index: Index) -> Chain:
        """The element, and those that have the same gradient since they are what becomes of it and of nothing else."""
        found = [(node, index)]
        while True:
            node, index = found[-1]
            edges = self._edges(node, index)
            if len(edges) != 1 or node.id in self._activations:
                return found
            consumer = self.graph.nodes[edges[0].node]
            moved = forward(consumer, edges[0].position, index)
            if moved is None:
                if self._weighs(edges[0]) or found[0][0].role == "parameter":
                    return found
                slope = self._slope(edges[0], consumer)
                if slope is None or slope[index] != 1:
                    return found
            found.append((consumer, index if moved is None else moved))

    def returned(self, why: Why) -> bool:
        """Whether it is about what the model returned."""
        return self.words.returns(self.chain(self.graph.nodes[why.node], why.index))

    def terms(self, node: Node, index: Index) -> list[Term]:
        """All contributions to the gradient by one element that are not 0."""
        if node.id in self._activations:
            return self._through(self._activations[node.id], index)
        found = []
        for edge in self._edges(node, index):
            consumer = self.graph.nodes[edge.node]
            upstream = consumer.gradient
            if upstream is None:
                continue
            moved = forward(consumer, edge.position, index)
            if moved is not None:
                found.append(Term(edge, moved, float(upstream[moved]), 1.0))
                continue
            slope = self._slope(edge, consumer)
            if slope is not None:
                found += [Term(edge, index, float(upstream[index]), float(slope[index]))] if slope[index] != 0 else []
                continue
            local = column(consumer, edge.position, self._inputs(consumer), index)
            places = [tuple(map(int, place)) for place in np.argwhere(local != 0)]
            found += [Term(edge, place, float(upstream[place]), float(local[place])) for place in places]
        return found

    def _through(self, activation: Pointwise, index: Index) -> list[Term]:
        """The contribution by way of an activation of several operations."""
        edge = Edge(activation.after.id, 0, activation.before.id)
        if edge not in self._slopes:
            self._slopes[edge] = activation.slope()
        slope, upstream = self._slopes[edge], activation.after.gradient
        assert slope is not None
        if upstream is None or slope[index] == 0:
            return []
        return [Term(edge, index, float(upstream[index]), float(slope[index]), activation.name)]

    def _edges(self, node: Node, index: Index) -> list[Edge]:
        """Those who take the element."""
        edges = self.graph.consumers.get(node.id, [])
        return [edge for edge in edges if not misses(self.graph.nodes[edge.node], index)]

    def _weighs(self, edge: Edge) -> bool:
        """Whether it is a product with something of the network: which is told even where that is 1."""
        node = self.graph.nodes[edge.node]
        if node.tensor.primitive.name not in ("mul", "matmul", "convolve") or len(node.inputs) != 2:
            return False
        return self.graph.nodes[node.inputs[1 - edge.position]].role != "constant"

    def _inputs(self, node: Node) -> list[np.ndarray]:
        return [self.graph.nodes[i].value for i in node.inputs]

    def _slope(self, edge: Edge, consumer: Node) -> np.ndarray | None:
        """∂consumer/∂input where both have the same shape and element belongs to element; else None."""
        if edge not in self._slopes:
            self._slopes[edge] = slopes(consumer, edge.position, self._inputs(consumer))
        return self._slopes[edge]

    def _child(self, term: Term, at: Index, total: float) -> Why:
        node, index = self.graph.nodes[term.edge.node], term.index
        chain = self.chain(node, index)
        share = term.value / total if total and np.isfinite(total) else None
        factor = f"slope of {term.function}"
        if not term.function:
            factor = self.words.factor(node, term.edge.position, at, index, term.local)
        return Why(
            element(node, index), node.id, index, term.upstream, term.value, term.upstream, term.local, share,
            self.words.error(chain), factor, self.words.note(chain), source=self,
        )  # fmt: skip
