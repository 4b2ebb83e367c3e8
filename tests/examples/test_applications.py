"""The examples on real data run, on small data made here, and do what they say."""

import gzip
import io
import math
import struct
import wave
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.examples.programs import load

import chainrule as cr


def shows_something(picture):
    with Image.open(picture) as image:
        assert min(image.size) > 200
    assert picture.stat().st_size > 5000


# -- sentences


@pytest.fixture(scope="module")
def opinions(tmp_path_factory):
    """Sentences of words drawn at random, one of which tells whether they praise; the other half of them for a test."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("opinions")
    plain = [f"word{i}" for i in range(40)]
    lines = []
    for k in range(400):
        words = list(draw.choice(plain, draw.integers(2, 12)))
        words.insert(draw.integers(len(words) + 1), "splendid" if k % 2 else "dreadful")
        lines.append(f"{k % 2} {' '.join(words)}")
    (folder / "train.txt").write_text("\n".join(lines[:300]), encoding="latin-1")
    (folder / "test.gz").write_bytes(
        gzip.compress(("\n".join(lines[300:]) + "\n\n1 splendid caf\xe9").encode("latin-1"))
    )
    return folder


def test_sentences_are_told_apart_by_the_words_that_matter(opinions, tmp_path):
    example, picture = load("sentences"), tmp_path / "words.png"
    paths = str(opinions / "train.txt"), str(opinions / "test.gz")
    result = example.main(*paths, epochs=3, plot=str(picture), progress="silent")
    assert result["accuracy"] > 0.95
    shows_something(picture)
    sentences, labels = example.read(paths[1])
    assert (sentences[-1], labels[-1], len(labels)) == (["splendid", "café"], "1", 101)
    numbers = example.vocabulary(example.read(paths[0])[0])
    ids = example.encode(sentences, numbers, 12)
    _, added = example.contributions(result["model"], ids)
    telling = [[word in ("splendid", "dreadful") for word in words].index(True) for words in sentences]
    assert np.mean(added[:, :12].argmax(axis=1) == telling) > 0.9


def test_words_that_were_not_learned_are_unknown_and_long_sentences_cut():
    example = load("sentences")
    numbers = example.vocabulary([["a", "b", "a"], ["a"]])
    assert numbers == {"a": 2, "b": 3}
    assert example.encode([["b", "c", "a", "a"], []], numbers, 3).tolist() == [[3, 1, 2], [0, 0, 0]]


# -- blood cells


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Pictures with circles in three colours and sizes, in the form of the data set."""
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("cells") / "cells.zip"
    kinds = (("RBC", 50, (200, 60, 60)), ("WBC", 95, (60, 60, 200)), ("Platelets", 20, (120, 0, 160)))
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20):
            image, found = Image.new("RGB", (640, 480), (235, 220, 225)), []
            pencil = ImageDraw.Draw(image)
            for k in range(3 if i else 0):  # the first one is empty
                name, radius, colour = kinds[k]
                x, y = int(draw.integers(radius, 640 - radius)), int(draw.integers(radius, 480 - radius))
                box = (x - radius, y - radius, x + radius, y + radius)
                pencil.ellipse(box, fill=colour)
                corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
                found.append(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
            data = io.BytesIO()
            image.save(data, "JPEG")
            archive.writestr(f"BCCD/JPEGImages/image{i}.jpg", data.getvalue())
            archive.writestr(f"BCCD/Annotations/image{i}.xml", f"<annotation>{''.join(found)}</annotation>")
        names = [f"image{i}" for i in range(20)]
        archive.writestr("BCCD/ImageSets/Main/trainval.txt", "\n".join(names[:16]))
        archive.writestr("BCCD/ImageSets/Main/test.txt", "\n".join(names[16:]))
    return str(path)


class Answers:
    """In the place of a random generator: the same number for all, one after the other."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def random(self, count):
        return np.full(count, next(self.numbers))


def test_cells_are_read_with_their_boxes(cells):
    example = load("blood_cells")
    images, boxes, classes = example.read(cells, "trainval")
    assert images.shape == (16, 3, 192, 256) and images.dtype == np.uint8
    assert classes[0].tolist() == [-1, -1, -1] and classes[1].tolist() == [0, 1, 2]
    sides = boxes[1, :, 2:] - boxes[1, :, :2]
    np.testing.assert_allclose(sides, [[40, 40], [76, 76], [16, 16]], rtol=1e-5)
    for axis, first, answers in ((3, 0, (0.0, 1.0)), (2, 1, (1.0, 0.0))):  # turned pictures and boxes still meet
        turned, moved = example.mirrored(images, boxes, Answers(answers))
        np.testing.assert_array_equal(turned, np.flip(images, axis))
        size = example.WIDTH if first == 0 else example.HEIGHT
        np.testing.assert_allclose(moved[1, :, first] + boxes[1, :, first + 2], size)
        assert (moved[1, :, 2:] > moved[1, :, :2]).all()


def test_a_detector_of_cells_learns(cells, tmp_path, capsys):
    example, picture = load("blood_cells"), tmp_path / "cells.png"
    result = example.main(cells, epochs=40, plot=str(picture))
    assert set(result) == {"mean", *example.CLASSES}
    assert result["mean"] > 0.3
    shows_something(picture)
    assert "average precision" in capsys.readouterr().out


# -- translation


@pytest.fixture(scope="module")
def phrasebook(tmp_path_factory):
    """A language of which each word has one in the other, where all stand in the other order."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("phrasebook")
    for part, count in (("train", 700), ("val", 140), ("test_2016_flickr", 12)):
        sentences = [draw.integers(0, 6, draw.integers(4, 7)) for _ in range(count)]
        one = "\n".join(" ".join("abcdef"[i] for i in s) for s in sentences)
        other = "\n".join(" ".join(f"X{i}" for i in s[::-1]) for s in sentences)
        (folder / f"{part}.en.gz").write_bytes(gzip.compress(one.encode()))
        (folder / f"{part}.fr.gz").write_bytes(gzip.compress(other.encode()))
    return str(folder)


def test_a_transformer_learns_to_translate(phrasebook, tmp_path):
    example, picture = load("translation"), tmp_path / "attention.png"
    result = example.main(phrasebook, epochs=100, plot=str(picture), width=64, layers=1)
    (_, first), *_, (_, last) = result["history"]
    assert last < 0.8 * first
    assert len(result["found"]) == 12 and result["bleu"] > 30
    shows_something(picture)


def test_bleu_is_that_of_the_paper():
    """The example of Papineni et al., clipped counts, and the penalty for what is too short."""
    bleu = load("translation").bleu
    cat = ["there", "is", "a", "cat", "on", "the", "mat"]
    assert bleu([cat], [cat]) == pytest.approx(100)
    assert bleu([["the"] * 7], [cat]) == 0.0
    assert bleu([cat[:5]], [cat]) == pytest.approx(100 * math.exp(1 - 7 / 5))
    found, truth = list("abcdex"), list("abcdef")
    assert bleu([found], [truth]) == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


# -- spoken digits


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones, a pitch for each digit, by two speakers."""
    path = tmp_path_factory.mktemp("recordings") / "digits.zip"
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for digit in range(10):
            for speaker in ("ann", "bob"):
                for number in range(8):
                    t = np.arange(int(draw.integers(1800, 3000))) / 8000
                    tone = 0.3 * np.sin(2 * np.pi * (250 + 300 * digit) * t) + 0.01 * draw.normal(size=len(t))
                    data = io.BytesIO()
                    with wave.open(data, "wb") as sound:
                        sound.setparams((1, 2, 8000, 0, "NONE", ""))
                        sound.writeframes((tone * 32767).astype("<i2").tobytes())
                    archive.writestr(f"recordings/{digit}_{speaker}_{number}.wav", data.getvalue())
    return str(path)


@pytest.mark.filterwarnings("ignore:There is no native code for scan")
def test_spoken_digits_are_written_down(recordings, tmp_path):
    example, picture = load("spoken_digits"), tmp_path / "digits.png"
    result = example.main(recordings, epochs=4, steps=100, plot=str(picture))
    assert result["single"] > 0.8 and result["rate"] < 0.3
    shows_something(picture)


def test_recordings_become_strings(recordings):
    example = load("spoken_digits")
    data = example.read(recordings)
    assert len(data["train"]) == 60 and len(data["test"]) == 100
    sounds, lengths, digits, counts = example.strings(data["train"], np.random.default_rng(0), 20)
    assert sounds.shape == (20, example.FRAMES, example.BANDS) and sounds.dtype == np.float32
    assert (counts >= 1).all() and (counts <= example.MOST).all() and counts.max() > 1
    silent = sounds[np.arange(20), np.minimum(2 * lengths, example.FRAMES - 1)]
    assert (silent[lengths < example.FRAMES // 2] == silent.min()).all()  # nothing behind the end
    assert (digits[np.arange(example.MOST) >= counts[:, None]] == 0).all()


def test_loudness_is_where_the_pitch_is():
    example = load("spoken_digits")
    t = np.arange(4000) / 8000
    loudest = [example.bands(np.sin(2 * np.pi * pitch * t)).mean(axis=0).argmax() for pitch in (200, 800, 2000, 3500)]
    assert loudest == sorted(loudest) and len(set(loudest)) == 4
    assert example.bands(np.zeros(10)).shape == (1, example.BANDS)


@pytest.mark.parametrize(
    ("found", "truth", "wrong"), [("", "", 0), ("123", "", 3), ("", "12", 2), ("1323", "123", 1), ("321", "123", 2)]
)
def test_errors_are_counted(found, truth, wrong):
    assert load("spoken_digits").errors([*map(int, found)], [*map(int, truth)]) == wrong


# -- noise


def test_an_autoencoder_takes_noise_away(tmp_path):
    draw = np.random.default_rng(0)
    for part, rows in (("train", 500), ("t10k", 60)):
        x = np.zeros((rows, 28, 28), np.uint8)
        for row in x:
            top, left = draw.integers(2, 14, 2)
            row[top : top + 12, left : left + 12] = draw.integers(120, 256)
        for array, name in ((x, "images-idx3"), (np.arange(rows, dtype=np.uint8) % 10, "labels-idx1")):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    example, picture = load("denoising_autoencoder"), tmp_path / "clothes.png"
    errors = example.main(str(tmp_path), epochs=12, plot=str(picture), progress="silent")
    assert errors["autoencoder"] < 0.25 * errors["noise"]
    assert errors["linear"] < 0.5 * errors["noise"]
    shows_something(picture)


def test_the_linear_guess_is_the_best_for_what_it_was_fitted_to():
    """No other weights do better: the error does not fall when one of them is changed."""
    example = load("denoising_autoencoder")
    train = np.asarray(cr.random.Generator(5).uniform((30, 1, 28, 28)))
    seen = example.noisy(train, 2)
    best = example.linear_guess(train, seen)
    a = example.surroundings(seen)
    assert a.shape == (30 * 28 * 28, 26) and (a[:, 12] == seen.reshape(-1)).all()
    for column in (0, 12, 25):
        for by in (0.01, -0.01):
            changed = best.reshape(-1) + by * a[:, column]
            assert np.mean((changed - train.reshape(-1)) ** 2) > np.mean((best - train) ** 2)
