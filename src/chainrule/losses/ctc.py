"""Connectionist temporal classification: a loss for sequences whose labels are not aligned with their steps."""

from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.control import scan
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError
from chainrule.functions.choice import where
from chainrule.functions.comparison import logical_and
from chainrule.functions.creation import arange
from chainrule.functions.manipulation import concat
from chainrule.functions.precision import rounded_once
from chainrule.functions.searching import take_along_axis
from chainrule.functions.statistics import cumulative_sum
from chainrule.losses.checks import Reduction, check_reduction, predictions, reduced
from chainrule.primitives import elementwise as e
from chainrule.primitives.index import take
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import broadcast_to, cast_to, maximum, minimum

IMPOSSIBLE = -1e30  # the logarithm of a probability of 0: far below all others, but finite, so that differences exist


class Labels(NamedTuple):
    """What is looked for: labels (batch, most) with blanks behind the end of each, and their number (batch,)."""

    labels: Tensor
    lengths: Tensor


@rounded_once
def ctc(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−log of the probability that the steps spell the labels, whatever their alignment.

    A step emits a label or a blank; a path spells what is left when repeated labels count once and blanks are dropped.
    log_probs (steps, batch, classes) or (steps, classes): logarithms of probabilities, as of log_softmax; targets
    (batch, most) padded, (sum of target_lengths,) one after the other, or (most,) without batch; lengths (batch,), or
    () without batch. The mean is that of the losses divided by their target_lengths, as in PyTorch. A target longer
    than its input allows is infinitely unlikely, which `zero_infinity` makes a loss of 0; its gradient is 0 either way.
    The gradient is that by log_probs themselves (PyTorch's counts on a log_softmax before it, after which they agree).
    Raises ShapeError, DTypeError; ConfigError for a blank that is no class; DataError for lengths or labels outside.
    Source: Graves et al., "Connectionist temporal classification" (2006), equations 6 to 8.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> log_probs = cr.log_softmax(cr.zeros((2, 1, 3)))  # two steps: 1 1, blank 1 and 1 blank spell "1"
    >>> float(cr.exp(-losses.ctc(log_probs, cr.tensor([[1]]), [2], [1])))
    0.333...
    """
    check_reduction("ctc", reduction)
    x = predictions("ctc", log_probs, "log_probs")
    if x.ndim not in (2, 3):
        raise ShapeError(
            f"ctc: log_probs has shape {x.shape}; expected is (steps, batch, classes) or (steps, classes)."
        )
    single = x.ndim == 2
    x = reshape(x, shape=(x.shape[0], 1, x.shape[1])) if single else x
    steps, batch, classes = x.shape
    if not isinstance(blank, int) or not 0 <= blank < classes:
        raise ConfigError(f"ctc: blank={blank} is none of the {classes} classes.")
    given = _lengths("input_lengths", input_lengths, batch, steps)
    found = _labels(as_tensor(targets), target_lengths, batch, classes, blank, single)
    losses = _losses(x, given, found, blank)
    losses = where(losses > -IMPOSSIBLE / 2, 0.0 if zero_infinity else np.inf, losses)
    if reduction == "mean":
        losses = losses / cast_to(maximum(found.lengths, 1), losses.dtype)
    return reduced("ctc", reshape(losses, shape=()) if single else losses, reduction)


def _lengths(name: str, lengths: Any, batch: int, most: int | None) -> Tensor:
    x = as_tensor(lengths)
    if not dtypes.is_integer(x.dtype):
        raise DTypeError(f"ctc: {name} are whole numbers; these are {x.dtype.name}.")
    if x.shape != (batch,) and not (batch == 1 and x.shape == ()):
        raise ShapeError(f"ctc: {name} has shape {x.shape}; expected is ({batch},).")
    if x.value is not None and ((x.value < 0).any() or (most is not None and (x.value > most).any())):
        raise DataError(f"ctc: {name} are {x.tolist()}, but there are {most} places for each.")
    return reshape(cast_to(x, dtypes.int64), shape=(batch,))


def _labels(targets: Tensor, lengths: Any, batch: int, classes: int, blank: int, single: bool) -> Labels:
    """The targets as a table, padded with blanks."""
    if not dtypes.is_integer(targets.dtype):
        raise DTypeError(f"ctc: targets are class indices; these are {targets.dtype.name}.")
    if targets.ndim == 1 and single:
        targets = reshape(targets, shape=(1, *targets.shape))
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and targets.shape[0] != batch):
        expected = f"({batch}, most), or one after the other (sum of target_lengths,)"
        raise ShapeError(f"ctc: targets have shape {targets.shape}; expected is {expected}.")
    counts = _lengths("target_lengths", lengths, batch, targets.shape[1] if targets.ndim == 2 else None)
    table = targets if targets.ndim == 2 else _table(targets, counts)
    inside = arange(table.shape[1])[None, :] < counts[:, None]  # (batch, most)
    table = where(inside, table, blank)
    if table.value is not None and ((table.value < 0) | (table.value >= classes)).any():
        low, high = table.value.min(), table.value.max()
        raise DataError(f"ctc: targets must lie between 0 and {classes - 1}; they go from {low} to {high}.")
    return Labels(table, counts)


def _table(targets: Tensor, counts: Tensor) -> Tensor:
    """Labels that stand one after the other, a row for each sequence."""
    total = targets.shape[0]
    most = total
    if counts.value is not None:
        if counts.value.sum() != total:
            raise ShapeError(f"ctc: {total} targets for target_lengths {counts.tolist()}, which sum to another number.")
        most = int(counts.value.max(initial=0))
    if total == 0:
        return full((counts.shape[0], 0), 0, targets.dtype)
    start = cumulative_sum(counts) - counts
    return take(targets, minimum(start[:, None] + arange(most)[None, :], total - 1))


def _losses(x: Tensor, given: Tensor, found: Labels, blank: int) -> Tensor:
    """−log Σ over paths, for each sequence: the forward variables of the labels with blanks around them."""
    steps, batch, _ = x.shape
    most = found.labels.shape[1]
    places = 2 * most + 1  # blank, label, blank, label, ..., blank
    labels = reshape(found.labels, shape=(batch, most, 1))
    blanks = full((batch, most, 1), blank, labels.dtype)
    spelled = reshape(concat([blanks, labels], axis=2), shape=(batch, 2 * most))
    spelled = concat([spelled, full((batch, 1), blank, labels.dtype)], axis=1)  # (batch, places)
    index = broadcast_to(reshape(spelled, shape=(1, batch, places)), (steps, batch, places))
    emitted = take_along_axis(maximum(x, IMPOSSIBLE), index, axis=2)
    skips = _skips(spelled, blank)
    inside = reshape(arange(steps)[:, None] < given[None, :], shape=(steps, batch, 1))
    nothing = full((batch, 2), IMPOSSIBLE, x.dtype)

    def step(alpha: Tensor, now: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        emitted, inside = now
        shifted = concat([nothing, alpha], axis=1)
        before, skipped = shifted[:, 1 : places + 1], where(skips, shifted[:, :places], IMPOSSIBLE)
        return where(inside, emitted + _log_sum(alpha, before, skipped), alpha), None

    first = concat([full((batch, 1), 0, x.dtype), full((batch, places - 1), IMPOSSIBLE, x.dtype)], axis=1)
    alpha, _ = scan(step, first, (emitted, inside))
    ends = reshape(2 * found.lengths, shape=(batch, 1))
    last = take_along_axis(alpha, ends, axis=1)
    label = where(ends > 0, take_along_axis(alpha, maximum(ends - 1, 0), axis=1), IMPOSSIBLE)
    return -reshape(_log_sum(last, label), shape=(batch,))


def _skips(spelled: Tensor, blank: int) -> Tensor:
    """Where a path may come from two places before: from another label, over a blank."""
    batch, places = spelled.shape
    if places < 3:
        return full((batch, places), False, dtypes.bool_)
    differ = logical_and(spelled[:, 2:] != blank, spelled[:, 2:] != spelled[:, :-2])
    return concat([full((batch, 2), False, dtypes.bool_), differ], axis=1)


def _log_sum(*xs: Tensor) -> Tensor:
    """log Σ exp x, element by element."""
    most = xs[0]
    for x in xs[1:]:
        most = maximum(most, x)
    most = stop_gradient(most)
    total = e.exp(xs[0] - most)
    for x in xs[1:]:
        total = total + e.exp(x - most)
    return most + e.log(total)
