"""Pooling: windows by definition, the first winner, derivatives, both engines. PyTorch is compared with elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, ShapeError

RNG = np.random.default_rng(4)


def apart(*shape):
    """Numbers that differ by 0.1 at least, so that no winner is near another."""
    n = math.prod(shape)
    return (RNG.permutation(n) * 0.1 - n / 20).reshape(shape)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), k=st.integers(1, 4), s=st.integers(1, 4), p=st.integers(0, 2), ceil=st.booleans())
def test_windows_by_definition(n, k, s, p, ceil):
    """Window i begins at i · s − p. With ceil_mode windows go on while they begin before the end of the input."""
    x = apart(2, 3, n)
    if 2 * p > k or n + 2 * p < k:
        with pytest.raises((ConfigError, ShapeError)):
            cr.max_pool1d(cr.tensor(x), k, s, p)
        return
    starts = [b for b in range(-p, n + p, s) if b + k <= n + p or (ceil and b < n and b - s + k < n + p)]
    inside = [x[..., max(b, 0) : b + k] for b in starts]
    expected = np.stack([w.max(-1) for w in inside], -1)
    y, indices = cr.max_pool1d(cr.tensor(x), k, s, p, ceil_mode=ceil, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), -1), expected)
    average = cr.avg_pool1d(cr.tensor(x), k, s, p, ceil, count_include_pad=False)
    np.testing.assert_allclose(average, np.stack([w.mean(-1) for w in inside], -1), atol=1e-12)


def test_the_first_of_equal_winners_gets_the_gradient():
    """In the order of rows; elsewhere in chainrule equals share."""
    x = cr.tensor([[[[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]])
    by_x = lambda f: cr.grad(lambda x: f(x).sum())(x).tolist()
    assert by_x(lambda x: cr.max_pool2d(x, (2, 3))) == [[[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]]
    assert by_x(lambda x: cr.max_pool2d(x, 2, stride=1)) == [[[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]]
    assert by_x(lambda x: cr.adaptive_max_pool2d(x, (1, 2))) == [[[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]]
    x = cr.tensor([[[[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]])
    assert by_x(lambda x: cr.max(x, axis=(2, 3))) == [[[[0.0, 0.25, 0.25], [0.25, 0.25, 0.0]]]]


def test_not_a_number_wins():
    x = cr.tensor([[[1.0, np.nan, 2.0, 3.0]]])
    assert np.isnan(cr.max_pool1d(x, 2).numpy()).tolist() == [[[True, False]]]
    assert np.isnan(cr.avg_pool1d(x, 2).numpy()).tolist() == [[[True, False]]]


@pytest.mark.parametrize("f", [cr.max_pool1d, cr.avg_pool1d])
def test_infinities_stay_in_their_windows(f):
    y = f(cr.tensor([[[np.inf, 1.0, 2.0, -np.inf, -np.inf, -np.inf]]]), 2)
    assert y.tolist() == [[[np.inf, 2.0 if f is cr.max_pool1d else -np.inf, -np.inf]]]


def test_padding_never_wins():
    assert (cr.max_pool2d(cr.full((1, 1, 4, 4), -5.0), 3, stride=2, padding=1) == -5).all()


def test_padding_does_not_win_against_minus_infinity():
    x = cr.full((1, 1, 4, 4), -np.inf)
    y, indices = cr.max_pool2d(x, 3, stride=1, padding=1, return_indices=True)
    assert (y == -np.inf).all()
    assert indices.tolist() == [[[[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]]]


def test_windows_of_more_than_a_byte_can_number():
    x = apart(1, 2, 20, 40)
    y, indices = cr.max_pool2d(cr.tensor(x), 20, stride=1, return_indices=True)
    expected = np.lib.stride_tricks.sliding_window_view(x, (20, 20), (2, 3)).max((-1, -2))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(x.reshape(1, 2, -1)[0, :, indices.numpy()[0, 0].ravel()][:, 0], y.numpy()[0, 0, 0])


def test_averages_of_equals_are_exact():
    """A padded border with count_include_pad=False does not darken the image."""
    x = cr.full((1, 2, 7, 5), 0.1, dtype="float64")
    for options in ({}, {"stride": 2, "ceil_mode": True}, {"stride": 1, "padding": 1, "count_include_pad": False}):
        np.testing.assert_allclose(cr.avg_pool2d(x, 3, **options), 0.1, rtol=1e-15)
    np.testing.assert_allclose(cr.adaptive_avg_pool2d(x, (3, 4)), 0.1, rtol=1e-15)


FUNCTIONS = {
    "max_pool1d": (lambda x: cr.max_pool1d(x, 3, 2, 1), (2, 3, 7)),
    "max_pool2d": (lambda x: cr.max_pool2d(x, 2), (2, 3, 4, 5)),
    "max_pool2d overlapping": (lambda x: cr.max_pool2d(x, 3, 2, 1, ceil_mode=True), (2, 3, 6, 5)),
    "max_pool3d": (lambda x: cr.max_pool3d(x, (1, 2, 2), dilation=(1, 1, 2)), (1, 2, 2, 4, 4)),
    "avg_pool1d": (lambda x: cr.avg_pool1d(x, 3, 2, 1), (2, 3, 7)),
    "avg_pool2d": (lambda x: cr.avg_pool2d(x, 2), (2, 3, 4, 5)),
    "avg_pool2d overlapping": (lambda x: cr.avg_pool2d(x, 3, 2, 1, True, False), (2, 3, 6, 5)),
    "avg_pool3d": (lambda x: cr.avg_pool3d(x, 2, 1), (1, 2, 2, 3, 3)),
    "adaptive_avg_pool2d": (lambda x: cr.adaptive_avg_pool2d(x, (3, 2)), (2, 2, 6, 5)),
    "adaptive_avg_pool3d": (lambda x: cr.adaptive_avg_pool3d(x, 1), (2, 2, 2, 3, 4)),
    "adaptive_max_pool1d": (lambda x: cr.adaptive_max_pool1d(x, 3), (2, 3, 7)),
    "adaptive_max_pool2d": (lambda x: cr.adaptive_max_pool2d(x, (3, 2)), (2, 2, 6, 5)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_order_one_and_two(name):
    f, shape = FUNCTIONS[name]
    cr.check_gradients(lambda x: f(x) ** 2, cr.tensor(apart(*shape)), order=2)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_engines_agree(name, dtype):
    f, shape = FUNCTIONS[name]
    x = cr.tensor(apart(*shape).astype(dtype))
    g = lambda x: cr.value_and_grad(lambda x: ((f(x) ** 2).sum(), f(x)), has_aux=True)(x)
    (value, y), by_x = g(x)
    (_, again), same = cr.compile(g, engine="reference")(x)
    assert y.dtype == x.dtype and (y == again).all() and (by_x == same).all()
    (other, again), same = cr.compile(g, engine="native")(x)
    for a, b in ((value, other), (y, again), (by_x, same)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_is_rounded_once(name):
    f, shape = FUNCTIONS[name]
    x = cr.tensor(apart(*shape)).astype("bfloat16")
    assert f(x).dtype == cr.bfloat16
    assert (f(x) == f(x.astype("float32")).astype("bfloat16")).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cr.max_pool2d(cr.ones((2, 2)), 2), ShapeError, r"max_pool2d: expected \(N, C, H, W\)"),
        (lambda: cr.max_pool2d(cr.ones((1, 2, 3, 3)), 4), ShapeError, r"reaches over \(4, 4\).*smaller window"),
        (lambda: cr.max_pool2d(cr.ones((1, 2, 3, 3)), 2, padding=2), ConfigError, "more than half"),
        (lambda: cr.max_pool1d(cr.ones((1, 2, 1)), 2, padding=1, dilation=2), ShapeError, "holds nothing"),
        (lambda: cr.avg_pool2d(cr.ones((1, 2, 3, 3)), 0), ConfigError, "kernel_size is a whole number of at least 1"),
        (lambda: cr.avg_pool2d(cr.ones((1, 2, 3, 3)), 2, divisor_override=0), ConfigError, "divide by zero"),
        (lambda: cr.adaptive_avg_pool2d(cr.ones((1, 2, 3, 3)), 0), ConfigError, "output_size"),
        (lambda: cr.adaptive_avg_pool2d(cr.ones((1, 2, 3, 3)), (1, 2, 3)), ConfigError, "has 3 numbers"),
        (lambda: cr.adaptive_max_pool1d(cr.ones((1, 2, 0)), 1), ShapeError, "nothing to pool"),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()
