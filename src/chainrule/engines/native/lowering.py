"""From a Program as it is traced to one that kernels are cut from. Verified after each pass."""

from collections.abc import Callable

from chainrule.passes.common import common
from chainrule.passes.convolutions import convolutions
from chainrule.passes.copies import copies
from chainrule.passes.dead import dead
from chainrule.passes.empties import empties
from chainrule.passes.fma import fuse_multiply_add
from chainrule.passes.reductions import reductions
from chainrule.passes.simplify import simplify
from chainrule.passes.sink import sink
from chainrule.passes.transposes import transposes
from chainrule.program.program import Program, verify

LOWERING: tuple[Callable[[Program], Program], ...] = (
    empties, dead, sink, common, convolutions, simplify, dead, transposes,
    reductions, simplify, common, dead, fuse_multiply_add, dead, copies, dead,
)  # fmt: skip


def lower(program: Program) -> Program:
    """The Program after all passes. Inputs keep their order, and so do outputs."""
    for rewrite in LOWERING:
        program = verify(rewrite(program))
    return program
