"""Milestones: which steps have one, what is in them, what they cost in space; and that they change nothing."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.replay.runs import LONG, SETTINGS, long, plain

from chainrule.errors import ConfigError
from chainrule.train import Callback, Interrupted, fit, resume
from chainrule.train.checkpoint import checkpoint_files, list_checkpoints, load_checkpoint
from chainrule.train.milestones import CHEAP, FIRST, MOST, WIDEST, Milestones, digests, list_milestones
from chainrule.train.store import Run


def kept(milestones, steps):
    """The steps that have one when a run has made so many."""
    return [k for k in range(0, steps + 1, FIRST) if milestones.due(k) and k % milestones.spacing(steps) == 0]


@given(
    st.integers(1, 1 << 30),
    st.integers(0, 1 << 30),
    st.integers(0, 10**6),
)
def test_never_too_many_and_never_far_apart(size, budget, steps):
    milestones = Milestones(Path("nowhere"), size, budget)
    found = kept(milestones, steps)
    assert len(found) <= min(MOST, budget // size)
    assert len(found) == 0 or found[0] == 0
    if milestones.most == MOST:
        gaps = np.diff([*found, steps])
        assert gaps.max(initial=0) <= max(milestones.first, steps / 16 + 1)


@given(st.integers(1, 1 << 24), st.integers(0, 10**5))
def test_the_next_one_is_where_it_says(size, step):
    milestones = Milestones(Path("nowhere"), size, 1 << 28)
    after = milestones.until_due(step)
    assert milestones.due(step + after)
    assert not any(milestones.due(step + k) for k in range(1, min(after, 5000)))


def test_large_states_are_further_apart():
    spacings = [Milestones(Path("nowhere"), size, 1 << 40).first for size in (1, CHEAP, CHEAP + 1, 4 * CHEAP, 1 << 38)]
    assert spacings == [FIRST, FIRST, 2 * FIRST, 4 * FIRST, WIDEST * FIRST]


def test_one_that_does_not_fit_is_not_written(tmp_path):
    assert not Milestones(tmp_path, 1001, 1000).due(0)
    assert Milestones(tmp_path, 1001, 1000).until_due(0) == float("inf")
    only_first = Milestones(tmp_path, 1001, 2001)
    assert only_first.due(0) and not any(only_first.due(k) for k in range(1, 10_000))


def test_digests_tell_every_bit_name_and_shape_apart():
    one = {"model.w": np.zeros((2, 3), np.float32), "optimizer.step": np.array(3)}
    others = [
        one | {"model.w": np.array([[0, 0, 0], [0, 0, -0.0]], np.float32)},
        one | {"model.w": np.zeros((3, 2), np.float32)},
        one | {"model.w": np.zeros((2, 3), np.int32)},
        {"model.v": one["model.w"], "optimizer.step": one["optimizer.step"]},
    ]
    assert len({digests(each)["weights"] for each in (one, *others)}) == 5
    assert digests(one) == digests({name: one[name].copy() for name in reversed(one)})
    later = digests(one | {"optimizer.step": np.array(4)})
    assert (later["weights"] == digests(one)["weights"], later["state"] == digests(one)["state"]) == (True, False)


def test_a_run_keeps_them_evenly_and_two_equal_runs_keep_the_same(tmp_path):
    for name in ("one", "other"):
        fit(**long(), **LONG, run_dir=tmp_path / name)
    one, other = (list_milestones(tmp_path / name)[0] for name in ("one", "other"))
    assert sorted(one) == list(range(0, 2000, 64))
    assert {k: m.digests for k, m in one.items()} == {k: m.digests for k, m in other.items()}
    assert len({m.digests["weights"] for m in one.values()}) == len(one)
    for milestone in one.values():  # each is intact, and its digests are those of its arrays
        assert digests(load_checkpoint(milestone.path.parent, milestone.step).tensors) == milestone.digests
    assert [info.step for info in list_checkpoints(tmp_path / "one" / "checkpoints")] == [0, 2000]


def test_they_are_thinned_out_as_the_run_grows(tmp_path):
    settings = SETTINGS | {"epochs": 60}  # 540 steps
    size = 5000
    fit(**plain(), **settings, run_dir=tmp_path / "run")
    assert sorted(list_milestones(tmp_path / "run")[0]) == list(range(0, 541, 64))
    milestones = Milestones(tmp_path / "few", size, 4 * size)
    for step in range(0, 1025):
        if milestones.due(step):
            milestones.save(step, {"model.w": np.full(3, step)}, {})
        if step and (tmp_path / "few").is_dir():
            found = list(checkpoint_files(tmp_path / "few"))
            assert len(found) <= 4 and found[0] == 0
    assert found == [0, 512, 1024]


@pytest.mark.parametrize("chunks", ["many", "one by one"])
def test_they_change_nothing(tmp_path, chunks):
    class Each(Callback):
        def on_step(self, training, loss):
            pass

    outcomes = []
    for name, megabytes in (("with", 256), ("without", 0)):
        parts = plain() | ({"callbacks": [Each()]} if chunks == "one by one" else {})
        result = fit(**parts, **SETTINGS, run_dir=tmp_path / name, milestones=megabytes)
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
        outcomes.append(({k: np.asarray(v).tobytes() for k, v in parts["model"].state_dict().items()}, history))
    assert outcomes[0] == outcomes[1]
    assert not (tmp_path / "without" / "milestones").exists()
    names = [sorted(os.listdir(tmp_path / name / "checkpoints")) for name in ("with", "without")]
    assert names[0] == names[1]


def test_an_interrupted_run_has_those_of_one_that_was_not(tmp_path):
    class Press(Callback):
        def __init__(self, *steps):
            self.steps = set(steps)

        def on_step(self, training, loss):
            if training.position.step in self.steps:
                self.steps.discard(training.position.step)
                os.kill(os.getpid(), signal.SIGINT)

    fit(**plain(), **SETTINGS, run_dir=tmp_path / "whole", callbacks=[Press()])
    with pytest.raises(Interrupted):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "cut", callbacks=[Press(64)])
    with pytest.raises(Interrupted):
        resume(tmp_path / "cut", **plain(), callbacks=[Press(130)])
    resume(tmp_path / "cut", **plain(), callbacks=[Press()])
    whole, cut = (list_milestones(tmp_path / name)[0] for name in ("whole", "cut"))
    assert {k: m.digests for k, m in whole.items()} == {k: m.digests for k, m in cut.items()}
    assert sorted(whole) == [0, 64, 128]


def test_resume_forgets_those_that_lie_ahead(tmp_path):
    class Break(Callback):
        def __init__(self, step):
            self.step = step

        def on_step(self, training, loss):
            if training.position.step == self.step:
                raise RuntimeError("broken")

        def on_start(self, training):
            seen.append(sorted(list_milestones(tmp_path / "run")[0]))

    seen = []
    with pytest.raises(RuntimeError):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", callbacks=[Break(140)], checkpoint_every=100)
    assert sorted(list_milestones(tmp_path / "run")[0]) == [0, 64, 128]
    resume(tmp_path / "run", **plain(), callbacks=[Break(None)])
    assert seen == [[], [0, 64]]


def test_resume_does_not_go_on_from_one(tmp_path):
    fit(**plain(), **SETTINGS | {"epochs": 8}, run_dir=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.load().step == 72
    for path in run.checkpoints.iterdir():
        path.unlink()
    parts = plain()
    resume(tmp_path / "run", **parts)  # begins anew, since it has no checkpoint
    assert Run.open(tmp_path / "run").load("last").step == 72


def test_a_run_whose_state_is_too_large_says_that_it_keeps_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["chainrule.train.fit"], "MEGABYTE", 1)
    fit(**plain(), **SETTINGS | {"epochs": 1}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "milestones").exists()
    assert "keeps no milestones" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("megabytes", [-1, 1.5, True, "256", None])
def test_what_is_no_size(megabytes, tmp_path):
    with pytest.raises(ConfigError, match="milestones is a whole number of megabytes"):
        fit(**plain(), **SETTINGS, run_dir=tmp_path / "run", milestones=megabytes)
