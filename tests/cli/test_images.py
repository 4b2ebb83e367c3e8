"""Images on the command line: folders of them, networks with convolutions, images changed at random."""

import gzip
import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from chainrule import nn
from chainrule.cli.network import ImageInput
from chainrule.cli.networks import KINDS, from_json
from chainrule.cli.options import NETWORKS
from chainrule.errors import CheckpointError
from chainrule.train.store import Run


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def bars(rows, seed=0):
    """Pictures of 8 × 8 pixels with a bright bar: lying (0) or standing (1)."""
    draw = np.random.default_rng(seed)
    y = (np.arange(rows) % 2).astype(np.uint8)
    x = draw.integers(0, 80, (rows, 8, 8)).astype(np.uint8)
    for row, label in enumerate(y):
        place = draw.integers(1, 6)
        if label:
            x[row, :, place : place + 2] += 150
        else:
            x[row, place : place + 2] += 150
    return x, y


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory):
    """The four files of a data set as MNIST has them, gzipped."""
    folder = tmp_path_factory.mktemp("sets") / "bars"
    folder.mkdir()
    for part, rows, seed in (("train", 120, 0), ("t10k", 30, 1)):
        for array, name in zip(bars(rows, seed), ("images-idx3", "labels-idx1"), strict=True):
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """The same as files, a folder a class."""
    folder = tmp_path_factory.mktemp("pictures") / "bars"
    for i, (pixels, label) in enumerate(zip(*bars(60), strict=True)):
        path = folder / ("lying", "standing")[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def test_a_folder_of_idx_files_keeps_its_test_part(cli, idx_folder):
    shown = cli("train", idx_folder, "--epochs", 2)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0] == "bars   150 images 8×8   target label (binary)"
    assert lines[1] == "  64 pixels, divided by 255"
    assert lines[2] == "  split 107 / 13 / 30 (seed 0, test part of the source)"
    assert lines[3].startswith("network      64 → 256 → 128 → 2, GELU, dropout 0.3, ")


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_learns_and_answers_again(cli, idx_folder, network):
    options = ["--network", network, "--epochs", 15, "--patience", 0, "--name", "bars"]
    small = {"cnn": ["--channels", "8,8", "--layers", "16"], "resnet": ["--channels", "8,8", "--blocks", 1]}
    shown = cli("train", idx_folder, *options, *small.get(network, ()), "--json")
    assert shown.code == 0, shown.err
    value = json.loads(shown.out)
    assert value["scores"]["test"]["accuracy"] > 0.8
    again = json.loads(cli("evaluate", "bars", "--json").out)
    assert again["scores"] == value["scores"]
    told = cli("summary", "bars").out
    assert "Pixels" in told and ("Conv2d" in told) == (network != "mlp")
    x, y = bars(30, 1)
    np.savez("new.npz", x=x)
    answers = cli("predict", "bars", "new.npz").out.split()[1:]
    assert np.mean([int(answer) for answer in answers] == y) == value["scores"]["test"]["accuracy"]


def test_a_folder_of_pictures_is_trained_on_and_answered_for(cli, picture_folder, tmp_path):
    shown = cli("train", picture_folder, "--epochs", 12, "--name", "bars")
    assert shown.code == 0, shown.err
    assert "bars   60 images 8×8   target class (binary)" in shown.out
    assert shown.err.count("epoch") >= 1
    new = tmp_path / "new"
    new.mkdir()
    for i, picture in enumerate(sorted((picture_folder / "standing").iterdir())[:4]):
        image = Image.open(picture)
        image.resize((24, 24)).convert("RGB").save(new / f"{i}.png")  # other sizes and colours are brought to the run's
    answers = cli("predict", "bars", new)
    assert answers.code == 0 and len(answers.out.split()) == 5
    assert cli("predict", "bars", new / "0.png").out.split()[1] == answers.out.split()[1]
    scored = cli("evaluate", "bars", picture_folder, "--json")
    assert json.loads(scored.out)["rows"] == {"bars": 60}


def test_sizes_and_colours_can_be_asked_for(cli, picture_folder):
    shown = cli("summary", picture_folder, "--image-size", "12x16", "--colour", "--network", "cnn")
    assert "images 3×16×12" in shown.out
    assert "3×16×12 → conv 32 → conv 64 → 128 → 2, ReLU, batch norm, dropout 0.3, images shifted at random" in shown.out
    assert "weight (32, 3, 3, 3)" in shown.out
    assert '"large" is no size: write 64' in cli("train", picture_folder, "--image-size", "large").err
    shown = cli("train", "iris", "--image-size", 8)
    assert shown.err == "iris is a shipped data set: --image-size can be given for files only.\n"


