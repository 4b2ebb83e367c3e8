"""`explain`: from a model and a batch to an Explanation."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import map_tensors
from chainrule.core.tensor import Tensor, tensor, wrap
from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.errors import ConfigError
from chainrule.explain.explanation import Explanation
from chainrule.nn import Module
from chainrule.observe import observe_call
from chainrule.optim import LBFGS, Optimizer
from chainrule.optim.optimizer import Binding
from chainrule.train.batches import converted
from chainrule.train.criterion import check_loss, criterion
from chainrule.train.setup import check_model, float_dtype
from chainrule.train.steps import Steps


def explain(
    model: Module, x: Any, y: Any = None, *, loss: Any, optimizer: Optimizer | None = None, step: int | None = None,
    engine: str = DEFAULT_ENGINE, weight: Any = None, clip_norm: float | None = None, threads: int | None = None,
    precision: str = STANDARD,
) -> Explanation:  # fmt: skip
    """Explain one training step of `model` on the batch (x, y): every number of it, and where it came from.

    x, y       a batch, as `fit` takes its data; without `y`, the input is what the output should be. `weight` (rows,)
    loss       (prediction, target) -> number, as for `fit`
    optimizer  with one, the update is explained too, as it would be now. Its state, and the model, stay as they are
    step       a number for the step, to be shown
    engine     what computes the step: 'native' is the compiled step that trains, with every value kept; the same bits
    clip_norm, threads, precision  as for `fit`

    The model computes in the mode that it is in: model.train() for the step of a training, model.eval() otherwise.
    Raises ConfigError for what does not go together. For a past step of a run see `chainrule.replay`.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), nn.Sigmoid())
    >>> story = cr.explain(model, [[0.05, 0.1]], [[0.01, 0.99]], loss=losses.mse, optimizer=optim.SGD(lr=0.5))
    >>> why = story.why("0.weight[1, 0]")
    >>> abs(why.value - sum(child.part for child in why.children)) < 1e-7
    True
    """
    model = check_model(model)
    if isinstance(optimizer, LBFGS):
        raise ConfigError("L-BFGS takes many evaluations for a step; explain one of them: leave the optimizer out.")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer={optimizer!r:.80} is no optimiser. Try optim.Adam(lr=1e-3), or leave it out.")
    dtype = float_dtype(model)
    x, y, weight = [map_tensors(lambda a: converted(_known(a), dtype), _arrays(part)) for part in (x, y, weight)]
    objective = criterion(check_loss(loss), weight is not None)
    steps = Steps(objective, engine, clip_norm, threads=threads, precision=precision)
    if optimizer is None:
        observation = observe_call(steps.gradient, model, x, y, weight)
    else:
        owned = copy.copy(optimizer)  # its state is made anew where there is none, not changed
        if owned.binding.model is None:
            owned.binding = Binding(model)
        observation = observe_call(steps.training, model, owned, None, x, y, weight, True)
    leaves = tree.flatten({"model": model, "optimizer": optimizer, "x": x, "y": y, "weight": weight}).leaves
    roles = {leaf.path: "input" if leaf.role == "value" else leaf.role for leaf in leaves}
    return Explanation(
        observation, roles, model=type(model).__name__, optimizer=None if optimizer is None else repr(optimizer),
        evaluate=_evaluator(steps, model, x, y, weight), rows=_rows(x), step=step,
    )  # fmt: skip


def _arrays(values: Any) -> Any:
    """Lists of numbers as arrays; tuples and dicts hold several inputs."""
    if values is None or isinstance(values, (Tensor, np.ndarray)):
        return values
    if isinstance(values, tuple):
        return tuple([_arrays(v) for v in values])
    if isinstance(values, dict):
        return {k: _arrays(v) for k, v in values.items()}
    return tensor(values)


def _known(x: Any) -> np.ndarray:
    return np.asarray(x)


def _rows(x: Any) -> int | None:
    shapes = [leaf.value.shape for leaf in tree.flatten(x).leaves]
    return shapes[0][0] if shapes and shapes[0] else None


def _evaluator(
    steps: Steps, model: Module, x: Any, y: Any, weight: Any
) -> Callable[[Mapping[str, np.ndarray]], float]:
    """The loss with other values for some parameters, in float64: so that small changes are not lost in rounding."""

    def widened(value: Any) -> Any:
        array = np.asarray(value)
        return wrap(array.astype(np.float64)) if dtypes.is_float(array.dtype) else value

    def evaluate(moved: Mapping[str, np.ndarray]) -> float:
        flat = tree.flatten({"model": model})
        leaves = [wrap(moved[p]) if (p := leaf.path[6:]) in moved else widened(leaf.value) for leaf in flat.leaves]
        other = tree.build(flat, leaves)["model"]
        given = [map_tensors(widened, part) for part in (x, y, weight)]
        return float(np.asarray(steps.objective(other, *given)[0].value).reshape(()))

    return evaluate
