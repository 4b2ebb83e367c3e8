"""Runs keep what was measured, are trained by one process at a time, and tell the truth after a kill."""

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train import store as module
from chainrule.train.checkpoint import list_checkpoints
from chainrule.train.store import Best, Run, list_runs

# The library under test is the one that this process imported, wherever it lies.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def run_to_end(script: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=True,
        capture_output=True,
        timeout=120,
        env=ENVIRONMENT,
    )


# Making a run


def test_a_new_run_is_a_folder_with_its_parts(tmp_path):
    config = {"lr": 1e-3, "stop": [None, float("inf")]}
    with Run.create(tmp_path / "deep" / "runs", "first", config=config, monitor="validation", mode="max") as run:
        assert run.path == tmp_path / "deep" / "runs" / "first"
        assert run.name == "first"
        assert run.status == "running"
        run.log("begun")
    again = Run.open(run.path)
    assert (again.config, again.monitor, again.mode) == (config, "validation", "max")
    assert {"config.json", "metrics.sqlite", "checkpoints", "log.txt"} <= set(os.listdir(run.path))
    assert json.loads((run.path / "config.json").read_text())["config"]["lr"] == 1e-3


def test_numbering_goes_on_from_the_highest(tmp_path):
    names = []
    for _ in range(3):
        with Run.create(tmp_path, stem="digits") as run:
            names.append(run.name)
    shutil.rmtree(tmp_path / "digits-1")
    (tmp_path / "digits-41").mkdir()
    (tmp_path / "digits-x").mkdir()
    (tmp_path / "digits-007").mkdir()
    for stem in ("digits", "wine"):
        with Run.create(tmp_path, stem=stem) as run:
            names.append(run.name)
    assert names == ["digits-1", "digits-2", "digits-3", "digits-42", "wine-1"]


def test_a_taken_name_is_an_error(tmp_path):
    with Run.create(tmp_path, "mine"), pytest.raises(CheckpointError, match=r"run named 'mine'.*resume"):
        Run.create(tmp_path, "mine")


KILLED = """
import os, signal, sys
from chainrule.train import store
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(*(eval(sys.argv[2], vars(store)), sys.argv[3], kill))
store.Run.create(sys.argv[1], "mine")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of Unix")
@pytest.mark.parametrize(
    ("owner", "name"),
    [("FileLock", "acquire"), ("sqlite3", "connect"), ("platform", "node"), ("os", "fsync"), ("os", "replace")],
)
def test_a_name_is_free_when_the_creation_of_its_run_was_killed(tmp_path, owner, name):
    command = [sys.executable, "-c", KILLED, str(tmp_path), owner, name]
    assert subprocess.run(command, env=ENVIRONMENT).returncode == -signal.SIGKILL
    with Run.create(tmp_path, "mine") as run:
        run.record(1, 1, loss=0.5)
    assert Run.open(tmp_path / "mine").history() == [{"step": 1, "epoch": 1, "loss": 0.5}]
    with pytest.raises(CheckpointError, match=r"run named 'mine'"):
        Run.create(tmp_path, "mine")


@pytest.mark.parametrize("part", ["mine.txt", "checkpoints/step-1", "config.json"])
def test_a_folder_with_anything_in_it_is_not_made_a_run(tmp_path, part):
    (tmp_path / "mine" / part).parent.mkdir(parents=True)
    (tmp_path / "mine" / part).write_text("kept")
    with pytest.raises(CheckpointError, match=r"run named 'mine'"):
        Run.create(tmp_path, "mine")
    assert (tmp_path / "mine" / part).read_text() == "kept"
    assert not (tmp_path / "mine" / "metrics.sqlite").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", ".hidden", "a\0b", "x ", "a:b", "back\\slash"])
def test_a_name_is_that_of_one_folder(tmp_path, name):
    with pytest.raises(ConfigError, match=r"one folder. Try"):
        Run.create(tmp_path / "runs", name)
    with Run.create(tmp_path / "runs", stem=name) as run:  # a stem comes from a file's name, and is tamed
        assert run.path.parent == tmp_path / "runs"
        assert run.name.endswith("-1")


def test_wrong_settings_leave_no_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"settings\['config'\]\['layers'\] is of type tuple"):
        Run.create(tmp_path / "runs", config={"layers": (64, 64)})
    with pytest.raises(ConfigError, match=r"'min' or 'max'"):
        Run.create(tmp_path / "runs", mode="least")
    assert not (tmp_path / "runs").exists()


def test_a_root_that_is_a_file_is_one_of_our_errors(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(CheckpointError, match=r"No run could be made"):
        Run.create(tmp_path / "runs")


@pytest.mark.parametrize("step", ["sync_folder", "atomic_write"])
def test_a_creation_that_fails_gives_its_lock_back_at_once(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, step, fail)
        with pytest.raises(CheckpointError, match=r"No space left on device") as kept:  # with all that its frames hold
            Run.create(tmp_path, "mine")
    with Run.create(tmp_path, "mine") as run:
        assert run.name == "mine"
    assert kept.value.__cause__ is not None


CREATE_MANY = """
import sys
from chainrule.train.store import Run
sys.stdin.readline()
for _ in range(10):
    with Run.create(sys.argv[1], stem="x") as run:
        print(run.name, flush=True)
