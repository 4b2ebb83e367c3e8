"""The data sets that come with the package. Provenance, licence and columns: `shipped/README.md`."""

import csv
import difflib
import gzip
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A shipped data set in memory.

    x: float32 (rows, features), in the units of the source, unscaled. y: int64 (rows,), an index into `target_names`,
    for classes; float32 (rows,) for regression. `image_shape` is set where a row of x is an image (height, width).

    >>> from chainrule import data
    >>> iris = data.load("iris")
    >>> iris.task, iris.target, iris.target_names[iris.y[0]], iris.feature_names[0]
    ('multiclass', 'species', 'setosa', 'sepal length (cm)')
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32]
    feature_names: tuple[str, ...]
    target: str
    target_names: tuple[str, ...]
    task: Task
    description: str
    image_shape: tuple[int, int] | None = None


class Entry(NamedTuple):
    """What the file itself does not say about a shipped data set."""

    target: str
    target_names: tuple[str, ...]
    task: Task
    description: str
    image_shape: tuple[int, int] | None = None


ENTRIES = {
    "breast_cancer": Entry(
        "diagnosis",
        ("malignant", "benign"),
        "binary",
        "Breast Cancer Wisconsin (Diagnostic): 569 tumours, 30 measures of cell nuclei (Wolberg et al. 1995, UCI)",
    ),
    "diabetes": Entry(
        "progression",
        (),
        "regression",
        "Diabetes: 442 patients, 10 raw baseline measures, progression after one year (Efron et al. 2004)",
    ),
    "digits": Entry(
        "digit",
        tuple("0123456789"),
        "multiclass",
        "Handwritten digits: 1,797 images of 8 × 8 pixels from 0 to 16 (Alpaydin, Kaynak 1998, UCI, test part)",
        (8, 8),
    ),
    "iris": Entry(
        "species",
        ("setosa", "versicolor", "virginica"),
        "multiclass",
        "Iris: 150 flowers of three species, lengths and widths in cm (Fisher 1936)",
    ),
    "wine": Entry(
        "cultivar",
        ("class_0", "class_1", "class_2"),
        "multiclass",
        "Wine: 178 wines of three cultivators, 13 constituents (Forina et al. 1988, UCI)",
    ),
}

DIGITS_MAXIMUM = 16
"""The largest value of a pixel in `digits`: the number of set pixels in a block of 4 × 4."""


def names() -> tuple[str, ...]:
    """The names that `load` and `read` know.

    >>> from chainrule import data
    >>> data.names()
    ('breast_cancer', 'diabetes', 'digits', 'iris', 'wine')
    """
    return tuple(ENTRIES)


def load(name: str) -> Dataset:
    """A shipped data set by name, read from the package; nothing is downloaded.

    Raises DataError for a name that is not shipped.

    >>> from chainrule import data
    >>> digits = data.load("digits")
    >>> digits.x.shape, digits.y.shape, digits.task, digits.image_shape
    ((1797, 64), (1797,), 'multiclass', (8, 8))
    >>> data.load("breast_cancer").target_names
    ('malignant', 'benign')
    """
    entry = ENTRIES.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, ENTRIES, 1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise DataError(f'no data set called "{name}" is shipped.{hint}\nShipped: {", ".join(ENTRIES)}')
    header, *rows = csv.reader(gzip.decompress(file_bytes(name)).decode("utf-8").splitlines())
    x = np.array([row[:-1] for row in rows], np.float32)
    last = [row[-1] for row in rows]
    y: NDArray[np.int64] | NDArray[np.float32]
    if entry.target_names:
        index = {label: i for i, label in enumerate(entry.target_names)}
        y = np.array([index[label] for label in last], np.int64)
    else:
        y = np.array(last, np.float32)
    description, shape = entry.description, entry.image_shape
    return Dataset(name, x, y, tuple(header[:-1]), entry.target, entry.target_names, entry.task, description, shape)


def file_bytes(name: str) -> bytes:
    """The shipped file as it is: a gzipped CSV."""
    return files("chainrule.data").joinpath("shipped", f"{name}.csv.gz").read_bytes()
