"""Convolution against PyTorch's in float64: results, derivatives of both orders; layers with PyTorch's weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.test_nn import assert_same_distribution, compare, drawn, grid, pair

import chainrule as cr
from chainrule import nn
from chainrule.errors import ChainruleError

AXES = (1, 2, 3)
ours = {(axes, t): getattr(cr, f"conv{t}{axes}d") for axes in AXES for t in ("", "_transpose")}
theirs = {(axes, t): getattr(torch.nn.functional, f"conv{t}{axes}d") for axes in AXES for t in ("", "_transpose")}


@st.composite
def settings_of_a_convolution(draw, transposed):
    """Shapes of input and weight, and settings with which they fit."""
    axes = draw(st.sampled_from((1, 2, 2, 3)))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 2)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    groups, inside, out = (draw(st.integers(1, 3 if axes < 3 else 2)) for _ in range(3))
    if transposed:
        more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        least = [
            max(1, -((r - 2 * p + m - 1) // s) + 1) for r, p, m, s in zip(reach, padding, more, stride, strict=True)
        ]
        weight = (groups * inside, out, *kernel)
        chosen = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
    else:
        least = [max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]
        weight = (groups * out, inside, *kernel)
        chosen = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = tuple(n + draw(st.integers(0, 3)) for n in least)
    lead = draw(st.sampled_from([(), (1,), (2,)]))
    return axes, (*lead, groups * inside, *size), weight, (groups * out,), chosen


@pytest.mark.parametrize("transposed", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), with_bias=st.booleans())
def test_functions(agree, transposed, data, with_bias):
    axes, x, weight, bias, chosen = data.draw(settings_of_a_convolution(transposed))
    which = axes, "_transpose" * transposed
    arrays = [drawn(*x), drawn(*weight, seed=1), *([drawn(*bias, seed=2)] if with_bias else [])]
    agree(lambda *a: ours[which](*a, **chosen), lambda *a: theirs[which](*a, **chosen), *arrays)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_by_name(agree, axes, padding, dilation):
    kernel = (2, 3, 4)[:axes]
    arrays = drawn(2, 2, *(7, 8, 7)[:axes]), drawn(3, 2, *kernel, seed=1)
    f, g = ours[axes, ""], theirs[axes, ""]
    agree(
        lambda x, w: f(x, w, padding=padding, dilation=dilation),
        lambda x, w: g(x, w, padding=padding, dilation=dilation),
        *arrays,
    )


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("transposed", ["", "_transpose"])
def test_an_empty_batch(axes, transposed):
    x, w = np.zeros((0, 2, *(4,) * axes)), drawn(2, 2, *(3,) * axes)
    y = ours[axes, transposed](cr.tensor(x), cr.tensor(w))
    assert y.shape == tuple(theirs[axes, transposed](torch.tensor(x), torch.tensor(w)).shape)
    (by_weight,) = cr.vjp(lambda w: ours[axes, transposed](cr.tensor(x), w), cr.tensor(w))[1](y)
    assert by_weight.shape == w.shape and not by_weight.numpy().any()


@pytest.mark.parametrize(
    ("transposed", "x", "weight", "chosen"),
    [
        ("", (2, 3, 5), (4, 2, 3), {}),  # channels
        ("", (2, 4, 5), (4, 2, 3), {"groups": 3}),
        ("", (2, 4, 5), (3, 2, 3), {"groups": 2}),
        ("", (2, 3, 2), (4, 3, 3), {}),  # no room
        ("", (2, 3, 5), (4, 3, 3), {"stride": 0}),
        ("", (2, 3, 5), (4, 3, 3), {"padding": -1}),
        ("", (2, 3, 5), (4, 3, 3), {"dilation": 0}),
        ("", (2, 3, 5), (4, 3, 3), {"padding": "same", "stride": 2}),
        ("", (2, 3, 5, 5), (4, 3, 3), {}),
        ("", (3, 5), (4, 3), {}),
        ("_transpose", (2, 3, 5), (4, 2, 3), {}),
        ("_transpose", (2, 3, 1), (3, 2, 3), {"padding": 2}),  # nothing comes out
        ("_transpose", (2, 3, 5), (3, 2, 3), {"output_padding": 1}),
        ("_transpose", (2, 3, 0), (3, 2, 3), {}),
    ],
    ids=str,
)
def test_what_pytorch_refuses_is_refused(transposed, x, weight, chosen):
    with pytest.raises((RuntimeError, ValueError)):
        theirs[1, transposed](torch.zeros(x), torch.zeros(weight), **chosen)
    with pytest.raises(ChainruleError):
        ours[1, transposed](cr.zeros(x), cr.zeros(weight), **chosen)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    "options",
    [
        *grid(kernel_size=[3], stride=[1, 2], padding=[0, 1], bias=[True, False]),
        {"kernel_size": 2, "groups": 2, "dilation": 2},
        {"kernel_size": 3, "padding": "same"},
        *grid(kernel_size=[3], padding=[1, "same"], padding_mode=["reflect", "replicate", "circular"]),
    ],
    ids=str,
)
def test_layers(axes, options):
    x = drawn(2, 4, *(5, 4, 6)[:axes])
    compare(*pair(f"Conv{axes}d", 4, 6, **options), x)
    compare(*pair(f"Conv{axes}d", 4, 6, **options), x[0])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    "options",
    [
        *grid(kernel_size=[3], stride=[1, 2], padding=[0, 1], bias=[True, False]),
        {"kernel_size": 2, "groups": 2, "dilation": 2, "stride": 2, "output_padding": 1},
    ],
    ids=str,
)
def test_transposed_layers(axes, options):
    x = drawn(2, 4, *(3, 4, 2)[:axes])
    compare(*pair(f"ConvTranspose{axes}d", 4, 6, **options), x)
    compare(*pair(f"ConvTranspose{axes}d", 4, 6, **options), x[0])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("more", [0, 1, 2])
@pytest.mark.parametrize("lead", [True, False])
def test_output_size(axes, more, lead):
    a, b = pair(f"ConvTranspose{axes}d", 2, 3, 3, stride=3, padding=1)
    x = drawn(2, 2, *(4,) * axes)
    size = [*((2, 3) if lead else ()), *(10 + more,) * axes]
    y = a(cr.tensor(x), size)
    np.testing.assert_allclose(y, b(torch.tensor(x), size).detach().numpy(), rtol=1e-9, atol=1e-11)
    for wrong in (9, 13):
        with pytest.raises(ValueError, match="requested an output size"):
            b(torch.tensor(x), [wrong] * axes)
        with pytest.raises(ChainruleError, match="possible are extents"):
            a(cr.tensor(x), [wrong] * axes)


@pytest.mark.parametrize(
    ("name", "args"),
    [("Conv1d", (30, 40, 5)), ("Conv2d", (16, 30, 3)), ("Conv3d", (6, 10, 3)), ("ConvTranspose2d", (16, 30, 3))],
    ids=str,
)
def test_layers_start_alike(name, args):
    torch.manual_seed(0)
    a, b = getattr(nn, name)(*args, generator=cr.random.Generator(0)), getattr(torch.nn, name)(*args)
    assert_same_distribution(a.weight, b.weight)
    bound = 1 / math.sqrt(b.weight[0].numel())
    assert bound / 2 < abs(a.bias.numpy()).max() <= bound
    assert bound / 2 < abs(b.bias.detach().numpy()).max() <= bound
