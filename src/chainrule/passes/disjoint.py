"""Slices and their derivatives: what was taken apart is put together at once.

The derivative of a slice is a pad: the gradient of the slice with zeros around it. Where something was cut into pieces
(queries, keys and values, the gates of an LSTM, the steps of a sequence), its gradient is the sum of all these pads: as
many sums over the whole as there are pieces. Pieces that do not overlap are joined instead, with zeros where none is:

    pad(a) + pad(b) + pad(c)                    is  join(a, b, c)
    take(x, iota)                               is  slice(x)
    scatter_add(zeros, iota, rows)              is  join(rows, zeros)

No bit changes. In a sum, zeros meet every element, and −0 + 0 is +0: so a join makes −0 to +0, as a concat would not.
Which numbers an index has is known where it is an `iota`. Constants are not asked: no code depends on their values.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape
from chainrule.passes.fold import uniform
from chainrule.primitives import elementwise as e
from chainrule.primitives import index, layout
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite


def _join_meaning(m: Any, *xs: Any, axis: int) -> Any:
    whole = m.concatenate(xs, axis=axis)
    return whole + whole.dtype.type(0)


join = Primitive("join", "layout", _join_meaning, layout.concat.infer)


@dataclass(frozen=True)
class Part:
    """A piece of a value that is 0 elsewhere: the node `x` stands at `start` … `stop` of an axis."""

    axis: int
    start: int
    stop: int
    x: int


Parts = tuple[Part, ...]


def disjoint(program: Program) -> Program:
    """Join pieces that do not overlap, and slice what is looked up in order."""
    parts = _all_parts(program)
    wanted = _wanted(program, parts)
    originals = iter(range(len(program.nodes)))
    new: list[int] = []

    def rule(builder: Builder, node: Node) -> int | None:
        n = next(originals)
        found = None
        if n in wanted:
            found = _Join(builder, node, [replace(part, x=new[part.x]) for part in parts[n]]).made()
        elif node.primitive is index.take:
            found = _sliced(builder, node)
        new.append(builder.add(node) if found is None else found)
        return new[-1]

    return rewrite(program, rule)


# -- which values are made of pieces


def _all_parts(program: Program) -> list[Parts]:
    """For each node the pieces that it is made of, in their order; none where that is not known."""
    builder, parts = Builder(list(program.nodes)), list[Parts]()
    for node in program.nodes:
        found: Parts = ()
        if node.primitive is layout.pad:
            found = _of_pad(node, builder.nodes[node.inputs[0]].shape)
        elif node.primitive is index.scatter_add:
            found = _of_rows(builder, node)
        elif node.primitive is e.add:
            found = _together(*[parts[x] for x in node.inputs])
        parts.append(found)
    return parts


def _of_pad(node: Node, shape: tuple[int, ...]) -> Parts:
    a = node.attributes
    axes = [axis for axis, (n, size) in enumerate(zip(shape, node.shape, strict=True)) if n != size]
    if len(axes) != 1 or any(a["interior"]) or 0 in shape:
        return ()
    (axis,) = axes
    start = a["low"][axis]
    return (Part(axis, start, start + shape[axis], node.inputs[0]),)


def _of_rows(builder: Builder, node: Node) -> Parts:
    """Rows that are added to nothing, one after the other."""
    x, numbers, updates = node.inputs
    start, count = uniform(builder, x), _in_order(builder, numbers)
    if start is None or start.tobytes() != bytes(node.dtype.itemsize) or not 0 < count <= node.shape[0]:
        return ()
    return (Part(0, 0, count, updates),)


def _in_order(builder: Builder, n: int) -> int:
    """How many numbers an index has, if they are 0, 1, 2, …; else 0."""
    node = builder.nodes[n]
    if node.primitive is not index.iota or (node.attributes["axis"] is not None and node.ndim != 1):
        return 0
    return node.size if node.size <= dtypes.integer_limits(node.dtype)[1] else 0


def _together(a: Parts, b: Parts) -> Parts:
    """The pieces of a sum; none where some overlap."""
    if not a or not b or a[0].axis != b[0].axis:
        return ()
    parts = tuple(sorted((*a, *b), key=lambda part: part.start))
    return parts if all(one.stop <= two.start for one, two in pairwise(parts)) else ()


def _wanted(program: Program, parts: list[Parts]) -> set[int]:
    """The nodes that are to be joined: those that are more than a piece of another one."""
    read = {out.node for out in program.outputs}
    for n, node in enumerate(program.nodes):
        if node.primitive is not e.add or not parts[n]:
            read.update(node.inputs)
    return {n for n in read if parts[n] and program.nodes[n].primitive is not layout.pad}


# -- the new nodes


def _sliced(builder: Builder, node: Node) -> int | None:
    x, numbers = node.inputs
    count, shape = _in_order(builder, numbers), builder.nodes[x].shape
    if not 0 < count <= shape[0]:
        return None
    ones, stop = (1,) * len(shape), (count, *shape[1:])
    rows = builder.make(layout.slice, x, like=node, start=(0,) * len(shape), stop=stop, step=ones)
    same = builder.nodes[rows].shape == node.shape
    return rows if same else builder.make(layout.reshape, rows, like=node, shape=node.shape)


class _Join:
    """The node that puts pieces together."""

    def __init__(self, builder: Builder, node: Node, parts: list[Part]) -> None:
        self.builder, self.node, self.axis = builder, node, parts[0].axis
        self.pieces: list[tuple[int | None, int]] = []  # (node, or None for zeros; how long it is)
        at = 0
        for part in parts:
            if part.start > at:
                self.pieces.append((None, part.start - at))
            self.pieces.append((part.x, part.stop - part.start))
            at = part.stop
        if at < node.shape[self.axis]:
            self.pieces.append((None, node.shape[self.axis] - at))

    def made(self) -> int:
        """Its number."""
        rest = self._rest()
        xs = [self._piece(x, n, rest) for x, n in self.pieces]
        if len(xs) == 1:
            whole = self._make(e.add, xs[0], self._zeros(self.builder.nodes[xs[0]].shape))
        else:
            whole = self._make(join, *xs, axis=self.axis)
        same = self.builder.nodes[whole].shape == self.node.shape
        return whole if same else self._make(layout.reshape, whole, shape=self.node.shape)

    def _make(self, primitive: Primitive, *inputs: int, **attributes: Any) -> int:
        return self.builder.make(primitive, *inputs, like=self.node, **attributes)

    def _rest(self) -> Shape:
        """Axes that reshapes have merged into the end of the axis, after a transpose, where all pieces can do without:
        so that nothing has to be put in order first, as for the heads of attention."""
        for x, n in self.pieces:
            shape = None if x is None else self._before_reshape(x, n)
            if shape is not None:
                rest = shape[self.axis + 1 : len(shape) - (self.node.ndim - self.axis - 1)]
                if rest and all(length % prod(rest) == 0 for _, length in self.pieces):
                    return rest
        return ()

    def _before_reshape(self, x: int, n: int) -> Shape | None:
        """The shape of a transpose of which `x` is a reshape that merges axes into the one of the pieces."""
        node, shape, axis = self.builder.nodes[x], self.node.shape, self.axis
        if node.primitive is not layout.reshape:
            return None
        source = self.builder.nodes[node.inputs[0]]
        end = source.ndim - (len(shape) - axis - 1)
        outer = source.shape[:axis] == shape[:axis] and source.shape[end:] == shape[axis + 1 :]
        merged = end > axis and prod(source.shape[axis:end]) == n
        return source.shape if source.primitive is layout.transpose and outer and merged else None

    def _piece(self, x: int | None, n: int, rest: Shape) -> int:
        shape = (*self.node.shape[: self.axis], n // prod(rest), *rest, *self.node.shape[self.axis + 1 :])
        if x is None:
            return self._zeros(shape)
        node = self.builder.nodes[x]
        if node.primitive is layout.reshape and self.builder.nodes[node.inputs[0]].shape == shape:
            return node.inputs[0]
        return x if node.shape == shape else self._make(layout.reshape, x, shape=shape)

    def _zeros(self, shape: Shape) -> int:
        zero = self._make(CONSTANT, value=np.zeros((), self.node.dtype))
        return self._make(layout.broadcast, zero, shape=shape)
