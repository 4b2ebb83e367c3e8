"""Two observed steps compared value by value: the first node that differs, and the rows of data that do."""

import linecache
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chainrule import tree
from chainrule.core.tensor import PACKAGE, Location
from chainrule.observe import Observation
from chainrule.program.program import CONSTANT, INPUT, Node, Program, plain
from chainrule.train.batches import Batch


@dataclass(frozen=True)
class NodeDifference:
    """The first node of a step whose values differ between two runs.

    node           its number in the Program of the step; `op`, `part` ('forward', 'backward', 'update') and `name` tell
                   what it is ('' unless it is an input), `module` and `layer` where it belongs
    file, line     where in the source it was made, and `source`, the text of that line; '' in layers of this package
    shape, count   of its values, how many differ
    index          the first that does, with both values
    largest        the largest absolute difference
    inputs         the inputs of the step that differ, by name
    """

    node: int
    op: str
    name: str
    part: str
    module: str
    layer: str
    file: str
    line: int
    source: str
    shape: tuple[int, ...]
    count: int
    index: tuple[int, ...]
    values: tuple[float, float]
    largest: float
    inputs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        listed = ("shape", "index", "values", "inputs")
        return asdict(self) | {name: list(getattr(self, name)) for name in listed}


@dataclass(frozen=True)
class RowDifference:
    """A place in the batch where two runs had other data: the numbers of the rows, and which parts differ ('x', 'y',
    'weight')."""

    place: int
    row: int
    other_row: int
    parts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"parts": list(self.parts)}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same in shape, dtype and every bit."""
    return a.shape == b.shape and a.dtype == b.dtype and not different(a, b).any()


def different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape and dtype differ in any bit, (elements,)."""
    one, other = (np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, x.itemsize) for x in (a, b))
    return np.asarray((one != other).any(axis=1))


def same_program(one: Program, other: Program) -> bool:
    """Whether two Programs are made of the same operations; numbers built into them may differ."""
    return len(one.nodes) == len(other.nodes) and all(
        _kind(a) == _kind(b) for a, b in zip(one.nodes, other.nodes, strict=True)
    )


def _kind(node: Node) -> Any:
    attributes = None if node.primitive is CONSTANT else plain(node.attributes)
    return node.primitive, node.inputs, attributes, node.shape, node.dtype.name


def first_difference(one: Observation, other: Observation) -> NodeDifference | None:
    """The first computed node that differs, and the inputs that do; None where nothing does, or the steps are made of
    other operations from the beginning.

    Where only inputs differ, the first of them. Nodes are compared up to the first that is another operation.
    """
    inputs: list[int] = []
    for i, (a, b) in enumerate(zip(one.program.nodes, other.program.nodes, strict=False)):
        if _kind(a) != _kind(b):
            break
        if same_bits(one.array(i), other.array(i)):
            continue
        if a.primitive is not INPUT:
            return _told(one, other, i, inputs)
        inputs.append(i)
    return _told(one, other, inputs[0], inputs) if inputs else None


def _told(one: Observation, other: Observation, i: int, inputs: list[int]) -> NodeDifference:
    node, a, b = one.program.nodes[i], one.array(i), other.array(i)
    where = node.location or Location()
    file, line = (where.file, where.line) if (where.file, where.line) != _caller() else ("", 0)
    unlike = different(a, b)
    first = int(np.argmax(unlike))
    wide = [np.asarray(x, np.float64).reshape(-1) for x in (a, b)]
    with np.errstate(all="ignore"):
        gap = np.abs(wide[0] - wide[1])[unlike]
    return NodeDifference(
        i, node.primitive.name, node.name if node.primitive is INPUT else "", node.part,
        where.module.removeprefix("model").removeprefix("."), where.layer, file, line,
        linecache.getline(file, line).strip() if file else "", node.shape, int(np.count_nonzero(unlike)),
        tuple([int(k) for k in np.unravel_index(first, node.shape)]), (float(wide[0][first]), float(wide[1][first])),
        float(gap.max()), tuple([one.program.nodes[k].name for k in inputs]),
    )  # fmt: skip


def _caller() -> tuple[str, int]:
    """The line outside of this package that asks. Nodes of layers that nobody outside wrote seem to be made there."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def row_differences(one: Batch, other: Batch) -> tuple[RowDifference, ...]:
    """Where two batches hold other rows, or rows with other values."""
    found = []
    parts = [(name, _leaves(getattr(one, name)), _leaves(getattr(other, name))) for name in ("x", "y", "weight")]
    for place, (row, other_row) in enumerate(zip(one.rows.tolist(), other.rows.tolist(), strict=False)):
        unlike = tuple([name for name, a, b in parts if _row_differs(a, b, place)])
        if unlike:
            found.append(RowDifference(place, row, other_row, unlike))
    return tuple(found)


def _leaves(values: Any) -> list[np.ndarray]:
    return [np.asarray(leaf.value) for leaf in tree.flatten(values).leaves]


def _row_differs(one: list[np.ndarray], other: list[np.ndarray], place: int) -> bool:
    return len(one) != len(other) or any(
        not same_bits(a[place : place + 1], b[place : place + 1]) for a, b in zip(one, other, strict=True)
    )
