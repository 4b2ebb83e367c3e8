"""Training data given as arrays: checked once, shuffled by seed and epoch alone, gathered a batch at a time.

Data are `(x, y)`, `(x, y, sample_weight)`, or `x` alone (an array or a dict) where a model learns without targets.
`x` is an array, a tuple or a dict of arrays, with the rows along the first axis of each; so is `y`. Arrays are anything
that NumPy understands: lists, tensors, data frames, memory-mapped files. Of these only the rows of a batch are read.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, DataError

SCANNED = 1 << 22  # values looked at in one go, so that a memory-mapped file is never in memory as a whole
SAMPLED = 256  # rows that the fingerprint reads


class Batch(NamedTuple):
    """Some rows of the data, as arrays in the dtypes that the model computes with. `rows` are their numbers."""

    x: Any
    y: Any
    weight: np.ndarray | None
    rows: np.ndarray


@dataclass(frozen=True)
class Data:
    """Checked data: trees (arrays, tuples and dicts of them) with `rows` rows. `weight` has the mean 1, or is None."""

    x: Any
    y: Any
    weight: np.ndarray | None
    rows: int

    def gather(self, rows: np.ndarray | slice, dtype: dtypes.DType) -> Batch:
        """The given rows, floating-point numbers as `dtype`."""
        numbers = np.arange(self.rows)[rows] if isinstance(rows, slice) else rows
        x, y, weight = (_map(lambda a, _: converted(a[rows], dtype), part) for part in (self.x, self.y, self.weight))
        return Batch(x, y, weight, numbers)

    def in_order(self, size: int, dtype: dtypes.DType) -> Iterator[Batch]:
        """All rows in batches of `size`, as they stand."""
        return (self.gather(slice(i, min(i + size, self.rows)), dtype) for i in range(0, self.rows, size))

    def targets(self, rows: np.ndarray, dtype: dtypes.DType) -> Any:
        """What the outputs for these rows should be: without targets the input."""
        return _map(lambda a, _: converted(a[rows], dtype), self.x if self.y is None else self.y)

    def fingerprint(self) -> str:
        """A digest of shapes, dtypes and up to 256 rows from all over the data: other data have another one."""
        digest = hashlib.sha256()
        rows = np.unique(np.linspace(0, self.rows - 1, min(self.rows, SAMPLED)).astype(np.int64))

        def add(array: np.ndarray, place: str) -> None:
            digest.update(f"{place} {array.shape} {array.dtype.name}".encode())
            digest.update(np.ascontiguousarray(array[rows]).tobytes())

        for part, name in ((self.x, "x"), (self.y, "y"), (self.weight, "sample_weight")):
            _map(add, part, name)
        return digest.hexdigest()


def row_order(seed: int, epoch: int, rows: int, shuffle: bool = True) -> np.ndarray:
    """The order in which epoch `epoch` takes the rows: a pure function of its arguments, on every machine.

    Each row draws 64 bits from Philox under the key (seed, epoch), and the rows are sorted by the first of these, as
    many as the number of a row leaves over.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

    >>> from chainrule.train.batches import row_order
    >>> row_order(seed=0, epoch=1, rows=6), row_order(seed=0, epoch=2, rows=6)
    (array([5, 3, 2, 4, 1, 0]), array([2, 1, 3, 5, 0, 4]))
    """
    if not shuffle:
        return np.arange(rows)
    # The raw bits are used, not Generator.permutation, whose result NumPy may change from one version to the next. The
    # lowest give way to the number of the row: so the numbers are sorted themselves, which takes a quarter of the time.
    drawn = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(rows)
    number = np.uint64((1 << (rows - 1).bit_length()) - 1)
    np.bitwise_and(drawn, ~number, out=drawn)
    np.bitwise_or(drawn, np.arange(rows, dtype=np.uint64), out=drawn)
    drawn.sort()
    np.bitwise_and(drawn, number, out=drawn)
    return drawn.view(np.int64)


def check_seed(seed: int) -> int:
    """The seed, if it is one; ConfigError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed={seed!r} is no seed: give a whole number from 0 to 2**64 - 1.")
    return int(seed)


def read(data: Any, name: str = "data", sample_weight: Any = None) -> Data:
    """Check data given as arrays. Nothing is copied.

    Raises DataError when there are no rows, parts differ in length, something is no array of numbers, or a value is NaN
    or infinite (with their count and the first place); ConfigError for a structure that cannot be understood.

    >>> from chainrule.train.batches import read
    >>> read(([[1.0], [2.0]], [0, 1])).rows
    2
    """
    x, y, weight = _parts(data, name, sample_weight)
    x = _read_tree(x, f"x of {name}")
    y = None if y is None else _read_tree(y, f"y of {name}")
    places: list[tuple[str, int]] = []
    for part, title in ((x, f"x of {name}"), (y, f"y of {name}")):
        _map(lambda array, place: places.append((place, len(array))), part, title)
    if not places:
        raise DataError(f"{name} holds no array.")
    rows = places[0][1]
    for place, length in places:
        if length != rows:
            raise DataError(
                f"{places[0][0]} has {rows} rows, but {place} has {length}. Each row of the one belongs to the row of "
                "the same number of the other, so they must have the same length along their first axis."
            )
    if not rows:
        raise DataError(f"{places[0][0]} has no rows, so there is nothing to learn from.")
    _map(_check_finite, x, f"x of {name}")
    _map(_check_finite, y, f"y of {name}")
    return Data(x, y, None if weight is None else _read_weight(weight, rows, f"sample_weight of {name}"), rows)


