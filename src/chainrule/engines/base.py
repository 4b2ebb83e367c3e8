"""What an engine is: something that compiles a verified Program to a function of arrays."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from chainrule.program.program import Program


class Executable(Protocol):
    """A compiled Program: arrays in the order of `program.inputs` to arrays in the order of `program.outputs`."""

    program: Program

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once."""


class Engine(Protocol):
    """A way to run Programs."""

    name: str

    def compile(self, program: Program) -> Executable:
        """Make the Program executable."""
