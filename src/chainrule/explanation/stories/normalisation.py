"""Normalisation: mean, variance, normalised values, scale and shift; and what it takes out of the error on its way.

With x̂ = (x − mean) / s, the error of the input is that of x̂ without its mean and without its projection on x̂, divided
by s: ∂L/∂x = (∂L/∂x̂ − mean(∂L/∂x̂) − x̂ · mean(∂L/∂x̂ · x̂)) / s. Source: Ioffe and Szegedy, "Batch normalization" (2015),
section 3; Ba et al., "Layer normalization" (2016); Goodfellow, Bengio and Courville, Deep Learning (2016), 8.7.1.
"""

import numpy as np

from chainrule.core.autodiff import STOP
from chainrule.explanation.graph import Node
from chainrule.explanation.stories.story import Array, Story, View, wide
from chainrule.functions.custom import CUSTOM


def normalisation(view: View, origin: str) -> Story | None:
    """BatchNorm, LayerNorm, GroupNorm and InstanceNorm; RMSNorm, which subtracts no mean."""
    standardised = next((n for n in view.nodes if n.tensor.primitive is CUSTOM), None)
    if standardised is not None:
        return _by_batch(view, standardised, origin)
    if view.layer.startswith(("BatchNorm", "InstanceNorm")):
        return _by_running(view, origin)
    return _by_root(view, origin) if view.layer == "RMSNorm" else None


def _by_batch(view: View, standardised: Node, origin: str) -> Story | None:
    """By statistics of the very values that are normalised."""
    graph, x, y = view.graph, view.inputs[0], view.outputs[0]
    inner = graph.nodes[standardised.inputs[1]]
    axes = _axes(view, inner)
    if axes is None:
        return None
    values = wide(inner.value)
    mean, variance = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
    story, named, over = Story("normalisation"), view.axes_of(x), f"over axes {list(axes)}"
    story.add("input", "x", "what comes in", named, x.value)
    kept = [k for k in range(values.ndim) if k not in axes]
    left = tuple([named[k] for k in kept]) if inner.shape == x.shape else ("row", "group")
    story.add("mean", "μ", f"μ = mean of x {over}", left, mean.squeeze(axes))
    story.add("variance", "σ²", f"σ² = mean of (x − μ)² {over}", left, variance.squeeze(axes))
    story.add("normalised", "x̂", "x̂ = (x − μ) / √(σ² + ε)", named, _like(standardised.value, x))
    _add_affine(story, view)
    _add_error_above(story, view, y, origin)
    error = standardised.gradient
    if error is None:
        return story
    error, normalised = wide(error), wide(standardised.value)
    removed, along = error.mean(axes, keepdims=True), (error * normalised).mean(axes, keepdims=True)
    story.add("error of normalised", "∂L/∂x̂", "∂L/∂x̂ = γ · ∂L/∂y", named, _like(error, x))
    story.add("removed: mean", "m", f"m = mean of ∂L/∂x̂ {over}", left, removed.squeeze(axes))
    story.add("removed: projection", "p", f"p = x̂ · mean of ∂L/∂x̂ · x̂ {over}", named, _like(normalised * along, x))
    story.add("error", "∂L/∂x", "∂L/∂x = (∂L/∂x̂ − m − p) / √(σ² + ε)", named, view.gradient(x))
    return story


def _by_running(view: View, origin: str) -> Story:
    """By running statistics, which are constants: nothing is taken out of the error."""
    x, y, story = view.inputs[0], view.outputs[0], Story("normalisation")
    shape = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
    before = view.graph.observation.before
    mean, variance = [wide(before[f"model.{_of(view.path, name)}"]) for name in ("running_mean", "running_var")]
    named, spread = view.axes_of(x), np.sqrt(variance + view.module.eps).reshape(shape)
    story.add("input", "x", "what comes in", named, x.value)
    story.add("mean", "μ", "the running mean", ("channel",), mean)
    story.add("variance", "σ²", "the running variance", ("channel",), variance)
    normalised = (wide(x.value) - mean.reshape(shape)) / spread
    story.add("normalised", "x̂", "x̂ = (x − μ) / √(σ² + ε)", named, normalised)
    _add_affine(story, view)
    _add_error_above(story, view, y, origin)
    story.add("error", "∂L/∂x", "∂L/∂x = γ · ∂L/∂y / √(σ² + ε): μ and σ² do not depend on x", named, view.gradient(x))
    return story


