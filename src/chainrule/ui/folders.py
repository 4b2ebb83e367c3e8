"""Names of runs, which come from outside, to folders: only those that are in the list, and nothing outside of it."""

import os
import stat
from pathlib import Path
from typing import Any

from chainrule.train.store import Run, RunSummary, list_runs
from chainrule.ui.answers import Refused

PARTS = ("config.json", "metrics.sqlite", "metrics.sqlite-wal", "log.txt", "checkpoints")


def runs_in(root: Path) -> list[RunSummary]:
    """The runs in a folder, save those that lie elsewhere by way of symbolic links."""
    return [run for run in list_runs(root) if _stays(run.path)]


def find(root: Path, name: str) -> Path:
    """The folder of a run that is in the list; 404 for every other name."""
    # The name is compared with what is there and never made part of a path.
    try:
        there = {entry.name: Path(entry.path) for entry in os.scandir(root)}
    except OSError:
        there = {}
    path = there.get(name)
    if path is None or not (path / "config.json").is_file() or not _stays(path):
        raise Refused(404, f"There is no run {name[:80]!r} in {root}.")
    return path


def opened(root: Path, name: str) -> Run:
    """The run, to be read."""
    return Run.open(find(root, name))


def _stays(path: Path) -> bool:
    """Whether neither the folder of a run nor what it is read from is a symbolic link."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return False
        return not any((path / part).is_symlink() for part in PARTS)
    except OSError:
        return False


def summary(run: RunSummary) -> dict[str, Any]:
    """A run as it stands in the list."""
    return {
        "name": run.path.name,
        "status": run.status,
        "reason": run.reason,
        "started": None if run.started is None else run.started.isoformat(),
        "seconds": run.seconds,
        "epochs": run.epochs,
        "best": None if run.best is None else run.best._asdict(),
    }


def last_lines(path: Path, most: int) -> list[str]:
    """The last lines of a text file; none where it is missing."""
    longest = 1000 * most  # bytes read at most: a log may be of any size
    if not path.is_file():
        return []
    try:
        with open(path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - longest)
            file.seek(start)
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return (lines[1:] if start else lines)[-most:]
