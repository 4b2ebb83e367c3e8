"""How one column of a table becomes numbers a network can take: fitted on the training rows, applied to any rows.

Each class holds the fitted numbers and nothing else, so that a column is its JSON; `encode` writes its features.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data import parsing
from chainrule.data.findings import Findings, listed
from chainrule.data.parsing import Notation
from chainrule.data.tables import Decimal
from chainrule.errors import DataError

Features = NDArray[np.float64]

MOST_DEVIATIONS = 1e6
"""Standardised numbers are held within this many standard deviations, so that none overflows in float32."""

TRUE = ("true", "t", "yes", "y", "on", "1", "1.0")
FALSE = ("false", "f", "no", "n", "off", "0", "0.0")


@dataclass(frozen=True)
class Scale:
    """Standardisation of one number: gaps take the training median, then (value - mean) / deviation."""

    median: float
    mean: float
    deviation: float

    @classmethod
    def fit(cls, values: Features) -> "Scale | None":
        """Fitted to the numbers that are there (NaN: missing); None if they do not vary."""
        known = values[~np.isnan(values)]
        if not len(known) or known.min() == known.max():
            return None
        exponent = int(np.frexp(np.abs(known).max())[1])
        small = np.ldexp(known, -exponent)  # in [-1, 1]: no sum or square below can overflow
        mean, deviation = float(np.ldexp(small.mean(), exponent)), float(np.ldexp(small.std(), exponent))
        median = float(np.ldexp(np.median(small), exponent))
        return cls(median, mean, deviation) if deviation > 0 else None

    def apply(self, values: Features) -> Features:
        """Standardised; not yet held within bounds."""
        filled = np.where(np.isnan(values), self.median, values)
        with np.errstate(over="ignore"):
            return (filled * 0.5 - self.mean * 0.5) / self.deviation * 2  # halves: the difference cannot overflow


def hold(name: str, standard: Features, findings: Findings, values: pl.Series) -> Features:
    """Standardised numbers within bounds; those that were not are a finding."""
    far = np.abs(standard) > MOST_DEVIATIONS
    repair = "lying more than a million standard deviations from the training mean, held at that bound"
    findings.add_cells(name, repair, far, values)
    return np.clip(standard, -MOST_DEVIATIONS, MOST_DEVIATIONS)


@dataclass(frozen=True)
class NumberColumn:
    """Numbers, standardised; `flag` adds a feature that is 1 where the cell was missing."""

    kind: ClassVar[str] = "number"
    name: str
    scale: Scale
    notation: Notation
    flag: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One feature, and one for gaps."""
        return (self.name, f"{self.name} (missing)") if self.flag else (self.name,)

    def encode(self, series: pl.Series, decimal: Decimal | None, findings: Findings) -> Features:
        """Features (rows, 1 or 2). Raises DataError if most cells are no numbers."""
        read = read_numbers(self.name, series, decimal or ("," if self.notation == "decimal comma" else None), findings)
        standard = hold(self.name, self.scale.apply(read.values), findings, series)
        note_gaps(self.name, np.isnan(read.values), self.flag, "filled by the training median", findings)
        return with_flag(standard[:, None], read.values, self.flag)


def read_numbers(name: str, series: pl.Series, decimal: Decimal | None, findings: Findings) -> parsing.Numbers:
    """The numbers of a column, with findings about the cells that are none. Raises DataError if most cells are none."""
    read = parsing.numbers(series, decimal)
    if 2 * read.bad.sum() > len(series) - series.null_count():
        first = int(np.flatnonzero(read.bad)[0])
        raise DataError(
            f'column "{name}" should hold numbers, but {int(read.bad.sum()):,} of {len(series):,} cells are none, '
            f"first {listed([series[first]], quote=True)} in {findings.where(first)}."
        )
    findings.add_cells(name, "with text where a number should be, treated as missing", read.bad, series)
    findings.add_cells(name, "infinite, treated as missing", read.infinite, series)
    if read.notation != "plain":
        findings.add(name, f"numbers are read with {'a ' if read.notation == 'decimal comma' else ''}{read.notation}")
    if read.signs:
        findings.add(name, "currency signs, percent signs and gaps between digits are left out of the numbers")
    return read


def note_gaps(name: str, gaps: NDArray[np.bool_], flag: bool, filling: str, findings: Findings) -> None:
    """Say how gaps are filled, unless a feature of their own marks them, as the summary of the columns says."""
    if not flag:
        findings.add_cells(name, f"missing, {filling}", gaps)


def with_flag(features: Features, values: Features, flag: bool) -> Features:
    """The features, and beside them 1 where the value was missing."""
    return np.column_stack((features, np.isnan(values))) if flag else features


