"""Where the records of a delimited text begin and end: quotes, separators, rows of unequal length.

The scan works on whole arrays of bytes. Text whose quotation marks do not follow RFC 4180 is first written anew by
Python's lenient csv reader, so that everything after it meets strict text only.
"""

import csv
import io
import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chainrule.data.findings import counted, listed, shortened
from chainrule.errors import DataError

QUOTE, NEWLINE = ord('"'), ord("\n")
BadRows = Literal["error", "skip"]


@dataclass(frozen=True)
class Records:
    """Strict delimited text, and for each record: its bytes, its number of fields, the line where it begins."""

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    fields: NDArray[np.int64]
    lines: NDArray[np.int64]

    def text(self, index: int) -> str:
        """Record `index` as it is written."""
        return self.data[int(self.starts[index]) : int(self.ends[index])].decode("utf-8")

    def where(self, indices: NDArray[np.intp]) -> str:
        """The lines of some records, for a message: `line 17`, `lines 3, 4 and 9`."""
        lines = [f"{int(self.lines[i]):,}" for i in indices[:7]] + ["…"] * max(0, len(indices) - 7)
        return f"{'line' if len(lines) == 1 else 'lines'} {listed(lines, 4) if len(indices) < 7 else ', '.join(lines)}"

    def keep(self, kept: NDArray[np.bool_]) -> "Records":
        """The records that are marked."""
        first = int(kept.argmax()) if kept.any() else len(kept)
        if kept[first:].all():  # a tail: no need to copy record by record
            begin = int(self.starts[first]) if first < len(kept) else len(self.data)
            starts, ends = self.starts[first:] - begin, self.ends[first:] - begin
            return Records(self.data[begin:], starts, ends, self.fields[first:], self.lines[first:])
        pieces = [self.data[a:b] for a, b in zip(self.starts[kept].tolist(), self.ends[kept].tolist(), strict=True)]
        ends = np.cumsum([len(piece) + 1 for piece in pieces], dtype=np.int64) - 1
        starts = ends - np.array([len(piece) for piece in pieces], np.int64)
        return Records(b"\n".join(pieces) + b"\n", starts, ends, self.fields[kept], self.lines[kept])


def scan(data: bytes, separator: str) -> Records | None:
    """The records of strict text (RFC 4180 with any separator); None if its quotation marks break the rules."""
    codes = np.frombuffer(data, np.uint8)
    newlines = codes == NEWLINE
    marks = codes == ord(separator)
    all_newlines = np.flatnonzero(newlines)
    if b'"' in data:
        quotes = codes == QUOTE
        inside = np.bitwise_xor.accumulate(quotes.view(np.uint8)).astype(bool)
        border = newlines | marks
        before = np.concatenate(([True], border[:-1] | quotes[:-1]))
        after = np.concatenate((border[1:] | quotes[1:], [True]))
        opening, closing = quotes & inside, quotes & ~inside
        if inside[-1] or (opening & ~before).any() or (closing & ~after).any():
            return None
        newlines &= ~inside
        marks &= ~inside
    ends = np.flatnonzero(newlines)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    separators = np.flatnonzero(marks)
    fields = 1 + np.searchsorted(separators, ends) - np.searchsorted(separators, starts)
    lines = 1 + np.searchsorted(all_newlines, starts)
    return Records(data, starts, ends.astype(np.int64), fields.astype(np.int64), lines.astype(np.int64))


def split(data: bytes, separator: str, name: str) -> Records:
    """The records of any text, blank lines left out. Raises DataError for a quotation mark that is never closed."""
    records = scan(data, separator) or rewritten(data, separator, name)
    blank = records.ends == records.starts
    for i in np.flatnonzero((records.fields == 1) & ~blank & (records.ends - records.starts < 100)):
        blank[i] = not records.data[int(records.starts[i]) : int(records.ends[i])].strip()
    if blank.all():
        raise DataError(f"{name} is empty: it has no cell with text. Was it saved completely?")
    return records.keep(~blank)


