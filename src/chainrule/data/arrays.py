"""Arrays from NPZ, NPY and IDX files: images with labels, or tables of numbers."""

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chainrule.data.findings import listed
from chainrule.data.shipped import DIGITS_MAXIMUM, load
from chainrule.data.tables import Table
from chainrule.data.textfile import read_bytes
from chainrule.errors import ConfigError, DataError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Images:
    """Images with or without labels.

    x: (rows, height, width), or of rank 4 with the channels before or behind height and width; any real dtype. y:
    (rows,) labels or amounts, or None. The last `test_rows` rows are the source's own test part; `maximum` is the
    largest value that a pixel can take, where it is known; `files` tells which file each image comes from.

    >>> import numpy as np
    >>> from chainrule import data
    >>> images = data.Images(np.zeros((60, 28, 28), np.uint8), np.arange(60) % 10)
    >>> images.rows, images.image_shape
    (60, (28, 28))
    """

    x: Array
    y: Array | None
    name: str = "images"
    target: str = "label"
    notes: tuple[str, ...] = ()
    test_rows: int = 0
    maximum: float | None = None
    files: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many images there are."""
        return len(self.x)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(self.x.shape[1:])

    def where(self, row: int) -> str:
        """Image `row` for a message."""
        return self.files[row] if self.files else f"image {row:,} (counted from 0)"


Source = Table | Images
Tabular = Source | Mapping[str, Sequence[Any]] | pl.DataFrame


def as_source(source: Tabular) -> Source:
    """A table from whatever stands for one."""
    if isinstance(source, Table | Images):
        return source
    if isinstance(source, Mapping | pl.DataFrame):
        return Table.of(source)
    raise ConfigError(
        f"cannot prepare a {type(source).__name__}: give what `chainrule.data.read` returns, a Table, a mapping of "
        f"column names to values, or a Polars frame."
    )


def shipped_digits() -> Images:
    """The shipped digits as images of 8 × 8 pixels from 0 to 16."""
    digits = load("digits")
    x = digits.x.reshape(-1, 8, 8).astype(np.uint8)
    return Images(x, digits.y, digits.name, digits.target, maximum=float(DIGITS_MAXIMUM))


X_NAMES = ("x", "data", "images", "image", "features", "inputs", "arr_0")
Y_NAMES = ("y", "target", "targets", "labels", "label", "arr_1")
TRAIN, TEST = ("train", "training"), ("test", "testing", "valid", "validation", "val")


def read_npz(data: bytes, name: str) -> Table | Images:
    """The arrays of an NPZ or NPY file. Nothing is unpickled: arrays of Python objects are a DataError.

    Known are pairs of names such as x, y; images, labels; x_train, y_train, x_test, y_test (the test part is kept);
    otherwise arrays of equal length are the columns of a table.
    """
    arrays = load_arrays(data, name)
    named = {role(key): key for key in arrays}
    x_key = named.get(("x", "train")) or named.get(("x", ""))
    if x_key is None:
        return from_columns(arrays, name)
    split = role(x_key)[1]
    y_key = named.get(("y", split))
    x, y = arrays[x_key], labels_of(arrays[y_key], y_key, name) if y_key else None
    notes: list[str] = []
    test_rows = 0
    test_x, test_y = named.get(("x", "test")), named.get(("y", "test"))
    if split == "train" and test_x and (test_y or y is None):
        if arrays[test_x].shape[1:] != x.shape[1:]:
            raise DataError(f"{name}: {x_key} has shape {x.shape}, but {test_x} has {arrays[test_x].shape}.")
        test_rows = len(arrays[test_x])
        if test_y and y is not None:
            labels = labels_of(arrays[test_y], test_y, name)
            check_lengths(arrays[test_x], labels, test_x, test_y, name)
            check_lengths(x, y, x_key, str(y_key), name)
            y = np.concatenate((y, labels))
        x = np.concatenate((x, arrays[test_x]))
    used = {x_key, y_key, test_x if test_rows else None, test_y if test_rows else None}
    unused = [key for key in arrays if key not in used]
    if unused:
        notes.append(f"{name}: arrays not used: {listed(unused)}")
    if y is not None:
        check_lengths(x, y, x_key, str(y_key), name)
    return source_of(x, y, name, "y" if y_key is None else base(y_key), notes, test_rows)


def load_arrays(data: bytes, name: str) -> dict[str, Array]:
    """The arrays in the file, by name."""
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, struct.error, SyntaxError) as error:
        if "pickle" in str(error).lower():
            raise DataError(
                f"{name} holds Python objects, which could run code when they are loaded, so they are not. "
                f"Save plain arrays: numpy.savez(path, x=x, y=y) with x and y of a number or text dtype."
            ) from error
        raise DataError(f"{name} cannot be read as NumPy arrays: {error}.") from error
    if not arrays or all(array.size == 0 for array in arrays.values()):
        raise DataError(f"{name} holds no array with values in it.")
    for key, array in arrays.items():
        if array.dtype.kind not in "biufUSM":
            raise DataError(f'{name}: array "{key}" is {array.dtype}: only numbers, texts and dates can be read.')
    return arrays


def role(key: str) -> tuple[str, str]:
    """What an array is by its name: x or y (or the name itself), and the part: train, test or none."""
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    joined = re.fullmatch(r"([xy]?)(train|test|val)([xy]?)", "".join(words))
    if joined:  # xtrain, trainX
        words = [word for word in joined.groups() if word]
    part = "train" if set(words) & set(TRAIN) else "test" if set(words) & set(TEST) else ""
    rest = "_".join(word for word in words if word not in TRAIN + TEST)
    return ("x" if rest in X_NAMES else "y" if rest in Y_NAMES else key, part)


def base(key: str) -> str:
    """The name of an array without its part: `y` for `y_train`."""
    return re.sub(r"[^a-zA-Z0-9]*(training|train)[^a-zA-Z0-9]*", "", key, flags=re.IGNORECASE) or key


def labels_of(y: Array, key: str, name: str) -> Array:
    """Labels (rows,) from (rows,), (rows, 1) or one-hot rows."""
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        return y.argmax(1)
    if y.ndim != 1:
        raise DataError(f"{name}: {key} has shape {y.shape}; labels are (rows,), (rows, 1) or one-hot rows.")
    return y


def check_lengths(x: Array, y: Array, x_key: str, y_key: str, name: str) -> None:
    """Raise DataError unless there is one label per row."""
    if len(x) != len(y):
        raise DataError(f"{name}: {x_key} has {len(x):,} rows, but {y_key} has {len(y):,} labels.")


def source_of(x: Array, y: Array | None, name: str, target: str, notes: list[str], test_rows: int) -> Table | Images:
    """Images where x has rank 3 or 4, a table where it has rank 1 or 2."""
    if x.ndim in (3, 4):
        if x.dtype.kind not in "biuf":
            raise DataError(f"{name}: images have dtype {x.dtype}; pixels are numbers.")
        return Images(x, y, name, target, tuple(notes), test_rows)
    if x.ndim not in (1, 2):
        raise DataError(f"{name}: x has shape {x.shape}; a table has rank 1 or 2, images have rank 3 or 4.")
    x = x.reshape(len(x), -1)
    columns: dict[str, Array] = {f"x{i}": x[:, i] for i in range(x.shape[1])}
    if y is not None:
        columns[target] = y
    table = Table.of(columns, name)
    return Table(table.frame, name, target if y is not None else None, tuple(notes), test_rows=test_rows)


def from_columns(arrays: Mapping[str, Array], name: str) -> Table | Images:
    """Arrays of equal length as columns; an array of rank 2 gives one column for each of its own."""
    lengths = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    columns: dict[str, Array] = {}
    for key, array in arrays.items():
        if array.ndim == 1:
            columns[key] = array
        elif array.ndim == 2:
            columns |= {f"{key}_{i}": array[:, i] for i in range(array.shape[1])}
    if len(set(lengths.values())) > 1 or any(array.ndim not in (1, 2) for array in arrays.values()):
        shapes = listed(f"{key} {array.shape}" for key, array in arrays.items())
        raise DataError(
            f"{name}: its arrays are no x and y, and no columns of equal length: {shapes}. "
            f"Call them x and y, or x_train, y_train, x_test and y_test."
        )
    return Table.of(columns, name)


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def is_idx(data: bytes) -> bool:
    """Whether the bytes begin as an IDX file does."""
    return len(data) >= 8 and data[:2] == b"\0\0" and data[2] in IDX_TYPES and 1 <= data[3] <= 4


def parse_idx(data: bytes, name: str) -> Array:
    """The array in an IDX file (the format of MNIST, LeCun 1998). Raises DataError if it is damaged."""
    if not is_idx(data):
        raise DataError(f"{name} is no IDX file: it begins with {data[:4].hex(' ')}, not with 00 00 <type> <rank>.")
    dtype, rank = np.dtype(IDX_TYPES[data[2]]), data[3]
    begin = 4 + 4 * rank
    if len(data) < begin:
        raise DataError(f"{name} ends within its header. Download or copy it again.")
    shape = struct.unpack(f">{rank}I", data[4:begin])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - begin != expected:
        raise DataError(
            f"{name} should hold {expected:,} bytes of values for shape {shape}, but holds {len(data) - begin:,}. "
            f"Download or copy it again."
        )
    array = np.frombuffer(data, dtype, offset=begin).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def idx_role(path: Path) -> tuple[str, str]:
    """Images or labels, and training or test part, from the name of an IDX file."""
    name = path.name.lower()
    kind = "images" if "image" in name else "labels" if "label" in name else ""
    return kind, "test" if "t10k" in name or "test" in name else "train"


def read_idx(path: Path) -> Images | Table:
    """An IDX file of images with its labels beside it, or a folder of them.

    A folder may hold one pair or, as MNIST does, a training and a test pair: the test pair stays the test part.
    """
    if path.is_dir():
        files = {idx_role(file): file for file in sorted(path.iterdir()) if idx_name(file)}
    else:
        kind, part = idx_role(path)
        if kind == "labels":
            raise DataError(f"{path.name} holds labels only: name the file of images, or the folder of both.")
        siblings = [file for file in sorted(path.parent.iterdir()) if idx_name(file) and same_set(path, file)]
        files = {idx_role(file): file for file in siblings if idx_role(file) == ("labels", part)}
        files["images", part] = path
    parts = [part for part in ("train", "test") if ("images", part) in files]
    if not parts:
        raise DataError(f"{path} holds no IDX file of images (such as train-images-idx3-ubyte.gz).")
    xs = [parse_idx(read_bytes(files["images", part]), files["images", part].name) for part in parts]
    labels = [files["labels", part] for part in parts if ("labels", part) in files]
    labelled = len(labels) == len(parts)
    ys = [parse_idx(read_bytes(file), file.name) for file in labels] if labelled else []
    for x, y, part in zip(xs, ys, parts, strict=False):
        check_lengths(x, y, files["images", part].name, files["labels", part].name, path.name)
    if len(xs) == 2 and xs[0].shape[1:] != xs[1].shape[1:]:
        raise DataError(f"{path.name}: training images have shape {xs[0].shape}, test images {xs[1].shape}.")
    notes = [] if labelled else [f"{path.name}: no labels beside the images"]
    labels_all = np.concatenate(ys) if ys else None
    return source_of(np.concatenate(xs), labels_all, path.name, "label", notes, len(xs[1]) if len(xs) == 2 else 0)


def idx_name(path: Path) -> bool:
    """Whether a file is called as IDX files are."""
    return path.is_file() and bool(re.search(r"idx\d?[-.]?u?byte|\.idx\d?(\.gz)?$|-idx\d", path.name.lower()))


def same_set(images: Path, labels: Path) -> bool:
    """Whether two names differ only in images/labels, the rank and the compression."""
    plain = [re.sub(r"images?|labels?|idx\d?|\.gz$|[-._]", "", path.name.lower()) for path in (images, labels)]
    return plain[0] == plain[1]
