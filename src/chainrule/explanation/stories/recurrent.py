"""Recurrent layers: back through time, step by step, unit by unit.

Per step: gates and candidates, cell, hidden state; the error that comes from the output of the step and the one that
comes back from the step after it; the errors of the gates; and what the step adds to the gradients of the weights:
their norms show how far back learning reaches. Source: Goodfellow, Bengio and Courville, Deep Learning (2016), sections
10.2.2, 10.7 and 10.10; Werbos, "Backpropagation through time" (1990).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor
from chainrule.explanation.gates import NAMES, argument, before_reshape, gates_of
from chainrule.explanation.graph import Node
from chainrule.explanation.stories.story import Array, Story, View, wide
from chainrule.explanation.unroll import At, Loop
from chainrule.observe import Call
from chainrule.primitives import layout

UNITS = ("step", "row", "unit")
LATER = ("∂L/∂h₊₁ · ∂h₊₁/∂h", "what the next step hands back")
MOST = 65536  # numbers of a term that holds a matrix for each step
FORMULAS = {
    "i": "i = σ(zᵢ)", "f": "f = σ(z_f)", "g": "g = tanh(z_g)", "o": "o = σ(z_o)",
    "r": "r = σ(z_r)", "u": "u = σ(z_u)", "n": "n = tanh(z_n)",
}  # fmt: skip


class Steps:
    """The steps of a loop, or the only one of a cell: values and gradients of its tensors, stacked over the steps.

    results  the new states, then what else a step produces
    """

    def __init__(
        self, length: int, results: Sequence[Tensor], tensors: Sequence[Tensor],
        value: Callable[[int, Tensor], Array], gradient: Callable[[int, Tensor], Array | None],
    ) -> None:  # fmt: skip
        self.length, self.results, self.tensors = length, results, tensors
        self._value, self._gradient = value, gradient

    @classmethod
    def of_loop(cls, loop: Loop) -> "Steps":
        """Those of a loop."""
        return cls(
            loop.length,
            loop.body.results,
            loop.tensors,
            lambda t, x: loop.value(loop.find(t, x)),
            lambda t, x: loop.gradient(loop.find(t, x)),
        )

    @classmethod
    def of_cell(cls, view: View) -> "Steps":
        """The one of a cell that is called by itself."""
        graph = view.graph

        def node(x: Tensor) -> Node:
            found = graph.of(x)
            assert found is not None
            return found

        results = [before_reshape(y.tensor) for y in view.outputs]
        tensors = [n.tensor for n in view.nodes]
        return cls(1, results, tensors, lambda t, x: node(x).value, lambda t, x: node(x).gradient)

    def value(self, x: Tensor) -> Array:
        """A tensor at all steps: (steps, rows, units)."""
        return np.stack([self._value(t, x) for t in range(self.length)])

    def gradient(self, x: Tensor) -> Array | None:
        """The gradient by it at all steps, 0 where nothing comes back; None if that is so at every step."""
        found = [self._gradient(t, x) for t in range(self.length)]
        if all(g is None for g in found):
            return None
        return np.stack([np.zeros(x.shape) if g is None else wide(g) for g in found])


def recurrent(view: View, origin: str) -> Story | None:
    """RNN, LSTM and GRU, every layer and direction; their cells; loops of one's own, with cells inside or without."""
    story = Story("recurrent")
    if not view.loops:
        return story if _tell(story, view.module, Steps.of_cell(view), _kind(view), "", origin) else None
    for loop in view.loops:
        direction = _direction(view, loop) if len(view.loops) > 1 else ""
        prefix = f"{direction} " if direction else ""
        steps, cell = Steps.of_loop(loop), _cell(loop)
        if cell is None:
            known = _tell(story, view.module, steps, _kind(view), prefix, origin, loop)
        else:
            steps.results = [before_reshape(x) for x in cell.outputs]
            known = _tell(story, cell.module, steps, cell.layer, prefix, origin, loop)
        if not known:
            _tell_carries(story, loop, prefix)
        _tell_weights(story, view, loop, prefix)
    return story


def _kind(view: View) -> str:
    """The class of the layer or cell that the module is, or is made from."""
    names = [base.__name__ for base in type(view.module).__mro__]
    return next((name for name in names if name.removesuffix("Cell") in ("RNN", "LSTM", "GRU")), view.layer)


