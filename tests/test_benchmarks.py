"""The benchmark harness works: on tiny settings, without other libraries, and nothing is timed in earnest."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import peak, peers, recording, report, runner, startup, worker, workloads
from benchmarks.layers import BatchNorm
from benchmarks.peers import Entry, chainrule_peer
from benchmarks.runner import Measured, Outcome

ROOT = Path(__file__).parents[1]
TINY = ["--quick", "--peers", "none", "--engine", "reference", "--threads", "1"]


# -- what is trained


def test_the_named_workloads_are_those_of_the_table():
    found = {w.name: (w.widths, w.batch, w.loss, w.dtype) for w in workloads.NAMED}
    assert found == {
        "mlp-tiny": ((4, 16, 16, 3), 16, "cross_entropy", "float32"),
        "mlp-tab": ((30, 100, 2), 200, "cross_entropy", "float32"),
        "mnist-mlp": ((784, 128, 10), 32, "cross_entropy", "float32"),
        "mnist-mlp-b128": ((784, 256, 128, 10), 128, "cross_entropy", "float32"),
        "ae": ((784, 256, 64, 256, 784), 128, "mse", "float32"),
        "mlp-big": ((1024, 2048, 2048, 1000), 256, "cross_entropy", "float32"),
        "mlp-tab-all": ((30, 100, 2), 200, "cross_entropy", "float32"),
        "float64": ((50, 64, 64, 1), 64, "mse", "float64"),
    }


def test_random_workloads_stay_in_their_ranges_and_differ():
    assert len({(w.widths, w.batch) for w in workloads.RANDOM}) == 20
    for w in workloads.RANDOM:
        assert 3 <= len(w.widths) <= 6
        assert all(8 <= width <= 512 for width in w.widths[:-1])
        assert 2 <= w.widths[-1] <= 20
        assert 16 <= w.batch <= 256
    assert {len(w.widths) for w in workloads.RANDOM} == {3, 4, 5, 6}


def test_flops_and_parameters_of_a_network_counted_by_hand():
    w = workloads.find("mlp-tab")
    assert w.flops == 2 * 200 * (2 * 30 * 100 + 3 * 100 * 2)
    assert w.parameters == 30 * 100 + 100 + 100 * 2 + 2
    assert workloads.find("mlp-tab-all").parameters == w.parameters + 200


@pytest.mark.parametrize("name", ["mlp-tiny", "ae", "float64", "mlp-tab-all", "random-07"])
def test_data_and_weights_fit_the_network_and_are_the_same_in_every_process(name):
    w, again = workloads.find(name, quick=True), workloads.find(name, quick=True)
    x, y = w.data
    assert x.shape == (w.rows, w.widths[0])
    assert x.dtype == w.dtype
    assert y.shape == ((w.rows,) if w.loss == "cross_entropy" else (w.rows, w.widths[-1]))
    np.testing.assert_array_equal(y, again.data[1])
    assert all(np.array_equal(a, b) for a, b in zip(w.weights.values(), again.weights.values(), strict=True))
    assert sum(a.size for a in w.weights.values()) == w.parameters - (200 if w.has(BatchNorm) else 0)
    assert x.nbytes + (0 if y is x else y.nbytes) == pytest.approx(1e6 * w.megabytes)


def test_names_and_groups_are_chosen():
    groups = ("named", "random")
    assert len(workloads.choose(None, groups)) == 28
    assert workloads.choose("random-01,named", groups)[:2] == ["random-01", "mlp-tiny"]
    assert len(workloads.choose(None, ("networks",))) == 11
    for missing in ("mlp-tyni", "lenet", "networks"):
        with pytest.raises(ValueError, match=f"no workload '{missing}'"):
            workloads.choose(missing, groups)


# -- chainrule as a contender


@pytest.mark.parametrize("w", [*workloads.NAMED[:5], *workloads.NAMED[6:]], ids=lambda w: w.name)
def test_epoch_and_single_calls_train_the_same(w):
    checked = workloads.find(w.name, quick=True).deterministic
    epoch, call = (chainrule_peer.losses(checked, mode, 1, "reference", 3) for mode in ("epoch", "call"))
    assert len(epoch) == 3
    assert epoch == pytest.approx(call, rel=1e-5)
    assert len(set(call)) == 3  # it moves


def test_the_timed_work_is_all_that_was_asked_for():
    """An epoch of the workload with everything has dropout, batch norm, and its optimiser clips."""
    w = workloads.find("mlp-tab-all", quick=True)
    epoch = chainrule_peer.Epoch(w, "reference")
    text = repr(epoch.model) + repr(epoch.optimizer)
    assert all(part in text for part in ("Dropout", "BatchNorm1d", "Tanh", "clip_by_global_norm", "SGD", "0.0001"))
    before = np.asarray(epoch.model.state_dict()["0.weight"]).copy()
    assert epoch.run(2) > 0
    assert int(epoch.model.state_dict()["1.num_batches_tracked"]) == 3 * w.batches  # one epoch more than timed
    assert not np.array_equal(before, np.asarray(epoch.model.state_dict()["0.weight"]))


# -- processes


class Pretended:
    """A contender on a clock of its own: each pass takes `cost` seconds."""

    def __init__(self, cost):
        self.cost, self.passes = cost, 0

    def run(self, passes):
        self.passes += passes
        return self.cost * passes


@pytest.mark.parametrize(("cost", "expected"), [(1e-6, 300_000), (1e-3, 300), (0.29, 2), (5.0, 1)])
def test_the_number_of_passes_fills_the_time(cost, expected):
    assert worker.calibrate(Pretended(cost), 0.3) == pytest.approx(expected, abs=1)


def plan(**changes):
    return runner.Plan((), "reference", 1, **(command.QUICK | changes))


class Quiet:
    """Shows nothing, remembers what it was told."""

    def __init__(self):
        self.texts, self.done = [], 0

    def show(self, text):
        self.texts.append(text)

    def advance(self):
        self.done += 1


def test_a_workload_is_measured_in_turns():
    progress = Quiet()
    outcome = runner.measure(workloads.find("mlp-tiny", quick=True), plan(rounds=2), progress)
    assert [m.entry.mode for m in outcome.measured] == ["epoch", "call"]
    assert all(len(m.rounds) == 2 and m.seconds > 0 and m.peak_megabytes > 10 for m in outcome.measured)
    assert outcome.sound
    assert outcome.peak > 0
    assert progress.done == 6
    assert [text.partition(", chainrule ")[2] for text in progress.texts[2:]] == [
        "epoch, 1 thread", "call, 1 thread", "epoch, 1 thread", "call, 1 thread",
    ]  # fmt: skip


def test_a_process_that_fails_is_reported_and_the_others_go_on(monkeypatch):
    listed = [Entry("chainrule", "call", 1), Entry("nobody", "call", 1)]
    monkeypatch.setitem(peers.TITLES, "nobody", "nobody")
    monkeypatch.setattr(runner, "entries", lambda *_: listed)
    outcome = runner.measure(workloads.find("mlp-tiny", quick=True), plan(), Quiet())
    good, bad = outcome.measured
    assert good.rounds
    assert bad.rounds == []
    assert "nobody_peer" in bad.error
    assert not outcome.sound
    assert any("nobody call, 1 thread failed" in text for text in report.warnings([outcome]))


def test_a_process_that_dies_is_reported():
    job = worker.Job("mlp-tiny", "chainrule", "call", 1, "reference", 0.01, 1, True)
    process = runner.Worker(job)
    try:
        process.ask(job.to_json())
        process.process.kill()
        process.process.wait()
        with pytest.raises(runner.WorkerFailed, match=r"the process ended with code -?[0-9]+"):
            process.ask({"do": "round"})
    finally:
        process.close()


def test_the_environment_sets_threads_and_this_tree(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = runner.child_environment(3)
    assert all(found[name] == "3" for name in ("CHAINRULE_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"))
    assert found["XLA_FLAGS"] == ""
    assert "eigen=false" in runner.child_environment(1)["XLA_FLAGS"]
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "src")
    assert "PYTHONDONTWRITEBYTECODE" not in found


def test_scikit_learn_takes_part_only_where_it_can():
    def names(workload):
        return {e.peer for e in peers.entries(workloads.find(workload), peers.PACKAGES, 2)}

    assert names("mlp-tiny") == {"chainrule", "torch", "jax", "sklearn"}
    assert names("mlp-tab-all") == {"chainrule", "torch", "jax"}


def test_the_peak_of_a_core_is_measured():
    assert peak.measure("float32", 2000, 3) > 0.1
    assert peak.measure("float64", 2000, 3) > 0.1
    assert peak.kernel("float32").count("call <") == peak.CHAINS


# -- reports


def outcome(times, losses=None, name="mlp-tiny"):
    """An outcome with the given seconds for each entry."""
    measured = [Measured(Entry(*key), list(rounds), 100.0) for key, rounds in times.items()]
    for m, found in zip(measured, losses or [], strict=False):
        m.losses = found
    return Outcome(workloads.find(name), measured, 100.0)


TIMES = {
    ("chainrule", "epoch", 2): [1e-6, 3e-6, 2e-6],
    ("chainrule", "call", 2): [4e-6],
    ("torch", "eager", 2): [90e-6],
    ("torch", "fused", 1): [60e-6],
    ("jax", "jit", 1): [40e-6],
    ("jax", "jit", 2): [50e-6],
    ("jax", "scan", 1): [5e-6],
}


def test_the_ratio_is_to_the_best_loop_of_any_peer_by_medians():
    found = outcome(TIMES)
    assert found.best_peer.entry == Entry("jax", "jit", 1)
    assert found.ratio("epoch") == pytest.approx(20)
    assert found.ratio("call") == pytest.approx(10)
    assert math.isnan(outcome({("chainrule", "epoch", 2): [1.0]}).ratio("epoch"))


def test_losses_that_differ_are_noticed():
    same = [[1.0, 0.9, 0.8], [1.0, 0.9, 0.8], [1.00001, 0.9, 0.8]]
    assert outcome(TIMES, same).sound
    for other in ([1.0, 0.9, 0.801], [1.0, 0.9], [1.0, 0.9, math.nan]):
        assert not outcome(TIMES, [*same[:2], other]).sound
    assert "PyTorch eager" in outcome(TIMES, [*same[:2], [1.0, 0.9, 0.801]]).disagreements[0]


def test_processes_that_do_not_rest_are_noticed():
    found = outcome(TIMES)
    found.measured[0].waited, found.measured[0].busy = 10.0, 5.0
    assert any("used the processor for 5.00 s of the 10.0 s" in text for text in report.warnings([found]))


def test_the_table_says_it_all():
    about = {
        "processor": "P",
        "cores": 2,
        "system": "S",
        "versions": {"torch": "2", "jax": "0", "scikit-learn": "not installed"},
    }
    text = report.text([outcome(TIMES)], ["torch", "jax"], about, full=True)
    row = next(line for line in text.splitlines() if line.startswith("| mlp-tiny"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:7] == ["mlp-tiny", "2.00", "4.00", "90.0", "60.0", "40.0", "–"]
    assert cells[7:9] == ["20.0 (≥ 100)", "10.0 (≥ 20)"]
    flops = workloads.find("mlp-tiny").flops
    assert cells[9] == f"{flops / 2e-6 / 1e9:.1f} ({flops / 2e-6 / 1e9 / 2:.0f} %)"
    assert "left out: scikit-learn" in text
    assert "JAX scan, 1 thread" in text


def test_random_networks_are_summed_up_by_their_geometric_mean():
    found = [
        outcome({("chainrule", "epoch", 2): [1e-6], ("torch", "eager", 2): [ratio * 1e-6]}, name=f"random-0{i}")
        for i, ratio in enumerate((2.0, 8.0), 1)
    ]
    assert report.random_summary([*found, outcome(TIMES)]) == (
        "2 random networks, epoch: geometric mean 4.00 (≥ 4) times the best peer, least 2.00 (random-01)"
    )
    assert report.random_summary([outcome(TIMES)]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.6, "1,235"), (99.96, "100.0"), (0.01234, "0.0123"), (math.nan, "–"), (5.678, "5.68")],
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text


# -- the command


def run(*arguments):
    command_line = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command_line, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)


def test_mlp_from_the_command_line(tmp_path):
    path = tmp_path / "figures.json"
    done = run("mlp", *TINY, "--workloads", "mlp-tiny", "--details", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "| mlp-tiny" in done.stdout
    assert "starting chainrule epoch, 1 thread" in done.stderr
    written = json.loads(path.read_text())
    assert written["machine"]["engine"] == "reference"
    [workload] = written["mlp"]
    assert [e["mode"] for e in workload["entries"]] == ["epoch", "call"]
    assert all(len(e["losses"]) == 3 and e["seconds_per_step"] > 0 for e in workload["entries"])
    assert workload["ratio"] == {"epoch": None, "call": None}


def test_an_engine_that_does_not_exist_fails_the_command():
    done = run("mlp", *TINY[:-4], "--engine", "steam", "--workloads", "mlp-tiny")
    assert done.returncode == 1
    assert "no engine 'steam'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wrong", [["--workloads", "x"], ["--peers", "x"], ["--threads", "0"]])
def test_wrong_options_are_explained(wrong):
    done = run("mlp", "--quick", *wrong)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.endswith("so it is left out.")]
    assert len(lines) == 1


def test_startup_times_chainrule_and_what_it_stands_on(tmp_path):
    own = [s for s in startup.starts([], "reference") if s.title.startswith("chainrule")]
    assert [s.fresh for s in own] == [False, True]
    timed = startup.time_start(own[1], str(tmp_path), 1)
    assert 0 < timed.first_step <= timed.whole
    with pytest.raises(runner.WorkerFailed, match="ZeroDivisionError"):
        startup.time_start(startup.Start("broken", "1 / 0"), str(tmp_path), 1)
    assert "| chainrule |" in startup.startup_table({"chainrule": [timed]})


def test_what_a_run_costs_is_held_against_a_bare_training(tmp_path, capsys):
    file = tmp_path / "recording.json"
    assert command.main(["recording", *TINY, "--workloads", "mlp-tiny", "--json", str(file)]) == 0
    assert "| mlp-tiny " in capsys.readouterr().out
    (found,) = json.loads(file.read_text())["recording"]
    turns = {turn["variant"]: turn for turn in found["turns"]}
    assert list(turns) == ["bare", "run alone", "by default"]
    assert all(0 < turn["clock"] < 60 and 0 <= turn["inside"] < 1 for turn in turns.values())
    made = [{"variant": v, "round": r, "clock": c} for v, r, c in [("bare", 0, 2.0), ("x", 0, 3.0), ("bare", 1, 4.0)]]
    assert recording.ratios(made, "x", "clock") == [0.5]


def test_each_kernel_of_a_step_is_counted(tmp_path, capsys):
    file = tmp_path / "kernels.json"
    assert command.main(["kernels", *TINY, "--workloads", "mlp-tiny,lstm", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "mlp-tiny: " in printed and "(loop)" in printed and "(in a loop, contract)" in printed
    tiny, lstm = json.loads(file.read_text())["kernels"]
    assert all(row["works"] > 0 and row["waits"] >= 0 for row in tiny["kernels"])
    assert sum(row["works"] for row in tiny["kernels"]) < tiny["step"]
    assert sum(row["flops"] for row in tiny["kernels"]) == 2 * 16 * (3 * (16 * 16 + 16 * 3) + 2 * 4 * 16)
    (loop, *_) = [row for row in lstm["kernels"] if row["form"] == "loop"]
    inside = [row for row in lstm["kernels"] if row["name"].startswith(loop["name"] + ".")]
    assert inside and all(row["inside"] for row in inside)
    assert 0 < sum(row["works"] + row["waits"] for row in inside) < 1.05 * loop["works"]


def test_compilation_is_timed_cold_and_from_disk(tmp_path):
    path = tmp_path / "figures.json"
    done = run("compile", *TINY, "--workloads", "mlp-tiny", "--json", str(path))
    assert done.returncode == 0, done.stderr
    [row] = json.loads(path.read_text())["compile"]
    assert 0 < row["cold"]["engine"] <= row["cold"]["call"]
    assert row["disk"]["epoch"] > 0


def test_peers_that_are_missing_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(peers, "installed", lambda peer: peer == "jax")
    assert command.choose_peers(None) == ["jax"]
    assert "torch is not installed" in capsys.readouterr().err
    assert command.choose_peers("none") == []
