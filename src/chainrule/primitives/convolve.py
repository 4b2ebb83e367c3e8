"""Convolution, channels last: one primitive whose derivatives are convolutions again, so that any order works."""

from typing import Any

from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.layout import flip, transpose
from chainrule.primitives.samples import real, sample


def _spread(n: int, step: int) -> int:
    """The length of `n` elements with `step` − 1 places between neighbours."""
    return max(0, (n - 1) * step + 1)


def windows(size: int, window: int, stride: int, low: int, high: int, step: int, input_step: int = 1) -> int:
    """How many windows of so many taps lie along an axis of `size` elements."""
    free = _spread(size, input_step) + low + high - _spread(window, step)
    return 0 if free < 0 else free // stride + 1


def check_windows(name: str, spatial: int, steps: dict[str, Shape], extents: dict[str, Shape]) -> None:
    """ShapeError unless there is one integer for each axis, and steps are positive."""
    for label, values in {**steps, **extents}.items():
        if len(values) != spatial or (label in steps and min(values, default=1) < 1):
            positive = " positive" if label in steps else ""
            raise ShapeError(f"{name}: {label}={values}; expected {spatial}{positive} integers, one for each axis.")


def _infer(
    x: Tensor, w: Tensor, strides: Shape, low: Shape, high: Shape, input_step: Shape, kernel_step: Shape
) -> TypeOf:
    spatial = x.ndim - 3
    if spatial < 0 or w.ndim != spatial + 3 or x.shape[-2:] != w.shape[-3:-1]:
        raise ShapeError(
            f"convolve: input {x.shape} and kernel {w.shape} do not fit; expected (batch, *space, groups, in) and "
            "(*window, groups, in, out) with equal groups and in."
        )
    if x.dtype != w.dtype:
        raise DTypeError(f"convolve: dtypes {x.dtype.name} and {w.dtype.name} differ; cast them first.")
    steps = {"strides": strides, "input_step": input_step, "kernel_step": kernel_step}
    check_windows("convolve", spatial, steps, {"low": low, "high": high})
    places = zip(x.shape[1:], w.shape, strides, low, high, kernel_step, input_step, strict=False)
    return (x.shape[0], *[windows(*place) for place in places], w.shape[-3], w.shape[-1]), x.dtype


def _vjp(dy: Tensor, y: Tensor, x: Tensor, w: Tensor, **attributes: Shape) -> tuple[Any, Any]:
    return lambda: _by_input(dy, x, w, **attributes), lambda: _by_kernel(dy, x, w, **attributes)


def _by_input(
    dy: Tensor, x: Tensor, w: Tensor, strides: Shape, low: Shape, high: Shape, input_step: Shape, kernel_step: Shape
) -> Tensor:
    """Each output gives back to the elements it was made of: strides and steps of the input change places."""
    spatial = len(strides)
    reach = [_spread(k, step) for k, step in zip(w.shape, kernel_step, strict=False)]
    before = tuple(r - 1 - a for r, a in zip(reach, low, strict=True))
    after = tuple(
        _spread(n, s) + r - 1 - b - _spread(p, stride)
        for n, s, r, b, p, stride in zip(x.shape[1:], input_step, reach, before, dy.shape[1:], strides, strict=False)
    )
    axes = (*range(spatial + 1), spatial + 2, spatial + 1)
    turned = transpose(flip(w, tuple(range(spatial))), axes=axes)
    return convolve(dy, turned, strides=input_step, low=before, high=after, input_step=strides, kernel_step=kernel_step)


def _by_kernel(
    dy: Tensor, x: Tensor, w: Tensor, strides: Shape, low: Shape, high: Shape, input_step: Shape, kernel_step: Shape
) -> Tensor:
    """The input, its channels as the batch, is convolved with the gradient: the batch is what is summed over."""
    spatial = len(strides)
    last = spatial + 2
    x = transpose(x, axes=(last, *range(1, last), 0))  # (in, *space, groups, batch)
    dy = transpose(dy, axes=(*range(1, last), 0, last))  # (*places, groups, batch, out)
    after = tuple(
        _spread(k, step) - 1 + _spread(p, stride) - _spread(n, s) - a
        for k, step, p, stride, n, s, a in zip(
            w.shape, kernel_step, dy.shape, strides, x.shape[1:], input_step, low, strict=False
        )
    )
    steps = {"strides": kernel_step, "input_step": input_step, "kernel_step": strides}
    dw = convolve(x, dy, low=low, high=after, **steps)  # (in, *window, groups, out)
    return transpose(dw, axes=(*range(1, last), 0, last))


def _sample(x: Shape, w: Shape, *settings: Any) -> Any:
    names = ("strides", "low", "high", "input_step", "kernel_step")
    return sample(real(*x), real(*w), **dict(zip(names, settings, strict=True)))


convolve: Primitive = Primitive(
    "convolve",
    "contract",
    lambda m, x, w, **attributes: m.convolve(x, w, **attributes),
    _infer,
    _vjp,
    "dx = dY convolved with the flipped kernel, dW = X convolved with dY",
    (
        _sample((2, 5, 1, 3), (3, 1, 3, 2), (1,), (1,), (1,), (1,), (1,)),
        _sample((2, 6, 5, 1, 2), (3, 2, 1, 2, 3), (2, 1), (1, 0), (0, 1), (1, 1), (1, 2)),
        _sample((1, 4, 3, 2, 2), (2, 2, 2, 2, 1), (1, 1), (0, 1), (1, 1), (2, 3), (1, 1)),
        _sample((2, 5, 3, 1), (3, 3, 1, 1), (1,), (-1,), (2,), (1,), (1,)),
        _sample((1, 2, 1, 1), (3, 1, 1, 2), (1,), (0,), (0,), (1,), (1,)),
        _sample((1, 3, 3, 3, 1, 2), (2, 1, 2, 1, 2, 2), (1, 2, 1), (0,) * 3, (1,) * 3, (1,) * 3, (1,) * 3),
        _sample((2, 3, 2), (3, 2, 4), (), (), (), (), ()),
    ),
)
"""y[n, p, g, o] = Σ over k, i of X[n, p · strides + k · kernel_step − low, g, i] · w[k, g, i, o]

x (batch, *space, groups, in), w (*window, groups, in, out) -> (batch, *places, groups, out). X is x with
`input_step` − 1 zeros between neighbours and zeros outside; `low` and `high` say how far windows may reach over each
end (negative: elements left out). A transposed convolution is one with input_step > 1. Every attribute has an integer
for each axis of space. Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""
