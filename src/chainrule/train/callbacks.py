"""Callbacks: code of one's own that runs along with a training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.train.loop import Training


class Callback:
    """Base class: override what is wanted. `training` shows the model, the optimiser, `position` and `history`.

    `training.stop("why")` ends the training after the present step. What a callback changes in the model belongs to the
    run; if it remembers something that the outcome depends on, `state` and `load` let it go on after an interruption.

    >>> import chainrule as cr
    >>> class Shout(cr.train.Callback):
    ...     def on_epoch(self, training, row):
    ...         print(f"epoch {row['epoch']}: {row['loss']:.1f}!")
    >>> Shout().on_epoch(None, {"epoch": 1, "loss": 0.5})
    epoch 1: 0.5!
    """

    def on_start(self, training: "Training") -> None:
        """Before the first step, or the first after an interruption."""

    def on_step(self, training: "Training", loss: float) -> None:
        """After each update; `loss` is that of the batch before it."""

    def on_record(self, training: "Training", snapshot: Mapping[str, Any]) -> None:
        """After each look at layers and parameters, which `fit(record=...)` has from time to time, with what it showed
        (see chainrule.diagnosis.statistics) of the step that comes next."""

    def on_epoch(self, training: "Training", row: Mapping[str, Any]) -> None:
        """After each epoch, with its row of the history; the stopping rules have not been asked yet."""

    def on_end(self, training: "Training", reason: str) -> None:
        """After the last step, unless something broke or a signal came; the model has the weights that are kept."""

    def state(self) -> dict[str, Any]:
        """What must be known to go on after an interruption, as JSON values."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
