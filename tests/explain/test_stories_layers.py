"""Stories of convolutions, pooling and normalisation: each term against NumPy in float64."""

import functools
import itertools

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.explanation import explain

close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-11)


@pytest.fixture(autouse=True)
def _seeded():
    """Equal weights in every run."""
    cr.random.manual_seed(11)


class Summed(nn.Module):
    """A layer whose outputs are weighted and added up for each row: every output has an error of its own."""

    def __init__(self, layer, activation=None):
        self.layer, self.activation = layer, activation

    def forward(self, x):
        y = self.layer(x)
        y = y if self.activation is None else self.activation(y)
        return cr.reshape(y * cr.cos(cr.reshape(cr.arange(float(y.size), dtype="float64"), y.shape)), (y.shape[0], -1))


def told(layer, x, activation=None, train=True, optimizer=None):
    model = Summed(layer, activation)
    model.to("float64")
    model.train(train)
    explanation = explain(model, x, None, loss=lambda y, _: cr.sum(y * y) / 7, optimizer=optimizer, engine="reference")
    return next(one for one in explanation.layers if one.path == "layer"), explanation


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def convolved(x, w, b, stride, padding, dilation, groups):
    """The definition, place by place: rows, out channels, y, x; and the patch of each."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    out, inside, kh, kw = w.shape
    reach = [(k - 1) * d + 1 for k, d in zip((kh, kw), dilation, strict=True)]
    size = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    patches = np.zeros((x.shape[0], out, *size, inside, kh, kw))
    for o, i, j in itertools.product(range(out), range(size[0]), range(size[1])):
        group = o // (out // groups)
        rows = i * stride[0] + np.arange(kh) * dilation[0]
        columns = j * stride[1] + np.arange(kw) * dilation[1]
        channels = np.arange(group * inside, (group + 1) * inside)
        patches[:, o, i, j] = x[:, channels][:, :, rows][:, :, :, columns]
    return np.einsum("roijckl,ockl->roij", patches, w) + b[:, None, None], patches


SETTINGS = {
    "plain": {},
    "stride and padding": {"stride": (2, 1), "padding": (1, 2)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise, dilated": {"groups": 4, "dilation": (1, 2), "padding": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_convolution(name):
    settings, rate = SETTINGS[name], 0.5
    x = random(2, 4, 6, 5)
    one, explanation = told(nn.Conv2d(4, 4, 3, **settings), x, nn.Tanh(), optimizer=optim.SGD(lr=rate))
    w, b = (explanation.parameters[f"layer.{n}"].value for n in ("weight", "bias"))
    pairs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    pairs |= {k: (v, v) if isinstance(v, int) else v for k, v in settings.items() if k != "groups"}
    z, patches = convolved(x, w, b, **pairs, groups=settings.get("groups", 1))
    story = one.story
    assert story.kind == "convolution" and story.terms[2].axes == ("row", "channel", "y", "x")
    close(story["weighted sum"], z)
    close(story["slope"], 1 - np.tanh(z) ** 2)
    close(story["error"], story["error from above"] * story["slope"])
    by_hand = np.cos(np.arange(float(z.size)).reshape(z.shape))
    close(story["error from above"], 2 * np.tanh(z) * by_hand**2 / 7)
    delta = story["error"]
    close(story["weight gradient"], np.einsum("roij,roijckl->ockl", delta, patches))
    close(story["bias gradient"], delta.sum(axis=(0, 2, 3)))
    close(story["update"], -rate * story["weight gradient"])
    total = np.zeros_like(w)
    for index in np.ndindex(*z.shape):
        if index[0] == 1 or index[2] == index[3] == 1:  # some of them
            unit = one.unit(index)
            close(unit["patch"], patches[index])
            close(unit["kernel"], w[index[1]])
            close(unit["products"].sum() + unit["bias"], unit["weighted sum"])
            close(unit["weight gradient"], delta[index] * patches[index])
            total[index[1]] += unit["weight gradient"] * (index[0] == 1)
    close(total, np.einsum("oij,oijckl->ockl", delta[1], patches[1]))


def test_convolution_over_one_axis_and_of_a_single_example():
    x = random(2, 3, 7)
    one, explanation = told(nn.Conv1d(3, 2, 3, stride=2), x)
    w, b = (explanation.parameters[f"layer.{n}"].value for n in ("weight", "bias"))
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=2)[:, :, ::2]
    close(one.story["weighted sum"], np.einsum("rcik,ock->roi", windows, w) + b[:, None])
    close(one.story["weight gradient"], np.einsum("roi,rcik->ock", one.story["error"], windows))


def test_transposed_convolution():
    """Each input is handed to the places that its kernel reaches: every unit is the sum of what reaches it."""
    x = random(2, 3, 4)
    one, explanation = told(nn.ConvTranspose1d(3, 2, 3, stride=2, padding=1), x)
    w, b = (explanation.parameters[f"layer.{n}"].value for n in ("weight", "bias"))
    whole = np.zeros((2, 2, 9))
    for i, k in itertools.product(range(4), range(3)):
        whole[:, :, i * 2 + k] += x[:, :, i] @ w[:, :, k]
    close(one.story["weighted sum"], whole[:, :, 1:-1] + b[:, None])
    padded = np.pad(one.story["error"], ((0, 0), (0, 0), (1, 1)))
    places = np.stack([padded[:, :, np.arange(4) * 2 + k] for k in range(3)])  # kernel, row, out, place
    close(one.story["weight gradient"], np.einsum("rci,kroi->cok", x, places))
    unit = one.unit((1, 0, 3))
    close(unit["products"].sum() + unit["bias"], unit["weighted sum"])


def pooled(pool):
    """The story of a pool with a layer in front of it, so that its input has an error."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), pool, nn.Flatten(), nn.Linear(12, 2))
    model.to("float64")
    explanation = explain(model, random(2, 1, 6, 4), random(2, 2), loss=losses.mse, engine="reference")
    return next(one.story for one in explanation.layers if one.path == "1")


