"""What is compiled: one step of training, one step of evaluation, and loss and gradient alone for L-BFGS."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes, tree
from chainrule.compile import compile
from chainrule.core.autodiff import value_and_grad
from chainrule.core.tensor import Tensor, full
from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.optim import EMA, LBFGS, Optimizer, clip_grad_norm
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import maximum
from chainrule.primitives.reduce import max as largest
from chainrule.train.batches import Batch
from chainrule.train.state import Snapshot


class Outcome(NamedTuple):
    """What a step gave. `extreme` is the largest magnitude among gradients and new weights: inf or NaN if any is."""

    loss: float
    extreme: float
    prediction: Any

    @property
    def finite(self) -> bool:
        """Whether loss, gradients and new weights are all numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.extreme)


def predict(model: Any, x: Any) -> Any:
    """The model at `x`: a tuple is several arguments, a dict keyword arguments."""
    if isinstance(x, tuple):
        return model(*x)
    return model(**x) if isinstance(x, dict) else model(x)


class Traced:
    """What is traced. `criterion` is (prediction, target, weight) -> loss.

    It knows nothing of the compiled functions: so they, and the memory that they work in, are gone with the last who
    has a use for them.
    """

    def __init__(self, criterion: Callable[[Any, Any, Any], Tensor], clip_norm: float | None, outputs: bool) -> None:
        self.criterion, self.clip_norm, self.outputs = criterion, clip_norm, outputs

    def objective(self, model: Any, x: Any, y: Any, weight: Any) -> tuple[Tensor, Any]:
        """The loss, and what the model returned. Without targets the input is what the output should be."""
        prediction = predict(model, x)
        return self.criterion(prediction, x if y is None else y, weight), prediction

    def loss_and_gradient(self, model: Any, x: Any, y: Any, weight: Any) -> Any:
        """Loss, gradients (clipped where that was asked for), what the model returned, and the largest gradient."""
        objective = value_and_grad(lambda m: self.objective(m, x, y, weight), has_aux=True)
        (loss, prediction), gradients = objective(model)
        extreme = magnitude(gradients.values())
        if self.clip_norm is not None:
            gradients, _ = clip_grad_norm(gradients, self.clip_norm)
        return loss, gradients, prediction if self.outputs else None, extreme

    def _train(self, model: Any, optimizer: Any, ema: Any, x: Any, y: Any, weight: Any, watched: bool) -> Any:
        """Loss, the largest magnitude among gradients and new weights if it is watched, and what the model returned."""
        loss, gradients, prediction, extreme = self.loss_and_gradient(model, x, y, weight)
        optimizer.update(model, gradients)
        if ema is not None:
            ema.update(model)
        if not watched:
            return loss, None, prediction
        weights = [leaf.value for leaf in tree.flatten(model).leaves if leaf.role == "parameter"]
        return loss, maximum(extreme, magnitude(weights)), prediction

    def _evaluate(self, model: Any, x: Any, y: Any, weight: Any) -> Any:
        loss, prediction = self.objective(model, x, y, weight)
        return loss, None, prediction if self.outputs else None


class Steps:
    """The compiled functions of one training. `criterion` is (prediction, target, weight) -> loss."""

    def __init__(
        self, criterion: Callable[[Any, Any, Any], Tensor], engine: str = DEFAULT_ENGINE,
        clip_norm: float | None = None, outputs: bool = False, threads: int | None = None,
        precision: str = STANDARD,
    ) -> None:  # fmt: skip
        self.clip_norm = clip_norm
        self.failed: Snapshot | None = None  # the model where L-BFGS last met something that is not finite
        traced = Traced(criterion, clip_norm, outputs)
        self.objective = traced.objective
        compiled = partial(compile, engine=engine, threads=threads, precision=precision)
        self.training = compiled(traced._train)
        self.evaluation = compiled(traced._evaluate)
        self.gradient = compiled(traced.loss_and_gradient)

    @property
    def chunked(self) -> bool:
        """Whether the engine makes many steps at once."""
        return bool(getattr(self.training.engine, "chunks", False))

    @property
    def compilations(self) -> int:
        """How many signatures were compiled so far."""
        return sum(f.compilations for f in (self.training, self.evaluation, self.gradient))

    def train(self, model: Any, optimizer: Optimizer, ema: EMA | None, batch: Batch) -> Outcome:
        """One update. Raises what the optimiser raises; a loss that is not a number is for the caller to look at."""
        if isinstance(optimizer, LBFGS):
            return self._minimise(model, optimizer, ema, batch)
        loss, extreme, prediction = self.training(model, optimizer, ema, batch.x, batch.y, batch.weight, True)
        return Outcome(float(loss), float(extreme), arrays(prediction))

    def _minimise(self, model: Any, optimizer: LBFGS, ema: EMA | None, batch: Batch) -> Outcome:
        """One call of L-BFGS, which evaluates the batch several times. The prediction is that before it moved."""
        first: list[Any] = []
        self.failed = None

        def closure() -> tuple[Tensor, Any]:
            loss, gradients, prediction, extreme = self.gradient(model, batch.x, batch.y, batch.weight)
            first.append(prediction) if not first else None
            if not math.isfinite(float(loss)) or not math.isfinite(float(extreme)):
                self.failed = Snapshot(Snapshot.objects_of(model))
            return loss, gradients

        loss = optimizer.step(closure)
        if ema is not None:
            ema.update(model)
        weights = [leaf.value for leaf in tree.flatten(model).leaves if leaf.role == "parameter"]
        return Outcome(float(loss), float(magnitude(weights)), arrays(first[0]))

    def evaluate(self, model: Any, batch: Batch) -> tuple[float, Any]:
        """Loss and prediction of a batch."""
        loss, _, prediction = self.evaluation(model, batch.x, batch.y, batch.weight)
        return float(loss), arrays(prediction)


def magnitude(tensors: Any) -> Tensor:
    """The largest absolute value in all tensors (None is skipped): a scalar; NaN if there is one."""
    result = full((), 0, dtypes.float32)
    for x in tensors:
        if x is not None and x.size:
            result = maximum(result, reshape(largest(e.abs(x), axes=tuple(range(x.ndim))), shape=()))
    return result


def map_arrays(f: Callable[[np.ndarray], Any], values: Any) -> Any:
    """The same structure with `f(array)` in the place of tensors and arrays."""
    flat = tree.flatten(values)
    return tree.build(flat, [f(np.asarray(leaf.value)) for leaf in flat.leaves])


def arrays(values: Any) -> Any:
    """The same structure with arrays in the place of tensors."""
    return map_arrays(np.asarray, values)
