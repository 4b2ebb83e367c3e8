"""Exponentials and logarithms. Integers give float32."""

import math
from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor, full
from chainrule.functions.choice import where
from chainrule.functions.lifting import composed, real
from chainrule.primitives import elementwise as e


def exp(x: Any, /) -> Tensor:
    """e to the power of x.

    >>> import chainrule as cr
    >>> cr.exp(cr.tensor([0.0, float("-inf")])).tolist()
    [1.0, 0.0]
    """
    return e.exp(real("exp", x))


def expm1(x: Any, /) -> Tensor:
    """exp(x) − 1, accurate for tiny x.

    >>> import chainrule as cr
    >>> cr.expm1(cr.tensor(0.0)).item()
    0.0
    """
    return e.expm1(real("expm1", x))


def log(x: Any, /) -> Tensor:
    """The natural logarithm; −inf for 0, NaN for negative numbers.

    >>> import chainrule as cr
    >>> cr.log(cr.tensor([1.0, 0.0])).tolist()
    [0.0, -inf]
    """
    return e.log(real("log", x))


def log1p(x: Any, /) -> Tensor:
    """log(1 + x), accurate for tiny x.

    >>> import chainrule as cr
    >>> cr.log1p(cr.tensor([0.0, -1.0])).tolist()
    [0.0, -inf]
    """
    return e.log1p(real("log1p", x))


def _logarithm(x: Tensor, base: float) -> Tensor:
    """log x / log base, with whole powers of the base split off, so that log10(1000) is 3 and not 2.9999…"""
    plain = e.log(x) / math.log(base)
    whole = e.round(plain)
    rest = e.log(x / e.pow(full(x.shape, base, x.dtype), whole)) / math.log(base)
    largest = float(np.finfo(x.dtype).maxexp) / math.log2(base) - 2  # beyond, the power or its inverse is not exact
    return where(e.abs(whole) <= largest, whole + rest, plain)


_log2 = composed("log2", lambda x: _logarithm(x, 2.0), lambda dy, y, x: (dy / (x * math.log(2)),))
_log10 = composed("log10", lambda x: _logarithm(x, 10.0), lambda dy, y, x: (dy / (x * math.log(10)),))


def log2(x: Any, /) -> Tensor:
    """The logarithm to base 2; −inf for 0, NaN for negative numbers.

    >>> import chainrule as cr
    >>> cr.log2(cr.tensor([8.0, 0.5])).tolist()
    [3.0, -1.0]
    """
    return _log2(x)


def log10(x: Any, /) -> Tensor:
    """The logarithm to base 10; −inf for 0, NaN for negative numbers.

    >>> import chainrule as cr
    >>> cr.log10(cr.tensor([1000.0, 0.1])).tolist()
    [3.0, -1.0]
    """
    return _log10(x)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """a − b, and 0 for two equal infinities."""
    return where((a == b) & (e.abs(a) == np.inf), 0, a - b)


def _logaddexp_rule(dy: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    apart = _difference(a, b)
    return dy * e.sigmoid(apart), dy * e.sigmoid(-apart)


_logaddexp = composed(
    "logaddexp", lambda a, b: e.maximum(a, b) + e.log1p(e.exp(-e.abs(_difference(a, b)))), _logaddexp_rule
)


def logaddexp(a: Any, b: Any, /) -> Tensor:
    """log(exp a + exp b) without overflow: the sum of two numbers given by their logarithms.

    −inf stands for the number 0; two equal infinities give that infinity and share the gradient.

    >>> import chainrule as cr
    >>> cr.logaddexp(cr.tensor([1000.0, float("-inf")]), 0.0).tolist()
    [1000.0, 0.0]
    """
    return _logaddexp(a, b)
