"""Two ways to write a training loop oneself: gradients as values, and loss.backward(). They do the same.

The first is the form of this library: a function of the model returns the loss, `value_and_grad` returns the gradients,
the optimiser takes them. It can be compiled as a whole. The second is the habit of PyTorch's users: the loss fills
`.grad` of the parameters, the optimiser looks there. It runs eagerly.

    python examples/custom_training_loop.py
"""

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

BATCH = 64


def data() -> tuple[np.ndarray, np.ndarray]:
    """Wine: 178 rows of 13 measurements, standardised, and the cultivar of each."""
    wine = cr.data.load("wine")
    return (wine.x - wine.x.mean(axis=0)) / wine.x.std(axis=0), wine.y


def network() -> nn.Sequential:
    generator = cr.random.Generator(0)
    return nn.Sequential(nn.Linear(13, 16, generator=generator), nn.Tanh(), nn.Linear(16, 3, generator=generator))


def batches(x: np.ndarray, y: np.ndarray, epochs: int):
    """Shuffled minibatches; the last of an epoch has what is left."""
    generator = cr.random.Generator(1)
    for _ in range(epochs):
        order = np.asarray(generator.permutation(len(x)))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            yield cr.tensor(x[rows]), cr.tensor(y[rows])


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def functional(epochs: int, compiled: bool) -> tuple[nn.Module, list[float]]:
    """Gradients as return values."""
    model, optimizer = network(), optim.Adam(lr=0.01)
    run = cr.compile(step) if compiled else step  # two shapes of batch, so two compilations
    return model, [float(run(model, optimizer, x, y)) for x, y in batches(*data(), epochs)]


def habitual(epochs: int) -> tuple[nn.Module, list[float]]:
    """PyTorch's four lines. The optimiser is bound to the model, whose parameters it replaces."""
    model, values = network(), []
    optimizer = optim.Adam(model, lr=0.01)
    for x, y in batches(*data(), epochs):
        optimizer.zero_grad()
        loss = losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        values.append(float(loss))
    return model, values


def accuracy(model: nn.Module) -> float:
    x, y = data()
    return float(np.mean(np.asarray(model(cr.tensor(x))).argmax(axis=1) == y))


def main(epochs: int = 30) -> dict[str, tuple[nn.Module, list[float]]]:
    results = {
        "value_and_grad, eager": functional(epochs, compiled=False),
        "value_and_grad, compiled": functional(epochs, compiled=True),
        "loss.backward()": habitual(epochs),
    }
    print(f"{'':26}{'first loss':>12}{'last loss':>12}{'accuracy':>10}")
    for name, (model, values) in results.items():
        print(f"{name:26}{values[0]:12.6f}{values[-1]:12.6f}{accuracy(model):10.3f}")
    first, *others = (values for _, values in results.values())
    print("every loss of the three runs is the same:", all(np.allclose(first, values, rtol=1e-4) for values in others))
    return results


if __name__ == "__main__":
    main()
