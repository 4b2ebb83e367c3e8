"""What layers compute, without the layers: linear, bilinear, embedding, dropout."""

import operator

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions.choice import where
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.primitives.index import take
from chainrule.primitives.layout import reshape, transpose
from chainrule.primitives.operators import matmul
from chainrule.random import Generator, bernoulli


@rounded_once
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias: what a fully connected layer computes.

    x (..., in), weight (out, in), bias (out,) -> (..., out). Raises ShapeError when the shapes do not fit.

    >>> import chainrule as cr
    >>> cr.linear(cr.tensor([1.0, 2.0]), cr.tensor([[3.0, 4.0]]), cr.tensor([0.5])).tolist()
    [11.5]
    """
    x, weight = real("linear", x), real("linear", weight)
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input of shape {x.shape} and weight of shape {weight.shape} do not fit. Expected (..., in) and "
            "(out, in): the last extent of the input must be the last of the weight."
        )
    out = weight.shape[0]
    rows = reshape(x, shape=(_rows(x), x.shape[-1])) if x.ndim != 2 else x  # one product, however many axes there are
    y = matmul(rows, weight.T)
    if bias is not None:
        y = y + _bias("linear", bias, out)
    return y if x.ndim == 2 else reshape(y, shape=(*x.shape[:-1], out))


@rounded_once
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1ᵀ · weight[k] · input2 + bias[k] for each output k.

    input1 (..., in1), input2 (..., in2), weight (out, in1, in2), bias (out,) -> (..., out); the axes before the last
    are the same for both inputs. Raises ShapeError when the shapes do not fit.

    >>> import chainrule as cr
    >>> cr.bilinear(cr.tensor([1.0, 2.0]), cr.tensor([3.0]), cr.tensor([[[1.0], [10.0]]])).tolist()
    [63.0]
    """
    a, b, weight = real("bilinear", input1), real("bilinear", input2), real("bilinear", weight)
    fits = weight.ndim == 3 and a.ndim and b.ndim and a.shape[:-1] == b.shape[:-1]
    if not fits or (a.shape[-1], b.shape[-1]) != weight.shape[1:]:
        raise ShapeError(
            f"bilinear: inputs of shapes {a.shape} and {b.shape} and weight of shape {weight.shape} do not fit. "
            "Expected (..., in1), (..., in2) and (out, in1, in2)."
        )
    out, in1, in2 = weight.shape
    rows = _rows(a)
    flat = reshape(transpose(weight, axes=(1, 0, 2)), shape=(in1, out * in2))
    left = matmul(reshape(a, shape=(rows, in1)), flat)  # (rows, out · in2)
    y = matmul(reshape(left, shape=(rows, out, in2)), reshape(b, shape=(rows, in2, 1)))  # (rows, out, 1)
    y = reshape(y, shape=(*a.shape[:-1], out))
    return y if bias is None else y + _bias("bilinear", bias, out)


def _rows(x: Tensor) -> int:
    return int(np.prod(x.shape[:-1], dtype=np.int64))


def _bias(name: str, bias: Tensor, out: int) -> Tensor:
    bias = as_tensor(bias)
    if bias.shape != (out,):
        raise ShapeError(f"{name}: bias has shape {bias.shape}; expected {(out,)}, one for each output.")
    return bias


def embedding(index: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` at `index`: a look-up table that can be trained.

    index (...) of integers, weight (rows, features) -> (..., features). The row `padding_idx` (negative: from the
    end) is looked up like others, but gets no gradient. The argument order is PyTorch's. Raises DTypeError for an
    index that is not of integers, IndexOutOfRange for one outside [0, rows), ShapeError when `weight` is no table.

    >>> import chainrule as cr
    >>> cr.embedding(cr.tensor([1, 0]), cr.tensor([[0.0, 0.5], [1.0, 1.5]])).tolist()
    [[1.0, 1.5], [0.0, 0.5]]
    """
    index, weight = as_tensor(index), as_tensor(weight)
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the weight is a table (rows, features); got shape {weight.shape}.")
    if not dtypes.is_integer(index.dtype):
        given = f"got {index.dtype.name}. Is the weight given first? The order is embedding(index, weight)."
        raise DTypeError(f"embedding: an index is made of integers; {given}")
    rows = take(weight, index)  # (..., features)
    if padding_idx is None:
        return rows
    if not -weight.shape[0] <= operator.index(padding_idx) < weight.shape[0]:
        raise IndexOutOfRange(f"embedding: padding_idx={padding_idx} is outside of a table of {weight.shape[0]} rows.")
    padded = reshape(index == padding_idx % weight.shape[0], shape=(*index.shape, 1))
    return where(padded, stop_gradient(rows), rows)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | Tensor | None = None) -> Tensor:
    """In training, set each element to 0 with probability `p` and multiply the others by 1 / (1 − p).

    Any shape; keeps it. `generator` gives the random numbers: a chainrule.random.Generator, which moves on, or a key
    (chainrule.random.key), which gives the same mask each time. With training=False or p = 0 nothing happens and none
    is needed. Raises ConfigError for p outside [0, 1] or a missing generator. Source: Srivastava et al., "Dropout: a
    simple way to prevent neural networks from overfitting" (2014).

    >>> import chainrule as cr
    >>> cr.dropout(cr.tensor([1.0, 1.0, 1.0, 1.0]), 0.5, generator=cr.random.key(0)).tolist()
    [2.0, 2.0, 2.0, 0.0]
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"dropout: p={p} is not a probability; it lies between 0 (drop nothing) and 1 (drop all).")
    x = real("dropout", x)
    if not training or p == 0:
        return x
    if p == 1:
        return where(full(x.shape, True, dtypes.bool_), 0, x)
    if generator is None:
        raise ConfigError(
            "dropout: training draws random numbers. Give generator=chainrule.random.Generator(seed) or a key, "
            "or use nn.Dropout, which carries its own."
        )
    keep = (
        generator.bernoulli(1 - p, x.shape)
        if isinstance(generator, Generator)
        else bernoulli(generator, 1 - p, x.shape)
    )
    return where(keep, x * (1 / (1 - p)), 0)
