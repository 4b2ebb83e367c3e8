"""`generate`: tokens after a prompt, greedily, by sampling, or by beam search."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from chainrule.engines import DEFAULT_ENGINE
from chainrule.errors import ConfigError
from chainrule.generation.beams import beam_search
from chainrule.generation.models import Steps, evaluating, steps_of
from chainrule.generation.prompts import Generated, collected, rows_of
from chainrule.generation.settings import Method, Settings
from chainrule.random import Generator


def generate(
    model: Any,
    prompt: Any,
    max_new_tokens: int,
    method: Method = "greedy",
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
    beams: int | None = None,
    length_penalty: float | None = None,
    early_stopping: bool | None = None,
    repetition_penalty: float | None = None,
    repetition_stop: int | None = None,
    eos: int | Iterable[int] | None = None,
    pad: int | None = None,
    window: int | None = None,
    max_length: int | None = None,
    engine: str = DEFAULT_ENGINE,
) -> Generated:
    """Tokens that follow a prompt, each chosen by what a model says about the next.

    model     either has `make_cache(batch_size, max_length)` and is called as model(tokens, cache=cache), as a network
              on top of nn.TransformerEncoder can be; then every token is computed once, in a step that is compiled
              once. Or any function of all tokens so far, or of the last `window` of them.
              Takes int64 (N, length) and returns logits (N, length, V), or those for the next token (N, V).
              A Module is put into evaluation mode meanwhile.
    prompt    tokens (length,), or (N, length), or a list of N prompts of any lengths
    method    'greedy' takes the most likely token. 'sample' draws with the probabilities softmax(logits /
              `temperature`), of the `top_k` most likely only, of these only the fewest that together have the
              probability `top_p`; the numbers come from `generator`, which must be given. 'beam' searches the most
              likely sequence with `beams` (4) beginnings at a time; sequences are compared by log probability /
              length ^ `length_penalty` (1), and the search ends once `beams` of them have ended, or with
              early_stopping=False when no other can be better.
    stopping  after `max_new_tokens`, at a token of `eos` (one or several), or once the last `repetition_stop` tokens
              have been generated before. `pad` (by default the first eos, or 0) fills up what ended early.
    repetition_penalty
              more than 1: makes tokens that are there already less likely
    max_length
              of the cache; given the same for prompts of several lengths, they share compiled code

    Equal seeds give equal tokens. Raises ConfigError for settings that make no sense together, ShapeError, DTypeError
    or DataError for prompts and logits that are none, Diverged for logits that are NaN.
    Sources: Holtzman et al., "The curious case of neural text degeneration" (2020), for top_p; Keskar et al., "CTRL: a
    conditional transformer language model for controllable generation" (2019), for the penalty; Sutskever et al.,
    "Sequence to sequence learning with neural networks" (2014), for beams.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> model = nn.Embedding.from_pretrained(cr.eye(4)[cr.tensor([1, 2, 3, 0])] * 10)  # after 0 comes 1, then 2, ...
    >>> cr.generate(model, [0, 1], max_new_tokens=3).sequences
    [0, 1, 2, 3, 0]
    >>> cr.generate(model, [0], 9, "sample", temperature=0.5, generator=cr.random.Generator(0), eos=3).sequences
    [0, 1, 2, 3]
    """
    settings = Settings(
        max_new_tokens, method, temperature, top_k, top_p, generator, beams, length_penalty, early_stopping,
        repetition_penalty, repetition_stop, eos, pad, window, max_length, engine,
    )  # fmt: skip
    rows, single = rows_of(prompt)
    if not rows or max_new_tokens == 0:
        return collected(rows, [0.0] * len(rows), settings.padding, single)
    with evaluating(model):
        run = _beams if method == "beam" else _one_by_one
        return collected(*run(model, rows, settings), settings.padding, single)


def _steps(model: Any, rows: Sequence[np.ndarray], settings: Settings) -> Steps:
    needed = max(map(len, rows)) + settings.max_new_tokens
    length = needed if settings.max_length is None else settings.max_length
    if length < needed:
        raise ConfigError(f"generate: max_length={length} is too short for {needed} tokens, prompt and all.")
    return steps_of(model, len(rows), length, settings.rule, settings.generator, settings.window, settings.engine)


def _beams(model: Any, rows: Sequence[np.ndarray], settings: Settings) -> tuple[list[np.ndarray], list[float]]:
    """Prompts of one length are searched together."""
    found: dict[int, tuple[np.ndarray, float]] = {}
    for length in sorted({len(row) for row in rows}):
        which = [i for i, row in enumerate(rows) if len(row) == length]
        prompts = [rows[i] for i in which]
        results = beam_search(
            _steps(model, prompts, settings),
            np.stack(prompts),
            settings.max_new_tokens,
            settings.ending,
            4 if settings.beams is None else settings.beams,
            1.0 if settings.length_penalty is None else settings.length_penalty,
            settings.early_stopping is not False,
        )
        found.update(zip(which, results, strict=True))
    return [found[i][0] for i in range(len(rows))], [found[i][1] for i in range(len(rows))]


def _one_by_one(model: Any, rows: Sequence[np.ndarray], settings: Settings) -> tuple[list[np.ndarray], list[float]]:
    """Token after token. A row whose prompt is longer than those of others gets its own tokens until it ends."""
    steps, ending = _steps(model, rows, settings), settings.ending
    given = np.array([len(row) for row in rows])
    lengths, done = given + settings.max_new_tokens, np.zeros(len(rows), bool)
    tokens = np.full((len(rows), int(lengths.max())), -1, np.int64)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = row
    logs = np.zeros(len(rows))
    for at in range(int(given.min()), tokens.shape[1]):
        forced = np.where(done, settings.padding, tokens[:, at])  # −1 where the model is asked
        chosen, log_p = steps.choose(tokens, at, forced)
        tokens[:, at] = chosen
        asked = (at >= given) & ~done
        logs += np.where(asked, log_p, 0)
        for i in np.flatnonzero(asked):
            if at + 1 == lengths[i] or ending(tokens[i, given[i] : at + 1]):
                done[i], lengths[i] = True, at + 1
        if done.all():
            break
    return [line[:n] for line, n in zip(tokens, lengths, strict=True)], logs.tolist()
