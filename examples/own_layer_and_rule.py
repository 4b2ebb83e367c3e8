"""A layer and a derivative rule of one's own: a network whose hidden units only know yes and no.

A threshold has slope 0 wherever it has one, so nothing would be learned through it. The rule pretends that it were a
straight line near 0, and passes the gradient on: the "straight-through" estimator of Bengio, Léonard and Courville,
"Estimating or propagating gradients through stochastic neurons" (2013). The layer around it scales what it lets pass.

    python examples/own_layer_and_rule.py
"""

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def threshold(z):
    return cr.where(z > 0, 1.0, -1.0)


# The rule gets the gradient of the result, the result, and the input; it returns the gradient of the input.
yes_or_no = cr.custom_vjp(threshold, lambda dy, y, z: (cr.where(cr.abs(z) <= 1, dy, 0.0),))


class BinaryUnits(nn.Module):
    """y = scale · sign(x · weightᵀ + bias), trained straight through."""

    def __init__(self, in_features: int, units: int, learns: bool = True, generator=None):
        self.learns = learns
        self.linear = nn.Linear(in_features, units, generator=generator)
        self.scale = nn.Parameter(cr.full(units, 0.5))

    def forward(self, x):
        """x (rows, in_features) -> (rows, units)."""
        z = self.linear(x)
        return self.scale * (yes_or_no(z) if self.learns else threshold(z))


@cr.compile
def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def train(learns: bool, steps: int = 150) -> float:
    """Train on 1437 images; the accuracy on the other 360."""
    digits = cr.data.load("digits")
    order = np.asarray(cr.random.Generator(0).permutation(len(digits.x)))
    x, y = cr.tensor(digits.x[order] / 16), cr.tensor(digits.y[order])
    generator = cr.random.Generator(1)
    model = nn.Sequential(BinaryUnits(64, 16, learns, generator), nn.Linear(16, 10, generator=generator))
    optimizer = optim.Adam(lr=0.02)
    for _ in range(steps):
        step(model, optimizer, x[:1437], y[:1437])
    hit = cr.argmax(model(x[1437:]), axis=1) == y[1437:]
    return float(cr.mean(hit.astype("float32")))


def main() -> dict[str, float]:
    z = cr.tensor([-2.0, -0.5, 0.5, 2.0])
    print("input           ", z.tolist())
    print("threshold       ", yes_or_no(z).tolist())
    print("its true slope  ", cr.grad(lambda z: cr.sum(threshold(z)))(z).tolist())
    print("our rule's      ", cr.grad(lambda z: cr.sum(yes_or_no(z)))(z).tolist())
    results = {}
    for name, learns in (("units fixed (true slope 0)", False), ("units learn (our rule)", True)):
        results[name] = train(learns)
        print(f"{name:28} test accuracy {results[name]:.3f}")
    return results


if __name__ == "__main__":
    main()
