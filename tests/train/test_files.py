"""Files that are written whole or not at all, locks that die with their holder, JSON that keeps its floats."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.errors import ConfigError
from chainrule.train import files as module
from chainrule.train.files import FileLock, atomic_write, from_json, sync_folder, to_json

OLD, NEW = b"old" * 1000, b"new!" * 5000

# Kills itself with SIGKILL at the n-th line of Python that runs inside atomic_write (the written callable included),
# for every n, each time in a fresh child; the parent looks at what is left. Prints how many moments there were.
KILL_AT_EVERY_LINE = """
import os, signal, sys
from pathlib import Path
from chainrule.train import files

folder, old, new = Path(sys.argv[1]), b"old" * 1000, b"new!" * 5000
path = folder / "file"

def write_in_pieces(file):
    for begin in range(0, len(new), 5000):
        file.write(new[begin : begin + 5000])
        file.flush()

def die_at(moment):
    seen = 0
    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code.co_filename not in (files.__file__, __file__):
            return None
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

contents, leftovers = [], 0
for moment in range(1, 10_000):
    path.write_bytes(old)
    child = os.fork()
    if child == 0:
        sys.settrace(die_at(moment))
        files.atomic_write(path, write_in_pieces)
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    contents.append(path.read_bytes())
    leftovers += len(os.listdir(folder)) - 1
    files.atomic_write(folder / "other", b"")
    assert sorted(os.listdir(folder)) == ["file", "other"], (moment, os.listdir(folder))
    (folder / "other").unlink()
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
assert set(contents) == {old, new}, set(map(len, contents))
first_new = contents.index(new)
assert contents == [old] * first_new + [new] * (len(contents) - first_new)
print(len(contents), leftovers)
"""

WRITE_FOREVER = """
import sys
from chainrule.train.files import atomic_write
number = 0
while True:
    number += 1
    atomic_write(sys.argv[1], str(number % 10).encode() * 200_000)
    print(number, flush=True)
