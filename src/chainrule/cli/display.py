"""What a person sees: lines, tables, results. Colours only on a terminal, and nothing is ever cut off."""

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

LABEL = 13
"""Columns that the word at the left of a line takes: network, training, run ..."""

MOST_CLASSES = 12
"""A confusion matrix is shown for up to this many classes; beyond, the most frequent confusions."""

MOST_CONFUSIONS = 8

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def say(text: str = "", style: str = "") -> None:
    """A line on the standard output, as it is: nothing in it is taken for markup."""
    out.print(Text(fitted(text, out), style))


def field(label: str, text: str) -> None:
    """A line with a word at the left that says what it is about."""
    line = fitted(f"{label:<{LABEL}}{text}", out, LABEL)
    out.print(Text.assemble((line[:LABEL], "cyan"), line[LABEL:]))


def notice(text: str) -> None:
    """A line beside the results, on the standard error: what was repaired, what to look at."""
    err.print(Text(fitted(text, err), "yellow"))


def fail(message: str) -> None:
    """What went wrong, on the standard error: the first line stands out, the rest explains."""
    first, _, rest = message.partition("\n")
    err.print(Text(fitted(first, err), "bold red"))
    for line in rest.splitlines():
        err.print(Text(fitted(line, err)))


def fitted(text: str, console: Console, indent: int | None = None) -> str:
    """The line broken between words where a terminal is too narrow; in files and pipes lines stay whole.

    What follows is indented like the text itself, or by `indent`.
    """
    if not console.is_terminal or cell_len(text) <= console.width:
        return text
    hanging = " " * (len(text) - len(text.lstrip()) + 2 if indent is None else indent)
    return textwrap.fill(
        text,
        max(console.width, 20),
        subsequent_indent=hanging if len(hanging) < console.width // 2 else "",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def print_json(value: Any) -> None:
    """One JSON value on the standard output. NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(finite(value), ensure_ascii=False, indent=2))


def finite(value: Any) -> Any:
    """A JSON value in which every number is finite; NumPy's numbers become Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return finite(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def table(
    rows: Sequence[Sequence[str]], header: Sequence[str] = (), left: Iterable[int] = (0,), indent: int = 1
) -> None:
    """Cells in columns of their own width: those in `left` begin at the left, the others end at the right."""
    for number, line in enumerate(aligned([header, *rows] if header else rows, left, indent)):
        out.print(Text(line, "bold" if header and number == 0 else ""))


def aligned(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,), indent: int = 1) -> list[str]:
    """Rows of cells as lines of text.

    >>> from chainrule.cli.display import aligned
    >>> print(*aligned([["", "loss"], ["train", "0.5"], ["test", "12.25"]]), sep="\\n")
            loss
     train    0.5
     test   12.25
    """
    left = set(left)
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell + " " * (width - cell_len(cell)) if i in left else " " * (width - cell_len(cell)) + cell
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def number(value: float) -> str:
    """A number in four digits that count, as people write it.

    >>> from chainrule.cli.display import number
    >>> number(0.48132), number(1234567.0), number(0.0000123), number(float("nan"))
    ('0.4813', '1,234,567', '1.23e-05', 'nan')
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or (0 < size < 1e-4):
        return f"{value:.3g}"
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 4 if size < 1 else 3
    return f"{value:,.{decimals}f}"


def share(value: float) -> str:
    """A share as a percentage: `97.2 %`."""
    return "nan" if math.isnan(value) else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """A time for people: `0.4 s`, `12 s`, `3:05`, `2:03:00`.

    >>> from chainrule.cli.display import duration
    >>> duration(0.43), duration(42.0), duration(185.0), duration(7380.0)
    ('0.43 s', '42 s', '3:05', '2:03:00')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def confusion(counts: NDArray[np.int64], names: Sequence[str], part: str) -> None:
    """Which classes were taken for which: rows are the truth, columns the answers.

    For many classes, or names that do not fit on the screen, the most frequent confusions instead.
    """
    cells = [[name, *(str(count) if count else "·" for count in row)] for name, row in zip(names, counts, strict=True)]
    lines = aligned([["truth", *names], *cells])
    if len(names) <= MOST_CLASSES and max(map(cell_len, lines)) <= max(80, out.width):
        say(f"confusion, {part}: rows are the truth, columns the answers")
        table(cells, ["truth", *names])
        return
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        say(f"confusion, {part}: none, every answer is right")
        return
    most = np.argsort(wrong, axis=None, kind="stable")[::-1][:MOST_CONFUSIONS]
    pairs = [np.unravel_index(i, wrong.shape) for i in most if wrong.flat[i]]
    say(f"confusion, {part}: the most frequent")
    rows = [[names[i], f"taken for {names[j]}", f"{wrong[i, j]:,} of {counts[i].sum():,}"] for i, j in pairs]
    table(rows, left=(0, 1))


def residuals(truth: NDArray[np.float64], answers: NDArray[np.float64], part: str) -> None:
    """How far the answers lie from the truth (answer − truth), in the units of the target."""
    error = answers - truth
    low, quarter, middle, three_quarters, high = np.quantile(error, [0, 0.25, 0.5, 0.75, 1])
    say(f"residuals, {part}: answer − truth")
    table(
        [[number(float(x)) for x in (low, quarter, middle, three_quarters, high, error.mean(), error.std())]],
        ["least", "25 %", "median", "75 %", "most", "mean", "deviation"],
        left=(),
    )
