"""What a kernel is, and the sizes that a node gives it."""

from dataclasses import dataclass, field
from typing import Literal

from chainrule import dtypes
from chainrule.passes.convolutions import patches
from chainrule.passes.views import View
from chainrule.program.program import Node, Program

Kind = Literal["contract", "rows", "columns", "single"]
Level = Literal["full", "row", "column", "joined", "gate"]
FEW_COLUMNS = 4  # a contraction into at most so many columns is a row operation
DEEP_WINDOW = 32  # elements of windows from which on that holds for them, too: they are set out first


@dataclass(eq=False)
class Kernel:
    """Nodes that are computed together. `sizes`: (R, C) of rows, (stack, R, C) of columns and contractions.

    `gates`: in so many parts of equal width the columns of a product are computed, column by column of all of them.
    """

    kind: Kind
    sizes: tuple[int, ...]
    place: tuple[int, int]  # its order among the kernels
    nodes: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)  # the nodes whose values are stored
    inputs: list[int] = field(default_factory=list)  # the nodes whose stored values are read
    gates: int = 1

    @property
    def width(self) -> int:
        """The columns of a gate."""
        return self.sizes[-1] // self.gates

    @property
    def size(self) -> int:
        """The number of elements of a full value."""
        result = 1
        for n in self.sizes:
            result *= n
        return result

    def __repr__(self) -> str:
        return f"{self.kind} {' × '.join(map(str, self.sizes))}"


def along_rows(kernel: Kernel, view: View, blocks: list[list[tuple[int, int]]]) -> bool:
    """Whether a view repeats one value for each row."""
    rows, columns = kernel.sizes
    return view.offset == 0 and blocks[0] in ([], [(rows, 1)]) and blocks[1] in ([], [(columns, 0)])


def rows_of(node: Node) -> tuple[int, int]:
    """Rows and columns of an elementwise kernel: the last axis that is longer than 1 gives the columns."""
    for n in reversed(node.shape):
        if n > 1:
            return node.size // n, n
    return 1, 1


def reduction_sizes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Kind, tuple[int, ...]]:
    """How a reduction over one block of axes is cut: (R, C) along rows, or (stack, R, C) down columns."""
    reduced = [a for a in axes if shape[a] > 1]
    size = 1
    for n in shape:
        size *= n
    count = 1
    for a in reduced:
        count *= shape[a]
    inner = 1
    for n in shape[(reduced[-1] if reduced else len(shape) - 1) + 1 :]:
        inner *= n
    if inner == 1:
        return "rows", (size // count, count)
    return "columns", (size // count // inner, count, inner)


def few_columns(program: Program, found: list[View], n: int) -> bool:
    """Rule 1: whether a product is computed by dot products along the rows."""
    node = program.nodes[n]
    a, b = (found[x] for x in node.inputs)
    rows, columns = node.shape[-2:]
    depth = a.shape[-1]
    few = columns <= FEW_COLUMNS and rows > 1 and node.size == rows * columns
    if not few or node.dtype not in (dtypes.float32, dtypes.float64):
        return False
    if program.nodes[a.base].primitive is patches:  # of places, and not the places of which sums are over
        return depth >= DEEP_WINDOW and a.dense and a.shape == program.nodes[a.base].shape
    return depth == 1 or (a.strides[-1] == 1 and b.strides[-2] == 1)
