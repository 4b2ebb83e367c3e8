"""Products that skip what is zero, on the native engine: every setting, ties, threads, types."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.kernels import runnable
from tests.engines.native.suite import assert_close, bits, leaves, native, on_threads, reference

import chainrule as cr
from chainrule.core.tensor import wrap

rng = np.random.default_rng(0)


def step(axes, **options):
    """Value and gradients of what the largest of a convolution makes of an image and a kernel."""
    conv = {1: cr.conv1d, 2: cr.conv2d}[axes]

    def loss(x, w):
        return cr.sum(cr.max(cr.relu(conv(x, w, **options)), axis=tuple(range(2, 2 + axes))) ** 2)

    return lambda x, w: cr.value_and_grad(loss, (0, 1))(x, w)


def forms(compiled):
    return [kernel.form for _, _, _, plan in compiled.engine.compiled for kernel in plan.kernels]


def compare(f, x, w, dtype="float32", **options):
    x, w = (wrap(np.asarray(a, dtype)) for a in (x, w))
    compiled = native(f, **options)
    for found, expected in zip(leaves(compiled(x, w)), leaves(reference(f)(x, w)), strict=True):
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        assert_close(found / scale, expected / scale)
    return compiled, (x, w)


@st.composite
def setting(draw):
    axes = draw(st.integers(1, 2))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    options = {"stride": each(1, 3), "padding": each(0, 2), "dilation": each(1, 2)}
    window = each(1, 4)
    places = (draw(st.integers(16, 40)),) if axes == 1 else (draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    parts = zip(places, options["stride"], window, options["dilation"], options["padding"], strict=True)
    size = [max(1, (p - 1) * s + (k - 1) * t + 1 - 2 * a) for p, s, k, t, a in parts]
    channels, out = draw(st.sampled_from([1, 3, 16, 17, 35])), draw(st.sampled_from([1, 4, 5, 16, 33]))
    return axes, options, (draw(st.integers(1, 3)), channels, *size), (out, channels, *window)


@settings(max_examples=25, deadline=None)
@given(setting(), st.sampled_from(["float32", "float64"]))
def test_any_setting(case, dtype):
    axes, options, x, w = case
    compiled, _ = compare(step(axes, **options), rng.normal(size=x), rng.normal(size=w), dtype, threads=2)
    assert forms(compiled).count("sparse") == 2


def test_bits_do_not_depend_on_threads():
    compiled, arguments = compare(step(1, padding=2), rng.normal(size=(7, 33, 50)), rng.normal(size=(37, 33, 5)))
    expected = bits(compiled(*arguments))
    for threads in (2, 3, 4, 7):
        assert bits(on_threads(compiled, threads)(*arguments)) == expected


@pytest.mark.parametrize("host", runnable(), ids=lambda host: f"{8 * host.vector_bytes} bits")
def test_other_vectors(host):
    x, w = rng.normal(size=(2, 5, 30)), rng.normal(size=(6, 5, 3))
    compiled, _ = compare(step(1), x, w, host=host)
    assert forms(compiled).count("sparse") == 2


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_ties(value):
    """All places are the largest: nothing is sparse, and all is right."""
    compare(step(1), np.full((3, 4, 40), value), np.ones((9, 4, 3)))


def test_what_is_no_number_is_passed_on():
    x = rng.normal(size=(2, 4, 40))
    x[0, 1, 7] = np.nan
    (value, (dx, dw)) = native(step(1))(wrap(x.astype(np.float32)), cr.ones((5, 4, 3)))
    assert np.isnan(float(value)) and np.isnan(np.asarray(dw)).any() and not np.isnan(np.asarray(dx)[1]).any()
