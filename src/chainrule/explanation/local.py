"""Local derivatives as numbers, by the very rules that training uses.

A rule is linear in the gradient that it is given. So the column of the Jacobian that belongs to one element of an input
is the derivative of the rule: what the rule's own pull-back makes of a unit vector. That holds for every primitive, and
for functions with a rule of their own. It is computed in float64, from the values of the step.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import fresh_leaf, vjp
from chainrule.core.tensor import Scope, Tensor, wrap
from chainrule.explanation.node import Node
from chainrule.functions.custom import CUSTOM
from chainrule.tree import Leaf

Array = np.ndarray


def slopes(node: Node, position: int, inputs: list[Array]) -> Array | None:
    """∂y/∂x of each element of an elementwise node, in float64; None for nodes of another kind.

    A function with a rule of its own may be of any kind: a softmax, say.
    """
    primitive = node.tensor.primitive
    if primitive.kind != "elementwise" or primitive is CUSTOM or node.tensor.inputs[position].shape != node.shape:
        return None
    return handed(node, position, inputs, np.ones(node.shape))


def handed(node: Node, position: int, inputs: list[Array], upstream: Array) -> Array | None:
    """What the node's rule hands to the input where `upstream` is the gradient by the node, in float64."""
    rule, scope = _rule(node, position, inputs)
    made = rule(wrap(upstream.astype(_working(node))))
    scope.open = False
    return None if made is None else np.asarray(made.value, np.float64)


def column(node: Node, position: int, inputs: list[Array], index: tuple[int, ...]) -> Array:
    """∂y/∂x[index] for all elements of y: an array of the shape of y, float64."""
    dtype = _working(node)
    unit = np.zeros(node.tensor.inputs[position].shape, dtype)
    unit[index] = 1
    rule, scope = _rule(node, position, inputs)
    made, pull = vjp(rule, wrap(np.zeros(node.shape, dtype)))
    scope.open = False
    if made is None:
        return np.zeros(node.shape)
    return np.asarray(pull(wrap(unit))[0].value, np.float64)


def _working(node: Node) -> np.dtype[Any]:
    """float64, save for loops: their bodies have the dtype that they were traced with."""
    return node.tensor.dtype if node.tensor.primitive.kind == "control" else np.dtype(np.float64)


def _rule(node: Node, position: int, inputs: list[Array]) -> tuple[Callable[[Tensor], Any], Scope]:
    """What the node hands to the input, as a function of the gradient by the node; and the scope it needs open."""
    x, scope = node.tensor, Scope()
    single = x.primitive.kind == "control"

    def widened(array: Array) -> Array:
        return array if single or not dtypes.is_float(array.dtype) else array.astype(np.float64)

    given = [fresh_leaf(Leaf("", wrap(widened(a)), "value"), scope) if _real(a) else wrap(a) for a in inputs]
    y = wrap(widened(node.value))

    def rule(dy: Tensor) -> Any:
        assert x.primitive.vjp is not None
        made = x.primitive.vjp(dy, y, *given, **x.attributes)[position]
        return made() if callable(made) else made

    return rule, scope


def _real(array: Array) -> bool:
    return dtypes.is_float(array.dtype)
