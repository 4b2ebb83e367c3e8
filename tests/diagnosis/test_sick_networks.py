"""Networks with exactly one fault each: the diagnosis names it first, and nothing else of weight beside it."""

import itertools
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.train.diagnosing import diagnose

HIDDEN = 32


def blobs(seed, rows=300, features=6, classes=3, distance=2.5):
    """Normal distributions around centres, each feature scaled."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, features))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True) * 1.5
    y = rng.permutation(np.arange(rows) % classes)
    x = centres[y] + rng.standard_normal((rows, features))
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y


def amounts(seed, rows=300, features=6):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    y = x[:, :1] * x[:, 1:2] + np.sin(2 * x[:, 2:3]) + x[:, 3:4] + 0.2 * rng.standard_normal((rows, 1))
    return x, ((y - y.mean()) / y.std()).astype(np.float32)


def network(seed, *widths, activation=nn.ReLU, weights=None):
    """Linear layers with activations between; `weights(shape)` draws them in the place of the layers' own."""
    generator = cr.random.Generator(seed)
    parts = []
    for a, b in itertools.pairwise(widths):
        parts += [nn.Linear(a, b, generator=generator), activation()]
    model = nn.Sequential(*parts[:-1])
    if weights is not None:
        new = {}
        for name, p in model.named_parameters():
            new[name] = weights(p.shape, generator) if p.ndim == 2 else cr.zeros(p.shape)
        model.assign(new)
    return model


def scaled(factor):
    """First weights as He et al. want them, times a factor."""
    return lambda shape, generator: nn.init.normal(shape, std=factor * math.sqrt(2 / shape[1]), generator=generator)


def classify(model, data, **options):
    settings = {"loss": losses.cross_entropy, "optimizer": optim.Adam(lr=3e-3), "batch_size": 32} | options
    return diagnose(model, data, **settings)


def regress(model, data, **options):
    return classify(model, data, **({"loss": losses.mse} | options))


def vanishing(seed):
    return classify(network(seed, 6, *[HIDDEN] * 6, 3, activation=nn.Sigmoid), blobs(seed))


def vanishing_in_flat_sigmoids(seed):
    model = network(seed, 6, HIDDEN, HIDDEN, 3, activation=nn.Sigmoid)
    model.assign({"2.bias": cr.full((HIDDEN,), 9.0)})
    return classify(model, blobs(seed))


def saturated(seed):
    model = network(seed, 6, 64, 3, activation=nn.Tanh)
    model.assign({"0.weight": model[0].weight * 20})
    return classify(model, blobs(seed))


def exploding(seed):
    return classify(network(seed, 6, *[HIDDEN] * 7, 3, weights=scaled(4.0)), blobs(seed))


def shrinking(seed):
    model = network(seed, 6, *[64] * 4, 3, weights=scaled(1.0))
    model.assign({"2.weight": model[2].weight / 200})
    return classify(model, blobs(seed))


def dead(seed):
    model = network(seed, 6, HIDDEN, HIDDEN, 3)
    bias = np.asarray(model[0].bias).copy()
    bias[:20] = -20
    model.assign({"0.bias": cr.tensor(bias)})
    return classify(model, blobs(seed))


def all_dead(seed):
    model = network(seed, 6, HIDDEN, HIDDEN, 3)
    model.assign({"2.bias": cr.full((HIDDEN,), -20.0)})
    return classify(model, blobs(seed))


def high_sgd(seed):
    return classify(network(seed, 6, HIDDEN, HIDDEN, 3), blobs(seed), optimizer=optim.SGD(lr=30.0, momentum=0.9))


def high_adam(seed):
    return regress(network(seed, 6, HIDDEN, HIDDEN, 1), amounts(seed), optimizer=optim.Adam(lr=3.0))


def low_sgd(seed):
    return classify(network(seed, 6, HIDDEN, HIDDEN, 3), blobs(seed), optimizer=optim.SGD(lr=1e-5))


def low_adam(seed):
    return regress(network(seed, 6, HIDDEN, HIDDEN, 1), amounts(seed), optimizer=optim.Adam(lr=1e-7))


def zero(seed):
    return classify(network(seed, 6, HIDDEN, 3, weights=lambda shape, generator: cr.zeros(shape)), blobs(seed))


def equal(seed):
    return classify(network(seed, 6, HIDDEN, 3, weights=lambda shape, generator: cr.full(shape, 0.1)), blobs(seed))