def spread(blocks):
    return np.repeat(np.repeat(blocks, 2, axis=2), 2, axis=3)


def test_max_pooling_hands_the_error_to_the_winner():
    story = pooled(nn.MaxPool2d(2))
    blocks = story["input"].reshape(2, 2, 3, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 2, 3, 2, 4)
    assert (story["winner"] == blocks.argmax(axis=-1)).all()
    close(story["output"], blocks.max(axis=-1))
    won = spread(story["output"]) == story["input"]
    close(story["error"], won * spread(story["error from above"]))


def test_average_pooling_hands_the_error_to_all_in_equal_shares():
    story = pooled(nn.AvgPool2d(2))
    assert "winner" not in story
    close(story["error"], spread(story["error from above"]) / 4)


# -- normalisation

NORMS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (6, 4), (0,), None),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), (2, 4, 3, 5), (0, 2, 3), None),
    "LayerNorm": (lambda: nn.LayerNorm(4), (6, 4), (1,), None),
    "LayerNorm over two axes": (lambda: nn.LayerNorm((3, 4)), (5, 3, 4), (1, 2), None),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (3, 4, 2, 3), (2,), (3, 2, 12)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 5), (2, 3), None),
    "InstanceNorm1d without weights": (lambda: nn.InstanceNorm1d(4), (2, 4, 5), (2,), None),
}


class Normed(nn.Module):
    """A product in front of a norm, so that its input has an error."""

    def __init__(self, norm):
        self.scale, self.norm = nn.Parameter(cr.tensor(1.5)), norm

    def forward(self, x):
        y = self.norm(x * self.scale)
        return y * cr.cos(cr.reshape(cr.arange(float(y.size), dtype="float64"), y.shape))


def normed(norm, x, train=True):
    model = Normed(norm)
    model.to("float64")
    moved = {name: cr.tensor(p.numpy() + np.random.default_rng(1).normal(size=p.shape)) for name, p in
             model.named_parameters() if name != "scale"}  # fmt: skip
    model.assign(moved)
    model.train(train)
    explanation = explain(model, x, None, loss=lambda y, _: cr.sum(y * y), engine="reference")
    return next(one for one in explanation.layers if one.path == "norm").story, explanation


@pytest.mark.parametrize("name", NORMS)
def test_normalisation_takes_mean_and_projection_out_of_the_error(name):
    make, shape, axes, inner = NORMS[name]
    x = random(*shape)
    story, explanation = normed(make(), x)
    given = (1.5 * x).reshape(inner or shape)
    mean, variance = given.mean(axes, keepdims=True), given.var(axes, keepdims=True)
    normalised = (given - mean) / np.sqrt(variance + 1e-5)
    assert story.kind == "normalisation"
    close(story["mean"], mean.squeeze(axes))
    close(story["variance"], variance.squeeze(axes))
    close(story["normalised"], normalised.reshape(shape))
    weights = [p.value for n, p in explanation.parameters.items() if n.startswith("norm.")]
    spread = [v if v.ndim > 1 or name == "LayerNorm" else v.reshape(-1, *(1,) * (len(shape) - 2)) for v in weights]
    scale, shift = spread if spread else (1.0, 0.0)
    close(story["output"], story["normalised"] * scale + shift)
    above = story["error from above"]
    close(above, 2 * story["output"] * np.cos(np.arange(float(x.size)).reshape(shape)) ** 2)
    error = (above * scale).reshape(inner or shape)
    close(story["error of normalised"], error.reshape(shape))
    close(story["removed: mean"], error.mean(axes))
    projection = normalised * (error * normalised).mean(axes, keepdims=True)
    close(story["removed: projection"], projection.reshape(shape))
    left = (error - error.mean(axes, keepdims=True) - projection) / np.sqrt(variance + 1e-5)
    close(story["error"], left.reshape(shape))
    if weights:
        others = (0,) if name.startswith("LayerNorm") else tuple([k for k in range(len(shape)) if k != 1])
        close(story["scale gradient"], (above * story["normalised"]).sum(others))
        close(story["shift gradient"], above.sum(others))


def test_batch_norm_in_evaluation_takes_nothing_out_of_the_error():
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = cr.tensor([0.5, -1.0, 2.0]), cr.tensor([1.0, 4.0, 0.25])
    story, explanation = normed(norm, random(2, 3, 4, 4), train=False)
    root = np.sqrt(np.array([1.0, 4.0, 0.25]) + 1e-5)[:, None, None]
    scale = explanation.parameters["norm.weight"].value[:, None, None]
    close(story["mean"], [0.5, -1.0, 2.0])
    close(story["normalised"], (story["input"] - np.array([0.5, -1.0, 2.0])[:, None, None]) / root)
    close(story["error"], story["error from above"] * scale / root)
    assert "removed: mean" not in story


def test_rms_norm_takes_the_projection_out_of_the_error():
    story, explanation = normed(nn.RMSNorm(4, eps=1e-6), random(5, 4))
    x, scale = story["input"], explanation.parameters["norm.weight"].value
    root = np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
    error = story["error from above"] * scale
    close(story["normalised"], x / root)
    close(story["removed: projection"], x / root * (error * x / root).mean(1, keepdims=True))
    close(story["error"], (error - story["removed: projection"]) / root)
