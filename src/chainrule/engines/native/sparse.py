"""Products with a gradient that is zero almost everywhere (chainrule.passes.sparse): vectors that are added up.

Of each place the channels that are not zero are searched for, a vector of them at a time; each adds a multiple of a
row of the kernel to the rows of its window in the image, or of the window's rows to its row of the kernel's gradient.
Threads share the images, or the channels of the gradient: never a sum, so that its order is always the same.
"""

from collections.abc import Callable, Sequence
from math import prod

from chainrule.engines.native.boxes import nest, vectors, zero
from chainrule.engines.native.division import Columns, Rows
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.ir import SCALARS, Index
from chainrule.engines.native.values import Mask, Value, Vectors
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.sparse import PRODUCTS, spread_product

__all__ = ["PRODUCTS", "SparseWriter", "share_of"]

CHANNELS = 4  # of the gradient of a kernel that a thread works on at a time: few, so that all have as much to do


def share_of(grouping: Grouping, kernel: Kernel) -> Rows | Columns:
    """Images; or channels, of which each has its part of the kernel's gradient."""
    node = grouping.nodes[kernel.nodes[0]]
    if node.primitive is spread_product:
        return Rows(node.shape[0], 1, 0)
    return Columns(-(-node.shape[0] // CHANNELS), CHANNELS)


class SparseWriter:
    """Writes one such kernel."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.f, self.m = evaluator.f, evaluator.m
        n = evaluator.kernel.nodes[0]
        node = evaluator.nodes[n]
        self.spreads = node.primitive is spread_product
        views = [evaluator.grouping.views[x] for x in node.inputs]  # dense, as of all that looks at windows
        shapes = [view.shape for view in views]
        pointers = [evaluator.pointers[view.base] for view in views]
        a = node.attributes
        self.result, self.shape, self.dtype = evaluator.pointers[n], node.shape, node.dtype
        self.kind = SCALARS[self.dtype]
        given = shapes[0 if self.spreads else 1]
        self.images, *self.places, self.channels = given
        self.gradient, self.other = pointers if self.spreads else pointers[::-1]
        self.window = shapes[1][1:-1] if self.spreads else a["window"]
        self.space = a["size"] if self.spreads else shapes[0][1:-1]
        self.strides, self.low, self.steps = a["strides"], a["low"], a["steps"]
        self.width = node.shape[-1]  # of the vectors that are added up

    def write(self, lo: Index, hi: Index) -> None:
        """The units [lo, hi)."""
        f, first, end = self.f, lo, hi
        if not self.spreads:
            first, end = f.mul(lo, CHANNELS), f.min(f.mul(hi, CHANNELS), self.channels)
        row = prod(self.shape[1:]) * self.dtype.itemsize
        mine = f.address(self.result, f.mul(first, row), "i8")
        zero(f, mine, f.mul(f.sub(end, first), row))
        if self.spreads:
            with f.loop(lo, hi) as loop:
                self._image(self.m, loop.counter, 0, self.channels)
            return
        few = Vectors(f, CHANNELS, self.m.host)
        with f.loop(lo, hi) as loop:
            channel = f.mul(loop.counter, CHANNELS)
            with f.loop(0, self.images) as images:
                self._image(few, images.counter, channel, f.min(f.add(channel, CHANNELS), self.channels))

    def _image(self, m: Vectors, image: Index, lo: Index, hi: Index) -> None:
        """The channels [lo, hi) of all places of an image."""
        f = self.f

        def place(indices: list[Index]) -> None:
            number = image
            for p, n in zip(indices, self.places, strict=True):
                number = f.add(f.mul(number, n), p)
            gradient = f.address(self.gradient, f.mul(number, self.channels), self.kind)
            self._search(m, gradient, lo, hi, lambda c, by: self._taps(image, indices, c, by))

        nest(f, [(0, n) for n in self.places], place)

    def _search(self, m: Vectors, gradient: str, lo: Index, hi: Index, body: Callable[[Index, Value], None]) -> None:
        """body(channel, its gradient in all lanes) for each channel whose gradient is not zero."""
        f = self.f

        def part(at: Index, mask: Mask) -> None:
            found = m.load(gradient, at, self.dtype, mask) != 0.0
            number = f.op(f"bitcast {found.type} {found.x} to i{m.lanes}")
            bits = f.op(f"zext i{m.lanes} {number} to i64")
            count = f.intrinsic("llvm.ctpop.i64", "i64", ("i64", bits))
            with f.loop(0, count, 1, [("i64", bits)]) as loop:
                left = loop.carried[0]
                lane = f.intrinsic("llvm.cttz.i64", "i64", ("i64", left), ("i1", "true"))
                channel = f.add(at, lane)
                body(channel, self.m.load_splat(gradient, channel, self.dtype))
                loop.next = [f.op(f"and i64 {left}, {f.sub(left, 1)}")]

        vectors(m, lo, hi, part)

    def _taps(self, image: Index, place: Sequence[Index], channel: Index, by: Value) -> None:
        """What one gradient does in its window, as far as that lies inside of the image."""
        f = self.f
        starts = [f.sub(f.mul(p, s), a) for p, s, a in zip(place, self.strides, self.low, strict=True)]

        def tap(indices: list[Index]) -> None:
            element, of_kernel, inside = image, channel, None
            for axis, (start, k, t) in enumerate(zip(starts, indices, self.steps, strict=True)):
                at = f.add(start, f.mul(k, t))
                element = f.add(f.mul(element, self.space[axis]), at)
                of_kernel = f.add(f.mul(of_kernel, self.window[axis]), k)
                if self._may_leave(axis):
                    here = f.compare("ult", at, self.space[axis])
                    inside = here if inside is None else f.op(f"and i1 {inside}, {here}")
            if inside is None:
                self._add(element, of_kernel, by)
            else:
                with f.when(inside):
                    self._add(element, of_kernel, by)

        nest(f, [(0, k) for k in self.window], tap)

    def _may_leave(self, axis: int) -> bool:
        """Whether windows reach over an end of the image along an axis."""
        low, p, s = self.low[axis], self.places[axis], self.strides[axis]
        return low > 0 or (p - 1) * s - low + (self.window[axis] - 1) * self.steps[axis] >= self.space[axis]

    def _add(self, element: Index, of_kernel: Index, by: Value) -> None:
        """A multiple of one vector is added to another."""
        f, m = self.f, self.m
        to, given = (element, of_kernel) if self.spreads else (of_kernel, element)
        target = f.address(self.result, f.mul(to, self.width), self.kind)
        source = f.address(self.other, f.mul(given, self.width), self.kind)

        def part(at: Index, mask: Mask) -> None:
            total = m.fma(by, m.load(source, at, self.dtype, mask), m.load(target, at, self.dtype, mask))
            m.store(total, target, at, mask)

        vectors(m, 0, self.width, part)
