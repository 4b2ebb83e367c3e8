"""Train a network on handwritten digits from Python, and look at everything on the way.

Data, model, fit, history, evaluation, saving and loading; then one training step by hand, compiled, and its Program:
forward pass, backward pass and update as text.

    python examples/train_from_python.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def split(seed: int = 0) -> tuple[tuple, tuple, tuple]:
    """Digits as (x, y) for training, validation and test: 1437, 180 and 180 images, pixels between 0 and 1."""
    digits = cr.data.load("digits")
    order = np.asarray(cr.random.Generator(seed).permutation(len(digits.x)))
    x, y = digits.x[order] / 16, digits.y[order]
    return (x[:1437], y[:1437]), (x[1437:1617], y[1437:1617]), (x[1617:], y[1617:])


def network(seed: int = 0) -> nn.Sequential:
    generator = cr.random.Generator(seed)
    return nn.Sequential(
        nn.Linear(64, 64, generator=generator), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10, generator=generator)
    )


def step(model, optimizer, x, y):
    """One training step, as one would write it by hand. The same source runs eagerly and compiled."""
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def main(epochs: int = 20, folder: str | None = None, progress: str = "auto") -> dict:
    """Everything in order; returns what the test looks at."""
    train, validation, test = split()
    model = network()
    print(model)
    run = cr.fit(
        model, train, loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), validation=validation,
        metrics="accuracy", epochs=epochs, stop=cr.stop.plateau(patience=5), seed=0, progress=progress,
    )  # fmt: skip
    print(run)
    print("first epoch:", run.history[0])
    print("last epoch: ", run.history[-1])

    result = cr.evaluate(model, test, loss=losses.cross_entropy, metrics=["accuracy"])
    print("test:       ", result)

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(folder or temporary) / "digits.safetensors"
        model.save(path)
        copy = network(seed=1).eval()
        copy.load(path)
    images = cr.tensor(test[0])
    same = bool(cr.all(copy(images) == model(images)))
    print("loaded model gives the same outputs:", same)

    fast = cr.compile(step)
    model, optimizer = network().train(), optim.SGD(lr=0.1)
    x, y = train[0][:32], train[1][:32]
    values = [float(fast(model, optimizer, x, y)) for _ in range(3)]
    print(f"\na step by hand, three times: {values}; compiled {fast.compilations} time. Its Program:\n")
    print(fast.text())
    return {"run": run, "test": result, "same": same, "steps": values, "program": fast.text()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on digits from Python.")
    parser.add_argument("--epochs", type=int, default=20)
    main(parser.parse_args().epochs)
