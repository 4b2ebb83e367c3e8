"""The database of a run: its tables, what SQLite can hold, and its errors in our words.

    metrics      a number each step and name
    sessions     each time somebody trained
    recordings   what layers and parameters looked like at some steps, as JSON (chainrule.diagnosis.statistics)
    diagnoses    what was found wrong, as JSON

Runs that were made before there were recordings get the two last tables when somebody goes on with them.
"""

import numbers
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.files import from_json

SCHEMA = """
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE IF NOT EXISTS metrics (step INTEGER, epoch INTEGER, name TEXT, value, PRIMARY KEY (step, name));
    CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, started REAL, seen REAL, status TEXT, reason TEXT,
                                         process INTEGER, host TEXT);
    COMMIT;
"""
RECORDINGS = """
    CREATE TABLE IF NOT EXISTS recordings (step INTEGER PRIMARY KEY, epoch INTEGER, content TEXT);
    CREATE TABLE IF NOT EXISTS diagnoses (id INTEGER PRIMARY KEY, step INTEGER, epoch INTEGER, content TEXT);
"""
Table = Literal["recordings", "diagnoses"]
Metric = tuple[int, int, str, float | int | None]  # step, epoch, name, value
Content = tuple[Table, int, int, str]  # table, step, epoch, JSON
Query = Callable[..., list[tuple[Any, ...]]]


_METRICS = "INSERT INTO metrics (step, epoch, name, value) VALUES "
_AGAIN = " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, value = excluded.value"
_AT_ONCE = 100  # rows in a statement, which takes about half as long as one after the other


def write_metrics(connection: sqlite3.Connection, rows: Sequence[Metric]) -> None:
    """Add metrics of steps; one that is there already is replaced."""
    whole = len(rows) // _AT_ONCE * _AT_ONCE
    if whole:
        statement = _METRICS + ", ".join(["(?, ?, ?, ?)"] * _AT_ONCE) + _AGAIN
        groups = (rows[at : at + _AT_ONCE] for at in range(0, whole, _AT_ONCE))
        connection.executemany(statement, ([x for row in group for x in row] for group in groups))
    connection.executemany(_METRICS + "(?, ?, ?, ?)" + _AGAIN, rows[whole:])


def write_contents(connection: sqlite3.Connection, contents: Iterable[Content]) -> None:
    """Add JSON of steps to tables. `recordings` have one a step, the last; the same diagnosis is there once a step."""
    for table, step, epoch, text in contents:
        known = "SELECT 1 FROM diagnoses WHERE step = ? AND content = ?"
        if table == "recordings" or connection.execute(known, (step, text)).fetchone() is None:
            connection.execute(
                f"INSERT OR REPLACE INTO {table} (step, epoch, content) VALUES (?, ?, ?)", (step, epoch, text)
            )


def read_contents(query: Query, table: Table, after: int | None) -> list[dict[str, Any]]:
    """What was written, in order, with step and epoch in it; of the steps after that one."""
    if not query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table):
        return []
    rows = query(
        f"SELECT step, epoch, content FROM {table} WHERE ? OR step > ? ORDER BY step, rowid", after is None, after
    )
    return [{"step": step, "epoch": epoch} | from_json(content) for step, epoch, content in rows]


def as_number(name: str, value: Any) -> float | int | None:
    """A metric as SQLite holds it. It holds no NaN, and no metric is absent: so NULL stands for NaN."""
    if type(value) is float:  # most are, and epochs may be short
        return None if value != value else value
    if isinstance(value, numbers.Integral):
        number = int(value)
        if -(2**63) <= number < 2**63:
            return number
        raise ConfigError(f"The metric {name!r} is {number}, beyond 64 bits. Record it as a float.")
    if not hasattr(value, "__float__"):
        raise ConfigError(
            f"The metric {name!r} is {value!r} of type {type(value).__name__}; a metric is one real number."
        )
    try:
        result = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The metric {name!r} is not one real number: {error}.") from error
    return None if result != result else result


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # An OperationalError is about the file's surroundings, any other about its content.
        ailment = (
            "cannot be used. Is it there, the folder writable, the disk full"
            if isinstance(error, sqlite3.OperationalError)
            else "is damaged. Is there a backup"
        )
        raise CheckpointError(
            f"{path / 'metrics.sqlite'} {ailment}? ({error}) "
            f"The checkpoints in {path / 'checkpoints'} do not need it: a new run can begin from one."
        ) from error