"""


def test_processes_that_create_at_once_get_runs_of_their_own(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE_MANY, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert sorted(names) == sorted(f"x-{number}" for number in range(1, 31))
    assert {run.name for run in list_runs(tmp_path)} == set(names)


# Metrics


def test_history_and_columns(tmp_path):
    with Run.create(tmp_path) as run:
        run.record(1, 1, loss=0.5)
        run.record(2, 1, loss=0.4, zeta=1.0, alpha=2)
        run.record(2, 1, validation=0.6)
        run.record(3, 2, loss=0.3)
        expected = [
            {"step": 1, "epoch": 1, "loss": 0.5},
            {"step": 2, "epoch": 1, "loss": 0.4, "zeta": 1.0, "alpha": 2, "validation": 0.6},
            {"step": 3, "epoch": 2, "loss": 0.3},
        ]
        assert run.history() == expected
        assert list(run.history()[1]) == ["step", "epoch", "loss", "zeta", "alpha", "validation"]
        assert run.history(after=1) == expected[1:]
        assert run.history(after=3) == []
    reader = Run.open(run.path)
    assert reader.history() == expected
    assert reader.columns() == {
        "step": [1, 2, 3],
        "epoch": [1, 1, 2],
        "loss": [0.5, 0.4, 0.3],
        "zeta": [None, 1.0, None],
        "alpha": [None, 2, None],
        "validation": [None, 0.6, None],
    }


def test_recording_again_replaces(tmp_path):
    with Run.create(tmp_path) as run:
        for value in (1.0, 2.0):
            run.record(5, 1, loss=value)
            run.flush()
        run.record(5, 1, loss=3.0)
        run.record(5, 2, loss=4.0)
        assert run.history() == [{"step": 5, "epoch": 2, "loss": 4.0}]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1) | st.booleans(), min_size=1, max_size=30))
def test_any_number_comes_back_exactly(tmp_path_factory, values):
    with Run.create(tmp_path_factory.mktemp("numbers")) as run:
        for step, value in enumerate(values):
            run.record(step, 0, metric=value)
        loaded = [row["metric"] for row in run.history()]
    for value, back in zip(values, loaded, strict=True):
        if isinstance(value, float):
            assert isinstance(back, float)
            assert math.isnan(back) if math.isnan(value) else (back == value)
            assert math.isnan(value) or math.copysign(1, back) == math.copysign(1, value)
        else:
            assert isinstance(back, int) and back == value


def test_numbers_of_numpy_are_numbers(tmp_path):
    with Run.create(tmp_path) as run:
        run.record(
            np.int64(1),
            np.int32(1),
            a=np.float32(0.1),
            b=np.int64(3),
            c=np.array(0.5),
            d=ml_dtypes.bfloat16(2),
            e=np.bool_(True),
        )
        assert run.history() == [
            {"step": 1, "epoch": 1, "a": float(np.float32(0.1)), "b": 3, "c": 0.5, "d": 2.0, "e": 1}
        ]


@pytest.mark.parametrize("value", ["0.5", None, [1.0], np.zeros(2), 1j, 2**63], ids=repr)
def test_what_is_no_number_is_refused_and_nothing_of_it_recorded(tmp_path, value):
    with Run.create(tmp_path) as run:
        with pytest.raises(ConfigError, match=r"metric 'bad'"):
            run.record(1, 1, good=1.0, bad=value)
        assert run.history() == []


def test_best_is_the_first_of_equals_and_never_nan(tmp_path):
    with Run.create(tmp_path, monitor="accuracy", mode="max") as run:
        assert run.best is None
        for step, value in enumerate([math.nan, 0.5, 0.9, 0.9, math.nan, -math.inf]):
            run.record(step, step * 10, accuracy=value, loss=-value)
        assert run.best == Best("accuracy", 0.9, 2, 20)
    with Run.create(tmp_path) as run:
        run.record(0, 0, loss=math.nan)
        assert run.best is None
        run.record(1, 1, loss=math.inf)
        assert run.best == Best("loss", math.inf, 1, 1)
        run.record(2, 1, loss=2)
        run.record(3, 2, loss=2.0)
        assert run.best == Best("loss", 2, 2, 1)


def test_metrics_are_committed_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_COMMIT_ROWS", 10)
    monkeypatch.setattr(module, "_COMMIT_SECONDS", 1e9)
    with Run.create(tmp_path) as run:
        reader = Run.open(run.path)
        for step in range(9):
            run.record(step, 0, loss=0.0)
        assert reader.history() == []
        run.record(9, 0, loss=0.0)
        assert len(reader.history()) == 10
        run.record(10, 0, loss=0.0)
        assert len(reader.history()) == 10
        monkeypatch.setattr(module, "_COMMIT_SECONDS", 0.0)
        run.record(11, 0, loss=0.0)
        assert len(reader.history()) == 12
        run.record(12, 0, loss=0.0)
    assert len(reader.history()) == 13


def test_a_full_disk_is_one_of_our_errors_and_loses_nothing_that_was_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_COMMIT_SECONDS", 1e9)
    with Run.create(tmp_path) as run:
        run._connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size: no page more
        for step in range(900):
            run.record(step, 0, loss=0.5)
        with pytest.raises(CheckpointError, match=r"metrics.sqlite cannot be used.*disk full\?.*is full"):
            run.flush()
        with pytest.raises(CheckpointError, match=r"disk full"):
            run.save(899, {}, {})
        assert list_checkpoints(run.checkpoints) == []  # no checkpoint without its past
        run._connection.execute("PRAGMA max_page_count = 100000")
        run.save(899, {}, {})
        assert [row["step"] for row in run.history()] == list(range(900))


def test_threads_may_share_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_COMMIT_ROWS", 7)
    with Run.create(tmp_path) as run, ThreadPoolExecutor(4) as pool:

        def work(thread):
            for step in range(50):
                run.record(step, 0, **{f"metric{thread}": step})
                if step % 10 == 0:
                    run.history()

        list(pool.map(work, range(4)))
        columns = run.columns()
    assert columns.keys() == {"step", "epoch", *(f"metric{thread}" for thread in range(4))}
    assert all(column == list(range(50)) for name, column in columns.items() if name != "epoch")


# Checkpoints and resuming


def test_a_checkpoint_comes_after_its_metrics(tmp_path, monkeypatch):
    with Run.create(tmp_path) as run:
        run.record(1, 1, loss=0.5)
        reader, seen = Run.open(run.path), []

        def note(*arguments, **options):
            seen.append(reader.history())

        with monkeypatch.context() as patch:
            patch.setattr(module, "save_checkpoint", note)
            run.save(1, {}, {})
        assert seen == [[{"step": 1, "epoch": 1, "loss": 0.5}]]


def test_save_load_and_keep(tmp_path):
    with Run.create(tmp_path) as run:
        for step in range(6):
            run.save(step, {"x": np.array(step)}, {"step": step}, best=step == 1, keep=2)
        assert [info.step for info in list_checkpoints(run.checkpoints)] == [1, 4, 5]
    reader = Run.open(run.path)
    assert reader.load().state == {"step": 5}
    assert reader.load("best").tensors["x"] == 1
    assert reader.load(4).step == 4


def test_truncation_drops_what_came_after_pending_or_not(tmp_path):
    with Run.create(tmp_path) as run:
        for step in range(10):
            run.record(step, step // 4, loss=10.0 - step)
            if step == 6:
                run.flush()
            if step % 3 == 0:
                run.save(step, {}, {})
        run.record(10, 3, loss=0.0)
        run.truncate_after(3)
        assert [row["step"] for row in run.history()] == [0, 1, 2, 3]
        assert run.best == Best("loss", 7.0, 3, 0)
        assert run.load().step == 3
        run.truncate_after(-1)
        assert run.history() == [] and list_checkpoints(run.checkpoints) == []


def test_truncation_cut_short_leaves_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    with Run.create(tmp_path) as run:
        for step in range(6):
            run.record(step, 0, loss=0.0)
            run.save(step, {}, {})

        class Killed(BaseException):
            pass

        def killed(*_):
            raise Killed

        unlink, calls = os.unlink, []
        with monkeypatch.context() as patch:
            patch.setattr(
                module.Path,
                "unlink",
                lambda path, missing_ok=False: killed() if len(calls) == 2 else calls.append(unlink(path)),
            )
            with pytest.raises(Killed):
                run.truncate_after(1)
        steps = {row["step"] for row in run.history()}
        assert run.load().step == 3
        assert set(range(4)) <= steps  # every checkpoint that is left has its whole past


TRAIN = """
import sys, time
import numpy as np
from chainrule.train.store import Run

