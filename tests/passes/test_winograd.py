"""Convolutions by fewer multiplications: the identities, the values, and which convolutions they are used for."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.test_convolutions import run

import chainrule as cr
from chainrule import meaning, nn
from chainrule.core.tensor import wrap
from chainrule.passes import winograd as passes
from chainrule.passes.dead import dead
from chainrule.passes.sink import sink
from chainrule.passes.winograd import TRANSFORMS, best, transposed, winograd
from chainrule.primitives.convolve import convolve
from chainrule.program.program import verify


def padded(low, high):
    return {"strides": (1, 1), "low": low, "high": high, "input_step": (1, 1), "kernel_step": (1, 1)}


def exactly(matrix, vector):
    rows = [[Fraction(c).limit_denominator(10_000) for c in row] for row in matrix]
    return [sum(c * x for c, x in zip(row, vector, strict=True)) for row in rows]


@pytest.mark.parametrize("tile", TRANSFORMS)
def test_the_transforms_are_exact(tile):
    """Along one axis, in fractions: Aᵀ [(G g) · (Bᵀ d)] is the sum over the window at each place."""
    patch, kernel, result = TRANSFORMS[tile]
    rng = np.random.default_rng(0)
    d, g = ([int(v) for v in rng.integers(-9, 10, n)] for n in (tile + 2, 3))
    products = [a * b for a, b in zip(exactly(kernel, g), exactly(patch, d), strict=True)]
    assert exactly(result, products) == [sum(g[k] * d[p + k] for k in range(3)) for p in range(tile)]
    dy = [int(v) for v in rng.integers(-9, 10, tile)]
    products = [a * b for a, b in zip(exactly(transposed(result), dy), exactly(patch, d), strict=True)]
    assert exactly(transposed(kernel), products) == [sum(dy[p] * d[p + k] for p in range(tile)) for k in range(3)]
    products = [a * b for a, b in zip(exactly(kernel, g), exactly(transposed(result), dy), strict=True)]
    spread = [sum(g[k] * dy[p - k] for k in range(3) if 0 <= p - k < tile) for p in range(tile + 2)]
    assert exactly(transposed(patch), products) == spread


@st.composite
def picture(draw):
    """Shapes of x and w, and the settings, of a convolution that may be replaced."""
    low, high = (draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(2))
    space = [draw(st.integers(max(1, 3 - a - b), 11)) for a, b in zip(low, high, strict=True)]
    channels, out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return (draw(st.integers(1, 3)), *space, 1, channels), (3, 3, 1, channels, out), padded(low, high)


@settings(max_examples=60, deadline=None)
@given(picture(), st.sampled_from([2, 3, 4]), st.integers(1, 4))
def test_the_meanings_are_those_of_convolutions(case, tile, parts):
    """In float64, where nothing but a mistake is seen."""
    x_shape, w_shape, attributes = case
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
    y = meaning.convolve(x, w, **attributes)
    u = passes._kernel(w[:, :, 0], tile)
    found = passes._convolution(x[..., 0, :], u, tile, attributes["low"], y.shape[1:3], False)
    np.testing.assert_allclose(found, y[..., 0, :], rtol=0, atol=1e-11)
    if passes._spreads(x_shape[1:3], attributes["low"], y.shape[1:3], tile):
        u, low = passes._kernel(w[::-1, ::-1, 0], tile), tuple(2 - n for n in attributes["low"])
        found = passes._convolution(x[..., 0, :], u, tile, low, y.shape[1:3], True)
        np.testing.assert_allclose(found, y[..., 0, :], rtol=0, atol=1e-11)
    dy = rng.normal(size=y.shape)
    du = passes._gradient(x[..., 0, :], dy[..., 0, :], tile, attributes["low"], parts)
    assert du.shape == (parts, (tile + 2) ** 2, x_shape[-1], w_shape[-1])
    dw = cr.vjp(lambda w: convolve(wrap(x), w, **attributes), wrap(w))[1](wrap(dy))[0]
    np.testing.assert_allclose(passes._kernel_gradient(du, tile), np.asarray(dw)[:, :, 0], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("tile", "whole", "times"), [(3, (0, 1, -1, 2), 1.5), (4, (0, 1, -1, 2, -2), 1.8)])
def test_whole_numbers_as_points_are_less_exact(tile, whole, times, monkeypatch):
    """Why the points are what they are."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(20, tile + 2, tile + 2, 32)), rng.normal(size=(3, 3, 32, 16))
    sizes = []
    for points in (None, whole):
        if points:
            monkeypatch.setitem(TRANSFORMS, tile, passes._transforms(*points))
        exact, found = (
            passes._convolution(x.astype(d), passes._kernel(w.astype(d), tile), tile, (0, 0), (tile, tile), False)
            for d in (np.float64, np.float32)
        )
        sizes.append(np.sqrt(np.mean((found - exact) ** 2)))
    assert sizes[1] > times * sizes[0]


