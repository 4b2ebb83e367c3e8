"""Calls of a compiled function looked into: it is traced once, for the observer."""

from typing import Any

import numpy as np

from chainrule import tree
from chainrule.compile import Compiled, prepare, ties
from chainrule.errors import ConfigError
from chainrule.observe.observation import Observation, is_observed
from chainrule.observe.witness import witnessed
from chainrule.passes.pipeline import optimise
from chainrule.program.program import observe


class Observer:
    """Observes calls with arguments of one signature.

    optimised  False leaves the passes out, which take longer than NumPy takes for a small step: the bits may differ
               from those of the compiled function

    >>> import chainrule as cr
    >>> from chainrule.observe import Observer
    >>> square = cr.compile(lambda x: cr.sum(x * x), engine="reference")
    >>> observer = Observer(square, cr.tensor([1.0, 2.0]))
    >>> [float(seen.value(seen.result)) for seen in map(observer, (cr.tensor([1.0, 2.0]), cr.tensor([3.0, 0.0])))]
    [5.0, 9.0]
    """

    def __init__(self, compiled: Compiled, *args: Any, optimised: bool = True, **kwargs: Any) -> None:
        self.compiled = compiled
        arguments, flat = self._look(args, kwargs)
        self.signature = _signature(flat)
        with witnessed() as self.record:
            self.traced = compiled.trace(flat, arguments, ties(flat))
            self.program = optimise(self.traced.program) if optimised else self.traced.program
        self.wanted = [i for i, node in enumerate(self.program.nodes) if is_observed(node.primitive)]
        held = tuple([self.traced.inputs.index(i) for i in self.traced.owned])
        self.executable = compiled.engine.compile(observe(self.program, self.wanted), held)

    def __call__(self, *args: Any, **kwargs: Any) -> Observation:
        """Observe a call. ConfigError where the arguments have another signature."""
        flat = self._look(args, kwargs)[1]
        if _signature(flat) != self.signature:
            raise ConfigError("An Observer is for arguments of one signature. Make another one for these.")
        arrays = [np.asarray(flat.leaves[i].value) for i in self.traced.inputs]
        outputs = self.executable(arrays)[len(self.program.outputs) :]
        seen = dict(zip(self.program.inputs, arrays, strict=True)) | dict(zip(self.wanted, outputs, strict=True))
        return Observation(self.program, self.traced, self.record, flat, seen, self.compiled.engine)

    def _look(self, args: Any, kwargs: Any) -> tuple[dict[str, Any], tree.Flat]:
        form = self.compiled.form(len(args), tuple(kwargs))
        arguments = form.arguments(form.values(args, kwargs))
        prepare(arguments)
        return arguments, tree.flatten(arguments)


def _signature(flat: tree.Flat) -> Any:
    return flat.spec, [(leaf.value.shape, leaf.value.dtype, leaf.role) for leaf in flat.leaves], ties(flat)


def observe_call(compiled: Compiled, *args: Any, **kwargs: Any) -> Observation:
    """Everything that one call of a compiled function computes. The arguments stay as they are.

    >>> import chainrule as cr
    >>> from chainrule.observe import observe_call
    >>> square = cr.compile(lambda x: cr.sum(x * x))
    >>> seen = observe_call(square, cr.tensor([1.0, 2.0]))
    >>> seen.value(seen.result).item(), seen.value(seen.symbols["x"]).tolist()
    (5.0, [1.0, 2.0])
    """
    return Observer(compiled, *args, **kwargs)(*args, **kwargs)
