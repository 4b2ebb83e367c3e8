"""float16 and bfloat16 in functions of several steps: computed in float32, rounded once at the end."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.primitives.operators import cast_to

P = ParamSpec("P")
R = TypeVar("R")


def rounded_once(f: Callable[P, R]) -> Callable[P, R]:
    """`f` with its float16 and bfloat16 arguments widened to float32, and its result narrowed again.

    The dtype of the result is what the floating-point arguments promote to; only float16 and bfloat16 are narrowed to.
    Without this a softmax in bfloat16 would be rounded after each of its five steps.
    """

    @functools.wraps(f)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [x.dtype for x in (*args, *kwargs.values()) if isinstance(x, (Tensor, np.ndarray))]
        if not any(dtype in dtypes.HALVES for dtype in given):
            return f(*args, **kwargs)
        dtype = dtypes.promote(*[d for d in given if dtypes.is_float(d)])
        wide: Any = f(*[_widened(x) for x in args], **{name: _widened(x) for name, x in kwargs.items()})
        return _narrowed(wide, dtype) if dtype in dtypes.HALVES else wide

    return wrapped


def _widened(x: Any) -> Any:
    is_half = isinstance(x, (Tensor, np.ndarray)) and x.dtype in dtypes.HALVES
    return cast_to(as_tensor(x), dtypes.float32) if is_half else x


def _narrowed(result: Any, dtype: dtypes.DType) -> Any:
    return cast_to(result, dtype) if isinstance(result, Tensor) and dtypes.is_float(result.dtype) else result
