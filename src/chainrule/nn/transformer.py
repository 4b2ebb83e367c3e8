"""Transformers: layers of attention and feed-forward networks, stacks of them, and encoder with decoder.

Names, arguments, defaults and parameters are PyTorch's. Differences: `is_causal` hides later positions by itself, no
mask need be given beside it, and no mask is examined for being causal; and the layers take a `cache` for generation.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.activations import gelu, relu
from chainrule.functions.attention import causal_mask
from chainrule.functions.choice import where
from chainrule.nn import init
from chainrule.nn.arguments import size
from chainrule.nn.attention import MultiheadAttention
from chainrule.nn.cache import KeyValueCache
from chainrule.nn.containers import ModuleList
from chainrule.nn.dropout import Dropout
from chainrule.nn.linear import Linear
from chainrule.nn.module import Module
from chainrule.nn.normalisation import LayerNorm
from chainrule.random import Generator, fold_in

Activation = str | Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu}


def _activation(layer: str, given: Activation) -> Callable[[Tensor], Tensor]:
    found = ACTIVATIONS.get(given) if isinstance(given, str) else given
    if not callable(found) or isinstance(found, type):
        raise ConfigError(f"{layer}: activation is 'relu', 'gelu', a function or a Module; got {given!r:.80}.")
    return found


def _dropout(p: float, generator: Generator | None) -> Dropout:
    return Dropout(p, None if generator is None else generator.split())


class _Layer(Module):
    """What both layers share: self-attention, a feed-forward network, and sums with what they are given."""

    norms = 2  # one norm and one dropout for each part
    self_attn: MultiheadAttention

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        parts = ("self_attn", "multihead_attn")[: self.norms - 1]
        for part in parts:
            made = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype, generator=generator
            )
            setattr(self, part, made)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype, generator)
        self.dropout = _dropout(dropout, generator)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype, generator)
        self.norm_first = norm_first
        for i in range(1, self.norms + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        for i in range(1, self.norms + 1):
            setattr(self, f"dropout{i}", _dropout(dropout, generator))
        self.activation = _activation(type(self).__name__, activation)

    def _added(self, x: Tensor, i: int, part: Callable[[Tensor], Tensor]) -> Tensor:
        """x plus what a part makes of it; normalised before the part or after the sum."""
        norm, drop = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        return x + drop(part(norm(x))) if self.norm_first else norm(x + drop(part(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network: the layer of an encoder, and, with is_causal, of a GPT.

    src (S, N, d_model), or (N, S, d_model) with `batch_first`, or (S, d_model); keeps the shape. Each part is added to
    its input, which is normalised after that, or with `norm_first` the input of the part before. `activation` is
    'relu', 'gelu', a function or a Module. Parts: self_attn, linear1, linear2, norm1, norm2, dropout, dropout1,
    dropout2. Raises ConfigError for settings that make no sense, ShapeError for another shape.
    Sources: Vaswani et al., "Attention is all you need" (2017); for norm_first Xiong et al., "On layer normalization
    in the transformer architecture" (2020).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=32, batch_first=True)
    >>> layer(cr.ones((3, 5, 8)), is_causal=True).shape
    (3, 5, 8)
    """

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The same shape. For masks and cache see MultiheadAttention; with a cache it is causal."""
        x = self._added(as_tensor(src), 1, lambda x: self.self_attn(
            x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal, cache=cache)[0])  # fmt: skip
        return self._added(x, 2, self._feed_forward)

    def make_cache(self, batch_size: int, max_length: int) -> KeyValueCache:
        """An empty cache for up to `max_length` positions."""
        return self.self_attn.make_cache(batch_size, max_length)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to a `memory` (what the encoder has made), and a feed-forward network.

    tgt (T, N, d_model) and memory (S, N, d_model), or with `batch_first` (N, T, d_model) and (N, S, d_model), or both
    without N -> the shape of tgt. Settings as in TransformerEncoderLayer. Parts: self_attn, multihead_attn, linear1,
    linear2, norm1 to norm3, dropout, dropout1 to dropout3. Raises ConfigError and ShapeError.
    Source: Vaswani et al., "Attention is all you need" (2017).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.TransformerDecoderLayer(8, nhead=2, dim_feedforward=32, batch_first=True)
    >>> layer(cr.ones((3, 5, 8)), cr.ones((3, 7, 8)), tgt_is_causal=True).shape
    (3, 5, 8)
    """

    norms = 3
    multihead_attn: MultiheadAttention

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        cache: dict[str, KeyValueCache] | None = None,
    ) -> Tensor:
        """The shape of tgt. With a `cache`, made of the memory by `make_cache`, no memory is given."""
        own = None if cache is None else cache["self"]
        other = None if cache is None else cache["memory"]
        x = self._added(as_tensor(tgt), 1, lambda x: self.self_attn(
            x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal, cache=own)[0])  # fmt: skip
        x = self._added(x, 2, lambda x: self.multihead_attn(
            x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal, cache=other,
        )[0])  # fmt: skip
        return self._added(x, 3, self._feed_forward)

    def make_cache(
        self, memory: Tensor, max_length: int, memory_key_padding_mask: Tensor | None = None
    ) -> dict[str, KeyValueCache]:
        """An empty cache for up to `max_length` positions, and the keys and values of the memory with their mask."""
        rows = self.multihead_attn.memory_cache(memory, memory, memory_key_padding_mask)
        return {"self": self.self_attn.make_cache(rows.keys.shape[0], max_length), "memory": rows}