def confident(seed):
    model = network(seed, 6, HIDDEN, HIDDEN, 3)
    model.assign({"4.weight": model[4].weight * 200})
    return classify(model, blobs(seed))


def large_feature(seed):
    x, y = blobs(seed)
    x[:, 2] = 3000 + 500 * x[:, 2]
    return classify(network(seed, 6, HIDDEN, HIDDEN, 3), (x, y))


def bytes_as_inputs(seed):
    digits = cr.data.load("digits")
    x = (digits.x.reshape(-1, 1, 8, 8) / 16 * 255).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    return classify(model, (x[:600], digits.y[:600]))


def huge_features(seed):
    """So large that the units die at once, and no gradient comes to the first layer."""
    x, y = blobs(seed)
    return classify(network(seed, 6, HIDDEN, HIDDEN, 3), (np.abs(x) * -1e6, y))


def outlier(seed):
    x, y = blobs(seed)
    x[17, 3] = 1e6
    return classify(network(seed, 6, HIDDEN, 3), (x, y))


def constant(seed):
    x, y = blobs(seed)
    x[:, 4] = 1.5
    return classify(network(seed, 6, HIDDEN, 3), (x, y), feature_names=list("abcdef"))


def duplicated(seed):
    x, y = blobs(seed)
    x[:, 5] = x[:, 1]
    return classify(network(seed, 6, HIDDEN, 3), (x, y))


def label_noise(seed):
    x, y = blobs(seed, rows=600, distance=4.0)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(y)) < 0.2
    y = np.where(wrong, (y + rng.integers(1, 3, len(y))) % 3, y)
    return classify(network(seed, 6, HIDDEN, 3), (x, y))


def leaking_feature(seed):
    x, y = blobs(seed, classes=2, distance=1.0)
    x[:, 3] = y + 0.01 * np.random.default_rng(seed).standard_normal(len(y))
    return classify(network(seed, 6, HIDDEN, 2), (x, y))


def leaking_amount(seed):
    x, y = amounts(seed)
    x[:, 5] = 0.5 * y[:, 0]
    return regress(network(seed, 6, HIDDEN, 1), (x, y))


def leaking_rows(seed):
    x, y = blobs(seed)
    return classify(network(seed, 6, HIDDEN, 3), (x, y), validation=(x[:50], y[:50]))


def imbalance(seed):
    rng = np.random.default_rng(seed)
    y = (rng.permutation(600) < 18).astype(np.int64)
    x = (rng.standard_normal((600, 6)) + 1.5 * y[:, None]).astype(np.float32)
    return classify(network(seed, 6, HIDDEN, 2), (x, y))


def overfitting(seed):
    x, y = blobs(seed, rows=340, distance=1.0)
    model = network(seed, 6, 128, 128, 3)
    held_out = (x[40:], y[40:])
    run = cr.fit(
        model, (x[:40], y[:40]), loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), epochs=120, seed=seed,
        validation=held_out, progress="silent", engine="reference", keep_best=False,
    )  # fmt: skip
    return classify(model, (x[:40], y[:40]), validation=held_out, history=run)


def normalised(seed, momentum=0.1):
    model = network(seed, 6, HIDDEN, HIDDEN, 3)
    return nn.Sequential(model[0], nn.BatchNorm1d(HIDDEN, momentum=momentum), nn.ReLU(), *list(model)[2:])


def stale_statistics(seed):
    x, y = blobs(seed)
    model = normalised(seed, momentum=1e-4)
    model.assign({"0.weight": model[0].weight * 8})
    cr.fit(model, (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), epochs=15, progress="silent",
           engine="reference", batch_size=30)  # fmt: skip
    return classify(model, (x, y))


def tiny_batches(seed):
    return classify(normalised(seed), blobs(seed), batch_size=2)


class Forgetful(nn.Module):
    """A second layer that the gradient does not come to."""

    def __init__(self, seed):
        generator = cr.random.Generator(seed)
        self.first = nn.Linear(6, HIDDEN, generator=generator)
        self.second = nn.Linear(HIDDEN, HIDDEN, generator=generator)
        self.last = nn.Linear(HIDDEN, 3, generator=generator)

    def forward(self, x):
        return self.last(cr.relu(self.first(x)) + cr.stop_gradient(cr.relu(self.second(cr.relu(self.first(x))))))


def frozen(seed):
    return classify(Forgetful(seed), blobs(seed))


def still(seed):
    optimizer = optim.Adam(lr=3e-3, groups=[{"params": "2.*", "lr": 1e-10}])
    return classify(network(seed, 6, HIDDEN, HIDDEN, 3), blobs(seed), optimizer=optimizer)


