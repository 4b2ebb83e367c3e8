"""A Program run by NumPy, node after node; values are dropped after their last reader."""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from chainrule import dtypes, meaning
from chainrule.program.program import CONSTANT, INPUT, Node, Program


class Interpreter:
    """A Program as a list of NumPy calls. It does not keep the Program alive."""

    def __init__(self, program: Program) -> None:
        self.size, self.inputs = len(program.nodes), program.inputs
        self.outputs = tuple([out.node for out in program.outputs])
        self.constants = {i: n.attributes["value"] for i, n in enumerate(program.nodes) if n.primitive is CONSTANT}
        drops = _drops(program)
        self.steps = [
            (i, _function(node, program), node.inputs, node.attributes, node.dtype, drops.get(i, ()))
            for i, node in enumerate(program.nodes)
            if node.primitive not in (INPUT, CONSTANT)
        ]

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once: arrays in the order of `program.inputs` to arrays in the order of `program.outputs`."""
        values: list[Any] = [None] * self.size
        for i, array in zip(self.inputs, inputs, strict=True):
            values[i] = array
        for i, array in self.constants.items():
            values[i] = array
        with np.errstate(all="ignore"):
            for i, function, sources, attributes, dtype, drops in self.steps:
                value = np.asarray(function(meaning, *[values[x] for x in sources], **attributes))
                values[i] = value if value.dtype == dtype else value.astype(dtype)
                for x in drops:
                    values[x] = None
        return [values[i] for i in self.outputs]


def _drops(program: Program) -> dict[int, list[int]]:
    """For each node the values that nobody reads after it."""
    last = {i: i for i, node in enumerate(program.nodes) if node.primitive is not CONSTANT}
    for i, node in enumerate(program.nodes):
        last.update({x: i for x in node.inputs if x in last})
    for out in program.outputs:
        last.pop(out.node, None)
    drops: dict[int, list[int]] = {}
    for x, i in last.items():
        drops.setdefault(i, []).append(x)
    return drops


def _function(node: Node, program: Program) -> Callable[..., Any]:
    if any(d in dtypes.HALVES for d in (*[program.nodes[x].dtype for x in node.inputs], node.dtype)):
        return lambda m, *arrays, **attributes: node.primitive.evaluate(node.dtype, arrays, attributes)
    return node.primitive.meaning


_known: "WeakKeyDictionary[Program, Interpreter]" = WeakKeyDictionary()


def interpreter(program: Program) -> Interpreter:
    """The Interpreter of a Program, made once."""
    found = _known.get(program)
    if found is None:
        found = _known[program] = Interpreter(program)
    return found