def rewritten(data: bytes, separator: str, name: str) -> Records:
    """Strict text from text with stray quotation marks, read the lenient way: a mark inside a field is a character."""
    source = io.StringIO(data.decode("utf-8"), newline="")
    target = io.StringIO(newline="")
    reader = csv.reader(source, delimiter=separator, skipinitialspace=separator != " ")
    writer = csv.writer(target, delimiter=separator, lineterminator="\n")
    lines: list[int] = []
    begin = 1
    try:
        for row in reader:
            if row:
                writer.writerow(row)
                lines.append(begin)
            last, begin = begin, reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name}, line {begin:,}: {error}. A quotation mark opened there may never be closed."
        ) from error
    if data.count(b'"') % 2 and reader.line_num > last:
        raise DataError(
            f"{name}, line {last:,}: a quotation mark is opened and never closed, so that the rest of the file "
            f"({reader.line_num - last + 1:,} lines) is one cell. Close or remove it."
        )
    records = scan(target.getvalue().encode("utf-8"), separator)
    if records is None:  # cannot be: the writer writes strict text
        raise DataError(f"{name} cannot be split into cells: check its quotation marks.")
    return replace(records, lines=np.array(lines, np.int64))


def leave_out_preamble(records: Records, name: str, notes: list[str]) -> Records:
    """Without the comments and titles that some programs write above the header."""
    head = records.fields[:200]
    counts = np.bincount(head)
    usual = int(counts.argmax()) if counts.max() >= 0.5 * len(head) else 0
    first = 0
    while first < min(20, len(head) - 1):
        comment = records.text(first).startswith("#") and head[first] != usual
        title = usual > 1 and head[first] == 1 and (head[first + 1 :] == usual).mean() > 0.9
        if not (comment or title):
            break
        first += 1
    if not first:
        return records
    example = shortened(records.text(0))
    notes.append(f'{name}: {counted(first, "line")} above the table left out, such as "{example}"')
    return records.keep(np.arange(len(records.lines)) >= first)


def repair_ragged(records: Records, separator: str, bad_rows: BadRows, name: str, notes: list[str]) -> Records:
    """Rows shorter than the first line are filled with gaps; longer ones are an error unless the surplus is empty.

    Raises DataError, with the lines, for rows with more cells than columns; `bad_rows="skip"` leaves them out.
    """
    width = int(records.fields[0])
    surplus = np.zeros(len(records.fields), bool)
    for i in np.flatnonzero(records.fields > width):
        surplus[i] = any(cell.strip() for cell in cells(records.text(int(i)), separator)[width:])
    if surplus.any():
        bad = np.flatnonzero(surplus)
        if bad_rows == "error":
            raise too_long(records, bad, separator, name)
        notes.append(f"{name}: {counted(len(bad), 'row')} with too many cells left out ({records.where(bad)})")
        records = records.keep(~surplus)
    short = np.flatnonzero(records.fields < width)
    if len(short):
        what = "row is" if len(short) == 1 else "rows are"
        notes.append(
            f"{name}: {len(short):,} {what} shorter than the first ({records.where(short)}): "
            f"the missing cells at the end are taken as gaps"
        )
    return records


def too_long(records: Records, bad: NDArray[np.intp], separator: str, name: str) -> DataError:
    """The error for rows that have more cells than there are columns."""
    width, row = int(records.fields[0]), int(bad[0])
    found = cells(records.text(row), separator)
    line, what = int(records.lines[row]), SEPARATOR_NAMES.get(separator, f'"{separator}"')
    message = f"{name}, line {line:,}: {len(found)} cells, but the table has {counted(width, 'column')}.\n"
    message += f"Surplus: {listed(found[width:], 3, quote=True)}."
    if "\n" in records.text(row):
        span = records.text(row).count("\n")
        message += f" The row runs on to line {line + span:,}: is a quotation mark in line {line:,} never closed?"
    else:
        message += f" Often a {what} inside a text that has no quotation marks around it."
    more = f" There are {len(bad):,} such rows ({records.where(bad)})." if len(bad) > 1 else ""
    return DataError(f'{message}{more}\nCorrect the file, or leave such rows out with bad_rows="skip".')


SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", " ": "blank"}


def cells(text: str, separator: str) -> list[str]:
    """The cells of one record of strict text."""
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])


def sniff_separator(data: bytes) -> str | None:
    """The separator that splits the first 200 records most evenly; None if no candidate splits them at all.

    Among those that split every record alike, the rarer in running text wins: tab, vertical bar, semicolon, comma.
    """
    head = data[: 1 << 18].decode("utf-8", "ignore")
    if len(data) > 1 << 18:
        head = head[: head.rfind("\n") + 1] or head
    best, best_score = None, 0.0
    for separator in (mark for mark in "\t|;," if mark in head):
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=separator, skipinitialspace=True)
        try:
            fields = [len(row) for row in itertools.islice(rows, 200) if row]
        except csv.Error:
            continue
        usual = max(set(fields), key=fields.count)
        score = fields.count(usual) / len(fields) + (0.1 if fields[0] == usual else 0.0)
        if usual > 1 and score > best_score + 1e-9:
            best, best_score = separator, score
    return best
