"""Distributions: functions of a key and a count that turn random words into random numbers.

All take `count`, as `bits` does: another count gives other numbers under the same key. Numbers drawn under one key and
count are the same each time, and draws of different distributions under one key and count are not independent: they
are made of the same words. Split the key, or use a Generator.
"""

import math
import operator
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.primitives import elementwise as e
from chainrule.primitives import reduce
from chainrule.primitives.index import argsort, take
from chainrule.primitives.layout import reshape, slice
from chainrule.primitives.operators import broadcast_to, cast_to, maximum, minimum
from chainrule.random.keys import WORD, bits, integer, shape_of

PRECISION = {dtypes.bfloat16: 8, dtypes.float16: 11, dtypes.float32: 24}  # bits of the significand
SMALLEST_MASS = 1e-9  # of the normal distribution between the limits of a truncated one


def uniform(
    key: Tensor,
    shape: Any = (),
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = dtypes.float32,
    count: int | Tensor = 0,
) -> Tensor:
    """Uniform numbers in [low, high), `high` excluded. key (2,) -> `shape`

    In [0, 1) they are multiples of 2⁻²⁴ in float32 and of 2⁻⁵³ in float64, each equally likely. Raises DTypeError for a
    dtype that is no float, ConfigError unless low < high.

    >>> import chainrule as cr
    >>> cr.random.uniform(cr.random.key(0), (2,)).tolist()
    [0.418..., 0.314...]
    """
    dtype, shape = _float("uniform", dtype), shape_of("uniform", shape)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"uniform: low={low} must be less than high={high}, and both finite.")
    if dtype == dtypes.float64:
        unit = _double(*_words(key, 2, shape, count))
    else:
        taken = PRECISION[dtype]
        unit = cast_to(bits(key, shape, count) >> (32 - taken), dtype) * 2.0**-taken
    if (low, high) == (0.0, 1.0):
        return unit
    last = float(np.nextafter(dtype.type(high), dtype.type(low)))  # rounding must not reach `high`
    return minimum(low + (high - low) * unit, last)


def normal(
    key: Tensor,
    shape: Any = (),
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = dtypes.float32,
    count: int | Tensor = 0,
) -> Tensor:
    """Normally distributed numbers. key (2,) -> `shape`

    By the transform of Box and Muller, "A note on the generation of random normal deviates" (1958): √(−2 log u)
    cos(2πv). They reach 6.6 standard deviations in float32 and 8.5 in float64. Raises DTypeError for a dtype that is
    no float, ConfigError for a negative `std`.

    >>> import chainrule as cr
    >>> cr.random.normal(cr.random.key(0), (100, 100)).shape
    (100, 100)
    """
    dtype, shape = _float("normal", dtype), shape_of("normal", shape)
    if not std >= 0:
        raise ConfigError(f"normal: std={std} is a standard deviation and cannot be negative.")
    if dtype == dtypes.float64:
        words = _words(key, 4, shape, count)
        u, v = 1 - _double(words[0], words[1]), _double(words[2], words[3])
    else:
        first, second = _words(key, 2, shape, count)
        u = (cast_to(first, dtypes.float32) + 1) * 2.0**-32  # all 32 bits, for the sake of the tail
        v = cast_to(second >> 8, dtypes.float32) * 2.0**-24
    z = e.sqrt(-2 * e.log(u)) * e.cos(2 * math.pi * v)
    return cast_to(z if (mean, std) == (0.0, 1.0) else mean + std * z, dtype)


def truncated_normal(
    key: Tensor,
    shape: Any = (),
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: Any = dtypes.float32,
    count: int | Tensor = 0,
) -> Tensor:
    """Normally distributed numbers, given that they lie between `low` and `high`. key (2,) -> `shape`

    `low` and `high` are values, not multiples of `std`, as in PyTorch's trunc_normal_. The inverse of the distribution
    function is taken of uniform numbers, in float64. Raises DTypeError for a dtype that is no float, ConfigError unless
    std > 0 and at least 1e-9 of the distribution lies between the limits.

    >>> import chainrule as cr
    >>> x = cr.random.truncated_normal(cr.random.key(0), (1000,), std=3.0)
    >>> bool((abs(x) <= 2.0).numpy().all())
    True
    """
    dtype, shape = _float("truncated_normal", dtype), shape_of("truncated_normal", shape)
    if not std > 0:
        raise ConfigError(f"truncated_normal: std={std} must be positive.")
    below, above = (0.5 * (1 + math.erf((limit - mean) / std * math.sqrt(0.5))) for limit in (low, high))
    if not above - below >= SMALLEST_MASS:
        raise ConfigError(
            f"truncated_normal: between low={low} and high={high} lies less than {SMALLEST_MASS} of the normal "
            f"distribution with mean {mean} and standard deviation {std}."
        )
    z = _normal_quantile(below + (above - below) * _double(*_words(key, 2, shape, count)))
    return cast_to(maximum(minimum(mean + std * z, high), low), dtype)


