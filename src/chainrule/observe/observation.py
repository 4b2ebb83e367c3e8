"""Run a compiled function once with all that it computes kept, and ask for the value of any tensor of its trace.

The Program is the one that the function runs as, with its nodes as further results. Engines decide as if nobody looked,
so what is seen are the bits of the step itself. Some tensors of the trace have no place in that Program, since a pass
found something simpler; these are computed for the observer alone, by NumPy, from values that are there.
"""

import numpy as np

from chainrule import tree
from chainrule.compile import Traced
from chainrule.core.primitive import Primitive
from chainrule.core.tensor import Tensor
from chainrule.engines import Engine
from chainrule.observe.witness import Record
from chainrule.program.build import TRANSPARENT
from chainrule.program.program import CONSTANT, INPUT, Program

Array = np.ndarray


class Values:
    """The values of one run of a Program, and of the tensors that it was traced from.

    program  what ran, without the observers
    seen     the values of nodes, by number: of all save layout and constants
    """

    def __init__(self, program: Program, seen: dict[int, Array]) -> None:
        self.program = program
        self._nodes = seen
        self._tensors: dict[int, Array] = {}

    # -- nodes of the Program

    def array(self, node: int) -> Array:
        """The value of a node of the Program. Layout is not observed but made again: it moves bits, no more."""
        stack = [node]
        while stack:
            i = stack[-1]
            made = self.program.nodes[i]
            missing = [x for x in made.inputs if x not in self._nodes] if i not in self._nodes else []
            if missing:
                stack += missing
                continue
            stack.pop()
            if i in self._nodes:
                continue
            if made.primitive is CONSTANT:
                self._nodes[i] = np.asarray(made.attributes["value"])
            else:
                given = tuple([self._nodes[x] for x in made.inputs])
                self._nodes[i] = made.primitive.evaluate(made.dtype, given, made.attributes)
        return self._nodes[node]

    # -- tensors of the trace

    def place(self, x: Tensor) -> int | None:
        """The node of the Program that is this tensor; None where there is none."""
        return self.program.places.get(x.serial)

    def observed(self, x: Tensor) -> bool:
        """Whether its value has the very bits that the step computed."""
        while x.primitive in TRANSPARENT and x.inputs:
            x = x.inputs[0]
        return x.value is not None or self.place(x) is not None

    def value(self, x: Tensor) -> Array:
        """The value of a tensor of the trace."""
        stack = [x]
        while stack:
            t = stack[-1]
            if t.serial in self._tensors:
                stack.pop()
                continue
            found = self._at_hand(t)
            if found is None:
                inputs = t.inputs[:1] if t.primitive in TRANSPARENT else t.inputs
                missing = [i for i in inputs if i.serial not in self._tensors]
                if missing:
                    stack += missing
                    continue
                given = tuple([self._tensors[i.serial] for i in inputs])
                found = given[0] if t.primitive in TRANSPARENT else t.primitive.evaluate(t.dtype, given, t.attributes)
            self._tensors[t.serial] = found
            stack.pop()
        return self._tensors[x.serial]

    def _at_hand(self, x: Tensor) -> Array | None:
        if x.value is not None:
            return x.value
        place = self.place(x)
        return None if place is None else self.array(place)


class Observation(Values):
    """One call of a compiled function, looked into. Made by `observe_call`.

    program  what ran, without the observers
    record   gradients and calls of modules, in tensors of the trace
    result   what the function returned, in tensors of the trace
    before   the leaves of the arguments by path, and `after` those that the call replaced; the arguments themselves
             stay as they are
    engine   the name of the engine, and `compile` compiles as it did
    """

    def __init__(
        self, program: Program, traced: Traced, record: Record, flat: tree.Flat, seen: dict[int, Array], engine: Engine
    ) -> None:
        super().__init__(program, seen)
        self.traced, self.record, self.engine, self.compile = traced, record, engine.name, engine.compile
        self.result = tree.build(traced.results, [leaf.value for leaf in traced.results.leaves])
        self.before = {leaf.path: np.asarray(leaf.value) for leaf in flat.leaves}
        self.symbols = dict(zip([leaf.path for leaf in flat.leaves], traced.symbols, strict=True))
        self.after = {
            flat.leaves[i].path: self.value(traced.after.leaves[i].value)
            for i, first in enumerate(traced.tied)
            if first in traced.updated
        }

    def gradient(self, x: Tensor) -> Array | None:
        """The gradient by a tensor of the trace; None where none came back to it."""
        total = self.record.totals.get(x.serial)
        return None if total is None else self.value(total)


def is_observed(primitive: Primitive) -> bool:
    """Whether the values of its nodes are kept by a run that is looked into."""
    return primitive not in (INPUT, CONSTANT) and primitive.kind not in ("layout", "source")
