"""Pooling layers. What they compute is said in chainrule.functions.pooling and adaptive_pooling."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ShapeError
from chainrule.functions import adaptive_pooling, pooling
from chainrule.functions.pooling import Numbers
from chainrule.functions.statistics import mean
from chainrule.functions.windows import AXES_NAMED, per_axis
from chainrule.nn.module import Module

OutputSize = int | Sequence[int | None] | None


class _Pool(Module):
    """What windows share: their size, how far apart they lie, and the padding."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    def _set(self, kernel_size: Numbers, stride: Numbers | None, padding: Numbers) -> None:
        name = type(self).__name__
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.axes)
        self.stride = self.kernel_size if stride is None else per_axis(name, "stride", stride, self.axes)
        self.padding = per_axis(name, "padding", padding, self.axes, least=0)

    def extra_repr(self) -> str:
        """Size, stride and padding; other settings where they are not the usual ones."""
        usual = {
            "dilation": (1,) * self.axes,
            "return_indices": False,
            "ceil_mode": False,
            "count_include_pad": True,
            "divisor_override": None,
        }
        odd = [name for name, value in usual.items() if getattr(self, name, value) != value]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in ("kernel_size", "stride", "padding", *odd))


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Numbers,
        stride: Numbers | None = None,
        padding: Numbers = 0,
        dilation: Numbers = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self._set(kernel_size, stride, padding)
        self.dilation = per_axis(type(self).__name__, "dilation", dilation, self.axes)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        """(N, C, *space) -> (N, C, *space'), or both without N; with return_indices a pair."""
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return type(self).function(as_tensor(x), *settings)


