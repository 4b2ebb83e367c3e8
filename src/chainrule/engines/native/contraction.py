"""Contractions: C[b, i, j] = epilogue(Σ over k of A[b, i, k] · B[b, k, j]), as one function per contraction.

    contraction = Contraction(rows=32, columns=128, depth=784, a_row=784, b_depth=128, c_row=128)   # tiles.py
    plan = choose(contraction, host)                                                                # tile_plans.py
    emit(module, "forward_1", plan, host, Bias(...))                                                # this file

writes `void @forward_1(ptr %a, ptr %b, ptr %c, ptr %arena, ptr %table, ptr %scratch, i64 %thread, i64 %threads)`.
Each thread calls it with its number; it computes its units of `plan.division`, and needs `plan.scratch_bytes` of
memory of its own at %scratch, aligned to 64 bytes. There is no barrier inside. No element of C depends on the plan
or the threads: each is the sum in the order k = 0, 1, …, by fused multiply-add, starting from zero.

An epilogue (see `Epilogue` in microkernel.py) takes the accumulators while they are in registers:

    class Bias:
        key = ("bias", offset)              # equal keys mean equal code
        touches = ()                        # buffers of C's layout that it meets: Touch("arena", bytes, itemsize), ...
        def begin(self, tile):              # once per micro-kernel, before the first vector
            bias = tile.f.address(tile.arena, self.offset, "i8")
            at = tile.f.address(bias, tile.column, "float")
            self.bias = [tile.m.load(at, j * tile.m.lanes, dtypes.float32, tile.mask(j)) for j in range(tile.vectors)]
        def emit(self, tile, r, j, accumulator, mask):      # once per vector of lanes: row r, vector j of the tile
            value = accumulator + self.bias[j]
            tile.m.store(value, tile.corner(tile.c, value.dtype), tile.displacement(r, j), mask)

`tile` has f (Function), m (Vectors), rows, vectors, pointers c (the start of C), arena, table; the i64 values batch,
row, column (logical position of its first element) and element (its offset in elements from the start of C);
displacement(r, j), the constant offset in elements of vector (r, j) from the first element; corner(pointer, dtype), the
address of the first element in another buffer of C's layout that starts at `pointer`; mask(j), the valid columns of
vector j (None: all). `mask` in emit says which lanes may be read and written in buffers of C's layout: the same where C
lies in plain rows; None where it lies in panels, since padding is written too (mask(j) leaves it out, and may be 0).
There the accumulators of padding are 0, so an epilogue that maps zeros to zero keeps the padding zero.
The accumulator has the dtype of the contraction; float16 and bfloat16 are already rounded (once).
"""

from collections.abc import Callable

from chainrule.engines.native.division import Batches, Columns, Rows
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.microkernel import Epilogue, Shape, Store, Tile, Touch, microkernel
from chainrule.engines.native.packing import Packer
from chainrule.engines.native.tile_plans import candidates, choose
from chainrule.engines.native.tiles import Contraction, Plan, Window
from chainrule.engines.native.window_rows import set_out

__all__ = ["Contraction", "Epilogue", "Plan", "Store", "Tile", "Touch", "candidates", "choose", "emit"]

AT_ONCE = 16
"""Steps of k that are packed for all tiles, before the next ones are."""
PARAMETERS = ["ptr a", "ptr b", "ptr c", "ptr arena", "ptr table", "ptr scratch", "i64 thread", "i64 threads"]


def emit(
    module: Module, name: str, plan: Plan, host: Host, epilogue: Epilogue | None = None, internal: bool = True
) -> None:
    """Write the function `name` of a contraction into `module`. Without an epilogue the product is stored."""
    f = Function(module, name, PARAMETERS, internal=internal)
    if not plan.contraction.empty:
        _Driver(f, plan, host, epilogue or Store()).batches()
    f.ret()


