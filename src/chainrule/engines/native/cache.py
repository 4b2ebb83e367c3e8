"""Compiled code on disk, so that it is compiled once.

One file for an entry: a header (magic, version of the format, SHA-256 over everything after it and over the key), the
manifest as JSON, the object. Code from a file is run, so only files are read that this user wrote and nobody else can
write; whatever is damaged or foreign is ignored and made anew. Files are written under another name and then renamed,
so several processes can share a folder. Where nothing can be written, everything works without.

Environment: CHAINRULE_CACHE=0 turns it off; CHAINRULE_CACHE_DIR is the folder; CHAINRULE_CACHE_SIZE its size in
megabytes (256).
"""

import hashlib
import json
import logging
import os
import re
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.errors import ConfigError

MAGIC = b"chainrule code\n\0"
VERSION = 1
HEADER = struct.Struct("<16sI32sQQ")  # magic, version, SHA-256, bytes of the manifest, bytes of the code
MEGABYTES = 256
SUFFIX = ".chainrule"
STALE = 3600.0  # seconds after which a file that was never renamed is left over from a process that died

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What is remembered: an object file, and what must be known to use it, as a JSON document."""

    code: bytes
    manifest: dict[str, Any]


def digest(*parts: str) -> str:
    """A key: different for different parts, in whatever order and however they are cut.

    >>> from chainrule.engines.native.cache import digest
    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def get(key: str) -> Entry | None:
    """What was put under a key made by `digest`; None where there is nothing, or nothing that can be trusted."""
    folder = _folder()
    if folder is None:
        return None
    path = _path(folder, key)
    try:
        entry = _decode(_read(path), key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.debug("%s is ignored and made anew: %s", path, error)
        return None
    with suppress(OSError):
        os.utime(path)  # the last used are kept longest
    return entry


def put(key: str, entry: Entry) -> None:
    """Remember an entry. Where that cannot be done, nothing happens but a message in the debug log."""
    limit = _limit()
    folder = _folder()
    if folder is None:
        return
    try:
        text = _encode(entry, key)
        if len(text) > limit:
            log.debug("%d bytes are more than the cache of compiled code may hold", len(text))
            return
        _write(folder, _path(folder, key), text)
        _shrink(folder, limit)
    except OSError as error:
        log.debug("compiled code is not kept in %s: %s", folder, error)


# -- where


def location() -> Path | None:
    """The folder of the cache, which need not exist; None where it is turned off or the user has no home."""
    if os.environ.get("CHAINRULE_CACHE", "").strip().lower() in ("0", "off", "no", "false"):
        return None
    given = os.environ.get("CHAINRULE_CACHE_DIR")
    if given:
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "chainrule" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "chainrule"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "chainrule"


def _folder() -> Path | None:
    """The folder, made if need be; None where it cannot be used."""
    folder = location()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _trust(folder.stat())
    except (OSError, ValueError) as error:
        log.debug("no compiled code is kept: %s: %s", folder, error)
        return None
    return folder


def _trust(status: os.stat_result) -> None:
    """ValueError where somebody else could have written it. On Windows the user's profile is the user's alone."""
    if os.name != "posix":
        return
    if status.st_uid != os.getuid():
        raise ValueError(f"it belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})")


def _path(folder: Path, key: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ValueError(f"a key comes from `digest`, unlike {key!r}")
    return folder / (key + SUFFIX)


def _limit() -> int:
    text = os.environ.get("CHAINRULE_CACHE_SIZE", "").strip() or str(MEGABYTES)
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ConfigError(f"CHAINRULE_CACHE_SIZE={text!r} is no number of megabytes. Set it to 256, say, or unset it.")
    return int(float(text) * 1e6)


# -- one file


def _encode(entry: Entry, key: str) -> bytes:
    manifest = json.dumps(entry.manifest, separators=(",", ":")).encode()
    body = manifest + entry.code
    return HEADER.pack(MAGIC, VERSION, _sum(key, len(manifest), body), len(manifest), len(entry.code)) + body


def _decode(text: bytes, key: str) -> Entry:
    if len(text) < HEADER.size:
        raise ValueError("it is too short")
    magic, version, checksum, of_manifest, of_code = HEADER.unpack_from(text)
    if magic != MAGIC or version != VERSION:
        raise ValueError("it is of another format")
    body = text[HEADER.size :]
    if len(body) != of_manifest + of_code or checksum != _sum(key, of_manifest, body):
        raise ValueError("it is damaged, or belongs to another key")
    return Entry(body[of_manifest:], json.loads(body[:of_manifest]))


def _sum(key: str, of_manifest: int, body: bytes) -> bytes:
    return hashlib.sha256(f"{key} {of_manifest} {len(body)}\n".encode() + body).digest()


def _read(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        _trust(status)
        return file.read()


def _write(folder: Path, path: Path, text: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tmp")  # mode 600
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


# -- the size


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(last use, bytes, path) of what is ours in the folder; another process may remove files meanwhile."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, ".tmp")):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, Path(entry.path)


def _shrink(folder: Path, limit: int) -> None:
    """Remove what was not used for longest, until the rest fits; and what processes left that died while writing."""
    kept = 0
    for used, size, path in sorted(_files(folder), reverse=True):
        temporary = path.suffix == ".tmp"
        if temporary and time.time() - used < STALE:
            continue
        kept += size
        if temporary or kept > limit:
            with suppress(OSError):
                path.unlink()
