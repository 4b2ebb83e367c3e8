"""Trainings for the tests of replay and diff."""

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.train import Callback
from chainrule.train.batches import row_order
from chainrule.train.state import arrays_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 4)).astype(np.float32)
LABELS = (X @ RNG.normal(size=(4, 3))).argmax(1)
PICTURES = RNG.normal(size=(70, 1, 6, 6)).astype(np.float32)
WEIGHT = RNG.uniform(0.5, 2.0, 70)
SETTINGS = {"epochs": 16, "batch_size": 8, "seed": 3}  # 9 batches an epoch, the last of 6 rows; 144 steps


def plain():
    """Dropout, batch statistics, moments, weights of rows, metrics, validation."""
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    return {
        "model": model, "data": (X, LABELS, WEIGHT), "validation": (X[:20], LABELS[:20]), "loss": losses.cross_entropy,
        "optimizer": optim.Adam(lr=0.02), "metrics": ["accuracy", "perplexity"], "progress": "silent",
    }  # fmt: skip


def without_metrics():
    return plain() | {"metrics": (), "validation": None}


def averaged():
    return plain() | {"ema": optim.EMA(decay=0.8, bias_correction=True)}


def scheduled():
    return plain() | {"schedule": optim.one_cycle(0.1, total_steps=144)}


def on_plateau():
    parts = plain() | {"optimizer": optim.SGD(lr=0.5, momentum=0.9)}
    plateau = optim.ReduceOnPlateau(parts["optimizer"], patience=0, factor=0.5, threshold=0.05, threshold_mode="abs")
    return parts | {"schedule": plateau}


def accumulated():
    return plain() | {"optimizer": optim.accumulate(optim.RAdam(lr=0.05), steps=3)}


def by_sign():
    """An optimiser whose step is watched for gradients that are not finite."""
    return plain() | {"optimizer": optim.Lion(lr=0.01)}


def in_float64():
    parts = without_metrics()
    parts["model"].to(cr.float64)
    return parts


def augmented():
    cr.random.manual_seed(0)
    model = nn.Sequential(
        nn.RandomShift(2), nn.RandomHorizontalFlip(), nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )
    return plain() | {"model": model, "data": (PICTURES, LABELS), "validation": (PICTURES[:9], LABELS[:9])}


def lbfgs():
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    return without_metrics() | {"model": model, "optimizer": optim.LBFGS(max_iter=2), "data": (X, LABELS)}


class Watch(Callback):
    """Copies the weights after each step."""

    def __init__(self):
        self.after = {}

    def on_start(self, training):
        self.note(training)

    def on_step(self, training, loss):
        self.note(training)

    def note(self, training):
        arrays = arrays_of(training.model, "model")
        self.after[training.position.step] = {name[6:]: array.copy() for name, array in arrays.items()}


# -- a run of 2,000 steps in one epoch

LONG = {"epochs": 1, "batch_size": 4, "seed": 5}
LONG_X = RNG.normal(size=(8000, 4)).astype(np.float32)
LONG_Y = (LONG_X @ RNG.normal(size=(4, 1)) + 0.1).astype(np.float32)
ODD_STEP = 1371
ODD_ROW = int(row_order(5, 1, 8000)[(ODD_STEP - 1) * 4 + 2])


def long(x=LONG_X, lr=0.01):
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    return {
        "model": model, "data": (x, LONG_Y), "loss": losses.mse, "optimizer": optim.Adam(lr=lr), "progress": "silent",
    }  # fmt: skip


def long_with_another_row():
    x = LONG_X.copy()
    x[ODD_ROW, 1] += 0.5
    return long(x)
