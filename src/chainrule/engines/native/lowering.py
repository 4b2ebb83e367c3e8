"""From a Program as it is traced to one that kernels are cut from. Verified after each pass that changed something."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from chainrule.control import LOOPS
from chainrule.engines.base import FAST, STANDARD
from chainrule.passes.cofactors import cofactors
from chainrule.passes.common import common
from chainrule.passes.convolutions import convolutions
from chainrule.passes.copies import copies
from chainrule.passes.dead import dead
from chainrule.passes.disjoint import disjoint
from chainrule.passes.empties import empties
from chainrule.passes.factors import factors
from chainrule.passes.fma import fuse_multiply_add
from chainrule.passes.hoist import hoist
from chainrule.passes.lookups import lookups
from chainrule.passes.pooling import pooling
from chainrule.passes.reductions import reductions
from chainrule.passes.reorder import reorders
from chainrule.passes.simplify import simplify
from chainrule.passes.sink import sink
from chainrule.passes.sparse import sparse
from chainrule.passes.transposes import transposes
from chainrule.passes.winograd import winograd
from chainrule.program.program import Builder, Node, Program, rewrite, verify

TILES = {STANDARD: (2, 3), FAST: (2, 3, 4)}
"""By precision: how many results there may be along a tile of a convolution."""

LOWERING: tuple[Callable[[Program], Program], ...] = (
    hoist, lookups, empties, dead, sink, common, pooling, sparse, winograd, convolutions, simplify, dead, transposes,
    disjoint, cofactors, factors, reductions, simplify, common, dead, fuse_multiply_add, dead, copies, dead,
    reorders,
)  # fmt: skip


def lower(program: Program, precision: str = STANDARD) -> Program:
    """The Program after all passes, and so are the bodies of its loops. Inputs keep their order, and so do outputs.

    `precision`: see chainrule.engines.base.
    """
    known: dict[Hashable, Any] = {}
    for rewrite_program in LOWERING:
        made = winograd(program, TILES[precision]) if rewrite_program is winograd else rewrite_program(program)
        program = program if made is program else verify(made, known)

    def lower_body(builder: Builder, node: Node) -> int | None:
        if node.primitive not in LOOPS:
            return None
        body = lower(node.attributes["body"], precision)
        return builder.add(replace(node, attributes={**node.attributes, "body": body}))

    return rewrite(program, lower_body)
