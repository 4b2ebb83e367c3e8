"""fit: what one training does, from the first batch to the weights that are kept."""

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compile import Compiled
from chainrule.errors import ConfigError, DataError, Diverged, IndexOutOfRange
from chainrule.train import Callback, Interrupted, TrainingDiverged, evaluate, fit, metrics, stop
from chainrule.train.batches import row_order
from chainrule.train.store import Run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (X @ RNG.normal(size=(4, 3))).argmax(1)
TARGETS = (X @ RNG.normal(size=(4, 1)) + 0.1).astype(np.float32)


def classifier(dropout=0.0, seed=0):
    cr.random.manual_seed(seed)
    parts = [nn.Linear(4, 8), nn.Tanh(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(8, 3)]
    return nn.Sequential(*parts)


def line(seed=0):
    cr.random.manual_seed(seed)
    return nn.Linear(4, 1)


def learn(model=None, data=(X, LABELS), **options):
    defaults = {
        "loss": losses.cross_entropy, "optimizer": optim.Adam(lr=0.02), "epochs": 3, "batch_size": 16,
        "progress": "silent",
    }  # fmt: skip
    return fit(model or classifier(), data, **(defaults | options))


def regress(model=None, data=(X, TARGETS), **options):
    defaults = {"loss": losses.mse, "optimizer": optim.SGD(lr=0.1)}
    return learn(model or line(), data, **(defaults | options))


def weights(model):
    return {name: np.asarray(x) for name, x in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


# -- what it computes --------------------------------------------------------------------------------------------------


def test_it_is_gradient_descent_on_shuffled_batches():
    # the same by hand, in float64: ŷ = x w + b, loss = mean (ŷ − y)²
    x, y = X.astype(np.float64), TARGETS.astype(np.float64)
    model = line().to(cr.float64)
    w, b = np.asarray(model.weight).T.copy(), np.asarray(model.bias).copy()
    result = regress(model, (x, y), epochs=2, batch_size=20, seed=5)
    for epoch, row in zip((1, 2), result.history, strict=True):
        order, total = row_order(5, epoch, 50), 0.0
        for begin in (0, 20, 40):  # the last batch has 10 rows
            rows = order[begin : begin + 20]
            error = x[rows] @ w + b - y[rows]
            total += (error**2).sum()
            w -= 0.1 * 2 * x[rows].T @ error / len(rows)
            b -= 0.1 * 2 * error.mean(axis=0)
        assert row["loss"] == pytest.approx(total / 50, rel=1e-12)
    assert pytest.approx(w, rel=1e-12) == np.asarray(model.weight).T
    assert np.asarray(model.bias) == pytest.approx(b, rel=1e-12)
    assert result.steps == 6


def test_a_classifier_learns():
    result = learn(epochs=60, metrics=["accuracy"])
    assert result.history[-1]["loss"] < 0.3 < result.history[0]["loss"]
    assert result.history[-1]["accuracy"] > 0.9
    assert result.epochs == 60
    assert result.reason == "all 60 epochs done"


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def once(seed):
        model = classifier(dropout=0.5)
        result = learn(model, seed=seed, validation=(X[:10], LABELS[:10]), metrics=["accuracy"])
        return weights(model), timeless(result.history)

    first, second, other = once(1), once(1), once(2)
    assert same(first[0], second[0])
    assert first[1] == second[1]
    assert not same(first[0], other[0])


def test_the_seed_decides_what_dropout_draws_whatever_was_drawn_before():
    model, other = classifier(dropout=0.5), classifier(dropout=0.5)
    other[2].generator.seed(99)
    learn(model)
    learn(other)
    assert same(weights(model), weights(other))


def test_without_shuffling_rows_come_as_they_stand():
    seen = []

    class Watch(Callback):
        def on_step(self, training, loss):
            seen.append(loss)

    model = line()
    frozen = [((X[i : i + 20] @ np.asarray(model.weight).T + np.asarray(model.bias) - TARGETS[i : i + 20]) ** 2).mean()
              for i in (0, 20, 40)]  # fmt: skip
    regress(model, optimizer=optim.SGD(lr=0.0), batch_size=20, epochs=1, shuffle=False, callbacks=[Watch()])
    assert seen == pytest.approx(frozen, rel=1e-5)


def test_inputs_may_be_several_and_named():
    class Two(nn.Module):
        def __init__(self):
            self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, a, b):
            return self.left(a) + self.right(b)

    results = []
    for data in (((X[:, :2], X[:, 2:]), TARGETS), ({"b": X[:, 2:], "a": X[:, :2]}, TARGETS)):
        cr.random.manual_seed(0)
        results.append(regress(Two(), data, epochs=5).history.columns["loss"])
    assert results[0] == results[1]
    assert results[0][-1] < results[0][0]


def test_without_targets_the_model_learns_to_give_back_its_input():
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    result = fit(
        model,
        X,
        loss=losses.mse,
        optimizer=optim.Adam(lr=0.01),
        epochs=100,
        validation=X[:10],
        metrics="mse",
        progress="silent",
    )
    assert result.history[-1]["loss"] < 0.01
    assert result.history[-1]["validation_mse"] == pytest.approx(result.history[-1]["validation_loss"], rel=1e-6)


def test_memory_mapped_arrays_give_the_same(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert timeless(learn(data=(mapped, LABELS)).history) == timeless(learn().history)


def test_losses_may_be_modules_and_functions_of_ones_own():
    expected = timeless(learn().history)
    assert timeless(learn(loss=nn.CrossEntropyLoss()).history) == expected
    assert timeless(learn(loss=lambda p, t: losses.cross_entropy(p, t)).history) == expected


# -- evaluation --------------------------------------------------------------------------------------------------------


def test_validation_is_in_evaluation_mode_and_leaves_no_trace():
    plain, watched = classifier(dropout=0.5), classifier(dropout=0.5)
    learn(plain, keep_best=False)
    result = learn(watched, keep_best=False, validation=(X[:20], LABELS[:20]), metrics=["accuracy"])
    assert same(weights(plain), weights(watched))
    again = evaluate(watched, (X[:20], LABELS[:20]), loss=losses.cross_entropy, metrics=["accuracy"], batch_size=16)
    assert again["loss"] == result.history[-1]["validation_loss"]
    assert again["accuracy"] == result.history[-1]["validation_accuracy"]


def test_generators_that_draw_in_evaluation_are_put_back():
    class Noisy(nn.Module):
        def __init__(self):
            self.inner, self.generator = nn.Linear(4, 1), cr.random.Generator(0)

        def forward(self, x):
            return self.inner(x) + 0.1 * self.generator.normal((x.shape[0], 1))

    a, b = Noisy(), Noisy()
    b.load_state_dict(a.state_dict())
    regress(a, keep_best=False)
    regress(b, keep_best=False, validation=(X[:20], TARGETS[:20]))
    assert same(weights(a), weights(b))
    assert int(a.generator.count) == int(b.generator.count)


def test_the_model_is_left_ready_to_predict_and_parts_that_rest_stay_at_rest():
    modes = []

    class Look(Callback):
        def on_epoch(self, training, row):
            modes.append([m.training for m in training.model.modules()])

    model = classifier(dropout=0.5)
    model[2].eval()
    learn(model, epochs=1, validation=(X, LABELS), callbacks=[Look()])
    assert modes == [[True, True, True, False, True]]
    assert not any(m.training for m in model.modules())
    learn(model, epochs=1, callbacks=[Look()])
    assert modes[1] == [True] * 5


def test_evaluate_gives_any_metric_and_changes_nothing():
    model = classifier(dropout=0.5)
    before = weights(model)
    values = evaluate(model, (X, LABELS), metrics=["accuracy", "confusion_matrix"])
    assert list(values) == ["accuracy", "confusion_matrix"]
    assert np.trace(values["confusion_matrix"]) / 50 == values["accuracy"]
    assert model.training
    assert same(before, weights(model))
    by_size = [evaluate(model, (X, LABELS), metrics=["perplexity", "f1"], batch_size=n) for n in (50, 7)]
    assert by_size[0]["f1"] == by_size[1]["f1"]


def test_batch_norm_statistics_move_in_training_and_rest_in_evaluation():
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    learn(model, epochs=1, keep_best=False, validation=(X[:20] + 100, LABELS[:20]))
    after = weights(model)
    assert np.abs(after["1.running_mean"]).max() > 0
    assert np.abs(after["1.running_mean"]).max() < 10  # the validation data have a mean of 100
    assert int(after["1.num_batches_tracked"]) == 4


# -- compiling ---------------------------------------------------------------------------------------------------------


def test_nothing_is_compiled_after_the_first_epoch(monkeypatch):
    counts, compiled = [], []
    original = Compiled._specialise

    def counting(self, *args):
        compiled.append(self)
        return original(self, *args)

    class Watch(Callback):
        def on_epoch(self, training, row):
            counts.append(len(compiled))

    monkeypatch.setattr(Compiled, "_specialise", counting)
    learn(classifier(0.5), epochs=4, validation=(X[:20], LABELS[:20]), metrics=["accuracy"], callbacks=[Watch()],
          schedule=optim.cosine(0.02, T_max=16), clip_norm=1.0, ema=optim.EMA(decay=0.9))  # fmt: skip
    assert counts == [4, 4, 4, 4]  # full and last batch, of training and of evaluation


# -- stopping, keeping -------------------------------------------------------------------------------------------------


def test_it_stops_on_a_plateau_and_keeps_the_best_weights():
    # a rate that is far too high in the end: the loss falls, then rises again
    kept = {}

    class Keep(Callback):
        def on_epoch(self, training, row):
            kept[row["epoch"]] = weights(training.model)

    model = line()
    rates = optim.join([0.1, 0.8], milestones=[12])
    result = regress(model, epochs=100, schedule=rates, validation=(X[:25], TARGETS[:25]), stop=stop.plateau(4),
                     callbacks=[Keep()], seed=1)  # fmt: skip
    values = result.history.columns["validation_loss"]
    assert result.best_epoch == int(np.argmin(values)) + 1 == len(values) - 4
    assert result.reason == "validation loss has not improved for 4 epochs"
    assert result.best == min(values)
    assert same(weights(model), kept[result.best_epoch])
    last = line()
    regress(last, epochs=100, schedule=rates, validation=(X[:25], TARGETS[:25]), stop=stop.plateau(4), seed=1,
            keep_best=False)  # fmt: skip
    assert same(weights(last), kept[result.epochs])


def test_it_stops_at_a_threshold_and_after_epochs():
    assert regress(epochs=None, stop=stop.threshold(0.05)).history[-1]["loss"] <= 0.05
    assert regress(epochs=None, stop=[stop.epochs(2), stop.plateau(5)]).epochs == 2
    assert regress(epochs=2, stop=stop.plateau(5)).reason == "all 2 epochs done"


def test_it_stops_in_the_middle_of_an_epoch_when_the_time_is_up():
    result = regress(epochs=None, stop=stop.time(1e-6), validation=(X[:10], TARGETS[:10]))
    assert result.steps == 1
    assert result.epochs == 1
    assert len(result.history) == 1
    assert math.isfinite(result.history[0]["validation_loss"])
    assert "time limit" in result.reason


def test_rules_are_used_afresh_by_each_training():
    rule = stop.plateau(2)
    first = regress(optimizer=optim.SGD(lr=0.0), epochs=50, stop=rule)
    second = regress(optimizer=optim.SGD(lr=0.0), epochs=50, stop=rule)
    assert first.epochs == second.epochs < 50


def test_the_best_may_be_told_by_another_column():
    result = learn(epochs=10, validation=(X[:20], LABELS[:20]), metrics="accuracy", monitor="validation_accuracy")
    values = result.history.columns["validation_accuracy"]
    assert result.best == max(values)
    assert result.best_epoch == int(np.argmax(values)) + 1  # the first of equals


def test_averaged_weights_are_evaluated_and_kept():
    model, ema = line(), optim.EMA(decay=0.5)
    averages = []

    class Look(Callback):
        def on_step(self, training, loss):
            averages.append((weights(training.model), {k: np.asarray(v) for k, v in ema.weights().items()}))

    result = regress(model, ema=ema, epochs=2, batch_size=50, validation=(X, TARGETS), callbacks=[Look()])
    expected = weights(line())
    for own, average in averages:
        expected = {name: expected[name] + np.float32(0.5) * (own[name] - expected[name]) for name in own}
        assert all(average[name] == pytest.approx(expected[name], rel=1e-5) for name in own)
    assert same(weights(model), averages[result.best_epoch - 1][1])
    values = evaluate(model, (X, TARGETS), loss=losses.mse, batch_size=50)
    assert values["loss"] == result.history[-1]["validation_loss"]


# -- rates -------------------------------------------------------------------------------------------------------------


def test_schedules_count_updates():
    seen = []

    class Watch(Callback):
        def on_step(self, training, loss):
            seen.append(training.optimizer.lr)

    schedule = optim.linear(0.1, total_iters=8, start_factor=1.0, end_factor=0.0)
    result = regress(epochs=2, batch_size=16, schedule=schedule, callbacks=[Watch()])
    assert seen == pytest.approx([0.1 * (1 - t / 8) for t in range(1, 9)])
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.05, 0.0])


