"""Layers that tell where a token stands: sinusoidal and learned encodings, which are added, and rotary ones."""

import math
from typing import Any

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.choice import clip, where
from chainrule.functions.layers import embedding
from chainrule.functions.positional import Offset, positions, rotary_encoding, sinusoidal_encoding
from chainrule.nn import init
from chainrule.nn.arguments import size
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.random import Generator


class _Added(Module):
    """An encoding (L, d_model) that is added to the input."""

    d_model: int
    batch_first: bool

    def forward(self, x: Tensor, offset: Offset = 0) -> Tensor:
        """x plus the encodings of its positions, which count from `offset`. Keeps the shape."""
        x = as_tensor(x)
        if x.ndim not in (2, 3) or x.shape[-1] != self.d_model:
            form = "(N, L, E)" if self.batch_first else "(L, N, E)"
            raise ShapeError(f"{self.label} expects {form} or (L, E) with E = {self.d_model}, got shape {x.shape}.")
        in_columns = x.ndim == 3 and not self.batch_first
        length = x.shape[1] if x.ndim == 3 and self.batch_first else x.shape[0]
        added = self.encoding(length, offset, x.dtype)
        return x + (added.reshape((length, 1, self.d_model)) if in_columns else added)

    def encoding(self, length: int, offset: Offset, dtype: Any) -> Tensor:
        """The encodings of `length` positions."""
        raise NotImplementedError


class SinusoidalEncoding(_Added):
    """Adds waves that tell positions apart; see chainrule.sinusoidal_encoding.

    x (L, N, d_model), or (N, L, d_model) with `batch_first`, or (L, d_model); keeps the shape. No parameters, any
    length. Called as layer(x, offset) it takes positions from `offset` on. Raises ConfigError for an odd `d_model`.
    Source: Vaswani et al., "Attention is all you need" (2017), section 3.5.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SinusoidalEncoding(2)(cr.zeros((2, 2))).tolist()
    [[0.0, 1.0], [0.841..., 0.540...]]
    """

    def __init__(self, d_model: int, base: float = 10000.0, batch_first: bool = False) -> None:
        self.d_model = size("SinusoidalEncoding", "d_model", d_model, least=2)
        if d_model % 2:
            raise ConfigError(f"SinusoidalEncoding: d_model={d_model} must be even, for pairs of sine and cosine.")
        self.base, self.batch_first = base, batch_first

    def encoding(self, length: int, offset: Offset, dtype: Any) -> Tensor:
        """-> (length, d_model)"""
        return sinusoidal_encoding(length, self.d_model, offset, self.base, dtype)


class LearnedEncoding(_Added):
    """Adds a vector that is learned for each position.

    x (L, N, d_model), or (N, L, d_model) with `batch_first`, or (L, d_model); keeps the shape. `weight`
    (max_length, d_model) starts normal with standard deviation 0.02. Called as layer(x, offset) it takes positions
    from `offset` on. Raises ShapeError for a position beyond `max_length` (in a compiled function, where an offset is
    not known, its encoding is NaN).
    Source: Radford et al., "Improving language understanding by generative pre-training" (2018), section 4.1.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LearnedEncoding(16, 8, batch_first=True)(cr.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    weight: Tensor

    def __init__(
        self,
        max_length: int,
        d_model: int,
        batch_first: bool = False,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.max_length = size("LearnedEncoding", "max_length", max_length, least=1)
        self.d_model = size("LearnedEncoding", "d_model", d_model, least=1)
        self.batch_first = batch_first
        self.weight = Parameter(init.normal((max_length, d_model), std=0.02, generator=generator, dtype=dtype))

    def encoding(self, length: int, offset: Offset, dtype: Any) -> Tensor:
        """-> (length, d_model)"""
        traced = isinstance(offset, Tensor) and offset.value is None
        first = 0 if traced else int(offset)
        if first < 0 or first + length > self.max_length:
            raise ShapeError(
                f"{self.label} has positions 0 to {self.max_length - 1}; {first} to {first + length - 1} are asked for."
            )
        if isinstance(offset, int):
            return self.weight[offset : offset + length]
        places = positions(length, offset)
        known = ((places >= 0) & (places < self.max_length)).reshape((length, 1))
        return where(known, embedding(clip(places, 0, self.max_length - 1), self.weight), math.nan)


class RotaryEncoding(Module):
    """Turns pairs of features by angles that grow with the position; see chainrule.rotary_encoding.

    x (..., L, E), queries or keys; keeps the shape. Called as layer(x, offset) it takes positions from `offset` on.
    Given to attention: nn.MultiheadAttention(..., rotary=nn.RotaryEncoding()).
    Source: Su et al., "RoFormer: Enhanced transformer with rotary position embedding" (2021), section 3.2.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.RotaryEncoding()(cr.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.540..., 0.841...]]
    """

    def __init__(self, base: float = 10000.0, interleaved: bool = False) -> None:
        self.base, self.interleaved = base, interleaved

    def forward(self, x: Tensor, offset: Offset = 0) -> Tensor:
        """The same shape."""
        return rotary_encoding(x, offset, self.base, self.interleaved)