class _Driver:
    """The loops around the micro-kernel: batches, blocks of depth, blocks of rows, panels of columns, tiles."""

    def __init__(self, f: Function, plan: Plan, host: Host, epilogue: Epilogue) -> None:
        self.f, self.plan, self.host, self.epilogue = f, plan, host, epilogue
        self.c = plan.contraction
        _, _, _, _, _, scratch, thread, threads = f.parameters
        self.packer = Packer(f, host, self.c.dtype, plan.lanes)
        self.name, self.packed = SCALARS[self.c.dtype], SCALARS[self.c.in_registers]
        self.packed_b, self.packed_a = scratch, f.address(scratch, plan.scratch_b, "i8")
        self.sums = f.address(scratch, plan.scratch_sums, "i8") if plan.sums else f.parameters[2]
        units = plan.division.count
        lo, hi = f.slice(units, thread, threads)
        self.matrices = (lo, hi) if isinstance(plan.division, Batches) else (0, self.c.batch)
        self.panels = (lo, hi) if isinstance(plan.division, Columns) else (0, plan.panels)
        self.tiles = (lo, hi) if isinstance(plan.division, Rows) else (0, plan.tiles.count)
        self.batch: Index = 0
        self.a, self.b, self.element = f.parameters[0], f.parameters[1], 0

    # -- the loops, from the outermost in

    def batches(self) -> None:
        """Each matrix of this thread."""
        f, c = self.f, self.c
        if self.c.batch == 1:
            return self._depths()
        a, b = self.a, self.b
        with f.loop(*self.matrices) as loop:
            self.batch = loop.counter
            self.a, self.b = (
                f.address(
                    operand,
                    f.mul(self.batch, axes) if isinstance(axes, int) else f.element(axes, self.batch),
                    self.name,
                )
                for operand, axes in ((a, c.a_batch), (b, c.b_batch))
            )
            self._depths()

    def _depths(self) -> None:
        """Blocks of depth: the first begins the sums, the last ends them."""
        count, length, rest = self.plan.blocks
        self._rows(0, rest if count == 1 else length, True, count == 1)
        if count > 2:
            with self.f.loop(1, count - 1) as loop:
                self._rows(self.f.mul(loop.counter, length), length, False, False)
        if count > 1:
            self._rows((count - 1) * length, rest, False, True)

    def _rows(self, k: Index, depth: int, first: bool, last: bool) -> None:
        """Blocks of rows, of so many tiles that a block of A stays in the cache."""
        step = self.plan.tiles_in_block
        block = _Block(self, k, depth, first, last)
        if self.plan.tiles.count <= step:
            block.write(*self.tiles)
        else:
            lo, hi = self.tiles
            with self.f.loop(lo, hi, step) as loop:
                block.write(loop.counter, self.f.min(self.f.add(loop.counter, step), hi))