def test_the_rate_falls_on_a_plateau():
    optimizer = optim.SGD(lr=0.0)
    optimizer.lr = 1e-12
    plateau = optim.ReduceOnPlateau(optimizer, factor=0.5, patience=1, eps=0.0)
    result = regress(optimizer=optimizer, schedule=plateau, epochs=5)
    assert result.history.columns["learning_rate"][-1] < 1e-12
    with pytest.raises(ConfigError, match="another optimiser"):
        regress(schedule=optim.ReduceOnPlateau(optim.SGD(lr=0.1)))
    optimizer = optim.SGD(lr=0.1)
    with pytest.raises(ConfigError, match="mode='min'"):
        regress(optimizer=optimizer, schedule=optim.ReduceOnPlateau(optimizer, mode="max"))


def test_gradients_are_clipped():
    model = line().to(cr.float64)
    before = weights(model)
    regress(
        model,
        (X * 100.0, TARGETS),
        optimizer=optim.SGD(lr=1.0),
        epochs=1,
        batch_size=50,
        clip_norm=0.5,
        keep_best=False,
    )
    moved = np.concatenate([(weights(model)[k] - before[k]).ravel() for k in before])
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-5)


# -- weights of rows and classes ---------------------------------------------------------------------------------------


def test_a_row_of_weight_2_counts_like_two_rows():
    x, y = X[:8].astype(np.float64), TARGETS[:8].astype(np.float64)
    weight = np.array([1, 2, 1, 0, 3, 1, 1, 1])
    a, b = line().to(cr.float64), line().to(cr.float64)
    options = {"epochs": 5, "keep_best": False}
    first = regress(a, (x, y), sample_weight=weight, batch_size=8, **options)
    second = regress(b, (np.repeat(x, weight, axis=0), np.repeat(y, weight, axis=0)), batch_size=10, **options)
    assert first.history.columns["loss"] == pytest.approx(second.history.columns["loss"], rel=1e-12)
    assert np.asarray(a.weight) == pytest.approx(np.asarray(b.weight), rel=1e-12)


