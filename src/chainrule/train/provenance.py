"""Which row of the batch each element of a Program's values belongs to.

An element belongs to a row when the row is the only one at that place: sums over rows belong to none, and what a row
shares with the others (a mean over the batch, weights) does not change whose element it is. It is found by sending the
numbers of the rows through the Program instead of values, node by node; so it holds through reshapes, transposes and
lookups, wherever the batch is.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from chainrule.control.loop import parts
from chainrule.functions.custom import AFTER
from chainrule.primitives import contract, convolve, elementwise, index
from chainrule.program.program import CONSTANT, INPUT, Node, Program

Array = np.ndarray
Rows = Array | None  # an element: 0 of no row, −1 of several, k + 1 of row k. None: no element has a row

Value = Callable[[int], Array] | None  # the values of nodes, where they are known: lookups need them

SEVERAL = -1


def rows_of_inputs(program: Program, names: Iterable[str], rows: int) -> dict[int, Rows]:
    """The rows of the elements of inputs: those that are called so, or are inside, have them along their first axis."""
    found: dict[int, Rows] = {}
    heads = set(names)
    for i in program.inputs:
        node = program.nodes[i]
        head = node.name.replace("[", ".").partition(".")[0]
        if head in heads and node.ndim and node.shape[0] == rows:
            along = np.arange(1, rows + 1).reshape(-1, *[1] * (node.ndim - 1))
            found[i] = np.broadcast_to(along, node.shape)
        else:
            found[i] = None
    return found


def trace_rows(program: Program, given: Mapping[int, Rows], wanted: int, value: Value = None) -> Rows:
    """The rows of the elements of the node `wanted`, from those of the inputs."""
    needed = _above(program, wanted)
    found: dict[int, Rows] = dict(given)
    last = {x: i for i in needed for x in program.nodes[i].inputs}
    for i in needed:
        node = program.nodes[i]
        if node.primitive not in (INPUT, CONSTANT):
            found[i] = _rows(program, node, [found[x] for x in node.inputs], value)
        else:
            found.setdefault(i, None)
        for x in set(node.inputs):
            if last[x] == i:
                del found[x]
    return found[wanted]


def _above(program: Program, wanted: int) -> list[int]:
    """The node and all that it is made of, inputs first."""
    found = {wanted}
    for i in range(wanted, -1, -1):
        if i in found:
            found.update(program.nodes[i].inputs)
    return sorted(found)


def _rows(program: Program, node: Node, given: list[Rows], value: Value) -> Rows:
    if all([rows is None for rows in given]):
        return None
    primitive, shapes = node.primitive, [program.nodes[x].shape for x in node.inputs]
    arrays = [np.zeros((1,) * len(s), np.int64) if r is None else r for r, s in zip(given, shapes, strict=True)]
    if primitive is elementwise.where:
        return np.broadcast_to(together(*arrays[1:], arrays[0]), node.shape)
    if primitive is AFTER:
        return given[0]
    if primitive.kind == "elementwise":
        return np.broadcast_to(together(*arrays), node.shape)
    if primitive.kind == "control":
        return _of_loop(node, given)
    whole = [np.broadcast_to(a, s) for a, s in zip(arrays, shapes, strict=True)]
    if primitive.kind == "layout":
        return np.asarray(primitive.evaluate(np.dtype(np.int64), tuple(whole), node.attributes))
    if primitive.kind == "reduce":
        return along(whole[0], node.attributes["axes"])
    if primitive is contract.matmul:
        return together(along(whole[0], (-1,)), along(whole[1], (-2,)))
    if primitive is convolve.convolve:
        return _of_convolution(node, whole)
    if primitive is index.take and value is not None:
        places = value(node.inputs[1])
        own = whole[1].reshape(*whole[1].shape, *[1] * (whole[0].ndim - 1))
        return np.broadcast_to(together(whole[0][places], own), node.shape)
    if primitive.kind == "scan":
        return np.broadcast_to(along(whole[0], (node.attributes["axis"],)), node.shape)
    return _by_first_axis(node, whole)


def together(*given: Array) -> Array:
    """Of which row an element is that is made of elements of these: of one, if only one of them is of a single row."""
    result = given[0]
    for other in given[1:]:
        clash = (result > 0) & (other > 0) & (result != other)
        single = np.maximum(result, other)
        result = np.where(clash, SEVERAL, np.where(single > 0, single, np.minimum(result, other)))
    return result


def along(rows: Array, axes: tuple[int, ...]) -> Array:
    """Of which row the sum over axes is, which are kept."""
    if not rows.size:
        return np.zeros([1 if i in {a % rows.ndim for a in axes} else n for i, n in enumerate(rows.shape)], np.int64)
    most = rows.max(axis=axes, keepdims=True)
    least = np.where(rows > 0, rows, np.iinfo(np.int64).max).min(axis=axes, keepdims=True)
    several = np.where(most > 0, least != most, (rows < 0).any(axis=axes, keepdims=True))
    return np.where(several, SEVERAL, np.maximum(most, 0))


def _of_convolution(node: Node, given: list[Array]) -> Array:
    x, w = given
    batch = along(x, tuple(range(1, x.ndim)))
    kernel = along(w, tuple(range(w.ndim)))
    own = batch.reshape(-1, *[1] * (node.ndim - 1))
    return np.broadcast_to(together(own, kernel.reshape((1,) * node.ndim)), node.shape)


def _by_first_axis(node: Node, given: list[Array]) -> Array:
    """Where nothing more is known: the first axis stays what it is, if it stays as long as it is."""
    result = np.zeros((1,) * node.ndim, np.int64)
    for rows in given:
        if node.ndim and rows.ndim and rows.shape[0] == node.shape[0]:
            own = along(rows, tuple(range(1, rows.ndim))).reshape(-1, *[1] * (node.ndim - 1))
        else:
            own = along(rows, tuple(range(rows.ndim))).reshape((1,) * node.ndim)
        result = together(result, own)
    return np.broadcast_to(result, node.shape)


# -- loops


def step_rows(node: Node, given: list[Rows], step: int) -> dict[int, Rows]:
    """The rows of the inputs of a loop's body, in one of its steps. `given` are those of the inputs of the loop."""
    body, first = node.attributes["body"], node.attributes["constants"]
    carries, length = node.attributes["carries"], node.attributes["length"]
    order = range(length)[::-1] if node.attributes["reverse"] else range(length)
    found = dict(zip(body.inputs, given, strict=True))
    for t in order:
        for i, rows in zip(body.inputs[first + carries :], given[first + carries :], strict=True):
            found[i] = None if rows is None else rows[t]
        if t == step:
            break
        new = [trace_rows(body, found, out.node) for out in body.outputs[:carries]]
        found |= dict(zip(body.inputs[first : first + carries], new, strict=True))
    return found


def _of_loop(node: Node, given: list[Rows]) -> Array:
    """The flat result of a loop. Its steps are alike, so that one of them stands for all: the last."""
    body, carries, length = (node.attributes[name] for name in ("body", "carries", "length"))
    places = parts(body, carries, length)
    result = np.zeros(node.shape, np.int64)
    if not length:
        return result
    last = 0 if node.attributes["reverse"] else length - 1
    found = step_rows(node, given, last)
    for place, out in zip(places, body.outputs, strict=True):
        rows = trace_rows(body, found, out.node)
        if rows is not None:
            result[place.start : place.stop] = np.broadcast_to(rows, place.shape).reshape(-1)
    return result
