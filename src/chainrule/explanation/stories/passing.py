"""What has no weights: activations, dropout, sums of two paths.

Source: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 6.3, 7.12 and 6.5.2; He et al., "Deep residual
learning" (2016).
"""

from chainrule.explanation.stories.pointwise import Pointwise
from chainrule.explanation.stories.story import Story, View


def activation(view: View, function: Pointwise, origin: str) -> Story:
    """A function of each element: the error is that from above × the slope."""
    story, z = Story("activation"), function.before
    axes = view.axes_of(z)
    story.add("weighted sum", "z", "what comes in", axes, z.value)
    story.add("activation", "f(z)", function.formula, axes, function.after.value)
    story.add("slope", "f′(z)", function.slope_formula, axes, function.slope())
    story.add("error from above", "∂L/∂a", f"∂L/∂f(z): {origin}", axes, function.after.gradient)
    story.add("error", "δ", "δ = ∂L/∂a · f′(z)", axes, view.gradient(z))
    return story


def dropout(view: View, function: Pointwise, origin: str) -> Story:
    """Some elements are dropped, the others grow by 1 / (1 − p); the same happens to the errors on their way back."""
    story, a = Story("activation"), function.before
    axes, p = view.axes_of(a), getattr(view.module, "p", None)
    scale = "" if p is None else f": 0, or 1 / (1 − {p}) = {1 / (1 - p) if p < 1 else 0:.6g}"
    story.add("input", "a", "what comes in", axes, a.value)
    story.add("mask", "m", f"m{scale}", axes, function.slope())
    story.add("activation", "y", "y = m · a", axes, function.after.value)
    story.add("error from above", "∂L/∂y", f"∂L/∂y: {origin}", axes, function.after.gradient)
    story.add("error", "∂L/∂a", "∂L/∂a = m · ∂L/∂y", axes, view.gradient(a))
    return story


def softmax(view: View, origin: str) -> Story:
    """Each output depends on all inputs of its row: δᵢ = pᵢ · (∂L/∂pᵢ − Σ ∂L/∂pⱼ · pⱼ), or of log p likewise."""
    story, z, y = Story("activation"), view.inputs[0], view.outputs[0]
    axes, log = view.axes_of(z), view.layer == "LogSoftmax"
    story.add("weighted sum", "z", "what comes in", axes, z.value)
    symbol, formula = ("log p", "log p = z − log Σ eᶻ") if log else ("p", "p = eᶻ / Σ eᶻ")
    story.add("activation", symbol, formula, axes, y.value)
    story.add("error from above", f"∂L/∂{symbol}", origin, axes, y.gradient)
    rule = "δᵢ = ∂L/∂log pᵢ − pᵢ · Σ ∂L/∂log pⱼ" if log else "δᵢ = pᵢ · (∂L/∂pᵢ − Σ ∂L/∂pⱼ · pⱼ)"
    story.add("error", "δ", rule, axes, view.gradient(z))
    return story


def joined(view: View) -> Story:
    """Two paths added up: the error is handed to both as it is."""
    story, y = Story("activation"), view.outputs[0]
    axes = view.axes_of(y)
    for mark, x in zip("₁₂", view.inputs, strict=True):
        story.add(f"path {'₁₂'.index(mark) + 1}", f"a{mark}", "what comes in", axes, x.value)
    story.add("sum", "y", "y = a₁ + a₂", axes, y.value)
    story.add("error", "∂L/∂y", "∂L/∂a₁ = ∂L/∂a₂ = ∂L/∂y: handed to both", axes, y.gradient)
    for mark, x in zip("₁₂", view.inputs, strict=True):
        formula = f"∂L/∂a{mark} = ∂L/∂y"
        story.add(f"error of path {'₁₂'.index(mark) + 1}", f"∂L/∂a{mark}", formula, axes, view.gradient(x))
    return story
