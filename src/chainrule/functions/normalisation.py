"""Normalisation: subtract a mean, divide by a standard deviation, over axes that give each kind its name.

| function      | statistics of x (N, C, ...) are taken over  | weight and bias have the shape of |
|---------------|---------------------------------------------|-----------------------------------|
| batch_norm    | N and all axes after C, for each channel    | (C,)                              |
| instance_norm | all axes after C, for each row and channel  | (C,)                              |
| group_norm    | a group of channels and all axes after C    | (C,)                              |
| layer_norm    | the last axes, named by their shape         | those axes                        |
| rms_norm      | the same, without subtracting the mean      | those axes                        |

`local_response_norm` divides by the size of the channels around each, without a mean to subtract or parameters.
Arguments and defaults are PyTorch's. Variances divide by n, not n − 1, save the running variance of batch_norm. They
are means of squared distances from the mean, not E[x²] − E[x]², which cancels. float16 and bfloat16 are computed in
float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.custom import custom_vjp
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import pad, reshape, sum
from chainrule.primitives.operators import cast_to


class BatchNormalised(NamedTuple):
    """What `batch_norm` returns: the result, and the running statistics (C,) after this batch."""

    y: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None


def _mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return sum(x, axes=axes) / int(np.prod([x.shape[a] for a in axes], dtype=np.int64))


def _moments(x: Tensor, mean: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x minus its mean, and its variance; the axes are kept with extent 1."""
    centred = x - mean
    return centred, _mean(centred * centred, axes)


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x − mean) / √(variance + eps), with the derivative that needs two sums and one pass over x; mean and variance.

    With s = 1 / √(variance + eps): dx = s · (dy − mean(dy) − y · mean(dy · y)). Source: Ioffe and Szegedy (2015),
    section 3, put together.
    """

    def rule(dy: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor]:
        scale = 1 / e.sqrt(_moments(x, _mean(x, axes), axes)[1] + eps)
        return (scale * (dy - _mean(dy, axes) - y * _mean(dy * y, axes)),)

    still = stop_gradient(x)
    mean = _mean(still, axes)
    centred, variance = _moments(still, mean, axes)
    return custom_vjp(lambda x: _divided(centred, variance, eps), rule)(x), mean, variance


def _divided(centred: Tensor, variance: Tensor, eps: float) -> Tensor:
    return centred * (1 / e.sqrt(variance + eps))


def _affinely(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """y · weight + bias, all broadcasting."""
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _affine(name: str, given: Any, expected: Shape, shape: Shape, argument: str) -> Tensor | None:
    """A weight or bias, checked to be of shape `expected`, in the shape that broadcasts against the input."""
    if given is None:
        return None
    given = as_tensor(given)
    if given.shape != expected:
        raise ShapeError(f"{name}: {argument} has shape {given.shape}; expected {expected}, one for each feature.")
    return given if given.shape == shape else reshape(given, shape=shape)


def _last_axes(name: str, x: Tensor, normalized_shape: int | Sequence[int]) -> tuple[Shape, tuple[int, ...]]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"{name}: the input has shape {x.shape}, which does not end in normalized_shape={shape}. "
            "Give the extents of the last axes, over which the statistics are taken."
        )
    return shape, tuple(range(x.ndim - len(shape), x.ndim))


def _channels(name: str, x: Tensor) -> tuple[int, Shape]:
    """The number of channels, and the shape in which one number a channel broadcasts against x."""
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected (batch, channels, ...); got shape {x.shape}. Give a single row as x[None].")
    return x.shape[1], (1, x.shape[1], *(1,) * (x.ndim - 2))


@rounded_once
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each example over its last axes: (x − mean) / √(variance + eps) · weight + bias.

    x (..., *normalized_shape), weight and bias of `normalized_shape` -> the shape of x. Raises ShapeError when the
    shapes do not fit. Source: Ba et al., "Layer normalization" (2016).

    >>> import chainrule as cr
    >>> cr.layer_norm(cr.tensor([[1.0, 3.0], [5.0, 5.0]]), 2, eps=0.25).tolist()
    [[-0.894..., 0.894...], [0.0, 0.0]]
    """
    x = real("layer_norm", x)
    shape, axes = _last_axes("layer_norm", x, normalized_shape)
    weight = _affine("layer_norm", weight, shape, shape, "weight")
    bias = _affine("layer_norm", bias, shape, shape, "bias")
    return _affinely(_standardised(x, axes, eps)[0], weight, bias)


