"""What tells attention where a token stands: waves that are added, angles by which it is turned, or distances.

Positions count from `offset` on, a number, or an integer tensor of shape () where it moves on from call to call, as in
generation with a cache. Angles are computed in float64, since position · frequency needs more digits than float32 has.
"""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.functions.axes import reshaped
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import concat, flip
from chainrule.primitives.operators import cast_to

Offset = int | Tensor


def positions(length: int, offset: Offset = 0) -> Tensor:
    """The numbers offset, offset + 1, ... -> int64 (length,)"""
    count = wrap(np.arange(length, dtype=np.int64))
    if isinstance(offset, int):
        return wrap(np.arange(offset, offset + length, dtype=np.int64))
    start = as_tensor(offset)
    if not dtypes.is_integer(start.dtype) or start.shape:
        raise DTypeError(f"An offset is an integer of shape (); got {start.dtype.name} of shape {start.shape}.")
    return count + cast_to(start, dtypes.int64)


def _angles(name: str, length: int, dim: int, offset: Offset, base: float) -> Tensor:
    """position · base^(−2i / dim) -> float64 (length, dim / 2)"""
    if dim < 2 or dim % 2:
        raise ConfigError(f"{name}: waves come in pairs of sine and cosine, so the width must be even; got {dim}.")
    if not base > 0:
        raise ConfigError(f"{name}: base={base} must be positive; 10000 is usual.")
    frequencies = wrap(base ** (-np.arange(0, dim, 2) / dim))
    return reshaped(cast_to(positions(length, offset), dtypes.float64), (length, 1)) * frequencies


def sinusoidal_encoding(
    length: int, dim: int, offset: Offset = 0, base: float = 10000.0, dtype: Any = dtypes.float32
) -> Tensor:
    """Waves that tell positions apart: sin(p · base^(−2i/dim)) in column 2i, the cosine in column 2i + 1.

    -> (length, dim), for the positions p = offset, offset + 1, ... Raises ConfigError for an odd `dim`.
    Source: Vaswani et al., "Attention is all you need" (2017), section 3.5.

    >>> import chainrule as cr
    >>> cr.sinusoidal_encoding(2, 2).tolist()
    [[0.0, 1.0], [0.841..., 0.540...]]
    """
    angles = reshaped(_angles("sinusoidal_encoding", length, dim, offset, base), (length, dim // 2, 1))
    waves = concat(e.sin(angles), e.cos(angles), axis=2)
    return cast_to(reshaped(waves, (length, dim)), dtypes.as_dtype(dtype))


@rounded_once
def rotary_encoding(x: Tensor, offset: Offset = 0, base: float = 10000.0, interleaved: bool = False) -> Tensor:
    """Turns pairs of features by angles that grow with the position: p · base^(−2i/E) for pair i.

    x (..., L, E), queries or keys, keeps its shape. The scalar product of a query and a key then depends on their
    distance alone, beside what they are. Pair i is made of features i and i + E/2 (as in GPT-NeoX and LLaMA), or with
    `interleaved` of 2i and 2i + 1 (as in the paper). Raises ConfigError for an odd E.
    Source: Su et al., "RoFormer: Enhanced transformer with rotary position embedding" (2021), section 3.2.2.

    >>> import chainrule as cr
    >>> cr.rotary_encoding(cr.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.540..., 0.841...]]
    """
    x = real("rotary_encoding", x)
    if x.ndim < 2:
        raise ShapeError(f"rotary_encoding takes positions and features, (..., L, E); got shape {x.shape}.")
    length, dim = x.shape[-2:]
    angles = _angles("rotary_encoding", length, dim, offset, base)
    half = (length, dim // 2, 1) if interleaved else (length, 1, dim // 2)
    pairs = (dim // 2, 2) if interleaved else (2, dim // 2)
    axis = x.ndim if interleaved else x.ndim - 1
    # (a, b) becomes (a cos − b sin, b cos + a sin): the pair times cosines, plus its flip times (−sin, sin).
    signs = wrap(np.array([-1.0, 1.0]).reshape((1, 2) if interleaved else (2, 1)))
    cosines = cast_to(reshaped(e.cos(angles), half), x.dtype)
    sines = cast_to(reshaped(e.sin(angles), half) * signs, x.dtype)
    split = reshaped(x, (*x.shape[:-1], *pairs))
    return reshaped(split * cosines + flip(split, (axis,)) * sines, x.shape)


def alibi(
    num_heads: int, queries: int, keys: int | None = None, offset: Offset = 0, dtype: Any = dtypes.float32
) -> Tensor:
    """Attention with linear biases: −slope · |i − j| for query i and key j, to be added to the scores as a mask.

    -> (num_heads, queries, keys); queries stand at offset, offset + 1, ..., keys at 0, 1, ... (as many as queries, if
    not given). The slopes of n heads, n a power of two, are 2^(−8/n), 2^(−16/n), ...; of another number those of the
    next smaller power, followed by every second one of twice that power. Raises ConfigError without heads.
    Source: Press et al., "Train short, test long: attention with linear biases" (2022).

    >>> import chainrule as cr
    >>> cr.alibi(8, 2)[0].tolist()
    [[-0.0, -0.5], [-0.5, -0.0]]
    """
    if num_heads < 1:
        raise ConfigError(f"alibi: num_heads={num_heads} must be at least 1.")
    dtype = dtypes.as_dtype(dtype)
    steps = reshaped(positions(queries, offset), (queries, 1)) - positions(queries if keys is None else keys)
    slopes = wrap(np.array(_slopes(num_heads)).reshape(-1, 1, 1))
    return cast_to(-slopes * cast_to(e.abs(steps), dtypes.float64), dtype)


def _slopes(heads: int) -> list[float]:
    power = 1 << (heads.bit_length() - 1)
    first = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2.0 ** (-4 * (i + 1) / power) for i in range(0, 2 * power, 2)]
    return first + between[: heads - power]
