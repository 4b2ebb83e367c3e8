"""Loops taken apart: the values and the gradients of every node of the body, at every time step.

A scan is one node of a step, so its inside was not observed. It is run once more, by the engine that ran the step, with
all that a time step computes as further products: the same arithmetic, and so the same bits. The gradients of the
inside follow from the observed gradient of what the loop returned, by the rules that training uses, in float64, from
the last time step back to the first. Source: Werbos, "Backpropagation through time" (1990); Goodfellow, Bengio and
Courville, Deep Learning (2016), section 10.2.2.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.control.body import Body
from chainrule.control.loop import Part, parts, scan
from chainrule.core.autodiff import STOP
from chainrule.core.primitive import Primitive, Shape
from chainrule.core.tensor import Tensor
from chainrule.explanation.gates import NAMES, argument, gates_of
from chainrule.explanation.local import handed
from chainrule.explanation.node import Node, within
from chainrule.explanation.steps import STEP, STEPS
from chainrule.observe import Observation, Values, is_observed
from chainrule.passes.pipeline import optimise
from chainrule.primitives import layout
from chainrule.program.program import INPUT, Output, Program, observe, verify
from chainrule.program.program import Node as ProgramNode

Array = np.ndarray


class At(NamedTuple):
    """A tensor of the body at a time step; None for what comes from outside the loop."""

    step: int | None
    tensor: Tensor


class Inside(Node):
    """A node of a loop's body at one time step."""

    def __init__(self, loop: "Loop", at: At, tensor: Tensor) -> None:
        super().__init__(-1, tensor, (), "", "", loop.observation)
        self.loop, self.at, self.step = loop, at, at.step

    @property
    def observed(self) -> bool:
        """Whether the value has the bits that the step computed."""
        return self.loop.observed(self.at)

    @property
    def value(self) -> Array:
        """The value at this time step."""
        return self.loop.value(self.at)

    @property
    def gradient(self) -> Array | None:
        """∂loss/∂node at this time step, in float64; None where nothing comes back."""
        return self.loop.gradient(self.at)

    def downstream(self, position: int) -> Array | None:
        """What it hands to the input at this position, in float64."""
        if self.gradient is None or not _leads(self.tensor, position):
            return None
        return handed(self, position, self.loop.operands(self), self.gradient)


class Returned(Node):
    """What a loop returned, made of what its steps produced."""

    def __init__(self, loop: "Loop", tensor: Tensor) -> None:
        super().__init__(-1, tensor, (), "", "", loop.observation)
        self.loop = loop

    @property
    def op(self) -> str:
        """The name of the operation."""
        return "scan"

    @property
    def value(self) -> Array:
        """The flat result of the loop, as it was observed."""
        return self.observation.value(self.loop.tensor)

    @property
    def gradient(self) -> Array | None:
        """∂loss/∂node, as it was observed."""
        return self.observation.gradient(self.loop.tensor)

    @property
    def observed(self) -> bool:
        """Whether the value has the bits that the step computed."""
        return self.observation.observed(self.loop.tensor)

    def downstream(self, position: int) -> Array | None:
        """The part of the gradient that belongs to a step's product."""
        if self.gradient is None:
            return None
        shape, start = self.tensor.inputs[position].shape, self.tensor.attributes["starts"][position]
        return self.gradient[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)


