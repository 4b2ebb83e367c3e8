"""Reductions one block of neighbouring axes at a time, the innermost first: each is then over rows, or down columns.

A reduction of everything goes along the rows first, while they are at hand, and then over the row values.
In half precision what takes several steps is done in float32 and rounded once.
"""

from math import prod

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.primitives import elementwise as e
from chainrule.primitives import index
from chainrule.program.program import Builder, Node, Program, rewrite

LONG = 1024  # numbers in a column from which on it is summed in portions
PORTIONS = 8  # how many there must be
ONE_AXIS = ("argmax", "argmin")


def blocks(shape: Shape, axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The axes to reduce in turn. Axes of extent 1 belong to any block.

    >>> blocks((2, 3, 4), (0, 2)), blocks((5, 4), (0, 1)), blocks((2, 3, 4), (1, 2))
    ([(2,), (0,)], [(1,), (0,)], [(1, 2)])
    """
    inner: list[int] = []
    found: list[list[int]] = []
    open_block = False
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            if axis in axes:
                inner.append(axis)
        elif axis not in axes:
            open_block = False
        elif open_block:
            found[-1].append(axis)
        else:
            found.append([axis])
            open_block = True
    if len(found) == 1 and all(shape[a] == 1 for a in range(len(shape)) if a not in axes) and len(found[0]) > 1:
        found = [found[0][:1], found[0][1:]]
    if not found:
        found = [[]]
    found[0] += inner
    return [part for block in found for part in _in_portions(shape, sorted(block))]


def _in_portions(shape: Shape, block: list[int]) -> list[tuple[int, ...]]:
    """A long sum down columns, over several axes: first within each index of the outermost one. Threads can share that
    out, and fewer numbers are added up in one go."""
    long = [a for a in block if shape[a] > 1]
    count, columns = (
        prod(shape[a] for a in long),
        prod(shape[a] for a in range(len(shape)) if a > max(block, default=0)),
    )
    if len(long) < 2 or columns == 1 or count < LONG or shape[long[0]] < PORTIONS:
        return [tuple(block)]
    return [tuple(a for a in block if a != long[0]), (long[0],)]


def reductions(program: Program) -> Program:
    """Split reductions over several blocks of axes; widen scatter_add, whose partial sums would be stored."""

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is index.scatter_add and node.dtype in dtypes.HALVES:
            return _widened(builder, node)
        if node.primitive.kind != "reduce" or node.primitive.name in ONE_AXIS:
            return None
        parts = blocks(builder.nodes[node.inputs[0]].shape, node.attributes["axes"])
        if len(parts) < 2:
            return None
        x = node.inputs[0]
        if node.dtype in dtypes.HALVES:
            x = builder.make(e.cast, x, like=node, dtype=dtypes.float32)
        for axes in parts:
            x = builder.make(node.primitive, x, like=node, axes=axes)
        return builder.make(e.cast, x, like=node, dtype=node.dtype) if node.dtype in dtypes.HALVES else x

    return rewrite(program, rule)


def _widened(builder: Builder, node: Node) -> int:
    x, number, updates = node.inputs
    wide = [builder.make(e.cast, i, like=node, dtype=dtypes.float32) for i in (x, updates)]
    total = builder.make(index.scatter_add, wide[0], number, wide[1], like=node)
    return builder.make(e.cast, total, like=node, dtype=node.dtype)
