"""The reference engine: every node by NumPy, one after the other, values dropped after their last reader.

It is the oracle for the other engines, and the place to debug: slow where networks are small, and always right.
"""

from collections.abc import Sequence

import numpy as np

from chainrule.passes.liveness import plan_memory
from chainrule.program.interpret import Interpreter
from chainrule.program.program import Program


class ReferenceExecutable:
    """A Program as a list of NumPy calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memory = plan_memory(program)
        self.run = Interpreter(program)

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once."""
        return self.run(inputs)

    def open(self) -> None:
        """No session: every call starts from the arrays that it is given."""
        return None

    def explain(self) -> str:
        """How it is run, in words."""
        peak = self.memory.peak_bytes
        return f"{len(self.run.steps)} calls of NumPy, one after the other; at most {peak:,} bytes of values at once"


class ReferenceEngine:
    """Runs Programs by NumPy."""

    name = "reference"

    def compile(self, program: Program, held: tuple[int, ...] = ()) -> ReferenceExecutable:
        """Nothing to compile: the calls are listed."""
        return ReferenceExecutable(program)
