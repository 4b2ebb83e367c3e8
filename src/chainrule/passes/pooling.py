"""What happens to the gradient behind a largest-of-windows is done before it is spread out over the image.

Each window gives its gradient to its winner, all other elements get zeros. Behind a ReLU that image is masked, and its
sum is the gradient of a bias:

    where(x ≤ 0, 0, put(dy, winners))   is   put(where(y ≤ 0, 0, dy), winners)      for y = take(relu(x), winners)
    sum over places of put(dy, winners) is   sum over windows of dy

so both are done with a fraction of the elements, and the mask of the image need not be kept.
"""

from dataclasses import dataclass, field

import numpy as np

from chainrule.passes.fold import uniform
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout
from chainrule.primitives.window import window_argmax, window_put, window_take
from chainrule.program.program import Builder, Node, Program, rewrite


def pooling(program: Program) -> Program:
    """Move masks and sums before what spreads gradients out."""
    return rewrite(program, _Pooling().rule)


@dataclass
class _Pooling:
    taken: dict[int, list[int]] = field(default_factory=dict)  # by winners: the nodes that read them

    def rule(self, builder: Builder, node: Node) -> int | None:
        """See `rewrite`."""
        if node.primitive is window_take:
            self.taken.setdefault(node.inputs[1], []).append(builder.add(node))
            return self.taken[node.inputs[1]][-1]
        if node.primitive is e.where:
            return self._masked(builder, node)
        return _summed(builder, node) if node.primitive is layout.sum else None

    def _masked(self, builder: Builder, node: Node) -> int | None:
        condition, *sides = node.inputs
        spread = next((k for k, x in enumerate(sides) if builder.nodes[x].primitive is window_put), None)
        if spread is None or not _is_zero(builder, sides[1 - spread]):
            return None
        put = builder.nodes[sides[spread]]
        dy, winners = put.inputs
        known = [y for y in self.taken.get(winners, ()) if builder.nodes[y].attributes == _windows(put)]
        y = next((y for y in known if _is_mask(builder, condition, builder.nodes[y].inputs[0])), None)
        if y is None:
            return None
        number = builder.nodes[sides[1 - spread]].inputs[0]
        zeros = builder.make(layout.broadcast, number, like=node, shape=builder.nodes[y].shape)
        mask = builder.make(e.less_equal, y, zeros, like=node)
        masked = builder.make(e.where, mask, *((dy, zeros) if spread == 0 else (zeros, dy)), like=node)
        return builder.make(window_put, masked, winners, like=node, **put.attributes)


def _windows(put: Node) -> dict[str, object]:
    """The settings of those who look at the same windows."""
    return {k: v for k, v in put.attributes.items() if k != "size"}


def _is_zero(builder: Builder, x: int) -> bool:
    """Whether it is +0 all over, one number that is stretched."""
    value = uniform(builder, x)
    stretched = builder.nodes[x].primitive is layout.broadcast
    return value is not None and stretched and bool(value == 0) and not np.signbit(value)


def _is_mask(builder: Builder, condition: int, image: int) -> bool:
    """Whether it says where x ≤ 0 for an image relu(x), which is where relu(x) ≤ 0."""
    c, relu = builder.nodes[condition], builder.nodes[image]
    if c.primitive is not e.less_equal or relu.primitive is not e.where or relu.inputs[0] != condition:
        return False
    x, zero = c.inputs
    return relu.inputs[2] == x and _is_zero(builder, zero) and _is_zero(builder, relu.inputs[1])


def _summed(builder: Builder, node: Node) -> int | None:
    """A sum over all of space is one over all windows, if each of them gives to an element that it has searched."""
    put = builder.nodes[node.inputs[0]]
    if put.primitive is not window_put or not set(range(1, put.ndim - 1)) <= set(node.attributes["axes"]):
        return None
    search = builder.nodes[put.inputs[1]]
    if search.primitive is not window_argmax or search.attributes != _windows(put):
        return None
    a, places, space = put.attributes, search.shape[1:-1], builder.nodes[search.inputs[0]].shape[1:-1]
    axes = zip(a["size"], a["window"], a["strides"], a["low"], places, strict=True)
    reach = all(low < k and (p - 1) * s - low < n for n, k, s, low, p in axes)
    if max(a["steps"], default=1) > 1 or not reach or space != a["size"] or not put.size:
        return None
    return builder.make(layout.sum, put.inputs[0], like=node, axes=node.attributes["axes"])
