"""Algebraic simplification, only where not one bit can change (x + 0 is not x for −0; x · 0 is not 0 for NaN)."""

from collections.abc import Callable

import numpy as np

from chainrule import dtypes
from chainrule.passes.fold import uniform
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout, reduce
from chainrule.program.program import Builder, Node, Program, rewrite

Rule = Callable[[Builder, Node], int | None]


def _is(builder: Builder, i: int, number: float) -> bool:
    value = uniform(builder, i)
    return value is not None and bool(value == number)


def _multiply(builder: Builder, node: Node) -> int | None:
    a, b = node.inputs
    return b if _is(builder, a, 1) else a if _is(builder, b, 1) else None


def _divide(builder: Builder, node: Node) -> int | None:
    return node.inputs[0] if _is(builder, node.inputs[1], 1) else None


def _add(builder: Builder, node: Node) -> int | None:
    """x + (−0) is x for every x; x + 0 only for integers."""
    for i, other in (node.inputs, node.inputs[::-1]):
        value = uniform(builder, i)
        if value is not None and value == 0 and (not dtypes.is_float(node.dtype) or np.signbit(value)):
            return other
    return None


def _subtract(builder: Builder, node: Node) -> int | None:
    value = uniform(builder, node.inputs[1])
    zero = value is not None and value == 0 and not np.signbit(value.astype(np.float64))
    return node.inputs[0] if zero else None


def _involution(builder: Builder, node: Node) -> int | None:
    """−(−x) and not not x."""
    inner = builder.nodes[node.inputs[0]]
    return inner.inputs[0] if inner.primitive is node.primitive else None


def _where(builder: Builder, node: Node) -> int | None:
    condition, a, b = node.inputs
    value = uniform(builder, condition)
    if value is not None:
        return a if value else b
    return a if a == b else None


def _cast(builder: Builder, node: Node) -> int | None:
    inner = builder.nodes[node.inputs[0]]
    if inner.dtype == node.dtype:
        return node.inputs[0]
    if inner.primitive is e.cast:  # there and back through a wider type changes nothing
        source = builder.nodes[inner.inputs[0]]
        if source.dtype == node.dtype and np.can_cast(source.dtype, inner.dtype, "safe"):
            return inner.inputs[0]
    return None


def _reshape(builder: Builder, node: Node) -> int | None:
    inner = builder.nodes[node.inputs[0]]
    if inner.shape == node.shape:
        return node.inputs[0]
    if inner.primitive is layout.reshape:
        source = inner.inputs[0]
        if builder.nodes[source].shape == node.shape:
            return source
        return builder.make(layout.reshape, source, like=node, shape=node.shape)
    return None


def _transpose(builder: Builder, node: Node) -> int | None:
    axes = node.attributes["axes"]
    inner = builder.nodes[node.inputs[0]]
    source = node.inputs[0]
    if inner.primitive is layout.transpose:
        axes = tuple(inner.attributes["axes"][a] for a in axes)
        source = inner.inputs[0]
    if axes == tuple(range(len(axes))):
        return source
    return None if source == node.inputs[0] else builder.make(layout.transpose, source, like=node, axes=axes)


def _broadcast(builder: Builder, node: Node) -> int | None:
    inner = builder.nodes[node.inputs[0]]
    if inner.shape == node.shape:
        return node.inputs[0]
    if inner.primitive is layout.broadcast:
        return builder.make(layout.broadcast, inner.inputs[0], like=node, shape=node.shape)
    return None


def _same_shape(builder: Builder, node: Node) -> int | None:
    """A slice, pad or concat that takes everything as it is."""
    if len(node.inputs) != 1 or builder.nodes[node.inputs[0]].shape != node.shape:
        return None
    return None if min(node.attributes.get("step", (1,)), default=1) < 0 else node.inputs[0]


def _reduce_one(builder: Builder, node: Node) -> int | None:
    """An extreme over axes of extent 1. (A sum is not: NumPy makes +0 of a single −0.)"""
    inner = builder.nodes[node.inputs[0]]
    return node.inputs[0] if inner.shape == node.shape and inner.dtype == node.dtype else None


RULES: dict[str, Rule] = {
    e.mul.name: _multiply,
    e.div.name: _divide,
    e.add.name: _add,
    e.sub.name: _subtract,
    e.neg.name: _involution,
    e.bit_not.name: _involution,
    e.where.name: _where,
    e.cast.name: _cast,
    layout.reshape.name: _reshape,
    layout.transpose.name: _transpose,
    layout.broadcast.name: _broadcast,
    layout.slice.name: _same_shape,
    layout.pad.name: _same_shape,
    layout.concat.name: _same_shape,
    reduce.max.name: _reduce_one,
    reduce.min.name: _reduce_one,
}


def simplify(program: Program) -> Program:
    """Drop what changes nothing."""

    def rule(builder: Builder, node: Node) -> int | None:
        known = RULES.get(node.primitive.name)
        return known(builder, node) if known else None

    return rewrite(program, rule)
