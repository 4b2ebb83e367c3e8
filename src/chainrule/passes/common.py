"""Common subexpressions: equal operations on equal inputs are computed once."""

from collections.abc import Hashable

from chainrule.program.program import INPUT, Builder, Node, Program, plain, rewrite


def common(program: Program) -> Program:
    """Merge equal nodes; the first one stays."""
    seen: dict[Hashable, int] = {}

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is INPUT:
            return None
        key = (node.primitive, node.inputs, plain(node.attributes))
        if key not in seen:
            seen[key] = builder.add(node)
        return seen[key]

    return rewrite(program, rule)
