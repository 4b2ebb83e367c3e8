"""Nodes that are a kernel of their own: pad, concat, take, scatter_add, running sums, extremes by position, sorting.

Threads share the result out, and never a sum. Of scatter_add each thread adds some columns of all rows, or where rows
are short everything that belongs to some rows of the table: so everybody goes through the whole index, in order.
"""

from collections.abc import Callable, Sequence
from math import prod

from chainrule import dtypes
from chainrule.engines.native.boxes import Box, Cut, move, vectors
from chainrule.engines.native.division import Columns, Rows, Share, Single
from chainrule.engines.native.evaluate import OUT_OF_RANGE, Evaluator, neutral
from chainrule.engines.native.ir import SCALARS, Index
from chainrule.engines.native.sorting import argsort
from chainrule.engines.native.values import Mask, Value, Vectors
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View
from chainrule.program.program import Node

LINE = 64  # elements of the last axis that are not cut apart
MANY = 16  # units that are enough to be shared out
FEW = 4  # vectors in a row of a table from which on its columns are shared out
WORTH = 16384  # elements that are moved in the time that sharing out takes
COST = {"argsort": 16, "cumsum": 4, "argmax": 2, "argmin": 2}  # compared to moving an element


def division_of_single(grouping: Grouping, kernel: Kernel, lanes: int) -> Share:
    """The cut of a node of these kinds; small ones are for the first thread alone."""
    node = grouping.nodes[kernel.nodes[0]]
    units = _units(node, [grouping.nodes[x].shape for x in node.inputs], lanes)
    read = () if node.primitive.name == "take" else node.inputs  # of a table only the rows that are asked for
    work = max(grouping.nodes[x].size for x in (kernel.nodes[0], *read)) * COST.get(node.primitive.name, 1)
    return units if units.count > 1 and work >= WORTH else Single()