def test_a_damaged_picture_is_named_and_can_be_left_out(cli, picture_folder, tmp_path):
    copy = shutil.copytree(picture_folder, tmp_path / "copy")
    (copy / "lying/0.png").write_bytes(b"nothing")
    shown = cli("train", "copy")
    assert shown.code == 2 and "0.png cannot be read as an image" in shown.err and "--bad-rows skip" in shown.err
    shown = cli("train", "copy", "--bad-rows", "skip", "--epochs", 1)
    assert shown.code == 0 and "1 file left out" in shown.out


def test_a_single_picture_is_nothing_to_train_on(cli, picture_folder):
    shown = cli("train", picture_folder / "lying/0.png")
    assert shown.code == 2 and "has images, but no labels" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "vgg"], "Known: auto, mlp, cnn, resnet"),
        (["--network", "cnn"], "--network cnn is for images, but the data are a table"),
        (["--augment", "flip"], "--augment flip is for images"),
        (["--augment", "flop"], 'Did you mean "flip"?'),
        (["--channels", "32"], "--channels goes with --network cnn or resnet"),
        (["--blocks", "2"], "--blocks goes with --network resnet only"),
        (["--channels", "none"], "one stage at least"),
    ],
)
def test_options_that_do_not_go_together(cli, tmp_path, options, message):
    shown = cli("train", "iris", *options)
    assert shown.code == 2 and message in shown.err and not (tmp_path / "runs").exists()


def test_a_resnet_has_no_hidden_layers(cli, idx_folder):
    assert "no hidden layers" in cli("train", idx_folder, "--network", "resnet", "--layers", "64").err


def test_augmentation_is_as_asked(cli, idx_folder, tmp_path):
    for asked, told in (("none", ""), ("flip", "images flipped at"), ("shift,flip", "images shifted and flipped at")):
        out = cli("summary", idx_folder, "--augment", asked).out
        assert (told in out) if told else ("at random" not in out)
    seeds = [["--epochs", "2", "--augment", "shift,flip", "-q", "--name", name] for name in "ab"]
    for options in seeds:
        assert cli("train", idx_folder, *options).code == 0
    a, b = (Run.open(tmp_path / "runs" / name).load("last").tensors for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_gradients_of_a_network_for_images_are_checked_without_chance(cli, idx_folder):
    options = ["--network", "cnn", "--channels", 2, "--layers", "none", "--augment", "shift,flip"]
    assert cli("train", idx_folder, *options, "--epochs", 1, "-q", "--name", "bars").code == 0
    shown = cli("check-gradients", "bars", "--rows", 8, "--elements", 3)
    assert shown.code == 0, shown.err
    assert "✗" not in shown.out


@pytest.mark.parametrize(
    ("shape", "plane", "last"),
    [
        ((28, 20), (1, 28, 20), False),
        ((3, 32, 20), (3, 32, 20), False),
        ((32, 20, 3), (3, 32, 20), True),
        ((3, 3, 3), (3, 3, 3), False),
        ((7, 5, 9), (7, 5, 9), False),
    ],
)
def test_channels_are_found_before_or_behind(shape, plane, last):
    image = ImageInput(shape, 255.0)
    assert image.plane == plane and image.channels_last is last


def test_descriptions_build_the_network_that_they_describe(cli, idx_folder):
    made = []
    for network in NETWORKS:
        assert cli("train", idx_folder, "--network", network, "--epochs", 1, "-q", "--name", network).code == 0
        with open(f"runs/{network}/config.json") as file:
            described = json.load(file)["config"]["network"]
        found = from_json(described)
        assert found.to_json() == described
        assert isinstance(found.build(0), nn.Sequential)
        made.append(described)
    assert {described["kind"] for described in made} == KINDS.keys()
    for described in made:
        for key, value in (("outputs", 0), ("norm", "x"), ("image", {"shape": [8], "scale": 1, "augment": []})):
            with pytest.raises(CheckpointError, match="damaged"):
                from_json(described | {key: value})
    with pytest.raises(CheckpointError, match="cannot build"):
        from_json(made[0] | {"kind": "spiking"})


def test_larger_images_get_more_stages(cli, tmp_path):
    folder = tmp_path / "large"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(5):
            pixels = np.random.default_rng(i).integers(0, 256, (100, 100, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    assert "conv 32 → conv 64 → conv 128 → conv 256 → 128" in cli("summary", "large", "--network", "cnn").out
    told = cli("summary", "large", "--network", "resnet").out
    assert "3×100×100 → 3 × 16 → 3 × 32 → 3 × 64 → 3 × 128 → 3 × 256 → 2, ResNet-32" in told
