"""`explain`: from a model and a batch to an Explanation."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_tensor, map_tensors
from chainrule.core.tensor import Tensor, tensor, wrap
from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError
from chainrule.explanation.explanation import Explanation
from chainrule.explanation.graph import UNROLL
from chainrule.nn import Module
from chainrule.observe import observe_call
from chainrule.optim import LBFGS, Optimizer
from chainrule.optim.optimizer import Binding
from chainrule.train.batches import converted
from chainrule.train.criterion import check_loss, criterion
from chainrule.train.fit import FitResult
from chainrule.train.setup import check_model, float_dtype
from chainrule.train.steps import Steps


def explain(
    model: Module | FitResult, x: Any, y: Any = None, *, loss: Any = None, optimizer: Optimizer | None = None,
    step: int | None = None,
    engine: str = DEFAULT_ENGINE, weight: Any = None, clip_norm: float | None = None, threads: int | None = None,
    precision: str = STANDARD, unroll: int = UNROLL,
) -> Explanation:  # fmt: skip
    """Explain one training step of `model` on the batch (x, y): every number of it, and where it came from.

    model      a Module, or what `fit` returned, whose loss and optimiser are taken then unless others are given
    x, y       a batch, as `fit` takes its data; without `y`, the input is what the output should be. `weight` (rows,)
    loss       (prediction, target) -> number, as for `fit`
    optimizer  with one, the update is explained too, as it would be now. Its state, and the model, stay as they are
    step       a number for the step, to be shown
    engine     what computes the step: 'native' is the compiled step that trains, with every value kept; the same bits
    clip_norm, threads, precision  as for `fit`
    unroll     loops of up to so many time steps are taken apart; longer ones are one node, with a story of their own

    The model computes in the mode that it is in: model.train() for the step of a training, model.eval() otherwise.
    Raises ConfigError for what does not go together. For a past step of a run see `cr.replay`.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), nn.Sigmoid())
    >>> story = cr.explain(model, [[0.05, 0.1]], [[0.01, 0.99]], loss=losses.mse, optimizer=optim.SGD(lr=0.5))
    >>> why = story.why("0.weight[1, 0]")
    >>> abs(why.value - sum(child.part for child in why.children)) < 1e-7
    True
    """
    if isinstance(model, FitResult):
        loss, optimizer = loss or model.loss, optimizer or model.optimizer
    model = check_model(model.model if isinstance(model, FitResult) else model)
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
        evaluate=_evaluator(steps, model, x, y, weight), rows=_rows(x, y), step=step, criterion=loss,
        unroll=unroll,
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
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" and array.dtype != dtypes.bfloat16:
        sample = f", such as {array.flat[0]!r:.60}" if array.size else ""
        raise DataError(f"A batch holds numbers; this one holds {array.dtype}{sample}. Encode it as numbers first.")
    return array


def _rows(*parts: Any) -> int | None:
    """The length of the first axis of inputs and targets; None where they have none in common: a single row."""
    lengths = {leaf.value.shape[:1] for leaf in tree.flatten(list(parts)).leaves}
    found = lengths.pop() if len(lengths) == 1 else ()
    return found[0] if found else None


def _evaluator(steps: Steps, model: Module, x: Any, y: Any, weight: Any) -> Callable[[Mapping[str, np.ndarray]], float]:
    """The loss with other values for some parameters, in float64: so that small changes are not lost in rounding.

    A model that makes tensors of a dtype of its own may refuse that; it is evaluated in the dtypes that it has.
    """

    def run(moved: Mapping[str, np.ndarray], wide: bool) -> float:
        def converted_to(value: Any, like: Any) -> Any:
            array, kind = np.asarray(value), np.asarray(like).dtype
            return wrap(array.astype(np.float64 if wide else kind)) if dtypes.is_float(kind) else value

        flat = tree.flatten({"model": model})
        leaves = [converted_to(moved.get(leaf.path[6:], leaf.value), leaf.value) for leaf in flat.leaves]
        other = tree.build(flat, leaves)["model"]
        given = [map_tensors(lambda v: as_tensor(converted_to(v, v)), part) for part in (x, y, weight)]
        return float(np.asarray(steps.objective(other, *given)[0].value).reshape(()))

    def evaluate(moved: Mapping[str, np.ndarray]) -> float:
        try:
            return run(moved, wide=True)
        except (DTypeError, ShapeError):
            return run(moved, wide=False)

    return evaluate
