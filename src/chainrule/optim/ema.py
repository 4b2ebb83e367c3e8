"""Exponential moving average of the weights of a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, StateError
from chainrule.optim.parameters import Parameters
from chainrule.optim.saving import restored, state_tensors
from chainrule.optim.settings import flag, number
from chainrule.optim.transform import Tensors, working
from chainrule.primitives.operators import cast_to


class EMA(tree.Stateful):
    """The running mean of a model's trained weights: mean ← decay · mean + (1 − decay) · weight after each step.

    Without `bias_correction` the mean starts at the weights that `init`, or else the first `update`, finds; with it, at
    0, and is divided by 1 − decayᵗ. Call `update` after each step of the optimiser, in a compiled step too, and
    evaluate with `with ema.applied(model):`. Buffers (statistics of batch normalisation) are the model's own.
    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> ema = optim.EMA(decay=0.75).init({"w": cr.tensor([0.0])})
    >>> ema.update({"w": cr.tensor([8.0])})
    >>> ema.weights()["w"].tolist()
    [2.0]
    """

    def __init__(self, decay: float = 0.999, bias_correction: bool = False) -> None:
        self.decay = number("decay", decay, 0, below=1)
        self.bias_correction = flag("bias_correction", bias_correction)
        self.state: dict[str, Any] | None = None

    def init(self, params: Any) -> Self:
        """Start afresh with the weights of `params`, a Module or a dict of tensors; returns the average."""
        tensors = Parameters(params).tensors
        self.state = {"step": wrap(np.asarray(0, np.int64)), "mean": self._start(tensors)}
        return self

    def _start(self, tensors: Tensors) -> Tensors:
        wide = {n: working(p) for n, p in tensors.items()}
        return {n: wrap(np.zeros(p.shape, p.dtype)) for n, p in wide.items()} if self.bias_correction else wide

    def prepare(self, modules: list[Any]) -> None:
        """Have the state ready before a step is compiled: what cr.compile calls, with the Modules beside it."""
        if self.state is None and len(modules) != 1:
            raise ConfigError(
                f"EMA has no state yet, and cannot choose among {len(modules)} Modules: call ema.init(model)."
            )
        if self.state is None:
            self.init(modules[0])

    def update(self, params: Any) -> None:
        """Move the mean towards the weights of `params` as they are now. StateError when parameters are new."""
        tensors = Parameters(params).tensors
        if self.state is None:
            self.init(params)
        state = self._known()
        new = [n for n in tensors if n not in state["mean"]]
        if new:
            raise StateError(f"The average does not know {', '.join(new)}. Start it afresh: ema.init(model).")
        mean = dict(state["mean"])
        for n, p in tensors.items():
            mean[n] = mean[n] + (1 - self.decay) * (working(p) - mean[n])
        self.state = {"step": state["step"] + 1, "mean": mean}

    def _known(self) -> dict[str, Any]:
        if self.state is None:
            raise StateError("This EMA has no weights yet: call ema.init(model) or ema.update(model).")
        return self.state

    def weights(self) -> Tensors:
        """The averaged weights by name (those of float16 and bfloat16 parameters in float32)."""
        state = self._known()
        if not self.bias_correction:
            return dict(state["mean"])
        if state["step"].value is not None and int(state["step"]) == 0:
            raise StateError("A bias-corrected average of no step is not defined: call ema.update(model) first.")
        share = 1 / (1 - self.decay ** cast_to(state["step"], dtypes.float64))
        return {n: cast_to(share, m.dtype) * m for n, m in state["mean"].items()}

    @contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """Within `with`, `model` (a Module, in place) has the averaged weights; afterwards its own again.

        >>> import chainrule as cr
        >>> from chainrule import optim
        >>> params = {"w": cr.tensor([8.0])}
        >>> with optim.EMA().init({"w": cr.tensor([2.0])}).applied(params) as averaged:
        ...     averaged["w"].tolist()
        [2.0]
        """
        view = Parameters(model)
        own = [leaf.value for leaf in view.flat.leaves]
        averaged = {n: x for n, x in self.weights().items() if n in view.indices}
        if set(averaged) != set(view.indices):
            raise StateError(f"The average does not know {', '.join(set(view.indices) - set(averaged))} of this model.")
        try:
            yield view.replaced({n: cast_to(x, view.tensors[n].dtype) for n, x in averaged.items()})
        finally:
            tree.build(view.flat, own, in_place=True)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors of the average by name: 'step', 'mean.0.weight', …"""
        return state_tensors(self._known())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict` to the bit. StateError unless names, shapes and dtypes agree."""
        self.state = restored(self._known(), state, "EMA")