path, steps, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
run = Run.open(path, train=True)
last = run.load() if any(run.checkpoints.iterdir()) else None
first = 0 if last is None else last.step + 1
weight = np.zeros(1000) if last is None else last.tensors["weight"].copy()
run.truncate_after(first - 1)
print("ready", flush=True)
for step in range(first, steps):
    weight = np.cos(weight + step)
    run.record(step, step // 10, loss=float(weight[0]))
    if step % 10 == 9:
        run.record(step, step // 10, validation=float(weight.sum()), nothing=float("nan"))
    if step % 7 == 6:
        run.save(step, {"weight": weight}, {"step": step}, best=step % 2 == 0, keep=2)
    time.sleep(pause)
run.save(steps, {"weight": weight}, {})
run.set_status("finished", "all epochs done")
run.close()
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    steps = 150
    moments = np.random.default_rng(1)
    for name in ("whole", "killed"):
        Run.create(tmp_path, name, monitor="validation").close()
    run_to_end(TRAIN, tmp_path / "whole", steps, 0)
    kills = 0
    while kills < 8:
        process = start(TRAIN, tmp_path / "killed", steps, 0.002)
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        process.communicate()
        kills += process.returncode == -9
        killed = Run.open(tmp_path / "killed")
        assert killed.status in ("interrupted", "finished")
        if killed.status == "finished":
            break
        columns = killed.columns()
        if any(killed.checkpoints.glob("step-*")):
            assert set(range(killed.load().step + 1)) <= set(columns["step"])
    assert kills >= 3
    run_to_end(TRAIN, tmp_path / "killed", steps, 0)
    whole, killed = Run.open(tmp_path / "whole"), Run.open(tmp_path / "killed")
    assert repr(killed.history()) == repr(whole.history())  # as text: NaN is not equal to NaN
    assert killed.load().tensors["weight"].tobytes() == whole.load().tensors["weight"].tobytes()
    assert killed.best == whole.best is not None
    summary = killed.summary()
    assert (summary.status, summary.reason, summary.epochs) == ("finished", "all epochs done", 14)


# One trainer, many readers


def test_a_second_trainer_gets_a_clear_error(tmp_path):
    with Run.create(tmp_path, "mine") as run:
        with pytest.raises(CheckpointError, match=rf"mine is being trained by process {os.getpid()} on .*Wait for it"):
            Run.open(run.path, train=True)
        run.record(1, 1, loss=1.0)  # the first one is not disturbed
    with Run.open(run.path, train=True) as again:
        assert again.history() == [{"step": 1, "epoch": 1, "loss": 1.0}]


def test_a_second_process_gets_the_error_and_a_dead_one_does_not_block(tmp_path):
    Run.create(tmp_path, "mine").close()
    process = start(TRAIN, tmp_path / "mine", 10**6, 0.001)
    try:
        assert process.stdout.readline() == "ready\n"
        assert list_runs(tmp_path)[0].status == "running"
        with pytest.raises(CheckpointError, match=f"trained by process {process.pid} on"):
            Run.open(tmp_path / "mine", train=True)
    finally:
        process.kill()
        process.communicate()
    (summary,) = list_runs(tmp_path)
    assert (summary.status, summary.reason) == ("interrupted", "its process is gone")
    with Run.open(tmp_path / "mine", train=True) as run:
        assert run.status == "running"


def test_readers_see_a_growing_history_while_another_process_trains(tmp_path):
    Run.create(tmp_path, "mine").close()
    process = start(TRAIN, tmp_path / "mine", 10**6, 0.0005)
    lengths: list[int] = []
    try:
        assert process.stdout.readline() == "ready\n"
        reader, begin = Run.open(tmp_path / "mine"), time.monotonic()
        while time.monotonic() < begin + (1.5 if len(set(lengths)) > 3 else 60):
            history = reader.history()
            assert [row["step"] for row in history] == list(range(len(history)))
            assert all(("validation" in row) == (row["step"] % 10 == 9) for row in history)
            lengths.append(len(history))
            assert reader.status == "running"
            list_runs(tmp_path)
        assert process.poll() is None  # the readers did not disturb the trainer
    finally:
        process.kill()
        process.communicate()
    assert lengths == sorted(lengths) and len(set(lengths)) > 3


def test_reading_while_trainers_come_and_go(tmp_path):
    """Opening and closing makes and removes SQLite's side files; no reader may stumble over that."""
    Run.create(tmp_path, "mine").close()
    stop, errors, reads = threading.Event(), [], []

    def read():
        try:
            while not stop.is_set():
                reads.append(len(Run.open(tmp_path / "mine").history()))
                list_runs(tmp_path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for step in range(30):
            with Run.open(tmp_path / "mine", train=True) as run:
                run.record(step, 0, loss=0.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(Run.open(tmp_path / "mine").history()) == 30
    assert len(reads) > 5


def test_a_reader_in_the_midst_of_a_question_does_not_block_the_trainer(tmp_path):
    with Run.create(tmp_path, "mine") as run, closing(sqlite3.connect(run.path / "metrics.sqlite")) as other:
        run.record(1, 1, loss=0.5)
        run.flush()
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM metrics").fetchone() == (1,)
        begin = time.monotonic()
        run.record(2, 1, loss=0.4)
        run.flush()
        assert time.monotonic() - begin < 10  # waiting for the reader would take 30 seconds, and fail
        assert other.execute("SELECT count(*) FROM metrics").fetchone() == (1,)  # and it sees one moment
        assert len(run.history()) == 2


def test_what_is_open_for_reading_does_not_write(tmp_path):
    Run.create(tmp_path, "mine").close()
    reader = Run.open(tmp_path / "mine")
    for write in (
        lambda: reader.record(1, 1, loss=0.0),
        lambda: reader.flush(),
        lambda: reader.save(1, {}, {}),
        lambda: reader.log("text"),
        lambda: reader.set_status("failed"),
        lambda: reader.truncate_after(0),
    ):
        with pytest.raises(ConfigError, match=r"not open for training here.*train=True"):
            write()
    reader.close()
    assert reader.history() == [] and list_checkpoints(reader.checkpoints) == []


READ_AS_GUEST = """
import os, sys
from chainrule.train.store import Run, list_runs
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
run = Run.open(sys.argv[1])
print(run.history(), run.status, len(list_runs(os.path.dirname(sys.argv[1]))))
"""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_a_run_that_may_not_be_written_can_be_read(tmp_path):
    with Run.create(tmp_path, "mine") as run:
        run.record(1, 1, loss=0.5)
        run.set_status("finished")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            if folder.stat().st_uid != os.getuid() or folder.parent == folder:
                pytest.skip("the temporary folder is not open to others")
            folder.chmod(folder.stat().st_mode | 0o005)
    run.path.chmod(0o555)
    try:
        result = subprocess.run(
            [sys.executable, "-c", READ_AS_GUEST, str(run.path)], capture_output=True, text=True, env=ENVIRONMENT
        )
    finally:
        run.path.chmod(0o755)
    assert result.stdout == "[{'step': 1, 'epoch': 1, 'loss': 0.5}] finished 1\n", result.stderr


# Status


def test_status_and_reason(tmp_path):
    with Run.create(tmp_path) as run:
        assert run.status == "running"
        run.set_status("stopped", "validation has not improved for 10 epochs")
        assert run.status == "stopped"
        with pytest.raises(ConfigError, match=r"running, finished, stopped, interrupted, failed, not 'done'"):
            run.set_status("done")
    assert Run.open(run.path).summary().reason == "validation has not improved for 10 epochs"


def test_closing_a_running_run_is_an_interruption(tmp_path):
    run = Run.create(tmp_path)
    run.record(1, 1, loss=0.5)
    run.close()
    run.close()
    assert run.status == "interrupted"
    assert run.history() == [{"step": 1, "epoch": 1, "loss": 0.5}]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("too bad"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(1), "interrupted")],
)
def test_leaving_by_an_error_says_so_and_keeps_what_was_recorded(tmp_path, error, status):
    with pytest.raises(type(error)), Run.create(tmp_path, "mine") as run:
        run.record(1, 1, loss=0.5)
        raise error
    summary = Run.open(run.path).summary()
    assert (summary.status, summary.reason) == (status, f"{type(error).__name__}: {error}")
    assert len(run.history()) == 1
    Run.open(run.path, train=True).close()  # the lock was given back


def test_a_status_that_was_set_is_not_overridden_by_an_error(tmp_path):
    with pytest.raises(ValueError), Run.create(tmp_path, "mine") as run:
        run.set_status("stopped", "by the user")
        raise ValueError
    assert run.summary().reason == "by the user"


def test_a_full_disk_does_not_hide_the_error_that_came_first(tmp_path, monkeypatch):
    def full(self):
        raise CheckpointError("disk full")

    with pytest.raises(ValueError, match=r"first"), Run.create(tmp_path, "mine"):
        monkeypatch.setattr(Run, "flush", full)
        raise ValueError("first")
    monkeypatch.undo()
    Run.open(tmp_path / "mine", train=True).close()


def test_the_log_is_lines_with_times(tmp_path):
    with Run.create(tmp_path) as run:
        run.log("first")
        run.log("zweite Zeile: ∂loss \ud800")
    with Run.open(run.path, train=True) as run:
        run.log("third")
    lines = (run.path / "log.txt").read_text("utf-8").splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["first", "zweite Zeile: ∂loss \\ud800", "third"]
    assert abs(datetime.fromisoformat(lines[0].split("  ")[0]) - datetime.now(UTC)) < timedelta(minutes=5)


# Lists


def test_summaries_add_up_the_sessions(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    with Run.create(tmp_path, "mine") as run:
        clock[0] += 20
        run.record(1, 3, loss=0.5)
    clock[0] += 5000
    with Run.open(run.path, train=True) as run:
        clock[0] += 7
        run.set_status("finished", "done")
    clock[0] += 5000
    (summary,) = list_runs(tmp_path)
    assert summary == module.RunSummary(
        "mine", run.path, "finished", "done", datetime.fromtimestamp(1000, UTC), 27.0, 3, Best("loss", 0.5, 1, 3)
    )


def test_runs_are_listed_as_they_began_and_foreign_folders_left_out(tmp_path):
    names = [f"run-{number}" for number in range(1, 12)]
    for _ in names:
        Run.create(tmp_path).close()
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "checkpoints").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["x"]}')
    assert [run.name for run in list_runs(tmp_path)] == names
    assert list_runs(tmp_path / "nothing") == []


def spoil(path, kind):
    database = path / "metrics.sqlite"
    if kind == "text":
        database.write_text("this is no database at all" * 100)
    elif kind == "cut":
        database.write_bytes(database.read_bytes()[:5000])
    elif kind == "zeros":
        database.write_bytes(bytes(database.stat().st_size))
    elif kind == "empty":
        database.write_bytes(b"")
    elif kind == "missing":
        database.unlink()
    elif kind == "folder":
        database.unlink()
        database.mkdir()
    elif kind == "other":
        database.unlink()
        sqlite3.connect(database).close()
    elif kind == "config":
        (path / "config.json").write_text('{"format": "chainrule run 1", "conf')
    elif kind == "entries":
        (path / "config.json").write_text('{"format": "chainrule run 1"}')
    elif kind == "binary":
        (path / "config.json").write_bytes(b"\xff\xfe\x00")
    elif kind == "newer":
        (path / "config.json").write_text('{"format": "chainrule run 2"}')


@pytest.mark.parametrize(
    "kind", ["text", "cut", "zeros", "empty", "missing", "folder", "other", "config", "entries", "binary", "newer"]
)
def test_a_spoilt_run_is_one_of_our_errors_and_does_not_spoil_the_list(tmp_path, kind):
    for name in ("good", "spoilt"):
        with Run.create(tmp_path, name) as run:
            for step in range(300):
                run.record(step, 1, loss=0.5)
            run.save(1, {"x": np.zeros(3)}, {})
    spoil(tmp_path / "spoilt", kind)
    for train in (False, True):
        with pytest.raises(CheckpointError, match=r"spoilt.*(checkpoints|backup|Install)"):
            Run.open(tmp_path / "spoilt", train=train)
    summaries = {summary.name: summary for summary in list_runs(tmp_path)}
    assert summaries["good"].status == "interrupted"
    assert summaries["spoilt"].status == "damaged" and "spoilt" in summaries["spoilt"].reason


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_to_the_metrics_is_never_anything_but_our_error(tmp_path, seed):
    with Run.create(tmp_path, "mine") as run:
        for step in range(300):
            run.record(step, 1, loss=0.5, accuracy=1.0)
    rng = np.random.default_rng(seed)
    content = bytearray((run.path / "metrics.sqlite").read_bytes())
    begin = int(rng.integers(0, len(content) - 200))
    content[begin : begin + 200] = rng.bytes(200)
    (run.path / "metrics.sqlite").write_bytes(content)
    for train in (True, False):
        try:
            with Run.open(run.path, train=train) as spoilt:
                spoilt.history()
                spoilt.columns()
        except CheckpointError:
            pass
    assert [summary.name for summary in list_runs(tmp_path)] == ["mine"]


def test_a_folder_that_is_no_run_gets_a_helpful_error(tmp_path):
    Run.create(tmp_path, "digits-1").close()
    with pytest.raises(CheckpointError, match=r"no run .*digit-1. Did you mean .*digits-1\? Runs in .*: digits-1"):
        Run.open(tmp_path / "digit-1")
    with pytest.raises(CheckpointError, match=r"Runs in .*: none"):
        Run.open(tmp_path / "no" / "thing")
    (tmp_path / "notes").mkdir()
    with pytest.raises(CheckpointError, match=r"notes is not a run: it has no config.json"):
        Run.open(tmp_path / "notes")
    (tmp_path / "notes" / "config.json").write_text('["something else"]')
    with pytest.raises(CheckpointError, match=r"was not written by chainrule"):
        Run.open(tmp_path / "notes")
    (tmp_path / "digits-1" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"creation was cut short, or the file was deleted"):
        Run.open(tmp_path / "digits-1")


CREATE_AND_DIE = """
import os, signal, sys
from chainrule.train import checkpoint, files, store

def die_at(moment):
    seen = 0
    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code.co_filename not in (files.__file__, store.__file__):
            return None
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

moment = 0
while True:
    moment += 1
    child = os.fork()
    if child == 0:
        sys.settrace(die_at(moment))
        store.Run.create(os.path.join(sys.argv[1], str(moment)))
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
print(moment)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_line_of_a_creation(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CREATE_AND_DIE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 60
    seen = {"whole": 0, "half": 0}
    for root in tmp_path.iterdir():
        path = root / "run-1"
        try:
            with Run.open(path, train=True) as run:
                run.record(1, 1, loss=0.5)
            assert len(run.history()) == 1
            seen["whole"] += 1
        except CheckpointError as error:
            assert any(text in str(error) for text in ("There is no run", "cut short", "it has no config.json"))
            seen["half"] += 1
        Run.create(root, stem="next").close()
        assert {summary.status for summary in list_runs(root)} == {"interrupted"}
    assert seen["whole"] > 1 and seen["half"] > 20
