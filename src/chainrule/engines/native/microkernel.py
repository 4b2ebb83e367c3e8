"""The micro-kernel: one tile of C, held in registers while k runs; then the epilogue."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from chainrule import dtypes
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.tiles import LINE, UNROLL
from chainrule.engines.native.values import Mask, Value, Vectors


class Touch(NamedTuple):
    """A buffer of C's layout that an epilogue meets: C itself, in the arena, or where a pointer of the table leads.

    `of_gate`: it is as wide as one gate.
    """

    base: Literal["c", "arena", "table"]
    offset: int  # in bytes, of the buffer or of the pointer
    itemsize: int
    of_gate: bool = False

    def start(self, f: Function, c: str, arena: str, table: str) -> str:
        """Its address."""
        if self.base == "table":
            return f.load("ptr", f.address(table, self.offset, "i8"), 8)
        return f.address(c if self.base == "c" else arena, self.offset, "i8")


class Epilogue(Protocol):
    """What is done with the elements of a tile. The head of contraction.py shows one."""

    @property
    def key(self) -> Hashable:
        """Equal keys mean equal code."""

    @property
    def touches(self) -> Sequence[Touch]:
        """What is to be fetched into the cache while k runs."""

    def begin(self, tile: "Tile") -> None:
        """Called once per micro-kernel, before the first vector."""

    def emit(self, tile: "Tile", r: int, j: int, accumulator: Value, mask: Mask) -> None:
        """Called for each vector j of each row r of the tile."""


class Store:
    """The epilogue that stores the product."""

    key: Hashable = "store"
    touches: Sequence[Touch] = ()

    def begin(self, tile: "Tile") -> None:
        """Nothing to prepare."""

    def emit(self, tile: "Tile", r: int, j: int, accumulator: Value, mask: Mask) -> None:
        """C = the accumulator."""
        tile.m.store(accumulator, tile.corner(tile.c, accumulator.dtype), tile.displacement(r, j), mask)


@dataclass(frozen=True)
class Shape:
    """What a micro-kernel is made for: equal shapes and epilogues share one function. Strides in elements.

    The columns from `valid` on are padding, which C holds only when it lies in panels (`padded`); `read_all`: vectors
    of B may be read as a whole, since B is packed or in panels.
    """

    dtype: dtypes.DType
    operands: dtypes.DType
    lanes: int
    rows: int
    vectors: int
    valid: int
    read_all: bool
    padded: bool
    depth: int
    a_row: int
    a_depth: int
    b_depth: int
    c_row: int
    first: bool
    last: bool
    gates: int = 1
    span: int = 0


class Tile:
    """What an epilogue sees of the tile that is being written.

    Its vectors are those of the first gate, then those of the second, and so on.
    """

    batch: Index
    row: Index
    column: Index
    element: Index

    def __init__(self, f: Function, m: Vectors, shape: Shape) -> None:
        self.f, self.m, self.shape = f, m, shape
        self.rows, self.vectors = shape.rows, shape.vectors * shape.gates
        _, _, c, self.sums, self.arena, self.table, self.batch, self.row, self.column, self.element = f.parameters
        self.c = c if shape.last else self.sums
        self._corners: dict[tuple[str, int], str] = {}

    def displacement(self, r: int, j: int) -> int:
        """Where vector j of row r begins, in elements from the tile's first element."""
        return r * self.shape.c_row + self.beside(j)

    def beside(self, j: int) -> int:
        """How many columns vector j lies right of the first one."""
        gate, j = divmod(j, self.shape.vectors)
        return gate * self.shape.span + j * self.m.lanes

    def below(self, r: int) -> int:
        """How many rows of C row r lies below the first."""
        return r

    def mask(self, j: int) -> int | None:
        """How many columns of vector j are columns of C; None: all."""
        valid = self.shape.valid - j % self.shape.vectors * self.m.lanes
        return None if valid >= self.m.lanes else max(valid, 0)

    def stored(self, j: int) -> int | None:
        """How many lanes of vector j may be read and written in buffers of C's layout; None: all."""
        return None if self.shape.padded else self.mask(j)

    def corner(self, pointer: str, dtype: dtypes.DType) -> str:
        """The address of the tile's first element in the buffer of C's layout that starts at `pointer`."""
        key = pointer, dtype.itemsize
        if key not in self._corners:
            self._corners[key] = self.f.address(pointer, self.element, SCALARS[dtype])
        return self._corners[key]

    def corner_of_gate(self, pointer: str, dtype: dtypes.DType) -> str:
        """The same in a buffer of one gate."""
        return self.f.address(pointer, self.element_of_gate(), SCALARS[dtype])

    def element_of_gate(self) -> Index:
        """The offset of the tile's first element in a buffer of one gate."""
        return self.f.add(self.f.mul(self.row, self.shape.span), self.column)


