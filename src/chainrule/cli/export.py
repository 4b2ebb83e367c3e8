"""`export`: what a run has recorded, as files that other programs show."""

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli import display
from chainrule.cli.options import Json
from chainrule.cli.resume import RunPath
from chainrule.cli.session import run_path
from chainrule.train.store import Run
from chainrule.train.tensorboard import export_run

Folder = Annotated[
    Path, typer.Option("--tensorboard", metavar="FOLDER", help="Where to write event files for TensorBoard.")
]


def export(run: RunPath, tensorboard: Folder, json: Json = False) -> None:
    """Write what a run has recorded as event files: its measurements, and histograms of layers and parameters.

    TensorBoard shows them: tensorboard --logdir FOLDER. To write them while a run trains: train --tensorboard FOLDER.
    """
    opened = Run.open(run_path(run))
    path = export_run(opened, tensorboard)
    measured, recorded = len(opened.history()), len(opened.snapshots())
    if json:
        display.print_json({"path": str(path), "steps": measured, "recordings": recorded})
        return
    display.say(f"{path}   measurements of {measured:,} steps, {recorded:,} recordings of layers and parameters")
    display.say(f"next: tensorboard --logdir {tensorboard}")
