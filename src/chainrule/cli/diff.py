"""`diff`: what differs between two steps of a run, or between two runs."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.cli import display
from chainrule.cli.options import Json
from chainrule.cli.replay import parts_of
from chainrule.cli.resume import MovedTo, RunPath
from chainrule.cli.session import Session, run_path
from chainrule.errors import CheckpointError, ConfigError
from chainrule.replaying import NodeDifference, Parting, RunsDifference, StepMeasures, StepsDifference
from chainrule.replaying import diff_runs as between_runs
from chainrule.replaying import diff_steps as between_steps
from chainrule.train.store import Run

MOST = 12  # lines of a kind
WIDE = 48  # letters of a setting

Other = Annotated[Path | None, typer.Argument(metavar="[OTHER]", help="Another run.")]
Steps = Annotated[
    tuple[int, int] | None,
    typer.Option("--steps", metavar="A B", help="Two steps to compare; with another run, one of each."),
]
Recorded = Annotated[
    bool, typer.Option("--recorded", help="Compare what the runs recorded only: no data needed, nothing is replayed.")
]
OtherMovedTo = Annotated[
    str | None, typer.Option("--other-source", metavar="FILE", help="Where the data of the other run are now.")
]


def diff(
    run: RunPath,
    other: Other = None,
    steps: Steps = None,
    recorded: Recorded = False,
    source: MovedTo = None,
    other_source: OtherMovedTo = None,
    json: Json = False,
) -> None:
    """Show what differs between two steps of a run, or between two runs.

    Of two runs: their settings, their losses, and the step at which they part, found by replaying few of their steps;
    then the first value of that step that is another, and the rows of data that are.
    """
    found: StepsDifference | RunsDifference
    if other is None:
        if steps is None:
            raise ConfigError("Compare what? Give two steps, --steps 100 200, or another run.")
        session = Session.open(run)
        found = between_steps(session.run, **parts_of(session, source)(), steps=steps)
    elif recorded:
        if steps is not None:
            raise ConfigError("--steps replays two steps, which --recorded forbids. Give one of the two.")
        found = between_runs(run_path(run), run_path(other))
    else:
        one, two = Session.open(run), Session.open(other)
        try:
            both = parts_of(one, source), parts_of(two, other_source)
        except CheckpointError as error:
            hint = "To compare what the runs recorded, without their data: --recorded"
            raise CheckpointError(f"{error}\n{hint}") from error
        found = between_runs(one.run, two.run, *both, steps=steps)
    if json:
        display.print_json(found.to_dict())
    elif isinstance(found, RunsDifference):
        show_runs(found, recorded)
    else:
        show_steps(found)


def difference_of(run: Path, other: Path) -> dict[str, Any]:
    """What differs between two runs, as JSON values, from their folders alone; replayed where that is possible."""
    one, two = Run.open(run_path(run)), Run.open(run_path(other))
    try:
        parts = [parts_of(Session.open(each.path)) for each in (one, two)]
    except CheckpointError:  # made in Python, or the data are gone or others now
        return between_runs(one, two).to_dict()
    return between_runs(one, two, *parts).to_dict()


# -- two steps


def show_steps(found: StepsDifference) -> None:
    """Two steps side by side."""
    a, b = found.first, found.second
    names = (
        [f"step {a.step:,}", f"step {b.step:,}"] if a.run == b.run else [f"{m.run}: step {m.step:,}" for m in (a, b)]
    )
    rows = [[name, *cells] for name, *cells in summary(a, b)]
    display.table(rows, ["", *names])
    display.say()
    layers = [path for path in a.layers if path in b.layers]
    lines = [[path or "model", *norms(a, path), *norms(b, path), moved(found, path)] for path in layers]
    header = ["layer", *[f"{what} ({m.step})" for m in (a, b) for what in ("gradient", "update")], "weights moved"]
    display.table(lines, header)
    tell_count(found.replayed, found.total)


def summary(a: StepMeasures, b: StepMeasures) -> list[list[str]]:
    """The lines about the steps as wholes."""
    return [
        ["loss", *[display.number(m.loss) for m in (a, b)]],
        ["epoch", *[f"{m.epoch:,}" for m in (a, b)]],
        ["learning rate", *[display.number(m.learning_rate) for m in (a, b)]],
        ["gradient norm", *[display.number(m.gradient_norm) for m in (a, b)]],
        ["rows", *[f"{len(m.rows):,}" for m in (a, b)]],
    ]


def norms(told: StepMeasures, path: str) -> list[str]:
    """The norms of gradient and update of a layer."""
    return [display.number(told.layers[path].gradient), display.number(told.layers[path].update)]


def moved(found: StepsDifference, path: str) -> str:
    """How far the weights of a layer are apart."""
    return display.number(found.moved[path]) if path in found.moved else "–"


# -- two runs


def show_runs(found: RunsDifference, recorded: bool) -> None:
    """What differs between two runs."""
    display.field("runs", f"{found.run} ({found.last[0]:,} steps), {found.other} ({found.last[1]:,} steps)")
    if found.settings:
        display.field("settings", f"{len(found.settings):,} differ")
        cells = [[name, short(a), short(b)] for name, a, b in found.settings[:MOST]]
        display.table(cells, ["", found.run, found.other], left=(0, 1, 2))
    else:
        display.field("settings", "the same")
    if found.losses is None:
        display.field("losses", "the same, as far as both are recorded")
    else:
        step, a, b = found.losses
        display.field("losses", f"differ from step {step:,} on: {a!r}, {b!r}")
    if recorded:
        known = f"equal after step {found.after:,}" if found.after >= 0 else "nothing is known to be equal"
        display.field("states", f"{known}. Without --recorded the very step at which they part is found")
        return
    if found.parting is None:
        display.field("parting", f"none: their states are equal after step {found.after:,}, as far as both went")
    else:
        show_parting(found.parting)
    if found.steps is not None:
        display.say()
        show_steps(found.steps)
    else:
        tell_count(found.replayed, found.total)


def show_parting(parting: Parting) -> None:
    """Where two runs part."""
    if not parting.step:
        display.field("parting", f"before the first step: they begin with another {listed(parting.state)}")
        return
    display.field("parting", f"at step {parting.step:,}, in epoch {parting.epoch:,}: equal before it, not after it")
    if not parting.same_rows:
        display.field("rows", "the batches of that step are other rows")
    elif parting.rows:
        display.field("rows", f"{len(parting.rows):,} of the batch hold other data")
        for row in parting.rows[:MOST]:
            display.say(f"  · row {row.row:,} of the training data ({' and '.join(row.parts)})")
    else:
        display.field("rows", "the same, with the same data")
    if not parting.same_steps:
        display.field("steps", "the runs carry out different operations")
    if parting.node is not None:
        show_node(parting.node)


def show_node(node: NodeDifference) -> None:
    """The first value that differs."""
    if node.inputs:
        display.field("inputs", f"{listed(node.inputs)} of the step differ")
    where = f" in {node.module} ({node.layer})" if node.module else ""
    line = f", {node.file}:{node.line}" if node.file else ""
    name = node.name or node.op
    display.field("first value", f"%{node.node} {name}{where}, {node.part} part{line}")
    if node.source:
        display.say(f"             {node.source}")
    size = "one number" if not node.shape else f"{node.count:,} of its {math.prod(node.shape):,} numbers differ"
    at = f" at {list(node.index)}" if node.shape else ""
    display.say(f"             {size}; the first{at}: {node.values[0]!r}, {node.values[1]!r}")


def listed(names: tuple[str, ...]) -> str:
    """Names, the first few."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(name.removeprefix("model.") for name in names[:3]) + more


def short(value: Any) -> str:
    """A setting as text."""
    text = "–" if value is None else str(value)
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}…"


def tell_count(replayed: int, total: int) -> None:
    """How much of the way was made again."""
    display.say()
    display.say(f"{replayed:,} of {total:,} steps replayed", "dim")
