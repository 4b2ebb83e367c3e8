"""What is trained: networks with their data, the same arrays for every library."""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

RANDOM_SEED = 2026
RANDOM_COUNT = 20
QUICK_BATCHES = 4

Layer = tuple[str, float, float]  # kind, and up to two numbers: (linear, in, out), (batch_norm, n, 0), (dropout, p, 0)


@dataclass(frozen=True)
class Workload:
    """A network, its loss and optimiser, and how much data there is.

    `reach_epoch` and `reach_call`: how many times the best peer it is meant to be, None where nothing was promised.
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    batches: int  # in an epoch; the data have batch · batches rows
    loss: str = "cross_entropy"  # or mse
    activation: str = "relu"  # or tanh, sigmoid
    last_activation: str = ""
    optimizer: str = "adam"  # or sgd: momentum 0.9
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: str = "float32"
    reach_epoch: float | None = None
    reach_call: float | None = None

    @property
    def unsupervised(self) -> bool:
        """Whether the input is the target."""
        return self.loss == "mse" and self.widths[0] == self.widths[-1]

    @property
    def rows(self) -> int:
        """Rows of data."""
        return self.batch * self.batches

    @property
    def megabytes(self) -> float:
        """The size of the data, in units of 10⁶ bytes."""
        numbers = self.widths[0] + (0 if self.unsupervised or self.loss == "cross_entropy" else self.widths[-1])
        labels = 8 if self.loss == "cross_entropy" else 0
        return self.rows * (numbers * np.dtype(self.dtype).itemsize + labels) / 1e6

    @property
    def parameters(self) -> int:
        """Numbers to train."""
        norms = sum(self.widths[1:-1]) * 2 if self.batch_norm else 0
        return norms + sum((a + 1) * b for a, b in zip(self.widths, self.widths[1:], strict=False))

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products of one step.

        Forward, gradient of the weights, and, save for the first layer, gradient of the input: 2 · batch · in · out
        each. Nothing else is counted: no activations, no loss, no optimiser.
        """
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return sum(2 * self.batch * a * b * (3 if i else 2) for i, (a, b) in enumerate(pairs))

    @property
    def layers(self) -> list[Layer]:
        """The network as a list; the number of a layer is its name in the weights."""
        result: list[Layer] = []
        last = len(self.widths) - 2
        for i, (a, b) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            result.append(("linear", a, b))
            if i == last:
                break
            if self.batch_norm:
                result.append(("batch_norm", b, 0))
            result.append((self.activation, 0, 0))
            if self.dropout:
                result.append(("dropout", self.dropout, 0))
        return [*result, (self.last_activation, 0, 0)] if self.last_activation else result

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights to start from: '0.weight' (out, in), '0.bias' (out,), ..., uniform in ±1/√in."""
        rng, result = self._rng("weights"), {}
        for i, (kind, a, b) in enumerate(self.layers):
            if kind == "linear":
                bound = 1 / np.sqrt(a)
                result[f"{i}.weight"] = rng.uniform(-bound, bound, (int(b), int(a))).astype(self.dtype)
                result[f"{i}.bias"] = rng.uniform(-bound, bound, int(b)).astype(self.dtype)
        return result

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (rows, in), and y: classes (rows,) as int64, or numbers (rows, out). Unsupervised: y is x.

        y follows from x by a random linear rule, so that there is something to learn.
        """
        rng = self._rng("data")
        inputs, outputs = self.widths[0], self.widths[-1]
        x = rng.random((self.rows, inputs), "float32") if self.unsupervised else rng.standard_normal(
            (self.rows, inputs), "float32"
        )  # fmt: skip
        x = x.astype(self.dtype, copy=False)
        if self.unsupervised:
            return x, x
        scores = x @ rng.standard_normal((inputs, outputs)).astype(self.dtype) / np.sqrt(inputs)
        return x, np.argmax(scores, axis=1) if self.loss == "cross_entropy" else np.tanh(scores).astype(self.dtype)

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.name} {purpose}".encode()))

    @property
    def deterministic(self) -> "Workload":
        """The same without dropout, whose random numbers every library draws in its own way."""
        return replace(self, dropout=0.0)

    def describe(self) -> str:
        """The network in a line: '30-100-2, batch 200, ...'."""
        regular = [
            self.dtype if self.dtype != "float32" else "",
            self.activation if self.activation != "relu" else "",
            "batch norm" if self.batch_norm else "",
            f"dropout {self.dropout}" if self.dropout else "",
            {"mse": "MSE", "cross_entropy": "cross-entropy"}[self.loss],
            "SGD with momentum" if self.optimizer == "sgd" else "",
            "weight decay" if self.weight_decay else "",
            "norm clipping" if self.clip_norm else "",
        ]
        return ", ".join(["-".join(map(str, self.widths)), f"batch {self.batch}", *filter(None, regular)])


