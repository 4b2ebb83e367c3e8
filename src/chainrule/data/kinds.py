"""What kind of column this is, judged by the training rows alone, and the column fitted to them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data import parsing
from chainrule.data.columns import (
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    Features,
    NumberColumn,
    Scale,
    booleans,
    date_parts,
    labels,
)
from chainrule.data.findings import counted, listed, shortened
from chainrule.data.tables import Decimal
from chainrule.errors import ConfigError, DataError

Kind = Literal["number", "category", "boolean", "date", "ignore"]

MOST_LEVELS = 64
"""Categories beyond the most frequent 64 share one feature."""
RARE = 3
"""Where there are more than ten categories, those with fewer training rows than this share one feature."""
BAD_SHARE = 0.05
"""Up to this share of texts (and always up to two cells) a column still counts as numbers."""

IDENTIFIER = re.compile(
    r"(id|index|idx|uuid|guid|key|row|row[ _.-]?(id|name|names|no|nr|num|number)|column[ _]1|unnamed.*)"
    r"|.*[ _.-](id|idx|index|uuid|guid|key)|(id|uuid|guid)[ _.-].*",
    re.IGNORECASE,
)
CAMEL_ID = re.compile(r".*[a-z]I[dD]")


@dataclass(frozen=True)
class Ignored:
    """A column that is left out, and why. `counter` marks one that would do if there were no other."""

    reason: str
    counter: bool = False


@dataclass(frozen=True)
class Options:
    """What the user may choose about columns."""

    kinds: Mapping[str, Kind]
    flag_missing: bool = True
    most_levels: int = MOST_LEVELS
    decimal: Decimal | None = None
    keep_counters: bool = False

    def check(self, columns: tuple[str, ...]) -> None:
        """Raise ConfigError for kinds of unknown columns, unknown kinds and a limit below two."""
        for name, kind in self.kinds.items():
            if name not in columns:
                raise ConfigError(f'kinds names the column "{name}", which the table lacks: {listed(columns)}.')
            if kind not in get_args(Kind):
                raise ConfigError(f'"{kind}" is no kind of column (for "{name}"). Kinds: {", ".join(get_args(Kind))}.')
        if self.most_levels < 2:
            raise ConfigError(f"most_levels is {self.most_levels}: a category needs at least 2 levels.")


def fit_column(
    name: str, series: pl.Series, rows: NDArray[np.intp], first: bool, options: Options, notes: list[str]
) -> Column | Ignored:
    """The column fitted to its training cells, or why it is left out.

    `rows` are the positions of these cells in the table, `first` says that the column is the leftmost.
    """
    kind = options.kinds.get(name)
    if kind == "ignore":
        return Ignored("as asked")
    if unreadable(series):
        return Ignored(f"{series.dtype} values cannot be encoded")
    if series.null_count() == len(series) or (series.dtype.is_float() and series.is_nan().fill_null(True).all()):
        return Ignored("no value in any training row")
    flag = options.flag_missing
    if kind == "number":
        return fit_number(name, asked_numbers(name, series, options.decimal), flag)
    if kind == "date":
        return fit_date(name, asked_dates(name, series), flag)
    if kind == "boolean":
        return fit_boolean(name, asked_booleans(name, series), flag)
    if kind == "category":
        return fit_category(name, series, options, asked=True)
    return inferred(name, series, rows, first, options, notes)


def unreadable(series: pl.Series) -> bool:
    """Whether cells are lists, structures or raw bytes."""
    return series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object) or series.dtype == pl.Unknown


def inferred(
    name: str, series: pl.Series, rows: NDArray[np.intp], first: bool, options: Options, notes: list[str]
) -> Column | Ignored:
    """Yes/no, then dates, then numbers, then categories: the first that fits."""
    flag, known = options.flag_missing, len(series) - series.null_count()
    if series.dtype in (pl.Date, pl.Datetime):
        return fit_date(name, parsing.dates(series), flag)
    if series.dtype in (pl.String, pl.Boolean) and series.n_unique() <= 12:
        truth, neither = booleans(series)
        digits = series.dtype == pl.String and set(series.drop_nulls()) <= {"0", "1", "0.0", "1.0"}
        if not neither.any() and not digits:
            return fit_boolean(name, truth, flag)
    read = parsing.numbers(series, options.decimal)
    if series.dtype != pl.String or mostly_numbers(series, read, known):
        return identifier(name, read, rows, first, options) or fit_number(name, read, flag)
    moments = parsing.dates(series)
    if moments.form is not None and moments.bad.sum() <= max(2, BAD_SHARE * known):
        return fit_date(name, moments, flag)
    column = fit_category(name, series, options, asked=False)
    bad = int(read.bad.sum())
    if 2 * bad < known:
        example = shortened(str(series[int(np.flatnonzero(read.bad)[0])]))
        outcome = f"ignored ({column.reason})" if isinstance(column, Ignored) else "taken as categories"
        notes.append(
            f"{name}: {known - bad:,} of {known:,} training cells are numbers, but {bad:,} are texts such as "
            f'"{example}", so the column is {outcome}; kinds={{"{name}": "number"}} treats the texts as missing'
        )
    return column


def mostly_numbers(series: pl.Series, read: parsing.Numbers, known: int) -> bool:
    """Whether the texts among the numbers are few, or one to three words that stand for a gap, such as `unknown`."""
    bad = int(read.bad.sum())
    if bad <= BAD_SHARE * known or (bad <= 2 and bad <= 0.25 * known):
        return bad < known
    words = series.filter(read.bad).n_unique()
    return words <= 3 and 2 * bad <= known and len(np.unique(read.values[~np.isnan(read.values)])) >= 10


def identifier(
    name: str, read: parsing.Numbers, rows: NDArray[np.intp], first: bool, options: Options
) -> Ignored | None:
    """Whole numbers that differ in every row and are called an identifier, or count the rows in the first column."""
    values = read.values
    if len(values) < 3 or np.isnan(values).any() or (values != np.floor(values)).any():
        return None
    if not options.keep_counters and first and (np.diff(values - rows) == 0).all():
        return Ignored("counts the rows", counter=True)
    called = IDENTIFIER.fullmatch(name.strip()) or CAMEL_ID.fullmatch(name.strip())
    if not options.keep_counters and called and len(np.unique(values)) == len(values):
        return Ignored("unique in every row", counter=True)
    return None


def fit_number(name: str, read: parsing.Numbers, flag: bool) -> Column | Ignored:
    """Numbers; one that never varies is kept only where its gaps may tell something."""
    gaps = bool(np.isnan(read.values).any())
    scale = Scale.fit(read.values)
    if scale is not None:
        return NumberColumn(name, scale, read.notation, flag and gaps)
    known = read.values[~np.isnan(read.values)]
    if not len(known):
        return Ignored("no number in any training row")
    if gaps and flag:
        return NumberColumn(name, Scale(float(known[0]), float(known[0]), 1.0), read.notation, True)
    return Ignored(f"the same in every training row ({known[0]:g})")


def fit_boolean(name: str, truth: Features, flag: bool) -> Column | Ignored:
    """Yes or no; a column that never varies is left out unless its gaps may tell something."""
    known, gaps = truth[~np.isnan(truth)], bool(np.isnan(truth).any())
    if known.min() == known.max() and not (gaps and flag):
        return Ignored(f"the same in every training row ({'yes' if known[0] else 'no'})")
    return BooleanColumn(name, float(known.mean()), flag and gaps)


def fit_date(name: str, moments: parsing.Dates, flag: bool) -> Column | Ignored:
    """The parts of a date that vary."""
    parts = date_parts(moments.values)
    scales = {part: Scale.fit(values) for part, values in parts.items()}
    kept = {part: scale for part, scale in scales.items() if scale is not None}
    if not kept:
        return Ignored("the same date in every training row")
    gaps = moments.values.null_count() > 0
    return DateColumn(name, moments.form, tuple(kept), tuple(kept.values()), flag and gaps)


def fit_category(name: str, series: pl.Series, options: Options, asked: bool) -> Column | Ignored:
    """Categories, unless they are names or free text: (nearly) every cell another."""
    text = labels(series).alias("level")
    counts = text.drop_nulls().value_counts(name="rows").sort(["rows", "level"], descending=[True, False])
    names, sizes = counts.to_series(0).to_list(), counts.to_series(1).to_list()
    known, gaps = sum(sizes), text.null_count() > 0
    if not asked:
        if len(names) == known and known > 2:
            return Ignored("unique in every row")
        length = float(text.str.len_chars().mean() or 0)  # type: ignore[arg-type]
        if len(names) > 20 and (2 * len(names) > known or length > 80):
            what = "free text" if length > 40 else "names or other texts"
            return Ignored(f"{what}, {len(names):,} different in {counted(known, 'training row')}")
    if len(names) == 1 and not (gaps and options.flag_missing):
        return Ignored(f'the same in every training row ("{shortened(names[0])}")')
    enough = 1 if len(names) <= 10 else RARE
    kept = [level for level, rows in zip(names, sizes, strict=True) if rows >= enough][: options.most_levels]
    if not kept:
        kept = names[: options.most_levels]
    return CategoryColumn(name, tuple(sorted(kept)), len(kept) < len(names), gaps and options.flag_missing)


def asked_numbers(name: str, series: pl.Series, decimal: Decimal | None) -> parsing.Numbers:
    """Numbers because the user says so. Raises DataError if no cell is one."""
    read = parsing.numbers(series, decimal)
    if np.isnan(read.values).all():
        raise DataError(f'column "{name}" is to be read as numbers, but no training cell is one ({example(series)}).')
    return read


def asked_dates(name: str, series: pl.Series) -> parsing.Dates:
    """Dates because the user says so. Raises DataError if the format is not known."""
    moments = parsing.dates(series)
    if moments.values.null_count() == len(series):
        raise DataError(
            f'column "{name}" is to be read as dates, but no known way of writing dates fits ({example(series)}). '
            f"ISO dates such as 2024-05-31 always do."
        )
    return moments


def asked_booleans(name: str, series: pl.Series) -> Features:
    """Yes or no because the user says so. Raises DataError if no cell is either."""
    truth, _ = booleans(series)
    if np.isnan(truth).all():
        raise DataError(
            f'column "{name}" is to be read as yes or no, but no training cell is either ({example(series)}). '
            f"Known: true/false, yes/no, y/n, t/f, on/off, 1/0."
        )
    return truth


def example(series: pl.Series) -> str:
    """A first few cells for a message."""
    return f"such as {listed(series.drop_nulls().head(3), quote=True)}"
