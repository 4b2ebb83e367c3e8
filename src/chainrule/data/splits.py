"""Which rows train, which validate, which test: a pure function of the seed, the number of rows and the labels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import ConfigError

Rows = NDArray[np.int64]


class Split(NamedTuple):
    """Row numbers of the three parts, each in rising order."""

    train: Rows
    validation: Rows
    test: Rows


def check_fractions(validation: float, test: float) -> None:
    """Raise ConfigError unless the fractions leave something to train on."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            f"validation={validation} and test={test} are shares of the rows: each from 0 to below 1, and together "
            f"below 1, so that rows are left to train on."
        )


def split(
    seed: int, rows: int, labels: NDArray[np.int64] | None = None, validation: float = 0.1, test: float = 0.1
) -> Split:
    """Disjoint parts of `range(rows)`, drawn with Philox (Salmon et al., SC 2011) from the seed.

    With `labels` (rows,), the classes have the same shares in every part as nearly as whole rows allow, and every class
    keeps at least one training row. A part with a share above 0 gets at least one row if there are three.

    Raises ConfigError for shares that leave no training rows, and for a negative seed.

    >>> from chainrule.data.splits import split
    >>> [len(part) for part in split(0, 20640)]
    [16512, 2064, 2064]
    """
    check_fractions(validation, test)
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"the seed is {seed}: it must be a whole number from 0 to 2**64 - 1.")
    # Ordering raw bits: NumPy promises the same bits of Philox for ever, but not the same permutations of them.
    order = np.argsort(np.random.Philox(key=seed).random_raw(rows), kind="stable")
    want_test = min(part_size(rows, test), max(rows - 2, 0))
    want_validation = min(part_size(rows, validation), max(rows - 1 - want_test, 0))
    if labels is None:
        parts = order[want_test + want_validation :], order[want_test:][:want_validation], order[:want_test]
        return Split(*(np.sort(part).astype(np.int64) for part in parts))
    sizes = np.unique(labels, return_counts=True)[1]
    in_test = shares(sizes, want_test, sizes - 1)
    in_validation = shares(sizes, want_validation, sizes - 1 - in_test)
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    place = np.arange(rows) - np.repeat(starts, sizes)  # the place of a row within its class
    is_test = place < np.repeat(in_test, sizes)
    is_validation = ~is_test & (place < np.repeat(in_test + in_validation, sizes))
    masks = ~is_test & ~is_validation, is_validation, is_test
    return Split(*(np.sort(by_class[mask]).astype(np.int64) for mask in masks))


def part_size(rows: int, share: float) -> int:
    """How many rows a share is: at least one if the share is above 0 and there are three rows or more."""
    size = round(rows * share)
    return max(size, 1) if share > 0 and rows >= 3 else size


def shares(sizes: Rows, total: int, most: Rows) -> Rows:
    """`total` divided among classes in proportion to their sizes (largest remainders), at most `most` of each."""
    exact = sizes * (total / max(1, int(sizes.sum())))
    result = np.minimum(np.floor(exact).astype(np.int64), most)
    for i in np.argsort(-(exact - result), kind="stable"):
        if result.sum() >= total:
            break
        result[i] += result[i] < most[i]
    return result
