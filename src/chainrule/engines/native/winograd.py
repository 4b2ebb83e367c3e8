"""Convolutions by Winograd's transforms: blocks of tiles, transformed, multiplied and transformed back in the cache.

    forward         for each block of tiles: patches to scratch, α² products with the transformed kernel, results
    gradient        for each block of tiles: patches of x and of dY to scratch, α² products added to the result
    of kernels      to and from their transforms, element by element

Threads share the tiles of a forward pass. The gradient is a few sums, each over a part of the tiles, which the
transform of the kernel adds up; threads share these parts, and rows (channels of x) of them, and each goes through the
tiles of a part in order. So no element depends on blocks or threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from chainrule.engines.native.division import Parts
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Epilogue, Shape, Store, microkernel
from chainrule.engines.native.packing import Packer
from chainrule.engines.native.tiles import Contraction, choose
from chainrule.engines.native.values import Value
from chainrule.engines.native.winograd_tiles import (
    FLOAT,
    KIND,
    Cut,
    Slabs,
    both_sides,
    each_vector,
    give,
    split,
    take,
)  # fmt: skip
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.winograd import (
    TRANSFORMS,
    WINOGRAD,
    Matrix,
    tiles_over,
    transposed,
    winograd_convolution,
    winograd_gradient,
    winograd_kernel,
)  # fmt: skip

CACHE_SHARE = 2
"""A block of tiles may take one part in so many of the second cache;"""
FEWEST_TILES = 96
"""but it has so many tiles, where there are as many: the kernel, which comes from a far cache, is to be used often."""


def node_of(grouping: Grouping, kernel: Kernel) -> int | None:
    """The node of a kernel that is written here."""
    return next((n for n in kernel.nodes if grouping.nodes[n].primitive in WINOGRAD), None)


Panel = Callable[[Index, int, int], None]  # (first column, vectors, columns that count)
PRODUCTS = (winograd_convolution, winograd_gradient)


@dataclass(frozen=True)
class Blocks:
    """How a pass over tiles is computed: register tiles of so many rows and vectors, blocks of tiles."""

    tile: int
    tiles: int
    image: Cut
    other: Cut | None  # of dY
    taken: Slabs
    made: Slabs  # products; of a gradient the patches of dY
    rows: int
    vectors: int
    pack: bool
    parts: int = 1  # of a gradient: sums over so many tiles each
    part: int = 0

    @property
    def alpha(self) -> int:
        """The side of a patch."""
        return self.tile + 2

    @property
    def lanes(self) -> int:
        """Channels of a vector."""
        return self.made.lanes

    @property
    def units(self) -> Parts:
        """What threads share: register tiles, of a gradient those of all parts."""
        return Parts(self.parts * self.heights)

    @property
    def heights(self) -> int:
        """Register tiles, one below the other."""
        return -(-(self.tiles if self.other is None else self.taken.channels) // self.rows)

    @property
    def block(self) -> int:
        """Tiles of a block."""
        return self.made.tiles

    @property
    def offsets(self) -> tuple[int, int, int, int]:
        """Where in scratch the slabs, a packed panel and zeros begin, in bytes, and where all ends."""
        packed = self.taken.nbytes + self.made.nbytes
        zeros = packed + self.pack * self.taken.channels * self.vectors * self.lanes * 4
        return self.taken.nbytes, packed, zeros, zeros + max(self.taken.row, self.made.row) * 4


def blocks_of(grouping: Grouping, n: int, host: Host) -> Blocks:
    """The sizes for a forward pass or a gradient."""
    node = grouping.nodes[n]
    x, other = (grouping.nodes[i] for i in node.inputs)
    batch, *space, channels = x.shape
    tile, lanes, out = node.attributes["tile"], host.lanes(4), node.shape[-1]
    backward = node.primitive is winograd_gradient
    places = other.shape[1:3] if backward else node.attributes["places"]
    counts = tiles_over(places, tile)
    tiles, alpha = batch * prod(counts), tile + 2
    parts = node.attributes["parts"] if backward else 1
    part = -(-tiles // parts)
    together = max(host.l2_bytes // CACHE_SHARE // (4 * alpha**2 * (channels + out)), FEWEST_TILES)
    even = -(-part // -(-part // together))  # blocks of nearly equal length
    one = Slabs(alpha**2, 1, channels, lanes).row, Slabs(alpha**2, 1, out, lanes).row
    if backward:
        product = Contraction(channels, out, even, a_row=1, a_depth=one[0], b_depth=one[1], c_row=out)
    else:
        product = Contraction(tiles, out, channels, a_row=one[0], b_depth=out, c_row=one[1])
    found = choose(product, host, True)
    block = even if backward else -(-even // found.tile_rows) * found.tile_rows
    image = Cut(tuple(space), channels, alpha, tile, node.attributes["low"], counts)
    given = Cut(places, out, tile, tile, (0, 0), counts) if backward else None
    taken, made = (Slabs(alpha**2, block, c, lanes) for c in (channels, out))
    pack = found.pack_b and not backward
    return Blocks(tile, tiles, image, given, taken, made, found.tile_rows, found.vectors, pack, parts, part)


def adds_up(grouping: Grouping, kernel: Kernel) -> bool:
    """Whether results are added up for each image: then an image belongs to one thread."""
    return any(grouping.reduces(n) for n in kernel.nodes)


def share_of(grouping: Grouping, kernel: Kernel, host: Host) -> Parts:
    """How threads share the work of a kernel."""
    n = node_of(grouping, kernel)
    assert n is not None
    node = grouping.nodes[n]
    if adds_up(grouping, kernel):
        return Parts(node.shape[0])
    if node.primitive in PRODUCTS:
        return blocks_of(grouping, n, host).units
    return Parts(-(-prod(node.shape[-2:]) // host.lanes(4)))


def scratch_bytes(grouping: Grouping, n: int, host: Host) -> int:
    """Memory that each thread needs."""
    return blocks_of(grouping, n, host).offsets[-1] if grouping.nodes[n].primitive in PRODUCTS else 0


def multiplications(grouping: Grouping, n: int) -> int:
    """How many a forward pass or a gradient has in its products."""
    node = grouping.nodes[n]
    x, tile = grouping.nodes[node.inputs[0]].shape, node.attributes["tile"]
    places = grouping.nodes[node.inputs[1]].shape[1:3] if node.primitive is winograd_gradient else node.shape[1:3]
    return (tile + 2) ** 2 * x[0] * prod(tiles_over(places, tile)) * x[-1] * node.shape[-1]


def write(evaluator: Evaluator, name: str, host: Host, epilogue: Epilogue, lo: Index, hi: Index) -> None:
    """The code of a kernel, for the units [lo, hi)."""
    n = node_of(evaluator.grouping, evaluator.kernel)
    assert n is not None
    primitive = evaluator.nodes[n].primitive
    if primitive is winograd_convolution:
        _Forward(evaluator, n, host).write(name, epilogue, lo, hi)
    elif primitive is winograd_gradient:
        _Gradient(evaluator, n, host).write(lo, hi)
    else:
        _kernel(evaluator, n, primitive is winograd_kernel, lo, hi)


def _kernel(evaluator: Evaluator, n: int, to: bool, lo: Index, hi: Index) -> None:
    """G g Gᵀ, or Gᵀ U G where U is a sum of parts, for vectors of neighbouring pairs of channels."""
    f, m, node = evaluator.f, evaluator.m, evaluator.nodes[n]
    matrix: Matrix = TRANSFORMS[node.attributes["tile"]].kernel
    matrix = matrix if to else transposed(matrix)
    x = evaluator.grouping.views[node.inputs[0]].base
    size = prod(node.shape[-2:])
    parts = 1 if to else evaluator.nodes[x].shape[0]

    def vector(c: Index, mask: int | None) -> None:
        source, target = (f.address(evaluator.pointers[i], c, KIND) for i in (x, n))

        def element(a: int, b: int) -> Value:
            at = (a * len(matrix[0]) + b) * size
            found = [m.load(source, at + part * len(matrix[0]) ** 2 * size, FLOAT, mask) for part in range(parts)]
            return sum(found[1:], start=found[0])

        both_sides(
            matrix, matrix, element, lambda a, b, value: m.store(value, target, (a * len(matrix) + b) * size, mask)
        )

    each_vector(f, m.lanes, size, f.mul(lo, m.lanes), f.mul(hi, m.lanes), vector)


class _Tiles:
    """What a forward pass and a gradient have in common."""

    def __init__(self, evaluator: Evaluator, n: int, host: Host) -> None:
        self.e, self.f, self.host = evaluator, evaluator.f, host
        self.n, self.node = n, evaluator.nodes[n]
        self.b = blocks_of(evaluator.grouping, n, host)
        self.pointers = [evaluator.pointers[evaluator.grouping.views[x].base] for x in self.node.inputs]
        self.taken = "%scratch"
        self.made, self.packed, self.zeros = (self.f.address("%scratch", at, "i8") for at in self.b.offsets[:-1])

    def clear_zeros(self) -> None:
        """Make sure that zeros are there."""
        _, _, start, end = self.b.offsets
        self.f.effect("llvm.memset.p0.i64", ("ptr", self.zeros), ("i8", 0), ("i64", end - start), ("i1", "false"))

    def each_panel(self, write: Panel) -> None:
        """write(first column, vectors, columns that count) for each panel of columns."""
        f, b, out = self.f, self.b, self.made_channels
        width = b.vectors * b.lanes
        whole = out // width
        if whole:
            with f.loop(0, whole) as loop:
                write(f.mul(loop.counter, width), b.vectors, width)
        if out % width:
            write(whole * width, -(-(out % width) // b.lanes), out % width)

    @property
    def made_channels(self) -> int:
        """Columns of the products."""
        return self.b.made.channels

    def multiply(self, shape: Shape, a: str, b: str, c: str) -> None:
        """One register tile."""
        pointers = [("ptr", pointer) for pointer in (a, b, c, "%arena", "%table")]
        name = microkernel(self.f.module, self.host, shape, Store())
        self.f.call(name, *pointers, *[("i64", 0)] * 4)

    def transform(self, cut: Cut, matrix: Matrix, slabs: Slabs, x: str, to: str, number: Index, *part: Index) -> None:
        """One patch."""
        name = take(self.f.module, self.host, cut, matrix, slabs, not part)
        lo, hi = part or (0, cut.channels)
        self.f.call(name, ("ptr", x), ("ptr", to), ("ptr", self.zeros), ("i64", number), ("i64", lo), ("i64", hi))


class _Forward(_Tiles):
    """y = the places of Aᵀ [ Σ U · Bᵀ d B ] A, with what follows element by element."""

    def write(self, name: str, epilogue: Epilogue, lo: Index, hi: Index) -> None:
        """The register tiles or images [lo, hi), block by block."""
        f, b = self.f, self.b
        self.clear_zeros()
        self.give = self._results(name, epilogue)
        unit = prod(b.image.counts) if adds_up(self.e.grouping, self.e.kernel) else b.rows
        stop = f.min(f.mul(hi, unit), b.tiles)
        with f.loop(f.mul(lo, unit), stop, b.block) as loop:
            first = loop.counter
            end = f.min(f.add(first, b.block), stop)
            count = f.div(f.add(f.sub(end, first), b.rows - 1), b.rows)
            with f.loop(first, end) as tile:
                to = f.address(self.taken, f.mul(f.sub(tile.counter, first), b.taken.row), KIND)
                patch = TRANSFORMS[b.tile].patch
                self.transform(b.image, patch, b.taken, self.pointers[0], to, tile.counter)
            with f.loop(0, b.alpha**2) as k:
                self._product(k.counter, count)
            with f.loop(first, end) as tile:
                source = f.address(self.made, f.mul(f.sub(tile.counter, first), b.made.row), KIND)
                self._give(tile.counter, source)

    def _product(self, k: Index, count: Index) -> None:
        """V[k] · U[k], for `count` register tiles."""
        f, b = self.f, self.b
        depth, out = b.taken.channels, b.made.channels
        u = f.address(self.pointers[1], f.mul(k, depth * out), KIND)
        packer = Packer(f, self.host, FLOAT, b.lanes)

        def panel(column: Index, vectors: int, valid: int) -> None:
            source, width = f.address(u, column, KIND), vectors * b.lanes
            if b.pack:
                packer.rows(source, out, depth, self.packed, width, valid)
            right = (self.packed, width) if b.pack else (source, out)
            shape = Shape(
                FLOAT, FLOAT, b.lanes, b.rows, vectors, valid, b.pack, True, depth, b.taken.row, 1, right[1],
                b.made.row, True, False,
            )  # fmt: skip
            with f.loop(0, count) as loop:
                row = f.mul(loop.counter, b.rows)
                a = f.add(f.mul(k, b.taken.slab), f.mul(row, b.taken.row))
                c = f.add(f.add(f.mul(k, b.made.slab), f.mul(row, b.made.row)), column)
                self.multiply(shape, f.address(self.taken, a, KIND), right[0], f.address(self.made, c, KIND))

        self.each_panel(panel)

    def _results(self, name: str, epilogue: Epilogue) -> dict[tuple[bool, bool], str]:
        """The functions that write a tile of results: inside, and at the lower and the right border."""
        b, places, kernel = self.b, self.node.attributes["places"], self.e.kernel
        sizes = [(b.tile, p % b.tile or b.tile) for p in places]
        functions: dict[tuple[int, int], str] = {}
        found = {}
        for ends in ((a, c) for a in (False, True) for c in (False, True)):
            valid = sizes[0][ends[0]], sizes[1][ends[1]]
            if valid not in functions:
                matrix = TRANSFORMS[b.tile].result
                functions[valid] = give(
                    self.f.module, self.host, name, matrix, b.made, (kernel.sizes[1], places[1]), valid, epilogue
                )
            found[ends] = functions[valid]
        return found

    def _give(self, number: Index, source: str) -> None:
        f, b, places = self.f, self.b, self.node.attributes["places"]
        batch, i, j = split(f, number, b.image.counts)
        row = f.add(f.mul(f.add(f.mul(batch, places[0]), f.mul(i, b.tile)), places[1]), f.mul(j, b.tile))
        arguments = (("ptr", source), ("ptr", "%arena"), ("ptr", "%table"), ("i64", row))
        if len(set(self.give.values())) == 1:
            f.call(self.give[False, False], *arguments)
            return
        down, across = b.image.counts
        last = [f.compare("eq", at, count - 1) for at, count in ((i, down), (j, across))]
        inverse = [f.op(f"xor i1 {here}, true") for here in last]
        for ends, name in self.give.items():
            chosen = [last[k] if end else inverse[k] for k, end in enumerate(ends)]
            with f.when(f.op(f"and i1 {chosen[0]}, {chosen[1]}")):
                f.call(name, *arguments)


class _Gradient(_Tiles):
    """dU = Σ over the tiles of a part of (Bᵀ d B)ᵀ · (A dY Aᵀ), for rows of dU that belong to this thread."""

    def write(self, lo: Index, hi: Index) -> None:
        """The register tiles [lo, hi), part by part."""
        f, b = self.f, self.b
        size = b.alpha**2 * b.taken.channels * b.made.channels
        with f.when(f.compare("slt", lo, hi)):
            self.clear_zeros()
            end = f.add(f.div(f.sub(hi, 1), b.heights), 1)
            with f.loop(f.div(lo, b.heights), end) as part:
                before = f.mul(part.counter, b.heights)
                self.result = f.address(self.e.pointers[self.n], f.mul(part.counter, size), KIND)
                self.lo, self.hi = f.max(f.sub(lo, before), 0), f.min(f.sub(hi, before), b.heights)
                start = f.mul(part.counter, b.part)
                self.end = f.min(f.add(start, b.part), b.tiles)
                self._begin()
                with f.loop(start, self.end, b.block) as loop:
                    self._patches(loop.counter)
                    with f.loop(0, b.alpha**2) as k:
                        self._product(k.counter)

    def _row(self, unit: Index) -> Index:
        return self.f.min(self.f.mul(unit, self.b.rows), self.b.taken.channels)

    def _begin(self) -> None:
        """Sums begin at 0."""
        f, b = self.f, self.b
        rows, out = b.taken.channels, b.made.channels
        first, end = self._row(self.lo), self._row(self.hi)
        size = f.mul(f.sub(end, first), out * 4)
        with f.loop(0, b.alpha**2) as k:
            start = f.address(self.result, f.mul(f.add(f.mul(k.counter, rows), first), out), KIND)
            f.effect("llvm.memset.p0.i64", ("ptr", start), ("i8", 0), ("i64", size), ("i1", "false"))

    def _patches(self, first: Index) -> None:
        """The tiles from `first` on; zeros where there are none any more."""
        f, b, patch = self.f, self.b, TRANSFORMS[self.b.tile].patch
        spread = transposed(TRANSFORMS[b.tile].result)
        assert b.other is not None
        lanes = b.lanes
        begin = f.mul(f.div(self._row(self.lo), lanes), lanes)
        end = self._row(self.hi)
        with f.loop(0, b.block) as loop:
            number = f.add(first, loop.counter)
            taken, made = (
                f.address(start, f.mul(loop.counter, slabs.row), KIND)
                for start, slabs in ((self.taken, b.taken), (self.made, b.made))
            )
            there = f.compare("slt", number, self.end)
            with f.when(there):
                self.transform(b.image, patch, b.taken, self.pointers[0], taken, number, begin, end)
                self.transform(b.other, spread, b.made, self.pointers[1], made, number)
            if b.part % b.block or b.tiles % b.part:
                with f.when(f.op(f"xor i1 {there}, true")):
                    for to, slabs in ((taken, b.taken), (made, b.made)):
                        self._clear(to, slabs)

    def _clear(self, to: str, slabs: Slabs) -> None:
        f = self.f
        with f.loop(0, slabs.elements) as k:
            start = f.address(to, f.mul(k.counter, slabs.slab), KIND)
            arguments = (("ptr", start), ("i8", 0), ("i64", slabs.row * 4), ("i1", "false"))
            f.effect("llvm.memset.p0.i64", *arguments)

    def _product(self, k: Index) -> None:
        """V[k]ᵀ · Z[k], added to the rows of this thread."""
        f, b = self.f, self.b
        rows, out = b.taken.channels, b.made.channels
        whole = rows // b.rows

        def panel(column: Index, vectors: int, valid: int) -> None:
            right = f.address(self.made, f.add(f.mul(k, b.made.slab), column), KIND)

            def tile(unit: Index, height: int) -> None:
                row = f.mul(unit, b.rows)
                shape = Shape(
                    FLOAT, FLOAT, b.lanes, height, vectors, valid, True, False, b.block, 1, b.taken.row, b.made.row,
                    out, False, False,
                )  # fmt: skip
                a = f.address(self.taken, f.add(f.mul(k, b.taken.slab), row), KIND)
                c = f.add(f.mul(f.add(f.mul(k, rows), row), out), column)
                self.multiply(shape, a, right, f.address(self.result, c, KIND))

            if whole:
                with f.loop(self.lo, f.min(self.hi, whole)) as loop:
                    tile(loop.counter, b.rows)
            if rows % b.rows:
                with f.when(f.compare("sgt", self.hi, whole)):
                    tile(whole, rows % b.rows)

        self.each_panel(panel)
