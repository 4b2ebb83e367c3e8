"""Small networks of every family of layers, as functions of a seed: model, inputs, targets, loss."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn


@dataclass(frozen=True)
class Network:
    """A network and a batch for it. `make()` returns a new, equal one each time."""

    name: str
    make: Callable[[], tuple[nn.Module, Any, Any]]
    loss: Callable[..., Any]


NETWORKS: dict[str, Network] = {}


def network(loss):
    """Put a function (rng) -> (model, x, y) among the networks."""

    def add(function):
        def make():
            rng = np.random.default_rng(7)
            cr.random.manual_seed(11)
            model, x, y = function(rng)
            model.seed(3)
            return model, x, y

        name = function.__name__
        NETWORKS[name] = Network(name, make, loss)
        return function

    return add


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


SMOOTH = (
    nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LogSigmoid,
    functools.partial(nn.GELU, approximate="tanh"),
)  # fmt: skip
KINKED = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.PReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish)


def stack(activations, classes):
    layers = [layer for activation in activations for layer in (nn.Linear(4, 4), activation())]
    return nn.Sequential(*layers, nn.Linear(4, classes))


@network(losses.cross_entropy)
def smooth_activations(rng):
    return stack(SMOOTH, 3), normal(rng, 5, 4), rng.integers(0, 3, 5)


@network(losses.mse)
def kinked_activations(rng):
    return stack(KINKED, 2), normal(rng, 5, 4), normal(rng, 5, 2)


@network(losses.nll)
def softmaxes(rng):
    model = nn.Sequential(nn.Linear(4, 5), nn.Softmax(-1), nn.Linear(5, 3), nn.LogSoftmax(-1))
    return model, normal(rng, 5, 4), rng.integers(0, 3, 5)


@network(losses.cross_entropy)
def images(rng):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), nn.GroupNorm(2, 4), nn.SiLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 3),
    )  # fmt: skip
    return model, normal(rng, 3, 2, 8, 8), rng.integers(0, 3, 3)


@network(losses.l1)
def signals(rng):
    model = nn.Sequential(
        nn.ZeroPad1d(1), nn.Conv1d(2, 4, 3, dilation=2), nn.InstanceNorm1d(4, affine=True), nn.Tanh(),
        nn.MaxPool1d(2), nn.ConvTranspose1d(4, 2, 4, stride=2), nn.AdaptiveAvgPool1d(3),
    )  # fmt: skip
    return model, normal(rng, 3, 2, 12), normal(rng, 3, 2, 3)


@network(losses.binary_cross_entropy_with_logits)
def autoencoder(rng):
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.InstanceNorm2d(3), nn.ELU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.ConvTranspose2d(3, 2, 3, padding=1), nn.GELU(),
        nn.Upsample(scale_factor=1), nn.ReflectionPad2d(1), nn.Conv2d(2, 1, 3),
    )  # fmt: skip
    return model, rng.uniform(size=(2, 1, 6, 6)).astype(np.float32), None


@network(losses.huber)
def residual(rng):
    inner = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    model = nn.Sequential(nn.Residual(inner), nn.BatchNorm1d(6), nn.RMSNorm(6), nn.Residual(nn.Linear(6, 6)))
    return model, normal(rng, 6, 6), normal(rng, 6, 6)


class Reader(nn.Module):
    """Words, a recurrent layer, the last step."""

    def __init__(self, layer, width):
        super().__init__()
        self.words = nn.Embedding(9, 4, padding_idx=0)
        self.layer = layer
        self.head = nn.Linear(width, 3)

    def forward(self, words):
        found, _ = self.layer(self.words(words))
        return self.head(found[:, -1])


@network(losses.cross_entropy)
def simple_recurrence(rng):
    return Reader(nn.RNN(4, 5, batch_first=True), 5), rng.integers(0, 9, (3, 4)), rng.integers(0, 3, 3)


@network(losses.cross_entropy)
def long_memory(rng):
    layer = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True)
    return Reader(layer, 6), rng.integers(0, 9, (3, 4)), rng.integers(0, 3, 3)


@network(losses.multi_margin)
def gated_memory(rng):
    return Reader(nn.GRU(4, 5, batch_first=True), 5), rng.integers(0, 9, (3, 4)), rng.integers(0, 3, 3)


class Looker(nn.Module):
    """Attention over the sequence itself, with a mask."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        found, _ = self.attention(x, x, x)
        return self.head(found)


