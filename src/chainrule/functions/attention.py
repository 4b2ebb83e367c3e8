"""Attention: each query takes a mean of values, weighted by how well their keys fit it.

Everything is made of two products and what stands between them, row by row: scale, masks, softmax, dropout. Nothing
is materialised twice, so that an engine may do the part in between while the scores are in its registers or caches.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import DTypeError, ShapeError
from chainrule.functions.axes import reshaped
from chainrule.functions.choice import where
from chainrule.functions.custom import custom_vjp
from chainrule.functions.layers import dropout
from chainrule.functions.lifting import real
from chainrule.primitives import elementwise as e
from chainrule.primitives import reduce
from chainrule.primitives.layout import sum
from chainrule.primitives.operators import cast_to, matmul, maximum
from chainrule.random import Generator


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | Tensor | None = None,
) -> Tensor:
    """softmax(query · keyᵀ · scale + mask) · value, with `scale` 1/√E unless given.

    query (..., L, E), key (..., S, E), value (..., S, V) -> (..., L, V); the axes before broadcast.
    `attn_mask` stretches to (..., L, S): truth values (True: this key takes part) or numbers that are added to the
    scores. `is_causal` lets query i see the keys 0 to i; PyTorch takes it or a mask, here both may be given. A query
    that sees no key at all gets 0, and a gradient of 0, as in PyTorch. With `enable_gqa` the heads (axis −3) of key
    and value are fewer, and each serves a group of neighbouring heads of the query. `dropout_p` acts whenever it is
    not 0 and needs a `generator` (see chainrule.dropout). float16 and bfloat16 are computed in float32.
    Raises ShapeError when shapes do not fit, DTypeError for a mask of integers.
    Sources: Vaswani et al., "Attention is all you need" (2017), section 3.2.1; Ainslie et al., "GQA: Training
    generalized multi-query Transformer models" (2023).

    >>> import chainrule as cr
    >>> x = cr.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> cr.scaled_dot_product_attention(x, x, cr.tensor([[10.0], [20.0]]), is_causal=True).tolist()
    [[10.0], [16.69...]]
    """
    masks = [] if attn_mask is None else [as_tensor(attn_mask)]
    return attend(query, key, value, masks, dropout_p, is_causal, scale, enable_gqa, generator)[0]


def attend(
    query: Any,
    key: Any,
    value: Any,
    masks: Sequence[Tensor] = (),
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    generator: Generator | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `scaled_dot_product_attention` returns, and the weights (..., L, S). All `masks` apply."""
    name = "scaled_dot_product_attention"
    q, k, v = (real(name, x) for x in (query, key, value))
    _check(name, q, k, v, enable_gqa)
    dtype = dtypes.promote(q.dtype, k.dtype, v.dtype)
    wide = dtypes.float32 if dtype in dtypes.HALVES else dtype
    q, k, v = (cast_to(x, wide) for x in (q, k, v))
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None and q.shape[-1] else scale
    lead, groups = q.shape[:-1], q.shape
    if enable_gqa:  # the queries of a group are rows of one product, so that no key has to be repeated
        groups = (*q.shape[:-3], k.shape[-3], q.shape[-3] // max(1, k.shape[-3]) * q.shape[-2], q.shape[-1])
    scores = matmul(reshaped(q, groups), k.mT)  # (..., L, S)
    if enable_gqa:
        scores = reshaped(scores, (*scores.shape[:-3], *lead[-2:], k.shape[-2]))
    scores = scores if factor in (None, 1) else scores * factor
    weights = _weights(_masked(name, scores, masks, is_causal))
    weights = dropout(weights, dropout_p, generator=generator)
    if enable_gqa:
        y = matmul(reshaped(weights, (*weights.shape[:-3], *groups[-3:-1], k.shape[-2])), v)
        y = reshaped(y, (*y.shape[:-3], *lead[-2:], v.shape[-1]))
    else:
        y = matmul(weights, v)
    return cast_to(y, dtype), cast_to(weights, dtype)


def _check(name: str, q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> None:
    shapes = f"query {q.shape}, key {k.shape} and value {v.shape}"
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"{name}: {shapes} do not fit. Expected (..., L, E), (..., S, E) and (..., S, V): query and key agree in "
            "the last extent, key and value in the last but one."
        )
    if enable_gqa:
        enough = min(q.ndim, k.ndim, v.ndim) >= 3
        if not enough or k.shape[-3] != v.shape[-3] or not k.shape[-3] or q.shape[-3] % k.shape[-3]:
            raise ShapeError(
                f"{name}: {shapes} do not fit with enable_gqa. The heads of key and value (axis -3) are equally many, "
                "and divide those of the query."
            )


def _masked(name: str, scores: Tensor, masks: Sequence[Tensor], is_causal: bool) -> Tensor:
    """−∞ for the keys that a query does not see."""
    if is_causal:
        scores = where(causal_mask(*scores.shape[-2:]), scores, -math.inf)
    for mask in masks:
        extents = zip(reversed(mask.shape), reversed(scores.shape), strict=False)
        if mask.ndim > scores.ndim or any(n not in (1, m) for n, m in extents):
            raise ShapeError(f"{name}: a mask of shape {mask.shape} does not stretch to the scores, {scores.shape}.")
        if mask.dtype == dtypes.bool_:
            scores = where(mask, scores, -math.inf)
        elif dtypes.is_float(mask.dtype):
            scores = scores + cast_to(mask, scores.dtype)
        else:
            raise DTypeError(
                f"{name}: a mask is of truth values (True: this key takes part) or of floats, which are added to the "
                f"scores; got {mask.dtype.name}. Convert it: mask != 0."
            )
    return scores


def causal_mask(queries: int, keys: int) -> Tensor:
    """True where a query stands at or behind a key. -> bool (queries, keys)"""
    return wrap(np.tri(queries, keys, dtype=np.bool_))


def _weights(scores: Tensor) -> Tensor:
    """Softmax along the last axis, but 0 where all of a row is −∞, or nothing is there."""
    return _softmax(scores) if scores.shape[-1] else scores


def _softmax_forward(x: Tensor) -> Tensor:
    # Where nothing is seen the largest score is −∞. Replaced by the least finite number it leaves powers of 0, not
    # −∞ − (−∞). Any other row has a sum of at least 1, which is its largest power.
    last = (x.ndim - 1,)
    largest = maximum(reduce.max(x, axes=last), float(np.finfo(x.dtype).min))
    powers = e.exp(x - largest)
    return powers / maximum(sum(powers, axes=last), 1.0)


def _softmax_rule(dy: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor]:
    return (y * (dy - sum(dy * y, axes=(y.ndim - 1,))),)


_softmax = custom_vjp(_softmax_forward, _softmax_rule)
