"""What elements, errors and local derivatives are called when one speaks of them."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.places import Index, Places, backward, operand
from chainrule.functions.custom import CUSTOM
from chainrule.nn.losses import Loss

Chain = list[tuple[Node, Index]]
MINUS = "−"


def number(value: float) -> str:
    """A number in three digits that count, as it is printed.

    >>> from chainrule.explanation.words import number
    >>> number(-0.020312), number(1.2e-05), number(41.0)
    ('−0.0203', '1.2e−05', '41')
    """
    return f"{value:.3g}".replace("-", MINUS)


def element(node: Node, index: Index) -> str:
    """'0.weight[3, 41]', or '%12[0, 3]' of a node without a name."""
    name = node.name or f"%{node.id}"
    return f"{name}[{', '.join(map(str, index))}]" if index else name


class Words:
    """Speaks of the elements of a graph. `loss` is what made the loss of the last node of the model."""

    def __init__(self, graph: Graph, loss: Any = None) -> None:
        self.graph, self.places = graph, Places(graph)
        whole = [call for call in graph.calls if not call.path and not isinstance(call.module, Loss)]
        returned = [graph.of(x) for x in whole[-1].outputs] if whole else []
        self.prediction = returned[0] if len(returned) == 1 else None
        self._wanted = Wanted(loss, self.prediction, graph)

    def name_outputs(self, names: Sequence[str]) -> None:
        """Names for the elements of the last axis of what the model returns, such as those of classes."""
        if self.prediction is not None and len(self.prediction.shape) == 2 and self.prediction.shape[-1] == len(names):
            self.places.labels[self.prediction.id] = names

    def error(self, chain: Chain) -> str:
        """'error of unit 3 in row 0 (0 Linear)': of an element, given what its gradient passes unchanged."""
        node, index = chain[0]
        if node.role:
            return f"∂loss/∂{self.spot(node, index)}"
        module = node.location.module
        for other, at in chain:
            if other.part and other.step == node.step:
                return f"error of {self.spot(other, at)}"
            call = self.places.returned.get(other.id)
            if call is not None and call.path == module:
                return f"error of {self.spot(other, at)}"
        return f"error of {self.spot(node, index)}"

    def spot(self, node: Node, index: Index) -> str:
        """'unit 3 in row 0 (0 Linear)', 'input 41 in row 0 (x)', '2.weight[1, 3]', 'tanh [0, 3]'."""
        if node.role == "input":
            return f"{self.places.say(node, index)} ({node.name})".strip()
        if node.role:
            return element(node, index) if node.name else node.role
        call = self.places.returned.get(node.id)
        if call is not None and call.path:
            return f"{self.places.say(node, index)} ({call.path} {call.layer})".strip()
        where = f"{node.location.module} {node.location.layer}".strip() if node.location.module else ""
        op = "normalised" if node.op == "rule" and "Norm" in node.location.layer else node.op
        place = f"{op} [{', '.join(map(str, index))}]" if index else op
        if node.part and len(index) == 2:
            place = f"{node.part} {index[1]} in row {index[0]}"
        if node.step is not None:
            place = f"{place} at step {node.step}"
        return f"{place} ({where})" if where else place

    def part(self, node: Node, index: Index) -> str:
        """What an element of a layer's own weight stands for: 'unit 3, input 41'; '' where that is not known."""
        edges = self.graph.consumers.get(node.id, [])
        layer = self.graph.nodes[edges[0].node].location.layer if edges else ""
        last = node.name.rpartition(".")[2]
        if node.role != "parameter" or (last == "bias") != (len(index) == 1):
            return ""
        if layer == "Linear":
            return ", ".join(f"{name} {i}" for name, i in zip(("unit", "input"), index, strict=False))
        if layer.startswith("Conv"):
            first = (
                ("input channel", "channel")
                if "Transpose" in layer and len(index) > 1
                else ("channel", "input channel")
            )
            names = (*first, *("z", "y", "x")[3 - len(index) + 2 :])
            return ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=False))
        return f"entry {index[0]}" if layer == "Embedding" else ""

    def factor(self, node: Node, position: int, at: Index, index: Index, local: float) -> str:
        """What ∂node[index]/∂input[at] is: an element of the other operand of a product, or the slope of a function."""
        name = node.tensor.primitive.name
        found = operand(node, position, at, index) if len(node.inputs) == 2 else None
        if found is None:
            if local in (1, -1) or name in ("sum", "broadcast"):
                return ""
            if node.tensor.primitive is CUSTOM or node.tensor.primitive.kind != "elementwise":
                return f"derivative of {node.location.layer or node.op}"
            return f"{'slope' if len(node.inputs) == 1 else 'derivative'} of {node.op}"
        other = self.graph.nodes[node.inputs[1 - position]]
        while not other.role and other.id not in self.places.returned and len(other.inputs) == 1:
            moved = backward(other, found)
            if moved is None:
                break
            other, found = self.graph.nodes[other.inputs[0]], moved
        if other.role == "constant":
            return "constant"
        kind = "weight " if other.role == "parameter" else ""
        return kind + self.spot(other, found)

    def note(self, chain: Chain) -> str:
        """At what the model returned: 'p = 0.31, wanted 1 → error −0.69'; else ''."""
        for node, index in chain:
            if self.prediction is not None and node.id == self.prediction.id:
                return self._wanted.say(index)
        return ""

    def returns(self, chain: Chain) -> bool:
        """Whether what it is about is what the model returned."""
        return self.prediction is not None and any(node.id == self.prediction.id for node, _ in chain)


