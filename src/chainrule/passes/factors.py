"""What is the same for all addends of a sum is multiplied with the sum instead: Σ c · x = c · Σ x.

The gradient of a batch norm has four sums over all images and places: of dY and dY · x̂, for its bias and weight, and of
these times the weight, for its input. With x̂ = (x − mean) / deviation, two are left: Σ dY and Σ dY · (x − mean).

Only sums down columns: there vectors run across them, and what is saved is a whole pass.
"""

from collections.abc import Callable

from chainrule import dtypes
from chainrule.passes.views import View, extend_views
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout
from chainrule.program.program import Builder, Node, Program, rewrite

MOST = 8
"""Factors of a product that are looked at."""


def factors(program: Program) -> Program:
    """Take factors out of sums."""
    found: list[View] = []

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is not layout.sum or node.dtype not in (dtypes.float32, dtypes.float64):
            return None
        axes = [a for a in node.attributes["axes"] if builder.nodes[node.inputs[0]].shape[a] > 1]
        if not axes or not any(n > 1 for n in node.shape[max(axes) + 1 :]):
            return None
        extend_views(found, builder.nodes)
        parts = factors_of(builder, node.inputs[0])
        steady = [x for x in parts if all(found[x].strides[a] == 0 for a in axes)]
        rest = sorted(x for x in parts if x not in steady)
        if not steady or not rest:
            return None
        total = builder.make(layout.sum, product_of(builder, rest, node), like=node, axes=node.attributes["axes"])
        start, step = (0,) * node.ndim, (1,) * node.ndim
        once = [builder.make(layout.slice, x, like=node, start=start, stop=node.shape, step=step) for x in steady]
        return product_of(builder, [total, *once], node)

    return rewrite(program, rule)


def factors_of(builder: Builder, x: int, apart: Callable[[int], bool] = lambda n: True) -> list[int]:
    """What x is the product of, products of products taken `apart`."""
    found = [x]
    while len(found) < MOST:
        products = (k for k, n in enumerate(found) if builder.nodes[n].primitive is e.mul and apart(n))
        product = next(products, None)
        if product is None:
            break
        found[product : product + 1] = builder.nodes[found[product]].inputs
    return found


def product_of(builder: Builder, values: list[int], like: Node) -> int:
    """One after the other."""
    first, *others = values
    for x in others:
        first = builder.make(e.mul, first, x, like=like)
    return first
