"""Sorting: positions by keys, line by line.

Each element becomes a key: a whole number that is smaller where the element comes first. In short lines the place of an
element is the number of those before it, counted for a vector of elements at a time, without a jump. Long lines are
dealt out by the digits of their keys, from the last digit on, each time in order: a radix sort. Digits that are the
same in all keys are passed over.
"""

from chainrule import dtypes
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.values import Value, Vectors
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View
from chainrule.primitives import index

PARAMETERS = ("ptr from", "i64 stride", "i64 count", "ptr work", "ptr to")
SHORT = 128  # elements of the longest line whose places are counted; a multiple of all numbers of lanes
BUCKETS = 256  # numbers that a digit can be
WORD = 8  # bytes


def scratch_bytes(grouping: Grouping, kernel: Kernel) -> int:
    """The scratch memory that a kernel sorts in."""
    node = grouping.nodes[kernel.nodes[0]]
    if node.primitive is not index.argsort:
        return 0
    length = node.shape[node.attributes["axis"]]
    if length <= SHORT:
        return 2 * SHORT * WORD
    digits, words = _digits(grouping.nodes[node.inputs[0]].dtype)
    return digits * BUCKETS * WORD + 2 * length * words * WORD


def argsort(
    evaluator: Evaluator, view: View, lines: tuple[Index, Index], length: int, after: int, descending: bool
) -> None:
    """The order of the lines [lo, hi), whose elements lie `after` apart.

    NaN counts as the largest number, and what is equal keeps its order.
    """
    f, n = evaluator.f, evaluator.kernel.nodes[0]
    source, result = evaluator.nodes[view.base].dtype, evaluator.pointers[n]
    name = _sort(f.module, source, descending, length <= SHORT, evaluator.m)
    with f.loop(*lines) as loop:
        start = f.add(f.mul(f.div(loop.counter, after), length * after), f.rem(loop.counter, after))
        line = f.address(evaluator.pointers[view.base], start, SCALARS[source])
        arguments: tuple[Index, ...] = (line, after, length, "%scratch", f.address(result, start, "i64"))
        types = [parameter.split()[0] for parameter in PARAMETERS]
        f.call(name, *zip(types, arguments, strict=True))


def _sort(module: Module, dtype: dtypes.DType, descending: bool, short: bool, like: Vectors) -> str:
    """A function that sorts one line, written once a module: its name."""
    key = ("sort", dtype, descending, short)
    if key not in module.memo:
        name = f"{'rank' if short else 'sort'}.{dtype.name}.{'down' if descending else 'up'}"
        module.memo[key] = name
        f = Function(module, name, PARAMETERS)
        (_rank if short else _radix)(f, like, dtype, descending)
        f.ret()
    return module.memo[key]


# -- keys


def _key_type(dtype: dtypes.DType) -> dtypes.DType:
    return dtypes.int64 if dtype.itemsize == 8 else dtypes.int32


def _digits(dtype: dtypes.DType) -> tuple[int, int]:
    """How many digits a key has, and how many words it takes together with its position."""
    if dtype.itemsize == 8:
        return 8, 2
    return (1 if dtype in (dtypes.uint8, dtypes.bool_) else 4), 1


def _key(m: Vectors, x: Value, descending: bool) -> Value:
    """Signed numbers in the order that is wanted. −0 and 0 are equal, and NaN is larger than infinity."""
    kind = _key_type(x.dtype)
    last = 8 * kind.itemsize - 1
    if dtypes.is_float(x.dtype):
        number = m.value(x.x, dtypes.float32) if x.dtype in dtypes.HALVES else x
        bits = m.bitcast(number + 0.0, kind)
        largest = (1 << last) - 1
        key = m.where(number != number, largest, bits ^ ((bits >> last) & largest))
    elif x.dtype == dtypes.uint32:
        key = m.value(x.x, kind) ^ -(1 << last)
    else:
        key = m.astype(x, kind)
    return ~key if descending else key


# -- short lines


def _rank(f: Function, like: Vectors, dtype: dtypes.DType, descending: bool) -> None:
    source, stride, count, keys, to = f.parameters
    kind = _key_type(dtype)
    one, m = Vectors(f, 1, like.host), Vectors(f, like.host.lanes(kind.itemsize), like.host)
    places = f.address(keys, SHORT, "i64")
    whole = f.sub(f.add(count, m.lanes - 1), f.rem(f.add(count, m.lanes - 1), m.lanes))
    m.store(m.constant((1 << (8 * kind.itemsize - 1)) - 1, kind), keys, f.sub(whole, m.lanes))  # behind the last one
    with f.loop(0, count) as loop:
        x = one.load(source, f.mul(loop.counter, stride), dtype)
        one.store(_key(one, x, descending), keys, loop.counter)
    with f.loop(0, whole, m.lanes) as block:
        _count(m, keys, block.counter, count, places, kind)
    with f.loop(0, count) as loop:
        place = one.astype(one.load(places, loop.counter, kind), dtypes.int64)
        f.store("i64", loop.counter, f.address(to, f.mul(one.lane(place, 0), stride), "i64"), WORD)


