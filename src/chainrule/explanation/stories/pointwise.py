"""Functions that work element by element: which nodes are one, and its slope.

A function such as GELU is several nodes. Its slope follows from their rules: as each element depends on one element
alone, what ones hand back through these nodes is the derivative.
"""

from collections.abc import Sequence

import numpy as np

from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.stories.story import Array, View, pull_back
from chainrule.functions.custom import CUSTOM

FORMULAS = {
    "Sigmoid": ("σ(z) = 1 / (1 + e⁻ᶻ)", "f′(z) = f(z) · (1 − f(z))"),
    "Tanh": ("tanh(z)", "f′(z) = 1 − f(z)²"),
    "ReLU": ("max(0, z)", "f′(z) = 1 where z > 0, else 0"),
    "Softplus": ("log(1 + eᶻ)", "f′(z) = σ(z)"),
    "GELU": ("z · Φ(z)", "f′(z) = Φ(z) + z · φ(z)"),
    "SiLU": ("z · σ(z)", "f′(z) = σ(z) · (1 + z · (1 − σ(z)))"),
    "Identity": ("z", "f′(z) = 1"),
}
NAMES = {("sigmoid",): "Sigmoid", ("tanh",): "Tanh", ("softplus",): "Softplus", ("less_equal", "where"): "ReLU"}


class Pointwise:
    """A function of each element of `before`, made of `nodes`, the last of which is its value.

    name  its class, or what its operations tell
    """

    def __init__(self, graph: Graph, before: Node, nodes: Sequence[Node], name: str = "") -> None:
        self.graph, self.before, self.nodes = graph, before, nodes
        self.name = name or NAMES.get(tuple([node.op for node in nodes if node.op != "cast"]), "f")

    @property
    def after(self) -> Node:
        """The node of its value."""
        return self.nodes[-1]

    @property
    def formula(self) -> str:
        """The function as the textbook writes it."""
        return f"f(z) = {FORMULAS[self.name][0]}" if self.name in FORMULAS else f"f(z) = {self.name}(z)"

    @property
    def slope_formula(self) -> str:
        """Its derivative."""
        return FORMULAS[self.name][1] if self.name in FORMULAS else "f′(z) = ∂f(z)/∂z"

    def slope(self) -> Array:
        """f′(z) for each element, in float64."""
        found = pull_back(self.graph, self.nodes, {self.after.id: np.ones(self.after.shape)})
        return found.get(self.before.id, np.zeros(self.before.shape))


def of_view(view: View) -> Pointwise | None:
    """The function of a module that works element by element; None of any other module."""
    return _of(view.graph, view.layer, view.inputs, view.outputs, view.nodes)


def of_calls(graph: Graph) -> dict[int, Pointwise]:
    """The functions of modules that are several operations and that alone read what they are given: by its number."""
    found = {}
    for call in graph.calls:
        inputs, outputs = [[n for n in map(graph.of, x) if n is not None] for x in (call.inputs, call.outputs)]
        computed = [node for node in graph.of_call(call) if not node.role]
        function = _of(graph, call.layer, inputs, outputs, computed)
        if function is not None and len(function.nodes) > 1:
            inside = {node.id for node in function.nodes}
            if all(edge.node in inside for edge in graph.consumers.get(function.before.id, [])):
                found[function.before.id] = function
    return found


def _of(
    graph: Graph, layer: str, inputs: Sequence[Node], outputs: Sequence[Node], nodes: Sequence[Node]
) -> Pointwise | None:
    if len(inputs) != 1 or len(outputs) != 1 or not nodes or nodes[-1] is not outputs[0]:
        return None
    given = inputs[0]
    depends = {given.id}
    for node in nodes:
        if any(i in depends for i in node.inputs):
            if not _is_pointwise(node, given):
                return None
            depends.add(node.id)
    inside = [node for node in nodes if node.id in depends]
    return Pointwise(graph, given, inside, layer) if outputs[0].id in depends else None


def after(graph: Graph, z: Node, taken: set[int]) -> Pointwise | None:
    """The longest function of each element that follows a node alone: nobody else reads anything on the way.

    Nodes that are `taken` belong to modules of their own; those without a layer are the loss.
    """
    inside: dict[int, Node] = {z.id: z}
    found: list[Node] = []
    for node in graph.nodes[z.id + 1 :]:
        if node.id in taken or not node.location.layer or not _is_pointwise(node, z):
            continue
        given = [graph.nodes[i] for i in node.inputs]
        if any(x.id in inside for x in given) and all(x.id in inside or _is_constant(x, graph) for x in given):
            inside[node.id] = node
            if _is_closed(graph, inside, node.id):
                found = [n for n in inside.values() if n is not z]
    return Pointwise(graph, z, found) if found else None


def _is_pointwise(node: Node, like: Node) -> bool:
    primitive = node.tensor.primitive
    return primitive.kind == "elementwise" and primitive is not CUSTOM and node.shape == like.shape


def _is_constant(node: Node, graph: Graph) -> bool:
    while node.tensor.primitive.kind == "layout" and len(node.inputs) == 1:
        node = graph.nodes[node.inputs[0]]
    return node.role == "constant"


def _is_closed(graph: Graph, inside: dict[int, Node], last: int) -> bool:
    """Whether only the last of these nodes is read from outside."""
    return all(reader in inside for i in inside if i != last for reader in graph.readers.get(i, ()))
