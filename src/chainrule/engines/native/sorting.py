"""Sorting: a stable merge sort of positions, line by line.

An entry is an element and its position. Runs of 1, 2, 4, … entries are merged from one half of the scratch memory to
the other. Both candidates of a merge are always looked at, and which one is taken is an addition rather than a jump,
since a jump could not be foretold.
"""

from chainrule import dtypes
from chainrule.engines.native.evaluate import Evaluator
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.values import Value, Vectors
from chainrule.passes.grouping import Grouping
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View
from chainrule.primitives import index

PARAMETERS = ("ptr from", "i64 stride", "i64 count", "ptr one", "ptr two", "ptr to")
ENTRY = 16  # bytes: the element, and behind it the position


def scratch_bytes(grouping: Grouping, kernel: Kernel) -> int:
    """The scratch memory that a kernel sorts in."""
    node = grouping.nodes[kernel.nodes[0]]
    if node.primitive is not index.argsort:
        return 0
    return 2 * _half(node.shape[node.attributes["axis"]])


def _half(along: int) -> int:
    """Bytes of the entries of a line, and of one more."""
    return ENTRY * (along + 1)


def argsort(evaluator: Evaluator, view: View, before: int, along: int, after: int, descending: bool) -> None:
    """The order of each line along an axis; NaN counts as the largest number, and what is equal keeps its order."""
    f, n = evaluator.f, evaluator.kernel.nodes[0]
    source, result = evaluator.nodes[view.base].dtype, evaluator.pointers[n]
    name = _sort(f.module, source, descending, evaluator.m)
    second = f.address("%scratch", _half(along), "i8")
    with f.loop(0, before) as outer, f.loop(0, after) as inner:
        start = f.add(f.mul(outer.counter, along * after), inner.counter)
        line = f.address(evaluator.pointers[view.base], start, SCALARS[source])
        to = f.address(result, start, "i64")
        arguments: tuple[Index, ...] = (line, after, along, "%scratch", second, to)
        types = [parameter.split()[0] for parameter in PARAMETERS]
        f.call(name, *zip(types, arguments, strict=True))


def _sort(module: Module, dtype: dtypes.DType, descending: bool, like: Vectors) -> str:
    """A function that sorts one line, written once a module: its name."""
    key = ("sort", dtype, descending)
    if key not in module.memo:
        module.memo[key] = f"sort.{dtype.name}.{'down' if descending else 'up'}"
        f = Function(module, module.memo[key], PARAMETERS)
        _write(f, Vectors(f, 1, like.host), dtype, descending)
    return module.memo[key]


def _write(f: Function, m: Vectors, dtype: dtypes.DType, descending: bool) -> None:
    source, stride, count, one, two, to = f.parameters
    held = dtypes.float32 if dtype in dtypes.HALVES else dtypes.uint8 if dtype == dtypes.bool_ else dtype

    def entry(entries: str, number: Index) -> str:
        return f.address(entries, f.mul(number, ENTRY // 8), "i64")

    with f.loop(0, count) as loop:
        value = m.load(source, f.mul(loop.counter, stride), dtype)
        m.store(m.astype(value, held), entry(one, loop.counter), 0)
        f.store("i64", loop.counter, f.address(entry(one, loop.counter), 1, "i64"), 8)
    below = f.intrinsic("llvm.ctlz.i64", "i64", ("i64", f.sub(count, 1)), ("i1", "false"))
    rounds = f.op(f"select i1 {f.compare('sgt', count, 1)}, i64 {f.sub(64, below)}, i64 0")
    with f.loop(0, rounds, 1, [("ptr", one), ("ptr", two)]) as level:
        given, made = level.carried
        width = f.op(f"shl i64 1, {level.counter}")
        pairs = f.op(f"lshr i64 {f.add(count, f.sub(f.add(width, width), 1))}, {f.add(level.counter, 1)}")
        with f.loop(0, pairs) as pair:
            start = f.mul(pair.counter, f.add(width, width))
            middle = f.min(f.add(start, width), count)
            end = f.min(f.add(middle, width), count)
            with f.loop(start, end, 1, [("i64", str(start)), ("i64", str(middle))]) as loop:
                i, j = loop.carried  # a run that is used up is looked at once more, one entry behind, and not taken
                left, right = entry(given, i), entry(given, j)
                earlier = m.lane(_before(m.load(right, 0, held), m.load(left, 0, held), descending), 0)
                wanted = f.op(f"or i1 {earlier}, {f.compare('sge', i, middle)}")
                taken = f.op(f"and i1 {wanted}, {f.compare('slt', j, end)}")
                chosen = f.load("<2 x i64>", f.op(f"select i1 {taken}, ptr {right}, ptr {left}"), 8)
                f.store("<2 x i64>", chosen, entry(made, loop.counter), 8)
                step = f.op(f"zext i1 {taken} to i64")
                loop.next = [str(f.add(i, f.sub(1, step))), str(f.add(j, step))]
        level.next = [made, given]
    with f.loop(0, count) as loop:
        position = f.load("i64", f.address(entry(level.out[0], loop.counter), 1, "i64"), 8)
        f.store("i64", position, f.address(to, f.mul(loop.counter, stride), "i64"), 8)
    f.ret()


def _before(a: Value, b: Value, descending: bool) -> Value:
    """Whether a comes before b, though it stood behind it."""
    if descending:
        a, b = b, a
    less = a < b
    return less | ((b != b) & (a == a)) if dtypes.is_float(a.dtype) else less
