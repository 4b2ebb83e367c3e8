"""The Program: a flat, typed list of primitives in single-assignment form, with static shapes.

A node names its inputs by their numbers, which are smaller than its own. Outputs are results, or new values of inputs
(`updates`): that is how a Module or an Optimizer is in-out. Programs are immutable; passes make new ones.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any, Literal

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Location
from chainrule.errors import ChainruleError, ProgramError

Part = Literal["forward", "backward", "update"]


def _infer_input(name: str, shape: Shape, dtype: dtypes.DType) -> TypeOf:
    return shape, dtype


def _infer_constant(value: np.ndarray) -> TypeOf:
    return value.shape, value.dtype


def _not_computed(m: Any, **attributes: Any) -> Any:
    raise ProgramError("an input of a Program is given, not computed")


INPUT = Primitive("input", "source", _not_computed, _infer_input)
CONSTANT = Primitive("constant", "source", lambda m, value: value, _infer_constant)


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a Program. `of` is the forward node that a backward node belongs to."""

    primitive: Primitive
    inputs: tuple[int, ...]
    attributes: dict[str, Any]
    shape: Shape
    dtype: dtypes.DType
    location: Location | None = None
    part: Part = "forward"
    of: int | None = None

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in memory."""
        return self.size * self.dtype.itemsize

    @property
    def name(self) -> str:
        """The path of an input; the name of the primitive otherwise."""
        return str(self.attributes["name"]) if self.primitive is INPUT else self.primitive.name

    def moved(self, inputs: tuple[int, ...], of: int | None) -> "Node":
        """The same operation with inputs and forward node of other numbers."""
        if inputs == self.inputs and of == self.of:
            return self
        node = object.__new__(Node)  # `replace` takes ten times as long, and passes do this for every node
        node.__dict__.update(self.__dict__, inputs=inputs, of=of)
        return node


@dataclass(frozen=True)
class Output:
    """A result of the Program, or with `updates` (the number of an input node) that input's new value.

    `observed`: somebody looks at the node, no more. Passes decide as if nobody did, so that looking changes no bit.
    """

    name: str
    node: int
    updates: int | None = None
    observed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """Nodes in an order where inputs come first; which of them are inputs; what comes out. `print` shows its text.

    `places`: where the tensors that were traced (by serial number) are now; noted only if a witness is there.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Output, ...]
    places: Mapping[int, int] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        return f"<program {self.name}: {len(self.nodes)} nodes>"

    def readers(self) -> Counter[int]:
        """How often each node is read, by nodes and outputs; observers, and what is computed for them alone, apart."""
        count: Counter[int] = Counter(x for i in self._needed() for x in self.nodes[i].inputs)
        count.update(out.node for out in self.outputs if not out.observed)
        return count

    def _needed(self) -> set[int]:
        """The nodes that outputs depend on, observers apart."""
        needed = {out.node for out in self.outputs if not out.observed}
        for i in range(len(self.nodes) - 1, -1, -1):
            if i in needed:
                needed.update(self.nodes[i].inputs)
        return needed


def plain(attributes: dict[str, Any]) -> Hashable:
    """Attributes as a value that compares and hashes: arrays by their bytes, Programs by their structure."""
    return tuple([(name, _plain(value)) for name, value in attributes.items()])