def _copies(layer: Module, count: int) -> ModuleList:
    """Copies of a layer, each with random generators of its own, lest they drop the same."""
    made = ModuleList([copy.deepcopy(layer) for _ in range(size("A stack of layers", "num_layers", count))])
    for i, part in enumerate(made):
        for found in tree.flatten(part).objects:
            if isinstance(found, Generator):
                found.seed(fold_in(found.key, i))
    return made


def _cached(layer: Module) -> Any:
    """`layer`, if it knows caches."""
    if not hasattr(layer, "make_cache"):
        raise ConfigError(f"{layer.label} has no make_cache, so the stack cannot be run token by token.")
    return layer


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, one after the other, and a `norm` if given.

    src (S, N, d_model), or as the layer takes it; keeps the shape. The copies start with equal weights, as in PyTorch.
    Source: Vaswani et al., "Attention is all you need" (2017).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), num_layers=2)
    >>> encoder(cr.ones((5, 3, 8))).shape
    (5, 3, 8)
    """

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None) -> None:
        self.layers, self.num_layers, self.norm = _copies(encoder_layer, num_layers), num_layers, norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Tensor:
        """The same shape."""
        x = src
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, src_key_padding_mask, bool(is_causal), None if cache is None else cache[i])
        return x if self.norm is None else self.norm(x)

    def make_cache(self, batch_size: int, max_length: int) -> list[KeyValueCache]:
        """A cache for each layer."""
        return [_cached(layer).make_cache(batch_size, max_length) for layer in self.layers]


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, and a `norm` if given.

    tgt (T, N, d_model) and memory (S, N, d_model), or as the layer takes them -> the shape of tgt.
    Source: Vaswani et al., "Attention is all you need" (2017).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 32), num_layers=2)
    >>> decoder(cr.ones((5, 3, 8)), cr.ones((7, 3, 8))).shape
    (5, 3, 8)
    """

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None) -> None:
        self.layers, self.num_layers, self.norm = _copies(decoder_layer, num_layers), num_layers, norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        cache: list[dict[str, KeyValueCache]] | None = None,
    ) -> Tensor:
        """The shape of tgt."""
        x = tgt
        for i, layer in enumerate(self.layers):
            x = layer(
                x, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, bool(tgt_is_causal),
                memory_is_causal, None if cache is None else cache[i],
            )  # fmt: skip
        return x if self.norm is None else self.norm(x)

    def make_cache(
        self, memory: Tensor, max_length: int, memory_key_padding_mask: Tensor | None = None
    ) -> list[dict[str, KeyValueCache]]:
        """A cache for each layer, with its keys and values of the memory, and which of these are padding."""
        return [_cached(layer).make_cache(memory, max_length, memory_key_padding_mask) for layer in self.layers]


class Transformer(Module):
    """An encoder and a decoder that attends to what the encoder has made.

    src (S, N, d_model) and tgt (T, N, d_model), or with `batch_first` (N, S, d_model) and (N, T, d_model), or both
    without N -> the shape of tgt. Weights start uniform by Glorot's rule. Both stacks end with a layer norm;
    `custom_encoder` and `custom_decoder` stand in for them. Raises ShapeError for inputs that do not fit.
    Source: Vaswani et al., "Attention is all you need" (2017).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> model = nn.Transformer(8, nhead=2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=32)
    >>> mask = nn.Transformer.generate_square_subsequent_mask(5)
    >>> model(cr.ones((7, 3, 8)), cr.ones((5, 3, 8)), tgt_mask=mask).shape
    (5, 3, 8)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        settings = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, dtype,
            generator,
        )  # fmt: skip
        norm = (d_model, layer_norm_eps, True, bias, dtype)
        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*settings), num_encoder_layers, LayerNorm(*norm)
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*settings), num_decoder_layers, LayerNorm(*norm)
        )
        self.assign({
            path: init.xavier_uniform(x.shape, generator=generator, dtype=x.dtype)
            for path, x in self.named_parameters() if x.ndim > 1
        })  # fmt: skip
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The shape of tgt."""
        src, tgt = as_tensor(src), as_tensor(tgt)
        rows = 0 if self.batch_first else 1
        fits = src.ndim == tgt.ndim and src.ndim in (2, 3) and (src.shape[-1], tgt.shape[-1]) == (self.d_model,) * 2
        if not fits or (src.ndim == 3 and src.shape[rows] != tgt.shape[rows]):
            form = "(N, L, E)" if self.batch_first else "(L, N, E)"
            raise ShapeError(
                f"{self.label}: src {src.shape} and tgt {tgt.shape} do not fit. Expected {form} for both, or (L, E), "
                f"with E = {self.d_model} and equal N."
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal,
            memory_is_causal,
        )  # fmt: skip

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: Any = dtypes.float32) -> Tensor:
        """−∞ above the diagonal, 0 elsewhere: the mask that hides later positions. -> (sz, sz)"""
        return where(causal_mask(sz, sz), 0.0, -math.inf).astype(dtype)