def _cell(loop: Loop) -> Call | None:
    """The call of a cell that makes the new states of a loop of one's own."""
    new = {before_reshape(x).serial for x in loop.body.results[: loop.carries]}
    for call in loop.observation.record.calls:
        if call.layer.endswith("Cell") and {before_reshape(x).serial for x in call.outputs} == new:
            return call
    return None


def _tell(
    story: Story, module: Any, steps: Steps, layer: str, prefix: str, origin: str, loop: Loop | None = None
) -> bool:
    """Gates, states and errors of a known kind; False of any other."""
    found = gates_of(layer, steps.results[0])
    if found is None:
        return False
    kind, hidden, cell = layer.removesuffix("Cell"), found.hidden, found.cell
    for symbol, gate in found.gates.items():
        story.add(prefix + NAMES[symbol], symbol, FORMULAS[symbol], UNITS, steps.value(gate))
    if cell is not None:
        story.add(f"{prefix}cell", "c", "c = f · c₋₁ + i · g", UNITS, steps.value(cell))
    story.add(f"{prefix}hidden", "h", _hidden_formula(kind, module), UNITS, steps.value(hidden))
    if loop is not None:
        story.add(f"{prefix}error from the output", "∂L/∂y", f"∂L/∂yₜ: {origin}", UNITS, _from_output(loop))
        story.add(f"{prefix}error from the step after", *LATER, UNITS, _from_later(loop, 0))
    formula = "∂L/∂h = ∂L/∂y + what the next step hands back"
    story.add(f"{prefix}error of hidden", "∂L/∂h", formula, UNITS, steps.gradient(hidden))
    if cell is not None:
        formula = "∂L/∂c = ∂L/∂h · o · (1 − tanh²c) + f₊₁ · ∂L/∂c₊₁"
        story.add(f"{prefix}error of cell", "∂L/∂c", formula, UNITS, steps.gradient(cell))
    for symbol, gate in (found.gates or {"h": hidden}).items():
        slope = "f′(z)" if symbol == "h" else f"(1 − {symbol}²)" if symbol in "gn" else f"{symbol} · (1 − {symbol})"
        formula, delta = f"δ = ∂L/∂{symbol} · {slope}", steps.gradient(argument(gate))
        story.add(f"{prefix}δ of {NAMES[symbol]}", "δ" if symbol == "h" else f"δ_{symbol}", formula, UNITS, delta)
    return True


def _hidden_formula(kind: str, module: Any) -> str:
    f = getattr(module, "nonlinearity", "tanh")
    return {"RNN": f"h = {f}(W_ih·x + W_hh·h₋₁ + b)", "LSTM": "h = o · tanh(c)", "GRU": "h = n + u · (h₋₁ − n)"}[kind]


# -- where errors come from


def _from_output(loop: Loop) -> Array | None:
    """The gradient of what was returned of each step."""
    read = [k for k in loop.read if k >= loop.carries]
    shape = loop.body.results[0].shape
    if loop.observation.gradient(loop.tensor) is None:
        return None
    found = []
    for t in range(loop.length):
        seeds = [loop.seed(loop.result(k, t)) for k in read[:1]]
        if not read or loop.body.results[read[0]] is loop.body.results[0]:
            seeds = [loop.seed(loop.result(0, t))]
        found.append(seeds[0] if seeds and seeds[0] is not None else np.zeros(shape))
    return np.stack(found)


def _from_later(loop: Loop, carry: int) -> Array | None:
    """What the step after each hands back to the carry; to the last, the gradient of the last state."""
    if loop.observation.gradient(loop.tensor) is None:
        return None
    produced = {loop.body.results[k].serial for k in loop.read if k >= loop.carries}
    shape, found = loop.body.results[carry].shape, []
    for t in range(loop.length):
        after, at = loop.after(t), loop.result(carry, t)
        if after is not None:
            found.append(loop.handed_back(after, at))
            continue
        seed = None if at.tensor.serial in produced else loop.seed(at)
        found.append(np.zeros(shape) if seed is None else seed)
    return np.stack(found)


# -- weights


