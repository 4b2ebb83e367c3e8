"""A small network that learns points in the plane, step by step, forwards and backwards.

Backwards is exact. A step is a pure function of the state before it and of its rows, and these follow from seed and
step; so any earlier state is made again, bit for bit, from a kept one before it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule.losses as losses
from chainrule import nn, optim
from chainrule.compile import compile
from chainrule.core.autodiff import value_and_grad
from chainrule.core.tensor import Tensor, full, tensor
from chainrule.dtypes import float32
from chainrule.random import Generator
from chainrule.train.batches import row_order
from chainrule.train.state import Snapshot
from chainrule.ui.playground_data import Points, features

ENGINE = "reference"
"""For a network of 2-8-8-8-1 with Adam and 10 rows the first step takes 0.05 s here and each further one 1 ms; machine
code takes 0.35 s until the first step, and 0.01 ms for each. Every change of the network is a first step, and people
watch single steps or some dozens: what counts is that a click is answered at once."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}
OPTIMIZERS = ("sgd", "momentum", "adam")
RECENT = 64  # the latest states are all kept, so that going backwards step by step need not compute each from afar
MILESTONES = 64  # of the older ones at most so many, evenly spaced


@dataclass(frozen=True)
class Settings:
    """What a network is made of and how it learns. `regularisation` is the L2 penalty on weights, not on biases."""

    features: list[str]
    layers: list[int]
    activation: str
    optimizer: str
    learning_rate: float
    regularisation: float
    batch: int
    seed: int


@dataclass(frozen=True)
class Observed:
    """What a step computed on its way, at the weights before it. Lists go layer by layer; the last is the output.

    updates  what the optimiser added to each parameter
    sums     weighted sums plus bias, (rows, units)
    errors   their gradients ∂loss/∂sum, (rows, units)
    """

    rows: NDArray[np.int64]
    loss: float
    gradients: dict[str, NDArray[np.float32]]
    updates: dict[str, NDArray[np.float32]]
    sums: list[NDArray[np.float32]]
    errors: list[NDArray[np.float32]]


