"""What follows a contraction while its result is in registers: the elementwise nodes of its kernel, and sums.

A sum down the columns lies in memory while it grows: each tile adds its rows to it, one after the other. So its order
is that of the rows, whatever the tiles. The thread that has the columns, or the matrix, of a tile has those above, too.

A value has a level: "full", as wide as the product, or "gate". Vectors come gate after gate; with those of the last one
all that a value of that level needs is there.
"""

from chainrule import dtypes
from chainrule.engines.native.evaluate import Evaluator, Spot
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Tile, Touch
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.values import Mask, Value
from chainrule.passes.gates import gate_of
from chainrule.passes.kernels import Level
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
        self.levels: dict[int, Level] = {n: self.grouping.level(self.kernel, n) or "full" for n in self.kernel.nodes}
        self.alike = {x for x in [*self.kernel.inputs, *self.kernel.outputs] if self._alike(x)}
        # Also what is written: a line has to be there before it can be, and comes while k runs.
        touched = [x for x in [*self.kernel.inputs, *self.kernel.outputs] if x in self.alike]
        self.touches = tuple(dict.fromkeys(self._touch(x) for x in touched))
        self.key = ("nodes", planned.name)
        self.values: dict[tuple[int, int], Value] = {}  # of the row that is being written: by node and vector

    def _touch(self, x: int) -> Touch:
        place, itemsize = self.plan.places[x], self.grouping.nodes[x].dtype.itemsize
        of_gate = self._level_of_memory(x) == "gate"
        if place.external is None:
            return Touch("arena", place.offset, itemsize, of_gate)
        return Touch("table", 8 * place.external, itemsize, of_gate)

    def _level_of_memory(self, x: int) -> Level | None:
        """Whether a value in memory is as large as the product, or as a gate of it."""
        sizes: dict[int, Level] = {self.kernel.size // self.kernel.gates: "gate", self.kernel.size: "full"}
        return sizes.get(self.grouping.nodes[x].size)

    def _alike(self, x: int) -> bool:
        """Whether a value lies in memory like the result, or like a gate of it, so that one offset serves all such."""
        level = self._level_of_memory(x)
        if level is None or x in self.kernel.outputs:
            return level is not None and x not in self.sums
        reads = [(n, v) for n in self.following for v in self.grouping.operands(n) if v.base == x]
        return bool(reads) and all(v.dense and self.levels[n] == level for n, v in reads)

    def _vectors(self, tile: Tile, n: int) -> range:
        """The vectors of a tile that a node has."""
        return range(tile.vectors // (self.kernel.gates if self.levels[n] == "gate" else 1))

    def begin(self, tile: Tile) -> None:
        """Before the first vector of a tile: addresses, and what is the same for all rows."""
        self.evaluator = Evaluator(self.grouping, self.kernel, tile.f, tile.m.lanes, self.plan.host, self.plan.places)
        self.corners = {}
        for x in sorted(self.alike):
            corner = tile.corner if self._level_of_memory(x) == "full" else tile.corner_of_gate
            self.corners[x] = corner(self.evaluator.pointers[x], self.grouping.nodes[x].dtype)
        self.shared: dict[object, Value] = {}
        for n in self.following:
            for view in self.grouping.operands(n):
                if view.base in self.alike or view.base in self.members:
                    continue
                for j in self._vectors(tile, n):
                    if self._strides(view, self.levels[n])[0] == 0:
                        self._operand(tile, view, self.levels[n], 0, j)
        self.totals = {(n, j): self._so_far(tile, n, j) for n in self.sums for j in range(tile.vectors)}

    def _so_far(self, tile: Tile, n: int, j: int) -> Value:
        """What the rows above have come to."""
        m, dtype = tile.m, self.grouping.nodes[n].dtype
        before = m.load(*self._place_of_sum(tile, n, j), dtype, tile.mask(j))
        return m.where(m.splat_of(tile.f.compare("eq", tile.row, 0), dtypes.bool_), m.constant(0, dtype), before)

    def _place_of_sum(self, tile: Tile, n: int, j: int) -> tuple[str, Index]:
        start = tile.f.mul(tile.batch, self.kernel.sizes[-1])
        return self.evaluator.pointers[n], tile.f.add(tile.f.add(start, tile.column), tile.beside(j))

    def _strides(self, view: View, level: Level) -> tuple[int, int]:
        """How an operand moves along the rows and columns of the tile."""
        blocks = self.grouping.blocks(self.kernel, level, view)
        assert blocks is not None
        row, column = (block[0][1] if block else 0 for block in blocks[1:])
        if any(len(block) > 1 for block in blocks[1:]):
            row = -1
        return (column, row) if self.planned.turned else (row, column)

    def emit(self, tile: Tile, r: int, j: int, accumulator: Value, mask: Mask) -> None:
        """The nodes on vector j of row r; the outputs are written."""
        if j == 0:
            self.values = {}
        self.values[self.product, j] = Value(self.evaluator.m, accumulator.x, accumulator.dtype)
        self._level(tile, "full", r, j, mask)
        for n in self.sums:
            value = self._value(tile, self.grouping.operands(n)[0], "full", r, j, mask)
            self.totals[n, j] = self.totals[n, j] + value
            if r == tile.rows - 1:
                tile.m.store(self.totals[n, j], *self._place_of_sum(tile, n, j), tile.mask(j))
        of_gate = tile.vectors // self.kernel.gates
        if self.kernel.gates > 1 and j >= tile.vectors - of_gate:
            self._level(tile, "gate", r, j % of_gate, mask)

    def _level(self, tile: Tile, level: Level, r: int, j: int, mask: Mask) -> None:
        """The nodes of a level, and their outputs."""
        spot = Spot((), 0, tile.mask(j), j)
        for n in self.following:
            if self.levels[n] == level:
                operands = [self._value(tile, view, level, r, j, mask) for view in self.grouping.operands(n)]
                self.values[n, j] = self.evaluator.compute(n, operands, spot)
        for n in self.kernel.outputs:
            if n not in self.sums and self.levels[n] == level:
                at = self._displacement(tile, level, r, j)
                self.evaluator.m.store(self.values[n, j], self.corners[n], at, mask)

    def _displacement(self, tile: Tile, level: Level, r: int, j: int) -> int:
        """Where vector j of row r begins in memory of this level, in elements from the first one of the tile."""
        return tile.displacement(r, j) if level == "full" else r * self.kernel.width + j * tile.m.lanes

    def _value(self, tile: Tile, view: View, level: Level, r: int, j: int, mask: Mask) -> Value:
        x = view.base
        if x in self.members:
            gate = gate_of(self.kernel, view) if level == "gate" and self.levels[x] == "full" else 0
            assert gate is not None
            return self.values[x, gate * (tile.vectors // self.kernel.gates) + j]
        if x not in self.alike:
            return self._operand(tile, view, level, r, j)
        if (x, j) not in self.values:
            dtype, at = self.grouping.nodes[x].dtype, self._displacement(tile, level, r, j)
            self.values[x, j] = self.evaluator.m.load(self.corners[x], at, dtype, mask)
        return self.values[x, j]

    def _operand(self, tile: Tile, view: View, level: Level, r: int, j: int) -> Value:
        """An operand that is broadcast, or lies in another order."""
        row, column = self._strides(view, level)
        key = (view, level, 0 if row == 0 else r, 0 if column == 0 else j)
        first = (view, level, 0, key[3])
        if row == 0 and first in self.shared:
            return self.shared[first]
        if key not in self.shared:
            at_row: Index = tile.f.add(tile.row, tile.below(r))
            beside = tile.beside(j) if level == "full" else j * tile.m.lanes
            spot = Spot((tile.batch, at_row), tile.f.add(tile.column, beside), tile.mask(j), j)
            if self.planned.turned:  # only single numbers meet a result that is computed transposed (see storage.py)
                spot = Spot((0, 0), 0, None, j)
            self.shared[key] = self.evaluator.load(view, level, spot)
        return self.shared[key]
