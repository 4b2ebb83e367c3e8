"""Clipping of gradients by value, and by their norm over all parameters: as functions, and as transforms."""

import math
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.autodiff import map_tensors
from chainrule.core.tensor import Tensor, full
from chainrule.errors import DTypeError, GradientError
from chainrule.functions.choice import where
from chainrule.optim.settings import flag, number
from chainrule.optim.transform import State, Tensors, Transform, Updates, per_parameter
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import reshape, sum
from chainrule.primitives.operators import cast_to, maximum, minimum
from chainrule.primitives.reduce import max as largest


def global_norm(grads: Any, norm_type: float = 2.0) -> Tensor:
    """The norm of all gradients together, taken as one long vector: a float64 scalar.

    `grads` is a tree of tensors (None is skipped), as `cr.grad` returns. norm_type is the p of the p-norm, inf for the
    largest magnitude. It is summed in float64, so that float32 gradients beyond 1e19 do not overflow.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> float(optim.global_norm({"w": cr.tensor([3.0]), "b": cr.tensor([[4.0]])}))
    5.0
    """
    p = number("norm_type", norm_type if norm_type != math.inf else 1, 1)
    total = full((), 0, dtypes.float64)
    for leaf in tree.flatten(grads).leaves:
        g = _real(leaf.path, leaf.value)
        if g.size == 0:
            continue
        axes = tuple(range(g.ndim))
        magnitude = e.abs(cast_to(g, dtypes.float64))
        if norm_type == math.inf:
            total = maximum(total, reshape(largest(magnitude, axes=axes), shape=()))
        else:
            total = total + reshape(sum(magnitude**p, axes=axes), shape=())
    return total if norm_type == math.inf else total ** (1 / p)


def _real(path: str, g: Any) -> Tensor:
    if not isinstance(g, Tensor) or not dtypes.is_float(g.dtype):
        raise DTypeError(f"The gradient {path!r} is no floating-point tensor: {g!r:.100}.")
    return g


def clip_grad_norm(
    grads: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> tuple[Any, Tensor]:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)); returns them, and the norm that they had before.

    `grads` is a tree of tensors, such as the dict of a Module. With error_if_nonfinite, a norm that is inf or NaN
    raises GradientError (outside of compiled functions).
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), algorithm 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> grads, norm = optim.clip_grad_norm({"w": cr.tensor([3.0, 4.0])}, max_norm=1.0)
    >>> float(norm), [round(x, 4) for x in grads["w"].tolist()]
    (5.0, [0.6, 0.8])
    """
    limit = _norm_limit(max_norm)
    norm = global_norm(grads, norm_type)
    if flag("error_if_nonfinite", error_if_nonfinite) and not math.isfinite(float(norm)):
        raise GradientError(
            f"The norm of the gradients is {float(norm)}, so clipping cannot mend them. Look for the layer where the "
            "first non-finite value appears; often the learning rate is too high."
        )
    factor = minimum(limit / (norm + 1e-6), 1.0)
    return map_tensors(lambda g: _scaled(g, factor), grads), norm


def _norm_limit(max_norm: Any) -> float:
    """inf is allowed: it measures and changes nothing."""
    return math.inf if max_norm == math.inf else number("max_norm", max_norm, 0)


def _scaled(g: Tensor, factor: Tensor) -> Tensor:
    wide = dtypes.float32 if g.dtype in dtypes.HALVES else g.dtype
    return cast_to(cast_to(g, wide) * cast_to(factor, wide), g.dtype)


def clip_grad_value(grads: Any, clip_value: float) -> Any:
    """Each element of each gradient limited to [−clip_value, clip_value]; NaN stays NaN.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optim.clip_grad_value({"w": cr.tensor([-7.0, 0.5])}, 1.0)["w"].tolist()
    [-1.0, 0.5]
    """
    limit = number("clip_value", clip_value, 0)
    return map_tensors(lambda g: _limited(g, limit), grads)


def _limited(g: Tensor, limit: float) -> Tensor:
    return where(g > limit, limit, where(g < -limit, -limit, g))


def clip_by_global_norm(max_norm: float, norm_type: float = 2.0) -> Transform:
    """`clip_grad_norm` as a transform: u = g · min(1, max_norm / (norm + 1e-6)), with the norm over all parameters.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.SGD(lr=1.0))
    >>> optimizer.update({"w": cr.tensor([0.0])}, {"w": cr.tensor([50.0])})["w"].tolist()
    [-1.0]
    """
    limit = _norm_limit(max_norm)

    def update(updates: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
        return clip_grad_norm(updates, limit, norm_type)[0], state

    return Transform(lambda params: {}, update, "clip_by_global_norm", max_norm=limit, norm_type=norm_type)


def clip_by_value(clip_value: float) -> Transform:
    """`clip_grad_value` as a transform: every element of u lies in [−clip_value, clip_value].

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.chain(optim.clip_by_value(1.0), optim.SGD(lr=1.0))
    >>> optimizer.update({"w": cr.tensor([0.0])}, {"w": cr.tensor([50.0])})["w"].tolist()
    [-1.0]
    """
    limit = number("clip_value", clip_value, 0)
    return per_parameter("clip_by_value", lambda g, p: _limited(g, limit), clip_value=limit)
