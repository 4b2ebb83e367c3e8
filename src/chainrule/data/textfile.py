"""From the bytes of a file to UTF-8 text: decompression, foreign formats, encodings."""

import codecs
import gzip
import zlib
from pathlib import Path

from chainrule.data.findings import shortened
from chainrule.errors import ConfigError, DataError

GZIP = b"\x1f\x8b"

FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "export the sheet as CSV, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "export the sheet as CSV"),
    (b"%PDF", "a PDF document", "export the table as CSV"),
    (b"\x89HDF", "an HDF5 file", "save its arrays with numpy.savez"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow/Feather file", "save it as Parquet"),
    (b"BZh", "compressed with bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard", "unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself", "fetch the file with `git lfs pull`"),
    (b"<!doctype html", "a web page", "download the file itself, not the page that shows it"),
    (b"<html", "a web page", "download the file itself, not the page that shows it"),
    (b"<?xml", "an XML document", "export the table as CSV"),
)

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is gzip. Raises DataError if it cannot be read or is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return gunzip(data, path.name)


def gunzip(data: bytes, name: str) -> bytes:
    """`data` decompressed if it is gzip, else as it is."""
    if not data.startswith(GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file ({error}). Download or copy it again.") from error


def refuse_foreign(data: bytes, name: str) -> None:
    """Raise DataError, saying what the file is, when it is clearly no text table."""
    if not data.strip():
        size = "0 bytes" if not data else f"{len(data):,} bytes, all blank"
        raise DataError(f"{name} is empty ({size}). Was it saved or downloaded completely?")
    head = data[:512].lstrip()
    for magic, what, remedy in FOREIGN:
        if data.startswith(magic) or head.lower().startswith(magic.lower()):
            raise DataError(f"{name} is {what}, not a text table: {remedy}.")
    if head[:1] in (b"{", b"[") and head[1:].lstrip()[:1] in (b'"', b"{", b"["):
        raise DataError(f"{name} looks like JSON, not a table of rows and columns: convert it to CSV or Parquet.")


def to_utf8(data: bytes, encoding: str | None, name: str) -> tuple[bytes, list[str]]:
    """The text as UTF-8 with `\\n` line ends and without a byte order mark, and notes on what was repaired.

    With `encoding` None: a byte order mark decides; else UTF-16 is known by its zero bytes; else UTF-8; and text that
    is not UTF-8 is read as Latin-1 or, where it has characters that Latin-1 lacks, as Windows-1252.
    """
    notes: list[str] = []
    if encoding is not None:
        data = decoded(data, encoding, name).encode("utf-8", "replace")
    else:
        data, notes = detected(data, name)
    data = data.removeprefix(codecs.BOM_UTF8)
    zeros = data.count(0)
    if zeros:
        if zeros > 1 + len(data) // 1000:
            raise DataError(f"{name} is binary (it holds {zeros:,} zero bytes), not a text table.")
        data = data.replace(b"\0", b"")
        notes.append(f"{name} holds {zeros:,} zero bytes: removed")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data, notes


def decoded(data: bytes, encoding: str, name: str) -> str:
    """The text in an encoding that the user names."""
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise ConfigError(
            f'"{encoding}" is not an encoding that Python knows. Try "utf-8", "latin-1", "cp1252" or "utf-16".'
        ) from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data[:start].count(b"\n") + 1
        raise DataError(
            f"{name}, line {line:,}: not valid {encoding}. Leave the encoding out to have it guessed."
        ) from error


def detected(data: bytes, name: str) -> tuple[bytes, list[str]]:
    """UTF-8 bytes from an encoding that has to be found out."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            notes = [] if encoding == "utf-8" else [f"{name} is read as {encoding.upper()} (byte order mark)"]
            if encoding == "utf-8":
                data = data[len(mark) :]
                break
            return decoded(data[len(mark) :], encoding, name).encode("utf-8", "replace"), notes
    guess = utf16_without_mark(data)
    if guess:
        return decoded(data, guess, name).encode("utf-8", "replace"), [f"{name} is read as {guess.upper()}"]
    try:
        data.decode("utf-8")
        return data, []
    except UnicodeDecodeError as error:
        return single_byte(data, error.start, name)


def utf16_without_mark(data: bytes) -> str | None:
    """UTF-16 without a mark has a zero in every other byte of plain Latin text."""
    sample = data[:4096]
    half = max(1, len(sample) // 2)
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > 0.6 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def single_byte(data: bytes, start: int, name: str) -> tuple[bytes, list[str]]:
    """Text that is not UTF-8: Windows-1252 where it uses the bytes that Latin-1 leaves to control characters."""
    encoding, title = "latin-1", "Latin-1"
    if len(data.translate(None, bytes(range(0x80, 0xA0)))) < len(data):
        try:
            data.decode("cp1252")
            encoding, title = "cp1252", "Windows-1252"
        except UnicodeDecodeError:
            pass
    line = data[:start].count(b"\n") + 1
    left = max(data.rfind(mark, 0, start) for mark in (b"\n", b",", b";", b"\t", b'"')) + 1
    example = shortened(data[max(left, start - 20) : start + 12].decode(encoding).splitlines()[0], 32)
    note = (
        f'{name} is not UTF-8: read as {title}, so that line {line:,} says "{example}". '
        f'If that looks wrong, give the encoding (such as "cp1250" or "shift_jis")'
    )
    return data.decode(encoding).encode("utf-8"), [note]
