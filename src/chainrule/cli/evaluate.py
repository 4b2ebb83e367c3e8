"""`evaluate`: how good a trained network is, on the data of its run or on other data."""

from typing import Annotated

import typer

from chainrule.cli import display
from chainrule.cli.config import with_options
from chainrule.cli.options import Json, ReadOptions
from chainrule.cli.report import notes as show_notes
from chainrule.cli.report import parts_of
from chainrule.cli.results import Part, answers, confusion_of, show
from chainrule.cli.resume import MovedTo, RunPath
from chainrule.cli.session import Session


@with_options
def evaluate(
    run: RunPath,
    reading: ReadOptions,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Other rows with the target; else the data of the run.")
    ] = None,
    source: MovedTo = None,
    json: Json = False,
) -> None:
    """Score a trained network, on its own data part by part, or on the rows of a file."""
    session = Session.open(run)
    preparation, model, engine = session.preparation, session.model(), session.training_options.engine
    notes: list[str] = []
    if file is None:
        parts = parts_of(model, session.prepared(source), engine)
    else:
        table = session.read_more(file, reading)
        notes += table.notes
        x, y = preparation.select(table, notes)
        parts = (Part(table.name, y, answers(model, x, engine)),)
    scores = {part.name: part.scores(preparation, session.loss_function()) for part in parts}
    if json:
        rows = {part.name: len(part.truth) for part in parts}
        value = {"run": str(session.run.path), "rows": rows, "scores": scores, "notes": notes}
        if preparation.task != "regression":
            value |= {
                "classes": preparation.class_names,
                "confusion": {part.name: confusion_of(part) for part in parts},
            }
        display.print_json(value)
        return
    show_notes(notes)
    show(parts, scores, preparation)
