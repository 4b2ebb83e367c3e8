"""CSV, TSV and their relatives, as people meet them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data import records as rec
from chainrule.data.findings import counted, listed, shortened
from chainrule.data.tables import MISSING, Decimal, Table, cleaned, unique_names
from chainrule.data.textfile import read_bytes, refuse_foreign, to_utf8
from chainrule.errors import ConfigError, DataError

NUMBER = re.compile(r"[+\-−]?[$€£]?(\d[\d.,' ]*|\.\d+)([eE][+-]?\d+)?\s?%?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
COMMA_DECIMAL = re.compile(rb'(?<![\d.,])\d+(?:\.\d{3})*,(?:\d{1,2}|\d{4,})(?=[;\t|"\n])')
POINT_DECIMAL = re.compile(rb'(?<![\d.,])\d+(?:,\d{3})*\.(?:\d{1,2}|\d{4,})(?=[;\t|"\n])')


def read_delimited(
    path: Path,
    *,
    separator: str | None = None,
    decimal: Decimal | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    missing: Sequence[str] = (),
    bad_rows: rec.BadRows = "error",
) -> Table:
    """A delimited text file as a table of texts; see `chainrule.data.read` for the arguments."""
    data = read_bytes(path)
    refuse_foreign(data, path.name)
    data, notes = to_utf8(data, encoding, path.name)
    return parse(data, path.name, notes, separator, decimal, header, missing, bad_rows)


def parse(
    data: bytes,
    name: str,
    notes: list[str],
    separator: str | None = None,
    decimal: Decimal | None = None,
    header: bool | None = None,
    missing: Sequence[str] = (),
    bad_rows: rec.BadRows = "error",
) -> Table:
    """A table from UTF-8 text with `\\n` line ends."""
    check_separator(separator)
    first_line, _, rest = data.partition(b"\n")
    stated = re.fullmatch(rb'"?sep=(.)"?', first_line.strip(b" "))
    if stated:  # what Excel writes to tell itself
        separator, data = separator or stated[1].decode("latin-1"), b"\n" + rest
    if not data.strip():
        raise DataError(f"{name} is empty: it has no line with text. Was it saved completely?")
    data, separator = find_separator(data, separator, name, notes)
    records = rec.split(data, separator, name)
    records = rec.leave_out_preamble(records, name, notes)
    frame, lines = parsed(records, separator, header, bad_rows, name, notes, missing)
    if decimal is None and separator != "," and uses_decimal_comma(data):
        decimal = ","
        notes.append(f'{name}: numbers are taken to have a decimal comma; decimal="." says otherwise')
    return Table(frame, name, None, tuple(notes), lines, decimal)


def check_separator(separator: str | None) -> None:
    """Raise ConfigError unless the separator is one plain character."""
    if separator is not None and (len(separator) != 1 or separator in '"\n\r\0' or not separator.isascii()):
        raise ConfigError(
            f'the separator is {separator!r}: it must be one ASCII character such as ",", ";", "|", "\\t" or a blank.'
        )


def find_separator(data: bytes, separator: str | None, name: str, notes: list[str]) -> tuple[bytes, str]:
    """The separator, and the text that it separates: runs of blanks become tabs where nothing else separates."""
    sniffed = separator or rec.sniff_separator(data)
    blanks = separator == " " or (sniffed is None and blank_columns(data))
    if blanks and b"\t" not in data and b'"' not in data:
        notes.append(f"{name}: columns are separated by blanks")
        return b"\n".join(b"\t".join(line.split()) for line in data.split(b"\n")), "\t"
    return data, sniffed or ","


def blank_columns(data: bytes) -> bool:
    """Whether the first lines look like numbers in columns of blanks: equally many cells, most of them numbers."""
    rows = [line.split() for line in data[: 1 << 16].split(b"\n")[:50] if line.strip()]
    widths = {len(row) for row in rows}
    words = [word.decode("utf-8", "replace") for row in rows[1:] or rows for word in row]
    return len(widths) == 1 and widths != {1} and sum(map(is_data, words)) > 0.5 * len(words)


def uses_decimal_comma(data: bytes) -> bool:
    """Whether cells such as `3,5` are more frequent than cells such as `3.5` at the beginning of the text."""
    head = data[: 1 << 17]
    return len(COMMA_DECIMAL.findall(head)) > len(POINT_DECIMAL.findall(head))


def parsed(
    records: rec.Records,
    separator: str,
    header: bool | None,
    bad_rows: rec.BadRows,
    name: str,
    notes: list[str],
    missing: Sequence[str],
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The frame of texts and the line of each of its rows."""
    first = rec.cells(records.text(0), separator)
    if header is not False and names_rows(records, separator):
        first = ["row name", *first]
        records = replace(records, fields=np.append(records.fields[0] + 1, records.fields[1:]))
        notes.append(f'{name}: the header is one cell shorter than every row: the first column is called "row name"')
    records = rec.repair_ragged(records, separator, bad_rows, name, notes)
    line, sample = int(records.lines[0]), below_first(records, separator)
    if header if header is not None else guess_header(first, sample, line, name, notes):
        first[0] = first[0].removeprefix("#").strip() or first[0]
        names = unique_names(first, f"{name}, line {line:,}", notes)
        records = records.keep(np.arange(len(records.lines)) > 0)
    else:
        names = first = [f"column_{i}" for i in range(1, len(first) + 1)]
    if not len(records.lines):
        raise DataError(
            f"{name} has a header but no rows below it (columns: {listed(names)}). "
            f"If line {line:,} is data, say header=False."
        )
    frame = cleaned(split_cells(records, separator, names, name), missing)
    return without_empty(frame, records.lines, first, name, notes)


