"""From an object file to code in memory, without LLVM: loading LLVM takes longer than all the rest of a warm start.

Objects of ours are simple: code, constants, and calls of a few functions of the C library. Everything is addressed
relative to the instruction, so an object is laid out and finished before anybody knows where it will lie. What is not
of that kind (another format, processor or system, another sort of relocation) is left to LLVM's linker.

The layout of ELF: System V ABI, chapters 4 (object files) and 5; relocations: its supplement for AMD64, section 4.4.
"""

import ctypes
import mmap
import platform
import struct
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

CONTENT, SYMBOLS, ADDENDS = 1, 2, 4  # kinds of sections: content, the table of symbols, relocations
UNWINDING = 0x70000001  # what exceptions of C++ need; nothing here throws any
WRITABLE, ALLOCATED, TLS = 1, 2, 0x400  # flags of sections
AMD64, RELOCATABLE = 62, 1
RELATIVE, CALL = 2, 4  # relocations: R_X86_64_PC32 and R_X86_64_PLT32, both S + A - P in 32 bits
UNDEFINED = 0  # the section of a symbol that is not in the object
FUNCTION, SECTION, FILE = 2, 3, 4  # kinds of symbols
JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp *0(%rip): to the address that follows
STUB = 16  # bytes for a jump and its address

Place = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
"""An entry of a table of relocations."""


class Foreign(Exception):
    """An object of another kind than ours."""


class Section(NamedTuple):
    """An entry of the table of sections, as it stands there."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """A symbol: the number of the section that it is in, and where in there."""

    name: str
    kind: int
    section: int
    value: int


@dataclass(frozen=True)
class Image:
    """Code as it is to lie in memory, wherever that is.

    functions  where the functions begin
    outside    where the address of each function of others is to be written
    """

    content: bytes
    functions: Mapping[str, int]
    outside: Mapping[str, int]


@cache
def supported() -> bool:
    """Whether code of this process is of the kind that is understood here."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


def link(code: bytes) -> Image | None:
    """Lay an object out; None where it is not of the kind that is understood."""
    try:
        return _link(code)
    except (Foreign, struct.error, IndexError, ValueError, OverflowError):
        return None


def _link(code: bytes) -> Image:
    if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", code, 16) != (RELOCATABLE, AMD64):
        raise Foreign
    sections = sections_of(code)
    places, image = _lay_out(code, sections)
    symbols, functions, outside = _symbols(code, sections, places, len(image))
    image += (JUMP + bytes(STUB - len(JUMP))) * len(outside)
    _relocate(code, sections, places, symbols, image)
    return Image(bytes(image), functions, {name: at + len(JUMP) for name, at in outside.items()})


def sections_of(code: bytes) -> list[Section]:
    """The table of sections of an object."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count = struct.unpack_from("<HH", code, 0x3A)
    return [Section(*struct.unpack_from("<IIQQQQIIQQ", code, table + k * entry_size)) for k in range(count)]


def symbols_of(code: bytes, sections: list[Section], table: Section) -> Iterator[Symbol]:
    """The entries of a table of symbols, in order."""
    strings = sections[table.link].offset
    for at in range(table.offset, table.offset + table.size, table.entry_size):
        start, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", code, at)
        name = code[strings + start : code.index(b"\0", strings + start)].decode()
        yield Symbol(name, info & 15, section, value)


def _lay_out(code: bytes, sections: list[Section]) -> tuple[dict[int, int], bytearray]:
    """Where each section goes that is needed at run time, and all of them; then room up to a multiple of a stub."""
    places: dict[int, int] = {}
    image = bytearray()
    for k, section in enumerate(sections):
        if not section.flags & ALLOCATED or section.kind == UNWINDING:
            continue
        if section.kind != CONTENT or section.flags & (WRITABLE | TLS) or section.alignment > mmap.PAGESIZE:
            raise Foreign
        if section.offset + section.size > len(code):
            raise Foreign
        image += bytes(-len(image) % max(1, section.alignment))
        places[k] = len(image)
        image += code[section.offset : section.offset + section.size]
    return places, image + bytes(-len(image) % STUB)


def _symbols(
    code: bytes, sections: list[Section], places: dict[int, int], end: int
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """Where each symbol lies, the functions, and a stub behind the `end` for each function that is not there."""
    tables = [section for section in sections if section.kind == SYMBOLS]
    if len(tables) != 1:
        raise Foreign
    (table,) = tables
    found: list[int] = []
    functions: dict[str, int] = {}
    outside: dict[str, int] = {}
    for name, kind, section, value in symbols_of(code, sections, table):
        if section in places:
            if value > sections[section].size:
                raise Foreign
            found.append(places[section] + value)
            if kind == FUNCTION:
                functions[name] = found[-1]
        elif section == UNDEFINED and name:
            found.append(outside.setdefault(name, end + STUB * len(outside)))
        elif (section == UNDEFINED and not name) or kind in (FILE, SECTION):
            found.append(-1)  # nothing refers to these
        else:
            raise Foreign
    return np.array(found, np.int64), functions, outside


def _relocate(
    code: bytes, sections: list[Section], places: dict[int, int], symbols: np.ndarray, image: bytearray
) -> None:
    """Write the distances that the linker is to fill in."""
    memory = np.frombuffer(image, np.uint8)
    for section in sections:
        if section.kind != ADDENDS or section.info not in places:
            continue
        entries = np.frombuffer(code, Place, section.size // Place.itemsize, section.offset)
        if not np.isin(entries["kind"], (RELATIVE, CALL)).all():
            raise Foreign
        targets, at = symbols[entries["symbol"]], places[section.info] + entries["offset"].astype(np.int64)
        distances = targets + entries["addend"] - at
        small = (np.abs(distances) < 1 << 31).all()
        if not small or (targets < 0).any() or (at < 0).any() or (at + 4 > len(image)).any():
            raise Foreign
        memory[at[:, None] + np.arange(4)] = distances.astype("<i4").view(np.uint8).reshape(-1, 4)


class Loaded:
    """An image in memory, where it can be run but not be written to. Freed when nobody has it any more, but not when
    the interpreter shuts down: threads may be inside the code until the process is gone.

    Raises KeyError where a function of others is unknown, OSError where the system gives no memory for code.
    """

    def __init__(self, image: Image, outside: Mapping[str, int]) -> None:
        content = bytearray(image.content)
        for name, at in image.outside.items():
            struct.pack_into("<Q", content, at, outside[name])
        self.functions = image.functions
        size = -(-len(content) // mmap.PAGESIZE) * mmap.PAGESIZE
        system = _system()
        self.address: int = system.mmap(
            None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
        )
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "no memory for code")
        weakref.finalize(self, system.munmap, self.address, size).atexit = False
        ctypes.memmove(self.address, bytes(content), len(content))
        if system.mprotect(self.address, size, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "the system does not let memory be run")


@cache
def _system() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library


def address_of(name: str) -> int:
    """Where a function of the C library lies. AttributeError where there is none of that name."""
    return int(ctypes.cast(getattr(_system(), name), ctypes.c_void_p).value or 0)