@settings(max_examples=25, deadline=None)
@given(picture())
def test_the_pass_keeps_values_and_gradients(case):
    x_shape, w_shape, attributes = case
    rng = np.random.default_rng(0)
    x, w = (wrap(rng.uniform(-1, 1, s).astype(np.float32)) for s in (x_shape, w_shape))
    dy = wrap(np.ones_like(np.asarray(convolve(x, w, **attributes))))

    def all_of(x, w, dy):
        y, pull = cr.vjp(lambda x, w: convolve(x, w, **attributes), x, w)
        return y, *pull(dy)

    program = cr.trace_program(all_of, x, w, dy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "best", lambda *sizes: 2)
        patch.setattr(passes, "FEWEST_IMAGES", 1)
        lowered = verify(winograd(program))
    names = [node.primitive.name for node in lowered.nodes]
    assert names.count("winograd_convolution") == 2 and names.count("winograd_gradient") == 1
    assert "convolve" not in names
    for expected, found in zip(run(program, (x, w, dy)), run(lowered, (x, w, dy)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


# -- which convolutions


def names_of(layer, shape, tiles=(2,), dtype="float32"):
    def step(layer, x):
        return cr.value_and_grad(lambda layer, x: cr.sum(layer(x) ** 2), argnums=(0, 1))(layer, x)

    program = cr.trace_program(step, layer.to(dtype), cr.ones(shape, dtype=dtype))
    lowered = verify(winograd(dead(sink(dead(program))), tiles))
    found = [n for n in lowered.nodes if n.primitive in (passes.winograd_convolution, passes.winograd_gradient)]
    return [(n.primitive.name, n.attributes["tile"]) for n in found]


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_both_passes_of_a_layer_are_replaced(padding):
    found = names_of(nn.Conv2d(32, 48, 3, padding=padding), (4, 32, 16, 16))
    assert sorted(found) == [("winograd_convolution", 2), ("winograd_convolution", 2), ("winograd_gradient", 2)]


@pytest.mark.parametrize(
    ("layer", "shape", "dtype"),
    [
        (nn.Conv2d(32, 32, 3, stride=2, padding=1), (4, 32, 16, 16), "float32"),
        (nn.Conv2d(32, 32, 3, dilation=2), (4, 32, 16, 16), "float32"),
        (nn.Conv2d(64, 64, 3, groups=2, padding=1), (4, 64, 16, 16), "float32"),
        (nn.Conv2d(32, 32, 5, padding=2), (4, 32, 16, 16), "float32"),
        (nn.Conv2d(32, 32, (3, 1)), (4, 32, 16, 16), "float32"),
        (nn.Conv1d(32, 32, 3), (4, 32, 16), "float32"),
        (nn.Conv2d(32, 32, 3, padding=1), (4, 32, 16, 16), "float64"),
        (nn.Conv2d(3, 64, 3, padding=1), (4, 3, 16, 16), "float32"),
        (nn.Conv2d(256, 256, 3, padding=1), (1, 256, 4, 4), "float32"),  # the kernel is larger than the picture
    ],
)
def test_other_convolutions_stay(layer, shape, dtype):
    assert names_of(layer, shape, (2, 4), dtype) == []


@pytest.mark.parametrize(("low", "high"), [((-1, 0), (0, 0)), ((0, 0), (0, -2))])
def test_a_picture_that_windows_do_not_reach_stays(low, high):
    """Whatever lies there, infinity too, must not get into a tile."""
    x, w = wrap(np.ones((4, 17, 17, 1, 32), np.float32)), wrap(np.ones((3, 3, 1, 32, 32), np.float32))
    program = cr.trace_program(lambda x, w: convolve(x, w, **padded(low, high)), x, w)
    assert "convolve" in {n.primitive.name for n in winograd(program).nodes}


def test_large_tiles_are_for_many_places():
    assert best(16, (32, 32), 64, 64, (2, 4)) == 4 and best(16, (32, 32), 64, 64, (2,)) == 2
    assert best(16, (32, 32), 64, 64, (2, 3)) == 3 and best(64, (11, 11), 32, 64, (2, 3)) == 3
    assert best(64, (8, 8), 64, 64, (2, 3)) == 2  # 9 tiles of 25 elements are not much less than 16 of 16
    assert best(16, (4, 4), 512, 512, (2, 3, 4)) == 2  # the transformed kernel would be most of the work
    assert best(1, (3, 3), 64, 64, (2, 4)) is None and best(16, (32, 32), 8, 64, (2, 4)) is None
