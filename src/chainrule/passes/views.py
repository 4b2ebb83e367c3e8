"""Views: layout operations as index maps, so that they cost nothing.

Transpose, broadcast, slice, and a reshape wherever the strides allow it, only change which element of another node's
memory stands where. A `View` says which: element (i, j, …) of the node is element `offset + Σ stride · index` of the
dense row-major memory of `base`. The same algebra serves `iota`, read as a memory that holds its own positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chainrule.core.primitive import Shape
from chainrule.primitives import index, layout
from chainrule.program.program import CONSTANT, Node, Program

Extents = list[tuple[int, int]]  # (extent, stride) from the outermost axis to the innermost
Axes = int | tuple[tuple[int, int], ...]  # the same of a stack; of a single axis its stride alone


@dataclass(frozen=True)
class View:
    """Where the elements of a node lie: `base` is the node whose memory it is, strides count elements."""

    base: int
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dense(self) -> bool:
        """Whether it is all of a memory in row-major order, seen in any shape."""
        return self.offset == 0 and collapse(self.shape, self.strides) in ([], [(_product(self.shape), 1)])

    @property
    def contiguous(self) -> bool:
        """Whether it is one piece of a memory, from some element on, in row-major order."""
        return collapse(self.shape, self.strides) in ([], [(_product(self.shape), 1)])


def in_memory(node: Node) -> bool:
    """Whether a node has memory: not single numbers and positions, which are known where they are needed."""
    return node.primitive is not index.iota and not (node.primitive is CONSTANT and node.size == 1)


def is_lookup(nodes: Sequence[Node], node: Node) -> bool:
    """Whether it takes single elements of a vector: each element of the result then follows from one of the index."""
    return node.primitive is index.take and nodes[node.inputs[1]].shape == node.shape


def dense_strides(shape: Shape) -> tuple[int, ...]:
    """The strides of a row-major array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _product(extents: Sequence[int]) -> int:
    result = 1
    for n in extents:
        result *= n
    return result


def collapse(shape: Sequence[int], strides: Sequence[int]) -> Extents:
    """The fewest axes with the same index map: extents of 1 dropped, neighbours merged where they follow each other."""
    axes: Extents = []
    for n, stride in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * stride:
            axes[-1] = (axes[-1][0] * n, stride)
        else:
            axes.append((n, stride))
    return axes


def split(shape: Sequence[int], strides: Sequence[int], sizes: Sequence[int]) -> list[Extents] | None:
    """The index map cut into blocks of axes with the given numbers of elements; None where an axis lies across a cut.

    >>> split((2, 3, 4), (12, 4, 1), (6, 4))
    [[(6, 4)], [(4, 1)]]
    """
    blocks, at = [], 0
    for size in sizes:
        begin, count = at, 1
        while count < size and at < len(shape):
            count *= shape[at]
            at += 1
        if count != size:
            return None
        blocks.append(collapse(shape[begin:at], strides[begin:at]))
    return blocks if all(n == 1 for n in shape[at:]) else None


def reshaped(shape: Shape, strides: tuple[int, ...], new: Shape) -> tuple[int, ...] | None:
    """The strides of the same elements in the shape `new`; None where no strides do it."""
    axes = collapse(shape, strides)
    result: list[int] = []
    k, left = len(axes) - 1, axes[-1][0] if axes else 1
    step = axes[-1][1] if axes else 1
    for n in reversed(new):
        if n == 1:
            result.append(0)
            continue
        while left == 1 and k > 0:
            k -= 1
            left, step = axes[k]
        if left % n:
            return None
        result.append(step)
        left //= n
        step *= n
    return tuple(reversed(result))


def with_pitch(view: View, columns: int, pitch: int) -> View | None:
    """A view of a matrix of so many columns, where its rows are so far apart; None where no strides tell.

    >>> with_pitch(View(0, (5, 3), (1, 10), 20), 10, 16)  # columns 0 … 4 of rows 2 … 4, transposed
    View(base=0, shape=(5, 3), strides=(1, 16), offset=32)
    """
    row, first = divmod(view.offset, columns)
    strides, reach = [], first
    for n, stride in zip(view.shape, view.strides, strict=True):
        down, along = divmod(stride, columns)
        if n > 1 and (stride < 0 or (down and along)):
            return None
        reach += (n - 1) * along if n > 1 else 0
        strides.append(down * pitch + along)
    return replace(view, strides=tuple(strides), offset=row * pitch + first) if reach < columns else None


def layout_view(node: Node, x: View) -> View | None:
    """`node`, a layout operation on `x`, as a view; None where it has to be computed."""
    a = node.attributes
    if 0 in node.shape:
        return View(x.base, node.shape, dense_strides(node.shape), 0)
    if node.primitive is layout.transpose:
        return View(x.base, node.shape, tuple(x.strides[i] for i in a["axes"]), x.offset)
    if node.primitive is layout.broadcast:
        lead = len(node.shape) - len(x.shape)
        kept = [0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)]
        return View(x.base, node.shape, (0,) * lead + tuple(kept), x.offset)
    if node.primitive is layout.slice:
        offset = x.offset + sum(start * s for start, s in zip(a["start"], x.strides, strict=True))
        return View(x.base, node.shape, tuple(s * step for s, step in zip(x.strides, a["step"], strict=True)), offset)
    if node.primitive is layout.reshape:
        strides = reshaped(x.shape, x.strides, node.shape)
        return None if strides is None else View(x.base, node.shape, strides, x.offset)
    return None


def extend_views(found: list[View], nodes: Sequence[Node]) -> None:
    """Append the views of the nodes that have none yet."""
    for i in range(len(found), len(nodes)):
        node, view = nodes[i], None
        if node.primitive.kind == "layout":
            view = layout_view(node, found[node.inputs[0]])
        elif node.primitive is index.iota and node.attributes["axis"] is not None:
            axis = node.attributes["axis"]
            view = View(i, node.shape, tuple(int(k == axis) for k in range(node.ndim)), 0)
        found.append(view or View(i, node.shape, dense_strides(node.shape), 0))


def views(program: Program) -> list[View]:
    """The view of every node: of its own memory, unless it is a layout operation that needs none."""
    found: list[View] = []
    extend_views(found, program.nodes)
    return found