def _plain(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.name, value.tobytes()
    return structure(value) if isinstance(value, Program) else value


def structure(program: Program) -> Hashable:
    """What a Program computes, as a value that compares and hashes: equal wherever in the source it was traced."""
    nodes = [(n.primitive, n.inputs, plain(n.attributes), n.shape, n.dtype.name) for n in program.nodes]
    return tuple(nodes), program.inputs, tuple([(out.node, out.updates, out.observed) for out in program.outputs])


def observe(program: Program, numbers: Iterable[int]) -> Program:
    """The same Program, with the values of the given nodes as further results, named by their numbers: '%12'."""
    seen = tuple([Output(f"%{n}", n, observed=True) for n in numbers])
    return replace(program, outputs=program.outputs + seen)


def verify(program: Program, known: dict[Hashable, Any] | None = None) -> Program:
    """Check everything that engines rely on; ProgramError names the node that breaks a rule. Returns the Program.

    `known` remembers the types that were inferred, for the next time that the same operations are looked at.
    """
    types = [(node.shape, node.dtype) for node in program.nodes]
    known = {} if known is None else known
    for i, node in enumerate(program.nodes):
        if node.inputs and not 0 <= min(node.inputs) <= max(node.inputs) < i:
            raise ProgramError(f"{_where(program, i)}: inputs {node.inputs} do not all come before it.")
        if node.of is not None and not 0 <= node.of < i:
            raise ProgramError(f"{_where(program, i)}: it belongs to %{node.of}, which does not come before it.")
        key = (node.primitive, id(node.attributes), *[types[x] for x in node.inputs])
        if key not in known:
            try:
                inferred = node.primitive.infer(*[program.nodes[x] for x in node.inputs], **node.attributes)
            except ChainruleError as problem:
                raise ProgramError(f"{_where(program, i)}: {problem}") from problem
            known[key] = inferred, node.attributes  # which are kept, so that no others come to have the same id
        if known[key][0] != types[i]:
            raise ProgramError(f"{_where(program, i)}: it says {types[i]}, its inputs say {known[key][0]}.")
    given = [i for i, node in enumerate(program.nodes) if node.primitive is INPUT]
    if sorted(program.inputs) != given or len(set(program.inputs)) != len(program.inputs):
        raise ProgramError(f"program {program.name}: inputs {program.inputs} are not its input nodes {given}.")
    updated = [out.updates for out in program.outputs if out.updates is not None]
    if len(set(updated)) != len(updated) or not set(updated) <= set(program.inputs):
        raise ProgramError(f"program {program.name}: the inputs {updated} cannot all be updated once.")
    for out in program.outputs:
        new = program.nodes[out.node]
        if out.updates is not None:
            old = program.nodes[out.updates]
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ProgramError(
                    f"program {program.name}: {out.name} is {old.dtype.name}{list(old.shape)} before the step and "
                    f"{new.dtype.name}{list(new.shape)} after it."
                )
    return program


def _where(program: Program, i: int) -> str:
    return f"node %{i} = {program.nodes[i].primitive.name} of program {program.name}"


@dataclass
class Builder:
    """Nodes being written, by tracing or by a pass."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> int:
        """Append a node; its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def make(self, primitive: Primitive, *inputs: int, like: Node, **attributes: Any) -> int:
        """Append `primitive(inputs)`, with the type inferred and location, part and forward node as those of `like`."""
        shape, dtype = primitive.infer(*[self.nodes[i] for i in inputs], **attributes)
        return self.add(Node(primitive, inputs, attributes, shape, dtype, like.location, like.part, like.of))


Rule = Callable[[Builder, Node], int | None]


def rewrite(program: Program, rule: Rule, keep: Callable[[int], bool] = lambda i: True) -> Program:
    """A Program in which `rule` was asked about every node, whose inputs are numbered anew.

    The rule returns the number of the node that stands for it from now on, or None to keep it as it is. Nodes that are
    not to `keep` must have no readers. Where nothing has changed, it is the same object.
    """
    builder = Builder()
    new: dict[int, int] = {}
    for i, node in enumerate(program.nodes):
        if not keep(i):
            continue
        of = new.get(node.of) if node.of is not None else None
        node = node.moved(tuple([new[x] for x in node.inputs]), of)
        found = rule(builder, node)
        new[i] = builder.add(node) if found is None else found
    if len(builder.nodes) == len(program.nodes) and all(map(is_, builder.nodes, program.nodes)):
        return program
    outputs = tuple(
        replace(out, node=new[out.node], updates=None if out.updates is None else new[out.updates])
        for out in program.outputs
    )
    places = {serial: new[i] for serial, i in program.places.items() if i in new}
    return Program(program.name, tuple(builder.nodes), tuple(new[i] for i in program.inputs), outputs, places=places)