@pytest.mark.parametrize("loss", [losses.cross_entropy, nn.CrossEntropyLoss()], ids=["function", "module"])
def test_class_weights_are_weights_of_rows(loss):
    per_class = [1.0, 3.0, 0.5]
    expected = learn(sample_weight=np.take(per_class, LABELS)).history.columns["loss"]
    assert learn(loss=loss, class_weight=per_class).history.columns["loss"] == expected
    assert learn(loss=loss, class_weight=dict(enumerate(per_class))).history.columns["loss"] == expected
    assert learn(loss=loss, class_weight=np.array(per_class) * 7).history.columns["loss"] == pytest.approx(
        expected, rel=1e-6
    )
    balanced = 50 / (3 * np.bincount(LABELS))
    assert (
        learn(class_weight="balanced").history.columns["loss"] == learn(class_weight=balanced).history.columns["loss"]
    )


def test_balanced_weights_are_those_of_the_training_data():
    rare = np.flatnonzero(LABELS == 2)[:2]
    common = np.flatnonzero(LABELS != 2)[:8]
    rows = np.concatenate([rare, common])
    data, held_out = (X[rows], LABELS[rows]), (X[:20], LABELS[:20])
    counts = np.bincount(LABELS[rows], minlength=3)
    by_hand = dict(enumerate(10 / (3 * counts)))
    first, second = (learn(data=data, validation=held_out, class_weight=w) for w in ("balanced", by_hand))
    assert timeless(first.history) == timeless(second.history)