class Loop:
    """A scan, taken apart.

    tensor   the scan, in the trace
    length   the number of time steps, and `order` their order of computation
    body     what a step computes; `tensors` are those of it that take part, inputs first
    read     which results of the body (carries at the end first, then products) somebody outside reads
    """

    def __init__(self, observation: Observation, tensor: Tensor, readers: Iterable[Tensor]) -> None:
        self.observation, self.tensor = observation, tensor
        attributes = tensor.attributes
        self.body: Body = attributes["body"]
        self.length, self.reverse = attributes["length"], attributes["reverse"]
        self.constants, self.carries = attributes["constants"], attributes["carries"]
        self.first = self.constants + self.carries
        self.order = list(reversed(range(self.length))) if self.reverse else list(range(self.length))
        self.parts = parts(self.body, self.carries, self.length)
        self.read = _read(self.parts, tensor, list(readers))
        symbols = self.body.symbols
        self._outer = {x.serial: tensor.inputs[k] for k, x in enumerate(symbols[: self.constants])}
        self._carry = {x.serial: k for k, x in enumerate(symbols[self.constants : self.first])}
        self._slice = {x.serial: self.first + k for k, x in enumerate(symbols[self.first :])}
        self.tensors = self._tensors()
        self._nodes: dict[tuple[int | None, int], Inside] = {}
        self.given: tuple[int, ...] = ()  # the numbers of its inputs in the graph

    def _tensors(self) -> list[Tensor]:
        """What carries and products that are read are made of: computed tensors, and the slices of the sequences."""
        wanted = [*self.body.results[: self.carries], *[self.body.results[k] for k in self.read if k >= self.carries]]
        found: dict[int, Tensor] = {}
        stack = list(wanted)
        while stack:
            x = stack.pop()
            if x.serial in found or x.serial in self._outer or x.serial in self._carry:
                continue
            if x.serial in self._slice:
                found[x.serial] = x
            elif x.value is None and x.serial >= self.body.start:
                found[x.serial] = x
                stack.extend(x.inputs)
        return [found[serial] for serial in sorted(found)]

    # -- where things are

    def before(self, step: int) -> int | None:
        """The time step that was computed before this one."""
        found = step + 1 if self.reverse else step - 1
        return found if 0 <= found < self.length else None

    def after(self, step: int) -> int | None:
        """The time step that was computed after this one."""
        found = step - 1 if self.reverse else step + 1
        return found if 0 <= found < self.length else None

    def find(self, step: int, x: Tensor) -> At:
        """Where a tensor that a step reads was made: a carry is a result of the step before, or the first state."""
        at: int | None = step
        while at is not None and x.serial in self._carry:
            k, at = self._carry[x.serial], self.before(at)
            x = self.tensor.inputs[self.constants + k] if at is None else self.body.results[k]
        return At(at, x) if at is not None and self._is_inside(x) else At(None, self._outer.get(x.serial, x))

    def result(self, k: int, step: int) -> At:
        """A result of the body at a step: carry `k`, or a product."""
        return self.find(step, self.body.results[k])

    def _is_inside(self, x: Tensor) -> bool:
        return x.serial not in self._outer and (x.serial in self._slice or (x.value is None and bool(x.inputs)))

    def node(self, at: At) -> Inside:
        """The node of a tensor of the body at a time step."""
        key = at.step, at.tensor.serial
        if key not in self._nodes:
            x = at.tensor
            if x.serial in self._slice:
                whole = self.tensor.inputs[self._slice[x.serial]]
                x = _made(STEP, (whole,), {"step": at.step}, x, self.tensor)
            self._nodes[key] = Inside(self, at, x)
        return self._nodes[key]

    @property
    def nodes(self) -> list[Inside]:
        """All nodes that were made so far."""
        return list(self._nodes.values())

    @property
    def size(self) -> int:
        """How many numbers there are inside."""
        return self.length * sum(x.size for x in self.tensors)

    @property
    def module(self) -> str:
        """The path of the module that it stands in."""
        return "" if self.tensor.location is None else within(self.tensor.location.module)

    @property
    def layer(self) -> str:
        """The class of the module that it stands in."""
        return "" if self.tensor.location is None else self.tensor.location.layer

    def named_parts(self) -> Iterator[tuple[Tensor, str]]:
        """What the tensors of a recurrent layer's step are: gates, the sums that they are functions of, states."""
        found = gates_of(self.layer, self.body.results[0])
        if found is None:
            return
        known = {**found.gates, "h": found.hidden} | ({} if found.cell is None else {"c": found.cell})
        for symbol, x in known.items():
            yield x, NAMES[symbol]
        for symbol, x in (found.gates or {"h": found.hidden}).items():
            yield argument(x), f"sum of {NAMES[symbol]}"

    def named(self) -> Iterator[tuple[int, int, str]]:
        """Results that have a name of their own at each step: the step, which result, what its name ends in."""
        layer = self.layer
        for k in [*range(self.carries), *[k for k in self.read if k >= self.carries]]:
            number = k - self.carries
            suffix = ("c" if layer == "LSTM" else f"carry{k}") if 0 < k < self.carries else ""
            suffix = suffix if k < self.carries else f"y{number or ''}"
            for t in self.order:
                if self.result(k, t).step == t:
                    yield t, k, f".{suffix}" if suffix else ""

    def inputs(self, at: At) -> list[At]:
        """Where the inputs of a node of the body were made."""
        assert at.step is not None
        if at.tensor.serial in self._slice:
            return [At(None, self.tensor.inputs[self._slice[at.tensor.serial]])]
        return [self.find(at.step, x) for x in at.tensor.inputs]

    def operands(self, node: Inside) -> list[Array]:
        """The values of a node's inputs."""
        return [self.value(at) for at in self.inputs(node.at)]

    # -- values

    def value(self, at: At) -> Array:
        """The value of a tensor at a time step; of one from outside, its value."""
        return (self.observation if at.step is None else self._runs[at.step]).value(at.tensor)

    def observed(self, at: At) -> bool:
        """Whether a value has the very bits that the step computed."""
        return (self.observation if at.step is None else self._runs[at.step]).observed(at.tensor)

    @cached_property
    def _runs(self) -> dict[int, Values]:
        """The values of every time step. The loop runs once more, with what its steps compute as products."""
        body = optimise(self.body)
        kind = self.tensor.dtype  # other dtypes (truth values, indices) follow from what is stored
        wanted = [i for i, n in enumerate(body.nodes) if is_observed(n.primitive) and n.dtype == kind]
        seen = observe(body, wanted)
        arrays = [np.asarray(self.observation.value(x), order="C") for x in self.tensor.inputs]
        (flat,) = self.observation.compile(self._alone(seen))(arrays)
        places = parts(seen, self.carries, self.length)[len(self.parts) :]
        products = [flat[p.start : p.stop].reshape(p.shape) for p in places]
        carry = arrays[self.constants : self.first]
        runs: dict[int, Values] = {}
        for t in self.order:
            given = [*arrays[: self.constants], *carry, *[x[t] for x in arrays[self.first :]]]
            nodes = dict(zip(body.inputs, given, strict=True))
            nodes |= {i: product[t] for i, product in zip(wanted, products, strict=True)}
            runs[t] = Values(body, nodes)
            carry = [runs[t].array(out.node) for out in body.outputs[: self.carries]]
        return runs

    def _alone(self, body: Program) -> Program:
        """A Program of nothing but this loop."""
        nodes = [
            ProgramNode(INPUT, (), {"name": f"x.{k}", "shape": x.shape, "dtype": x.dtype}, x.shape, x.dtype)
            for k, x in enumerate(self.tensor.inputs)
        ]
        count, attributes = len(nodes), {**self.tensor.attributes, "body": body}
        shape, dtype = scan.infer(*nodes, **attributes)
        nodes.append(ProgramNode(scan, tuple(range(count)), attributes, shape, dtype))
        return verify(Program("loop", tuple(nodes), tuple(range(count)), (Output("steps", count),)))

    # -- gradients

    def gradient(self, at: At) -> Array | None:
        """∂loss/∂tensor at a time step, all that comes back to it, in float64; None where nothing does."""
        return None if at.step is None else self._gradients.get((at.step, at.tensor.serial))

    def seed(self, at: At) -> Array | None:
        """The part of that which comes from outside: of what was returned of this step, not from later steps."""
        return None if at.step is None else self._seeds.get((at.step, at.tensor.serial))

    @cached_property
    def _seeds(self) -> dict[tuple[int, int], Array]:
        whole = self.observation.gradient(self.tensor)
        found: dict[tuple[int, int], Array] = {}
        if whole is not None:
            for at, start, shape in self.results():
                size = int(np.prod(shape, dtype=np.int64))
                if at.step is not None:
                    _add(found, at, whole[start : start + size].astype(np.float64).reshape(shape))
        return found

    @cached_property
    def _gradients(self) -> dict[tuple[int, int], Array]:
        found = dict(self._seeds)
        for t in reversed(self.order):
            for x in reversed(self.tensors):
                node = self.node(At(t, x))
                upstream = found.get((t, x.serial))
                if upstream is None or x.serial in self._slice:
                    continue
                operands = self.operands(node)
                for position, at in enumerate(self.inputs(At(t, x))):
                    if at.step is None or not _leads(x, position):
                        continue
                    given = handed(node, position, operands, upstream)
                    if given is not None:
                        _add(found, at, given)
        return found

    def results(self) -> Iterator[tuple[At, int, Shape]]:
        """What was returned and is read: a tensor at a time step, and where it stands in the flat result."""
        for k in self.read:
            shape = self.body.results[k].shape
            if k < self.carries:
                yield self.result(k, self.order[-1]), self.parts[k].start, shape
                continue
            size = int(np.prod(shape, dtype=np.int64))
            for t in range(self.length):
                yield self.result(k, t), self.parts[k].start + t * size, shape

    def handed_back(self, step: int, to: At) -> Array:
        """What the nodes of a step hand to one of an earlier step, in float64."""
        total = np.zeros(to.tensor.shape)
        for x in self.tensors:
            upstream = self._gradients.get((step, x.serial))
            if upstream is None or x.serial in self._slice:
                continue
            node = self.node(At(step, x))
            for position, at in enumerate(self.inputs(node.at)):
                if at.step == to.step and at.tensor is to.tensor and _leads(x, position):
                    part = handed(node, position, self.operands(node), upstream)
                    total = total if part is None else total + part
        return total

    def contribution(self, step: int, constant: int) -> Array:
        """What a time step adds to the gradient of a constant of the loop (by position), in float64."""
        symbol = self.body.symbols[constant]
        total = np.zeros(symbol.shape)
        for x in self.tensors:
            upstream = self._gradients.get((step, x.serial))
            if upstream is None or x.serial in self._slice:
                continue
            node = self.node(At(step, x))
            for position, given in enumerate(x.inputs):
                if given.serial == symbol.serial and _leads(x, position):
                    part = handed(node, position, self.operands(node), upstream)
                    total = total if part is None else total + part
        return total

    def returned(self) -> Returned:
        """The node of what the loop returned."""
        results = list(self.results())
        starts = tuple([start for _, start, _ in results])
        tensors = tuple([self.node(at).tensor if at.step is not None else at.tensor for at, _, _ in results])
        attributes = {"starts": starts, "size": self.tensor.size}
        return Returned(self, _made(STEPS, tensors, attributes, self.tensor, self.tensor))


