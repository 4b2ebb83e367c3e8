"""Dropout: layers that draw random numbers in training."""

from chainrule.core.tensor import Tensor
from chainrule.functions import layers as functions
from chainrule.nn.arguments import probability
from chainrule.nn.module import Module
from chainrule.random import Generator, default_generator


class Dropout(Module):
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

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        self.p = probability("Dropout", "p", p)
        self.generator = default_generator().split() if generator is None else generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functions.dropout(x, self.p, self.training, generator=self.generator)
