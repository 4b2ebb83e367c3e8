"""Sequences of several lengths in one batch.

PyTorch's packed sequence leaves the padding out, and its shape follows from the lengths. Here shapes are known before
the lengths are, so that one compiled step serves all batches: a packed sequence is the padded data and the lengths, and
what reads it holds its state where a sequence has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError
from chainrule.functions.choice import where
from chainrule.functions.creation import arange
from chainrule.functions.manipulation import concat, stack
from chainrule.functions.statistics import sum
from chainrule.primitives.layout import reshape, transpose


@dataclass(frozen=True)
class PackedSequence:
    """A batch of sequences of several lengths: `data` (steps, batch, ...), of which `lengths` (batch,) count.

    What stands behind the end of a sequence is not read. Other than in PyTorch the data are padded, and in the order in
    which they were given.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> packed = nn.pack_sequence([cr.ones((3, 2)), cr.ones((1, 2))])
    >>> packed.data.shape, packed.lengths.tolist(), packed.batch_sizes.tolist()
    ((3, 2, 2), [3, 1], [2, 1, 1])
    """

    data: Tensor
    lengths: Tensor

    @property
    def batch_sizes(self) -> Tensor:
        """How many sequences have a step t, for each t."""
        return sum(self.mask.astype(dtypes.int64), axis=1)

    @property
    def mask(self) -> Tensor:
        """(steps, batch): which elements belong to a sequence."""
        steps = self.data.shape[0]
        return arange(steps, dtype=self.lengths.dtype)[:, None] < self.lengths


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Say how long the sequences in a padded batch are.

    input (steps, batch, ...), or with `batch_first` (batch, steps, ...); lengths (batch,), whole numbers up to the
    number of steps. `enforce_sorted` is there for PyTorch's users: any order will do. Raises ShapeError, DTypeError for
    lengths that are not whole numbers, DataError for those that are too long or negative.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> packed = nn.pack_padded_sequence(cr.ones((3, 2, 4)), [3, 1])
    >>> output, last = nn.GRU(4, 5)(packed)
    >>> nn.pad_packed_sequence(output)[0].shape
    (3, 2, 5)
    """
    x, counts = as_tensor(input), as_tensor(lengths)
    if x.ndim < 2:
        raise ShapeError(f"pack_padded_sequence: input has shape {x.shape}; expected is (steps, batch, ...).")
    x = _turned(x) if batch_first else x
    steps, batch = x.shape[:2]
    if not dtypes.is_integer(counts.dtype):
        raise DTypeError(f"pack_padded_sequence: lengths are whole numbers; these are {counts.dtype.name}.")
    if counts.shape != (batch,):
        raise ShapeError(f"pack_padded_sequence: lengths have shape {counts.shape}; expected is ({batch},).")
    if counts.value is not None and ((counts.value < 0) | (counts.value > steps)).any():
        raise DataError(f"pack_padded_sequence: lengths {counts.tolist()} for sequences padded to {steps} steps.")
    return PackedSequence(x, counts)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The batch (steps, batch, ...), or with `batch_first` (batch, steps, ...), padded with a value, and the lengths.

    It has as many steps as the batch that was packed (PyTorch: as the longest sequence), or `total_length`. Raises
    ConfigError for a total_length that is shorter than the longest sequence.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> packed = nn.pack_sequence([cr.tensor([1.0, 2.0]), cr.tensor([3.0])])
    >>> padded, lengths = nn.pad_packed_sequence(packed, batch_first=True, padding_value=-1.0)
    >>> padded.tolist(), lengths.tolist()
    ([[1.0, 2.0], [3.0, -1.0]], [2, 1])
    """
    x, mask = sequence.data, sequence.mask
    x = where(reshape(mask, shape=(*mask.shape, *(1,) * (x.ndim - 2))), x, padding_value)
    if total_length is not None:
        known = sequence.lengths.value
        if total_length < 0 or (known is not None and known.size and known.max() > total_length):
            raise ConfigError(f"pad_packed_sequence: total_length={total_length}, but lengths are {known}.")
        missing = total_length - x.shape[0]
        x = x[:total_length] if missing <= 0 else concat([x, full((missing, *x.shape[1:]), padding_value, x.dtype)])
    return (_turned(x) if batch_first else x), sequence.lengths


def pad_sequence(
    sequences: Sequence[Any],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: Literal["right", "left"] = "right",
) -> Tensor:
    """Sequences (length, ...) as one batch (steps, batch, ...), or with `batch_first` (batch, steps, ...).

    Raises ShapeError for none, or for sequences that differ in more than their length, ConfigError for an unknown side.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.pad_sequence([cr.tensor([1.0, 2.0]), cr.tensor([3.0])], batch_first=True).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    tensors = [as_tensor(x) for x in sequences]
    if padding_side not in ("right", "left"):
        raise ConfigError(f"pad_sequence: padding_side={padding_side!r}; it is 'right' or 'left'.")
    if not tensors or any(not x.ndim or x.shape[1:] != tensors[0].shape[1:] for x in tensors):
        shapes = ", ".join(str(x.shape) for x in tensors) or "none"
        raise ShapeError(f"pad_sequence: sequences of shapes {shapes}; expected are some of shape (length, ...).")
    steps = max(x.shape[0] for x in tensors)
    padded = []
    for x in tensors:
        rest = full((steps - x.shape[0], *x.shape[1:]), padding_value, x.dtype)
        padded.append(x if not rest.size else concat([x, rest] if padding_side == "right" else [rest, x]))
    return stack(padded, axis=0 if batch_first else 1)


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, ...): `pad_sequence`, then `pack_padded_sequence`.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.pack_sequence([cr.ones((2, 4)), cr.ones((3, 4))]).data.shape
    (3, 2, 4)
    """
    padded = pad_sequence(sequences)
    return pack_padded_sequence(padded, [as_tensor(x).shape[0] for x in sequences], enforce_sorted=enforce_sorted)


def _turned(x: Tensor) -> Tensor:
    return transpose(x, axes=(1, 0, *range(2, x.ndim)))
