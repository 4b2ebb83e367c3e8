"""A planned Program as one module of IR: a function for each kernel, and `epoch`, which runs steps of them."""

from collections.abc import Callable

from chainrule import dtypes
from chainrule.engines.native import barrier as barriers
from chainrule.engines.native import memory, narrow, winograd
from chainrule.engines.native.columns import ColumnWriter
from chainrule.engines.native.contraction import emit as emit_contraction
from chainrule.engines.native.division import Batches, Columns, Flat, Parts, Rows, Share, Single, Together
from chainrule.engines.native.epilogue import NodesEpilogue
from chainrule.engines.native.evaluate import PARAMETERS, Evaluator, Spot
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.loops import emit_loop
from chainrule.engines.native.places import STOP, WATCH
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.rows import RowWriter
from chainrule.engines.native.singles import SingleWriter
from chainrule.engines.native.sparse import SparseWriter
from chainrule.engines.native.steps import barrier, calls, finish, pointer_of
from chainrule.engines.native.values import Value, Vectors
from chainrule.engines.native.windows import WindowWriter
from chainrule.passes.views import View

EPOCH = (
    "ptr arena",
    "ptr passed",
    "ptr scratch",
    "i64 steps",
    "ptr feed",
    "ptr outs",
    "ptr sync",
    "i64 thread",
    "i64 threads",
)
Row = tuple[str, Index]  # memory, and the number of a row in it
OTHER_WIDTH: dict[dtypes.DType, dtypes.DType] = {dtypes.float32: dtypes.float64, dtypes.float64: dtypes.float32}
NOT_FINITE = 2  # what stops the steps: an error, or a loss that is no number


def emit(plan: NativePlan) -> str:
    """The module as text. `epoch(arena, passed, scratch, steps, feed, outs, sync, thread, threads)` is its entrance.

    passed pointers to the passed inputs
    feed   0, or the numbers of the rows of each step; then for each passed input (source or 0, whether it is to be
           converted): its rows are gathered into the memory that `passed` points to
    outs   pointers to the results of the first step; those of the next ones follow
    """
    module = Module()
    barriers.emit(module, plan.host)
    for planned in plan.kernels:
        if not planned.absorbed:
            _kernel(plan, planned, module)
    _gather(plan, module)
    _epoch(plan, module)
    return module.text()


def _kernel(plan: NativePlan, planned: PlannedKernel, module: Module) -> None:
    if planned.form == "contract":
        assert planned.tiles is not None
        emit_contraction(module, planned.name, planned.tiles, plan.host, NodesEpilogue(plan, planned))
        return
    if planned.form == "loop":
        emit_loop(plan, planned, module, _kernel)
        return
    f = Function(module, planned.name, PARAMETERS)
    evaluator = Evaluator(plan.grouping, planned.kernel, f, planned.lanes, plan.host, plan.places)
    if planned.form == "flat":
        _flat(planned, evaluator)
    elif planned.form == "columns":
        _columns(planned, evaluator)
    elif planned.form == "narrow":
        narrow.write(planned, evaluator)
    elif planned.form == "winograd":
        assert isinstance(planned.share, Batches | Parts)
        epilogue, (lo, hi) = NodesEpilogue(plan, planned), units(f, planned.share)
        winograd.write(evaluator, planned.name, plan.host, epilogue, planned.share, lo, hi)
    elif planned.form == "sparse":
        lo, hi = units(f, planned.share)
        SparseWriter(evaluator).write(lo, hi)
    elif planned.form == "window":
        lo, hi = units(f, planned.share)
        WindowWriter(evaluator).write(lo, hi)
    elif planned.form == "single":
        writer = SingleWriter(evaluator)
        if isinstance(planned.share, Single):
            _alone(f, writer.write)
        else:
            writer.write(units(f, planned.share))
    else:
        _rows(planned, evaluator)
    f.ret()


def _alone(f: Function, body: Callable[[], None]) -> None:
    """The first thread alone."""
    with f.when(f.compare("eq", "%thread", 0)):
        body()


def units(f: Function, share: Share) -> tuple[Index, Index]:
    """The units that belong to this thread."""
    assert not isinstance(share, (Single, Together))
    return f.slice(share.count, "%thread", "%threads")


def _rows(planned: PlannedKernel, evaluator: Evaluator) -> None:
    f, share, writer = evaluator.f, planned.share, RowWriter(evaluator)
    if isinstance(share, Single):
        _alone(f, lambda: writer.write(0))
        return
    assert isinstance(share, Rows)
    writer.prepare()
    lo, hi = units(f, share)
    lo, hi = share.first(f, lo), share.first(f, hi)
    with f.loop(lo, hi) as loop:
        writer.write(loop.counter)


