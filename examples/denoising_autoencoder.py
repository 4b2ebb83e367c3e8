"""Clothes seen through noise: a convolutional autoencoder that learns to take the noise away.

Two strided convolutions squeeze 28 × 28 pixels to 7 × 7, two transposed ones bring them back. It is shown images with
noise, drawn anew in each step, and is to give back the images themselves. The honest baseline is the best linear guess
of a pixel from those around it (Wiener, 1949), fitted to the same images.
Source: Vincent et al., "Extracting and composing robust features with denoising autoencoders" (2008).

    python examples/denoising_autoencoder.py --plot clothes.png    # Debian's package dataset-fashion-mnist
"""

import argparse

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

FOLDER = "/usr/share/datasets/fashion-mnist"
NOISE, AROUND = 0.4, 2  # standard deviation, where pixels are between 0 and 1; the linear guess sees 5 × 5 pixels


class Noise(nn.Module):
    """Adds noise in training."""

    def __init__(self) -> None:
        self.generator = cr.random.Generator(1)

    def forward(self, x):
        """The shape of x."""
        return x + NOISE * self.generator.normal(x.shape) if self.training else x


def network() -> nn.Sequential:
    """(batch, 1, 28, 28), twice."""
    return nn.Sequential(
        Noise(),
        nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


def noisy(x: np.ndarray, seed: int) -> np.ndarray:
    """Images with noise."""
    return x + NOISE * np.asarray(cr.random.Generator(seed).normal(x.shape))


def surroundings(x: np.ndarray) -> np.ndarray:
    """For each pixel those around it, and a 1: (pixels, numbers)"""
    size = 2 * AROUND + 1
    padded = np.pad(x[:, 0], ((0, 0), (AROUND, AROUND), (AROUND, AROUND)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2)).reshape(-1, size * size)
    return np.hstack([windows, np.ones((len(windows), 1), x.dtype)])


def linear_guess(train: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`seen` with each pixel replaced by the best linear guess from those around it, found by least squares."""
    a = surroundings(noisy(train, 2)).astype(np.float64)
    weights = np.linalg.solve(a.T @ a, a.T @ train.reshape(-1))
    return np.clip(surroundings(seen) @ weights, 0, 1).reshape(seen.shape)


def error(original: np.ndarray, restored: np.ndarray) -> float:
    """The mean squared error of a pixel."""
    return float(np.mean((original - restored) ** 2))


def main(
    folder: str = FOLDER, epochs: int = 5, rows: int | None = None, plot: str | None = None, progress: str = "auto"
) -> dict[str, float]:
    """Train, compare, draw; returns the errors on the test images."""
    p = cr.data.prepare(cr.data.read(folder))
    train, test = (x[:rows, None].astype(np.float32) / 255 for x in (p.x_train, p.x_test))
    cr.random.manual_seed(0)
    model = network()
    steps = epochs * -(-len(train) // 128)
    optimizer = optim.Adam(lr=optim.one_cycle(5e-3, total_steps=steps))
    result = cr.fit(
        model, train, loss=losses.mse, optimizer=optimizer, epochs=epochs, batch_size=128, seed=0, progress=progress
    )
    seen = noisy(test, 3)
    run = cr.compile(lambda model, x: model(x))
    restored = np.concatenate([np.asarray(run(model, part)) for part in np.split(seen, range(500, len(seen), 500))])
    linear = linear_guess(train[:10_000], seen)
    errors = {"noise": error(test, seen), "linear": error(test, linear), "autoencoder": error(test, restored)}
    print(f"mean squared error of a pixel on {len(test):,} images not seen in training, {result.seconds:.0f} s")
    for name, value in errors.items():
        print(f"  {name:12}{value:9.5f}")
    if plot:
        draw(test, seen, linear, restored, plot)
        print(f"picture: {plot}")
    return errors


def draw(test: np.ndarray, seen: np.ndarray, linear: np.ndarray, restored: np.ndarray, path: str) -> None:
    """Rows of originals, of what was seen, and of what the two make of it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {"original": test, "seen": seen, "linear": linear, "autoencoder": restored}
    figure, axes = pyplot.subplots(len(rows), 10, figsize=(10, 4.2), layout="constrained")
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{name}\n{error(test, images):.4f}", rotation=0, ha="right", va="center")
    figure.suptitle("Ten test images, and the mean squared error of a pixel over all of them")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take noise away from images of clothes.")
    parser.add_argument("--folder", default=FOLDER, help="the four IDX files")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of each part at most, to try it out")
    parser.add_argument("--plot", metavar="FILE.png", help="draw some images (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))