def test_equal_weights_change_nothing_but_the_rounding():
    plain = learn().history.columns["loss"]
    assert learn(sample_weight=np.full(50, 3.0)).history.columns["loss"] == pytest.approx(plain, rel=1e-5)


def test_a_batch_without_any_weight_is_no_disaster():
    weight = np.zeros(50)
    weight[:4] = 1.0
    result = regress(sample_weight=weight, shuffle=False, batch_size=4, epochs=2)
    assert all(math.isfinite(row["loss"]) for row in result.history)


def test_validation_data_have_weights_of_their_own():
    weight = np.arange(10.0)
    model = line()
    result = regress(model, validation=(X[:10], TARGETS[:10], weight), epochs=1, keep_best=False)
    errors = (np.asarray(model(cr.tensor(X[:10]))) - TARGETS[:10]) ** 2
    assert result.history[-1]["validation_loss"] == pytest.approx(
        (errors[:, 0] * weight).sum() / weight.sum(), rel=1e-5
    )


def test_weights_need_a_loss_of_rows():
    with pytest.raises(ConfigError, match="reduction='none'"):
        learn(loss=lambda p, t: losses.cross_entropy(p, t), class_weight="balanced")
    with pytest.raises(ConfigError, match="one value a row"):
        learn(loss=lambda p, t, reduction="mean": losses.cross_entropy(p, t), class_weight="balanced")
    with pytest.raises(ConfigError, match="one class a row"):
        regress(data=(X, np.zeros((50, 2))), class_weight="balanced")
    with pytest.raises(DataError, match="needs classes"):
        regress(class_weight="balanced")
    with pytest.raises(ConfigError, match="has 2 weights"):
        learn(class_weight=[1.0, 2.0])
    for wrong in ("even", {0: -1.0}, {0: math.nan}, [[1.0, 2.0, 3.0]]):
        with pytest.raises(ConfigError, match="class_weight"):
            learn(class_weight=wrong)


