"""Cells: one step of the recurrent layers, for loops of one's own."""

from typing import Any, ClassVar

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ShapeError
from chainrule.functions.layers import linear
from chainrule.functions.recurrent import gru_step, lstm_step, rnn_step
from chainrule.nn.arguments import size
from chainrule.nn.module import Module
from chainrule.nn.recurrent import State, Weights, gru_biases, known_nonlinearity, start
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import cast_to
from chainrule.random import Generator


class _Cell(Module):
    gates: ClassVar[int]
    states: ClassVar[int] = 1
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.input_size = size(type(self).__name__, "input_size", input_size, least=1)
        self.hidden_size = size(type(self).__name__, "hidden_size", hidden_size, least=1)
        rows = self.gates * hidden_size
        bias_shape = (rows,) if bias else None
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        start(self, {**shapes, "bias_ih": bias_shape, "bias_hh": bias_shape}, hidden_size, generator, dtype)

    def _new(self, input: Any, hx: Any) -> State:
        """The new state."""
        x = as_tensor(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self.label} expects (batch, {self.input_size}) or ({self.input_size},), got shape {x.shape}."
            )
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        batch, expected = x.shape[:-1], (*x.shape[:-1], self.hidden_size)
        z = linear(reshape(x, shape=(*(batch or (1,)), self.input_size)), weights.ih, self._bias(weights))
        given = [full(expected, 0, z.dtype)] * self.states if hx is None else [as_tensor(s) for s in hx]
        if [s.shape for s in given] != [expected] * self.states:
            shapes = ", ".join(str(s.shape) for s in given)
            raise ShapeError(f"{self.label}: the state has shape {shapes}; expected is {expected}.")
        state = tuple([reshape(cast_to(s, z.dtype), shape=(*(batch or (1,)), self.hidden_size)) for s in given])
        return tuple([reshape(s, shape=expected) for s in self._step(z, state, weights)])

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        raise NotImplementedError

    def _bias(self, weights: Weights) -> Tensor | None:
        return None if weights.bias_ih is None or weights.bias_hh is None else weights.bias_ih + weights.bias_hh


class RNNCell(_Cell):
    """One step of an RNN: tanh(x · weight_ihᵀ + bias_ih + h · weight_hhᵀ + bias_hh), or relu.

    input (batch, input_size) or (input_size,); hx (batch, hidden_size) or (hidden_size,), zeros when it is not given.
    Returns the new state. Parameters start uniform in ±1/√hidden_size. Raises ShapeError, ConfigError.
    Source: Elman, "Finding structure in time" (1990).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.RNNCell(3, 4)(cr.ones((2, 3))).shape
    (2, 4)
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.nonlinearity = known_nonlinearity("RNNCell", nonlinearity)
        super().__init__(input_size, hidden_size, bias, dtype, generator)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The new state."""
        return self._new(input, None if hx is None else (hx,))[0]

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return (rnn_step(z, state[0], weights.hh, self.nonlinearity),)


class LSTMCell(_Cell):
    """One step of an LSTM: from the input and a pair (h, c) to a new pair. Otherwise as RNNCell; formulas: see LSTM.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> cell = nn.LSTMCell(3, 4)
    >>> (h, c), outputs = cr.scan(lambda s, x: ((s := cell(x, s)), s[0]), cell(cr.ones((2, 3))), cr.ones((5, 2, 3)))
    >>> h.shape, outputs.shape
    ((2, 4), (5, 2, 4))
    """

    gates, states = 4, 2

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The new pair (h, c)."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ShapeError(f"{self.label}: hx is a pair (h, c), got {type(hx).__name__}.")
        h, c = self._new(input, hx)
        return h, c

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return lstm_step(z, state[0], state[1], weights.hh)


class GRUCell(_Cell):
    """One step of a GRU: from the input and the state to the new state. Otherwise as RNNCell; formulas: see GRU.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.GRUCell(3, 4)(cr.ones(3), cr.ones(4)).shape
    (4,)
    """

    gates = 3

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """The new state."""
        return self._new(input, None if hx is None else (hx,))[0]

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return (gru_step(z, state[0], weights.hh, gru_biases(weights)[1]),)

    def _bias(self, weights: Weights) -> Tensor | None:
        return gru_biases(weights)[0]
