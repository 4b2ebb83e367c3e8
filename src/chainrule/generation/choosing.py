"""The next token, of the logits for it: penalties, temperature, top-k, top-p, the draw; and the best for beams."""

from dataclasses import dataclass

from chainrule import dtypes
from chainrule.core.tensor import Tensor, full
from chainrule.functions.activations import log_softmax, softmax
from chainrule.functions.choice import where
from chainrule.functions.creation import arange, ones, zeros
from chainrule.functions.manipulation import reshape
from chainrule.functions.searching import argmax, argsort, scatter_add, take_along_axis
from chainrule.functions.statistics import cumulative_sum
from chainrule.random import Generator


@dataclass(frozen=True)
class Rule:
    """How tokens are chosen. Tensors of shape (), so that another number compiles nothing anew; None: not at all.

    temperature         logits are divided by it and a token is drawn; None: the most likely one
    top_k               only the k most likely are drawn from
    top_p               of these only the fewest that together have at least this probability
    repetition_penalty  logits of tokens that are there already are divided by it, or multiplied if they are negative
    """

    temperature: Tensor | None = None
    top_k: Tensor | None = None
    top_p: Tensor | None = None
    repetition_penalty: Tensor | None = None


def choose(
    logits: Tensor, rule: Rule, generator: Generator | None, forced: Tensor, history: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The next tokens, and the logs of their probabilities. logits (N, V) -> int64 (N,), (N,)

    Where `forced` (N,) is not negative it is the token. `history` (N, L): the tokens so far, −1 where there is none.
    """
    adjusted = penalised(logits, rule, history)
    if rule.temperature is None:
        token = argmax(adjusted, axis=-1)
    else:
        assert generator is not None
        token = _drawn(adjusted / rule.temperature, rule, generator)
    token = where(forced >= 0, forced, token)
    return token, take_along_axis(log_softmax(logits), reshape(token, (-1, 1)), axis=-1)[:, 0]


def penalised(logits: Tensor, rule: Rule, history: Tensor | None) -> Tensor:
    """Logits less those of tokens in `history`: Keskar et al., "CTRL" (2019), section 4.1."""
    if rule.repetition_penalty is None or history is None:
        return logits
    rows, size = logits.shape
    slot = where(history < 0, size, history) + reshape(arange(rows) * (size + 1), (rows, 1))
    counts = scatter_add(zeros(rows * (size + 1)), reshape(slot, (-1,)), ones(slot.size))
    seen = reshape(counts, (rows, size + 1))[:, :size] > 0
    penalty = rule.repetition_penalty
    return where(seen, where(logits > 0, logits / penalty, logits * penalty), logits)


def _drawn(logits: Tensor, rule: Rule, generator: Generator) -> Tensor:
    """Drawn in order of probability if some are ruled out, so that of equals those with the smaller number stay."""
    if rule.top_k is None and rule.top_p is None:
        return generator.categorical(logits)
    order = argsort(logits, descending=True)
    ordered = take_along_axis(logits, order)
    if rule.top_k is not None:
        ordered = where(arange(logits.shape[-1]) < rule.top_k, ordered, -float("inf"))
    if rule.top_p is not None:  # Holtzman et al., "The curious case of neural text degeneration" (2020)
        p = softmax(ordered)
        ordered = where(cumulative_sum(p, axis=-1) - p < rule.top_p, ordered, -float("inf"))
    rank = generator.categorical(ordered)
    return take_along_axis(order, reshape(rank, (-1, 1)))[:, 0]


def best(logits: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best continuations of the beams of each prompt, best first: scores, beams, tokens.

    logits (N · beams, V), scores (N, beams) float64: logs of probabilities so far -> three (N, count)
    """
    rows, beams = scores.shape
    size = logits.shape[-1]
    steps = reshape(log_softmax(logits).astype(dtypes.float64), (rows, beams, size))
    total = reshape(steps + reshape(scores, (rows, beams, 1)), (rows, beams * size))
    order = argsort(total, descending=True)[:, :count]
    return take_along_axis(total, order), order // size, order % size


def number(value: float | None, dtype: dtypes.DType = dtypes.float32) -> Tensor | None:
    """A setting as a tensor."""
    return None if value is None else full((), value, dtype)
