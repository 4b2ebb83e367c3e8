"""Keys and values of tokens that attention has seen already, so that generation computes each of them once."""

from typing import Any

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.choice import clip, where
from chainrule.functions.positional import positions
from chainrule.functions.searching import take
from chainrule.nn.arguments import size


class KeyValueCache(tree.Stateful):
    """The keys and values of one attention layer, for up to `max_length` tokens.

    keys, values  (batch, heads, max_length, head_dim), zeros behind the tokens seen
    position      int64 (), how many tokens were seen; None if it was made full, by `of`
    mask          of a full one, which keys are seen (True) or what is added to their scores, (batch, 1, 1, length);
                  None: all are seen

    Its shapes never change, so a compiled step that takes it as an argument is compiled once; it is updated in place.
    It is for generation, not for training: no gradient goes through what is in it. Made by `make_cache` of a layer or
    stack of layers.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    >>> cache = layer.make_cache(batch_size=1, max_length=16)
    >>> token = cr.ones((1, 1, 8))
    >>> y, _ = layer(token, token, token, cache=cache)
    >>> int(cache.position)
    1
    """

    position: Tensor | None
    mask: Tensor | None

    def __init__(
        self, batch_size: int, num_heads: int, max_length: int, head_dim: int, dtype: Any = dtypes.float32
    ) -> None:
        self.max_length = size("KeyValueCache", "max_length", max_length, least=1)
        shape = (size("KeyValueCache", "batch_size", batch_size), num_heads, max_length, head_dim)
        self.keys, self.values = (full(shape, 0, dtypes.as_dtype(dtype)) for _ in range(2))
        self.position = full((), 0, dtypes.int64)
        self.mask = None

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> "KeyValueCache":
        """A full one, for a memory that stays the same: keys and values (batch, heads, length, head_dim)."""
        made = cls.__new__(cls)
        made.max_length = keys.shape[2]
        made.keys, made.values, made.position, made.mask = keys, values, None, mask
        return made

    @property
    def offset(self) -> Tensor:
        """The position of the next token; ConfigError for a full cache."""
        if self.position is None:
            raise ConfigError("This cache holds a memory that does not grow: it has no next position.")
        return self.position

    def append(self, keys: Tensor, values: Tensor) -> Tensor:
        """Put the next tokens in, (batch, heads, tokens, head_dim); returns which keys each of them sees.

        -> bool (tokens, max_length): those before it and itself. Raises ShapeError for another batch, or when there is
        no room left (in a compiled function, where the position is not known, nothing is written then).
        """
        start, count = self.offset, keys.shape[2]
        if keys.shape[:2] != self.keys.shape[:2]:
            raise ShapeError(f"The cache is for (batch, heads) = {self.keys.shape[:2]}; got {keys.shape[:2]}.")
        if count > self.max_length or (start.value is not None and int(start) + count > self.max_length):
            seen = "" if start.value is None else f"; {int(start)} were seen before"
            raise ShapeError(f"The cache has room for max_length={self.max_length} tokens; got {count} more{seen}.")
        slots = positions(self.max_length)
        inside = ((slots >= start) & (slots < start + count)).reshape((self.max_length, 1))
        self.keys = where(inside, self._spread(keys, slots - start), self.keys)
        self.values = where(inside, self._spread(values, slots - start), self.values)
        self.position = start + count
        return slots <= positions(count, start).reshape((count, 1))

    def _spread(self, new: Tensor, source: Tensor) -> Tensor:
        """New tokens at the slots where they belong, whatever elsewhere."""
        new = stop_gradient(new).astype(self.keys.dtype)
        return new if new.shape[2] == 1 else take(new, clip(source, 0, new.shape[2] - 1), axis=2)

    def reorder(self, rows: Tensor) -> None:
        """Let each row of the batch go on from the row `rows` says, as beams do. int64 (new batch,)"""
        rows = as_tensor(rows)
        self.keys, self.values = take(self.keys, rows, axis=0), take(self.values, rows, axis=0)
        if self.mask is not None:
            self.mask = take(self.mask, rows, axis=0)

    def reset(self) -> None:
        """Forget all tokens."""
        if self.position is not None:
            self.position = full((), 0, dtypes.int64)
