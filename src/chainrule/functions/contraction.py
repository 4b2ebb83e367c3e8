"""Sums of products over named axes: `einsum`, `tensordot`.

Two operands at a time. Their axes fall into four groups: those of both that stay (batch), those of both that are
summed, and the free ones of either. Brought into the order (batch, free, summed) and (batch, summed, free), it is one
stacked matrix product; with nothing to sum it is a product with broadcasting.
"""

import math
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.functions.axes import axes_of, reshaped, without
from chainrule.functions.linear_algebra import diagonal
from chainrule.primitives import layout, operators
from chainrule.primitives.contract import matmul
from chainrule.primitives.operators import cast_to, common_shape

Label = str | int  # a letter, or for an axis behind an ellipsis its place counted from the last: −1, −2, …
Term = tuple[Tensor, tuple[Label, ...]]


def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum of products that `subscripts` describes, as in "ij,jk->ik" (a matrix product).

    A letter names an axis of an operand; letters missing after the arrow are summed over. A letter used twice in an
    operand takes its diagonal. Without arrow, the letters that occur once stay, in alphabetical order. "..." stands for
    further axes, which broadcast. Operands are contracted from left to right; dtypes promote.
    Raises ConfigError for subscripts that make no sense, ShapeError where they do not fit the operands.
    Source: Einstein, "Die Grundlage der allgemeinen Relativitätstheorie" (1916), section 5.

    >>> import chainrule as cr
    >>> a, b = cr.tensor([[1.0, 2.0]]), cr.tensor([[3.0], [4.0]])
    >>> cr.einsum("ij,jk->ik", a, b).tolist()
    [[11.0]]
    """
    tensors = _promoted("einsum", operands)
    terms, wanted = _read(subscripts, tensors)
    result, labels = _contracted([_with_diagonals(term) for term in terms], wanted)
    return layout.transpose(result, axes=tuple(labels.index(label) for label in wanted))


def tensordot(a: Any, b: Any, /, axes: int | tuple[Any, Any] = 2) -> Tensor:
    """The product of `a` and `b` summed over pairs of axes; the other axes of `a` come first, then those of `b`.

    `axes` is a number n, for the last n axes of `a` with the first n of `b`, or two lists of axes that go together.

    >>> import chainrule as cr
    >>> cr.tensordot(cr.ones((2, 3, 4)), cr.ones((3, 4, 5)), axes=2).shape
    (2, 5)
    """
    a, b = _promoted("tensordot", (a, b))
    if isinstance(axes, (tuple, list)):
        of_a, of_b = (axes_of("tensordot", axis, x.ndim) for axis, x in zip(axes, (a, b), strict=True))
    else:
        n = operator.index(axes)
        if not 0 <= n <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: {n} axes to sum over; shapes are {a.shape} and {b.shape}.")
        of_a, of_b = tuple(range(a.ndim - n, a.ndim)), tuple(range(n))
    if [a.shape[i] for i in of_a] != [b.shape[i] for i in of_b]:
        raise ShapeError(f"tensordot: axes {of_a} of shape {a.shape} do not match axes {of_b} of shape {b.shape}.")
    labels_a: list[Label] = list(range(a.ndim))
    labels_b: list[Label] = [a.ndim + i for i in range(b.ndim)]
    for i, j in zip(of_a, of_b, strict=True):
        labels_b[j] = labels_a[i]
    kept = without(tuple(range(a.ndim)), of_a) + without(tuple(range(a.ndim, a.ndim + b.ndim)), of_b)
    return _product((a, tuple(labels_a)), (b, tuple(labels_b)), set(kept))[0]


def _promoted(name: str, operands: Sequence[Any]) -> list[Tensor]:
    if not operands:
        raise ConfigError(f"{name} takes at least one operand.")
    tensors = [as_tensor(x) for x in operands]
    dtype = dtypes.promote(*[x.dtype for x in tensors])
    if dtype == dtypes.bool_:
        raise DTypeError(f"{name} takes numbers, not truth values. Convert them: x.astype(cr.int64).")
    return [cast_to(x, dtype) for x in tensors]


# -- reading the subscripts


def _read(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[Term], tuple[Label, ...]]:
    """Each operand with its labels, and the labels of the result."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise ConfigError(f'einsum: "{subscripts}" describes {len(parts)} operands; got {len(tensors)}.')
    labelled = [_labels(subscripts, part, x.ndim) for part, x in zip(parts, tensors, strict=True)]
    terms = _stretch(subscripts, list(zip(tensors, labelled, strict=True)))
    behind = sorted({label for _, labels in terms for label in labels if isinstance(label, int)})
    if arrow:
        before, dots, after = right.partition("...")
        wanted = (*before, *(behind if dots else ()), *after)
    else:
        count = Counter(label for labels in labelled for label in labels if isinstance(label, str))
        wanted = (*behind, *sorted(letter for letter, n in count.items() if n == 1))
    known = {label for labels in labelled for label in labels}
    if len(set(wanted)) != len(wanted) or not known.issuperset(wanted):
        raise ConfigError(f'einsum: the result of "{subscripts}" must name axes of the operands, each at most once.')
    return terms, wanted


