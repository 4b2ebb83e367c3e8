"""The first value of a step that is not finite: which operation made it of which numbers, where, and of which row."""

import dataclasses
import linecache
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.control.loop import parts
from chainrule.core.tensor import Location, Tensor
from chainrule.observe import Observation
from chainrule.primitives import contract
from chainrule.program.interpret import Interpreter
from chainrule.program.program import CONSTANT, INPUT, Node, Program, observe
from chainrule.train.blame import Origin, find_origin
from chainrule.train.provenance import SEVERAL, Rows, rows_of_inputs, step_rows, trace_rows

Array = np.ndarray

BATCH = ("x", "y", "weight")  # the arguments of a step that have a row for each row of the batch
INFIX = {"add": "+", "sub": "−", "mul": "·", "div": "/", "pow": "^"}


@dataclass(frozen=True)
class Finding:
    """The first value that is not finite.

    op, text      the operation, and what it did in numbers: 'log(0) = −inf'. 'input' for a value that was there before
    inputs        the numbers it was made of: all of them, or of a sum the least and the greatest
    value, index  what it made, and where in the tensor of that shape and dtype
    count         how many elements of the tensor are not finite for the same reason
    part, of      'forward', 'backward' (then `of` tells which operation's derivative it is) or 'update'
    name          the parameter or other input that it is about; '' for none
    module, layer, file, line, source  where in the model, and in the user's code, with the text of that line
    row, rows     the row of the batch to which the element belongs, and those of all such elements; None and () where
                  it belongs to none. `shared`: several rows took part in it
    data_row      the number of the row in the training data, and `data_rows` those of all
    time_step     the steps of the loops around it, the outermost first
    step          the number of the training step

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import nn, optim
    >>> x = np.array([[1.0], [2.0], [0.0], [3.0]])
    >>> try:
    ...     cr.fit(nn.Linear(1, 1), (x, x), loss=lambda p, t: cr.mean(p * cr.log(t)), optimizer=optim.SGD(lr=0.1),
    ...            epochs=1, batch_size=4, progress="silent")
    ... except cr.train.TrainingDiverged as error:
    ...     print(error.finding.text, error.finding.data_row)
    log(0) = −inf 2
    """

    op: str
    text: str
    inputs: tuple[float, ...]
    value: float
    index: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    count: int
    part: str
    of: str = ""
    name: str = ""
    module: str = ""
    layer: str = ""
    file: str = ""
    line: int = 0
    source: str = ""
    row: int | None = None
    rows: tuple[int, ...] = ()
    shared: bool = False
    data_row: int | None = None
    data_rows: tuple[int, ...] = ()
    time_step: tuple[int, ...] = ()
    step: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; numbers that are not finite as text."""
        return {name: _json(value) for name, value in dataclasses.asdict(self).items()}


def _json(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_json(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class _Place(NamedTuple):
    """A node of a Program that was run: of the step itself, or of the body of a loop in one of its steps."""

    program: Program
    value: Callable[[int], Array]
    origin: Origin
    rows: Mapping[int, Rows]  # of the inputs
    steps: tuple[int, ...]  # of the loops around

    @property
    def node(self) -> Node:
        return self.program.nodes[self.origin.node]

    @property
    def inputs(self) -> list[Array]:
        return [self.value(i) for i in self.node.inputs]


def find_nonfinite(observation: Observation, batch_rows: Array, step: int) -> Finding | None:
    """The first value that is not finite, and leads to the loss, or else to a gradient or weight. None if all is well.

    observation  of a step of training (see Steps), which returns the loss first and the largest magnitude second or
                 last; or of loss and gradient alone
    batch_rows   the numbers in the training data of the rows of its batch
    """
    program, value = observation.program, observation.array
    for bad in _suspects(observation):
        origin = find_origin(program, value, bad)
        if origin is not None:
            break
    else:
        return None
    given = rows_of_inputs(program, BATCH, len(batch_rows))
    outer = _Place(program, value, origin, given, ())
    return _finding(_innermost(outer), outer, batch_rows, step)


def _suspects(observation: Observation) -> list[dict[int, Array]]:
    """Elements of nodes that should be finite: of the loss; else of gradients and weights."""
    program = observation.program
    scalars = [
        out.node
        for out in program.outputs
        if out.updates is None and not out.observed and not program.nodes[out.node].shape
    ]
    trained = [
        out.node
        for out in program.outputs
        if out.updates is not None and out.name.startswith("model.") and dtypes.is_float(program.nodes[out.node].dtype)
    ]
    loss = observation.traced.results.leaves[0].value
    first = observation.place(loss) if isinstance(loss, Tensor) else None
    groups = [[] if first is None else [first], scalars, trained]
    return [{i: ~np.isfinite(observation.array(i)) for i in group} for group in groups]


# -- inside of loops


def _innermost(place: _Place) -> _Place:
    """Where a loop made it, the node in the loop's body, and the step. The body is run again, by NumPy."""
    while place.node.primitive.kind == "control":
        inside = _inside(place)
        if inside is None:
            return place  # run again, it was finite: the engine rounds otherwise than NumPy
        place = inside
    return place


