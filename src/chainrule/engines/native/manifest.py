"""What must be known to use compiled code: the plan without its reasons, as plain data that goes into the cache."""

import math
from dataclasses import dataclass
from typing import Any

from chainrule import dtypes
from chainrule.core.tensor import Location
from chainrule.engines.native.evaluate import Place
from chainrule.engines.native.loops import NUMBERS
from chainrule.engines.native.plan import NativePlan
from chainrule.engines.native.storage import DENSE, Storage
from chainrule.passes.in_place import may_fail
from chainrule.program.program import CONSTANT, Program

NAMES = {name: dtype for dtype, name in dtypes.SHORT.items()}


@dataclass(frozen=True)
class Slot:
    """A value that Python and the code exchange: its shape and dtype, and where in the arena it lies, and how.

    Passed arrays and empty values lie nowhere (`place` None); `updates` is the number among the held inputs of what an
    output replaces.
    """

    shape: tuple[int, ...]
    dtype: dtypes.DType
    place: Place | None
    storage: Storage = DENSE
    updates: int | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of an array of these elements."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Failure:
    """What a node can find wrong: the name of its primitive, where it stands, the extent that an index must stay in."""

    primitive: str
    location: str
    extent: int


@dataclass(frozen=True)
class Manifest:
    """How to use the code of a Program.

    inputs      all inputs, in order; `held` are the positions of those that stay in the arena, the others are passed
    outputs     all outputs, in order
    constants   (number of the node in the Program as it came, where its value goes)
    failures    by the number that the code reports
    """

    inputs: tuple[Slot, ...]
    held: tuple[int, ...]
    outputs: tuple[Slot, ...]
    constants: tuple[tuple[int, Slot], ...]
    failures: dict[int, Failure]
    arena_bytes: int
    state_bytes: int
    scratch_bytes: int
    kernels: int
    barriers: int
    work: float

    @property
    def passed(self) -> tuple[int, ...]:
        """The positions of the inputs that come with each step."""
        return tuple(k for k in range(len(self.inputs)) if k not in self.held)


def manifest_of(program: Program, plan: NativePlan) -> Manifest:
    """The manifest of a plan; `program` is the Program as the engine got it."""
    low, nodes = plan.program, plan.grouping.nodes

    def slot(i: int, base: int, updates: int | None = None) -> Slot:
        place = plan.places.get(base)
        inside = place is not None and place.external is None
        return Slot(nodes[i].shape, nodes[i].dtype, place if inside else None, plan.storage.get(base, DENSE), updates)

    held = tuple([k for k, i in enumerate(low.inputs) if i in plan.held])
    outputs = []
    for out in low.outputs:
        if out.updates is None:
            outputs.append(slot(out.node, plan.grouping.views[out.node].base))
        else:
            outputs.append(slot(out.updates, out.updates, held.index(low.inputs.index(out.updates))))
    originals = {id(node.attributes["value"]): n for n, node in enumerate(program.nodes) if node.primitive is CONSTANT}
    constants = [
        (originals[id(nodes[x].attributes["value"])], slot(x, x))
        for x in plan.places
        if nodes[x].primitive is CONSTANT and nodes[x].size
    ]
    failures, kernels = _failures(plan), [planned for planned in plan.kernels if not planned.absorbed]
    return Manifest(
        tuple([slot(i, i) for i in low.inputs]), held, tuple(outputs), tuple(constants), failures, plan.arena_bytes,
        plan.state_bytes, plan.scratch_bytes, len(kernels), sum(k.barrier for k in kernels), plan.work,
    )  # fmt: skip


def _failures(plan: NativePlan) -> dict[int, Failure]:
    """What can go wrong, by number; see loops.py for those of the nodes of a loop's body."""
    found = {n: _failure(plan, n) for n in range(len(plan.grouping.nodes)) if may_fail(plan.grouping, n)}
    for planned in plan.kernels:
        if planned.loop is not None:
            n = planned.kernel.nodes[0]
            found |= {((k + 1) << NUMBERS) + n: failure for k, failure in _failures(planned.loop).items()}
    return found


def _failure(plan: NativePlan, n: int) -> Failure:
    node = plan.grouping.nodes[n]
    table = plan.grouping.nodes[node.inputs[0]].shape
    return Failure(node.primitive.name, _where(node.location), table[0] if table else 0)


def _where(location: Location | None) -> str:
    return f"{location.module} {location.file}:{location.line}".strip() if location and location.file else ""


# -- JSON


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values."""
    fields = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
    return fields | {
        "inputs": [_slot_to_json(slot) for slot in manifest.inputs],
        "outputs": [_slot_to_json(slot) for slot in manifest.outputs],
        "constants": [[n, _slot_to_json(slot)] for n, slot in manifest.constants],
        "failures": [[n, f.primitive, f.location, f.extent] for n, f in manifest.failures.items()],
    }


def from_json(values: dict[str, Any]) -> Manifest:
    """The manifest from JSON values. Raises KeyError, TypeError or ValueError when they are none."""
    return Manifest(
        **values
        | {
            "inputs": tuple([_slot_from_json(slot) for slot in values["inputs"]]),
            "held": tuple(values["held"]),
            "outputs": tuple([_slot_from_json(slot) for slot in values["outputs"]]),
            "constants": tuple([(n, _slot_from_json(slot)) for n, slot in values["constants"]]),
            "failures": {n: Failure(*rest) for n, *rest in values["failures"]},
        }
    )


def _slot_to_json(slot: Slot) -> list[Any]:
    offset = None if slot.place is None else slot.place.offset
    return [slot.shape, dtypes.SHORT[slot.dtype], offset, slot.storage.panel, slot.storage.turned, slot.updates]


def _slot_from_json(values: list[Any]) -> Slot:
    shape, dtype, offset, panel, turned, updates = values
    place = None if offset is None else Place(offset)
    return Slot(tuple(shape), NAMES[dtype], place, Storage(panel, turned), updates)