# -- L-BFGS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False])
def test_lbfgs_solves_least_squares(bound):
    x, y = X.astype(np.float64), np.random.default_rng(1).normal(size=(50, 1))
    model = line().to(cr.float64)
    optimizer = optim.LBFGS(model if bound else None, line_search_fn="strong_wolfe", tolerance_grad=1e-10,
                            tolerance_change=1e-14)  # fmt: skip
    result = regress(model, (x, y), optimizer=optimizer, epochs=5, batch_size=50, metrics="mse")
    design = np.hstack([x, np.ones((50, 1))])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    found = np.concatenate([np.asarray(model.weight).ravel(), np.asarray(model.bias)])
    assert found == pytest.approx(solution.ravel(), abs=1e-6)
    assert result.steps == 5
    assert result.history[0]["mse"] == pytest.approx(result.history[0]["loss"])


def test_lbfgs_is_not_clipped_and_diverges_with_an_error():
    with pytest.raises(ConfigError, match="clip_norm"):
        regress(optimizer=optim.LBFGS(), clip_norm=1.0)
    model = line()
    before = weights(model)
    with pytest.raises(TrainingDiverged):
        regress(model, optimizer=optim.LBFGS(lr=1e38, max_iter=3), batch_size=50)
    assert same(before, weights(model))


# -- divergence --------------------------------------------------------------------------------------------------------


class Watching(Callback):
    """Keeps the state after each step."""

    def __init__(self):
        self.states = []

    def on_step(self, training, loss):
        optimizer = {k: np.asarray(v) for k, v in training.optimizer.state_dict().items()}
        self.states.append((weights(training.model), optimizer))


@pytest.mark.parametrize("batch_size", [50, 16])
def test_a_loss_that_is_no_number_ends_it_before_the_update(batch_size):
    model, watch = line(), Watching()
    optimizer = optim.SGD(lr=1e4, momentum=0.9)
    with pytest.raises(Diverged, match="Stopped before the update") as caught:
        regress(model, optimizer=optimizer, epochs=100, batch_size=batch_size, callbacks=[watch])
    error = caught.value
    assert error.step == len(watch.states) + 1
    assert f"weights are those of step {len(watch.states)}" in str(error)
    assert same(weights(model), watch.states[-1][0])
    assert same({k: np.asarray(v) for k, v in optimizer.state_dict().items()}, watch.states[-1][1])
    assert all(np.isfinite(x).all() for x in weights(model).values())
    assert set(error.rows) <= set(range(50))
    assert "lower learning rate" in str(error)
    assert "weight" in str(error)
    assert error.result.steps == len(watch.states)


