"""What generation starts from and what it returns: sequences of tokens, of one length or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import DataError, DTypeError, ShapeError


@dataclass(frozen=True)
class Generated:
    """What `generate` returns, for each of N prompts; without the axis N for a single one.

    tokens             int64 (N, longest): the prompt and what was generated, then padding
    lengths            int64 (N,): how many of them there are without the padding
    log_probabilities  float64 (N,): the log of the probability that the model gives to what was generated

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> model = nn.Embedding.from_pretrained(cr.eye(4)[cr.tensor([1, 2, 3, 0])] * 10)  # after 0 comes 1, then 2, ...
    >>> made = cr.generate(model, [[0], [3, 0]], max_new_tokens=2)
    >>> made.sequences
    [[0, 1, 2], [3, 0, 1, 2]]
    """

    tokens: Tensor
    lengths: Tensor
    log_probabilities: Tensor

    @property
    def sequences(self) -> list[Any]:
        """The tokens as lists, without the padding."""
        if self.tokens.ndim == 1:
            return list(self.tokens.tolist())
        return [row[:n] for row, n in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]


def rows_of(prompt: Any) -> tuple[list[np.ndarray], bool]:
    """The prompts, and whether it was a single one."""
    if isinstance(prompt, Tensor):
        prompt = prompt.known("generate")
    single = not len(prompt) or np.ndim(prompt[0]) == 0
    rows = [np.asarray(row) for row in ([prompt] if single else prompt)]
    for row in rows:
        if row.ndim != 1 or not row.size:
            raise ShapeError(
                f"generate: a prompt is a row of at least one token, or several such rows; got shape {row.shape}."
            )
        if row.dtype.kind not in "iu":
            raise DTypeError(f"generate: tokens are integers; got {row.dtype.name}.")
        if row.min() < 0:
            raise DataError(f"generate: tokens are numbers from 0 on; a prompt has {row.min()}.")
    return [row.astype(np.int64) for row in rows], single


def collected(rows: Sequence[np.ndarray], log_probabilities: Sequence[float], pad: int, single: bool) -> Generated:
    """The result, of the finished sequences."""
    lengths = np.array([len(row) for row in rows], np.int64)
    tokens = np.full((len(rows), lengths.max()), pad, np.int64)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = row
    logs = np.array(log_probabilities, np.float64)
    if single:
        return Generated(wrap(tokens[0]), wrap(lengths.reshape(())), wrap(logs.reshape(())))
    return Generated(wrap(tokens), wrap(lengths), wrap(logs))


class Ending:
    """When a sequence is over: at a token of `eos`, or when it goes in circles.

    It does so when its last `repetition` new tokens have stood among its new tokens before.
    """

    def __init__(self, eos: Sequence[int], repetition: int | None) -> None:
        self.eos, self.repetition = frozenset(eos), repetition

    def __call__(self, new: np.ndarray) -> bool:
        """Whether the tokens generated so far, the last one just now, are all."""
        if int(new[-1]) in self.eos:
            return True
        n = self.repetition
        if n is None or len(new) <= n:
            return False
        windows = np.lib.stride_tricks.sliding_window_view(new, n)
        return bool((windows[:-1] == windows[-1]).all(axis=1).any())
