"""Convolution: its definition, derivatives, transpose, and both engines. PyTorch is compared with elsewhere."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.windows import per_axis

RNG = np.random.default_rng(4)


def drawn(*shape, dtype="float64"):
    return RNG.normal(size=shape).astype(dtype)


def by_definition(x, w, stride, padding, dilation, groups):
    """Every product by itself: x (N, C, H, W), w (out, C / groups, KH, KW)."""
    out, inside, *kernel = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    places = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(padded.shape[2:], kernel, dilation, stride, strict=True)
    ]
    y = np.zeros((len(x), out, *places))
    for n, o, i in itertools.product(range(len(x)), range(out), range(inside)):
        channel = o // (out // groups) * inside + i
        for place in np.ndindex(*places):
            for tap in np.ndindex(*kernel):
                at = [p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True)]
                y[(n, o, *place)] += padded[(n, channel, *at)] * w[(o, i, *tap)]
    return y


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_definition(stride, padding, dilation, groups):
    x, w = drawn(2, 4, 5, 6), drawn(6, 4 // groups, 2, 3)
    y = cr.conv2d(cr.tensor(x), cr.tensor(w), None, stride, padding, dilation, groups)
    np.testing.assert_allclose(y, by_definition(x, w, stride, padding, dilation, groups), rtol=1e-12, atol=1e-12)


def test_axes_of_space_are_alike():
    """Of extent 1 they may come and go."""
    x, w, b = drawn(2, 3, 7), drawn(4, 3, 3), drawn(4)
    y = cr.conv1d(cr.tensor(x), cr.tensor(w), cr.tensor(b), stride=2, padding=1).numpy()
    z = cr.conv2d(cr.tensor(x[:, :, None]), cr.tensor(w[:, :, None]), cr.tensor(b), (1, 2), (0, 1)).numpy()
    np.testing.assert_allclose(z[:, :, 0], y, rtol=1e-12)
    z = cr.conv3d(cr.tensor(x[..., None, None]), cr.tensor(w[..., None, None]), cr.tensor(b), (2, 1, 1), (1, 0, 0))
    np.testing.assert_allclose(z.numpy()[..., 0, 0], y, rtol=1e-12)
    y = cr.conv_transpose1d(cr.tensor(x), cr.tensor(drawn(3, 2, 4)), stride=3)
    assert y.shape == (2, 2, 22)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_transposed_convolution_is_the_transpose(data):
    """⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩ for all x and y, and it is what conv does to gradients."""
    axes = data.draw(st.sampled_from((1, 2, 3)))
    each = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(axes))
    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 1)
    groups, inside, out = (data.draw(st.integers(1, 2)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(1, r - 2 * p) + data.draw(st.integers(0, 3)) for r, p in zip(reach, padding, strict=True))
    more = tuple((n + 2 * p - r) % s for n, p, r, s in zip(size, padding, reach, stride, strict=True))
    x, w = cr.tensor(drawn(2, groups * inside, *size)), cr.tensor(drawn(groups * out, inside, *kernel))
    conv, transposed = getattr(cr, f"conv{axes}d"), getattr(cr, f"conv_transpose{axes}d")
    y, pull = cr.vjp(lambda x: conv(x, w, None, stride, padding, dilation, groups), x)
    z = cr.tensor(drawn(*y.shape))
    back = transposed(z, w, None, stride, padding, more, groups, dilation)
    np.testing.assert_allclose((back * x).sum(), (y * z).sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back, pull(z)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x, w, b: cr.conv1d(x, w, b, 2, 1, 2), [(2, 3, 6), (2, 3, 2), (2,)]),
        (lambda x, w, b: cr.conv2d(x, w, b, (1, 2), "valid", 1, 2), [(2, 4, 4, 5), (4, 2, 2, 3), (4,)]),
        (lambda x, w, b: cr.conv2d(x, w, b, padding="same", groups=3), [(1, 3, 3, 4), (3, 1, 3, 2), (3,)]),
        (lambda x, w, b: cr.conv3d(x, w, b, (2, 1, 1), 1), [(1, 2, 3, 2, 2), (2, 2, 2, 1, 2), (2,)]),
        (lambda x, w, b: cr.conv_transpose1d(x, w, b, 3, 1, 2), [(2, 2, 3), (2, 3, 3), (3,)]),
        (
            lambda x, w, b: cr.conv_transpose2d(x, w, b, (2, 1), 0, (1, 0), 2, (1, 2)),
            [(2, 2, 2, 3), (2, 1, 2, 2), (2,)],
        ),
        (lambda x, w, b: cr.conv_transpose3d(x, w, b, 2), [(1, 2, 2, 1, 2), (2, 1, 2, 2, 1), (1,)]),
    ],
    ids=["conv1d", "conv2d", "depthwise", "conv3d", "transpose1d", "transpose2d", "transpose3d"],
)
class TestEveryKind:
    def test_derivatives_of_order_one_and_two(self, f, shapes):
        cr.check_gradients(f, *[cr.tensor(drawn(*s)) for s in shapes], order=2)

    def test_float32(self, f, shapes):
        arrays = [drawn(*s) for s in shapes]
        y = f(*[cr.tensor(a.astype("float32")) for a in arrays])
        assert y.dtype == cr.float32
        np.testing.assert_allclose(y, f(*[cr.tensor(a) for a in arrays]), rtol=2e-4, atol=1e-5)

    def test_half_precision_is_rounded_once(self, f, shapes):
        halves = [cr.tensor(drawn(*s)).astype("bfloat16") for s in shapes]
        y = f(*halves)
        assert y.dtype == cr.bfloat16
        exact = f(*[h.astype("float32") for h in halves]).astype("bfloat16")
        assert (y == exact).all()

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_engines_agree(self, f, shapes, dtype):
        inputs = [cr.tensor(drawn(*s, dtype=dtype)) for s in shapes]
        g = cr.value_and_grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1, 2))
        value, grads = g(*inputs)
        again, same = cr.compile(g, engine="reference")(*inputs)
        assert value == again and all((a == b).all() for a, b in zip(grads, same, strict=True))
        value, grads = cr.compile(g, engine="native")(*inputs)
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-10}
        np.testing.assert_allclose(value, again, **tolerance)
        for a, b in zip(grads, same, strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cr.conv2d(cr.ones((2, 3, 8, 8)), cr.ones((4, 5, 3, 3))), ShapeError, r"Expected 5 channels"),
        (lambda: cr.conv2d(cr.ones((2, 3, 2, 8)), cr.ones((4, 3, 3, 3))), ShapeError, "does not fit into an input"),
        (lambda: cr.conv2d(cr.ones((8, 8)), cr.ones((4, 3, 3, 3))), ShapeError, r"\(C, H, W\) for one example"),
        (lambda: cr.conv2d(cr.ones((1, 3, 8, 8)), cr.ones((4, 3, 3))), ShapeError, "weight has shape"),
        (lambda: cr.conv1d(cr.ones((1, 3, 8)), cr.ones((4, 3, 3)), cr.ones(3)), ShapeError, r"bias .* expected \(4,\)"),
        (lambda: cr.conv1d(cr.ones((1, 3, 8)), cr.ones((4, 3, 3)), padding="full"), ConfigError, "'full'"),
        (lambda: cr.conv1d(cr.ones((1, 3, 8)), cr.ones((4, 3, 3)), stride=1.5), ConfigError, "whole numbers, not 1.5"),
        (lambda: cr.conv1d(cr.ones((1, 3, 8)), cr.ones((4, 3, 3)), stride=(1, 1)), ConfigError, "stride is a whole"),
        (lambda: cr.conv1d(cr.ones((1, 3, 8)), cr.ones((4, 3, 3)), padding="same", stride=2), ConfigError, "keeps"),
        (lambda: cr.conv_transpose1d(cr.ones((1, 3, 8)), cr.ones((2, 4, 3))), ShapeError, "Expected 2 channels"),
        (
            lambda: cr.conv_transpose1d(cr.ones((1, 2, 8)), cr.ones((2, 4, 3)), stride=2, output_padding=2),
            ConfigError,
            "must be smaller than stride",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_number_or_one_an_axis():
    assert per_axis("f", "stride", 2, 3) == per_axis("f", "stride", [2], 3) == (2, 2, 2)
    assert per_axis("f", "stride", np.int64(2), 1) == (2,)
    for wrong in (True, (1, 2), "3", None, 0, (1, 2, 0)):
        with pytest.raises(ConfigError):
            per_axis("f", "stride", wrong, 3)