def _random(i: int) -> Workload:
    """Network i of a fixed, seeded sequence: 1 to 4 hidden layers."""
    rng = np.random.default_rng([RANDOM_SEED, i])
    widths = rng.integers(8, 513, 1 + int(rng.integers(1, 5)))  # the input, then the hidden layers
    classes, batch = int(rng.integers(2, 21)), int(rng.integers(16, 257))
    return Workload(f"random-{i + 1:02}", (*map(int, widths), classes), batch, 64, reach_epoch=1.2)


NAMED = (
    Workload("mlp-tiny", (4, 16, 16, 3), 16, 1024, reach_epoch=100, reach_call=20),
    Workload("mlp-tab", (30, 100, 2), 200, 512, reach_epoch=5, reach_call=4.5),
    Workload("mnist-mlp", (784, 128, 10), 32, 512, reach_epoch=5.5, reach_call=5),
    Workload("mnist-mlp-b128", (784, 256, 128, 10), 128, 128, reach_epoch=2, reach_call=1.9),
    Workload(
        "ae", (784, 256, 64, 256, 784), 128, 128, loss="mse", activation="sigmoid", last_activation="sigmoid",
        reach_epoch=1.75, reach_call=1.7,
    ),
    Workload("mlp-big", (1024, 2048, 2048, 1000), 256, 8, reach_epoch=1.35, reach_call=1.35),
    Workload(
        "mlp-tab-all", (30, 100, 2), 200, 512, activation="tanh", batch_norm=True, dropout=0.1, optimizer="sgd",
        learning_rate=0.01, weight_decay=1e-4, clip_norm=1.0, reach_epoch=4, reach_call=3,
    ),
    Workload("float64", (50, 64, 64, 1), 64, 256, loss="mse", dtype="float64", reach_epoch=6, reach_call=4),
)  # fmt: skip
RANDOM = tuple(_random(i) for i in range(RANDOM_COUNT))
RANDOM_MEAN = 4.0  # the geometric mean over all random networks to reach
WORKLOADS = {workload.name: workload for workload in (*NAMED, *RANDOM)}


def find(name: str, quick: bool = False) -> Workload:
    """A workload by name; with `quick` only a few batches of data."""
    workload = WORKLOADS[name]
    return replace(workload, batches=min(workload.batches, QUICK_BATCHES)) if quick else workload


def choose(names: str | None) -> list[str]:
    """The names in a comma-separated text, 'named' and 'random' being groups; all where there is none.

    Raises ValueError for a name that does not exist.
    """
    groups = {"named": [w.name for w in NAMED], "random": [w.name for w in RANDOM]}
    result: list[str] = []
    for name in (names or "named,random").split(","):
        if name not in WORKLOADS and name not in groups:
            raise ValueError(f"There is no workload {name!r}. There are: named, random, {', '.join(WORKLOADS)}.")
        result += groups.get(name, [name])
    return list(dict.fromkeys(result))
