"""The nodes of a kernel on vectors: operands by their index maps, elementwise nodes by their declared meaning.

The lanes of a vector run along the last size of the kernel; the other sizes have one index each. Whatever is the same
for all lanes is a vector of equal lanes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule import dtypes
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index
from chainrule.engines.native.values import Mask, Value, Vectors
from chainrule.passes.disjoint import join
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel, Level
from chainrule.passes.views import Extents, View, is_lookup, with_pitch
from chainrule.primitives import index as index_primitives
from chainrule.program.program import CONSTANT, Node

PARAMETERS = ("ptr arena", "ptr table", "ptr scratch", "i64 thread", "i64 threads")
OUT_OF_RANGE = 3  # beside the codes of arithmetic.py; the record of an error is (code, value, node)


@dataclass(frozen=True)
class Place:
    """Where memory lies: `offset` bytes into the arena, or with `external` in the array that this entry of the table
    points to. With a `pitch`, the rows of a matrix are that far apart."""

    offset: int
    external: int | None = None
    pitch: int = 0


@dataclass(frozen=True)
class Spot:
    """One vector of a kernel: an index for each size but the last, the first column, and which lanes count.

    `key` tells spots of one row (or tile) apart, so that what they share is loaded once.
    """

    outer: tuple[Index, ...]
    column: Index
    mask: Mask = None
    key: object = None


class Evaluator:
    """Writes the values of nodes of one kernel into a function."""

    def __init__(
        self, grouping: Grouping, kernel: Kernel, f: Function, lanes: int, host: Host, places: dict[int, Place]
    ) -> None:
        self.grouping, self.kernel, self.f, self.places = grouping, kernel, f, places
        self.nodes = grouping.nodes
        self.m = Vectors(f, lanes, host, self._fail)
        self.lanes = lanes
        self.pointers: dict[int, str] = {}
        self.mask: Mask = None  # of the spot being evaluated: lanes that do not count cannot fail
        self.current = 0
        for n in dict.fromkeys([*kernel.inputs, *kernel.outputs]):
            self.pointers[n] = self._pointer(places[n])

    def _pointer(self, place: Place) -> str:
        if place.external is None:
            return self.f.address("%arena", place.offset, "i8")
        return self.f.load("ptr", self.f.address("%table", place.external, "ptr"), 8)

    # -- index maps

    def address(self, view: View, blocks: Sequence[Extents], outer: Sequence[Index]) -> Index:
        """The element where a row begins."""
        total: Index = view.offset
        for extents, number in zip(blocks, outer, strict=True):
            total = self.f.add(total, self.f.element(extents, number))
        return total

    def in_memory(self, view: View) -> View:
        """The same elements, where rows that are padded stand."""
        pitch = self.places[view.base].pitch if view.base in self.places else 0
        return in_pitch(self.nodes, view, pitch)

    # -- values

    def load(self, view: View, level: Level, spot: Spot) -> Value:
        """An operand that is stored, constant, or a position."""
        node = self.nodes[view.base]
        if node.primitive is CONSTANT and node.size == 1:
            return self.m.constant(node.attributes["value"].reshape(())[()], node.dtype)
        view = self.in_memory(view)
        blocks = self.grouping.blocks(self.kernel, level, view)
        if blocks is None:
            raise AssertionError(f"{self.kernel}: the operand {view} does not fit")
        outer = spot.outer
        inner: Extents = []
        if level == "row":
            outer = spot.outer[:1]
        elif level == "column" and len(self.kernel.sizes) == 3:
            outer, inner = spot.outer[:1], blocks[-1]
            blocks = blocks[:-1]
        else:
            inner = blocks[-1]
            blocks = blocks[:-1]
        start = self.address(view, blocks, outer)
        stride = inner[0][1] if inner else 0
        if node.primitive is index_primitives.iota:
            return self._positions(self.f.add(start, self.f.mul(spot.column, stride)), stride, node.dtype)
        pointer = self.pointers[view.base]
        if stride == 0:
            return self.m.load_splat(pointer, start, node.dtype)
        if stride == 1:
            return self.m.load(pointer, self.f.add(start, spot.column), node.dtype, spot.mask)
        first = self.f.add(start, self.f.mul(spot.column, stride))
        return self.m.gather(pointer, self._positions(first, stride, dtypes.int64), node.dtype, spot.mask)

    def _positions(self, start: Index, stride: int, dtype: dtypes.DType) -> Value:
        """start, start + stride, …"""
        if not dtypes.is_integer(dtype):
            return self.m.astype(self._positions(start, stride, dtypes.int64), dtype)
        kind = SCALARS[dtype]
        if not isinstance(start, int) and kind != "i64":
            start = self.f.op(f"trunc i64 {start} to {kind}")
        first = self.m.splat_of(start, dtype)
        if stride == 0:
            return first
        steps = ", ".join(f"{kind} {i * stride}" for i in range(self.lanes))
        return self.m.value(f"<{steps}>", dtype) + first

    def compute(self, n: int, operands: Sequence[Value], spot: Spot) -> Value:
        """An elementwise node, by its declared meaning."""
        node = self.nodes[n]
        self.mask, self.current = spot.mask, n
        if is_lookup(self.nodes, node):
            return self._lookup(n, operands[0], spot)
        wide = [Value(self.m, v.x, dtypes.float32) if v.dtype in dtypes.HALVES else v for v in operands]
        result = node.primitive.meaning(self.m, *wide, **node.attributes)
        if node.dtype in dtypes.HALVES and result.dtype not in dtypes.HALVES:
            result = self.m.rounded(result, node.dtype)
        return result

    def _lookup(self, n: int, number: Value, spot: Spot) -> Value:
        """Elements of a vector, by their numbers; one that is outside is an error, and reads element 0."""
        table = self.grouping.views[self.nodes[n].inputs[0]]
        size = table.shape[0]
        number = self.m.astype(number, dtypes.int64)
        bad = (number < 0) | (number >= size)
        self._fail(bad, OUT_OF_RANGE, number)
        base = self.nodes[table.base]
        if base.primitive is CONSTANT and base.size == 1:
            return self.m.constant(base.attributes["value"].reshape(())[()], base.dtype)
        inside = self.m.where(bad, 0, number)
        stride = table.strides[0] if size > 1 else 0
        return self.m.gather(self.pointers[table.base], inside * stride + table.offset, base.dtype, spot.mask)

    def _fail(self, condition: Value, code: int, value: Value | None = None) -> None:
        """Where the condition holds in a lane that counts, leave a record: somebody looks at it after the step."""
        f, m = self.f, self.m
        if self.mask is not None:
            condition = m.value(f.op(f"and {condition.type} {condition.x}, {m.mask(self.mask)}"), dtypes.bool_)
        found = f.intrinsic(f"llvm.vector.reduce.or.v{self.lanes}i1", "i1", (condition.type, condition.x))
        with f.when(found):
            what: Index = 0
            if value is not None:
                kept = m.where(condition, m.astype(value, dtypes.int64), 0)
                low = f.intrinsic(f"llvm.vector.reduce.smin.v{self.lanes}i64", "i64", (kept.type, kept.x))
                high = f.intrinsic(f"llvm.vector.reduce.smax.v{self.lanes}i64", "i64", (kept.type, kept.x))
                negative = f.compare("slt", low, 0)
                what = f.op(f"select i1 {negative}, i64 {low}, i64 {high}")
            self.record(code, what)

    def record(self, code: int, what: Index) -> None:
        """Leave a record of an error of the current node. The first one counts, whichever thread it comes from."""
        f, record = self.f, "%arena"  # it begins with the record
        pair = f.op(f"cmpxchg ptr {record}, i64 0, i64 {code} monotonic monotonic, align 8")
        with f.when(f.op(f"extractvalue {{ i64, i1 }} {pair}, 1")):
            f.store("i64", what, f.address(record, 1, "i64"), 8)
            f.store("i64", self.current, f.address(record, 2, "i64"), 8)

    # -- results

    def store(self, n: int, value: Value, level: Level, spot: Spot) -> None:
        """Write the value of a node to its memory."""
        sizes = self.kernel.sizes
        pointer = self.pointers[n]
        if level == "row":
            self.m.store_lane(value, pointer, spot.outer[0])
            return
        outer = spot.outer[:1] if level == "column" else spot.outer
        kept = (sizes[0], sizes[-1]) if level == "column" else sizes
        start: Index = 0
        for number, size in zip(outer, kept[:-1], strict=True):
            start = self.f.add(self.f.mul(start, size), number)
        row = self.places[n].pitch or sizes[-1]
        self.m.store(value, pointer, self.f.add(self.f.mul(start, row), spot.column), spot.mask)

    def store_part(self, n: int, part: int, value: Value, spot: Spot) -> None:
        """Write a vector of one of the values that `n` puts side by side. Zeros are positive where a join is a sum."""
        node, columns = self.nodes[n], self.kernel.sizes[1]
        if node.primitive is join and dtypes.is_float(node.dtype):
            value = value + 0.0
        start = self.f.add(self.f.mul(spot.outer[0], node.shape[-1]), part * columns)
        self.m.store(value, self.pointers[n], self.f.add(start, spot.column), spot.mask)


def in_pitch(nodes: Sequence[Node], view: View, pitch: int) -> View:
    """A view of a matrix whose rows are so far apart; 0: of dense memory."""
    if not pitch:
        return view
    found = with_pitch(view, nodes[view.base].shape[1], pitch)
    if found is None:
        raise AssertionError(f"no strides tell where {view} is in rows of {pitch}")
    return found


def lanes_of(grouping: Grouping, kernel: Kernel, host: Host) -> int:
    """How many lanes a kernel works with: as many float32 as a vector holds, or float64 where there are no float32."""
    floats = {
        grouping.nodes[n].dtype for n in [*kernel.nodes, *kernel.inputs] if dtypes.is_float(grouping.nodes[n].dtype)
    }
    if not floats:
        return host.lanes(max(4, *[grouping.nodes[n].dtype.itemsize for n in kernel.nodes]))
    return host.lanes(8 if dtypes.float64 in floats and dtypes.float32 not in floats else 4)


def reduction(m: Vectors, name: str, a: Value, b: Value) -> Value:
    """Two partial results of a reduction put together."""
    if name == "sum":
        return a + b
    if name == "prod":
        return a * b
    if name in ("any", "all"):
        return a | b if name == "any" else a & b
    return Value(m, getattr(m, "maximum" if name == "max" else "minimum")(a, b).x, a.dtype)


def neutral(name: str, dtype: dtypes.DType) -> Any:
    """What changes nothing when a reduction meets it. A sum of floats starts from −0, since −0 + 0 would be 0."""
    if name in ("any", "all"):
        return name == "all"
    if name == "sum":
        return -0.0 if dtypes.is_float(dtype) else 0
    if name == "prod":
        return 1
    if dtype == dtypes.bool_:
        return name == "min"
    if dtypes.is_float(dtype):
        return float("-inf") if name == "max" else float("inf")
    limits = dtypes.integer_limits(dtype)
    return limits[0] if name == "max" else limits[1]


def ended(name: str, value: Value) -> Value:
    """A reduction that is complete: a sum of −0 alone is 0, as in NumPy."""
    return value + 0.0 if name == "sum" and dtypes.is_float(value.dtype) else value


def across(m: Vectors, name: str, value: Value) -> Value:
    """All lanes of a vector put together, neighbours first, in all lanes: a fixed order, so that bits are stable."""
    step = 1
    while step < m.lanes:
        order = ", ".join(f"i32 {i ^ step}" for i in range(m.lanes))
        kind = value.type
        turned = m.f.op(f"shufflevector {kind} {value.x}, {kind} poison, <{m.lanes} x i32> <{order}>")
        value = reduction(m, name, value, Value(m, turned, value.dtype))
        step *= 2
    if name in ("max", "min"):  # of 0 and −0 the second one is taken, which is another one in every other lane
        value = m.splat_of(m.lane(value, 0), value.dtype)
    return value
