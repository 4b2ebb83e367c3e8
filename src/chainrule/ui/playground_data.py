"""Points in the plane to learn: drawn by formula from a seed, or one's own columns; and the features made of them.

The plane goes from −6 to 6 in both directions. Targets are 0 or 1 for two classes, or numbers from 0 to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.ui.answers import Refused

EDGE = 6.0
TEST_SHARE = 0.3
LARGEST = 1e100  # so that no range overflows
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Points:
    """Points (rows, 2) and their targets (rows,), for training and for the test.

    `scale` tells for each axis of one's own columns which values lie at −6 and at 6.
    """

    task: str
    train: Floats
    train_targets: Floats
    test: Floats
    test_targets: Floats
    scale: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: [x, y, target] a point."""
        return {
            "task": self.task,
            "points": np.column_stack([self.train, self.train_targets]).round(4).tolist(),
            "test": np.column_stack([self.test, self.test_targets]).round(4).tolist(),
            "scale": self.scale,
        }


def circle(rng: np.random.Generator, labels: Floats) -> Floats:
    """A disc within a ring."""
    radius = np.where(labels == 1, rng.uniform(0.0, 2.5, len(labels)), rng.uniform(3.5, 5.0, len(labels)))
    angle = rng.uniform(0.0, 2 * np.pi, len(labels))
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def xor(rng: np.random.Generator, labels: Floats) -> Floats:
    """Opposite quarters of the plane alike."""
    x, y = rng.uniform(0.3, 5.0, (2, len(labels)))
    side = rng.choice([-1.0, 1.0], len(labels))
    return np.column_stack([side * x, side * np.where(labels == 1, y, -y)])


def gauss(rng: np.random.Generator, labels: Floats) -> Floats:
    """Two heaps."""
    return np.where(labels == 1, 2.0, -2.0)[:, None] + 0.8 * rng.normal(size=(len(labels), 2))


def spiral(rng: np.random.Generator, labels: Floats) -> Floats:
    """Two spirals around one another."""
    along = np.sqrt(rng.uniform(0.01, 1.0, len(labels)))  # as dense outside as inside
    angle = 3.5 * np.pi * along + np.pi * labels
    return np.column_stack([5 * along * np.sin(angle), 5 * along * np.cos(angle)])


def moons(rng: np.random.Generator, labels: Floats) -> Floats:
    """Two half circles, each of which ends inside the other."""
    angle = rng.uniform(0.0, np.pi, len(labels))
    upper = np.column_stack([np.cos(angle), np.sin(angle)])
    lower = np.column_stack([1 - np.cos(angle), 0.5 - np.sin(angle)])
    return 3.0 * (np.where((labels == 1)[:, None], lower, upper) - [0.5, 0.25])


def plane(points: Floats) -> Floats:
    """A slope from one corner to the other."""
    return np.asarray(0.5 + (points[:, 0] + points[:, 1]) / (4 * EDGE))


def bumps(points: Floats) -> Floats:
    """A hill and a hollow beside it."""
    hill = np.exp(-((points[:, 0] - 2) ** 2 + (points[:, 1] - 2) ** 2) / 6)
    hollow = np.exp(-((points[:, 0] + 2) ** 2 + (points[:, 1] + 2) ** 2) / 6)
    return np.asarray(0.5 + (hill - hollow) / 2)


CLASSES: dict[str, tuple[str, Callable[[np.random.Generator, Floats], Floats]]] = {
    "circle": ("A disc in a ring", circle),
    "xor": ("Exclusive or", xor),
    "gauss": ("Two heaps", gauss),
    "spiral": ("Two spirals", spiral),
    "moons": ("Two moons", moons),
}
SURFACES: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "plane": ("A slope", plane),
    "bumps": ("A hill and a hollow", bumps),
}


def titles() -> list[dict[str, str]]:
    """The data sets that are drawn by formula."""
    classes = [{"id": name, "title": title, "task": "classification"} for name, (title, _) in CLASSES.items()]
    return classes + [{"id": name, "title": title, "task": "regression"} for name, (title, _) in SURFACES.items()]


def drawn(name: str, rows: int, noise: float, seed: int) -> Points:
    """A data set by name. `noise` moves each point (for surfaces its target) at random: 1 is a deviation of 2 (0.2)."""
    rng = np.random.default_rng(seed)
    if name in CLASSES:
        labels = np.arange(rows) % 2.0
        points = CLASSES[name][1](rng, labels) + 2 * noise * rng.normal(size=(rows, 2))
        return _split("classification", points, labels, rng)
    points = rng.uniform(-EDGE, EDGE, (rows, 2))
    return _split("regression", points, SURFACES[name][1](points) + 0.2 * noise * rng.normal(size=rows), rng)


def own(x: list[float], y: list[float], target: list[float], seed: int) -> Points:
    """One's own columns. Two different targets are two classes, more are numbers to predict; all are scaled to fit."""
    if not len(x) == len(y) == len(target):
        raise Refused(400, f"own: x has {len(x):,} numbers, y {len(y):,}, target {len(target):,}; give equally many.")
    columns = {name: np.array(values) for name, values in (("x", x), ("y", y), ("target", target))}
    for name, values in columns.items():
        if np.abs(values).max() > LARGEST:
            raise Refused(400, f"own: {name} has numbers beyond {LARGEST:g}; give it in a larger unit.")
        if np.ptp(values) == 0:
            raise Refused(400, f"own: all numbers of {name} are {values[0]:g}; there is nothing to learn from it.")
    scale, scaled = {}, {}
    for name, values in columns.items():
        low, high = values.min(), values.max()
        share = (values - low) / (high - low)
        scaled[name] = share if name == "target" else (2 * share - 1) * (EDGE - 1)
        margin = 0.0 if name == "target" else (high - low) / 2 / (EDGE - 1)
        scale[name] = [float(low - margin), float(high + margin)]
    task = "classification" if len(np.unique(target)) == 2 else "regression"
    points = np.column_stack([scaled["x"], scaled["y"]])
    return _split(task, points, scaled["target"], np.random.default_rng(seed), scale)


def _split(task: str, points: Floats, targets: Floats, rng: np.random.Generator, scale: Any = None) -> Points:
    order = rng.permutation(len(points))
    test, train = np.split(order, [round(TEST_SHARE * len(order))])
    return Points(task, points[train], targets[train], points[test], targets[test], scale)


FEATURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "x²": lambda x, y: x * x,
    "y²": lambda x, y: y * y,
    "xy": lambda x, y: x * y,
    "sin x": lambda x, y: np.sin(x),
    "sin y": lambda x, y: np.sin(y),
}
"""What may go into a network, by name."""


def features(names: list[str], points: Floats) -> NDArray[np.float32]:
    """The inputs of the network at these points: (points, features)."""
    return np.column_stack([FEATURES[name](points[:, 0], points[:, 1]) for name in names]).astype(np.float32)


def grid(size: int) -> Floats:
    """size × size points over the whole plane, row by row from the top (y = 6) down, each from the left."""
    ticks = np.linspace(-EDGE, EDGE, size)
    x, y = np.meshgrid(ticks, ticks[::-1])
    return np.column_stack([x.ravel(), y.ravel()])
