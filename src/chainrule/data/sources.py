"""`read`: from a name or a path to a table or to images, whatever the format."""

import difflib
import os
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from chainrule.data import shipped
from chainrule.data.arrays import Images, is_idx, read_idx, read_npz, shipped_digits
from chainrule.data.delimited import parse, read_delimited
from chainrule.data.findings import listed
from chainrule.data.pictures import is_picture, read_picture, read_pictures
from chainrule.data.records import BadRows
from chainrule.data.tables import Decimal, Table, read_parquet
from chainrule.data.textfile import GZIP, gunzip, read_bytes
from chainrule.errors import ConfigError, DataError


def read(
    source: str | os.PathLike[str],
    *,
    separator: str | None = None,
    decimal: Decimal | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    missing: Sequence[str] = (),
    bad_rows: BadRows = "error",
    image_size: tuple[int, int] | None = None,
    colour: bool | None = None,
) -> Table | Images:
    """A table or images from a file, a folder of IDX files or images, or the name of a shipped data set.

    The content decides the format: CSV, TSV and other delimited text, Parquet, NPZ, NPY, IDX, PNG, JPEG and so on; text
    and IDX may be gzipped. A folder of images has a folder for each class, and may have the parts `train` and `test`. A
    shipped name wins over a file of that name; write `./iris` for the file. What is not given is found out, and
    `.notes` of the result says what was found and repaired.

    For delimited text: separator: one character; decimal: "." or ","; encoding: a Python codec; header: whether the
    first line holds the names; missing: further words for a missing cell. For image files: image_size: (height, width)
    that they are brought to; colour: whether they are taken in colour. For both: bad_rows: "error" or "skip" for rows
    with too many cells, and for images that cannot be read.

    Raises DataError, with file, line and remedy, for what cannot be read; ConfigError for options that make no sense.

    >>> from chainrule import data
    >>> iris = data.read("iris")
    >>> iris.rows, iris.columns[-1]
    (150, 'species')
    >>> data.read("digits").image_shape
    (8, 8)
    """
    given: dict[str, object] = {
        "separator": separator, "decimal": decimal, "encoding": encoding, "header": header, "missing": missing or None,
        "bad_rows": None if bad_rows == "error" else bad_rows, "image_size": image_size, "colour": colour,
    }  # fmt: skip
    options = [name for name, value in given.items() if value is not None]
    check_options(decimal, bad_rows)
    if isinstance(source, str) and source in shipped.names():
        if options:
            raise ConfigError(f"{source} is a shipped data set: {listed(options)} can be given for files only.")
        return read_shipped(source)
    path = existing(source)
    kind = folder_format(path) if path.is_dir() else format_of(path)
    unfit = [name for name in options if name not in FITTING.get(kind, ())]
    if unfit:
        owner = "image files" if unfit[0] in FITTING[IMAGES] else "delimited text"
        raise ConfigError(f"{path.name} is {kind}: {listed(unfit)} can be given for {owner} only.")
    if kind == IMAGES:
        return read_pictures(path, image_size, colour, bad_rows)
    if kind == IMAGE:
        return read_picture(path, image_size, colour)
    if kind == "Parquet":
        return read_parquet(path)
    if kind == "NumPy arrays":
        return read_npz(read_bytes(path), path.name)
    if kind in ("IDX", "a folder of IDX files"):
        return read_idx(path)
    return read_delimited(
        path,
        separator=separator,
        decimal=decimal,
        encoding=encoding,
        header=header,
        missing=missing,
        bad_rows=bad_rows,
    )


TEXT, IMAGE, IMAGES = "text", "an image", "a folder of images"
FITTING = {
    TEXT: ("separator", "decimal", "encoding", "header", "missing", "bad_rows"),
    IMAGE: ("image_size", "colour"),
    IMAGES: ("image_size", "colour", "bad_rows"),
}
"""Which options go with what; those of other formats find out everything by themselves."""


def check_options(decimal: str | None, bad_rows: str) -> None:
    """Raise ConfigError for an unknown decimal mark or way with bad rows."""
    if decimal not in (None, ".", ","):
        raise ConfigError(f'decimal is "{decimal}": it must be "." or ",".')
    if bad_rows not in ("error", "skip"):
        raise ConfigError(f'bad_rows is "{bad_rows}": it must be "error" or "skip".')


def read_shipped(name: str) -> Table | Images:
    """A shipped data set as `read` gives it, with its target known."""
    if name == "digits":
        return shipped_digits()
    table = parse(gunzip(shipped.file_bytes(name), name), name, [], separator=",", decimal=".", header=True)
    return Table(table.frame, name, shipped.ENTRIES[name].target, table.notes, None, ".")


def existing(source: str | os.PathLike[str]) -> Path:
    """The path of a file or folder that exists. Raises DataError with what may have been meant."""
    path = Path(source).expanduser()
    try:
        if path.exists():
            return path
        folder = path.parent
        files = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{source!s:.200} cannot be read: {error}.") from error
    known = [*files, *(shipped.names() if folder == Path(".") else ())]
    close = difflib.get_close_matches(path.name, known, 1, 0.6)
    hint = f' Did you mean "{folder / close[0] if folder != Path(".") else close[0]}"?' if close else ""
    where = f" The folder {folder} does not exist either." if not folder.is_dir() else ""
    raise DataError(
        f"there is no file {path}.{where}{hint}\nA source is a file or the name of a shipped data set: "
        f"{', '.join(shipped.names())}."
    )


def holds_pictures(source: str) -> bool:
    """Whether a source that exists is an image file, or a folder of such files.

    >>> from chainrule import data
    >>> data.holds_pictures("digits")
    False
    """
    path = Path(source).expanduser()
    return path.exists() and (folder_format(path) if path.is_dir() else format_of(path)) in (IMAGE, IMAGES)


def folder_format(path: Path) -> str:
    """What a folder holds. Raises DataError that names what else lies there."""
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    files = [file for file in inside if file.is_file()]
    if any("idx" in file.name.lower() and not is_picture(file) for file in files):
        return "a folder of IDX files"
    if any(is_picture(file) for pattern in ("*", "*/*", "*/*/*") for file in path.glob(pattern)):
        return IMAGES
    what = f"It holds {listed(file.name for file in files)}: name one of them." if files else "It holds no files."
    raise DataError(f"{path} is a folder without IDX files and images. {what}")


def format_of(path: Path) -> str:
    """What a file is, by its first bytes: its name may say something else."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if is_picture(path, head):
        return IMAGE
    if head.startswith(GZIP):
        head = read_bytes(path)[:16]
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.startswith(b"\x93NUMPY") or (head.startswith(b"PK\x03\x04") and holds_arrays(path)):
        return "NumPy arrays"
    return "IDX" if is_idx(head) else TEXT


def holds_arrays(path: Path) -> bool:
    """Whether a zip archive is an NPZ file (or is named as one, and damaged)."""
    try:
        with zipfile.ZipFile(BytesIO(read_bytes(path))) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return path.suffix.lower() == ".npz"