def below_first(records: rec.Records, separator: str) -> list[list[str]]:
    """The cells of the twenty records below the first."""
    return [rec.cells(records.text(i), separator) for i in range(1, min(21, len(records.lines)))]


def names_rows(records: rec.Records, separator: str) -> bool:
    """Whether the rows begin with names that the header does not count, as R writes them.

    A separator at the end of every row makes them one cell longer, too, but that cell is empty.
    """
    width = int(records.fields[0])
    longer = width > 1 and len(records.fields) > 1 and bool((records.fields[1:] == width + 1).all())
    return longer and any(row[-1].strip() for row in below_first(records, separator))


def split_cells(records: rec.Records, separator: str, names: Sequence[str], name: str) -> pl.DataFrame:
    """Every record as a row of texts."""
    full_row = separator.join("x" * len(names)).encode() + b"\n"  # Polars takes the width from the first row
    try:
        frame = pl.read_csv(
            full_row + records.data,
            has_header=False,
            separator=separator,
            quote_char='"',
            schema={f"c{i}": pl.String for i in range(len(names))},
            truncate_ragged_lines=True,
        ).slice(1)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name} cannot be split into cells: {shortened(str(error), 200)}") from error
    if frame.height != len(records.lines):
        raise DataError(
            f"{name} cannot be split into rows with certainty ({frame.height:,} or {len(records.lines):,} rows): "
            f"check its quotation marks."
        )
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def is_data(cell: str) -> bool:
    """Whether a cell is a number or a date rather than a name."""
    text = cell.strip()
    return bool(NUMBER.fullmatch(text) or DATE.fullmatch(text))


def guess_header(first: Sequence[str], sample: list[list[str]], line: int, name: str, notes: list[str]) -> bool:
    """Whether the first record holds the column names.

    It does not if some of its cells are numbers (or dates) and every such column holds numbers below, too, unless they
    count upwards like years or column numbers, which the columns below do not.
    """
    numeric = [i for i, cell in enumerate(first) if is_data(cell)]
    if not numeric:
        return True
    for i in numeric:
        below = [row[i] for row in sample if i < len(row) and row[i].strip() not in MISSING]
        if below and sum(map(is_data, below)) < 0.5 * len(below):
            return True
    if counts_up([first[i] for i in numeric]):
        alike = sum(counts_up([row[i] for i in numeric if i < len(row)]) for row in sample)
        if sample and alike <= 0.5 * len(sample):
            names = listed(first, 4)
            notes.append(f"{name}: line {line:,} is taken as the header ({names}); header=False says otherwise")
            return True
    notes.append(
        f"{name}: line {line:,} looks like data ({listed(first, 4)}), so the columns are called column_1 to "
        f"column_{len(first)}; header=True says otherwise"
    )
    return False


def counts_up(cells: Sequence[str]) -> bool:
    """Whether at least three cells are consecutive whole numbers."""
    if len(cells) < 3 or not all(cell.strip().isdecimal() and len(cell.strip()) < 10 for cell in cells):
        return False
    return bool((np.diff([int(cell) for cell in cells]) == 1).all())


def without_empty(
    frame: pl.DataFrame, lines: NDArray[np.int64], first: Sequence[str], name: str, notes: list[str]
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Without rows that have no value at all, and without empty columns that have no name either."""
    nameless = [i for i, given in enumerate(first) if not given.strip()]
    empty = [frame.columns[i] for i in nameless if frame.to_series(i).null_count() == frame.height]
    if empty and len(empty) < frame.width:
        frame = frame.drop(empty)
        notes[:] = [note for note in notes if not (len(empty) == len(nameless) and "no name: called" in note)]
        notes.append(f"{name}: {counted(len(empty), 'column')} without name and values left out")
    kept = np.ones(frame.height, bool)
    if frame.width > 1:
        kept = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    if not kept.any():
        raise DataError(f"{name} has {frame.height:,} rows below the header, but not one value in them.")
    if not kept.all():
        notes.append(f"{name}: {counted(int((~kept).sum()), 'row')} without any value left out")
        frame, lines = frame.filter(kept), lines[kept]
    return frame, lines
