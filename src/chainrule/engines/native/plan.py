"""The plan of a Program: kernels in order, storages, tiles, the shares of the threads, memory, barriers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from chainrule import dtypes
from chainrule.control import LOOPS
from chainrule.engines.native import narrow, sorting, sparse, windows, winograd
from chainrule.engines.native.columns import group_of
from chainrule.engines.native.cuts import by_rows, enough_rows, take_over_images, take_over_rows, take_over_stacks
from chainrule.engines.native.division import Batches, Columns, Flat, Rows, Share, Single, Together, up
from chainrule.engines.native.evaluate import Place, lanes_of
from chainrule.engines.native.hazards import place_barriers
from chainrule.engines.native.host import Host
from chainrule.engines.native.pitches import pitches
from chainrule.engines.native.places import Part, apart, bytes_of, parts_of, place_values
from chainrule.engines.native.rows import scratch_bytes
from chainrule.engines.native.singles import division_of_single
from chainrule.engines.native.storage import DENSE, Storage, contraction_of, product_of, storages
from chainrule.engines.native.tile_plans import choose
from chainrule.engines.native.tiles import Contraction, stacked
from chainrule.engines.native.tiles import Plan as TilePlan
from chainrule.passes.flat import Lines, Run, flat_runs, is_flat
from chainrule.passes.grouping import Grouping
from chainrule.passes.in_place import Schedule, schedule
from chainrule.passes.kernels import Kernel
from chainrule.primitives import contract
from chainrule.program.program import Program

PLAIN = (dtypes.float32, dtypes.float64)
PACKED = 16  # steps of a loop from which on it pays to put the right operands of its products into panels


Chooser = Callable[..., TilePlan]  # (contraction, host, once, divide) -> how to compute it


@dataclass(eq=False)
class PlannedKernel:
    """A kernel with all that its emission needs to know."""

    kernel: Kernel
    name: str
    lanes: int
    form: str  # contract, rows, flat, narrow, columns, single, window, sparse, winograd, loop
    share: Share
    tiles: TilePlan | None = None
    result: int = -1  # of a contraction: the output that its partial sums are kept in
    turned: bool = False  # a contraction that is computed transposed
    barrier: bool = False  # before it
    run: list["PlannedKernel"] = field(default_factory=list)  # it and those whose values it goes through, too
    absorbed: bool = False  # by the first kernel of a run
    stack: int = 1  # so many equal parts, as the matrices of a stack: it may be called for one of them after the other
    scratch_bytes: int = 0
    elements: int = 0  # of a flat kernel, padding included
    loop: "NativePlan | None" = None  # of a step
    workspace: int = 0  # of a loop: where the arena of its steps begins


@dataclass(eq=False)
class NativePlan:
    """Everything that is decided before code is written."""

    program: Program
    grouping: Grouping
    schedule: Schedule
    host: Host
    held: tuple[int, ...]
    storage: dict[int, Storage]
    choose: Chooser
    kernels: list[PlannedKernel] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)  # bytes of each place in the arena
    parts: dict[int, Part] = field(default_factory=dict)  # of values that are never there as a whole
    arena_bytes: int = 0
    state_bytes: int = 0
    guarded: bool = False  # for tests: every value ends where a page begins that nobody may touch
    guards: list[int] = field(default_factory=list)  # where these pages begin
    inside: bool = False  # of a loop: results are written where the table says, like passed inputs are read
    lines: Lines = field(default_factory=Lines)  # values of flat passes, and those that they lie beside
    finish_barrier: bool = True  # before new state is copied over the old
    repeat_barrier: bool = True  # before the next step

    @property
    def parts_at(self) -> int:
        """Where in a thread's scratch memory its parts of values begin, behind what kernels work in."""
        return up(max([k.scratch_bytes for k in self.kernels], default=0), 4096) + 256

    @property
    def table_at(self) -> int:
        """Where its table is, which tells kernels where these parts are."""
        return self.parts_at + up(max([part.at + part.size for part in self.parts.values()], default=0), 64)

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of a thread."""
        entries = len(self.passed) + max([part.number + 1 for part in self.parts.values()], default=0)
        return self.table_at + up(8 * entries, 256) if self.parts else self.parts_at

    @property
    def work(self) -> float:
        """About how many microseconds a step takes on one thread."""
        nodes = self.grouping.nodes
        products = elements = 0
        for planned in self.kernels:
            for n in planned.kernel.nodes:
                width = max(4, nodes[n].dtype.itemsize)
                if nodes[n].primitive is contract.matmul:
                    products += nodes[n].size * nodes[nodes[n].inputs[0]].shape[-1] * width
                elif nodes[n].primitive in winograd.PRODUCTS:
                    products += winograd.multiplications(self.grouping, n) * width
                elif not self.grouping.virtual(n):
                    elements += nodes[n].size * width
        loops = sum(k.loop.work * nodes[k.kernel.nodes[0]].attributes["length"] for k in self.kernels if k.loop)
        return loops + products / (self.host.vector_bytes * 5e3) + elements / (self.host.vector_bytes * 1e3)

    @property
    def passed(self) -> list[int]:
        """The inputs that come with each step, in order: their pointers stand in the table."""
        return [i for i in self.program.inputs if i not in self.held]

    @property
    def results(self) -> list[int]:
        """The nodes of the outputs that are no state."""
        return [self.grouping.views[out.node].base for out in self.program.outputs if out.updates is None]


def make_plan(
    program: Program,
    held: tuple[int, ...],
    host: Host,
    choose: Chooser = choose,
    guarded: bool = False,
    name: str = "k",
    inside: bool = False,
    packed: tuple[int, ...] = (),
) -> NativePlan:
    """Plan a Program. `held`: the input nodes that stay in the arena. `guarded`, `inside`: see NativePlan.

    `packed`: the inputs of a loop's body that may be put into panels before the first step.
    """
    grouping = Grouping(program)
    order, runs, lines = schedule(grouping), list[Run](), Lines()
    if not inside and not guarded:  # there every value has memory of its own
        order, runs, lines = flat_runs(grouping, order, held)

    def tiles(contraction: Contraction) -> TilePlan:
        return choose(contraction, host, False, Rows if inside and enough_rows(contraction, host) else None)

    found = storages(grouping, order, set(packed) if inside else set(held), tiles, inside)
    if not inside:
        found |= pitches(grouping, order, host.lanes(4))
    held = (*held, *[x for x in packed if x in found])
    plan = NativePlan(program, grouping, order, host, held, found, choose, guarded=guarded, inside=inside, lines=lines)
    for i, kernel in enumerate(order.kernels):
        plan.kernels.append(_planned(plan, kernel, f"{name}{i}"))
    _share_runs(plan, runs)
    take_over_rows(plan)
    take_over_stacks(plan)
    take_over_images(plan)
    plan.parts = {} if inside or guarded else parts_of(plan)
    place_values(plan)
    place_barriers(plan)
    while parted := apart(plan):  # by barriers
        plan.parts = {x: part for x, part in plan.parts.items() if x not in parted}
        place_values(plan)
        place_barriers(plan)
    return plan


def _planned(plan: NativePlan, kernel: Kernel, name: str) -> PlannedKernel:
    grouping = plan.grouping
    lanes = lanes_of(grouping, kernel, plan.host)
    convolution = winograd.node_of(grouping, kernel)
    if convolution is not None:
        share: Share = winograd.share_of(grouping, kernel, plan.host)
        scratch = winograd.scratch_bytes(grouping, convolution, plan.host)
        return PlannedKernel(kernel, name, plan.host.lanes(4), "winograd", share, scratch_bytes=scratch)
    if kernel.kind == "contract":
        return _planned_contraction(plan, kernel, name)
    if kernel.kind == "columns":
        stack, _, columns = kernel.sizes
        vectors = -(-columns // lanes)
        group = group_of(columns, lanes)
        share = Columns(-(-vectors // group), group * lanes) if stack == 1 else Batches(stack)
        return PlannedKernel(kernel, name, lanes, "columns", share)
    if grouping.nodes[kernel.nodes[0]].primitive in sparse.PRODUCTS:
        return PlannedKernel(kernel, name, lanes, "sparse", sparse.share_of(grouping, kernel))
    if kernel.kind == "single" and grouping.nodes[kernel.nodes[0]].primitive.kind == "window":
        return PlannedKernel(kernel, name, lanes, "window", windows.share_of(grouping, kernel, lanes))
    if kernel.kind == "single" and grouping.nodes[kernel.nodes[0]].primitive in LOOPS:
        return _planned_loop(plan, kernel, name)
    if kernel.kind == "single":
        scratch = sorting.scratch_bytes(grouping, kernel)
        share = division_of_single(grouping, kernel, lanes)
        return PlannedKernel(kernel, name, lanes, "single", share, scratch_bytes=scratch)
    if kernel.sizes == (1, 1):
        return PlannedKernel(kernel, name, 1, "rows", Single())
    if is_flat(grouping, kernel):
        elements = plan.storage.get(kernel.outputs[0], DENSE).elements(grouping.nodes[kernel.outputs[0]].shape)
        return PlannedKernel(kernel, name, lanes, "flat", Flat(-(-elements // lanes)), elements=elements)
    scratch = scratch_bytes(grouping, kernel, lanes)
    if narrow.fits(grouping, kernel, lanes):
        share = Rows(-(-kernel.sizes[0] // lanes), lanes, 0)
        return PlannedKernel(kernel, name, lanes, "narrow", share, scratch_bytes=scratch)
    share = Single() if kernel.sizes[0] == 1 else Rows(kernel.sizes[0], 1, 0)
    return PlannedKernel(kernel, name, lanes, "rows", share, scratch_bytes=scratch)


def _share_runs(plan: NativePlan, runs: list[Run]) -> None:
    """The first kernel of each run goes through the values of all of them."""
    of = {id(planned.kernel): planned for planned in plan.kernels}
    for kernels in runs:
        run = [of[id(kernel)] for kernel in kernels]
        size = plan.grouping.nodes[run[0].kernel.outputs[0]].dtype.itemsize
        elements = sum(bytes_of(plan, planned.kernel.outputs[0]) for planned in run) // size
        for planned in run:
            planned.run, planned.absorbed = run, planned is not run[0]
            planned.elements, planned.share = elements, Flat(-(-elements // planned.lanes))


def _planned_loop(plan: NativePlan, kernel: Kernel, name: str) -> PlannedKernel:
    a = plan.grouping.nodes[kernel.nodes[0]].attributes
    body: Program = a["body"]
    carries = body.inputs[a["constants"] : a["constants"] + a["carries"]]
    constants = [x for x in body.inputs[: a["constants"]] if a["length"] >= PACKED and body.nodes[x].dtype in PLAIN]
    inner = make_plan(
        body, tuple(carries), plan.host, plan.choose, name=f"{name}.k", inside=True, packed=tuple(constants)
    )
    table = 8 * (len(inner.passed) + len(inner.results))
    return PlannedKernel(kernel, name, 1, "loop", Together(), scratch_bytes=inner.scratch_bytes + table, loop=inner)


def _planned_contraction(plan: NativePlan, kernel: Kernel, name: str) -> PlannedKernel:
    grouping = plan.grouping
    n = product_of(grouping, kernel)
    assert n is not None
    node = grouping.nodes[n]
    full = [x for x in kernel.outputs if grouping.nodes[x].size == kernel.size]
    fitting = [x for x in full if grouping.nodes[x].dtype == node.dtype]
    result = (fitting or full or kernel.outputs)[0]
    storage = plan.storage.get(result, DENSE)
    contraction = contraction_of(grouping, n, plan.storage, storage, kernel.gates)
    once = not fitting or any(x in plan.schedule.in_place for x in kernel.outputs)
    divide = by_rows(plan, contraction)
    if any(grouping.reduces(x) for x in kernel.nodes):  # a sum belongs to one thread
        contraction = stacked(contraction, kernel.sizes[0])
        divide = Batches if contraction.batch > 1 else Columns
    tiles = plan.choose(contraction, plan.host, once, divide)
    return PlannedKernel(
        kernel,
        name,
        tiles.lanes,
        "contract",
        tiles.division,
        tiles,
        result,
        storage.turned,
        scratch_bytes=tiles.scratch_bytes,
    )
