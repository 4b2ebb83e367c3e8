"""When the loss is no number: what is told, and what is tried."""

import dataclasses
import math
import os
import sys
from types import FrameType
from typing import Any

import numpy as np

from chainrule import tree
from chainrule.core.autodiff import as_tensor, map_tensors, value_and_grad
from chainrule.errors import ChainruleError, Diverged
from chainrule.observe import observe_call
from chainrule.optim import LBFGS
from chainrule.train.batches import Batch
from chainrule.train.nonfinite import Finding, find_nonfinite
from chainrule.train.remedies import Circumstances, remedies
from chainrule.train.steps import Steps

ROWS = 8  # row numbers shown in a message


class TrainingDiverged(Diverged):
    """`fit` met a loss, gradient or weight that is not finite. Model and optimiser are as they were before that step.

    `step` is its number (from 1), `rows` are the row numbers of its batch, `result` is the FitResult so far. `finding`
    tells of the first value that is not finite: operation, numbers, place, row (see cr.train.Finding); or it is None.

    >>> import chainrule as cr
    >>> issubclass(cr.train.TrainingDiverged, cr.errors.Diverged)
    True
    """

    def __init__(self, message: str, step: int, rows: np.ndarray, finding: Finding | None = None) -> None:
        super().__init__(message)
        self.step, self.rows, self.finding = step, rows, finding
        self.result: Any = None

    def diagnosis(self) -> dict[str, Any]:
        """What a run keeps of it, as JSON values: see chainrule.diagnosis.Diagnosis."""
        lines = [line.strip() for line in str(self).splitlines()[1:]]
        remedy = next((line.removeprefix("remedy").strip() for line in lines if line.startswith("remedy")), "")
        return {
            "kind": "non-finite",
            "severity": "error",
            "where": "" if self.finding is None else self.finding.module,
            "message": str(self).partition("\n")[0],
            "evidence": [line for line in lines if not line.startswith("remedy")],
            "remedy": remedy,
            "finding": None if self.finding is None else self.finding.to_dict(),
        }


def diverged(
    steps: Steps, model: Any, optimizer: Any, ema: Any, batch: Batch, loss: float, step: int
) -> TrainingDiverged:
    """The error for a step that was undone: all is as it was before it. Makes the step again, looking at every value,
    and the gradients once more, eagerly; that may change buffers of the model."""
    finding = find(steps, model, optimizer, ema, batch, step)
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
    at = Circumstances(float(optimizer.lr), steps.clip_norm is not None, _magnitude({"x": batch.x})[0])
    return TrainingDiverged(
        f"step {step}: {what}. Stopped before the update; weights are those of step {step - 1}.\n"
        f"{'' if finding is None else describe(finding, len(batch.rows))}{cause}"
        f"  batch    rows {', '.join(map(str, batch.rows[:ROWS]))}{more} of the training data\n"
        f"  largest  weight {_largest(weights)}; gradient {_largest(gradients)}; input {_largest({'x': batch.x})}\n"
        f"  remedy   {'; '.join(remedies(finding, at))}",
        step,
        batch.rows,
        finding,
    )


def find(steps: Steps, model: Any, optimizer: Any, ema: Any, batch: Batch, step: int) -> Finding | None:
    """The first value of a step that is not finite; None where the step, made again, has none, or cannot be seen.

    Of L-BFGS, whose step is no compiled function, the loss and gradient are looked at where it failed.
    """
    try:
        if isinstance(optimizer, LBFGS):
            seen = observe_call(steps.gradient, model, batch.x, batch.y, batch.weight)
        else:
            seen = observe_call(steps.training, model, optimizer, ema, batch.x, batch.y, batch.weight, True)
    except (ChainruleError, MemoryError):  # it is about the error of the step, not about one of looking
        return None
    found = find_nonfinite(seen, batch.rows, step)
    if found is not None and _is_running(found.file, found.line):  # the line that called `fit`, of a loss of ours
        return dataclasses.replace(found, file="", line=0, source="")
    return found


