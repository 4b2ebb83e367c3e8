"""Convolutions as products of matrices, so that what computes products computes them too.

`patches` sets the windows of an input out in rows, a matrix that is never stored: whoever multiplies by it makes the
rows that it needs at the moment.

    forward                Y = patches(X) · W
    gradient of the input  the same with the kernel flipped; where elements lie apart (input_step > 1), every phase of
                           the result is a plain convolution of its own, with the taps that meet elements, not zeros
    gradient of W          dW = patches(X)ᵀ · dY

Depthwise convolutions have no sum over channels that would make a product of matrices: they have primitives of their
own.
"""

from itertools import product
from math import gcd, prod

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.passes.portions import portions
from chainrule.primitives import contract, layout
from chainrule.primitives import elementwise as e
from chainrule.primitives.convolve import convolve
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite


def _infer_patches(x: Tensor, window: Shape, places: Shape, **_: Shape) -> TypeOf:
    return (x.shape[-2], x.shape[0] * prod(places), prod(window) * x.shape[-1]), x.dtype


patches = Primitive("patches", "window", lambda m, x, **attributes: m.patches(x, **attributes), _infer_patches)
"""x (batch, *space, groups, in) -> (groups, batch · places, window · in).

Element [g, (n, p), (k, i)] is x[n, p · strides + k · steps − low, g, i], and 0 outside.
"""


def by_places(shape: Shape, strides: tuple[int, ...], window_rows: Shape) -> bool:
    """Whether an operand that is a matrix of windows, in its order or turned, is summed over the places of windows.

    There it may be a stack of such matrices, each of a portion of the places.
    """
    if shape[-2] != shape[-1]:
        return shape[-1] != window_rows[-1]
    if shape[-1] == 1:  # one place in each portion
        return shape[:-2] != window_rows[:-2]
    return strides[-1] != 1


def _infer_depthwise(x: Tensor, w: Tensor, places: Shape, **_: Shape) -> TypeOf:
    return (x.shape[0], *places, x.shape[-1]), x.dtype


depthwise = Primitive(
    "depthwise", "window", lambda m, x, w, **attributes: m.depthwise(x, w, **attributes), _infer_depthwise
)
"""x (batch, *space, channels), w (*window, channels) -> (batch, *places, channels): each channel by itself."""


def _infer_depthwise_gradient(x: Tensor, dy: Tensor, window: Shape, **_: Shape) -> TypeOf:
    return (*window, x.shape[-1]), x.dtype


depthwise_gradient = Primitive(
    "depthwise_gradient",
    "window",
    lambda m, x, dy, **attributes: m.depthwise_gradient(x, dy, **attributes),
    _infer_depthwise_gradient,
)
"""x (batch, *space, channels), dy (batch, *places, channels) -> (*window, channels): that of the kernel."""


def convolutions(program: Program) -> Program:
    """Replace convolutions by products with patches."""

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is not convolve:
            return None
        if node.dtype in dtypes.HALVES:  # sums are rounded once
            wide = [builder.make(e.cast, x, like=node, dtype=dtypes.float32) for x in node.inputs]
            y = builder.make(convolve, *wide, like=node, **node.attributes)
            product = rule(builder, builder.nodes[y])
            return builder.make(e.cast, y if product is None else product, like=node, dtype=node.dtype)
        lowering = Lowering(builder, node)
        if 0 in node.shape or any(0 in builder.nodes[x].shape for x in node.inputs):
            return lowering.zeros(node.shape)
        if lowering.of_kernel():
            return lowering.kernel_gradient()
        if max(node.attributes["input_step"], default=1) > 1:
            return lowering.spread()
        return lowering.plain(node.inputs[0], node.inputs[1], node.attributes)

    return rewrite(program, rule)


