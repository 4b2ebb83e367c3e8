"""The history of a training: a row for each epoch."""

from typing import Any

from chainrule.train.progress import number

SHOWN = 20


class History(list[dict[str, Any]]):
    """A list of rows, dicts of numbers by column: epoch, step, loss, metrics, the same for validation, seconds.

    >>> from chainrule.train.history import History
    >>> history = History([{"epoch": 1, "step": 10, "loss": 0.5}, {"epoch": 2, "step": 20, "loss": 0.25}])
    >>> history.columns["loss"]
    [0.5, 0.25]
    >>> print(history)
     epoch  step   loss
         1    10  0.500
         2    20  0.250
    """

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The same by column; None where a row has no such value."""
        names = dict.fromkeys(name for row in self for name in row)
        return {name: [row.get(name) for row in self] for name in names}

    def __str__(self) -> str:
        rows = [*self[:3], None, *self[3 - SHOWN :]] if len(self) > SHOWN else list(self)
        columns = []
        for name in self.columns:
            cells = [name, *("…" if row is None else _cell(row.get(name)) for row in rows)]
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
        return "\n".join(" " + "  ".join(cells) for cells in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else number(float(value))
