"""Too low crawls, good converges, high overshoots, too high diverges: theory and measurement agree."""

import numpy as np
import pytest
from PIL import Image
from tests.examples.programs import load


@pytest.fixture(scope="module")
def example():
    return load("learning_rates")


@pytest.fixture(scope="module")
def results(example, tmp_path_factory):
    picture = tmp_path_factory.mktemp("pictures") / "rates.png"
    return example.main(str(picture)), picture


def test_second_derivatives_give_the_curvature(example):
    assert example.largest_curvature() == pytest.approx(np.linalg.eigvalsh(example.A).max(), rel=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.9, 1.95, 2.05])
def test_paths_are_those_of_the_closed_form(example, share):
    rate = share / np.linalg.eigvalsh(example.A).max()
    points, _ = example.descend_valley(rate)
    np.testing.assert_allclose(points, example.closed_form(rate), rtol=1e-9, atol=1e-9)


def test_the_threshold_is_two_over_the_largest_curvature(example):
    threshold = 2 / example.largest_curvature()
    below, above = (example.descend_valley(threshold * f, 1000)[1] for f in (0.99, 1.01))
    assert below[-1] < 1e-6 * below[0]
    assert above[-1] > 1e6 * above[0]


def test_from_half_of_the_threshold_on_each_step_changes_sides(example):
    half = 1 / example.largest_curvature()
    for factor, changes in ((0.9, 0), (1.5, 5)):
        assert example.crossings(example.descend_valley(half * factor, 5)[0]) == changes


def test_the_textbook_verdicts(results):
    expected = ["crawls", "converges", "overshoots, then settles", "diverges"]
    for part in results[0].values():
        assert [run["verdict"] for run in part.values()] == expected


def test_the_network(results):
    low, good, high, too_high = results[0]["network"].values()
    assert low["values"][-1] > 0.9 * low["values"][0] and low["turns"] == 0
    assert good["values"][-1] < 0.2 and good["turns"] == 0
    assert max(high["values"]) > high["values"][0] > high["values"][-1]
    assert too_high["values"][-1] > 10 * too_high["values"][0]


def test_the_picture(results):
    with Image.open(results[1]) as image:
        assert min(image.size) > 400
    assert 20_000 < results[1].stat().st_size < 500_000
