"""Layers that multiply with a matrix or look up in one, and those that only change the shape."""

import math
import operator
from collections.abc import Sequence
from typing import Any, Self

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, tensor, wrap
from chainrule.errors import ConfigError, IndexOutOfRange, ShapeError
from chainrule.functions import layers as functions
from chainrule.functions.axes import axis_of
from chainrule.functions.manipulation import reshape
from chainrule.nn import init
from chainrule.nn.arguments import size
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.random import Generator


class Identity(Module):
    """Hands its input on unchanged. Takes and ignores any settings, so that it can stand in for another layer.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Identity()(cr.tensor([1.0])).tolist()
    [1.0]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        """x itself."""
        return x


class Linear(Module):
    """A fully connected layer: y = x · weightᵀ + bias.

    x (..., in_features) -> (..., out_features). `weight` (out_features, in_features) and `bias` (out_features,), if
    any, start uniform in ±1/√in_features, as in PyTorch. Raises ShapeError for another last extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.Linear(3, 2)
    >>> layer(cr.ones((5, 3))).shape
    (5, 2)
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.in_features = size("Linear", "in_features", in_features)
        self.out_features = size("Linear", "out_features", out_features)
        weight = init.kaiming_uniform((out_features, in_features), math.sqrt(5), generator=generator, dtype=dtype)
        self.weight = Parameter(weight)
        self.register_parameter("bias", _uniform_bias(out_features, in_features, generator, dtype) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        x = as_tensor(x)
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ShapeError(f"{self.label} expects last axis {self.in_features}, got shape {x.shape}.")
        return functions.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class Bilinear(Module):
    """y[k] = x1ᵀ · weight[k] · x2 + bias[k].

    x1 (..., in1_features), x2 (..., in2_features) -> (..., out_features). `weight` (out, in1, in2) and `bias` (out,),
    if any, start uniform in ±1/√in1_features, as in PyTorch. Raises ShapeError for other extents.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Bilinear(3, 4, 2)(cr.ones((5, 3)), cr.ones((5, 4))).shape
    (5, 2)
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.in1_features = size("Bilinear", "in1_features", in1_features, least=1)
        self.in2_features = size("Bilinear", "in2_features", in2_features)
        self.out_features = size("Bilinear", "out_features", out_features)
        bound = 1 / math.sqrt(in1_features)
        shape = (out_features, in1_features, in2_features)
        self.weight = Parameter(init.uniform(shape, -bound, bound, generator, dtype))
        self.register_parameter("bias", _uniform_bias(out_features, in1_features, generator, dtype) if bias else None)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1_features) and (..., in2_features) -> (..., out_features)."""
        a, b = as_tensor(input1), as_tensor(input2)
        expected = self.in1_features, self.in2_features
        if not a.ndim or not b.ndim or (a.shape[-1], b.shape[-1]) != expected or a.shape[:-1] != b.shape[:-1]:
            raise ShapeError(
                f"{self.label} expects last axes {expected[0]} and {expected[1]} and else equal shapes, "
                f"got {a.shape} and {b.shape}."
            )
        return functions.bilinear(a, b, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"


def _uniform_bias(features: int, fan_in: int, generator: Generator | None, dtype: Any) -> Parameter:
    if not fan_in:
        return Parameter(init.zeros((features,), dtype))
    bound = 1 / math.sqrt(fan_in)
    return Parameter(init.uniform((features,), -bound, bound, generator, dtype))


class Embedding(Module):
    """A table of `num_embeddings` rows of `embedding_dim` numbers; looks up the rows for whole numbers.

    index (...) of integers -> (..., embedding_dim). `weight` (num_embeddings, embedding_dim) starts normal with
    standard deviation 1, as in PyTorch. The row `padding_idx` starts as 0 and gets no gradient.
    Raises IndexOutOfRange for an index outside of the table, DTypeError for one that is not of integers.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Embedding(10, 3)(cr.tensor([[1, 2], [0, 9]])).shape
    (2, 2, 3)
    """

    weight: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.num_embeddings = size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = size("Embedding", "embedding_dim", embedding_dim)
        self.padding_idx = None if padding_idx is None else _row(padding_idx, num_embeddings)
        weight = init.normal((num_embeddings, embedding_dim), generator=generator, dtype=dtype).numpy()
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        self.weight = Parameter(wrap(weight))

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None) -> Self:
        """An Embedding of a given table (rows, features), frozen unless freeze=False.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> nn.Embedding.from_pretrained(cr.tensor([[1.0, 2.0]]))(cr.tensor(0)).tolist()
        [1.0, 2.0]
        """
        table = tensor(embeddings)
        if table.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained takes a table (rows, features); got shape {table.shape}.")
        made = cls.__new__(cls)
        made.num_embeddings, made.embedding_dim = table.shape
        made.padding_idx = None if padding_idx is None else _row(padding_idx, table.shape[0])
        made.weight = Parameter(table, requires_grad=not freeze)
        return made

    def forward(self, index: Tensor) -> Tensor:
        """(...) of integers -> (..., embedding_dim)."""
        try:
            return functions.embedding(index, self.weight, self.padding_idx)
        except IndexOutOfRange as error:
            raise IndexOutOfRange(f"{self.label} has rows 0 to {self.num_embeddings - 1}: {error}") from error


def _row(padding_idx: int, rows: int) -> int:
    if not -rows <= operator.index(padding_idx) < rows:
        raise ConfigError(f"Embedding: padding_idx={padding_idx} is outside of a table of {rows} rows.")
    return padding_idx % rows


class Flatten(Module):
    """Makes one axis of the axes from `start_dim` to `end_dim` (inclusive): (N, C, H, W) -> (N, C · H · W) by default.

    Raises ShapeError when the input has no such axes.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Flatten()(cr.ones((5, 3, 4))).shape
    (5, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """The same elements in the same order."""
        x = as_tensor(x)
        if not x.ndim:
            return reshape(x, (1,))
        start, end = (axis_of(self.label, axis, x.ndim) for axis in (self.start_dim, self.end_dim))
        if start > end:
            raise ShapeError(
                f"{self.label}: start_dim={self.start_dim} lies behind end_dim={self.end_dim} in {x.shape}."
            )
        return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


class Unflatten(Module):
    """Makes several axes of the axis `dim`: with dim=1 and (3, 4), (N, 12) -> (N, 3, 4).

    One extent may be −1: what is left. Raises ShapeError when the extents do not multiply to that of the axis.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Unflatten(1, (3, -1))(cr.ones((5, 12))).shape
    (5, 3, 4)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)
        if self.unflattened_size.count(-1) > 1 or not self.unflattened_size:
            raise ConfigError(f"Unflatten: unflattened_size={self.unflattened_size} may leave one extent open with -1.")

    def forward(self, x: Tensor) -> Tensor:
        """The same elements in the same order."""
        x = as_tensor(x)
        axis = axis_of(self.label, self.dim, x.ndim)
        given = math.prod(n for n in self.unflattened_size if n != -1)
        rest = x.shape[axis] // given if given else 0
        shape = tuple(rest if n == -1 else n for n in self.unflattened_size)
        if math.prod(shape) != x.shape[axis]:
            raise ShapeError(
                f"{self.label}: axis {self.dim} of shape {x.shape} does not divide into {self.unflattened_size}."
            )
        return reshape(x, (*x.shape[:axis], *shape, *x.shape[axis + 1 :]))