@network(losses.smooth_l1)
def attention(rng):
    return Looker(), normal(rng, 2, 4, 6), normal(rng, 2, 4, 2)


@network(losses.cross_entropy)
def transformer(rng):
    layer = nn.TransformerEncoderLayer(6, 2, dim_feedforward=8, dropout=0.1, batch_first=True)
    model = nn.Sequential(nn.Embedding(7, 6), layer, nn.Flatten(), nn.Linear(24, 3))
    return model, rng.integers(0, 7, (2, 4)), rng.integers(0, 3, 2)


class TwoInputs(nn.Module):
    """Two inputs by name, two outputs, and functions in the place of layers."""

    def __init__(self):
        super().__init__()
        self.bend = nn.Bilinear(3, 2, 4)
        self.scale = nn.Parameter(cr.tensor(1.5))
        self.unused = nn.Linear(2, 2)

    def forward(self, left, right):
        mixed = cr.tanh(self.bend(left, right)) * self.scale
        return mixed / (1 + cr.sum(mixed**2, axis=-1, keepdims=True)), cr.sqrt(cr.exp(mixed) + 1)


def both(prediction, target):
    first, second = prediction
    return losses.mse(first, target["first"]) + losses.mse(second, target["second"])


@network(both)
def functions(rng):
    x = {"left": normal(rng, 5, 3), "right": normal(rng, 5, 2)}
    return TwoInputs(), x, {"first": normal(rng, 5, 4), "second": normal(rng, 5, 4)}


def chosen(rng, choices, count):
    return [choices[i]() for i in rng.integers(0, len(choices), count)]


@network(losses.mse)
def random_vectors(rng):
    choices = [
        lambda: nn.Linear(4, 4), nn.Tanh, nn.ELU, nn.GELU, lambda: nn.LayerNorm(4), lambda: nn.Dropout(0.2),
        lambda: nn.Residual(nn.Linear(4, 4)), lambda: nn.BatchNorm1d(4), nn.Softplus,
    ]  # fmt: skip
    return (
        nn.Sequential(nn.Linear(3, 4), *chosen(rng, choices, 7), nn.Linear(4, 2)),
        normal(rng, 5, 3),
        normal(rng, 5, 2),
    )


@network(losses.cross_entropy)
def random_images(rng):
    choices = [
        lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), lambda: nn.BatchNorm2d(4), lambda: nn.MaxPool2d(3, 1, 1),
        lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2), lambda: nn.ConvTranspose2d(4, 4, 1), nn.SiLU,
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.Dropout2d(0.2), lambda: nn.AvgPool2d(3, 1, 1), nn.Mish, lambda: nn.Residual(nn.Conv2d(4, 4, 1)),
    ]  # fmt: skip
    layers = chosen(rng, choices, 6)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return model, normal(rng, 3, 1, 6, 6), rng.integers(0, 3, 3)


@network(losses.smooth_l1)
def random_sequences(rng):
    choices = [
        lambda: nn.Linear(4, 4), lambda: nn.LayerNorm(4), nn.GELU, nn.Tanh,
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True), lambda: nn.RMSNorm(4),
    ]  # fmt: skip
    return nn.Sequential(nn.Linear(2, 4), *chosen(rng, choices, 4)), normal(rng, 2, 3, 2), normal(rng, 2, 3, 4)


@pytest.fixture(params=list(NETWORKS.values()), ids=list(NETWORKS))
def small(request):
    """Each of the networks."""
    return request.param


@pytest.fixture(params=["reference", "native"])
def engine(request):
    """Each of the engines."""
    return request.param
