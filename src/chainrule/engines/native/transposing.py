"""Blocks of memory turned in registers: rows of a few columns become one vector a column, with a row in each lane.

A stream is a list of vectors, read one after another. Dealing out the elements of a stream in turn gives its columns:
by halves (even and odd elements) while the number of columns is even, then all at once. Where that takes many shuffles,
or rows lie apart, rows are first put at a distance of a power of two. Truth values are turned as bytes.
"""

from collections.abc import Sequence

from chainrule import dtypes
from chainrule.engines.native.ir import Index
from chainrule.engines.native.values import Value, Vectors


def load_columns(
    m: Vectors, pointer: str, start: Index, dtype: dtypes.DType, pitch: int, columns: int, rows: int
) -> list[Value]:
    """The columns of `rows` rows that lie `pitch` elements apart. Lanes from `rows` on are 0; nothing else is read."""
    if dtype == dtypes.bool_:
        return [v != 0 for v in load_columns(m, pointer, start, dtypes.uint8, pitch, columns, rows)]
    end = (rows - 1) * pitch + columns  # elements up to here may be read

    def vector(offset: int, count: int) -> Value:
        """Elements of which `count` are wanted."""
        if count <= 0:
            return m.constant(0, dtype)
        whole = offset >= 0 and offset + m.lanes <= end
        return m.load(pointer, m.f.add(start, offset), dtype, None if whole else min(count, m.lanes))

    if pitch == columns and _dealing(columns) <= _spacing(columns, m.lanes):
        stream = [vector(k * m.lanes, rows * columns - k * m.lanes) for k in range(columns)]
        return _deal(stream, columns, columns)
    apart = _power(columns)
    group = m.lanes // apart  # rows in a vector
    if pitch == columns:
        stream = []
        for first in range(0, m.lanes, group):
            given = vector(first * pitch, min(group, rows - first) * columns)
            stream.append(given if group == 1 else _spread(given, columns, apart))
    else:
        stream = [vector(row * pitch, columns if row < rows else 0) for row in range(m.lanes)]
        width = apart
        while width < m.lanes:
            stream = [_join(a, b, width) for a, b in zip(stream[::2], stream[1::2], strict=True)]
            width *= 2
    return _deal(stream, apart, columns)


def store_columns(m: Vectors, values: Sequence[Value], pointer: str, start: Index, rows: int) -> None:
    """Write columns as `rows` rows, one after another."""
    columns = len(values)
    if values[0].dtype == dtypes.bool_:
        values = [m.astype(v, dtypes.uint8) for v in values]
    end = rows * columns
    if _dealing(columns) <= _spacing(columns, m.lanes):
        group, stream = m.lanes, [(k * m.lanes, v) for k, v in enumerate(_merge(values))]
        sizes = [m.lanes] * columns
    else:
        apart = _power(columns)
        group = m.lanes // apart
        merged = _merge([*values, *[m.value("poison", values[0].dtype)] * (apart - columns)])
        packed = merged if group == 1 else [_gathered(v, columns, apart) for v in merged]
        stream = [(k * group * columns, v) for k, v in enumerate(packed)]
        sizes = [group * columns] * len(packed)
    for (offset, value), size in zip(stream, sizes, strict=True):
        count = min(size, end - offset)
        if count > 0:  # what is written past the count is overwritten by the next vectors
            m.store(value, pointer, m.f.add(start, offset), None if offset + m.lanes <= end else count)


def shuffle(a: Value, b: Value, order: Sequence[int]) -> Value:
    """Lanes of a (from 0 on) and of b (from `lanes` on); −1: any."""
    lanes = ", ".join("i32 poison" if n < 0 else f"i32 {n}" for n in order)
    x = a.m.f.op(f"shufflevector {a.type} {a.x}, {b.type} {b.x}, <{len(order)} x i32> <{lanes}>")
    return Value(a.m, x, a.dtype)


# -- how many shuffles it takes


def _power(n: int) -> int:
    """The power of two from n on."""
    return 1 << (n - 1).bit_length()


def _dealing(columns: int) -> int:
    """Of dealing out a stream as it is."""
    odd, halvings = columns, 0
    while odd % 2 == 0:
        odd, halvings = odd // 2, halvings + 1
    return columns * (halvings + odd - 1)


def _spacing(columns: int, lanes: int) -> int:
    """Of putting rows at a distance of a power of two first."""
    apart = _power(columns)
    return apart * (apart.bit_length() - 1) + (apart if apart < lanes else 0)


