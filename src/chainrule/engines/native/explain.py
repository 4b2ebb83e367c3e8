"""A plan in words: the five steps from a Program to kernels, as text."""

from chainrule.dtypes import SHORT
from chainrule.engines.native.cuts import chains
from chainrule.engines.native.division import Batches, Columns, Flat, Parts, Rows, Share, Together
from chainrule.engines.native.plan import NativePlan, PlannedKernel
from chainrule.engines.native.storage import DENSE
from chainrule.passes.views import collapse, in_memory
from chainrule.program.program import CONSTANT, INPUT


def explain(plan: NativePlan) -> str:
    """All five steps."""
    parts = [
        ("1  index maps instead of copies", _views(plan)),
        ("2  kernels", _kernels(plan)),
        ("3  storages", _storages(plan)),
        ("4  shares of the threads, and barriers", _shares(plan)),
        ("5  memory", _memory(plan)),
    ]
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in parts)


def _name(plan: NativePlan, n: int) -> str:
    node = plan.grouping.nodes[n]
    if node.primitive is INPUT:
        return node.name
    if node.primitive is CONSTANT and node.size == 1:
        return f"{node.attributes['value'].reshape(())[()]}"
    return f"%{n}"


def _typed(plan: NativePlan, n: int) -> str:
    node = plan.grouping.nodes[n]
    return f"%{n} {SHORT[node.dtype]}[{', '.join(map(str, node.shape))}]"


def _views(plan: NativePlan) -> list[str]:
    lines = []
    for n, view in enumerate(plan.grouping.views):
        node = plan.grouping.nodes[n]
        if view.base == n or not in_memory(plan.grouping.nodes[view.base]) or not node.size:
            continue
        axes = collapse(view.shape, view.strides)
        steps = " + ".join(f"{stride}·i{k}" for k, (_, stride) in enumerate(axes) if stride) or "0"
        offset = f"{view.offset} + " if view.offset else ""
        lines.append(f"{_typed(plan, n)} = {node.primitive.name}: element {offset}{steps} of {_name(plan, view.base)}")
    return lines or ["no layout operations"]


def _kernels(plan: NativePlan) -> list[str]:
    lines = []
    for planned in plan.kernels:
        kernel = planned.kernel
        lines.append(f"{planned.name}  {kernel!r}")
        for n in kernel.nodes:
            node = plan.grouping.nodes[n]
            operands = ", ".join(_name(plan, plan.grouping.views[x].base) for x in node.inputs)
            stored = "  → memory" if n in kernel.outputs else ""
            lines.append(f"      {_typed(plan, n)} = {node.primitive.name}({operands}){stored}")
        if planned.loop is not None:
            lines += [f"    in each step  {line}" for line in _kernels(planned.loop)]
    return lines


def _storages(plan: NativePlan) -> list[str]:
    lines = []
    for x, storage in sorted(plan.storage.items()):
        of = "the transpose in " if storage.turned else ""
        panels = f"{of}panels of {storage.panel} columns" + f" of {storage.gates} gates" * (storage.gates > 1)
        lines.append(f"{_name(plan, x)}: " + (f"rows {storage.pitch} apart" if storage.pitch else panels))
    return [*lines, f"everything else: dense rows ({sum(x not in plan.storage for x in plan.places)} values)"]


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' * (n != 1)}"


def _share(share: Share) -> str:
    if isinstance(share, Rows):
        rows = f"{share.size} to {share.size + 1}" if share.larger else str(share.size)
        return f"{_count(share.count, 'unit')} of {rows} rows"
    if isinstance(share, Columns):
        return f"{_count(share.count, 'unit')} of {share.width} columns"
    if isinstance(share, Batches):
        return f"{share.count} matrices"
    if isinstance(share, Flat):
        return _count(share.count, "vector")
    if isinstance(share, Parts):
        return _count(share.count, "unit")
    return "all threads together" if isinstance(share, Together) else "the first thread"


def _form(planned: PlannedKernel) -> str:
    tiles = planned.tiles
    if tiles is None:
        return planned.form
    packed = " and ".join(name for name, packs in (("A", tiles.pack_a), ("B", tiles.pack_b)) if packs)
    gates = f"{tiles.contraction.gates} × " if tiles.contraction.gates > 1 else ""
    blocks = f", depth in blocks of {tiles.depth_block}" if tiles.blocks[0] > 1 else ""
    return f"tiles of {tiles.tile_rows} × {gates}{tiles.width}{blocks}" + (f", {packed} packed" if packed else "")


def _shares(plan: NativePlan) -> list[str]:
    lines = []
    together = {id(k) for chain in chains(plan.kernels) if len(chain) > 1 for k in chain}
    for i, planned in enumerate(plan.kernels):
        if i and i == plan.schedule.guard:
            lines.append("---- barrier; an error ends the step here, before anything is overwritten")
        elif planned.barrier:
            lines.append("---- barrier")
        if planned.absorbed:
            lines.append(f"{planned.name}  in the same pass")
            continue
        lines.append(f"{planned.name}  {_form(planned)}; {_count(planned.lanes, 'lane')}; {_share(planned.share)}")
        lines[-1] += f"; in {planned.stack} parts with its neighbours" if id(planned) in together else ""
        if planned.loop is not None:
            lines += [f"    in each step  {line}" for line in _shares(planned.loop)]
    return lines


def _memory(plan: NativePlan) -> list[str]:
    lines = []
    in_place = {old: new for new, old in plan.schedule.in_place.items()}
    for x, place in plan.places.items():
        node = plan.grouping.nodes[x]
        if x in plan.schedule.in_place:
            continue
        if x in plan.parts:
            lines.append(f"a part at a time in each thread's memory: {_name(plan, x)} ({node.nbytes} bytes in all)")
            continue
        where = (
            f"passed array {place.external}"
            if place.external is not None
            else f"{place.offset} … {place.offset + plan.sizes[x]}"
        )
        note = f", overwritten by %{in_place[x]}" if x in in_place else ""
        padded = " in panels" if plan.storage.get(x, DENSE).panel else ""
        lines.append(f"{where}: {_name(plan, x)} ({node.nbytes} bytes{padded}{note})")
    copied = f"; {len(plan.schedule.copied)} states copied at the end of a step" if plan.schedule.copied else ""
    barriers = sum(k.barrier for k in plan.kernels)
    lines.append(
        f"arena {plan.arena_bytes:,} bytes, of which state {plan.state_bytes:,}; scratch {plan.scratch_bytes:,} bytes "
        f"a thread; {barriers} barriers a step{copied}"
    )
    return lines
