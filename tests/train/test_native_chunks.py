"""Many steps at once in native code: nothing that comes out depends on how many are made together."""

import os
import signal
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compile import Compiled
from chainrule.engines.native import executable as executables
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.native.executable import NativeExecutable, NativeSession
from chainrule.errors import ConfigError, IndexOutOfRange
from chainrule.resident_session import enter
from chainrule.train import Callback, Interrupted, TrainingDiverged, evaluate, fit, resume, stop
from chainrule.train import chunks as chunks_module
from chainrule.train import feed as feed_module
from chainrule.train.batches import read, row_order
from chainrule.train.chunks import SPREADING, Chunks, Pace, added, measure, spreads
from chainrule.train.feed import Feed
from chainrule.train.metrics.choice import BY_NAME, as_metrics
from chainrule.train.steps import Steps
from chainrule.train.store import Run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 4)).astype(np.float32)
LABELS = (X @ RNG.normal(size=(4, 3))).argmax(1)
TARGETS = (X @ RNG.normal(size=(4, 1)) + 0.1).astype(np.float32)


@pytest.fixture
def counted(monkeypatch):
    """The numbers of steps that the engine was asked for at once, while training."""
    seen = []
    original = NativeSession.chunk

    def chunk(self, sources, rows, steps, watch):
        if watch:
            seen.append(steps)
        return original(self, sources, rows, steps, watch)

    monkeypatch.setattr(NativeSession, "chunk", chunk)
    return seen


def at_once(monkeypatch, steps):
    """Chunks of so many steps, whatever the clock says."""
    monkeypatch.setattr(Pace, "within", lambda self, seconds: steps)


def classifier(dropout=0.3, seed=0):
    cr.random.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def line():
    cr.random.manual_seed(0)
    return nn.Linear(4, 1)


def parts(**options):
    """A training with much state: dropout, batch statistics, moments, averages; 9 batches an epoch, the last of 6."""
    defaults = {
        "model": classifier(), "data": (X, LABELS, np.linspace(0.5, 2, 70)), "validation": (X[:20], LABELS[:20]),
        "loss": losses.cross_entropy, "optimizer": optim.Adam(lr=0.02), "epochs": 3, "batch_size": 8, "seed": 3,
        "metrics": ["accuracy", "perplexity"], "progress": "silent", "engine": "native",
    }  # fmt: skip
    return defaults | options


def averaged():
    return parts(ema=optim.EMA(decay=0.8), schedule=optim.one_cycle(0.1, total_steps=27), clip_norm=1.0)


def accumulated():
    return parts(optimizer=optim.accumulate(optim.RAdam(lr=0.05), steps=4))


def without_targets():
    return parts(model=nn.Linear(4, 4), data=X, validation=X[:20], loss=losses.mse, metrics=["r2"])


def several_inputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, a, b):
            return self.a(a) + self.b(b)

    cr.random.manual_seed(0)
    data, validation = ({"a": X, "b": X[:, :2]}, LABELS), ({"a": X[:20], "b": X[:20, :2]}, LABELS[:20])
    return parts(model=Both(), data=data, validation=validation)


def in_float64():
    cr.random.manual_seed(0)
    return parts(model=classifier().to(cr.float64), optimizer=optim.SGD(lr=0.1, momentum=0.9), metrics=[])


CASES = [parts, averaged, accumulated, without_targets, several_inputs, in_float64]


def outcome(arguments, result):
    """All that must be equal: weights, buffers, optimiser, history without the seconds, the best."""
    tensors = {f"model.{k}": np.asarray(v).tobytes() for k, v in arguments["model"].state_dict().items()}
    tensors |= {f"optimizer.{k}": np.asarray(v).tobytes() for k, v in arguments["optimizer"].state_dict().items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    return tensors, rows, result.best, result.best_epoch, result.steps


class Watch(Callback):
    """Looks at the weights after each step."""

    def __init__(self, look=True):
        self.look, self.losses, self.weights = look, [], []

    def on_step(self, training, loss):
        self.losses.append(loss)
        if self.look:
            self.weights.append({k: np.asarray(v).copy() for k, v in training.model.state_dict().items()})


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CASES, ids=lambda case: case.__name__)
def test_it_makes_no_difference_how_many_steps_are_made_at_once(make, monkeypatch, counted):
    outcomes, asked = [], []
    for steps in (1, 3, 100):
        at_once(monkeypatch, steps)
        arguments = make()
        outcomes.append(outcome(arguments, fit(**arguments)))
        asked.append(list(counted))
        counted.clear()
    assert outcomes[0] == outcomes[1] == outcomes[2]
    last = 1 if 70 % 8 else 0
    assert asked == [[1] * 27, [3, 3, 2, last] * 3, [8, last] * 3]


