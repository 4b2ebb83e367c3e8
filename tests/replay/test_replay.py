"""Any step of a past run, made again to the bit: its loss, its rows, the weights before and after it."""

import hashlib
import os
import shutil
import signal
import sqlite3
import warnings

import numpy as np
import pytest
from tests.replay import runs
from tests.replay.runs import LABELS, SETTINGS, WEIGHT, Watch, X, plain

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import CheckpointError, ConfigError, StateError
from chainrule.replaying import ReplayWarning, replay
from chainrule.train import Callback, Interrupted, TrainingDiverged, fit, resume
from chainrule.train.batches import row_order
from chainrule.train.checkpoint import CheckpointWarning
from chainrule.train.store import Run

CASES = [
    plain, runs.without_metrics, runs.averaged, runs.scheduled, runs.on_plateau, runs.accumulated, runs.by_sign,
    runs.in_float64, runs.augmented,
]  # fmt: skip
STEPS = [1, 9, 10, 65, 144]  # the first, the last of an epoch (6 rows), the next, that after a milestone, the last


def check(make, run, steps, settings, **told):
    """Each of the steps is the one that the run made, as `Watch` saw it and as it was recorded."""
    watch = Watch()
    fit(**make(), **settings, callbacks=[watch])  # the same training step by step, watched, writing nothing
    recorded = {row["step"]: row["batch_loss"] for row in Run.open(run).history() if "batch_loss" in row}
    batches = -(-len(LABELS) // settings["batch_size"])
    for step in steps:
        made = replay(run, **make(), step=step)
        assert made.step == step
        assert made.loss == recorded[step] == made.recorded
        assert made.exact
        assert made.epoch == (step - 1) // batches + 1
        place = (step - 1) % batches * settings["batch_size"]
        rows = row_order(settings["seed"], made.epoch, len(LABELS))[place : place + settings["batch_size"]]
        assert np.array_equal(made.batch.rows, rows)
        assert np.array_equal(made.batch.y, LABELS[rows])
        for found, expected in ((made.before, watch.after[step - 1]), (made.after, watch.after[step])):
            assert found.keys() == expected.keys()
            assert all(found[name].tobytes() == expected[name].tobytes() for name in found), step
        for name, array in made.model.state_dict().items():
            assert np.asarray(array).tobytes() == made.before[name].tobytes()
        assert made.model.training
        assert made.start == told.get("start", made.start)
        assert made.made == step - made.start <= (64 if "start" not in told else step)


@pytest.mark.parametrize("make", CASES, ids=lambda case: case.__name__)
def test_a_replayed_step_has_the_bits_of_the_run(make, tmp_path):
    fit(**make(), **SETTINGS, run_dir=tmp_path / "run")
    check(make, tmp_path / "run", STEPS if make is plain else [10, 65, 144], SETTINGS)


@pytest.mark.parametrize("make", [plain, runs.averaged], ids=lambda case: case.__name__)
def test_on_the_reference_engine_too(make, tmp_path):
    settings = SETTINGS | {"engine": "reference", "epochs": 9}
    fit(**make(), **settings, run_dir=tmp_path / "run")
    check(make, tmp_path / "run", [1, 10, 66, 81], settings)


def test_class_weights_and_clipping_come_from_the_run(tmp_path):
    settings = SETTINGS | {"class_weight": {0: 2.0, 1: 0.5}, "clip_norm": 0.5, "epochs": 3}
    fit(**plain(), **settings, run_dir=tmp_path / "run")
    check(plain, tmp_path / "run", [5, 27], settings)


def test_weights_given_apart_are_given_apart_again(tmp_path):
    def make():
        return plain() | {"data": (X, LABELS), "sample_weight": WEIGHT}

    fit(**make(), **SETTINGS | {"epochs": 2}, run_dir=tmp_path / "run")
    assert replay(tmp_path / "run", **make(), step=12).exact
    with pytest.raises(CheckpointError, match="The data given now are not"):
        replay(tmp_path / "run", **make() | {"sample_weight": None}, step=12)


def test_lbfgs(tmp_path):
    settings = SETTINGS | {"epochs": 3, "batch_size": 70}
    watch = Watch()
    fit(**runs.lbfgs(), **settings, run_dir=tmp_path / "run")
    fit(**runs.lbfgs(), **settings, callbacks=[watch])
    made = replay(tmp_path / "run", **runs.lbfgs(), step=3)
    assert made.loss == made.recorded
    assert all(made.after[name].tobytes() == array.tobytes() for name, array in watch.after[3].items())


def test_the_optimizer_is_as_it_was_before_the_step(tmp_path):
    class Count(Callback):
        def on_step(self, training, loss):
            if training.position.step == 70:
                self.state_then = {k: np.asarray(v).copy() for k, v in training.optimizer.state_dict().items()}

    count = Count()
    fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[count])
    found = replay(tmp_path / "run", **plain(), step=71).optimizer.state_dict()
    assert found.keys() == count.state_then.keys()
    assert all(np.asarray(found[k]).tobytes() == v.tobytes() for k, v in count.state_then.items())


