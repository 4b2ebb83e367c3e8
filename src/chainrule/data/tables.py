"""A table in memory. The one place where Polars is loaded, with what reads its columns beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data.findings import counted, listed, shortened
from chainrule.errors import DataError

Decimal = Literal[".", ","]

MISSING = (
    "", "?", "-", "--", ".", "NA", "N/A", "n/a", "n.a.", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN",
    "null", "NULL", "Null", "None", "\\N", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
"""Texts that stand for a missing cell."""


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length, as they were read: nothing is encoded yet.

    `notes` says what was repaired on reading. `lines` gives the line of the file where each row begins, `decimal` the
    decimal mark if it is known, `target` the column to learn if the source says it, and the last `test_rows` rows are
    the source's own test part.

    >>> from chainrule.data import Table
    >>> table = Table.of({"rooms": [3, 4, None], "city": ["Ulm", "Bonn", "Ulm"]})
    >>> table.rows, table.columns
    (3, ('rooms', 'city'))
    """

    frame: pl.DataFrame
    name: str = "table"
    target: str | None = None
    notes: tuple[str, ...] = ()
    lines: NDArray[np.int64] | None = None
    decimal: Decimal | None = None
    test_rows: int = 0

    @classmethod
    def of(cls, columns: "Mapping[str, Sequence[Any] | NDArray[Any]] | pl.DataFrame", name: str = "table") -> "Table":
        """A table from a mapping of names to values, or from a Polars frame.

        Raises DataError for columns of unequal length and for values that are no column.
        """
        if isinstance(columns, pl.DataFrame):
            return cls(cleaned(columns), name)
        series = [as_series(str(key), values) for key, values in columns.items()]
        lengths = {len(column) for column in series}
        if len(lengths) > 1:
            sizes = listed(f"{column.name} {len(column):,}" for column in series)
            raise DataError(f"{name}: the columns have different lengths: {sizes}.")
        return cls(cleaned(pl.DataFrame(series)), name)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.frame.height

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.frame.columns)

    def where(self, row: int) -> str:
        """Row `row` (counted from 0) as a reader finds it: by its line in the file, else by its number."""
        if self.lines is not None:
            return f"line {int(self.lines[row]):,}"
        return f"row {row:,} (counted from 0)"

    def with_notes(self, *notes: str) -> "Table":
        """The same table with more notes."""
        return replace(self, notes=self.notes + notes)


def as_series(name: str, values: Any) -> pl.Series:
    """One column from a list or an array; values of mixed types become texts."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f'column "{shortened(name)}" has shape {values.shape}: a column is one value per row.')
        if values.dtype.kind == "c":
            raise DataError(f'column "{shortened(name)}" holds complex numbers: split them into two columns.')
        if values.dtype.kind == "S":
            values = np.char.decode(values, "latin-1")
        values = values.tolist() if values.dtype.kind in "OUe" else values
    elif isinstance(values, str) or not hasattr(values, "__len__"):
        raise DataError(f'column "{shortened(name)}" is {type(values).__name__}: a column is one value per row.')
    try:
        if isinstance(values, list | tuple) and {type(value) for value in values} - {type(None)} == {int, float}:
            values = [value if value is None else float(value) for value in values]
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)


def cleaned(frame: pl.DataFrame, missing: Sequence[str] = ()) -> pl.DataFrame:
    """Texts without blanks around them, and without those that stand for a missing cell."""
    kinds = [column for column in frame.columns if isinstance(frame[column].dtype, pl.Categorical | pl.Enum)]
    frame = frame.with_columns(frame[column].cast(pl.String) for column in kinds)  # by name: `*` is one, too
    text = pl.col(pl.String).str.strip_chars()
    return frame.with_columns(pl.when(text.is_in([*MISSING, *missing]).not_()).then(text).name.keep())


def unique_names(names: Sequence[str], where: str, notes: list[str]) -> list[str]:
    """Column names that are neither empty nor double; what is changed goes to `notes`."""
    used: set[str] = set(name.strip() for name in names)
    result: list[str] = []
    seen: set[str] = set()
    unnamed: list[str] = []
    double: list[str] = []
    for number, given in enumerate(names, 1):
        name = given.strip() or f"column {number}"
        if not given.strip():
            unnamed.append(name)
        base, count = name, 2
        while name in seen or (name != base and name in used):
            name, count = f"{base}_{count}", count + 1
        if name != base:
            double.append(f'"{shortened(base)}" → "{shortened(name)}"')
        seen.add(name)
        result.append(name)
    if unnamed:
        verb = "has no name: called" if len(unnamed) == 1 else "have no name: called"
        notes.append(f"{where}: {counted(len(unnamed), 'column')} {verb} {listed(unnamed, quote=True)}")
    if double:
        notes.append(f"{where}: column names that occur twice are numbered ({listed(double, 3)})")
    return result


def read_parquet(path: Path) -> Table:
    """A Parquet file as a table. Raises DataError if it is damaged, empty or has no columns."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {shortened(str(error), 200)}") from error
    if not frame.width or not frame.height:
        raise DataError(f"{path.name} has {frame.width:,} columns and {frame.height:,} rows: there is nothing to read.")
    return Table(cleaned(frame), path.name)