def _flat(planned: PlannedKernel, evaluator: Evaluator) -> None:
    """All elements in a row, whatever they are elements of."""
    f, kernel, share = evaluator.f, planned.kernel, planned.share
    assert isinstance(share, Flat)
    total = planned.elements
    whole, rest = total // planned.lanes, total % planned.lanes
    members = set(kernel.nodes)
    pointers = evaluator.pointers

    def vector(at: Index, mask: int | None) -> None:
        values: dict[int, Value] = {}

        def operand(view: View) -> Value:
            x = view.base
            if x not in values:
                node = evaluator.nodes[x]
                if x not in pointers and x not in members:
                    values[x] = evaluator.load(view, "full", Spot((0,) * (len(kernel.sizes) - 1), 0))
                elif node.size == 1 and kernel.size > 1:
                    values[x] = evaluator.m.load_splat(pointers[x], 0, node.dtype)
                else:
                    values[x] = evaluator.m.load(pointers[x], at, node.dtype, mask)
            return values[x]

        spot = Spot((), at, mask)
        for n in kernel.nodes:
            values[n] = evaluator.compute(n, [operand(v) for v in evaluator.grouping.operands(n)], spot)
        for n in kernel.outputs:
            evaluator.m.store(values[n], pointers[n], at, mask)

    lo, hi = units(f, share)
    if whole:
        with f.loop(lo, f.min(hi, whole)) as loop:
            vector(f.mul(loop.counter, planned.lanes), None)
    if rest:
        _last(f, lo, hi, whole, lambda: vector(whole * planned.lanes, rest))


def _last(f: Function, lo: Index, hi: Index, unit: int, body: Callable[[], None]) -> None:
    """What the thread does that has the given unit."""
    here = f.op(f"and i1 {f.compare('sle', lo, unit)}, {f.compare('sgt', hi, unit)}")
    with f.when(here):
        body()


