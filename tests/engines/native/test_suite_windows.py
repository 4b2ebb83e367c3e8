"""Convolutions and pooling against the reference: every setting, tiles, threads, types."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import native, on_threads
from tests.passes.test_convolutions import convolution

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.passes import convolutions
from chainrule.primitives.convolve import convolve
from chainrule.primitives.window import window_argmax, window_put, window_take


def arrays(dtype, *shapes):
    rng = np.random.default_rng(1)
    return [wrap(rng.uniform(-1, 1, shape).astype(dtype)) for shape in shapes]


def all_of(x, w, dy, attributes):
    y, pull = cr.vjp(lambda x, w: convolve(x, w, **attributes), x, w)
    return (y, *pull(dy))


def compare(attributes, dtype, *shapes, parts=None):
    """Value and gradients on both engines; the compiled function, and what it was called with.

    `parts`: in how many portions the gradient of the kernel is summed up, if the places can be cut so.
    """
    x, w = arrays(dtype, *shapes)
    y = convolve(x, w, **attributes)
    (dy,) = arrays(dtype, y.shape)
    f = lambda x, w, dy: all_of(x, w, dy, attributes)
    compiled = native(f, threads=2)
    with pytest.MonkeyPatch.context() as patch:
        if parts is not None:
            patch.setattr(convolutions, "portions", lambda *sizes: parts)
        found = compiled(x, w, dy)
    rtol = {"float64": 1e-13, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[np.dtype(dtype).name]
    for a, b in zip(found, f(x, w, dy), strict=True):
        a, b = (np.asarray(t).astype(np.float64) for t in (a, b))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, np.abs(b).max(initial=0)))
    return compiled, (x, w, dy)


@settings(max_examples=25, deadline=None)
@given(convolution(), st.sampled_from(["float32", "float64"]), st.sampled_from([None, 2, 6, 9]))
def test_any_setting(case, dtype, parts):
    x, w, attributes = case
    compare(attributes, dtype, x, w, parts=parts)


def test_a_portion_of_one_place_and_a_window_of_one_element():
    settings = {"strides": (2,), "low": (0,), "high": (0,), "input_step": (1,), "kernel_step": (1,)}
    compare(settings, "float32", (1, 3, 1, 1), (1, 1, 1, 1), parts=2)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(("size", "parts"), [(8, 4), (9, 9), (12, 6)])
def test_gradients_of_kernels_in_portions(window, size, parts):
    """More places than a block of windows holds, and portions that end inside of an image."""
    shapes = (3, size, size, 1, 5), (window, window, 1, 5, 33)
    compiled, arguments = compare(square(window, padding=window // 2), np.float32, *shapes, parts=parts)
    first = compiled(*arguments)
    sums = [k for k in compiled.engine.compiled[-1][3].kernels if k.form == "contract" and k.kernel.sizes[0] == parts]
    assert len(sums) == 1
    for threads in (1, 3, 7):
        for a, b in zip(first, on_threads(compiled, threads)(*arguments), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def square(window, stride=1, padding=0, step=1):
    ends = {"low": (padding,) * 2, "high": (padding,) * 2}
    return {"strides": (stride,) * 2, "input_step": (1, 1), "kernel_step": (step,) * 2, **ends}


@pytest.mark.parametrize(
    ("batch", "size", "channels", "out", "window", "stride", "padding"),
    [
        (3, 11, 1, 32, 3, 1, 1),  # one channel
        (2, 9, 3, 17, 5, 2, 2),
        (4, 8, 16, 16, 3, 1, 1),
        (2, 13, 33, 31, 3, 1, 1),  # one more and one less than vectors
        (1, 40, 64, 48, 3, 2, 1),
        (5, 7, 24, 5, 7, 1, 3),  # a window as large as the image
        (2, 6, 128, 130, 3, 1, 1),
        (7, 5, 40, 40, 1, 1, 0),
        (3, 16, 8, 8, 4, 2, 1),
    ],
)
def test_sizes_around_tiles_and_vectors(batch, size, channels, out, window, stride, padding):
    shapes = (batch, size, size, 1, channels), (window, window, 1, channels, out)
    compare(square(window, stride, padding), np.float32, *shapes)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_single(dtype):
    compare(square(3, 1, 1), cr.dtypes.as_dtype(dtype), (2, 6, 6, 1, 8), (3, 3, 1, 8, 9))


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_bits_do_not_depend_on_threads(groups):
    shapes = (4, 12, 12, groups, 32 // groups), (3, 3, groups, 32 // groups, 32 // groups)
    compiled, arguments = compare(square(3, 1, 1), np.float32, *shapes)
    same_bits(compiled, *arguments)


def same_bits(compiled, *arguments):
    first = compiled(*arguments)
    for threads in (1, 3, 4, 7):
        for a, b in zip(first, on_threads(compiled, threads)(*arguments), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@st.composite
def pooling(draw):
    spatial = draw(st.integers(0, 3))
    axes = [draw(st.tuples(*[st.integers(1, 3)] * 3, *[st.integers(0, 1)] * 2)) for _ in range(spatial)]
    window, strides, steps, low, high = (tuple(a[k] for a in axes) for k in range(5))
    fewest = [max(1, (k - 1) * t + 1 - lo - hi) for k, _, t, lo, hi in axes]
    space = [n + draw(st.integers(0, 4)) for n in fewest]
    shape = (draw(st.integers(1, 3)), *space, draw(st.sampled_from([1, 2, 16, 17, 33])))
    return shape, {"window": window, "strides": strides, "low": low, "high": high, "steps": steps}


@settings(max_examples=40, deadline=None)
@given(pooling(), st.sampled_from(["float32", "float64", "float16", "bfloat16"]), st.booleans())
def test_pooling_and_what_it_gives_back(case, dtype, together):
    shape, attributes = case
    dtype = cr.dtypes.as_dtype(dtype)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, shape).astype(np.float64)  # ties
    x[rng.random(shape) < 0.2] = -np.inf
    x[rng.random(shape) < 0.05] = np.nan
    x = wrap(x.astype(dtype))

    def f(x, dy):
        winners = window_argmax(x, **attributes)
        y = window_take(x, winners, **attributes) if together else dy
        return winners, y, window_put(dy, winners, size=x.shape[1:-1], **attributes)

    winners = window_argmax(x, **attributes)
    dy = wrap(rng.integers(-3, 3, winners.shape).astype(dtype))
    for a, b in zip(native(f, threads=2)(x, dy), f(x, dy), strict=True):
        np.testing.assert_array_equal(np.asarray(a).astype(np.float64), np.asarray(b).astype(np.float64))


def test_pooling_has_the_same_bits_on_any_number_of_threads():
    attributes = {"window": (3, 3), "strides": (2, 2), "low": (1, 1), "high": (1, 1), "steps": (1, 1)}
    (x,) = arrays(np.float32, (5, 13, 11, 37))

    def f(x):
        winners = window_argmax(x, **attributes)
        y = window_take(x, winners, **attributes)
        return y, window_put(cr.exp(y), winners, size=(13, 11), **attributes)

    compiled = native(f, threads=2)
    same_bits(compiled, x)


@pytest.mark.parametrize(
    ("space", "window"), [((6,), (3,)), ((4, 6), (2, 3)), ((2, 4, 3), (2, 2, 1)), ((5, 6), (2, 3))]
)
@pytest.mark.parametrize("channels", [1, 16, 35])
def test_windows_side_by_side_give_back(space, window, channels):
    attributes = {"window": window, "strides": window, "steps": (1,) * len(space)}
    attributes |= {"low": (0,) * len(space), "high": (0,) * len(space)}
    (x,) = arrays(np.float32, (3, *space, channels))
    winners = window_argmax(x, **attributes)
    (dy,) = arrays(np.float32, winners.shape)
    f = lambda dy, winners: window_put(dy, winners, size=space, **attributes)
    compiled = native(lambda dy, winners: (f(dy, winners),), threads=2)
    np.testing.assert_array_equal(np.asarray(compiled(dy, winners)[0]), np.asarray(f(dy, winners)))
    same_bits(compiled, dy, winners)
