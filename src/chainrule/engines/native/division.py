"""How the work of a kernel is cut into units, which threads share: thread t of n takes units [t·u/n, (t+1)·u/n)."""

from dataclasses import dataclass

from chainrule.engines.native.ir import Function, Index


def up(n: int, multiple: int) -> int:
    """The next multiple.

    >>> up(17, 16), up(16, 16)
    (32, 16)
    """
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Rows:
    """`count` units of neighbouring rows: unit u begins at row u · size + min(u, larger)."""

    count: int
    size: int
    larger: int

    @property
    def rows(self) -> int:
        """How many rows are cut."""
        return self.begin(self.count)

    def begin(self, unit: int) -> int:
        """The first row of a unit."""
        return unit * self.size + min(unit, self.larger)

    def first(self, f: Function, unit: Index) -> Index:
        """The same in code, for a unit that is known when it runs."""
        return f.add(f.mul(unit, self.size), f.min(unit, self.larger) if self.larger else 0)


@dataclass(frozen=True)
class Columns:
    """`count` units of `width` neighbouring columns, of which the last may reach past the end."""

    count: int
    width: int


@dataclass(frozen=True)
class Batches:
    """`count` units of one matrix each."""

    count: int


Division = Rows | Columns | Batches


@dataclass(frozen=True)
class Single:
    """The first thread does it all."""


@dataclass(frozen=True)
class Flat:
    """`count` vectors of one flat memory."""

    count: int


@dataclass(frozen=True)
class Parts:
    """`count` units that mean something to one kernel alone."""

    count: int


@dataclass(frozen=True)
class Together:
    """All threads go through it together, and share out what is inside."""


Share = Division | Single | Flat | Parts | Together
