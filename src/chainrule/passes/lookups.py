"""Products with rows looked up in a table, as rows looked up in a product with the table.

Where more rows are asked for than the table has, many of them several times, each product of a row is computed once:

    E[i] · W              is  (E · W)[i]
    E[i]ᵀ · dZ            is  Eᵀ · S,   with S = Σ of the rows of dZ by the rows of E that they belong to
    Σ by i of dZ · Wᵀ     is  S · Wᵀ
    E[i] + b              is  (E + b)[i],   for one row b

So an embedding followed by a projection costs a table of projections, forward and backward. The first and the last have
the same bits; the sums of the others are added up in another order. Rows that nobody looks up take no part in a
gradient, so they are zero in these products, whatever stands in them: 0 · ∞ would be no number.
"""

from collections.abc import Callable

import numpy as np

from chainrule.primitives import contract, index, layout
from chainrule.primitives import elementwise as e
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite


def lookups(program: Program) -> Program:
    """Move products and lookups past each other where that saves work."""

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is contract.matmul and node.ndim == 2:
            return _Product(builder, node).moved()
        if node.primitive is e.add:
            return _added_to_the_table(builder, node)
        if node.primitive is layout.transpose:
            return _looked_up_in_order(builder, node)
        if node.primitive is index.scatter_add:
            return _sum_of_products(builder, node) or _summed_in_order(builder, node)
        return None

    return rewrite(program, rule)


def _moved(builder: Builder, numbers: int, axes: tuple[int, ...], like: Node) -> int:
    return builder.make(layout.transpose, numbers, like=like, axes=axes)


def _looked_up_in_order(builder: Builder, node: Node) -> int | None:
    """Rows in another order are rows looked up by numbers in another order, which are fewer to move."""
    rows, axes = builder.nodes[node.inputs[0]], node.attributes["axes"]
    if rows.primitive is not index.take or axes[-1] != len(axes) - 1 or builder.nodes[rows.inputs[0]].ndim != 2:
        return None
    table, numbers = rows.inputs
    return builder.make(index.take, table, _moved(builder, numbers, axes[:-1], node), like=node)


def _summed_in_order(builder: Builder, node: Node) -> int | None:
    """The same of rows that are added up: in the order in which they are at hand."""
    start, numbers, updates = node.inputs
    rows = builder.nodes[updates]
    if rows.primitive is not layout.transpose or node.ndim != 2:
        return None
    axes = rows.attributes["axes"]
    if axes[-1] != len(axes) - 1:
        return None
    back = tuple(axes.index(i) for i in range(len(axes) - 1))
    moved = builder.make(index.scatter_add, start, _moved(builder, numbers, back, node), rows.inputs[0], like=node)
    return _sum_of_products(builder, builder.nodes[moved]) or moved


def _added_to_the_table(builder: Builder, node: Node) -> int | None:
    """What is added to all rows that are looked up is added to the table."""
    for rows, other in (node.inputs, node.inputs[::-1]):
        found, stretched = _looked_up(builder, rows), builder.nodes[other]
        if found is None or stretched.primitive is not layout.broadcast:
            continue
        row = builder.nodes[stretched.inputs[0]]
        table, numbers = found
        if row.size != node.shape[-1] or row.shape[-1:] != node.shape[-1:]:
            continue
        flat = builder.make(layout.reshape, stretched.inputs[0], like=node, shape=row.shape[-1:])
        row_of_all = builder.make(layout.broadcast, flat, like=node, shape=builder.nodes[table].shape)
        taken = builder.make(index.take, builder.make(e.add, table, row_of_all, like=node), numbers, like=node)
        return builder.make(layout.reshape, taken, like=node, shape=node.shape)
    return None


def _is_zero(builder: Builder, n: int) -> bool:
    node = builder.nodes[n]
    if node.primitive is layout.broadcast:
        return _is_zero(builder, node.inputs[0])
    return node.primitive is CONSTANT and not node.attributes["value"].any()


def _looked_up(builder: Builder, n: int) -> tuple[int, int] | None:
    """(table, numbers) of a matrix of rows that are looked up, if there are more of them than in the table."""
    node = builder.nodes[n]
    if node.primitive is layout.reshape and node.ndim == 2:
        n, rows = node.inputs[0], node.shape
        node = builder.nodes[n]
        if node.primitive is not index.take or node.shape[-1:] != rows[-1:]:
            return None
    if node.primitive is not index.take:
        return None
    table, numbers = (builder.nodes[i] for i in node.inputs)
    return node.inputs if table.ndim == 2 and numbers.size > table.shape[0] else None  # type: ignore[return-value]


