"""One step of recurrent layers. Their loops stand in chainrule.nn.recurrent.

Each takes z = x · weight_ihᵀ + bias_ih (+ bias_hh), which does not depend on the state and is computed for all steps at
once. The order of gates is PyTorch's: input, forget, cell, output in an LSTM; reset, update, new in a GRU.
"""

from chainrule.core.tensor import Tensor
from chainrule.functions.activations import relu, sigmoid
from chainrule.functions.trigonometry import tanh
from chainrule.primitives.operators import matmul

NONLINEARITIES = {"tanh": tanh, "relu": relu}


def rnn_step(z: Tensor, h: Tensor, weight_hh: Tensor, nonlinearity: str = "tanh") -> Tensor:
    """h' = tanh(z + h · weight_hhᵀ), or relu.

    z and h (batch, hidden), weight_hh (hidden, hidden) -> (batch, hidden). Source: Elman, "Finding structure in time"
    (1990).
    """
    return NONLINEARITIES[nonlinearity](z + matmul(h, weight_hh.T))


def lstm_step(
    z: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor, weight_hr: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """i, f, g, o = z + h · weight_hhᵀ; c' = σ(f) · c + σ(i) · tanh(g); h' = σ(o) · tanh(c'), projected by `weight_hr`.

    z (batch, 4 · hidden), h (batch, hidden or projected), c (batch, hidden), weight_hh (4 · hidden, hidden or
    projected), weight_hr (projected, hidden) -> h', c'. Source: Hochreiter and Schmidhuber, "Long short-term memory"
    (1997); Gers et al., "Learning to forget" (2000); projections: Sak et al., "Long short-term memory based recurrent
    neural network architectures for large vocabulary speech recognition" (2014).
    """
    i, f, g, o = _blocks(z + matmul(h, weight_hh.T), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return (h if weight_hr is None else matmul(h, weight_hr.T)), c


def gru_step(z: Tensor, h: Tensor, weight_hh: Tensor, bias_hn: Tensor | None = None) -> Tensor:
    """r and u = σ(z + h · weight_hhᵀ); n = tanh(z + r · (h · weight_hhᵀ + bias_hn)); h' = n + u · (h − n).

    z (batch, 3 · hidden), h (batch, hidden), weight_hh (3 · hidden, hidden), bias_hn (hidden,) -> (batch, hidden). The
    reset gate works after the product, as in PyTorch. Source: Cho et al., "Learning phrase representations using RNN
    encoder-decoder for statistical machine translation" (2014).
    """
    zr, zu, zn = _blocks(z, 3)
    hr, hu, hn = _blocks(matmul(h, weight_hh.T), 3)
    r, u = sigmoid(zr + hr), sigmoid(zu + hu)
    n = tanh(zn + r * (hn if bias_hn is None else hn + bias_hn))
    return n + u * (h - n)


def _blocks(x: Tensor, count: int) -> list[Tensor]:
    size = x.shape[-1] // count
    return [x[:, k * size : (k + 1) * size] for k in range(count)]
