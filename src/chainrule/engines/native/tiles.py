"""What a contraction is, and the plan by which it is computed: register tile, cache blocks, packing, division.

The ideas are those of K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a tile
of C stays in registers while A is broadcast and B streams past as vectors; panels of B and blocks of A are sized for
the caches. Rows are cut into tiles of two near-equal heights, so there is no slow remainder.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import gcd, prod

from chainrule import dtypes
from chainrule.engines.native.division import Batches, Columns, Division, Rows, up
from chainrule.engines.native.host import Host
from chainrule.passes.views import Axes

UNROLL = 4
"""Steps of k in one turn of the inner loop."""
STREAM, SHARED = 40, 24
"""Bytes of B in a cycle from the second cache; where that also holds what the steps of a loop read and write."""
LOAD = 0.3
"""Cycles that a load takes from the multiplications of the same step of k."""
NEAR, FAR = 2, 8
"""The same of a line of A that comes from behind the first or the second cache, in strides that nobody foresees."""
MOVE = 8
"""Cycles until a vector comes from another core."""
TURN, COPY = 16, 5
"""Cycles of packing: of turning a vector of elements, of copying the part of a tile in one step of k."""
LINE, SHORT, MOST_SUMS = 64, 128, 1 << 20
"""Bytes of a line; steps of k whose parts of A and B stay in a cache; bytes of sums that a thread may keep apart."""
Divide = type | Rows | None
MAX_ROWS = 24
MAX_VECTORS = 8


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
        """From the first element of a matrix C to the end of its last row, or panel."""
        return self.rows * (up(self.columns, self.c_panel) if self.c_panel else self.c_row)

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


@lru_cache(maxsize=1024)
def choose(contraction: Contraction, host: Host, once: bool = False, divide: Divide = None) -> Plan:
    """The plan that costs least by the model.

    `once`: nothing but final values may be written, since the epilogue reads what it overwrites.
    `divide`: Rows, Columns or Batches, to have the work cut in this way; or these very Rows.
    """
    return candidates(contraction, host, once, divide)[0]


def candidates(contraction: Contraction, host: Host, once: bool = False, divide: Divide = None) -> list[Plan]:
    """Plans worth timing, the most promising first. All of them give the same bits."""
    plans = [
        plan for shape in _tiles(contraction, host, divide) for plan in _plans(contraction, host, once, divide, *shape)
    ]
    rate = SHARED if _by_rows(divide) else STREAM
    plans.sort(key=lambda plan: cost(plan, host, rate))
    return [*plans, *(other for plan in plans[:3] for other in _packed_otherwise(plan))]


def _packed_otherwise(plan: Plan) -> Iterator[Plan]:
    """What a rule forbids or demands though code can be written for it."""
    c = plan.contraction
    if not c.half and c.b_straight and not c.b_panel:
        yield replace(plan, pack_b=not plan.pack_b)


def cost(plan: Plan, host: Host, rate: int = STREAM) -> float:
    """An estimate of cycles: inner loop, calls, packing, uneven threads; and each micro-kernel has to be compiled.

    `rate`: bytes that come from the second cache in a cycle.
    """
    c, tiles = plan.contraction, plan.tiles
    vectors = -(-c.span // plan.lanes)
    full, rest = divmod(vectors, plan.vectors)
    height = c.rows / max(tiles.count, 1)
    step = full * _step(plan, host, height, plan.vectors, rate)
    step += _step(plan, host, height, rest, rate) if rest else 0
    calls = plan.blocks[0] * tiles.count * ((full + (rest > 0)) * 25 + vectors * c.gates * height)
    packing = _packing_a(plan, host) + _packing_b(plan, host) + _fetching(plan, host)
    shapes = (1 + (tiles.larger > 0)) * (1 + (rest > 0 and full > 0))
    kernels = shapes * (1 + min(plan.blocks[0] - 1, 2) / 2)  # those of the first, a middle and the last block are alike
    total = (tiles.count * step * c.depth + calls + packing) * (1 + 0.02 * (kernels - 1))
    shared = c.batch * c.rows * c.columns * c.depth >= 1 << 17
    return total * (_uneven(plan.division, host.cores) if shared else 1)


def _fetching(plan: Plan, host: Host) -> float:
    """Cycles until what another core wrote is there: all of one operand is read by each thread, a part of the other."""
    c = plan.contraction
    elements = {Rows: c.columns, Columns: c.rows}.get(type(plan.division), 0) * c.depth
    if c.c_panel and c.depth <= c.columns and isinstance(plan.division, Rows):
        elements += c.rows * c.columns  # weights, which a product of so few rows reads by columns
    return MOVE * c.batch * elements / plan.lanes * (1 - 1 / host.cores)


def _packing_a(plan: Plan, host: Host) -> float:
    """Cycles of packing A: threads that share out columns pack it each for itself."""
    c = plan.contraction
    if not plan.pack_a or c.window is not None:
        return 0
    again = min(host.cores, plan.division.count) if isinstance(plan.division, Columns) else 1
    return again * c.depth * (plan.tiles.count * COPY if c.a_by_row else c.rows / plan.lanes * TURN)


def _packing_b(plan: Plan, host: Host) -> float:
    """The same of B, for which those that share out rows do so."""
    c = plan.contraction
    if not plan.pack_b:
        return 0
    again = min(host.cores, plan.division.count) if isinstance(plan.division, Rows) else 1
    repeats = max(again, -(-plan.tiles.count // plan.tiles_in_block))
    return repeats * c.depth * -(-c.span // plan.lanes) * c.gates * (1 if c.b_straight else TURN)


def _step(plan: Plan, host: Host, rows: float, vectors: int, rate: int) -> float:
    """Cycles of one k in one tile: two multiply-adds at a time, each result after four cycles; two elements of A, or a
    vector of B that crosses a line, are loaded in one. A panel of B beyond the first cache comes from the second.

    As long as none of these limits is hit, fewer loads are better: wide tiles do better than high ones.
    """
    c = plan.contraction
    size, vectors = c.in_registers.itemsize, vectors * c.gates
    beyond = plan.tiles.count > 1 and plan.depth_block * vectors * plan.lanes * size > host.l1_bytes * 3 // 4
    stream = vectors * plan.lanes * size / rate * beyond
    loads = LOAD * (rows + vectors) + stream / 10 + _waits(plan, host)
    return max(rows * vectors / 2, rows / 2 + vectors, 4, stream) + loads


def _waits(plan: Plan, host: Host) -> int:
    """Cycles until the part of a line is there that is a column of A, where such lines are too many for a cache."""
    c = plan.contraction
    size = c.in_registers.itemsize
    if c.window is not None or c.a_by_depth or plan.pack_a:
        return 0
    if c.a_depth * size >= 1024 and c.rows * plan.depth_block * size > host.l2_bytes // 2:
        return FAR
    return NEAR if plan.depth_block * LINE > host.l1_bytes // 3 else 0


def _uneven(division: Division, threads: int) -> float:
    """How much longer the thread with most work takes than an equal share."""
    units = division.count
    if isinstance(division, Rows) and units >= threads:
        ends = [division.begin(t * units // threads) for t in range(threads + 1)]
        return max(b - a for a, b in pairwise(ends)) * threads / ends[-1]
    return -(-units // threads) * threads / max(units, 1)


def _tiles(c: Contraction, host: Host, divide: Divide) -> Iterator[tuple[int, int]]:
    """Shapes (rows, vectors) that fit the registers: the tallest, and the tallest that divides the rows evenly."""
    lanes = c.lanes(host)
    panel = gcd(c.b_panel if c.b_column == 1 else 0, c.c_panel)
    if panel % lanes:
        raise ValueError(f"panels of {panel} columns are no whole vectors of {lanes}")
    most = min(MAX_VECTORS // c.gates, max(1, -(-c.span // lanes)))
    inside = [panel // lanes] if c.gates > 1 else [n for n in range(1, MAX_VECTORS + 1) if panel // lanes % n == 0]
    for vectors in inside if panel else range(1, most + 1):
        rows = min((host.registers - vectors * c.gates - 1) // (vectors * c.gates), MAX_ROWS)
        if rows < 1:
            continue
        fewest = max(1, -(-c.rows // rows))
        even = (count for count in range(fewest, 2 * fewest + 1) if c.rows % count == 0)
        counts = (divide.count,) if isinstance(divide, Rows) else (fewest, next(even, fewest))
        for count in dict.fromkeys(counts):
            if count >= fewest:
                yield max(1, -(-c.rows // count)), vectors


def _plans(c: Contraction, host: Host, once: bool, divide: Divide, tile_rows: int, vectors: int) -> Iterator[Plan]:
    """Blocks, packing and division for a tile: what can be said by rule, and all ways to do the rest."""
    lanes = c.lanes(host)
    for depth_block in _depth_blocks(c, host, once, vectors * lanes):
        yield from _packings(c, host, once, divide, tile_rows, vectors, depth_block)


def _packings(
    c: Contraction, host: Host, once: bool, divide: Divide, tile_rows: int, vectors: int, depth_block: int
) -> Iterator[Plan]:
    lanes, size = c.lanes(host), c.in_registers.itemsize
    # A block of A may come from the third cache, since its elements are used slowly; B should be packed rarely.
    rows_in_block = 2 * host.l2_bytes // size // max(depth_block, 1)
    if c.window is not None:
        rows_in_block = c.rows if c.by_places else host.l2_bytes // 4 // size // c.window.row
    tiles_in_block = max(1, -(-rows_in_block // tile_rows) if c.by_places else rows_in_block // tile_rows)
    tiles, all_vectors = -(-c.rows // tile_rows), -(-c.span // lanes)
    reused = min(tiles, tiles_in_block) >= 4 and depth_block >= 16 and not _by_rows(divide)
    pack_b = c.half or not c.b_straight or (not c.b_panel and reused and all_vectors > vectors)
    always = c.half or c.window is not None
    for pack_a in (True,) if always else (False, True) if all_vectors > vectors and tiles > 1 else (False,):
        sums = once and depth_block < c.depth
        plan = Plan(c, lanes, tile_rows, vectors, depth_block, tiles_in_block, pack_a, pack_b, Rows(0, 0, 0), sums)
        for division in _divisions(plan, host, divide):
            yield replace(plan, division=division)


def _by_rows(divide: Divide) -> bool:
    """Whether rows are to be cut, as in loops: then B is small, and each thread has few tiles, but needs all of B."""
    return divide is Rows or isinstance(divide, Rows)


def _depth_blocks(c: Contraction, host: Host, once: bool, width: int) -> list[int]:
    """The length of the near-equal blocks of depth: a panel of B takes at most a quarter of the second cache.

    Where A is read by columns, far from each other, also shorter ones, of which a block stays in the cache as it is.
    """
    if c.window is not None:
        shortest = max(32, host.l2_bytes // 4 // c.in_registers.itemsize // c.window.row)
        return [min(c.depth, shortest) if c.by_places else c.depth]
    # Partial sums in half precision would be rounded; and a single tile uses B once, so that no cache helps.
    if c.half or c.rows <= 1:
        return [c.depth]
    quantum = c.b_panel if c.b_panel and not c.b_straight else 4 * UNROLL
    longest = max(64, host.l2_bytes // 4 // c.in_registers.itemsize // width)
    lengths = [c.depth if once else longest]
    room = not once or (c.batch == 1 and c.c_elements * c.in_registers.itemsize <= MOST_SUMS)
    if room and not c.a_by_depth and c.depth >= 4 * SHORT:
        lengths.append(SHORT)
    counts = [max(1, -(-c.depth // most)) for most in lengths]
    return [min(c.depth, up(-(-c.depth // count), quantum)) for count in dict.fromkeys(counts)]


def _divisions(plan: Plan, host: Host, divide: Divide) -> Iterator[Division]:
    """Whole matrices where there are enough; else columns, so that threads keep to their part of weights, or rows."""
    c = plan.contraction
    if c.empty:
        yield Rows(0, 0, 0)
        return
    rows, columns, batches = plan.tiles, Columns(plan.panels, plan.width), Batches(c.batch)
    for division in (rows, columns, batches):
        if divide in (division, type(division)):
            yield division
            return
    ways = {division: _uneven(division, host.cores) for division in (columns, rows)}
    least = min(ways.values())
    if c.window is not None and c.batch == 1 and rows.count >= host.cores:
        yield rows  # each thread sets out the windows that it needs
    elif c.batch > 1 and _uneven(batches, host.cores) <= 1.15 * least:
        yield batches
    else:
        yield from (division for division, uneven in ways.items() if uneven <= 1.15 * least)