def _normal_quantile(p: Tensor) -> Tensor:
    """z with Φ(z) = p, in float64: Abramowitz and Stegun 26.2.23 (within 4.5e-4), then two steps of Newton's method."""
    upper = p > 0.5
    tail = maximum(e.where(upper, 1 - p, p), 1e-300)
    t = e.sqrt(-2 * e.log(tail))
    z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    z = e.where(upper, z, -z)
    for _ in range(2):
        error = 0.5 * (1 + e.erf(z * math.sqrt(0.5))) - p
        z = z - error * math.sqrt(2 * math.pi) * e.exp(0.5 * (z * z))
    return z


def bernoulli(key: Tensor, p: float | Tensor = 0.5, shape: Any = None, count: int | Tensor = 0) -> Tensor:
    """True with probability `p`, to within 2⁻³². key (2,), `p` stretching to `shape` -> bool of `shape`

    Without a `shape` it is that of `p`.
    Raises ConfigError for a probability outside [0, 1] (a tensor is checked where its value is known).

    >>> import chainrule as cr
    >>> cr.random.bernoulli(cr.random.key(0), 0.5, (4,)).tolist()
    [True, True, True, False]
    """
    given = as_tensor(p)
    known = given.value
    if known is not None and not np.all((known >= 0) & (known <= 1)):
        raise ConfigError(f"bernoulli: a probability lies between 0 and 1; got {p!r:.80}.")
    shape = given.shape if shape is None else shape_of("bernoulli", shape)
    words = bits(key, shape, count)
    if not isinstance(p, (int, float)):
        limits = broadcast_to(cast_to(given, dtypes.float64) * WORD, shape)
        return cast_to(words, dtypes.float64) < limits
    limit = round(p * WORD)
    return full(shape, True, dtypes.bool_) if limit == WORD else e.less(words, full(shape, limit, dtypes.uint32))


def randint(
    key: Tensor, low: int, high: int, shape: Any = (), dtype: Any = dtypes.int64, count: int | Tensor = 0
) -> Tensor:
    """Uniform integers in [low, high), `high` excluded. key (2,) -> `shape`

    Each is the remainder of a number of 63 bits, so the odds differ by less than one in 2³¹. Raises DTypeError for a
    dtype that is no integer, ConfigError unless low < high ≤ low + 2³² and both fit into the dtype.

    >>> import chainrule as cr
    >>> cr.random.randint(cr.random.key(0), 1, 7, (3,)).shape
    (3,)
    """
    dtype = dtypes.as_dtype(dtype)
    if not dtypes.is_integer(dtype):
        raise DTypeError(f"randint draws integers; got dtype {dtype.name}.")
    info = np.iinfo(dtype)
    low = integer("randint", "low", low, info.min, info.max + 1)
    high = integer("randint", "high", high, info.min, info.max + 2)
    if not low < high <= low + WORD:
        raise ConfigError(f"randint: low={low} must be less than high={high}, and by at most 2³².")
    number = _long(key, shape_of("randint", shape), count)
    return cast_to(number % (high - low) + low, dtype)