def _tell_weights(story: Story, view: View, loop: Loop, prefix: str) -> None:
    """What each step adds to the gradients of what the loop reads in every step, and to those of its inputs."""
    if loop.observation.gradient(loop.tensor) is None:
        return
    for k in range(loop.constants):
        name = _parameter(view, loop.tensor.inputs[k])
        if name is None:
            continue
        parts = np.stack([loop.contribution(t, k) for t in range(loop.length)])
        if loop.tensor.inputs[k].primitive is layout.transpose and parts.ndim == 3:  # as the parameter has it
            parts = parts.swapaxes(1, 2)
        _add_parts(story, prefix + name, parts, "Σ over rows of δ · h₋₁ of this step")
    sequence = _inputs_of(view, loop)
    if sequence is not None:
        name, x, delta = sequence
        parts = np.einsum("trg,tri->tgi", delta, x)
        _add_parts(story, prefix + name, parts, "Σ over rows of δ · x of this step")


def _add_parts(story: Story, name: str, parts: Array, formula: str) -> None:
    norms = np.sqrt((parts.reshape(len(parts), -1) ** 2).sum(axis=1))
    story.add(f"{name} gradient norm by step", "‖∂L/∂W‖ₜ", f"‖{formula}‖", ("step",), norms)
    if parts.size <= MOST:
        axes = ("step", "unit", "input")[: parts.ndim]
        story.add(f"{name} gradient by step", "∂L/∂Wₜ", formula, axes, parts)


def _parameter(view: View, x: Tensor) -> str | None:
    """The last part of the name of the parameter that a constant of a loop is made of; None of several, or of none."""
    found, stack = set(), [x]
    while stack:
        node = view.graph.of(stack.pop())
        if node is None or node.role == "parameter":
            found.add(node.name.rpartition(".")[2] if node is not None else "")
        elif not node.role:
            stack.extend([view.graph.nodes[i].tensor for i in node.inputs])
    return found.pop() if len(found) == 1 else None


def _inputs_of(view: View, loop: Loop) -> tuple[str, Array, Array] | None:
    """The weight that multiplies the inputs of all steps; these inputs, and the errors: (steps, rows, …) each."""
    if loop.first >= len(loop.tensor.inputs):
        return None
    node: Node | None = view.graph.of(loop.tensor.inputs[loop.first])
    while node is not None and node.op in ("reshape", "add", "cast"):
        node = view.graph.nodes[node.inputs[0]]
    if node is None or node.op != "matmul" or _kind(view) not in ("RNN", "LSTM", "GRU"):
        return None
    name = _parameter(view, node.tensor.inputs[1])
    z = loop.body.symbols[loop.first]
    rows = [loop.gradient(loop.find(t, z)) for t in range(loop.length)]
    if name is None or any(g is None for g in rows):
        return None
    x = wide(view.graph.nodes[node.inputs[0]].value).reshape(loop.length, z.shape[0], -1)
    return name, x, np.stack([g for g in rows if g is not None])


def _direction(view: View, loop: Loop) -> str:
    """'l1_reverse': which layer and direction of its module."""
    names = [_parameter(view, x) for x in loop.tensor.inputs[: loop.constants]]
    return next((n.removeprefix("weight_hh_") for n in names if n and n.startswith("weight_hh_")), "")


# -- loops of one's own


def _tell_carries(story: Story, loop: Loop, prefix: str) -> None:
    """What is carried from step to step, and its errors."""
    for k in range(loop.carries):
        steps = [loop.result(k, t) for t in range(loop.length)]
        axes = ("step", *[f"axis {a}" for a in range(loop.body.results[k].ndim)])
        name = f"{prefix}carry" + (f" {k}" if loop.carries > 1 else "")
        story.add(name, "h", "what a step hands to the next", axes, np.stack([loop.value(at) for at in steps]))
        story.add(f"{name}: error from the step after", *LATER, axes, _from_later(loop, k))
        errors = _stacked(loop, steps)
        story.add(f"{name}: error", "∂L/∂h", "all that comes back to it", axes, errors)


def _stacked(loop: Loop, places: list[At]) -> Array | None:
    found = [loop.gradient(at) for at in places]
    if all(g is None for g in found):
        return None
    shape: Any = next(g.shape for g in found if g is not None)
    return np.stack([np.zeros(shape) if g is None else g for g in found])