class Playground:
    """One network and its points. Threads may share it: whoever holds `lock` has it to themselves."""

    def __init__(self, points: Points, settings: Settings) -> None:
        self.lock = threading.Lock()
        self.points, self.settings = points, settings
        self.inputs, self.targets = self._data(points.train, points.train_targets)
        self.test_inputs, self.test_targets = self._data(points.test, points.test_targets)
        self.model = _network(settings)
        self.optimizer = _optimizer(settings).init(self.model)
        self.compare = losses.mse if points.task == "regression" else losses.binary_cross_entropy_with_logits
        self.training = compile(self._train, engine=ENGINE)
        self.step = 0
        self.kept = Kept()
        self.kept.put(0, self._snapshot())
        self.observed = self._observe_first()

    @property
    def activations(self) -> list[nn.Module | None]:
        """The activation after each layer of neurons; None after the output."""
        return [layer for layer in self.model if not isinstance(layer, nn.Linear)] + [None]

    @property
    def linear(self) -> list[nn.Linear]:
        """The layers of neurons, the output last."""
        return [layer for layer in self.model if isinstance(layer, nn.Linear)]

    @property
    def batches(self) -> int:
        """Steps in an epoch."""
        return -(-len(self.inputs) // self.settings.batch)

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows of a step, which is counted from 1."""
        epoch, place = divmod(step - 1, self.batches)
        order = row_order(self.settings.seed, epoch + 1, len(self.inputs))
        return order[place * self.settings.batch : (place + 1) * self.settings.batch]

    def rows_of(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a step, which is counted from 1."""
        rows = self.rows(step)
        return tensor(np.asarray(self.inputs)[rows]), tensor(np.asarray(self.targets)[rows])

    def go(self, step: int) -> None:
        """Be where `step` steps were made, whether that lies ahead or behind; `observed` is what the last one saw."""
        if step == self.step:
            return
        if step == 0:
            self._restore(0)
            self.observed = self._observe_first()
            return
        if step < self.step:  # from before the step itself, since it is to be seen
            self._restore(self.kept.nearest(step - 1))
        while self.step < step:
            self._forward()

    def before(self) -> tuple[nn.Module, optim.Optimizer]:
        """Another network and optimiser as they were before the step just made (at 0: as they are)."""
        model = _network(self.settings)
        optimizer = _optimizer(self.settings).init(model)
        there = self.step
        self.go(max(there - 1, 0))
        model.load_state_dict(self.model.state_dict())
        optimizer.load_state_dict(self.optimizer.state_dict())
        self.go(there)
        return model, optimizer

    def loss(self, inputs: Tensor, targets: Tensor) -> float:
        """The loss of the network as it is, without a penalty."""
        return float(self.compare(self.model(inputs), targets))

    def _forward(self) -> None:
        self.observed = self._step(self.step + 1)
        self.step += 1
        self.kept.put(self.step, self._snapshot())

    def _step(self, number: int) -> Observed:
        rows = self.rows(number)
        x, y = self.rows_of(number)
        before = self._parameters()
        loss, gradients, sums, errors = self.training(self.model, self.optimizer, x, y)
        return Observed(
            rows,
            float(loss),
            {name: np.asarray(gradient) for name, gradient in gradients.items()},
            {name: after - before[name] for name, after in self._parameters().items()},
            [np.asarray(z) for z in sums],
            [np.asarray(error) for error in errors],
        )

    def _parameters(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.array(parameter) for name, parameter in self.model.state_dict().items()}

    def _observe_first(self) -> Observed:
        """Before the first step there is none to look at: what that one will see is shown."""
        observed = self._step(1)
        self._restore(0)
        return observed

    def _train(self, model: Any, optimizer: Any, x: Tensor, y: Tensor) -> Any:
        """One step. What is added to the sums is zero: its gradients are the errors of the units."""

        def objective(model: Any, nothing: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            sums: list[Tensor] = []
            value = x
            for layer in model:
                value = layer(value)
                if isinstance(layer, nn.Linear):
                    value = value + nothing[len(sums)]
                    sums.append(value)
            return self.compare(value, y), sums

        nothing = [
            full((x.shape[0], layer.out_features), 0, float32) for layer in model if isinstance(layer, nn.Linear)
        ]
        differentiated = value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (loss, sums), (gradients, errors) = differentiated(model, nothing)
        optimizer.update(model, gradients)
        return loss, gradients, sums, errors

    def _data(self, points: Any, targets: Any) -> tuple[Tensor, Tensor]:
        return tensor(features(self.settings.features, points)), tensor(targets[:, None].astype(np.float32))

    def _snapshot(self) -> Snapshot:
        return Snapshot(Snapshot.objects_of(self.model, self.optimizer))

    def _restore(self, step: int) -> None:
        self.kept.states[step].restore()
        self.step = step


class Kept:
    """States by step: all recent ones, and of the older ones some, ever farther apart as they become many.

    >>> from chainrule.ui.playground import Kept
    >>> kept = Kept()
    >>> for step in range(1000):
    ...     kept.put(step, None)
    >>> len(kept.states) <= 130, kept.nearest(990), kept.nearest(500) > 480
    (True, 990, True)
    """

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}
        self.spacing = 1

    def put(self, step: int, state: Any) -> None:
        """Keep a state."""
        self.states[step] = state
        old = [k for k in self.states if abs(k - step) >= RECENT]
        while sum(k % self.spacing == 0 for k in old) > MILESTONES:
            self.spacing *= 2
        for k in old:
            if k % self.spacing:
                del self.states[k]

    def nearest(self, step: int) -> int:
        """The latest kept step up to this one. Step 0 is always kept."""
        return max(k for k in self.states if k <= step)


def _network(settings: Settings) -> nn.Sequential:
    generator = Generator(settings.seed)
    sizes = [len(settings.features), *settings.layers]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, generator=generator), ACTIVATIONS[settings.activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1, generator=generator))


def _optimizer(settings: Settings) -> optim.Optimizer:
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.regularisation}
    if settings.regularisation:
        common["groups"] = [{"params": "*.bias", "weight_decay": 0.0}]
    if settings.optimizer == "adam":
        return optim.Adam(**common)
    return optim.SGD(momentum=0.9 if settings.optimizer == "momentum" else 0.0, **common)
