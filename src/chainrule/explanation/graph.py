"""The forward graph of a step as numbered nodes, each with its value, its gradient, and what it hands to its inputs."""

from collections import Counter
from collections.abc import Iterator

from chainrule.core.autodiff import ALIAS
from chainrule.core.tensor import SYMBOL, VALUE, Tensor
from chainrule.explanation.node import MODEL, Edge, Node, within
from chainrule.explanation.unroll import At, Inside, Loop, Returned, is_loop, leads
from chainrule.observe import Call, Observation

__all__ = ["UNROLL", "Edge", "Graph", "Node"]
UNROLL = 64  # time steps of a loop that is taken apart


class Graph:
    """The nodes that the loss is made of, in the order of computation.

    calls  those calls of modules that made nodes of it, in the order in which they returned
    loops  loops by the number of the node of what they returned. Those of up to `unroll` time steps are taken apart:
           the nodes of each step stand before that node
    """

    def __init__(self, observation: Observation, loss: Tensor, roles: dict[str, str], unroll: int = UNROLL) -> None:
        self.observation = observation
        names = {x.serial: path for path, x in observation.symbols.items()}
        self.nodes: list[Node] = []
        self._number: dict[int, int] = {}
        self.loops: dict[int, Loop] = {}
        tensors = _below(loss)
        loops = {x.serial: Loop(observation, x, _readers(x, tensors)) for x in tensors if is_loop(x)}
        for x in tensors:
            loop = loops.get(x.serial)
            if loop is not None and loop.length <= unroll:
                self._take_apart(loop)
            else:
                self._add(x, names, roles)
            if loop is not None:
                self.loops[self._number[x.serial]] = loop
        self.loss = self.nodes[self._number[loss.serial]]
        self.consumers: dict[int, list[Edge]] = {}
        for edge in self._edges():
            self.consumers.setdefault(edge.to, []).append(edge)
        for edges in self.consumers.values():
            edges.sort()
        self.readers: dict[int, list[int]] = {}  # who reads a node, whether or not a gradient comes back
        for n in self.nodes:
            for i in dict.fromkeys(n.inputs):
                self.readers.setdefault(i, []).append(n.id)
        self._name_steps()
        self.calls = [
            call._replace(path=within(call.path))
            for call in observation.record.calls
            if any(x.serial in self._number for x in call.outputs)
        ]

    def _edges(self) -> Iterator[Edge]:
        """Where gradients flow: as noted while tracing; inside of loops, wherever they may."""
        for serial, position in self.observation.record.flows:
            node = self._number.get(serial)
            if node is not None and not isinstance(self.nodes[node], Returned):
                yield Edge(node, position, self.nodes[node].inputs[position])
        for n in self.nodes:
            if isinstance(n, (Inside, Returned)):
                for position, to in enumerate(n.inputs):
                    if leads(n, position):
                        yield Edge(n.id, position, to)

    def _take_apart(self, loop: Loop) -> None:
        """The nodes of each time step, in order, and what the loop returned."""

        def number(at: At) -> int:
            if at.step is not None:
                return loop.node(at).id
            if at.tensor.serial not in self._number:  # a number that stands in the body
                self._add(at.tensor, {}, {})
            return self._number[at.tensor.serial]

        def append(node: Node, inputs: list[At]) -> None:
            node.inputs = tuple([number(at) for at in inputs])
            node.id = len(self.nodes)
            self.nodes.append(node)

        for t in loop.order:
            for x in loop.tensors:
                append(loop.node(At(t, x)), loop.inputs(At(t, x)))
        returned = loop.returned()
        append(returned, [at for at, _, _ in loop.results()])
        self._number[loop.tensor.serial] = returned.id
        loop.given = tuple([self._number[x.serial] for x in loop.tensor.inputs])

    def _name_steps(self) -> None:
        """What loops carry and produce is called after their module: 'rnn@7', 'rnn@7.c', 'rnn.l1_reverse@7'."""
        count = Counter(loop.module for loop in self.loops.values())
        for k, loop in enumerate(self.loops.values()):
            name = loop.module or "loop"
            if count[loop.module] > 1:
                name += f".{self._direction(loop) or k}"
            for t, result, suffix in loop.named():
                node = loop.node(loop.result(result, t))
                node.name = node.name or f"{name}@{t}{suffix}"
            for x, part in loop.named_parts():
                for t in loop.order:
                    loop.node(At(t, x)).part = part

    def _direction(self, loop: Loop) -> str:
        """What the parameters of a layer's one direction end in: 'l1_reverse'; '' of another loop."""
        stack = list(loop.tensor.inputs[: loop.constants])
        while stack:
            x = stack.pop()
            node = self.of(x)
            if node is not None and node.role == "parameter":
                return node.name.rpartition("weight_hh_")[2] if "weight_hh_" in node.name else ""
            stack.extend(x.inputs)
        return ""

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
            if isinstance(node, Returned):
                inside = [inner for inner in node.loop.nodes if inner.id >= 0]
                found.update({inner.tensor.serial: inner for inner in inside})
        return sorted({node.id: node for node in found.values()}.values(), key=lambda node: node.id)


def _readers(x: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return [reader for reader in tensors if any(given is x for given in reader.inputs)]


def _below(loss: Tensor) -> list[Tensor]:
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
