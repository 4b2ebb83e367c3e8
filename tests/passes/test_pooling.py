"""Masks and sums behind a largest-of-windows are moved before it: where, and that values stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import leaves, native
from tests.passes.programs import names, real, run, traced

import chainrule as cr
from chainrule import nn
from chainrule.core.tensor import wrap
from chainrule.engines.native.lowering import LOWERING
from chainrule.passes.dead import dead
from chainrule.passes.pooling import pooling
from chainrule.primitives.window import window_argmax, window_put, window_take
from chainrule.program.program import verify

WINDOWS = LOWERING.index(pooling)


def settings_of(window, strides, low=(0, 0), high=(0, 0), steps=(1, 1)):
    return {"window": window, "strides": strides, "low": low, "high": high, "steps": steps}


def gradient(x, bias, dy, attributes):
    """A bias, a ReLU and the largest of windows, channels last: what comes out, and the gradients."""

    def f(x, bias):
        y = cr.relu(x + bias)
        return window_take(y, window_argmax(y, **attributes), **attributes)

    y, pull = cr.vjp(f, x, bias)
    return y, *pull(dy)


def before(program):
    """The Program as the pass meets it."""
    for apply in LOWERING[:WINDOWS]:
        program = apply(program)
    return program


@st.composite
def windows(draw):
    pair = lambda lo, hi: draw(st.tuples(st.integers(lo, hi), st.integers(lo, hi)))
    window = pair(1, 3)
    low, high = (tuple(draw(st.integers(0, k - 1)) for k in window) for _ in range(2))
    return settings_of(window, pair(1, 3), low, high, pair(1, 2))


@settings(max_examples=40, deadline=None)
@given(windows(), st.tuples(st.integers(5, 8), st.integers(5, 8)), st.integers(0, 2**31))
def test_values_stay(attributes, space, seed):
    """To the last bit but for sums. Ties, zeros and what is not finite included."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, *space, 3)).astype(np.float32)
    x[0, 1, 2] = np.nan
    y_shape = window_argmax(wrap(x), **attributes).shape
    inputs = wrap(x), real(3), wrap(rng.integers(-2, 3, y_shape).astype(np.float32))
    program = before(traced(lambda x, b, dy: gradient(x, b, dy, attributes), *inputs))
    after = verify(pooling(program))
    (_, dx, db), (_, dx_after, db_after) = run(program, *inputs), run(after, *inputs)
    np.testing.assert_array_equal(dx_after, dx)
    np.testing.assert_allclose(db_after, db, rtol=1e-5, atol=1e-5)


def test_behind_a_relu_no_image_is_masked_and_none_is_summed():
    attributes = settings_of((2, 2), (2, 2))
    inputs = real(2, 6, 6, 3), real(3), real(2, 3, 3, 3)
    program = before(traced(lambda x, b, dy: gradient(x, b, dy, attributes), *inputs))
    after = dead(verify(pooling(program)))
    spread = [n for n in after.nodes if n.primitive is window_put]
    assert all(after.nodes[x].shape == (2, 3, 3, 3) for n in spread for x in n.inputs)
    assert [after.nodes[n.inputs[0]].shape for n in after.nodes if n.primitive.name == "sum"] == [(2, 3, 3, 3)]
    masks = [n.shape for n in after.nodes if n.primitive.name == "less_equal"]
    assert sorted(masks) == [(2, 3, 3, 3), (2, 6, 6, 3)]  # the second is that of the ReLU


def test_a_network_agrees_with_the_reference():
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
    model, x = nn.Sequential(*layers), real(8, 1, 15, 14)

    def step(model, x):
        return cr.value_and_grad(lambda model: cr.sum(model(x) ** 2))(model)

    (loss, found), (expected_loss, expected) = native(step, threads=2)(model, x), step(model, x)
    np.testing.assert_allclose(float(loss), float(expected_loss), rtol=1e-5)
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "f",
    [
        lambda put, x: cr.where(x <= 0, 0.0, put),  # another image than that which was searched
        lambda put, x: cr.where(x <= 0, 1.0, put),
        lambda put, x: cr.sum(put, axis=(0, 1)),  # not over all of space
        lambda put, x: cr.max(put, axis=(0, 1, 2)),
    ],
)
def test_what_stays(f):
    attributes = settings_of((2, 2), (2, 2))

    def g(x, dy):
        winners = window_argmax(x, **attributes)
        return f(window_put(dy, winners, size=(6, 6), **attributes), x), window_take(x, winners, **attributes)

    program = traced(g, real(2, 6, 6, 3), real(2, 3, 3, 3))
    assert names(pooling(program)) == names(program)


def test_winners_may_be_read_in_several_images():
    """The mask is that of the image that they were searched in."""
    attributes = settings_of((2, 2), (2, 2))

    def f(x, other, dy):
        y = cr.relu(x)
        winners = window_argmax(y, **attributes)
        read = window_take(other, winners, **attributes), window_take(y, winners, **attributes)
        return *read, cr.where(x <= 0, 0.0, window_put(dy, winners, size=(6, 6), **attributes))

    inputs = real(2, 6, 6, 3), real(2, 6, 6, 3), real(2, 3, 3, 3)
    program = before(traced(f, *inputs))
    after = dead(verify(pooling(program)))
    for a, b in zip(run(program, *inputs), run(after, *inputs), strict=True):
        np.testing.assert_array_equal(b, a)
    assert sorted(n.shape for n in after.nodes if n.primitive.name == "less_equal") == [(2, 3, 3, 3), (2, 6, 6, 3)]


def test_numbers_that_come_from_elsewhere_may_point_outside():
    attributes = settings_of((2, 2), (2, 2), (1, 1), (1, 1))
    winners = wrap(np.zeros((1, 3, 3, 2), np.uint8))  # the first tap of the first window lies before the image
    f = lambda dy: cr.sum(window_put(dy, winners, size=(4, 4), **attributes), axis=(0, 1, 2))
    program = traced(f, real(1, 3, 3, 2))
    assert names(pooling(program)) == names(program)


@pytest.mark.parametrize("steps", [(1, 1), (2, 2)])
def test_windows_without_an_element_are_no_part_of_a_sum(steps):
    """Some lie outside of the image as a whole, and give to nobody; with gaps between taps one cannot be sure."""
    attributes = settings_of((2, 2), (3, 3), (0, 0), (4, 4), steps)
    x = real(1, 4, 4, 2)
    f = lambda x, dy: cr.sum(window_put(dy, window_argmax(x, **attributes), size=(4, 4), **attributes), axis=(1, 2))
    dy = real(*window_argmax(x, **attributes).shape)
    program = traced(f, x, dy)
    assert names(pooling(program)) == names(program)
