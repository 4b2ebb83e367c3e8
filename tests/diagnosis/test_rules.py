"""Rules by themselves: measures against what is known of them, folding, and the watch."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.diagnosis import Diagnosis, Watch
from chainrule.diagnosis.case import Case, Noise, Trial
from chainrule.diagnosis.curvature import sharpness
from chainrule.diagnosis.examine import examine, of_step
from chainrule.diagnosis.fitting import overfitting, plateau
from chainrule.diagnosis.folding import EXPLAINS, ORDER, fold
from chainrule.diagnosis.labels import leakage, noise, twins
from chainrule.diagnosis.noise import noise_scale
from chainrule.diagnosis.noise import scale as noise_told
from chainrule.diagnosis.rates import curvature_limit, too_high, too_low
from chainrule.diagnosis.statistics import Statistics, statistics
from chainrule.observe import observe_call


def observed(model, x, y, optimizer=None):
    def step(model, optimizer, x, y):
        loss, gradients = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
        optimizer.update(model, gradients)
        return loss

    seen = observe_call(cr.compile(step, engine="reference"), model, optimizer or optim.SGD(lr=0.1), x, y)
    return statistics(seen)


def batch(rows=64, features=4, seed=0):
    rng = np.random.default_rng(seed)
    return cr.tensor(rng.standard_normal((rows, features)).astype(np.float32)), cr.tensor(rng.integers(0, 2, rows))


# -- measures


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_sharpness_is_the_largest_eigenvalue(seed, size):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = np.concatenate([[10.0], rng.uniform(-4, 5, size - 1)])
    hessian = basis @ np.diag(values) @ basis.T
    weights = {"a": rng.standard_normal(1), "b": rng.standard_normal(size - 1)}

    def gradient(w):
        g = hessian @ np.concatenate([w["a"], w["b"]])
        return {"a": g[:1], "b": g[1:]}

    found, direction = sharpness(gradient, weights, iterations=200, tolerance=1e-7)
    assert found == pytest.approx(10.0, rel=1e-3)
    along = np.concatenate([direction["a"], direction["b"]])
    assert abs(along @ basis[:, 0]) == pytest.approx(1.0, abs=1e-2)


def test_preconditioned_sharpness_is_that_of_the_scaled_hessian():
    hessian, scale = np.diag([4.0, 100.0]), np.array([1.0, 100.0])
    found, _ = sharpness(lambda w: {"w": hessian @ w["w"]}, {"w": np.zeros(2)}, {"w": scale}, iterations=100)
    assert found == pytest.approx(4.0, rel=1e-3)  # 4 / 1 and 100 / 100


@pytest.mark.parametrize(("rate", "grows"), [(0.9, False), (1.1, True)])
@pytest.mark.parametrize(
    "make",
    [lambda lr: optim.SGD(lr=lr), lambda lr: optim.SGD(lr=lr, momentum=0.9), lambda lr: optim.SGD(lr=lr, momentum=0.5)],
)
def test_steps_grow_beyond_the_limit_and_not_below(make, rate, grows):
    """On a parabola of curvature 1 the limit is the rate itself."""
    limit = curvature_limit("SGD", make(1.0).settings)
    optimizer, params = make(rate * limit), {"w": cr.tensor([1.0])}
    for _ in range(100):
        params = optimizer.update(params, {"w": params["w"]})
    assert (abs(params["w"].item()) > 1) is grows


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_noise_scale_is_recovered(seed):
    """Gradients drawn with mean G and covariance Σ / B: the scale is tr Σ / |G|²."""
    rng = np.random.default_rng(seed)
    dimension, size, batches = 2000, 16, 64
    true = rng.standard_normal(dimension)
    true *= 3 / np.linalg.norm(true)
    deviation = 0.8
    gradients = [true + deviation / math.sqrt(size) * rng.standard_normal(dimension) for _ in range(batches)]
    found = noise_scale(gradients, size)
    assert found.scale == pytest.approx(dimension * deviation**2 / 9, rel=0.25)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.5]))
def test_the_gradient_of_many_rows_tells_one_that_drowns_in_that_of_a_few(seed, length):
    rng = np.random.default_rng(seed)
    dimension, rows = 2000, 10_000
    true = rng.standard_normal(dimension)
    true *= length / np.linalg.norm(true)
    gradients = [true + rng.standard_normal(dimension) for _ in range(8)]
    whole = true + rng.standard_normal(dimension) / math.sqrt(rows)
    found = noise_scale(gradients, 1, whole, rows)
    assert found.scale == pytest.approx(dimension / max(length**2, dimension / rows), rel=0.3)


def test_the_noise_scale_is_told_only_where_it_is_out_of_all_proportion():
    before = observed(nn.Linear(4, 2), *batch())
    case = Case(before=before, constant=0.7, batch_size=4, noise=Noise(5e3, 8, 4, rows=8000))
    assert [d.kind for d in noise_told(case)] == ["gradient-noise"]
    assert [d.severity for d in noise_told(dataclasses.replace(case, noise=Noise(1e-4, 8, 4)))] == ["note"]
    assert noise_told(dataclasses.replace(case, noise=Noise(400.0, 8, 4))) == []
    assert noise_told(dataclasses.replace(case, noise=Noise(1e5, 8, 4))) == []  # eight batches cannot tell
    assert noise_told(dataclasses.replace(case, constant=100.0)) == []  # little is left to be learned


# -- trials


def trials(*pairs, before=2.0):
    return [Trial(factor, 50, before, after, math.isfinite(after)) for factor, after in pairs]


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ([(1.0, math.inf), (0.1, 1.0)], True),
        ([(1.0, 5.0), (0.1, 1.9)], True),
        ([(1.0, 2.05), (0.1, 1.2)], True),  # it hops about where a tenth of the rate learns
        ([(1.0, 1.0)], False),
        ([(1.0, 2.05), (0.1, 1.99)], False),  # nothing falls: the rate is not to blame
        ([(1.0, 5.0), (0.1, 4.9), (0.01, 4.8)], False),
    ],
)
def test_too_high_a_rate(after, found):
    assert bool(too_high(Case(trials=trials(*after), constant=2.0, rate=0.1))) is found


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ([(1.0, 1.999), (100.0, 1.5)], True),
        ([(1.0, 2.0), (100.0, 2.0), (1e4, 1.99), (1e6, 0.5)], True),
        ([(1.0, 1.9), (100.0, 0.5)], False),  # not in proportion: curvature is felt
        ([(1.0, 2.0), (100.0, 1.95), (1e4, 3.0), (1e6, math.inf)], False),
    ],
)
def test_too_low_a_rate(after, found):
    assert bool(too_low(Case(trials=trials(*after), constant=2.0, rate=0.1))) is found


# -- data


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.08, 0.16), st.integers(2, 8))
def test_flipped_labels_are_found_and_clean_ones_not(seed, wrong, classes):
    rng = np.random.default_rng(seed)
    y = np.arange(1000) % classes
    x = 10 * np.eye(8)[y] + rng.standard_normal((1000, 8))
    assert noise(Case(x=x, y=y)) == []
    flipped = np.where(rng.permutation(1000) < wrong * 1000, (y + 1) % classes, y)
    found = noise(Case(x=x, y=flipped))
    assert [d.kind for d in found] == ["label-noise"]


@pytest.mark.parametrize("distance", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_classes_that_overlap_are_no_noise(distance):
    """It is a matter of statistics: one alarm in twenty sets of data is allowed."""
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = (rng.random(500) < 0.4).astype(np.int64)
        x = rng.standard_normal((500, 3))
        x[:, 0] += distance * y
        alarms += bool(noise(Case(x=x, y=y)))
    assert alarms <= 1


def test_twins_that_are_natural_are_no_leak():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (500, 4)).astype(np.float32)  # sixteen kinds of rows in all
    assert twins(Case(x=x[:400], x_validation=x[400:])) == []
    x = rng.standard_normal((500, 4)).astype(np.float32)
    assert twins(Case(x=x[:400], x_validation=x[400:])) == []
    assert [d.kind for d in twins(Case(x=x[:400], x_validation=x[350:]))] == ["leakage"]


def test_an_easy_task_is_no_leak():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = (10 * y[:, None] + rng.standard_normal((200, 4))).astype(np.float32)  # every feature tells
    assert leakage(Case(x=x, y=y)) == []
    assert leakage(Case(x=rng.standard_normal((200, 4)).astype(np.float32), y=y)) == []
    x[:, 1:] = rng.standard_normal((200, 3))
    assert [d.kind for d in leakage(Case(x=x, y=y))] == ["leakage"]


# -- history


def rows(*validation, falling=True):
    return [
        {"epoch": i, "loss": 2.0 / i if falling else 1.0, "validation_loss": v} for i, v in enumerate(validation, 1)
    ]


def test_overfitting_begins_where_the_validation_loss_turns():
    found = overfitting(Case(history=rows(2.0, 1.5, 1.0, 1.2, 1.4, 1.5, 1.6, 1.7, 1.8)))
    assert "in epoch 3" in found[0].message and found[0].severity == "warning"


@pytest.mark.parametrize(
    "history",
    [
        rows(2.0, 1.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
        rows(2.0, 1.5, 1.0, 1.01, 1.02, 0.99, 1.01, 1.03, 1.02, 1.01),  # it wavers
        rows(2.0, 1.0, 1.5, 1.6, 1.7),  # too early to say
        rows(2.0, 1.5, 1.0, 1.2, 1.4, 1.5, 1.6, 1.7, 1.8, falling=False),
        [{"epoch": 1, "loss": 1.0}],
    ],
)
def test_no_overfitting(history):
    assert overfitting(Case(history=history)) == []


# -- folding


KINDS = sorted(EXPLAINS.keys() | set().union(*EXPLAINS.values()))


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["error", "warning", "note"])), max_size=8))
def test_nothing_is_lost_in_folding(found):
    given_ = [Diagnosis(kind, severity, "", f"{kind} {i}") for i, (kind, severity) in enumerate(found)]
    told = fold(given_)
    text = "\n".join(map(str, told))
    assert all(d.message in text for d in given_)
    for d in told:
        causes = [
            k for k in told if k.severity != "note" and k is not d and ORDER.get(k.kind, 99) < ORDER.get(d.kind, 99)
        ]
        assert not any(d.kind in EXPLAINS.get(k.kind, ()) for k in causes)
    assert bool(told) is bool(given_)


def test_the_rules_take_a_case_that_knows_nothing():
    assert examine(Case()) == []


# -- the watch


def saturating(scale):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    model.assign({"0.weight": cr.full((8, 4), 1.0) + cr.tensor(np.eye(8, 4, dtype=np.float32))})
    model.assign({"0.weight": model[0].weight * scale})
    return observed(model, *batch())


def test_a_watch_tells_once_what_lasts_and_again_when_it_comes_back():
    ill, well = saturating(100.0), saturating(0.3)
    assert of_step(ill) and not of_step(well)
    watch = Watch(lasting=2)
    told = [bool(watch.look(s)) for s in (ill, well, ill, ill, ill, well, ill, ill, well, well, ill, ill)]
    #                                      once              twice: told    a short absence        gone, and back
    assert told == [False, False, False, True, False, False, False, False, False, False, False, True]


def test_a_watch_calls_units_dead_that_are_so_in_all_its_looks():
    def look(dead):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        bias = np.zeros(8, np.float32)
        bias[dead] = -100
        model.assign({"0.bias": cr.tensor(bias)})
        return observed(model, *batch())

    watch = Watch(lasting=2)
    assert [[d.kind for d in watch.look(look(dead))] for dead in ([0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7])] == [
        [],
        [],
        [],
    ]
    assert [[d.kind for d in watch.look(look(dead))] for dead in ([4, 5, 6, 7], [4, 5, 6, 7])] == [["dead-relus"], []]


def test_a_watch_notes_overfitting_where_the_best_weights_are_kept_only_after_long():
    turned = rows(*[2 - 0.1 * e if e < 10 else 1 + 0.1 * (e - 10) for e in range(1, 40)])
    told = []
    watch = Watch(lasting=1, keeps_best=True)
    for n in range(1, len(turned) + 1):
        told += [(n, d.severity) for d in watch.look(None, turned[:n])]
    assert told == [(30, "note")]


def test_every_kind_is_explained_in_the_documents():
    root = Path(__file__).parents[2]
    written = (root / "docs" / "diagnosis.md").read_text()
    source = "\n".join(p.read_text() for p in (root / "src/chainrule/diagnosis").glob("*.py"))
    kinds = set(re.findall(r'Diagnosis\(\s*"([a-z-]+)"', source)) - {"dead-relus"} | EXPLAINS.keys()
    assert len(kinds) > 20
    assert [kind for kind in kinds if f"**{kind}" not in written] == []


def test_a_plateau_is_what_remains_where_no_batch_could_be_tried():
    seen = Statistics([], [], 1.0, 0.1, 0.01)
    stuck = Case(before=seen, constant=1.0, trials=trials((1.0, 0.999), before=1.0))
    assert [d.kind for d in plateau(stuck)] == ["plateau"]
    assert plateau(Case(before=seen, constant=1.0, trials=trials((1.0, 0.5), before=1.0))) == []
    assert [d.kind for d in plateau(dataclasses.replace(stuck, one_batch=(0.9, 1.0)))] == ["capacity"]
    assert [d.kind for d in plateau(dataclasses.replace(stuck, one_batch=(0.1, 1.0)))] == ["no-signal"]
