"""Contractions: sums of products. Convolution will stand here beside the matrix product."""

from chainrule.core.primitive import Primitive, TypeOf
from chainrule.core.tensor import Tensor
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives.layout import transpose
from chainrule.primitives.samples import integer, real, sample


def _infer_matmul(a: Tensor, b: Tensor) -> TypeOf:
    if a.ndim < 2 or b.ndim < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: {a.shape} @ {b.shape} does not fit; the last axis of the first must have the extent of the last "
            "but one of the second, and the axes before must be equal."
        )
    if a.dtype != b.dtype:
        raise DTypeError(f"matmul: dtypes {a.dtype.name} and {b.dtype.name} differ; cast them first.")
    return (*a.shape[:-1], b.shape[-1]), a.dtype


def swap_last(x: Tensor) -> Tensor:
    """The transpose of each matrix in a stack of them."""
    return transpose(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


matmul: Primitive = Primitive(
    "matmul",
    "contract",
    lambda m, a, b: m.matmul(a, b),
    _infer_matmul,
    lambda dy, y, a, b: (lambda: matmul(dy, swap_last(b)), lambda: matmul(swap_last(a), dy)),
    "dA = dY · Bᵀ, dB = Aᵀ · dY",
    (
        sample(real(3, 4), real(4, 2)),
        sample(real(2, 3, 4), real(2, 4, 1)),
        sample(real(1, 0), real(0, 3)),
        sample(integer(2, 3), integer(3, 2)),
    ),
)
