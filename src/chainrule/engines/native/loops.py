"""Loops: the kernels of a step, called again and again with other pointers.

The body of a loop has a plan of its own. Its carries are state that stays in a part of the arena, its constants and the
slices of sequences are passed, and what a step produces is written where it is to stand: for each step a table of
pointers says where. All threads go through the loop together, with barriers as in a step of training; where each keeps
to its own rows of everything that changes, no one waits before the end.
"""

from collections.abc import Callable

from chainrule.control.loop import parts
from chainrule.engines.native.evaluate import PARAMETERS
from chainrule.engines.native.ir import SCALARS, Function, Index, Module
from chainrule.engines.native.packing import Packer
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.steps import barrier, calls, copy_part, finish, pointer_of

TOGETHER = (*PARAMETERS, "ptr sync")
ARGUMENTS = ("arena", "table", "scratch", "thread", "threads", "sync")
NUMBERS = 20  # bits for the number of a node of the loop's own Program; above them that of a node of the body


def emit_loop(
    plan: NativePlan,
    planned: PlannedKernel,
    module: Module,
    kernel: Callable[[NativePlan, PlannedKernel, Module], None],
) -> None:
    """Write the function of a loop, `kernel` those of its body."""
    inner = planned.loop
    assert inner is not None
    for inside in inner.kernels:
        kernel(inner, inside, module)
    step = Function(module, f"{planned.name}.step", TOGETHER)
    calls(inner, step, "%scratch", inner.kernels)
    finish(inner, step)
    step.ret()
    _Loop(plan, planned, inner, Function(module, planned.name, TOGETHER)).write()


class _Loop:
    def __init__(self, plan: NativePlan, planned: PlannedKernel, inner: NativePlan, f: Function) -> None:
        self.plan, self.planned, self.inner, self.f = plan, planned, inner, f
        self.n = planned.kernel.nodes[0]
        node = plan.grouping.nodes[self.n]
        a = node.attributes
        self.length, self.reverse = a["length"], a["reverse"]
        self.constants, self.first = a["constants"], a["constants"] + a["carries"]
        self.operands = [plan.grouping.views[x] for x in node.inputs]
        self.itemsize = node.dtype.itemsize
        self.parts = parts(a["body"], a["carries"], self.length)
        self.arena = f.address("%arena", planned.workspace, "i8")
        self.table = f.address("%scratch", inner.scratch_bytes, "i8")

    def write(self) -> None:
        """Carries in, right operands into panels, all steps, carries out."""
        f, inputs = self.f, self.inner.program.inputs
        with f.when(f.compare("eq", "%thread", 0)):
            f.store("i64", 0, self.arena, 8)
        carries = inputs[self.constants : self.first]
        for i, view in zip(carries, self.operands[self.constants : self.first], strict=True):
            copy_part(f, self._of(view.base, view.offset), self._state(i), self.inner.grouping.nodes[i].nbytes)
        for k in range(self.constants):
            source = self._of(self.operands[k].base, self.operands[k].offset)
            if inputs[k] in self.inner.held:
                self._pack(inputs[k], source)
            else:
                self._point(inputs[k], source)
        barrier(f)
        with f.loop(0, self.length) as loop:
            self._step(f.sub(self.length - 1, loop.counter) if self.reverse else loop.counter)
        if not self.inner.repeat_barrier:
            barrier(f)
        for i, part in zip(carries, self.parts, strict=False):
            to = self._of(self.n, part.start)
            copy_part(f, self._state(i), to, self.inner.grouping.nodes[i].nbytes)
        self._error()
        f.ret()

    def _step(self, t: Index) -> None:
        f, inner = self.f, self.inner
        for i, view in zip(inner.program.inputs[self.first :], self.operands[self.first :], strict=True):
            nbytes = inner.grouping.nodes[i].nbytes
            self._point(i, f.address(self._of(view.base, view.offset), f.mul(t, nbytes), "i8"))
        carries = self.first - self.constants
        for x, part in zip(inner.results, self.parts[carries:], strict=True):
            nbytes = inner.grouping.nodes[x].nbytes
            self._point(x, f.address(self._of(self.n, part.start), f.mul(t, nbytes), "i8"))
        given = [("ptr", self.arena), ("ptr", self.table), ("ptr", "%scratch")]
        shared = [("i64", "%thread"), ("i64", "%threads"), ("ptr", "%sync")]
        f.call(f"{self.planned.name}.step", *given, *shared)
        if self.inner.repeat_barrier:
            barrier(f)

    def _pack(self, x: int, source: str) -> None:
        """Put a matrix into panels, each thread some of them."""
        f, inner, storage = self.f, self.inner, self.inner.storage[x]
        node = inner.program.nodes[x]
        rows, columns = node.shape[::-1] if storage.turned else node.shape
        kind, slot, span = SCALARS[node.dtype], storage.panel * storage.gates, columns // storage.gates
        packer = Packer(f, inner.host, node.dtype, inner.host.lanes(max(4, node.dtype.itemsize)))
        lo, hi = f.slice(-(-span // storage.panel), "%thread", "%threads")
        with f.loop(lo, hi) as loop:
            first = f.mul(loop.counter, storage.panel)
            count = f.min(f.sub(span, first), storage.panel)
            for gate in range(storage.gates):
                to = f.address(self._state(x), f.add(f.mul(first, rows * storage.gates), gate * storage.panel), kind)
                column = f.add(first, gate * span)
                if storage.turned:
                    packer.columns(f.address(source, f.mul(column, rows), kind), rows, rows, to, slot, count)
                else:
                    packer.rows(f.address(source, column, kind), columns, rows, to, slot, count)

    def _of(self, x: int, offset: int) -> str:
        return pointer_of(self.plan, self.f, x, offset)

    def _state(self, i: int) -> str:
        return self.f.address(self.arena, self.inner.places[i].offset, "i8")

    def _point(self, x: int, to: str) -> None:
        """Write down where a passed input or a result of the step lies."""
        entry = self.inner.places[x].external
        assert entry is not None
        self.f.store("ptr", to, self.f.address(self.table, entry, "ptr"), 8)

    def _error(self) -> None:
        """An error in a step is one of the whole."""
        f = self.f
        with f.when(f.compare("eq", "%thread", 0)):
            code = f.load("i64", self.arena, 8)
            with f.when(f.compare("ne", code, 0)):
                number = f.add(f.mul(f.add(f.load("i64", f.address(self.arena, 2, "i64"), 8), 1), 1 << NUMBERS), self.n)
                f.store("i64", number, f.address("%arena", 2, "i64"), 8)
                f.store("i64", f.load("i64", f.address(self.arena, 1, "i64"), 8), f.address("%arena", 1, "i64"), 8)
                f.store("i64", code, "%arena", 8)
