"""The pool: threads meet at barriers, sleep, survive forks and interrupts, and never keep a process from ending."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import chainrule
from chainrule.engines.native import barrier, host, jit, threads
from chainrule.engines.native.ir import Module, Verbatim
from chainrule.engines.native.memory import Arena
from chainrule.errors import ConfigError

SOURCE = Path(chainrule.__file__).parent.parent

# In round i thread i % threads turns a plain counter from i to i + 1, then all meet. Where a barrier lets somebody pass
# too early, the counter is not i, and stays behind for good.
STEP = """
define void @step(ptr %counter, ptr %sync, i64 %rounds, i64 %thread, i64 %threads) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %meet ]
  %turn = urem i64 %i, %threads
  %mine = icmp eq i64 %turn, %thread
  br i1 %mine, label %add, label %meet
add:
  %v = load i64, ptr %counter
  %right = icmp eq i64 %v, %i
  br i1 %right, label %count, label %meet
count:
  %w = add i64 %v, 1
  store i64 %w, ptr %counter
  br label %meet
meet:
  call void @barrier(ptr %sync, i64 %threads)
  %i1 = add i64 %i, 1
  %again = icmp slt i64 %i1, %rounds
  br i1 %again, label %loop, label %out
out:
  ret void
}
"""

# Writes its arguments and itself: out[0..7] and, behind them, one line for each thread.
EIGHT = """
define void @eight(ptr %out, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f, i64 %g, i64 %h, i64 %thread, i64 %threads) {
  %sum1 = add i64 %b, %c
  %sum2 = add i64 %sum1, %d
  %sum3 = add i64 %sum2, %e
  %sum4 = add i64 %sum3, %f
  %sum5 = add i64 %sum4, %g
  %sum6 = mul i64 %sum5, %h
  %at = getelementptr i64, ptr %out, i64 %thread
  %mine = add i64 %sum6, %threads
  store i64 %mine, ptr %at
  ret void
}
define void @none(i64 %thread, i64 %threads) {
  ret void
}
"""

PRELUDE = f"""
import ctypes, os, signal, sys, threading, time
from chainrule.engines.native import barrier, host, jit, threads
from chainrule.engines.native.ir import Module, Verbatim
from chainrule.engines.native.memory import Arena
STEP = '''{STEP}'''
"""


class Counter:
    """The counting task, with its memory and code."""

    def __init__(self, rounds):
        module = Module()
        barrier.emit(module, host.detect())
        module.add("step", Verbatim(STEP))
        self.rounds = rounds
        self.library = jit.Library(jit.compile_object(module.text(), host.detect()))
        self.arena = Arena(64)
        address = self.library.address("step")
        self.task = threads.Task(address, [self.arena.address, threads.pool().sync, rounds])

    def run(self, wanted):
        """(threads that it ran on, the count)"""
        self.arena.array[:] = 0
        used = threads.pool().run(self.task, wanted)
        return used, int(self.arena.array.view("int64")[0])

    def fresh(self):
        """Forget how earlier runs went."""
        self.task.alone_until = 0.0
        self.task.watchdog = threads.Watchdog()

    def run_on(self, wanted):
        """The count of a run that really had so many threads; others may use the machine, so it may need some tries."""
        for _ in range(200):
            used, count = self.run(wanted)
            if used == wanted:
                return count
            self.fresh()
        raise AssertionError(f"never ran on {wanted} threads")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


# -- barriers and runs


def test_two_threads_meet_100_000_times():
    assert Counter(100_000).run_on(2) == 100_000


@pytest.mark.parametrize("wanted", [1, 3, 4, 7])
def test_more_threads_than_cores_take_turns(wanted):
    begun = time.perf_counter()
    assert Counter(2000).run_on(wanted) == 2000
    assert time.perf_counter() - begun < 20


def test_many_short_runs():
    counter = Counter(3)
    for k in range(600):
        used, count = counter.run(1 + k % 3)
        assert count == 3 and 1 <= used <= 3


def test_workers_sleep_when_there_is_nothing_to_do_and_wake_again():
    counter = Counter(10)
    for _ in range(3):
        assert counter.run_on(2) == 10
        deadline = time.perf_counter() + 5
        while not threads.pool().asleep and time.perf_counter() < deadline:
            time.sleep(0.005)
        assert threads.pool().asleep
        used = time.process_time()
        time.sleep(0.05)
        assert time.process_time() - used < 0.04


def test_workers_look_for_work_for_as_long_as_the_last_task_took_within_limits():
    pool, long, short = threads.pool(), Counter(200_000), Counter(1)

    def woken(counter, seconds):
        """How many workers sleep so long after a run."""
        assert counter.run_on(2) == counter.rounds
        assert threads.SPIN <= pool._lingering <= threads.LINGER
        time.sleep(seconds)
        before = pool.wakings
        short.run(2)
        return pool.wakings - before

    assert 0 in {woken(long, 4e-3) for _ in range(20)}  # others may use the machine, so this holds for some
    assert 1 in {woken(short, 0.1) for _ in range(20)}


def test_all_arguments_arrive_on_all_threads():
    library = jit.Library(jit.compile_object(EIGHT, host.detect()))
    out = (ctypes.c_int64 * 3)()
    task = threads.Task(library.address("eight"), [ctypes.addressof(out), 1, 2, 3, 4, 5, 6, 100])
    used = threads.pool().run(task, 3)
    assert list(out) == [2100 + used] * used + [0] * (3 - used)
    task[7] = -1
    threads.pool().run(task, 1)
    assert out[0] == -21 + 1
    assert threads.pool().run(threads.Task(library.address("none"), []), 2) in (1, 2)


def test_a_task_knows_its_arguments():
    with pytest.raises(ValueError, match="up to 8"):
        threads.Task(0, [1] * 9)
    with pytest.raises(IndexError, match="no argument 2"):
        threads.Task(0, [1, 2])[2] = 5


def test_several_callers_at_once():
    counters = [Counter(300) for _ in range(4)]
    results = []

    def call(counter):
        results.extend(counter.run(2)[1] for _ in range(50))

    callers = [threading.Thread(target=call, args=(counter,)) for counter in counters]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [300] * 200


def test_several_callers_of_runs_that_take_no_time():
    counters = [Counter(2) for _ in range(3)]
    wrong = []

    def call(counter):
        for _ in range(1000):
            used, count = counter.run(2)
            if count != 2:
                wrong.append((used, count))

    callers = [threading.Thread(target=call, args=(counter,)) for counter in counters]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_a_pool_that_is_in_use_says_so():
    pool, counter, other = threads.pool(), Counter(100_000), Counter(1)
    runs, answers = [], set()
    for _ in range(200):
        counter.fresh()
        caller = threading.Thread(target=lambda: runs.append(counter.run(2)))
        caller.start()
        while caller.is_alive():
            answers.add(pool._launch(pool._job, pool.sync, other.task.address, 2, 1, 0))
        if runs[-1][0] == 2:  # it really had the pool
            break
    assert barrier.TAKEN in answers and answers <= {barrier.TAKEN, barrier.ASLEEP, 0, 1, 2}
    assert runs[-1] == (2, 100_000)


def test_a_system_without_threads_to_spare(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    pool = threads.Pool()
    counter = Counter(10)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert pool.run(counter.task, 4) == 1 and pool.workers == 0
    assert counter.arena.array.view("int64")[0] == 10
    monkeypatch.undo()
    counter.fresh()
    pool.run(counter.task, 2)
    assert pool.workers == 1


def test_two_threads_that_serve_as_the_same_worker():
    """Starting a worker can be interrupted after the thread began: then another one gets its number."""
    pool, counter = threads.pool(), Counter(1000)
    assert counter.run_on(2) == 1000
    for _ in range(10):
        threading.Thread(target=pool._work, args=(1, threading.Lock()), daemon=True).start()
        assert [counter.run_on(2) for _ in range(5)] == [1000] * 5


# -- the number of threads


def test_how_many_threads(monkeypatch):
    monkeypatch.delenv("CHAINRULE_THREADS", raising=False)
    assert threads.resolve(None) == min(host.detect().cores, 8)
    assert threads.resolve(7) == 7
    monkeypatch.setenv("CHAINRULE_THREADS", " 3 ")
    assert threads.resolve(None) == 3 and threads.resolve(2) == 2
    monkeypatch.setenv("CHAINRULE_THREADS", "")
    assert threads.resolve(None) == min(host.detect().cores, 8)


@pytest.mark.parametrize("wrong", [0, -1, 257, 2.0, "2", True])
def test_numbers_of_threads_that_make_no_sense(wrong):
    with pytest.raises(ConfigError, match=f"threads={wrong!r}"):
        threads.resolve(wrong)


@pytest.mark.parametrize("wrong", ["0", "-2", "many", "1.5", "1000"])
def test_environments_that_make_no_sense(monkeypatch, wrong):
    monkeypatch.setenv("CHAINRULE_THREADS", wrong)
    with pytest.raises(ConfigError, match="CHAINRULE_THREADS="):
        threads.resolve(None)


# -- processes: each script has a pool of its own


def start(script):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + COUNTER + script],
        cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(script, limit=60):
    process = start(script)
    try:
        out, error = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, error


def source_of(thing):
    """The text of a class of this file, for scripts."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    first = lines.index(f"class {thing.__name__}:")
    last = next(k for k in range(first + 1, len(lines)) if lines[k] and not lines[k].startswith(" "))
    return "\n".join(lines[first:last]) + "\n"