PARAMETERS = [
    "ptr a", "ptr b", "ptr c", "ptr sums", "ptr arena", "ptr table", "i64 batch", "i64 row", "i64 column",
    "i64 element",
]  # fmt: skip


def microkernel(module: Module, host: Host, shape: Shape, epilogue: Epilogue) -> str:
    """The name of a function void(PARAMETERS): a and b point to the operands of the tile's first element.

    `sums` is where the sums lie while they grow, a block of depth after the other: C, or a buffer of its layout.
    """
    touches = tuple(epilogue.touches) if shape.last else ()
    key = ("microkernel", shape, (epilogue.key, touches) if shape.last else None)
    if key not in module.memo:
        name = f"tile{len(module.memo)}.{shape.rows}x{shape.vectors}"
        module.memo[key] = name
        f = Function(module, name, PARAMETERS)
        tile = Tile(f, Vectors(f, shape.lanes, host), shape)
        accumulators = _Body(tile).run(touches)
        _finish(tile, accumulators, epilogue if shape.last else Store())
        f.ret()
    return module.memo[key]


def _finish(tile: Tile, accumulators: list[list[Value]], epilogue: Epilogue) -> None:
    epilogue.begin(tile)
    for r, row in enumerate(accumulators):
        for j, accumulator in enumerate(row):
            if accumulator.dtype != tile.shape.dtype:  # a half: rounded here, once
                accumulator = tile.m.astype(accumulator, tile.shape.dtype)
            epilogue.emit(tile, r, j, accumulator, tile.stored(j))


