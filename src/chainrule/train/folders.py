"""The folders of runs: making one under a name of its own, and reading the configuration that makes it a run."""

import difflib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.files import FileLock, from_json

FORMAT = "chainrule run 1"


class Foreign(CheckpointError):
    """The folder is not a run at all."""


def make_folder(root: Path, name: str | None, stem: str) -> Path:
    """A new folder under `root`, named as wished or numbered. ConfigError or CheckpointError when it cannot be.

    Making a folder is what no two processes can both succeed in, so it decides who has the number. A name may be that
    of a run whose creation was killed: then the lock decides who makes it.
    """
    if name is not None:
        if name != tame(name):
            raise ConfigError(f"A run cannot be named {name!r}: it is the name of one folder. Try {tame(name)!r}.")
        try:
            os.mkdir(root / name)
        except FileExistsError:
            if not cut_short(root / name):
                raise taken(root / name) from None
        return root / name
    stem = tame(stem)
    matches = (re.fullmatch(re.escape(stem) + r"-([1-9][0-9]{0,17})", entry) for entry in os.listdir(root))
    number = max((int(match[1]) for match in matches if match), default=0)
    while True:
        number += 1
        with suppress(FileExistsError):
            os.mkdir(root / f"{stem}-{number}")
            return root / f"{stem}-{number}"


def cut_short(path: Path) -> bool:
    """Whether the folder holds nothing but what is made of a run before its config.json: its creation was killed."""
    parts = os.listdir(path) if path.is_dir() else ["a file"]
    made = {
        "checkpoints",
        "lock",
        "metrics.sqlite",
        "metrics.sqlite-journal",
        "metrics.sqlite-shm",
        "metrics.sqlite-wal",
    }
    others = [part for part in parts if part not in made and not part.endswith(".partial")]
    return not others and not any(path.glob("checkpoints/*"))


def taken(path: Path) -> CheckpointError:
    """What to say when there is a run of that name."""
    return CheckpointError(
        f"There is a run named {path.name!r} in {path.parent} already. Choose another name, leave it out "
        "to have one numbered, or resume that run."
    )


def take(lock: FileLock) -> None:
    """Take the lock of a run's folder. CheckpointError when somebody else trains it, or it cannot be locked."""
    try:
        locked = lock.acquire()
    except OSError as error:
        raise CheckpointError(
            f"{lock.path} cannot be locked: {error.strerror or error}. "
            "Keep runs in a folder that is writable and on a local disk."
        ) from error
    if not locked:
        path = lock.path.parent
        raise CheckpointError(
            f"{path.name} is being trained by {lock.holder()}. Wait for it, stop it, or start a new run. ({path})"
        )


def tame(name: str) -> str:
    """The name with what paths and other systems take amiss replaced, and not hidden."""
    return re.sub(r"[^\w .+=@,()-]+", "-", name).strip(" .-") or "run"


def read_settings(path: Path) -> dict[str, Any]:
    """The entries of a run's config.json. Raises Foreign when there is no run, CheckpointError when it is damaged."""
    file = path / "config.json"
    try:
        settings: Any = from_json(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise Foreign(_missing(path)) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not valid JSON ({error}). Restore it from a backup, or start a new run; "
            f"checkpoints in {path / 'checkpoints'} may be intact."
        ) from error
    made_by = str(settings.get("format")) if isinstance(settings, dict) else ""
    if not made_by.startswith("chainrule run "):
        raise Foreign(f"{file} was not written by chainrule, so {path} is not a run. Give the folder of a run.")
    if made_by != FORMAT:
        raise CheckpointError(
            f"{path} is a {made_by!r}; this version of chainrule reads {FORMAT!r}. Install the version that wrote it."
        )
    if not settings.keys() >= {"config", "monitor", "mode"}:
        raise CheckpointError(f"{file} lacks entries. Restore it from a backup, or start a new run.")
    return dict(settings)


def _missing(path: Path) -> str:
    if (path / "metrics.sqlite").exists() or (path / "checkpoints").exists():
        return (
            f"{path} has no config.json: its creation was cut short, or the file was deleted. "
            "Restore it from a backup, or delete the folder and start a new run."
        )
    if path.exists():
        return f"{path} is not a run: it has no config.json. Give the folder of a run, such as runs/digits-1."
    runs = sorted(file.parent.name for file in path.parent.glob("*/config.json"))
    close = difflib.get_close_matches(path.name, runs, n=1)
    guess = f" Did you mean {path.parent / close[0]}?" if close else ""
    return f"There is no run {path}.{guess} Runs in {path.parent}: {', '.join(runs[-10:]) or 'none'}."
