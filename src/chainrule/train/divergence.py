"""When the loss is no number: what is told, and what is tried."""

import math
from typing import Any

import numpy as np

from chainrule import tree
from chainrule.core.autodiff import as_tensor, map_tensors, value_and_grad
from chainrule.errors import ChainruleError, Diverged
from chainrule.train.batches import Batch
from chainrule.train.steps import Steps

ROWS = 8  # row numbers shown in a message


class TrainingDiverged(Diverged):
    """`fit` met a loss, gradient or weight that is not finite. Model and optimiser are as they were before that step.

    `step` is its number (from 1), `rows` are the row numbers of its batch, `result` is the FitResult so far.

    >>> import chainrule as cr
    >>> issubclass(cr.train.TrainingDiverged, cr.errors.Diverged)
    True
    """

    def __init__(self, message: str, step: int, rows: np.ndarray) -> None:
        super().__init__(message)
        self.step, self.rows = step, rows
        self.result: Any = None


def diverged(steps: Steps, model: Any, batch: Batch, loss: float, step: int, lr: float) -> TrainingDiverged:
    """The error for a step that was undone: `model` has the weights from before it. Runs the batch again, eagerly."""
    weights = {leaf.path: np.asarray(leaf.value) for leaf in tree.flatten(model).leaves if leaf.role == "parameter"}
    cause, gradients = "", {}
    try:
        gradients = gradients_of(steps, model, batch)
    except (
        ChainruleError
    ) as error:  # a check that only eager losses can make, such as "probabilities lie between 0 and 1"
        cause = f"  cause    {error}\n"
    if not math.isfinite(loss):
        what = f"the loss is {'not a number' if math.isnan(loss) else 'infinite'}"
    elif bad := [name for name, g in gradients.items() if not np.isfinite(g).all()]:
        what = f"the loss is {loss:.4g}, but the gradient of {bad[0]} is not finite"
    else:
        what = f"the loss is {loss:.4g}, but the update makes weights that are not finite"
    more = f" and {len(batch.rows) - ROWS} more" if len(batch.rows) > ROWS else ""
    return TrainingDiverged(
        f"step {step}: {what}. Stopped before the update; weights are those of step {step - 1}.\n{cause}"
        f"  batch    rows {', '.join(map(str, batch.rows[:ROWS]))}{more} of the training data\n"
        f"  largest  weight {_largest(weights)}; gradient {_largest(gradients)}; input {_largest({'x': batch.x})}\n"
        f"  remedy   {_remedy(steps, lr, batch)}",
        step,
        batch.rows,
    )


def gradients_of(steps: Steps, model: Any, batch: Batch) -> dict[str, np.ndarray]:
    """The gradients of a batch by name, computed eagerly: losses check then what they cannot check while traced."""
    x, y, weight = map_tensors(as_tensor, [batch.x, batch.y, batch.weight])
    _, gradients = value_and_grad(lambda m: steps.objective(m, x, y, weight), has_aux=True)(model)
    return {name: np.asarray(g) for name, g in gradients.items() if g is not None}


def _largest(values: dict[str, Any]) -> str:
    """The largest finite magnitude and where it is, and whether there are others that are not finite."""
    best, where, broken = -1.0, "", ""
    for leaf in tree.flatten(values).leaves:
        magnitudes = np.abs(np.asarray(leaf.value, np.float64))
        finite = magnitudes[np.isfinite(magnitudes)]
        if finite.size < magnitudes.size and not broken:
            broken = leaf.path
        if finite.size and finite.max() > best:
            best, where = float(finite.max()), leaf.path
    if best < 0:
        return f"not finite anywhere, first in {broken}" if broken else "none"
    return f"{best:.3g} in {where}" + (f" (not finite in {broken})" if broken else "")


def _remedy(steps: Steps, lr: float, batch: Batch) -> str:
    tips = []
    inputs = [np.abs(np.asarray(leaf.value, np.float64)) for leaf in tree.flatten([batch.x]).leaves]
    if max((float(a.max(initial=0.0)) for a in inputs), default=0.0) > 100:
        tips.append("scale the inputs to about the range −1 to 1")
    if lr > 0:
        tips.append(f"a lower learning rate (it is {lr:.3g}; try {lr / 10:.2g}, or cr.find_lr)")
    if steps.clip_norm is None:
        tips.append("clip_norm=1.0")
    tips.append("losses on logits instead of log(softmax(x)) or probabilities")
    return "; ".join(tips)