class _Body:
    """The sum over k."""

    def __init__(self, tile: Tile) -> None:
        self.tile, self.f, self.m, self.shape = tile, tile.f, tile.m, tile.shape
        shape = tile.shape
        # Vectors that hold nothing but padding are zero without work.
        self.live = min(shape.vectors, -(-shape.valid // shape.lanes)) * shape.gates
        self.name = SCALARS[shape.operands]
        self.a, self.b = self.f.parameters[:2]

    def run(self, touches: Sequence[Touch]) -> list[list[Value]]:
        """All steps of k; the accumulators, a list per row."""
        shape, m = self.shape, self.m
        zero = m.constant(0, shape.operands)
        if shape.first:
            sums = [zero] * (shape.rows * self.live)
        else:
            corner = self.tile.corner(self.tile.sums, shape.dtype)
            sums = [
                m.load(corner, self.tile.displacement(r, j), shape.dtype, self.tile.stored(j))
                for r in range(shape.rows) for j in range(self.live)
            ]  # fmt: skip
        looped = shape.depth // UNROLL * UNROLL
        if looped <= UNROLL:
            looped = 0
        if looped:
            sums = self._prefetching(looped, sums, touches) if touches else self._loop(0, looped, sums)
        a, b = self._at(looped)
        for k in range(shape.depth - looped):
            sums = self._step(a, b, k, sums)
        padding = [zero] * (self.tile.vectors - self.live)
        return [sums[r * self.live : (r + 1) * self.live] + padding for r in range(shape.rows)]

    def _at(self, k: Index) -> tuple[str, str]:
        f, shape = self.f, self.shape
        a, b = f.mul(k, shape.a_depth), f.mul(k, shape.b_depth)
        return f.address(self.a, a, self.name), f.address(self.b, b, self.name)

    def _step(self, a: str, b: str, k: int, sums: list[Value]) -> list[Value]:
        """One k: a vector of B times each element of the column of A."""
        m, shape, lanes = self.m, self.shape, self.m.lanes
        places = [(j * lanes, None) if shape.read_all else (self.tile.beside(j), self.tile.mask(j))
                  for j in range(self.live)]  # fmt: skip
        row = [m.load(b, k * shape.b_depth + at, shape.operands, mask) for at, mask in places]
        out = []
        for r in range(shape.rows):
            element = m.load_splat(a, r * shape.a_row + k * shape.a_depth, shape.operands)
            out += [self._accumulate(element, row[j], sums[r * self.live + j]) for j in range(self.live)]
        return out

    def _accumulate(self, a: Value, b: Value, total: Value) -> Value:
        return self.m.fma(a, b, total) if dtypes.is_float(total.dtype) else a * b + total

    def _loop(self, lo: Index, hi: Index, sums: list[Value]) -> list[Value]:
        m = self.m
        with self.f.loop(lo, hi, UNROLL, [(s.type, s.x) for s in sums]) as loop:
            sums = [m.value(x, s.dtype) for x, s in zip(loop.carried, sums, strict=True)]
            a, b = self._at(loop.counter)
            for k in range(UNROLL):
                sums = self._step(a, b, k, sums)
            loop.next = [s.x for s in sums]
        return [m.value(x, s.dtype) for x, s in zip(loop.out, sums, strict=True)]

    def _prefetching(self, depth: int, sums: list[Value], touches: Sequence[Touch]) -> list[Value]:
        """The same in portions, each of which first asks for the next rows of `touches`.

        Spread like this, memory works while the multiplications go on.
        """
        f, m, rows = self.f, self.m, self.shape.rows
        turns = depth // UNROLL
        together = -(-rows // turns)  # rows fetched at a time
        portions = -(-rows // together)
        portion = -(-turns // portions) * UNROLL
        starts = [self._start(touch) for touch in touches]
        with f.loop(0, portions, 1, [(s.type, s.x) for s in sums]) as loop:
            for number in range(together):
                row = f.min(f.add(f.mul(loop.counter, together), number), rows - 1)
                for touch, start in zip(touches, starts, strict=True):
                    self._prefetch(start, row, touch)
            lo = f.mul(loop.counter, portion)
            inner = [m.value(x, s.dtype) for x, s in zip(loop.carried, sums, strict=True)]
            inner = self._loop(lo, f.min(f.add(lo, portion), depth), inner)
            loop.next = [s.x for s in inner]
        return [m.value(x, s.dtype) for x, s in zip(loop.out, sums, strict=True)]

    def _start(self, touch: Touch) -> str:
        """The address of the tile's first element in another buffer."""
        f, tile = self.f, self.tile
        start = touch.start(f, tile.c, tile.arena, tile.table)
        element = tile.element_of_gate() if touch.of_gate else tile.element
        return f.address(start, f.mul(element, touch.itemsize), "i8")

    def _prefetch(self, start: str, row: Index, touch: Touch) -> None:
        f, shape = self.f, self.shape
        width = min(shape.valid, shape.vectors * shape.lanes) if not shape.padded else shape.vectors * shape.lanes
        at = f.address(start, f.mul(row, (shape.span if touch.of_gate else shape.c_row) * touch.itemsize), "i8")
        for gate in range(1 if touch.of_gate else shape.gates):
            first = gate * shape.span * touch.itemsize
            for byte in range(first, first + width * touch.itemsize, LINE):
                f.prefetch(f.address(at, byte, "i8"), to_write=True)