def _labels(subscripts: str, part: str, ndim: int) -> tuple[Label, ...]:
    before, dots, after = part.partition("...")
    letters = before + after
    if letters and not (letters.isascii() and letters.isalpha()):
        raise ConfigError(f'einsum: "{part}" in "{subscripts}": axes are named by letters, further ones by one "...".')
    behind = ndim - len(letters)
    if behind < 0 or (behind and not dots):
        raise ShapeError(f'einsum: "{part}" in "{subscripts}" names {len(letters)} axes; the operand has {ndim}.')
    return (*before, *range(-behind, 0), *after)


def _stretch(subscripts: str, terms: list[Term]) -> list[Term]:
    """Check that axes of one name have one extent. Axes behind an ellipsis broadcast: those of extent 1 go."""
    extents: dict[Label, int] = {}
    for x, labels in terms:
        for label, n in zip(labels, x.shape, strict=True):
            if isinstance(label, int):
                extents[label] = common_shape("einsum", (extents.get(label, 1),), (n,))[0]
            elif extents.setdefault(label, n) != n:
                shapes = ", ".join(str(y.shape) for y, _ in terms)
                raise ShapeError(
                    f'einsum: "{subscripts}": axis {label} is {extents[label]} and {n} in shapes {shapes}.'
                )
    result = []
    for x, labels in terms:
        stays = [isinstance(label, str) or n == extents[label] for label, n in zip(labels, x.shape, strict=True)]
        kept = tuple(label for label, stay in zip(labels, stays, strict=True) if stay)
        result.append((reshaped(x, [n for n, stay in zip(x.shape, stays, strict=True) if stay]), kept))
    return result


# -- computing


def _with_diagonals(term: Term) -> Term:
    """Axes of one operand that have the same label become one."""
    x, labels = term
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            rest = [k for k in range(x.ndim) if k not in (i, j)]
            x = diagonal(layout.transpose(x, axes=(*rest, i, j)))
            labels = (*(labels[k] for k in rest), label)
    return x, labels


def _contracted(terms: list[Term], wanted: tuple[Label, ...]) -> Term:
    """All operands multiplied, from left to right, and summed over what is not wanted, as early as possible."""
    result = terms[0]
    for k in range(1, len(terms)):
        later = set(wanted).union(*(labels for _, labels in terms[k + 1 :]))
        right = _summed(terms[k], later.union(result[1]))
        result = _product(_summed(result, later.union(right[1])), right, later)
    return _summed(result, set(wanted))


def _summed(term: Term, keep: set[Label]) -> Term:
    x, labels = term
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    if not axes:
        return term
    return reshaped(layout.sum(x, axes=axes), without(x.shape, axes)), tuple(a for a in labels if a in keep)


def _product(a: Term, b: Term, keep: Iterable[Label]) -> Term:
    """The product of two operands, summed over the labels of both that are not to be kept."""
    keep = set(keep)
    extents = dict(zip(a[1] + b[1], a[0].shape + b[0].shape, strict=True))
    both = [label for label in a[1] if label in b[1]]
    batch, summed = [x for x in both if x in keep], [x for x in both if x not in keep]
    free_a, free_b = [x for x in a[1] if x not in both], [x for x in b[1] if x not in both]
    sizes = [math.prod(extents[x] for x in group) for group in (batch, free_a, summed, free_b)]
    left = layout.transpose(a[0], axes=tuple(a[1].index(x) for x in (*batch, *free_a, *summed)))
    right = layout.transpose(b[0], axes=tuple(b[1].index(x) for x in (*batch, *summed, *free_b)))
    left, right = reshaped(left, sizes[:3]), reshaped(right, (sizes[0], *sizes[2:]))
    y = matmul(left, right) if summed else operators.multiply(left, right)
    labels = (*batch, *free_a, *free_b)
    return reshaped(y, [extents[x] for x in labels]), labels
