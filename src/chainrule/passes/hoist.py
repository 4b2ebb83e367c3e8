"""What is the same in every step of a loop is computed once, before it.

A node of a body that depends on constants alone moves out, and its value comes in as one more constant. Broadcasts and
reshapes, which cost nothing, stay where they are, and so do single numbers and positions.
"""

from dataclasses import replace
from typing import Any

from chainrule.control import LOOPS
from chainrule.primitives import layout
from chainrule.program.program import INPUT, Builder, Node, Program, rewrite

FREE = (layout.broadcast, layout.reshape)


def hoist(program: Program) -> Program:
    """Take what does not change out of all loops, the inner ones first."""

    def rule(builder: Builder, node: Node) -> int | None:
        return _hoisted(builder, node) if node.primitive in LOOPS else None

    return rewrite(program, rule)


def _hoisted(builder: Builder, node: Node) -> int | None:
    body, count = hoist(node.attributes["body"]), node.attributes["constants"]
    steady = _steady(body, count)
    wanted = _borders(body, steady)
    outer: dict[int, int] = dict(zip(body.inputs[:count], node.inputs[:count], strict=True))
    for n in sorted(_below(body, wanted)):
        inside = body.nodes[n]
        if n not in outer:
            outer[n] = builder.add(
                replace(inside, inputs=tuple([outer[x] for x in inside.inputs]), part=node.part, of=node.of)
            )
    inputs = (*node.inputs[:count], *[outer[n] for n in wanted], *node.inputs[count:])
    attributes: dict[str, Any] = {**node.attributes, "body": _reduced(body, count, wanted)}
    attributes["constants"] = count + len(wanted)
    return builder.add(replace(node, inputs=inputs, attributes=attributes))


def _steady(body: Program, count: int) -> set[int]:
    """The nodes of a body that depend on its first inputs alone."""
    found = set(body.inputs[:count])
    for n, node in enumerate(body.nodes):
        if node.primitive is not INPUT and (node.inputs or node.size == 1) and found.issuperset(node.inputs):
            found.add(n)
    return found


def _borders(body: Program, steady: set[int]) -> list[int]:
    """The steady nodes that others read, through what costs nothing."""
    given, found = set(body.inputs), set[int]()
    todo = [x for n, node in enumerate(body.nodes) if n not in steady for x in node.inputs]
    todo += [out.node for out in body.outputs]
    seen = set[int]()
    while todo:
        n = todo.pop()
        if n in seen or n not in steady or n in given:
            continue
        seen.add(n)
        node = body.nodes[n]
        if node.primitive in FREE or node.primitive.kind == "source":
            todo.extend(node.inputs)
        else:
            found.add(n)
    return sorted(found)


def _below(body: Program, wanted: list[int]) -> set[int]:
    """The nodes that these are made of, and these."""
    found = set(wanted)
    for n in reversed(range(len(body.nodes))):
        if n in found:
            found.update(body.nodes[n].inputs)
    return found


def _reduced(body: Program, count: int, wanted: list[int]) -> Program:
    """The body with these nodes as inputs behind the first `count`."""
    builder, new = Builder(), dict[int, int]()
    for n, node in enumerate(body.nodes):
        if n in wanted:
            attributes = {"name": f"steady.{n}", "shape": node.shape, "dtype": node.dtype}
            new[n] = builder.add(Node(INPUT, (), attributes, node.shape, node.dtype, node.location))
        else:
            of = None if node.of is None else new[node.of]
            new[n] = builder.add(node.moved(tuple([new[x] for x in node.inputs]), of))
    inputs = (*body.inputs[:count], *wanted, *body.inputs[count:])
    outputs = tuple(
        replace(out, node=new[out.node], updates=None if out.updates is None else new[out.updates])
        for out in body.outputs
    )
    return Program(body.name, tuple(builder.nodes), tuple(new[i] for i in inputs), outputs)
