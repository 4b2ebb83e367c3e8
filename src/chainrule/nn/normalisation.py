"""Normalisation layers. What they compute is said in chainrule.functions.normalisation."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions import normalisation as functions
from chainrule.functions.statistics import mean, var
from chainrule.nn import arguments, init
from chainrule.nn.arguments import size, sizes
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter


class _ChannelNorm(Module):
    """What batch and instance normalisation share: a weight and a bias a channel, and running statistics."""

    axes_allowed: ClassVar[tuple[int, ...]]
    axes_named: ClassVar[str]
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        self.num_features = size(name, "num_features", num_features)
        self.eps, self.affine, self.track_running_stats = eps, affine, track_running_stats
        self.momentum = momentum
        shape = (self.num_features,)
        self.register_parameter("weight", Parameter(init.ones(shape, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(init.zeros(shape, dtype)) if affine else None)
        self.register_buffer("running_mean", init.zeros(shape, dtype) if track_running_stats else None)
        self.register_buffer("running_var", init.ones(shape, dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", full((), 0, dtypes.int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1, no batches."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean = init.zeros(self.running_mean.shape, self.running_mean.dtype)
            self.running_var = init.ones(self.running_var.shape, self.running_var.dtype)
            self.num_batches_tracked = full((), 0, dtypes.int64)

    def _checked(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in self.axes_allowed or x.shape[1] != self.num_features:
            expected = f"{self.axes_named} with C = {self.num_features}"
            raise ShapeError(f"{self.label} expects {expected}, got shape {x.shape}.")
        return x


class _BatchNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = dtypes.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; in training the running statistics move."""
        x = self._checked(x)
        by_batch = self.training or self.running_mean is None
        if by_batch and x.size <= self.num_features:
            raise ShapeError(
                f"{self.label}: in training each channel needs more than one number; the input has shape {x.shape}. "
                "Call eval() for predictions; in training, use larger batches or leave out the last one."
            )
        count = self.num_batches_tracked
        if self.training and count is not None:
            self.num_batches_tracked = count = count + 1
        y, self.running_mean, self.running_var = functions.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, self.momentum, self.eps, count
        )
        return y


