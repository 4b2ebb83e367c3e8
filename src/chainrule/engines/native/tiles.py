"""What a contraction is, and a plan by which it is computed: register tile, cache blocks, packing, division.

The ideas are those of K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a tile
of C stays in registers while A is broadcast and B streams past as vectors; panels of B and blocks of A are sized for
the caches. Rows are cut into tiles of two near-equal heights, so there is no slow remainder.

tile_plans.py says which plans there are for a contraction, tile_costs.py what each of them costs.
"""

from dataclasses import dataclass, replace
from math import prod

from chainrule import dtypes
from chainrule.engines.native.division import Division, Rows, up
from chainrule.engines.native.host import Host
from chainrule.passes.views import Axes

UNROLL = 4
"""Steps of k in one turn of the inner loop."""
LINE = 64
"""Bytes that come into a cache together."""


@dataclass(frozen=True)
class Window:
    """Windows over an image (batch, *space, groups, channels), which are the rows of A, or its columns.

    See chainrule.passes.convolutions.patches for what the sizes mean.
    """

    batch: int
    space: tuple[int, ...]
    groups: int
    channels: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    steps: tuple[int, ...]
    places: tuple[int, ...]
    turned: bool = False  # the windows are the columns of A, and their places are what is summed over
    parts: int = 1  # so many products, each of its share of the places

    @property
    def taken(self) -> int:
        """Elements of a window."""
        return prod(self.window) * self.channels

    @property
    def row(self) -> int:
        """The distance of windows as they are set out: not all in the same sets of the first cache."""
        return self.taken + 16 * (self.taken % 256 == 0)


@dataclass(frozen=True)
class Contraction:
    """C[b, i, j] = Σ over k of A[b, i, k] · B[b, k, j]: sizes, and where elements lie, in elements from each start.

    A[b, i, k] is at b · a_batch + i · a_row + k · a_depth, and so on; C's columns are neighbours. One stride of A and
    one of B must be 1 (a stride along an extent of 1 does not count). A batch stride of 0 repeats one matrix; where
    matrices lie along several axes, it is (extent, stride) of each.

    `b_panel`: B lies in panels of so many columns, zero-padded: with b_column = 1, B[k, j] is at
    (j // b_panel · depth + k) · b_panel + j % b_panel. With b_depth = 1, B is the transpose of a matrix in such panels:
    B[k, j] is at (k // b_panel · columns + j) · b_panel + k % b_panel. `c_panel`: C is written in panels likewise,
    C[i, j] at (j // c_panel · rows + i) · c_panel + j % c_panel, padding included. Panels are whole vectors wide.

    `gates`: the columns are so many parts of equal width, and a tile has the same columns of all of them. Panels of B
    are as wide as the tile then, and in each of their rows columns of one gate are followed by those of the next.

    `window`: A is the matrix of windows over an image, or its transpose, set out when it is needed.
    """

    rows: int
    columns: int
    depth: int
    a_row: int
    b_depth: int
    c_row: int
    a_depth: int = 1
    b_column: int = 1
    batch: int = 1
    a_batch: Axes = 0
    b_batch: Axes = 0
    c_batch: int = 0
    b_panel: int = 0
    c_panel: int = 0
    dtype: dtypes.DType = dtypes.float32
    window: Window | None = None
    gates: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.depth, self.batch) < 0:
            raise ValueError(f"a contraction of negative size: {self}")
        if not (self.a_by_depth or self.a_by_row):
            raise ValueError(f"A has no stride of 1: a_row={self.a_row}, a_depth={self.a_depth}")
        if not (self.b_straight or self.b_depth == 1 or self.depth <= 1):
            raise ValueError(f"B has no stride of 1: b_depth={self.b_depth}, b_column={self.b_column}")
        if self.gates > 1 and (self.columns % self.gates or self.c_panel or self.half or not self.b_straight):
            raise ValueError(f"no columns that could be {self.gates} gates: {self}")
        if self.b_panel and self.gates > 1 and self.span % self.b_panel:
            raise ValueError(f"the {self.span} columns of a gate are no whole panels: {self}")
        if self.dtype == dtypes.bool_:
            raise ValueError("a contraction of truth values: convert them first")

    @property
    def a_by_depth(self) -> bool:
        """Whether neighbours along the depth are neighbours in A."""
        return self.a_depth == 1 or self.depth <= 1

    @property
    def a_by_row(self) -> bool:
        """Whether neighbouring rows are neighbours in A."""
        return self.a_row == 1 or self.rows <= 1

    @property
    def b_straight(self) -> bool:
        """Whether vectors of columns can be loaded from B as it lies; else it is transposed while it is packed."""
        return self.b_column == 1 or (self.columns <= 1 and not self.b_panel)

    @property
    def span(self) -> int:
        """The columns of a gate: of all columns, where there are no gates."""
        return self.columns // self.gates

    @property
    def by_places(self) -> bool:
        """Whether the sum is over the places of windows, and not over their elements."""
        return self.window is not None and self.window.turned

    @property
    def half(self) -> bool:
        """Whether elements are widened to float32 in registers and when packed."""
        return self.dtype in dtypes.HALVES

    @property
    def in_registers(self) -> dtypes.DType:
        """The dtype of accumulators and packed operands."""
        return dtypes.float32 if self.half else self.dtype

    @property
    def c_elements(self) -> int:
        """From the first element of C to the end of the last row, or panel, of its last matrix."""
        row = up(self.columns, self.c_panel) if self.c_panel else self.c_row
        return max(self.batch - 1, 0) * self.c_batch + self.rows * row

    @property
    def empty(self) -> bool:
        """Whether C has no elements."""
        return 0 in (self.batch, self.rows, self.columns)

    def lanes(self, host: Host) -> int:
        """Columns in a vector. Bytes take no more lanes than float32, since epilogues convert to it."""
        return host.lanes(max(4, self.in_registers.itemsize))


