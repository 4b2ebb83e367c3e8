"""First values for weights. Each function takes a shape and a random Generator, and returns a tensor.

The names and arguments are PyTorch's, without the trailing underscore: tensors are immutable, so nothing is filled in
place; write `layer.weight = init.xavier_uniform(layer.weight.shape)`. Without a generator the numbers come from the
default one (`chainrule.random.manual_seed`). Weights have the shape (fan_out, fan_in, ...), with the receptive field
last.

Sources: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010) for
xavier; He et al., "Delving deep into rectifiers" (2015) for kaiming; Saxe et al., "Exact solutions to the nonlinear
dynamics of learning in deep linear neural networks" (2014) for orthogonal.
"""

import math
from typing import Any, Literal

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ConfigError, ShapeError
from chainrule.random import Generator, default_generator

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a nonlinearity are scaled, so that signals keep their variance.

    linear, sigmoid and convolutions (conv...): 1; tanh: 5/3; relu: √2; selu: 3/4; leaky_relu with the negative slope
    a = `param` (0.01): √(2 / (1 + a²)). Raises ConfigError for another name.

    >>> from chainrule.nn import init
    >>> init.calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    if nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2 / (1 + slope * slope))
    raise ConfigError(f"No gain is known for {nonlinearity!r}; known are leaky_relu, {', '.join(_GAINS)}.")


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: how many inputs a unit has, and how many units an input feeds.

    Raises ShapeError for fewer than two axes.

    >>> from chainrule.nn import init
    >>> init.fans((8, 3, 5, 5))
    (75, 200)
    """
    if len(shape) < 2:
        raise ShapeError(f"A weight of shape {shape} has no fan_in and fan_out; it needs two axes or more.")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def uniform(
    shape: Shape, a: float = 0.0, b: float = 1.0, generator: Generator | None = None, dtype: Any = dtypes.float32
) -> Tensor:
    """Uniform in [a, b).

    >>> from chainrule.nn import init
    >>> init.uniform((2, 3), -1.0, 1.0).shape
    (2, 3)
    """
    return _generator(generator).uniform(shape, a, b, dtype)


def normal(
    shape: Shape, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None, dtype: Any = dtypes.float32
) -> Tensor:
    """Normal with this mean and standard deviation.

    >>> from chainrule.nn import init
    >>> init.normal((2, 3), std=0.02).shape
    (2, 3)
    """
    return _generator(generator).normal(shape, mean, std, dtype)


def trunc_normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
    dtype: Any = dtypes.float32,
) -> Tensor:
    """Normal with this mean and standard deviation, given that the number lies between a and b (not multiples of std).

    >>> from chainrule.nn import init
    >>> bool(abs(init.trunc_normal((100,)).numpy()).max() <= 2)
    True
    """
    return _generator(generator).truncated_normal(shape, mean, std, a, b, dtype)


def xavier_uniform(
    shape: Shape, gain: float = 1.0, generator: Generator | None = None, dtype: Any = dtypes.float32
) -> Tensor:
    """Uniform in ±gain · √(6 / (fan_in + fan_out)), also called Glorot initialisation.

    Source: Glorot and Bengio (2010), equation 16.

    >>> from chainrule.nn import init
    >>> bool(abs(init.xavier_uniform((3, 3)).numpy()).max() <= 1)
    True
    """
    bound = gain * math.sqrt(6 / max(1, sum(fans(shape))))
    return uniform(shape, -bound, bound, generator, dtype)


def xavier_normal(
    shape: Shape, gain: float = 1.0, generator: Generator | None = None, dtype: Any = dtypes.float32
) -> Tensor:
    """Normal with standard deviation gain · √(2 / (fan_in + fan_out)). Source: Glorot and Bengio (2010).

    >>> from chainrule.nn import init
    >>> init.xavier_normal((8, 4)).shape
    (8, 4)
    """
    return normal(shape, 0.0, gain * math.sqrt(2 / max(1, sum(fans(shape)))), generator, dtype)


def kaiming_uniform(
    shape: Shape,
    a: float = 0.0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    dtype: Any = dtypes.float32,
) -> Tensor:
    """Uniform in ±gain · √(3 / fan); also called He initialisation. Source: He et al. (2015), equation 10.

    `a` is the negative slope of the leaky_relu that follows; `mode` says which fan keeps its variance: that of the
    forward pass ('fan_in') or of the backward pass ('fan_out').

    >>> from chainrule.nn import init
    >>> bool(abs(init.kaiming_uniform((8, 6)).numpy()).max() <= 1)
    True
    """
    bound = math.sqrt(3) * _kaiming_std(shape, a, mode, nonlinearity)
    return uniform(shape, -bound, bound, generator, dtype)


def kaiming_normal(
    shape: Shape,
    a: float = 0.0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    dtype: Any = dtypes.float32,
) -> Tensor:
    """Normal with standard deviation gain / √fan; the arguments are those of kaiming_uniform. Source: He et al. (2015).

    >>> from chainrule.nn import init
    >>> init.kaiming_normal((8, 4), nonlinearity="relu").shape
    (8, 4)
    """
    return normal(shape, 0.0, _kaiming_std(shape, a, mode, nonlinearity), generator, dtype)


def orthogonal(
    shape: Shape, gain: float = 1.0, generator: Generator | None = None, dtype: Any = dtypes.float32
) -> Tensor:
    """gain · a random matrix with orthonormal rows or columns, whichever are fewer; axes from the second on are one.

    Uniform over all such matrices: QR of a normal matrix, with the signs of R moved into Q.
    Raises ShapeError for fewer than two axes. Sources: Saxe et al. (2014); Mezzadri, "How to generate random matrices
    from the classical compact groups" (2007).

    >>> import numpy as np
    >>> from chainrule.nn import init
    >>> q = init.orthogonal((3, 5)).numpy()
    >>> bool(np.allclose(q @ q.T, np.eye(3), atol=1e-6))
    True
    """
    if len(shape) < 2:
        raise ShapeError(f"orthogonal needs two axes or more; got shape {shape}.")
    rows, columns = shape[0], math.prod(shape[1:])
    long, short = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(_generator(generator).normal((long, short), dtype=dtypes.float64).numpy())
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return _stored(gain * (q.T if rows < columns else q).reshape(shape), dtype)


def constant(shape: Shape, val: float, dtype: Any = dtypes.float32) -> Tensor:
    """Every element `val`.

    >>> from chainrule.nn import init
    >>> init.constant((2,), 0.5).tolist()
    [0.5, 0.5]
    """
    return full(tuple(shape), val, dtypes.as_dtype(dtype))


def zeros(shape: Shape, dtype: Any = dtypes.float32) -> Tensor:
    """Every element 0.

    >>> from chainrule.nn import init
    >>> init.zeros((2,)).tolist()
    [0.0, 0.0]
    """
    return constant(shape, 0.0, dtype)


def ones(shape: Shape, dtype: Any = dtypes.float32) -> Tensor:
    """Every element 1.

    >>> from chainrule.nn import init
    >>> init.ones((2,)).tolist()
    [1.0, 1.0]
    """
    return constant(shape, 1.0, dtype)


def eye(shape: Shape, dtype: Any = dtypes.float32) -> Tensor:
    """1 on the main diagonal, 0 elsewhere: a linear layer hands on its input. Raises ShapeError unless it has two axes.

    >>> from chainrule.nn import init
    >>> init.eye((2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if len(shape) != 2:
        raise ShapeError(f"eye fills matrices; got shape {shape}.")
    return _stored(np.eye(*shape), dtype)


def _generator(generator: Generator | None) -> Generator:
    return default_generator() if generator is None else generator


def _stored(value: np.ndarray, dtype: Any) -> Tensor:
    return wrap(np.asarray(value).astype(dtypes.as_dtype(dtype)))


def _kaiming_std(shape: Shape, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"mode is 'fan_in' or 'fan_out', not {mode!r}.")
    fan = fans(shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))
