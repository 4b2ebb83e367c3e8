"""The methods that tensors have beside operators: functions of this package under the names that users expect.

`Tensor.sum(axis)` is `sum(x, axis)`, and so on. Where NumPy and PyTorch mean different things by one name
(`x.repeat`, `x.size()`), it is left out; for `transpose` see below.
"""

import math
from collections.abc import Iterator
from typing import Any

from chainrule.core.autodiff import stop_gradient
from chainrule.core.tensor import Tensor, attach
from chainrule.errors import ShapeError
from chainrule.functions import (
    arithmetic,
    choice,
    exponential,
    linear_algebra,
    manipulation,
    searching,
    statistics,
    trigonometry,
)
from chainrule.functions.axes import axis_of, reshaped


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """`x.reshape(2, -1)` or `x.reshape((2, -1))`; see chainrule.reshape."""
    return manipulation.reshape(x, shape[0] if len(shape) == 1 else shape)


def permute(x: Tensor, *axes: Any) -> Tensor:
    """`x.permute(2, 0, 1)` or with a tuple; see chainrule.permute_dims."""
    given = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    return manipulation.permute_dims(x, given)


def swapaxes(x: Tensor, a: int, b: int) -> Tensor:
    """`x` with two axes exchanged."""
    i, j = axis_of("swapaxes", a, x.ndim), axis_of("swapaxes", b, x.ndim)
    order = list(range(x.ndim))
    order[i], order[j] = j, i
    return manipulation.permute_dims(x, order)


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """All axes reversed; with arguments their new order (as in NumPy), or two axes to exchange (as in PyTorch).

    On a matrix the two meanings of x.transpose(0, 1) contradict each other, so it raises ShapeError.
    """
    given = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    if not given:
        return manipulation.permute_dims(x, tuple(reversed(range(x.ndim))))
    if len(given) == len(axes) == 2:
        order = [axis_of("transpose", a, x.ndim) for a in given]
        if x.ndim == 2 and order == [0, 1]:
            raise ShapeError(
                f"transpose{given} of a matrix leaves it as it is in NumPy and exchanges its axes in PyTorch. "
                "Write x.T or x.swapaxes(0, 1) to exchange them."
            )
        return swapaxes(x, *given)
    return manipulation.permute_dims(x, given)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim` joined into one; a scalar becomes a vector."""
    if x.ndim == 0:
        return reshaped(x, (1,))
    first, last = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} stands behind end_dim {end_dim} in shape {x.shape}.")
    return manipulation.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def iterate(x: Tensor) -> Iterator[Tensor]:
    """The parts along the first axis: `for row in x`, `a, b = x`."""
    if x.ndim == 0:
        raise ShapeError("A tensor without axes cannot be iterated over; x.item() gives its number.")
    return iter(manipulation.unstack(x))


METHODS = {
    "__iter__": iterate,
    "abs": arithmetic.abs,
    "all": searching.all,
    "any": searching.any,
    "argmax": searching.argmax,
    "argmin": searching.argmin,
    "argsort": searching.argsort,
    "clip": choice.clip,
    "cos": trigonometry.cos,
    "cumsum": statistics.cumulative_sum,
    "detach": stop_gradient,
    "diagonal": linear_algebra.diagonal,
    "exp": exponential.exp,
    "expand_dims": manipulation.expand_dims,
    "flatten": flatten,
    "log": exponential.log,
    "matmul": linear_algebra.matmul,
    "max": statistics.max,
    "mean": statistics.mean,
    "min": statistics.min,
    "norm": linear_algebra.norm,
    "permute": permute,
    "prod": statistics.prod,
    "reshape": reshape,
    "round": arithmetic.round,
    "sin": trigonometry.sin,
    "sort": searching.sort,
    "sqrt": arithmetic.sqrt,
    "square": arithmetic.square,
    "squeeze": manipulation.squeeze,
    "std": statistics.std,
    "sum": statistics.sum,
    "swapaxes": swapaxes,
    "take": searching.take,
    "tanh": trigonometry.tanh,
    "trace": linear_algebra.trace,
    "transpose": transpose,
    "unsqueeze": manipulation.expand_dims,
    "var": statistics.var,
}

attach(METHODS)
