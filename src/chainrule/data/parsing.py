"""Numbers and dates, out of texts that people and spreadsheets write."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data.tables import Decimal

Notation = Literal["plain", "thousands commas", "decimal comma"]

PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$"
DECIMAL_COMMA = r"^[+-]?([1-9]\d{0,2}(\.\d{3})+|\d*)(,\d+)?([eE][+-]?\d+)?$"
GROUPED = r"^[+-]?[1-9]\d{0,2}([ \x{a0}\x{202f}'’]\d{3})+([.,]\d+)?$"
SIGNED = r"^([+-]?)\s*[$€£¥₹]\s*"
UNIT = r"\s*[%$€£¥₹]$"


@dataclass(frozen=True)
class Numbers:
    """A column as numbers: NaN where a cell is missing, is no number (`bad`) or is infinite (`infinite`)."""

    values: NDArray[np.float64]
    bad: NDArray[np.bool_]
    infinite: NDArray[np.bool_]
    notation: Notation = "plain"
    signs: bool = False


def numbers(series: pl.Series, decimal: Decimal | None = None) -> Numbers:
    """The numbers of a column of any type, in the notation that makes numbers of most of its cells.

    Notations: plain (`1234.5`, `1e-3`), thousands commas (`1,234.5`), decimal comma (`1.234,5`). Where they do equally
    well, plain wins unless the decimal mark is known to be a comma. Currency and percent signs are left out, and so are
    blanks or apostrophes between groups of three digits.
    """
    dtype = series.dtype
    if dtype == pl.String:
        return from_text(series, decimal)
    if dtype.is_numeric() or dtype == pl.Boolean:
        values = series.cast(pl.Float64)
    elif isinstance(dtype, pl.Duration):
        values = series.dt.total_microseconds() / 86_400e6  # days
    elif dtype == pl.Time:
        values = series.dt.hour() + series.dt.minute() / 60 + series.dt.second() / 3600
    else:
        nothing = np.full(len(series), np.nan)
        return Numbers(nothing, series.is_not_null().to_numpy(), np.zeros(len(series), bool))
    return finite(values, np.zeros(len(series), bool))


def finite(values: pl.Series, bad: NDArray[np.bool_], notation: Notation = "plain", signs: bool = False) -> Numbers:
    """Infinite values become NaN and are marked."""
    array = values.cast(pl.Float64).to_numpy(writable=True)
    infinite = np.isinf(array)
    array[infinite] = np.nan
    return Numbers(array, bad, infinite, notation, signs)


def from_text(series: pl.Series, decimal: Decimal | None) -> Numbers:
    """The numbers in a column of texts."""
    plain = series.cast(pl.Float64, strict=False)
    missing = series.null_count()
    if plain.null_count() == missing and decimal != ",":
        return finite(plain, np.zeros(len(series), bool))
    tidy = without_signs(series)
    lower = tidy.str.to_lowercase()
    infinite = lower.str.contains(r"^[+-]?(inf|infinity|∞)$").fill_null(False)
    simple = lower.str.replace("∞", "inf", literal=True).cast(pl.Float64, strict=False)
    commas = tidy.str.contains(DECIMAL_COMMA) & tidy.str.contains(r"\d")
    pointed = tidy.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    from_commas = where(commas, pointed, only(simple, infinite))
    candidates: list[tuple[Notation, pl.Series]] = [
        ("plain", simple),
        ("thousands commas", where(tidy.str.contains(THOUSANDS), tidy.str.replace_all(",", "", literal=True), simple)),
        ("decimal comma", from_commas),
    ]
    if decimal == "," and tidy.str.contains(",", literal=True).any():
        candidates = [candidates[2], candidates[0], candidates[1]]
    notation, best = min(candidates, key=lambda candidate: candidate[1].null_count())
    bad = (best.is_null() & series.is_not_null()).to_numpy()
    return finite(best, bad, notation, bool((series != tidy).any()))


def where(mask: pl.Series, texts: pl.Series, otherwise: pl.Series) -> pl.Series:
    """`texts` as numbers where the mask holds, else `otherwise`."""
    return texts.cast(pl.Float64, strict=False).zip_with(mask.fill_null(False), otherwise)


def only(values: pl.Series, mask: pl.Series) -> pl.Series:
    """The values where the mask holds, null elsewhere."""
    return pl.select(pl.when(mask).then(values).alias(values.name)).to_series()


def without_signs(series: pl.Series) -> pl.Series:
    """Texts without currency and percent signs and without blanks or apostrophes between groups of digits."""
    tidy = series.str.replace("−", "-", literal=True).str.replace(SIGNED, "${1}").str.replace(UNIT, "")
    groups = tidy.str.contains(GROUPED).fill_null(False)
    return tidy.str.replace_all(r"[ \x{a0}\x{202f}'’]", "").zip_with(groups, tidy) if groups.any() else tidy


FORMATS = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M",
    "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M",
    "%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%m/%d/%y",
    "%d/%m/%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%Y %H:%M:%S",
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d.%m.%y",
)  # fmt: skip
"""Ways of writing a date, in the order in which they are tried (chrono's format letters)."""


@dataclass(frozen=True)
class Dates:
    """A column as points in time (UTC where the source has time zones); null where a cell is missing or no date."""

    values: pl.Series
    bad: NDArray[np.bool_]
    form: str | None


def dates(series: pl.Series, form: str | None = None) -> Dates:
    """The dates of a column: typed dates as they are, texts by `form`, or by the format that reads most of them."""
    if isinstance(series.dtype, pl.Date | pl.Datetime):
        values = series
        if getattr(series.dtype, "time_zone", None):
            values = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return Dates(values.cast(pl.Datetime("us"), strict=False), np.zeros(len(series), bool), None)
    if series.dtype != pl.String:
        series = series.cast(pl.String, strict=False)
    if form is None:
        form = best_format(series)
    values = read_dates(series, form) if form else pl.Series(series.name, [None] * len(series), pl.Datetime("us"))
    return Dates(values, (values.is_null() & series.is_not_null()).to_numpy(), form)


def read_dates(series: pl.Series, form: str) -> pl.Series:
    """Texts in one format as points in time; a year such as 20 passes neither for 2020 nor for the year 20."""
    values = series.str.to_datetime(form, strict=False, time_unit="us")
    if "z" in form:
        values = values.dt.replace_time_zone(None)
    believable = values.dt.year().is_between(1000, 2999)
    if "%y" in form:
        believable &= series.str.contains(r"\D\d\d$")
    return only(values, believable)


def ambiguous(read: Dates) -> bool:
    """Whether day and month could as well be the other way round."""
    form = read.form or ""
    return form.startswith("%m/%d") and "%p" not in form and not (read.values.dt.day() > 12).any()


def best_format(series: pl.Series) -> str | None:
    """The format that reads most texts; None if none reads nine tenths of the first fifty."""
    given = series.drop_nulls()
    sample = given.head(50)
    if not len(sample) or not sample.str.contains(r"\d[-/. ,]+\w").any() or sample.str.contains(PLAIN).all():
        return None
    counts = [(len(sample) - read_dates(sample, form).null_count(), form) for form in FORMATS]
    if max(counts)[0] < 0.9 * len(sample):
        return None
    passing = [form for count, form in counts if count >= 0.9 * len(sample)]
    if len(passing) == 1:
        return passing[0]
    return min(passing, key=lambda form: read_dates(given, form).null_count())
