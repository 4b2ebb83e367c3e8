"""Where logits come from: a model with caches, whose steps are compiled, or any function of all tokens so far."""

import collections
import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from chainrule import tree
from chainrule.compile import Compiled
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, Diverged, ShapeError
from chainrule.generation.choosing import Rule, best, choose, penalised
from chainrule.nn.module import Module
from chainrule.random import Generator

REMEMBERED = 16  # compiled steps of one model


class Steps(Protocol):
    """Goes on from the tokens so far (rows, length), by one token."""

    def choose(self, tokens: np.ndarray, length: int, forced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next token of each row, and the log of its probability."""
        ...

    def best(self, tokens: np.ndarray, length: int, parents: np.ndarray | None, scores: np.ndarray, count: int) -> Any:
        """The best continuations of all beams; `parents` says which rows before these rows have grown from."""
        ...


def steps_of(
    model: Any, rows: int, length: int, rule: Rule, generator: Generator | None, window: int | None, engine: str
) -> Steps:
    """Steps for `rows` sequences of at most `length` tokens."""
    if hasattr(model, "make_cache") and isinstance(model, tree.Stateful):
        if window is not None:
            raise ConfigError("generate: window is for functions without a cache; a cache holds all tokens.")
        return CachedSteps(model, rows, length, rule, generator, engine)
    if not callable(model):
        raise ConfigError(f"generate: a model is a Module or a function of tokens; got {type(model).__name__}.")
    return PlainSteps(model, rule, generator, window)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """In evaluation mode, and back: dropout is for training."""
    modules = [(m, m.training) for m in model.modules()] if isinstance(model, Module) else []
    try:
        for module, was in modules:
            if was:
                module.training = False
        yield
    finally:
        for module, was in modules:
            if was:
                module.training = True


def _last(logits: Any, rows: int) -> Tensor:
    """The logits for the next token, (rows, V)."""
    logits = as_tensor(logits)
    if logits.ndim not in (2, 3) or logits.shape[0] != rows or not logits.size:
        raise ShapeError(
            f"generate: a model makes logits (N, V) or (N, length, V) of tokens (N, length), N = {rows} here; this one "
            f"made {logits.shape}."
        )
    return logits if logits.ndim == 2 else logits[:, -1]


def _known_numbers(*results: Tensor) -> Any:
    """The values of results; Diverged if there is NaN in one."""
    values = [np.asarray(x) for x in results]
    if any(x.dtype.kind == "f" and np.isnan(x).any() for x in values):
        raise Diverged("generate: the model's logits for the next token are NaN. Its weights may have diverged.")
    return values


class PlainSteps:
    """Of a function of all tokens so far, or of the last `window` of them. Runs as it is given: eagerly."""

    def __init__(self, f: Callable[..., Any], rule: Rule, generator: Generator | None, window: int | None) -> None:
        self.f, self.rule, self.generator, self.window = f, rule, generator, window

    def _logits(self, tokens: np.ndarray, length: int) -> Tensor:
        first = 0 if self.window is None else max(0, length - self.window)
        return _last(self.f(wrap(tokens[:, first:length].copy())), len(tokens))

    def choose(self, tokens: np.ndarray, length: int, forced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Steps."""
        logits = self._logits(tokens, length)
        return _known_numbers(*choose(logits, self.rule, self.generator, wrap(forced), wrap(tokens)))

    def best(self, tokens: np.ndarray, length: int, parents: np.ndarray | None, scores: np.ndarray, count: int) -> Any:
        """See Steps."""
        logits = penalised(self._logits(tokens, length), self.rule, wrap(tokens))
        return _known_numbers(*best(logits, wrap(scores), min(count, scores.shape[1] * logits.shape[1])))


class CachedSteps:
    """Of a model with `make_cache(batch_size, max_length)`, called as model(tokens, cache=cache).

    The tokens it has not seen yet go in: first all of the prompt, then one at a time. Both steps are compiled, with all
    that chooses the token, once for their shapes.
    """

    def __init__(
        self, model: Any, rows: int, length: int, rule: Rule, generator: Generator | None, engine: str
    ) -> None:
        self.model, self.rule, self.generator, self.engine = model, rule, generator, engine
        self.cache = model.make_cache(rows, length)
        self.rows, self.seen = rows, 0

    def _step(self, f: Callable[..., Any], new: int, *more: Any) -> Compiled:
        return _compiled(self.model, f, (self.engine, new, *more, *_shapes(self.cache)))

    def _unseen(self, tokens: np.ndarray, length: int) -> np.ndarray:
        new = np.ascontiguousarray(tokens[:, self.seen : length])
        self.seen = length
        return new

    def choose(self, tokens: np.ndarray, length: int, forced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Steps."""
        new = self._unseen(tokens, length)
        history = None if self.rule.repetition_penalty is None else tokens
        step = self._step(_choosing, new.shape[1], _form(self.rule), tokens.shape[1] if history is not None else 0)
        return _known_numbers(*step(self.model, self.cache, self.generator, new, forced, history, self.rule))

    def best(self, tokens: np.ndarray, length: int, parents: np.ndarray | None, scores: np.ndarray, count: int) -> Any:
        """See Steps."""
        new = self._unseen(tokens, length)
        history = None if self.rule.repetition_penalty is None else tokens
        if parents is not None and len(parents) != self.rows:  # from one row a prompt to one a beam
            _reorder(self.cache, wrap(parents))
            parents, self.rows = np.arange(len(parents)), len(parents)
        step = self._step(_best, new.shape[1], _form(self.rule), count, parents is None, tokens.shape[1])
        return _known_numbers(*step(self.model, self.cache, new, history, parents, scores, self.rule, count))


def _choosing(
    model: Any, cache: Any, generator: Any, tokens: Tensor, forced: Tensor, history: Tensor | None, rule: Rule
) -> Any:
    logits = _last(model(tokens, cache=cache), tokens.shape[0])
    return choose(logits, rule, generator, forced, history)


def _best(
    model: Any, cache: Any, tokens: Tensor, history: Any, parents: Any, scores: Tensor, rule: Rule, count: int
) -> Any:
    if parents is not None:
        _reorder(cache, parents)
    logits = penalised(_last(model(tokens, cache=cache), tokens.shape[0]), rule, history)
    return best(logits, scores, min(count, scores.shape[1] * logits.shape[1]))


def _reorder(cache: Any, rows: Tensor) -> None:
    for part in tree.flatten(cache).objects:
        if not hasattr(part, "reorder"):
            raise ConfigError(
                f"generate: beams need caches with a method reorder(rows); {type(part).__name__} has none."
            )
        part.reorder(rows)


def _shapes(cache: Any) -> tuple[Any, ...]:
    return tuple([leaf.value.shape for leaf in tree.flatten(cache).leaves])


def _form(rule: Rule) -> tuple[bool, ...]:
    return tuple([x is None for x in vars(rule).values()])


# For each model its compiled steps, the latest ones. They do not keep the model alive.
_known: weakref.WeakKeyDictionary[Any, collections.OrderedDict[Any, Compiled]] = weakref.WeakKeyDictionary()


def _compiled(model: Any, f: Callable[..., Any], signature: tuple[Any, ...]) -> Compiled:
    """`f`, compiled for arguments of these shapes; the same one when asked again."""
    steps = _known.setdefault(model, collections.OrderedDict())
    if (f, signature) not in steps:
        steps[f, signature] = Compiled(f, signature[0])
    steps.move_to_end((f, signature))
    if len(steps) > REMEMBERED:
        steps.popitem(last=False)
    return steps[f, signature]
