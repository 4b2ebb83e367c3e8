"""Convolutions with windows of 3 × 3 by way of fewer multiplications: Winograd's minimal filtering.

A tile of m × m results and the patch of α × α elements that it is made of (α = m + 2) go through small matrices of
constants, which are additions; in between, channels are multiplied element by element of the patch:

    forward         Y  = Aᵀ [ Σ over channels of (G g Gᵀ) · (Bᵀ d B) ] A
    spread          Y  = B [ Σ over channels of (G g Gᵀ) · (A d Aᵀ) ] Bᵀ, added up where tiles overlap; g is flipped
    gradient of g   dg = Gᵀ [ Σ over tiles of (Bᵀ d B) · (A dY Aᵀ) ] G

That is α² / m² multiplications for each result and channel, and not 9: 4 for m = 2, 2.8 for m = 3, 2¼ for m = 4. The
gradient of the input is a forward pass with the kernel flipped. Tiles that are spread lie side by side on what is read,
and not on the result: they are fewer where that is larger, as for the gradient of the input without padding. With m = 2
results are as exact as those of a plain sum, with m = 3 nearly; m = 4 doubles or triples its error.

Sources: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016); Barabasz, Anderson, Soodhalter and
Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks" (2020), on points.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes, meaning
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.passes.convolutions import Lowering
from chainrule.passes.portions import portions
from chainrule.primitives import layout
from chainrule.primitives.convolve import convolve
from chainrule.program.program import Builder, Node, Program, rewrite

Matrix = tuple[tuple[float, ...], ...]


class Transforms(NamedTuple):
    """The matrices Bᵀ (α × α), G (α × 3) and Aᵀ (m × α)."""

    patch: Matrix
    kernel: Matrix
    result: Matrix


def _polynomial(roots: Sequence[float]) -> list[float]:
    """The coefficients of Π (x − root), that of 1 first."""
    found = [1.0]
    for root in roots:
        found = [below - root * same for below, same in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found


def _transforms(*points: float) -> Transforms:
    """Two polynomials, of 3 and of m coefficients, are multiplied by their values at m + 1 points and at infinity.

    The coefficients of the product are those of Lagrange's polynomials. Convolutions are the transposed of this; the
    divisors of Lagrange's polynomials go with the kernel, so that all other constants are exact.
    """
    others = [[q for q in points if q != p] for p in points]
    patch = [*([*_polynomial(rest), 0.0] for rest in others), _polynomial(points)]
    divisors = [prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    kernel = [*([p**k / d for k in range(3)] for p, d in zip(points, divisors, strict=True)), [0.0, 0.0, 1.0]]
    m = len(points) - 1
    result = [[*(p**k for p in points), float(k == m - 1)] for k in range(m)]
    return Transforms(*(tuple(map(tuple, matrix)) for matrix in (patch, kernel, result)))


TRANSFORMS = {
    2: _transforms(0, 1, -1),
    3: _transforms(1 / 2, -1 / 2, 5 / 4, -5 / 4),
    4: _transforms(0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
}
"""By m. The points decide how exact results are: see docs/design/convolutions-by-tiles.md."""


def transposed(matrix: Matrix) -> Matrix:
    """Rows as columns.

    >>> transposed(((1, 2), (3, 4)))
    ((1, 3), (2, 4))
    """
    return tuple(zip(*matrix, strict=True))


def tiles_over(places: Shape, tile: int) -> Shape:
    """How many tiles cover so many places along each axis."""
    return tuple(-(-p // tile) for p in places)


# -- meanings: the same by NumPy


def _both_sides(matrix: Matrix, x: np.ndarray) -> np.ndarray:
    """M · X · Mᵀ along the last two axes but one."""
    m = np.asarray(matrix, x.dtype)
    return np.asarray(np.einsum("ik,...klc,jl->...ijc", m, x, m))


def _patches(x: np.ndarray, tile: int, low: Shape, counts: Shape) -> np.ndarray:
    """Bᵀ d B of every tile: (α², tiles, channels)."""
    alpha, channels = tile + 2, x.shape[-1]
    rows = meaning.patches(x[..., None, :], (alpha, alpha), (tile, tile), low, (1, 1), counts)
    moved = _both_sides(TRANSFORMS[tile].patch, rows.reshape(-1, alpha, alpha, channels))
    return moved.reshape(-1, alpha * alpha, channels).swapaxes(0, 1)


def _kernel(w: np.ndarray, tile: int) -> np.ndarray:
    alpha = tile + 2
    moved = _both_sides(TRANSFORMS[tile].kernel, w.reshape(3, 3, -1))
    return moved.reshape(alpha * alpha, *w.shape[2:])


def _kernel_gradient(du: np.ndarray, tile: int) -> np.ndarray:
    alpha = tile + 2
    moved = _both_sides(transposed(TRANSFORMS[tile].kernel), du.sum(axis=0).reshape(alpha, alpha, -1))
    return moved.reshape(3, 3, *du.shape[2:])


def _convolution(x: np.ndarray, u: np.ndarray, tile: int, low: Shape, places: Shape, spread: bool) -> np.ndarray:
    if spread:
        return _spread(x, u, tile, low, places)
    alpha, out, (down, across) = tile + 2, u.shape[-1], tiles_over(places, tile)
    products = np.matmul(_patches(x, tile, low, (down, across)), u)
    made = _both_sides(TRANSFORMS[tile].result, products.swapaxes(0, 1).reshape(-1, alpha, alpha, out))
    whole = made.reshape(-1, down, across, tile, tile, out).swapaxes(2, 3)
    return whole.reshape(-1, down * tile, across * tile, out)[:, : places[0], : places[1]]


def _apart(dy: np.ndarray, tile: int) -> np.ndarray:
    """A dY Aᵀ of tiles side by side: (tiles, α, α, channels)."""
    batch, *places, out = dy.shape
    down, across = tiles_over(tuple(places), tile)
    whole = np.zeros((batch, down * tile, across * tile, out), dy.dtype)
    whole[:, : places[0], : places[1]] = dy
    of_tiles = whole.reshape(batch, down, tile, across, tile, out).swapaxes(2, 3).reshape(-1, tile, tile, out)
    return _both_sides(transposed(TRANSFORMS[tile].result), of_tiles)


def _spread(x: np.ndarray, u: np.ndarray, tile: int, low: Shape, places: Shape) -> np.ndarray:
    alpha, out, (down, across) = tile + 2, u.shape[-1], tiles_over(x.shape[1:3], tile)
    rows = _apart(x, tile).reshape(-1, alpha * alpha, x.shape[-1]).swapaxes(0, 1)
    made = _both_sides(
        transposed(TRANSFORMS[tile].patch), np.matmul(rows, u).swapaxes(0, 1).reshape(-1, alpha, alpha, out)
    )
    made = made.reshape(-1, down, across, alpha, alpha, out)
    sums = np.zeros((len(x), down * tile + 2, across * tile + 2, out), made.dtype)
    for i, j in np.ndindex(down, across):
        sums[:, i * tile : i * tile + alpha, j * tile : j * tile + alpha] += made[:, i, j]
    return sums[:, low[0] : low[0] + places[0], low[1] : low[1] + places[1]]


def _gradient(x: np.ndarray, dy: np.ndarray, tile: int, low: Shape, parts: int) -> np.ndarray:
    moved = _apart(dy, tile).reshape(-1, (tile + 2) ** 2, dy.shape[-1])
    rows, others = _patches(x, tile, low, tiles_over(dy.shape[1:3], tile)).swapaxes(1, 2), moved.swapaxes(0, 1)
    length = -(-len(moved) // parts)
    ranges = (slice(k * length, (k + 1) * length) for k in range(parts))
    return np.stack([np.matmul(rows[..., part], others[:, part]) for part in ranges])


# -- primitives


def _infer_kernel(w: Tensor, tile: int) -> TypeOf:
    return ((tile + 2) ** 2, *w.shape[2:]), w.dtype


def _infer_kernel_gradient(du: Tensor, tile: int) -> TypeOf:
    return (3, 3, *du.shape[2:]), du.dtype


def _infer_convolution(x: Tensor, u: Tensor, places: Shape, **_: Any) -> TypeOf:
    return (x.shape[0], *places, u.shape[-1]), x.dtype


def _infer_gradient(x: Tensor, dy: Tensor, tile: int, parts: int, **_: Any) -> TypeOf:
    return (parts, (tile + 2) ** 2, x.shape[-1], dy.shape[-1]), x.dtype


winograd_kernel = Primitive("winograd_kernel", "window", lambda m, w, **a: _kernel(w, **a), _infer_kernel)
"""G g Gᵀ: w (3, 3, in, out) -> (α², in, out)."""

winograd_kernel_gradient = Primitive(
    "winograd_kernel_gradient", "window", lambda m, du, **a: _kernel_gradient(du, **a), _infer_kernel_gradient
)
"""Gᵀ U G: (parts, α², in, out), whose sum U is -> (3, 3, in, out)."""

winograd_convolution = Primitive(
    "winograd_convolution", "contract", lambda m, x, u, **a: _convolution(x, u, **a), _infer_convolution
)
"""x (batch, height, width, in), u (α², in, out) -> (batch, *places, out); `low` is how far windows reach over the
beginning, or, where tiles are spread, what they make."""

winograd_gradient = Primitive(
    "winograd_gradient", "window", lambda m, x, dy, **a: _gradient(x, dy, **a), _infer_gradient
)
"""x (batch, height, width, in), dy (batch, *places, out) -> (parts, α², in, out): Σ (Bᵀ d B) · (A dY Aᵀ) over the tiles
of each part: equally many neighbours, in the last part perhaps fewer."""

WINOGRAD = (winograd_kernel, winograd_kernel_gradient, winograd_convolution, winograd_gradient)


# -- the pass

FEWEST = 16
"""Channels on either side from which on it is tried."""
FEWEST_IMAGES = 8
"""From which on tiles may be spread: threads share images then."""


def best(batch: int, places: Shape, channels: int, out: int, tiles: Shape) -> int | None:
    """The tile for which the work is least, among those that may be taken; None where a plain sum is less.

    Work is counted in multiply-adds. A transform of a patch or of results is worth several of these for each element,
    that of a kernel, which comes from memory and goes there, many. A larger tile, less exact, has to save a tenth.
    """
    if min(channels, out) < FEWEST:
        return None
    least, found = batch * prod(places) * 9 * channels * out, None
    for tile in tiles:
        elements, count = (tile + 2) ** 2, batch * prod(tiles_over(places, tile))
        work = elements * (count * channels * out + 8 * count * (channels + out) + 48 * channels * out)
        if 10 * work < 9 * least:
            least, found = work, tile
    return found


def winograd(program: Program, tiles: Shape = (2, 3)) -> Program:
    """Replace convolutions over images, of float32, with windows of 3 × 3 that stand side by side, where it pays.

    `tiles`: how many results there may be along a tile, the fewest first: 2 and 3, and 4 where exactness may be
    given for speed.
    """

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is not convolve or node.dtype != dtypes.float32 or node.ndim != 5 or not node.size:
            return None
        ones = [node.attributes[k] for k in ("strides", "input_step", "kernel_step")]
        if set(ones) != {(1, 1)} or node.shape[3] != 1 or not all(builder.nodes[x].size for x in node.inputs):
            return None
        lowering = Lowering(builder, node)
        return _of_kernel(lowering, tiles) if lowering.of_kernel() else _forward(lowering, tiles)

    return rewrite(program, rule)


def _reached(space: Sequence[int], low: Shape, places: Sequence[int]) -> bool:
    """Whether every element of an image is in a window: what is left out could be infinite, and get into tiles."""
    return all(before >= 0 and p + 2 - before >= n for n, before, p in zip(space, low, places, strict=True))


def _spreads(space: Sequence[int], low: Shape, places: Shape, tile: int) -> bool:
    """Whether tiles side by side on what is read are fewer than those on the result, and make all of it."""
    counts = tiles_over(tuple(space), tile)
    inside = all(
        0 <= before <= 2 and p - before <= count * tile for before, p, count in zip(low, places, counts, strict=True)
    )
    return inside and prod(counts) < prod(tiles_over(places, tile))


def _forward(lowering: Lowering, tiles: Shape) -> int | None:
    x, w = lowering.node.inputs
    batch, *space, _, channels = lowering.shape(x)
    out, places = lowering.node.shape[-1], lowering.node.shape[1:3]
    tile, low = best(batch, places, channels, out, tiles), lowering.node.attributes["low"]
    if lowering.shape(w)[:2] != (3, 3) or not _reached(space, low, places) or tile is None:
        return None
    spread = batch >= FEWEST_IMAGES and _spreads(space, low, places, tile)
    w = lowering.reshape(w, 3, 3, channels, out)
    if spread:
        w = lowering.make(layout.slice, w, start=(2, 2, 0, 0), stop=(-1, -1, channels, out), step=(-1, -1, 1, 1))
        low = tuple(2 - before for before in low)
    u = lowering.make(winograd_kernel, w, tile=tile)
    x = lowering.reshape(x, batch, *space, channels)
    y = lowering.make(winograd_convolution, x, u, tile=tile, low=low, places=places, spread=spread)
    return lowering.reshape(y, *lowering.node.shape)


def _of_kernel(lowering: Lowering, tiles: Shape) -> int | None:
    """The batch of such a convolution are the channels of the input, its channels the batch."""
    x, dy = lowering.node.inputs
    channels, *space, _, batch = lowering.shape(x)
    *places, _, _, out = lowering.shape(dy)
    tile, low = best(batch, tuple(places), channels, out, tiles), lowering.node.attributes["low"]
    if lowering.node.shape[1:3] != (3, 3) or not _reached(space, low, places) or tile is None:
        return None
    x = lowering.reshape(lowering.transpose(x, 4, 1, 2, 3, 0), batch, *space, channels)
    dy = lowering.reshape(lowering.transpose(dy, 3, 0, 1, 2, 4), batch, *places, out)
    parts = portions(batch * prod(tiles_over(tuple(places), tile)), (tile + 2) ** 2 * channels * out * 4)
    du = lowering.make(winograd_gradient, x, dy, tile=tile, low=low, parts=parts)
    dw = lowering.make(winograd_kernel_gradient, du, tile=tile)
    return lowering.reshape(lowering.transpose(dw, 2, 0, 1, 3), *lowering.node.shape)
