"""The units of networks: activation functions, and softmax with its relatives.

Names, arguments and defaults are PyTorch's, save that an axis is called `axis`, as in the Array API standard (PyTorch
says `dim`), and that nothing works in place. Integers become float32; float16 and bfloat16 are computed in float32.

Kinks take the subgradient 0 where 0 is one, and else the slope from the left: relu'(0) = 0, leaky_relu'(0) is its
`negative_slope`. NaN passes through everything. At −∞ gelu, silu, mish and hardswish are NaN (−∞ · 0), as in PyTorch.
Values and gradients are right and finite for every finite x: a branch that is not taken cannot spoil them. (The one
exception is gelu's tanh form in float32 beyond |x| = 1e19, where x² overflows.)
"""

import math
from typing import Any, Literal

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions.axes import Axis, axes_of, reshaped, without
from chainrule.functions.choice import where
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.primitives import elementwise as e
from chainrule.primitives import reduce
from chainrule.primitives.index import iota
from chainrule.primitives.layout import reshape, sum
from chainrule.primitives.operators import broadcast_to, cast_to

# Chosen so that mean 0 and variance 1 are a stable fixed point: Klambauer et al. (2017), equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


# -- piecewise linear


def relu(x: Tensor) -> Tensor:
    """Rectified linear unit: x where x > 0, else 0. The slope at 0 is 0.

    Any shape; keeps shape and dtype. Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann
    machines" (2010).

    >>> import chainrule as cr
    >>> cr.relu(cr.tensor([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 3.0]
    """
    x = as_tensor(x)
    return where(x <= 0, 0, x)