@dataclass(frozen=True)
class BooleanColumn:
    """Yes or no as 1 or 0; a missing cell takes the share of yes in the training rows."""

    kind: ClassVar[str] = "boolean"
    name: str
    share: float
    flag: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One feature, and one for gaps."""
        return (self.name, f"{self.name} (missing)") if self.flag else (self.name,)

    def encode(self, series: pl.Series, decimal: Decimal | None, findings: Findings) -> Features:
        """Features (rows, 1 or 2)."""
        values, bad = booleans(series)
        findings.add_cells(self.name, "neither yes nor no, treated as missing", bad, series)
        filled = np.where(np.isnan(values), self.share, values)
        note_gaps(self.name, np.isnan(values), self.flag, "filled by the training share of yes", findings)
        return with_flag(filled[:, None], values, self.flag)


def booleans(series: pl.Series) -> tuple[Features, NDArray[np.bool_]]:
    """1, 0 or NaN for each cell, and which cells are neither yes nor no."""
    text = labels(series).str.to_lowercase()
    yes, no = (text.is_in(list(words)).fill_null(False).to_numpy() for words in (TRUE, FALSE))
    values = np.where(yes, 1.0, np.where(no, 0.0, np.nan))
    return values, series.is_not_null().to_numpy() & np.isnan(values)


def labels(series: pl.Series) -> pl.Series:
    """Cells as the names of categories: whole numbers without a point, so that `3`, `3.0` and 3 are one."""
    if series.dtype.is_float():
        series = series.fill_nan(None)
    text = series.cast(pl.String, strict=False)
    return text.str.replace(r"^([+-]?\d+)\.0+$", "${1}")


@dataclass(frozen=True)
class CategoryColumn:
    """Categories, one feature each. Rare and unseen ones share the feature `other`; without it they are all zeros."""

    kind: ClassVar[str] = "category"
    name: str
    levels: tuple[str, ...]
    other: bool
    flag: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One feature per level, one for the others, one for gaps."""
        extra = ["(other)"] * self.other + ["(missing)"] * self.flag
        return tuple(f"{self.name} = {level}" for level in [*self.levels, *extra])

    def encode(self, series: pl.Series, decimal: Decimal | None, findings: Findings) -> Features:
        """Features (rows, levels + other + missing), one 1 in each row at most."""
        text = labels(series)
        index = {level: i for i, level in enumerate(self.levels)}
        codes = text.replace_strict(index, default=len(index), return_dtype=pl.Int64).to_numpy(writable=True)
        missing = text.is_null().to_numpy()
        codes[missing] = len(index) + self.other
        unseen = (codes == len(index)) & ~missing
        what = "a rare or unseen category, encoded as (other)" if self.other else "an unseen category, encoded as none"
        findings.add_cells(self.name, f"with {what}", unseen, text)
        if not self.other:
            codes[unseen] = -1
        if not self.flag:
            codes[missing] = -1
        note_gaps(self.name, missing, self.flag, "encoded as none of the categories", findings)
        return (codes[:, None] == np.arange(len(self.feature_names))).astype(np.float64)


@dataclass(frozen=True)
class DateColumn:
    """Dates as standardised parts: those of year, month, day of week, hour and days since 1970 that vary."""

    kind: ClassVar[str] = "date"
    name: str
    form: str | None
    parts: tuple[str, ...]
    scales: tuple[Scale, ...]
    flag: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One feature per part, and one for gaps."""
        return tuple(f"{self.name} {part}" for part in [*self.parts, *["(missing)"] * self.flag])

    def encode(self, series: pl.Series, decimal: Decimal | None, findings: Findings) -> Features:
        """Features (rows, parts + missing). Raises DataError if most cells are no dates."""
        read = parsing.dates(series, self.form)
        known = len(series) - series.null_count()
        if 2 * read.bad.sum() > known and self.form is not None:
            read = parsing.dates(series)  # perhaps the same dates, written in another way
        if 2 * read.bad.sum() > known:
            first = int(np.flatnonzero(read.bad)[0])
            raise DataError(
                f'column "{self.name}" should hold dates{f" such as {self.form}" if self.form else ""}, but '
                f"{int(read.bad.sum()):,} of {len(series):,} cells are none, "
                f"first {listed([series[first]], quote=True)} in {findings.where(first)}."
            )
        findings.add_cells(self.name, "not a date, treated as missing", read.bad, series)
        if parsing.ambiguous(read):
            findings.add(self.name, "dates are read as month/day/year; no cell tells which comes first")
        values = date_parts(read.values)
        standard = [scale.apply(values[part]) for part, scale in zip(self.parts, self.scales, strict=True)]
        held = [hold(self.name, column, findings, series) for column in standard]
        note_gaps(self.name, np.isnan(values["days"]), self.flag, "filled by the training median", findings)
        return with_flag(np.column_stack(held), values["days"], self.flag)


def date_parts(values: pl.Series) -> dict[str, Features]:
    """Year, month (1 to 12), day of week (1 is Monday), hour (0 to 24, with minutes) and days since 1970."""
    parts = {
        "year": values.dt.year(),
        "month": values.dt.month(),
        "day of week": values.dt.weekday(),
        "hour": values.dt.hour().cast(pl.Float64) + values.dt.minute() / 60 + values.dt.second() / 3600,
        "days": values.dt.epoch("us") / 86_400e6,
    }
    return {name: part.cast(pl.Float64).to_numpy() for name, part in parts.items()}


Column = NumberColumn | BooleanColumn | CategoryColumn | DateColumn


def to_json(column: Column) -> dict[str, Any]:
    """A column as plain JSON values."""
    return {"kind": column.kind, **asdict(column)}


def from_json(data: dict[str, Any]) -> Column:
    """The column that `to_json` wrote."""
    fields: dict[str, Any] = {key: value for key, value in data.items() if key != "kind"}
    match data["kind"]:
        case "number":
            return NumberColumn(**fields | {"scale": Scale(**fields["scale"])})
        case "boolean":
            return BooleanColumn(**fields)
        case "category":
            return CategoryColumn(**fields | {"levels": tuple(fields["levels"])})
        case "date":
            scales = tuple(Scale(**scale) for scale in fields["scales"])
            return DateColumn(**fields | {"parts": tuple(fields["parts"]), "scales": scales})
    raise ValueError(f"unknown kind of column {data['kind']!r}")