class BatchNorm1d(_BatchNorm):
    """Normalises each channel over the batch: (x − mean) / √(variance + eps) · weight + bias.

    x (N, C) or (N, C, L) with C = `num_features`; keeps the shape. In training the mean and variance are those of the
    batch, and the running ones move towards them by `momentum` (None: their plain average over all batches); in
    evaluation the running ones are used. `affine` adds `weight` (C,) and `bias` (C,); without `track_running_stats`
    the batch's own statistics are always used. Raises ShapeError for another shape, and in training for a batch with
    one number a channel, whose variance means nothing. Source: Ioffe and Szegedy, "Batch normalization" (2015).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> layer(cr.tensor([[1.0, 10.0], [3.0, 30.0]])).tolist()
    [[-0.99..., -1.0], [0.99..., 1.0]]
    >>> layer.running_mean.tolist()
    [0.2..., 2.0]
    """

    axes_allowed = (2, 3)
    axes_named = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of images over the batch and both axes of space.

    x (N, C, H, W) with C = `num_features`; keeps the shape. Otherwise as `BatchNorm1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.BatchNorm2d(1)(cr.tensor([[[[1.0, 3.0]]], [[[1.0, 3.0]]]])).tolist()
    [[[[-0.99..., 0.99...]]], [[[-0.99..., 0.99...]]]]
    """

    axes_allowed = (4,)
    axes_named = "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of volumes over the batch and the three axes of space.

    x (N, C, D, H, W) with C = `num_features`; keeps the shape. Otherwise as `BatchNorm1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.BatchNorm3d(3)(cr.ones((2, 3, 4, 5, 6))).shape
    (2, 3, 4, 5, 6)
    """

    axes_allowed = (5,)
    axes_named = "(N, C, D, H, W)"


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: Any = dtypes.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; in training the running statistics, if any, move."""
        x = as_tensor(x)
        if x.ndim == self.axes_allowed[0] - 1:
            return self.forward(x[None])[0]
        x = self._checked(x)
        mean_now, var_now = self.running_mean, self.running_var
        if not self.training and mean_now is not None:
            return functions.batch_norm(x, mean_now, var_now, self.weight, self.bias, False, eps=self.eps).y
        space = tuple(range(2, x.ndim))
        if math.prod(x.shape[2:]) < 2:
            raise ShapeError(f"{self.label} normalises over positions and needs two or more, got shape {x.shape}.")
        if mean_now is not None and var_now is not None:
            rate = self.momentum or 0.0  # as in PyTorch, which does not count batches here either
            new_mean = (1 - rate) * mean_now + rate * mean(mean(x, axis=space), axis=0)
            new_var = (1 - rate) * var_now + rate * mean(var(x, axis=space, correction=1), axis=0)
            self.running_mean = stop_gradient(new_mean.astype(mean_now.dtype))
            self.running_var = stop_gradient(new_var.astype(var_now.dtype))
        return functions.instance_norm(x, self.weight, self.bias, self.eps)


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each example over its positions.

    x (N, C, L), or (C, L) for one example, with C = `num_features`; keeps the shape. `affine` adds `weight` (C,) and
    `bias` (C,). With `track_running_stats` the statistics of training are averaged, and used in evaluation.
    Raises ShapeError for another shape, and for one position, whose variance means nothing.
    Source: Ulyanov et al., "Instance normalization: the missing ingredient for fast stylization" (2016).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.InstanceNorm1d(1)(cr.tensor([[[1.0, 3.0]]])).tolist()
    [[[-0.99..., 0.99...]]]
    """

    axes_allowed = (3,)
    axes_named = "(N, C, L) or (C, L)"


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each image over both axes of space.

    x (N, C, H, W), or (C, H, W) for one image, with C = `num_features`; keeps the shape. Otherwise as
    `InstanceNorm1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.InstanceNorm2d(1)(cr.tensor([[[[1.0], [3.0]]]])).tolist()
    [[[[-0.99...], [0.99...]]]]
    """

    axes_allowed = (4,)
    axes_named = "(N, C, H, W) or (C, H, W)"


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each volume over the three axes of space.

    x (N, C, D, H, W), or (C, D, H, W) for one volume, with C = `num_features`; keeps the shape. Otherwise as
    `InstanceNorm1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.InstanceNorm3d(3, affine=True)(cr.ones((2, 3, 4, 5, 6))).shape
    (2, 3, 4, 5, 6)
    """

    axes_allowed = (5,)
    axes_named = "(N, C, D, H, W) or (C, D, H, W)"


class GroupNorm(Module):
    """Normalises each example over `num_groups` groups of its channels.

    x (N, C, ...) with C = `num_channels`; keeps the shape. `affine` adds `weight` (C,) and `bias` (C,).
    Raises ConfigError unless the groups divide the channels, ShapeError for another shape.
    Source: Wu and He, "Group normalization" (2018).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GroupNorm(2, 4)(cr.ones((3, 4, 5))).shape
    (3, 4, 5)
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = dtypes.float32,
    ) -> None:
        self.num_groups = size("GroupNorm", "num_groups", num_groups, least=1)
        self.num_channels = size("GroupNorm", "num_channels", num_channels)
        if num_channels % num_groups:
            raise ConfigError(f"GroupNorm: {num_channels} channels cannot be divided into {num_groups} equal groups.")
        self.eps, self.affine = eps, affine
        self.register_parameter("weight", Parameter(init.ones((num_channels,), dtype)) if affine else None)
        self.register_parameter("bias", Parameter(init.zeros((num_channels,), dtype)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = as_tensor(x)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(f"{self.label} expects (N, C, ...) with C = {self.num_channels}, got shape {x.shape}.")
        return functions.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(Module):
    """Normalises each example over its last axes, of shape `normalized_shape`: (x − mean) / √(variance + eps).

    x (..., *normalized_shape); keeps the shape. `elementwise_affine` adds `weight` and, unless bias=False, `bias`, both
    of `normalized_shape`. Raises ShapeError for another shape. Source: Ba et al., "Layer normalization" (2016).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LayerNorm(2)(cr.tensor([[1.0, 3.0]])).tolist()
    [[-0.99..., 0.99...]]
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = dtypes.float32,
    ) -> None:
        self.normalized_shape = shape = sizes("LayerNorm", "normalized_shape", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        has_bias = elementwise_affine and bias
        self.register_parameter("weight", Parameter(init.ones(shape, dtype)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(init.zeros(shape, dtype)) if has_bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = _ending(self, as_tensor(x), self.normalized_shape)
        return functions.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Divides each example by its root mean square over its last axes, of shape `normalized_shape`.

    x (..., *normalized_shape); keeps the shape. `elementwise_affine` adds `weight` of `normalized_shape`. With eps=None
    it is the machine epsilon of the dtype. Raises ShapeError for another shape.
    Source: Zhang and Sennrich, "Root mean square layer normalization" (2019).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.RMSNorm(2)(cr.tensor([[1.0, 7.0]])).tolist()
    [[0.2..., 1.39...]]
    """

    weight: Tensor | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = dtypes.float32,
    ) -> None:
        self.normalized_shape = shape = sizes("RMSNorm", "normalized_shape", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.register_parameter("weight", Parameter(init.ones(shape, dtype)) if elementwise_affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = _ending(self, as_tensor(x), self.normalized_shape)
        return functions.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class LocalResponseNorm(Module):
    """Divides each element by a power of the mean square of the `size` channels around it.

    x (N, C, ...); keeps the shape: x / (k + alpha · mean of x² over the channels)^beta, where channels that are missing
    at the ends count as 0. Raises ConfigError for a size below 1, ShapeError for fewer than two axes. Source:
    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (2012), section 3.3.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.LocalResponseNorm(1, alpha=3.0, beta=0.5)(cr.tensor([[1.0], [1.0]])).tolist()
    [[0.5], [0.5]]
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = arguments.size("LocalResponseNorm", "size", size, least=1)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functions.local_response_norm(as_tensor(x), self.size, self.alpha, self.beta, self.k)


def _ending(layer: Module, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{layer.label} expects a shape that ends in {shape}, got {x.shape}.")
    return x