@rounded_once
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope · x. The slope at 0 is `negative_slope`.

    Any shape; keeps it. Source: Maas et al., "Rectifier nonlinearities improve neural network acoustic models" (2013).

    >>> import chainrule as cr
    >>> cr.leaky_relu(cr.tensor([-2.0, 3.0]), 0.5).tolist()
    [-1.0, 3.0]
    """
    x = real("leaky_relu", x)
    return where(x <= 0, negative_slope * x, x)


@rounded_once
def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x held between `min_val` and `max_val`. The slope at both ends is 0.

    Any shape; keeps it. Raises ConfigError when min_val > max_val.

    >>> import chainrule as cr
    >>> cr.hardtanh(cr.tensor([-2.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    if not min_val <= max_val:
        raise ConfigError(f"hardtanh: min_val={min_val} must not be greater than max_val={max_val}.")
    x = real("hardtanh", x)
    return where(x <= min_val, min_val, where(x >= max_val, max_val, x))


def relu6(x: Tensor) -> Tensor:
    """x held between 0 and 6. The slope at 0 and at 6 is 0.

    Any shape; keeps it. Source: Krizhevsky, "Convolutional deep belief networks on CIFAR-10" (2010).

    >>> import chainrule as cr
    >>> cr.relu6(cr.tensor([-2.0, 3.0, 8.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    return hardtanh(x, 0.0, 6.0)


@rounded_once
def hardsigmoid(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6: a sigmoid made of three straight lines.

    Any shape; keeps it. Source: Howard et al., "Searching for MobileNetV3" (2019).

    >>> import chainrule as cr
    >>> cr.hardsigmoid(cr.tensor([-4.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return relu6(real("hardsigmoid", x) + 3) / 6


@rounded_once
def hardswish(x: Tensor) -> Tensor:
    """x · relu6(x + 3) / 6. The slope is 0 at −3 and 1 at 3.

    Any shape; keeps it. Source: Howard et al., "Searching for MobileNetV3" (2019).

    >>> import chainrule as cr
    >>> cr.hardswish(cr.tensor([-1.0, 0.0, 3.0])).tolist()
    [-0.333..., 0.0, 3.0]
    """
    x = real("hardswish", x)
    return x * (relu6(x + 3) / 6)


# -- exponential below zero


@rounded_once
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Exponential linear unit: x where x > 0, else alpha · (eˣ − 1). The slope at 0 is `alpha`.

    Any shape; keeps it. Source: Clevert et al., "Fast and accurate deep network learning by exponential linear units"
    (2016).

    >>> import chainrule as cr
    >>> cr.elu(cr.tensor([-1e9, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 3.0]
    """
    x = real("elu", x)
    below = x <= 0
    return where(below, alpha * e.expm1(where(below, x, 0)), x)


@rounded_once
def selu(x: Tensor) -> Tensor:
    """Self-normalising unit: λ · elu(x, α) with λ = 1.0507… and α = 1.6733…. The slope at 0 is λα.

    Any shape; keeps it. Source: Klambauer et al., "Self-normalizing neural networks" (2017).

    >>> import chainrule as cr
    >>> round(float(cr.selu(cr.tensor(1.0))), 4)
    1.0507
    """
    return SELU_SCALE * elu(x, SELU_ALPHA)


@rounded_once
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Continuously differentiable elu: x where x > 0, else alpha · (e^(x/alpha) − 1). The slope at 0 is 1.

    Any shape; keeps it. Raises ConfigError when alpha is 0. Source: Barron, "Continuously differentiable exponential
    linear units" (2017).

    >>> import chainrule as cr
    >>> cr.celu(cr.tensor([-1e9, 0.0, 3.0]), alpha=2.0).tolist()
    [-2.0, 0.0, 3.0]
    """
    if alpha == 0:
        raise ConfigError("celu: alpha must not be 0, since x is divided by it. For alpha → 0 use relu.")
    x = real("celu", x)
    below = x <= 0
    return where(below, alpha * e.expm1(where(below, x, 0) / alpha), x)


# -- smooth


@rounded_once
def gelu(x: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """Gaussian error linear unit: x · Φ(x), Φ being the distribution function of the standard normal distribution.

    With approximate="tanh": ½x (1 + tanh(√(2/π) (x + 0.044715 x³))), within 5e-4 of it. Any shape; keeps it.
    Raises ConfigError for another `approximate`. Source: Hendrycks and Gimpel, "Gaussian error linear units" (2016).

    >>> import chainrule as cr
    >>> round(float(cr.gelu(cr.tensor(1.0))), 4), round(float(cr.gelu(cr.tensor(1.0), "tanh")), 4)
    (0.8413, 0.8412)
    """
    x = real("gelu", x)
    if approximate == "none":
        return 0.5 * x * (1 + e.erf(x * math.sqrt(0.5)))
    if approximate == "tanh":
        return 0.5 * x * (1 + e.tanh(x * (math.sqrt(2 / math.pi) * (1 + 0.044715 * (x * x)))))
    raise ConfigError(f"gelu: approximate={approximate!r} is not known; it is 'none' (exact) or 'tanh'.")


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function 1 / (1 + e⁻ˣ).

    Any shape; keeps it.

    >>> import chainrule as cr
    >>> cr.sigmoid(cr.tensor([-1e9, 0.0, 1e9])).tolist()
    [0.0, 0.5, 1.0]
    """
    return e.sigmoid(real("sigmoid", x))


@rounded_once
def log_sigmoid(x: Tensor) -> Tensor:
    """log sigmoid(x) = −softplus(−x), without overflow or cancellation. PyTorch's `logsigmoid`.

    Any shape; keeps it.

    >>> import chainrule as cr
    >>> cr.log_sigmoid(cr.tensor([-1000.0, 1000.0])).tolist()
    [-1000.0, -0.0]
    """
    return -e.softplus(-real("log_sigmoid", x))


@rounded_once
def silu(x: Tensor) -> Tensor:
    """Sigmoid-weighted linear unit x · sigmoid(x), also called swish.

    Any shape; keeps it. Source: Elfwing et al., "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning" (2018).

    >>> import chainrule as cr
    >>> round(float(cr.silu(cr.tensor(1.0))), 4)
    0.7311
    """
    x = real("silu", x)
    return x * e.sigmoid(x)


@rounded_once
def softplus(x: Tensor, beta: float = 1.0, threshold: float | None = None) -> Tensor:
    """log(1 + e^(beta·x)) / beta, a smooth relu; exact for every x.

    PyTorch switches to the identity where beta·x > threshold = 20 and so jumps there by 2e-9 / beta. Here that is not
    needed and not done, unless a number is given for `threshold`. Any shape; keeps it. Raises ConfigError for beta = 0.
    Source: Dugas et al., "Incorporating second-order functional knowledge for better option pricing" (2001).

    >>> import chainrule as cr
    >>> cr.softplus(cr.tensor([-1000.0, 1000.0])).tolist()
    [0.0, 1000.0]
    """
    if beta == 0:
        raise ConfigError("softplus: beta must not be 0, since the result is divided by it.")
    x = real("softplus", x)
    scaled = x if beta == 1 else beta * x
    y = e.softplus(scaled)
    y = y if beta == 1 else y / beta
    return y if threshold is None else where(scaled > threshold, x, y)


@rounded_once
def mish(x: Tensor) -> Tensor:
    """x · tanh(softplus(x)).

    Any shape; keeps it. Source: Misra, "Mish: a self regularized non-monotonic activation function" (2019).

    >>> import chainrule as cr
    >>> round(float(cr.mish(cr.tensor(1.0))), 4)
    0.8651
    """
    x = real("mish", x)
    return x * e.tanh(e.softplus(x))


# -- over an axis


def _filled_axes(name: str, x: Tensor, axis: Axis) -> tuple[int, ...]:
    axes = axes_of(name, axis, x.ndim)
    if not all(x.shape[a] for a in axes):
        raise ShapeError(f"{name}: there is nothing along axis {axis} of a tensor of shape {x.shape}.")
    return axes


@rounded_once
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """e^x along `axis`, divided by its sum: positive numbers that add up to 1.

    Any shape; keeps it. Elements of −∞ get 0; a row of nothing else is 0 / 0 and gives NaN, as in PyTorch.
    Raises ShapeError when there is no such axis, or nothing along it.
    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 4.1, for the shift by the maximum.

    >>> import chainrule as cr
    >>> cr.softmax(cr.tensor([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    x = real("softmax", x)
    axes = _filled_axes("softmax", x, axis)
    powers = e.exp(x - stop_gradient(reduce.max(x, axes=axes)))  # the shift cancels, so it needs no gradient
    return powers / sum(powers, axes=axes)


@rounded_once
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log softmax(x), without overflow, underflow or log(0).

    Any shape; keeps it. Elements of −∞ stay −∞; a row of nothing else gives NaN, as in PyTorch.
    Raises ShapeError when there is no such axis, or nothing along it.

    >>> import chainrule as cr
    >>> cr.log_softmax(cr.tensor([0.0, 1000.0])).tolist()
    [-1000.0, 0.0]
    """
    x = real("log_softmax", x)
    axes = _filled_axes("log_softmax", x, axis)
    shifted = x - stop_gradient(reduce.max(x, axes=axes))
    return shifted - e.log(sum(e.exp(shifted), axes=axes))


@rounded_once
def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ e^x over `axis` (one, several, or with None all), without overflow.

    x (..., n, ...) -> (..., ...), or (..., 1, ...) with `keepdims`. A row of −∞ alone gives −∞ with gradient 0; +∞
    gives +∞; NaN gives NaN. Raises ShapeError when there is no such axis, or nothing along it.

    >>> import chainrule as cr
    >>> cr.logsumexp(cr.tensor([[1000.0, 1000.0], [-float("inf"), 0.0]]), axis=1).tolist()
    [1000.693..., 0.0]
    """
    x = real("logsumexp", x)
    axes = _filled_axes("logsumexp", x, axis)
    largest = stop_gradient(reduce.max(x, axes=axes))
    largest = where(abs(largest) == math.inf, 0, largest)  # ∞ − ∞ would be NaN
    total = sum(e.exp(x - largest), axes=axes)
    nothing = total == 0
    y = where(nothing, -math.inf, e.log(where(nothing, 1, total)) + largest)
    return y if keepdims else reshaped(y, without(x.shape, axes))


def one_hot(index: Tensor, classes: int, dtype: Any = dtypes.float32) -> Tensor:
    """A row for each class index, 1 at the class and 0 elsewhere. (...,) of integers -> (..., classes).

    PyTorch's one_hot gives int64 and guesses the number of classes; here it is given, and the dtype is float32 so that
    the result can be multiplied with weights. Raises DTypeError for an index of floats, IndexOutOfRange for one outside
    [0, classes) (in a traced function, where no value is known, its row is 0).

    >>> import chainrule as cr
    >>> cr.one_hot(cr.tensor([0, 2]), 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    index = as_tensor(index)
    if not dtypes.is_integer(index.dtype):
        raise DTypeError(
            f"one_hot: class indices are integers; got {index.dtype.name}. Cast them: index.astype('int64')."
        )
    if not isinstance(classes, int) or classes < 1:
        raise ConfigError(f"one_hot: the number of classes is a positive integer; got {classes!r}.")
    if index.value is not None and index.size and not 0 <= index.value.min() <= index.value.max() < classes:
        worst = index.value.min() if index.value.min() < 0 else index.value.max()
        raise IndexOutOfRange(f"one_hot: class {worst} is outside of the {classes} classes 0 to {classes - 1}.")
    shape = (*index.shape, classes)
    wide = broadcast_to(reshape(cast_to(index, dtypes.int64), shape=(*index.shape, 1)), shape)
    return cast_to(e.equal(wide, iota(shape=shape, axis=index.ndim, dtype=dtypes.int64)), dtypes.as_dtype(dtype))
