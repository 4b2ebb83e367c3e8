"""Dead code: what no output needs is dropped. Inputs stay, they are the signature."""

from chainrule.functions.custom import AFTER
from chainrule.program.program import INPUT, Builder, Node, Program, rewrite


def dead(program: Program) -> Program:
    """Drop nodes that lead to no output."""
    needed = {out.node for out in program.outputs}
    for i in range(len(program.nodes) - 1, -1, -1):
        if i in needed or program.nodes[i].primitive is INPUT:
            needed.add(i)
            needed.update(program.nodes[i].inputs)
    if len(needed) == len(program.nodes):
        return program
    return rewrite(program, lambda builder, node: None, needed.__contains__)


def forget_order(program: Program) -> Program:
    """Drop the `after` nodes, which kept recomputed values (checkpoint) from being merged with the originals."""

    def rule(builder: Builder, node: Node) -> int | None:
        return node.inputs[0] if node.primitive is AFTER else None

    return rewrite(program, rule)