def test_a_resumed_run_is_replayed_across_its_interruption(tmp_path):
    class Press(Callback):
        def __init__(self, step):
            self.step = step

        def on_step(self, training, loss):
            if training.position.step == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Press(101)])
    resume(tmp_path / "run", **plain(), callbacks=[Press(None)])
    check(plain, tmp_path / "run", [100, 101, 102, 128, 129], SETTINGS)


def test_a_run_that_was_ended_amid_an_epoch_and_went_on(tmp_path):
    """The rate is lowered once more at the row amid the epoch, and the replay has to do so, too."""

    class Stop(Callback):
        def __init__(self, step):
            self.step = step

        def on_step(self, training, loss):
            if training.position.step == self.step:
                training.stop("enough")

    fit(**runs.on_plateau(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Stop(75)])
    resume(tmp_path / "run", **runs.on_plateau(), epochs=16, callbacks=[Stop(None)])
    rates = [replay(tmp_path / "run", **runs.on_plateau(), step=step) for step in (75, 76, 144)]
    assert all(made.exact for made in rates)
    assert rates[0].learning_rate >= rates[1].learning_rate > rates[2].learning_rate


def test_the_run_is_only_read_even_while_it_trains(tmp_path):
    def contents():
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    seen = []

    class During(Callback):
        def on_step(self, training, loss):
            if training.position.step == 70:
                seen.append(replay(tmp_path / "run", **plain(), step=60))  # what is on the disk by then

    parts = plain()
    fit(**parts, **SETTINGS, run_dir=tmp_path / "run", callbacks=[During()])
    recorded = {row["step"]: row.get("batch_loss") for row in Run.open(tmp_path / "run").history()}
    assert seen[0].loss == recorded[60]
    before = contents()
    replay(tmp_path / "run", **plain(), step=66)
    assert contents() == before
    undisturbed = plain()
    fit(**undisturbed, **SETTINGS)
    for (name, a), (_, b) in zip(
        parts["model"].named_parameters(), undisturbed["model"].named_parameters(), strict=True
    ):
        assert np.array_equal(np.asarray(a), np.asarray(b)), name


def test_the_explanation_of_a_step(tmp_path):
    fit(**plain(), **SETTINGS | {"epochs": 2}, run_dir=tmp_path / "run")
    made = replay(tmp_path / "run", **plain(), step=12)
    told = made.explain()
    assert told.loss == made.loss
    assert told.step == 12
    assert told.rows == 8
    parameter = told.parameters["4.weight"]
    assert np.array_equal(parameter.value, made.before["4.weight"])
    change = made.after["4.weight"].astype(np.float64) - made.before["4.weight"]
    np.testing.assert_allclose(parameter.update.change, change, rtol=1e-4, atol=1e-7)
    made.model.eval()  # a batch of one row has no statistics
    assert made.explain(row=3).rows == 1
    with pytest.raises(ConfigError, match="has the rows 0 to 7"):
        made.explain(row=8)


def test_a_step_told_as_json(tmp_path):
    fit(**plain(), **SETTINGS | {"epochs": 2}, run_dir=tmp_path / "run")
    told = replay(tmp_path / "run", **plain(), step=12).to_dict()
    assert (told["step"], told["epoch"], told["start"], told["made"], told["exact"]) == (12, 2, 0, 12, True)
    assert len(told["rows"]) == 8
    assert told["loss"] == told["recorded"]


# -- what is lost


@pytest.fixture
def run(tmp_path):
    fit(**plain(), **SETTINGS, run_dir=tmp_path / "run")
    return tmp_path / "run"


