"""Recurrent layers: RNN, LSTM and GRU.

PyTorch's arguments, parameters and results. The products with the inputs are one for all steps; the loop itself is a
`scan`, so graph and code do not grow with the sequence. A batch of sequences of several lengths is a PackedSequence.
"""

import math
import warnings
from typing import Any, ClassVar, NamedTuple

from chainrule import dtypes
from chainrule.control import scan
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.choice import where
from chainrule.functions.layers import dropout, linear
from chainrule.functions.manipulation import concat, stack
from chainrule.functions.recurrent import NONLINEARITIES, gru_step, lstm_step, rnn_step
from chainrule.nn import init
from chainrule.nn.arguments import probability, size
from chainrule.nn.module import Module
from chainrule.nn.packing import PackedSequence
from chainrule.nn.parameter import Parameter
from chainrule.primitives.layout import reshape, transpose
from chainrule.primitives.operators import cast_to
from chainrule.random import Generator, default_generator

State = tuple[Tensor, ...]


class Weights(NamedTuple):
    """The parameters of one layer in one direction, or of a cell."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    hr: Tensor | None = None


def start(module: Module, shapes: dict[str, tuple[int, ...] | None], hidden: int, generator: Any, dtype: Any) -> None:
    """Give a module its parameters, uniform in ±1/√hidden; None where there is none."""
    bound = 1 / math.sqrt(hidden)
    for name, shape in shapes.items():
        drawn = None if shape is None else Parameter(init.uniform(shape, -bound, bound, generator, dtype))
        module.register_parameter(name, drawn)


class _Recurrent(Module):
    """What the layers share: settings, parameters, and the way through layers and directions."""

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        self.input_size = size(name, "input_size", input_size, least=1)
        self.hidden_size = size(name, "hidden_size", hidden_size, least=1)
        self.num_layers = size(name, "num_layers", num_layers, least=1)
        self.bias, self.batch_first = bias, batch_first
        self.dropout = probability(name, "dropout", dropout)
        self.bidirectional = bidirectional
        self.proj_size = size(name, "proj_size", proj_size)
        if proj_size >= hidden_size:
            raise ConfigError(f"{name}: proj_size={proj_size} must be smaller than hidden_size={hidden_size}.")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout={dropout} works between layers, and there is only one.", stacklevel=3)
        for suffix, features in self._directions():
            shapes = self._shapes(features)
            start(self, {f"{n}_{suffix}": s for n, s in shapes.items()}, hidden_size, generator, dtype)
        if dropout:
            self.generator = default_generator().split() if generator is None else generator.split()

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    def _directions(self) -> list[tuple[str, int]]:
        """For each layer and direction what its parameters' names end in, and how many features come in."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        later = self._output_size * len(ends)
        return [
            (f"l{layer}{end}", later if layer else self.input_size) for layer in range(self.num_layers) for end in ends
        ]

    def _shapes(self, features: int) -> dict[str, tuple[int, ...] | None]:
        rows = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...] | None] = {
            "weight_ih": (rows, features),
            "weight_hh": (rows, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def _weights(self, suffix: str) -> Weights:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*[vars(self).get(f"{name}_{suffix}") for name in names])  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Sizes and number of layers; other settings where they are not the usual ones."""
        usual = {"bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False, "proj_size": 0}
        changed = [f"{name}={getattr(self, name)!r}" for name, x in usual.items() if getattr(self, name) != x]
        sizes = [f"{name}={getattr(self, name)}" for name in ("input_size", "hidden_size", "num_layers")]
        return ", ".join([*sizes, *changed])

    # -- what the kinds of layers differ in

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        """From z = x · weight_ihᵀ + biases and the state to the new state, whose first tensor is the output."""
        raise NotImplementedError

    def _bias(self, weights: Weights) -> Tensor | None:
        """What is added to x · weight_ihᵀ."""
        return None if weights.bias_ih is None or weights.bias_hh is None else weights.bias_ih + weights.bias_hh

    # -- the way through

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """The outputs of the last layer at all steps, and the last state of each layer and direction."""
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else as_tensor(input)
        single = not packed and x.ndim == 2
        if x.ndim != 3 - single or x.shape[-1] != self.input_size:
            batched = f"(batch, steps, {self.input_size})" if self.batch_first else f"(steps, batch, {self.input_size})"
            raise ShapeError(f"{self.label} expects {batched} or (steps, {self.input_size}), got shape {x.shape}.")
        if single:
            x = reshape(x, shape=(x.shape[0], 1, x.shape[1]))
        elif self.batch_first and not packed:
            x = transpose(x, axes=(1, 0, 2))
        mask = reshape(input.mask, shape=(*x.shape[:2], 1)) if packed else None
        x, last = self._through(x, self._given(hx, x.shape[1], single), mask)
        stacked = tuple([stack([state[k] for state in last]) for k in range(self.states)])
        if single:
            x, stacked = x[:, 0], tuple([s[:, 0] for s in stacked])
        elif self.batch_first and not packed:
            x = transpose(x, axes=(1, 0, 2))
        return PackedSequence(x, input.lengths) if packed else x, stacked if self.states > 1 else stacked[0]

    def _given(self, hx: Any, batch: int, single: bool) -> list[State | None]:
        """The first state of each layer and direction; None for zeros."""
        count = len(self._directions())
        if hx is None:
            return [None] * count
        given = hx if self.states > 1 else (hx,)
        if not isinstance(given, (tuple, list)) or len(given) != self.states:
            raise ShapeError(f"{self.label}: hx is a pair (h, c), got {type(hx).__name__}.")
        found = []
        for x, features in zip(map(as_tensor, given), (self._output_size, self.hidden_size), strict=False):
            expected = (count, features) if single else (count, batch, features)
            if x.shape != expected:
                raise ShapeError(f"{self.label}: the first state has shape {x.shape}; expected is {expected}.")
            found.append(reshape(x, shape=(count, batch, features)))
        return [tuple([x[k] for x in found]) for k in range(count)]

    def _through(self, x: Tensor, first: list[State | None], mask: Tensor | None) -> tuple[Tensor, list[State]]:
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout, self.training, generator=self.generator)
            outputs = []
            for end in ("", "_reverse") if self.bidirectional else ("",):
                weights = self._weights(f"l{layer}{end}")
                state, y = self._loop(x, first[len(last)], weights, mask, bool(end))
                last.append(state)
                outputs.append(y)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, axis=2)
        return x, last

    def _loop(
        self, x: Tensor, first: State | None, weights: Weights, mask: Tensor | None, reverse: bool
    ) -> tuple[State, Tensor]:
        """One layer in one direction: the last state, and the outputs of all steps, 0 where a sequence has ended."""
        z = linear(x, weights.ih, self._bias(weights))  # (steps, batch, gates · hidden)
        if first is None:
            sizes = (self._output_size, self.hidden_size)[: self.states]
            first = tuple([full((x.shape[1], n), 0, z.dtype) for n in sizes])

        def step(state: State, now: tuple[Tensor, Tensor | None]) -> tuple[State, Tensor]:
            z, inside = now
            new = self._step(z, state, weights)
            if inside is None:
                return new, new[0]
            held = tuple([where(inside, a, b) for a, b in zip(new, state, strict=True)])
            return held, where(inside, new[0], 0)

        state, y = scan(step, tuple([cast_to(s, z.dtype) for s in first]), (z, mask), reverse=reverse)
        return state, y


class RNN(_Recurrent):
    """h' = tanh(x · weight_ihᵀ + bias_ih + h · weight_hhᵀ + bias_hh) from step to step, or relu.

    input (steps, batch, input_size), with `batch_first` (batch, steps, input_size), (steps, input_size) for a single
    sequence, or a PackedSequence. hx (layers · directions, batch, hidden_size), or without batch; zeros when it is not
    given. Returns the outputs of the last layer, (..., directions · hidden_size) at all steps, and the last state,
    shaped as hx. Later layers take the outputs of earlier ones, in training after `dropout`. With `bidirectional` a
    second network reads backwards. Parameters are named as in PyTorch (weight_ih_l0, bias_hh_l1_reverse) and start
    uniform in ±1/√hidden_size. Raises ShapeError, ConfigError.

    Long sequences are learned in pieces: hand the last state to the next piece, without its history. (What a compiled
    function returned has none; `cr.stop_gradient` takes it away.) Source: Elman, "Finding structure in time" (1990);
    Werbos, "Backpropagation through time" (1990).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.RNN(3, 4, num_layers=2)
    >>> output, state = layer(cr.ones((5, 1, 3)))
    >>> output.shape, state.shape
    ((5, 1, 4), (2, 1, 4))
    >>> output, state = layer(cr.ones((5, 1, 3)), cr.stop_gradient(state))
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        self.nonlinearity = known_nonlinearity("RNN", nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, generator
        )

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return (rnn_step(z, state[0], weights.hh, self.nonlinearity),)


class LSTM(_Recurrent):
    """Long short-term memory: a state h and a cell c, which gates write to, forget and read.

    i, f, g, o = x · weight_ihᵀ + bias_ih + h · weight_hhᵀ + bias_hh; c' = σ(f) · c + σ(i) · tanh(g);
    h' = σ(o) · tanh(c'), with `proj_size` times weight_hrᵀ. hx is a pair (h, c); otherwise inputs, results, parameters
    and errors are as those of RNN. Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> output, (h, c) = nn.LSTM(3, 4, bidirectional=True, batch_first=True)(cr.ones((2, 5, 3)))
    >>> output.shape, h.shape, c.shape
    ((2, 5, 8), (2, 2, 4), (2, 2, 4))
    """

    gates, states = 4, 2

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return lstm_step(z, state[0], state[1], weights.hh, weights.hr)


class GRU(_Recurrent):
    """Gated recurrent unit: r, u = σ(x · W + h · V + b); n = tanh(x · W + b + r · (h · V + b)); h' = (1 − u) n + u h.

    The rows of weight_ih, weight_hh and the biases are those of r, u (PyTorch: z) and n. Inputs, results, parameters
    and errors are as those of RNN. Source: Cho et al., "Learning phrase representations using RNN encoder-decoder for
    statistical machine translation" (2014).

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> output, state = nn.GRU(3, 4)(cr.ones((5, 2, 3)))
    >>> output.shape, state.shape
    ((5, 2, 4), (1, 2, 4))
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = dtypes.float32,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, generator
        )

    def _step(self, z: Tensor, state: State, weights: Weights) -> State:
        return (gru_step(z, state[0], weights.hh, gru_biases(weights)[1]),)

    def _bias(self, weights: Weights) -> Tensor | None:
        return gru_biases(weights)[0]


def gru_biases(weights: Weights) -> tuple[Tensor | None, Tensor | None]:
    """What is added to x · weight_ihᵀ, and what to the new gate's h · weight_hhᵀ, before the reset gate works."""
    if weights.bias_ih is None or weights.bias_hh is None:
        return None, None
    hidden = weights.bias_hh.shape[0] // 3
    first = concat([weights.bias_hh[: 2 * hidden], full((hidden,), 0, weights.bias_hh.dtype)])
    return weights.bias_ih + first, weights.bias_hh[2 * hidden :]


def known_nonlinearity(layer: str, name: str) -> str:
    """The name; ConfigError for one that is neither tanh nor relu."""
    if name not in NONLINEARITIES:
        raise ConfigError(f"{layer}: nonlinearity={name!r}; it is one of {', '.join(map(repr, NONLINEARITIES))}.")
    return name
