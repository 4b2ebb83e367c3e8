"""What convolution, pooling and resampling share: numbers for each axis, a batch axis, channels last and back.

Users hand in (N, C, *space), or (C, *space) for one example; the primitives take (N, *space, C).
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, ShapeError
from chainrule.primitives.layout import reshape, slice, sum, transpose
from chainrule.primitives.operators import matmul

AXES_NAMED = {1: "L", 2: "H, W", 3: "D, H, W"}


def per_axis(name: str, argument: str, value: Any, axes: int, least: int = 1) -> Shape:
    """Whole numbers, one for each axis of space, given so or as one for all; ConfigError for anything else.

    >>> per_axis("conv2d", "stride", 2, axes=2)
    (2, 2)
    """
    given = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * axes
    if len(given) == 1:
        given *= axes
    try:
        numbers = tuple(operator.index(n) for n in given)
    except TypeError:
        hint = " Divide with //." if any(isinstance(n, float) for n in given) else ""
        raise ConfigError(f"{name}: {argument} is made of whole numbers, not {value!r:.80}.{hint}") from None
    if len(numbers) != axes or min(numbers) < least or any(isinstance(n, bool) for n in given):
        several = f", or {axes} of them, one for each axis of space" if axes > 1 else ""
        raise ConfigError(f"{name}: {argument} is a whole number of at least {least}{several}; got {value!r:.80}.")
    return numbers


def batched(name: str, x: Tensor, axes: int) -> tuple[Tensor, bool]:
    """`x` with a batch axis, and whether it came with one. ShapeError for another number of axes."""
    if x.ndim == axes + 2:
        return x, True
    if x.ndim == axes + 1:
        return reshape(x, shape=(1, *x.shape)), False
    named = AXES_NAMED[axes]
    raise ShapeError(f"{name}: expected (N, C, {named}), or (C, {named}) for one example; got shape {x.shape}.")


def unbatched(y: Tensor, is_batch: bool) -> Tensor:
    """`y` without the batch axis that `batched` put in front."""
    return y if is_batch else reshape(y, shape=y.shape[1:])


def channels_last(x: Tensor) -> Tensor:
    """(N, C, *space) -> (N, *space, C)."""
    return transpose(x, axes=(0, *range(2, x.ndim), 1))


def channels_first(x: Tensor) -> Tensor:
    """(N, *space, C) -> (N, C, *space)."""
    return transpose(x, axes=(0, x.ndim - 1, *range(1, x.ndim - 1)))


def weighted_along(x: Tensor, axis: int, weights: np.ndarray) -> Tensor:
    """Each element along `axis` becomes a weighted sum of all: x (..., n, ...), weights (m, n) -> (..., m, ...)."""
    before, n, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    matrix = wrap(weights.astype(x.dtype))
    shape = (*x.shape[:axis], weights.shape[0], *x.shape[axis + 1 :])
    if after == 1:
        return reshape(matmul(reshape(x, shape=(before, n)), matrix.T), shape=shape)
    return reshape(matmul(matrix, reshape(x, shape=(before, n, after))), shape=shape)


def summed_in_blocks(x: Tensor, blocks: Shape) -> Tensor:
    """The sums of windows that lie side by side: (N, C, *space) -> (N, C, *space // blocks).

    What is left over at the end of an axis is left out.
    """
    places = [n // k for n, k in zip(x.shape[2:], blocks, strict=True)]
    covered = (*x.shape[:2], *[p * k for p, k in zip(places, blocks, strict=True)])
    if x.shape != covered:
        x = slice(x, start=(0,) * x.ndim, stop=covered, step=(1,) * x.ndim)
    apart = [n for pair in zip(places, blocks, strict=True) for n in pair]
    total = sum(reshape(x, shape=(*x.shape[:2], *apart)), axes=tuple(range(3, 2 * x.ndim - 2, 2)))
    return reshape(total, shape=(*x.shape[:2], *places))