def _inside(place: _Place) -> _Place | None:
    node, given = place.node, place.inputs
    body, constants, carries, length = (node.attributes[n] for n in ("body", "constants", "carries", "length"))
    run = Interpreter(observe(body, range(len(body.nodes))))
    arrays = [a.astype(body.nodes[i].dtype, copy=False) for a, i in zip(given, body.inputs, strict=True)]
    first = constants + carries
    carry = arrays[constants:first]
    masks = [place.origin.elements[p.start : p.stop].reshape(p.shape) for p in parts(body, carries, length)]
    for t in range(length)[::-1] if node.attributes["reverse"] else range(length):
        made = run([*arrays[:constants], *carry, *[x[t] for x in arrays[first:]]])
        carry, values = made[:carries], made[len(body.outputs) :]
        bad: dict[int, Array] = {}
        for k, out in enumerate(body.outputs):
            mask = ~np.isfinite(made[k])
            mask = mask if k < carries else mask & masks[k][t]
            bad[out.node] = bad[out.node] | mask if out.node in bad else mask
        origin = find_origin(body, values.__getitem__, bad)
        if origin is not None:
            rows = [trace_rows(place.program, place.rows, i, place.value) for i in node.inputs]
            return _Place(body, values.__getitem__, origin, step_rows(node, rows, t), (*place.steps, t))
    return None


# -- what is told of it


def _finding(place: _Place, outer: _Place, batch_rows: Array, step: int) -> Finding:
    node, (number, elements) = place.node, place.origin
    at = tuple([int(i) for i in np.argwhere(elements)[0]]) if elements.ndim else ()
    value = float(place.value(number)[at])
    numbers = _numbers(node, place.inputs, at)
    part = outer.node.part if node.primitive not in (INPUT, CONSTANT) else "forward"
    found = trace_rows(place.program, place.rows, number, place.value)
    rows = np.zeros(1, np.int64) if found is None else np.unique(np.broadcast_to(found, elements.shape)[elements])
    own = 0 if found is None else int(np.broadcast_to(found, elements.shape)[at])
    known = tuple([int(r) - 1 for r in rows if r > 0]) if part != "update" else ()
    row = own - 1 if own > 0 and part != "update" else None
    location = node.location or outer.node.location or Location()
    return Finding(
        op=node.primitive.name,
        text=_text(node, numbers, value, at),
        inputs=numbers,
        value=value,
        index=at,
        shape=node.shape,
        dtype=node.dtype.name,
        count=int(np.count_nonzero(elements)),
        part=part,
        of=_derivative_of(place, outer, at) if part == "backward" else "",
        name=_own_name(node) or (_updated(outer) if part == "update" else ""),
        module=location.module.partition(".")[2] if "." in location.module else "",
        layer=location.layer,
        file=location.file,
        line=location.line,
        source=linecache.getline(location.file, location.line).strip() if location.line else "",
        row=row,
        rows=known,
        shared=own == SEVERAL,
        data_row=None if row is None else int(batch_rows[row]),
        data_rows=tuple([int(batch_rows[r]) for r in known]),
        time_step=place.steps,
        step=step,
    )


