"""The layers of a step: which nodes are whose, and the story of each.

A layer is one call of a module without modules inside, or of a recurrent or attention module. What a model does
without a module is found in the graph: sums of two paths, attention and loops of one's own, products with a parameter;
and the loss at the end.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from chainrule import nn
from chainrule.core.tensor import Tensor
from chainrule.explanation.arrays import WHOLE
from chainrule.explanation.graph import Graph, Node
from chainrule.explanation.stories import Story, View
from chainrule.explanation.stories.attention import attention, attentions
from chainrule.explanation.stories.convolution import convolution, pooling
from chainrule.explanation.stories.convolution import unit as unit_of
from chainrule.explanation.stories.losses import loss_story
from chainrule.explanation.stories.neurons import embedding, neurons
from chainrule.explanation.stories.normalisation import normalisation
from chainrule.explanation.stories.passing import activation, dropout, joined, softmax
from chainrule.explanation.stories.pointwise import Pointwise, after, of_view
from chainrule.explanation.stories.recurrent import recurrent
from chainrule.explanation.stories.story import Axes, is_parameter
from chainrule.explanation.unroll import Inside
from chainrule.explanation.updates import Update
from chainrule.explanation.words import Wanted
from chainrule.nn.losses import Loss
from chainrule.observe import Call

MODULES = (nn.RNN, nn.LSTM, nn.GRU, nn.MultiheadAttention)  # a layer, whatever is inside
UNITS = (nn.Linear, nn.Bilinear)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
SUM, ATTENTION, LOOP, PRODUCT, LOSS = "sum", "attention", "loop", "product", "loss"


class Layer:
    """One layer in one call.

    path, layer    where the module stands in the model, and its class
    call           how often it had been called before
    inputs, output numbers of nodes that come in, and of what comes out
    nodes          the numbers of the nodes that it computed
    parameters     the names of its parameters
    """

    def __init__(self, view: View, call: int, teller: "Teller") -> None:
        self.view, self.call, self._teller = view, call, teller

    @property
    def path(self) -> str:
        """Where the module stands in the model."""
        return self.view.path

    @property
    def layer(self) -> str:
        """The class of the module."""
        return self.view.layer

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the nodes that come in."""
        return tuple([node.id for node in self.view.inputs])

    @property
    def output(self) -> int:
        """The number of the node that comes out; the first of several."""
        return self.view.outputs[0].id

    @property
    def nodes(self) -> tuple[int, ...]:
        """The numbers of the nodes that it computed."""
        return tuple([node.id for node in self.view.nodes])

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return tuple([node.name for node in self.view.parameters if node.role == "parameter"])

    @cached_property
    def story(self) -> Story | None:
        """Its numbers in the terms of the textbook; None for what only moves elements."""
        return self._teller.story(self.view)

    def unit(self, index: tuple[int, ...]) -> Story | None:
        """One unit of a layer of neurons or of a convolution, (row, unit) or (row, channel, y, x): its inputs, weights,
        products, sum, slope, error, and what it adds to the gradient of the weights; None for other layers.

        Source: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 6.5.6 and 9.5.
        """
        return self._teller.unit(self.view, index)

    def __repr__(self) -> str:
        story = "no story" if self.story is None else self.story.kind
        return f"<layer {self.path or 'model'}: {self.layer}, {story}>"

    def to_dict(self, shown: Iterable[int] | None = None, whole: int = WHOLE) -> dict[str, Any]:
        """As JSON values; of its nodes those that are `shown`, arrays of more than `whole` elements in brief."""
        nodes = self.nodes if shown is None else sorted(set(self.nodes).intersection(shown))
        return {
            "path": self.path,
            "layer": self.layer,
            "call": self.call,
            "inputs": list(self.inputs),
            "output": self.output,
            "nodes": list(nodes),
            "parameters": list(self.parameters),
            "story": None if self.story is None else self.story.to_dict(whole),
        }


