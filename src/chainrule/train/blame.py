"""Where a value that is not finite comes from: back through a Program, element by element, to where it was made.

Not every infinity is a fault: a mask holds −∞ on purpose, and a logarithm may be of 0 where nobody reads it. So the
search begins at what must be finite (the loss, say) and follows only elements that are not, back to the nodes that
made them out of finite ones. The first of these, in the order of computation, is the one to blame.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.functions.custom import AFTER
from chainrule.primitives import contract, elementwise, index
from chainrule.program.program import CONSTANT, INPUT, Node, Program

Array = np.ndarray


class Origin(NamedTuple):
    """A node, and the elements of it that were made not finite there."""

    node: int
    elements: Array


def find_origin(program: Program, value: Callable[[int], Array], bad: Mapping[int, Array]) -> Origin | None:
    """Where the elements `bad` of some nodes come from; None where none of them is bad.

    Of several places the first. An infinity that was put in as a constant counts only when nothing was made of finite
    numbers, and then the first node that made a number that is none of it (∞ − ∞, say) goes before the constant.
    """
    blamed: dict[int, Array] = {i: mask for i, mask in bad.items() if mask.any()}
    made: list[Origin] = []
    turned: list[Origin] = []
    given: list[Origin] = []
    for i in range(max(blamed, default=-1), -1, -1):
        if i not in blamed:
            continue
        node, mask = program.nodes[i], blamed.pop(i)
        if node.primitive is CONSTANT:
            given.append(Origin(i, mask))
            continue
        if node.primitive is INPUT:
            made.append(Origin(i, mask))
            continue
        inputs = [value(x) for x in node.inputs]
        through = _passed_on(node, inputs, mask)
        for x, part in zip(node.inputs, through, strict=True):
            if part is not None and part.any():
                blamed[x] = blamed[x] | part if x in blamed else part
        fresh = mask & ~_explained(node, inputs, through)
        if fresh.any():
            made.append(Origin(i, fresh))
        nan = mask & np.isnan(value(i))
        if nan.any() and not any([np.isnan(a[part]).any() for a, part in zip(inputs, through, strict=True)
                                  if part is not None]):  # fmt: skip
            turned.append(Origin(i, nan))
    found = made or turned or given
    return found[-1] if found else None


def _passed_on(node: Node, inputs: list[Array], mask: Array) -> list[Array | None]:
    """Which elements of the inputs, of those that are not finite, may have made these elements of the node."""
    read = _read(node, inputs, mask)
    return [
        None if part is None or not dtypes.is_float(a.dtype) else part & ~np.isfinite(a)
        for a, part in zip(inputs, read, strict=True)
    ]


def _read(node: Node, inputs: list[Array], mask: Array) -> list[Array | None]:
    """Which elements of the inputs these elements of the node are made of; None for those that only choose."""
    primitive = node.primitive
    if primitive is elementwise.where:
        return [None, mask & inputs[0], mask & ~inputs[0]]
    if primitive is AFTER:
        return [mask, None]
    if primitive.kind == "elementwise":
        return [mask for _ in inputs]
    if primitive.kind == "layout":
        return _moved(node, inputs, mask)
    if primitive.kind == "reduce":
        return [np.broadcast_to(mask, inputs[0].shape)]
    if primitive is contract.matmul:
        rows, columns = mask.any(axis=-1, keepdims=True), mask.any(axis=-2, keepdims=True)
        return [np.broadcast_to(rows, inputs[0].shape), np.broadcast_to(columns, inputs[1].shape)]
    if primitive is index.take:
        return [_moved(node, inputs, mask)[0], None]
    if primitive is index.scatter_add:
        return [mask, None, mask[inputs[1]]]
    return [np.ones(a.shape, np.bool_) for a in inputs]


def _moved(node: Node, inputs: list[Array], mask: Array) -> list[Array | None]:
    """Where elements that were only moved stood: the same move is made with their numbers, from 1 on."""
    numbers, begin = [], 1
    for a in inputs:
        whole = dtypes.is_float(a.dtype) or node.primitive.kind == "layout"
        numbers.append(np.arange(begin, begin + a.size).reshape(a.shape) if whole else a)
        begin += a.size if whole else 0
    moved = node.primitive.evaluate(np.dtype(np.int64), tuple(numbers), node.attributes)
    hit = np.zeros(begin, np.bool_)
    hit[moved[mask]] = True
    found: list[Array | None] = []
    begin = 1
    for a, own in zip(inputs, numbers, strict=True):
        found.append(hit[begin : begin + a.size].reshape(a.shape) if own is not a else None)
        begin += a.size if own is not a else 0
    return found


def _explained(node: Node, inputs: list[Array], through: list[Array | None]) -> Array:
    """Which elements of the node are not finite because one that they are made of is not."""
    parts = [part for part in through if part is not None]
    primitive, shape = node.primitive, node.shape
    if not parts:
        return np.zeros(shape, np.bool_)
    if primitive.kind == "elementwise":
        return np.asarray(np.logical_or.reduce(parts))
    if primitive.kind == "reduce":
        return np.asarray(parts[0].any(axis=node.attributes["axes"], keepdims=True))
    if primitive is contract.matmul:
        return np.asarray(parts[0].any(axis=-1, keepdims=True) | parts[1].any(axis=-2, keepdims=True))
    return np.broadcast_to(np.asarray(any([part.any() for part in parts])), shape)
