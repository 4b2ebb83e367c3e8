"""Layers that change the resolution, or move space into channels and back. See chainrule.functions.resampling."""

from collections.abc import Sequence

from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError
from chainrule.functions import rearranging, resampling
from chainrule.functions.rearranging import Numbers
from chainrule.nn.arguments import size as whole
from chainrule.nn.module import Module


class Upsample(Module):
    """The same signal, image or volume with other extents; what decoders use between convolutions.

    x (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> (N, C, *size). Give `size`, or `scale_factor`. Modes: "nearest",
    "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"; they are told apart in `cr.interpolate`.
    Raises ConfigError for arguments that do not go together, ShapeError for another number of axes.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Upsample(scale_factor=2)(cr.tensor([[[1.0, 3.0]]])).tolist()
    [[[1.0, 1.0, 3.0, 3.0]]]
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ConfigError("Upsample: give either size or scale_factor.")
        if mode not in resampling.MODES:
            raise ConfigError(f"Upsample: mode {mode!r} is unknown. Modes: {', '.join(resampling.MODES)}.")
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale_factor = tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *space')."""
        return resampling.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )


class PixelShuffle(Module):
    """Channels into space: each r · r channels become one channel of r times the extents, r = `upscale_factor`.

    x (..., C · r², H, W) -> (..., C, H · r, W · r). Raises ShapeError unless r² divides the channels. Source: Shi et
    al., "Real-time single image and video super-resolution" (2016).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.PixelShuffle(2)(cr.ones((5, 8, 3, 3))).shape
    (5, 2, 6, 6)
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = whole("PixelShuffle", "upscale_factor", upscale_factor, least=1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C · r², H, W) -> (..., C, H · r, W · r)."""
        return rearranging.pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(Module):
    """Space into channels, the inverse of `PixelShuffle`: each block of r · r pixels becomes r² channels.

    x (..., C, H · r, W · r) -> (..., C · r², H, W), r = `downscale_factor`. Raises ShapeError unless r divides H and W.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.PixelUnshuffle(2)(cr.ones((5, 2, 6, 6))).shape
    (5, 8, 3, 3)
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = whole("PixelUnshuffle", "downscale_factor", downscale_factor, least=1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H · r, W · r) -> (..., C · r², H, W)."""
        return rearranging.pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(Module):
    """Deals out the channels, so that the next grouped convolution sees some of every group.

    x (N, C, ...); keeps the shape. Raises ShapeError unless `groups` divides C. Source: Zhang et al., "ShuffleNet: an
    extremely efficient convolutional neural network for mobile devices" (2018).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ChannelShuffle(2)(cr.tensor([[1, 2, 3, 4]])).tolist()
    [[1, 3, 2, 4]]
    """

    def __init__(self, groups: int) -> None:
        self.groups = whole("ChannelShuffle", "groups", groups, least=1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return rearranging.channel_shuffle(x, self.groups)


class Unfold(Module):
    """The windows of an image as columns: (N, C, H, W) or (C, H, W) -> (N, C · KH · KW, windows).

    Patches for a transformer are Unfold(p, stride=p). Raises ShapeError when no window fits, ConfigError for settings
    that make no sense.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Unfold(4, stride=4)(cr.ones((2, 3, 32, 32))).shape
    (2, 48, 64)
    """

    def __init__(self, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1) -> None:
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C · KH · KW, windows), or both without N."""
        return rearranging.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Module):
    """Columns back to an image, where windows overlap their sums: (N, C · KH · KW, windows) -> (N, C, *output_size).

    The transpose of `Unfold`, not its inverse. Raises ShapeError when rows or windows are not as many as `Unfold` gives
    for these settings, ConfigError for settings that make no sense.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Fold((32, 32), 4, stride=4)(cr.ones((2, 48, 64))).shape
    (2, 3, 32, 32)
    """

    def __init__(
        self,
        output_size: Numbers,
        kernel_size: Numbers,
        dilation: Numbers = 1,
        padding: Numbers = 0,
        stride: Numbers = 1,
    ) -> None:
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C · KH · KW, windows) -> (N, C, *output_size), or both without N."""
        return rearranging.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
