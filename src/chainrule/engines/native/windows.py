"""Sliding windows, channel by channel: pooling, depthwise convolution, and what they give back.

The lanes of a vector are neighbouring channels. A unit of work is a row of places: those that differ in the last axis
of space alone. A window that lies inside of the image is worked on without a question; near the borders each tap is
asked whether it is there, and its lanes are masked.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

from chainrule import dtypes
from chainrule.engines.native.division import Columns, Rows, Share
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.ir import SCALARS, Index
from chainrule.engines.native.values import Mask, Value
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import dense_strides

INFINITY = float("inf")
Body = Callable[[Index, Mask], None]  # (first channel, which lanes count)
Taps = Iterator[tuple[int, Value, Value | None]]  # (number, elements, whether they are there; None: they are)


def share_of(grouping: Grouping, kernel: Kernel, lanes: int) -> Share:
    """Rows of places; or vectors of channels, where sums go over all places."""
    node = grouping.nodes[kernel.nodes[-1]]
    if node.primitive.name == "depthwise_gradient":
        return Columns(-(-node.shape[-1] // lanes), lanes)
    if tiled(grouping, kernel):
        node = grouping.nodes[node.inputs[0]]
    return Rows(prod(node.shape[:-2]) if node.ndim > 2 else node.shape[0], 1, 0)


def tiled(grouping: Grouping, kernel: Kernel) -> bool:
    """Whether windows that give back lie side by side and cover the image: each element belongs to one of them."""
    node = grouping.nodes[kernel.nodes[-1]]
    a = node.attributes
    if node.primitive.name != "window_put" or a["window"] != a["strides"] or max(a["steps"], default=1) > 1:
        return False
    places = grouping.nodes[node.inputs[0]].shape[1:-1]
    return not any(a["low"]) and all(p * s == n for p, s, n in zip(places, a["strides"], a["size"], strict=True))


class WindowWriter:
    """Writes one such kernel."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.e, self.f, self.m = evaluator, evaluator.f, evaluator.m
        self.nodes = evaluator.kernel.nodes
        self.n = self.nodes[-1]
        node = evaluator.nodes[self.n]
        self.node, self.dtype, self.channels = node, node.dtype, node.shape[-1]
        self.inputs = [evaluator.grouping.views[x].base for x in node.inputs]
        shapes = [evaluator.nodes[x].shape for x in node.inputs]
        a = node.attributes
        self.window = a["window"] if "window" in a else shapes[1][:-1]
        self.strides, self.low, self.steps = a["strides"], a["low"], a["steps"]
        name = node.primitive.name
        self.places = (
            shapes[0][1:-1] if name == "window_put" else shapes[1][1:-1] if "gradient" in name else node.shape[1:-1]
        )
        self.space = node.shape[1:-1] if name == "window_put" else shapes[0][1:-1]
        if not self.window:  # images without axes: one place each
            self.window = self.strides = self.steps = self.places = self.space = (1,)
            self.low = (0,)
        self.apart = dense_strides((*self.space, self.channels))[:-1]  # from one element of the image to the next

    def write(self, lo: Index, hi: Index) -> None:
        """The units [lo, hi)."""
        if self.node.primitive.name == "depthwise_gradient":
            with self.f.loop(lo, hi) as loop:
                self._channels(self.f.mul(loop.counter, self.m.lanes))
            return
        put = self._put_tiles if tiled(self.e.grouping, self.e.kernel) else self._put_row
        bodies = {"window_put": put, "depthwise": self._depthwise_row}
        write_row = bodies.get(self.node.primitive.name, self._pool_row)
        with self.f.loop(lo, hi) as loop:
            self._vectors(lambda c, mask: write_row(loop.counter, c, mask))

    # -- where things lie

    def _vectors(self, body: Body) -> None:
        """body(c, mask) for each vector of channels."""
        lanes = self.m.lanes
        whole = self.channels // lanes * lanes
        if whole:
            with self.f.loop(0, whole, lanes) as loop:
                body(loop.counter, None)
        if self.channels % lanes:
            body(whole, self.channels % lanes)

    def _split(self, number: Index, extents: Sequence[int]) -> list[Index]:
        """The number of a row as (batch, place along each axis but the last)."""
        found: list[Index] = []
        for n in reversed(extents):
            found.insert(0, self.f.rem(number, n))
            number = self.f.div(number, n)
        return [number, *found]

    def _starts(self, places: Sequence[Index]) -> list[Index]:
        """Where the windows at these places begin, along the first axes of space."""
        f = self.f
        return [f.sub(f.mul(p, s), a) for p, s, a in zip(places, self.strides, self.low, strict=False)]

    def _image(self, x: int, batch: Index, starts: Sequence[Index], c: Index) -> str:
        """The address of an element of an image, perhaps outside of it."""
        f, at = self.f, c
        for start, stride in zip((batch, *starts), (prod(self.space) * self.channels, *self.apart), strict=False):
            at = f.add(at, f.mul(start, stride))
        return f.address(self.e.pointers[x], at, SCALARS[self.e.nodes[x].dtype])

    def _all_inside(self, starts: Sequence[Index]) -> str | None:
        """Whether windows that begin here lie inside of the image, along the first axes; None where all of them do."""
        f, found = self.f, None
        axes = zip(starts, self.space, self.window, self.steps, self.strides, self.low, self.places, strict=False)
        for start, n, k, t, s, lo, p in axes:
            last = n - 1 - (k - 1) * t
            if lo <= 0 and (p - 1) * s - lo <= last:
                continue
            here = f.compare("ult", start, max(last + 1, 0))
            found = here if found is None else f.op(f"and i1 {found}, {here}")
        return found

    def _at(self, image: str, dtype: dtypes.DType, tap: Sequence[int], mask: Mask) -> Value:
        offset = sum(i * t * stride for i, t, stride in zip(tap, self.steps, self.apart, strict=True))
        return self.m.load(image, offset, dtype, mask)

    def _masked(self, valid: str, mask: Mask) -> tuple[str, Value]:
        """A truth value for all lanes, as a mask, and as a Value."""
        everywhere = self.m.splat_of(valid, dtypes.bool_)
        if mask is None:
            return everywhere.x, everywhere
        return self.f.op(f"and {everywhere.type} {everywhere.x}, {self.m.mask(mask)}"), everywhere

    def _taps(self, image: str, dtype: dtypes.DType, starts: list[Index] | None, mask: Mask) -> Taps:
        """The elements of a window; `starts` where some may be outside."""
        valid = None
        if starts is not None:
            valid = [
                [self.f.compare("ult", self.f.add(start, i * t), n) for i in range(k)]
                for start, n, k, t in zip(starts, self.space, self.window, self.steps, strict=True)
            ]
        for number, tap in enumerate(product(*map(range, self.window))):
            if valid is None:
                yield number, self._at(image, dtype, tap, mask), None
                continue
            here, there = self._masked(self._and([axis[i] for axis, i in zip(valid, tap, strict=True)]), mask)
            yield number, self._at(image, dtype, tap, here), there

    def _and(self, conditions: Sequence[str]) -> str:
        found = conditions[0]
        for condition in conditions[1:]:
            found = self.f.op(f"and i1 {found}, {condition}")
        return found

    def _row(self, number: Index, c: Index, mask: Mask, write: Callable[[Taps, Index], None]) -> None:
        """write(taps, element of the result) for each place of a row."""
        f = self.f
        batch, *outer = self._split(number, self.places[:-1])
        starts = self._starts(outer)
        x = self.inputs[0]
        dtype = self.e.nodes[x].dtype
        row = f.mul(number, self.places[-1])
        with f.loop(0, self.places[-1]) as loop:
            begin = [*starts, f.sub(f.mul(loop.counter, self.strides[-1]), self.low[-1])]
            image = self._image(x, batch, begin, c)
            element = f.add(f.mul(f.add(row, loop.counter), self.channels), c)
            inside = self._all_inside(begin)
            if inside is None:
                write(self._taps(image, dtype, None, mask), element)
            else:
                with f.when(inside):
                    write(self._taps(image, dtype, None, mask), element)
                with f.when(f.op(f"xor i1 {inside}, true")):
                    write(self._taps(image, dtype, begin, mask), element)

    # -- pooling

    def _pool_row(self, number: Index, c: Index, mask: Mask) -> None:
        """The first largest tap of each window, its number and its value, whichever is wanted; or the numbered tap."""
        m = self.m
        names = {self.e.nodes[n].primitive.name: n for n in self.nodes}
        argmax, take = names.get("window_argmax"), names.get("window_take")

        def search(taps: Taps, element: Index) -> None:
            best = value = place = inside = None
            for k, x, there in taps:
                seen = x if there is None else m.where(there, x, -INFINITY)
                if best is None or value is None or place is None:
                    best, value, place, inside = seen, x, m.constant(0, dtypes.int32), there
                    continue
                better = ((seen > best) | (seen != seen)) & (best == best)
                if inside is not None and there is not None:  # what is outside gives way to the first that is not
                    better, inside = better | (there & ~inside), inside | there
                best, value = m.where(better, seen, best), m.where(better, x, value)
                place = m.where(better, k, place)
            assert argmax is not None and place is not None and value is not None
            if argmax in self.e.pointers:
                stored = m.astype(place, self.e.nodes[argmax].dtype)
                m.store(stored, self.e.pointers[argmax], element, mask)
            if take is not None:
                m.store(value, self.e.pointers[take], element, mask)

        def read(taps: Taps, element: Index) -> None:
            winners = self.inputs[1]
            number = m.load(self.e.pointers[winners], element, self.e.nodes[winners].dtype, mask)
            value = m.constant(0, self.dtype)
            for k, x, _ in taps:
                value = m.where(number == k, x, value)
            m.store(value, self.e.pointers[self.n], element, mask)

        self._row(number, c, mask, search if argmax is not None else read)

    def _put_tiles(self, number: Index, c: Index, mask: Mask) -> None:
        """A row of windows that share no element: what each gives back to all of its own."""
        f, m = self.f, self.m
        batch, *outer = self._split(number, self.places[:-1])
        starts = self._starts(outer)
        dy, winners = self.inputs
        kind = self.e.nodes[winners].dtype
        zero = m.constant(0, self.dtype)
        with f.loop(0, self.places[-1]) as loop:
            element = f.add(f.mul(f.add(f.mul(number, self.places[-1]), loop.counter), self.channels), c)
            value = m.load(self.e.pointers[dy], element, self.dtype, mask)
            chosen = m.load(self.e.pointers[winners], element, kind, mask)
            to = self._image(self.n, batch, [*starts, f.mul(loop.counter, self.strides[-1])], c)
            for k, tap in enumerate(product(*map(range, self.window))):
                offset = sum(i * stride for i, stride in zip(tap, self.apart, strict=True))
                m.store(m.where(chosen == k, value, zero), to, offset, mask)

    def _put_row(self, number: Index, c: Index, mask: Mask) -> None:
        """What the windows over each element give back to it, tap after tap."""
        f, m = self.f, self.m
        batch, *outer = self._split(number, self.space[:-1])
        row = f.mul(number, self.space[-1])
        apart = all(s >= k for s, k in zip(self.strides, self.window, strict=True))
        disjoint = apart and set(self.steps) <= {1} and min(self.low) >= 0
        known = [self._windows_over(axis, s, disjoint) for axis, s in enumerate(outer)]
        with f.loop(0, self.space[-1]) as loop:
            axes = [*known, self._windows_over(len(outer), loop.counter, disjoint)]
            total = m.constant(0, self.dtype)
            for found in product(*axes):
                total = total + self._given(batch, found, c, mask)
            if self.dtype in dtypes.HALVES:
                total = m.rounded(total, self.dtype)
            element = f.add(f.mul(f.add(row, loop.counter), self.channels), c)
            m.store(total, self.e.pointers[self.n], element, mask)

    def _windows_over(self, axis: int, s: Index, disjoint: bool) -> list[tuple[Index, Index, str]]:
        """(tap, place, whether there is one) for the windows that reach the position s of an axis."""
        f, stride, window = self.f, self.strides[axis], self.window[axis]
        count = self.places[axis]
        if disjoint:
            at = f.add(s, self.low[axis])
            tap, place = f.rem(at, stride), f.div(at, stride)
            return [(tap, place, self._and([f.compare("ult", tap, window), f.compare("ult", place, count)]))]
        found: list[tuple[Index, Index, str]] = []
        for tap in range(window):
            at = f.add(s, self.low[axis] - tap * self.steps[axis])
            here = [f.compare("sge", at, 0), f.compare("eq", f.rem(at, stride), 0)]
            place = f.div(at, stride)
            found.append((tap, place, self._and([*here, f.compare("ult", place, count)])))
        return found

    def _given(self, batch: Index, found: Sequence[tuple[Index, Index, str]], c: Index, mask: Mask) -> Value:
        f, m = self.f, self.m
        number: Index = 0
        element: Index = batch
        for (tap, place, _), window, count in zip(found, self.window, self.places, strict=True):
            number = f.add(f.mul(number, window), tap)
            element = f.add(f.mul(element, count), place)
        element = f.add(f.mul(element, self.channels), c)
        here, _ = self._masked(self._and([valid for _, _, valid in found]), mask)
        dy, winners = self.inputs
        kind = self.e.nodes[winners].dtype
        chosen = m.load(self.e.pointers[winners], element, kind, here)
        wanted = number
        if not isinstance(number, int) and SCALARS[kind] != "i64":
            wanted = f.op(f"trunc i64 {number} to {SCALARS[kind]}")
        value = m.load(self.e.pointers[dy], element, self.dtype, here)
        return m.where(chosen == m.splat_of(wanted, kind), value, m.constant(0, self.dtype))

    # -- depthwise convolution

    def _depthwise_row(self, number: Index, c: Index, mask: Mask) -> None:
        m = self.m
        kernel = self.e.pointers[self.inputs[1]]
        weights = [
            m.load(kernel, self.f.add(tap * self.channels, c), self.dtype, mask) for tap in range(prod(self.window))
        ]

        def write(taps: Taps, element: Index) -> None:
            total = m.constant(0, self.dtype)
            for k, x, _ in taps:
                total = m.fma(x, weights[k], total)
            m.store(total, self.e.pointers[self.n], element, mask)

        self._row(number, c, mask, write)

    def _channels(self, c: Index) -> None:
        """The gradient of the kernel for one vector of channels: sums over all places, in their order."""
        f, m = self.f, self.m
        rest = f.sub(self.channels, c)
        short = f.op(f"trunc i64 {rest} to i32") if isinstance(rest, str) else rest
        mask: Mask = (m.lane_numbers(0, dtypes.int32) < m.splat_of(short, dtypes.int32)).x
        if self.channels % m.lanes == 0:
            mask = None
        x, dy = self.inputs
        zero = m.constant(0, self.dtype)
        taps = list(product(*map(range, self.window)))
        rows = prod((self.e.nodes[x].shape[0], *self.places[:-1]))
        sums = [(zero.type, zero.x) for _ in taps]
        with f.loop(0, rows, 1, sums) as loop:
            batch, *outer = self._split(loop.counter, self.places[:-1])
            starts = self._starts(outer)
            held = loop.carried
            line = f.mul(loop.counter, self.places[-1])
            for first, last, inside in self._stretches():
                with f.loop(first, last, 1, [(zero.type, s) for s in held]) as inner:
                    begin = [*starts, f.sub(f.mul(inner.counter, self.strides[-1]), self.low[-1])]
                    given = m.load(
                        self.e.pointers[dy],
                        f.add(f.mul(f.add(line, inner.counter), self.channels), c),
                        self.dtype,
                        mask,
                    )
                    image = self._image(x, batch, begin, c)
                    new = []
                    for number, tap in enumerate(taps):
                        value = self._tap(image, begin, tap, inside, mask)
                        new.append(m.fma(value, given, m.value(inner.carried[number], self.dtype)).x)
                    inner.next = new
                held = inner.out
            loop.next = held
        for number, total in enumerate(loop.out):
            at = f.add(number * self.channels, c)
            m.store(m.value(total, self.dtype), self.e.pointers[self.n], at, mask)

    def _stretches(self) -> list[tuple[int, int, bool]]:
        """The places along the last axis: those whose taps are all inside, and those around them."""
        s, a, p = self.strides[-1], self.low[-1], self.places[-1]
        reach = (self.window[-1] - 1) * self.steps[-1]
        first = min(p, max(0, -(-a // s)))
        last = max(first, min(p, (self.space[-1] - 1 - reach + a) // s + 1))
        parts = [(0, first, False), (first, last, True), (last, p, False)]
        return [part for part in parts if part[0] < part[1]]

    def _tap(self, image: str, begin: list[Index], tap: Sequence[int], inside: bool, mask: Mask) -> Value:
        """An element of a window; 0 outside. `inside`: the last axis need not be asked."""
        asked = len(tap) - inside
        conditions = [
            self.f.compare("ult", self.f.add(start, i * t), n)
            for start, i, t, n in zip(begin[:asked], tap, self.steps, self.space, strict=False)
        ]
        here = self._masked(self._and(conditions), mask)[0] if conditions else mask
        return self._at(image, self.dtype, tap, here)
