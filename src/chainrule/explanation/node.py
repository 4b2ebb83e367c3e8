"""A node of the forward graph of a step: its value, its gradient, and what it hands to its inputs."""

import functools
import linecache
from typing import NamedTuple

import numpy as np

from chainrule.core.tensor import Location, Tensor
from chainrule.functions.custom import CUSTOM
from chainrule.observe import Observation

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
    step    of what a loop computes: the time step; else None
    part    of what a recurrent layer computes: 'forget gate', 'hidden'; else ''
    """

    step: int | None = None
    part = ""

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