class Teller:
    """Finds the layers of a graph, and tells their stories.

    updates  by the name of a parameter;  axes  by the number of a node, where they are known
    wanted   what is known of the loss
    """

    def __init__(self, graph: Graph, updates: Mapping[str, Update], axes: Mapping[int, Axes], wanted: Wanted) -> None:
        self.graph, self.updates, self.axes, self.wanted = graph, updates, axes, wanted
        of_modules = list(self._of_modules())
        self.taken = {node.id for view in of_modules for node in view.nodes}
        views = sorted([*of_modules, *self._of_functions()], key=lambda view: view.outputs[0].id)
        views += self._of_loss()
        seen: Counter[tuple[str, str]] = Counter()
        self.layers: list[Layer] = []
        for view in views:
            self.layers.append(Layer(view, seen[view.path, view.layer], self))
            seen[view.path, view.layer] += 1
        self.following: dict[int, list[View]] = {}
        for view in views:
            for node in view.inputs:
                self.following.setdefault(node.id, []).append(view)

    # -- finding

    def _view(
        self, path: str, layer: str, module: Any, inputs: Sequence[Node], outputs: Sequence[Node], nodes: Sequence[Node]
    ) -> View:
        computed = tuple([node for node in nodes if not node.role])
        return View(self.graph, path, layer, module, tuple(inputs), tuple(outputs), computed, self.updates, self.axes)

    def _of_modules(self) -> Iterator[View]:
        whole = [f"{call.path}." if call.path else "" for call in self.graph.calls if isinstance(call.module, MODULES)]
        for call in self.graph.calls:
            inner = isinstance(call.module, nn.Module) and any(True for _ in call.module.children())
            within_whole = any(call.path != path.rstrip(".") and call.path.startswith(path) for path in whole)
            if within_whole or (inner and not isinstance(call.module, MODULES)) or _is_loss(call):
                continue
            if not call.path and not isinstance(call.module, MODULES) and self._holds_products(call):
                continue  # a model without modules: its layers are found as functions
            yield self._of_call(call)

    def _of_call(self, call: Call) -> View:
        inputs, outputs = self._known(call.inputs), self._known(call.outputs)
        nodes = [node for node in self.graph.of_call(call) if _is_within(node, call.path)]
        return self._view(call.path, call.layer, call.module, inputs, outputs, nodes)

    def _holds_products(self, call: Call) -> bool:
        return sum(node.op in ("matmul", "convolve") for node in self.graph.of_call(call)) > 1

    def _known(self, tensors: Iterable[Tensor]) -> list[Node]:
        found = [self.graph.of(x) for x in tensors]
        return list({node.id: node for node in found if node is not None}.values())

    def _of_functions(self) -> Iterator[View]:
        """What is computed by functions, between the modules."""
        free = [
            n for n in self.graph.nodes if not (n.role or n.id in self.taken or _is_of_loss(n) or isinstance(n, Inside))
        ]
        for parts in attentions(self.graph, tuple(free)):
            inputs = (parts.queries, parts.keys, parts.values)
            inside = _between(self.graph, parts.result, inputs)
            self.taken |= {node.id for node in inside}
            yield self._free(ATTENTION, list({x.id: x for x in inputs}.values()), parts.result, inside)
        for node in free:
            if node.id in self.taken:
                continue
            given = [self.graph.nodes[i] for i in node.inputs]
            if node.id in self.graph.loops:
                loop = self.graph.loops[node.id]
                inside = [n for n in loop.nodes if n.id >= 0] + [node]
                self.taken |= {n.id for n in inside}
                yield self._free(LOOP, self._known(loop.tensor.inputs[loop.constants :]), node, inside)
            elif node.op == "matmul":
                found = self._product(node)
                if found is not None:
                    yield found
            elif node.op == "add" and len({x.id for x in given}) == 2 and all(map(self._varies, given)):
                yield self._free(SUM, given, node, [node])

    def _free(self, layer: str, inputs: Sequence[Node], output: Node, nodes: Sequence[Node]) -> View:
        return self._view(output.location.module, layer, None, inputs, [output], nodes)

    def _varies(self, node: Node) -> bool:
        """Whether it depends on an input, not on parameters and constants alone."""
        stack, seen = [node.id], set()
        while stack:
            i = stack.pop()
            found = self.graph.nodes[i]
            if found.role == "input":
                return True
            seen.add(i)
            stack += [x for x in found.inputs if x not in seen]
        return False

    def _product(self, product: Node) -> View | None:
        """A layer of neurons that is written as a product with a parameter, and perhaps a sum with another."""
        sides = [self.graph.nodes[i] for i in product.inputs]
        weights = [_source(self.graph, side) for side in sides]
        kinds = [is_parameter(weight) for weight in weights]
        if sorted(kinds) != [False, True]:
            return None
        given, output = sides[kinds.index(False)], product
        nodes = [*_down_to(self.graph, sides[kinds.index(True)]), product]
        readers = [self.graph.nodes[i] for i in self.graph.readers.get(product.id, ())]
        if len(readers) == 1 and readers[0].op == "add":
            other = next(self.graph.nodes[i] for i in readers[0].inputs if i != product.id)
            if is_parameter(_source(self.graph, other)):
                output = readers[0]
                nodes += [*_down_to(self.graph, other), output]
        self.taken |= {node.id for node in nodes}
        nodes.sort(key=lambda node: node.id)
        return self._free(PRODUCT, [given], output, nodes)

    def _of_loss(self) -> list[View]:
        """What is computed without a layer, from what the model returned to the loss."""
        prediction, loss = self.wanted.prediction, self.graph.loss
        nodes = [n for n in self.graph.nodes if not n.role and _is_of_loss(n)]
        if prediction is None or not nodes or prediction is loss:
            return []
        return [self._view("", LOSS, None, [prediction], [loss], nodes)]

    # -- telling

    def story(self, view: View) -> Story | None:
        """The story of a view; None where there is none to tell."""
        if not view.inputs or not view.outputs or not (view.nodes or view.layer == LOSS):
            return None
        module, origin = view.module, self.origin(view)
        if isinstance(module, UNITS) or view.layer == PRODUCT:
            function = self.activation(view)
            return neurons(view, function, self.origin(view) if function is None else self._above(function.after))
        if _named(view, "Conv"):
            function = self.activation(view)
            return convolution(view, function, origin if function is None else self._above(function.after))
        if isinstance(module, nn.Embedding):
            return embedding(view)
        if isinstance(module, (*MODULES[:3], *CELLS)) or view.layer == LOOP:
            return recurrent(view, origin)
        if isinstance(module, nn.MultiheadAttention) or view.layer == ATTENTION:
            found = attentions(self.graph, view.nodes)
            return attention(view, found[0], origin) if found else None
        if view.layer == LOSS:
            return loss_story(view, self.wanted, self.graph.loss.value)
        if view.layer == SUM:
            return joined(view)
        return self._unweighted(view, origin)

    def _unweighted(self, view: View, origin: str) -> Story | None:
        if "Norm" in view.layer:
            return normalisation(view, origin)
        if "Pool" in view.layer:
            return pooling(view, origin)
        if view.layer in ("Softmax", "LogSoftmax"):
            return softmax(view, origin)
        function = of_view(view)
        if function is None:
            return None
        return dropout(view, function, origin) if "Dropout" in view.layer else activation(view, function, origin)

    def unit(self, view: View, index: tuple[int, ...]) -> Story | None:
        """The story of one unit; None where there are none."""
        if not (isinstance(view.module, UNITS) or view.layer == PRODUCT or _named(view, "Conv")):
            return None
        function = self.activation(view)
        return unit_of(view, index, function, self._above(view.outputs[0] if function is None else function.after))

    def activation(self, view: View) -> Pointwise | None:
        """The function of each unit that follows a layer, as a module or in the graph."""
        z = view.outputs[0]
        readers = set(self.graph.readers.get(z.id, ()))
        for other in self.following.get(z.id, ()):
            inside = {node.id for node in other.nodes}
            if other.module is not None and readers <= inside and "Dropout" not in other.layer:
                return of_view(other)
        return after(self.graph, z, self.taken)

    def origin(self, view: View) -> str:
        """Where the error of what a view returns comes from."""
        return self._above(view.outputs[0])

    def _above(self, node: Node) -> str:
        """Who reads a node: 'Σ w·δ of 2', 'handed down by 3 MaxPool2d', 'the derivative of the loss'."""
        found = [view for view in self.following.get(node.id, ()) if view.outputs[0] is not node]
        said = []
        for view in found:
            name = f"{view.path} {view.layer}".strip()
            if all(n.tensor.primitive.kind == "layout" for n in view.nodes):  # it only moves elements
                said.append(self._above(view.outputs[0]))
            elif view.layer == LOSS:
                said.append("the derivative of the loss")
            elif isinstance(view.module, UNITS) or view.layer == PRODUCT or _named(view, "Conv"):
                said.append(f"weighted errors Σ w·δ of {name}")
            else:
                said.append(f"handed back by {name}")
        return ", ".join(dict.fromkeys(said)) or "handed back by what follows"


