"""Constant folding: what is made of constants alone is computed now.

Elementwise operations on equal elements stay one number, stretched, so folding never makes memory.
"""

import numpy as np

from chainrule.primitives.layout import broadcast
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite

LARGEST = 1024  # elements of a constant that is worth storing rather than computing in each step


def uniform(builder: Builder, i: int) -> np.ndarray | None:
    """The number that all elements of node `i` are, as an array without axes; None where that is not known."""
    node = builder.nodes[i]
    if node.primitive is broadcast:
        node = builder.nodes[node.inputs[0]]
    if node.primitive is CONSTANT and node.size == 1:
        value: np.ndarray = node.attributes["value"]
        return value.reshape(())
    return None


def _rule(builder: Builder, node: Node) -> int | None:
    if not node.inputs or node.primitive is broadcast:
        return None
    if node.primitive.kind == "elementwise" and node.shape:
        values = [uniform(builder, i) for i in node.inputs]
        known = [v for v in values if v is not None]
        if len(known) == len(values):
            one = node.primitive.evaluate(node.dtype, tuple(known), node.attributes)
            scalar = builder.make(CONSTANT, like=node, value=one)
            return builder.make(broadcast, scalar, like=node, shape=node.shape)
    sources = [builder.nodes[i] for i in node.inputs]
    if node.size <= LARGEST and all(s.primitive is CONSTANT for s in sources):
        arrays = tuple(s.attributes["value"] for s in sources)
        value = node.primitive.evaluate(node.dtype, arrays, node.attributes)
        return builder.make(CONSTANT, like=node, value=np.ascontiguousarray(value).reshape(node.shape))
    return None


def fold(program: Program) -> Program:
    """Compute what is made of constants alone."""
    return rewrite(program, _rule)
