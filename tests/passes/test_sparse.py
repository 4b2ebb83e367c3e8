"""Products behind a gradient that is zero almost everywhere: found where they are, right whatever is given."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.test_convolutions import arrays, run

import chainrule as cr
from chainrule import meaning
from chainrule.passes.common import common
from chainrule.passes.dead import dead
from chainrule.passes.pipeline import optimise
from chainrule.passes.sink import sink
from chainrule.passes.sparse import PRODUCTS, sparse
from chainrule.program.program import verify

rng = np.random.default_rng(0)


def products(f, *xs):
    """How many products are left to what skips zeros; the values are the same."""
    program = common(sink(optimise(cr.trace_program(f, *xs))))
    found = dead(verify(sparse(program)))
    for before, after in zip(run(program, xs), run(found, xs), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)
    return sum(node.primitive in PRODUCTS for node in found.nodes)


def gradients(f):
    return lambda x, w: cr.grad(lambda x, w: cr.sum(f(x, w) ** 2), argnums=(0, 1))(x, w)


def over_time(x, w):
    return cr.max(cr.relu(cr.conv1d(x, w)), axis=2)


def test_behind_the_largest_over_time_both_products_are_sparse():
    assert products(gradients(over_time), *arrays((3, 5, 30), (7, 5, 3))) == 2


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: cr.min(cr.tanh(cr.conv1d(x, w, stride=2, padding=2, dilation=2)), axis=2),
        lambda x, w: cr.max(cr.conv1d(x, w) * 2.0, axis=2, keepdims=True),
        lambda x, w: cr.conv1d(x, w)[:, :, -1],  # the last step alone
    ],
)
def test_other_ways_to_few_places(f):
    assert products(gradients(f), *arrays((3, 5, 60), (7, 5, 3))) == 2


def and_its_largest(y):
    return y * cr.max(y, axis=2, keepdims=True)


def test_the_largest_of_an_image():
    f = lambda x, w: cr.max(cr.conv2d(x, w, padding=1), axis=(2, 3))
    assert products(gradients(f), *arrays((2, 3, 9, 8), (4, 3, 3, 2))) == 2


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: cr.max(cr.conv1d(x, w), axis=1),  # one in seven channels
        lambda x, w: cr.mean(cr.relu(cr.conv1d(x, w)), axis=2),
        lambda x, w: and_its_largest(cr.conv1d(x, w)),
    ],
)
def test_others_are_left_alone(f):
    assert products(gradients(f), *arrays((3, 5, 30), (7, 5, 3))) == 0


def test_ties_share_the_gradient():
    x, w = cr.ones((2, 3, 40), dtype="float64"), cr.ones((4, 3, 5), dtype="float64")
    assert products(gradients(over_time), x, w) == 2


def test_behind_a_long_chain():
    def f(x, w):
        y = cr.conv1d(x, w)
        for _ in range(3000):
            y = y * 1.001
        return cr.max(y, axis=2)

    assert products(gradients(f), *arrays((1, 1, 20), (2, 1, 2))) == 2


@st.composite
def windowed(draw):
    """Sizes and settings of windows along 0 to 2 axes, which may reach outside of the image or leave elements out."""
    spatial = draw(st.integers(0, 2))
    axes = [draw(st.tuples(*[st.integers(1, 3)] * 3)) for _ in range(spatial)]
    window, strides, steps = (tuple(axis[k] for axis in axes) for k in range(3))
    size, low, places = ([draw(st.integers(a, b)) for _ in axes] for a, b in ((1, 6), (-2, 2), (1, 4)))
    return window, strides, steps, tuple(size), tuple(low), tuple(places)


def reached(window, strides, steps, size, low, places):
    """(place, tap, element of the image) of each tap that meets one."""
    for place in product(*map(range, places)):
        for tap in product(*map(range, window)):
            at = tuple(p * s + k * t - a for p, s, k, t, a in zip(place, strides, tap, steps, low, strict=True))
            if all(0 <= i < n for i, n in zip(at, size, strict=True)):
                yield place, tap, at


@settings(max_examples=150, deadline=None)
@given(windowed())
def test_meanings(case):
    window, strides, steps, size, low, places = case
    x, dy, w = rng.normal(size=(2, *size, 3)), rng.normal(size=(2, *places, 4)), rng.normal(size=(4, *window, 3))
    spread, gathered = np.zeros((2, *size, 3)), np.zeros((4, *window, 3))
    for place, tap, at in reached(*case):
        spread[(slice(None), *at)] += dy[(slice(None), *place)] @ w[(slice(None), *tap)]
        gathered[(slice(None), *tap)] += dy[(slice(None), *place)].T @ x[(slice(None), *at)]
    found = meaning.spread_product(dy, w, size, strides, low, steps)
    np.testing.assert_allclose(found, spread, atol=1e-12)
    np.testing.assert_allclose(meaning.gathered_product(x, dy, window, strides, low, steps), gathered, atol=1e-12)