def _named(view: View, kind: str) -> bool:
    return view.module is not None and view.layer.startswith(kind)


def _is_loss(call: Call) -> bool:
    return isinstance(call.module, Loss)


def _is_of_loss(node: Node) -> bool:
    """Whether it was computed outside of the model."""
    if not node.location.layer:
        return True
    found = getattr(nn, node.location.layer, None)
    return isinstance(found, type) and issubclass(found, Loss)


def _is_within(node: Node, path: str) -> bool:
    """Whether a node was computed by the module at this path, or by one inside; leaves are nobody's."""
    module = node.location.module
    return bool(node.role) or module == path or not path or module.startswith(f"{path}.")


def _source(graph: Graph, node: Node) -> Node:
    """What stands behind nodes that only move elements."""
    while node.tensor.primitive.kind == "layout" and len(node.inputs) == 1 and not node.role:
        node = graph.nodes[node.inputs[0]]
    return node


def _down_to(graph: Graph, node: Node) -> list[Node]:
    """The nodes from what stands behind to this one."""
    found = []
    while not node.role and node.tensor.primitive.kind == "layout" and len(node.inputs) == 1:
        found.append(node)
        node = graph.nodes[node.inputs[0]]
    return found[::-1]


def _between(graph: Graph, last: Node, first: Sequence[Node]) -> list[Node]:
    """The nodes that `last` is made of, down to those that are `first`."""
    ends, found, stack = {node.id for node in first}, {}, [last]
    while stack:
        node = stack.pop()
        if node.id not in found and node.id not in ends and not node.role:
            found[node.id] = node
            stack += [graph.nodes[i] for i in node.inputs]
    return [found[i] for i in sorted(found)]