def _count(m: Vectors, keys: str, block: str, count: str, places: str, kind: dtypes.DType) -> None:
    """The places of a vector of elements: how many are smaller, or are equal and stand before."""
    f = m.f
    mine, numbers = m.load(keys, block, kind), m.lane_numbers(block, kind)
    total = m.constant(0, kind)
    middle, end = f.min(f.add(block, m.lanes), count), count
    for lo, hi in ((0, block), (block, middle), (middle, end)):
        with f.loop(lo, hi, 1, [(total.type, total.x)]) as loop:
            other = m.load_splat(keys, loop.counter, kind)
            if lo == 0:
                first = other <= mine
            elif hi == end:
                first = other < mine
            else:
                number = m.astype(m.splat_of(loop.counter, dtypes.int64), kind)
                first = (other < mine) | ((other == mine) & (number < numbers))
            loop.next = [(m.value(loop.carried[0], kind) + m.astype(first, kind)).x]
        total = m.value(loop.out[0], kind)
    m.store(total, places, block)


# -- long lines


def _radix(f: Function, like: Vectors, dtype: dtypes.DType, descending: bool) -> None:
    """Entries are a word, the key before the position; or two where a key takes all of one."""
    source, stride, count, counts, to = f.parameters
    digits, words = _digits(dtype)
    entry, low = ("i64", 32) if words == 1 else ("<2 x i64>", 0)  # its type, and the bits below the last digit
    m, kind = Vectors(f, 1, like.host), _key_type(dtype)
    one = f.address(counts, digits * BUCKETS, "i64")
    two = f.address(one, f.mul(count, words), "i64")
    f.effect("llvm.memset.p0.i64", ("ptr", counts), ("i8", 0), ("i64", digits * BUCKETS * WORD), ("i1", "false"))

    def place(entries: str, i: Index) -> str:
        return f.address(entries, f.mul(i, words), "i64")

    def bucket(word: str, shift: Index, row: Index) -> str:
        """The counter of the digit that begins at a bit."""
        digit = f.op(f"and i64 {f.op(f'lshr i64 {word}, {shift}')}, {BUCKETS - 1}")
        return f.address(counts, f.add(f.mul(row, BUCKETS), digit), "i64")

    with f.loop(0, count) as loop:
        key = _key(m, m.load(source, f.mul(loop.counter, stride), dtype), descending)
        if digits > 1:
            key = key ^ -(1 << (8 * kind.itemsize - 1))  # from here on without a sign
        word = m.lane(m.value(key.x, kind), 0)
        if words == 1:
            word = f.op(f"shl i64 {f.op(f'zext i32 {word} to i64')}, 32")
            f.store("i64", f.op(f"or i64 {word}, {loop.counter}"), place(one, loop.counter), WORD)
        else:
            f.store("i64", word, place(one, loop.counter), WORD)
            f.store("i64", loop.counter, f.address(place(one, loop.counter), 1, "i64"), WORD)
        for row in range(digits):
            at = bucket(word, low + 8 * row, row)
            f.store("i64", f.add(f.load("i64", at, WORD), 1), at, WORD)
    with f.loop(0, digits, 1, [("ptr", one), ("ptr", two)]) as level:
        given, made = level.carried
        shift = f.add(f.mul(level.counter, 8), low)
        some = f.load("i64", bucket(f.load("i64", given, WORD), shift, level.counter), WORD)
        differ = f.compare("ne", some, count)
        with f.when(differ):
            with f.loop(0, BUCKETS, 1, [("i64", "0")]) as loop:  # from how many to where they begin
                at = f.address(counts, f.add(f.mul(level.counter, BUCKETS), loop.counter), "i64")
                many = f.load("i64", at, WORD)
                f.store("i64", loop.carried[0], at, WORD)
                loop.next = [str(f.add(loop.carried[0], many))]
            with f.loop(0, count) as loop:
                whole = f.load(entry, place(given, loop.counter), WORD)
                word = whole if words == 1 else f.op(f"extractelement {entry} {whole}, i64 0")
                at = bucket(word, shift, level.counter)
                number = f.load("i64", at, WORD)
                f.store("i64", f.add(number, 1), at, WORD)
                f.store(entry, whole, place(made, number), WORD)
        level.next = [f.op(f"select i1 {differ}, ptr {a}, ptr {b}") for a, b in ((made, given), (given, made))]
    with f.loop(0, count) as loop:
        position = f.load("i64", f.address(place(level.out[0], loop.counter), words - 1, "i64"), WORD)
        if words == 1:
            position = f.op(f"and i64 {position}, {(1 << 32) - 1}")
        f.store("i64", position, f.address(to, f.mul(loop.counter, stride), "i64"), WORD)
