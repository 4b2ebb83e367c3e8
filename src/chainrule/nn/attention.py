"""Multi-head attention."""

from typing import Any, NamedTuple

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.functions.attention import attend
from chainrule.functions.layers import linear
from chainrule.functions.manipulation import broadcast_to, concat
from chainrule.functions.statistics import mean
from chainrule.nn import init
from chainrule.nn.arguments import probability, size
from chainrule.nn.cache import KeyValueCache
from chainrule.nn.linear import Linear
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.primitives.layout import transpose
from chainrule.random import Generator, default_generator


class _Sizes(NamedTuple):
    """What the shapes of the inputs say: rows of the batch, queries, keys; `batched` if there was a batch axis."""

    batch: int
    queries: int
    keys: int
    batched: bool


class MultiheadAttention(Module):
    """Attention by `num_heads` heads side by side, each on `embed_dim` / `num_heads` features of its own.

    query (L, N, embed_dim), key (S, N, kdim), value (S, N, vdim) -> output (L, N, embed_dim) and weights (N, L, S);
    with `batch_first` (N, L, embed_dim) and so on; all may lack the batch axis N.
    Parameters: `in_proj_weight` (3 · embed_dim, embed_dim), or where `kdim` or `vdim` differ from embed_dim
    `q_proj_weight`, `k_proj_weight` and `v_proj_weight`; `in_proj_bias` (3 · embed_dim,); `out_proj`, a Linear; with
    `add_bias_kv` also `bias_k` and `bias_v` (1, 1, embed_dim), a key and value beside those given; `add_zero_attn`
    adds a key and value of zeros. They start as in PyTorch. In training weights are dropped with probability `dropout`.
    `rotary` (our addition), a Module such as RotaryEncoding, turns queries and keys: rotary(x, offset).
    Raises ConfigError for settings, ShapeError and DTypeError for inputs and masks that do not fit.
    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
    >>> x = cr.ones((3, 5, 8))
    >>> y, weights = layer(x, x, x)
    >>> y.shape, weights.shape
    ((3, 5, 8), (3, 5, 5))
    """

    in_proj_weight: Tensor | None
    q_proj_weight: Tensor | None
    k_proj_weight: Tensor | None
    v_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
        rotary: Module | None = None,
    ) -> None:
        name = "MultiheadAttention"
        self.embed_dim = size(name, "embed_dim", embed_dim, least=1)
        self.num_heads = size(name, "num_heads", num_heads, least=1)
        self.kdim = embed_dim if kdim is None else size(name, "kdim", kdim, least=1)
        self.vdim = embed_dim if vdim is None else size(name, "vdim", vdim, least=1)
        self.head_dim = embed_dim // num_heads
        if embed_dim % num_heads:
            raise ConfigError(f"{name}: embed_dim={embed_dim} cannot be divided among num_heads={num_heads} heads.")
        self.dropout = probability(name, "dropout", dropout)
        self.batch_first, self.add_zero_attn = batch_first, add_zero_attn
        packed = self.kdim == self.vdim == embed_dim
        wanted = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if packed else None,
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (embed_dim, self.kdim),
            "v_proj_weight": None if packed else (embed_dim, self.vdim),
        }
        for which, shape in wanted.items():
            drawn = None if shape is None else init.xavier_uniform(shape, generator=generator, dtype=dtype)
            self.register_parameter(which, None if drawn is None else Parameter(drawn))
        zeros = Parameter(init.zeros((3 * embed_dim,), dtype)) if bias else None
        self.register_parameter("in_proj_bias", zeros)
        for which in ("bias_k", "bias_v"):
            drawn = init.xavier_normal((1, 1, embed_dim), generator=generator, dtype=dtype) if add_bias_kv else None
            self.register_parameter(which, None if drawn is None else Parameter(drawn))
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype, generator)
        if bias:
            self.out_proj.bias = Parameter(init.zeros((embed_dim,), dtype))
        self.rotary = rotary
        self.generator = (generator or default_generator()).split()

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The output and, with `need_weights`, the weights: (N, L, S), or (N, heads, L, S) if not averaged.

        In a mask of truth values True means that a key is left out, as in PyTorch (the opposite of
        `scaled_dot_product_attention`); a mask of floats is added to the scores. `key_padding_mask` (N, S);
        `attn_mask` (L, S), (N · heads, L, S), or (heads, L, S). `is_causal` hides later keys, whether or not there is
        an attn_mask (in PyTorch it says that attn_mask does). A query that sees no key gets weights of 0, whether or
        not weights are asked for (in PyTorch NaN if they are).

        With a `cache`, the keys and values are put behind those in it, and each query sees all up to its own; a full
        cache (see `memory_cache`) takes the place of `key` and `value`.
        """
        s, named = self._sizes(query, key, value, cache), (query, key, value)
        projected = [None if x is None else self._heads(x, s) for x in self._projected(named)]
        masks = self._masks(s, attn_mask, key_padding_mask)
        if is_causal and cache is not None and cache.position is None:
            raise ConfigError(f"{self.label}: a full cache does not say where the queries stand; is_causal needs that.")
        q, k, v = projected
        assert q is not None
        q, k = self._turned(q, k, cache)
        if cache is not None:
            if k is not None and v is not None:
                masks.append(cache.append(k, v))
            if cache.mask is not None:
                masks.append(cache.mask)
            k, v = cache.keys, cache.values
        assert k is not None and v is not None
        k, v, masks = self._with_extras(k, v, masks)
        p = self.dropout if self.training else 0.0
        y, weights = attend(q, k, v, masks, p, is_causal and cache is None, generator=self.generator)
        y = self.out_proj(self._merged(y, s))
        if not need_weights:
            return y, None
        shown = mean(weights, axis=1) if average_attn_weights else weights
        return y, shown if s.batched else shown[0]

    def make_cache(self, batch_size: int, max_length: int) -> KeyValueCache:
        """An empty cache for self-attention over up to `max_length` tokens."""
        return KeyValueCache(batch_size, self.num_heads, max_length, self.head_dim, self.out_proj.weight.dtype)

    def memory_cache(self, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None) -> KeyValueCache:
        """A full cache of keys and values that stay the same, such as those of encoded sentences.

        `key_padding_mask` (N, S) as above: it goes with them, row by row, wherever beams lead.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> layer = nn.MultiheadAttention(8, 2)
        >>> memory, token = cr.ones((5, 3, 8)), cr.ones((1, 3, 8))
        >>> y, _ = layer(token, cache=layer.memory_cache(memory, memory))
        >>> bool((y == layer(token, memory, memory)[0]).all())
        True
        """
        s = self._sizes(key, key, value, None, features=self.kdim)
        _, k, v = self._projected((None, key, value))
        assert k is not None and v is not None
        mask = self._masks(s, None, key_padding_mask)
        return KeyValueCache.of(self._heads(k, s), self._heads(v, s), mask[0] if mask else None)

    # -- shapes

    def _sizes(self, query: Any, key: Any, value: Any, cache: Any, features: int | None = None) -> _Sizes:
        """What the inputs are like; ShapeError where they do not fit."""
        widths = (self.embed_dim if features is None else features, self.kdim, self.vdim)
        q, k, v = (None if x is None else as_tensor(x) for x in (query, key, value))
        if cache is not None and (self.bias_k is not None or self.add_zero_attn):
            raise ConfigError(f"{self.label}: a cache has no place for what add_bias_kv and add_zero_attn add.")
        if (k is None) != (v is None) or (k is None) != (cache is not None and cache.position is None):
            raise ConfigError(
                f"{self.label} takes key and value both, unless a full cache (memory_cache) stands for them."
            )
        given = [x for x in (q, k, v) if x is not None]
        shapes = ", ".join(str(x.shape) for x in given)
        batch_axis = 0 if self.batch_first else 1
        fits = all(
            x is None or (x.ndim in (2, 3) and x.ndim == given[0].ndim and x.shape[-1] == w)
            for x, w in zip((q, k, v), widths, strict=True)
        )
        batched = given[0].ndim == 3
        if fits and batched:
            fits = len({x.shape[batch_axis] for x in given}) == 1
        if not fits or (k is not None and v is not None and k.shape[:-1] != v.shape[:-1]):
            raise ShapeError(
                f"{self.label}: shapes {shapes} do not fit. Expected {'(N, L, E)' if self.batch_first else '(L, N, E)'}"
                f" for each, or (L, E), with E = {widths[0]}, {widths[1]} and {widths[2]} for query, key and value; "
                "key and value equally long."
            )
        time_axis = 1 - batch_axis if batched else 0
        batch = given[0].shape[batch_axis] if batched else 1
        keys = cache.max_length if cache is not None else given[-1].shape[time_axis]
        return _Sizes(batch, given[0].shape[time_axis], keys, batched)

    def _heads(self, x: Tensor, s: _Sizes) -> Tensor:
        """(N, L, E) or (L, N, E) or (L, E) -> (N, heads, L, head_dim)"""
        batch_first = self.batch_first or not s.batched
        lead = x.shape[:-1] if s.batched else (1, x.shape[0])
        split = x.reshape((*lead, self.num_heads, self.head_dim))
        return transpose(split, axes=(0, 2, 1, 3) if batch_first else (1, 2, 0, 3))

    def _merged(self, y: Tensor, s: _Sizes) -> Tensor:
        """(N, heads, L, head_dim) -> (N, L, E) or (L, N, E) or (L, E)"""
        y = transpose(y, axes=(0, 2, 1, 3) if self.batch_first or not s.batched else (2, 0, 1, 3))
        return y.reshape((*y.shape[:2], self.embed_dim) if s.batched else (s.queries, self.embed_dim))

    # -- parts of the computation

    def _projected(self, inputs: tuple[Any, Any, Any]) -> list[Tensor | None]:
        """Queries, keys and values (..., embed_dim). What is one tensor goes through one product."""
        n, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            return [
                None if x is None or w is None else linear(x, w, _rows(bias, n, i, i + 1))
                for i, (x, w) in enumerate(zip(inputs, weights, strict=True))
            ]
        result: list[Tensor | None] = []
        while len(result) < 3:
            first, x = len(result), inputs[len(result)]
            last = first + 1
            while last < 3 and inputs[last] is x:
                last += 1
            if x is None:
                result += [None] * (last - first)
                continue
            y = linear(x, weight[first * n : last * n], _rows(bias, n, first, last))
            result += [y if last - first == 1 else y[..., i * n : (i + 1) * n] for i in range(last - first)]
        return result

    def _turned(self, q: Tensor, k: Tensor | None, cache: KeyValueCache | None) -> tuple[Tensor, Tensor | None]:
        if self.rotary is None:
            return q, k
        offset = 0 if cache is None else cache.offset
        return self.rotary(q, offset), None if k is None else self.rotary(k, offset)

    def _masks(self, s: _Sizes, attn_mask: Any, key_padding_mask: Any) -> list[Tensor]:
        """Both masks as `attend` takes them: stretching to (N, heads, L, S), True where a key takes part."""
        masks = []
        if attn_mask is not None:
            mask = as_tensor(attn_mask)
            fitting = {
                (s.queries, s.keys): (1, 1),
                (s.batch * self.num_heads, s.queries, s.keys): (s.batch, self.num_heads),
                (self.num_heads, s.queries, s.keys): (1, self.num_heads),
            }
            masks.append(self._mask("attn_mask", mask, fitting).reshape((*fitting[mask.shape], s.queries, s.keys)))
        if key_padding_mask is not None:
            mask = as_tensor(key_padding_mask)
            fitting = {(s.batch, s.keys): (s.batch, 1)} if s.batched else {(s.keys,): (1, 1)}
            mask = self._mask("key_padding_mask", mask, fitting)
            masks.append(mask.reshape((s.batch, 1, 1, s.keys)))
        return masks

    def _mask(self, name: str, mask: Tensor, fitting: dict[Any, Any]) -> Tensor:
        if mask.shape not in fitting:
            expected = " or ".join(map(str, fitting))
            raise ShapeError(f"{self.label}: {name} has shape {mask.shape}; expected {expected}.")
        if mask.dtype == dtypes.bool_:
            return ~mask
        if not dtypes.is_float(mask.dtype):
            raise DTypeError(
                f"{self.label}: {name} is of truth values (True: left out) or of floats, which are added to the "
                f"scores; got {mask.dtype.name}."
            )
        return mask

    def _with_extras(self, k: Tensor, v: Tensor, masks: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The keys and values of add_bias_kv and add_zero_attn behind the others; no mask hides them."""
        shape = (k.shape[0], self.num_heads, 1, self.head_dim)
        extras = []
        if self.bias_k is not None and self.bias_v is not None:
            biases = [b.reshape((1, self.num_heads, 1, self.head_dim)) for b in (self.bias_k, self.bias_v)]
            extras.append([broadcast_to(b, shape) for b in biases])
        if self.add_zero_attn:
            extras.append([full(shape, 0, k.dtype)] * 2)
        for more_k, more_v in extras:
            k, v = concat([k, more_k], axis=2), concat([v, more_v], axis=2)
        if extras:
            masks = [concat([m, _seen((*m.shape[:-1], len(extras)), m.dtype)], axis=-1) for m in masks]
        return k, v, masks

    def extra_repr(self) -> str:
        """The settings."""
        return f"{super().extra_repr()}, bias={self.in_proj_bias is not None}"


def _rows(x: Tensor | None, n: int, first: int, last: int) -> Tensor | None:
    """The parts `first` to `last` of a bias for queries, keys and values."""
    return None if x is None else x[first * n : last * n]


def _seen(shape: tuple[int, ...], dtype: dtypes.DType) -> Tensor:
    """A mask that hides nothing."""
    return full(shape, dtype == dtypes.bool_, dtype)
