"""What is seen of a playground: boundary, activations, gradients, slopes and errors, as JSON values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule.functions as functions
from chainrule import nn
from chainrule.core.autodiff import grad
from chainrule.core.tensor import Tensor, tensor
from chainrule.ui.playground import Playground
from chainrule.ui.playground_data import features, grid

BOUNDARY = 40  # points along each side of the picture of the answers
MAP = 20  # and of the pictures of single units
DIGITS = 4  # decimals of what is drawn as a colour


def view(playground: Playground) -> dict[str, Any]:
    """The network as it is now, with the gradients, slopes and errors of the step just made.

    Those are of the weights before that step and of its rows; at step 0 they are what the first step will see.
    `dead` are the units whose slope is 0 for every training point now: no gradient passes them. The output has no
    activation: its slope is 1, and its map shows answers.
    """
    return {
        "step": playground.step,
        "epoch": playground.step // playground.batches,
        "loss": playground.loss(playground.inputs, playground.targets),
        "test_loss": playground.loss(playground.test_inputs, playground.test_targets),
        "batch_loss": playground.observed.loss,
        "size": BOUNDARY,
        "boundary": _rounded(answers(playground)),
        "layers": _layers(playground),
        "batch": playground.observed.rows.tolist() if playground.step else [],
    }


def answers(playground: Playground) -> NDArray[np.float32]:
    """What the network answers all over the plane: the probability of class 1, or the predicted number."""
    sums = _sums(playground, features(playground.settings.features, grid(BOUNDARY)))
    return _answer(playground, sums[-1])[:, 0]


def _layers(playground: Playground) -> list[dict[str, Any]]:
    observed = playground.observed
    on_map = _sums(playground, features(playground.settings.features, grid(MAP)))
    on_points = _sums(playground, np.asarray(playground.inputs))
    layers = []
    for number, (layer, activation) in enumerate(zip(playground.linear, playground.activations, strict=True)):
        path = str(2 * number)  # an activation stands between two layers of neurons
        weight_gradients, bias_gradients = (observed.gradients[f"{path}.{name}"] for name in ("weight", "bias"))
        weight_updates, bias_updates = (observed.updates[f"{path}.{name}"] for name in ("weight", "bias"))
        slopes = _slopes(activation, observed.sums[number])
        dead = (_slopes(activation, on_points[number]) == 0).all(axis=0)
        output = _answer(playground, on_map[number]) if activation is None else _values(activation, on_map[number])
        weights, biases = np.asarray(layer.weight), np.asarray(layer.bias)
        units = [
            {
                "weights": weights[unit].tolist(),
                "bias": float(biases[unit]),
                "weight_gradients": weight_gradients[unit].tolist(),
                "bias_gradient": float(bias_gradients[unit]),
                "weight_updates": weight_updates[unit].tolist(),
                "bias_update": float(bias_updates[unit]),
                "map": _rounded(output[:, unit]),
                "slope": float(slopes[:, unit].mean()),
                "error": float(np.abs(observed.errors[number][:, unit]).mean()),
                "dead": bool(dead[unit]),
            }
            for unit in range(len(weights))
        ]
        layers.append({"units": units})
    return layers


def _sums(playground: Playground, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The weighted sums of all layers at these inputs."""
    sums, value = [], tensor(inputs)
    for layer in playground.model:
        value = layer(value)
        if isinstance(layer, nn.Linear):
            sums.append(np.asarray(value))
    return sums


def _answer(playground: Playground, sums: NDArray[np.float32]) -> NDArray[np.float32]:
    return sums if playground.points.task == "regression" else np.asarray(functions.sigmoid(tensor(sums)))


def _values(activation: nn.Module, sums: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(activation(tensor(sums)))


def _slopes(activation: nn.Module | None, sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """The derivative of the activation at each sum."""
    if activation is None:
        return np.ones_like(sums)

    def total(z: Tensor) -> Tensor:
        return activation(z).sum()

    return np.asarray(grad(total)(tensor(sums)))


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [float(x) for x in values.astype(np.float64).round(DIGITS)]