def test_a_callback_that_looks_after_each_step_sees_each_and_changes_nothing(monkeypatch, counted):
    arguments = parts()
    expected = outcome(arguments, fit(**arguments))
    assert max(counted) > 1
    counted.clear()
    watch, unseeing = Watch(), Watch(look=False)
    arguments = parts(callbacks=[watch])
    assert outcome(arguments, fit(**arguments)) == expected
    assert counted == [1] * 27
    arguments = parts(callbacks=[unseeing])
    assert outcome(arguments, fit(**arguments)) == expected
    assert watch.losses == unseeing.losses
    assert len({weights["0.weight"].tobytes() for weights in watch.weights}) == 27


def test_callbacks_that_do_not_ask_for_steps_let_many_be_made(monkeypatch, counted):
    class Quiet(Callback):
        def on_epoch(self, training, row):
            assert training.position.step == 9 * row["epoch"]
            training.optimizer.lr = 0.02 / row["epoch"]  # looks at the optimiser, too, and changes it

    at_once(monkeypatch, 100)
    arguments = parts(callbacks=[Quiet()])
    result = fit(**arguments)
    assert counted == [8, 1] * 3
    assert [row["learning_rate"] for row in result.history] == [0.02, 0.02, 0.01]

    class Each(Quiet):
        def on_step(self, training, loss):
            pass

    again = parts(callbacks=[Each()])
    assert outcome(again, fit(**again)) == outcome(arguments, result)


def test_it_agrees_with_the_reference_engine():
    arguments, other = in_float64(), in_float64() | {"engine": "reference"}
    arguments["model"][3], other["model"][3] = nn.Identity(), nn.Identity()
    result, expected = fit(**arguments), fit(**other)
    assert result.history.columns["loss"] == pytest.approx(expected.history.columns["loss"], rel=1e-10)
    assert result.history.columns["validation_loss"] == pytest.approx(
        expected.history.columns["validation_loss"], rel=1e-10
    )


def test_threads_make_no_difference():
    outcomes = []
    for threads in (1, 2, 3):
        arguments = parts(threads=threads)
        outcomes.append(outcome(arguments, fit(**arguments)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_threads_are_checked_before_the_first_step():
    with pytest.raises(ConfigError, match="threads=0"):
        fit(**parts(threads=0))
    with pytest.raises(ConfigError, match="reference engine has nothing to choose"):
        fit(**parts(threads=2, engine="reference"))


# -- interrupted, recorded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_a_run_that_is_interrupted_between_chunks_ends_with_the_same_bits(steps, monkeypatch, tmp_path):
    arguments = averaged()
    expected = outcome(arguments, fit(**arguments))
    at_once(monkeypatch, steps)
    original, path, times = Chunks.run, tmp_path / "run", 0

    def run(self, *rest):
        if self.trains and RNG.random() < 0.3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *rest)

    monkeypatch.setattr(Chunks, "run", run)
    arguments = averaged()
    while True:
        try:
            if not times:
                result = fit(**arguments, run_dir=path)
            else:
                keep = ("epochs", "batch_size", "seed", "engine", "clip_norm")
                result = resume(path, **{k: v for k, v in arguments.items() if k not in keep})
            break
        except Interrupted:
            times += 1
            arguments = averaged()
    assert times > 0
    assert outcome(arguments, result) == expected
    assert len(result.history) == 3


def test_checkpoints_come_at_the_same_steps_and_hold_the_same(monkeypatch, tmp_path):
    for name, steps in (("one", 1), ("many", 100)):
        at_once(monkeypatch, steps)
        fit(**parts(run_dir=tmp_path / name, checkpoint_every=5, keep_best=False))
    saved = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("one", "many")]
    assert saved[0] == saved[1] and len(saved[0]) > 2
    one, many = (Run.open(tmp_path / name) for name in ("one", "many"))
    assert [{**row, "seconds": 0} for row in one.history()] == [{**row, "seconds": 0} for row in many.history()]
    assert len([row for row in one.history() if "batch_loss" in row]) == 27
    for a, b in zip(one.load("last").tensors.items(), many.load("last").tensors.items(), strict=True):
        assert a[0] == b[0] and a[1].tobytes() == b[1].tobytes()


