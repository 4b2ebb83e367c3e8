"""Narrow rows: as many rows at a time as a vector has lanes, one row a lane.

A full value is one vector for each column, and a value of the row is a single vector, so that reductions along the rows
are plain operations, and what follows from them costs no more than one column. The bits are those of `rows`: whichever
form is chosen does not matter.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from chainrule import dtypes
from chainrule.engines.native.division import Rows
from chainrule.engines.native.evaluate import Evaluator, Spot, ended, reduction
from chainrule.engines.native.ir import Index
from chainrule.engines.native.rows import Factors, RowWriter, passes
from chainrule.engines.native.transposing import load_columns, store_columns, sums_across
from chainrule.engines.native.values import Value
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel, Level
from chainrule.passes.views import Extents, View
from chainrule.primitives import contract
from chainrule.primitives import index as index_primitives
from chainrule.program.program import CONSTANT

if TYPE_CHECKING:
    from chainrule.engines.native.plan import PlannedKernel

Columns = Value | list[Value]  # one vector for all columns, or one for each

UNROLLED = 4  # steps along a dot product that are written out
WRITTEN = 600  # nodes times columns: more of them are too much code


def fits(grouping: Grouping, kernel: Kernel, lanes: int) -> bool:
    """Whether a row kernel is worked on in this way."""
    if kernel.kind != "rows" or lanes < 2:
        return False
    rows, columns = kernel.sizes
    along = any(grouping.nodes[n].primitive.kind in ("reduce", "contract") for n in kernel.nodes)
    short = columns <= lanes and columns * len(kernel.nodes) <= WRITTEN
    return along and short and rows >= max(2, lanes // 2) and not any(map(grouping.joins, kernel.nodes))


def write(planned: "PlannedKernel", evaluator: Evaluator) -> None:
    """The blocks of rows that belong to this thread; the last one may be shorter."""
    f, lanes, share = evaluator.f, planned.lanes, planned.share
    assert isinstance(share, Rows)
    writer = NarrowWriter(evaluator)
    writer.by_row.prepare()
    whole, rest = divmod(writer.rows, lanes)
    lo, hi = f.slice(share.count, "%thread", "%threads")
    if whole:
        with f.loop(lo, f.min(hi, whole)) as loop:
            writer.write(f.mul(loop.counter, lanes), lanes)
    if rest:
        mine = f.op(f"and i1 {f.compare('sle', lo, whole)}, {f.compare('sgt', hi, whole)}")
        with f.when(mine):
            writer.write(whole * lanes, rest)


class Tree:
    """A reduction in the order of `evaluate.across`: ((0 + 1) + (2 + 3)) + …, as far as the values have come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[tuple[int, Value]] = []  # (how many values, their total)

    def add(self, value: Value) -> None:
        """The next value."""
        count = 1
        while self.parts and self.parts[-1][0] == count:
            before = self.parts.pop()[1]
            value = reduction(value.m, self.name, before, value)
            count *= 2
        self.parts.append((count, value))

    def total(self) -> Value:
        """What has come so far, put together."""
        value = self.parts[-1][1]
        for _, before in reversed(self.parts[:-1]):
            value = reduction(value.m, self.name, before, value)
        return ended(self.name, value)


