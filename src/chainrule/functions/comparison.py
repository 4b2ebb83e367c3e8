"""Elementwise comparisons, tests, logic and bits. None of them has a gradient."""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Primitive
from chainrule.core.tensor import Tensor, full
from chainrule.errors import DTypeError
from chainrule.primitives import elementwise as e
from chainrule.primitives import operators
from chainrule.primitives.operators import lift


def equal(a: Any, b: Any, /) -> Tensor:
    """Whether a = b; NaN equals nothing.

    >>> import chainrule as cr
    >>> cr.equal(cr.tensor([1, 2]), 2).tolist()
    [False, True]
    """
    return operators.equal(a, b)


def not_equal(a: Any, b: Any, /) -> Tensor:
    """Whether a ≠ b; true for NaN.

    >>> import chainrule as cr
    >>> cr.not_equal(cr.tensor([1, 2]), 2).tolist()
    [True, False]
    """
    return operators.not_equal(a, b)


def less(a: Any, b: Any, /) -> Tensor:
    """Whether a < b; false for NaN.

    >>> import chainrule as cr
    >>> cr.less(cr.tensor([1, 2, 3]), 2).tolist()
    [True, False, False]
    """
    return operators.less(a, b)


def less_equal(a: Any, b: Any, /) -> Tensor:
    """Whether a ≤ b; false for NaN.

    >>> import chainrule as cr
    >>> cr.less_equal(cr.tensor([1, 2, 3]), 2).tolist()
    [True, True, False]
    """
    return operators.less_equal(a, b)


def greater(a: Any, b: Any, /) -> Tensor:
    """Whether a > b; false for NaN.

    >>> import chainrule as cr
    >>> cr.greater(cr.tensor([1, 2, 3]), 2).tolist()
    [False, False, True]
    """
    return operators.greater(a, b)


def greater_equal(a: Any, b: Any, /) -> Tensor:
    """Whether a ≥ b; false for NaN.

    >>> import chainrule as cr
    >>> cr.greater_equal(cr.tensor([1, 2, 3]), 2).tolist()
    [False, True, True]
    """
    return operators.greater_equal(a, b)


def isnan(x: Any, /) -> Tensor:
    """Whether x is not a number.

    >>> import chainrule as cr
    >>> cr.isnan(cr.tensor([1.0, float("nan")])).tolist()
    [False, True]
    """
    return operators.not_equal(x, x)


def isinf(x: Any, /) -> Tensor:
    """Whether x is inf or −inf.

    >>> import chainrule as cr
    >>> cr.isinf(cr.tensor([1.0, float("-inf")])).tolist()
    [False, True]
    """
    x = as_tensor(x)
    return e.abs(x) == np.inf if dtypes.is_float(x.dtype) else full(x.shape, False, dtypes.bool_)


def isfinite(x: Any, /) -> Tensor:
    """Whether x is neither infinite nor NaN.

    >>> import chainrule as cr
    >>> cr.isfinite(cr.tensor([1.0, float("-inf"), float("nan")])).tolist()
    [True, False, False]
    """
    x = as_tensor(x)
    return e.abs(x) < np.inf if dtypes.is_float(x.dtype) else full(x.shape, True, dtypes.bool_)


def signbit(x: Any, /) -> Tensor:
    """Whether the sign of x is negative, that of −0.0 and NaN included.

    >>> import chainrule as cr
    >>> cr.signbit(cr.tensor([-1.0, -0.0, 0.0])).tolist()
    [True, True, False]
    """
    x = as_tensor(x)
    return e.copysign(full(x.shape, 1, x.dtype), x) < 0 if dtypes.is_float(x.dtype) else x < 0


def truth(x: Any) -> Tensor:
    """`x` as truth values: numbers are true unless they are 0 (NaN is true)."""
    x = as_tensor(x)
    return x if x.dtype == dtypes.bool_ else x != 0


def _logical(name: str, primitive: Primitive, *values: Any) -> Tensor:
    return primitive(*lift(name, tuple(truth(x) for x in values)))


def logical_and(a: Any, b: Any, /) -> Tensor:
    """Whether both are true. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.logical_and(cr.tensor([True, False]), True).tolist()
    [True, False]
    """
    return _logical("logical_and", e.bit_and, a, b)


def logical_or(a: Any, b: Any, /) -> Tensor:
    """Whether at least one is true. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.logical_or(cr.tensor([True, False]), False).tolist()
    [True, False]
    """
    return _logical("logical_or", e.bit_or, a, b)


def logical_xor(a: Any, b: Any, /) -> Tensor:
    """Whether exactly one is true. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.logical_xor(cr.tensor([True, False]), True).tolist()
    [False, True]
    """
    return _logical("logical_xor", e.bit_xor, a, b)


def logical_not(x: Any, /) -> Tensor:
    """Whether x is false. Numbers are true unless they are 0.

    >>> import chainrule as cr
    >>> cr.logical_not(cr.tensor([True, False])).tolist()
    [False, True]
    """
    return _logical("logical_not", e.bit_not, x)


def _bits(name: str, primitive: Primitive, *values: Any, truth_values: bool = True) -> Tensor:
    tensors = lift(name, values)
    dtype = tensors[0].dtype
    if not dtypes.is_integer(dtype) and not (truth_values and dtype == dtypes.bool_):
        allowed = "integers or truth values" if truth_values else "integers"
        raise DTypeError(f"{name} takes {allowed}; got {dtype.name}.")
    return primitive(*tensors)


def bitwise_and(a: Any, b: Any, /) -> Tensor:
    """The bits that are set in both. Integers or truth values (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_and(cr.tensor([6, 7]), 3).tolist()
    [2, 3]
    """
    return _bits("bitwise_and", e.bit_and, a, b)


def bitwise_or(a: Any, b: Any, /) -> Tensor:
    """The bits that are set in at least one. Integers or truth values (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_or(cr.tensor([4, 5]), 3).tolist()
    [7, 7]
    """
    return _bits("bitwise_or", e.bit_or, a, b)


def bitwise_xor(a: Any, b: Any, /) -> Tensor:
    """The bits that are set in exactly one. Integers or truth values (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_xor(cr.tensor([4, 5]), 1).tolist()
    [5, 4]
    """
    return _bits("bitwise_xor", e.bit_xor, a, b)


def bitwise_invert(x: Any, /) -> Tensor:
    """Every bit turned over. Integers or truth values (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_invert(cr.tensor([0, 5])).tolist()
    [-1, -6]
    """
    return _bits("bitwise_invert", e.bit_not, x)


def bitwise_left_shift(a: Any, b: Any, /) -> Tensor:
    """`a` with its bits moved up by `b` places, from 0 to the width of the dtype − 1. Integers (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_left_shift(cr.tensor([1, 3]), 4).tolist()
    [16, 48]
    """
    return _bits("bitwise_left_shift", e.shift_left, a, b, truth_values=False)


def bitwise_right_shift(a: Any, b: Any, /) -> Tensor:
    """`a` with its bits moved down by `b` places; the sign is kept. Integers (else DTypeError).

    >>> import chainrule as cr
    >>> cr.bitwise_right_shift(cr.tensor([16, -16]), 2).tolist()
    [4, -4]
    """
    return _bits("bitwise_right_shift", e.shift_right, a, b, truth_values=False)
