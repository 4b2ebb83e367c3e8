"""The reference engine: every node by NumPy, one after the other, values dropped after their last reader.

It is the oracle for the other engines, and the place to debug: slow where networks are small, and always right.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes, meaning
from chainrule.passes.liveness import plan_memory
from chainrule.program.program import CONSTANT, INPUT, Node, Program


class ReferenceExecutable:
    """A Program as a list of NumPy calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memory = plan_memory(program)
        self.constants = {i: n.attributes["value"] for i, n in enumerate(program.nodes) if n.primitive is CONSTANT}
        drops: dict[int, list[int]] = {}
        for i, last in enumerate(self.memory.last_use):
            if last < len(program.nodes) and i not in self.constants:
                drops.setdefault(max(last, i), []).append(i)
        self.steps = [
            (
                i,
                self._function(node, [program.nodes[x].dtype for x in node.inputs]),
                node.inputs,
                node.attributes,
                node.dtype,
                tuple(drops.get(i, ())),
            )
            for i, node in enumerate(program.nodes)
            if node.primitive not in (INPUT, CONSTANT)
        ]

    @staticmethod
    def _function(node: Node, given: list[dtypes.DType]) -> Callable[..., Any]:
        if any(d in dtypes.HALVES for d in (*given, node.dtype)):
            return lambda m, *arrays, **attributes: node.primitive.evaluate(node.dtype, arrays, attributes)
        return node.primitive.meaning

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once."""
        values: list[Any] = [None] * len(self.program.nodes)
        for i, array in zip(self.program.inputs, inputs, strict=True):
            values[i] = array
        for i, array in self.constants.items():
            values[i] = array
        with np.errstate(all="ignore"):
            for i, function, sources, attributes, dtype, drops in self.steps:
                value = np.asarray(function(meaning, *[values[x] for x in sources], **attributes))
                values[i] = value if value.dtype == dtype else value.astype(dtype)
                for x in drops:
                    values[x] = None
        return [values[out.node] for out in self.program.outputs]

    def open(self) -> None:
        """No session: every call starts from the arrays that it is given."""
        return None

    def explain(self) -> str:
        """How it is run, in words."""
        peak = self.memory.peak_bytes
        return f"{len(self.steps)} calls of NumPy, one after the other; at most {peak:,} bytes of values at once"


class ReferenceEngine:
    """Runs Programs by NumPy."""

    name = "reference"

    def compile(self, program: Program, held: tuple[int, ...] = ()) -> ReferenceExecutable:
        """Nothing to compile: the calls are listed."""
        return ReferenceExecutable(program)
