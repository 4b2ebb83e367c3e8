"""The examples with larger networks run, on tiny data, and what they learn shows already."""

import struct

import numpy as np
import pytest
from PIL import Image
from tests.examples.programs import load

import chainrule as cr
from chainrule import nn

POEM = "the cat sat on the mat, the rat sat on the hat.\n" * 60


@pytest.fixture
def poem(tmp_path):
    (tmp_path / "poem.txt").write_text(POEM)
    return str(tmp_path / "poem.txt")


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """IDX files of 28 × 28 pixels in which class k has a bright bar at its own height."""
    folder, draw = tmp_path_factory.mktemp("clothes"), np.random.default_rng(0)
    for part, rows in (("train", 400), ("t10k", 60)):
        y = (np.arange(rows) % 10).astype(np.uint8)
        x = draw.integers(0, 60, (rows, 28, 28)).astype(np.uint8)
        for row, label in enumerate(y):
            x[row, 4 + 2 * label : 6 + 2 * label, 4:24] += 150
        for array, name in ((x, "images-idx3"), (y, "labels-idx1")):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    return str(folder)


@pytest.mark.parametrize("network", ["lenet", "lenet-bn"])
def test_fashion_mnist(network, clothes, tmp_path):
    picture = tmp_path / "mistakes.png"
    example = load("fashion_mnist")
    result = example.main(network, clothes, epochs=3, rows=200, plot=str(picture), progress="silent")
    accuracy, seconds = result["chainrule"]
    assert 0 <= accuracy <= 1 and seconds > 0
    with Image.open(picture) as image:
        assert min(image.size) > 300


@pytest.mark.parametrize("network", ["lenet", "lenet-bn", "resnet"])
def test_the_networks_for_clothes_take_images_and_give_scores(network):
    model = nn.Sequential(*load("fashion_mnist").layers(network, nn, nn.Residual))
    assert model(cr.ones((2, 1, 28, 28))).shape == (2, 10)
    if network == "resnet":
        assert sum(weight.ndim == 4 for weight in model.parameters()) == 19 + 2  # ResNet-20, and two shortcuts


def test_the_test_part_of_the_clothes_is_that_of_the_files(clothes):
    data = load("fashion_mnist").load(clothes)
    assert {name: len(x) for name, (x, _) in data.items()} == {"train": 356, "validation": 44, "test": 60}
    assert data["train"][0].dtype == np.uint8


def test_a_gpt_learns_a_poem(poem, tmp_path):
    example = load("char_gpt")
    result = example.main(
        poem, steps=60, every=30, length=40, plot=str(tmp_path / "gpt.png"), layers=1, heads=2, width=32
    )
    (_, _, before), (step, _, after) = result["history"]
    assert step == 60 and after < before < np.log(len(set(POEM)))
    assert len(result["text"]) == 41 and set(result["text"]) <= set(POEM)
    assert (tmp_path / "gpt.png").stat().st_size > 5000


def test_a_gpt_looks_back_only():
    example = load("char_gpt")
    model = example.GPT(9, layers=2, heads=2, width=8)
    ids = np.arange(7)[None] % 9
    before = np.asarray(model(cr.tensor(ids)))
    ids[0, 4] = 8
    after = np.asarray(model(cr.tensor(ids)))
    np.testing.assert_allclose(before[:, :4], after[:, :4], rtol=1e-5, atol=1e-7)
    assert (before[:, 4:] != after[:, 4:]).any(axis=-1).all()


@pytest.mark.filterwarnings("ignore:There is no native code for scan")
def test_an_lstm_learns_a_poem(poem, tmp_path):
    result = load("char_lstm").main(poem, epochs=2, hidden=16, length=20, plot=str(tmp_path / "lstm.png"))
    assert result["best"] < np.log(len(set(POEM)))
    assert len(result["text"]) == 21 and set(result["text"]) <= set(POEM)
    assert (tmp_path / "lstm.png").stat().st_size > 5000


def test_an_lstm_writes_with_the_state_that_it_had_reading_at_once():
    model = load("char_lstm").CharacterLSTM(5, hidden=4)
    ids = cr.tensor([[0, 1, 2, 3, 4]])
    state, parts = model.fresh(1), []
    for i in range(5):
        scores, state = model.read(ids[:, i : i + 1], state)
        parts.append(np.asarray(scores))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), np.asarray(model(ids)), rtol=1e-5, atol=1e-6)
