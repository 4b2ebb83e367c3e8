"""Convolutions and pooling: a patch, a kernel, a weighted sum at every place; one kernel for all places.

Source: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 9.1 to 9.3 and 9.5 (gradients: equations 9.11
and 9.13); LeCun et al., "Gradient-based learning applied to document recognition" (1998).
"""

import numpy as np

from chainrule.explanation.graph import Node
from chainrule.explanation.stories.neurons import add_unit_terms, add_weight_terms
from chainrule.explanation.stories.pointwise import Pointwise
from chainrule.explanation.stories.story import Array, Axes, Story, View, pull_back, wide

SPACE = ("z", "y", "x")


def convolution(view: View, activation: Pointwise | None, origin: str) -> Story | None:
    """Conv1d to 3d and ConvTranspose1d to 3d, with the activation that follows."""
    story, x, z = Story("convolution"), view.inputs[0], view.outputs[0]
    weight = next((p for p in view.parameters if len(p.shape) > 2), None)
    if weight is None:
        return None
    bias = next((p for p in view.parameters if len(p.shape) == 1), None)
    transposed = is_transposed(view)
    kernel = kernel_axes(weight, transposed)
    story.add("input", "a", "what comes in", view.axes_of(x), x.value)
    story.add("kernel", "w", "one for all places", kernel, weight.value)
    over = "Σ over places that reach here" if transposed else "Σ over the patch"
    formula = f"z = {over} w·a" + (" + b" if bias is not None else "")
    add_unit_terms(story, view, z, activation, origin, formula)
    add_weight_terms(story, view, weight, bias, kernel, "∂L/∂w = Σ over rows and places δ · patch")
    return story


def is_transposed(view: View) -> bool:
    """Whether the kernel's first axis is that of the input's channels."""
    return "Transpose" in view.layer


def kernel_axes(weight: Node, transposed: bool) -> Axes:
    """('unit', 'channel', 'y', 'x'): the axes of a kernel, PyTorch's order."""
    space = tuple([f"kernel {axis}" for axis in SPACE[5 - len(weight.shape) :]])
    return ("channel", "unit", *space) if transposed else ("unit", "channel", *space)


def unit(view: View, index: tuple[int, ...], activation: Pointwise | None, origin: str) -> Story | None:
    """One unit, at one place of one row: its patch, the kernel, products, sum, error, and what it adds to gradients.

    The patch is ∂z/∂w, which the rules hand back from that one sum: whatever the stride, padding or groups.
    """
    z = view.outputs[0]
    weight = next((p for p in view.parameters if len(p.shape) > 1), None)
    if weight is None or len(view.inputs) != 1:
        return None
    bias = next((p for p in view.parameters if len(p.shape) == 1), None)
    seed = np.zeros(z.shape)
    seed[index] = 1
    back = pull_back(view.graph, view.nodes, {z.id: seed})
    patch, kernel = back.get(weight.id, np.zeros(weight.shape)), wide(weight.value)
    axes: Axes = kernel_axes(weight, is_transposed(view)) if len(weight.shape) > 2 else ("unit", "input")
    if not is_transposed(view):
        number = index[-1] if len(weight.shape) == 2 else index[-(len(weight.shape) - 1)]
        patch, kernel, axes = patch[number], kernel[number], axes[1:]
    story = Story("neurons" if len(weight.shape) == 2 else "convolution")
    story.add("patch", "a", "the inputs that the kernel lies on", axes, patch)
    story.add("kernel", "w", "the weights of this unit", axes, kernel)
    story.add("products", "w·a", "w·a", axes, patch * kernel)
    if bias is not None:
        story.add("bias", "b", "b", (), (back[bias.id] * wide(bias.value)).sum(keepdims=False))
    story.add("weighted sum", "z", "z = Σ w·a + b", (), z.value[index])
    if activation is not None:
        story.add("activation", "f(z)", activation.formula, (), activation.after.value[index])
        story.add("slope", "f′(z)", activation.slope_formula, (), activation.slope()[index])
        story.add("error from above", "∂L/∂a", f"∂L/∂f(z): {origin}", (), _at(activation.after.gradient, index))
    error = _at(z.gradient, index)
    formula = "δ = ∂L/∂a · f′(z)" if activation is not None else f"δ = ∂L/∂z: {origin}"
    story.add("error", "δ", formula, (), error)
    if error is not None:
        story.add("weight gradient", "δ·a", "what it adds to ∂L/∂w: δ · patch", axes, error * patch)
    return story


def _at(array: Array | None, index: tuple[int, ...]) -> Array | None:
    return None if array is None else wide(array)[index]


def pooling(view: View, origin: str) -> Story:
    """The largest of each window, or the mean: the error goes back to the one that won, or to all in equal shares."""
    story, x, y = Story("convolution"), view.inputs[0], view.outputs[0]
    winners = next((node for node in view.nodes if node.op == "window_argmax"), None)
    axes, largest = view.axes_of(y), "Max" in view.layer
    story.add("input", "a", "what comes in", view.axes_of(x), x.value)
    if winners is not None:
        story.add("winner", "k", "which element of a window won, counted in reading order", axes, _first(winners, y))
    story.add("output", "y", f"y = the {'largest' if largest else 'mean'} of a window", axes, y.value)
    story.add("error from above", "∂L/∂y", f"∂L/∂y: {origin}", axes, y.gradient)
    to = "to the one that won" if largest else "in equal shares"
    story.add("error", "∂L/∂a", f"∂L/∂a: ∂L/∂y handed {to}", view.axes_of(x), view.gradient(x))
    return story


def _first(winners: Node, y: Node) -> Array:
    """Winners, whose channels stand last, laid out as what the module returned."""
    return np.moveaxis(winners.value, -1, 1).reshape(y.shape)
