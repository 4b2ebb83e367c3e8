"""Explicit copies, where the memory of a value has to be its own or in another order.

An output owns its memory. The operands of a product are matrices with one axis of neighbouring elements, and the rows
of a reduction's operand are one axis of memory. A reshape that no strides express, and the operands of what looks
things up, are put in order first.
"""

from collections.abc import Sequence
from dataclasses import replace

from chainrule.core.primitive import Primitive
from chainrule.passes.kernels import reduction_sizes
from chainrule.passes.views import Axes, View, extend_views, in_memory, is_lookup, layout_view, split
from chainrule.passes.winograd import winograd_convolution
from chainrule.primitives import contract, index, layout
from chainrule.primitives import elementwise as e
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite

copy = e.elementwise("copy", lambda m, x: x)
IN_ORDER = ("index", "scan", "window")  # kinds that read dense memory; loops read any piece that is contiguous
ALONG_AN_AXIS = ("argmax", "argmin")


def matrix(view: View) -> tuple[Axes, int, int] | None:
    """The strides (stack, rows, columns) of a stack of matrices; None where it has none that a product can use.

    Several axes of a stack that do not follow each other, as examples and heads of an attention, have a stride each.

    >>> matrix(View(0, (3, 4), (1, 3))), matrix(View(0, (3, 4), (8, 2)))
    ((0, 1, 3), None)
    >>> matrix(View(0, (2, 5, 3, 4), (60, 4, 20, 1)))
    (((2, 60), (5, 4)), 20, 1)
    """
    stack = 1
    for n in view.shape[:-2]:
        stack *= n
    blocks = split(view.shape, view.strides, (stack, *view.shape[-2:]))
    if blocks is None or any(len(block) > 1 for block in blocks[1:]):
        return None
    a: Axes = tuple(blocks[0]) if len(blocks[0]) > 1 else sum(stride for _, stride in blocks[0])
    b, c = (block[0][1] if block else 0 for block in blocks[1:])
    rows, columns = view.shape[-2:]
    neighbours = {stride for n, stride in ((rows, b), (columns, c)) if n > 1}
    return (a, b, c) if not neighbours or (1 in neighbours and min(neighbours) > 0) else None


def in_order(primitive: Primitive) -> bool:
    """Whether it reads its operands as dense memory."""
    return primitive.kind in IN_ORDER or primitive.name in ALONG_AN_AXIS or primitive is winograd_convolution


def is_piece(node: Node, x: int, view: View) -> bool:
    """Whether an operand is one piece of a memory that a scatter_add reads where it lies: the rows that it adds."""
    return view.contiguous and node.primitive is index.scatter_add and node.inputs.index(x) == 2


def is_start(nodes: Sequence[Node], node: Node, x: int, view: View) -> bool:
    """Whether an operand is one number that all sums of a scatter_add begin with: it needs no memory."""
    number = nodes[view.base].primitive is CONSTANT and nodes[view.base].size == 1
    return number and node.primitive is index.scatter_add and x == node.inputs[0] and x != node.inputs[2]


def copies(program: Program) -> Program:
    """Insert the copies."""
    found: list[View] = []
    made: dict[int, int] = {}

    def copied(builder: Builder, x: int, like: Node) -> int:
        if x not in made:
            made[x] = builder.make(copy, x, like=like)
            extend_views(found, builder.nodes)
        return made[x]

    def needed(builder: Builder, node: Node, x: int) -> bool:
        view = found[x]
        if 0 in node.shape or 0 in view.shape:
            return False
        stored = in_memory(builder.nodes[view.base])
        if node.primitive is contract.matmul:
            return matrix(view) is None or not stored
        if node.primitive is layout.reshape:
            return layout_view(node, view) is None
        if is_lookup(builder.nodes, node):
            return False
        if node.primitive.kind == "control":
            return not view.contiguous or not stored
        if in_order(node.primitive):
            read = view.dense or is_piece(node, x, view)
            return not (read and stored) and not is_start(builder.nodes, node, x, view)
        if node.primitive.kind == "reduce":
            blocks = split(view.shape, view.strides, reduction_sizes(view.shape, node.attributes["axes"])[1])
            return blocks is None or len(blocks[-1]) > 1
        return False

    def rule(builder: Builder, node: Node) -> int | None:
        extend_views(found, builder.nodes)
        inputs = tuple([copied(builder, x, node) if needed(builder, node, x) else x for x in node.inputs])
        return None if inputs == node.inputs else builder.add(node.moved(inputs, node.of))

    return _own_outputs(rewrite(program, rule))


def _own_outputs(program: Program) -> Program:
    """Each output is a node of its own, with dense memory that is no input's and no other output's."""
    builder = Builder(list(program.nodes))
    found: list[View] = []
    extend_views(found, builder.nodes)
    taken: set[int] = set()
    outputs = []
    for out in program.outputs:
        view, node = found[out.node], program.nodes[out.node]
        base = program.nodes[view.base]
        if node.size == 0:
            outputs.append(out)
        elif view.base in taken or base.primitive.kind == "source" or not view.dense or base.size != node.size:
            outputs.append(replace(out, node=builder.make(copy, out.node, like=node)))
        else:
            taken.add(view.base)
            outputs.append(out)
    return replace(program, nodes=tuple(builder.nodes), outputs=tuple(outputs))