class Lowering:
    """One convolution, taken apart."""

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder, self.node = builder, node
        self.spatial = len(node.attributes["strides"])

    def make(self, primitive: Primitive, *inputs: int, **attributes: object) -> int:
        """A node in the place of the convolution."""
        return self.builder.make(primitive, *inputs, like=self.node, **attributes)

    def shape(self, x: int) -> Shape:
        """The shape of a node."""
        return self.builder.nodes[x].shape

    def reshape(self, x: int, *shape: int) -> int:
        """A node in another shape."""
        return x if self.shape(x) == shape else self.make(layout.reshape, x, shape=shape)

    def transpose(self, x: int, *axes: int) -> int:
        """A node with its axes in another order; two transposes are one, and none where nothing moves."""
        inner = self.builder.nodes[x]
        if inner.primitive is layout.transpose:
            x, axes = inner.inputs[0], tuple(inner.attributes["axes"][a] for a in axes)
        return x if axes == tuple(range(len(axes))) else self.make(layout.transpose, x, axes=axes)

    def zeros(self, shape: Shape) -> int:
        """Nothing but 0."""
        zero = self.make(CONSTANT, value=np.zeros((), self.node.dtype))
        return self.make(layout.broadcast, zero, shape=shape)

    # -- the ordinary case

    def plain(self, x: int, w: int, attributes: dict[str, Shape]) -> int:
        """patches(X) · W."""
        window, (groups, taken, out) = self.shape(w)[: self.spatial], self.shape(w)[self.spatial :]
        batch, places = self.shape(x)[0], self.places(x, window, attributes)
        if groups > 1 and taken == out == 1 and self.spatial:
            x, w = self.reshape(x, *self.shape(x)[:-1]), self.reshape(w, *window, groups)
            settings = {k: attributes[k] for k in ("strides", "low")}
            y = self.make(depthwise, x, w, **settings, steps=attributes["kernel_step"], places=places)
            return self.reshape(y, batch, *places, groups, 1)
        depth = prod(window) * taken
        rows = self.rows(x, window, places, attributes)
        kernel = self.transpose(w, self.spatial, *range(self.spatial), self.spatial + 1, self.spatial + 2)
        y = self.make(contract.matmul, rows, self.reshape(kernel, groups, depth, out))
        y = self.reshape(y, groups, batch, *places, out)
        return self.transpose(y, *range(1, self.spatial + 2), 0, self.spatial + 2)

    def places(self, x: int, window: Shape, attributes: dict[str, Shape]) -> Shape:
        """How many windows there are along each axis."""
        a = attributes
        axes = zip(self.shape(x)[1:], window, a["strides"], a["low"], a["high"], a["kernel_step"], strict=False)
        return tuple((n + lo + hi - (k - 1) * t - 1) // s + 1 for n, k, s, lo, hi, t in axes)

    def rows(self, x: int, window: Shape, places: Shape, attributes: dict[str, Shape]) -> int:
        """The matrix of windows: the input itself where a window is one element after the other."""
        *outer, groups, taken = self.shape(x)
        strides, low = attributes["strides"], attributes["low"]
        if set(window) <= {1} and set(strides) <= {1} and not any(low) and tuple(outer[1:]) == places:
            moved = self.transpose(x, self.spatial + 1, *range(self.spatial + 1), self.spatial + 2)
            return self.reshape(moved, groups, prod(outer), taken)
        steps = attributes["kernel_step"]
        return self.make(patches, x, window=window, strides=strides, low=low, steps=steps, places=places)

    # -- the gradient of the kernel

    def of_kernel(self) -> bool:
        """Whether the input is one whose batch and channels have changed places, as in the gradient of a kernel."""
        x = self.builder.nodes[self.node.inputs[0]]
        swapped = (self.spatial + 2, *range(1, self.spatial + 2), 0)
        a = self.node.attributes
        apart, stepping = (max(a[k], default=1) > 1 for k in ("input_step", "kernel_step"))
        return x.primitive is layout.transpose and x.attributes["axes"] == swapped and not (apart and stepping)

    def kernel_gradient(self) -> int:
        """patches(X)ᵀ · dY; or patches(dY)ᵀ · X, where the elements of X lie apart and those of dY do not."""
        s, a = self.spatial, self.node.attributes
        x, w = self.node.inputs
        x = self.transpose(x, s + 2, *range(1, s + 2), 0)  # (batch, *space, groups, in)
        dy = self.transpose(w, s + 1, *range(s + 1), s + 2)  # (batch, *places, groups, out)
        window = self.node.shape[1 : s + 1]
        if max(a["input_step"], default=1) == 1:
            given = {"strides": a["kernel_step"], "low": a["low"], "kernel_step": a["strides"]}
            dw = self.gradient(x, dy, window, given)  # (groups, *window, in, out)
            return self.transpose(dw, s + 1, *range(1, s + 1), 0, s + 2)
        low = tuple((k - 1) * t - lo for k, t, lo in zip(window, a["strides"], a["low"], strict=True))
        given = {"strides": a["input_step"], "low": low, "kernel_step": a["strides"]}
        dw = self.gradient(dy, x, window, given)  # (groups, *window, out, in), the window backwards
        shape = self.shape(dw)
        start = tuple(n - 1 if 0 < i <= s else 0 for i, n in enumerate(shape))
        stop = tuple(-1 if 0 < i <= s else n for i, n in enumerate(shape))
        step = tuple(-1 if 0 < i <= s else 1 for i in range(len(shape)))
        dw = self.make(layout.slice, dw, start=start, stop=stop, step=step)
        return self.transpose(dw, s + 2, *range(1, s + 1), 0, s + 1)

    def gradient(self, x: int, dy: int, window: Shape, attributes: dict[str, Shape]) -> int:
        """patches(x)ᵀ · dy as (groups, *window, channels of x, channels of dy)."""
        batch, *places, groups, out = self.shape(dy)
        if groups > 1 and self.shape(x)[-1] == out == 1 and self.spatial:
            x, dy = (self.reshape(y, *self.shape(y)[:-1]) for y in (x, dy))
            settings = {k: attributes[k] for k in ("strides", "low")}
            dw = self.make(depthwise_gradient, x, dy, window=window, **settings, steps=attributes["kernel_step"])
            return self.reshape(self.transpose(dw, self.spatial, *range(self.spatial)), groups, *window, 1, 1)
        rows = self.rows(x, window, tuple(places), attributes)
        moved = self.transpose(dy, self.spatial + 1, *range(self.spatial + 1), self.spatial + 2)
        dw = self.turned_product(rows, self.reshape(moved, groups, batch * prod(places), out))
        return self.reshape(dw, groups, *window, self.shape(x)[-1], out)

    def turned_product(self, rows: int, dy: int) -> int:
        """rowsᵀ · dy for each group. A single one is summed up in portions where it has many places."""
        (groups, places, taken), out = self.shape(rows), self.shape(dy)[-1]
        parts = gcd(portions(places, taken * out * self.node.dtype.itemsize), places) if groups == 1 else 1
        if parts == 1:
            return self.make(contract.matmul, self.transpose(rows, 0, 2, 1), dy)
        rows, dy = (self.reshape(x, parts, places // parts, n) for x, n in ((rows, taken), (dy, out)))
        return self.make(layout.sum, self.make(contract.matmul, self.transpose(rows, 0, 2, 1), dy), axes=(0,))

    # -- elements that lie apart

    def spread(self) -> int:
        """Zeros lie between the elements. With strides they are put there; else each phase takes its taps."""
        x, w = self.node.inputs
        a = dict(self.node.attributes)
        steps = a["input_step"]
        if max(a["strides"]) > 1:
            interior = (0, *[t - 1 for t in steps], 0, 0)
            none = (0,) * len(interior)
            x = self.make(layout.pad, x, low=none, high=none, interior=interior)
            return self.plain(x, w, a)
        counts = tuple(-(-p // t) for p, t in zip(self.node.shape[1:], steps, strict=False))
        phases = {phase: self._phase(x, w, phase, counts) for phase in product(*map(range, steps))}
        y = self._woven(phases, steps, counts)
        stop = self.node.shape
        if self.shape(y) == stop:
            return y
        return self.make(layout.slice, y, start=(0,) * len(stop), stop=stop, step=(1,) * len(stop))

    def _phase(self, x: int, w: int, phase: Shape, counts: Shape) -> int:
        """The results at p = q · step + phase: (batch, *counts, groups, out)."""
        a = self.node.attributes
        start, stop, step, low, steps = [], [], [], [], []
        axes = zip(phase, a["input_step"], a["kernel_step"], a["low"], self.shape(w), strict=False)
        for r, apart, tap, lo, size in axes:
            common = gcd(apart, tap)
            first = next((k for k in range(apart // common) if (r + k * tap - lo) % apart == 0), size)
            if first >= size:  # no tap of this phase ever meets an element
                return self.zeros((self.shape(x)[0], *counts, *self.node.shape[-2:]))
            start.append(first)
            stop.append(size)
            step.append(apart // common)
            low.append(-((r + first * tap - lo) // apart))
            steps.append(tap // common)
        rest = self.shape(w)[self.spatial :]
        taps = self.make(layout.slice, w, start=(*start, 0, 0, 0), stop=(*stop, *rest), step=(*step, 1, 1, 1))
        window = self.shape(taps)[: self.spatial]
        axes_high = zip(counts, window, low, steps, self.shape(x)[1:], strict=False)
        high = tuple(q - 1 + (k - 1) * t + 1 - lo - n for q, k, lo, t, n in axes_high)
        ones = (1,) * self.spatial
        attributes = {"strides": ones, "low": tuple(low), "high": high, "kernel_step": tuple(steps)}
        return self.plain(x, taps, attributes)

    def _woven(self, phases: dict[Shape, int], steps: Shape, counts: Shape) -> int:
        """The phases put between each other: side by side at each place, from where the axes are read in turn."""
        s, batch, ends = self.spatial, self.node.shape[0], self.node.shape[-2:]
        parts = [self.reshape(phases[phase], batch, *counts, 1, *ends) for phase in product(*map(range, steps))]
        together = self.reshape(self.make(layout.concat, *parts, axis=s + 1), batch, *counts, *steps, *ends)
        pairs = [axis for i in range(1, s + 1) for axis in (i, s + i)]
        woven = self.transpose(together, 0, *pairs, 2 * s + 1, 2 * s + 2)
        return self.reshape(woven, batch, *(n * t for n, t in zip(counts, steps, strict=True)), *ends)
