"""Going on after an interruption of any kind: the outcome is that of a run that was never interrupted, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import CheckpointError, ConfigError, StateError
from chainrule.train import Callback, Interrupted, evaluation, fit, load_weights, resume, stop
from chainrule.train.checkpoint import list_checkpoints
from chainrule.train.store import Run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
LABELS = (X @ RNG.normal(size=(4, 3))).argmax(1)
WEIGHT = RNG.uniform(0.5, 2.0, 40)


def plain():
    """The parts of a training with much state: dropout, batch statistics, moments, rules, metrics."""
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    return {
        "model": model, "data": (X, LABELS, WEIGHT), "validation": (X[:10], LABELS[:10]), "loss": losses.cross_entropy,
        "optimizer": optim.Adam(lr=0.05), "metrics": ["accuracy", "perplexity"],
        "stop": [stop.plateau(3, monitor="loss")], "progress": "silent",
    }  # fmt: skip


def averaged():
    return plain() | {"ema": optim.EMA(decay=0.8, bias_correction=True)}


def scheduled():
    return plain() | {"schedule": optim.one_cycle(0.1, total_steps=50)}


def on_plateau():
    parts = plain() | {"optimizer": optim.SGD(lr=0.5, momentum=0.9), "stop": None}
    # only a fall by 0.5 counts, so that the rate is halved after the third epoch, and what is remembered matters
    plateau = optim.ReduceOnPlateau(parts["optimizer"], patience=1, factor=0.5, threshold=0.5, threshold_mode="abs")
    return parts | {"schedule": plateau}


def accumulated():
    return plain() | {"optimizer": optim.accumulate(optim.RAdam(lr=0.05), steps=3)}


def lbfgs():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    cr.random.manual_seed(0)
    for parameter in list(model.named_parameters()):
        model.assign({parameter[0]: cr.random.default_generator().normal(parameter[1].shape) * 0.3})
    return plain() | {"model": model, "optimizer": optim.LBFGS(max_iter=3), "stop": None}


CASES = [plain, averaged, scheduled, on_plateau, accumulated, lbfgs]
SETTINGS = {
    "epochs": 6,
    "batch_size": 16,
    "seed": 3,
    "class_weight": {0: 2.0},
}  # 3 batches an epoch, the last of 8 rows


def outcome(parts, result):
    """All that must be equal: weights, buffers, optimiser, history without the seconds, the best."""
    tensors = {f"model.{k}": np.asarray(v) for k, v in parts["model"].state_dict().items()}
    tensors |= {f"optimizer.{k}": np.asarray(v) for k, v in parts["optimizer"].state_dict().items()}
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]
    return (
        {k: v.tobytes() for k, v in tensors.items()},
        history,
        result.best,
        result.best_epoch,
        result.steps,
        result.reason,
    )


class Press(Callback):
    """Ctrl-C after some steps, or in the middle of the evaluation that follows one."""

    def __init__(self, steps=()):
        self.steps = set(steps)

    def on_step(self, training, loss):
        if training.position.step in self.steps:
            self.steps.discard(training.position.step)
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("make", CASES, ids=lambda case: case.__name__)
def test_a_run_interrupted_some_times_ends_with_the_same_bits(make, tmp_path):
    interrupt_at(make, [1, 5, 6, 11], tmp_path)  # after the first step, amid an epoch, at its end, and later


def test_a_run_interrupted_after_every_step_ends_with_the_same_bits(tmp_path):
    interrupt_at(plain, range(1, 19), tmp_path)


def interrupt_at(make, steps, tmp_path):
    parts = make()
    expected = outcome(parts, fit(**parts, **SETTINGS))
    path, press = tmp_path / "run", Press(steps)
    for attempt in range(30):
        parts = make()  # as in a new process
        try:
            if attempt == 0:
                result = fit(**parts, **SETTINGS, run_dir=path, callbacks=[press])
            else:
                result = resume(path, **parts, callbacks=[press])
            break
        except Interrupted as error:
            assert str(path) in str(error)
            assert Run.open(path).status == "interrupted"
    assert attempt == len([s for s in steps if s <= expected[4]])
    assert outcome(parts, result) == expected
    assert Run.open(path).status in ("finished", "stopped")


class Break(Callback):
    """Something breaks: nothing is saved, as if the process had been killed; what was measured may be on the disk."""

    def __init__(self, step=0, epoch=0):
        self.step, self.epoch = step, epoch

    def on_step(self, training, loss):
        if training.position.step == self.step:
            raise RuntimeError("broken")

    def on_epoch(self, training, row):
        if row["epoch"] == self.epoch:
            raise RuntimeError("broken")


def test_the_rate_falls_as_the_case_above_wants_it():
    rates = fit(**on_plateau(), **SETTINGS).history.columns["learning_rate"]
    assert rates == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_what_was_measured_after_the_last_checkpoint_is_forgotten(tmp_path):
    with pytest.raises(RuntimeError):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Break(step=8)])
    run = Run.open(tmp_path / "run")
    assert run.load().step == 0
    assert run.history()[-1]["step"] == 8
    seen = []

    class Look(Callback):
        def on_start(self, training):
            seen.append(Run.open(tmp_path / "run").history())

    parts, whole = plain(), plain()
    result = resume(tmp_path / "run", **parts, callbacks=[Look()])
    assert seen == [[]]
    assert outcome(parts, result) == outcome(whole, fit(**whole, **SETTINGS))


def test_an_interruption_during_evaluation_is_one_too(tmp_path, monkeypatch):
    parts = plain()
    expected = outcome(parts, fit(**parts, **SETTINGS))
    parts, calls = plain(), []
    original = evaluation._evaluated

    def interrupting(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(evaluation, "_evaluated", interrupting)
    with pytest.raises(Interrupted):
        fit(**parts, **SETTINGS, run_dir=tmp_path / "run", callbacks=[Break()])
    step = Run.open(tmp_path / "run").load().step
    with pytest.raises(RuntimeError):  # the row of this very step is recorded, but no checkpoint knows of it
        resume(tmp_path / "run", **plain(), callbacks=[Break(epoch=step // 3)])
    assert Run.open(tmp_path / "run").history()[-1].keys() >= {"validation_loss"}
    parts = plain()
    assert outcome(parts, resume(tmp_path / "run", **parts, callbacks=[Break()])) == expected


def test_the_run_on_the_disk_is_that_of_an_uninterrupted_one_too(tmp_path):
    def recorded(path):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in Run.open(path).history()]

    fit(**plain(), **SETTINGS, run_dir=tmp_path / "a", callbacks=[Press()])
    with pytest.raises(Interrupted):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "b", callbacks=[Press([7])])
    resume(tmp_path / "b", **plain(), callbacks=[Press()])
    assert recorded(tmp_path / "a") == recorded(tmp_path / "b")
    a, b = (Run.open(tmp_path / name).load("best") for name in "ab")
    assert a.step == b.step
    assert {k: v.tobytes() for k, v in a.tensors.items()} == {k: v.tobytes() for k, v in b.tensors.items()}


def test_checkpoints_change_nothing(tmp_path):
    outcomes = []
    for i, every in enumerate(["1 steps", 5, "30 s"]):
        parts = plain()
        outcomes.append(outcome(parts, fit(**parts, **SETTINGS, run_dir=tmp_path / str(i), checkpoint_every=every)))
    parts = plain()
    outcomes.append(outcome(parts, fit(**parts, **SETTINGS)))
    assert all(o == outcomes[0] for o in outcomes)


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    parts = plain()
    first = outcome(parts, fit(**parts, **SETTINGS, run_dir=tmp_path / "run"))
    for _ in range(2):
        parts = plain()
        assert outcome(parts, resume(tmp_path / "run", **parts)) == first
        assert Run.open(tmp_path / "run").status in ("finished", "stopped")


def test_a_finished_run_goes_on_when_more_epochs_are_asked_for(tmp_path):
    options = {"stop": None, "validation": None}
    whole = plain() | options
    expected = outcome(whole, fit(**whole, **SETTINGS))
    shorter = plain() | options
    fit(**shorter, **(SETTINGS | {"epochs": 2}), run_dir=tmp_path / "run")
    parts = plain() | options
    assert outcome(parts, resume(tmp_path / "run", **parts, epochs=6)) == expected


def test_a_time_limit_counts_the_time_before_interruptions(tmp_path):
    parts = plain() | {"stop": stop.time(1000)}
    with pytest.raises(Interrupted):
        fit(**parts, **SETTINGS, run_dir=tmp_path / "run", callbacks=[Press([4])])
    before = Run.open(tmp_path / "run").load().state["position"]["seconds"]
    parts = plain() | {"stop": stop.time(1000)}
    result = resume(tmp_path / "run", **parts, callbacks=[Press()])
    assert result.seconds > before > 0
    seconds = result.history.columns["seconds"]
    assert seconds == sorted(seconds)


def test_callbacks_remember(tmp_path):
    class Count(Callback):
        def __init__(self):
            self.steps = 0

        def on_step(self, training, loss):
            self.steps += 1

        def state(self):
            return {"steps": self.steps}

        def load(self, state):
            self.steps = state["steps"]

    with pytest.raises(Interrupted):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Press([5]), Count()])
    count = Count()
    result = resume(tmp_path / "run", **plain(), callbacks=[Press(), count])
    assert count.steps == result.steps


def test_weights_of_a_run_can_be_loaded(tmp_path):
    for name, make in (("plain", plain), ("averaged", averaged)):
        parts = make()
        fit(**parts, **SETTINGS, run_dir=tmp_path / name)
        model = load_weights(make()["model"], tmp_path / name)
        assert not model.training
        for key, value in parts["model"].state_dict().items():
            assert np.array_equal(np.asarray(model.state_dict()[key]), np.asarray(value))
    load_weights(plain()["model"], tmp_path / "plain", "last")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        load_weights(nn.Linear(4, 3), tmp_path / "plain")


# -- what is not the same run ------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(tmp_path):
    with pytest.raises(Interrupted):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Press([4])])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": (X + 1, LABELS, WEIGHT)}, CheckpointError, "The data given now are not"),
        ({"data": (X, LABELS)}, CheckpointError, "The data given now are not"),
        ({"validation": (X[:9], LABELS[:9])}, CheckpointError, "The validation given now is not"),
        ({"optimizer": optim.SGD(lr=0.1)}, StateError, "does not fit this SGD"),
        ({"stop": None}, ConfigError, "1 stopping rules; now there are 0"),
        ({"callbacks": []}, ConfigError, "1 callbacks; now there are 0"),
        ({"model": nn.Sequential(nn.Linear(4, 3))}, CheckpointError, "0.weight is float32.8, 4. in the checkpoint and"),
    ],
)
def test_another_training_is_not_taken_for_the_same(interrupted, change, error, words):
    with pytest.raises(error, match=words):
        resume(interrupted, **({"callbacks": [Press()]} | plain() | change))
    assert Run.open(interrupted).load().step == 4  # nothing was lost by trying
    assert Run.open(interrupted).status == "interrupted"


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(CheckpointError, match="no run"):
        resume(tmp_path / "nothing", **plain())


def test_a_run_in_training_cannot_be_resumed_beside(tmp_path):
    class Beside(Callback):
        def on_start(self, training):
            with pytest.raises(CheckpointError, match="is being trained"):
                resume(tmp_path / "run", **plain())

    fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Beside()])


# -- kill -9 -----------------------------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import json, shutil, sys
    from pathlib import Path
    import numpy as np
    import chainrule as cr
    from chainrule import losses, nn, optim
    from chainrule.errors import CheckpointError
    from chainrule.train import Callback, fit, resume, stop
    from chainrule.train.store import Run

    class Tell(Callback):
        def on_start(self, training):
            print("started at", training.position.step, flush=True)

    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(45, 4)).astype(np.float32)
    y = (x @ rng.normal(size=(4, 3))).argmax(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    parts = dict(model=model, data=(x, y), loss=losses.cross_entropy, optimizer=optim.AdamW(lr=0.02),
                 metrics=["accuracy"], validation=(x[:10], y[:10]), stop=stop.plateau(1000),
                 callbacks=[Tell()], progress="silent")
    run = folder / "run"
    try:
        Run.open(run)
    except CheckpointError:  # killed before it was a run
        shutil.rmtree(run, ignore_errors=True)
        result = fit(**parts, epochs=epochs, batch_size=8, run_dir=run, checkpoint_every=3)
    else:
        result = resume(run, **parts)
    tensors = {f"model.{k}": np.asarray(v) for k, v in model.state_dict().items()}
    tensors |= {f"optimizer.{k}": np.asarray(v) for k, v in parts["optimizer"].state_dict().items()}
    tensors |= {f"last.{k}": v for k, v in Run.open(run).load("last").tensors.items()}
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    (folder / "outcome.json").write_text(json.dumps([{k: v.tobytes().hex() for k, v in tensors.items()}, history]))
    """
)


