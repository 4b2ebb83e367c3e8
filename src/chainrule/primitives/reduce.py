"""Reductions other than `sum`, and the running sum. All keep their axes (with extent 1)."""

from collections.abc import Callable
from typing import Any

from chainrule import dtypes
from chainrule.core.primitive import Primitive, TypeOf
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ShapeError
from chainrule.primitives.elementwise import cast, equal
from chainrule.primitives.layout import broadcast, concat, flip, kept, slice, sum
from chainrule.primitives.samples import boolean, integer, real, sample

FAR = (sample(real(3, 4, apart=0.1), axes=(1,)), sample(real(3, 4, 2, apart=0.1), axes=(0, 2)))


def _infer(dtype: dtypes.DType | None = None, empty: bool = True) -> Callable[..., TypeOf]:
    def infer(x: Tensor, axes: tuple[int, ...]) -> TypeOf:
        if not empty and 0 in [x.shape[a] for a in axes]:
            raise ShapeError(f"The extreme of no elements is not defined: shape {x.shape}, axes {axes}.")
        return kept(x.shape, axes), dtype or x.dtype

    return infer


def _share_of_ties(dy: Tensor, y: Tensor, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor]:
    """Elements that equal the extreme share its gradient."""
    hit = cast(equal(x, broadcast(y, shape=x.shape)), dtype=x.dtype)
    return (broadcast(dy / sum(hit, axes=axes), shape=x.shape) * hit,)


max: Primitive = Primitive(
    "max",
    "reduce",
    lambda m, x, axes: m.max(x, axis=axes, keepdims=True),
    _infer(empty=False),
    _share_of_ties,
    "dx = dy where x is the largest, shared among equals",
    (*FAR, sample(integer(5), axes=(0,))),
)
min: Primitive = Primitive(
    "min",
    "reduce",
    lambda m, x, axes: m.min(x, axis=axes, keepdims=True),
    _infer(empty=False),
    _share_of_ties,
    "dx = dy where x is the smallest, shared among equals",
    (*FAR, sample(integer(5), axes=(0,))),
)


def _prod_vjp(dy: Tensor, y: Tensor, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor]:
    """dy times the product of all the others, right for zeros too: what stands before times what stands after."""
    others = broadcast(dy, shape=x.shape)
    for k, axis in enumerate(axes):
        inner = x
        for done in axes[:k]:  # along earlier axes the whole product is a factor for all
            inner = prod(inner, axes=(done,))
        before = _shift(cumulative_product(inner, axis), axis)
        after = flip(_shift(cumulative_product(flip(inner, (axis,)), axis), axis), (axis,))
        others = others * broadcast(before * after, shape=x.shape)
    return (others,)


def cumulative_product(x: Tensor, axis: int) -> Tensor:
    """The running product in log₂ n passes of multiplications, so that its derivatives need no division."""
    n, step = x.shape[axis], 1
    while step < n:
        x = x * _shift(x, axis, step)
        step *= 2
    return x


def _shift(x: Tensor, axis: int, by: int = 1) -> Tensor:
    """Move elements `by` places along `axis`; ones come in."""
    n = x.shape[axis]
    if n == 0:
        return x
    ends = tuple(n - by if i == axis else size for i, size in enumerate(x.shape))
    rest = slice(x, start=(0,) * x.ndim, stop=ends, step=(1,) * x.ndim)
    ones = full(tuple(by if i == axis else size for i, size in enumerate(x.shape)), 1, x.dtype)
    return concat(ones, rest, axis=axis)


prod: Primitive = Primitive(
    "prod",
    "reduce",
    lambda m, x, axes: m.prod(x, axis=axes, keepdims=True, dtype=x.dtype),
    _infer(),
    _prod_vjp,
    "dx = dy · the product of the other elements",
    (sample(real(3, 4), axes=(1,)), sample(real(2, 3, 2), axes=(0, 2)), sample(real(0, 2), axes=(0,))),
)
any: Primitive = Primitive(
    "any",
    "reduce",
    lambda m, x, axes: m.any(x, axis=axes, keepdims=True),
    _infer(dtypes.bool_),
    samples=(sample(boolean(3, 4), axes=(1,)), sample(boolean(0, 2), axes=(0,))),
)
all: Primitive = Primitive(
    "all",
    "reduce",
    lambda m, x, axes: m.all(x, axis=axes, keepdims=True),
    _infer(dtypes.bool_),
    samples=(sample(boolean(3, 4), axes=(1,)), sample(boolean(0, 2), axes=(0,))),
)
argmax: Primitive = Primitive(
    "argmax",
    "reduce",
    lambda m, x, axes: m.argmax(x, axis=axes[0], keepdims=True),
    _infer(dtypes.int64, empty=False),
    samples=(sample(real(3, 4, apart=0.1), axes=(1,)), sample(real(3, 4, apart=0.1), axes=(0,))),
)
argmin: Primitive = Primitive(
    "argmin",
    "reduce",
    lambda m, x, axes: m.argmin(x, axis=axes[0], keepdims=True),
    _infer(dtypes.int64, empty=False),
    samples=(sample(real(3, 4, apart=0.1), axes=(1,)), sample(real(3, 4, apart=0.1), axes=(0,))),
)


def _cumsum_meaning(m: Any, x: Any, axis: int, reverse: bool) -> Any:
    if reverse:
        return m.flip(m.cumsum(m.flip(x, axis), axis=axis, dtype=x.dtype), axis).copy()
    return m.cumsum(x, axis=axis, dtype=x.dtype)


cumsum: Primitive = Primitive(
    "cumsum",
    "scan",
    _cumsum_meaning,
    lambda x, axis, reverse: (x.shape, x.dtype),
    lambda dy, y, x, axis, reverse: (cumsum(dy, axis=axis, reverse=not reverse),),
    "dx = the running sum of dy from the other end",
    (sample(real(3, 4), axis=1, reverse=False), sample(real(3, 4), axis=0, reverse=True)),
)
