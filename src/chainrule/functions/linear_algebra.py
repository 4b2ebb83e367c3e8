"""Products, diagonals and norms. Matrices are the last two axes; axes before them are a stack of matrices."""

import builtins
import math
from typing import Any

from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.arithmetic import abs
from chainrule.functions.axes import Axis, axes_of, axis_of, reshaped, without
from chainrule.functions.choice import over, where
from chainrule.functions.custom import custom_vjp
from chainrule.functions.lifting import numbers, real
from chainrule.functions.precision import rounded_once
from chainrule.functions.searching import count_nonzero
from chainrule.functions.statistics import max, min, sum
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout, operators, reduce
from chainrule.primitives.contract import swap_last
from chainrule.primitives.operators import cast_to, matmul

__all__ = [
    "diagonal", "matmul", "matrix_norm", "matrix_transpose", "norm", "outer", "trace", "vecdot", "vector_norm",
]  # fmt: skip


def _matrices(name: str, x: Any) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"{name}: shape {x.shape} is no stack of matrices; it needs two axes.")
    return x


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged.

    >>> import chainrule as cr
    >>> cr.matrix_transpose(cr.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    return swap_last(_matrices("matrix_transpose", x))


def vecdot(a: Any, b: Any, /, axis: int = -1) -> Tensor:
    """The scalar products of the vectors along `axis`; the other axes broadcast.

    >>> import chainrule as cr
    >>> cr.vecdot(cr.tensor([[1, 2], [3, 4]]), cr.tensor([10, 1])).tolist()
    [12, 34]
    """
    a, b = as_tensor(a), as_tensor(b)
    ndim = builtins.min(a.ndim, b.ndim)
    of_a, of_b = axis_of("vecdot", axis, a.ndim), axis_of("vecdot", axis, b.ndim)
    if a.ndim - of_a != b.ndim - of_b or a.ndim - of_a > ndim:
        raise ShapeError(
            f"vecdot: axis {axis} means different axes of shapes {a.shape} and {b.shape}; count from the end."
        )
    if a.shape[of_a] != b.shape[of_b]:
        raise ShapeError(f"vecdot: extents {a.shape[of_a]} and {b.shape[of_b]} of axis {axis} differ.")
    product = e.mul(*numbers("vecdot", a, b))
    along = (product.ndim - (a.ndim - of_a),)
    return reshaped(layout.sum(product, axes=along), without(product.shape, along))


def outer(a: Any, b: Any, /) -> Tensor:
    """All products of an element of the vector `a` (down the rows) and one of `b`.

    >>> import chainrule as cr
    >>> cr.outer(cr.tensor([1, 2]), cr.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"outer takes two vectors; got shapes {a.shape} and {b.shape}.")
    return operators.multiply(reshaped(a, (a.size, 1)), b)


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices: elements [i, i + offset].

    >>> import chainrule as cr
    >>> cr.diagonal(cr.tensor([[1, 2], [3, 4]])).tolist()
    [1, 4]
    """
    x = _matrices("diagonal", x)
    rows, columns = x.shape[-2:]
    count = builtins.max(builtins.min(rows + builtins.min(offset, 0), columns - builtins.max(offset, 0)), 0)
    # In the flat matrix the diagonal is a slice with the step columns + 1.
    flat = reshaped(x, (*x.shape[:-2], rows * columns))
    first = offset if offset >= 0 else -offset * columns
    return flat[..., first : first + count * (columns + 1) : columns + 1] if count else flat[..., :0]


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals of matrices. Integers add up in int64.

    >>> import chainrule as cr
    >>> cr.trace(cr.tensor([[1, 2], [3, 4]])).item()
    5
    """
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


# -- norms


def _power_sum(x: Tensor, p: float, axes: tuple[int, ...]) -> Tensor:
    """(Σ |x|ᵖ)^(1/p), keeping the axes, on numbers scaled to at most 1, so that no power over- or underflows."""

    def forward(x: Tensor) -> Tensor:
        size = e.abs(x)
        largest = reduce.max(size, axes=axes)
        scale = where((largest > 0) & (largest < math.inf), largest, 1)
        scaled = size / scale
        powers = scaled * scaled if p == 2 else e.pow(scaled, full(x.shape, p, x.dtype))
        total = layout.sum(powers, axes=axes)
        return scale * (e.sqrt(total) if p == 2 else e.pow(total, full(total.shape, 1 / p, x.dtype)))

    def rule(dy: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor]:
        direction = over(x, y)
        if p != 2:
            size = e.abs(direction)
            direction = e.sign(x) * e.pow(where(size == 0, 1, size), full(x.shape, p - 1, x.dtype))
        return (dy * direction,)

    return custom_vjp(forward, rule)(x)


@rounded_once
def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The length of the vectors along `axis` (None: all elements): (Σ |x|^ord)^(1/ord).

    `ord` may be inf (the largest |x|), −inf (the smallest), 1, 0 (how many are not 0), or another number. It neither
    overflows nor underflows on the way. Where all elements are 0 the gradient is 0. Integers give float32.

    >>> import chainrule as cr
    >>> cr.vector_norm(cr.tensor([[3.0, 4.0], [0.0, 0.0]]), axis=1).tolist()
    [5.0, 0.0]
    """
    x = real("vector_norm", x)
    axes = axes_of("vector_norm", axis, x.ndim)
    if ord == 0:
        return cast_to(count_nonzero(x, axes, keepdims), x.dtype)
    if ord == 1:
        return sum(abs(x), axes, keepdims)
    if math.isinf(ord):
        return max(abs(x), axes, keepdims) if ord > 0 else min(abs(x), axes, keepdims)
    empty = 0 in [x.shape[a] for a in axes]
    y = layout.sum(x, axes=axes) if empty else _power_sum(x, float(ord), axes)
    return y if keepdims else reshaped(y, without(x.shape, axes))


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str = "fro") -> Tensor:
    """The norm of matrices: 'fro' the root of the sum of squares; 1 the largest sum of |x| in a column, inf in a row.

    −1 and −inf give the smallest such sums. Where all elements are 0 the gradient of 'fro' is 0.
    Raises ConfigError for other orders (they need singular values).

    >>> import chainrule as cr
    >>> x = cr.tensor([[1.0, -2.0], [3.0, 4.0]])
    >>> float(cr.matrix_norm(x, ord=1)), float(cr.matrix_norm(x, ord=float("inf")))
    (6.0, 7.0)
    """
    x = _matrices("matrix_norm", x)
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ConfigError(f"matrix_norm: ord is 'fro', 1, -1, inf or -inf; got {ord!r}. Others need singular values.")
    x = real("matrix_norm", x)
    size = sum(abs(x), -2 if ord in (1, -1) else -1, True)
    largest = max if ord in (1, math.inf) else min
    return largest(size, (-2, -1), keepdims)


def norm(x: Any, /, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The norm of vectors or matrices, as in NumPy: of all elements, along one axis, or with two axes of matrices.

    With `ord` None the root of the sum of squares, over whatever axes. See `vector_norm` and `matrix_norm`.

    >>> import chainrule as cr
    >>> cr.norm(cr.tensor([3.0, 4.0])).item()
    5.0
    """
    x = as_tensor(x)
    if ord is None:
        return vector_norm(x, axis=axis, keepdims=keepdims)
    axes = axes_of("norm", axis, x.ndim)
    if len(axes) == 1:
        return vector_norm(x, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2:
        raise ShapeError(f"norm: ord={ord!r} needs one axis (vectors) or two (matrices); got {len(axes)}: {axes}.")
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    y = matrix_norm(layout.transpose(x, axes=rest + axes), ord=ord)
    return reshaped(y, [1 if a in axes else n for a, n in enumerate(x.shape)]) if keepdims else y
