"""The forward graph of a step as numbered nodes, each with its value, its gradient, and what it hands to its inputs."""

import functools
import linecache
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from chainrule.core.autodiff import ALIAS
from chainrule.core.tensor import SYMBOL, VALUE, Location, Tensor
from chainrule.functions.custom import CUSTOM
from chainrule.observe import Call, Observation

Array = np.ndarray
MODEL = "model"  # the argument of the step that holds the model


class Edge(NamedTuple):
    """A node hands a gradient to one of its inputs: node and position of the input, number of the input."""

    node: int
    position: int
    to: int


class Node:
    """One operation, or one leaf, of the forward graph.

    id      its number; inputs have smaller ones
    inputs  the numbers of its inputs
    name    of a leaf: '0.weight', 'x', 'optimizer.state.…'; else ''
    role    of a leaf: 'parameter', 'input', 'state', 'constant'; else ''
    """

    def __init__(
        self, id: int, tensor: Tensor, inputs: tuple[int, ...], name: str, role: str, observation: Observation
    ) -> None:
        self.id, self.tensor, self.inputs, self.name, self.role = id, tensor, inputs, name, role
        self.observation = observation

    @property
    def op(self) -> str:
        """The name of the primitive; of a function with a rule of its own, that of the rule."""
        if self.role:
            return self.role
        if self.tensor.primitive is CUSTOM:
            return _rule_name(self.tensor.attributes["vjp"])
        return self.tensor.primitive.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.tensor.shape

    @property
    def location(self) -> Location:
        """Where it was made: path of the module within the model, its class, file and line."""
        found = self.tensor.location or Location()
        return found._replace(module=within(found.module))

    @property
    def source(self) -> str:
        """The text of that line; '' where it cannot be read."""
        return linecache.getline(self.location.file, self.location.line).strip() if self.location.line else ""

    @property
    def rule(self) -> str:
        """The rule of its derivative, in words."""
        return "" if self.role else self.tensor.primitive.rule

    @property
    def observed(self) -> bool:
        """Whether the value has the bits that the step computed; else it was computed again, for the view."""
        return self.observation.observed(self.tensor)

    @functools.cached_property
    def value(self) -> Array:
        """The value in the forward pass."""
        return self.observation.value(self.tensor)

    @functools.cached_property
    def gradient(self) -> Array | None:
        """∂loss/∂node, all that comes back to it added up; None where nothing does."""
        return self.observation.gradient(self.tensor)

    def downstream(self, position: int) -> Array | None:
        """What it hands to the input at this position: upstream × local derivative. None where no gradient flows."""
        flow = self.observation.record.flows.get((self.tensor.serial, position))
        return None if flow is None else self.observation.value(flow.downstream)

    @property
    def label(self) -> str:
        """How it is spoken of: the name of a leaf, or operation and module."""
        if self.name:
            return self.name
        where = self.location.module
        return f"{self.op} in {where} {self.location.layer}".rstrip() if where else self.op

    def __repr__(self) -> str:
        return f"<node {self.id}: {self.label} {list(self.shape)}>"


def within(path: str) -> str:
    """The path of a module within the model: without the name that the model has among the arguments."""
    return path.removeprefix(MODEL).removeprefix(".")


def _rule_name(rule: object) -> str:
    inner = rule.func if isinstance(rule, functools.partial) else rule
    return getattr(inner, "__name__", "custom").strip("_<>").replace("lambda", "custom")


class Graph:
    """The nodes that the loss is made of, in the order of computation.

    calls  those calls of modules that made nodes of it, in the order in which they returned
    """

    def __init__(self, observation: Observation, loss: Tensor, roles: dict[str, str]) -> None:
        self.observation = observation
        names = {x.serial: path for path, x in observation.symbols.items()}
        self.nodes: list[Node] = []
        self._number: dict[int, int] = {}
        for x in _below(loss):
            self._add(x, names, roles)
        self.loss = self.nodes[self._number[loss.serial]]
        self.consumers: dict[int, list[Edge]] = {}
        for serial, position in observation.record.flows:
            node = self._number.get(serial)
            if node is not None:
                edge = Edge(node, position, self.nodes[node].inputs[position])
                self.consumers.setdefault(edge.to, []).append(edge)
        for edges in self.consumers.values():
            edges.sort()
        self.calls = [
            call._replace(path=within(call.path))
            for call in observation.record.calls
            if any(x.serial in self._number for x in call.outputs)
        ]

    def _add(self, x: Tensor, names: dict[int, str], roles: dict[str, str]) -> None:
        if x.primitive is ALIAS and x.inputs and x.inputs[0].serial in names:  # a leaf that is differentiated by
            source = x.inputs[0]
            if source.serial in self._number:  # the alias, which has the gradient, takes its place
                self._number[x.serial] = self._number[source.serial]
                self.nodes[self._number[x.serial]].tensor = x
                return
            path = names[source.serial]
            self._number[source.serial] = len(self.nodes)
        else:
            path = names.get(x.serial, "")
        role = roles.get(path, "input") if path else "constant" if x.primitive is VALUE or not x.inputs else ""
        inputs = () if role else tuple([self._number[i.serial] for i in x.inputs])
        self._number[x.serial] = len(self.nodes)
        name = within(path) if path.startswith(f"{MODEL}.") else path
        self.nodes.append(Node(len(self.nodes), x, inputs, name, role, self.observation))

    def of(self, x: Tensor) -> Node | None:
        """The node of a tensor of the trace; None where it has no part in the loss."""
        number = self._number.get(x.serial)
        return None if number is None else self.nodes[number]

    def of_call(self, call: Call) -> list[Node]:
        """The nodes that were made between the inputs and the outputs of a call."""
        ends = {x.serial for x in call.inputs}
        stack, found = list(call.outputs), {}
        while stack:
            x = stack.pop()
            node = self.of(x)
            if node is None or x.serial in found or x.serial in ends:
                continue
            found[x.serial] = node
            stack.extend(x.inputs)
        return sorted({node.id: node for node in found.values()}.values(), key=lambda node: node.id)


def _below(loss: Tensor) -> Iterable[Tensor]:
    """All that the loss is made of, inputs first."""
    found: dict[int, Tensor] = {}
    stack = [loss]
    while stack:
        x = stack.pop()
        if x.serial not in found:
            found[x.serial] = x
            if x.primitive is not SYMBOL:
                stack.extend(x.inputs)
    return [found[serial] for serial in sorted(found)]