def is_loop(x: Tensor) -> bool:
    """Whether it is a loop whose steps can be looked at."""
    return x.primitive is scan and x.value is None


def leads(node: Node, position: int) -> bool:
    """Whether a gradient may flow from a node to its input at this position."""
    return _leads(node.tensor, position)


def _leads(x: Tensor, position: int) -> bool:
    rule = x.primitive is not STOP and x.primitive.vjp is not None
    return rule and dtypes.is_float(x.dtype) and dtypes.is_float(x.inputs[position].dtype)


def _add(found: dict[tuple[int, int], Array], at: At, gradient: Array) -> None:
    assert at.step is not None
    key = at.step, at.tensor.serial
    found[key] = found[key] + gradient if key in found else gradient


def _made(
    primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], like: Tensor, near: Tensor
) -> Tensor:
    """A tensor that stands for one of the trace."""
    made = Tensor(primitive, inputs, attributes, like.shape, like.dtype, None)
    made.location = near.location
    return made


def _read(places: list[Part], tensor: Tensor, readers: list[Tensor]) -> list[int]:
    """Which parts of the flat result somebody reads."""
    found = set()
    for reader in readers:
        low, high = 0, tensor.size
        if reader.primitive is layout.slice and len(reader.inputs) == 1:
            low, high = reader.attributes["start"][0], reader.attributes["stop"][0]
        found |= {k for k, place in enumerate(places) if place.start < high and low < place.stop}
    return sorted(found)
