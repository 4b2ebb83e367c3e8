"""How many threads NumPy takes for a matrix product: one, while a small network trains.

OpenBLAS, which comes with NumPy, divides even a product of a few hundred microseconds among all cores, and its threads
wait for each other by spinning. For networks of the usual size that gains nothing on an idle machine, and where other
programs are at work it makes training many times slower. And on one thread the bits do not depend on how many cores
there are, so that a run resumed elsewhere goes on as it would have here.
"""

import ctypes
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SMALL = 1 << 25
"""Up to so many multiplications in the largest product one thread is as good as several, within measurement."""

PREFIXES = ("scipy_openblas_", "openblas_")
SUFFIXES = ("64_", "")
VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


@contextmanager
def one_thread(rows: int, sizes: tuple[int, ...]) -> Iterator[None]:
    """One thread inside, for a batch of `rows` rows and layers of these sizes, where their products are small.

    Nothing is changed for large ones, for another BLAS than NumPy's own, or where the user has set the number.
    """
    largest = rows * max(a * b for a, b in itertools.pairwise(sizes))
    library = None if largest > SMALL or any(name in os.environ for name in VARIABLES) else find()
    if library is None:
        yield
        return
    before = threads(library)
    set_threads(library, 1)
    try:
        yield
    finally:
        set_threads(library, before)


def find() -> ctypes.CDLL | None:
    """The OpenBLAS that came with NumPy, and is loaded already; None where it brings another."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            if function(library, "set_num_threads") is not None and function(library, "get_num_threads") is not None:
                return library
    return None


def threads(library: ctypes.CDLL) -> int:
    """How many threads it takes."""
    return int(function(library, "get_num_threads")())  # type: ignore[misc]


def set_threads(library: ctypes.CDLL, number: int) -> None:
    """How many threads it is to take."""
    function(library, "set_num_threads")(number)  # type: ignore[misc]


def function(library: ctypes.CDLL, name: str) -> "ctypes._NamedFuncPointer | None":
    """A function of OpenBLAS under one of the names that builds give it; None where there is none."""
    names = [f"{prefix}{name}{suffix}" for prefix in PREFIXES for suffix in SUFFIXES]
    return next((getattr(library, full) for full in names if hasattr(library, full)), None)