def forget(run):
    """Delete all milestones, and the checkpoint of step 0."""
    shutil.rmtree(run / "milestones")
    (run / "checkpoints" / "step-000000000.safetensors").unlink()


def test_without_milestones_it_begins_with_the_model_as_it_was_given(run):
    forget(run)
    check(plain, run, [3, 10], SETTINGS, start=0)


def test_without_milestones_checkpoints_do(tmp_path):
    """Those that are kept: the last three, and the best."""
    fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", checkpoint_every=5, milestones=0)
    assert not (tmp_path / "run" / "milestones").exists()
    assert replay(tmp_path / "run", **plain(), step=144).start == 140
    check(plain, tmp_path / "run", [142], SETTINGS, start=140)


def test_another_model_than_the_run_began_with_is_noticed(run):
    forget(run)
    parts = plain()
    parts["model"] = plain()["model"]
    parts["model"].assign({"0.weight": parts["model"][0].weight * 2})
    with pytest.raises(CheckpointError, match="is not what the run began with"):
        replay(run, **parts, step=3)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not a file of ours"])
def test_a_damaged_milestone_is_passed_over(run, damage):
    path = run / "milestones" / "step-000000064.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(content[:-20] if damage == "cut" else content if damage == "flipped" else b"something else")
    with pytest.warns(CheckpointWarning, match="step-000000064.* is damaged.*the state after step 0 is used instead"):
        made = replay(run, **plain(), step=70)
    assert (made.start, made.exact) == (0, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if damage == "flipped":  # which is seen when it is read
            assert replay(run, **plain(), step=130).start == 128


def test_a_history_that_was_lost_is_told(tmp_path):
    fit(**runs.on_plateau(), **SETTINGS, run_dir=tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "metrics.sqlite") as connection:
        connection.execute("DELETE FROM metrics WHERE name = 'validation_loss'")
    connection.close()
    with pytest.raises(CheckpointError, match="has no validation_loss at step"):
        replay(tmp_path / "run", **runs.on_plateau(), step=20)


def test_another_loss_is_warned_of(run):
    with pytest.warns(ReplayWarning, match="The replay of step 65 .* the run recorded"):
        made = replay(run, **plain() | {"loss": cr.losses.multi_margin}, step=66)
    assert made.exact is False


# -- what cannot be


@pytest.mark.parametrize("step", [0, -1, 145, 10**9])
def test_a_step_that_the_run_has_not_made(run, step):
    with pytest.raises(ConfigError, match=r"out of range.*1 to 144"):
        replay(run, **plain(), step=step)


@pytest.mark.parametrize("step", ["4", 4.0, True, None])
def test_what_is_no_step(run, step):
    with pytest.raises(ConfigError, match="number of a step"):
        replay(run, **plain(), step=step)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": (X + 1, LABELS, WEIGHT)}, CheckpointError, "The data given now are not"),
        ({"optimizer": optim.SGD(lr=0.1)}, StateError, "does not fit this SGD"),
        ({"model": nn.Linear(4, 3)}, CheckpointError, "does not fit this model"),
        ({"model": nn.Linear}, ConfigError, "model is the class Linear"),
    ],
)
def test_other_parts_are_not_taken_for_the_same(run, change, error, words):
    with pytest.raises(error, match=words):
        replay(run, **plain() | change, step=70)


def test_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="no run"):
        replay(tmp_path / "nothing", **plain(), step=1)


def test_the_step_that_ended_a_run_can_be_replayed(tmp_path):
    def make():
        cr.random.manual_seed(0)
        x = X.copy()
        x[17] = 1e30
        return {
            "model": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), "data": (x, LABELS), "loss": losses.cross_entropy,
            "optimizer": optim.SGD(lr=0.1), "progress": "silent",
        }  # fmt: skip

    with pytest.raises(TrainingDiverged) as caught:
        fit(**make(), **SETTINGS, run_dir=tmp_path / "run")
    failed = caught.value.step
    made = replay(tmp_path / "run", **make(), step=failed)
    assert np.array_equal(made.batch.rows, caught.value.rows)
    assert all(np.isfinite(array).all() for array in made.before.values())
    assert not np.isfinite(made.loss) or not all(np.isfinite(array).all() for array in made.after.values())
    with pytest.raises(ConfigError, match=f"1 to {failed}"):
        replay(tmp_path / "run", **make(), step=failed + 1)
