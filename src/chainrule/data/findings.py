"""Sentences about what was repaired or noticed, so that nothing is repaired in silence."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError


def listed(items: Iterable[object], limit: int = 5, quote: bool = False) -> str:
    """Names in a row for a sentence: at most `limit` of them, then how many more.

    >>> listed(["a", "b", "c"]), listed(range(9), limit=3)
    ('a, b and c', '0, 1, 2 and 6 more')
    """
    texts = [f'"{shortened(str(item))}"' if quote else shortened(str(item)) for item in items]
    if len(texts) > limit + 1:
        return f"{', '.join(texts[:limit])} and {len(texts) - limit:,} more"
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def shortened(text: str, limit: int = 40) -> str:
    """A text on one line, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(2300, "row"), counted(2, "category", "categories")
    ('1 row', '2,300 rows', '2 categories')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def close_name(name: str, names: Iterable[str]) -> str | None:
    """The name that may have been meant, if there is one."""
    lower = {other.casefold().strip(): other for other in names}
    close = difflib.get_close_matches(name.casefold().strip(), lower, 1, 0.6)
    return lower[close[0]] if close else None


class Cells(Protocol):
    """A column whose cells can be looked up by row."""

    def __getitem__(self, row: int, /) -> Any: ...


@dataclass
class Finding:
    """One repair, on as many columns as it was made on."""

    columns: list[str] = field(default_factory=list)
    cells: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """Gathers repairs while columns are read; the same repair on many columns becomes one sentence."""

    where: Callable[[int], str]
    groups: dict[str, Finding] = field(default_factory=dict)

    def add(self, column: str, repair: str) -> None:
        """A repair of a whole column."""
        self.groups.setdefault(repair, Finding()).columns.append(column)

    def add_cells(self, column: str, repair: str, cells: NDArray[np.bool_], values: Cells | None = None) -> None:
        """A repair of the marked cells, the first quoted from `values`; nothing is added where no cell is marked."""
        rows = np.flatnonzero(cells)
        if not len(rows):
            return
        finding = self.groups.setdefault(repair, Finding())
        finding.columns.append(column)
        finding.cells += len(rows)
        quoted = "" if values is None else f'"{shortened(str(values[int(rows[0])]))}" '
        finding.examples.append(f"{quoted}in {self.where(int(rows[0]))}")

    def sentences(self) -> list[str]:
        """One sentence per kind of repair, in the order in which they were first made."""
        return [sentence(repair, finding) for repair, finding in self.groups.items()]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of the file or table before the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def sentence(repair: str, finding: Finding) -> str:
    """The repair in words, with the columns, the number of cells and the first example."""
    names = listed(dict.fromkeys(finding.columns))
    if not finding.cells:
        return f"{names}: {repair}"
    first = f", first {finding.examples[0]}" if finding.cells > 1 else f", {finding.examples[0]}"
    return f"{names}: {counted(finding.cells, 'cell')} {repair}{first}"
