"""Resampling, windows as columns, shuffling, dropout of channels: what holds without asking PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ChainruleError, ConfigError, ShapeError

RNG = np.random.default_rng(4)


def drawn(*shape, dtype="float64"):
    return RNG.normal(size=shape).astype(dtype)


MODES = ["nearest", "nearest-exact", "linear", "area"]
IMAGE_MODES = ["nearest", "nearest-exact", "bilinear", "bicubic", "area"]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 20), mode=st.sampled_from(MODES), corners=st.booleans())
def test_what_is_constant_stays_so_and_what_rises_does_not_fall(n, m, mode, corners):
    options = {"mode": mode, **({"align_corners": corners} if mode == "linear" else {})}
    y = cr.interpolate(cr.full((1, 1, n), 0.7, dtype="float64"), m, **options)
    np.testing.assert_allclose(y, 0.7, rtol=1e-15)
    y = cr.interpolate(cr.tensor(np.arange(float(n))[None, None]), m, **options).numpy()[0, 0]
    assert (np.diff(y) >= -1e-12).all() and y[0] >= 0 and y[-1] <= n - 1


@pytest.mark.parametrize("mode", IMAGE_MODES)
def test_the_same_size_changes_nothing(mode):
    x = cr.tensor(drawn(2, 3, 4, 5))
    np.testing.assert_allclose(cr.interpolate(x, (4, 5), mode=mode), x, rtol=1e-12)
    np.testing.assert_allclose(cr.interpolate(x, scale_factor=1, mode=mode), x, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 49, 98])
def test_nearest_does_not_fall_short_by_rounding(n):
    """49 · (1 / 49) is less than 1 in floating point."""
    for m in (n, 2 * n, 49 * n, 7 * n + 3):
        y = cr.interpolate(cr.tensor(np.arange(n)[None, None]), m).numpy()[0, 0]
        assert y.tolist() == [i * n // m for i in range(m)]
        assert y.dtype == np.int64


def test_whole_factors_repeat():
    x = drawn(2, 3, 2, 3)
    y = cr.interpolate(cr.tensor(x), scale_factor=(3, 2))
    np.testing.assert_array_equal(y, x.repeat(3, axis=2).repeat(2, axis=3))
    y = cr.interpolate(cr.tensor(x), size=(4, 5))
    np.testing.assert_array_equal(y, x.repeat(2, axis=2)[..., [0, 0, 1, 1, 2]])


def test_smoothing_before_making_smaller():
    """A checkerboard becomes grey with antialias, and black or white without."""
    board = np.indices((12, 12)).sum(0)[None, None] % 2.0
    plain = cr.interpolate(cr.tensor(board), (4, 4), mode="bilinear").numpy()
    smooth = cr.interpolate(cr.tensor(board), (4, 4), mode="bilinear", antialias=True).numpy()
    assert set(plain.ravel()) == {0.0, 1.0}
    assert abs(smooth[0, 0, 1:-1, 1:-1] - 0.5).max() < 0.1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fold_is_the_transpose_of_unfold(data):
    """⟨unfold(x), y⟩ = ⟨x, fold(y)⟩; and where windows do not overlap, fold(unfold(x)) is x."""
    each = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(2))
    kernel, dilation, padding, stride = each(1, 3), each(1, 2), each(0, 2), each(1, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(1, r - 2 * p) + data.draw(st.integers(0, 3)) for r, p in zip(reach, padding, strict=True))
    x = cr.tensor(drawn(2, 3, *size))
    columns = cr.unfold(x, kernel, dilation, padding, stride)
    y = cr.tensor(drawn(*columns.shape))
    back = cr.fold(y, size, kernel, dilation, padding, stride)
    np.testing.assert_allclose((columns * y).sum(), (x * back).sum(), rtol=1e-9, atol=1e-9)


def test_patches_go_back_where_they_came_from():
    x = cr.tensor(drawn(2, 3, 8, 6))
    patches = cr.unfold(x, (4, 2), stride=(4, 2))
    assert patches.shape == (2, 24, 6)
    np.testing.assert_array_equal(patches.numpy()[0, :, 1].reshape(3, 4, 2), x.numpy()[0, :, :4, 2:4])
    np.testing.assert_array_equal(cr.fold(patches, (8, 6), (4, 2), stride=(4, 2)), x)


def test_a_convolution_is_a_product_with_columns():
    x, w = cr.tensor(drawn(2, 3, 5, 6)), cr.tensor(drawn(4, 3, 3, 2))
    columns = cr.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2)
    y = cr.reshape(w, (4, -1)) @ columns
    np.testing.assert_allclose(y, cr.conv2d(x, w, None, 2, 1, (1, 2)).reshape(y.shape), rtol=1e-9, atol=1e-12)


def test_shuffles_are_undone():
    x = cr.tensor(drawn(2, 12, 3, 4))
    np.testing.assert_array_equal(cr.pixel_unshuffle(cr.pixel_shuffle(x, 2), 2), x)
    np.testing.assert_array_equal(cr.channel_shuffle(cr.channel_shuffle(x, 3), 4), x)


FUNCTIONS = {
    **{f"interpolate {m}": (lambda x, m=m: cr.interpolate(x, (3, 7), mode=m), (2, 2, 4, 5)) for m in IMAGE_MODES},
    **{f"interpolate {m} by 2": (lambda x, m=m: cr.interpolate(x, None, 2, m), (1, 2, 3, 2)) for m in IMAGE_MODES},
    "interpolate trilinear": (lambda x: cr.interpolate(x, 3, mode="trilinear", align_corners=True), (1, 2, 2, 4, 1)),
    "interpolate antialias": (lambda x: cr.interpolate(x, 2, mode="bicubic", antialias=True), (1, 2, 5, 4)),
    "unfold": (lambda x: cr.unfold(x, 2, padding=1, stride=2), (2, 2, 4, 3)),
    "fold": (lambda x: cr.fold(x, (4, 3), 2, padding=1, stride=2), (2, 8, 6)),
    "pixel_shuffle": (lambda x: cr.pixel_shuffle(x, 2), (2, 8, 3, 2)),
    "pixel_unshuffle": (lambda x: cr.pixel_unshuffle(x, 2), (2, 2, 4, 2)),
    "channel_shuffle": (lambda x: cr.channel_shuffle(x, 2), (2, 6, 3)),
    "local_response_norm": (lambda x: cr.local_response_norm(x, 3, 0.5), (2, 5, 3)),
    "dropout2d": (lambda x: cr.dropout2d(x, 0.5, generator=cr.random.key(1)), (2, 8, 3, 2)),
    "alpha_dropout": (lambda x: cr.alpha_dropout(x, 0.5, generator=cr.random.key(1)), (4, 5)),
    "feature_alpha_dropout": (lambda x: cr.feature_alpha_dropout(x, 0.5, generator=cr.random.key(1)), (2, 8, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_order_one_and_two(name):
    f, shape = FUNCTIONS[name]
    cr.check_gradients(lambda x: f(x) ** 2, cr.tensor(drawn(*shape)), order=2)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_engines_agree(name, dtype):
    f, shape = FUNCTIONS[name]
    x = cr.tensor(drawn(*shape, dtype=dtype))
    g = lambda x: cr.value_and_grad(lambda x: ((f(x) ** 2).sum(), f(x)), has_aux=True)(x)
    (value, y), by_x = g(x)
    (_, again), same = cr.compile(g, engine="reference")(x)
    assert y.dtype == x.dtype and (y == again).all() and (by_x == same).all()
    (other, again), same = cr.compile(g, engine="native")(x)
    for a, b in ((value, other), (y, again), (by_x, same)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("f", [cr.dropout1d, cr.dropout3d, cr.alpha_dropout, cr.feature_alpha_dropout])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_keeps_dtype_and_shape(f, dtype, p):
    x = cr.ones((6, 4, 2, 2, 2) if f is cr.dropout3d else (6, 4, 2), dtype=dtype)
    y = f(x, p, generator=cr.random.key(0))
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert (f(x, p, training=False) == x).all()
    if p == 1:
        assert not y.numpy().any()
    if p == 0.5:
        assert len(np.unique(y.astype("float64"))) == 2


def test_infinity_is_dropped_too():
    x = cr.full((1, 20, 2), np.inf)
    y = cr.dropout1d(x, 0.5, generator=cr.random.key(0)).numpy()
    assert set(y.ravel()) == {0.0, np.inf}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cr.interpolate(cr.ones((1, 1, 4)), 2, mode="cubic"), ConfigError, "unknown. Modes: nearest"),
        (lambda: cr.interpolate(cr.ones((1, 1, 4)), 2, mode="bilinear"), ShapeError, r"takes \(N, C, H, W\)"),
        (lambda: cr.interpolate(cr.ones((1, 1, 4))), ConfigError, "either size or scale_factor"),
        (lambda: cr.interpolate(cr.ones((1, 1, 4)), scale_factor=-1), ConfigError, "positive number"),
        (lambda: cr.interpolate(cr.ones((1, 1, 4)), 2, align_corners=False), ConfigError, "no use for it"),
        (lambda: cr.unfold(cr.ones((1, 1, 2, 2)), 3), ShapeError, "does not fit"),
        (lambda: cr.fold(cr.ones((1, 4, 5)), (3, 3), 2), ShapeError, r"2 · 2 columns of C · 4 rows"),
        (lambda: cr.pixel_shuffle(cr.ones((1, 6, 2, 2)), 2), ShapeError, r"C · 4"),
        (lambda: cr.pixel_unshuffle(cr.ones((1, 6, 3, 2)), 2), ShapeError, r"H · 2"),
        (lambda: cr.channel_shuffle(cr.ones((1, 6)), 4), ShapeError, "4 groups"),
        (lambda: cr.dropout2d(cr.ones((3, 4, 4))), ShapeError, r"x\[None\]"),
        (lambda: cr.dropout1d(cr.ones((3, 4, 4, 4))), ShapeError, r"\(N, C, L\)"),
        (lambda: cr.dropout1d(cr.ones((3, 4, 4))), ConfigError, "random numbers"),
        (lambda: cr.feature_alpha_dropout(cr.ones(3), generator=cr.random.key(0)), ShapeError, r"\(N, C, ...\)"),
        (lambda: cr.local_response_norm(cr.ones((1, 2)), 0), ConfigError, "1 or more"),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, ChainruleError)