def _columns(planned: PlannedKernel, evaluator: Evaluator) -> None:
    f, share, writer = evaluator.f, planned.share, ColumnWriter(evaluator)
    lanes = planned.lanes
    vectors = -(-writer.columns // lanes)
    lo, hi = units(f, share)
    if isinstance(share, Columns):
        group = share.width // lanes
        whole = share.count if vectors % group == 0 and writer.columns % lanes == 0 else share.count - 1
        if whole:
            with f.loop(lo, f.min(hi, whole)) as loop:
                writer.write(0, f.mul(loop.counter, share.width), group, False)
        if whole < share.count:
            _last(f, lo, hi, whole, lambda: writer.write(0, whole * share.width, vectors - whole * group, True))
        return
    assert isinstance(share, Batches)
    with f.loop(lo, hi) as loop:
        for first in range(0, vectors, 4):
            count = min(4, vectors - first)
            writer.write(loop.counter, first * lanes, count, first + count == vectors)


# -- steps


def _gather(plan: NativePlan, module: Module) -> None:
    """void gather(table, feed, step, thread, threads): the rows of a step, each thread its part of them."""
    f = Function(module, "gather", ("ptr table", "ptr feed", "i64 step", "i64 thread", "i64 threads"))
    order = f.load("ptr", "%feed", 8)
    for k, i in enumerate(plan.passed):
        node = plan.program.nodes[i]
        if not node.ndim:
            continue
        source = f.load("ptr", f.address("%feed", 1 + 2 * k, "ptr"), 8)
        given = f.op(f"icmp ne ptr {source}, null")
        with f.when(given):
            converted = f.load("i64", f.address("%feed", 2 + 2 * k, "i64"), 8)
            to = f.load("ptr", f.address("%table", k, "ptr"), 8)
            rows, length = node.shape[0], node.size // max(node.shape[0], 1)
            lo, hi = f.slice(rows, "%thread", "%threads")
            first = f.address(order, f.mul("%step", rows), "i64")
            with f.loop(lo, hi) as loop:
                number = f.load("i64", f.address(first, loop.counter, "i64"), 8)
                _row(f, plan, node.dtype, length, (source, number), (to, loop.counter), converted)
    f.ret()


def _row(f: Function, plan: NativePlan, dtype: dtypes.DType, length: int, source: Row, to: Row, converted: str) -> None:
    """One row from where the data lie: as it is, or from the other width of floats."""
    other = OTHER_WIDTH.get(dtype)
    with f.when(f.compare("eq", converted, 0)):
        kind = SCALARS[dtype]
        a, b = (f.address(pointer, f.mul(row, length), kind) for pointer, row in (source, to))
        f.effect("llvm.memcpy.p0.p0.i64", ("ptr", b), ("ptr", a), ("i64", length * dtype.itemsize), ("i1", "false"))
    if other is None:
        return
    with f.when(f.compare("ne", converted, 0)):
        m = Vectors(f, plan.host.lanes(8), plan.host)
        a = f.address(source[0], f.mul(source[1], length), SCALARS[other])
        b = f.address(to[0], f.mul(to[1], length), SCALARS[dtype])
        whole = length // m.lanes * m.lanes
        if whole:
            with f.loop(0, whole, m.lanes) as loop:
                m.store(m.astype(m.load(a, loop.counter, other), dtype), b, loop.counter)
        if length % m.lanes:
            mask = length % m.lanes
            m.store(m.astype(m.load(a, whole, other, mask), dtype), b, whole, mask)


def _epoch(plan: NativePlan, module: Module) -> None:
    f = Function(module, "epoch", EPOCH, internal=False, attributes="nounwind")
    saved = memory.enter(f, plan.host)
    stop = f.address("%arena", STOP, "i8")
    scratch = f.address("%scratch", f.mul("%thread", plan.scratch_bytes), "i8")
    _table(plan, f, scratch)
    fed = f.op(f"icmp ne ptr {f.load('ptr', '%feed', 8)}, null")
    with f.loop(0, "%steps") as loop, f.when(f.compare("eq", f.load("i64", stop, 8), 0)):
        with f.when(fed):
            f.call(
                "gather",
                ("ptr", "%table"),
                ("ptr", "%feed"),
                ("i64", loop.counter),
                ("i64", "%thread"),
                ("i64", "%threads"),
            )
            barrier(f)
        _step(plan, f, scratch, loop.counter)
    memory.leave(f, plan.host, saved)
    f.ret()


def _table(plan: NativePlan, f: Function, scratch: str) -> None:
    """The table that kernels get: a thread has its own, where each has parts of values in memory of its own."""
    if not plan.parts:
        f.line("%table = getelementptr i8, ptr %passed, i64 0")
        return
    f.line(f"%table = getelementptr i8, ptr {scratch}, i64 {plan.table_at}")
    size = ("i64", 8 * len(plan.passed))
    f.effect("llvm.memcpy.p0.p0.i64", ("ptr", "%table"), ("ptr", "%passed"), size, ("i1", "false"))


def _step(plan: NativePlan, f: Function, scratch: str, step: Index) -> None:
    """One step: the kernels; what is copied; the results. Nothing is overwritten once an error was found."""
    guard = plan.schedule.guard
    calls(plan, f, scratch, plan.kernels[:guard])
    if guard and guard < len(plan.kernels):
        barrier(f)
        with f.when(f.compare("eq", f.load("i64", "%arena", 8), 0)):
            calls(plan, f, scratch, plan.kernels[guard:])
            finish(plan, f)
    else:
        calls(plan, f, scratch, plan.kernels[guard:])
        finish(plan, f)
    _results(plan, f, step)


def _results(plan: NativePlan, f: Function, step: Index) -> None:
    """The first thread hands out the results, and decides whether to go on, before anybody begins the next step."""
    alone = {n for k in plan.kernels if isinstance(k.share, Single) for n in k.kernel.outputs}
    if not all(x in alone for x in plan.results):
        barrier(f)
    with f.when(f.compare("eq", "%thread", 0)):
        for k, x in enumerate(plan.results):
            node = plan.grouping.nodes[x]
            out = f.load("ptr", f.address("%outs", k, "ptr"), 8)
            to = f.address(out, f.mul(step, node.nbytes), "i8")
            f.effect(
                "llvm.memcpy.p0.p0.i64",
                ("ptr", to),
                ("ptr", pointer_of(plan, f, x, 0)),
                ("i64", node.nbytes),
                ("i1", "false"),
            )
        stop = f.address("%arena", STOP, "i8")
        failed = f.compare("ne", f.load("i64", "%arena", 8), 0)
        with f.when(failed):
            f.store("i64", 1, stop, 8)
            f.store("i64", step, f.address("%arena", 3, "i64"), 8)
        _watch(plan, f, step)
    barrier(f)


def _watch(plan: NativePlan, f: Function, step: Index) -> None:
    """Stop when the first result, the loss, is no finite number, if somebody asked for that."""
    if not plan.results or not dtypes.is_float(plan.grouping.nodes[plan.results[0]].dtype):
        return
    x = plan.results[0]
    dtype = plan.grouping.nodes[x].dtype
    if plan.grouping.nodes[x].size != 1 or dtype in dtypes.HALVES:
        return
    kind = SCALARS[dtype]
    loss = f.load(kind, pointer_of(plan, f, x, 0), dtype.itemsize)
    difference = f.op(f"fsub {kind} {loss}, {loss}")  # NaN for NaN and for infinity
    bad = f.op(f"fcmp uno {kind} {difference}, {difference}")
    asked = f.compare("ne", f.load("i64", f.address("%arena", WATCH, "i8"), 8), 0)
    with f.when(f.op(f"and i1 {bad}, {asked}")):
        f.store("i64", NOT_FINITE, f.address("%arena", STOP, "i8"), 8)
        f.store("i64", step, f.address("%arena", 3, "i64"), 8)