def test_steps_are_counted_up_to_a_checkpoint(monkeypatch, tmp_path, counted):
    at_once(monkeypatch, 100)
    fit(**parts(run_dir=tmp_path / "run", checkpoint_every=5, epochs=2))
    assert counted == [5, 3, 1, 1, 5, 2, 1]


def test_ctrl_c_is_heard_between_chunks(monkeypatch):
    at_once(monkeypatch, 3)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted) as caught:
        fit(**parts(epochs=100_000))
    assert caught.value.result.steps > 0


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_rules_that_want_each_step_see_each_in_order(counted):
    class At(stop.Rule):
        def __init__(self):
            self.seen = []

        def __deepcopy__(self, memo):
            return self

        def after_step(self, step, seconds):
            self.seen.append(step)
            return "enough" if step == 13 else None

    rule = At()
    result = fit(**parts(stop=rule))
    assert rule.seen == list(range(1, 14))
    assert (result.steps, result.reason) == (13, "enough")


def test_a_time_limit_shortens_the_last_chunk(counted):
    many = np.tile(X, (1000, 1))
    result = fit(**parts(data=(many, np.tile(LABELS, 1000)), stop=stop.time(1.5), epochs=100_000, validation=None))
    assert "time limit" in result.reason
    assert 1.5 <= result.seconds < 4.0
    assert max(counted) > 8


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def diverge(monkeypatch, steps, **options):
    """(step, message, weights, rows counted)"""
    at_once(monkeypatch, steps)
    arguments = parts(keep_best=False, validation=None, **options)
    with pytest.raises(TrainingDiverged) as caught:
        fit(**arguments)
    weights = {k: np.asarray(v).copy() for k, v in arguments["model"].state_dict().items()}
    assert all(np.isfinite(w).all() for w in weights.values())
    return caught.value.step, str(caught.value), weights, caught.value.rows.tolist()


def root_of_error(prediction, target):
    """Its derivative, not its value, is infinite where there is no error."""
    return cr.sum(cr.sqrt(cr.abs(prediction - target)))


def same(a, b):
    return a[0] == b[0] and a[1] == b[1] and a[3] == b[3] and all(np.array_equal(a[2][k], b[2][k]) for k in a[2])


def test_a_rate_that_is_too_high_ends_it_before_the_bad_step(monkeypatch):
    options = {"data": (X, TARGETS), "loss": losses.mse, "optimizer": None, "metrics": ["mae"], "model": None}
    found = []
    for steps in (1, 4, 100):
        options |= {"model": line(), "optimizer": optim.SGD(lr=30.0)}
        found.append(diverge(monkeypatch, steps, **options))
    assert same(found[0], found[1]) and same(found[0], found[2])
    assert found[0][0] > 9
    assert f"weights are those of step {found[0][0] - 1}" in found[0][1]
    reference = diverge(monkeypatch, 1, **options | {
        "model": line(), "optimizer": optim.SGD(lr=30.0), "engine": "reference"
    })  # fmt: skip
    assert reference[0] == found[0][0]


