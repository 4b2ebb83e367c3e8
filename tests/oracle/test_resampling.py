"""Resampling, borders and rearranging against PyTorch's in float64: results, gradients, gradients of gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.test_nn import compare, drawn, grid

import chainrule as cr
from chainrule import nn
from chainrule.errors import ChainruleError

functional = torch.nn.functional
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
SHAPES = {1: (2, 3, 5), 2: (2, 3, 4, 5), 3: (1, 2, 3, 4, 2)}


def options_for(axes):
    """Modes, and with them whether corners are aligned."""
    aligned = [LINEAR[axes], *(["bicubic"] if axes == 2 else [])]
    plain = [{"mode": mode} for mode in ("nearest", "nearest-exact", "area", *aligned)]
    return plain + [{"mode": mode, "align_corners": corners} for mode in aligned for corners in (True, False)]


CASES = [(axes, options) for axes in (1, 2, 3) for options in options_for(axes)]


@pytest.mark.parametrize(("axes", "options"), CASES, ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 10, 15])
def test_interpolate_to_a_size(agree, axes, options, size):
    x = drawn(*SHAPES[axes])
    agree(
        lambda x: cr.interpolate(x, size, **options), lambda x: functional.interpolate(x, size, **options), x, rtol=1e-8
    )


@pytest.mark.parametrize(("axes", "options"), CASES, ids=str)
@pytest.mark.parametrize("scale", [0.5, 1, 1.5, 2, 2.0, 2.3, 3])
@pytest.mark.parametrize("recompute", [None, True])
def test_interpolate_by_a_factor(agree, axes, options, scale, recompute):
    x = drawn(*SHAPES[axes])
    settings = {**options, "scale_factor": scale, "recompute_scale_factor": recompute}
    if (axes, options["mode"], scale, recompute) == (3, "nearest", 2.3, None):
        # PyTorch's gradient is not that of its values there, by its own gradcheck.
        np.testing.assert_array_equal(
            cr.interpolate(cr.tensor(x), **settings), functional.interpolate(torch.tensor(x), **settings)
        )
        return
    agree(lambda x: cr.interpolate(x, **settings), lambda x: functional.interpolate(x, **settings), x, rtol=1e-8)


@pytest.mark.parametrize("options", [{"size": (3, 9)}, {"scale_factor": (0.5, 3.0)}], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_interpolate_with_a_number_for_each_axis(agree, options, mode):
    agree(
        lambda x: cr.interpolate(x, mode=mode, **options),
        lambda x: functional.interpolate(x, mode=mode, **options),
        drawn(2, 3, 4, 5),
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    mode=st.sampled_from(["bilinear", "bicubic"]),
    corners=st.sampled_from([None, True, False]),
    antialias=st.booleans(),
)
def test_interpolate_images(agree, n, m, mode, corners, antialias):
    options = {"size": (m, 3), "mode": mode, "align_corners": corners, "antialias": antialias}
    x = drawn(1, 2, n, 4)
    agree(lambda x: cr.interpolate(x, **options), lambda x: functional.interpolate(x, **options), x, rtol=1e-8)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 20), m=st.integers(1, 40), mode=st.sampled_from(["nearest", "nearest-exact"]))
def test_nearest(n, m, mode):
    """PyTorch multiplies by a rounded n / m, and may fall one short of a whole number; elsewhere we agree."""
    step = np.arange(m) * n / m if mode == "nearest" else (np.arange(m) + 0.5) * n / m
    away = np.abs(step - step.round()) > 1e-6
    x = np.arange(n, dtype=float)[None, None]
    ours = cr.interpolate(cr.tensor(x), m, mode=mode).numpy()[0, 0]
    theirs = functional.interpolate(torch.tensor(x), m, mode=mode).numpy()[0, 0]
    np.testing.assert_array_equal(ours[away], theirs[away])
    np.testing.assert_array_equal(ours[~away], step.round()[~away])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 1, 4), {"mode": "bilinear", "size": 2}),
        ((1, 1, 4), {"mode": "cubic", "size": 2}),
        ((1, 1, 4), {}),
        ((1, 1, 4), {"size": 2, "scale_factor": 2.0}),
        ((1, 1, 4), {"size": 2, "align_corners": True}),
        ((1, 1, 4), {"size": 2, "mode": "linear", "antialias": True}),
        ((1, 1, 4), {"size": 0}),
        ((1, 1, 4), {"scale_factor": 0.1}),
        ((1, 1, 0), {"size": 2}),
        ((1, 1, 4), {"size": (2, 3)}),
        ((1, 4), {"size": 2}),
    ],
    ids=str,
)
def test_what_pytorch_refuses_is_refused(shape, options):
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        functional.interpolate(torch.zeros(shape), **options)
    with pytest.raises(ChainruleError):
        cr.interpolate(cr.zeros(shape), **options)


@pytest.mark.parametrize(("axes", "options"), CASES, ids=str)
def test_upsample(axes, options):
    compare(nn.Upsample(7, **options), torch.nn.Upsample(7, **options), drawn(*SHAPES[axes]), rtol=1e-8, atol=1e-10)
    compare(nn.Upsample(None, 2.0, **options), torch.nn.Upsample(None, 2.0, **options), drawn(*SHAPES[axes]))


@pytest.mark.parametrize("shape", [(2, 18, 3, 2), (9, 2, 3), (2, 1, 9, 1, 1)])
def test_pixel_shuffle(shape):
    compare(nn.PixelShuffle(3), torch.nn.PixelShuffle(3), drawn(*shape))


@pytest.mark.parametrize("shape", [(2, 2, 6, 3), (1, 3, 6), (2, 1, 2, 3, 9)])
def test_pixel_unshuffle(shape):
    compare(nn.PixelUnshuffle(3), torch.nn.PixelUnshuffle(3), drawn(*shape))


@pytest.mark.parametrize("shape", [(2, 6, 3), (1, 6, 2, 2), (2, 6, 2, 1, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(agree, shape, groups):
    """PyTorch's has no derivative on this processor, so that only values are compared."""
    x = drawn(*shape)
    np.testing.assert_array_equal(nn.ChannelShuffle(groups)(x), torch.nn.ChannelShuffle(groups)(torch.tensor(x)))


