"""The passes every Program goes through, in this order, whatever engine runs it. Verified after each.

The body of a loop goes through them by itself, first.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from chainrule.passes.common import common
from chainrule.passes.dead import dead, forget_order
from chainrule.passes.fold import fold
from chainrule.passes.simplify import simplify
from chainrule.program.program import Builder, Node, Program, rewrite, verify

Pass = Callable[[Program], Program]

PIPELINE: tuple[Pass, ...] = (dead, fold, simplify, common, dead, forget_order)


def optimise(program: Program) -> Program:
    """The Program after all passes."""
    program = rewrite(program, _optimise_bodies)
    known: dict[Hashable, Any] = {}
    for rewrite_program in PIPELINE:
        made = rewrite_program(program)
        program = program if made is program and known else verify(made, known)
    return program


def _optimise_bodies(builder: Builder, node: Node) -> int | None:
    bodies = {name: optimise(x) for name, x in node.attributes.items() if isinstance(x, Program)}
    return builder.add(replace(node, attributes=node.attributes | bodies)) if bodies else None
