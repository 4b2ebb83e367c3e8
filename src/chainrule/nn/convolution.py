"""Convolutional layers. What they compute is said in chainrule.functions.convolution."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions import convolution as functions
from chainrule.functions.convolution import Numbers, Padding
from chainrule.functions.manipulation import pad
from chainrule.functions.windows import AXES_NAMED, per_axis
from chainrule.nn import init
from chainrule.nn.arguments import size
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.random import Generator

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class _Convolution(Module):
    """What convolutions and transposed ones share: settings, weight and bias, and what comes in."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]
    weight: Tensor
    bias: Tensor | None

    def _set(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers,
        dilation: Numbers,
        groups: int,
        padding_mode: str,
    ) -> None:
        name = type(self).__name__
        self.in_channels = size(name, "in_channels", in_channels, least=1)
        self.out_channels = size(name, "out_channels", out_channels, least=1)
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.axes)
        self.stride = per_axis(name, "stride", stride, self.axes)
        self.dilation = per_axis(name, "dilation", dilation, self.axes)
        self.groups = size(name, "groups", groups, least=1)
        self.padding_mode = padding_mode
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{name}: in_channels={in_channels} and out_channels={out_channels} must both be multiples of "
                f"groups={groups}."
            )

    def _start(self, first: int, second: int, bias: bool, generator: Generator | None, dtype: Any) -> None:
        """Draw a weight (first, second, *kernel_size) and a bias as PyTorch does, uniform in ±1/√fan_in."""
        shape = (first, second, *self.kernel_size)
        self.weight = Parameter(init.kaiming_uniform(shape, math.sqrt(5), generator=generator, dtype=dtype))
        bound = 1 / math.sqrt(init.fans(shape)[0])
        drawn = Parameter(init.uniform((self.out_channels,), -bound, bound, generator, dtype)) if bias else None
        self.register_parameter("bias", drawn)

    def _checked(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in (self.axes + 1, self.axes + 2) or x.shape[-self.axes - 1] != self.in_channels:
            named = AXES_NAMED[self.axes]
            expected = f"(N, C, {named}) or (C, {named}) with C = {self.in_channels}"
            raise ShapeError(f"{self.label} expects {expected}, got shape {x.shape}.")
        return x

    def extra_repr(self) -> str:
        """Channels, kernel and stride; other settings where they are not the usual ones."""
        usual = {
            "padding": (0,) * self.axes,
            "output_padding": (0,) * self.axes,
            "dilation": (1,) * self.axes,
            "groups": 1,
            "padding_mode": "zeros",
        }
        always = ("in_channels", "out_channels", "kernel_size", "stride")
        odd = [name for name, value in usual.items() if getattr(self, name, value) != value]
        shown = [f"{name}={getattr(self, name)!r}" for name in (*always, *odd)]
        return ", ".join(shown if self.bias is not None else [*shown, "bias=False"])


class _Conv(_Convolution):
    padding: tuple[int, ...] | str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Padding = 0,
        dilation: Numbers = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self._set(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        name = type(self).__name__
        if padding_mode not in PADDING_MODES:
            raise ConfigError(f"{name}: padding_mode {padding_mode!r} is unknown. Modes: {', '.join(PADDING_MODES)}.")
        # Asked for now, so that a setting that makes no sense is found where it is made.
        low, _ = functions.sides_of(name, padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else low
        self._start(out_channels, in_channels // groups, bias, generator, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *space) -> (N, out_channels, *space'), or both without N."""
        x = self._checked(x)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            sides = functions.sides_of(self.label, padding, self.kernel_size, self.stride, self.dilation)
            around = [(0, 0)] * (x.ndim - self.axes) + list(zip(*sides, strict=True))
            x, padding = pad(x, around, PADDING_MODES[self.padding_mode]), 0
        return type(self).function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Convolution over one axis of space: the same small kernel at every place.

    x (N, in_channels, L) or (in_channels, L) -> (N, out_channels, L'), with
    L' = ⌊(L + 2 · padding − dilation · (kernel_size − 1) − 1) / stride⌋ + 1. `padding` is a number, "same" or "valid";
    `padding_mode` says what stands there: "zeros", "reflect", "replicate" or "circular". `weight`
    (out_channels, in_channels / groups, kernel_size) and `bias` (out_channels,), if any, start uniform in ±1/√fan_in,
    as in PyTorch. Raises ConfigError for settings that make no sense, ShapeError for another shape.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Conv1d(3, 8, kernel_size=5, padding="same")(cr.ones((2, 3, 20))).shape
    (2, 8, 20)
    """

    axes = 1
    function = staticmethod(functions.conv1d)


class Conv2d(_Conv):
    """Convolution over two axes of space, which is what image networks are made of.

    x (N, in_channels, H, W) or (in_channels, H, W) -> (N, out_channels, H', W'); `weight`
    (out_channels, in_channels / groups, KH, KW). Settings are given once, or as (vertical, horizontal); they, the
    initial values and errors are those of `Conv1d`. groups=in_channels is a depthwise convolution.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)(cr.ones((2, 3, 32, 32))).shape
    (2, 8, 16, 16)
    """

    axes = 2
    function = staticmethod(functions.conv2d)


class Conv3d(_Conv):
    """Convolution over three axes of space: volumes, or images in time.

    x (N, in_channels, D, H, W) or (in_channels, D, H, W) -> (N, out_channels, D', H', W'); `weight`
    (out_channels, in_channels / groups, KD, KH, KW). Settings, initial values and errors are those of `Conv1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Conv3d(1, 4, kernel_size=(1, 3, 3))(cr.ones((2, 1, 5, 8, 8))).shape
    (2, 4, 5, 6, 6)
    """

    axes = 3
    function = staticmethod(functions.conv3d)


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Numbers = 0,
        output_padding: Numbers = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Numbers = 1,
        padding_mode: str = "zeros",
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self._set(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        name = type(self).__name__
        if padding_mode != "zeros":
            raise ConfigError(f'{name}: a transposed convolution has padding_mode="zeros" only, not {padding_mode!r}.')
        self.padding = per_axis(name, "padding", padding, self.axes, least=0)
        self.output_padding = per_axis(name, "output_padding", output_padding, self.axes, least=0)
        self._start(in_channels, out_channels // groups, bias, generator, dtype)

    def forward(self, x: Tensor, output_size: int | Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, *space) -> (N, out_channels, *space'), or both without N.

        `output_size`, the extents of space' (with or without N and channels before), takes the place of
        `output_padding`: of the extents that a strided convolution makes equal it chooses one.
        """
        x = self._checked(x)
        more = self.output_padding if output_size is None else self._output_padding(x, output_size)
        settings = (self.stride, self.padding, more, self.groups, self.dilation)
        return type(self).function(x, self.weight, self.bias, *settings)

    def _output_padding(self, x: Tensor, output_size: int | Sequence[int]) -> tuple[int, ...]:
        given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
        wanted = per_axis(self.label, "output_size", given[-self.axes :] if len(given) > 1 else given, self.axes)
        space = x.shape[-self.axes :]
        settings = zip(space, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in settings]
        if any(not a <= n < a + s for a, n, s in zip(least, wanted, self.stride, strict=True)):
            most = tuple(a + s - 1 for a, s in zip(least, self.stride, strict=True))
            raise ShapeError(
                f"{self.label}: output_size={wanted} cannot come out of shape {x.shape}; possible are extents from "
                f"{tuple(least)} to {most}."
            )
        return tuple(n - a for n, a in zip(wanted, least, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over one axis: what a `Conv1d` of these settings does to gradients. It makes longer.

    x (N, in_channels, L) or (in_channels, L) -> (N, out_channels, L'), with
    L' = (L − 1) · stride − 2 · padding + dilation · (kernel_size − 1) + output_padding + 1. Called as layer(x, size),
    L' = size takes the place of `output_padding`. `weight` (in_channels, out_channels / groups, kernel_size) and `bias`
    (out_channels,), if any, start uniform in ±1/√fan_in, as in PyTorch. Raises ConfigError for settings that make no
    sense, ShapeError for another shape.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.ConvTranspose1d(8, 3, kernel_size=3, stride=2, padding=1)
    >>> layer(cr.ones((2, 8, 10))).shape, layer(cr.ones((2, 8, 10)), 20).shape
    ((2, 3, 19), (2, 3, 20))
    """

    axes = 1
    function = staticmethod(functions.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over two axes: the way up in autoencoders, generators and segmentation networks.

    x (N, in_channels, H, W) or (in_channels, H, W) -> (N, out_channels, H', W'); `weight`
    (in_channels, out_channels / groups, KH, KW). Settings, initial values and errors are those of `ConvTranspose1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1)(cr.ones((2, 8, 7, 7))).shape
    (2, 1, 14, 14)
    """

    axes = 2
    function = staticmethod(functions.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over three axes.

    x (N, in_channels, D, H, W) or (in_channels, D, H, W) -> (N, out_channels, D', H', W'); `weight`
    (in_channels, out_channels / groups, KD, KH, KW). Settings, initial values and errors are those of
    `ConvTranspose1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConvTranspose3d(2, 1, 2, stride=2)(cr.ones((1, 2, 3, 3, 3))).shape
    (1, 1, 6, 6, 6)
    """

    axes = 3
    function = staticmethod(functions.conv_transpose3d)
