"""Winograd's transforms on vectors: patches of images to where products read them, products to places of images.

Values between the transforms lie in a thread's scratch, a matrix for each of the α² elements of a patch:
[element][tile][channel]. Lanes of a vector are neighbouring channels. The mathematics is in chainrule.passes.winograd.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from chainrule import dtypes
from chainrule.engines.native.division import up
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.microkernel import Epilogue, Tile, Touch
from chainrule.engines.native.values import Value, Vectors
from chainrule.passes.winograd import Matrix

FLOAT = dtypes.float32
KIND = SCALARS[FLOAT]


@dataclass(frozen=True)
class Slabs:
    """α² matrices in scratch, of so many tiles (rows) and channels."""

    elements: int
    tiles: int
    channels: int
    lanes: int

    @property
    def row(self) -> int:
        """From one tile to the next: whole vectors, and not all in the same sets of the first cache."""
        length = up(self.channels, self.lanes)
        return length + 16 * (length % 256 == 0)

    @property
    def slab(self) -> int:
        """From one matrix to the next: an odd number of cache lines."""
        lines = up(self.tiles * self.row, 16) // 16
        return 16 * (lines + (lines % 2 == 0))

    @property
    def nbytes(self) -> int:
        """The memory of all."""
        return self.elements * self.slab * 4


@dataclass(frozen=True)
class Cut:
    """An image (batch, height, width, channels) cut into patches of `size` × `size`, `step` apart.

    Patch (n, i, j), of `counts` along each axis, begins at element (i, j) · step − low; it is 0 outside of the image.
    """

    space: tuple[int, ...]
    channels: int
    size: int
    step: int
    low: tuple[int, ...]
    counts: tuple[int, ...]


# -- small matrices of constants


def multiplied(matrix: Matrix, values: Sequence[Value]) -> list[Value]:
    """Matrix · vector. Two values whose coefficients differ in signs alone are replaced by their sum and difference;
    two rows that do so share the two parts that they are the sum and difference of.

    An element that is multiplied by 0 is left out, so that it may be anything.
    """
    columns, values = [list(column) for column in zip(*matrix, strict=True)], list(values)
    for j, k in combinations(range(len(columns)), 2):
        a, b = columns[j], columns[k]
        if _alike(a, b):
            same = [x == y for x, y in zip(a, b, strict=True)]
            columns[j], columns[k] = ([x * (one == s) for x, s in zip(a, same, strict=True)] for one in (True, False))
            values[j], values[k] = values[j] + values[k], values[j] - values[k]
    return _rows(list(zip(*columns, strict=True)), values)


def _rows(matrix: Sequence[Sequence[float]], values: Sequence[Value]) -> list[Value]:
    found: dict[int, Value] = {}
    for i, row in enumerate(matrix):
        twins = [j for j in range(i + 1, len(matrix)) if j not in found and _alike(row, matrix[j])]
        if i in found:
            continue
        if not twins:
            found[i] = _dot(row, values)
            continue
        other = matrix[twins[0]]
        even = _dot([a if a == b else 0 for a, b in zip(row, other, strict=True)], values)
        odds = [a if a != b else 0 for a, b in zip(row, other, strict=True)]
        scale = next(a for a in reversed(odds) if a)
        odd = _dot([a / scale for a in odds], values)
        found[i], found[twins[0]] = _plus(even, scale, odd), _plus(even, -scale, odd)
    return [found[i] for i in range(len(matrix))]


def _alike(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rows of more than two numbers are the same up to signs, of which some differ and some do not."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    same = [x == y for x, y in pairs]
    return len(pairs) > 2 and all(abs(x) == abs(y) for x, y in pairs) and any(same) and not all(same)


def _dot(row: Sequence[float], values: Sequence[Value]) -> Value:
    """Σ constant · value, those with the constant 1 first."""
    order: dict[float, int] = {1: 0, -1: 1}
    present = [(c, x) for c, x in zip(row, values, strict=True) if c]
    (c, x), *others = sorted(present, key=lambda pair: order.get(pair[0], 2))
    total = x if c == 1 else -x if c == -1 else x * c
    for c, x in others:
        total = _plus(total, c, x)
    return total


def _plus(total: Value, c: float, x: Value) -> Value:
    """total + c · x."""
    if abs(c) == 1:
        return total + x if c == 1 else total - x
    return x.m.fma(x, c, total)


def both_sides(
    left: Matrix, right: Matrix, element: Callable[[int, int], Value], put: Callable[[int, int, Value], None]
) -> None:
    """put(i, j, (L · X · Rᵀ)[i, j]) for X[i, j] = element(i, j)."""
    columns = [multiplied(left, [element(k, j) for k in range(len(left[0]))]) for j in range(len(right[0]))]
    for i in range(len(left)):
        for j, value in enumerate(multiplied(right, [column[i] for column in columns])):
            put(i, j, value)


def each_vector(
    f: Function, lanes: int, channels: int, lo: Index, hi: Index, body: Callable[[Index, int | None], None]
) -> None:
    """body(first channel, which lanes count) for the vectors from channel `lo`, a multiple of lanes, up to `hi`."""
    whole = channels // lanes * lanes
    if whole:
        with f.loop(lo, f.min(hi, whole), lanes) as loop:
            body(loop.counter, None)
    if whole < channels:
        if isinstance(hi, int):
            body(whole, channels - whole)
        else:
            with f.when(f.compare("sgt", hi, whole)):
                body(whole, channels - whole)


# -- patches of an image


TAKE = ("ptr from", "ptr to", "ptr zeros", "i64 number", "i64 lo", "i64 hi")


def take(module: Module, host: Host, cut: Cut, matrix: Matrix, slabs: Slabs, whole: bool) -> str:
    """The name of void(TAKE): matrix · patch · matrixᵀ of one patch, for the vectors of channels [lo, hi) (`whole`: for
    all), to the place of its tile in the slabs. At `zeros` there are as many zeros as a row has elements."""
    key = ("winograd", cut, matrix, slabs, whole)
    if key not in module.memo:
        module.memo[key] = f"patch{len(module.memo)}"
        f = Function(module, module.memo[key], TAKE)
        _Taking(f, Vectors(f, slabs.lanes, host), cut, matrix, slabs, whole).write()
    return module.memo[key]


class _Taking:
    """Writes one such function."""

    def __init__(self, f: Function, m: Vectors, cut: Cut, matrix: Matrix, slabs: Slabs, whole: bool) -> None:
        self.f, self.m, self.cut, self.matrix, self.slabs, self.whole = f, m, cut, matrix, slabs, whole
        self.line = cut.space[1] * cut.channels

    def write(self) -> None:
        """Where the patch lies inside it is read as it is; else from zeros where it is outside."""
        f = self.f
        number = f.parameters[3]
        image, starts = self._corner(number)
        self.ahead, _ = self._corner(f.add(number, 1))
        inside = self._inside(starts)
        if inside is None:
            self._transform(lambda a, b: image, lambda a, b: self._offset(a, b))
        else:
            with f.when(inside):
                self._transform(lambda a, b: image, lambda a, b: self._offset(a, b))
            with f.when(f.op(f"xor i1 {inside}, true")):
                there = self._there(image, starts)
                self._transform(lambda a, b: there[a, b], lambda a, b: 0)
        f.ret()

    def _corner(self, number: Index) -> tuple[str, tuple[Index, Index]]:
        """The address of the first pixel of a patch, and its place."""
        f, cut = self.f, self.cut
        batch, i, j = split(f, number, cut.counts)
        top, left = (f.sub(f.mul(a, cut.step), low) for a, low in zip((i, j), cut.low, strict=True))
        at = f.add(f.mul(f.add(f.mul(batch, cut.space[0]), top), self.line), f.mul(left, cut.channels))
        return f.address(f.parameters[0], at, KIND), (top, left)

    def _offset(self, a: int, b: int) -> int:
        """From the first pixel of a patch to another, in elements."""
        return a * self.line + b * self.cut.channels

    def _inside(self, starts: Sequence[Index]) -> str | None:
        """Whether a patch lies inside; None where all do."""
        f, cut, found = self.f, self.cut, None
        for start, n, low, count in zip(starts, cut.space, cut.low, cut.counts, strict=True):
            last = n - cut.size
            if low <= 0 and (count - 1) * cut.step - low <= last:
                continue
            here = f.compare("ult", start, max(last + 1, 0))
            found = here if found is None else f.op(f"and i1 {found}, {here}")
        return found

    def _there(self, image: str, starts: Sequence[Index]) -> dict[tuple[int, int], str]:
        """The address of each pixel of a patch, or that of zeros."""
        f, cut, zeros = self.f, self.cut, self.f.parameters[2]
        rows, columns = (
            [f.compare("ult", f.add(start, i), n) for i in range(cut.size)]
            for start, n in zip(starts, cut.space, strict=True)
        )
        found = {}
        for a, row in enumerate(rows):
            for b, column in enumerate(columns):
                pixel = f.address(image, self._offset(a, b), KIND)
                valid = f.op(f"and i1 {row}, {column}")
                found[a, b] = f.op(f"select i1 {valid}, ptr {pixel}, ptr {zeros}")
        return found

    def _transform(self, start: Callable[[int, int], str], offset: Callable[[int, int], int]) -> None:
        f, m, cut, slabs = self.f, self.m, self.cut, self.slabs
        _, to, _, _, lo, hi = f.parameters

        def vector(c: Index, mask: int | None) -> None:
            target = f.address(to, c, KIND)
            next_one = f.address(self.ahead, c, KIND)
            for a, b in product(range(cut.size), range(cut.size - cut.step, cut.size)):
                at = f.address(next_one, self._offset(a, b), KIND)
                f.prefetch(at)

            def element(a: int, b: int) -> Value:
                return m.load(start(a, b), f.add(c, offset(a, b)), FLOAT, mask)

            def put(a: int, b: int, value: Value) -> None:
                m.store(value, target, (a * len(self.matrix) + b) * slabs.slab)

            both_sides(self.matrix, self.matrix, element, put)

        bounds: tuple[Index, Index] = (0, cut.channels) if self.whole else (lo, hi)
        each_vector(f, m.lanes, cut.channels, *bounds, vector)


def split(f: Function, number: Index, counts: Sequence[int]) -> tuple[Index, Index, Index]:
    """The number of a tile as (batch, row of tiles, place in that row)."""
    down, across = counts
    row = f.div(number, across)
    return f.div(row, down), f.rem(row, down), f.rem(number, across)


# -- results


GIVE = ("ptr from", "ptr arena", "ptr table", "i64 row")


class _Places(Tile):
    """What an epilogue sees: the places of a tile, row after row, and one vector of channels.

    `extent`: places of a matrix of results (all, or those of an image), and of a row of an image.
    """

    def __init__(
        self, f: Function, m: Vectors, valid: tuple[int, int], channels: int, extent: tuple[int, int], place: Index,
        c: Index, mask: int | None,
    ) -> None:  # fmt: skip
        self.f, self.m, self.rows, self.vectors = f, m, valid[0] * valid[1], 1
        self.channels, self.width, self.across, self.lanes_that_count = channels, extent[1], valid[1], mask
        self.batch, self.row, self.column = f.div(place, extent[0]), f.rem(place, extent[0]), c
        self.element = f.add(f.mul(place, channels), c)
        self._corners = {}

    def displacement(self, r: int, j: int) -> int:
        """From the first place to another."""
        return self.below(r) * self.channels

    def beside(self, j: int) -> int:
        """There is one vector."""
        return 0

    def below(self, r: int) -> int:
        """Places from the first one to another."""
        return r // self.across * self.width + r % self.across

    def mask(self, j: int) -> int | None:
        """How many channels of the vector there are; None: all."""
        return self.lanes_that_count

    def stored(self, j: int) -> int | None:
        """The same: results lie in plain rows."""
        return self.lanes_that_count

    def fetch(self, touches: Sequence[Touch], beside: int) -> None:
        """Ask for what an epilogue will meet so many places to the right, where the next tile usually is."""
        f = self.f
        _, arena, table, _ = f.parameters
        for touch in touches:
            first = f.address(touch.start(f, "", arena, table), f.mul(self.element, touch.itemsize), "i8")
            for r in range(self.rows):
                at = self.displacement(r, 0) + beside * self.channels
                f.prefetch(f.address(first, at * touch.itemsize, "i8"), to_write=True)


def give(
    module: Module, host: Host, name: str, matrix: Matrix, slabs: Slabs, extent: tuple[int, int],
    valid: tuple[int, int], epilogue: Epilogue,
) -> str:  # fmt: skip
    """The name of void(GIVE): matrix · products · matrixᵀ of one tile, its first `valid` rows and columns of places.

    `row` is the number of its first place. `extent`: places of a matrix of results, and of a row of the image.
    """
    name = f"{name}.{valid[0]}x{valid[1]}"
    f = Function(module, name, GIVE)
    m = Vectors(f, slabs.lanes, host)
    source, _, _, first = f.parameters
    left, right = matrix[: valid[0]], matrix[: valid[1]]
    alpha = len(matrix[0])

    def vector(c: Index, mask: int | None) -> None:
        start = f.address(source, c, KIND)
        made: dict[tuple[int, int], Value] = {}
        both_sides(
            left, right, lambda a, b: m.load(start, (a * alpha + b) * slabs.slab, FLOAT),
            lambda a, b, value: made.__setitem__((a, b), value),
        )  # fmt: skip
        places = _Places(f, m, valid, slabs.channels, extent, first, c, mask)
        epilogue.begin(places)
        places.fetch(epilogue.touches, len(matrix))
        for r, (a, b) in enumerate(product(*map(range, valid))):
            epilogue.emit(places, r, 0, made[a, b], mask)

    each_vector(f, slabs.lanes, slabs.channels, 0, slabs.channels, vector)
    f.ret()
    return name


# -- results that overlap


ADD = ("ptr from", "ptr to")


def add(module: Module, host: Host, matrix: Matrix, slabs: Slabs, width: int) -> str:
    """The name of void(ADD): matrix · products · matrixᵀ of one tile, added to sums of `width` places in a row."""
    key = ("winograd sums", matrix, slabs, width)
    if key not in module.memo:
        module.memo[key] = f"sums{len(module.memo)}"
        f = Function(module, module.memo[key], ADD)
        m, alpha = Vectors(f, slabs.lanes, host), len(matrix[0])
        source, to = f.parameters

        def vector(c: Index, mask: int | None) -> None:
            start, target = f.address(source, c, KIND), f.address(to, c, KIND)

            def put(a: int, b: int, value: Value) -> None:
                at = (a * width + b) * slabs.row
                m.store(m.load(target, at, FLOAT) + value, target, at)

            both_sides(matrix, matrix, lambda a, b: m.load(start, (a * alpha + b) * slabs.slab, FLOAT), put)

        each_vector(f, slabs.lanes, slabs.channels, 0, slabs.channels, vector)
        f.ret()
    return module.memo[key]


def give_row(
    module: Module, host: Host, name: str, slabs: Slabs, extent: tuple[int, int], count: int, epilogue: Epilogue
) -> str:
    """The name of void(GIVE): sums of `count` places side by side, given as they are."""
    name = f"{name}.{count}"
    f = Function(module, name, GIVE)
    m = Vectors(f, slabs.lanes, host)
    source, _, _, first = f.parameters

    def vector(c: Index, mask: int | None) -> None:
        start = f.address(source, c, KIND)
        places = _Places(f, m, (1, count), slabs.channels, extent, first, c, mask)
        epilogue.begin(places)
        places.fetch(epilogue.touches, count)
        for r in range(count):
            epilogue.emit(places, r, 0, m.load(start, r * slabs.row, FLOAT), mask)

    each_vector(f, slabs.lanes, slabs.channels, 0, slabs.channels, vector)
    f.ret()
    return name