"""

HOLD_LOCK = """
import sys, time
from chainrule.train.files import FileLock
lock = FileLock(sys.argv[1])
print(lock.acquire(), flush=True)
time.sleep(60)
"""


# The library under test is the one that this process imported, wherever it lies.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def test_writes_bytes_and_callables(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, OLD)
    assert path.read_bytes() == OLD
    atomic_write(str(path), lambda file: file.write(NEW))
    assert path.read_bytes() == NEW
    atomic_write(path, b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["file"]


def test_callable_may_seek_back(tmp_path):
    def write(file):
        file.write(b"????body")
        file.seek(0)
        file.write(b"head")

    atomic_write(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"headbody"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_write_that_raises_leaves_the_old_content_and_no_leftover(tmp_path, error):
    def write(file):
        file.write(b"half")
        raise error

    atomic_write(tmp_path / "file", OLD)
    with pytest.raises(error):
        atomic_write(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch):
    atomic_write(tmp_path / "file", OLD)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        atomic_write(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else os.fstat(descriptor).st_size)
        sync(descriptor)

    def note_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    atomic_write(tmp_path / "file", NEW)
    assert calls == [len(NEW), "rename", "folder"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "no" / "file", NEW)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "no")


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    atomic_write(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == NEW


def test_cleaning_up_spares_the_files_of_others(tmp_path):
    foreign = [tmp_path / name for name in (".file.tmp", "x.partial", ".other.partial", "chainrule-1.partial")]
    for path in foreign:
        path.write_bytes(b"mine")
    (tmp_path / ".chainrule-0123456789abcdef.partial").write_bytes(b"left by a killed write")
    atomic_write(tmp_path / "file", NEW)
    assert sorted(os.listdir(tmp_path)) == sorted(["file", *(path.name for path in foreign)])


def test_cleaning_up_spares_a_write_under_way(tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    def write_slowly(file):
        file.write(NEW)
        inside.set()
        assert go_on.wait(10)

    thread = threading.Thread(target=atomic_write, args=(tmp_path / "slow", write_slowly))
    thread.start()
    assert inside.wait(10)
    atomic_write(tmp_path / "quick", OLD)
    assert not (tmp_path / "slow").exists()
    go_on.set()
    thread.join()
    assert (tmp_path / "slow").read_bytes() == NEW
    assert sorted(os.listdir(tmp_path)) == ["quick", "slow"]


def test_many_writers_of_one_file_never_mix(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([65 + number]) * 100_000 for number in range(6)]
    errors = []

    def write(content):
        try:
            for _ in range(20):
                atomic_write(path, content)
                seen = path.read_bytes()
                assert seen in contents
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_line_of_a_write(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILL_AT_EVERY_LINE)
    folder = tmp_path / "folder"
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert result.returncode == 0, result.stderr
    moments, leftovers = map(int, result.stdout.split())
    assert moments > 30
    assert leftovers > 10  # the kills did strike in the midst of writes


def test_killed_at_random_moments_while_writing_in_a_loop(tmp_path):
    path = tmp_path / "file"
    for attempt in range(8):
        process = start(WRITE_FOREVER, path)
        process.stdout.readline()
        time.sleep(0.013 * attempt)
        process.kill()
        process.communicate()
        content = path.read_bytes()
        assert content == content[:1] * 200_000
    atomic_write(path, NEW)
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_excludes_other_processes_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "lock"
    process = start(HOLD_LOCK, path)
    try:
        assert process.stdout.readline() == "True\n"
        lock = FileLock(path)
        assert lock.is_held_by_anyone()
        assert not lock.acquire(patience=0.05)
        assert not lock.held
        assert f"process {process.pid} on " in lock.holder()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not lock.is_held_by_anyone()
    assert lock.acquire()
    assert lock.held
    assert f"process {os.getpid()} on " in lock.holder()
    lock.release()
    lock.release()
    assert not lock.is_held_by_anyone()


def test_a_lock_is_for_one_object_even_in_one_process(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire() and first.acquire()
    assert not second.acquire(patience=0.0)
    first.release()
    assert second.acquire(patience=0.0)
    second.release()


def test_no_lock_file_means_nobody_holds_it(tmp_path):
    lock = FileLock(tmp_path / "lock")
    assert not lock.is_held_by_anyone()
    assert lock.holder() == "another process"
    assert not (tmp_path / "lock").exists()


def test_those_who_ask_do_not_take_each_other_for_the_holder(tmp_path):
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    answers = []

    def ask():
        for _ in range(500):
            answers.append(FileLock(tmp_path / "lock").is_held_by_anyone())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [False] * 2000


def test_asking_who_holds_a_lock_does_not_keep_others_from_taking_it(tmp_path):
    stop = threading.Event()
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()

    def ask():
        while not stop.is_set():
            FileLock(tmp_path / "lock").is_held_by_anyone()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert lock.acquire(patience=10.0)
            lock.release()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


FORK_AND_DIE = """
import os, signal, sys, time
from chainrule.train.files import FileLock
lock = FileLock(sys.argv[1])
assert lock.acquire()
child = os.fork()
if child == 0:
    print(lock.held, os.getpid(), flush=True)
    time.sleep(60)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_inherit_the_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", FORK_AND_DIE, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    held, child = process.stdout.readline().split()
    try:
        assert held == "False"
        lock = FileLock(tmp_path / "lock")
        assert lock.is_held_by_anyone()  # by the parent
        process.stdin.close()
        process.wait()
        assert lock.acquire(patience=0.0)  # while the child lives on
        lock.release()
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.stdout.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text().filter(lambda key: key != "$float"), inner, max_size=4)
    ),
    max_leaves=20,
)


def bits(value):
    """The value with floats as their bits, all NaNs as one."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    return type(value), value


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_json_comes_back_with_the_same_types_and_bits(value):
    text = to_json(value)
    assert bits(from_json(text)) == bits(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_json_spells_non_finite_floats():
    assert to_json([math.nan, math.inf, -math.inf, 1.0]) == (
        '[{"$float": "nan"}, {"$float": "inf"}, {"$float": "-inf"}, 1.0]'
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, (2, 3)]}, r"state\['a'\]\[1\] is of type tuple.*list"),
        ({"a": {1: 2}}, r"state\['a'\] has the key 1 of type int.*'1'"),
        ({"a": {3, 4}}, r"state\['a'\] is of type set.*sorted list"),
        ({"a": b"bytes"}, r"state\['a'\] is of type bytes"),
        ({"a": object()}, r"state\['a'\] is of type object"),
        ({"$float": "nan"}, r"state has the key '\$float'.*another key"),
        ({"a": 10**5000}, r"state cannot be written as JSON"),
    ],
)
def test_json_refuses_what_would_not_come_back(value, message):
    with pytest.raises(ConfigError, match=message):
        to_json(value, "state")


def test_json_refuses_cycles():
    value: list = []
    value.append(value)
    with pytest.raises(ConfigError, match=r"contains itself"):
        to_json(value)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "", '{"$float": "x"}', "[" * 100_000])
def test_from_json_raises_value_errors(text):
    with pytest.raises(ValueError):
        from_json(text)


def test_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic_write("file", NEW)
    assert Path("file").read_bytes() == NEW
