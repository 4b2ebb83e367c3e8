"""Convolution and transposed convolution over one, two and three axes of space, with PyTorch's arguments.

Both are one primitive, `convolve`, on channels that stand last. A transposed convolution of stride s is a convolution
of stride 1 over an input with s − 1 zeros between its elements, by the kernel turned around. What is called
convolution is, as everywhere in this field, a cross-correlation: the kernel is not turned around.
"""

from collections.abc import Sequence
from typing import Any, Literal

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.lifting import real
from chainrule.functions.precision import rounded_once
from chainrule.functions.windows import AXES_NAMED, batched, channels_first, channels_last, per_axis, unbatched
from chainrule.primitives.convolve import convolve
from chainrule.primitives.layout import flip, reshape, transpose
from chainrule.primitives.operators import cast_to

Numbers = int | Sequence[int]
Padding = Numbers | Literal["same", "valid"]


def reach_of(kernel: Shape, dilation: Shape) -> Shape:
    """How many elements a kernel covers along each axis, from its first tap to its last."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def sides_of(name: str, padding: Any, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[Shape, Shape]:
    """How much is added in front of and behind each axis; "same" keeps extents, the odd element comes behind."""
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    if padding == "same":
        if max(stride) > 1:
            raise ConfigError(f'{name}: padding="same" keeps the extents, which stride={stride} reduces; give numbers.')
        total = [r - 1 for r in reach_of(kernel, dilation)]
        return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    if isinstance(padding, str):
        raise ConfigError(f'{name}: padding is "same", "valid" or whole numbers; got {padding!r}.')
    numbers = per_axis(name, "padding", padding, len(kernel), least=0)
    return numbers, numbers


def _operands(name: str, axes: int, x: Any, weight: Any) -> tuple[Tensor, Tensor, bool]:
    """The input with a batch axis, the kernel, both of one dtype, and whether the batch axis was there."""
    x, weight = real(name, x), real(name, weight)
    dtype = dtypes.promote(x.dtype, weight.dtype)
    x, is_batch = batched(name, cast_to(x, dtype), axes)
    if weight.ndim != axes + 2 or min(weight.shape[2:]) < 1:
        kinds = "(in, out / groups" if "transpose" in name else "(out, in / groups"
        raise ShapeError(
            f"{name}: the weight has shape {weight.shape}; expected {kinds}, {AXES_NAMED[axes]}), kernels not empty."
        )
    return x, cast_to(weight, dtype), is_batch


def _groups(name: str, groups: Any) -> int:
    return per_axis(name, "groups", groups, 1)[0]


def _finished(name: str, y: Tensor, bias: Any, is_batch: bool) -> Tensor:
    """(N, *space, groups, out) -> (N, C, *space), with the bias added while channels stand last."""
    channels = y.shape[-2] * y.shape[-1]
    y = reshape(y, shape=(*y.shape[:-2], channels))
    if bias is not None:
        bias = real(name, bias)
        if bias.shape != (channels,):
            raise ShapeError(f"{name}: bias has shape {bias.shape}; expected {(channels,)}, one for each channel out.")
        y = y + bias
    return unbatched(channels_first(y), is_batch)


def _convolved(
    name: str,
    axes: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Tensor:
    x, weight, is_batch = _operands(name, axes, x, weight)
    groups = _groups(name, groups)
    stride, dilation = per_axis(name, "stride", stride, axes), per_axis(name, "dilation", dilation, axes)
    out, inside, *kernel = weight.shape
    if out % groups or x.shape[1] != inside * groups:
        raise ShapeError(
            f"{name}: input of shape {x.shape} and weight of shape {weight.shape} do not fit with groups={groups}. "
            f"Expected {inside * groups} channels (weight.shape[1] · groups), and weight.shape[0] a multiple of groups."
        )
    low, high = sides_of(name, padding, tuple(kernel), stride, dilation)
    reach = reach_of(tuple(kernel), dilation)
    if any(n + a + b < r for n, a, b, r in zip(x.shape[2:], low, high, reach, strict=True)):
        raise ShapeError(
            f"{name}: a kernel that reaches over {reach} elements does not fit into an input of shape {x.shape} padded "
            f"by {low} and {high}. Use a smaller kernel or dilation, or more padding."
        )
    x = channels_last(x)
    x = reshape(x, shape=(*x.shape[:-1], groups, inside))
    w = reshape(weight, shape=(groups, out // groups, inside, *kernel))
    w = transpose(w, axes=(*range(3, axes + 3), 0, 2, 1))  # (*kernel, groups, in, out)
    ones = (1,) * axes
    y = convolve(x, w, strides=stride, low=low, high=high, input_step=ones, kernel_step=dilation)
    return _finished(name, y, bias, is_batch)


def _convolved_transposed(
    name: str,
    axes: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> Tensor:
    x, weight, is_batch = _operands(name, axes, x, weight)
    groups = _groups(name, groups)
    stride, dilation = per_axis(name, "stride", stride, axes), per_axis(name, "dilation", dilation, axes)
    padding = per_axis(name, "padding", padding, axes, least=0)
    more = per_axis(name, "output_padding", output_padding, axes, least=0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ConfigError(
            f"{name}: output_padding={more} must be smaller than stride={stride} or dilation={dilation}: it chooses "
            "among the extents that a convolution of that stride makes equal."
        )
    channels, out, *kernel = weight.shape
    if channels % groups or x.shape[1] != channels:
        raise ShapeError(
            f"{name}: input of shape {x.shape} and weight of shape {weight.shape} do not fit with groups={groups}. "
            f"Expected {channels} channels (weight.shape[0]), a multiple of groups."
        )
    reach = reach_of(tuple(kernel), dilation)
    low = tuple(r - 1 - p for r, p in zip(reach, padding, strict=True))
    high = tuple(a + m for a, m in zip(low, more, strict=True))
    size = tuple(
        (n - 1) * s + a + b + 2 - r for n, s, a, b, r in zip(x.shape[2:], stride, low, high, reach, strict=True)
    )
    if min(size) < 1 or not min(x.shape[2:]):
        raise ShapeError(f"{name}: from shape {x.shape}, extents {size} would come out. Use less padding.")
    x = channels_last(x)
    x = reshape(x, shape=(*x.shape[:-1], groups, channels // groups))
    w = reshape(weight, shape=(groups, channels // groups, out, *kernel))
    w = flip(transpose(w, axes=(*range(3, axes + 3), 0, 1, 2)), tuple(range(axes)))  # (*kernel, groups, in, out)
    ones = (1,) * axes
    y = convolve(x, w, strides=ones, low=low, high=high, input_step=stride, kernel_step=dilation)
    return _finished(name, y, bias, is_batch)


@rounded_once
def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over one axis of space: each output is a weighted sum over the window that the kernel covers.

    x (N, C, L) or (C, L), weight (out, C / groups, K), bias (out,) -> (N, out, L') with
    L' = ⌊(L + 2 · padding − dilation · (K − 1) − 1) / stride⌋ + 1. `padding` zeros are added at both ends; "same"
    keeps L, "valid" adds none. Raises ShapeError when shapes do not fit, ConfigError for settings that make no sense.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).

    >>> import chainrule as cr
    >>> cr.conv1d(cr.tensor([[[1.0, 2.0, 4.0, 8.0]]]), cr.tensor([[[-1.0, 1.0]]])).tolist()
    [[[1.0, 2.0, 4.0]]]
    """
    return _convolved("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@rounded_once
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over two axes of space, which is what image networks are made of.

    x (N, C, H, W) or (C, H, W), weight (out, C / groups, KH, KW), bias (out,) -> (N, out, H', W'); extents as in
    `conv1d`. Numbers are given once, or as (vertical, horizontal). With groups=C every channel is convolved by itself
    ("depthwise"). Raises ShapeError when shapes do not fit, ConfigError for settings that make no sense.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998).

    >>> import chainrule as cr
    >>> x = cr.reshape(cr.arange(9.0), (1, 1, 3, 3))
    >>> cr.conv2d(x, cr.ones((1, 1, 2, 2))).tolist()
    [[[[8.0, 12.0], [20.0, 24.0]]]]
    """
    return _convolved("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


@rounded_once
def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over three axes of space: volumes, or images in time.

    x (N, C, D, H, W) or (C, D, H, W), weight (out, C / groups, KD, KH, KW), bias (out,) -> (N, out, D', H', W');
    extents as in `conv1d`. Raises ShapeError when shapes do not fit, ConfigError for settings that make no sense.

    >>> import chainrule as cr
    >>> cr.conv3d(cr.ones((1, 2, 4, 4, 4)), cr.ones((3, 2, 2, 2, 2)), stride=2).shape
    (1, 3, 2, 2, 2)
    """
    return _convolved("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


@rounded_once
def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """Transposed convolution over one axis: what `conv1d` of these settings does to gradients. It makes longer.

    x (N, C, L) or (C, L), weight (C, out / groups, K), bias (out,) -> (N, out, L') with
    L' = (L − 1) · stride − 2 · padding + dilation · (K − 1) + output_padding + 1. Several inputs of a strided
    convolution give one extent; `output_padding`, less than the stride or the dilation, says which it was. Raises
    ShapeError when shapes do not fit, ConfigError for settings that make no sense. Source: Zeiler et al.,
    "Deconvolutional networks" (2010); Dumoulin and Visin (2016), section 4.

    >>> import chainrule as cr
    >>> cr.conv_transpose1d(cr.tensor([[[1.0, 3.0]]]), cr.tensor([[[1.0, 10.0]]]), stride=2).tolist()
    [[[1.0, 10.0, 3.0, 30.0]]]
    """
    return _convolved_transposed(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@rounded_once
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """Transposed convolution over two axes: the way up in autoencoders, generators and segmentation networks.

    x (N, C, H, W) or (C, H, W), weight (C, out / groups, KH, KW), bias (out,) -> (N, out, H', W'); extents and errors
    as in `conv_transpose1d`.

    >>> import chainrule as cr
    >>> cr.conv_transpose2d(cr.ones((1, 4, 7, 7)), cr.ones((4, 2, 3, 3)), stride=2, padding=1, output_padding=1).shape
    (1, 2, 14, 14)
    """
    return _convolved_transposed(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@rounded_once
def conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """Transposed convolution over three axes.

    x (N, C, D, H, W) or (C, D, H, W), weight (C, out / groups, KD, KH, KW), bias (out,) -> (N, out, D', H', W');
    extents and errors as in `conv_transpose1d`.

    >>> import chainrule as cr
    >>> cr.conv_transpose3d(cr.ones((1, 2, 3, 3, 3)), cr.ones((2, 1, 2, 2, 2)), stride=2).shape
    (1, 1, 6, 6, 6)
    """
    return _convolved_transposed(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )
