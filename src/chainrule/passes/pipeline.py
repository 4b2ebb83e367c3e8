"""The passes every Program goes through, in this order, whatever engine runs it. Verified after each."""

from collections.abc import Callable

from chainrule.passes.common import common
from chainrule.passes.dead import dead, forget_order
from chainrule.passes.fold import fold
from chainrule.passes.simplify import simplify
from chainrule.program.program import Program, verify

Pass = Callable[[Program], Program]

PIPELINE: tuple[Pass, ...] = (dead, fold, simplify, common, dead, forget_order)


def optimise(program: Program) -> Program:
    """The Program after all passes."""
    for rewrite_program in PIPELINE:
        program = verify(rewrite_program(program))
    return program
