"""Where the elements of arrays stand: which unit, row, channel or step an index means, and where layout moves it."""

import re
from collections.abc import Sequence

import numpy as np

from chainrule.explanation.graph import Graph, Node
from chainrule.observe import Call

Index = tuple[int, ...]
Axes = tuple[str, ...]
SPATIAL = re.compile(r"Conv|Pool|(Batch|Instance|Group)Norm|LocalResponse|Upsample|Pad\dd|Dropout\dd|Pixel|Random")
RECURRENT = ("RNN", "LSTM", "GRU")
NAMES: dict[int, Axes] = {
    1: ("unit",), 2: ("row", "unit"), 3: ("row", "position", "unit"), 4: ("row", "channel", "y", "x"),
    5: ("row", "channel", "z", "y", "x"),
}  # fmt: skip
MAIN = ("unit", "input", "channel")


def forward(node: Node, position: int, index: Index) -> Index | None:
    """Where a node that only moves elements puts one of its input; None where it is not as simple as that."""
    x, name = node.tensor.inputs[position], node.tensor.primitive.name
    if name == "transpose":
        return tuple([index[a] for a in node.tensor.attributes["axes"]])
    if name in ("reshape", "broadcast") and x.size == node.tensor.size:
        return _unravel(_ravel(index, x.shape), node.shape)
    attributes = node.tensor.attributes
    if name == "slice" and not misses(node, index):
        return tuple([(i - a) // s for i, a, s in zip(index, attributes["start"], attributes["step"], strict=True)])
    if name == "step" and not misses(node, index):  # of a loop
        return index[1:]
    if name == "steps":
        return (attributes["starts"][position] + _ravel(index, x.shape),)
    return None


def misses(node: Node, index: Index) -> bool:
    """Whether a node takes a part of its input in which this element is not."""
    name, attributes = node.tensor.primitive.name, node.tensor.attributes
    if name == "slice":
        ranges = zip(index, attributes["start"], attributes["stop"], attributes["step"], strict=True)
        return not all(i in range(a, b, s) for i, a, b, s in ranges)
    return name == "step" and index[0] != attributes["step"]


def backward(node: Node, index: Index) -> Index | None:
    """The element of its input that a node with one input moved to this place; None where it is not that simple."""
    x, name = node.tensor.inputs[0], node.tensor.primitive.name
    if name == "transpose":
        moved = dict(zip(node.tensor.attributes["axes"], index, strict=True))
        return tuple([moved[a] for a in range(len(index))])
    if name == "reshape":
        return _unravel(_ravel(index, node.shape), x.shape)
    if name == "broadcast":
        kept = index[len(index) - x.ndim :]
        return tuple([0 if n == 1 else i for i, n in zip(kept, x.shape, strict=True)])
    if name == "slice":
        start, step = node.tensor.attributes["start"], node.tensor.attributes["step"]
        return tuple([a + s * i for i, a, s in zip(index, start, step, strict=True)])
    return None


def _ravel(index: Index, shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(index, shape)) if index else 0


def _unravel(number: int, shape: tuple[int, ...]) -> Index:
    return tuple(map(int, np.unravel_index(number, shape))) if shape else ()


def operand(node: Node, position: int, at: Index, index: Index) -> Index | None:
    """The element of the other operand that a product multiplies element `at` of this one with, for output `index`."""
    name, attributes = node.tensor.primitive.name, node.tensor.attributes
    if name == "mul":
        return index
    if name == "matmul":
        *batch, i, j = index
        return (*batch, at[-1], j) if position == 0 else (*batch, i, at[-2])
    if name != "convolve":
        return None
    rules = zip(*[attributes[key] for key in ("strides", "low", "input_step", "kernel_step")], strict=True)
    group, out = index[-2:]
    found = []
    for axis, (stride, low, input_step, kernel_step) in enumerate(rules):
        if position == 0:
            found.append((at[axis + 1] * input_step + low - index[axis + 1] * stride) // kernel_step)
        else:
            found.append((index[axis + 1] * stride + at[axis] * kernel_step - low) // input_step)
    return (*found, group, at[-1], out) if position == 0 else (index[0], *found, group, at[-2])


class Places:
    """What the axes of inputs, and of what layers return, are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.axes: dict[int, Axes] = {}
        self.returned: dict[int, Call] = {}
        self.labels: dict[int, Sequence[str]] = {}
        self.rows: Sequence[int] = ()  # what the rows of the batch are called, if not 0, 1, 2 ...
        for call in graph.calls:
            for x in call.inputs:
                node = graph.of(x)
                if node is not None and node.role == "input" and node.id not in self.axes:
                    axes = _axes(call, len(node.shape), ())
                    self.axes[node.id] = tuple(["input" if a == "unit" else a for a in axes])
            for x in call.outputs:
                node = graph.of(x)
                if node is not None and not node.role and node.id not in self.returned:
                    self.returned[node.id] = call
                    self.axes[node.id] = _axes(call, len(node.shape), self._before(call))

    def name(self, leaf: str, names: Sequence[str]) -> None:
        """Names for the elements of the last axis of an input, such as those of columns."""
        for node in self.graph.nodes:
            if node.name == leaf and len(node.shape) == 2 and node.shape[-1] == len(names):
                self.labels[node.id] = names

    def _before(self, call: Call) -> Axes:
        """The axes of what the call was given."""
        node = self.graph.of(call.inputs[0]) if call.inputs else None
        while node is not None and not node.role and node.id not in self.axes and len(node.inputs) == 1:
            node = self.graph.nodes[node.inputs[0]]
        return () if node is None else self.axes.get(node.id, ())

    def say(self, node: Node, index: Index) -> str:
        """'unit 3 in row 0', 'channel 2 at y 0, x 5 in row 1'; '[0, 3]' where the axes are not known."""
        axes = self.axes.get(node.id, ())
        if len(axes) != len(index):
            return f"[{', '.join(map(str, index))}]" if index else ""
        named = [(name, i) for name, i in zip(axes, index, strict=True)]
        labels = self.labels.get(node.id)
        label = f" “{labels[index[-1]]}”" if labels else ""
        main = [f"{name} {i}{label}" for name, i in named if name in MAIN]
        at = [f"{name} {i}" for name, i in named if name not in (*MAIN, "row")]
        row = [f"in row {self.rows[i] if i < len(self.rows) else i}" for name, i in named if name == "row"]
        return " ".join([*main, *([f"at {', '.join(at)}"] if at else []), *row])


def _axes(call: Call, ndim: int, before: Axes) -> Axes:
    usual = NAMES.get(ndim, ())
    if call.layer in RECURRENT and ndim == 3:
        return ("row", "step", "unit") if getattr(call.module, "batch_first", False) else ("step", "row", "unit")
    if SPATIAL.search(call.layer) and ndim > 2:
        spatial = ("z", "y", "x")
        digit = re.search(r"(\d)d", call.layer)
        alone = digit is not None and ndim == int(digit[1]) + 1
        return ("channel", *spatial[3 - ndim + 1 :]) if alone else ("row", "channel", *spatial[3 - ndim + 2 :])
    if len(before) == ndim:
        return tuple(["unit" if a == "input" else a for a in before])
    return usual