def test_a_gradient_that_is_no_number_is_found_before_it_reaches_the_weights():
    class Root(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.array([1.0, 0.0], np.float32))

        def forward(self, x):
            return x * cr.sqrt(self.weight)  # at 0 the slope is infinite

    for optimizer in (optim.SGD(lr=0.1), optim.accumulate(optim.SGD(lr=0.1), steps=2)):
        model = Root()
        with pytest.raises(TrainingDiverged, match="the gradient of weight is not finite") as caught:
            regress(model, (np.ones((4, 2)), np.ones((4, 2))), epochs=2, batch_size=4, optimizer=optimizer)
        assert caught.value.step == 1
        assert np.asarray(model.weight).tolist() == [1.0, 0.0]


def test_an_update_to_infinity_is_undone():
    model = line()
    with pytest.raises(TrainingDiverged, match="makes weights that are not finite"):
        regress(model, (X * 1e10, TARGETS), optimizer=optim.SGD(lr=3e38), epochs=1, batch_size=50)
    assert same(weights(model), weights(line()))


def test_checks_that_only_eager_losses_make_are_told_as_the_cause():
    class Linear(nn.Module):
        def __init__(self):
            self.inner = nn.Linear(4, 1)

        def forward(self, x):
            return self.inner(x) * 100  # no sigmoid: not a probability

    y = (TARGETS > 0).astype(np.float32)
    with pytest.raises(TrainingDiverged, match="must lie between 0 and 1"):
        regress(Linear(), (X, y), loss=lambda p, t: -cr.mean(cr.log(p)) + losses.binary_cross_entropy(p, t), epochs=1)


def test_a_class_that_does_not_exist_is_an_error_that_says_so():
    labels = LABELS.copy()
    labels[7] = 3
    with pytest.raises(IndexOutOfRange, match=r"is 3, but .* has 3 classes(.|\n)*rows .*\b7\b"):
        learn(data=(X, labels))


# -- being interrupted -------------------------------------------------------------------------------------------------


class Press(Callback):
    """Sends a signal after some step."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_step(self, training, loss):
        if training.position.step == self.step:
            os.kill(os.getpid(), self.number)


def test_ctrl_c_is_heard_between_two_steps():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        learn(callbacks=[Press(6)])
    assert isinstance(caught.value, Interrupted)
    assert caught.value.result.steps == 6
    assert len(caught.value.result.history) == 1
    assert "no run_dir" in str(caught.value)
    assert signal.getsignal(signal.SIGINT) is handler


def test_sigterm_ends_the_process_with_its_own_code():
    with pytest.raises(SystemExit) as caught:
        learn(callbacks=[Press(2, signal.SIGTERM)])
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_at_the_very_end_is_not_lost():
    class Late(Callback):
        def on_epoch(self, training, row):
            if row["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGINT)

    model = classifier()
    with pytest.raises(KeyboardInterrupt) as caught:
        learn(model, callbacks=[Late()])
    assert not isinstance(caught.value, Interrupted)
    assert not model.training


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_a_second_ctrl_c_kills():
    code = """
import os, signal, sys
import numpy as np
from chainrule import losses, nn, optim
from chainrule.train import Callback, fit

class Twice(Callback):
    def on_step(self, training, loss):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        print("still there")

