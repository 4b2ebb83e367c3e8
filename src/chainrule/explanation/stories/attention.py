"""Attention, head by head: scores, weights, what is read, and their errors.

With s = q·kᵀ·scale, w = softmax(s) and y = w·v: ∂L/∂w = ∂L/∂y · vᵀ, ∂L/∂v = wᵀ · ∂L/∂y,
∂L/∂s = w · (∂L/∂w − Σ ∂L/∂w · w), ∂L/∂q = scale · ∂L/∂s · k, ∂L/∂k = scale · ∂L/∂sᵀ · q.
Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.
"""

from typing import NamedTuple

from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.stories.story import Story, View
from chainrule.functions.attention import _softmax_rule
from chainrule.functions.custom import CUSTOM

HEADS = {2: (), 3: ("head",), 4: ("row", "head"), 5: ("row", "group", "head")}


class Parts(NamedTuple):
    """The nodes of one attention: what its two products multiply, and what stands between them.

    product is q·kᵀ; scores are scaled and masked; read is what is multiplied with the values: the weights after dropout
    """

    queries: Node
    keys: Node
    product: Node
    scores: Node
    weights: Node
    read: Node
    values: Node
    result: Node


def attentions(graph: Graph, nodes: tuple[Node, ...]) -> list[Parts]:
    """All attentions among these nodes."""
    found = [parts_of(graph, node) for node in nodes if is_weights(node)]
    return [parts for parts in found if parts is not None]


def is_weights(node: Node) -> bool:
    """Whether a node is the softmax of an attention."""
    return node.tensor.primitive is CUSTOM and node.tensor.attributes["vjp"] is _softmax_rule


def parts_of(graph: Graph, weights: Node) -> Parts | None:
    """What belongs to the weights of an attention; None where it is put together in another way."""
    scores = graph.nodes[weights.inputs[1]]
    product, read, after = scores, weights, _next(graph, weights)
    while product.op != "matmul":  # scale and masks: the scores are the first floating-point operand of their shape
        operands = [graph.nodes[i] for i in product.inputs if graph.nodes[i].value.dtype.kind not in "biu"]
        inner = next((n for n in operands if not n.role and n.value.size == scores.value.size), None)
        if inner is None:
            return None
        product = inner
    while after is not None and after.op != "matmul":
        read, after = after, _next(graph, after)
    if after is None:
        return None
    queries, keys = (graph.nodes[i] for i in product.inputs)
    values = graph.nodes[after.inputs[1]]
    if keys.op == "transpose":
        keys = graph.nodes[keys.inputs[0]]
    return Parts(queries, keys, product, scores, weights, read, values, after)


def _next(graph: Graph, node: Node) -> Node | None:
    """The one that takes part in what comes after: of several readers (a mean of the weights, say) that of the loss."""
    readers = [graph.nodes[i] for i in graph.readers.get(node.id, ())]
    led = [reader for reader in readers if reader.gradient is not None] or readers
    return led[0] if led else None


def attention(view: View, parts: Parts, origin: str) -> Story:
    """One attention: all heads of it."""
    story = Story("attention")
    heads = HEADS.get(len(parts.scores.shape), ())
    pairs, queries, keys = (*heads, "query", "key"), (*heads, "query", "feature"), (*heads, "key", "feature")
    story.add("queries", "q", "q = x · Wqᵀ + b" if view.module is not None else "q", queries, parts.queries.value)
    story.add("keys", "k", "k = x · Wkᵀ + b" if view.module is not None else "k", keys, parts.keys.value)
    story.add("values", "v", "v = x · Wvᵀ + b" if view.module is not None else "v", keys, parts.values.value)
    story.add("scores", "s", "s = q · kᵀ / √E, −∞ where a mask hides a key", pairs, parts.scores.value)
    story.add("weights", "w", "w = eˢ / Σ eˢ over keys", pairs, parts.weights.value)
    if parts.read is not parts.weights:
        story.add("weights after dropout", "w̃", "w̃ = m · w", pairs, parts.read.value)
    read = "w" if parts.read is parts.weights else "w̃"
    story.add("output", "y", f"y = {read} · v", queries, parts.result.value)
    story.add("error of output", "∂L/∂y", f"∂L/∂y: {origin}", queries, parts.result.gradient)
    if parts.read is not parts.weights:
        story.add("error of weights after dropout", "∂L/∂w̃", "∂L/∂w̃ = ∂L/∂y · vᵀ", pairs, parts.read.gradient)
        story.add("error of weights", "∂L/∂w", "∂L/∂w = m · ∂L/∂w̃", pairs, parts.weights.gradient)
    else:
        story.add("error of weights", "∂L/∂w", "∂L/∂w = ∂L/∂y · vᵀ", pairs, parts.weights.gradient)
    story.add("error of scores", "∂L/∂s", "∂L/∂s = w · (∂L/∂w − Σ ∂L/∂w · w)", pairs, parts.scores.gradient)
    story.add("query gradient", "∂L/∂q", "∂L/∂q = ∂L/∂s · k / √E", queries, parts.product.downstream(0))
    turned = parts.product.downstream(1)
    handed = None if turned is None else turned.swapaxes(-1, -2)
    story.add("key gradient", "∂L/∂k", "∂L/∂k = ∂L/∂sᵀ · q / √E", keys, handed)
    story.add("value gradient", "∂L/∂v", f"∂L/∂v = {read}ᵀ · ∂L/∂y", keys, parts.result.downstream(1))
    return story
