"""Layers of neurons: weighted sum, activation, slope, error, gradient and update of weights.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 5.3.1, equations (5.48) to (5.56); Goodfellow,
Bengio and Courville, Deep Learning (2016), section 6.5, algorithms 6.3 and 6.4.
"""

import numpy as np

from chainrule.explanation.graph import Node
from chainrule.explanation.stories.pointwise import Pointwise
from chainrule.explanation.stories.story import Story, View

SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


def neurons(view: View, activation: Pointwise | None, origin: str) -> Story | None:
    """Linear or Bilinear, with the activation that follows. `origin` says where the error from above comes from."""
    story, (z, *_) = Story("neurons"), view.outputs
    weights = [p for p in view.parameters if len(p.shape) > 1]
    if not weights:
        return None
    several = len(view.inputs) > 1
    for k, a in enumerate(view.inputs):
        mark = SUBSCRIPTS[k + 1] if several else ""
        axes = tuple(["input" if axis == "unit" else axis for axis in view.axes_of(a, "input")])
        story.add(f"input {k + 1}" if several else "input", f"a{mark}", "what comes in", axes, a.value)
    summed = "z = Σ w·a + b" if len(view.parameters) > 1 else "z = Σ w·a"
    add_unit_terms(story, view, z, activation, origin, "z = a₁ᵀ·w·a₂ + b" if several else summed)
    weight, bias = weights[0], next((p for p in view.parameters if len(p.shape) == 1), None)
    axes = ("unit", "input 1", "input 2") if several else ("unit", "input")
    formula = "∂L/∂w = Σ δ·a₁·a₂" if several else "∂L/∂w = Σ δ·a"
    add_weight_terms(story, view, weight, bias, axes, formula)
    return story


def add_unit_terms(story: Story, view: View, z: Node, activation: Pointwise | None, origin: str, formula: str) -> None:
    """Weighted sum, activation, slope, error from above, error: what every unit has, of whatever layer."""
    axes = view.axes_of(z)
    story.add("weighted sum", "z", formula, axes, z.value)
    if activation is not None:
        story.add("activation", "f(z)", activation.formula, axes, activation.after.value)
        story.add("slope", "f′(z)", activation.slope_formula, axes, activation.slope())
        story.add("error from above", "∂L/∂a", f"∂L/∂f(z): {origin}", axes, activation.after.gradient)
    error = "δ = ∂L/∂a · f′(z)" if activation is not None else f"δ = ∂L/∂z: {origin}"
    story.add("error", "δ", error, axes, z.gradient)


def add_weight_terms(
    story: Story, view: View, weight: Node, bias: Node | None, axes: tuple[str, ...], formula: str
) -> None:
    """Gradients and updates of a weight and a bias."""
    story.add("weight gradient", "∂L/∂w", formula, axes, view.gradient(weight))
    if bias is not None:
        story.add("bias gradient", "∂L/∂b", "∂L/∂b = Σ δ", ("unit",), view.gradient(bias))
    view.add_update(story, weight, axes, "update", "Δw")
    if bias is not None:
        view.add_update(story, bias, ("unit",), "bias update", "Δb")


def embedding(view: View) -> Story | None:
    """Rows looked up in a table: only these rows get a gradient, the sum of the errors of where they were looked up.

    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 12.4.2.
    """
    story, (y, *_) = Story("neurons"), view.outputs
    (indices, *_), table = view.inputs, next(iter(view.parameters), None)
    if table is None:
        return None
    story.add("input", "i", "which rows are looked up", usual_index_axes(len(indices.shape)), indices.value)
    story.add("rows", "a", "a = w[i]", view.axes_of(y), y.value)
    story.add("error", "δ", "δ = ∂L/∂a", view.axes_of(y), y.gradient)
    counts = np.bincount(indices.value.reshape(-1) % table.shape[0], minlength=table.shape[0])
    story.add("times looked up", "n", "how often each row is", ("entry",), counts)
    story.add("weight gradient", "∂L/∂w", "∂L/∂w[k] = Σ δ where i = k", ("entry", "unit"), view.gradient(table))
    view.add_update(story, table, ("entry", "unit"), "update", "Δw")
    return story


def usual_index_axes(count: int) -> tuple[str, ...]:
    """The axes of an array of indices."""
    return ("row",) if count == 1 else ("row", *[f"position {k}" if count > 2 else "position" for k in range(1, count)])
