"""`predict`: answers of a trained network to new rows."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from chainrule.cli import display
from chainrule.cli.config import with_options
from chainrule.cli.options import ReadOptions
from chainrule.cli.results import Part, answers, probabilities, scored
from chainrule.cli.resume import RunPath
from chainrule.cli.session import Session
from chainrule.errors import ConfigError, DataError
from chainrule.train.files import atomic_write, to_json

if TYPE_CHECKING:
    from chainrule.data import Images, Table

FORMATS = (".csv", ".tsv", ".json", ".parquet")


@with_options
def predict(
    run: RunPath,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The new rows: a file as train takes it. The target may be missing.")
    ],
    reading: ReadOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write: .csv, .tsv, .json or .parquet; else CSV is printed."
        ),
    ] = None,
    with_probabilities: Annotated[
        bool, typer.Option("--probabilities", "-p", help="Give the probability of every class too.")
    ] = False,
) -> None:
    """Predict the target of new rows.

    The answers come in the order of the rows. What is odd about the rows is noted on the standard error. Where the
    target is in the file, the answers are scored.
    """
    check_output(output, file)
    session = Session.open(run)
    preparation = session.preparation
    if with_probabilities and preparation.task == "regression":
        raise ConfigError(f"{run} predicts amounts: there are no classes to give --probabilities of.")
    table = session.read_more(file, reading)
    notes = list(table.notes)
    found = answers(session.model(), preparation.transform(table, notes), session.training_options.engine)
    columns: dict[str, Any] = {"prediction": preparation.decode_prediction(found)}
    if with_probabilities:
        shares = probabilities(found)
        columns |= {f"probability {name}": shares[:, i] for i, name in enumerate(preparation.class_names)}
    write(columns, output)
    for note in notes:
        display.notice(note)
    score(session, table)
    if output is not None:
        display.say(f"{table.rows:,} predictions written to {output}")


def check_output(output: Path | None, file: str) -> None:
    """Raise ConfigError for a file that cannot be written, before anything is computed."""
    if output is None:
        return
    if output.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output {output} says no format: end it in {', '.join(FORMATS)}.")
    if output.exists() and Path(file).exists() and output.samefile(file):
        raise ConfigError(f"--output {output} is the file with the rows itself: choose another.")
    if output.is_dir() or not output.absolute().parent.is_dir():
        what = "is a folder" if output.is_dir() else "lies in a folder that does not exist"
        raise ConfigError(f"--output {output} {what}. Give the path of a file in a folder that exists.")


def write(columns: dict[str, Any], output: Path | None) -> None:
    """The columns as a file, whole or not at all, or as CSV on the standard output."""
    import polars as pl  # loads only where tables are read and written

    frame = pl.DataFrame(columns)
    if output is None:
        print(frame.write_csv(), end="")
        return
    buffer = io.BytesIO()
    match output.suffix.lower():
        case ".csv":
            frame.write_csv(buffer)
        case ".tsv":
            frame.write_csv(buffer, separator="\t")
        case ".parquet":
            frame.write_parquet(buffer)
        case ".json":
            buffer.write(to_json([dict(row) for row in frame.to_dicts()], indent=1).encode())
    atomic_write(output, buffer.getvalue())


def score(session: Session, table: "Table | Images") -> None:
    """How good the answers are, where the file says what is true."""
    preparation = session.preparation
    there = table.y is not None if hasattr(table, "y") else preparation.target_name in table.columns
    if not there:
        return
    try:
        x, y = preparation.select(table)
    except DataError as error:
        display.notice(f"The answers are not scored: {error}")
        return
    part = Part(table.name, np.asarray(y), answers(session.model(), x, session.training_options.engine))
    worth = scored(part.scores(preparation, session.loss_function()))
    rows = f"{len(y):,} of {table.rows:,} rows" if len(y) < table.rows else "all rows"
    display.notice(f'The file has the target "{preparation.target_name}" of {rows}: {worth}')
