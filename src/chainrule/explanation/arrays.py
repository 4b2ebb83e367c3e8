"""Arrays as JSON values: whole where they are small, else as statistics, a histogram and a small picture."""

import math
from typing import Any

import numpy as np

WHOLE = 4096  # elements of an array that is written as it is
BINS = 32
SIDE = 64  # rows and columns of a picture, at most


def array_to_json(array: np.ndarray, whole: int = WHOLE) -> dict[str, Any]:
    """An array as JSON values: {"shape", "dtype", "data"}, or with "summary" and "image" where it is large.

    Numbers that are not finite are the strings "NaN", "Infinity" and "-Infinity".

    >>> import numpy as np
    >>> from chainrule.explanation.arrays import array_to_json
    >>> array_to_json(np.array([1.0, np.nan]))
    {'shape': [2], 'dtype': 'float64', 'data': [1.0, 'NaN']}
    """
    kind = {"shape": list(array.shape), "dtype": array.dtype.name}
    if array.size <= whole:
        return kind | {"data": _plain(array)}
    numbers = array.astype(np.float64)
    return kind | {"summary": summary(numbers), "image": image(numbers)}


def summary(numbers: np.ndarray) -> dict[str, Any]:
    """Statistics of the finite elements, and a histogram of 32 bins."""
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    counts, _ = np.histogram(finite, BINS, (low, high if high > low else low + 1))
    return {
        "min": low,
        "max": high,
        "mean": float(finite.mean()) if finite.size else 0.0,
        "std": float(finite.std()) if finite.size else 0.0,
        "norm": float(np.linalg.norm(finite)),
        "zeros": float((numbers == 0).mean()) if numbers.size else 0.0,
        "nonfinite": int(numbers.size - finite.size),
        "histogram": {"low": low, "high": high, "counts": counts.tolist()},
    }


def image(numbers: np.ndarray) -> dict[str, Any]:
    """The last two axes as a picture of at most 64 × 64: blocks and other axes are averaged."""
    flat = numbers.reshape(-1, *numbers.shape[-2:]) if numbers.ndim >= 2 else numbers.reshape(1, 1, -1)
    with np.errstate(invalid="ignore"):
        picture = flat.mean(axis=0)
    for axis in (0, 1):
        size = picture.shape[axis]
        if size > SIDE:
            starts = np.linspace(0, size, SIDE, endpoint=False).astype(np.int64)
            widths = np.diff(np.append(starts, size)).reshape((-1, 1) if axis == 0 else (1, -1))
            picture = np.add.reduceat(picture, starts, axis=axis) / widths
    return {"rows": picture.shape[0], "columns": picture.shape[1], "data": _plain(picture)}


def number_to_json(value: float) -> float | str:
    """A number that every JSON reader takes."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "biu":
        return array.reshape(-1).tolist()
    return [number_to_json(x) for x in array.astype(np.float64).reshape(-1).tolist()]
