"""What has no elements is not computed: empty values become constants, and so does what is made of nothing."""

import numpy as np

from chainrule.primitives import contract, index, layout, reduce
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite

NEUTRAL = {layout.sum: 0, reduce.prod: 1, reduce.any: False, reduce.all: True}


def empties(program: Program) -> Program:
    """Replace empty values, reductions and products over no elements, and drop empty operands."""
    return rewrite(program, _rule)


def _filled(builder: Builder, node: Node, number: float) -> int:
    scalar = builder.make(CONSTANT, like=node, value=np.asarray(number, node.dtype))
    return builder.make(layout.broadcast, scalar, like=node, shape=node.shape) if node.shape else scalar


def _rule(builder: Builder, node: Node) -> int | None:
    if node.primitive.kind == "source":
        return None
    inputs = [builder.nodes[i] for i in node.inputs]
    if node.size == 0:
        return builder.make(CONSTANT, like=node, value=np.zeros(node.shape, node.dtype))
    if not any(x.size == 0 for x in inputs):
        return None
    if node.primitive in NEUTRAL:
        return _filled(builder, node, NEUTRAL[node.primitive])
    if node.primitive in (contract.matmul, layout.pad):
        return _filled(builder, node, 0)
    if node.primitive is layout.concat:
        rest = [i for i, x in zip(node.inputs, inputs, strict=True) if x.size]
        return rest[0] if len(rest) == 1 else builder.make(layout.concat, *rest, like=node, **node.attributes)
    if node.primitive is index.scatter_add:
        return node.inputs[0]
    return None
