"""Convolutions by Winograd's transforms: blocks of tiles, transformed, multiplied and transformed back in the cache.

    forward         in winograd_forward.py
    gradient        for each block of tiles: patches of x and of dY to scratch, α² products added to the result
    of kernels      to and from their transforms, element by element

Threads share the tiles of a forward pass, or its images. The gradient is a few sums, each over a part of the tiles,
which the transform of the kernel adds up; threads share these parts, and rows (channels of x) of them, and each goes
through the tiles of a part in order. So no element depends on blocks or threads.
"""

from math import prod

from chainrule.engines.native.division import Batches, Parts
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Epilogue, Shape
from chainrule.engines.native.values import Value
from chainrule.engines.native.winograd_blocks import Tiles, blocks_of
from chainrule.engines.native.winograd_forward import Forward, Spread
from chainrule.engines.native.winograd_tiles import FLOAT, KIND, Slabs, both_sides, each_vector
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

PRODUCTS = (winograd_convolution, winograd_gradient)


def node_of(grouping: Grouping, kernel: Kernel) -> int | None:
    """The node of a kernel that is written here."""
    return next((n for n in kernel.nodes if grouping.nodes[n].primitive in WINOGRAD), None)


def share_of(grouping: Grouping, kernel: Kernel, host: Host) -> Batches | Parts:
    """How threads share the work of a kernel: by images, where something is added up for each of them."""
    n = node_of(grouping, kernel)
    assert n is not None
    node = grouping.nodes[n]
    if any(map(grouping.reduces, kernel.nodes)) or node.attributes.get("spread", False):
        return Batches(node.shape[0])
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
    places = x[1:3] if node.attributes.get("spread", False) else places
    return (tile + 2) ** 2 * x[0] * prod(tiles_over(places, tile)) * x[-1] * node.shape[-1]


def write(
    evaluator: Evaluator, name: str, host: Host, epilogue: Epilogue, share: Batches | Parts, lo: Index, hi: Index
) -> None:
    """The code of a kernel, for the units [lo, hi) of `share`: images where these are Batches."""
    n = node_of(evaluator.grouping, evaluator.kernel)
    assert n is not None
    primitive = evaluator.nodes[n].primitive
    if primitive is winograd_convolution:
        form = Spread if evaluator.nodes[n].attributes["spread"] else Forward
        form(evaluator, n, host).write(name, epilogue, share, lo, hi)
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


class _Gradient(Tiles):
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