@pytest.mark.parametrize(
    "options", grid(kernel_size=[2, (3, 2)], dilation=[1, (1, 2)], padding=[0, (2, 1)], stride=[1, (2, 3)]), ids=str
)
def test_unfold_and_fold(options):
    x = drawn(2, 3, 5, 6)
    columns = torch.nn.Unfold(**options)(torch.tensor(x)).numpy()
    for lead in (slice(None), 0):
        compare(nn.Unfold(**options), torch.nn.Unfold(**options), x[lead])
        compare(nn.Fold((5, 6), **options), torch.nn.Fold((5, 6), **options), columns[lead])


WIDTHS = {1: [1, (2, 0)], 2: [1, (2, 0, 0, 1)], 3: [1, (0, 1, 2, 0, 0, 1)]}


@pytest.mark.parametrize("kind", ["ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"])
@pytest.mark.parametrize(("axes", "widths"), [(a, w) for a in WIDTHS for w in WIDTHS[a]], ids=str)
def test_borders(kind, axes, widths):
    ours, theirs = (getattr(m, f"{kind}{axes}d")(widths) for m in (nn, torch.nn))
    for shape in (SHAPES[axes], SHAPES[axes][1:]):
        compare(ours, theirs, drawn(*shape))


@pytest.mark.parametrize(("axes", "widths"), [(1, (-1, 2)), (2, (1, -2, -1, 0)), (3, (0, -1, 2, -1, 1, 1)), (2, -1)])
@pytest.mark.parametrize("value", [0.0, 3.5])
def test_constant_borders_and_cropping(axes, widths, value):
    ours, theirs = (getattr(m, f"ConstantPad{axes}d")(widths, value) for m in (nn, torch.nn))
    compare(ours, theirs, drawn(*SHAPES[axes]))


@pytest.mark.parametrize(
    ("kind", "widths", "shape"),
    [
        ("ReflectionPad1d", 5, (1, 1, 5)),
        ("CircularPad1d", 6, (1, 1, 5)),
        ("ReplicationPad1d", 1, (1, 1, 0)),
        ("ZeroPad1d", -3, (1, 1, 5)),
    ],
)
def test_borders_that_pytorch_refuses_are_refused(kind, widths, shape):
    with pytest.raises((RuntimeError, ValueError)):
        getattr(torch.nn, kind)(widths)(torch.zeros(shape))
    with pytest.raises(ChainruleError):
        getattr(nn, kind)(widths)(cr.zeros(shape))
