"""Windows of an image set out in rows, so that a product of matrices can read them.

Where a window lies inside of the image, its elements are a few runs of neighbours (a row of the window each, where taps
stand side by side), which are copied as they are; near the borders it goes tap by tap, with zeros outside.
"""

from itertools import product

from chainrule import dtypes
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index
from chainrule.engines.native.tiles import Window
from chainrule.engines.native.values import Vectors
from chainrule.passes.views import dense_strides

PARAMETERS = ("ptr from", "i64 first", "i64 count", "ptr to", "i64 lo", "i64 hi")
UNROLLED = 64
"""So many vectors are copied without a loop."""


def set_out(
    f: Function, host: Host, dtype: dtypes.DType, window: Window, source: str, first: Index, count: Index, to: str,
    elements: tuple[Index, Index] | None,
) -> None:  # fmt: skip
    """`count` windows from number `first` on, `window.row` apart at `to`; of each only `elements` [lo, hi) if given.

    What stands behind a window in its row may be overwritten, and a vector behind the last one.
    """
    key = ("windows", window, dtype, elements is None)
    memo = f.module.memo
    if key not in memo:
        memo[key] = f"windows{len(memo)}"
        function = Function(f.module, memo[key], PARAMETERS)
        lanes = host.lanes(max(4, dtype.itemsize))
        _Writer(function, Vectors(function, lanes, host), dtype, window, elements is not None).write()
    lo, hi = elements or (0, window.taken)
    f.call(memo[key], ("ptr", source), ("i64", first), ("i64", count), ("ptr", to), ("i64", lo), ("i64", hi))


class _Writer:
    """The function that does it for one kind of window."""

    def __init__(self, f: Function, m: Vectors, dtype: dtypes.DType, window: Window, partly: bool) -> None:
        self.f, self.m, self.dtype, self.w, self.partly = f, m, dtype, window, partly
        self.kind = SCALARS[dtype]
        w = window
        self.batch, *inner, _, _ = dense_strides((w.batch, *w.space, w.groups, w.channels))
        self.strides = tuple(inner)

    def write(self) -> None:
        """All windows asked for."""
        f, w = self.f, self.w
        source, first, count, to, _, _ = f.parameters
        with f.loop(0, count) as loop:
            number: Index = f.add(first, loop.counter)
            starts: list[Index] = []
            for places, stride, low in reversed(list(zip(w.places, w.strides, w.low, strict=True))):
                starts.insert(0, f.sub(f.mul(f.rem(number, places), stride), low))
                number = f.div(number, places)
            at: Index = f.mul(number, self.batch)
            for start, stride in zip(starts, self.strides, strict=True):
                at = f.add(at, f.mul(start, stride))
            slot = f.address(to, f.mul(loop.counter, w.row), self.kind)
            image = f.address(source, at, self.kind)
            self._one(starts, image, slot)
        f.ret()

    def _one(self, starts: list[Index], image: str, slot: str) -> None:
        inside = self._inside(starts)
        if inside is None:
            self._whole(image, slot)
            return
        with self.f.when(inside):
            self._whole(image, slot)
        with self.f.when(self.f.op(f"xor i1 {inside}, true")):
            self._tap_by_tap(starts, image, slot)

    def _inside(self, starts: list[Index]) -> str | None:
        """Whether no tap is outside of the image; None where that is so for every window."""
        f, w, found = self.f, self.w, None
        for start, n, k, t, s, lo, p in zip(
            starts, w.space, w.window, w.steps, w.strides, w.low, w.places, strict=True
        ):
            last = n - 1 - (k - 1) * t  # the last start with all taps inside
            if lo <= 0 and (p - 1) * s - lo <= last:
                continue
            if last < 0:
                return f.compare("ne", 0, 0)
            here = f.compare("ule", start, last)
            found = here if found is None else f.op(f"and i1 {found}, {here}")
        return found

    def _whole(self, image: str, slot: str) -> None:
        """A window that lies inside, run by run."""
        w = self.w
        joined = w.groups == 1 and bool(w.window) and w.steps[-1] == 1
        length = w.channels * (w.window[-1] if joined else 1)
        for number, tap in enumerate(product(*map(range, w.window[:-1] if joined else w.window))):
            offset = sum(i * t * s for i, t, s in zip(tap, w.steps, self.strides, strict=False))
            self._wanted(number * length, length, image, offset, slot, None)

    def _tap_by_tap(self, starts: list[Index], image: str, slot: str) -> None:
        f, w = self.f, self.w
        here = [
            [f.compare("ult", f.add(start, i * t), n) for i in range(k)]
            for start, n, k, t in zip(starts, w.space, w.window, w.steps, strict=True)
        ]
        for number, tap in enumerate(product(*map(range, w.window))):
            conditions = [axis[i] for axis, i in zip(here, tap, strict=True)]
            valid = conditions[0]
            for condition in conditions[1:]:
                valid = f.op(f"and i1 {valid}, {condition}")
            offset = sum(i * t * s for i, t, s in zip(tap, w.steps, self.strides, strict=True))
            self._wanted(number * w.channels, w.channels, image, offset, slot, valid)

    def _wanted(self, begin: int, length: int, image: str, offset: int, slot: str, valid: str | None) -> None:
        """Elements [begin, begin + length) of a window, if they are among those asked for."""
        f = self.f
        source, to = f.address(image, offset, self.kind), f.address(slot, begin, self.kind)
        if not self.partly:
            self._copy(source, to, length, valid)
            return
        asked = f.op(f"and i1 {f.compare('slt', '%lo', begin + length)}, {f.compare('sgt', '%hi', begin)}")
        with f.when(asked):
            self._copy(source, to, length, valid)

    def _copy(self, source: str, to: str, length: int, valid: str | None) -> None:
        """Neighbours, or zeros where they are not valid. Whole vectors are written."""
        m, f = self.m, self.f
        lanes = m.lanes
        everywhere = None if valid is None else m.splat_of(valid, dtypes.bool_).x

        def part(at: Index, count: int) -> None:
            mask: str | int | None = None if count == lanes else count
            if everywhere is not None:
                mask = f.op(f"and <{lanes} x i1> {everywhere}, {m.mask(count)}")
            m.store(m.load(source, at, self.dtype, mask), to, at)

        whole = length // lanes * lanes
        if whole > UNROLLED * lanes:
            with f.loop(0, whole, lanes) as loop:
                part(loop.counter, lanes)
        else:
            for at in range(0, whole, lanes):
                part(at, lanes)
        if length % lanes:
            part(whole, length % lanes)
