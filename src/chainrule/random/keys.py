"""Keys, and the random bits that a key and a count stand for.

The bits are those of Threefry-2x32 with 20 rounds, a block cipher on two words: word i of draw number `count` under
`key` is the first word of the cipher of (i, count mod 2³²) under (key[0] + ⌊count / 2³²⌋, key[1]). So every word can
be computed alone, no two draws of a generator share one, and 2⁶³ draws are there. Negative counts are set aside for
making keys from keys, so that these are no numbers that a draw could have given.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.primitives.elementwise import random_bits
from chainrule.primitives.index import iota
from chainrule.primitives.layout import reshape, slice
from chainrule.primitives.operators import broadcast_to, cast_to

WORD = 2**32


def integer(name: str, what: str, value: Any, low: int, high: int) -> int:
    """`value` as a Python integer in [low, high), or a ConfigError that says what it is for."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}: {what} is an integer; got {value!r:.80}.") from None
    if isinstance(value, bool) or not low <= number < high:
        raise ConfigError(f"{name}: {what} is an integer from {low} to {high - 1}; got {value!r:.80}.")
    return number


def shape_of(name: str, shape: Any) -> Shape:
    """A shape given as an integer or several; ShapeError for what is none, or has more words than a draw."""
    try:
        given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        extents = tuple(operator.index(n) for n in given)
    except TypeError:
        raise ShapeError(f"{name}: a shape is made of integers; got {shape!r:.80}.") from None
    if min(extents, default=0) < 0:
        raise ShapeError(f"{name}: an extent cannot be negative; got shape {extents}.")
    if int(np.prod(extents, dtype=object)) > WORD:
        raise ShapeError(f"{name}: shape {extents} needs more than the 2³² words of one draw; draw in parts.")
    return extents


def key(seed: int) -> Tensor:
    """The key for a seed: its upper and lower 32 bits. -> uint32 (2,)

    Any integer from 0 to 2⁶⁴ − 1 makes a key of its own. Raises ConfigError for another.

    >>> import chainrule as cr
    >>> cr.random.key(7).tolist()
    [0, 7]
    """
    number = integer("key", "a seed", seed, 0, WORD * WORD)
    return wrap(np.array([number // WORD, number % WORD], np.uint32))


def check_key(name: str, key: Any) -> Tensor:
    """`key` as a tensor; DTypeError or ShapeError unless it is uint32 (2,)."""
    key = as_tensor(key)
    if key.dtype != dtypes.uint32 or key.shape != (2,):
        error = DTypeError if key.dtype != dtypes.uint32 else ShapeError
        raise error(
            f"{name}: a key is a tensor of two uint32; got {key!r:.80}. "
            "Make one with chainrule.random.key(seed), or one of many with split(key, n)[i]."
        )
    return key


def bits(key: Tensor, shape: Any, count: int | Tensor = 0) -> Tensor:
    """Random words, uniform over all 2³² values. key (2,) -> uint32 of `shape`

    Another `count` (an integer, or an integer tensor of shape ()) gives other words under the same key.
    Raises DTypeError or ShapeError when `key` is none.

    >>> import chainrule as cr
    >>> cr.random.bits(cr.random.key(0), (2,)).tolist()
    [1797259609, 1351547692]
    """
    key = check_key("bits", key)
    shape = shape_of("bits", shape)
    number = _count(count)
    low = cast_to(number % WORD, dtypes.uint32)
    high = cast_to(number // WORD % WORD, dtypes.uint32)
    word = iota(shape=shape, axis=None, dtype=dtypes.uint32)
    return random_bits(
        word, broadcast_to(low, shape), broadcast_to(_word(key, 0) + high, shape), broadcast_to(_word(key, 1), shape)
    )


def _count(count: int | Tensor) -> Tensor:
    if not isinstance(count, Tensor):
        return full((), integer("bits", "a count", count, -(2**63), 2**63), dtypes.int64)
    if not dtypes.is_integer(count.dtype) or count.shape:
        raise DTypeError(f"bits: a count is one integer; got {count.dtype.name} of shape {count.shape}.")
    return cast_to(count, dtypes.int64)


def _word(key: Tensor, i: int) -> Tensor:
    return reshape(slice(key, start=(i,), stop=(i + 1,), step=(1,)), shape=())


def split(key: Tensor, n: int = 2) -> Tensor:
    """`n` keys made of one, independent of it and of each other. key (2,) -> uint32 (n, 2)

    The first m of split(key, n) are split(key, m).

    >>> import chainrule as cr
    >>> first, second = cr.random.split(cr.random.key(0))
    >>> first.shape
    (2,)
    """
    return bits(key, (integer("split", "the number of keys", n, 0, WORD // 2), 2), count=-1)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """A key made of a key and a number (a step, a layer), another one for each number. key (2,) -> uint32 (2,)

    `data` is an integer from 0 to 2⁶² − 1, or an integer tensor of shape (). Raises ConfigError for another.

    >>> import chainrule as cr
    >>> at_step = [cr.random.fold_in(cr.random.key(0), step) for step in range(3)]
    """
    if not isinstance(data, Tensor):
        data = full((), integer("fold_in", "the number", data, 0, 2**62), dtypes.int64)
    return bits(key, (2,), count=-2 - cast_to(data, dtypes.int64))