def start(folder, epochs):
    environment = os.environ | {"PYTHONPATH": str(Path(cr.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(epochs)], stdout=subprocess.PIPE, env=environment, text=True
    )


def kill_again_and_again(folder, epochs, kills, longest, seed):
    """Kill a training at random moments, each time somebody resumes it; the steps at which it began."""
    moments, starts = random.Random(seed), []
    for _ in range(kills):
        process = start(folder, epochs)
        line = process.stdout.readline()
        if line:
            starts.append(int(line.split()[-1]))
            time.sleep(moments.uniform(0, longest))
        process.kill()
        process.wait()
        process.stdout.close()
    process = start(folder, epochs)
    output, _ = process.communicate()
    assert process.returncode == 0
    return [*starts, int(output.split()[2])]


def check_kills(tmp_path, epochs, kills, longest):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    process = start(tmp_path / "whole", epochs)
    process.communicate()
    assert process.returncode == 0
    starts = kill_again_and_again(tmp_path / "killed", epochs, kills, longest, seed=kills)
    assert len(set(starts)) > kills // 4  # it went on from different places, not always from the first
    assert max(starts) < 6 * epochs  # and the last kill struck before the end
    whole, killed = ((tmp_path / name / "outcome.json").read_text() for name in ("whole", "killed"))
    assert json.loads(killed) == json.loads(whole)
    assert list_checkpoints(tmp_path / "killed" / "run" / "checkpoints")[-1].step == 6 * epochs


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    check_kills(tmp_path, epochs=150, kills=3, longest=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.thorough)])
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_run_killed_many_times_ends_with_the_same_bits(tmp_path, kills):
    check_kills(tmp_path, epochs=75 * kills, kills=kills, longest=0.3)
