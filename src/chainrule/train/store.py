"""A run is a folder: what was asked for, what was measured, what was kept, and how it ended.

    runs/digits-1/
      config.json       the configuration, written once; a folder without it is not a run
      metrics.sqlite    metrics (step, epoch, name, value), sessions: each time somebody trained, recordings, diagnoses
      checkpoints/      see chainrule.train.checkpoint
      milestones/       see chainrule.train.milestones
      log.txt           lines for people
      lock              held by the process that trains; it is the lock that counts, not the file

SQLite keeps a write-ahead log here: a process that is killed loses at most the metrics that it had not yet handed over,
and others read while one writes (https://sqlite.org/wal.html). A session that says "running" while nobody holds the
lock was interrupted: that is how a kill is seen, which leaves no chance to say goodbye.
"""

import os
import platform
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, SupportsFloat, get_args

import numpy as np

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.checkpoint import (
    Checkpoint,
    delete_checkpoints_after,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from chainrule.train.database import (
    RECORDINGS,
    SCHEMA,
    Content,
    Metric,
    Table,
    as_number,
    read_contents,
    translated,
    write_contents,
    write_metrics,
)
from chainrule.train.files import FileLock, atomic_write, sync_folder, to_json
from chainrule.train.folders import FORMAT, Foreign, cut_short, make_folder, read_settings, take, taken

Status = Literal["running", "finished", "stopped", "interrupted", "failed"]

_COMMIT_SECONDS = 1.0
_COMMIT_ROWS = 10_000


class Best(NamedTuple):
    """The best value of the metric that the run watches, and where it was reached first."""

    metric: str
    value: float
    step: int
    epoch: int


@dataclass(frozen=True)
class RunSummary:
    """One line in a list of runs. `seconds` is the time spent training, over all sessions.

    `status` is that of the last session, or "damaged", with `reason` saying what is wrong.
    """

    name: str
    path: Path
    status: str
    reason: str = ""
    started: datetime | None = None
    seconds: float = 0.0
    epochs: int = 0
    best: Best | None = None


class Run:
    """A training run on the disk. Made by `Run.create` or `Run.open`; close it, or use it in a `with` block.

    One process at a time trains a run; any number read it meanwhile. Threads may share an object.

    >>> import tempfile
    >>> from chainrule.train.store import Run, list_runs
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with Run.create(root, stem="digits", config={"epochs": 2}, monitor="validation") as run:
    ...         for epoch in (1, 2):
    ...             run.record(100 * epoch, epoch, loss=1 / epoch, validation=2 / epoch)
    ...         run.set_status("finished")
    ...     print(run.columns())
    ...     print([(run.name, run.status, run.best) for run in list_runs(root)])
    {'step': [100, 200], 'epoch': [1, 2], 'loss': [1.0, 0.5], 'validation': [2.0, 1.0]}
    [('digits-1', 'finished', Best(metric='validation', value=1.0, step=200, epoch=2))]
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Use `Run.create` or `Run.open` instead."""
        self.path = path
        self.config: dict[str, Any] = settings["config"]
        self.monitor: str = settings["monitor"]
        self.mode: str = settings["mode"]
        self._lock = FileLock(path / "lock")
        self._connection: sqlite3.Connection | None = None
        self._pending: list[Metric] = []
        self._contents: list[Content] = []
        self._committed_at = time.monotonic()
        self._guard = threading.RLock()

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        name: str | None = None,
        *,
        stem: str = "run",
        config: Mapping[str, Any] | None = None,
        monitor: str = "loss",
        mode: Literal["min", "max"] = "min",
    ) -> Self:
        """Make the folder of a new run in `root` (made too when missing) and begin to train it.

        Without a `name` it is `stem-1`, `stem-2`, ...: one more than the highest there. `monitor` is the metric that
        tells the best epoch, by its least ("min") or its greatest ("max") value.

        Raises `CheckpointError` when the name is taken or the folder cannot be written, `ConfigError` for a name or a
        configuration that makes no sense.
        """
        if mode not in ("min", "max"):
            raise ConfigError(f"mode is 'min' or 'max', not {mode!r}.")
        settings = {"format": FORMAT, "monitor": monitor, "mode": mode, "config": dict(config or {})}
        text = to_json(settings, "settings", indent=2)
        root = Path(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            run = cls(make_folder(root, name, stem), settings)
            run._establish(text)
        except OSError as error:
            raise CheckpointError(
                f"No run could be made in {root}: {error.strerror or error}. Choose another folder, or free some space."
            ) from error
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, train: bool = False) -> Self:
        """Open the folder of a run, to read it, or (`train=True`) to go on training it as its only trainer.

        Raises `CheckpointError` when there is no run, it is damaged or foreign, or somebody else trains it.
        """
        path = Path(path)
        run = cls(path, read_settings(path))
        run.summary()  # proves that it can be read
        if train:
            run._begin_session()
        return run

    def _establish(self, settings: str) -> None:
        """Make what is in the folder of a new run; `settings`, written last, make it one."""
        take(self._lock)
        try:
            if not cut_short(self.path):  # somebody else was faster with what a killed creation left
                raise taken(self.path)
            self.checkpoints.mkdir(exist_ok=True)
            with translated(self.path), closing(sqlite3.connect(self._database)) as connection:
                connection.executescript(SCHEMA)
            sync_folder(self.path.parent)
            self._begin_session()
            atomic_write(self.path / "config.json", settings.encode() + b"\n")
        except BaseException:  # the lock must not outlive the attempt
            self._close()
            raise

    def _begin_session(self) -> None:
        take(self._lock)
        try:
            with translated(self.path):
                address = f"{self._database.absolute().as_uri()}?mode=rw"
                self._connection = sqlite3.connect(
                    address, uri=True, timeout=30, isolation_level="IMMEDIATE", check_same_thread=False
                )
                # Synchronous commits: a checkpoint must not survive a power failure that its metrics do not survive.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(RECORDINGS)
                if (verdict := self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(verdict)
                with self._connection:
                    self._connection.execute(
                        "INSERT INTO sessions (started, seen, status, reason, process, host) "
                        "VALUES (?1, ?1, 'running', '', ?2, ?3)",
                        (time.time(), os.getpid(), platform.node()),
                    )
        except BaseException:
            self._close()
            raise

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def _database(self) -> Path:
        return self.path / "metrics.sqlite"

    # Training: these need the lock.

    def record(self, step: int, epoch: int, **metrics: SupportsFloat) -> None:
        """Add metrics (real numbers; NaN and infinities too) of a step. They reach the disk about once a second.

        A metric has one value a step: a second one replaces the first, so that recording again changes nothing.

        Raises `ConfigError` for a value that is not a number.
        """
        self._note([(int(step), int(epoch), name, as_number(name, value)) for name, value in metrics.items()])

    def record_series(self, name: str, epoch: int, points: Sequence[tuple[int, float]]) -> None:
        """Like `record`, one metric of several steps: (step, value)."""
        self._note([(step, epoch, name, as_number(name, value)) for step, value in points])

    def _note(self, rows: Sequence[Metric]) -> None:
        with self._guard:
            self._writer()
            self._pending += rows
            if len(self._pending) >= _COMMIT_ROWS or time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Commit what was recorded. When this returns, it survives a kill and a power failure."""
        with self._guard:
            with translated(self.path), self._writer() as connection:
                write_metrics(connection, self._pending)
                write_contents(connection, self._contents)
                connection.execute(
                    "UPDATE sessions SET seen = ? WHERE id = (SELECT max(id) FROM sessions)", (time.time(),)
                )
            # Should an interrupt strike between commit and clear, the rows are written again, to the same effect.
            self._pending.clear()
            self._contents.clear()
            self._committed_at = time.monotonic()

    def save(
        self,
        step: int,
        tensors: Mapping[str, np.ndarray],
        state: Mapping[str, Any],
        *,
        best: bool = False,
        keep: int | None = None,
    ) -> Path:
        """Save a checkpoint (see `save_checkpoint`), after the metrics, so that none of its past can be missing.

        With `keep`, all but the last `keep` checkpoints and the best are deleted then.
        """
        self.flush()
        path = save_checkpoint(self.checkpoints, step, tensors, state, best=best)
        if keep is not None:
            prune_checkpoints(self.checkpoints, keep)
        return path

    def truncate_after(self, step: int) -> None:
        """Forget metrics and checkpoints of later steps: what resuming from the checkpoint of `step` begins with."""
        with self._guard:
            self.flush()
            # Checkpoints first: one that outlived its metrics would be resumed with a hole in the history.
            delete_checkpoints_after(self.checkpoints, step)
            with translated(self.path), self._writer() as connection:
                for table in ("metrics", "recordings", "diagnoses"):
                    connection.execute(f"DELETE FROM {table} WHERE step > ?", (int(step),))

    def record_snapshot(self, step: int, epoch: int, snapshot: Mapping[str, Any]) -> None:
        """Keep what layers and parameters looked like at a step (see chainrule.diagnosis.statistics)."""
        self._keep("recordings", step, epoch, snapshot)

    def record_diagnosis(self, step: int, epoch: int, diagnosis: Mapping[str, Any]) -> None:
        """Keep what was found wrong at a step."""
        self._keep("diagnoses", step, epoch, diagnosis)

    def _keep(self, table: Table, step: int, epoch: int, content: Mapping[str, Any]) -> None:
        text = to_json(dict(content), table)
        with self._guard:
            self._writer()
            self._contents.append((table, int(step), int(epoch), text))
            self._note([])

    def log(self, text: str) -> None:
        """Append a line, with the time before it, to log.txt."""
        self._writer()
        line = f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {text}\n"
        try:
            with open(self.path / "log.txt", "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line)
        except OSError as error:
            raise CheckpointError(f"{self.path / 'log.txt'} cannot be written: {error.strerror or error}.") from error

    def set_status(self, status: Status, reason: str = "") -> None:
        """Say how the run stands, and why (for people: "validation has not improved for 10 epochs")."""
        if status not in get_args(Status):
            raise ConfigError(f"A status is one of {', '.join(get_args(Status))}, not {status!r}.")
        self.flush()
        with self._guard, translated(self.path), self._writer() as connection:
            connection.execute(
                "UPDATE sessions SET status = ?, reason = ? WHERE id = (SELECT max(id) FROM sessions)", (status, reason)
            )

    def close(self) -> None:
        """Commit what is pending and give the run back. Reading it stays possible. Closing twice is no mistake."""
        with self._guard:
            try:
                if self._connection is not None and self._lock.held:
                    self.flush()
            finally:
                self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self.close()
            elif self._lock.held and self.status == "running":
                by_user = isinstance(error, (KeyboardInterrupt, SystemExit))
                with suppress(CheckpointError):  # a full disk, say: the error that came first tells more
                    self.set_status("interrupted" if by_user else "failed", f"{type(error).__name__}: {error}")
        finally:
            self._close()

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None or not self._lock.held:
            raise ConfigError(f"The run {self.name} is not open for training here. Try Run.open(path, train=True).")
        return self._connection

    # Reading: any process, at any time.

    def load(self, step: int | Literal["last", "best"] | None = None) -> Checkpoint:
        """Load a checkpoint of the run (see `load_checkpoint`)."""
        return load_checkpoint(self.checkpoints, step)

    def history(self, after: int | None = None) -> list[dict[str, Any]]:
        """What was recorded, a dict a step: step, epoch, then the metrics in the order in which they were recorded.

        `after` leaves out the steps up to that one: a page that follows a run asks for the news only.
        """
        rows: dict[int, dict[str, Any]] = {}
        query = "SELECT step, epoch, name, value FROM metrics WHERE ? OR step > ? ORDER BY step, rowid"
        for step, epoch, name, value in self._query(query, after is None, after):
            row = rows.setdefault(step, {"step": step, "epoch": epoch})
            row["epoch"] = epoch
            row[name] = float("nan") if value is None else value
        return list(rows.values())

    def snapshots(self, after: int | None = None) -> list[dict[str, Any]]:
        """What `record_snapshot` kept, with step and epoch; of the steps after that one."""
        return read_contents(self._query, "recordings", after)

    def diagnoses(self, after: int | None = None) -> list[dict[str, Any]]:
        """What `record_diagnosis` kept, with step and epoch; of the steps after that one."""
        return read_contents(self._query, "diagnoses", after)

    def columns(self) -> dict[str, list[Any]]:
        """The history as columns of one length; None where a step has no value of a metric."""
        history = self.history()
        names = dict.fromkeys(name for row in history for name in row)
        return {name: [row.get(name) for row in history] for name in names}

    @property
    def best(self) -> Best | None:
        """The best value of the monitored metric so far (the first of equals; NaN never), or None."""
        order = "ASC" if self.mode == "min" else "DESC"
        rows = self._query(
            f"SELECT name, value, step, epoch FROM metrics WHERE name = ? AND value IS NOT NULL "
            f"ORDER BY value {order}, step ASC LIMIT 1",
            self.monitor,
        )
        return Best(*rows[0]) if rows else None

    @property
    def status(self) -> Status:
        """How the run stands. "running" only while a living process trains it, else "interrupted"."""
        return self._status_and_reason()[0]

    def _status_and_reason(self) -> tuple[Status, str]:
        training = self._lock.is_held_by_anyone()  # asked first: a run that ends in between is then seen as ended
        rows = self._query("SELECT status, reason FROM sessions ORDER BY id DESC LIMIT 1")
        status, reason = rows[0] if rows else ("interrupted", "it ended before it began")
        # Between the two questions somebody may have begun to train: only a lock that is still free proves the end.
        if status == "running" and not training and not self._lock.is_held_by_anyone():
            return "interrupted", "its process is gone"
        return status, reason

    def summary(self) -> RunSummary:
        """The run in one line of a list."""
        status, reason = self._status_and_reason()
        started, seconds = self._query("SELECT min(started), total(max(seen - started, 0)) FROM sessions")[0]
        epochs = self._query("SELECT coalesce(max(epoch), 0) FROM metrics")[0][0]
        when = None if started is None else datetime.fromtimestamp(started, UTC)
        return RunSummary(self.name, self.path, status, reason, when, seconds, epochs, self.best)

    def _query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask over a connection of its own, so that no reader holds up the writer for longer than its question."""
        with self._guard:
            if self._pending or self._contents:
                self.flush()
        # SQLite needs to write beside the file even to read it, save when told that nobody else writes.
        frozen = not os.access(self.path, os.W_OK) and not os.path.exists(f"{self._database}-wal")
        with translated(self.path):
            address = f"{self._database.absolute().as_uri()}?mode=ro{'&immutable=1' if frozen else ''}"
            with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()


def list_runs(root: str | os.PathLike[str]) -> list[RunSummary]:
    """The runs in a folder, in the order in which they began. Folders that are no runs are left out.

    A run that cannot be read is in the list, with the status "damaged" and the reason. No folder: an empty list.

    >>> from chainrule.train.store import list_runs
    >>> list_runs("no such folder")
    []
    """
    summaries = []
    for path in sorted(Path(root).glob("*/config.json")):
        try:
            summaries.append(Run(path.parent, read_settings(path.parent)).summary())
        except Foreign:
            continue
        except CheckpointError as error:
            summaries.append(RunSummary(path.parent.name, path.parent, "damaged", str(error)))
    return sorted(summaries, key=lambda run: (run.started is None, run.started, run.name))