@rounded_once
def rms_norm(
    x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide each example by its root mean square over the last axes: x / √(mean(x²) + eps) · weight.

    x (..., *normalized_shape), weight of `normalized_shape` -> the shape of x. Without `eps`, that is the machine
    epsilon of the dtype it is computed in. Raises ShapeError when the shapes do not fit.
    Source: Zhang and Sennrich, "Root mean square layer normalization" (2019).

    >>> import chainrule as cr
    >>> cr.rms_norm(cr.tensor([1.0, 7.0]), 2).tolist()
    [0.2000..., 1.3999...]
    """
    x = real("rms_norm", x)
    shape, axes = _last_axes("rms_norm", x, normalized_shape)
    weight = _affine("rms_norm", weight, shape, shape, "weight")
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    return _affinely(_divided(x, _mean(x * x, axes), eps), weight, None)


@rounded_once
def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each example over groups of channels, then scale and shift each channel.

    x (N, C, ...), weight and bias (C,) -> the shape of x. Raises ShapeError when the shapes do not fit, ConfigError
    when C is not a multiple of `num_groups`. Source: Wu and He, "Group normalization" (2018).

    >>> import chainrule as cr
    >>> cr.group_norm(cr.tensor([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    x = real("group_norm", x)
    channels, shape = _channels("group_norm", x)
    if num_groups < 1 or channels % num_groups:
        raise ConfigError(
            f"group_norm: {channels} channels cannot be divided into num_groups={num_groups} equal groups."
        )
    group = int(np.prod(x.shape[1:], dtype=np.int64)) // num_groups
    y = reshape(_standardised(reshape(x, shape=(x.shape[0], num_groups, group)), (2,), eps)[0], shape=x.shape)
    weight = _affine("group_norm", weight, (channels,), shape, "weight")
    bias = _affine("group_norm", bias, (channels,), shape, "bias")
    return _affinely(y, weight, bias)


@rounded_once
def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each example over the axes after the channels.

    x (N, C, ...) with something after C, weight and bias (C,) -> the shape of x. With running statistics in place of
    those of the input, instance normalisation is `batch_norm(..., training=False)`. Raises ShapeError when the shapes
    do not fit, or when only one number is left to normalise. Source: Ulyanov et al., "Instance normalization" (2016).

    >>> import chainrule as cr
    >>> cr.instance_norm(cr.tensor([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0).tolist()
    [[[-1.0, 1.0], [-1.0, 1.0]]]
    """
    x = real("instance_norm", x)
    channels, shape = _channels("instance_norm", x)
    axes = tuple(range(2, x.ndim))
    if int(np.prod(x.shape[2:], dtype=np.int64)) < 2:
        raise ShapeError(f"instance_norm: shape {x.shape} leaves fewer than two numbers for each row and channel.")
    weight = _affine("instance_norm", weight, (channels,), shape, "weight")
    bias = _affine("instance_norm", bias, (channels,), shape, "bias")
    return _affinely(_standardised(x, axes, eps)[0], weight, bias)


@rounded_once
def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each element by a power of the mean square of the `size` channels around it.

    x (N, C, ...) -> the same shape: x / (k + alpha · mean of x² over the channels)^beta. Channels that are missing at
    the ends count as 0. For an even `size` one more is taken before than after. Raises ConfigError for a size below 1,
    ShapeError for fewer than two axes. Source: Krizhevsky et al., "ImageNet classification with deep convolutional
    neural networks" (2012), section 3.3.

    >>> import chainrule as cr
    >>> cr.local_response_norm(cr.tensor([[1.0, 2.0]]), 2, alpha=2.0, beta=1.0, k=0.0).tolist()
    [[1.0, 0.4...]]
    """
    x = real("local_response_norm", x)
    channels, _ = _channels("local_response_norm", x)
    if size < 1:
        raise ConfigError(f"local_response_norm: size={size} channels to take the mean over; expected 1 or more.")
    before, rest = size // 2, (0,) * (x.ndim - 2)
    squares = pad(x * x, low=(0, before, *rest), high=(0, size - 1 - before, *rest), interior=(0,) * x.ndim)
    total = squares[:, :channels]
    for i in range(1, size):
        total = total + squares[:, i : i + channels]
    return x * (k + total * (alpha / size)) ** -beta


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor | None = 0.1,
    eps: float = 1e-5,
    num_batches_tracked: int | Tensor | None = None,
) -> BatchNormalised:
    """Normalise each channel: by the statistics of this batch in training, by the running ones otherwise.

    x (N, C, ...), everything else (C,). Returns (y, running_mean, running_var); nothing changes in place. In training
    the running statistics move towards those of the batch, running + momentum · (batch − running), with the unbiased
    variance (n − 1), and carry no gradient; without any they stay None. With momentum=None they are the plain average
    of all batches: then `num_batches_tracked` says how many there are, this one included. Raises ShapeError when
    shapes do not fit or training has one number a channel, ConfigError when a needed statistic is missing. Source:
    Ioffe and Szegedy, "Batch normalization" (2015).

    >>> import chainrule as cr
    >>> x = cr.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, var = cr.batch_norm(x, cr.tensor([0.0, 0.0]), cr.tensor([1.0, 1.0]), training=True, eps=0.0)
    >>> y.tolist(), mean.tolist()
    ([[-1.0, -1.0], [1.0, 1.0]], [0.2..., 2.0])
    """
    x = real("batch_norm", x)
    channels, shape = _channels("batch_norm", x)
    weight = _affine("batch_norm", weight, (channels,), shape, "weight")
    bias = _affine("batch_norm", bias, (channels,), shape, "bias")
    old_mean = _affine("batch_norm", running_mean, (channels,), (channels,), "running_mean")
    old_var = _affine("batch_norm", running_var, (channels,), (channels,), "running_var")
    if (old_mean is None) != (old_var is None):
        raise ConfigError("batch_norm: give both running_mean and running_var, or neither.")
    dtype = dtypes.promote(*[t.dtype for t in (x, weight, bias) if t is not None])  # whatever the statistics have
    x = cast_to(x, dtypes.float32 if dtype in dtypes.HALVES else dtype)
    if not training:
        if old_mean is None or old_var is None:
            raise ConfigError("batch_norm: training=False normalises by running_mean and running_var; give both.")
        mean, variance = (reshape(cast_to(t, x.dtype), shape=shape) for t in (old_mean, old_var))
        y = _affinely(_divided(x - mean, variance, eps), weight, bias)
        return BatchNormalised(cast_to(y, dtype), old_mean, old_var)
    n = x.size // max(channels, 1)
    if n < 2:
        raise ShapeError(f"batch_norm: in training each channel needs more than one number; the input is {x.shape}.")
    axes = (0, *range(2, x.ndim))
    y, mean, variance = _standardised(x, axes, eps)
    y = cast_to(_affinely(y, weight, bias), dtype)
    if old_mean is None or old_var is None:
        return BatchNormalised(y, None, None)
    rate = _rate(momentum, num_batches_tracked)
    return BatchNormalised(y, _moved(old_mean, mean, rate), _moved(old_var, variance * (n / (n - 1)), rate))


def _rate(momentum: float | Tensor | None, batches: int | Tensor | None) -> float | Tensor:
    """How far the running statistics move towards those of the batch."""
    if momentum is not None:
        return momentum
    if batches is None:
        raise ConfigError(
            "batch_norm: momentum=None averages over all batches; give their number, num_batches_tracked."
        )
    return 1 / (cast_to(batches, dtypes.float64) if isinstance(batches, Tensor) else batches)


def _moved(running: Tensor, batch: Tensor, rate: float | Tensor) -> Tensor:
    """The running statistic after this batch, in its own dtype and without history."""
    new = (1 - rate) * running + rate * reshape(batch, shape=running.shape)
    return stop_gradient(cast_to(new, running.dtype))