class Wanted:
    """What the model returned and should have returned, in the terms of the loss."""

    def __init__(self, loss: Any, prediction: Node | None, graph: Graph) -> None:
        self.prediction = prediction
        self.settings = dict(loss.keywords) if isinstance(loss, functools.partial) else getattr(loss, "__dict__", {})
        inner = loss.func if isinstance(loss, functools.partial) else loss
        self.name = getattr(inner, "__name__", type(inner).__name__).lower().removesuffix("loss").replace("_", "")
        before = graph.observation.before
        given = any(path == "y" or path.startswith("y.") for path in before)
        self.target = before.get("y" if given else "x")

    @functools.cached_property
    def probabilities(self) -> np.ndarray | None:
        """What the logits mean, and `wanted` beside it; None for other losses."""
        assert self.prediction is not None
        logits = self.prediction.value.astype(np.float64)
        with np.errstate(all="ignore"):
            if self.name in ("bcewithlogits", "binarycrossentropywithlogits"):
                return 1 / (1 + np.exp(-logits))
            if self.name == "crossentropy":
                axis = min(1, logits.ndim - 1)
                raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
                return np.asarray(raised / raised.sum(axis=axis, keepdims=True))
        return None

    @functools.cached_property
    def wanted(self) -> np.ndarray | None:
        """The target, of the shape of the prediction; None where it is not that kind."""
        assert self.prediction is not None
        shape, target = self.prediction.shape, self.target
        if target is None:
            return None
        if self.name == "crossentropy":
            axis = min(1, len(shape) - 1)
            classes = shape[axis]
            if target.shape == shape[:axis] + shape[axis + 1 :] and target.dtype.kind in "iu":
                target = np.moveaxis((target[..., None] == np.arange(classes)).astype(np.float64), -1, axis)
            smoothing = self.settings.get("label_smoothing", 0.0)
            target = target * (1 - smoothing) + smoothing / classes if target.shape == shape else target
        return target if target.shape == shape else None

    def say(self, index: Index) -> str:
        """The words about one element of the prediction."""
        assert self.prediction is not None
        if self.wanted is None:
            return f"returned {number(float(self.prediction.value[index]))}"
        wanted = float(self.wanted[index])
        if self.probabilities is None:
            return f"returned {number(float(self.prediction.value[index]))}, wanted {number(wanted)}"
        p = float(self.probabilities[index])
        error = f"{p - wanted:+.2g}".replace("-", MINUS)
        return f"p = {number(p)}, wanted {number(wanted)} → error {error}"