class _Block:
    """A block of depth from `k` on, and in it a block of rows."""

    def __init__(self, driver: _Driver, k: Index, depth: int, first: bool, last: bool) -> None:
        self.d, self.f, self.plan, self.c = driver, driver.f, driver.plan, driver.c
        self.k, self.depth, self.first, self.last = k, depth, first, last
        self.lo: Index = 0  # the first tile of the block
        self.start: Index = 0  # its first row

    def write(self, lo: Index, hi: Index) -> None:
        """The tiles [lo, hi): pack them, then panel after panel."""
        f, plan = self.f, self.plan
        self.lo, self.start = lo, self._row(lo)
        if self.c.window is not None:
            self._set_out(self.c.window, hi)
        elif plan.pack_a:
            self._pack_a(lo, hi)
        # Panels that are full go in a loop; those at the end which are narrower or hold padding are written apart.
        whole = self.c.span // plan.width
        first, end = self.d.panels
        if whole and not (isinstance(first, int) and first >= whole):
            with f.loop(first, end if isinstance(end, str) and whole == plan.panels else f.min(end, whole)) as panel:
                self._panel(panel.counter, plan.vectors, plan.width, lo, hi)
        for number in range(whole, plan.panels):
            valid = max(0, self.c.span - number * plan.width)
            vectors = plan.vectors if self.c.c_panel else -(-valid // plan.lanes)
            if isinstance(first, int):
                self._panel(number, vectors, valid, lo, hi)
            else:
                mine = f.op(f"and i1 {f.compare('sle', first, number)}, {f.compare('sgt', end, number)}")
                with f.when(mine):
                    self._panel(number, vectors, valid, lo, hi)

    def _panel(self, panel: Index, vectors: int, valid: int, lo: Index, hi: Index) -> None:
        """All tiles of one panel, whose first `valid` columns are columns of C."""
        f, plan = self.f, self.plan
        column = f.mul(panel, plan.width)
        b, b_depth = self._operand_b(column, valid)
        read_all = plan.pack_b or bool(self.c.b_panel)
        element = self._element_of_panel(column)
        c_row = self.c.c_panel or self.c.c_row

        def tile(number: Index, row: Index, rows: int) -> None:
            a, a_row, a_depth = self._operand_a(number, row, rows)
            shape = Shape(
                self.c.dtype, self.c.in_registers, plan.lanes, rows, vectors, valid, read_all, bool(self.c.c_panel),
                self.depth if valid else 0, a_row, a_depth, b_depth, c_row, self.first, self.last, self.c.gates,
                self.c.span,
            )  # fmt: skip
            _, _, c, arena, table, *_ = f.parameters
            pointers = [("ptr", pointer) for pointer in (a, b, c, self.d.sums, arena, table)]
            numbers = [("i64", i) for i in (self.d.batch, row, column, f.add(element, f.mul(row, c_row)))]
            f.call(microkernel(f.module, self.d.host, shape, self.d.epilogue), *pointers, *numbers)

        self._each_tile(lo, hi, tile)

    def _each_tile(self, lo: Index, hi: Index, write: Callable[[Index, Index, int], None]) -> None:
        """Call write(tile, row, rows) in loops over the taller and over the lower tiles."""
        f, tiles = self.f, self.plan.tiles
        for first, end, rows in ((0, tiles.larger, tiles.size + 1), (tiles.larger, tiles.count, tiles.size)):
            begin, stop = f.max(lo, first), f.min(hi, end)
            if first == end or (isinstance(begin, int) and isinstance(stop, int) and begin >= stop):
                continue
            with f.loop(begin, stop) as loop:
                write(loop.counter, self._row(loop.counter), rows)

    # -- where things lie

    def _row(self, tile: Index) -> Index:
        return self.plan.tiles.first(self.f, tile)

    def _element_of_panel(self, column: Index) -> Index:
        """The offset in C of the element (batch, 0, column)."""
        f, c = self.f, self.c
        offset = f.mul(self.d.batch, c.c_batch)
        if not c.c_panel:
            return f.add(offset, column)
        return f.add(offset, self._in_panels(column, c.c_panel, c.rows))

    def _in_panels(self, column: Index, width: int, rows: int) -> Index:
        """The offset of (0, column) in a matrix of so many rows that lies in panels."""
        f = self.f
        if width == self.plan.width:
            return f.mul(column, rows)
        return f.add(f.mul(f.div(column, width), rows * width), f.rem(column, width))

    def _operand_a(self, tile: Index, row: Index, rows: int) -> tuple[str, int, int]:
        """The address of A[row, k], where a tile begins, the stride of rows and of depth."""
        f, c = self.f, self.c
        if c.window is not None:
            windows, element = (0, row) if c.by_places else (f.sub(row, self.start), 0)
            offset = f.add(f.mul(windows, c.window.row), element)
            at = f.address(self.d.packed_a, offset, self.d.packed)
            return (at, 1, c.window.row) if c.by_places else (at, c.window.row, 1)
        if self.plan.pack_a:
            slack = f.mul(f.sub(tile, self.lo), self.plan.lanes)  # what is stored past the end of a tile goes there
            offset = f.add(f.mul(f.sub(row, self.start), self.depth), slack)
            return f.address(self.d.packed_a, offset, self.d.packed), 1, rows
        return self._element_of_a(row), c.a_row, c.a_depth

    def _element_of_a(self, row: Index) -> str:
        f, c = self.f, self.c
        return f.address(self.d.a, f.add(f.mul(row, c.a_row), f.mul(self.k, c.a_depth)), self.d.name)

    def _set_out(self, window: Window, hi: Index) -> None:
        """The windows of this block: their elements in rows, one after the other."""
        f, end = self.f, self._row(hi)
        before = f.mul(self.d.batch, self.c.depth if self.c.by_places else self.c.rows) if window.parts > 1 else 0
        places, count, elements = (
            (f.add(before, self.k), self.depth, (self.start, end))
            if self.c.by_places
            else (f.add(before, self.start), f.sub(end, self.start), None)
        )
        set_out(f, self.d.host, self.c.dtype, window, self.d.a, places, count, self.d.packed_a, elements)

    def _pack_a(self, lo: Index, hi: Index) -> None:
        """The tiles [lo, hi) of A. Where a row of theirs is a part of a line, a few steps of k for all of them, before
        the next few: lines come one after the other, and are used whole before they are gone."""
        f, c, packer = self.f, self.c, self.d.packer

        def part(k: Index, depth: Index) -> None:
            def tile(number: Index, row: Index, rows: int) -> None:
                to = f.address(self._operand_a(number, row, rows)[0], f.mul(k, rows), self.d.packed)
                if c.a_by_row:
                    source = f.address(self._element_of_a(row), f.mul(k, c.a_depth), self.d.name)
                    packer.rows(source, c.a_depth, depth, to, rows, rows)
                else:
                    packer.columns(self._element_of_a(row), c.a_row, depth, to, rows, rows)

            self._each_tile(lo, hi, tile)

        if c.a_by_row and self.depth > AT_ONCE:
            with f.loop(0, self.depth, AT_ONCE) as loop:
                part(loop.counter, f.min(AT_ONCE, f.sub(self.depth, loop.counter)))
        else:
            part(0, self.depth)

    def _operand_b(self, column: Index, valid: int) -> tuple[str, int]:
        """The address of B[k, column], packed if it is to be, and the stride of depth."""
        f, c, d = self.f, self.c, self.d
        width = -(-valid // self.plan.lanes) * self.plan.lanes
        something = valid > 0 and self.depth > 0
        if not c.b_straight:
            if something:
                self._transpose_b(column, width, valid)
            if something and valid % self.plan.lanes and c.c_panel:  # the padding of B is to be 0, for that of C to be
                d.packer.clear(self.depth, d.packed_b, width, valid)
            return d.packed_b, width
        if c.b_panel:
            stride, offset = c.b_panel * c.gates, self._in_panels(column, c.b_panel, c.depth * c.gates)
        else:
            stride, offset = c.b_depth, column
        source = f.address(d.b, f.add(f.mul(self.k, stride), offset), d.name)
        if not self.plan.pack_b:
            return source, stride
        slot, apart = c.gates * width, c.b_panel or c.span
        for gate in range(c.gates if something else 0):
            part, to = f.address(source, gate * apart, d.name), f.address(d.packed_b, gate * width, d.packed)
            d.packer.rows(part, stride, self.depth, to, slot, valid)
        return d.packed_b, slot

    def _transpose_b(self, column: Index, width: int, valid: int) -> None:
        f, c, d = self.f, self.c, self.d
        if not c.b_panel:
            source = f.address(d.b, f.add(f.mul(column, c.b_column), self.k), d.name)
            d.packer.columns(source, c.b_column, self.depth, d.packed_b, width, valid)
            return
        # B's own panels run along the depth: one after the other, the last of them perhaps narrower.
        panel = c.b_panel
        whole, rest = divmod(self.depth, panel)
        start = f.address(d.b, f.add(f.mul(self.k, c.columns), f.mul(column, panel)), d.name)

        def part(number: Index, depth: int) -> None:
            source = f.address(start, f.mul(number, c.columns * panel), d.name)
            to = f.address(d.packed_b, f.mul(number, panel * width), d.packed)
            d.packer.columns(source, panel, depth, to, width, valid)

        if whole:
            with f.loop(0, whole) as loop:
                part(loop.counter, panel)
        if rest:
            part(whole, rest)
