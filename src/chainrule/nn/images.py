"""What stands in front of a network for images: pixels as numbers, and images changed at random in training.

The random layers are Modules like Dropout: each holds a Generator, draws inside of the compiled step, and hands its
input on in evaluation mode. So a training with them repeats to the bit, interrupted and resumed or not.
"""

import math

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.choice import where
from chainrule.functions.creation import arange
from chainrule.functions.manipulation import flip, pad
from chainrule.nn.arguments import probability, size
from chainrule.nn.module import Module
from chainrule.primitives import index
from chainrule.primitives.layout import reshape, transpose
from chainrule.primitives.operators import cast_to
from chainrule.random import Generator, default_generator


class Pixels(Module):
    """Images as they lie in memory to what layers take: (x − shift) / scale, with the channels in front.

    (rows, height, width) -> (rows, 1, height, width); (rows, channels, height, width) as it is, or with
    `channels_last` (rows, height, width, channels) -> (rows, channels, height, width). Bytes and other integers become
    float32, so that data sets can stay as small as they were stored; floating-point numbers keep their dtype.
    Raises ConfigError for a scale that is not positive, ShapeError for other ranks.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> images = np.full((5, 28, 28), 51, np.uint8)
    >>> x = nn.Pixels()(cr.tensor(images))
    >>> x.shape, x.dtype.name, round(x[0, 0, 0, 0].item(), 6)
    ((5, 1, 28, 28), 'float32', 0.2)
    """

    def __init__(self, scale: float = 255.0, shift: float = 0.0, channels_last: bool = False) -> None:
        if not (math.isfinite(scale) and scale > 0 and math.isfinite(shift)):
            raise ConfigError(
                f"Pixels: (x − shift) / scale needs a finite shift and a positive scale: {shift}, {scale}."
            )
        self.scale, self.shift, self.channels_last = float(scale), float(shift), channels_last

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, height, width)."""
        if x.ndim not in (3, 4):
            raise ShapeError(
                f"{self.label} takes images (rows, height, width) or with channels in addition; got shape {x.shape}."
            )
        if x.ndim == 3:
            x = reshape(x, shape=(x.shape[0], 1, *x.shape[1:]))
        elif self.channels_last:
            x = transpose(x, axes=(0, 3, 1, 2))
        x = x if dtypes.is_float(x.dtype) else cast_to(x, dtypes.float32)
        x = x - self.shift if self.shift else x
        return x / self.scale if self.scale != 1 else x


class RandomShift(Module):
    """In training, moves each image by up to `pixels` places up or down and left or right, each way alike likely.

    (rows, ..., height, width), keeps it; zeros come in at the edges. The same as a random crop of the image with zeros
    around it. It holds a Generator of its own, like Dropout. Raises ConfigError for a negative number of pixels,
    ShapeError for a tensor that holds no images.
    Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009); He et al., "Deep residual
    learning for image recognition" (2015), section 4.2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.RandomShift(1, generator=cr.random.Generator(3))
    >>> layer(cr.ones((1, 1, 3, 3)))[0, 0].tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    >>> layer.eval()(cr.ones((1, 1, 1, 2))).tolist()
    [[[[1.0, 1.0]]]]
    """

    def __init__(self, pixels: int, generator: Generator | None = None) -> None:
        self.pixels = size("RandomShift", "pixels", pixels)
        self.generator = default_generator().split() if generator is None else generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        rows, planes, height, width = image_axes(self, x)
        if not (self.training and self.pixels and x.size):
            return x
        around = (self.pixels, self.pixels)
        padded = pad(x, [(0, 0)] * (x.ndim - 2) + [around, around])
        corner = self.generator.randint(0, 2 * self.pixels + 1, (2, rows, 1, 1, 1))
        # The position of each pixel in the padded images, laid out flat: one gather moves all images.
        plane = reshape(arange(rows * planes), shape=(rows, planes, 1, 1))
        row = plane * (height + 2 * self.pixels) + reshape(arange(height), shape=(height, 1)) + corner[0]
        position = row * (width + 2 * self.pixels) + arange(width) + corner[1]
        return index.take(reshape(padded, shape=(padded.size,)), reshape(position, shape=x.shape))


class RandomHorizontalFlip(Module):
    """In training, mirrors each image left to right with probability `p`.

    (rows, ..., height, width), keeps it. For things that look alike from both sides (clothes, animals), not for
    writing. It holds a Generator of its own, like Dropout. Raises ConfigError for p outside [0, 1], ShapeError for a
    tensor that holds no images.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> x = cr.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> nn.RandomHorizontalFlip(1.0)(x).tolist()
    [[[[3.0, 2.0, 1.0]]]]
    """

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        self.p = probability("RandomHorizontalFlip", "p", p)
        self.generator = default_generator().split() if generator is None else generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        rows = image_axes(self, x)[0]
        if not (self.training and self.p):
            return x
        chosen = self.generator.bernoulli(self.p, (rows,) + (1,) * (x.ndim - 1))
        return where(chosen, flip(x, axis=-1), x)


def image_axes(layer: Module, x: Tensor) -> Shape:
    """How many images there are, planes in each, and their height and width. ShapeError where x holds no images."""
    if x.ndim < 3:
        raise ShapeError(f"{layer.label} takes images (rows, ..., height, width); got shape {x.shape}.")
    return x.shape[0], math.prod(x.shape[1:-2]), x.shape[-2], x.shape[-1]