def stacked(c: Contraction, count: int) -> Contraction:
    """The same product as a stack of `count` products, of as many rows each."""
    if c.batch == count:
        return c
    if c.batch > 1 or c.rows % count or c.c_panel or c.by_places:
        raise ValueError(f"no stack of {count}: {c}")
    rows = c.rows // count
    window = c.window and replace(c.window, parts=count)
    a_batch = 0 if window else rows * c.a_row
    return replace(c, batch=count, rows=rows, a_batch=a_batch, b_batch=0, c_batch=rows * c.c_row, window=window)


@dataclass(frozen=True)
class Plan:
    """How a contraction is computed. A tile: `tile_rows` rows (or one less) of `vectors` vectors of `lanes` columns, of
    each gate."""

    contraction: Contraction
    lanes: int
    tile_rows: int
    vectors: int
    depth_block: int
    tiles_in_block: int
    pack_a: bool
    pack_b: bool
    division: Division
    sums: bool = False  # what blocks of depth have come to lies in scratch, as in C, which only takes final values

    @property
    def width(self) -> int:
        """Columns of a tile, of each gate."""
        return self.vectors * self.lanes

    @property
    def tiles(self) -> Rows:
        """The rows, cut into tiles of near-equal height."""
        rows = self.contraction.rows
        count = -(-rows // self.tile_rows)
        return Rows(count, rows // max(count, 1), rows % max(count, 1))

    @property
    def panels(self) -> int:
        """Panels of columns. Those of a C in panels include all padding."""
        c = self.contraction
        columns = up(c.columns, c.c_panel) if c.c_panel else c.span
        return -(-columns // self.width)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """The depth in blocks: how many, the length of each, and of the last."""
        depth = self.contraction.depth
        count = max(1, -(-depth // max(self.depth_block, 1)))
        return count, self.depth_block, depth - (count - 1) * self.depth_block

    @property
    def scratch_b(self) -> int:
        """Bytes for a packed panel of B; a block of A follows."""
        size = self.contraction.in_registers.itemsize
        return up(max(self.blocks[1:]) * self.width * self.contraction.gates * size, 64) if self.pack_b else 0

    @property
    def scratch_bytes(self) -> int:
        """Memory that each thread needs."""
        size = self.contraction.in_registers.itemsize
        return self.scratch_sums + up(self.sums * self.contraction.c_elements * size, 64)

    @property
    def scratch_sums(self) -> int:
        """Bytes for packing; sums follow. Stores of whole vectors may run past the end of a tile of A."""
        size = self.contraction.in_registers.itemsize
        tiles = min(self.tiles.count, self.tiles_in_block)
        rows = min(self.contraction.rows, tiles * self.tile_rows)
        if self.contraction.window is not None:
            windows = max(self.blocks[1:]) if self.contraction.by_places else rows
            return self.scratch_b + up((windows * self.contraction.window.row + self.lanes) * size, 64)
        a = up((rows * max(self.blocks[1:]) + tiles * self.lanes) * size, 64) if self.pack_a else 0
        return self.scratch_b + a