def softmax_twice(seed):
    return classify(nn.Sequential(*network(seed, 6, HIDDEN, 3), nn.Softmax(1)), blobs(seed))


def out_of_reach(seed):
    x, y = amounts(seed)
    return regress(nn.Sequential(*network(seed, 6, HIDDEN, 1), nn.Sigmoid()), (x, y * 3))


def large_targets(seed):
    x, y = amounts(seed)
    return regress(network(seed, 6, HIDDEN, 1), (x, y * 5e4 + 2e5))


def too_simple(seed):
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (400, 2)).astype(np.float32) + 0.1 * rng.standard_normal((400, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    return classify(network(seed, 2, 2), (x, y))


def shuffled_apart(seed):
    x, y = blobs(seed, rows=1000)
    return classify(network(seed, 6, HIDDEN, 3), (x, np.random.default_rng(seed + 1).permutation(y)))


def rare_events(seed):
    """Two of eight thousand rows have another target than 0, and no feature tells which: batches of rows that are all
    alike can neither be learned nor not."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8000, 6)).astype(np.float32)
    y = np.zeros((8000, 1), np.float32)
    y[rng.choice(8000, 2, replace=False)] = 1.0
    return regress(network(seed, 6, HIDDEN, 1), (x, y))


SICK = {
    vanishing: "vanishing-gradients",
    vanishing_in_flat_sigmoids: "vanishing-gradients",
    saturated: "saturated-units",
    exploding: "exploding-gradients",
    shrinking: "bad-initialisation",
    dead: "dead-relus",
    all_dead: "dead-relus",
    high_sgd: "learning-rate-too-high",
    high_adam: "learning-rate-too-high",
    low_sgd: "learning-rate-too-low",
    low_adam: "learning-rate-too-low",
    zero: "symmetric-units",
    equal: "symmetric-units",
    confident: "confident-at-start",
    large_feature: "unscaled-inputs",
    bytes_as_inputs: "unscaled-inputs",
    huge_features: "unscaled-inputs",
    outlier: "unscaled-inputs",
    constant: "constant-features",
    duplicated: "duplicated-features",
    label_noise: "label-noise",
    leaking_feature: "leakage",
    leaking_amount: "leakage",
    leaking_rows: "leakage",
    imbalance: "class-imbalance",
    overfitting: "overfitting",
    stale_statistics: "batch-norm-statistics",
    tiny_batches: "tiny-batches",
    frozen: "frozen-layer",
    still: "update-ratio",
    softmax_twice: "loss-mismatch",
    out_of_reach: "loss-mismatch",
    large_targets: "unscaled-targets",
    too_simple: "capacity",
    shuffled_apart: "no-signal",
    rare_events: "plateau",
}


def check(make, seed):
    report = make(seed)
    grave = [d for d in report if d.severity != "note"]
    assert [d.kind for d in grave] == [SICK[make]], str(report)
    assert report[0].kind == SICK[make] and not report.healthy
    assert report[0].evidence and report[0].remedy


@pytest.mark.parametrize("make", SICK, ids=lambda make: make.__name__)
def test_the_fault_is_named_and_nothing_else(make):
    check(make, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 8)]])
@pytest.mark.parametrize("make", SICK, ids=lambda make: make.__name__)
def test_whatever_the_seed(make, seed):
    check(make, seed)


def test_batches_whose_rows_say_the_same_are_noted():
    report = classify(network(0, 6, HIDDEN, 3), blobs(0, rows=48_000, distance=6.0), batch_size=6000)
    assert [(d.kind, d.severity) for d in report] == [("gradient-noise", "note")], str(report)
    assert "many times over" in report[0].message


def test_steps_that_are_nearly_all_noise_are_noted():
    """A third of the target is a sum of a thousand features, the rest is chance, and steps see one row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12_000, 1000)).astype(np.float32)
    y = x @ rng.standard_normal((1000, 1)) / math.sqrt(1000) + 1.4 * rng.standard_normal((12_000, 1))
    model = network(0, 1000, 1, weights=lambda shape, generator: cr.zeros(shape))
    report = regress(model, (x, y.astype(np.float32)), batch_size=1, optimizer=optim.SGD(lr=2e-4))
    assert "gradient-noise" in [d.kind for d in report], str(report)
    assert "nearly all noise" in next(d for d in report if d.kind == "gradient-noise").message


def test_there_are_twelve_and_more():
    assert len(set(SICK.values())) >= 12