@pytest.mark.parametrize("alike", [True, False], ids=["memory taken over", "copied"])
def test_the_way_back_leads_through_epochs_and_their_last_batches(alike, monkeypatch):
    """Nothing is saved but at the very beginning."""
    saves, original = [], NativeSession.save
    monkeypatch.setattr(NativeSession, "save", lambda self: saves.append(original(self)))
    y = TARGETS.copy()
    options = {"data": (X, y), "loss": losses.mse, "metrics": ["mae"]}
    expected = diverge(monkeypatch, 1, **options, model=line(), optimizer=optim.SGD(lr=30.0))
    saves.clear()
    if alike:
        monkeypatch.setattr(chunks_module, "AGAIN", 1e12)
    else:
        numbers = iter(range(10**6))
        monkeypatch.setattr(executables, "_lies", lambda slot: next(numbers))
    found = diverge(monkeypatch, 100, **options, model=line(), optimizer=optim.SGD(lr=30.0))
    assert found[0] > 9 and same(found, expected)
    searched = 2 + int(np.log2(8))
    assert len(saves) <= 1 + searched if alike else len(saves) > 2


def test_weights_that_are_spoiled_though_the_loss_is_fine(monkeypatch):
    y = np.ones((70, 1), np.float32)
    x = np.ones((70, 4), np.float32)
    row = row_order(3, 1, 70)[8 * 5 + 2]  # in the sixth step
    model = nn.Linear(4, 1, bias=False)
    found = []
    for steps in (1, 2, 100):
        model.assign({"weight": cr.tensor(np.zeros((1, 4), np.float32))})
        y[row] = 0
        x[row] = 0
        found.append(diverge(
            monkeypatch, steps, model=model, data=(x, y), loss=root_of_error, optimizer=optim.SGD(lr=1e-4), metrics=[]
        ))  # fmt: skip
    assert found[0][0] == 6
    assert "the gradient of weight is not finite" in found[0][1]
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_what_was_measured_before_a_bad_step_is_the_same(monkeypatch, tmp_path):
    rows = []
    for steps in (1, 100):
        path = tmp_path / str(steps)
        diverge(
            monkeypatch, steps, model=line(), data=(X, TARGETS), loss=losses.mse, optimizer=optim.SGD(lr=30.0),
            metrics=["mae"], run_dir=path,
        )  # fmt: skip
        rows.append([{**row, "seconds": 0} for row in Run.open(path).history()])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("steps", [1, 100])
def test_a_class_that_does_not_exist_leaves_the_state_before_that_step(steps, monkeypatch):
    labels = LABELS.copy()
    row = row_order(3, 1, 70)[8 * 4 + 1]  # in the fifth step
    labels[row] = 7
    at_once(monkeypatch, steps)
    arguments = parts(data=(X, labels), metrics=[], validation=None)
    with pytest.raises(IndexOutOfRange, match=rf"7.*{row}"):
        fit(**arguments)

    class Stop(Callback):
        def on_step(self, training, loss):
            if training.position.step == 4:
                training.stop("here")

    whole = parts(data=(X, LABELS), metrics=[], validation=None, callbacks=[Stop()], keep_best=False)
    fit(**whole)
    for name, tensor in whole["model"].state_dict().items():
        if "generator" not in name:  # the eager run that explains the error has drawn from it
            assert np.array_equal(np.asarray(tensor), np.asarray(arguments["model"].state_dict()[name])), name


@pytest.mark.parametrize("kind", SPREADING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("steps_before", [0, 7])
def test_gradients_that_are_not_finite_reach_the_weights(kind, bad, steps_before):
    optimizer = kind(lr=0.01)
    clipped = optim.chain(optim.clip_by_global_norm(1.0), kind(lr=0.01))
    assert spreads(optimizer) and spreads(clipped)
    for each in (optimizer, clipped):
        params = {"w": cr.tensor([1.0, 2.0])}
        for _ in range(steps_before):
            params = each.update(params, {"w": cr.tensor([0.5, -0.25])})
        params = each.update(params, {"w": cr.tensor([0.5, bad])})
        assert not np.isfinite(np.asarray(params["w"])).all()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optim.Lion(lr=0.01),
        lambda: optim.accumulate(optim.SGD(lr=0.01), 2),
        lambda: optim.chain(optim.clip_by_value(1.0), optim.SGD(lr=0.01)),
    ],
    ids=["lion", "accumulate", "clip_by_value"],
)
def test_gradients_that_do_not_reach_the_weights_are_looked_at(optimizer, monkeypatch):
    found = []
    for steps in (1, 100):
        x, y = np.zeros((70, 4), np.float32), np.ones((70, 1), np.float32)
        x[row_order(3, 1, 70)[8 * 4 + 2]] = 1e20  # in the fifth step: a prediction of 0, whose slope is infinite
        model = nn.Linear(4, 1, bias=False)
        model.assign({"weight": cr.tensor(np.zeros((1, 4), np.float32))})
        assert not spreads(optimizer())
        found.append(diverge(
            monkeypatch, steps, model=model, data=(x, y), loss=lambda p, t: cr.sum(p) * 1e20, optimizer=optimizer(),
            metrics=[],
        ))  # fmt: skip
    assert found[0][0] == 5
    assert "the gradient of weight is not finite" in found[0][1]
    assert same(*found)


