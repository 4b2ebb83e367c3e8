"""Transposed products: (A · B)ᵀ = Bᵀ · Aᵀ, so that what follows a product meets it the way it is written."""

from chainrule.passes.convolutions import patches
from chainrule.primitives import contract, layout
from chainrule.program.program import Builder, Node, Program, rewrite


def transposes(program: Program) -> Program:
    """Turn the transpose of a product that has no other reader into a product of transposes."""
    readers = program.readers()
    alone = {
        node.inputs[0]: i
        for i, node in enumerate(program.nodes)
        if node.primitive is layout.transpose
        and readers[node.inputs[0]] == 1
        and program.nodes[node.inputs[0]].primitive is contract.matmul
        and not _of_patches(program, program.nodes[node.inputs[0]].inputs[0])
        and node.attributes["axes"] == (*range(node.ndim - 2), node.ndim - 1, node.ndim - 2)
    }
    turned = {id(program.nodes[i]) for i in alone.values()}
    originals = iter(program.nodes)

    def rule(builder: Builder, node: Node) -> int | None:
        if id(next(originals)) not in turned:
            return None
        a, b = builder.nodes[node.inputs[0]].inputs
        swap = node.attributes["axes"]
        return builder.make(
            contract.matmul,
            *[_transposed(builder, x, swap, node) for x in (b, a)],
            like=builder.nodes[node.inputs[0]],
        )

    return rewrite(program, rule)


def _of_patches(program: Program, x: int) -> bool:
    """Whether an operand is never stored, which only a left one can be."""
    node = program.nodes[x]
    return node.primitive is patches or (node.primitive is layout.transpose and _of_patches(program, node.inputs[0]))


def _transposed(builder: Builder, x: int, axes: tuple[int, ...], like: Node) -> int:
    node = builder.nodes[x]
    if node.primitive is layout.transpose and node.attributes["axes"] == axes:
        return node.inputs[0]
    return builder.make(layout.transpose, x, like=like, axes=axes)
