"""One training step explained: every value, every gradient, each layer's story, each weight's update."""

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.explanation import terminal
from chainrule.explanation.arrays import number_to_json
from chainrule.explanation.as_json import fitting, node_to_json, parameter_to_json, shown
from chainrule.explanation.graph import UNROLL, Graph, Node
from chainrule.explanation.layers import Layer, Teller
from chainrule.explanation.page import write_page
from chainrule.explanation.places import Index
from chainrule.explanation.updates import Update, update_of
from chainrule.explanation.why import DEPTH, WIDTH, Finder, Why
from chainrule.explanation.words import Wanted, Words
from chainrule.observe import Call, Observation

FORMAT = "chainrule explanation 1"
TARGET = re.compile(r"(?P<name>.*?)\s*(?:\[(?P<index>[-\d\s,]*)\])?", re.DOTALL)  # names may hold brackets
NAMES_SHOWN = 12
MEASURED = 2_000_000  # numbers of all forward passes that it takes to measure what the update of each tensor does


class LossChange:
    """What an update does to the loss of its batch: predicted as Σ gradient · Δw, and what it really is."""

    def __init__(self, predicted: float, actual: float) -> None:
        self.predicted, self.actual = predicted, actual

    def __repr__(self) -> str:
        return f"LossChange(predicted={self.predicted:.6g}, actual={self.actual:.6g})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"predicted": number_to_json(self.predicted), "actual": number_to_json(self.actual)}


class Parameter:
    """A trained tensor of the model in this step: its value, gradient and update."""

    def __init__(self, name: str, node: Node | None, explanation: "Explanation") -> None:
        self.name, self.node, self._explanation = name, node, explanation

    @property
    def value(self) -> np.ndarray:
        """The value before the step."""
        return self._explanation.observation.before[f"model.{self.name}"]

    @property
    def gradient(self) -> np.ndarray:
        """∂loss/∂parameter; 0 where the loss does not depend on it."""
        found = None if self.node is None else self.node.gradient
        return np.zeros_like(self.value) if found is None else found

    @cached_property
    def update(self) -> Update | None:
        """What the optimiser made of it; None without an optimiser, or where it left the parameter alone."""
        if not self._explanation.optimizer or self.node is None:
            return None
        observation = self._explanation.observation
        total = observation.record.totals.get(self.node.tensor.serial)
        return None if total is None else update_of(observation, f"model.{self.name}", total)

    def loss_change(self, index: Index | None = None) -> LossChange | None:
        """What the update of this tensor, or of one element of it, does to the loss; the rest stays as it was."""
        if self.update is None:
            return None
        change = self.update.change.astype(np.float64)
        if index is not None:
            one = np.zeros_like(change)
            one[index] = change[index]
            change = one
        return self._explanation.effect({self.name: change})