# -- where the rows come from ------------------------------------------------------------------------------------------


def forms(tmp_path):
    """The same data in other forms."""
    path = tmp_path / "x.npy"
    np.save(path, X)
    yield "float64", X.astype(np.float64), LABELS
    yield "not contiguous", np.asfortranarray(X), LABELS
    yield "every other column", np.repeat(X, 2, axis=1)[:, ::2], LABELS
    yield "big-endian", X.astype(">f4"), LABELS.astype(">i8")
    yield "a mapped file", np.load(path, mmap_mode="r"), LABELS
    yield "reversed", X[::-1].copy()[::-1], LABELS


@pytest.mark.parametrize("share", [8, 1 << 60], ids=["in memory", "read ahead"])
def test_the_form_of_the_data_makes_no_difference(share, monkeypatch, tmp_path):
    at_once(monkeypatch, 3)
    arguments = parts()
    expected = outcome(arguments, fit(**arguments))
    for name, x, labels in forms(tmp_path):
        monkeypatch.setattr(feed_module, "SHARE", share)
        arguments = parts(data=(x, labels, np.linspace(0.5, 2, 70)))
        assert outcome(arguments, fit(**arguments)) == expected, name


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.bool_, np.float16])
def test_inputs_that_are_no_floats_stay_what_they_are(dtype, monkeypatch):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x.astype(cr.float32) / 3)

    x = (np.abs(X) * 50).astype(dtype)
    cr.random.manual_seed(0)
    weights = nn.Linear(4, 3).state_dict()
    results = []
    for engine in ("native", "reference"):
        model = Scaled()
        model.linear.load_state_dict(weights)
        results.append(fit(**parts(model=model, data=(x, LABELS), validation=None, engine=engine)))
    losses = [result.history.columns["loss"] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_is_read_ahead_is_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(feed_module, "SHARE", 1 << 60)
    data = read((np.asfortranarray(X), LABELS))
    feed, order = Feed(data, cr.float32), row_order(0, 1, 70)
    assert feed.streams
    for begin, count, ahead in ((0, 16, 16), (16, 16, 24), (32, 8, 8), (48, 8, 100), (56, 14, 1)):
        (x, y), numbers = feed.rows(order, begin, count)
        feed.ahead(order, begin + count, ahead)
        assert np.array_equal(x[numbers], X[order[begin : begin + count]])
        assert np.array_equal(y[numbers], LABELS[order[begin : begin + count]])
    feed.close()
    feed.close()


def test_an_error_while_reading_is_not_lost(monkeypatch):
    monkeypatch.setattr(feed_module, "SHARE", 1 << 60)

    class Failing(np.ndarray):
        def __getitem__(self, key):
            if isinstance(key, np.ndarray):
                raise OSError("the disk is gone")
            return super().__getitem__(key)

    x = np.asfortranarray(X).view(Failing)
    with pytest.raises(OSError, match="the disk is gone"):
        fit(**parts(data=(x, LABELS), validation=None))


# -- evaluation, metrics -----------------------------------------------------------------------------------------------


def test_evaluation_gives_the_same_however_many_batches_at_once(monkeypatch):
    model = classifier()
    results = []
    for steps in (1, 2, 100):
        at_once(monkeypatch, steps)
        results.append(evaluate(
            model, (X, LABELS), loss=losses.cross_entropy, metrics=["accuracy", "perplexity"],
            batch_size=16, engine="native",
        ))  # fmt: skip
    assert results[0] == results[1] == results[2]
    expected = evaluate(model, (X, LABELS), loss=losses.cross_entropy, metrics=["accuracy", "perplexity"])
    assert results[0] == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_evaluation_goes_on_where_a_loss_is_not_a_number():
    model, x = line(), X.copy()
    model.assign({"weight": cr.tensor(np.full((1, 4), 1e30, np.float32))})
    result = evaluate(model, (x, TARGETS), loss=losses.mse, metrics=["mae"], batch_size=8, engine="native")
    assert result["loss"] == np.inf
    assert np.isfinite(result["mae"])


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"confusion_matrix"}))
def test_metrics_by_name_take_many_batches_at_once(name):
    (one,), (many,) = as_metrics(name), as_metrics(name)
    assert many.by_rows
    classes = name in ("auc",)
    regression = name in ("mae", "mse", "rmse", "r2")
    predictions = RNG.normal(size=(5, 14, 2 if classes else 7)).astype(np.float32)
    targets = predictions.reshape(70, -1) + 1 if regression else RNG.integers(0, predictions.shape[2], 70)
    measure([many], predictions, targets, 5)
    for k in range(5):
        one.update(predictions[k], targets[14 * k : 14 * k + 14])
    assert one.compute() == many.compute()
    assert {k: v.tobytes() for k, v in one.sums.items()} == {k: v.tobytes() for k, v in many.sums.items()}


