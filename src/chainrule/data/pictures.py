"""Image files (PNG, JPEG and what else Pillow reads): a folder with one folder a class, a folder of images, one image.

The one place where Pillow is used; it is loaded when the first image is read.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.data.arrays import TEST, TRAIN, Images
from chainrule.data.findings import counted, listed
from chainrule.data.records import BadRows
from chainrule.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")

USUAL_SIDE = 64
"""Images of different sizes, or of one that is large, are brought to so many pixels in height and width."""
LARGEST_SIDE = 128
"""Images that all have one size keep it up to this many pixels."""

Bytes = NDArray[np.uint8]


class Wanted(NamedTuple):
    """What all images are brought to. size: (height, width)."""

    size: tuple[int, int]
    colour: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return (3, *self.size) if self.colour else self.size


class Picture(NamedTuple):
    """An image file: where it is, what a message calls it, the class it stands for."""

    path: Path
    name: str
    label: str


def is_picture(path: Path, head: bytes = b"") -> bool:
    """Whether a file is an image, by its first bytes or its name. (Text may begin as a bitmap does: `BM`.)"""
    return head.startswith(MAGIC) or path.suffix.lower() in SUFFIXES


def read_picture(path: Path, size: tuple[int, int] | None = None, colour: bool | None = None) -> Images:
    """One image, without a label. Raises DataError if it cannot be read, ConfigError for a size that is none."""
    return images_of([Picture(path, path.name, "")], path.name, size, colour, "error", [], test_rows=0)


def read_pictures(
    folder: Path, size: tuple[int, int] | None = None, colour: bool | None = None, bad: BadRows = "error"
) -> Images:
    """The images below a folder: bytes (rows, height, width), or (rows, 3, height, width) for colours.

    Each folder in it is a class, called by its name, with all images below it. Where there is a folder `train` and one
    `test` (or `val`), these hold the classes, and the test part is kept. A folder with images alone has no labels.

    size: (height, width) that images are brought to, cut to its shape from the middle; without it images that all have
    one size of at most 128 × 128 keep it, and others get 64 × 64. colour: whether they are taken in colour; without it
    if any of them is. bad: "skip" leaves out files that cannot be read, "error" raises.

    Raises DataError, with the file, for what cannot be read, and for folders without images.
    """
    notes: list[str] = []
    parts = parts_of(folder)
    found = [pictures_in(part, folder, notes) for part in parts]
    if not any(found):
        raise DataError(
            f"{folder} holds no images where they are looked for. A folder of images has one folder for each class: "
            f"{folder.name}/cat/1.jpg, {folder.name}/dog/2.jpg."
        )
    test = len(found[1]) if len(found) == 2 else 0
    return images_of([one for part in found for one in part], folder.name, size, colour, bad, notes, test)


def parts_of(folder: Path) -> list[Path]:
    """The folder itself, or those inside it that hold its training and its test part."""
    inside = {path.name.lower(): path for path in folders_in(folder)}
    train = [inside[name] for name in TRAIN if name in inside]
    test = [inside[name] for name in TEST if name in inside]
    if len(train) == 1 and len(inside) == len(train) + len(test) and len(test) <= 1:
        return train + test
    if len(train) == 1 and len(test) == 2 and len(inside) == 3:
        raise DataError(
            f"{folder} has the parts {listed(sorted(inside))}. Validation images are drawn from the training part: "
            f"move those of {test[1].name} into {train[0].name}, so that {train[0].name} and {test[0].name} are left."
        )
    return [folder]


def folders_in(folder: Path) -> list[Path]:
    """Folders inside that are not hidden, in the order of their names. Raises DataError if it cannot be looked into."""
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "__"))]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def pictures_in(part: Path, folder: Path, notes: list[str]) -> list[Picture]:
    """All images of a part, class by class; without folders for classes those that lie in it, without labels."""
    classes = folders_in(part)
    loose = [path for path in sorted(part.iterdir()) if path.is_file() and is_picture(path)]
    if not classes:
        return [Picture(path, str(path.relative_to(folder)), "") for path in loose]
    if loose:
        notes.append(f"{part.name}: {counted(len(loose), 'image')} beside the folders of classes left out")
    result, others = [], 0
    for one in classes:
        files = [path for path in sorted(one.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        images = [path for path in files if is_picture(path)]
        others += len(files) - len(images)
        if not images:
            notes.append(f"{part.name}: the folder {one.name} holds no images")
        result += [Picture(path, str(path.relative_to(folder)), one.name) for path in images]
    if others:
        notes.append(f"{part.name}: {counted(others, 'other file')} left out")
    return result


def images_of(
    pictures: Sequence[Picture], name: str, size: tuple[int, int] | None, colour: bool | None, bad: BadRows,
    notes: list[str], test_rows: int,
) -> Images:  # fmt: skip
    """The images, read and brought to one shape. The last `test_rows` of them are the test part."""
    wanted, failed = choose_shape(pictures, size, colour, bad, notes)
    first_of_test = len(pictures) - test_rows
    x = np.empty((len(pictures), *wanted.shape), np.uint8)
    kept: list[int] = []
    for i, picture in enumerate(pictures):
        if i in failed:
            continue
        try:
            x[len(kept)] = load(picture.path, wanted)
            kept.append(i)
        except DataError as error:
            failed[i] = excused(error, bad, len(pictures))
    if failed:
        notes.append(f"{name}: {counted(len(failed), 'file')} left out: {listed(failed.values(), 2)}")
    if not kept:
        raise DataError(f"{name}: none of its {len(pictures):,} images can be read.")
    used = [pictures[i] for i in kept]
    labelled = any(picture.label for picture in used)
    if labelled and not all(picture.label for picture in used):
        raise DataError(f"{name}: one of its parts has folders for classes, the other has not.")
    return Images(
        x[: len(kept)],
        np.array([picture.label for picture in used]) if labelled else None,
        name,
        "class",
        tuple(notes),
        sum(i >= first_of_test for i in kept),
        files=tuple(picture.name for picture in used),
    )


def choose_shape(
    pictures: Sequence[Picture], size: tuple[int, int] | None, colour: bool | None, bad: BadRows, notes: list[str]
) -> tuple[Wanted, dict[int, str]]:
    """The shape for all images, from what their headers say, and those that have no readable header."""
    if size is not None and not (len(size) == 2 and all(isinstance(n, int) and 1 <= n <= 4096 for n in size)):
        raise ConfigError(f"image_size is {size!r}: give (height, width), each from 1 to 4096 pixels.")
    failed: dict[int, str] = {}
    if size is not None and colour is not None:
        return Wanted((size[0], size[1]), colour), failed
    sizes: Counter[tuple[int, int]] = Counter()
    any_colour = False
    for i, picture in enumerate(pictures):
        try:
            found, has_colour = header(picture.path)
            sizes[found] += 1
            any_colour |= has_colour
        except DataError as error:
            failed[i] = excused(error, bad, len(pictures))
    if size is None:
        size = next(iter(sizes), (USUAL_SIDE, USUAL_SIDE))
        if len(sizes) > 1 or max(size) > LARGEST_SIDE:
            what = f"sizes from {text(min(sizes))} to {text(max(sizes))}" if len(sizes) > 1 else f"size {text(size)}"
            size = USUAL_SIDE, USUAL_SIDE
            notes.append(f"images of {what} are brought to {text(size)}, cut to a square from the middle")
    return Wanted((size[0], size[1]), any_colour if colour is None else colour), failed


def excused(error: DataError, bad: BadRows, files: int) -> str:
    """What to note of a file that is left out, where that was asked for; else the error is raised."""
    if bad == "error":
        raise DataError(f'{error}\nbad_rows="skip" leaves such files out.' if files > 1 else str(error)) from error
    return str(error)


def text(size: tuple[int, int]) -> str:
    """A size as people write it: width × height."""
    return f"{size[1]}×{size[0]}"


def header(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) of an image as it is seen, and whether it has colours. Only its beginning is read."""
    with opened(path) as image:
        width, height = image.size
        # Asked for this, Pillow reads a PNG to its end, where nobody keeps it.
        if image.format != "PNG" and image.getexif().get(0x0112, 1) >= 5:  # taken with the camera on its side
            width, height = height, width
        return (height, width), not (image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"))


def load(path: Path, wanted: Wanted) -> Bytes:
    """An image upright, in the wanted size and colours, without transparency (over white)."""
    from PIL import Image, ImageOps

    with opened(path) as image:
        try:
            upright = eight_bits(ImageOps.exif_transpose(image), path)
            if upright.has_transparency_data:
                ground = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(ground, upright.convert("RGBA"))
            plain = upright.convert("RGB" if wanted.colour else "L")
            if (plain.height, plain.width) != wanted.size:
                plain = ImageOps.fit(plain, (wanted.size[1], wanted.size[0]), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
        pixels = np.asarray(plain)
    return pixels.transpose(2, 0, 1) if wanted.colour else pixels


def eight_bits(image: "Image", path: Path) -> "Image":
    """The image with at most 8 bits a channel; of deeper grey images the upper 8, which Pillow would not take."""
    from PIL import Image

    if image.mode == "F":
        raise DataError(f"{path} holds floating-point pixels, whose range is not known: save it as PNG, or as NPZ.")
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image, np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise DataError(f"{path} holds pixels from {deep.min()} to {deep.max()}: more than 16 bits cannot be read.")
    return Image.fromarray((deep >> 8).astype(np.uint8))


def opened(path: Path) -> "Image":
    """The image in a file, its pixels not read yet. Raises DataError if it is none."""
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Any) -> DataError:
    """The error for a file that is no image, or damaged."""
    why = "its content is no known format" if type(error).__name__ == "UnidentifiedImageError" else str(error)
    return DataError(f"{path} cannot be read as an image: {why}.")
