"""What Winograd's convolutions have in common: blocks of tiles that fit into the cache, and the products of them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from chainrule.engines.native.division import Parts, up
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Index
from chainrule.engines.native.microkernel import Shape, Store, microkernel
from chainrule.engines.native.tile_plans import choose
from chainrule.engines.native.tiles import Contraction
from chainrule.engines.native.winograd_tiles import Cut, Slabs, take
from chainrule.passes.grouping import Grouping
from chainrule.passes.winograd import Matrix, tiles_over, winograd_gradient

CACHE_SHARE = 4
"""A block of tiles may take one part in so many of the second cache;"""
FEWEST_TILES = 64
"""but it has so many tiles, where there are as many: the kernel, which comes from a far cache, is to be used often."""
Panel = Callable[[Index, int, int], None]  # (first column, vectors, columns that count)


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
    images: int = 0  # of a block, where results overlap

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
    def sums(self) -> tuple[int, int]:
        """Places of an image, with all that its tiles reach, where results overlap."""
        down, across = self.image.counts
        return (down * self.tile + 2, across * self.tile + 2) if self.images else (0, 0)

    @property
    def offsets(self) -> tuple[int, int, int, int, int]:
        """Where in scratch the slabs, a packed panel, sums and zeros begin, in bytes, and where all ends."""
        packed = self.taken.nbytes + self.made.nbytes
        sums = packed + self.pack * self.taken.channels * self.vectors * self.lanes * 4
        zeros = sums + prod(self.sums) * self.made.row * 4
        return self.taken.nbytes, packed, sums, zeros, zeros + max(self.taken.row, self.made.row) * 4


def blocks_of(grouping: Grouping, n: int, host: Host) -> Blocks:
    """The sizes for a forward pass or a gradient."""
    node = grouping.nodes[n]
    x, other = (grouping.nodes[i] for i in node.inputs)
    batch, space, channels = x.shape[0], x.shape[1:3], x.shape[-1]
    tile, lanes, out = node.attributes["tile"], host.lanes(4), node.shape[-1]
    backward, spread = node.primitive is winograd_gradient, node.attributes.get("spread", False)
    places = other.shape[1:3] if backward else space if spread else node.attributes["places"]
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
    images = min(batch, max(1, together // prod(counts))) if spread else 0
    block = even if backward else up(images * prod(counts) or even, found.tile_rows)
    size, low = (tile, (0, 0)) if spread else (alpha, node.attributes["low"])
    image = Cut(space, channels, size, tile, low, counts)
    given = Cut(places, out, tile, tile, (0, 0), counts) if backward else None
    taken, made = (Slabs(alpha**2, block, c, lanes) for c in (channels, out))
    pack = found.pack_b and not backward
    return Blocks(tile, tiles, image, given, taken, made, found.tile_rows, found.vectors, pack, parts, part, images)


class Tiles:
    """What a forward pass and a gradient have in common."""

    def __init__(self, evaluator: Evaluator, n: int, host: Host) -> None:
        self.e, self.f, self.host = evaluator, evaluator.f, host
        self.n, self.node = n, evaluator.nodes[n]
        self.b = blocks_of(evaluator.grouping, n, host)
        self.pointers = [evaluator.pointers[evaluator.grouping.views[x].base] for x in self.node.inputs]
        self.taken = "%scratch"
        starts = (self.f.address("%scratch", at, "i8") for at in self.b.offsets[:-1])
        self.made, self.packed, self.sums, self.zeros = starts

    def clear_zeros(self) -> None:
        """Make sure that zeros are there."""
        *_, start, end = self.b.offsets
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
        pointers = [("ptr", pointer) for pointer in (a, b, c, c, "%arena", "%table")]
        name = microkernel(self.f.module, self.host, shape, Store())
        self.f.call(name, *pointers, *[("i64", 0)] * 4)

    def transform(self, cut: Cut, matrix: Matrix, slabs: Slabs, x: str, to: str, number: Index, *part: Index) -> None:
        """One patch."""
        name = take(self.f.module, self.host, cut, matrix, slabs, not part)
        lo, hi = part or (0, cut.channels)
        self.f.call(name, ("ptr", x), ("ptr", to), ("ptr", self.zeros), ("i64", number), ("i64", lo), ("i64", hi))