def permutation(key: Tensor, x: int | Tensor, count: int | Tensor = 0) -> Tensor:
    """The numbers 0 to x − 1 in random order, or the rows of a tensor in random order. key (2,) -> int64 (x,) or as `x`

    Raises ShapeError for a tensor without axes, ConfigError for a negative number.

    >>> import chainrule as cr
    >>> sorted(cr.random.permutation(cr.random.key(0), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    n = _rows("permutation", x)
    order = argsort(_long(key, (n,), count), axis=0, descending=False)
    return take(x, order) if isinstance(x, Tensor) else order


def categorical(key: Tensor, logits: Tensor, shape: Any = (), count: int | Tensor = 0) -> Tensor:
    """Class indices with probabilities softmax(logits). key (2,), logits (..., classes) -> int64 (*shape, ...)

    The largest of logits plus Gumbel noise: Gumbel, Statistical theory of extreme values (1954). Raises DTypeError for
    logits that are no floats, ShapeError for logits without classes.

    >>> import chainrule as cr
    >>> cr.random.categorical(cr.random.key(0), cr.tensor([-float("inf"), 0.0]), (3,)).tolist()
    [1, 1, 1]
    """
    logits = as_tensor(logits)
    if not dtypes.is_float(logits.dtype):
        raise DTypeError(f"categorical: logits are floats; got {logits.dtype.name}.")
    if not logits.ndim or not logits.shape[-1]:
        raise ShapeError(f"categorical: logits have the classes on their last axis; got shape {logits.shape}.")
    full_shape = (*shape_of("categorical", shape), *logits.shape)
    scores = broadcast_to(cast_to(logits, dtypes.float64), full_shape) + _gumbel(key, full_shape, count)
    return reshape(reduce.argmax(scores, axes=(len(full_shape) - 1,)), shape=full_shape[:-1])


def choice(
    key: Tensor, a: int | Tensor, shape: Any = (), replace: bool = True, p: Any = None, count: int | Tensor = 0
) -> Tensor:
    """Elements of 0 to a − 1, or rows of the tensor `a`, at random. key (2,) -> int64 of `shape`, or (*shape, *row)

    `p` (rows,) gives their probabilities, equal ones if None; without `replace` none is chosen twice.
    Raises ConfigError when `p` is not a distribution, or more are to be chosen than there are.

    >>> import chainrule as cr
    >>> len(set(cr.random.choice(cr.random.key(0), 10, (10,), replace=False).tolist()))
    10
    """
    n, shape = _rows("choice", a), shape_of("choice", shape)
    wanted = math.prod(shape)
    log_p = None if p is None else e.log(_probabilities(p, n))
    if n == 0 or (not replace and wanted > n):
        raise ConfigError(
            f"choice: {wanted} are to be chosen from {n} without repetition." if n else "choice: from nothing."
        )
    if replace:
        index = randint(key, 0, n, shape, count=count) if log_p is None else categorical(key, log_p, shape, count)
    else:
        scores = _long(key, (n,), count) if log_p is None else log_p + _gumbel(key, (n,), count)
        order = argsort(scores, axis=0, descending=True)
        index = reshape(slice(order, start=(0,), stop=(wanted,), step=(1,)), shape=shape)
    return take(a, index) if isinstance(a, Tensor) else index


# -- words to numbers


def _float(name: str, dtype: Any) -> dtypes.DType:
    dtype = dtypes.as_dtype(dtype)
    if not dtypes.is_float(dtype):
        raise DTypeError(f"{name} draws floating-point numbers; got dtype {dtype.name}. For integers use randint.")
    return dtype


def _words(key: Tensor, n: int, shape: Shape, count: int | Tensor) -> list[Tensor]:
    """`n` words for each element, as n tensors."""
    words = bits(key, (n, *shape), count)
    rest = (0,) * len(shape), shape, (1,) * len(shape)
    parts = [slice(words, start=(i, *rest[0]), stop=(i + 1, *rest[1]), step=(1, *rest[2])) for i in range(n)]
    return [reshape(part, shape=shape) for part in parts]


def _double(high: Tensor, low: Tensor) -> Tensor:
    """53 bits of two words as a float64 in [0, 1)."""
    return (cast_to(high >> 5, dtypes.float64) * 2.0**26 + cast_to(low >> 6, dtypes.float64)) * 2.0**-53


def _long(key: Tensor, shape: Shape, count: int | Tensor) -> Tensor:
    """63 bits of two words as an int64 that is not negative."""
    high, low = _words(key, 2, shape, count)
    return (cast_to(high, dtypes.int64) << 31) | cast_to(low >> 1, dtypes.int64)


def _gumbel(key: Tensor, shape: Shape, count: int | Tensor) -> Tensor:
    """−log(−log u) in float64; u = 0 gives −∞, which is never chosen."""
    return -e.log(-e.log(_double(*_words(key, 2, shape, count))))


def _rows(name: str, x: int | Tensor) -> int:
    if not isinstance(x, Tensor):
        return integer(name, "the number of elements", x, 0, WORD // 2)
    if not x.ndim:
        raise ShapeError(f"{name}: a tensor without axes has no rows. For the numbers below n give an integer.")
    return operator.index(x.shape[0])


def _probabilities(p: Any, n: int) -> Tensor:
    p = cast_to(as_tensor(p), dtypes.float64)
    if p.shape != (n,):
        raise ConfigError(f"choice: p has shape {p.shape}; expected {(n,)}, a probability for each.")
    if p.value is not None and not ((p.value >= 0).all() and abs(float(p.value.sum()) - 1) < 1e-6):
        raise ConfigError("choice: p must be probabilities: none negative, and together 1.")
    return p
