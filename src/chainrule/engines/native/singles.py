"""Nodes that are a kernel of their own: pad, concat, take, scatter_add, running sums, extremes by position, sorting."""

from collections.abc import Callable, Sequence

from chainrule import dtypes
from chainrule.engines.native.division import Share, Single
from chainrule.engines.native.evaluate import OUT_OF_RANGE, Evaluator, neutral
from chainrule.engines.native.ir import SCALARS, Index
from chainrule.engines.native.sorting import argsort
from chainrule.engines.native.values import Value, Vectors
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, dense_strides


def division_of_single(grouping: Grouping, kernel: Kernel) -> Share:
    """These run on one thread."""
    return Single()


class SingleWriter:
    """Writes one such node."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.f = evaluator, evaluator.f
        self.n = evaluator.kernel.nodes[0]
        self.node = evaluator.nodes[self.n]
        self.views = [evaluator.grouping.views[x] for x in self.node.inputs]
        self.one = Vectors(self.f, 1, evaluator.m.host, evaluator.m.fail)

    def write(self) -> None:
        """The whole node."""
        getattr(self, f"_{self.node.primitive.name}")()

    # -- copies of boxes

    def _nest(self, extents: Sequence[int], body: Callable[[list[Index]], None], done: tuple[Index, ...] = ()) -> None:
        """Loops over all indices of a box."""
        if len(done) == len(extents):
            body(list(done))
            return
        if extents[len(done)] == 1:
            self._nest(extents, body, (*done, 0))
            return
        with self.f.loop(0, extents[len(done)]) as loop:
            self._nest(extents, body, (*done, loop.counter))

    def _at(self, indices: Sequence[Index], strides: Sequence[int], offset: int) -> Index:
        total: Index = offset
        for i, stride in zip(indices, strides, strict=True):
            total = self.f.add(total, self.f.mul(i, stride))
        return total

    def _copy(self, view: View, strides: tuple[int, ...], offset: int) -> None:
        """The elements of an operand to places of the result."""
        if 0 in view.shape:
            return
        m, f = self.e.m, self.f
        inner = view.shape[-1] if view.shape else 1
        source = self.e.nodes[view.base]
        run = bool(view.shape) and view.strides[-1] in (0, 1) and strides[-1] == 1 and inner > 1
        single = source.primitive.kind == "source" and view.base not in self.e.pointers

        def element(vectors: Vectors, index: Index, same: bool, mask: int | None = None) -> Value:
            if single:
                return self._known(vectors, view, index)
            pointer = self.e.pointers[view.base]
            return (
                vectors.load_splat(pointer, index, source.dtype)
                if same
                else vectors.load(pointer, index, source.dtype, mask)
            )

        def row(indices: list[Index]) -> None:
            start, end = self._at(indices, view.strides[:-1], view.offset), self._at(indices, strides[:-1], offset)
            same, lanes = view.strides[-1] == 0, m.lanes
            whole = inner // lanes * lanes
            if whole:
                with f.loop(0, whole, lanes) as loop:
                    value = element(m, start if same else f.add(start, loop.counter), same)
                    m.store(value, self.e.pointers[self.n], f.add(end, loop.counter))
            if inner % lanes:
                mask = inner % lanes
                value = element(m, start if same else f.add(start, whole), same, mask)
                m.store(value, self.e.pointers[self.n], f.add(end, whole), mask)

        def single_element(indices: list[Index]) -> None:
            value = element(self.one, self._at(indices, view.strides, view.offset), False)
            self.one.store(value, self.e.pointers[self.n], self._at(indices, strides, offset))

        if run and not single:
            self._nest(view.shape[:-1], row)
        else:
            self._nest(view.shape, single_element)

    def _known(self, m: Vectors, view: View, index: Index) -> Value:
        """A constant number, or a position."""
        node = self.e.nodes[view.base]
        if node.primitive.name == "iota":
            return m.astype(m.splat_of(index, dtypes.int64), node.dtype)
        return m.constant(node.attributes["value"].reshape(())[()], node.dtype)

    def _pad(self) -> None:
        a, strides = self.node.attributes, dense_strides(self.node.shape)
        self._fill_zero()
        offset = sum(low * s for low, s in zip(a["low"], strides, strict=True))
        self._copy(self.views[0], tuple(s * (i + 1) for s, i in zip(strides, a["interior"], strict=True)), offset)

    def _fill_zero(self) -> None:
        bytes_ = self.node.size * self.node.dtype.itemsize
        self.f.effect(
            "llvm.memset.p0.i64", ("ptr", self.e.pointers[self.n]), ("i8", 0), ("i64", bytes_), ("i1", "false")
        )

    def _concat(self) -> None:
        strides, axis = dense_strides(self.node.shape), self.node.attributes["axis"]
        offset = 0
        for view in self.views:
            self._copy(view, strides, offset)
            offset += view.shape[axis] * strides[axis]

    # -- looking up

    def _number(self, view: View, i: Index, size: int) -> Index:
        """An index as i64; one that is outside is an error, and becomes 0."""
        m = self.one
        number = m.astype(m.load(self.e.pointers[view.base], i, self.e.nodes[view.base].dtype), dtypes.int64)
        bad = (number < 0) | (number >= size)
        self.e.mask, self.e.current = None, self.n
        self._fail(bad, number)
        return m.lane(m.where(bad, 0, number), 0)

    def _fail(self, bad: Value, number: Value) -> None:
        lanes, self.e.lanes, many = self.e.lanes, 1, self.e.m
        self.e.m = self.one
        self.e._fail(bad, OUT_OF_RANGE, number)
        self.e.lanes, self.e.m = lanes, many

    def _copy_bytes(self, to: str, source: str, count: int) -> None:
        self.f.effect("llvm.memcpy.p0.p0.i64", ("ptr", to), ("ptr", source), ("i64", count), ("i1", "false"))

    def _take(self) -> None:
        table, index = self.views
        row = self.node.size // max(1, _size(index.shape))
        size, kind = self.node.dtype.itemsize, SCALARS[self.node.dtype]
        with self.f.loop(0, _size(index.shape)) as loop:
            number = self._number(index, loop.counter, table.shape[0])
            source = self.f.address(self.e.pointers[table.base], self.f.mul(number, row), kind)
            to = self.f.address(self.e.pointers[self.n], self.f.mul(loop.counter, row), kind)
            self._copy_bytes(to, source, row * size)

    def _scatter_add(self) -> None:
        x, index, updates = self.views
        self._copy_bytes(self.e.pointers[self.n], self.e.pointers[x.base], self.node.size * self.node.dtype.itemsize)
        count = _size(index.shape)
        row = _size(x.shape[1:])
        if not count or not row:
            return
        with self.f.loop(0, count) as loop:
            start = self.f.mul(self._number(index, loop.counter, x.shape[0]), row)
            self._add_row(start, updates, self.f.mul(loop.counter, row), row)

    def _add_row(self, start: Index, updates: View, first: Index, row: int) -> None:
        m, f, dtype = self.e.m, self.f, self.node.dtype

        def part(at: Index, mask: int | None) -> None:
            old = m.load(self.e.pointers[self.n], f.add(start, at), dtype, mask)
            new = old + m.load(self.e.pointers[updates.base], f.add(first, at), dtype, mask)
            m.store(new, self.e.pointers[self.n], f.add(start, at), mask)

        whole = row // m.lanes * m.lanes
        if whole:
            with f.loop(0, whole, m.lanes) as loop:
                part(loop.counter, None)
        if row % m.lanes:
            part(whole, row % m.lanes)

    # -- along an axis

    def _axis(self, axis: int) -> tuple[int, int, int]:
        """The shape as (before, along, after)."""
        shape = self.views[0].shape
        return _size(shape[:axis]), shape[axis], _size(shape[axis + 1 :])

    def _lines(self, before: int, after: int, body: Callable[[Vectors, Index, Index, int | None], None]) -> None:
        """body(m, before, after, mask) for each line along the axis, as many neighbouring lines as there are lanes."""
        m = self.e.m if after > 1 else self.one
        with self.f.loop(0, before) as outer:
            whole = after // m.lanes * m.lanes
            if whole:
                with self.f.loop(0, whole, m.lanes) as inner:
                    body(m, outer.counter, inner.counter, None)
            if after % m.lanes:
                body(m, outer.counter, whole, after % m.lanes)

    def _cumsum(self) -> None:
        before, along, after = self._axis(self.node.attributes["axis"])
        reverse = self.node.attributes["reverse"]
        dtype, f = self.node.dtype, self.f

        def line(m: Vectors, outer: Index, inner: Index, mask: int | None) -> None:
            start = f.add(f.mul(outer, along * after), inner)
            zero = m.constant(neutral("sum", dtype), dtype)
            with f.loop(0, along, 1, [(zero.type, zero.x)]) as loop:
                k = f.sub(along - 1, loop.counter) if reverse else loop.counter
                at = f.add(start, f.mul(k, after))
                total = Value(m, loop.carried[0], dtype) + m.load(self.e.pointers[self.views[0].base], at, dtype, mask)
                stored = m.rounded(total, dtype) if dtype in dtypes.HALVES else total
                m.store(stored, self.e.pointers[self.n], at, mask)
                loop.next = [total.x]

        self._lines(before, after, line)

    def _argmax(self) -> None:
        self._extreme(lambda new, best: new > best)

    def _argmin(self) -> None:
        self._extreme(lambda new, best: new < best)

    def _extreme(self, beats: Callable[[Value, Value], Value]) -> None:
        """The first place of the extreme along the axis; NaN counts as the extreme."""
        before, along, after = self._axis(self.node.attributes["axes"][0])
        x, f = self.views[0], self.f
        dtype = self.e.nodes[x.base].dtype
        held = dtypes.float32 if dtype in dtypes.HALVES else dtypes.uint8 if dtype == dtypes.bool_ else dtype

        def line(m: Vectors, outer: Index, inner: Index, mask: int | None) -> None:
            start = f.add(f.mul(outer, along * after), inner)

            def element(k: Index) -> Value:
                value = m.load(self.e.pointers[x.base], f.add(start, f.mul(k, after)), dtype, mask)
                return m.astype(value, held) if dtype == dtypes.bool_ else Value(m, value.x, held)

            best, place = element(0), m.constant(0, dtypes.int64)
            if along > 1:
                with f.loop(1, along, 1, [(best.type, best.x), (place.type, place.x)]) as loop:
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

        self._lines(before, after, line)

    def _argsort(self) -> None:
        before, along, after = self._axis(self.node.attributes["axis"])
        argsort(self.e, self.views[0], before, along, after, self.node.attributes["descending"])


def _size(shape: Sequence[int]) -> int:
    result = 1
    for n in shape:
        result *= n
    return result