def _turned(builder: Builder, n: int) -> int | None:
    """What a matrix is the transpose of."""
    node = builder.nodes[n]
    return node.inputs[0] if node.primitive is layout.transpose and node.attributes["axes"] == (1, 0) else None


def _summed(builder: Builder, like: Node, rows: int, numbers: int, updates: int) -> int:
    """The rows of a matrix added up by their numbers."""
    zero = builder.make(CONSTANT, like=like, value=np.zeros((), like.dtype))
    given = builder.nodes[updates]
    columns = given.shape[-1]
    table = builder.make(layout.broadcast, zero, like=like, shape=(rows, columns))
    shape = (*builder.nodes[numbers].shape, columns)
    if given.shape != shape:
        updates = builder.make(layout.reshape, updates, like=like, shape=shape)
    return builder.make(index.scatter_add, table, numbers, updates, like=like)


def _where_asked(builder: Builder, like: Node, x: int, numbers: int) -> int:
    """A matrix with a row for each of the table, zero where nobody looks the row up."""
    rows, columns = builder.nodes[x].shape

    def number(value: int, shape: tuple[int, ...]) -> int:
        one = builder.make(CONSTANT, like=like, value=np.asarray(value, like.dtype))
        return builder.make(layout.broadcast, one, like=like, shape=shape)

    ones = number(1, builder.nodes[numbers].shape)
    count = builder.make(index.scatter_add, number(0, (rows,)), numbers, ones, like=like)
    asked = builder.make(e.less, number(0, (rows,)), count, like=like)
    column = builder.make(layout.reshape, asked, like=like, shape=(rows, 1))
    mask = builder.make(layout.broadcast, column, like=like, shape=(rows, columns))
    return builder.make(e.where, mask, x, number(0, (rows, columns)), like=like)


class _Product:
    """A product of matrices, one of which may be rows of a table."""

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder, self.node = builder, node
        self.make: Callable[..., int] = lambda *a, **k: builder.make(*a, like=node, **k)

    def moved(self) -> int | None:
        """Another node with its value."""
        a, b = self.node.inputs
        found = _looked_up(self.builder, a)
        if found is not None:
            table, numbers = found
            rows = self.make(index.take, self.make(contract.matmul, table, b), numbers)
            return self.make(layout.reshape, rows, shape=self.node.shape)
        turned = _turned(self.builder, a)
        if turned is None:
            return None
        found = _looked_up(self.builder, turned)
        if found is not None:
            return self.make(contract.matmul, self._turn(self._asked(found)), self._sum(found, b))
        found = _looked_up(self.builder, b)
        if found is not None:
            return self.make(contract.matmul, self._turn(self._sum(found, turned)), self._asked(found))
        return None

    def _sum(self, found: tuple[int, int], updates: int) -> int:
        table, numbers = found
        return _summed(self.builder, self.node, self.builder.nodes[table].shape[0], numbers, updates)

    def _asked(self, found: tuple[int, int]) -> int:
        table, numbers = found
        return _where_asked(self.builder, self.node, table, numbers)

    def _turn(self, n: int) -> int:
        return self.make(layout.transpose, n, axes=(1, 0))


def _sum_of_products(builder: Builder, node: Node) -> int | None:
    """Σ by number of the rows of a product."""
    zeros, numbers, updates = node.inputs
    rows = builder.nodes[updates]
    if rows.primitive is layout.reshape and rows.shape[-1:] == builder.nodes[rows.inputs[0]].shape[-1:]:
        rows = builder.nodes[rows.inputs[0]]
    fewer = builder.nodes[numbers].size > node.shape[0]
    if not fewer or node.ndim != 2 or rows.primitive is not contract.matmul or rows.ndim != 2:
        return None
    if not _is_zero(builder, zeros) or rows.shape != (builder.nodes[numbers].size, node.shape[1]):
        return None
    a, b = rows.inputs
    product = builder.make(contract.matmul, _summed(builder, node, node.shape[0], numbers, a), b, like=node)
    return _where_asked(builder, node, product, numbers)
