"""A progress bar on a terminal, drawn by rich, which is loaded when the bar begins."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chainrule.train.progress import Standing, clock, number, rate, values

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table


class RichProgress:
    """One line that is drawn anew: the epoch, a bar, loss and metrics, rate, time left.

    >>> import chainrule as cr
    >>> bar = cr.train.RichProgress()
    """

    def __init__(self, console: "Console | None" = None) -> None:
        self.console = console
        self.live: Live | None = None

    def start(self, standing: Standing) -> None:
        """Begin to draw."""
        from rich.console import Console
        from rich.live import Live

        self.console = self.console or Console(file=sys.stderr)
        if standing.device:
            self.console.print(standing.device, style="dim", markup=False, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False)
        self.live.start()

    def _draw(self, standing: Standing) -> None:
        if self.live is not None and self.console is not None:
            self.live.update(line(standing, self.console.width), refresh=True)

    def step(self, standing: Standing) -> None:
        """Draw anew."""
        self._draw(standing)

    def epoch(self, standing: Standing) -> None:
        """Draw anew."""
        self._draw(standing)

    def say(self, text: str) -> None:
        """Write it above the line."""
        if self.console is not None:
            self.console.print(text, markup=False, highlight=False)

    def finish(self, message: str) -> None:
        """Leave the last line, and write why it ended below."""
        if self.live is not None:
            self.live.stop()
            self.live = None
        if self.console is not None:
            self.console.print(message, markup=False, highlight=False)


def line(at: Standing, width: int = 200) -> "Table":
    """The line as a table of one row, so that it takes no more room than it needs.

    Where `width` columns do not suffice it says less, rather than take several lines.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = at.epochs * at.batches if at.epochs else at.batches
    done = (at.epoch - 1) * at.batches + at.batch if at.epochs else at.batch
    epoch = Text(f"epoch {at.epoch:>3}{f'/{at.epochs}' if at.epochs else ''}", style="bold")
    left = [] if at.seconds_left is None else [Text(f"{clock(at.seconds_left)} left", style="cyan")]
    speed = [Text(f"{rate(at.rows_per_second)} rows/s", style="dim")] if at.rows_per_second else []
    shown = [values(at), values(at, terse=True), values(replace(at, best=None), terse=True)] if at.row else []
    full, terse, bare = map(Text, shown or [f"loss {number(at.loss)}"] * 3)
    cells: list[Any] = [epoch]
    bar = 0
    for size, texts in (
        (24, [full, *speed, *left]),
        (16, [terse, *speed, *left]),
        (8, [terse, *left]),
        (16, [bare, *left]),
        (0, [bare]),
    ):
        cells, bar = [epoch, *texts], size
        if sum(text.cell_len + 1 for text in cells) + bar <= width:
            break
    if bar:
        cells.insert(1, ProgressBar(total=max(total, 1), completed=min(done, total), width=bar))
    table = Table.grid(padding=(0, 1), expand=False)
    for _ in cells:
        table.add_column(no_wrap=True, overflow="crop")
    table.add_row(*cells)
    return table
