"""Common subexpressions: equal operations on equal inputs are computed once."""

from collections.abc import Hashable
from typing import Any

import numpy as np

from chainrule.program.program import INPUT, Builder, Node, Program, rewrite


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.name, value.tobytes()
    return value  # type: ignore[no-any-return]


def common(program: Program) -> Program:
    """Merge equal nodes; the first one stays."""
    seen: dict[Hashable, int] = {}

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is INPUT:
            return None
        key = (node.primitive, node.inputs, tuple((name, _key(value)) for name, value in node.attributes.items()))
        if key not in seen:
            seen[key] = builder.add(node)
        return seen[key]

    return rewrite(program, rule)
