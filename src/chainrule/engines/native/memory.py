"""Memory that compiled code works in, and the mode in which the processor treats very small numbers."""

import ctypes
import mmap
import os
import sys
from contextlib import suppress

import numpy as np

from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Function
from chainrule.errors import CompileError, ConfigError

ALIGNMENT = 64
"""Of every arena: a cache line, and the widest vector."""

HUGE = 2 << 20
"""Arenas of this size or more ask for pages of this size: fewer misses of the table of pages on long strides."""

CANARY = 0xA5

MXCSR = 0x1F80 | 0x8000 | 0x0040
"""x86: nothing traps, round to nearest even; denormal results become 0 (FTZ), denormal inputs are read as 0 (DAZ)."""

FPCR = 1 << 24
"""ARM: nothing traps, round to nearest even; denormal results become 0 and denormal inputs are read as 0 (FZ)."""


class Arena:
    """Zeroed memory that compiled code may use, freed when neither the arena nor a view of its `array` is left.

    With `guard`, the pages before and after cannot be touched: whoever steps outside is stopped by the system at that
    very instruction. The end of the memory lies as close to the page behind as `alignment` lets it; what remains
    between holds a pattern, and `intact` says whether somebody wrote there. Guarding needs mprotect (Linux, macOS).

    >>> from chainrule.engines.native.memory import Arena
    >>> arena = Arena(1000)
    >>> len(arena.array), arena.address % 64
    (1000, 0)
    """

    def __init__(self, nbytes: int, guard: bool = False, alignment: int = ALIGNMENT) -> None:
        self.array: np.ndarray
        self.address: int
        self._around = np.empty(0, np.uint8)  # the rim of a guarded arena
        if guard:
            self._guarded(nbytes, alignment)
        else:
            large = nbytes >= HUGE and sys.platform == "linux"
            whole = _huge(nbytes + HUGE) if large else np.zeros(nbytes + alignment, np.uint8)
            start = -whole.ctypes.data % (HUGE if large else alignment)
            self.array = whole[start : start + nbytes]
            self.address = int(whole.ctypes.data) + start  # not that of the slice: NumPy has none for an empty one

    def _guarded(self, nbytes: int, alignment: int) -> None:
        page = mmap.PAGESIZE
        inside = -(-(nbytes + alignment) // page) * page
        whole = np.frombuffer(mmap.mmap(-1, inside + 2 * page), np.uint8)
        first = int(whole.ctypes.data)
        for edge in (first, first + page + inside):
            _forbid(edge, page)
        start = page + (inside - nbytes) // alignment * alignment
        self.array, self.address = whole[start : start + nbytes], first + start
        self._around = whole[page : page + inside]
        self._at = start - page
        for rim in self._rims():
            rim[:] = CANARY

    def _rims(self) -> tuple[np.ndarray, np.ndarray]:
        if not len(self._around):
            return self._around, self._around
        return self._around[: self._at], self._around[self._at + len(self.array) :]

    @property
    def intact(self) -> bool:
        """Whether nobody wrote between the arena and its guarding pages."""
        return all(bool((rim == CANARY).all()) for rim in self._rims())


def _huge(nbytes: int) -> np.ndarray:
    # Private: memory that is shared is not given large pages, and the child of a fork would work in that of its parent.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # the system has no such pages, or none to spare
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _forbid(address: int, nbytes: int) -> None:
    """Nobody may read or write these pages."""
    if os.name != "posix":
        raise ConfigError("Guarded memory needs mprotect, which this system does not have. Run without the guard.")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_int(0)) != 0:
        raise CompileError(f"Pages of guarded memory could not be protected: {os.strerror(ctypes.get_errno())}.")


# -- denormal numbers


def enter(f: Function, host: Host) -> str:
    """Begin to flush denormal numbers to zero, and to round to nearest; the caller's mode, for `leave`.

    LLVM does not know that arithmetic depends on the mode, and may move it past these instructions. So they belong into
    a function that only calls others.
    """
    if host.x86:
        slot = f.op("alloca i32, align 4")
        f.effect("llvm.x86.sse.stmxcsr", ("ptr", slot))
        saved = f.load("i32", slot, 4)
        _set_mxcsr(f, slot, MXCSR)
        return saved
    if host.arm:
        saved = f.intrinsic("llvm.aarch64.get.fpcr", "i64")
        f.effect("llvm.aarch64.set.fpcr", ("i64", FPCR))
        return saved
    return ""


def leave(f: Function, host: Host, saved: str) -> None:
    """Go back to the mode that `enter` found."""
    if host.x86:
        _set_mxcsr(f, f.op("alloca i32, align 4"), saved)
    elif host.arm:
        f.effect("llvm.aarch64.set.fpcr", ("i64", saved))


def _set_mxcsr(f: Function, slot: str, value: int | str) -> None:
    f.store("i32", value, slot, 4)
    f.effect("llvm.x86.sse.ldmxcsr", ("ptr", slot))
