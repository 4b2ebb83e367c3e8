"""What follows a contraction while its result is in registers: the elementwise nodes of its kernel, and sums.

A sum down the columns lies in memory while it grows: each tile adds its rows to it, one after the other. So its order
is that of the rows, whatever the tiles. The thread that has the columns, or the matrix, of a tile has those above, too.
"""

from chainrule import dtypes
from chainrule.engines.native.evaluate import Evaluator, Spot
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Tile, Touch
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.values import Mask, Value
from chainrule.passes.views import View


class NodesEpilogue:
    """The nodes of a kernel on the vectors of a tile."""

    def __init__(self, plan: NativePlan, planned: PlannedKernel) -> None:
        self.plan, self.planned = plan, planned
        self.grouping, self.kernel = plan.grouping, planned.kernel
        self.members = set(self.kernel.nodes)
        self.following = [n for n in self.kernel.nodes if self.grouping.elementwise(n)]
        self.sums = [n for n in self.kernel.nodes if self.grouping.reduces(n)]
        others = {*self.following, *self.sums}
        self.product = next(n for n in self.kernel.nodes if n not in others and not self.grouping.virtual(n))
        self.alike = {x for x in [*self.kernel.inputs, *self.kernel.outputs] if self._alike(x)}
        self.touches = tuple(self._touch(x) for x in self.kernel.inputs if x in self.alike)
        self.key = ("nodes", planned.name)

    def _touch(self, x: int) -> Touch:
        place, itemsize = self.plan.places[x], self.grouping.nodes[x].dtype.itemsize
        return (
            Touch("arena", place.offset, itemsize)
            if place.external is None
            else Touch("table", 8 * place.external, itemsize)
        )

    def _alike(self, x: int) -> bool:
        """Whether a value lies in memory like the result, so that one offset serves both."""
        node = self.grouping.nodes[x]
        if node.size != self.kernel.size:
            return False
        if x in self.kernel.outputs:
            return True
        reads = [v for n in self.following for v in self.grouping.operands(n) if v.base == x]
        return bool(reads) and all(v.dense for v in reads)

    def begin(self, tile: Tile) -> None:
        """Before the first vector of a tile: addresses, and what is the same for all rows."""
        self.evaluator = Evaluator(self.grouping, self.kernel, tile.f, tile.m.lanes, self.plan.host, self.plan.places)
        self.corners = {x: tile.corner(self.evaluator.pointers[x], self.grouping.nodes[x].dtype) for x in self.alike}
        self.shared: dict[object, Value] = {}
        for n in self.following:
            for view in self.grouping.operands(n):
                if view.base in self.alike or view.base in self.members:
                    continue
                for j in range(tile.vectors):
                    if self._strides(view)[0] == 0:
                        self._operand(tile, view, 0, j)
        self.totals = {(n, j): self._so_far(tile, n, j) for n in self.sums for j in range(tile.vectors)}

    def _so_far(self, tile: Tile, n: int, j: int) -> Value:
        """What the rows above have come to."""
        m, dtype = tile.m, self.grouping.nodes[n].dtype
        before = m.load(*self._place_of_sum(tile, n, j), dtype, tile.mask(j))
        return m.where(m.splat_of(tile.f.compare("eq", tile.row, 0), dtypes.bool_), m.constant(0, dtype), before)

    def _place_of_sum(self, tile: Tile, n: int, j: int) -> tuple[str, Index]:
        start = tile.f.mul(tile.batch, self.kernel.sizes[-1])
        return self.evaluator.pointers[n], tile.f.add(tile.f.add(start, tile.column), j * tile.m.lanes)

    def _strides(self, view: View) -> tuple[int, int]:
        """How an operand moves along the rows and columns of the tile."""
        blocks = self.grouping.blocks(self.kernel, "full", view)
        assert blocks is not None
        row, column = (block[0][1] if block else 0 for block in blocks[1:])
        if any(len(block) > 1 for block in blocks[1:]):
            row = -1
        return (column, row) if self.planned.turned else (row, column)

    def emit(self, tile: Tile, r: int, j: int, accumulator: Value, mask: Mask) -> None:
        """The nodes on vector j of row r; the outputs are written."""
        values: dict[object, Value] = {self.product: Value(self.evaluator.m, accumulator.x, accumulator.dtype)}
        spot = Spot((), 0, tile.mask(j), j)
        for n in self.following:
            operands = [self._value(tile, view, r, j, mask, values) for view in self.grouping.operands(n)]
            values[n] = self.evaluator.compute(n, operands, spot)
        for n in self.sums:
            value = self._value(tile, self.grouping.operands(n)[0], r, j, mask, values)
            self.totals[n, j] = self.totals[n, j] + value
            if r == tile.rows - 1:
                tile.m.store(self.totals[n, j], *self._place_of_sum(tile, n, j), tile.mask(j))
        for n in self.kernel.outputs:
            if n not in self.sums:
                self.evaluator.m.store(values[n], self.corners[n], tile.displacement(r, j), mask)

    def _value(self, tile: Tile, view: View, r: int, j: int, mask: Mask, values: dict[object, Value]) -> Value:
        x = view.base
        if x in values:
            return values[x]
        if x in self.alike:
            dtype = self.grouping.nodes[x].dtype
            values[x] = self.evaluator.m.load(self.corners[x], tile.displacement(r, j), dtype, mask)
            return values[x]
        return self._operand(tile, view, r, j)

    def _operand(self, tile: Tile, view: View, r: int, j: int) -> Value:
        """An operand that is broadcast, or lies in another order."""
        row, column = self._strides(view)
        key = (view, 0 if row == 0 else r, 0 if column == 0 else j)
        if row == 0 and (view, 0, key[2]) in self.shared:
            return self.shared[view, 0, key[2]]
        if key not in self.shared:
            at_row: Index = tile.f.add(tile.row, tile.below(r))
            at_column: Index = tile.f.add(tile.column, j * tile.m.lanes)
            spot = Spot((tile.batch, at_row), at_column, tile.mask(j), j)
            if self.planned.turned:  # only single numbers meet a result that is computed transposed (see storage.py)
                spot = Spot((0, 0), 0, None, j)
            self.shared[key] = self.evaluator.load(view, "full", spot)
        return self.shared[key]