def search_diverged(
    steps: Steps, model: Any, optimizer: Any, batch: Batch, error: Diverged, step: int
) -> TrainingDiverged:
    """The error for a step of L-BFGS, which noticed by itself. The model may end with the weights it was tried with."""
    finding = None
    if steps.failed is not None:
        steps.failed.restore()
        finding = find(steps, model, optimizer, None, batch, step)
    told = "" if finding is None else f"\n{describe(finding, len(batch.rows)).rstrip()}"
    return TrainingDiverged(f"step {step}: {error}{told}", step, batch.rows, finding)


def _is_running(file: str, line: int) -> bool:
    """Whether this line has called what runs now."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if (frame.f_code.co_filename, frame.f_lineno) == (file, line):
            return True
        frame = frame.f_back
    return False


def describe(found: Finding, batch: int) -> str:
    """A finding as lines of a message; `batch` is the number of rows that the step had."""
    backward = f", in the derivative of {found.of}" if found.of else ""
    update = f", in the update of {found.name}" if found.part == "update" and found.name else ""
    lines = [f"first non-finite value: {found.text}{backward}{update}"]
    layer = " ".join([part for part in (found.layer, found.module) if part]) or "loss"
    code = f"{_shown(found.file)}:{found.line}{f': {found.source}' if found.source else ''}" if found.line else ""
    if found.part != "update" and found.op not in ("input", "constant"):
        lines.append(f"  where    {', '.join([part for part in (layer, code) if part])}")
    if found.time_step:
        lines.append(f"  time     step {', '.join(map(str, found.time_step))} of the sequence (counted from 0)")
    others = f", and {found.count - 1} other{'s' * (found.count > 2)}" if found.count > 1 else ""
    lines.append(f"  at       {list(found.index)} of {found.dtype}{list(found.shape)}{others}" if found.shape else "")
    if found.row is not None:
        also = [str(r) for r in found.data_rows if r != found.data_row]
        more = f"; also rows {', '.join(also[:ROWS])}{' and more' if len(also) > ROWS else ''}" if also else ""
        more = "; the same in all others" if also and len(found.data_rows) == batch else more
        lines.append(f"  row      {found.row} of the batch (row {found.data_row} of the training data){more}")
    elif found.shared and found.part != "update":
        lines.append("  row      none alone: several rows of the batch are summed up there")
    return "".join([f"{line}\n" for line in lines if line])


def _shown(file: str) -> str:
    """A path as a message has it: from here, where it is below."""
    try:
        short = os.path.relpath(file)
    except ValueError:  # on another drive
        return file
    return file if short.startswith("..") or not os.path.exists(file) else short


def gradients_of(steps: Steps, model: Any, batch: Batch) -> dict[str, np.ndarray]:
    """The gradients of a batch by name, computed eagerly: losses check then what they cannot check while traced."""
    x, y, weight = map_tensors(as_tensor, [batch.x, batch.y, batch.weight])
    _, gradients = value_and_grad(lambda m: steps.objective(m, x, y, weight), has_aux=True)(model)
    return {name: np.asarray(g) for name, g in gradients.items() if g is not None}


def _largest(values: dict[str, Any]) -> str:
    """The largest finite magnitude and where it is, and whether there are others that are not finite."""
    best, where, broken = _magnitude(values)
    if best < 0:
        return f"not finite anywhere, first in {broken}" if broken else "none"
    return f"{best:.3g} in {where}" + (f" (not finite in {broken})" if broken else "")


def _magnitude(values: dict[str, Any]) -> tuple[float, str, str]:
    """The largest finite magnitude (−1 without one), where it is, and the first place that is not finite."""
    best, where, broken = -1.0, "", ""
    for leaf in tree.flatten(values).leaves:
        magnitudes = np.abs(np.asarray(leaf.value, np.float64))
        finite = magnitudes[np.isfinite(magnitudes)]
        if finite.size < magnitudes.size and not broken:
            broken = leaf.path
        if finite.size and finite.max() > best:
            best, where = float(finite.max()), leaf.path
    return best, where, broken
