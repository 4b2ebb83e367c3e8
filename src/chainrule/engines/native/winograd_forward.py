"""Winograd's forward passes, of images whose patches overlap, or of those whose results do.

forward     for each block of tiles: patches to scratch, α² products with the transformed kernel, results
spread      the same with tiles that lie side by side, whose results overlap: they are added up, image by image
"""

from math import prod

from chainrule.engines.native.division import Batches, Parts
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Epilogue, Shape
from chainrule.engines.native.packing import Packer
from chainrule.engines.native.winograd_blocks import Tiles
from chainrule.engines.native.winograd_tiles import FLOAT, KIND, add, give, give_row, split
from chainrule.passes.winograd import TRANSFORMS, Matrix, transposed

MOST_PLACES = 8
"""That are written together, side by side."""


class Forward(Tiles):
    """y = the places of Aᵀ [ Σ U · Bᵀ d B ] A, with what follows element by element."""

    def write(self, name: str, epilogue: Epilogue, share: Batches | Parts, lo: Index, hi: Index) -> None:
        """The register tiles or images [lo, hi), block by block."""
        f, b = self.f, self.b
        self.clear_zeros()
        self.give = self._results(name, epilogue)
        unit = prod(b.image.counts) if isinstance(share, Batches) else b.rows
        stop = f.min(f.mul(hi, unit), b.tiles)
        with f.loop(f.mul(lo, unit), stop, b.block) as loop:
            first = loop.counter
            end = f.min(f.add(first, b.block), stop)
            self.multiply_all(first, end, TRANSFORMS[b.tile].patch)
            with f.loop(first, end) as tile:
                source = f.address(self.made, f.mul(f.sub(tile.counter, first), b.made.row), KIND)
                self._give(tile.counter, source)

    def multiply_all(self, first: Index, end: Index, matrix: Matrix) -> None:
        """The patches of the tiles [first, end), transformed by `matrix`, and their products."""
        f, b = self.f, self.b
        with f.loop(first, end) as tile:
            to = f.address(self.taken, f.mul(f.sub(tile.counter, first), b.taken.row), KIND)
            self.transform(b.image, matrix, b.taken, self.pointers[0], to, tile.counter)
        count = f.div(f.add(f.sub(end, first), b.rows - 1), b.rows)
        with f.loop(0, b.alpha**2) as k:
            self._product(k.counter, count)

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


class Spread(Forward):
    """y = Σ over the tiles that reach a place of B [ Σ U · A d Aᵀ ] Bᵀ, image by image."""

    def write(self, name: str, epilogue: Epilogue, share: Batches | Parts, lo: Index, hi: Index) -> None:
        """The images [lo, hi), block by block."""
        f, b = self.f, self.b
        self.clear_zeros()
        self.rows = self._rows_of(name, epilogue)
        tiles = prod(b.image.counts)
        with f.loop(lo, hi, b.images) as loop:
            first = loop.counter
            end = f.min(f.add(first, b.images), hi)
            self.multiply_all(f.mul(first, tiles), f.mul(end, tiles), transposed(TRANSFORMS[b.tile].result))
            with f.loop(first, end) as image:
                self._add_up(f.mul(f.sub(image.counter, first), tiles))
                self._give_image(image.counter)

    def _add_up(self, number: Index) -> None:
        """The sums of an image, whose first tile in the block has this number."""
        f, b = self.f, self.b
        (_, _, start, end, _), (down, across) = b.offsets, b.image.counts
        name = add(f.module, self.host, transposed(TRANSFORMS[b.tile].patch), b.made, b.sums[1])
        f.effect("llvm.memset.p0.i64", ("ptr", self.sums), ("i8", 0), ("i64", end - start), ("i1", "false"))
        with f.loop(0, down) as i, f.loop(0, across) as j:
            tile = f.add(number, f.add(f.mul(i.counter, across), j.counter))
            source = f.address(self.made, f.mul(tile, b.made.row), KIND)
            to = self._sum(f.mul(i.counter, b.tile), f.mul(j.counter, b.tile))
            f.call(name, ("ptr", source), ("ptr", to))

    def _sum(self, i: Index, j: Index) -> str:
        """The address of the sums of a place."""
        f, b = self.f, self.b
        return f.address(self.sums, f.mul(f.add(f.mul(i, b.sums[1]), j), b.made.row), KIND)

    def _rows_of(self, name: str, epilogue: Epilogue) -> dict[int, str]:
        """The functions that write so many places side by side: two lengths at most."""
        b, (_, across) = self.b, self.node.attributes["places"]
        extent = self.e.kernel.sizes[1], across
        return {n: give_row(self.f.module, self.host, name, b.made, extent, n, epilogue) for n in set(_even(across))}

    def _give_image(self, image: Index) -> None:
        f, (down, across), (top, left) = self.f, self.node.attributes["places"], self.node.attributes["low"]
        with f.loop(0, down) as i:
            row, at = f.mul(f.add(f.mul(image, down), i.counter), across), 0
            for n in _even(across):
                source = self._sum(f.add(i.counter, top), left + at)
                f.call(self.rows[n], ("ptr", source), ("ptr", "%arena"), ("ptr", "%table"), ("i64", f.add(row, at)))
                at += n


def _even(places: int) -> list[int]:
    """A row of places in stretches of nearly equal length, short enough for registers."""
    count = -(-places // MOST_PLACES)
    return [places * (k + 1) // count - places * k // count for k in range(count)]