# -- from a stream to columns


def _deal(stream: list[Value], columns: int, wanted: int) -> list[Value]:
    """The first `wanted` columns of a stream of rows of so many columns."""
    if wanted == 0:
        return []
    if columns == 1:
        return stream
    lanes = stream[0].m.lanes
    if columns % 2:
        return [_picked(stream, [row * columns + c for row in range(lanes)]) for c in range(wanted)]
    halves = []
    for part in (0, 1):
        order = range(part, 2 * lanes, 2)
        half = [shuffle(a, b, order) for a, b in zip(stream[::2], stream[1::2], strict=True)]
        halves.append(_deal(half, columns // 2, (wanted + 1 - part) // 2))
    return [halves[c % 2][c // 2] for c in range(wanted)]


def _picked(stream: Sequence[Value], places: Sequence[int]) -> Value:
    """The elements of a stream at these places."""
    lanes = stream[0].m.lanes
    found: Value | None = None
    pending: dict[int, int] = {}  # where in `found` the element of a lane is
    for k, vector in enumerate(stream):
        here = [i for i in range(lanes) if places[i] // lanes == k]
        if not here:
            continue
        if found is None:
            found, pending = vector, {i: places[i] % lanes for i in here}
            continue
        order = [pending.get(i, -1) for i in range(lanes)]
        for i in here:
            order[i] = lanes + places[i] % lanes
        found = shuffle(found, vector, order)
        pending = {i: i for i in range(lanes) if order[i] >= 0}
    assert found is not None
    order = [pending.get(i, -1) for i in range(lanes)]
    return found if order == list(range(lanes)) else shuffle(found, found, order)


def _spread(vector: Value, columns: int, apart: int) -> Value:
    """Rows from a distance of `columns` to one of `apart`."""
    order = [row * columns + c if c < columns else -1 for row in range(vector.m.lanes // apart) for c in range(apart)]
    return shuffle(vector, vector, order)


def _join(a: Value, b: Value, width: int) -> Value:
    """The first lanes of a, then those of b."""
    lanes = a.m.lanes
    order = [*range(width), *range(lanes, lanes + width)]
    return shuffle(a, b, order + [-1] * (lanes - 2 * width))


# -- from columns to a stream


def _merge(columns: Sequence[Value]) -> list[Value]:
    """The stream of the rows of columns."""
    count = len(columns)
    if count == 1:
        return list(columns)
    lanes = columns[0].m.lanes
    if count % 2:
        spots = [divmod(e, count) for e in range(count * lanes)]
        places = [column * lanes + row for row, column in spots]
        return [_picked(columns, places[k * lanes : (k + 1) * lanes]) for k in range(count)]
    evens, odds = _merge(columns[::2]), _merge(columns[1::2])
    stream = []
    for a, b in zip(evens, odds, strict=True):
        for half in (0, lanes // 2):
            half_places = range(half, half + lanes // 2)
            stream.append(shuffle(a, b, [at + part for at in half_places for part in (0, lanes)]))
    return stream


def _gathered(vector: Value, columns: int, apart: int) -> Value:
    """Rows from a distance of `apart` to one of `columns`."""
    lanes = vector.m.lanes
    order = [row * apart + c for row in range(lanes // apart) for c in range(columns)]
    return shuffle(vector, vector, order + [-1] * (lanes - len(order)))


# -- sums across


def sums_across(vectors: Sequence[Value], step: int = 1) -> Value:
    """The sums of the lanes of vectors, as many as a power of two: the sum of vector i in the lanes i.

    Where there are fewer vectors than lanes, parts of the sums stand in lanes i + n, i + 2n, …, and the results for
    further n vectors are put together in the same way with `step` n. Neighbours come first, as in `evaluate.across`.
    """
    while len(vectors) > 1:
        vectors = [_half_added(a, b, step) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        step *= 2
    return vectors[0]


def _half_added(a: Value, b: Value, step: int) -> Value:
    """a[i] + a[i + step] in lanes that lack the bit `step`, b[i] + b[i − step] in those that have it."""
    lanes = a.m.lanes
    straight = shuffle(a, b, [lanes + i if i & step else i for i in range(lanes)])
    across = shuffle(a, b, [lanes + i - step if i & step else i + step for i in range(lanes)])
    return straight + across
