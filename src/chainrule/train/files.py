"""What every file of a run needs: to be written whole or not at all, to be locked, and to hold plain JSON.

Nothing here knows what a run or a checkpoint is.
"""

import json
import math
import os
import platform
import secrets
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from chainrule.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Temporary files carry a name of their own kind, so that cleaning up never touches a file of somebody else.
_TEMPORARY = ".chainrule-{}.partial"

# Windows forbids others to read a locked byte, so the byte that stands for the file lies far behind its end.
_LOCKED_BYTE = 1 << 30


def atomic_write(
    path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object], *, sync: bool = True
) -> None:
    """Write a file so that its path holds the old or the new content at every moment, never a mixture.

    `content` is the bytes, or a function that writes them to the open (seekable, binary) file it is given.
    When it returns, the new content is on the disk; when it raises, or the process is killed, or the power fails,
    the old content is untouched. What a killed write left behind is removed by the next one in the same folder.
    A symbolic link is followed. Writers in other threads and processes do not disturb each other: the last one wins.
    With `sync=False` nobody waits for the disk: then a power failure (not a kill) may leave anything at the path.

    Raises `OSError` when the file cannot be written; the old content stays.

    >>> import tempfile, pathlib
    >>> from chainrule.train.files import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "note.txt")
    ...     atomic_write(path, b"one")
    ...     atomic_write(path, lambda file: file.write(b"two"))
    ...     path.read_text()
    'two'
    """
    target = Path(os.path.realpath(path))
    _remove_leftovers(target.parent)
    file = _open_temporary(target.parent)
    try:
        with file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # Windows does not rename an open file; elsewhere the lock is held until it has its name
            os.replace(file.name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(file.name)
        raise
    if sync:
        sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder (new, renamed or removed files) survive a power failure.

    >>> import tempfile
    >>> from chainrule.train.files import sync_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sync_folder(folder)
    """
    if sys.platform == "win32":
        return  # Windows offers no such call, and journals its names by itself
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_temporary(folder: Path) -> BinaryIO:
    """A new file, locked for as long as its writer lives: the lock tells a write under way from a leftover."""
    while True:
        file = open(folder / _TEMPORARY.format(secrets.token_hex(8)), "xb")  # noqa: SIM115 (the caller closes it)
        try:
            if _try_lock(file) and os.path.exists(file.name):
                return file
        except OSError:
            return file  # this file system has no locks: leftovers stay here, as nobody can tell them apart
        file.close()  # somebody who cleans up got hold of it before it was locked, and removes it: take another


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(_TEMPORARY.format("*")):
        with suppress(OSError):  # gone already, still being written (Windows), or no locks here
            if sys.platform == "win32":
                leftover.unlink()
                continue
            with open(leftover, "rb") as file:
                if _try_lock(file):
                    leftover.unlink()


def _try_lock(file: BinaryIO, shared: bool = False) -> bool:
    """Lock an open file without waiting. The lock ends when the file is closed or the process dies, however it dies."""
    if sys.platform == "win32":
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        return True
    try:
        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class FileLock:
    """An exclusive lock between processes, and between threads, that dies with the process that holds it.

    The file stays when the lock is released, and tells who held it last; it is the lock that counts, not the file.

    >>> import tempfile, pathlib
    >>> from chainrule.train.files import FileLock
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = FileLock(pathlib.Path(folder, "lock")), FileLock(pathlib.Path(folder, "lock"))
    ...     print(first.acquire(), second.acquire(patience=0.0), first.is_held_by_anyone())
    ...     first.release()
    ...     print(second.acquire())
    ...     second.release()
    True False True
    True
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file: BinaryIO | None = None

    @property
    def held(self) -> bool:
        """Whether this very object holds the lock."""
        return self._file is not None

    def acquire(self, patience: float = 1.0) -> bool:
        """Take the lock; False when somebody else holds it.

        Asking who holds a lock takes it for an instant, so a first refusal is not final: `patience` is in seconds.
        Raises `OSError` when the file cannot be opened, or its file system has no locks.
        """
        if self._file is not None:
            return True
        file = open(self.path, "a+b")  # noqa: SIM115 (open for as long as the lock is held)
        deadline = time.monotonic() + patience
        try:
            while not _try_lock(file):
                if time.monotonic() >= deadline:
                    file.close()
                    return False
                time.sleep(0.02)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}".encode())
            file.flush()
        except BaseException:
            file.close()
            raise
        self._file = file
        _locks.add(self)
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_held_by_anyone(self) -> bool:
        """Whether any living process, this one included, holds the lock."""
        try:
            with open(self.path, "rb") as file:
                return not _try_lock(file, shared=True)
        except OSError:
            return False  # where there is no file, or a file system without locks, nobody can hold one

    def holder(self) -> str:
        """Who took the lock last, as text: `process 4242 on hostname`."""
        try:
            return self.path.read_text("utf-8", errors="replace") or "another process"
        except OSError:
            return "another process"


_locks: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _forget_locks() -> None:
    """A forked child shares the open file, and would hold the lock of its parent for longer than the parent lives."""
    for lock in list(_locks):
        lock.release()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_locks)


_NON_FINITE = "$float"


def to_json(value: object, what: str = "value", indent: int | None = None) -> str:
    """A JSON value as standard JSON text, which `from_json` turns back into an equal value with the same bits.

    Allowed: None, bool, int, float, str, and lists and dicts (with str keys) of them. JSON has no NaN and no infinity;
    these are written as {"$float": "nan"}, "inf" or "-inf" (all NaNs are one here: only tensors keep NaN payloads).

    Raises `ConfigError` for anything else, tuples included, since they would come back as lists; it names the place.

    >>> from chainrule.train.files import from_json, to_json
    >>> to_json({"best": float("inf"), "epoch": 3})
    '{"best": {"$float": "inf"}, "epoch": 3}'
    >>> from_json(to_json({"best": float("inf"), "epoch": 3}))
    {'best': inf, 'epoch': 3}
    """
    try:
        return json.dumps(_plain(value, what), indent=indent, allow_nan=False)
    except RecursionError:
        raise ConfigError(f"{what} contains itself, or is nested too deeply to be written as JSON.") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{what} cannot be written as JSON: {error}.") from error


def from_json(text: str | bytes) -> Any:
    """The value that `to_json` wrote. Raises `ValueError` for text that is not standard JSON.

    >>> from chainrule.train.files import from_json
    >>> from_json('[1, 2.5, null]')
    [1, 2.5, None]
    """
    try:
        return json.loads(text, object_hook=_unmark, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _plain(value: object, place: str) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return {_NON_FINITE: str(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(
                    f"{place} has the key {key!r} of type {type(key).__name__}; JSON keys are strings. "
                    f"Try {str(key)!r}."
                )
            if key == _NON_FINITE:
                raise ConfigError(f"{place} has the key {key!r}, which marks NaN and infinity. Use another key.")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    hint = {"tuple": "Make it a list.", "set": "Make it a sorted list."}.get(
        type(value).__name__, "Use None, bool, int, float, str, list or dict; arrays belong among the tensors."
    )
    raise ConfigError(f"{place} is of type {type(value).__name__}, which JSON cannot hold. {hint}")


def _unmark(pairs: dict[str, Any]) -> Any:
    return float(pairs[_NON_FINITE]) if pairs.keys() == {_NON_FINITE} else pairs


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not standard JSON")