def _by_root(view: View, origin: str) -> Story:
    """By the root of the mean square."""
    x, y, story = view.inputs[0], view.outputs[0], Story("normalisation")
    count = len(np.atleast_1d(view.module.normalized_shape))
    axes = tuple(range(len(x.shape) - count, len(x.shape)))
    values, eps = wide(x.value), view.module.eps
    square = (values**2).mean(axes, keepdims=True)
    root = np.sqrt(square + (np.finfo(x.value.dtype).eps if eps is None else eps))
    named = view.axes_of(x)
    story.add("input", "x", "what comes in", named, x.value)
    story.add("mean square", "q", f"q = mean of x² over axes {list(axes)}", named[:-count], square.squeeze(axes))
    story.add("normalised", "x̂", "x̂ = x / √(q + ε)", named, values / root)
    _add_affine(story, view)
    _add_error_above(story, view, y, origin)
    gradient = view.gradient(x)
    if y.gradient is not None and gradient is not None:
        weight = next((wide(p.value) for p in view.parameters), np.ones(()))
        error = wide(y.gradient) * weight
        along = (error * values / root).mean(axes, keepdims=True)
        story.add("error of normalised", "∂L/∂x̂", "∂L/∂x̂ = γ · ∂L/∂y", named, error)
        story.add("removed: projection", "p", "p = x̂ · mean of ∂L/∂x̂ · x̂", named, values / root * along)
        story.add("error", "∂L/∂x", "∂L/∂x = (∂L/∂x̂ − p) / √(q + ε)", named, gradient)
    return story


def _add_affine(story: Story, view: View) -> None:
    """Scale, shift and their gradients."""
    named = {p.name.rpartition(".")[2]: p for p in view.parameters}
    y = view.outputs[0]
    kinds = [("weight", "scale", "γ", "Σ ∂L/∂y · x̂"), ("bias", "shift", "β", "Σ ∂L/∂y")]
    present = [(named[name], kind, symbol, rule) for name, kind, symbol, rule in kinds if name in named]
    for parameter, kind, symbol, _ in present:
        story.add(kind, symbol, "y = γ · x̂ + β", ("channel",), parameter.value)
    story.add("output", "y", "y = γ · x̂ + β" if present else "y = x̂", view.axes_of(y), y.value)
    for parameter, kind, symbol, rule in present:
        gradient = view.gradient(parameter)
        story.add(f"{kind} gradient", f"∂L/∂{symbol}", f"∂L/∂{symbol} = {rule}", ("channel",), gradient)
        view.add_update(story, parameter, ("channel",), f"{kind} update", f"Δ{symbol}")


def _add_error_above(story: Story, view: View, y: Node, origin: str) -> None:
    story.add("error from above", "∂L/∂y", f"∂L/∂y: {origin}", view.axes_of(y), y.gradient)


def _axes(view: View, inner: Node) -> tuple[int, ...] | None:
    """Over which axes the mean was taken: those of the sum of what is normalised."""
    for node in view.nodes:
        if node.op == "sum" and view.graph.nodes[node.inputs[0]].tensor.primitive is STOP:
            source = view.graph.nodes[view.graph.nodes[node.inputs[0]].inputs[0]]
            if source is inner:
                return tuple(node.tensor.attributes["axes"])
    return None


def _like(array: Array, x: Node) -> Array:
    return array.reshape(x.shape) if array.size == x.value.size else array


def _of(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
