"""What is trained: networks with their data, the same arrays for every library."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    Embedding,
    Layer,
    Linear,
    Recurrent,
    Shape,
    output_shape,
    walk,
)

RANDOM_SEED = 2026
RANDOM_COUNT = 20
QUICK_BATCHES = 4
QUICK_ROWS = 4  # of a batch of the larger networks
FEATURES = 16  # numbers that stand for a token where targets are made up


@dataclass(frozen=True)
class Workload:
    """A network, its loss and optimiser, and how much data there is.

    `shape` is that of a row of the input: real numbers, or tokens below `vocabulary`. `reach_epoch` and `reach_call`:
    how many times the best peer it is meant to be, None where nothing was promised.
    """

    name: str
    layers: tuple[Layer, ...]  # the number of a layer is its name in the weights
    shape: Shape
    batch: int
    batches: int  # in an epoch; the data have batch · batches rows
    title: str = ""
    vocabulary: int = 0
    loss: str = "cross_entropy"  # or mse
    optimizer: str = "adam"  # or sgd: momentum 0.9
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    dtype: str = "float32"
    precision: str = "standard"  # of chainrule
    reach_epoch: float | None = None
    reach_call: float | None = None

    @cached_property
    def output(self) -> Shape:
        """The shape of a row of the result; classes, or numbers, are its last axis."""
        return output_shape(self.layers, self.shape)

    @property
    def stepwise(self) -> bool:
        """Whether there is a class for each step of a row, instead of one for the row."""
        return self.loss == "cross_entropy" and len(self.output) > 1

    @property
    def unsupervised(self) -> bool:
        """Whether the input is the target."""
        return self.loss == "mse" and self.shape == self.output

    def has(self, *kinds: type[Layer]) -> bool:
        """Whether one of the layers is of one of these kinds."""
        return any(isinstance(layer, kinds) for layer in self.layers)

    @property
    def perceptron(self) -> bool:
        """Whether it is a multilayer perceptron."""
        return all(isinstance(layer, (Linear, Activation, BatchNorm, Dropout)) for layer in self.layers)

    @property
    def images(self) -> bool:
        """Whether the layers are those of images."""
        return self.has(Conv, ConvTranspose)

    @property
    def recurrent(self) -> bool:
        """Whether there is a loop over steps."""
        return self.has(Recurrent)

    @property
    def sparse(self) -> bool:
        """Whether few rows of a large table take part in a step."""
        return any(isinstance(x, Embedding) and x.rows > self.batch * self.shape[0] for x in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """What goes into the Linear layers of a multilayer perceptron, and what comes out."""
        return (*self.shape, *(layer.out for layer in self.layers if isinstance(layer, Linear)))

    @property
    def rows(self) -> int:
        """Rows of data."""
        return self.batch * self.batches

    @property
    def megabytes(self) -> float:
        """The size of the data, in units of 10⁶ bytes."""
        of_input = math.prod(self.shape) * (8 if self.vocabulary else np.dtype(self.dtype).itemsize)
        if self.loss == "cross_entropy":
            of_target = 8 * math.prod(self.output[:-1])
        else:
            of_target = 0 if self.unsupervised else math.prod(self.output) * np.dtype(self.dtype).itemsize
        return self.rows * (of_input + of_target) / 1e6

    @property
    def parameters(self) -> int:
        """Numbers to train."""
        return sum(
            layer.norms(shape) + sum(math.prod(of) for of, _ in layer.weights(shape).values())
            for _, layer, shape in walk(self.layers, self.shape)
        )

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products and convolutions of one step.

        Forward, gradient of the weights, and, save for the data, gradient of the input: two for each product. Nothing
        else is counted: no activations, no norms, no loss, no optimiser. Convolutions count as by their definition.
        """
        products = 0
        for path, layer, shape in walk(self.layers, self.shape):
            by_input, inner = layer.products(shape)
            products += (2 if path == "0" else 3) * by_input + 3 * inner
        return 2 * self.batch * products

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights to start from, by PyTorch's names ('0.weight'), save norms: uniform, mostly in ±1/√inputs."""
        rng, result = self._rng("weights"), {}
        for path, layer, shape in walk(self.layers, self.shape):
            for name, (of, bound) in layer.weights(shape).items():
                result[f"{path}.{name}"] = rng.uniform(-bound, bound, of).astype(self.dtype)
        return result

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (rows, *shape), and y: classes (rows,) or (rows, steps) as int64, or numbers. Unsupervised: y is x.

        y follows from x by a random linear rule, so that there is something to learn.
        """
        rng = self._rng("data")
        if self.vocabulary:
            x = rng.integers(0, self.vocabulary, (self.rows, *self.shape))
            features = rng.standard_normal((self.vocabulary, FEATURES), "float32")[x]
        elif self.unsupervised:
            x = rng.random((self.rows, *self.shape), "float32").astype(self.dtype, copy=False)
            return x, x
        else:
            x = features = rng.standard_normal((self.rows, *self.shape), "float32").astype(self.dtype, copy=False)
        features = features.reshape(self.rows, *self.output[:-1], -1)
        rule = rng.standard_normal((features.shape[-1], self.output[-1])).astype(self.dtype)
        scores = features @ rule / np.sqrt(features.shape[-1])
        return x, np.argmax(scores, axis=-1) if self.loss == "cross_entropy" else np.tanh(scores).astype(self.dtype)

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.name} {purpose}".encode()))

    @property
    def deterministic(self) -> "Workload":
        """The same without what differs between libraries that are both right.

        That is dropout, whose random numbers each draws in its own way, and in deep networks a part of Adam's first
        step: the sign of a gradient that is no more than a rounding error. So they learn at a tenth of the rate.
        """
        layers = tuple(Dropout(0) if isinstance(x, Dropout) else x for x in self.layers)
        return replace(self, layers=layers, learning_rate=self.learning_rate * (1 if self.perceptron else 0.1))

    def describe(self) -> str:
        """The network in a line: '30-100-2, batch 200, ...'."""
        regular = [
            self.dtype if self.dtype != "float32" else "",
            {"mse": "MSE", "cross_entropy": "cross-entropy"}[self.loss],
            "SGD with momentum" if self.optimizer == "sgd" else "",
            "weight decay" if self.weight_decay else "",
            "norm clipping" if self.clip_norm else "",
        ]
        return ", ".join([self.title, f"batch {self.batch}", *filter(None, regular)])


def perceptron(
    name: str, widths: Sequence[int], batch: int, batches: int, *, activation: str = "relu", batch_norm: bool = False,
    dropout: float = 0.0, last_activation: str = "", **options: Any,
) -> Workload:  # fmt: skip
    """A multilayer perceptron."""
    layers: list[Layer] = []
    for out in widths[1:-1]:
        layers += [Linear(out), *([BatchNorm()] if batch_norm else []), Activation(activation)]
        layers += [Dropout(dropout)] if dropout else []
    layers += [Linear(widths[-1]), *([Activation(last_activation)] if last_activation else [])]
    parts = [
        "-".join(map(str, widths)), activation if activation != "relu" else "", "batch norm" if batch_norm else "",
        f"dropout {dropout}" if dropout else "",
    ]  # fmt: skip
    title = ", ".join(filter(None, parts))
    return Workload(name, tuple(layers), (widths[0],), batch, batches, title, **options)


def _random(i: int) -> Workload:
    """Network i of a fixed, seeded sequence: 1 to 4 hidden layers."""
    rng = np.random.default_rng([RANDOM_SEED, i])
    widths = rng.integers(8, 513, 1 + int(rng.integers(1, 5)))  # the input, then the hidden layers
    classes, batch = int(rng.integers(2, 21)), int(rng.integers(16, 257))
    return perceptron(f"random-{i + 1:02}", (*map(int, widths), classes), batch, 64, reach_epoch=1.2)


NAMED = (
    perceptron("mlp-tiny", (4, 16, 16, 3), 16, 1024, reach_epoch=100, reach_call=20),
    perceptron("mlp-tab", (30, 100, 2), 200, 512, reach_epoch=5, reach_call=4.5),
    perceptron("mnist-mlp", (784, 128, 10), 32, 512, reach_epoch=5.5, reach_call=5),
    perceptron("mnist-mlp-b128", (784, 256, 128, 10), 128, 128, reach_epoch=2, reach_call=1.9),
    perceptron(
        "ae", (784, 256, 64, 256, 784), 128, 128, loss="mse", activation="sigmoid", last_activation="sigmoid",
        reach_epoch=1.75, reach_call=1.7,
    ),
    perceptron("mlp-big", (1024, 2048, 2048, 1000), 256, 8, reach_epoch=1.35, reach_call=1.35),
    perceptron(
        "mlp-tab-all", (30, 100, 2), 200, 512, activation="tanh", batch_norm=True, dropout=0.1, optimizer="sgd",
        learning_rate=0.01, weight_decay=1e-4, clip_norm=1.0, reach_epoch=4, reach_call=3,
    ),
    perceptron("float64", (50, 64, 64, 1), 64, 256, loss="mse", dtype="float64", reach_epoch=6, reach_call=4),
)  # fmt: skip
NETWORKS = (
    Workload("lenet", networks.lenet(), (1, 28, 28), 64, 16, "two convolutions, two Linears", reach_call=4),
    Workload("cnn32", networks.cnn32(), (3, 32, 32), 64, 8, "five convolutions with batch norm", reach_call=1.8),
    Workload(
        "cnn32-fast", networks.cnn32(), (3, 32, 32), 64, 8, 'the same with precision="fast"', precision="fast",
        reach_call=2.5,
    ),
    Workload("resnet", networks.resnet20(), (3, 32, 32), 64, 8, "ResNet-20", reach_call=1.5),
    Workload(
        "lstm", networks.characters("lstm"), (64,), 32, 16, "LSTM 128, 64 characters of 96", vocabulary=96,
        reach_call=1.8,
    ),
    Workload(
        "gru", networks.characters("gru"), (64,), 32, 16, "GRU 128, 64 characters of 96", vocabulary=96, reach_call=1.3
    ),
    Workload(
        "bilstm", networks.tagger(), (64, 64), 32, 8, "two bidirectional LSTMs 128, 64 steps of 64 numbers",
        reach_call=1.3,
    ),
    Workload("gpt", networks.gpt(), (64,), 12, 16, "GPT: 4 layers, width 128, 64 tokens of 65", vocabulary=65,
             reach_call=1.4),
    Workload("conv-ae", networks.autoencoder(), (1, 28, 28), 128, 8, "convolutional autoencoder", loss="mse",
             reach_call=2),
    Workload("text-cnn", networks.text_cnn(), (60,), 50, 16, "text CNN, 60 words of 16,000", vocabulary=16_000,
             reach_call=2),
    Workload("separable", networks.separable(), (3, 32, 32), 64, 8, "depthwise-separable convolutions",
             reach_call=1.5),
)  # fmt: skip
RANDOM = tuple(_random(i) for i in range(RANDOM_COUNT))
RANDOM_MEAN = 4.0  # the geometric mean over all random networks to reach
GROUPS = {"named": NAMED, "random": RANDOM, "networks": NETWORKS}
WORKLOADS = {workload.name: workload for group in GROUPS.values() for workload in group}
OF_COMMAND = {
    "mlp": ("named", "random"),
    "networks": ("networks",),
    "startup": tuple(GROUPS),
    "compile": tuple(GROUPS),
    "recording": ("named", "networks"),
    "kernels": tuple(GROUPS),
}


def few(name: str) -> Workload:
    """A workload by name with few batches of data, but of the same size."""
    workload = WORKLOADS[name]
    return replace(workload, batches=min(workload.batches, QUICK_BATCHES))


def find(name: str, quick: bool = False) -> Workload:
    """A workload by name; with `quick` only a few batches of data, and small ones where the network is large."""
    workload = few(name) if quick else WORKLOADS[name]
    return replace(workload, batch=QUICK_ROWS) if quick and not workload.perceptron else workload


def choose(names: str | None, groups: Sequence[str]) -> list[str]:
    """The names in a comma-separated text, `groups` (of GROUPS) being what is there; all of it where there is no text.

    Raises ValueError for a name that is not there.
    """
    members = {group: [workload.name for workload in GROUPS[group]] for group in groups}
    known = [name for group in members.values() for name in group]
    result: list[str] = []
    for name in names.split(",") if names else groups:
        if name not in known and name not in groups:
            raise ValueError(f"There is no workload {name!r} here. There are: {', '.join([*groups, *known])}.")
        result += members.get(name, [name])
    return list(dict.fromkeys(result))
