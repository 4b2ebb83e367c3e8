"""Pooling against PyTorch's in float64: results, winners, gradients, gradients of gradients."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracle.test_nn import compare, drawn, grid, pair

import chainrule as cr
from chainrule.errors import ChainruleError, ShapeError

AXES = (1, 2, 3)
ADAPTIVE = [1, 2, 3, 5, 6, 7, 13]


def both(name, axes):
    return getattr(cr, f"{name}{axes}d"), getattr(torch.nn.functional, f"{name}{axes}d")


def a_window_is_empty(size, places, kernel_size, stride, padding, dilation):
    """Whether all taps of a window lie in the padding, which dilation can bring about."""
    for n, m, k, s, p, d in zip(size, places, kernel_size, stride or kernel_size, padding, dilation, strict=True):
        if any(all(not 0 <= i * s + j * d - p < n for j in range(k)) for i in range(m)):
            return True
    return False


@st.composite
def windows(draw, dilated):
    """A shape, and settings of windows that fit."""
    axes = draw(st.sampled_from((1, 2, 2, 3)))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    kernel, stride = each(1, 4), draw(st.none() | st.tuples(*[st.integers(1, 4)] * axes))
    dilation = each(1, 2) if dilated else (1,) * axes
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(
        max(1, r - 2 * p) + draw(st.integers(0, 5 if axes < 3 else 2)) for r, p in zip(reach, padding, strict=True)
    )
    lead = draw(st.sampled_from([(2,), (1, 3), (2, 2)]))
    chosen = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return axes, (*lead, *size), {**chosen, **({"dilation": dilation} if dilated else {})}


@settings(max_examples=60, deadline=None)
@given(drawn_windows=windows(dilated=True), ties=st.booleans())
def test_max_pool(agree, drawn_windows, ties):
    """The winner is the first of equals there too: indices and gradients agree where values repeat."""
    axes, shape, chosen = drawn_windows
    a, b = both("max_pool", axes)
    x = np.random.default_rng(0).integers(0, 2, shape).astype(float) if ties else drawn(*shape)
    expected, positions = b(torch.tensor(x), **chosen, return_indices=True)
    settings = {key: value for key, value in chosen.items() if key != "ceil_mode"}
    if a_window_is_empty(shape[-axes:], expected.shape[-axes:], **settings):  # PyTorch gives −∞ and an index outside
        with pytest.raises(ShapeError, match="holds nothing"):
            a(cr.tensor(x), **chosen)
        return
    y, indices = a(cr.tensor(x), **chosen, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, positions)
    assert indices.dtype == cr.int64
    agree(lambda x: a(x, **chosen), lambda x: b(x, **chosen), x)


@settings(max_examples=60, deadline=None)
@given(drawn_windows=windows(dilated=False), counted=st.booleans(), divisor=st.sampled_from([None, None, 3, -2]))
def test_avg_pool(agree, drawn_windows, counted, divisor):
    axes, shape, chosen = drawn_windows
    a, b = both("avg_pool", axes)
    chosen = {**chosen, "count_include_pad": counted, **({} if axes == 1 else {"divisor_override": divisor})}
    assume(axes < 3 or all(n >= k for n, k in zip(shape[-3:], chosen["kernel_size"], strict=True)))  # PyTorch insists
    if axes == 1 and chosen["stride"] is None:  # PyTorch's takes no None there
        chosen["stride"] = chosen["kernel_size"]
    agree(lambda x: a(x, **chosen), lambda x: b(x, **chosen), drawn(*shape))


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("axes", AXES)
def test_an_empty_batch(kind, axes):
    a, b = both(kind, axes)
    x = np.zeros((0, 3, *(5,) * axes))
    assert a(cr.tensor(x), 2).shape == tuple(b(torch.tensor(x), 2).shape)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((1, 1, 2), {"kernel_size": 3}),
        ((1, 1, 5), {"kernel_size": 3, "padding": 2}),
        ((1, 1, 0), {"kernel_size": 1}),
        ((1, 1, 5), {"kernel_size": 0}),
        ((1, 1, 5), {"kernel_size": 2, "stride": 0}),
        ((1, 1, 5), {"kernel_size": 2, "padding": -1}),
        ((5,), {"kernel_size": 2}),
        ((1, 1, 5, 5), {"kernel_size": 2}),
    ],
    ids=str,
)
def test_what_pytorch_refuses_is_refused(kind, shape, chosen):
    a, b = both(kind, 1)
    with pytest.raises(RuntimeError):
        b(torch.zeros(shape), **chosen)
    with pytest.raises(ChainruleError):
        a(cr.zeros(shape), **chosen)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 12])
@pytest.mark.parametrize("m", ADAPTIVE)
def test_adaptive_pooling_of_one_axis(agree, n, m):
    for kind in ("adaptive_avg_pool", "adaptive_max_pool"):
        a, b = both(kind, 1)
        agree(lambda x, a=a: a(x, m), lambda x, b=b: b(x, m), drawn(2, 3, n))


@pytest.mark.parametrize("size", [1, 4, (3, 5), (None, 2), (7, None), (2, 3)], ids=str)
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_adaptive_pooling_of_two_axes(agree, size, lead):
    for kind in ("adaptive_avg_pool", "adaptive_max_pool"):
        a, b = both(kind, 2)
        agree(lambda x, a=a: a(x, size), lambda x, b=b: b(x, size), drawn(*lead, 7, 6))


@pytest.mark.parametrize("size", [1, 2, (3, 5, 2), (None, 2, None)], ids=str)
def test_adaptive_pooling_of_three_axes(agree, size):
    for kind in ("adaptive_avg_pool", "adaptive_max_pool"):
        a, b = both(kind, 3)
        agree(lambda x, a=a: a(x, size), lambda x, b=b: b(x, size), drawn(2, 2, 4, 5, 6))


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_adaptive_winners(n, m):
    for axes in AXES:
        a, b = both("adaptive_max_pool", axes)
        x = np.random.default_rng(n).integers(0, 3, (2, 3, *(n,) * axes)).astype(float)
        y, indices = a(cr.tensor(x), m, return_indices=True)
        expected, positions = b(torch.tensor(x), m, return_indices=True)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, positions)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[("MaxPool", o) for o in grid(kernel_size=[2, 3], stride=[None, 2], padding=[0, 1], ceil_mode=[False, True])],
        ("MaxPool", {"kernel_size": 2, "dilation": 2}),
        *[("AvgPool", o) for o in grid(kernel_size=[2, 3], stride=[None, 2], padding=[0, 1], ceil_mode=[False, True])],
        ("AvgPool", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
        *[("AdaptiveAvgPool", {"output_size": n}) for n in (1, 3)],
        *[("AdaptiveMaxPool", {"output_size": n}) for n in (1, 3)],
    ],
    ids=str,
)
def test_layers(axes, name, options):
    x = drawn(2, 3, *(7, 6, 5)[:axes])
    compare(*pair(f"{name}{axes}d", **options), x)
    compare(*pair(f"{name}{axes}d", **options), x[0])


@pytest.mark.parametrize("name", ["MaxPool", "AdaptiveMaxPool"])
@pytest.mark.parametrize("axes", AXES)
def test_layers_that_return_indices(name, axes):
    a, b = pair(f"{name}{axes}d", 2, return_indices=True)
    x = drawn(2, 3, *(6,) * axes)
    for ours, theirs in zip(a(cr.tensor(x)), b(torch.tensor(x)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("axes", AXES)
def test_global_average(axes):
    theirs = torch.nn.Sequential(getattr(torch.nn, f"AdaptiveAvgPool{axes}d")(1), torch.nn.Flatten())
    compare(getattr(cr.nn, f"GlobalAvgPool{axes}d")(), theirs, drawn(2, 3, *(5, 4, 3)[:axes]))
