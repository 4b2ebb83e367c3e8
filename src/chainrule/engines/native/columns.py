"""Column kernels: reductions down the rows, and elementwise nodes on the sums.

A group of neighbouring columns is summed at a time, row by row: the columns are the lanes, so nothing goes across them.
"""

from typing import Any

from chainrule.engines.native.evaluate import Evaluator, Spot, ended, neutral, reduction
from chainrule.engines.native.ir import Index
from chainrule.engines.native.values import Value
from chainrule.passes.kernels import Level
from chainrule.passes.views import View

GROUP = 4  # vectors side by side
UNROLL = 4  # partial results where a single chain of additions would wait for itself


def group_of(columns: int, lanes: int) -> int:
    """How many vectors wide a group is."""
    return min(GROUP, -(-columns // lanes))


class ColumnWriter:
    """Writes what is done with a group of columns."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.m, self.f = evaluator, evaluator.m, evaluator.f
        self.kernel = evaluator.kernel
        self.stack, self.rows, self.columns = self.kernel.sizes
        nodes = self.kernel.nodes
        self.levels: dict[int, Level] = {n: evaluator.grouping.level(self.kernel, n) or "full" for n in nodes}
        self.totals = [n for n in nodes if evaluator.nodes[n].primitive.kind == "reduce"]
        below = self._below()
        self.full = [n for n in nodes if self.levels[n] == "full" and n in below]
        self.after = [n for n in nodes if n not in self.totals and n not in below]

    def _below(self) -> set[int]:
        """What the reductions are made of (with a single row a value of a column looks like one of the whole)."""
        members, found = set(self.kernel.nodes), set()
        todo = [x for n in self.totals for x in self.e.grouping.bases(n)]
        while todo:
            x = todo.pop()
            if x in members and x not in found:
                found.add(x)
                todo += self.e.grouping.bases(x)
        return found

    def write(self, stack: Index, column: Index, vectors: int, last: bool) -> None:
        """The columns from `column` on; `last`: they are the last ones, and may not fill their vectors."""
        lanes = self.m.lanes
        tail = self.columns % lanes or None
        masks = [tail if last and j == vectors - 1 else None for j in range(vectors)]
        columns = [self.f.add(column, j * lanes) for j in range(vectors)]
        unroll = UNROLL if self.columns <= lanes and self.rows % UNROLL == 0 else 1
        starts = [self._start(n) for n in self.totals for _ in range(vectors * unroll)]
        carry = [(value.type, value.x) for value in starts]
        with self.f.loop(0, self.rows, unroll, carry) as loop:
            out = [Value(self.m, x, s.dtype) for x, s in zip(loop.carried, starts, strict=True)]
            for u in range(unroll):
                row = self.f.add(loop.counter, u)
                shared: dict[Any, Value] = {}
                for j in range(vectors):
                    spot = Spot((stack, row), columns[j], masks[j], j)
                    self._row(spot, out, (j, u), (vectors, unroll), shared)
            loop.next = [value.x for value in out]
        sums = [Value(self.m, x, s.dtype) for x, s in zip(loop.out, starts, strict=True)]
        for j in range(vectors):
            spot = Spot((stack,), columns[j], masks[j], j)
            self._finish(sums, j, (vectors, unroll), spot)

    def _start(self, n: int) -> Value:
        node = self.e.nodes[n]
        return self.m.constant(neutral(node.primitive.name, node.dtype), node.dtype)

    def _row(
        self, spot: Spot, out: list[Value], at: tuple[int, int], extent: tuple[int, int], shared: dict[Any, Value]
    ) -> None:
        values: dict[Any, Value] = {}
        for n in self.full:
            operands = [self._operand(view, "full", spot, values, shared) for view in self.e.grouping.operands(n)]
            values[n] = self.e.compute(n, operands, spot)
            if n in self.kernel.outputs:
                self.e.store(n, values[n], "full", spot)
        for k, n in enumerate(self.totals):
            place = (k * extent[0] + at[0]) * extent[1] + at[1]
            value = self._operand(self.e.grouping.operands(n)[0], "full", spot, values, shared)
            out[place] = reduction(self.m, self.e.nodes[n].primitive.name, out[place], value)

    def _operand(
        self, view: View, level: Level, spot: Spot, values: dict[Any, Value], shared: dict[Any, Value]
    ) -> Value:
        if view.base in values:
            return values[view.base]
        key = (view.base, view.strides, view.shape, view.offset)
        if (key, spot.key) not in shared:
            shared[key, spot.key] = self.e.load(view, level, spot)
        return shared[key, spot.key]

    def _finish(self, sums: list[Value], j: int, extent: tuple[int, int], spot: Spot) -> None:
        values: dict[Any, Value] = {}
        shared: dict[Any, Value] = {}
        vectors, unroll = extent
        for k, n in enumerate(self.totals):
            node = self.e.nodes[n]
            parts = sums[(k * vectors + j) * unroll : (k * vectors + j + 1) * unroll]
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [reduction(self.m, node.primitive.name, a, b) for a, b in pairs]
            total = ended(node.primitive.name, parts[0])
            values[n] = self.m.rounded(total, node.dtype) if node.dtype.itemsize == 2 else total
        for n in self.after:
            operands = [self._operand(view, "column", spot, values, shared) for view in self.e.grouping.operands(n)]
            values[n] = self.e.compute(n, operands, spot)
        for n in self.kernel.outputs:
            if n not in self.full:
                self.e.store(n, values[n], "column", spot)
