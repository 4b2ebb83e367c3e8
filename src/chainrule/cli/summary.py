"""`summary`: the layers of a network, of a run or of the one that `train` would choose for a source."""

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli import display, report, session
from chainrule.cli.config import with_options
from chainrule.cli.network import Network
from chainrule.cli.options import Config, DataOptions, NetworkOptions, ReadOptions, TrainingOptions
from chainrule.data.findings import counted
from chainrule.nn.summary import summary as describe
from chainrule.train.store import RunSummary


@with_options
def summary(
    what: Annotated[
        str, typer.Argument(metavar="RUN|SOURCE", help="The folder of a run, or data as train takes them.")
    ],
    options: DataOptions,
    reading: ReadOptions,
    shape: NetworkOptions,
    training: TrainingOptions,
    config: Config = None,
) -> None:
    """Show the layers of a network with their shapes and sizes.

    For a run that is the trained network; for a source of data it is the one that `train` would begin with, and the
    options of `train` hold here too. Nothing is trained.
    """
    path = session.run_path(Path(what))
    if (path / "config.json").exists():
        of_run(session.Session.open(path))
        return
    prepared = session.prepare(session.read(what, reading), options)
    network = session.choose_network(prepared, shape)
    recipe = session.choose_recipe(prepared, network, training)
    report.plan(prepared, network, recipe, network.build(options.seed).parameter_count())
    layers(network)


def of_run(opened: session.Session) -> None:
    """A run: where it comes from, how it stands, its network."""
    preparation, found = opened.preparation, opened.run.summary()
    display.field("run", f"{found.path}   {standing(found)}")
    display.field("source", opened.source_path)
    features = f"{len(preparation.feature_names):,} features"
    display.field("target", f"{preparation.target_name} ({preparation.task}, from {features})")
    if preparation.class_names:
        display.field("classes", ", ".join(preparation.class_names))
    if found.best is not None:
        name, value = found.best.metric.replace("_", " "), display.number(found.best.value)
        display.field("best", f"{name} {value} in epoch {found.best.epoch:,} of {found.epochs:,}")
    parameters = opened.network.build(0).parameter_count()
    display.field("network", opened.network.line(parameters))
    display.say()
    layers(opened.network)


def standing(found: RunSummary) -> str:
    """How a run stands, in words."""
    reason = f": {found.reason}" if found.reason else ""
    return f"{found.status}{reason}, {counted(found.epochs, 'epoch')} in {display.duration(found.seconds)}"


def layers(network: Network) -> None:
    """The table of layers, for a batch of one row."""
    table = describe(network.build(0), (2, *network.input_shape))
    header = ("path", "layer", "output", "parameters", "count", "size")
    rows = [
        [cell.replace("(2, ", "(rows, ") if i == 2 else cell for i, cell in enumerate(row)] for row in table.cells()
    ]
    display.table(rows, header, left=(0, 1, 2, 3))
    display.say(table.totals())
