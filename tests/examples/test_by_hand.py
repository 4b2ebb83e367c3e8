"""The worked example: the library, the arithmetic in examples/by_hand.py, and the published numbers are one."""

import pytest
from tests.examples.programs import load

# Matt Mazur, "A Step by Step Backpropagation Example" (2015), as printed there
PUBLISHED = {
    "hidden activations": [0.593269992, 0.596884378],
    "output activations": [0.75136507, 0.772928465],
    "loss": [0.298371109],
    "output deltas": [0.138498562, -0.038098236],
    "new output weights": [0.35891648, 0.408666186, 0.511301270, 0.561370121],
    "new hidden weights": [0.149780716, 0.19956143, 0.24975114, 0.29950229],
}


@pytest.fixture(scope="module")
def example():
    return load("by_hand")


def test_the_library_computes_what_the_hand_computes(example):
    library = example.by_chainrule()
    for name, values in example.by_hand().items():
        assert example.flat(library[name]) == pytest.approx(example.flat(values), rel=1e-14, abs=1e-16), name


def test_both_agree_with_the_published_numbers(example):
    hand, library = example.by_hand(), example.by_chainrule()
    for name, printed in PUBLISHED.items():
        assert example.flat(hand[name]) == pytest.approx(printed, abs=6e-9), name
        assert example.flat(library[name]) == pytest.approx(printed, abs=6e-9), name
