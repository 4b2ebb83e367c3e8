"""An autoencoder: 64 pixels squeezed through 8 numbers and back, learned without a single label.

The network 64-32-8-32-64 is trained to give back its input. The honest baseline is principal component analysis, the
best linear squeeze through 8 numbers there is (Eckart and Young, 1936), computed here by NumPy's SVD on the same
training images. Both are judged on images that neither has seen.
Source: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks" (2006).

    python examples/autoencoder_digits.py
    python examples/autoencoder_digits.py --plot autoencoder.png
"""

import argparse

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

CODE, TRAINING = 8, 1500  # numbers in the middle; images to learn from (the other 297 are for the test)


def images() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, pixels between 0 and 1; the order is that of a fixed permutation."""
    x = cr.data.load("digits").x / 16
    order = np.asarray(cr.random.Generator(0).permutation(len(x)))
    return x[order[:TRAINING]], x[order[TRAINING:]]


def network() -> nn.Sequential:
    generator = cr.random.Generator(1)
    linear = [nn.Linear(a, b, generator=generator) for a, b in ((64, 32), (32, CODE), (CODE, 32), (32, 64))]
    encoder = nn.Sequential(linear[0], nn.Tanh(), linear[1])
    decoder = nn.Sequential(linear[2], nn.Tanh(), linear[3])
    return nn.Sequential(encoder, decoder)


def principal_components(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`test` squeezed through the first CODE principal components of `train`."""
    mean = train.mean(axis=0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][:CODE]  # (CODE, 64)
    return mean + (test - mean) @ directions.T @ directions


def error(original: np.ndarray, restored: np.ndarray) -> float:
    """The mean squared error of a pixel."""
    return float(np.mean((original - restored) ** 2))


def main(epochs: int = 80, plot: str | None = None) -> dict[str, float]:
    """Train, compare, draw; returns the errors on the test images."""
    train, test = images()
    model = network()
    schedule = optim.cosine(5e-3, epochs * -(-TRAINING // 32))
    cr.fit(model, train, loss=losses.mse, optimizer=optim.Adam(lr=schedule), epochs=epochs, batch_size=32, seed=0)
    restored = np.asarray(model(cr.tensor(test)))
    linear = principal_components(train, test)
    errors = {
        "the mean image": error(test, train.mean(axis=0)),
        f"PCA, {CODE} components": error(test, linear),
        f"autoencoder, {CODE} numbers": error(test, restored),
    }
    print(f"mean squared error of a pixel on {len(test)} images not seen in training")
    for name, value in errors.items():
        print(f"  {name:24}{value:9.5f}")
    if plot:
        draw(test, restored, linear, plot)
        print(f"picture: {plot}")
    return errors


def draw(test: np.ndarray, restored: np.ndarray, linear: np.ndarray, path: str, columns: int = 12) -> None:
    """Rows of originals and of what the two make of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [("original", test), (f"autoencoder\n{error(test, restored):.4f}", restored)]
    rows.append((f"PCA\n{error(test, linear):.4f}", linear))
    figure, axes = pyplot.subplots(len(rows), columns, figsize=(10, 2.9), layout="constrained")
    for line, (name, pictures) in zip(axes, rows, strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.suptitle(f"64 pixels through {CODE} numbers and back: the first {columns} test images, mean squared error")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Squeeze digits through 8 numbers.")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture (needs matplotlib)")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.plot)
