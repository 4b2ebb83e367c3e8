"""What a primitive is: one declaration, read by eager evaluation, autodiff, Programs, engines, tests and docs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chainrule import dtypes, meaning

if TYPE_CHECKING:
    from chainrule.core.tensor import Tensor

Kind = Literal["source", "elementwise", "reduce", "scan", "layout", "contract", "index", "window", "control"]
Shape = tuple[int, ...]
TypeOf = tuple[Shape, dtypes.DType]


@dataclass(frozen=True, eq=False)
class Primitive:
    """One operation that the library does not take apart any further.

    name      what a printed Program calls it
    kind      how an engine lowers it; engines know kinds, not single operations
    meaning   (m, *arrays, **attributes) -> array, where m is NumPy (chainrule.meaning) or an engine's own namespace
    infer     (*tensors, **attributes) -> (shape, dtype); raises ShapeError or DTypeError
    vjp       (dy, y, *inputs, **attributes) -> for each input its gradient, None where none flows, or a function
              without arguments that makes the gradient when it is wanted. Written in tensors, so that it can be
              differentiated again. None: no gradient flows through this primitive.
    rule      the same in words, for the explainer
    samples   what the test-suite tries it on (chainrule.primitives.samples)
    """

    name: str
    kind: Kind
    meaning: Callable[..., Any]
    infer: Callable[..., TypeOf]
    vjp: Callable[..., tuple[Any, ...]] | None = None
    rule: str = ""
    samples: tuple[Any, ...] = ()

    def evaluate(self, dtype: dtypes.DType, arrays: tuple[np.ndarray, ...], attributes: dict[str, Any]) -> np.ndarray:
        """The value by NumPy: the reference that every engine is held against."""
        if self.kind != "layout" and any(a.dtype in dtypes.HALVES for a in arrays):
            arrays = tuple(a.astype(np.float32) if a.dtype in dtypes.HALVES else a for a in arrays)
        with np.errstate(all="ignore"):
            value = np.asarray(self.meaning(meaning, *arrays, **attributes))
            return value if value.dtype == dtype else value.astype(dtype)

    if TYPE_CHECKING:  # attached by chainrule.core.tensor

        def __call__(self, *inputs: "Tensor", **attributes: Any) -> "Tensor":
            """Apply it to tensors that already have the shapes and dtypes that it takes."""

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def same_type(*inputs: "Tensor", **attributes: Any) -> TypeOf:
    """The shape and dtype of the first input: what most elementwise primitives infer."""
    return inputs[0].shape, inputs[0].dtype
