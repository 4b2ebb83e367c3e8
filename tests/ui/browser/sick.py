"""Trains a network with many sigmoids in a row, from Python, and records every 20th step: `python sick.py FOLDER`."""

import sys

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def train(folder: str) -> None:
    generator = cr.random.Generator(0)
    digits = cr.data.load("digits")
    order = np.asarray(cr.random.Generator(0).permutation(len(digits.x)))
    x, y = digits.x[order] / 16, digits.y[order]

    def linear(inputs: int, outputs: int) -> nn.Linear:
        return nn.Linear(inputs, outputs, generator=generator)

    model = nn.Sequential(
        linear(64, 64), nn.ReLU(), linear(64, 64), nn.Sigmoid(), linear(64, 64), nn.Sigmoid(), linear(64, 64),
        nn.Sigmoid(), linear(64, 10),
    )  # fmt: skip
    cr.fit(
        model, (x[:1437], y[:1437]), loss=losses.cross_entropy, optimizer=optim.SGD(lr=0.3, momentum=0.9),
        validation=(x[1437:], y[1437:]), metrics="accuracy", epochs=60, batch_size=64, seed=0, run_dir=folder,
        record=20, progress="silent",
    )  # fmt: skip


if __name__ == "__main__":
    train(sys.argv[1])
