"""Transposes moved towards the outputs, where they meet their opposites and vanish.

Layers take and give images with the channels first, windows work with the channels last: so a network is full of
transposes, there and back. Here a value may stand for its transpose: elementwise operations, reductions, broadcasts,
slices and paddings work on it in the order in which it is at hand, and hand the transpose on. Where another one meets
it the two are one, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from chainrule.primitives import layout
from chainrule.program.program import CONSTANT, INPUT, Builder, Node, Program

Axes = tuple[int, ...]
BY_AXIS = {layout.slice: ("start", "stop", "step"), layout.pad: ("low", "high", "interior")}


@dataclass(frozen=True)
class Turned:
    """A value that is the transpose of a node by `axes`."""

    node: int
    axes: Axes

    @property
    def moves(self) -> bool:
        """Whether it is another order than that of the node."""
        return self.axes != tuple(range(len(self.axes)))


def inverse(axes: Axes) -> Axes:
    """The order that undoes another.

    >>> inverse((2, 0, 1))
    (1, 2, 0)
    """
    return tuple(axes.index(i) for i in range(len(axes)))


def sink(program: Program) -> Program:
    """Move transposes down."""
    return _Sinking(program).run()


class _Sinking:
    def __init__(self, program: Program) -> None:
        self.program, self.builder = program, Builder()
        self.values: list[Turned] = []
        self.whole: dict[tuple[int, Axes], int] = {}  # transposes that were made

    def run(self) -> Program:
        """The new Program."""
        for node in self.program.nodes:
            of = self.values[node.of].node if node.of is not None else None
            self.values.append(self._moved(node.moved(node.inputs, of)))
        inputs = tuple([self.values[i].node for i in self.program.inputs])
        outputs = []
        for out in self.program.outputs:
            n = self.at_hand(self.values[out.node], self.program.nodes[out.node])
            outputs.append(replace(out, node=n, updates=None if out.updates is None else self.values[out.updates].node))
        return Program(self.program.name, tuple(self.builder.nodes), inputs, tuple(outputs))

    def at_hand(self, x: Turned, like: Node, axes: Axes | None = None) -> int:
        """A node with the value; or with the value in the order `axes` of it."""
        order = x.axes if axes is None else tuple(x.axes[a] for a in axes)
        if order == tuple(range(len(order))):
            return x.node
        if (x.node, order) not in self.whole:
            node, nodes = self.builder.nodes[x.node], self.builder.nodes
            if node.primitive is layout.broadcast and nodes[node.inputs[0]].size == 1:  # one number has no order
                shape = tuple(node.shape[a] for a in order)
                made = self.builder.make(layout.broadcast, node.inputs[0], like=like, shape=shape)
            else:
                made = self.builder.make(layout.transpose, x.node, like=like, axes=order)
            self.whole[x.node, order] = made
        return self.whole[x.node, order]

    def _moved(self, node: Node) -> Turned:
        given = [self.values[i] for i in node.inputs]
        if node.primitive is layout.transpose:
            (x,) = given
            return Turned(x.node, tuple(x.axes[a] for a in node.attributes["axes"]))
        if node.primitive.kind == "elementwise":
            return self._elementwise(node, given)
        if given and given[0].moves and len(given) == 1:
            axes = given[0].axes
            if node.primitive in BY_AXIS:
                turned = {k: self._for_axes(node.attributes[k], axes) for k in BY_AXIS[node.primitive]}
                return self._turned(node, [given[0].node], axes, turned)
            if node.primitive.kind == "reduce":
                reduced = tuple(sorted(axes[a] for a in node.attributes["axes"]))
                return self._turned(node, [given[0].node], axes, {"axes": reduced})
            if node.primitive is layout.broadcast and node.ndim == len(axes):
                return self._turned(node, [given[0].node], axes, {"shape": self._for_axes(node.shape, axes)})
        inputs = [self.at_hand(x, node) for x in given]
        return self._plain(self.builder.add(node.moved(tuple(inputs), node.of)))

    def _elementwise(self, node: Node, given: list[Turned]) -> Turned:
        """In the order of the first operand that is turned, constants and broadcasts apart: they come in any order.

        What comes in has an order of its own: it does not make others turn, and updates are in that of the state.
        """
        nodes = self.builder.nodes
        heavy = [x for x in given if nodes[x.node].primitive not in (layout.broadcast, CONSTANT)]
        moving = [x.axes for x in heavy or given if x.moves and nodes[x.node].primitive is not INPUT]
        if not moving or node.part == "update":
            inputs = tuple([self.at_hand(x, node) for x in given])
            return self._plain(self.builder.add(node.moved(inputs, node.of)))
        axes = moving[0]
        return self._turned(node, [self.at_hand(x, node, inverse(axes)) for x in given], axes, {})

    def _turned(self, node: Node, inputs: list[int], axes: Axes, attributes: Mapping[str, object]) -> Turned:
        """The node on operands in the order at hand; its value is the transpose by `axes`."""
        made = self.builder.make(node.primitive, *inputs, like=node, **{**node.attributes, **attributes})
        return Turned(made, axes)

    def _plain(self, n: int) -> Turned:
        return Turned(n, tuple(range(self.builder.nodes[n].ndim)))

    @staticmethod
    def _for_axes(values: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
        """One number an axis of the transpose, as one an axis of what is transposed."""
        return tuple(values[a] for a in inverse(axes))
