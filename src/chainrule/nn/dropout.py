"""Dropout: layers that draw random numbers in training."""

from collections.abc import Callable
from typing import ClassVar

from chainrule.core.tensor import Tensor
from chainrule.functions import dropping
from chainrule.functions.layers import dropout
from chainrule.nn.arguments import probability
from chainrule.nn.module import Module
from chainrule.random import Generator, default_generator


class _Dropout(Module):
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        self.p = probability(type(self).__name__, "p", p)
        self.generator = default_generator().split() if generator is None else generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return type(self).function(x, self.p, self.training, generator=self.generator)


class Dropout(_Dropout):
    """In training, sets each element to 0 with probability `p` and multiplies the others by 1 / (1 − p).

    Any shape; keeps it. In evaluation mode it hands its input on. It holds a random Generator of its own, which moves
    on with every call: `generator`, or one split off the default generator. `Module.seed` starts it afresh.
    Raises ConfigError for p outside [0, 1].
    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.Dropout(0.5)
    >>> sorted(set(layer(cr.ones((100,))).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(cr.ones((2,))).tolist()
    [1.0, 1.0]
    """

    function = staticmethod(dropout)


class Dropout1d(_Dropout):
    """In training, sets each channel to 0 with probability `p` and multiplies the others by 1 / (1 − p).

    x (N, C, L) or (C, L); keeps the shape. Its Generator and errors are those of `Dropout`; ShapeError for another
    number of axes. Source: Tompson et al., "Efficient object localization using convolutional networks" (2015).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Dropout1d(0.3).eval()(cr.ones((1, 1, 2))).tolist()
    [[[1.0, 1.0]]]
    """

    function = staticmethod(dropping.dropout1d)


class Dropout2d(_Dropout):
    """In training, sets each channel of an image to 0 with probability `p` and multiplies the others by 1 / (1 − p).

    x (N, C, H, W); keeps the shape. Otherwise as `Dropout1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> y = nn.Dropout2d(0.5)(cr.ones((8, 4, 5, 5)))
    >>> bool(cr.all(cr.min(y, axis=(2, 3)) == cr.max(y, axis=(2, 3))))
    True
    """

    function = staticmethod(dropping.dropout2d)


class Dropout3d(_Dropout):
    """In training, sets each channel of a volume to 0 with probability `p` and multiplies the others by 1 / (1 − p).

    x (N, C, D, H, W) or (C, D, H, W); keeps the shape. Otherwise as `Dropout1d`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Dropout3d(0.5)(cr.ones((2, 3, 4, 4, 4))).shape
    (2, 3, 4, 4, 4)
    """

    function = staticmethod(dropping.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout for networks of SELU units: keeps mean 0 and variance 1.

    Any shape; keeps it. In training, elements go to the floor of selu with probability `p`, then all are scaled and
    shifted. Its Generator and errors are those of `Dropout`. Source: Klambauer et al., "Self-normalizing neural
    networks" (2017).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> sorted(set(nn.AlphaDropout(0.5)(cr.zeros(100)).tolist()))
    [-0.779..., 0.779...]
    """

    function = staticmethod(dropping.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels.

    x (N, C, ...); keeps the shape. Otherwise as `AlphaDropout`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.FeatureAlphaDropout(0.5)(cr.ones((2, 3, 4))).shape
    (2, 3, 4)
    """

    function = staticmethod(dropping.feature_alpha_dropout)
