"""Boxes of elements moved into a part of a result: what pad and concat are made of.

Axes that lie alike in both memories are one run, which is moved without a look at what it means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.ir import SCALARS, Function, Index
from chainrule.engines.native.values import Mask, Value, Vectors
from chainrule.passes.views import View, dense_strides

INLINE = 4  # vectors that are moved without a loop
LONG = 4096  # bytes from which on the memcpy of the system is called
Range = tuple[Index, Index]
Body = Callable[[Index, Mask], None]  # (first element, which lanes count)


@dataclass(frozen=True)
class Cut:
    """The part of a result that a thread makes: [lo, hi) along one axis, everything along the others."""

    axis: int
    lo: Index
    hi: Index


def move(f: Function, to: str, source: str, count: Index, width: int) -> None:
    """Copy so many bytes, with vectors of `width` bytes. The two memories do not overlap."""
    if not isinstance(count, int) or count > LONG:
        f.effect("llvm.memcpy.p0.p0.i64", ("ptr", to), ("ptr", source), ("i64", count), ("i1", "false"))
        return
    step = INLINE * width
    whole = count // step * step if count > step else 0

    def part(at: Index, length: int) -> None:
        pointers = [("ptr", f.address(pointer, at, "i8")) for pointer in (to, source)]
        f.effect("llvm.memcpy.inline.p0.p0.i64", *pointers, ("i64", length), ("i1", "false"))

    if whole:
        with f.loop(0, whole, step) as loop:
            part(loop.counter, step)
    if count > whole:
        part(whole, count - whole)


def zero(f: Function, to: str, count: Index) -> None:
    """Set so many bytes to 0."""
    f.effect("llvm.memset.p0.i64", ("ptr", to), ("i8", 0), ("i64", count), ("i1", "false"))


def vectors(m: Vectors, lo: Index, hi: Index, body: Body) -> None:
    """body(first, mask) for the elements [lo, hi), a vector at a time."""
    f = m.f
    count = f.sub(hi, lo)
    if isinstance(count, int):
        whole, rest = count // m.lanes * m.lanes, count % m.lanes
        if whole > 0:
            with f.loop(lo, f.add(lo, whole), m.lanes) as loop:
                body(loop.counter, None)
        if count > 0 and rest:
            body(f.add(lo, whole), rest)
        return
    count = f.max(count, 0)
    rest_of = f.rem(count, m.lanes)
    end = f.add(lo, f.sub(count, rest_of))
    with f.loop(lo, end, m.lanes) as loop:
        body(loop.counter, None)
    if m.lanes > 1:
        with f.when(f.compare("ne", rest_of, 0)):
            short = f.op(f"trunc i64 {rest_of} to i32")
            body(end, (m.lane_numbers(0, dtypes.int32) < m.splat_of(short, dtypes.int32)).x)


def nest(
    f: Function, ranges: Sequence[Range], body: Callable[[list[Index]], None], done: tuple[Index, ...] = ()
) -> None:
    """body(indices) for all indices of a box."""
    if len(done) == len(ranges):
        body(list(done))
        return
    lo, hi = ranges[len(done)]
    if isinstance(lo, int) and isinstance(hi, int) and hi - lo <= 1:
        if hi > lo:
            nest(f, ranges, body, (*done, lo))
        return
    with f.loop(lo, hi) as loop:
        nest(f, ranges, body, (*done, loop.counter))


class Box:
    """Moves operands to the places `low + step · index` of the result of a node, as far as a thread makes these.

    `shape`: the result as it is seen here. `positive`: −0 becomes +0 on the way.
    """

    def __init__(
        self, evaluator: Evaluator, n: int, shape: Sequence[int], cut: Cut | None, positive: bool = False
    ) -> None:
        self.e, self.f, self.m = evaluator, evaluator.f, evaluator.m
        self.cut, self.positive = cut, positive
        self.dtype, self.pointer = evaluator.nodes[n].dtype, evaluator.pointers[n]
        self.shape, self.strides = tuple(shape), dense_strides(tuple(shape))

    def zeros(self) -> None:
        """All that this thread makes."""
        f, cut = self.f, self.cut or Cut(0, 0, self.shape[0] if self.shape else 1)
        lead, inner = self.strides[: cut.axis], self.strides[cut.axis] if self.shape else 1
        count = f.mul(f.sub(cut.hi, cut.lo), inner * self.dtype.itemsize)

        def fill(indices: list[Index]) -> None:
            start = f.add(self._at(indices, lead, 0), f.mul(cut.lo, inner))
            zero(f, f.address(self.pointer, start, SCALARS[self.dtype]), count)

        nest(f, [(0, n) for n in self.shape[: cut.axis]], fill)

    def put(self, view: View, low: Sequence[int], steps: Sequence[int]) -> None:
        """An operand."""
        if 0 in view.shape:
            return
        f = self.f
        ranges = [self._range(*of_axis) for of_axis in zip(range(len(low)), view.shape, low, steps, strict=True)]
        apart = [s * stride for s, stride in zip(steps, self.strides, strict=True)]
        offset = sum(a * stride for a, stride in zip(low, self.strides, strict=True))
        long = [stride for n, stride in zip(view.shape, view.strides, strict=True) if n > 1]
        same = view.base not in self.e.pointers or (bool(long) and long[-1] == 0)
        axis, length = self._run(view, apart, same)
        if self.e.nodes[view.base].primitive.name == "iota":
            self._one_by_one(view, ranges, apart, offset)
            return
        if long and axis == len(view.shape):
            wide = apart[-1] == 1 and view.shape[-1] >= self.m.lanes
            (self._gather if wide else self._one_by_one)(view, ranges, apart, offset)
            return

        def run(indices: list[Index]) -> None:
            start, end = self._at(indices, view.strides[:axis], view.offset), self._at(indices, apart[:axis], offset)
            count: Index = length
            if self.cut is not None and axis == self.cut.axis:
                first, last = ranges[axis]
                start, end = (f.add(at, f.mul(first, by[axis])) for at, by in ((start, view.strides), (end, apart)))
                count = f.mul(f.max(f.sub(last, first), 0), length)
            self._move(view.base, start, end, count, same)

        nest(f, ranges[:axis], run)

    # -- where things are

    def _at(self, indices: Sequence[Index], strides: Sequence[int], offset: int) -> Index:
        total: Index = offset
        for i, stride in zip(indices, strides, strict=True):
            total = self.f.add(total, self.f.mul(i, stride))
        return total

    def _range(self, axis: int, size: int, low: int, step: int) -> Range:
        """The indices of an operand whose places along an axis belong to this thread."""
        f = self.f
        if self.cut is None or self.cut.axis != axis:
            return 0, size
        lo, hi = (f.max(f.sub(end, low), 0) for end in (self.cut.lo, self.cut.hi))
        lo, hi = (f.min(f.div(f.add(end, step - 1), step), size) for end in (lo, hi))
        return lo, hi

    def _run(self, view: View, apart: Sequence[int], same: bool) -> tuple[int, int]:
        """The first axis from which on elements are neighbours in both memories, or the same one in the source, and
        how many elements an index of it has: of the axis that is cut, else of all in the run."""
        axis, length = len(view.shape), 1
        while axis > 0:
            n = view.shape[axis - 1]
            if n > 1 and (apart[axis - 1] != length or view.strides[axis - 1] != (0 if same else length)):
                break
            axis -= 1
            if self.cut is not None and axis == self.cut.axis:
                break
            length *= n
        return axis, length

    # -- moving

    def _move(self, base: int, start: Index, end: Index, count: Index, same: bool) -> None:
        """A run."""
        f, m, kind = self.f, self.m, SCALARS[self.dtype]
        to = f.address(self.pointer, end, kind)
        if same:
            value = self._same(base, start)
            if value is None:
                zero(f, to, f.mul(count, self.dtype.itemsize))
                return
            vectors(m, 0, count, lambda at, mask: m.store(value, to, at, mask))
            return
        source = f.address(self.e.pointers[base], start, kind)
        if not self.positive:
            move(f, to, source, f.mul(count, self.dtype.itemsize), m.host.vector_bytes)
            return
        vectors(m, 0, count, lambda at, mask: m.store(m.load(source, at, self.dtype, mask) + 0.0, to, at, mask))

    def _same(self, base: int, start: Index) -> Value | None:
        """One number in all lanes; None for zero."""
        if base in self.e.pointers:
            value = self.m.load_splat(self.e.pointers[base], start, self.dtype)
            return value + 0.0 if self.positive else value
        number = self.e.nodes[base].attributes["value"].reshape(())[()]
        if number == 0 and (self.positive or number.tobytes() == bytes(self.dtype.itemsize)):
            return None
        return self.m.constant(number, self.dtype)

    def _gather(self, view: View, ranges: Sequence[Range], apart: Sequence[int], offset: int) -> None:
        """Elements that become neighbours."""
        f, m, stride = self.f, self.m, view.strides[-1]
        steps = m.lane_numbers(0, dtypes.int64) * stride

        def row(indices: list[Index]) -> None:
            start = self._at(indices, view.strides[:-1], view.offset)
            end = self._at(indices, apart[:-1], offset)

            def vector(at: Index, mask: Mask) -> None:
                numbers = steps + m.splat_of(f.add(start, f.mul(at, stride)), dtypes.int64)
                value = m.gather(self.e.pointers[view.base], numbers, self.dtype, mask)
                m.store(value + 0.0 if self.positive else value, self.pointer, f.add(end, at), mask)

            vectors(m, *ranges[-1], vector)

        nest(f, ranges[:-1], row)

    def _one_by_one(self, view: View, ranges: Sequence[Range], apart: Sequence[int], offset: int) -> None:
        """Elements that are no neighbours, positions, and one number that stands for all."""
        m, dtype = Vectors(self.f, 1, self.m.host), self.dtype

        def element(indices: list[Index]) -> None:
            start, end = self._at(indices, view.strides, view.offset), self._at(indices, apart, offset)
            node = self.e.nodes[view.base]
            if view.base in self.e.pointers:
                value = m.load(self.e.pointers[view.base], start, dtype)
            elif node.primitive.name == "iota":
                value = m.astype(m.splat_of(start, dtypes.int64), dtype)
            else:
                value = m.constant(node.attributes["value"].reshape(())[()], dtype)
            m.store(value + 0.0 if self.positive else value, self.pointer, end)

        nest(self.f, ranges, element)