def _units(node: Node, shapes: Sequence[tuple[int, ...]], lanes: int) -> Rows | Columns:
    """What threads share: of moved elements rows or stretches of the last axis, else lines along the axis of work."""
    name = node.primitive.name
    if name == "take":
        return _cut(_rows(shapes))[1]
    if name == "scatter_add":
        rows, width = _rows((shapes[0], (shapes[0][0],)))
        parts = -(-width // lanes)
        return Columns(parts, lanes) if parts >= FEW else Rows(rows, 1, 0)
    if name == "argsort":
        before, _, after = along(shapes[0], node.attributes["axis"])
        return Rows(before * after, 1, 0)
    if name in COST:
        before, _, after = along(shapes[0], _axis(node))
        parts = -(-after // lanes)
        return Rows(before, 1, 0) if before >= min(parts, MANY) else Columns(parts, lanes)
    return _cut(node.shape)[1]


def _cut(shape: Sequence[int]) -> tuple[int, Rows | Columns]:
    """The axis of moved elements that is cut: the first one that gives many units, else that which gives most."""
    counts = [*shape[:-1], -(-shape[-1] // LINE)] if shape else [1]
    axis = next((a for a, n in enumerate(counts) if n >= MANY), counts.index(max(counts)))
    return axis, Rows(counts[axis], 1, 0) if axis < len(shape) - 1 else Columns(counts[axis], LINE)


def _rows(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """How many rows of a table an index names, and how long one is."""
    table, numbers = shapes[:2]
    return prod(numbers), prod(table[1:])


def _axis(node: Node) -> int:
    axis: int = node.attributes["axes"][0] if "axes" in node.attributes else node.attributes["axis"]
    return axis


def along(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """A shape as (before, along, after) an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


class SingleWriter:
    """Writes one such node."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.f = evaluator, evaluator.f
        self.n = evaluator.kernel.nodes[0]
        self.node = evaluator.nodes[self.n]
        self.views = [evaluator.grouping.views[x] for x in self.node.inputs]
        self.one = Vectors(self.f, 1, evaluator.m.host)
        self.units = _units(self.node, [view.shape for view in self.views], evaluator.m.lanes)
        self.lo: Index = 0
        self.hi: Index = self.units.count

    def write(self, part: tuple[Index, Index] | None = None) -> None:
        """The units [lo, hi) of the node, or all of it."""
        self.whole = part is None
        if part is not None:
            self.lo, self.hi = part
        getattr(self, f"_{self.node.primitive.name}")()

    # -- moving

    def _part(self, shape: Sequence[int], axis: int) -> Cut | None:
        """What this thread makes of a result; None for all of it."""
        if self.whole:
            return None
        if isinstance(self.units, Rows):
            return Cut(axis, self.lo, self.hi)
        lo, hi = (self.f.mul(end, self.units.width) for end in (self.lo, self.hi))
        return Cut(axis, lo, self.f.min(hi, shape[axis]))

    def _pad(self) -> None:
        a, shape = self.node.attributes, self.node.shape
        box = Box(self.e, self.n, shape, self._part(shape, _cut(shape)[0]))
        box.zeros()
        box.put(self.views[0], a["low"], [i + 1 for i in a["interior"]])

    def _concat(self, positive: bool = False) -> None:
        axis, shape = self.node.attributes["axis"], self.node.shape
        box = Box(self.e, self.n, shape, self._part(shape, _cut(shape)[0]), positive)
        at = 0
        for view in self.views:
            box.put(view, [at if a == axis else 0 for a in range(len(shape))], [1] * len(shape))
            at += view.shape[axis]

    def _join(self) -> None:
        self._concat(positive=dtypes.is_float(self.node.dtype))

    # -- looking up

    def _number(self, view: View, i: Index, size: int) -> Index:
        """An index as i64; one that is outside is an error, and becomes 0."""
        f, one = self.f, self.one
        given = one.load(self.e.pointers[view.base], i, self.e.nodes[view.base].dtype)
        number = one.lane(one.astype(given, dtypes.int64), 0)
        outside = f.compare("uge", number, size)
        with f.when(outside):
            self.e.current = self.n
            self.e.record(OUT_OF_RANGE, number)
        return f.op(f"select i1 {outside}, i64 0, i64 {number}")

    def _take(self) -> None:
        table, numbers = self.views
        count, width = _rows((table.shape, numbers.shape))
        cut = self._part((count, width), _cut((count, width))[0]) or Cut(0, 0, count)
        f, kind, bytes_ = self.f, SCALARS[self.node.dtype], self.node.dtype.itemsize
        lo, hi = (cut.lo, cut.hi) if cut.axis == 0 else (0, count)
        first, length = (0, width) if cut.axis == 0 else (cut.lo, f.sub(cut.hi, cut.lo))
        with f.loop(lo, hi) as loop:
            number = self._number(numbers, loop.counter, table.shape[0])
            ends = [f.add(f.mul(row, width), first) for row in (loop.counter, number)]
            pointers = (self.e.pointers[x] for x in (self.n, table.base))
            to, source = (f.address(pointer, at, kind) for pointer, at in zip(pointers, ends, strict=True))
            move(f, to, source, f.mul(length, bytes_), self.e.m.host.vector_bytes)

    def _scatter_add(self) -> None:
        x, numbers, updates = self.views
        count, width = _rows((x.shape, numbers.shape))
        rows = x.shape[0]
        cut = self._part((rows, width), int(isinstance(self.units, Columns))) or Cut(0, 0, rows)
        flat = View(x.base, (rows, width), (width, 1) if x.base in self.e.pointers else (0, 0))
        Box(self.e, self.n, (rows, width), None if self.whole else cut).put(flat, (0, 0), (1, 1))
        first, last = (0, width) if cut.axis == 0 else (cut.lo, cut.hi)
        f, kind = self.f, SCALARS[self.node.dtype]
        with f.loop(0, count) as loop:
            number = self._number(numbers, loop.counter, rows)
            to = f.address(self.e.pointers[self.n], f.mul(number, width), kind)
            given = f.address(self.e.pointers[updates.base], f.add(f.mul(loop.counter, width), updates.offset), kind)
            if self.whole or cut.axis == 1:
                self._add_row(to, given, first, last)
            else:
                with f.when(f.compare("ult", f.sub(number, cut.lo), f.sub(cut.hi, cut.lo))):
                    self._add_row(to, given, first, last)

    def _add_row(self, to: str, given: str, first: Index, last: Index) -> None:
        m, dtype = self.e.m, self.node.dtype

        def part(at: Index, mask: Mask) -> None:
            m.store(m.load(to, at, dtype, mask) + m.load(given, at, dtype, mask), to, at, mask)

        vectors(m, first, last, part)

    # -- along an axis

    def _lines(self, body: Callable[[Vectors, Index, Index, Mask], None]) -> None:
        """body(m, before, after, mask) for each line along the axis, as many neighbouring lines as there are lanes."""
        f = self.f
        before, _, after = along(self.views[0].shape, _axis(self.node))
        m = self.e.m if after > 1 else self.one
        by_rows = isinstance(self.units, Rows)
        cut = Cut(0, self.lo, self.hi) if by_rows else self._part((before, after), 1) or Cut(1, 0, after)
        with f.loop(*((cut.lo, cut.hi) if by_rows else (0, before))) as outer:
            first, last = (0, after) if by_rows else (cut.lo, cut.hi)
            vectors(m, first, last, lambda inner, mask: body(m, outer.counter, inner, mask))

    def _cumsum(self) -> None:
        _, length, after = along(self.views[0].shape, _axis(self.node))
        reverse = self.node.attributes["reverse"]
        dtype, f = self.node.dtype, self.f

        def line(m: Vectors, outer: Index, inner: Index, mask: Mask) -> None:
            start = f.add(f.mul(outer, length * after), inner)
            zero = m.constant(neutral("sum", dtype), dtype)
            with f.loop(0, length, 1, [(zero.type, zero.x)]) as loop:
                k = f.sub(length - 1, loop.counter) if reverse else loop.counter
                at = f.add(start, f.mul(k, after))
                total = Value(m, loop.carried[0], dtype) + m.load(self.e.pointers[self.views[0].base], at, dtype, mask)
                stored = m.rounded(total, dtype) if dtype in dtypes.HALVES else total
                m.store(stored, self.e.pointers[self.n], at, mask)
                loop.next = [total.x]

        self._lines(line)

    def _argmax(self) -> None:
        self._extreme(lambda new, best: new > best)

    def _argmin(self) -> None:
        self._extreme(lambda new, best: new < best)

    def _extreme(self, beats: Callable[[Value, Value], Value]) -> None:
        """The first place of the extreme along the axis; NaN counts as the extreme."""
        _, length, after = along(self.views[0].shape, _axis(self.node))
        x, f = self.views[0], self.f
        dtype = self.e.nodes[x.base].dtype
        held = dtypes.float32 if dtype in dtypes.HALVES else dtypes.uint8 if dtype == dtypes.bool_ else dtype

        def line(m: Vectors, outer: Index, inner: Index, mask: Mask) -> None:
            start = f.add(f.mul(outer, length * after), inner)

            def element(k: Index) -> Value:
                value = m.load(self.e.pointers[x.base], f.add(start, f.mul(k, after)), dtype, mask)
                return m.astype(value, held) if dtype == dtypes.bool_ else Value(m, value.x, held)

            best, place = element(0), m.constant(0, dtypes.int64)
            if length > 1:
                with f.loop(1, length, 1, [(best.type, best.x), (place.type, place.x)]) as loop:
                    best, place = Value(m, loop.carried[0], held), Value(m, loop.carried[1], dtypes.int64)
                    new = element(loop.counter)
                    better = beats(new, best)
                    if dtypes.is_float(held):
                        better = (better | (new != new)) & (best == best)
                    best = m.where(better, new, best)
                    place = m.where(better, m.splat_of(loop.counter, dtypes.int64), place)
                    loop.next = [best.x, place.x]
                best, place = Value(m, loop.out[0], held), Value(m, loop.out[1], dtypes.int64)
            m.store(place, self.e.pointers[self.n], f.add(f.mul(outer, after), inner), mask)

        self._lines(line)

    def _argsort(self) -> None:
        _, length, after = along(self.views[0].shape, _axis(self.node))
        argsort(self.e, self.views[0], (self.lo, self.hi), length, after, self.node.attributes["descending"])