COUNTER = source_of(Counter)

ENDINGS = {
    "while workers look for work": "assert counter.run_on(2) == 1000",
    "while workers sleep": """
assert counter.run_on(2) == 1000
end = time.perf_counter() + 10  # a busy machine lets them spin for longer
while not threads.pool().asleep and time.perf_counter() < end:
    time.sleep(0.01)
assert threads.pool().asleep
""",
    "by sys.exit": "assert counter.run_on(2) == 1000; sys.exit(0)",
    "by sys.exit in a caller's thread": """
def call():
    assert counter.run_on(2) == 1000
    sys.exit(0)
thread = threading.Thread(target=call); thread.start(); thread.join()
""",
    "while another thread runs a task": """
long = Counter(10**12)
threading.Thread(target=lambda: long.run_on(2), daemon=True).start()
time.sleep(0.1)
""",
    "while another thread runs short tasks": """
def call():
    while True:
        counter.run(2)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
""",
    "with more threads than cores": "assert counter.run_on(7) == 1000",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=list(ENDINGS))
def test_a_process_ends(ending):
    begun = time.perf_counter()
    code, out, error = run(f"counter = Counter(1000)\n{ending}\nprint('end')")
    assert code == 0 and error == "" and ("end" in out or "sys.exit" in ending)
    assert time.perf_counter() - begun < 20


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupts_come_between_runs_and_leave_the_pool_whole():
    process = start("""
counter, short = Counter(500), Counter(2)
assert counter.run_on(2) == 500
print("ready", flush=True)
caught = 0
deadline = time.perf_counter() + 30
while caught < 20 and time.perf_counter() < deadline:
    try:
        while True:
            used, count = short.run(2)
            assert count == 2
            time.sleep(0.002) if caught % 2 else None  # workers asleep, workers awake
    except KeyboardInterrupt:
        caught += 1
        print("caught", flush=True)
assert counter.run_on(2) == 500
print("whole")
""")
    assert process.stdout.readline() == "ready\n"
    for _ in range(20):
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "caught\n"
    with process:  # `communicate` would miss what lies in the buffer already
        out, error = process.stdout.read(), process.stderr.read()
    assert out == "whole\n" and process.returncode == 0, error


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_a_process():
    process = start("counter = Counter(1000)\nprint('ready', flush=True)\nwhile True:\n    counter.run(2)\n")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in error


FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@FORK
def test_a_child_has_workers_of_its_own():
    code, out, error = run("""
counter = Counter(1000)
assert counter.run_on(2) == 1000
for sleep in (0, 0.02):
    time.sleep(sleep)
    child = os.fork()
    if child == 0:
        assert threads.pool().workers == 0
        assert counter.run_on(2) == 1000 and threads.pool().workers == 1
        assert Counter(77).run_on(3) == 77
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if counter.run_on(2) == 1000 else 1)
        os._exit(0 if os.waitpid(grandchild, 0)[1] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert counter.run_on(2) == 1000 and threads.pool().workers == 1
print("end")
""")
    assert code == 0 and out == "end\n", error


@FORK
def test_forks_while_another_thread_is_inside():
    code, out, error = run("""
busy, counter, stop = Counter(200), Counter(100), threading.Event()
counter.run_on(2)
def call():
    while not stop.is_set():
        assert busy.run(2)[1] == 200
thread = threading.Thread(target=call); thread.start()
for _ in range(15):
    child = os.fork()
    if child == 0:
        os._exit(0 if counter.run_on(2) == 100 else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); thread.join()
print("end")
""")
    assert code == 0 and out == "end\n", error


@FORK
def test_multiprocessing_by_fork():
    code, out, error = run("""
import multiprocessing
counter = Counter(500)
assert counter.run_on(2) == 500
def work(rounds):
    return counter.run_on(2)
with multiprocessing.get_context("fork").Pool(2) as workers:
    print(sum(workers.map(work, range(20))))
assert counter.run_on(2) == 500
""")
    assert code == 0 and out == "10000\n", error