def test_metrics_of_ones_own_see_each_batch(monkeypatch):
    at_once(monkeypatch, 100)
    seen = []

    class Sizes(cr.metrics.Accuracy):
        name = "sizes"

        def update(self, prediction, target):
            seen.append((len(prediction), len(target)))
            super().update(prediction, target)

    def spread(prediction, target):
        return float(prediction.max() - prediction.min())

    assert not Sizes().by_rows
    fit(**parts(metrics=[Sizes(), spread], validation=None, epochs=1))
    assert seen == [(8, 8)] * 8 + [(6, 6)]


def test_losses_are_added_one_after_the_other():
    losses_seen = RNG.normal(size=1000) * 10.0 ** RNG.integers(-8, 8, 1000)
    total = 0.1
    for loss in losses_seen:
        total += loss * 16
    assert added(added(0.1, losses_seen[:123], 16), losses_seen[123:], 16) == total


def test_results_of_a_chunk_take_limited_memory(monkeypatch, counted):
    at_once(monkeypatch, 100)
    monkeypatch.setattr(chunks_module, "RESULTS", 2 * (8 * 3 + 1) * 4)  # the predictions and losses of two steps
    fit(**parts(epochs=1))
    assert counted == [2, 2, 2, 2, 1]


# -- speed -------------------------------------------------------------------------------------------------------------


def test_chunks_grow_to_a_tenth_of_a_second():
    pace = Pace()
    sizes = []
    for _ in range(8):
        sizes.append(pace.within(2.0))
        pace.took(sizes[-1], sizes[-1] * 1e-5, 1e-4)
    assert sizes[:5] == [1, 8, 64, 512, 4096]
    assert sizes[5:] == pytest.approx([10_000] * 3, rel=1e-3)
    assert pace.within(0.01) == pytest.approx(1000, rel=1e-2)
    pace.took(100, 1.0, 0.02)  # looking at the weights takes long, so a chunk lasts a second
    assert pace.steps == 100


def test_nothing_is_done_by_the_step_in_python(monkeypatch):
    """20,000 steps of a small network, in a few calls."""
    calls = []
    original = Chunks.run
    monkeypatch.setattr(Chunks, "run", lambda self, *rest: calls.append(1) or original(self, *rest))
    monkeypatch.setattr(Steps, "train", lambda *rest: pytest.fail("step by step"))
    many = np.tile(X, (1143, 1))[:80_000]
    result = fit(**parts(
        data=(many, np.tile(LABELS, 1143)[:80_000]), epochs=2, metrics=["accuracy"], validation=None
    ))  # fmt: skip
    assert result.steps == 20_000
    assert len(calls) < 100


