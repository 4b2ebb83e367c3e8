"""Primitives that look things up: take and scatter_add, each the other's derivative, and argsort.

`take(x, index)` reads rows along the first axis; every other gather is a reshape, a transpose and an index computation
away from it. Indices are not negative here; the functions above turn −1 into n − 1.
"""

from typing import Any

from chainrule import dtypes
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor, full
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.samples import integer, real, sample


def _check_index(name: str, x: Tensor, index: Tensor) -> None:
    if not dtypes.is_integer(index.dtype):
        raise DTypeError(f"{name}: an index must be of integers; this one is {index.dtype.name}.")
    if x.ndim == 0:
        raise ShapeError(f"{name}: a tensor without axes has no rows.")


def _infer_take(x: Tensor, index: Tensor) -> TypeOf:
    _check_index("take", x, index)
    return index.shape + x.shape[1:], x.dtype


take: Primitive = Primitive(
    "take",
    "index",
    lambda m, x, index: m.take(x, index),
    _infer_take,
    lambda dy, y, x, index: (lambda: scatter_add(full(x.shape, 0, x.dtype), index, dy), None),
    "dx = dy added up at the rows taken",
    (sample(real(5, 3), integer(2, 4, low=0, high=5)), sample(real(4), integer(low=0, high=4))),
)


def _infer_scatter_add(x: Tensor, index: Tensor, updates: Tensor) -> TypeOf:
    _check_index("scatter_add", x, index)
    if updates.shape != index.shape + x.shape[1:] or updates.dtype != x.dtype:
        raise ShapeError(
            f"scatter_add: the updates have shape {updates.shape} and dtype {updates.dtype.name}; expected "
            f"{index.shape + x.shape[1:]} and {x.dtype.name}."
        )
    return x.shape, x.dtype


scatter_add: Primitive = Primitive(
    "scatter_add",
    "index",
    lambda m, x, index, updates: m.scatter_add(x, index, updates),
    _infer_scatter_add,
    lambda dy, y, x, index, updates: (dy, None, lambda: take(dy, index)),
    "dx = dy, dupdates = dy at the rows added to",
    (
        sample(real(5, 3), integer(4, low=0, high=5), real(4, 3)),
        sample(real(3), integer(2, 2, low=0, high=3), real(2, 2)),
    ),
)


def _infer_argsort(x: Tensor, axis: int, descending: bool) -> TypeOf:
    return x.shape, dtypes.int64


argsort: Primitive = Primitive(
    "argsort",
    "index",
    lambda m, x, axis, descending: m.argsort(x, axis, descending),
    _infer_argsort,
    samples=(
        sample(real(3, 4, apart=0.1), axis=1, descending=False),
        sample(integer(3, 4), axis=0, descending=True),
    ),
)


def _infer_iota(shape: Shape, axis: int | None, dtype: dtypes.DType) -> TypeOf:
    return shape, dtype


def _iota_meaning(m: Any, shape: Shape, axis: int | None, dtype: dtypes.DType) -> Any:
    return m.iota(shape, axis, dtype)


iota: Primitive = Primitive(
    "iota",
    "source",
    _iota_meaning,
    _infer_iota,
    samples=(
        sample(shape=(3, 4), axis=1, dtype=dtypes.int64),
        sample(shape=(3, 4), axis=None, dtype=dtypes.uint32),
    ),
)
