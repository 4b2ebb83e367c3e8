"""`replay`: make one step of a past run again, to the bit, and show what it did."""

import shlex
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.cli import display, report
from chainrule.cli.checks import whole
from chainrule.cli.options import Json
from chainrule.cli.resume import MovedTo, RunPath
from chainrule.cli.session import Session
from chainrule.explanation.page import write_page
from chainrule.replaying import Replayed
from chainrule.replaying import replay as make_again
from chainrule.replaying.course import Course, make_parts
from chainrule.replaying.measures import Measures, StepMeasures, measured

ROWS = 12  # numbers of rows shown

Step = Annotated[int, typer.Option("--step", metavar="NUMBER", parser=whole(1), help="The step, from 1.")]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the explanation of the step as one HTML page.")
]
Open = Annotated[bool, typer.Option("--open", help="Open the explanation in the browser.")]
Row = Annotated[
    int | None,
    typer.Option("--row", metavar="PLACE", parser=whole(0), help="Explain one row of the batch alone, counted from 0."),
]


def replay(
    run: RunPath,
    step: Step,
    html: Html = None,
    open_page: Open = False,
    row: Row = None,
    source: MovedTo = None,
    json: Json = False,
) -> None:
    """Make a step of a past run again, to the bit, and show what it saw and did.

    The run is only read. Its data must be those that it was trained on.
    """
    session = Session.open(run)
    course = Course(session.run, make_parts(session.run, **taken(parts_of(session, source)())))
    told, made = measured(course, step)
    if json:
        display.print_json(made.to_dict() | told.to_dict() | {"layers": layers_as_json(told)})
    else:
        show(told, made, course.last)
    if html is not None or open_page:
        path = html or Path(tempfile.mkdtemp(prefix="chainrule-")) / f"{made.run.name}-step-{step}.html"
        write_page(made.explain(row).to_dict(), path)
        display.notice(f"The explanation is in {path}")
        if open_page:
            webbrowser.open(path.absolute().as_uri())
    elif not json:
        display.say()
        name = shlex.quote(str(run))
        display.say(
            f"next: chainrule explain {name} --step {step} · "
            f"chainrule replay {name} --step {step} --html step-{step}.html",
            "dim",
        )


def explanation_of(run: Path, step: int, row: int | None = None) -> dict[str, Any]:
    """The explanation of a step of a run that was made by `chainrule train`, from its folder alone, as JSON values."""
    session = Session.open(run)
    return make_again(session.run, **parts_of(session)(), step=step).explain(row).to_dict()


def parts_of(session: Session, source: str | None = None) -> Callable[[], dict[str, Any]]:
    """What makes all that a run was made of anew, as `fit` and `cr.replay` take it. CheckpointError when the data are
    gone or others."""
    prepared = session.prepared(source)
    recipe = session.recipe(prepared)
    data, validation = report.fit_data(prepared)

    def parts() -> dict[str, Any]:
        optimizer = recipe.optimizer()
        return {
            "model": session.network.build(session.data_options.seed),
            "data": data,
            "validation": validation,
            "loss": recipe.loss_function(),
            "optimizer": optimizer,
            "metrics": recipe.metrics(),
            "schedule": recipe.schedule(optimizer),
            "ema": recipe.ema(),
        }

    return parts


def taken(parts: dict[str, Any]) -> dict[str, Any]:
    """Those that a step depends on."""
    return {name: part for name, part in parts.items() if name != "validation"}


def show(told: StepMeasures, made: Replayed, last: int) -> None:
    """A step in the terminal."""
    display.field("run", str(made.run))
    display.field("step", f"{told.step:,} of {last:,}, in epoch {told.epoch:,}")
    more = f" and {len(told.rows) - ROWS:,} more" if len(told.rows) > ROWS else ""
    display.field("rows", f"{', '.join(map(str, told.rows[:ROWS]))}{more} of the training data")
    display.field("loss", f"{told.loss!r}{agreement(made)}")
    display.field("rate", display.number(told.learning_rate))
    display.field("gradient", f"norm {display.number(told.gradient_norm)}")
    steps = f"{made.made:,} step{'s' * (made.made > 1)}"
    display.field("replayed", f"{steps} of {last:,}, from the state after step {made.start:,}")
    display.say()
    rows = [layer(path, numbers) for path, numbers in told.layers.items()]
    display.table(rows, ["layer", "weights", "gradient", "update", "update / weights"])


def agreement(made: Replayed) -> str:
    """Whether the loss is the one that was recorded."""
    if made.recorded is None:
        return "   (the run did not record it)"
    if made.loss == made.recorded or (made.loss != made.loss and made.recorded != made.recorded):
        return "   (as recorded, to the bit)"
    return f"   (recorded: {made.recorded!r})"


def layer(path: str, numbers: Measures) -> list[str]:
    """The norms of a layer as cells."""
    each = [display.number(x) for x in (numbers.weights, numbers.gradient, numbers.update, numbers.ratio)]
    return [path or "model", *each]


def layers_as_json(told: StepMeasures) -> dict[str, dict[str, float]]:
    """The norms of the layers, with the ratio."""
    return {
        path: {"weights": m.weights, "gradient": m.gradient, "update": m.update, "ratio": m.ratio}
        for path, m in told.layers.items()
    }
