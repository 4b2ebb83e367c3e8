"""Clothes in 28 × 28 grey pixels: a LeNet, the same with batch normalisation, a ResNet; beside PyTorch if asked for.

Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017) is in Debian's package dataset-fashion-mnist. Images stay bytes, are
mirrored and shifted at random in the compiled step, and the learning rate rises and falls once (Smith, 2018). With
--compare-torch the same network is trained by PyTorch with the same settings, on the same threads.

    python examples/fashion_mnist.py --network lenet
    python examples/fashion_mnist.py --network resnet --epochs 30 --compare-torch --plot mistakes.png
"""

import argparse
import functools
import itertools
import math
import os
import time
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

FOLDER = "/usr/share/datasets/fashion-mnist"
NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
NETWORKS = {"lenet": 30, "lenet-bn": 30, "resnet": 30}  # and their epochs
BATCH, SMOOTHING, DECAY = 128, 0.1, 0.02
RATE = {"lenet": 3e-3, "lenet-bn": 5e-3, "resnet": 8e-3}  # the highest of the cycle
SHIFT = {"lenet": 1, "lenet-bn": 1, "resnet": 2}  # pixels, at most: small networks do not learn to undo much


def layers(name: str, nn: Any, residual: Any) -> list:
    """A network, of the layers of this library or of PyTorch: they have the same names and arguments."""
    if name == "resnet":
        made, widths = [*convolution(nn, 1, 16), nn.ReLU()], (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        for inputs, outputs in itertools.pairwise(widths):
            made += [block(nn, residual, inputs, outputs), nn.ReLU()]
        return [*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    made, widths = [], (1, 64, 128) if name == "lenet-bn" else (1, 32, 64)
    for inputs, outputs in itertools.pairwise(widths):
        made += convolution(nn, inputs, outputs) if name == "lenet-bn" else [nn.Conv2d(inputs, outputs, 3, padding=1)]
        made += [nn.ReLU(), nn.MaxPool2d(2)]
    inputs, hidden = widths[-1] * 49, 2 * widths[-1]
    norm = [nn.BatchNorm1d(hidden)] if name == "lenet-bn" else []
    head = [nn.Dropout(0.2), nn.Linear(inputs, hidden), *norm, nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 10)]
    return [*made, nn.Flatten(), *head]


def convolution(nn: Any, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def block(nn: Any, residual: Any, inputs: int, outputs: int) -> Any:
    """Two convolutions beside a shortcut; with more channels than before, height and width are halved."""
    stride = 1 if inputs == outputs else 2
    inner = [*convolution(nn, inputs, outputs, stride=stride), nn.ReLU(), *convolution(nn, outputs, outputs)]
    shortcut = None if stride == 1 else nn.Sequential(*convolution(nn, inputs, outputs, kernel=1, stride=stride))
    return residual(nn.Sequential(*inner), shortcut=shortcut)


def load(folder: str, rows: int | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (rows, 28, 28) as bytes and their classes; the test part is that of the data set."""
    p = cr.data.prepare(cr.data.read(folder))
    parts = {"train": (p.x_train, p.y_train), "validation": (p.x_validation, p.y_validation)}
    parts["test"] = p.x_test, p.y_test
    return {name: (x[:rows], y[:rows]) for name, (x, y) in parts.items()}


def train(name: str, data: dict, epochs: int, progress: str) -> tuple[nn.Module, float, float]:
    """The trained network, its accuracy on the test images, and the seconds that it took."""
    cr.random.manual_seed(0)
    augmented = [nn.Pixels(), nn.RandomShift(SHIFT[name]), nn.RandomHorizontalFlip()]
    model = nn.Sequential(*augmented, *layers(name, nn, nn.Residual))
    steps = epochs * math.ceil(len(data["train"][0]) / BATCH)
    print(f"{name}: {model.parameter_count():,} parameters, {epochs} epochs, {steps:,} steps")
    result = cr.fit(
        model,
        data["train"],
        loss=functools.partial(losses.cross_entropy, label_smoothing=SMOOTHING),
        optimizer=optim.AdamW(lr=optim.one_cycle(RATE[name], total_steps=steps), weight_decay=DECAY),
        validation=data["validation"],
        metrics="accuracy",
        monitor="validation_accuracy",
        epochs=epochs,
        batch_size=BATCH,
        seed=0,
        progress=progress,
    )
    accuracy = float(cr.evaluate(model, data["test"], metrics="accuracy", batch_size=BATCH)["accuracy"])
    return model, accuracy, result.seconds


def train_torch(name: str, data: dict, epochs: int) -> tuple[float, float]:
    """The same by PyTorch: accuracy on the test images of the last epoch, and seconds of training."""
    import torch

    class Residual(torch.nn.Module):
        def __init__(self, inner, shortcut=None):
            super().__init__()
            self.inner, self.shortcut = inner, shortcut or torch.nn.Identity()

        def forward(self, x):
            return self.shortcut(x) + self.inner(x)

    def changed(x):
        """Each image mirrored and shifted at random."""
        rows, size, shift = len(x), x.shape[-1], SHIFT[name]
        x = torch.where(torch.rand(rows, 1, 1) < 0.5, x.flip(-1), x)
        padded = torch.nn.functional.pad(x, (shift,) * 4)
        down, right = torch.randint(0, 2 * shift + 1, (2, rows, 1, 1))
        places = torch.arange(size)
        return padded[torch.arange(rows)[:, None, None], down + places[:, None], right + places]

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("CHAINRULE_THREADS", os.cpu_count() or 1)))
    model = torch.nn.Sequential(*layers(name, torch.nn, Residual)).to(memory_format=torch.channels_last)
    (x, y), (x_test, y_test) = [(torch.tensor(x), torch.tensor(y)) for x, y in (data["train"], data["test"])]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE[name], total_steps=steps, cycle_momentum=False)
    loss_of, begun = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING), time.perf_counter()
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = loss_of(model(changed(x[rows]).unsqueeze(1) / 255), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - begun
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(part.unsqueeze(1) / 255).argmax(1) for part in x_test.split(500)])
    return float((answers == y_test).double().mean()), seconds


def draw(model: nn.Module, x: np.ndarray, y: np.ndarray, path: str, columns: int = 10) -> None:
    """Test images that were taken for something else: a line for what each was taken for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    run = cr.compile(lambda model, x: model(x))
    answers = np.concatenate([np.asarray(run(model, part)).argmax(1) for part in np.split(x, range(500, len(x), 500))])
    wrong = np.flatnonzero(answers != y)[: 3 * columns]
    figure, axes = pyplot.subplots(3, columns, figsize=(columns * 1.1, 4.4), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, row in zip(axes.flat, wrong, strict=False):
        axis.imshow(x[row], cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(f"{NAMES[answers[row]]}?\n{NAMES[y[row]]}", fontsize=8)
    figure.suptitle(f"{np.mean(answers == y):.2%} of the test images are right; these are not (answer? truth)")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main(
    network: str = "lenet", folder: str = FOLDER, epochs: int | None = None, rows: int | None = None,
    compare_torch: bool = False, plot: str | None = None, progress: str = "auto",
) -> dict:  # fmt: skip
    """Train, test, compare, draw; returns accuracy and seconds of each library."""
    data, epochs = load(folder, rows), epochs or NETWORKS[network]
    model, accuracy, seconds = train(network, data, epochs, progress)
    results = {"chainrule": (accuracy, seconds)}
    if plot:
        draw(model, *data["test"], plot)
        print(f"picture: {plot}")
    if compare_torch:
        results["torch"] = train_torch(network, data, epochs)
    for library, (accuracy, seconds) in results.items():
        print(f"{library:10} test accuracy {accuracy:.2%}   {epochs} epochs in {seconds / 60:.2f} minutes")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a network on Fashion-MNIST.")
    parser.add_argument("--network", choices=list(NETWORKS), default="lenet")
    parser.add_argument("--folder", default=FOLDER, help="the four IDX files")
    parser.add_argument("--epochs", type=int, help="by default 30")
    parser.add_argument("--rows", type=int, help="of each part at most, to try it out")
    parser.add_argument("--compare-torch", action="store_true", help="train the same network by PyTorch, too")
    parser.add_argument("--plot", metavar="FILE.png", help="draw some mistakes (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))
