"""Image files: folders of classes, sizes, colours, what is upright, transparent, deep, damaged."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chainrule import data
from chainrule.errors import ConfigError, DataError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def coloured(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def animals(tmp_path):
    """Two classes of three grey pictures each, told apart by their first pixel."""
    for label, first in (("cat", 10), ("dog", 200)):
        for i in range(3):
            pixels = GREY.copy()
            pixels[0, 0] = first + i
            save(tmp_path / f"animals/{label}/{i}.png", pixels)
    return tmp_path / "animals"


def test_each_folder_is_a_class(animals):
    images = data.read(animals)
    assert images.x.dtype == np.uint8 and images.x.shape == (6, 6, 8)
    assert images.y.tolist() == ["cat"] * 3 + ["dog"] * 3
    assert images.x[:, 0, 0].tolist() == [10, 11, 12, 200, 201, 202]
    np.testing.assert_array_equal(images.x[0].ravel()[1:], GREY.ravel()[1:])
    assert (images.name, images.target, images.notes, images.test_rows) == ("animals", "class", (), 0)
    assert images.where(4).replace("\\", "/") == "dog/1.png"


def test_pictures_are_found_at_any_depth_and_other_files_are_left_out(animals):
    save(animals / "cat/more/still more/9.png", GREY)
    (animals / "dog/readme.txt").write_text("all good dogs")
    (animals / ".hidden").mkdir()
    save(animals / "loose.png", GREY)
    (animals / "fish").mkdir()
    images = data.read(animals)
    assert images.y.tolist().count("cat") == 4
    notes = "\n".join(images.notes)
    assert "1 other file left out" in notes
    assert "1 image beside the folders of classes" in notes
    assert "the folder fish holds no images" in notes


def test_parts_for_training_and_test_are_kept(animals, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "split" / part).mkdir(parents=True)
    (animals / "cat").rename(tmp_path / "split/train/cat")
    (animals / "dog").rename(tmp_path / "split/train/dog")
    save(tmp_path / "split/test/dog/1.png", GREY)
    images = data.read(tmp_path / "split")
    assert images.rows == 7 and images.test_rows == 1 and images.y[-1] == "dog"


def test_a_validation_part_beside_a_test_part_is_for_the_reader_to_move(tmp_path):
    for part in ("train", "val", "test"):
        save(tmp_path / f"split/{part}/cat/1.png", GREY)
    with pytest.raises(DataError, match="Validation images are drawn from the training part"):
        data.read(tmp_path / "split")


def test_classes_may_be_called_as_parts_are(tmp_path):
    for label in ("test", "train", "tram"):
        save(tmp_path / f"rail/{label}/1.png", GREY)
    assert data.read(tmp_path / "rail").y.tolist() == ["test", "train", "tram"]


def test_a_class_may_be_called_as_a_gap_is(animals):
    (animals / "cat").rename(animals / "None")
    prepared = data.Preparation.fit(data.read(animals), validation=0, test=0)
    assert prepared.class_names == ("None", "dog")


def test_images_without_folders_have_no_labels(tmp_path):
    for i in (2, 1):
        save(tmp_path / f"new/{i}.png", GREY + np.uint8(i))
    images = data.read(tmp_path / "new")
    assert images.y is None and images.files == ("1.png", "2.png")
    assert data.read(tmp_path / "new/2.png").x.shape == (1, 6, 8)
    assert data.holds_pictures(str(tmp_path / "new")) and data.holds_pictures(str(tmp_path / "new/2.png"))


def test_colours_have_channels_in_front(tmp_path):
    save(tmp_path / "mixed/a/1.png", GREY)
    pixels = coloured()
    save(tmp_path / "mixed/b/1.png", pixels)
    images = data.read(tmp_path / "mixed")
    assert images.image_shape == (3, 6, 8)
    np.testing.assert_array_equal(images.x[0], np.broadcast_to(GREY, (3, 6, 8)))
    np.testing.assert_array_equal(images.x[1], pixels.transpose(2, 0, 1))
    assert data.read(tmp_path / "mixed", colour=False).image_shape == (6, 8)


def test_sizes(tmp_path):
    save(tmp_path / "sizes/a/1.png", np.full((30, 60), 7, np.uint8))
    save(tmp_path / "sizes/a/2.png", np.full((90, 40), 9, np.uint8))
    images = data.read(tmp_path / "sizes")
    assert images.image_shape == (64, 64) and set(images.x[0].ravel()) == {7} and set(images.x[1].ravel()) == {9}
    assert "sizes from 60×30 to 40×90 are brought to 64×64" in images.notes[0]
    small = data.read(tmp_path / "sizes", image_size=(6, 8))
    assert small.image_shape == (6, 8) and small.notes == ()
    with pytest.raises(ConfigError, match=r"\(height, width\)"):
        data.read(tmp_path / "sizes", image_size=(0, 8))


def test_large_images_are_reduced_and_small_ones_stay(tmp_path):
    save(tmp_path / "large/a/1.png", np.zeros((200, 200), np.uint8))
    assert data.read(tmp_path / "large").image_shape == (64, 64)
    save(tmp_path / "small/a/1.png", np.zeros((128, 20), np.uint8))
    assert data.read(tmp_path / "small").image_shape == (128, 20)


def test_resizing_cuts_from_the_middle(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 100
    save(tmp_path / "wide/a/1.png", wide)
    np.testing.assert_array_equal(data.read(tmp_path / "wide", image_size=(4, 4)).x[0], np.full((4, 4), 100))


def test_pictures_taken_sideways_are_turned(tmp_path):
    turned = Image.fromarray(GREY)
    exif = turned.getexif()
    exif[0x0112] = 6  # turn it by 90° clockwise
    (tmp_path / "camera/a").mkdir(parents=True)
    turned.save(tmp_path / "camera/a/1.jpg", exif=exif, quality=100)
    images = data.read(tmp_path / "camera")
    np.testing.assert_allclose(images.x[0].astype(int), np.rot90(GREY, -1), atol=4)


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = [1, 2, 3, 255]
    save(tmp_path / "clear/a/1.png", pixels)
    seen = data.read(tmp_path / "clear").x[0]
    assert seen[:, 0, 0].tolist() == [1, 2, 3] and seen[:, 1, 1].tolist() == [255, 255, 255]


def test_deep_grey_keeps_its_upper_bits(tmp_path):
    save(tmp_path / "deep/a/1.png", np.array([[0, 256, 65535]], np.uint16))
    assert data.read(tmp_path / "deep").x[0].tolist() == [[0, 1, 255]]


def test_floating_point_pixels_are_refused(tmp_path):
    save(tmp_path / "scans/a/1.tif", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match="floating-point"):
        data.read(tmp_path / "scans")


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(30), b"not at all"], ids=["empty", "cut", "text"]
)
def test_damaged_files(animals, content):
    (animals / "dog/1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image(.|\n)*skip"):
        data.read(animals)
    images = data.read(animals, bad_rows="skip")
    assert images.rows == 5 and "1 file left out" in images.notes[-1]
    assert images.files[-2:] == ("dog/0.png", "dog/2.png")


def test_a_picture_that_ends_early_is_found_when_it_is_read(animals):
    path = save(animals / "cat/0.png", coloured(60, 80))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        data.read(animals)
    assert data.read(animals, bad_rows="skip").rows == 5


def test_options_for_text_do_not_go_with_pictures(animals):
    with pytest.raises(ConfigError, match="separator can be given for delimited text only"):
        data.read(animals, separator=";")
    (animals.parent / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="image_size can be given for image files only"):
        data.read(animals.parent / "table.csv", image_size=(4, 4))


def test_a_table_that_begins_as_a_bitmap_is_a_table(tmp_path):
    (tmp_path / "body.csv").write_text("BMI,age\n20,30\n21,31\n")
    assert data.read(tmp_path / "body.csv").columns == ("BMI", "age")


def test_nothing_is_warned_of(animals):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.read(animals)


def test_pillow_is_loaded_when_it_is_needed():
    code = "import sys; from chainrule import data; data.read('digits'); print('PIL' in sys.modules)"
    source = Path(data.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert shown.stdout.strip() == "False"