class Explanation:
    """A training step, or a derivative, taken apart. Made by `explain`.

    loss        its value
    nodes       all operations and leaves of the forward pass, in order: value, gradient, what each hands downstream
    parameters  by name: value, gradient, update
    calls       calls of modules, in the order in which they returned
    observation everything of the compiled step, by tensor and by node of the Program
    """

    def __init__(
        self, observation: Observation, roles: dict[str, str], *, model: str, optimizer: str | None,
        evaluate: Callable[[Mapping[str, np.ndarray]], float], rows: int | None, step: int | None,
        criterion: Any = None, unroll: int = UNROLL,
    ) -> None:  # fmt: skip
        self.observation, self.model, self.optimizer, self.rows, self.step = observation, model, optimizer, rows, step
        self.graph = Graph(observation, observation.result[0], roles, unroll)
        self.nodes = self.graph.nodes
        self.calls: list[Call] = self.graph.calls
        self._evaluate = evaluate
        named = {node.name: node for node in self.nodes if node.role == "parameter"}
        self.parameters = {
            name: Parameter(name, named.get(name), self)
            for name in [path.removeprefix("model.") for path, role in roles.items() if role == "parameter"]
        }
        self.words, self._criterion = Words(self.graph, criterion), criterion
        self._finder = Finder(self.graph, self.words)

    @property
    def engine(self) -> str:
        """What computed the values."""
        return self.observation.engine

    @property
    def loss(self) -> float:
        """The loss of the batch, before the update."""
        return float(self.graph.loss.value.reshape(()))

    def __repr__(self) -> str:
        return f"<explanation of a step of {self.model}: loss {self.loss:.6g}, {len(self.nodes)} nodes>"

    # -- asking

    def find(self, name: str) -> Node:
        """A node by name: of a leaf ('0.weight', 'x'), by the path of a module (its output), or by number ('%12').
        ConfigError when there is none, with those that there are."""
        for node in self.nodes:
            if name and name == (node.name or f"%{node.id}"):
                return node
        if re.fullmatch(r"%\d+", name) and int(name[1:]) < len(self.nodes):
            return self.nodes[int(name[1:])]
        if name == "loss":
            return self.graph.loss
        for call in self.calls:
            if call.path == name:
                found = next((n for n in map(self.graph.of, call.outputs) if n is not None), None)
                if found is not None:
                    return found
        known = [*self.parameters, *dict.fromkeys(call.path for call in self.calls if call.path)]
        shown = ", ".join(known[:NAMES_SHOWN]) + (", …" if len(known) > NAMES_SHOWN else "")
        raise ConfigError(
            f"Nothing here is called {name!r}. There are {shown}; nodes are %0 to %{len(self.nodes) - 1}, as in "
            "explanation.why('%12[0, 3]')."
        )

    def why(self, target: str, depth: int = DEPTH, width: int = WIDTH) -> Why:
        """Why the gradient by `target` is what it is: contributions, largest first, as a tree that can be expanded.

        target  '0.weight[3, 17]': an element of a parameter; '1[0, 5]': row 0, unit 5 of what module 1 returned;
                '%12[0, 3]': of a node. Without an index it is that of the largest gradient
        depth   levels that are expanded at once; each child has `expand`
        width   contributions shown of each sum, at most; the others are added up in `rest`

        Contributions and rest add up to the gradient, within rounding. Raises ConfigError for what does not exist, or
        has no gradient.
        """
        match = None if target in self.parameters else TARGET.fullmatch(target.strip())
        node = self.find(target if match is None else match["name"])
        if node.gradient is None:
            raise ConfigError(
                f"{node.label} has no gradient: the loss is not differentiated by it. Ask for a parameter "
                f"({', '.join(list(self.parameters)[:4])}), or for what a layer returned."
            )
        why = self._finder.root(node, self._index(node, None if match is None else match["index"]))
        why.parameter = self.parameters.get(node.name)
        return why.expand(depth, width)

    def show(self, console: Any = None) -> None:
        """Print layers, parameters and update as tables, with colours on a terminal. `print` gives the plain text."""
        terminal.show_explanation(self, console)

    def __str__(self) -> str:
        return terminal.plain(terminal.explanation_lines(self))

    def _index(self, node: Node, text: str | None) -> Index:
        if text is None or not text.strip():
            assert node.gradient is not None
            if not node.gradient.size:
                raise ConfigError(f"{node.label} is empty: shape {list(node.shape)}.")
            sizes = np.where(np.isfinite(node.gradient), np.abs(node.gradient), np.inf)
            return tuple(map(int, np.unravel_index(sizes.argmax(), node.shape)))
        try:
            index = tuple([int(part) for part in text.split(",")])
        except ValueError:
            raise ConfigError(f"[{text}] is no index. Write whole numbers: [3, 17].") from None
        inside = len(index) == len(node.shape) and all(-n <= i < n for i, n in zip(index, node.shape, strict=False))
        if not inside:
            raise ConfigError(f"{node.label} has shape {list(node.shape)}; [{text}] is outside of it.")
        return tuple([i % n for i, n in zip(index, node.shape, strict=True)])

    # -- layers

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers in the order of the forward pass, the loss last; `story` has the numbers of each as a textbook
        writes them, and `unit` those of one of its units.

        >>> import chainrule as cr
        >>> from chainrule import losses, nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
        >>> explanation = cr.explain(model, [[0.05, 0.1]], [[0.01, 0.99]], loss=losses.mse)
        >>> [(layer.path, layer.layer, layer.story.kind) for layer in explanation.layers]
        [('0', 'Linear', 'neurons'), ('1', 'Sigmoid', 'activation'), ('', 'loss', 'loss')]
        """
        updates = {name: p.update for name, p in self.parameters.items() if p.update is not None}
        wanted = Wanted(self._criterion, self.words.prediction, self.graph)
        return Teller(self.graph, updates, self.words.places.axes, wanted).layers

    # -- what the update does

    def effect(self, changes: Mapping[str, np.ndarray]) -> LossChange:
        """What it does to the loss of this batch to add these changes to parameters. Computed in float64."""
        predicted = sum(
            float(np.vdot(self.parameters[name].gradient.astype(np.float64), change))
            for name, change in changes.items()
        )
        moved = {name: self.parameters[name].value.astype(np.float64) + change for name, change in changes.items()}
        return LossChange(predicted, self._evaluate(moved) - self._base)

    @cached_property
    def _base(self) -> float:
        return self._evaluate({})

    @cached_property
    def loss_change(self) -> LossChange | None:
        """What the whole update does to the loss of this batch; None without an optimiser."""
        updates = {name: p.update for name, p in self.parameters.items() if p.update is not None}
        return self.effect({n: u.change.astype(np.float64) for n, u in updates.items()}) if updates else None

    # -- as data

    def to_dict(self, whole: int | None = None) -> dict[str, Any]:
        """Everything as JSON values: small arrays whole, large ones as statistics, a histogram and a picture.

        Arrays of more than `whole` elements are large; by default as few as keep the whole readable (4096, or less
        where the network is deep). Loops with many numbers inside are one node; what happens inside is in the story of
        their layer.
        """
        graph = self.graph
        whole = fitting(graph) if whole is None else whole
        nodes = [node_to_json(node, graph, whole) for node in shown(graph)]
        numbers = {node["id"] for node in nodes}
        cheap = len(self.parameters) * sum(node.tensor.size for node in graph.nodes) <= MEASURED
        parameters = [
            parameter_to_json(p, whole)
            | {"loss_change": change.to_dict() if cheap and (change := p.loss_change()) is not None else None}
            for p in self.parameters.values()
        ]
        return {
            "format": FORMAT,
            "engine": self.engine,
            "step": self.step,
            "rows": self.rows,
            "loss": number_to_json(self.loss),
            "model": self.model,
            "optimizer": self.optimizer,
            "loss_change": self.loss_change and self.loss_change.to_dict(),
            "nodes": nodes,
            "layers": [layer.to_dict(numbers, whole) for layer in self.layers],
            "parameters": parameters,
            "program": str(self.observation.program),
        }

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as one HTML file that needs no network and no server; returns its path."""
        return write_page(self.to_dict(), path)

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