def _parts(data: Any, name: str, sample_weight: Any) -> tuple[Any, Any, Any]:
    if isinstance(data, Data):
        return data.x, data.y, data.weight
    if not isinstance(data, tuple):
        return data, None, sample_weight
    if not 1 <= len(data) <= 3 or isinstance(data[0], str):
        raise ConfigError(
            f"{name} is a tuple of {len(data)}. Give (x, y), or (x, y, sample_weight), or x alone. A model with "
            "several inputs takes them as ((x1, x2), y)."
        )
    x, y, weight = (*data, None, None)[:3]
    if weight is not None and sample_weight is not None:
        raise ConfigError(
            f"{name} has a third part, the weights of its rows, and sample_weight= is given too. Give one."
        )
    return x, y, sample_weight if weight is None else weight


def _map(f: Callable[[np.ndarray, str], Any], tree: Any, place: str = "") -> Any:
    """The same structure with `f(array, place)` of each array; None stays None."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: _map(f, value, f"{place}[{key!r}]") for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple([_map(f, value, f"{place}[{i}]") for i, value in enumerate(tree)])
    return f(tree, place)


def _read_tree(tree: Any, place: str) -> Any:
    return _map(_read_array, tree, place)


def _read_array(value: Any, place: str) -> np.ndarray:
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, list) and any(isinstance(v, (np.ndarray, Tensor)) and v.ndim for v in value):
        raise DataError(
            f"{place} is a list of {len(value)} arrays. Give several inputs as a tuple or a dict, and rows "
            "stacked to one array: np.stack(...)."
        )
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(
                f"{place} is no array: its rows have different lengths ({error}). Pad or cut them."
            ) from None
    if array.dtype.kind not in "biuf" and array.dtype != dtypes.bfloat16:
        sample = f", such as {array.flat[0]!r:.60}" if array.size else ""
        raise DataError(
            f"{place} holds no numbers but {array.dtype}{sample}. Encode text and categories as numbers first; "
            "`chainrule train` does that for tables."
        )
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        raise DataError(f"{place} is uint64, whose upper half chainrule has no numbers for. Try .astype(np.int64).")
    if array.ndim == 0:
        raise DataError(
            f"{place} is the single number {array}; an array whose first axis counts the rows was expected."
        )
    return array


def _check_finite(array: np.ndarray, place: str) -> None:
    if array.dtype.kind in "biu":
        return
    rows = max(1, SCANNED // max(1, array[0].size))
    count, first = 0, None
    for start in range(0, len(array), rows):
        bad = ~np.isfinite(array[start : start + rows])
        if bad.any():
            count += int(np.count_nonzero(bad))
            if first is None:
                inside = [int(i) for i in np.argwhere(bad)[0]]
                first = (start + inside[0], *inside[1:])
    if first is None:
        return
    rest = f", at {list(first)}" if len(first) > 1 else ""
    raise DataError(
        f"{place} has {count} value{'s' * (count > 1)} that {'are' if count > 1 else 'is'} NaN or infinite, the first "
        f"{array[first]} in row {first[0]} (counted from 0){rest}. Nothing can be learned from these: fill them "
        "(with the median of the training rows, say) or drop their rows."
    )


def _read_weight(value: Any, rows: int, place: str) -> np.ndarray:
    weight = _read_array(value, place).astype(np.float64)
    if weight.shape != (rows,):
        raise DataError(f"{place} has shape {weight.shape}; one weight a row was expected: ({rows},).")
    _check_finite(weight, place)
    if (weight < 0).any():
        row = int(np.argmax(weight < 0))
        raise DataError(f"{place} is {weight[row]} in row {row}; weights are not negative.")
    return normalised(weight, place)


def normalised(weight: np.ndarray, place: str) -> np.ndarray:
    """Weights scaled to the mean 1, so that they leave the size of the steps alone. DataError when all are 0."""
    mean = float(weight.mean())
    if not mean > 0:
        raise DataError(f"{place} is 0 in all rows, so that no row counts.")
    return weight / mean


def converted(array: Any, dtype: dtypes.DType) -> np.ndarray:
    """An array as models get it: floating-point numbers as `dtype`, others in one of chainrule's dtypes."""
    array = np.asarray(array)
    if array.dtype.kind == "f" or array.dtype == dtypes.bfloat16:
        return array if array.dtype == dtype else array.astype(dtype)
    if array.dtype.newbyteorder("=") in dtypes.ALL:
        return np.asarray(array, array.dtype.newbyteorder("="), order="C")
    return array.astype(np.int64 if array.dtype.itemsize == 8 else np.int32)
