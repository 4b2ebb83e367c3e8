"""From a Program as it is traced to one that kernels are cut from. Verified after each pass."""

from collections.abc import Callable
from dataclasses import replace

from chainrule.control import LOOPS
from chainrule.passes.common import common
from chainrule.passes.convolutions import convolutions
from chainrule.passes.copies import copies
from chainrule.passes.dead import dead
from chainrule.passes.empties import empties
from chainrule.passes.fma import fuse_multiply_add
from chainrule.passes.hoist import hoist
from chainrule.passes.reductions import reductions
from chainrule.passes.simplify import simplify
from chainrule.passes.sink import sink
from chainrule.passes.transposes import transposes
from chainrule.program.program import Builder, Node, Program, rewrite, verify

LOWERING: tuple[Callable[[Program], Program], ...] = (
    hoist, empties, dead, sink, common, convolutions, simplify, dead, transposes,
    reductions, simplify, common, dead, fuse_multiply_add, dead, copies, dead,
)  # fmt: skip


def lower(program: Program) -> Program:
    """The Program after all passes, and so are the bodies of its loops. Inputs keep their order, and so do outputs."""
    for rewrite_program in LOWERING:
        program = verify(rewrite_program(program))
    return rewrite(program, _lower_body)


def _lower_body(builder: Builder, node: Node) -> int | None:
    if node.primitive not in LOOPS:
        return None
    return builder.add(replace(node, attributes={**node.attributes, "body": lower(node.attributes["body"])}))
