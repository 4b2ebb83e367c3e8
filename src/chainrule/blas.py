"""BLAS on one thread: OpenBLAS cuts large matrix products differently for each number of threads, and so rounds them
differently. While chainrule multiplies matrices it runs on one, so the bits depend on the numbers alone.

The setting belongs to the process, so it is put back when the last product under way is done. Where NumPy brings
another BLAS whose threads cannot be set (Apple's Accelerate), `single_threaded.controlled` is False.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from types import TracebackType

import numpy as np

NAMES = (  # (set, get), as the wheels of NumPy, conda-forge and distributions call them
    ("scipy_openblas_set_num_threads64_", "scipy_openblas_get_num_threads64_"),
    ("scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"),
    ("openblas_set_num_threads64_", "openblas_get_num_threads64_"),
    ("openblas_set_num_threads", "openblas_get_num_threads"),
    ("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"),
)


def _find() -> tuple[Callable[[int], None], Callable[[], int]] | None:
    """The functions of the BLAS that NumPy was loaded with; dlsym finds them among its dependencies."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        return None
    for setter, getter in NAMES:
        if hasattr(library, setter) and hasattr(library, getter):
            return getattr(library, setter), getattr(library, getter)
    return None


class SingleThreaded:
    """A context in which BLAS uses one thread. It may be entered by several threads at once."""

    def __init__(self) -> None:
        self._functions = _find()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    @property
    def controlled(self) -> bool:
        """Whether the number of threads can be set at all."""
        return self._functions is not None

    def __enter__(self) -> None:
        if self._functions is not None:
            with self._lock:
                if self._inside == 0:
                    self._before = self._functions[1]()
                    if self._before != 1:
                        self._functions[0](1)
                self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._functions is not None:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._before != 1:
                    self._functions[0](self._before)


single_threaded = SingleThreaded()
if hasattr(os, "register_at_fork"):  # a lock that another thread held at the fork would stay locked in the child
    os.register_at_fork(after_in_child=single_threaded._reset)