def _own_name(node: Node) -> str:
    """The name of an input: '0.weight' for a parameter."""
    return node.name.removeprefix("model.") if node.primitive is INPUT else ""


def _numbers(node: Node, inputs: list[Array], at: tuple[int, ...]) -> tuple[float, ...]:
    """The numbers that an element was made of: all of them, or the least and the greatest of many."""
    if node.primitive.kind == "elementwise":
        return tuple([float(a[at]) for a in inputs])
    if node.primitive.kind == "reduce":
        axes = {axis % node.ndim for axis in node.attributes["axes"]}
        read = [inputs[0][tuple([slice(None) if i in axes else at[i] for i in range(node.ndim)])]]
    elif node.primitive is contract.matmul:
        read = [_products(inputs, at)]
    else:
        read = [a for a in inputs if dtypes.is_float(a.dtype)]
    values = [float(f(a)) for a in read if a.size for f in (np.min, np.max)]
    return (min(values), max(values)) if values else ()


def _products(inputs: list[Array], at: tuple[int, ...]) -> Array:
    """The products that a matrix product sums up there, in float64."""
    stack, (i, j) = at[:-2], at[-2:]
    return np.asarray(inputs[0][stack][i].astype(np.float64) * inputs[1][stack][:, j].astype(np.float64))


def _text(node: Node, numbers: tuple[float, ...], value: float, at: tuple[int, ...]) -> str:
    name, shown = node.primitive.name, [number(x) for x in numbers]
    if node.primitive is INPUT:
        return f"{_own_name(node)}{list(at) if at else ''} = {number(value)} before the step"
    if node.primitive is CONSTANT:
        return f"the constant {number(value)}"
    if name in INFIX and len(shown) == 2:
        return f"{shown[0]} {INFIX[name]} {shown[1]} = {number(value)}"
    if node.primitive.kind == "elementwise":
        what = f"to {node.dtype.name}" if name == "cast" else ""
        return f"{name}({', '.join(shown)}){f' {what}' if what else ''} = {number(value)}"
    if node.primitive is contract.matmul:
        return f"a sum of products, from {shown[0]} to {shown[1]} = {number(value)}"
    span = f" of values from {shown[0]} to {shown[1]}" if len(shown) == 2 else ""
    return f"{name}{span} = {number(value)}"


def number(value: float) -> str:
    """A number as a message has it."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.6g}".replace("-", "−")


def _derivative_of(place: _Place, outer: _Place, at: tuple[int, ...]) -> str:
    """The forward operation whose derivative it is; with its numbers where it has the same elements."""
    program, node = place.program, place.node
    if node.of is None:
        program, node, place = outer.program, outer.node, outer
    if node.of is None:
        return ""
    made = program.nodes[node.of]
    if made.primitive.kind != "elementwise" or made.shape != place.node.shape or program is not place.program:
        return made.primitive.name
    return _text(made, tuple([float(place.value(i)[at]) for i in made.inputs]), float(place.value(node.of)[at]), at)


def _updated(place: _Place) -> str:
    """The first parameter whose new value is made of the node and not finite."""
    reached = {place.origin.node}
    for i in range(place.origin.node + 1, len(place.program.nodes)):
        if any([x in reached for x in place.program.nodes[i].inputs]):
            reached.add(i)
    for out in place.program.outputs:
        changed = out.updates is not None and out.node in reached and out.name.startswith("model.")
        if changed and not np.isfinite(place.value(out.node)).all():
            return out.name.removeprefix("model.")
    return ""