class NarrowWriter:
    """Writes what is done with a block of rows."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.m, self.f = evaluator, evaluator.m, evaluator.f
        self.kernel, self.grouping = evaluator.kernel, evaluator.grouping
        self.rows, self.columns = self.kernel.sizes
        self.by_row = RowWriter(evaluator)
        self.nodes = self.by_row.nodes
        self.levels = self.by_row.levels
        self.known = passes(evaluator.grouping, evaluator.kernel)
        self.varies: dict[int, bool] = {}
        for n in self.nodes:
            self.varies[n] = self._varies(n)
        self.row: Index = 0
        self.count = self.m.lanes
        self.values: dict[int, Columns] = {}
        self.loaded: dict[tuple[Level, View], Columns] = {}

    def write(self, row: Index, count: int) -> None:
        """The rows from `row` on, so many of them."""
        self.row, self.count = row, count
        self.values, self.loaded = {}, {}
        for p in range(max(self.known.values()) + 1):
            now = [n for n in self.nodes if self.known[n] == p and not self._reduces(n)]
            totals = [n for n in self.nodes if self.known[n] == p + 1 and self._reduces(n)]
            self._row_nodes(now)
            self._full_nodes([n for n in now if self.levels[n] == "full"], totals)
        for n in self.kernel.outputs:
            self._store(n)

    # -- nodes

    def _reduces(self, n: int) -> bool:
        return self.grouping.reduces(n)

    def _is_product(self, n: int) -> bool:
        return self.e.nodes[n].primitive is contract.matmul

    def _varies(self, n: int) -> bool:
        """Whether the columns of a value differ."""
        if self.levels[n] == "row" or self.columns == 1:
            return False
        if self._is_product(n):
            return True
        return any(self._view_varies(view) for view in self.grouping.operands(n))

    def _view_varies(self, view: View) -> bool:
        if view.base in self.varies:
            return self.varies[view.base]
        blocks = self.grouping.blocks(self.kernel, "full", view)
        return blocks is not None and any(stride for _, stride in blocks[1])

    def _mask(self) -> int | None:
        return self.count if self.count < self.m.lanes else None

    def _spot(self) -> Spot:
        return Spot((self.row,), 0, self._mask())

    def _row_nodes(self, now: list[int]) -> None:
        for n in now:
            if self.levels[n] == "row":
                operands = [self._operand(view, "row") for view in self.grouping.operands(n)]
                self.values[n] = self.e.compute(n, [_column(v, 0) for v in operands], self._spot())

    def _full_nodes(self, now: list[int], totals: list[int]) -> None:
        """Column by column, so that few values are alive at a time."""
        trees = {n: Tree(self.e.nodes[n].primitive.name) for n in totals}
        for n in now:
            if self._is_product(n):
                dots = self._dots(n)
                self.values[n] = dots if self.varies[n] else dots[0]
            elif self.varies[n]:
                self.values[n] = []
        for c in range(self.columns):
            for n in now:
                self._full_node(n, c)
            for n, tree in trees.items():
                tree.add(_column(self._operand(self.grouping.operands(n)[0], "full"), c))
        for n, tree in trees.items():
            self.values[n] = self.by_row.rounded(n, Value(self.m, tree.total().x, self.e.nodes[n].dtype))

    def _full_node(self, n: int, c: int) -> None:
        if self._is_product(n) or (c and not self.varies[n]):
            return
        operands = [_column(self._operand(view, "full"), c) for view in self.grouping.operands(n)]
        value = self.e.compute(n, operands, self._spot())
        if self.varies[n]:
            known = self.values[n]
            assert isinstance(known, list)
            known.append(value)
        else:
            self.values[n] = value

    def _store(self, n: int) -> None:
        value, pointer = self.values[n], self.e.pointers[n]
        if self.levels[n] == "row" or self.columns == 1:
            self.m.store(_column(value, 0), pointer, self.row, self._mask())
            return
        columns = value if isinstance(value, list) else [value] * self.columns
        store_columns(self.m, columns, pointer, self.f.mul(self.row, self.columns), self.count)

    # -- operands

    def _operand(self, view: View, level: Level) -> Columns:
        if view.base in self.values:
            return self.values[view.base]
        if (level, view) not in self.loaded:
            self.loaded[level, view] = self._load(view, level)
        return self.loaded[level, view]

    def _load(self, view: View, level: Level) -> Columns:
        """An operand that is stored, constant, or a position."""
        node, m, f = self.e.nodes[view.base], self.m, self.f
        if node.primitive is CONSTANT and node.size == 1:
            return m.constant(node.attributes["value"].reshape(())[()], node.dtype)
        blocks = self.grouping.blocks(self.kernel, level, view)
        if blocks is None:
            raise AssertionError(f"{self.kernel}: the operand {view} does not fit")
        down = blocks[0]
        along = blocks[1][0][1] if level == "full" and blocks[1] else 0
        if node.primitive is index_primitives.iota:
            return self._each(along, lambda first: self._positions(view.offset + first, down, node.dtype))
        pointer, mask = self.e.pointers[view.base], self._mask()
        if not down:
            return self._each(along, lambda first: m.load_splat(pointer, view.offset + first, node.dtype))
        if len(down) == 1 and down[0][1] == 1:
            start = f.add(self.row, view.offset)
            return self._each(along, lambda first: m.load(pointer, f.add(start, first), node.dtype, mask))
        if len(down) == 1 and along == 1:
            pitch = down[0][1]
            start = f.add(f.mul(self.row, pitch), view.offset)
            return load_columns(m, pointer, start, node.dtype, pitch, self.columns, self.count)
        places = self._positions(view.offset, down, dtypes.int64)
        return self._each(along, lambda first: m.gather(pointer, places + first, node.dtype, mask))

    def _each(self, along: int, load: Callable[[int], Value]) -> Columns:
        """load(how many elements the column begins after the first) for each column, once where all are the same."""
        return [load(c * along) for c in range(self.columns)] if along else load(0)

    def _positions(self, first: int, down: Extents, dtype: dtypes.DType) -> Value:
        """first + Σ stride · index for each row of the block."""
        m, f = self.m, self.f
        if len(down) <= 1:
            stride = down[0][1] if down else 0
            return self.e._positions(f.add(f.mul(self.row, stride), first), stride, dtype)
        number = m.lane_numbers(self.row, dtypes.uint32)  # 32 bits, since processors do not multiply wider ones at once
        total = m.constant(first, dtypes.int64)
        for k, (extent, stride) in reversed(list(enumerate(down))):
            index = number
            if k:
                quotient = m.value(f.op(f"udiv {number.type} {number.x}, splat (i32 {extent})"), dtypes.uint32)
                index, number = number - quotient * extent, quotient
            total = total + m.astype(index, dtypes.int64) * stride
        return m.astype(total, dtype)

    # -- dot products

    def _dots(self, n: int) -> list[Value]:
        """A product into few columns."""
        of = self.by_row.factors(n, self.row, self.count)
        return self._short_dots(n, of) if 2 * of.depth <= self.m.lanes else self._long_dots(n, of)

    def _short_dots(self, n: int, of: Factors) -> list[Value]:
        """With the depth turned: product by product, added up in the order of `across`."""
        m, dtype = self.m, self.e.nodes[n].dtype
        columns = load_columns(m, of.x, of.first, dtype, of.pitch, of.depth, self.count)
        found = []
        for start in of.starts:
            tree = Tree("sum")
            for k, column in enumerate(columns):
                tree.add(column * m.load_splat(of.w, start + k, dtype))
            found.append(tree.total())
        return found

    def _long_dots(self, n: int, of: Factors) -> list[Value]:
        """Along the depth, some rows at a time, whose partial sums are then added across the lanes all at once."""
        m = self.m
        group = m.lanes
        while group > 1 and (group + 1) * len(of.starts) + 2 > m.host.registers:
            group //= 2
        parts: list[list[Value]] = [[] for _ in of.starts]
        for first in range(0, m.lanes, group):
            rows = [self.f.add(of.first, row * of.pitch) for row in range(first, min(first + group, self.count))]
            sums = self._partial_sums(n, of, rows)
            for c, part in enumerate(parts):
                zeros = [m.constant(0, self.e.nodes[n].dtype)] * (group - len(rows))
                part.append(sums_across([*sums[c :: len(of.starts)], *zeros]))
        return [ended("sum", sums_across(part, group)) for part in parts]

    def _partial_sums(self, n: int, of: Factors, rows: list[Index]) -> list[Value]:
        """For each row and column the products, added up lane by lane."""
        m, f, dtype = self.m, self.f, self.e.nodes[n].dtype

        def step(at: Index, sums: list[Value], mask: int | None = None) -> list[Value]:
            right = [m.load(of.w, f.add(at, start), dtype, mask) for start in of.starts]
            found: list[Value] = []
            for row in rows:
                left = m.load(of.x, f.add(row, at), dtype, mask)
                for b in right:  # the first product is exact: fma(a, b, −0)
                    found.append(m.fma(left, b, sums[len(found)]) if sums else left * b)
            return found

        whole, rest = of.depth // m.lanes * m.lanes, of.depth % m.lanes
        if not rows:
            return []
        sums = step(0, []) if whole else []
        if whole > UNROLLED * m.lanes:
            with f.loop(m.lanes, whole, m.lanes, [(s.type, s.x) for s in sums]) as loop:
                carried = [Value(m, s, dtype) for s in loop.carried]
                loop.next = [s.x for s in step(loop.counter, carried)]
            sums = [Value(m, s, dtype) for s in loop.out]
        else:
            for at in range(m.lanes, whole, m.lanes):
                sums = step(at, sums)
        return step(whole, sums, rest) if rest else sums


def _column(value: Columns, c: int) -> Value:
    return value[c] if isinstance(value, list) else value