class MaxPool1d(_MaxPool):
    """The largest element of each window along one axis.

    x (N, C, L) or (C, L) -> (N, C, L') with L' = ⌊(L + 2 · padding − dilation · (kernel_size − 1) − 1) / stride⌋ + 1;
    `ceil_mode` rounds up. Without `stride` windows lie side by side. `return_indices` adds where each stands. The
    gradient goes to the first of equal winners. Raises ConfigError for settings that make no sense, ShapeError for an
    input without room for a window.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.MaxPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 5.0]]])).tolist()
    [[[3.0, 5.0]]]
    """

    axes = 1
    function = staticmethod(pooling.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window over two axes.

    x (N, C, H, W) or (C, H, W) -> (N, C, H', W'). Settings are given once, or as (vertical, horizontal); they and
    errors are those of `MaxPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.MaxPool2d(3, stride=2, padding=1)(cr.ones((5, 8, 32, 32))).shape
    (5, 8, 16, 16)
    """

    axes = 2
    function = staticmethod(pooling.max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest element of each window over three axes.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W'). Settings and errors are those of `MaxPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.MaxPool3d((1, 2, 2))(cr.ones((2, 3, 4, 4, 4))).shape
    (2, 3, 4, 2, 2)
    """

    axes = 3
    function = staticmethod(pooling.max_pool3d)


class AvgPool1d(_Pool):
    """The average of each window along one axis.

    x (N, C, L) or (C, L) -> (N, C, L') with L' = ⌊(L + 2 · padding − kernel_size) / stride⌋ + 1; `ceil_mode` rounds up.
    Without `stride` windows lie side by side. Zeros of the padding count unless count_include_pad=False. Raises
    ConfigError for settings that make no sense, ShapeError for an input without room for a window.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AvgPool1d(2)(cr.tensor([[[1.0, 3.0, 2.0, 5.0]]])).tolist()
    [[[2.0, 3.5]]]
    """

    axes = 1

    def __init__(
        self,
        kernel_size: Numbers,
        stride: Numbers | None = None,
        padding: Numbers = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._set(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, L'), or both without N."""
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return pooling.avg_pool1d(as_tensor(x), *settings)


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Numbers,
        stride: Numbers | None = None,
        padding: Numbers = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._set(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *space'), or both without N."""
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return type(self).function(as_tensor(x), *settings, self.divisor_override)


class AvgPool2d(_AvgPool):
    """The average of each window over two axes.

    x (N, C, H, W) or (C, H, W) -> (N, C, H', W'). Settings are given once, or as (vertical, horizontal); they and
    errors are those of `AvgPool1d`. `divisor_override` divides all sums by one number.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AvgPool2d(2)(cr.ones((5, 8, 32, 32))).shape
    (5, 8, 16, 16)
    """

    axes = 2
    function = staticmethod(pooling.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The average of each window over three axes.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W'). Settings and errors are those of `AvgPool2d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AvgPool3d(2)(cr.ones((2, 3, 4, 4, 4))).shape
    (2, 3, 2, 2, 2)
    """

    axes = 3
    function = staticmethod(pooling.avg_pool3d)


class _AdaptiveAvgPool(Module):
    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = tuple(output_size) if isinstance(output_size, Sequence) else output_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *output_size), or both without N."""
        return type(self).function(as_tensor(x), self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Averages along one axis, `output_size` of them, whatever the extent.

    x (N, C, L) or (C, L) -> (N, C, output_size). Raises ConfigError for a size that is no positive whole number,
    ShapeError for an input that does not fit.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveAvgPool1d(2)(cr.tensor([[[1.0, 3.0, 5.0]]])).tolist()
    [[[2.0, 4.0]]]
    """

    function = staticmethod(adaptive_pooling.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Averages over two axes, (H', W') of them, whatever the extents.

    x (N, C, H, W) or (C, H, W) -> (N, C, *output_size); one number stands for both, None keeps an extent. Errors as
    for `AdaptiveAvgPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveAvgPool2d(1)(cr.ones((5, 8, 7, 9))).shape
    (5, 8, 1, 1)
    """

    function = staticmethod(adaptive_pooling.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Averages over three axes, (D', H', W') of them, whatever the extents.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, *output_size), as `AdaptiveAvgPool2d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveAvgPool3d((1, None, None))(cr.ones((2, 3, 4, 5, 6))).shape
    (2, 3, 1, 5, 6)
    """

    function = staticmethod(adaptive_pooling.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        self.output_size = tuple(output_size) if isinstance(output_size, Sequence) else output_size
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """(N, C, *space) -> (N, C, *output_size), or both without N; with return_indices a pair."""
        return type(self).function(as_tensor(x), self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements along one axis, `output_size` of them, whatever the extent.

    x (N, C, L) or (C, L) -> (N, C, output_size); `return_indices` adds where each stands. The gradient goes to the
    first of equal winners. Errors as for `AdaptiveAvgPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveMaxPool1d(2)(cr.tensor([[[1.0, 3.0, 5.0]]])).tolist()
    [[[3.0, 5.0]]]
    """

    function = staticmethod(adaptive_pooling.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements over two axes, (H', W') of them, whatever the extents.

    x (N, C, H, W) or (C, H, W) -> (N, C, *output_size); one number stands for both, None keeps an extent. Otherwise as
    `AdaptiveMaxPool1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveMaxPool2d((2, None))(cr.ones((5, 8, 7, 9))).shape
    (5, 8, 2, 9)
    """

    function = staticmethod(adaptive_pooling.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements over three axes, (D', H', W') of them, whatever the extents.

    x (N, C, D, H, W) or (C, D, H, W) -> (N, C, *output_size), as `AdaptiveMaxPool2d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.AdaptiveMaxPool3d(2)(cr.ones((2, 3, 4, 5, 6))).shape
    (2, 3, 2, 2, 2)
    """

    function = staticmethod(adaptive_pooling.adaptive_max_pool3d)


class _GlobalAvgPool(Module):
    axes: ClassVar[int]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C), or (C, *space) -> (C,)."""
        x = as_tensor(x)
        if x.ndim not in (self.axes + 1, self.axes + 2) or not min(x.shape[-self.axes :]):
            named = AXES_NAMED[self.axes]
            raise ShapeError(f"{self.label} expects (N, C, {named}) or (C, {named}), not empty; got shape {x.shape}.")
        return mean(x, axis=tuple(range(-self.axes, 0)))


class GlobalAvgPool1d(_GlobalAvgPool):
    """The average of each channel over its axis of space, which goes: (N, C, L) -> (N, C), or (C, L) -> (C,).

    Between convolutions and a classifier it takes the place of AdaptiveAvgPool1d(1) and Flatten. Raises ShapeError for
    another shape. Source: Lin et al., "Network in network" (2014), section 3.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GlobalAvgPool1d()(cr.tensor([[[1.0, 3.0], [5.0, 9.0]]])).tolist()
    [[2.0, 7.0]]
    """

    axes = 1


class GlobalAvgPool2d(_GlobalAvgPool):
    """The average of each channel over both axes of space, which go: (N, C, H, W) -> (N, C), or (C, H, W) -> (C,).

    Between convolutions and a classifier it takes the place of AdaptiveAvgPool2d(1) and Flatten. Raises ShapeError for
    another shape. Source: Lin et al., "Network in network" (2014), section 3.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GlobalAvgPool2d()(cr.ones((5, 8, 7, 9))).shape
    (5, 8)
    """

    axes = 2


class GlobalAvgPool3d(_GlobalAvgPool):
    """The average of each channel over all axes of space, which go: (N, C, D, H, W) -> (N, C), or without N.

    Between convolutions and a classifier it takes the place of AdaptiveAvgPool3d(1) and Flatten. Raises ShapeError for
    another shape. Source: Lin et al., "Network in network" (2014), section 3.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GlobalAvgPool3d()(cr.ones((5, 8, 3, 7, 9))).shape
    (5, 8)
    """

    axes = 3
