"""`resume`: go on with a run that was interrupted, to the same bits as if it had not been."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli import display, report
from chainrule.cli.checks import whole
from chainrule.cli.options import Json, Quiet, of_stopping
from chainrule.cli.recipe import NEVER, Recipe
from chainrule.cli.session import Session
from chainrule.cli.train import watched
from chainrule.train.resume import resume as go_on

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/digits-1.")]
MovedTo = Annotated[
    str | None, typer.Option("--source", metavar="FILE", help="Where the data are now, if they were moved.")
]

MoreEpochs = Annotated[
    int | None,
    of_stopping("--epochs", "-e", metavar="NUMBER", parser=whole(1), help="Go on to so many epochs in all."),
]
NewPatience = Annotated[
    int | None,
    of_stopping("--patience", metavar="EPOCHS", parser=whole(0), help="Another patience; 0 never stops."),
]


def resume(
    run: RunPath,
    source: MovedTo = None,
    epochs: MoreEpochs = None,
    patience: NewPatience = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Go on with a run from its last checkpoint.

    The result is the same, bit for bit, as if it had not been interrupted. A run that has ended goes on when more
    --epochs are asked for.
    """
    ended = Session.open(run).run.status in ("finished", "stopped")
    session = Session.open(run, train=True)
    with session.run as opened:
        prepared = session.prepared(source)
        recipe = longer(session.recipe(prepared), patience)
        model, optimizer = session.network.build(session.data_options.seed), recipe.optimizer()
        data, validation = report.fit_data(prepared)
        if not (quiet or json):
            shown = recipe if epochs is None else replace(recipe, options=replace(recipe.options, epochs=epochs))
            report.plan(prepared, session.network, shown, model.parameter_count())
        with watched(opened):
            result = go_on(
                opened,
                model,
                data,
                loss=recipe.loss_function(),
                optimizer=optimizer,
                epochs=epochs,
                validation=validation,
                metrics=recipe.metrics(),
                stop=recipe.stop(),
                schedule=recipe.schedule(optimizer),
                ema=recipe.ema(),
                callbacks=recipe.callbacks(),
                progress=report.Live(quiet or json),
            )
    report.Outcome.of(result, prepared, session.network, recipe).tell(json, quiet)
    if ended and (epochs is None or result.epochs < epochs):
        display.notice(f"The run had ended before. To go on: --epochs {result.epochs + 100} --patience 0")


def longer(recipe: Recipe, patience: int | None) -> Recipe:
    """The recipe with another patience. The rule stays even where it never stops: the run keeps what it remembers."""
    if patience is None or not recipe.options.patience:
        return recipe
    return replace(recipe, options=replace(recipe.options, patience=patience or NEVER))
