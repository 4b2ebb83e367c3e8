"""Every optimiser gets to the bottom of a quadratic and along Rosenbrock's valley."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim

QUADRATIC = {
    "SGD": lambda: optim.SGD(lr=0.1, momentum=0.9),
    "nesterov": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda: optim.RMSprop(lr=optim.exponential(0.1, 0.98)),
    "Adagrad": lambda: optim.Adagrad(lr=1.0),
    "Adadelta": lambda: optim.Adadelta(lr=30.0),
    "Lion": lambda: optim.Lion(lr=optim.cosine(0.1, T_max=400)),
    "Adam": lambda: optim.Adam(lr=0.1),
    "amsgrad": lambda: optim.Adam(lr=0.1, amsgrad=True),
    "AdamW": lambda: optim.AdamW(lr=0.1, weight_decay=0.0),
    "Adamax": lambda: optim.Adamax(lr=0.2),
    "NAdam": lambda: optim.NAdam(lr=0.1),
    "RAdam": lambda: optim.RAdam(lr=0.1),
}
CURVATURE = cr.tensor(np.array([0.5, 1.0, 2.0, 5.0]))
CENTRE = cr.tensor(np.array([1.0, -2.0, 0.5, 3.0]))


def descend(optimizer, loss, params, steps):
    step = cr.value_and_grad(loss)
    for _ in range(steps):
        _, grads = step(params)
        params = optimizer.update(params, grads)
    return params


@pytest.mark.parametrize("name", QUADRATIC)
def test_a_quadratic(name):
    params = descend(
        QUADRATIC[name](),
        lambda p: (CURVATURE * (p["w"] - CENTRE) ** 2).sum(),
        {"w": cr.zeros((4,), dtype="float64")},
        400,
    )
    np.testing.assert_allclose(params["w"].numpy(), CENTRE.numpy(), atol=0.01)


def test_decoupled_decay_pulls_towards_zero():
    optimizer = optim.AdamW(lr=0.05, weight_decay=0.5)
    params = descend(optimizer, lambda p: (0.0 * p["w"]).sum(), {"w": cr.tensor([1.0])}, 100)
    assert params["w"].tolist() == pytest.approx([(1 - 0.025) ** 100], rel=1e-4)


def test_rosenbrock():
    def loss(p):
        x, y = p["w"][0], p["w"][1]
        return 100 * (y - x * x) ** 2 + (1 - x) ** 2

    params = descend(optim.Adam(lr=0.05), loss, {"w": cr.tensor(np.array([-1.2, 1.0]))}, 1500)
    np.testing.assert_allclose(params["w"].numpy(), [1.0, 1.0], atol=0.02)
