"""Convolutions with a gradient that is zero almost everywhere: only what is not zero is multiplied.

The largest over time (or over an image) hands its gradient back to one place in each channel. Behind it both products
of a convolution's derivative would multiply zeros, as many to one as there are places. How many there are is read off
the Program: a value that equals its largest among n is taken to be there once in n. Where ties make it more, results
are as right, and take longer.

    gradient of the input   each place that is not zero gives its rows of the kernel to its window
    gradient of W           each place that is not zero takes its window, times itself

What is zero takes no part, whatever it would meet: 0 · ∞ is left out here, and no number otherwise.
"""

from math import prod

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.passes.convolutions import Lowering
from chainrule.primitives import layout
from chainrule.primitives.convolve import convolve
from chainrule.program.program import CONSTANT, Builder, Node, Program, rewrite

FEW = 1 / 16  # of the elements at most: multiplying one by one takes longer than in tiles
EXTREMES = ("max", "min")
AS_FIRST = ("transpose", "reshape", "cast", "neg", "broadcast", "abs", "div")  # zero where the first operand is
EITHER = ("mul", "and")  # zero where one operand is


def _infer_spread(dy: Tensor, w: Tensor, size: Shape, **_: Shape) -> TypeOf:
    return (dy.shape[0], *size, w.shape[-1]), dy.dtype


def _infer_gathered(x: Tensor, dy: Tensor, window: Shape, **_: Shape) -> TypeOf:
    return (dy.shape[-1], *window, x.shape[-1]), x.dtype


spread_product = Primitive(
    "spread_product", "window", lambda m, dy, w, **attributes: m.spread_product(dy, w, **attributes), _infer_spread
)
"""dy (batch, *places, in), w (in, *window, out) -> (batch, *size, out); dy is zero almost everywhere.

y[n, p · strides + k · steps − low, o] is the sum of dy[n, p, i] · w[i, k, o] over all p, k, i that lead there.
"""
gathered_product = Primitive(
    "gathered_product",
    "window",
    lambda m, x, dy, **attributes: m.gathered_product(x, dy, **attributes),
    _infer_gathered,
)
"""x (batch, *space, in), dy (batch, *places, out) -> (out, *window, in); dy is zero almost everywhere.

dw[o, k, i] = Σ over n and p of dy[n, p, o] · x[n, p · strides + k · steps − low, i], where x is 0 outside.
"""
PRODUCTS = (spread_product, gathered_product)


def sparse(program: Program) -> Program:
    """Replace convolutions with such an operand."""
    shares: list[float] = []

    def few(builder: Builder, n: int) -> bool:
        for k in range(len(shares), len(builder.nodes)):
            shares.append(_share(builder.nodes, k, shares))
        return shares[n] <= FEW

    def rule(builder: Builder, node: Node) -> int | None:
        if node.primitive is not convolve or node.shape[-2] != 1 or 0 in node.shape:
            return None
        if node.dtype not in (dtypes.float32, dtypes.float64):
            return None
        lowering, a = Lowering(builder, node), node.attributes
        x, w = node.inputs
        if lowering.of_kernel():
            return _gathered(lowering) if max(a["input_step"], default=1) == 1 and few(builder, w) else None
        return _spread(lowering) if max(a["strides"], default=1) == 1 and few(builder, x) else None

    return rewrite(program, rule)


def _share(nodes: list[Node], n: int, shares: list[float]) -> float:
    """Which part of a value may be other than zero, as far as its making tells; `shares`: of the nodes before it."""
    name, inputs = nodes[n].primitive.name, nodes[n].inputs
    given = [shares[x] for x in inputs]
    if not nodes[n].size:
        return 1.0
    if name == "equal":
        return min(_of_extreme(nodes, x, y) for x, y in (inputs, inputs[::-1]))
    if name in AS_FIRST:
        return given[0]
    if name in EITHER:
        return min(given)
    if name == "where":
        if _is_zero(nodes, inputs[1]):
            return given[2]
        return min(given[:2]) if _is_zero(nodes, inputs[2]) else 1.0
    if name == "pad":
        return given[0] * nodes[inputs[0]].size / nodes[n].size
    return 1.0


def _of_extreme(nodes: list[Node], x: int, y: int) -> float:
    """The part of x that equals y, where y repeats the largest or smallest of x; else it may be all of it."""
    size = nodes[x].size
    while nodes[y].primitive.name in ("broadcast", "reshape", "transpose"):
        y = nodes[y].inputs[0]
    if nodes[y].primitive.name not in EXTREMES:
        return 1.0
    of = nodes[y].inputs[0]
    while nodes[of].primitive is layout.transpose:
        of = nodes[of].inputs[0]
    while nodes[x].primitive is layout.transpose:
        x = nodes[x].inputs[0]
    return nodes[y].size / size if x == of else 1.0


def _is_zero(nodes: list[Node], n: int) -> bool:
    while nodes[n].primitive is layout.broadcast:
        n = nodes[n].inputs[0]
    return nodes[n].primitive is CONSTANT and not nodes[n].attributes["value"].any()


def _gathered(lowering: Lowering) -> int:
    """dW, of a convolution of (in, *space, 1, batch) with (*places, 1, batch, out)."""
    s, a, shape = lowering.spatial, lowering.node.attributes, lowering.node.shape
    x, w = lowering.node.inputs
    x = lowering.transpose(x, s + 2, *range(1, s + 2), 0)  # (batch, *space, 1, in)
    dy = lowering.transpose(w, s + 1, *range(s + 1), s + 2)  # (batch, *places, 1, out)
    x, dy = (lowering.reshape(y, *lowering.shape(y)[: s + 1], lowering.shape(y)[-1]) for y in (x, dy))
    settings = {"strides": a["kernel_step"], "low": a["low"], "steps": a["strides"]}
    dw = lowering.make(gathered_product, x, dy, window=shape[1 : s + 1], **settings)
    return lowering.reshape(lowering.transpose(dw, s + 1, *range(1, s + 1), 0), *shape)


def _spread(lowering: Lowering) -> int:
    """dX, of a convolution of (batch, *places, 1, in), spread, with (*window, 1, in, out), which is flipped back."""
    s, a, shape = lowering.spatial, lowering.node.attributes, lowering.node.shape
    x, w = lowering.node.inputs
    window = lowering.shape(w)[:s]
    steps, strides = a["kernel_step"], a["input_step"]
    low = tuple((k - 1) * t - before for k, t, before in zip(window, steps, a["low"], strict=True))
    if prod(window) > 1:
        ends = lowering.shape(w)[s:]
        start, stop = (*[k - 1 for k in window], 0, 0, 0), (*[-1] * s, *ends)
        w = lowering.make(layout.slice, w, start=start, stop=stop, step=(*[-1] * s, 1, 1, 1))
    turned = lowering.transpose(w, s + 1, *range(s + 1), s + 2)  # (in, *window, 1, out)
    dy = lowering.reshape(x, *lowering.shape(x)[: s + 1], lowering.shape(x)[-1])
    kernel = lowering.reshape(turned, lowering.shape(turned)[0], *window, shape[-1])
    settings = {"strides": strides, "low": low, "steps": steps}
    dx = lowering.make(spread_product, dy, kernel, size=shape[1 : s + 1], **settings)
    return lowering.reshape(dx, *shape)
