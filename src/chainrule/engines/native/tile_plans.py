"""Which plans there are for a contraction, and the one that costs least."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import gcd

from chainrule.engines.native.division import Batches, Columns, Division, Rows, up
from chainrule.engines.native.host import Host
from chainrule.engines.native.tile_costs import SHARED, STREAM, cost, uneven
from chainrule.engines.native.tiles import UNROLL, Contraction, Plan

Divide = type | Rows | None
MAX_ROWS = 24
MAX_VECTORS = 8
SHORT = 128
"""Steps of k whose parts of A and of B stay in the cache as they lie."""
MOST_SUMS = 1 << 20
"""Bytes that each thread may have for what blocks of depth have come to."""


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
    lanes, size = c.lanes(host), c.in_registers.itemsize
    tiles, all_vectors = -(-c.rows // tile_rows), -(-c.span // lanes)
    for depth_block in _depth_blocks(c, host, once, vectors * lanes):
        # A block of A may come from the third cache, since its elements are used slowly; B should be packed rarely.
        rows_in_block = 2 * host.l2_bytes // size // max(depth_block, 1)
        if c.window is not None:
            rows_in_block = c.rows if c.by_places else host.l2_bytes // 4 // size // c.window.row
        tiles_in_block = max(1, -(-rows_in_block // tile_rows) if c.by_places else rows_in_block // tile_rows)
        reused = min(tiles, tiles_in_block) >= 4 and depth_block >= 16 and not _by_rows(divide)
        pack_b = c.half or not c.b_straight or (not c.b_panel and reused and all_vectors > vectors)
        always, sums = c.half or c.window is not None, once and depth_block < c.depth
        for pack_a in (True,) if always else (False, True) if all_vectors > vectors and tiles > 1 else (False,):
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
    room = not once or c.c_elements * c.in_registers.itemsize <= MOST_SUMS
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
    ways = {division: uneven(division, host.cores) for division in (columns, rows)}
    least = min(ways.values())
    if c.window is not None and c.batch == 1 and rows.count >= host.cores:
        yield rows  # each thread sets out the windows that it needs
    elif c.batch > 1 and uneven(batches, host.cores) <= 1.15 * least:
        yield batches
    else:
        yield from (division for division, uneven in ways.items() if uneven <= 1.15 * least)
