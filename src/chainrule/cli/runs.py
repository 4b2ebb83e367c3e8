"""`runs`: the runs in a folder, a line each."""

from datetime import datetime
from pathlib import Path

from chainrule.cli import display
from chainrule.cli.options import Json, RunsDir
from chainrule.errors import CheckpointError
from chainrule.train.store import RunSummary, list_runs


def runs(runs_dir: RunsDir = Path("runs"), json: Json = False) -> None:
    """List the runs, the latest last."""
    if runs_dir.exists() and not runs_dir.is_dir():
        raise CheckpointError(f"{runs_dir} is a file, not a folder of runs.")
    found = list_runs(runs_dir)
    if json:
        display.print_json([as_json(run) for run in found])
        return
    if not found:
        display.say(f"There are no runs in {runs_dir}. Begin one: chainrule train digits")
        return
    header = ("run", "status", "epochs", "best", "at", "time", "begun")
    display.table([row(run) for run in found], header, left=(0, 1, 3, 6), indent=0)
    for run in found:
        if run.status in ("damaged", "failed"):
            display.notice(f"{run.name}: {run.reason}")


def row(run: RunSummary) -> tuple[str, ...]:
    """A run as the cells of its line."""
    best = f"{run.best.metric.replace('_', ' ')} {display.number(run.best.value)}" if run.best else "–"
    at = str(run.best.epoch) if run.best else "–"
    begun = "–" if run.started is None else when(run.started)
    spent = display.duration(run.seconds) if run.status != "damaged" else "–"
    return run.name, run.status, f"{run.epochs:,}", best, at, spent, begun


def when(moment: datetime) -> str:
    """A moment in the time of this place."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def as_json(run: RunSummary) -> dict[str, object]:
    """A run as JSON values."""
    return {
        "name": run.name,
        "path": str(run.path),
        "status": run.status,
        "reason": run.reason,
        "started": None if run.started is None else run.started.isoformat(),
        "seconds": run.seconds,
        "epochs": run.epochs,
        "best": run.best._asdict() if run.best else None,
    }
