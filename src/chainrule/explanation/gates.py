"""What the nodes of one step of a recurrent layer are: gates, candidates, cell, hidden state.

Found by the formulas of chainrule.functions.recurrent, from the new state down.
"""

from typing import NamedTuple

from chainrule.core.tensor import Tensor
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout

NAMES = {
    "i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "r": "reset gate", "u": "update gate",
    "n": "candidate", "h": "hidden", "c": "cell",
}  # fmt: skip


class Gates(NamedTuple):
    """The tensors of a step: the new hidden state, the new cell of an LSTM, the gates by symbol."""

    hidden: Tensor
    cell: Tensor | None
    gates: dict[str, Tensor]


def gates_of(layer: str, state: Tensor) -> Gates | None:
    """Those behind a new hidden state, of a layer or cell of this class; None where it is made in another way."""
    kind, h = layer.removesuffix("Cell"), unmasked(state)
    if kind == "RNN":
        return Gates(h, None, {})
    if kind == "LSTM":
        out = h.inputs[0] if h.primitive.name == "matmul" else h  # projected; h = o · tanh(c), c = f · c₋₁ + i · g
        if out.primitive is not e.mul or out.inputs[1].primitive is not e.tanh:
            return None
        cell = out.inputs[1].inputs[0]
        kept, written = cell.inputs
        return Gates(h, cell, {"i": written.inputs[0], "f": kept.inputs[0], "g": written.inputs[1], "o": out.inputs[0]})
    if kind != "GRU" or h.primitive is not e.add or h.inputs[1].primitive is not e.mul:  # h = n + u · (h₋₁ − n)
        return None
    n, u = h.inputs[0], h.inputs[1].inputs[0]
    r = argument(n).inputs[1].inputs[0]  # n = tanh(zn + r · (…))
    return Gates(h, None, {"r": r, "u": u, "n": n})


def argument(gate: Tensor) -> Tensor:
    """The weighted sum that a gate is the function of."""
    return gate.inputs[2] if _is_relu(gate) else gate.inputs[0]


def unmasked(x: Tensor) -> Tensor:
    """The new state itself, where those of sequences that have ended are held."""
    return x.inputs[1] if x.primitive is e.where and not _is_relu(x) else x


def before_reshape(x: Tensor) -> Tensor:
    """What a tensor is in another shape."""
    while x.primitive is layout.reshape and x.inputs:
        x = x.inputs[0]
    return x


def _is_relu(x: Tensor) -> bool:
    return x.primitive is e.where and x.inputs[0].primitive is e.less_equal  # where(z <= 0, 0, z)
