"""What a run records of layers and parameters: no bit of the training changes, the budget is kept, steps are exact."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError
from chainrule.train import Callback, Run, SilentProgress, evaluate, fit, resume
from chainrule.train.recorder import Every, Recorder
from chainrule.train.recording import SHARE, Budget, Recording, expected_seconds, work
from chainrule.train.settings import Settings

X = np.random.default_rng(0).normal(size=(70, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 70)
ENGINES = pytest.mark.parametrize("engine", ["reference", "native"])


def network():
    generator = cr.random.Generator(7)
    return nn.Sequential(
        nn.Linear(6, 8, generator=generator),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, 3, generator=generator),
    )


def parts(**options):
    return {
        "model": network(),
        "data": (X, Y),
        "loss": losses.cross_entropy,
        "optimizer": optim.Adam(lr=1e-2),
        "progress": "silent",
    } | options


def train(**options):
    arguments = parts(epochs=4, batch_size=16, **options)
    result = fit(**arguments)
    state = {name: np.asarray(x).copy() for name, x in arguments["model"].state_dict().items()}
    state |= {name: np.asarray(x).copy() for name, x in arguments["optimizer"].state_dict().items()}
    return result, state


def same(a, b):
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


@ENGINES
def test_recording_changes_no_bit_of_what_is_trained(engine, tmp_path):
    results = []
    for record in (None, 1, 3, "auto"):
        result, state = train(engine=engine, record=record, run_dir=tmp_path / f"{record}", metrics=["accuracy"])
        results.append((state, [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]))
    assert all(same(results[0][0], other) for other, _ in results[1:])
    assert all(results[0][1] == rows for _, rows in results[1:])


@ENGINES
def test_every_so_many_steps_means_exactly_that(engine, tmp_path):
    result, _ = train(engine=engine, record=3, run_dir=tmp_path / "run")
    snapshots = Run.open(result.run).snapshots()
    assert [s["step"] for s in snapshots] == list(range(1, 20, 3))
    assert [s["epoch"] for s in snapshots] == [1 + step // 5 for step in range(0, 20, 3)]
    assert Run.open(result.run).snapshots(after=9) == snapshots[3:]
    layers = [(layer["path"], layer["layer"]) for layer in snapshots[0]["layers"]]
    assert layers == [("0", "Linear"), ("1", "BatchNorm1d"), ("2", "ReLU"), ("3", "Dropout"), ("4", "Linear")]
    assert snapshots[0]["learning_rate"] == pytest.approx(1e-2)


@ENGINES
def test_what_is_recorded_is_the_step_that_follows(engine, tmp_path):
    """Its loss is that of the next batch, its update what the step then does to the weights."""

    class Remember(Callback):
        def __init__(self):
            self.losses, self.weights = [], []

        def on_start(self, training):
            self.weights.append(np.asarray(training.model[0].weight).copy())

        def on_step(self, training, loss):
            self.losses.append(loss)
            self.weights.append(np.asarray(training.model[0].weight).copy())

    seen = Remember()
    result, _ = train(engine=engine, record=1, run_dir=tmp_path / "run", callbacks=[seen])
    snapshots = Run.open(result.run).snapshots()
    assert [s["loss"] for s in snapshots] == pytest.approx(seen.losses, rel=1e-5)
    for k, snapshot in enumerate(snapshots):
        update = seen.weights[k + 1].astype(np.float64) - seen.weights[k]
        assert snapshot["parameters"][0]["update"]["norm"] == pytest.approx(np.linalg.norm(update), rel=1e-3)
        ratio = np.linalg.norm(update) / np.linalg.norm(seen.weights[k])
        assert snapshot["parameters"][0]["ratio"] == pytest.approx(ratio, rel=1e-3)


def test_without_a_run_nothing_is_recorded_unless_somebody_listens():
    class Listen(Callback):
        def __init__(self):
            self.seen = []

        def on_record(self, training, snapshot):
            self.seen.append((training.position.step, len(snapshot["layers"])))

    listen = Listen()
    train(record=10, callbacks=[listen])
    assert listen.seen == [(0, 5), (10, 5)]


def test_lbfgs_a_schedule_weights_and_averages_are_no_trouble(tmp_path):
    model = nn.Linear(6, 1)
    fit(
        model, (X, X[:, :1]), loss=losses.mse, optimizer=optim.LBFGS(max_iter=3), epochs=2, batch_size=70, record=1,
        run_dir=tmp_path / "lbfgs", progress="silent",
    )  # fmt: skip
    (first, _) = Run.open(tmp_path / "lbfgs").snapshots()
    assert first["parameters"][0]["update"] is None and first["parameters"][0]["gradient"]["norm"] > 0
    result, _ = train(
        record=4, run_dir=tmp_path / "more", schedule=optim.exponential(0.1, gamma=0.5), ema=optim.EMA(0.9),
        sample_weight=np.linspace(0.5, 1.5, 70), clip_norm=0.1,
    )  # fmt: skip
    rates = [s["learning_rate"] for s in Run.open(result.run).snapshots()]
    assert rates == pytest.approx([0.1 * 0.5**step for step in range(0, 20, 4)])


def test_a_run_that_goes_on_goes_on_recording_and_forgets_what_came_after(tmp_path):
    train(record=2, run_dir=tmp_path / "run")
    run = Run.open(tmp_path / "run", train=True)
    run.record_snapshot(100, 9, {"layers": []})
    run.record_diagnosis(100, 9, {"kind": "gone"})
    run.record_diagnosis(3, 1, {"kind": "kept"})
    run.close()
    resume(tmp_path / "run", **parts(), epochs=6)
    run = Run.open(tmp_path / "run")
    assert [s["step"] for s in run.snapshots()] == list(range(1, 30, 2))
    assert [(d["step"], d["kind"]) for d in run.diagnoses() if d["kind"] in ("gone", "kept")] == [(3, "kept")]


def test_runs_from_before_there_were_recordings_are_read_and_gone_on_with(tmp_path):
    import sqlite3

    train(record=None, run_dir=tmp_path / "run")
    connection = sqlite3.connect(tmp_path / "run" / "metrics.sqlite")
    connection.executescript("DROP TABLE recordings; DROP TABLE diagnoses")
    connection.close()
    assert Run.open(tmp_path / "run").snapshots() == [] == Run.open(tmp_path / "run").diagnoses()
    resume(tmp_path / "run", **parts(), epochs=5)
    assert Run.open(tmp_path / "run").diagnoses() == []


def test_diagnoses_are_kept_logged_and_shown_once(tmp_path):
    class Told(SilentProgress):
        def __init__(self):
            self.told = []

        def say(self, text):
            self.told.append(text)

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model.assign({"0.bias": cr.tensor(np.full(8, -1e3, np.float32))})  # all units are dead
    progress = Told()
    result, _ = train(model=model, record=1, run_dir=tmp_path / "run", progress=progress)
    run = Run.open(result.run)
    kinds = [d["kind"] for d in run.diagnoses()]
    assert kinds and len(kinds) == len(set(kinds)) == len(progress.told)
    assert run.diagnoses()[0]["message"] in progress.told[0]
    assert run.diagnoses()[0]["message"] in (result.run / "log.txt").read_text()


def test_a_progress_of_ones_own_need_not_say_anything(tmp_path):
    class Four:
        def start(self, standing): ...
        def step(self, standing): ...
        def epoch(self, standing): ...
        def finish(self, message): ...

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model.assign({"0.bias": cr.tensor(np.full(8, -1e3, np.float32))})
    result, _ = train(model=model, record=1, run_dir=tmp_path / "run", progress=Four())
    assert Run.open(result.run).diagnoses()


def test_a_recording_that_fails_ends_and_the_training_goes_on(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("chainrule.train.recording.statistics", broken)
    with pytest.warns(UserWarning, match="broken on purpose"):
        result, _ = train(record=2, run_dir=tmp_path / "run")
    assert result.steps == 20
    assert "recording ends at step 0" in (result.run / "log.txt").read_text()


def test_a_model_that_a_callback_changes_is_observed_anew(tmp_path):
    class Freeze(Callback):
        def on_epoch(self, training, row):
            training.model[0].requires_grad_(False)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, _ = train(record=1, run_dir=tmp_path / "run", callbacks=[Freeze()], optimizer=optim.SGD(lr=0.1))
    names = [[p["name"] for p in s["parameters"]] for s in Run.open(result.run).snapshots()]
    assert "0.weight" in names[0] and "0.weight" not in names[-1]


def test_settings_for_recording():
    assert Settings(epochs=1, record=True).record == "auto"
    assert Settings(epochs=1, record=False).record is None
    assert Settings.from_json(Settings(epochs=1, record=5).to_json()).record == 5
    for wrong in (0, -1, "often", 1.5):
        with pytest.raises(ConfigError, match="record"):
            Settings(epochs=1, record=wrong)


# -- the budget, by a clock of our own


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("step", "probe", "first"), [(1e-4, 0.01, 0.1), (0.01, 0.3, 0.3), (0.5, 2.0, 5.0)])
@pytest.mark.parametrize("guess", [0.5, 1.0])
def test_probes_take_no_more_than_their_share_of_the_time(step, probe, first, guess):
    """A training of an hour: chunks of steps of a tenth of a second, a first probe dearer than those that follow."""
    clock = Clock()
    budget = Budget(clock=clock)
    expected, spent, probes = guess * first, 0.0, 0
    shares = []
    while clock.now < 3600:
        clock.now += max(step, 0.1)
        if budget.allows(expected):
            cost = probe if probes else first
            clock.now += cost
            budget.took(cost)
            spent, probes, expected = spent + cost, probes + 1, probe
        shares.append(spent / (clock.now - spent))
    assert probes >= 10
    assert max(shares) <= SHARE * (first / (guess * first)) + 1e-9  # a wrong guess of the first is made good later
    assert shares[-1] <= SHARE
    assert probes <= 256 * (1 + np.log(3600 / 64)) + 1  # cheap ones do not fill the disk


def test_no_probe_comes_before_it_is_earned():
    clock = Clock()
    budget = Budget(share=0.02, clock=clock)
    assert not budget.allows(0.02)
    clock.now = 0.99
    assert not budget.allows(0.02)
    clock.now = 1.01
    assert budget.allows(0.02)
    clock.now += 0.02
    budget.took(0.02)
    assert not budget.allows(0.0)  # a quarter of a second must go by
    clock.now = 2.1
    assert budget.allows(0.02)


def test_the_cost_of_bringing_weights_back_counts(tmp_path):
    """What a probe is said to cost includes the time that its first look at the weights took, once more."""
    clock = Clock()
    run = Run.create(tmp_path)
    setup = cr.train.setup.make_setup(
        **{k: v for k, v in parts().items()}, settings=Settings(epochs=1, batch_size=16, engine="reference")
    )
    setup.recorder.attach(run, {}, 5)
    recording = Recording(setup, clock)
    training = cr.train.loop.Training(setup)
    assert not recording.due(0, 16)  # nothing is known before the first step
    batch = setup.data.gather(np.arange(16), setup.dtype)
    setup.steps.train(setup.model, setup.optimizer, None, batch)
    assert not recording.due(1, 16)
    clock.now = 1e4
    assert not recording.due(1, 6)  # the short batch at the end is no measure
    assert recording.due(1, 16)
    recording.take(training, batch)
    assert len(run.snapshots()) == 1
    assert recording.budget.last == 1e4
    run.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12), st.sampled_from([1, 3, 40]))
def test_losses_of_a_long_run_become_fewer_wherever_chunks_end(chunks, every):
    written = []

    class Notes:
        def record_series(self, name, epoch, points):
            written.extend(points)

    recorder = Recorder(Every.of("1 min"))
    recorder.run, recorder.step_loss_every = Notes(), every
    step = 1
    for steps in chunks:
        recorder.losses(step, 1, np.arange(step, step + steps, dtype=np.float64))
        step += steps

    def is_due(n):
        apart = every
        while n >= 2048 * apart:
            apart *= 2
        return n % apart == 0

    assert written == [(n, float(n)) for n in range(1, step) if is_due(n)]


def test_losses_that_are_no_numbers_are_kept_as_such(tmp_path):
    with Run.create(tmp_path, monitor="loss") as run:
        run.record_series("loss", 1, [(1, 0.5), (2, float("nan")), (3, float("-inf"))])
        run.flush()
        np.testing.assert_array_equal(run.columns()["loss"], [0.5, np.nan, -np.inf])


def test_the_work_of_a_program_counts_products_convolutions_and_loops():
    x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((5, 3, 3, 3), np.float32)
    assert work(cr.trace_program(lambda x, w: cr.conv2d(x, w), x, w)) == 2 * 5 * 6 * 6 * 27
    a, xs = np.ones((4, 4), np.float32), np.ones((10, 2, 4), np.float32)

    def run(a, xs):
        return cr.scan(lambda c, x: (c @ a + x, c), cr.zeros((2, 4)), xs)

    program = cr.trace_program(run, a, xs)
    assert work(program) == 10 * 2 * 4 * 4
    assert expected_seconds(program, natively=True) > expected_seconds(program, natively=False) > 0


def test_evaluating_is_not_recorded():
    assert evaluate(network(), (X, Y), loss=losses.cross_entropy)["loss"] > 0


@ENGINES
def test_loops_attention_and_pictures_are_recorded(engine, tmp_path):
    class Reader(nn.Module):
        def __init__(self):
            self.embedding = nn.Embedding(9, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.recurrent = nn.LSTM(8, 6, batch_first=True)
            self.output = nn.Linear(6, 3)

        def forward(self, x):
            h = self.embedding(x)
            h, _ = self.attention(h, h, h)
            return self.output(self.recurrent(h)[0][:, -1])

    words = np.random.default_rng(0).integers(0, 9, (40, 5))
    train(model=Reader(), data=(words, Y[:40]), engine=engine, record=4, run_dir=tmp_path / "words")
    layers = [(layer["path"], layer["layer"]) for layer in Run.open(tmp_path / "words").snapshots()[-1]["layers"]]
    assert layers == [
        ("embedding", "Embedding"),
        ("attention", "MultiheadAttention"),
        ("recurrent", "LSTM"),
        ("output", "Linear"),
    ]
    pictures = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    train(model=model, data=(pictures, Y[:40]), engine=engine, record=4, run_dir=tmp_path / "pictures")
    (first, *_) = Run.open(tmp_path / "pictures").snapshots()
    assert [layer["layer"] for layer in first["layers"]][:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert all(p["gradient"]["norm"] > 0 for p in first["parameters"] if p["name"] != "0.bias")
