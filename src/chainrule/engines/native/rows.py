"""Row kernels: elementwise nodes over rows of columns, with reductions along the rows, and dot products.

A short row stays in registers as a whole. A longer one is passed over once for each generation of reductions; what a
later pass needs lies in an output, or in a scratch row.
"""

from typing import Any, NamedTuple

from chainrule.engines.native.evaluate import Evaluator, Spot, across, ended, neutral, reduction
from chainrule.engines.native.ir import SCALARS, Index
from chainrule.engines.native.storage import window_of
from chainrule.engines.native.tiles import Window
from chainrule.engines.native.values import Value
from chainrule.engines.native.window_rows import set_out
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel, Level
from chainrule.passes.views import View
from chainrule.primitives import contract

SHORT = 8  # vectors of a row that stays in registers
UNROLL = 4  # partial results of a reduction over a long row, so that one addition need not wait for another


def passes(grouping: Grouping, kernel: Kernel) -> dict[int, int]:
    """The pass over a long row in which each node is known: a reduction after that of its operand."""
    found: dict[int, int] = {}
    for n in kernel.nodes:
        before = max([found[x] for x in grouping.bases(n) if x in found], default=0)
        found[n] = before + (grouping.nodes[n].primitive.kind == "reduce")
    return found


def scratch_rows(grouping: Grouping, kernel: Kernel) -> list[int]:
    """Full values that a later pass reads and that are no outputs: they lie in rows of scratch memory."""
    known = passes(grouping, kernel)
    late: list[int] = []
    for n in kernel.nodes:
        needed = known[n] - (grouping.nodes[n].primitive.kind == "reduce")
        for x in grouping.bases(n):
            full = x in known and grouping.level(kernel, x) == "full"
            if full and known[x] < needed and x not in kernel.outputs and x not in late:
                late.append(x)
    return late


