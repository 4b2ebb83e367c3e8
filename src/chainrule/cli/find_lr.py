"""`find-lr`: which learning rate suits a source of data, by raising it from step to step."""

import math
from typing import Annotated

import numpy as np
import typer

from chainrule.cli import display, report, session
from chainrule.cli.checks import whole
from chainrule.cli.config import with_options
from chainrule.cli.options import Config, DataOptions, Json, NetworkOptions, ReadOptions, TrainingOptions, above_0
from chainrule.cli.train import Source
from chainrule.errors import ConfigError
from chainrule.train.find_lr import find_lr as sweep

WIDTH, HEIGHT = 64, 12


Smallest = Annotated[float, typer.Option("--smallest", metavar="RATE", parser=above_0, help="The first rate.")]
Largest = Annotated[float, typer.Option("--largest", metavar="RATE", parser=above_0, help="The last rate.")]
Steps = Annotated[int, typer.Option("--steps", metavar="NUMBER", parser=whole(3), help="From the first to the last.")]


@with_options
def find_lr(
    source: Source,
    options: DataOptions,
    reading: ReadOptions,
    shape: NetworkOptions,
    training: TrainingOptions,
    smallest: Smallest = 1e-6,
    largest: Largest = 10.0,
    steps: Steps = 150,
    config: Config = None,
    json: Json = False,
) -> None:
    """Find a learning rate: raise it from step to step, and watch where the loss falls and where it breaks.

    The options of `train` hold here too. Nothing is kept.
    """
    prepared = session.prepare(session.read(source, reading), options)
    network = session.choose_network(prepared, shape)
    recipe = session.choose_recipe(prepared, network, training)
    if training.optimizer == "lbfgs":
        raise ConfigError("--optimizer lbfgs finds the length of its steps by itself: there is no rate to find.")
    model, optimizer = network.build(options.seed), recipe.optimizer()
    if not json:
        report.plan(prepared, network, recipe, model.parameter_count())
    found = sweep(
        model,
        report.fit_data(prepared)[0],
        loss=recipe.loss_function(),
        optimizer=optimizer,
        smallest=smallest,
        largest=largest,
        steps=steps,
        batch_size=recipe.batch_size,
        seed=options.seed,
        engine=training.engine,
        threads=training.threads,
        precision=training.precision,
        class_weight="balanced" if training.class_weight == "balanced" else None,
        clip_norm=training.clip_norm,
    )
    if json:
        display.print_json({"suggestion": found.suggestion, "cautious": found.cautious, "steps": found.table})
        return
    for text in plot(found.rates, found.smoothed, found.suggestion):
        display.say(text)
    display.say()
    display.field("suggestion", f"--lr {found.suggestion:.2g}   where the loss falls most steeply")
    display.field("cautious", f"--lr {found.cautious:.2g}   a tenth of where it is lowest")


def plot(rates: list[float], losses: list[float], mark: float) -> list[str]:
    """The loss over the learning rate (logarithmic) as lines of text; `mark` is a rate to point at.

    >>> from chainrule.cli.find_lr import plot
    >>> lines = plot([0.1, 1.0, 10.0], [3.0, 1.0, 9.0], mark=1.0)
    >>> len(lines)
    14
    """
    y = np.minimum(losses, 2 * losses[0] - min(losses))  # where it explodes is of no interest, only that it does
    low, high = float(y.min()), float(y.max())
    logs = np.log10(rates)
    columns = np.round((logs - logs[0]) / max(logs[-1] - logs[0], 1e-12) * (WIDTH - 1)).astype(int)
    rows = np.round((high - y) / max(high - low, 1e-12) * (HEIGHT - 1)).astype(int)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    at = int(columns[int(np.argmin(np.abs(logs - math.log10(mark))))])
    for row in grid:
        row[at] = "┊"
    for column, row_number in zip(columns, rows, strict=True):
        grid[row_number][column] = "•"
    labels = {0: display.number(high), HEIGHT - 1: display.number(low)}
    width = max(len(text) for text in labels.values())
    lines = [f"{labels.get(i, ''):>{width}} │{''.join(row)}".rstrip() for i, row in enumerate(grid)]
    lines.append(f"{'loss':>{width}} └{'─' * WIDTH}")
    axis = [" "] * (WIDTH + 8)
    for exponent in range(math.ceil(logs[0] - 1e-9), math.floor(logs[-1] + 1e-9) + 1):
        place = round((exponent - logs[0]) / max(logs[-1] - logs[0], 1e-12) * (WIDTH - 1))
        axis[place : place + 5] = f"{10.0**exponent:g}".ljust(5)
    lines.append(" " * (width + 2) + "".join(axis).rstrip())
    return lines
