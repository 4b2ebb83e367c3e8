"""What a run records, as files for TensorBoard: while it trains, or afterwards."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.interop.tensorboard import EventWriter
from chainrule.train.callbacks import Callback
from chainrule.train.store import Run

if TYPE_CHECKING:
    from chainrule.train.loop import Training

PLACES = ("epoch", "step", "seconds")  # columns of the history that are no measurements


class TensorBoard(Callback):
    """Writes event files for TensorBoard into `folder`: the columns of the history after each epoch, and histograms of
    activations, gradients, weights and updates whenever layers and parameters are looked at (`fit(record=...)`).

    Show them with `tensorboard --logdir FOLDER`. TensorBoard itself is not needed to write them.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = cr.fit(nn.Linear(1, 1), (np.ones((4, 1)), np.ones((4, 1))), loss=losses.mse,
    ...                  optimizer=optim.SGD(lr=0.1), epochs=3, record=1, progress="silent",
    ...                  callbacks=[cr.train.TensorBoard(folder)])
    ...     len(list(__import__("pathlib").Path(folder).glob("events.out.tfevents.*")))
    1
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.writer: EventWriter | None = None

    def on_start(self, training: "Training") -> None:
        """Begin a file; one that goes on where another training was interrupted makes void what came after."""
        self.writer = EventWriter(self.folder)
        if training.position.step:
            self.writer.restart(training.position.step + 1)
        self.writer.flush()

    def on_record(self, training: "Training", snapshot: Mapping[str, Any]) -> None:
        """Write what was seen."""
        if self.writer is not None:
            write_snapshot(self.writer, training.position.step + 1, snapshot)
            self.writer.flush()

    def on_epoch(self, training: "Training", row: Mapping[str, Any]) -> None:
        """Write the columns of the history."""
        if self.writer is not None:
            write_row(self.writer, row)
            self.writer.flush()


def export_run(run: Run, folder: str | os.PathLike[str]) -> Path:
    """Write all that a run has recorded into an event file in `folder`; returns its path.

    >>> import tempfile
    >>> from chainrule.train.store import Run
    >>> from chainrule.train.tensorboard import export_run
    >>> with tempfile.TemporaryDirectory() as folder, Run.create(folder) as run:
    ...     run.record(1, 1, loss=0.5)
    ...     export_run(run, f"{folder}/events").stat().st_size
    82
    """
    writer = EventWriter(folder)
    for row in run.history():
        write_row(writer, row)
    for snapshot in run.snapshots():
        write_snapshot(writer, snapshot["step"], snapshot)
        writer.flush()
    writer.flush()
    return writer.path


def write_row(writer: EventWriter, row: Mapping[str, Any]) -> None:
    """The columns of a row of the history, under their names."""
    for name, value in row.items():
        if name not in PLACES and value is not None:
            writer.scalar(name, float(value), int(row["step"]))


def write_snapshot(writer: EventWriter, step: int, snapshot: Mapping[str, Any]) -> None:
    """Histograms and shares of layers and parameters, and numbers of the step."""
    for name in ("loss", "gradient_norm", "learning_rate"):
        _scalar(writer, f"recorded/{name}", snapshot[name], step)
    called: dict[str, int] = {}
    for layer in snapshot["layers"]:
        title = f"{layer['path']} {layer['layer']}".strip()
        again = called[title] = called.get(title, 0) + 1
        title = f"{title} ({again})" if again > 1 else title
        for part in ("output", "gradient"):
            _histogram(writer, f"layers/{title}/{part}", layer[part], step)
        for part in ("dead", "saturated"):
            _scalar(writer, f"layers/{title}/{part}", layer[part], step)
    for parameter in snapshot["parameters"]:
        for part in ("value", "gradient", "update"):
            _histogram(writer, f"parameters/{parameter['name']}/{part}", parameter[part], step)
        _scalar(writer, f"parameters/{parameter['name']}/ratio", parameter["ratio"], step)


def _scalar(writer: EventWriter, tag: str, value: float | None, step: int) -> None:
    if value is not None and not math.isnan(value):
        writer.scalar(tag, value, step)


def _histogram(writer: EventWriter, tag: str, found: Mapping[str, Any] | None, step: int) -> None:
    if found is not None:
        writer.histogram(tag, step, **found["histogram"], mean=found["mean"], norm=found["norm"])