def pitch(columns: int, lanes: int) -> int:
    """Bytes of a row of scratch memory."""
    return (-(-columns // lanes) + 1) * lanes * 8


def scratch_bytes(grouping: Grouping, kernel: Kernel, lanes: int) -> int:
    """Scratch memory of a thread: rows that a later pass reads, or what dot products with windows need."""
    columns = kernel.sizes[1]
    if -(-columns // lanes) > SHORT:
        return len(scratch_rows(grouping, kernel)) * pitch(columns, lanes)
    return max([_windows_bytes(grouping, n, lanes) for n in kernel.nodes], default=0)


def _windows_bytes(grouping: Grouping, n: int, lanes: int) -> int:
    """The columns of the right operand of a product with windows, and a window for each lane."""
    if (window := _windows(grouping, n)) is None:
        return 0
    elements = grouping.nodes[n].shape[-1] * window.taken + lanes * (window.row + 1)
    return elements * grouping.nodes[n].dtype.itemsize


def _windows(grouping: Grouping, n: int) -> Window | None:
    """The windows that are the rows of a product."""
    node = grouping.nodes[n]
    return window_of(grouping, grouping.views[node.inputs[0]]) if node.primitive is contract.matmul else None


class Factors(NamedTuple):
    """Where rows and columns of a dot product lie: `x`[first + row · pitch + k], `w`[start + k] for each column."""

    x: str
    first: Index
    pitch: int
    w: str
    starts: list[int]
    depth: int


class RowWriter:
    """Writes what is done with one row."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.m, self.f = evaluator, evaluator.m, evaluator.f
        self.kernel = evaluator.kernel
        self.nodes = [n for n in self.kernel.nodes if not evaluator.grouping.virtual(n)]
        self.columns = self.kernel.sizes[1]
        self.vectors = -(-self.columns // self.m.lanes)
        self.tail = self.columns % self.m.lanes or None
        self.levels: dict[int, Level] = {n: evaluator.grouping.level(self.kernel, n) or "full" for n in self.nodes}
        self.members = set(self.nodes)
        self.row_values: dict[object, Value] = {}
        self.row: Index = 0

    # -- operands

    def spot(self, column: Index, last: bool, key: object) -> Spot:
        """A vector of the row, from a column on."""
        return Spot((self.row,), column, self.tail if last else None, key)

    def operand(self, view: View, level: Level, spot: Spot, values: dict[Any, Value]) -> Value:
        """The value of an operand at a spot: just computed, a value of the row, or loaded."""
        x = view.base
        if x in values:
            return values[x]
        if x in self.members and x in self.row_values:
            return self.row_values[x]
        key = (x, view.strides, view.shape, view.offset)
        if key in self.row_values:
            return self.row_values[key]
        if (key, spot.key) in values:
            return values[key, spot.key]
        value = self.e.load(view, level, spot)
        if level == "row" or self._same_along(view):
            self.row_values[key] = value
        else:
            values[key, spot.key] = value
        return value

    def _same_along(self, view: View) -> bool:
        """Whether an operand is the same for all columns of a row."""
        blocks = self.e.grouping.blocks(self.kernel, "full", view)
        return blocks is not None and (not blocks[1] or blocks[1][0][1] == 0) and self.columns > 1

    def node(self, n: int, level: Level, spot: Spot, values: dict[Any, Value]) -> Value:
        """An elementwise node at a spot."""
        operands = [self.operand(view, level, spot, values) for view in self.e.grouping.operands(n)]
        return self.e.compute(n, operands, spot)

    def reduced(self, n: int) -> bool:
        """Whether a node is a reduction."""
        return self.e.nodes[n].primitive.kind == "reduce"

    # -- reductions

    def start(self, n: int) -> Value:
        """What a reduction starts from."""
        node = self.e.nodes[n]
        return self.m.constant(neutral(node.primitive.name, node.dtype), node.dtype)

    def combine(self, n: int, total: Value, value: Value, last: bool) -> Value:
        """A reduction with one more vector; `last`: the one with the tail."""
        name = self.e.nodes[n].primitive.name
        if last and self.tail:
            value = self.m.select_lanes(self.tail, value, self.start(n))
        return reduction(self.m, name, total, value)

    def finish(self, n: int, totals: list[Value]) -> Value:
        """Partial results put together, and the lanes of what comes out."""
        node = self.e.nodes[n]
        while len(totals) > 1:
            pairs = zip(totals[::2], totals[1::2], strict=True)
            totals = [reduction(self.m, node.primitive.name, a, b) for a, b in pairs]
        name = node.primitive.name
        return self.rounded(n, ended(name, across(self.m, name, totals[0])))

    def rounded(self, n: int, value: Value) -> Value:
        """A reduction in half precision is rounded once, at its end."""
        from_half = self.e.nodes[n].dtype.itemsize == 2
        return self.m.rounded(value, self.e.nodes[n].dtype) if from_half else value

    # -- dot products

    def prepare(self) -> None:
        """Columns for products with windows, each with its elements side by side, before the first row."""
        f, grouping = self.f, self.e.grouping
        for n in self.nodes:
            if _windows(grouping, n) is None:
                continue
            b, kind = grouping.views[self.e.nodes[n].inputs[1]], SCALARS[self.e.nodes[n].dtype]
            depth, size = b.shape[-2], self.e.nodes[n].dtype.itemsize
            for j in range(b.shape[-1]):
                start = b.offset + j * b.strides[-1]
                with f.loop(0, depth) as k:
                    at = f.address(self.e.pointers[b.base], f.add(f.mul(k.counter, b.strides[-2]), start), kind)
                    to = f.address("%scratch", f.add(k.counter, j * depth), kind)
                    f.store(kind, f.load(kind, at, size), to, size)

    def factors(self, n: int, row: Index, count: Index) -> Factors:
        """Those of `count` rows from `row` on; windows are set out first."""
        grouping, node = self.e.grouping, self.e.nodes[n]
        a, b = (grouping.views[x] for x in node.inputs)
        depth, columns = a.shape[-1], node.shape[-1]
        if window := _windows(grouping, n):
            image = grouping.views[self.e.nodes[a.base].inputs[0]]
            source = self.f.address(self.e.pointers[image.base], image.offset, SCALARS[node.dtype])
            to = self.f.address("%scratch", columns * depth, SCALARS[node.dtype])
            set_out(self.f, self.m.host, node.dtype, window, source, row, count, to, None)
            return Factors(to, 0, window.row, "%scratch", [j * depth for j in range(columns)], depth)
        a, b = self.e.in_memory(a), self.e.in_memory(b)
        along = a.strides[-2] if a.shape[-2] > 1 else 0
        starts = [b.offset + j * (b.strides[-1] if columns > 1 else 0) for j in range(columns)]
        first = self.f.add(self.f.mul(row, along), a.offset)
        return Factors(self.e.pointers[a.base], first, along, self.e.pointers[b.base], starts, depth)

    def dots(self, n: int) -> list[Value]:
        """A product into few columns: a dot product along the row for each, one a lane."""
        f, m = self.f, self.m
        node, of = self.e.nodes[n], self.factors(n, self.row, 1)
        whole, rest = of.depth // m.lanes * m.lanes, of.depth % m.lanes

        def step(i: Index, totals: list[str], mask: int | None = None) -> list[str]:
            x = m.load(of.x, f.add(of.first, i), node.dtype, mask)
            out = []
            for j, start in enumerate(of.starts):
                w = m.load(of.w, f.add(i, start), node.dtype, mask)
                out.append((m.fma(x, w, Value(m, totals[j], node.dtype)) if totals else x * w).x)
            return out

        totals = step(0, []) if whole else []
        if whole > 16 * m.lanes:
            with f.loop(m.lanes, whole, m.lanes, [(m.type(node.dtype), x) for x in totals]) as loop:
                loop.next = step(loop.counter, loop.carried)
            totals = loop.out
        else:
            for i in range(m.lanes, whole, m.lanes):
                totals = step(i, totals)
        if rest:
            totals = step(whole, totals, rest)
        kind = m.type(node.dtype)
        results = ["zeroinitializer"] * self.vectors
        for j, total in enumerate(totals):
            scalar = m.lane(ended("sum", across(m, "sum", Value(m, total, node.dtype))), 0)
            at, lane = divmod(j, m.lanes)
            results[at] = f.op(f"insertelement {kind} {results[at]}, {m.element(node.dtype)} {scalar}, i64 {lane}")
        return [Value(m, x, node.dtype) for x in results]

    # -- a row

    def write(self, row: Index) -> None:
        """Everything that is done with a row."""
        self.row = row
        self.row_values = {}
        if self.vectors <= SHORT:
            self._short()
        else:
            self._long()

    def _short(self) -> None:
        lanes, last = self.m.lanes, self.vectors - 1
        spots = [self.spot(j * lanes, j == last, j) for j in range(self.vectors)]
        values: list[dict] = [{} for _ in spots]
        for n in self.nodes:
            if self.levels[n] == "joined":
                for j, spot in enumerate(spots):
                    self._parts(n, spot, values[j])
            elif self.e.nodes[n].primitive is contract.matmul:
                for at, value in zip(values, self.dots(n), strict=True):
                    at[n] = value
            elif self.reduced(n):
                view = self.e.grouping.operands(n)[0]
                total = self.start(n)
                for j, spot in enumerate(spots):
                    total = self.combine(n, total, self.operand(view, "full", spot, values[j]), j == last)
                self.row_values[n] = self.finish(n, [total])
            elif self.levels[n] == "row":
                self.row_values[n] = self.node(n, "row", self.spot(0, False, "row"), {})
            else:
                for j, spot in enumerate(spots):
                    values[j][n] = self.node(n, "full", spot, values[j])
        for n in self.kernel.outputs:
            if self.levels[n] == "row":
                self.e.store(n, self.row_values[n], "row", spots[0])
            elif self.levels[n] == "full":
                for j, spot in enumerate(spots):
                    self.e.store(n, values[j][n], "full", spot)

    def _parts(self, n: int, spot: Spot, values: dict[Any, Value]) -> None:
        """Write what node `n` puts side by side, each where it is to stand."""
        for k, view in enumerate(self.e.grouping.operands(n)):
            self.e.store_part(n, k, self.operand(view, "full", spot, values), spot)

    # -- long rows

    def _long(self) -> None:
        known, kept = passes(self.e.grouping, self.kernel), scratch_rows(self.e.grouping, self.kernel)
        full = [n for n in self.nodes if self.levels[n] in ("full", "joined")]
        final = max(known[n] - self.reduced(n) for n in self.nodes)
        for p in range(final + 1):
            self._row_nodes(known, p)
            now = [n for n in full if known[n] == p]
            totals = [n for n in self.nodes if self.reduced(n) and known[n] == p + 1]
            if now or totals:
                self._pass(now, totals, known, p, kept)
        self._row_nodes(known, final + 1)
        for n in self.kernel.outputs:
            if self.levels[n] == "row":
                self.e.store(n, self.row_values[n], "row", self.spot(0, False, "row"))

    def _row_nodes(self, known: dict[int, int], p: int) -> None:
        """Values of the row that are known before pass p."""
        for n in self.nodes:
            if self.levels[n] == "row" and not self.reduced(n) and n not in self.row_values and known[n] <= p:
                self.row_values[n] = self.node(n, "row", self.spot(0, False, "row"), {})

    def _pass(self, now: list[int], totals: list[int], known: dict[int, int], p: int, kept: list[int]) -> None:
        f, m = self.f, self.m
        for n in now + totals:  # what is the same for the whole row is loaded before the loop
            for view in self.e.grouping.operands(n):
                if view.base not in self.members and self._same_along(view):
                    self.operand(view, "full", self.spot(0, False, "row"), {})

        def chunk(first: Index, count: int, sums: list[Value], end: bool) -> list[Value]:
            sums = list(sums)
            for u in range(count):
                last = end and u == count - 1
                self._vector(now, totals, known, p, kept, self.spot(f.add(first, u * m.lanes), last, u), sums, u)
            return sums

        starts = [self.start(n) for n in totals for _ in range(UNROLL)]
        rest = self.vectors % UNROLL or (UNROLL if self.tail else 0)
        whole = self.vectors - rest
        sums = starts
        if whole:
            carry = [(s.type, s.x) for s in starts]
            with f.loop(0, whole * m.lanes, UNROLL * m.lanes, carry) as loop:
                given = [Value(m, x, s.dtype) for x, s in zip(loop.carried, starts, strict=True)]
                loop.next = [s.x for s in chunk(loop.counter, UNROLL, given, False)]
            sums = [Value(m, x, s.dtype) for x, s in zip(loop.out, starts, strict=True)]
        if rest:
            sums = chunk(whole * m.lanes, rest, sums, True)
        for k, n in enumerate(totals):
            self.row_values[n] = self.finish(n, sums[k * UNROLL : (k + 1) * UNROLL])

    def _vector(
        self, now: list[int], totals: list[int], known: dict[int, int], p: int, kept: list[int], spot: Spot,
        sums: list[Value], u: int,
    ) -> None:  # fmt: skip
        values: dict = {}

        def recall(view: View) -> None:
            x = view.base
            if x in self.members and self.levels[x] == "full" and x not in values and known[x] < p:
                values[x] = self._kept(x, kept, spot)

        for n in now:
            for view in self.e.grouping.operands(n):
                recall(view)
            if self.levels[n] == "joined":
                self._parts(n, spot, values)
                continue
            values[n] = self.node(n, "full", spot, values)
            if n in self.kernel.outputs:
                self.e.store(n, values[n], "full", spot)
            elif n in kept:
                self.m.store(values[n], self._scratch(kept, n), spot.column)
        for k, n in enumerate(totals):
            view = self.e.grouping.operands(n)[0]
            recall(view)
            value = self.operand(view, "full", spot, values)
            sums[k * UNROLL + u] = self.combine(n, sums[k * UNROLL + u], value, spot.mask is not None)

    def _scratch(self, kept: list[int], n: int) -> str:
        return self.f.address("%scratch", kept.index(n) * pitch(self.columns, self.m.lanes), "i8")

    def _kept(self, n: int, kept: list[int], spot: Spot) -> Value:
        """A value of an earlier pass."""
        dtype = self.e.nodes[n].dtype
        if n in kept:
            return self.m.load(self._scratch(kept, n), spot.column, dtype)
        start = self.f.mul(self.row, self.e.places[n].pitch or self.columns)
        return self.m.load(self.e.pointers[n], self.f.add(start, spot.column), dtype, spot.mask)
