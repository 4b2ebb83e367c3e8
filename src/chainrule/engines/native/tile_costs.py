"""What a plan of a contraction costs, by a model of the processor: cycles, which are compared and not believed."""

from itertools import pairwise

from chainrule.engines.native.division import Columns, Division, Rows
from chainrule.engines.native.host import Host
from chainrule.engines.native.tiles import LINE, Plan

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
    return total * (uneven(plan.division, host.cores) if shared else 1)


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


def uneven(division: Division, threads: int) -> float:
    """How much longer the thread with most work takes than an equal share."""
    units = division.count
    if isinstance(division, Rows) and units >= threads:
        ends = [division.begin(t * units // threads) for t in range(threads + 1)]
        return max(b - a for a, b in pairwise(ends)) * threads / ends[-1]
    return -(-units // threads) * threads / max(units, 1)
