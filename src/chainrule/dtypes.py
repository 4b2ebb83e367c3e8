"""The dtypes, and how two of them promote.

| with    | bool | uint8 | uint32 | int32 | int64 | float16 | bfloat16 | float32 | float64 |
|---------|------|-------|--------|-------|-------|---------|----------|---------|---------|
| bool    | bool | uint8 | uint32 | int32 | int64 | float16 | bfloat16 | float32 | float64 |
| uint8   |      | uint8 | uint32 | int32 | int64 | float16 | bfloat16 | float32 | float64 |
| uint32  |      |       | uint32 | int64 | int64 | float16 | bfloat16 | float32 | float64 |
| int32   |      |       |        | int32 | int64 | float16 | bfloat16 | float32 | float64 |
| int64   |      |       |        |       | int64 | float16 | bfloat16 | float32 | float64 |
| float16 |      |       |        |       |       | float16 | float32  | float32 | float64 |
| bfloat16|      |       |        |       |       |         | bfloat16 | float32 | float64 |
| float32 |      |       |        |       |       |         |          | float32 | float64 |
| float64 |      |       |        |       |       |         |          |         | float64 |

Within a kind this is the Array API standard (section "Type promotion rules"). Between kinds, which the standard leaves
open, the float wins and keeps its width, as in PyTorch and JAX (NumPy would widen int64 + float32 to float64). A Python
scalar never widens a tensor of its own kind: `x * 2.0` has the dtype of `x` when `x` is a float.
float16 and bfloat16 are for storage: arithmetic on them is done in float32 and rounded once per operation.
"""

import ml_dtypes
import numpy as np

from chainrule.errors import DTypeError

DType = np.dtype

float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
float16 = np.dtype(np.float16)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
uint32 = np.dtype(np.uint32)
bool_ = np.dtype(np.bool_)

HALVES = (float16, bfloat16)
FLOATS = (float16, bfloat16, float32, float64)
INTEGERS = (uint8, uint32, int32, int64)
ALL = (bool_, *INTEGERS, *FLOATS)
SHORT = dict(zip(ALL, ("b1", "u8", "u32", "i32", "i64", "f16", "bf16", "f32", "f64"), strict=True))

default_float = float32
default_integer = int64


def is_float(dtype: DType) -> bool:
    """Whether `dtype` is one of float16, bfloat16, float32, float64."""
    return dtype in FLOATS


def is_integer(dtype: DType) -> bool:
    """Whether `dtype` is one of uint8, uint32, int32, int64 (bool is not)."""
    return dtype in INTEGERS


def as_dtype(dtype: object) -> DType:
    """The dtype for a name, a NumPy type or a dtype; DTypeError for one that chainrule does not have."""
    if isinstance(dtype, int) and not isinstance(dtype, bool):
        raise DTypeError(f"dtype {dtype!r} is a number. A shape is one argument, in brackets: cr.zeros((2, 3)).")
    try:
        found = bfloat16 if dtype == "bfloat16" else np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None or found not in ALL:
        raise DTypeError(f"dtype {dtype!r} is not supported. Supported: {', '.join(d.name for d in ALL)}.")
    return found  # type: ignore[no-any-return]


def _promote_two(a: DType, b: DType) -> DType:
    if a == b:
        return a
    if ALL.index(a) > ALL.index(b):
        a, b = b, a
    if (a, b) == (uint32, int32):
        return int64
    if (a, b) == (float16, bfloat16):
        return float32
    return b


_TABLE = {(a, b): _promote_two(a, b) for a in ALL for b in ALL}


def promote(*dtypes: DType) -> DType:
    """The dtype that values of all these dtypes promote to; the table stands at the head of this file."""
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = _TABLE[result, dtype]
    return result


def scalar_dtype(value: object, other: DType | None) -> DType:
    """The dtype that the Python scalar `value` takes beside a tensor of dtype `other` (None: alone)."""
    if isinstance(value, (bool, np.bool_)):
        return other if other is not None else bool_
    if isinstance(value, (int, np.integer)):
        return other if other is not None and other != bool_ else default_integer
    return other if other is not None and is_float(other) else default_float


def integer_limits(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest number of an integer dtype."""
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
