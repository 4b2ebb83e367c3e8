"""Norms of images and volumes, and dropout of channels, against PyTorch's in float64, with PyTorch's weights."""

import math

import numpy as np
import pytest
import torch
from tests.oracle.test_nn import compare, drawn, grid, pair

import chainrule as cr
from chainrule import nn

SHAPES = {2: (4, 3, 2, 5), 3: (3, 3, 2, 4, 2)}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    "options",
    grid(eps=[1e-5, 0.1], momentum=[0.1, None], affine=[True, False], track_running_stats=[True, False]),
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(axes, options, training):
    ours, theirs = pair(f"BatchNorm{axes}d", 3, **options)
    ours.train(training)
    theirs.train(training)
    for seed in range(3):
        theirs.zero_grad()
        compare(ours, theirs, drawn(*SHAPES[axes], seed=seed) * 2 + 1)


@pytest.mark.parametrize("axes", [2, 3])
def test_batch_norm_of_one_pixel(axes):
    for module, tensor in ((nn, cr.tensor), (torch.nn, torch.tensor)):
        with pytest.raises(ValueError, match="more than"):
            getattr(module, f"BatchNorm{axes}d")(3)(tensor(np.ones((1, 3, *(1,) * axes), "float32")))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    "options", grid(momentum=[0.1, 0.7], affine=[True, False], track_running_stats=[True, False]), ids=str
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lead", [slice(None), 0])
def test_instance_norm(axes, options, training, lead):
    ours, theirs = pair(f"InstanceNorm{axes}d", 3, **options)
    ours.train(training)
    theirs.train(training)
    for seed in range(3):
        theirs.zero_grad()
        compare(ours, theirs, (drawn(*SHAPES[axes], seed=seed) * 2 + 1)[lead])


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("groups", [1, 3])
def test_group_norm(axes, groups):
    compare(*pair("GroupNorm", groups, 3), drawn(*SHAPES[axes]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 3, 4), (2, 5, 2, 3, 2)])
@pytest.mark.parametrize("options", [{"size": n} for n in (1, 2, 3, 4, 9)], ids=str)
@pytest.mark.parametrize("more", [{}, {"alpha": 0.5, "beta": 0.3, "k": 2.0}], ids=str)
def test_local_response_norm(shape, options, more):
    compare(*pair("LocalResponseNorm", **options, **more), drawn(*shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("Dropout1d", (200, 50, 3)),
        ("Dropout1d", (10000, 3)),
        ("Dropout2d", (200, 50, 3, 2)),
        ("Dropout3d", (200, 50, 3, 2, 2)),
        ("Dropout3d", (10000, 3, 2, 1)),
        ("AlphaDropout", (10000,)),
        ("FeatureAlphaDropout", (200, 50, 3, 2)),
    ],
)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_dropout(layer, shape, p, training):
    """The masks differ. Where all is 1, the values that come out are the same few, in the same shares, in one block."""
    ours, theirs = (getattr(m, layer)(p).train(training) for m in (nn, torch.nn))
    a, b = ours(cr.ones(shape, dtype="float64")).numpy(), theirs(torch.ones(shape, dtype=torch.float64)).numpy()
    blocks = 10_000
    per_block = [x.reshape(blocks, -1) for x in (a, b)]
    for x in per_block:
        assert (x == x[:, :1]).all()  # a channel is dropped as a whole
    np.testing.assert_allclose(np.unique(a.round(9)), np.unique(b.round(9)), atol=1e-9)
    low = a.min()
    share = [(x[:, 0] == low).mean() for x in per_block]
    assert abs(share[0] - share[1]) < 6 * math.sqrt(2 * p * (1 - p) / blocks) + 1e-12


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p):
    x = cr.tensor(drawn(100_000))
    y = nn.AlphaDropout(p, generator=cr.random.Generator(0))(x).numpy()
    assert abs(y.mean()) < 0.02
    assert abs(y.std() - 1) < 0.02
