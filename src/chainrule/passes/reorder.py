"""Values put in order before they are met element by element, instead of a few elements at a time.

The gradient of a convolution's kernel is made as [window, input channels, output channels], and its weight is
[output channels, input channels, window]. Met in the order of the weight, its rows are three elements, each from
another place. Put in order first, all that follows is one flat memory.
"""

from chainrule.passes.views import View, is_lookup, views
from chainrule.primitives import elementwise as e
from chainrule.program.program import Builder, Node, Program, rewrite

reorder = e.elementwise("reorder", lambda m, x: x)
"""A copy that is always stored, by a kernel of its own."""
SHORT = 8
"""Elements of a row from which on it is worked by rows, in whatever order they lie."""


def reorders(program: Program) -> Program:
    """Insert these copies, for what an elementwise node meets together with a value that lies in order."""
    found = views(program)
    scattered = {
        x
        for node in program.nodes
        if _elementwise(program, node) and any(_in_order(node, found[x]) for x in node.inputs)
        for x in node.inputs
        if _in_short_rows(node, found[x])
    }
    made: dict[int, int] = {}
    originals = iter(program.nodes)

    def rule(builder: Builder, node: Node) -> int | None:
        original = next(originals)
        if not _elementwise(program, original) or not scattered.intersection(original.inputs):
            return None
        inputs = list(node.inputs)
        for k, x in enumerate(original.inputs):
            if x in scattered:
                if x not in made:
                    made[x] = builder.make(reorder, inputs[k], like=node)
                inputs[k] = made[x]
        return builder.add(node.moved(tuple(inputs), node.of))

    return rewrite(program, rule)


def _elementwise(program: Program, node: Node) -> bool:
    return node.primitive.kind == "elementwise" and not is_lookup(program.nodes, node)


def _in_order(node: Node, view: View) -> bool:
    return view.shape == node.shape and view.dense


def _in_short_rows(node: Node, view: View) -> bool:
    """Whether rows are short, and neighbours in them are none in memory."""
    return view.shape == node.shape and node.ndim > 1 and 1 < view.shape[-1] < SHORT and abs(view.strides[-1]) > 1
