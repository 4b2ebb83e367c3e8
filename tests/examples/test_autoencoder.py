"""The autoencoder learns without labels, beats the best linear squeeze, and draws a picture."""

import numpy as np
import pytest
from PIL import Image
from tests.examples.programs import load


@pytest.fixture(scope="module")
def example():
    return load("autoencoder_digits")


def test_the_baseline_is_the_best_linear_squeeze(example):
    """Its error on the images it was fitted to is what the singular values left out add up to (Eckart and Young)."""
    train, _ = example.images()
    singular = np.linalg.svd(train - train.mean(axis=0), compute_uv=False)
    left_out = float(np.sum(singular[example.CODE :] ** 2)) / train.size
    assert example.error(train, example.principal_components(train, train)) == pytest.approx(left_out, rel=1e-4)


def test_training_and_test_images_are_different_ones(example):
    train, test = example.images()
    assert len(train) + len(test) == 1797
    distinct = lambda x: len(np.unique(x, axis=0))
    assert distinct(np.concatenate([train, test])) == distinct(train) + distinct(test)


def test_it_beats_principal_components_on_images_not_seen(example, tmp_path, capsys):
    picture = tmp_path / "autoencoder.png"
    mean, linear, autoencoder = example.main(plot=str(picture)).values()
    assert autoencoder < 0.85 * linear < 0.4 * mean
    assert "not seen in training" in capsys.readouterr().out
    with Image.open(picture) as image:
        width, height = image.size
    assert width > 600 and height > 150
    assert 5_000 < picture.stat().st_size < 200_000