def test_nothing_is_compiled_after_the_first_epoch(monkeypatch):
    compiled = []
    original = NativeEngine.compile
    monkeypatch.setattr(
        NativeEngine, "compile", lambda self, *rest: compiled.append(rest[0].name) or original(self, *rest)
    )
    numbers = []

    class Count(Callback):
        def on_epoch(self, training, row):
            numbers.append(len(compiled))

    fit(**parts(epochs=4, callbacks=[Count()]))
    assert numbers == [4] * 4  # training and evaluation, with the last batch of each
    assert sorted(set(compiled)) == ["_evaluate", "_train"]


def test_last_batches_take_turns_with_the_others_without_a_look_through_the_objects(monkeypatch):
    looks = []
    original = Compiled.look
    monkeypatch.setattr(Compiled, "look", lambda self, *rest: looks.append(1) or original(self, *rest))
    arguments = parts(epochs=10, validation=None, keep_best=False)
    expected = outcome(arguments, fit(**arguments))
    assert len(looks) == 2  # one for each number of rows

    class Look(Callback):  # brings everything back after each epoch
        def on_epoch(self, training, row):
            np.asarray(training.model[0].weight)

    arguments = parts(epochs=10, validation=None, keep_best=False, callbacks=[Look()])
    assert outcome(arguments, fit(**arguments)) == expected
    assert len(looks) == 2 + 2 + 9  # for the last batch never again


def test_objects_pass_from_session_to_session_unless_somebody_has_looked():
    def step(model, x):
        model.assign({"weight": model.weight + cr.sum(x), "bias": model.bias + 1})
        return cr.sum(x)

    compiled, model = cr.compile(step, engine="native"), line()
    before = np.asarray(model.weight)
    one, two = (enter(compiled, model, cr.ones((n, 4))) for n in (1, 2))
    assert one.like(two) and not one.current and two.current
    assert not one.pass_on(two)  # they are no longer there
    for present, other in ((two, one), (one, two), (two, one)):
        present.use(lambda session: session.step([np.ones((1 if session is one.home.session else 2, 4), np.float32)]))
        assert present.pass_on(other) and other.current and not present.current
    np.testing.assert_array_equal(np.asarray(model.weight), ((before + 8) + 4) + 8)
    np.testing.assert_array_equal(np.asarray(model.bias), np.asarray(line().bias) + 1 + 1 + 1)
    assert not one.current and not one.pass_on(two)
    one = enter(compiled, model, cr.ones((1, 4)))
    model.note = "changed"
    assert not one.pass_on(two)
    other = line()
    other.note = "from the beginning"
    assert not enter(compiled, other, cr.ones((1, 4))).like(two)


def test_it_says_what_it_runs_on(capsys):
    result = fit(**parts(progress="plain", threads=2, epochs=2))
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == result.device
    assert "2 threads; " in result.device and " kernels in " in result.device
    assert result.rows_per_second > 0


# -- where it does not work that way -----------------------------------------------------------------------------------


def test_lbfgs_goes_step_by_step(counted):
    result = fit(**parts(model=line(), data=(X, TARGETS), loss=losses.mse, optimizer=optim.LBFGS(max_iter=3),
                         validation=None, metrics=[], batch_size=70, epochs=5))  # fmt: skip
    assert result.history[-1]["loss"] < 1e-6
    assert not counted


def test_an_engine_that_cannot_is_asked_for_single_steps(monkeypatch, counted):
    class Plain:  # a Session, but no ChunkSession
        def __init__(self, executable):
            inside = NativeSession(executable)
            self.load, self.step, self.fetch = inside.load, inside.step, inside.fetch

    arguments = parts()
    expected = fit(**arguments).history.columns["loss"]
    counted.clear()
    monkeypatch.setattr(NativeExecutable, "open", lambda self: Plain(self))
    result = fit(**parts())
    assert not counted
    assert result.history.columns["loss"] == pytest.approx(expected, rel=1e-5)


def test_another_thread_may_look_at_any_time():
    arguments = parts(epochs=200, validation=None)
    expected = outcome(arguments, fit(**arguments))
    arguments = parts(epochs=200, validation=None)
    going, seen = True, []

    def look():
        while going:
            seen.append(np.isfinite(np.asarray(arguments["model"][0].weight)).all())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        result = fit(**arguments)
    finally:
        going = False
        thread.join()
    assert outcome(arguments, result) == expected
    assert all(seen)