x = np.ones((4, 1))
fit(nn.Linear(1, 1), (x, x), loss=losses.mse, optimizer=optim.SGD(lr=0.1), epochs=1, callbacks=[Twice()])
"""
    environment = os.environ | {"PYTHONPATH": str(Path(cr.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == -signal.SIGINT
    assert result.stdout == ""


def test_in_other_threads_signals_are_left_alone():
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(learn().epochs))
    thread.start()
    thread.join()
    assert outcome == [3]


# -- callbacks, progress -----------------------------------------------------------------------------------------------


def test_callbacks_are_called_in_order_and_may_stop():
    calls = []

    class All(Callback):
        def on_start(self, training):
            calls.append("start")

        def on_step(self, training, loss):
            calls.append(training.position.step)
            if training.position.step == 6:
                training.stop("six are enough")

        def on_epoch(self, training, row):
            calls.append(f"epoch {row['epoch']}")

        def on_end(self, training, reason):
            assert not training.model.training
            calls.append(reason)

    result = learn(epochs=9, callbacks=[All()])
    assert calls == ["start", 1, 2, 3, 4, "epoch 1", 5, 6, "epoch 2", "six are enough"]
    assert result.reason == "six are enough"


class Tape:
    def __init__(self):
        self.seen = []

    def start(self, standing):
        self.seen.append(("start", standing))

    def step(self, standing):
        self.seen.append(("step", standing))

    def epoch(self, standing):
        self.seen.append(("epoch", standing))

    def finish(self, message):
        self.seen.append(("finish", message))


@pytest.mark.parametrize(("engine", "least"), [("reference", 8), ("native", 4)])  # steps, or chunks and rows
def test_progress_hears_everything(monkeypatch, engine, least):
    monkeypatch.setattr("chainrule.train.loop.SHOWN_EVERY", 0.0)
    tape = Tape()
    learn(epochs=2, validation=(X[:10], LABELS[:10]), progress=tape, engine=engine)
    kinds = [kind for kind, _ in tape.seen]
    assert kinds[0] == "start"
    assert kinds.count("epoch") == 2
    assert kinds.count("step") >= least
    last = [standing for kind, standing in tape.seen if kind == "epoch"][-1]
    assert (last.epoch, last.epochs, last.batch, last.batches) == (2, 2, 4, 4)
    assert last.best_epoch in (1, 2)
    assert last.rows_per_second > 0
    assert last.seconds_left == 0
    assert tape.seen[-1][1].startswith("stopped: all 2 epochs done; weights of epoch")


def test_progress_is_finished_when_something_breaks():
    class Break(Callback):
        def on_step(self, training, loss):
            raise RuntimeError("broken")

    tape = Tape()
    with pytest.raises(RuntimeError):
        learn(progress=tape, callbacks=[Break()])
    assert tape.seen[-1] == ("finish", "failed: RuntimeError: broken")


# -- the history -------------------------------------------------------------------------------------------------------


def test_the_history_is_a_table():
    result = learn(epochs=2, validation=(X[:10], LABELS[:10]), metrics=["accuracy", metrics.TopK(2)])
    names = ["epoch", "step", "loss", "accuracy", "top2", "validation_loss", "validation_accuracy", "validation_top2",
             "learning_rate", "seconds"]  # fmt: skip
    assert list(result.history.columns) == names
    assert result.history.columns["step"] == [4, 8]
    assert all(type(value) in (int, float) for row in result.history for value in row.values())
    assert str(result.history).splitlines()[0].split() == names
    assert len(str(result.history).splitlines()) == 3
    assert "2 epochs, 8 steps, best validation_loss" in repr(result)


def test_training_metrics_are_those_of_the_predictions_made_while_training():
    result = regress(optimizer=optim.SGD(lr=0.0), metrics=["mse", "r2"], validation=(X, TARGETS), epochs=1)
    row = result.history[0]
    assert row["mse"] == pytest.approx(row["loss"], rel=1e-6)
    assert row["mse"] == pytest.approx(row["validation_mse"], rel=1e-6)
    assert row["r2"] == pytest.approx(row["validation_r2"], rel=1e-6)


def test_names_of_metrics_with_probabilities_decide_at_one_half():
    class Probability(nn.Module):
        def __init__(self):
            self.inner = nn.Linear(4, 1)

        def forward(self, x):
            return cr.sigmoid(self.inner(x))

    y = (X[:, :1] > 0).astype(np.float32)
    cr.random.manual_seed(0)
    result = regress(Probability(), (X, y), loss=losses.binary_cross_entropy, metrics="accuracy", epochs=60,
                     optimizer=optim.Adam(lr=0.1))  # fmt: skip
    assert result.history[-1]["accuracy"] > 0.9


def test_a_metric_that_is_no_number_has_no_place_in_a_history():
    with pytest.raises(ConfigError, match="not one number"):
        learn(metrics=metrics.ConfusionMatrix())


# -- the run -----------------------------------------------------------------------------------------------------------


def test_without_a_run_dir_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert learn().run is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_holds_configuration_history_checkpoints_and_log(tmp_path):
    result = learn(
        epochs=3,
        run_dir=tmp_path / "runs" / "one",
        validation=(X[:10], LABELS[:10]),
        metrics="accuracy",
        checkpoint_every="1 steps",
    )
    assert result.run == tmp_path / "runs" / "one"
    run = Run.open(result.run)
    assert run.status == "finished"
    assert run.config["fit"]["batch_size"] == 16
    assert run.config["loss"] == "cross_entropy"
    assert run.monitor == "validation_loss"
    rows = [row for row in run.history() if "loss" in row]
    assert [{k: v for k, v in row.items() if k != "batch_loss"} for row in rows] == list(result.history)
    assert len([row for row in run.history() if "batch_loss" in row]) == 12
    assert run.load("best").step == 4 * result.best_epoch
    assert run.load("last").step == 12
    assert run.best.value == result.best
    assert "stopped: all 3 epochs done" in (result.run / "log.txt").read_text()


def test_a_run_that_is_stopped_or_fails_says_so(tmp_path):
    learn(run_dir=tmp_path / "a", stop=stop.threshold(9.0))
    assert Run.open(tmp_path / "a").status == "stopped"
    with pytest.raises(Diverged):
        regress(run_dir=tmp_path / "b", optimizer=optim.SGD(lr=1e6), epochs=99)
    run = Run.open(tmp_path / "b")
    assert run.status == "failed"
    assert "not a number" in run.summary().reason or "infinite" in run.summary().reason
    assert all(np.isfinite(a).all() for n, a in run.load().tensors.items() if n.startswith("model."))


def test_a_run_of_ones_own_may_be_given(tmp_path):
    with Run.create(tmp_path, stem="digits", config={"mine": 1}) as run:
        result = learn(run_dir=run)
        assert result.run == tmp_path / "digits-1"
        assert run.status == "finished"


def test_mistakes_leave_no_folder(tmp_path):
    with pytest.raises(ConfigError):
        learn(run_dir=tmp_path / "a", monitor="los")
    with pytest.raises(DataError):
        learn(data=(X, LABELS[:-1]), run_dir=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": None}, "Nothing says when to stop"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"engine": "warp"}, "no engine 'warp'"),
        ({"loss": nn.CrossEntropyLoss}, r"CrossEntropyLoss\(\)"),
        ({"loss": "cross_entropy"}, "no function"),
        ({"loss": lambda p, t: p * 0}, r"shape \(16, 3\); one floating-point number"),
        ({"loss": lambda p, t: 1.0}, "returned 1.0; one floating-point number"),
        ({"optimizer": optim.Adam}, r"give an object of it: Adam"),
        ({"optimizer": 0.1}, "no optimiser"),
        ({"optimizer": optim.Adam(nn.Linear(2, 2))}, "another model"),
        ({"model": nn.Sequential}, "is the class Sequential"),
        ({"model": lambda x: x}, "an nn.Module was expected"),
        ({"metrics": "acuracy"}, "Did you mean 'accuracy'"),
        ({"stop": "plateau"}, "no stopping rule"),
        ({"stop": stop.plateau(3, monitor="validation_loss")}, "need validation data"),
        ({"schedule": 0.1}, "schedule"),
        ({"callbacks": [print]}, "no callback"),
        ({"monitor": "los"}, "Did you mean 'loss'"),
        ({"checkpoint_every": "often"}, "checkpoint_every"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"checkpoint_every": "1.5 steps"}, "checkpoint_every"),
        ({"progress": "loud"}, "progress"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": math.nan}, "clip_norm"),
        ({"ema": 0.9}, "ema"),
        ({"keep_best": "yes"}, "keep_best"),
        ({"validation": X}, "has targets, the other has none"),
        ({"validation": (X[:, :2], LABELS)}, "must be alike"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_the_first_step(options, words):
    with pytest.raises(ConfigError, match=words):
        learn(**options)


@pytest.mark.parametrize(("rows", "size"), [(5, 2), (7, 3), (4, 1)])
def test_a_last_batch_of_one_row_is_tried_before_the_first_step(rows, size):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    x, y = np.ones((rows, 2), np.float32), np.ones((rows, 1), np.float32)
    options = {"loss": losses.mse, "epochs": 1, "progress": "silent"}
    with pytest.raises(ConfigError, match=r"a single row.*Try batch_size=(\d+)") as caught:
        cr.fit(model, (x, y), batch_size=size, optimizer=optim.SGD(lr=0.1), **options)
    assert int(model[1].num_batches_tracked) == 0
    better = int(str(caught.value).split("batch_size=")[-1].rstrip("."))
    cr.fit(model, (x, y), batch_size=better, optimizer=optim.SGD(lr=0.1), **options)
    cr.fit(nn.Linear(2, 1), (x, y), batch_size=size, optimizer=optim.SGD(lr=0.1), **options)  # others take a single row
