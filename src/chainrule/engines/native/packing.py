"""Copies of operands into the order in which the micro-kernel reads them: k after k, a tile or panel wide.

Each function is written once per module, with sizes and strides as run-time arguments. Halves are widened to float32.
A slot is the `width` packed elements of one k. Stores are whole vectors and may run past their slot into the next one,
which is written later; the very last one runs past the end, where there has to be room for it.
"""

from collections.abc import Callable

from chainrule import dtypes
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index
from chainrule.engines.native.values import Value, Vectors

SIZES = ["ptr from", "i64 stride", "i64 depth", "ptr to", "i64 width", "i64 count"]


class Packer:
    """Writes calls of packing functions into `f`."""

    def __init__(self, f: Function, host: Host, dtype: dtypes.DType, lanes: int) -> None:
        self.f, self.host, self.dtype, self.lanes = f, host, dtype, lanes
        self.wide = dtypes.float32 if dtype in dtypes.HALVES else dtype

    def rows(self, source: str, stride: Index, depth: Index, to: str, width: Index, count: Index) -> None:
        """to[k · width + j] = source[k · stride + j] for j < count; up to a whole vector it is filled with zeros."""
        self._call("copy", _copy, source, stride, depth, to, width, count)

    def columns(self, source: str, stride: Index, depth: Index, to: str, width: Index, count: Index) -> None:
        """to[k · width + j] = source[j · stride + k] for j < count."""
        self._call("transpose", _transpose, source, stride, depth, to, width, count)

    def clear(self, depth: int, to: str, width: int, count: int) -> None:
        """Zeros behind the first `count` elements of each slot."""
        f, m = self.f, Vectors(self.f, self.lanes, self.host)
        whole, rest = count // self.lanes * self.lanes, count % self.lanes
        with f.loop(0, depth) as k:
            slot = f.address(to, f.mul(k.counter, width), SCALARS[self.wide])
            kept = m.load(slot, whole, self.wide)
            m.store(m.select_lanes(rest, kept, m.constant(0, self.wide)), slot, whole)

    def _call(self, kind: str, write: "Write", *arguments: Index) -> None:
        memo = self.f.module.memo
        key = ("contraction", kind, self.dtype, self.lanes)
        if key not in memo:
            memo[key] = f"{kind}.{self.dtype.name}.{self.lanes}"
            function = Function(self.f.module, memo[key], SIZES)
            write(function, Vectors(function, self.lanes, self.host), self.dtype, self.wide)
        types = [parameter.split()[0] for parameter in SIZES]
        self.f.call(memo[key], *zip(types, arguments, strict=True))


Write = Callable[[Function, Vectors, dtypes.DType, dtypes.DType], None]


def _load(m: Vectors, pointer: str, index: Index, dtype: dtypes.DType, wide: dtypes.DType, mask: str | None) -> Value:
    return m.value(m.load(pointer, index, dtype, mask).x, wide)


def _copy(f: Function, m: Vectors, dtype: dtypes.DType, wide: dtypes.DType) -> None:
    source, stride, depth, to, width, count = f.parameters
    lanes = m.lanes
    whole = f.mul(f.div(count, lanes), lanes)
    rest = f.sub(count, whole)
    short = f.op(f"trunc i64 {rest} to i32")
    mask = (m.lane_numbers(0, dtypes.int32) < m.splat_of(short, dtypes.int32)).x
    narrow = f.compare("sgt", rest, 0)
    with f.loop(0, depth) as k:
        start = f.address(source, f.mul(k.counter, stride), SCALARS[dtype])
        slot = f.address(to, f.mul(k.counter, width), SCALARS[wide])
        with f.loop(0, whole, lanes) as j:
            m.store(_load(m, start, j.counter, dtype, wide, None), slot, j.counter)
        with f.when(narrow):
            m.store(_load(m, start, whole, dtype, wide, mask), slot, whole)
    f.ret()


def _transpose(f: Function, m: Vectors, dtype: dtypes.DType, wide: dtypes.DType) -> None:
    """Squares of 4 × 4 (or fewer, if a vector is shorter); the last of a row of squares overlaps its neighbour.

    The last rows go first: where they are no whole square, stores run into the next slot, which the first rows then
    overwrite; where there is one row of squares only, k rises. What is shallower than a square goes element by element.
    """
    source, stride, depth, to, width, count = f.parameters
    side = min(m.lanes, 4)
    few, one = Vectors(f, side, m.host), Vectors(f, 1, m.host)
    narrow, wider = SCALARS[dtype], SCALARS[wide]
    groups = f.div(f.add(count, side - 1), side)
    final = f.sub(depth, side)
    with f.when(f.compare("sge", depth, side)), f.loop(0, groups) as group:
        first = f.mul(f.sub(f.sub(groups, 1), group.counter), side)
        numbers = [f.min(f.add(first, i), f.sub(count, 1)) for i in range(side)]
        rows = [f.address(source, f.mul(number, stride), narrow) for number in numbers]
        with f.loop(0, depth, side) as loop:
            k = f.min(loop.counter, final)
            slot = f.address(to, f.add(f.mul(k, width), first), wider)
            for column in _transposed([_load(few, row, k, dtype, wide, None) for row in rows]):
                few.store(column, slot, 0)
                slot = f.address(slot, width, wider)
    with f.when(f.compare("slt", depth, side)), f.loop(0, depth) as loop, f.loop(0, count) as row:
        at = f.address(source, f.add(f.mul(row.counter, stride), loop.counter), narrow)
        slot = f.address(to, f.mul(loop.counter, width), wider)
        one.store(_load(one, at, 0, dtype, wide, None), slot, row.counter)
    f.ret()


def _transposed(rows: list[Value]) -> list[Value]:
    """The columns of a square of 1, 2 or 4 rows."""
    if len(rows) == 1:
        return rows
    if len(rows) == 2:
        return _interleave(rows[0], rows[1], 1)
    (a, b), (c, d) = _interleave(rows[0], rows[1], 1), _interleave(rows[2], rows[3], 1)
    return [*_interleave(a, c, 2), *_interleave(b, d, 2)]


def _interleave(a: Value, b: Value, unit: int) -> list[Value]:
    """Units of the lower halves of a and b in turn, and of the upper halves."""
    m, lanes = a.m, a.m.lanes
    halves = []
    for half in (0, lanes // 2):
        picked: list[int] = []
        for at in range(half, half + lanes // 2, unit):
            picked += [*range(at, at + unit), *range(lanes + at, lanes + at + unit)]
        order = ", ".join(f"i32 {n}" for n in picked)
        x = m.f.op(f"shufflevector {a.type} {a.x}, {b.type} {b.x}, <{lanes} x i32> <{order}>")
        halves.append(m.value(x, a.dtype))
    return halves
