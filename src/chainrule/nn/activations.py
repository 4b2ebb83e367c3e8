"""The activation functions as modules. What they compute is said in chainrule.functions.activations.

PyTorch's names, arguments and defaults, but for `inplace`, which immutable tensors do not have. None of them changes
the shape; integers become float32.
"""

from typing import Literal

from chainrule.core.tensor import Tensor, full
from chainrule.dtypes import as_dtype
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions import activations as functions
from chainrule.functions.choice import where
from chainrule.functions.trigonometry import tanh
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter


class ReLU(Module):
    """x where x > 0, else 0.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReLU()(cr.tensor([-2.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.relu."""
        return functions.relu(x)


class ReLU6(Module):
    """x held between 0 and 6.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReLU6()(cr.tensor([-2.0, 8.0])).tolist()
    [0.0, 6.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.relu6."""
        return functions.relu6(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope · x.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LeakyReLU(0.5)(cr.tensor([-2.0, 3.0])).tolist()
    [-1.0, 3.0]
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.leaky_relu."""
        return functions.leaky_relu(x, self.negative_slope)


class PReLU(Module):
    """x where x > 0, else weight · x with a learned weight: one for all, or one for each channel (axis 1).

    `num_parameters` is 1 or the number of channels of x (N, C, ...); `init` is the first value of the weight.
    Raises ShapeError when the channels do not match.
    Source: He et al., "Delving deep into rectifiers" (2015), section 2.1.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.PReLU()(cr.tensor([-2.0, 3.0])).tolist()
    [-0.5, 3.0]
    """

    weight: Tensor

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: object = "float32") -> None:
        if num_parameters < 1:
            raise ConfigError(f"PReLU has at least one parameter; got num_parameters={num_parameters}.")
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), init, as_dtype(dtype)))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (...) for one parameter, else (N, C, ...) with C = num_parameters."""
        weight = self.weight
        if self.num_parameters > 1:
            if x.ndim < 2 or x.shape[1] != self.num_parameters:
                raise ShapeError(f"{self.label} expects {self.num_parameters} channels on axis 1, got shape {x.shape}.")
            weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
        return where(x <= 0, weight * x, x)


class Hardtanh(Module):
    """x held between min_val and max_val.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Hardtanh()(cr.tensor([-2.0, 0.5])).tolist()
    [-1.0, 0.5]
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.hardtanh."""
        return functions.hardtanh(x, self.min_val, self.max_val)


class Hardsigmoid(Module):
    """relu6(x + 3) / 6.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Hardsigmoid()(cr.tensor([-4.0, 0.0])).tolist()
    [0.0, 0.5]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.hardsigmoid."""
        return functions.hardsigmoid(x)


class Hardswish(Module):
    """x · relu6(x + 3) / 6.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Hardswish()(cr.tensor([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.hardswish."""
        return functions.hardswish(x)


class ELU(Module):
    """x where x > 0, else alpha · (eˣ − 1).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ELU(2.0)(cr.tensor([-1e9, 3.0])).tolist()
    [-2.0, 3.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.elu."""
        return functions.elu(x, self.alpha)


class SELU(Module):
    """The self-normalising unit.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SELU()(cr.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.selu."""
        return functions.selu(x)


class CELU(Module):
    """x where x > 0, else alpha · (e^(x/alpha) − 1).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.CELU(2.0)(cr.tensor([-1e9, 3.0])).tolist()
    [-2.0, 3.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.celu."""
        return functions.celu(x, self.alpha)


class GELU(Module):
    """x · Φ(x), or with approximate="tanh" the formula with tanh.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GELU()(cr.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.gelu."""
        return functions.gelu(x, self.approximate)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Sigmoid()(cr.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.sigmoid."""
        return functions.sigmoid(x)


class LogSigmoid(Module):
    """log sigmoid(x), without overflow.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LogSigmoid()(cr.tensor([-1000.0])).tolist()
    [-1000.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.log_sigmoid."""
        return functions.log_sigmoid(x)


class SiLU(Module):
    """x · sigmoid(x), also called swish.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SiLU()(cr.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.silu."""
        return functions.silu(x)


class Mish(Module):
    """x · tanh(softplus(x)).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Mish()(cr.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.mish."""
        return functions.mish(x)


class Softplus(Module):
    """log(1 + e^(beta·x)) / beta. The threshold is off by default: see chainrule.functions.softplus.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Softplus()(cr.tensor([1000.0])).tolist()
    [1000.0]
    """

    def __init__(self, beta: float = 1.0, threshold: float | None = None) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.softplus."""
        return functions.softplus(x, self.beta, self.threshold)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Tanh()(cr.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.tanh."""
        return tanh(x)


class Softmax(Module):
    """e^x along the axis `dim`, divided by its sum.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Softmax()(cr.tensor([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.softmax."""
        return functions.softmax(x, self.dim)


class LogSoftmax(Module):
    """log softmax(x) along the axis `dim`, without overflow.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LogSoftmax()(cr.tensor([0.0, 1000.0])).tolist()
    [-1000.0, 0.0]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """See chainrule.functions.log_softmax."""
        return functions.log_softmax(x, self.dim)
