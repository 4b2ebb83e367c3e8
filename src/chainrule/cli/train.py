"""`train`: from a source of data to a trained network, in one command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli import report, session
from chainrule.cli.config import with_options
from chainrule.cli.options import (
    Config,
    DataOptions,
    Json,
    NetworkOptions,
    Quiet,
    ReadOptions,
    RunsDir,
    TrainingOptions,
    of_run,
)
from chainrule.errors import Diverged
from chainrule.train.divergence import TrainingDiverged
from chainrule.train.fit import fit
from chainrule.train.interrupts import Interrupted
from chainrule.train.store import Run

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A CSV, TSV, Parquet, NPZ or IDX file, a folder of IDX files or of images (a folder a class), "
        "or a shipped set: digits, breast_cancer, iris, wine, diabetes.",
    ),
]
Name = Annotated[str | None, of_run("--name", help="The name of the run; else it is numbered.")]


@with_options
def train(
    source: Source,
    options: DataOptions,
    reading: ReadOptions,
    shape: NetworkOptions,
    training: TrainingOptions,
    name: Name = None,
    runs_dir: RunsDir = Path("runs"),
    config: Config = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a network on a table or on images, and test it.

    Types of columns, task, split, encoding, network and training are chosen by the data where no option says otherwise.
    Everything is kept in a run: a folder below runs/.
    """
    prepared = session.prepare(session.read(source, reading), options)
    network = session.choose_network(prepared, shape)
    recipe = session.choose_recipe(prepared, network, training)
    model, optimizer = network.build(options.seed), recipe.optimizer()
    told = session.configuration(source, prepared, network, recipe, reading, options, shape)
    monitor = "validation_loss" if recipe.has_validation else "loss"
    data, validation = report.fit_data(prepared)
    with Run.create(runs_dir, name, stem=stem(source), config=told, monitor=monitor) as run:
        if not (quiet or json):
            report.plan(prepared, network, recipe, model.parameter_count())
        for sentence in prepared.notes:
            run.log(sentence)
        with watched(run):
            result = fit(
                model,
                data,
                loss=recipe.loss_function(),
                optimizer=optimizer,
                validation=validation,
                metrics=recipe.metrics(),
                stop=recipe.stop(),
                schedule=recipe.schedule(optimizer),
                ema=recipe.ema(),
                callbacks=recipe.callbacks(),
                run_dir=run,
                progress=report.Live(quiet or json),
                **session.settings(recipe, options.seed).to_json(),
            )
    report.Outcome.of(result, prepared, network, recipe).tell(json, quiet)


def stem(source: str) -> str:
    """What runs on this source are called, before their number: `houses` for data/houses.csv.gz."""
    name = Path(source).name
    return name.partition(".")[0] or name or "run"


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Say how to go on, in the terms of the command line, when training ends before its time."""
    try:
        yield
    except Interrupted as error:
        raise report.interruption(run, 130, "Ctrl-C") from error
    except SystemExit as end:
        raise report.interruption(run, end.code if isinstance(end.code, int) else 1, "A signal came") from end
    except TrainingDiverged as error:
        raise Diverged(f"{error}\nThe run is kept in {run.path}.") from error
