"""The larger networks of the benchmarks: what they are, that chainrule trains them, and how they are reported."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import layers, peers, report, workloads
from benchmarks.peers import Entry, chainrule_peer
from benchmarks.runner import Measured, Outcome

ROOT = Path(__file__).parents[1]
NAMES = [workload.name for workload in workloads.NETWORKS]

# Parameters, and multiplications with them or of two values in a row: (by the data, by inner values).
COUNTED = {
    "lenet": (
        32 * 10 + 64 * 289 + 1601 * 128 + 129 * 10,
        (26 * 26 * 32 * 9, 11 * 11 * 64 * 288 + 1600 * 128 + 128 * 10),
    ),
    "cnn32": (
        27 * 32 + 288 * (32 + 64) + 576 * (64 + 128) + 2 * (32 + 32 + 64 + 64 + 128) + 129 * 10,
        (1024 * 27 * 32, 1024 * 288 * 32 + 256 * (288 * 64 + 576 * 64) + 64 * 576 * 128 + 1280),
    ),
    "lstm": (
        96 * 128 + 512 * 258 + 129 * 96,
        (0, 64 * (512 * 256 + 128 * 96)),
    ),
    "gru": (
        96 * 128 + 384 * 258 + 129 * 96,
        (0, 64 * (384 * 256 + 128 * 96)),
    ),
    "bilstm": (
        2 * 512 * (64 + 130) + 2 * 512 * (256 + 130) + 257 * 96,
        (64 * 2 * 512 * 64, 64 * (2 * 512 * 128 + 2 * 512 * 384 + 256 * 96)),
    ),
    "gpt": (
        65 * 128 + 64 * 128 + 4 * (4 * 128 + 129 * 384 + 129 * 128 + 129 * 512 + 513 * 128) + 256 + 129 * 65,
        (0, 64 * 4 * 12 * 128**2 + 4 * 64 * 65 * 128 + 64 * 128 * 65),
    ),
    "conv-ae": (
        10 * 32 + 289 * 64 + 64 * 32 * 9 + 32 + 32 * 9 + 1,
        (196 * 32 * 9, 49 * 64 * 288 + 49 * 64 * 288 + 196 * 32 * 9),
    ),
    "text-cnn": (
        16_000 * 300 + (12 * 300 + 3) * 100 + 301 * 2,
        (0, (58 * 3 + 57 * 4 + 56 * 5) * 300 * 100 + 300 * 2),
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_and_flops_are_those_counted_by_hand(name):
    w = workloads.find(name)
    parameters, (by_data, inner) = COUNTED[name]
    assert w.parameters == parameters
    assert w.flops == 2 * w.batch * (2 * by_data + 3 * inner)


def test_resnet_and_separable_have_the_parameters_of_their_papers():
    """He et al. give 0.27 million for ResNet-20; a separable block has 9 + 2 numbers a channel, and its 1×1."""
    assert workloads.find("resnet").parameters == 269_722 + (16 * 32 + 32 * 64) + 2 * (32 + 64)
    pairs = [(32, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    expected = 27 * 32 + 64 + sum(11 * a + a * b + 2 * b for a, b in pairs) + 257 * 10
    assert workloads.find("separable").parameters == expected


def test_the_networks_are_those_of_the_table():
    found = {w.name: (w.batch, w.shape, w.vocabulary, w.output) for w in workloads.NETWORKS}
    assert found == {
        "lenet": (64, (1, 28, 28), 0, (10,)),
        "cnn32": (64, (3, 32, 32), 0, (10,)),
        "cnn32-fast": (64, (3, 32, 32), 0, (10,)),
        "resnet": (64, (3, 32, 32), 0, (10,)),
        "lstm": (32, (64,), 96, (64, 96)),
        "gru": (32, (64,), 96, (64, 96)),
        "bilstm": (32, (64, 64), 0, (64, 96)),
        "gpt": (12, (64,), 65, (64, 65)),
        "conv-ae": (128, (1, 28, 28), 0, (1, 28, 28)),
        "text-cnn": (50, (60,), 16_000, (2,)),
        "separable": (64, (3, 32, 32), 0, (10,)),
    }
    assert all(w.loss == ("mse" if w.name == "conv-ae" else "cross_entropy") for w in workloads.NETWORKS)
    assert all((w.optimizer, w.dtype, w.perceptron) == ("adam", "float32", False) for w in workloads.NETWORKS)


@pytest.mark.parametrize("name", NAMES)
def test_data_and_weights_fit_the_network(name):
    w, full = workloads.find(name, quick=True), workloads.find(name)
    assert (w.batch, w.batches) == (workloads.QUICK_ROWS, workloads.QUICK_BATCHES)
    assert (workloads.few(name).batch, workloads.few(name).layers) == (full.batch, full.layers)
    x, y = w.data
    assert x.shape == (w.rows, *w.shape)
    if w.unsupervised:
        assert y is x
    else:
        assert y.shape == (w.rows, *w.output[:-1])
        assert (y.min() >= 0, y.max() < w.output[-1], len(np.unique(y)) > 1) == (True, True, True)
    if w.vocabulary:
        assert (x.dtype, x.min() >= 0, x.max() < w.vocabulary) == (np.int64, True, True)
    assert x.nbytes + (0 if y is x else y.nbytes) == pytest.approx(1e6 * w.megabytes)
    drawn = sum(value.size for value in w.weights.values())
    norms = sum(layer.norms(shape) for _, layer, shape in layers.walk(w.layers, w.shape))
    assert drawn + norms == w.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_network_of_chainrule_has_these_weights_and_this_shape(name):
    w = workloads.find(name, quick=True)
    model = chainrule_peer.network(w)
    assert model.parameter_count() == w.parameters
    state = {key.replace("inner.", ""): value for key, value in model.state_dict().items()}
    assert all(np.array_equal(np.asarray(state[key]), value) for key, value in w.weights.items())
    assert model(w.data[0][:2]).shape == (2, *w.output)


@pytest.mark.parametrize("name", ["lenet", "gru", "gpt", "conv-ae"])
def test_epoch_and_single_calls_train_the_same(name):
    w = workloads.find(name, quick=True)
    epoch, call = (chainrule_peer.losses(w, mode, 1, "reference", 3) for mode in ("epoch", "call"))
    assert len(set(call)) == 3
    assert epoch == pytest.approx(call, rel=1e-5)


def test_ways_to_use_a_library_fit_the_network(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/c++" if name == "c++" else None)
    modes = lambda name, peer: peers.modes(workloads.find(name, quick=True), peer)
    assert modes("lenet", "torch") == ("eager", "fused", "fused, channels last", "compiled", "compiled, channels last")
    assert modes("lstm", "torch") == ("eager", "fused", "compiled")
    assert modes("text-cnn", "torch") == ("eager", "fused", "compiled", "fused, sparse")
    assert (modes("gpt", "jax"), modes("gru", "jax")) == (("jit",), ("jit", "jit, unrolled"))
    assert modes("mlp-tiny", "torch") == ("eager", "fused")
    assert all(modes(name, "sklearn") == () for name in NAMES)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    assert modes("gpt", "torch") == ("eager", "fused")


def test_peers_take_part_with_one_thread_and_with_all_save_what_pytorch_compiles(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/c++")
    found = peers.entries(workloads.find("gpt"), ["torch", "jax"], 2)
    assert [(e.mode, e.threads) for e in found] == [
        ("epoch", 2), ("call", 2), ("eager", 2), ("eager", 1), ("fused", 2), ("fused", 1), ("compiled", 2), ("jit", 2),
        ("jit", 1),
    ]  # fmt: skip


TIMES = {
    ("chainrule", "epoch", 2): [2e-3],
    ("chainrule", "call", 2): [1e-3],
    ("torch", "fused", 2): [5e-3],
    ("torch", "compiled", 1): [4e-3],
    ("torch", "fused, sparse", 2): [3e-3],
    ("jax", "jit", 1): [6e-3],
}


def outcome(losses=()):
    measured = [Measured(Entry(*key), rounds, 10.0 + i) for i, (key, rounds) in enumerate(TIMES.items())]
    for m, found in zip(measured, losses, strict=False):
        m.losses = found
    return Outcome(workloads.find("text-cnn"), measured, 100.0)


def test_the_table_names_the_fastest_way_of_each_library():
    about = {"processor": "P", "cores": 2, "system": "S", "versions": dict.fromkeys(peers.PACKAGES.values(), "1")}
    text = report.text([outcome()], ["torch", "jax", "sklearn"], about, full=False)
    row = next(line for line in text.splitlines() if line.startswith("| text-cnn"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    speed = workloads.find("text-cnn").flops / 1e-3 / 1e9
    assert cells == [
        "text-cnn", "2.00", "1.00", "3.00 (fused, sparse, 2)", "6.00 (jit, 1)", "1.50", "3.00 (≥ 2)",
        f"{report.number(speed)} ({speed / 2:.0f} %)", "11.0", "14.0", "15.0",
    ]  # fmt: skip


def test_sparse_adam_is_compared_as_long_as_it_is_the_same_training():
    same, other = [3.0, 2.0, 1.0], [3.0, 2.0, 1.5]
    assert outcome([same, same, same, same, same[:2], same]).sound
    assert not outcome([same, same, same, same, [3.0, 2.1], same]).sound
    assert not outcome([same, same, other]).sound
    assert not outcome([same, same, same[:2]]).sound


def test_networks_from_the_command_line(tmp_path):
    path = tmp_path / "figures.json"
    options = ["--quick", "--peers", "none", "--engine", "reference", "--threads", "1", "--workloads", "conv-ae"]
    command = [sys.executable, "-m", "benchmarks", "networks", *options, "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| conv-ae") == 2  # the step, and the seconds to compile
    [workload] = json.loads(path.read_text())["networks"]
    assert [e["mode"] for e in workload["entries"]] == ["epoch", "call"]
    assert all(len(e["losses"]) == 3 and math.isfinite(e["seconds_per_step"]) for e in workload["entries"])
    assert workload["compilation"]["cold"]["call"] > 0
