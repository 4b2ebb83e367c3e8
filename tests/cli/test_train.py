"""`train`: from every kind of source to a tested network, and what it says on the way."""

import gzip
import json
import re
import struct

import numpy as np
import polars as pl
import pytest

from chainrule import data
from chainrule.cli.options import ACTIVATIONS, NORMS, OPTIMIZERS, SCHEDULES, VALUE_LOSSES
from chainrule.train.store import Run


def scores(shown):
    assert shown.code == 0, shown.err
    return json.loads(shown.out)["scores"]


def test_one_command_tells_the_whole_story(cli, table):
    table("houses.csv")
    shown = cli("train", "houses.csv", "--target", "price", "--epochs", 5)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == "houses.csv   120 rows × 4 columns   target price (regression)"
    assert lines[2] == "  split 96 / 12 / 12 (seed 0)"
    assert lines[3] == "network      5 → 64 → 64 → 1, ReLU, dropout 0.2, 4,609 parameters"
    assert lines[4].startswith("training     AdamW 0.003, weight decay 1, batch 32, at most 5 epochs")
    assert lines[5] == "engine       native (machine code for this processor)"
    assert "stopped: all 5 epochs done; weights of epoch 5 kept" in lines
    assert [line.split()[0] for line in lines[8:12]] == ["RMSE", "train", "validation", "test"]
    assert "residuals, test: answer − truth" in lines
    assert any(line.startswith("run          runs/houses-1") for line in lines)
    assert lines[-1].startswith("next: chainrule predict runs/houses-1 FILE · chainrule evaluate runs/houses-1")
    assert "epoch 5/5  loss" in shown.err
    assert "\x1b" not in shown.out + shown.err  # no colours where there is no terminal


def test_native_training_says_what_it_runs_on_and_how_fast(cli):
    shown = cli("train", "iris", "--epochs", 3, "--engine", "native", "--threads", 2)
    assert shown.code == 0, shown.err
    assert "engine       native (machine code for this processor)" in shown.out.splitlines()
    assert "2 threads; " in shown.err.splitlines()[0]
    assert re.search(r"^speed .* rows/s on .*, 2 threads; \d+ kernels in .*B$", shown.out, re.MULTILINE)
    assert re.search(r"^run .*\(3 epochs in .*\)$", shown.out, re.MULTILINE)
    value = json.loads(cli("train", "iris", "--epochs", 3, "--engine", "native", "--json").out)
    assert " kernels in " in value["device"]
    assert value["rows_per_second"] > 0


def test_threads_belong_to_the_native_engine(cli):
    shown = cli("train", "iris", "--engine", "reference", "--threads", 2)
    assert shown.code != 0
    assert "the reference engine has nothing to choose" in shown.err


def test_quiet_shows_results_only(cli):
    shown = cli("train", "iris", "--epochs", 2, "--quiet")
    assert shown.err == ""
    assert shown.out.startswith("stopped: all 2 epochs done")
    assert "confusion, test" in shown.out
    assert "next:" not in shown.out


def test_json_is_one_value_and_kept_beside_the_run(cli, tmp_path):
    shown = cli("train", "iris", "--epochs", 2, "--json")
    assert shown.err == ""
    value = json.loads(shown.out)
    assert value == json.loads((tmp_path / value["run"] / "results.json").read_text())
    assert value["rows"] == {"train": 120, "validation": 15, "test": 15}
    assert set(value["scores"]["test"]) == {"accuracy", "loss", "f1"}
    assert value["epochs"] == 2


def test_scores_of_two_classes_have_the_area_under_the_curve(cli):
    assert set(scores(cli("train", "breast_cancer", "--epochs", 1, "--json"))["test"]) == {
        "accuracy",
        "loss",
        "f1",
        "auc",
    }


def test_the_names_of_classes_stand_in_the_confusion_matrix(cli):
    shown = cli("train", "breast_cancer", "--epochs", 3, "-q")
    matrix = shown.out.splitlines()[
        shown.out.splitlines().index("confusion, test: rows are the truth, columns the answers") + 1 :
    ]
    assert matrix[0].split() == ["truth", "benign", "malignant"]
    assert [line.split()[0] for line in matrix[1:3]] == ["benign", "malignant"]
    assert sum(int(cell) for line in matrix[1:3] for cell in line.split()[1:] if cell != "·") == 57


def test_the_same_seed_gives_the_same_bits_and_another_does_not(cli, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli("train", "iris", "--epochs", 3, "--seed", seed, "--name", name, "-q").code == 0
    a, b, c = (Run.open(tmp_path / "runs" / name).load("last").tensors for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not all(np.array_equal(a[name], c[name]) for name in a)


def test_runs_are_numbered_and_keep_plain_json_only(cli, tmp_path):
    for _ in range(2):
        assert cli("train", "iris", "--epochs", 1, "-q").code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["iris-1", "iris-2"]
    config = json.loads((tmp_path / "runs/iris-1/config.json").read_text())["config"]
    assert config["source"]["path"] == "iris"
    assert data.Preparation.from_json(json.dumps(config["preparation"])).class_names[0] == "setosa"
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.py"))


def test_a_run_elsewhere(cli, tmp_path):
    shown = cli("train", "iris", "--epochs", 1, "--runs-dir", "here/and there", "--name", "my run")
    assert (tmp_path / "here/and there/my run/config.json").exists()
    assert "next: chainrule predict 'here/and there/my run' FILE" in shown.out  # as a shell takes it


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def pictures(rows=80):
    """Pictures of 4 × 4 pixels, bright at the left or at the right."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, rows).astype(np.uint8)
    x = draw.integers(0, 100, (rows, 4, 4))
    x[y == 0, :, :2] += 100
    x[y == 1, :, 2:] += 100
    return x.astype(np.uint8), y


def write_parquet(folder, frame):
    frame.write_parquet(folder / "houses.parquet")
    return "houses.parquet"


def write_tsv(folder, frame):
    frame.write_csv(folder / "houses.tsv", separator="\t")
    return "houses.tsv"


def write_gzip(folder, frame):
    (folder / "houses.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    return "houses.csv.gz"


@pytest.mark.parametrize("write", [write_parquet, write_tsv, write_gzip])
def test_tables_in_other_formats_give_the_same_result(cli, table, tmp_path, write):
    path = table("houses.csv")
    other = write(tmp_path, pl.read_csv(path))
    one, two = (scores(cli("train", source, "-t", "price", "-e", 3, "--json")) for source in ("houses.csv", other))
    assert one == two


def write_npz(folder):
    x, y = pictures()
    np.savez(folder / "pictures.npz", x=x, y=y)
    return "pictures.npz"


def write_idx(folder):
    x, y = pictures()
    (folder / "pictures").mkdir()
    (folder / "pictures/train-images-idx3-ubyte").write_bytes(idx(x))
    (folder / "pictures/train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    return "pictures"


@pytest.mark.parametrize("write", [write_npz, write_idx])
def test_images(cli, tmp_path, write):
    source = write(tmp_path)
    assert scores(cli("train", source, "--json", "--name", "bright"))["test"]["accuracy"] == 1
    assert cli("predict", "bright", source).out.split()[1:] == [str(label) for label in pictures()[1]]


def test_a_text_target_with_two_words_is_binary(cli, table):
    rows = "\n".join(f"{i % 7},{'yes' if i % 7 > 3 else 'no'}" for i in range(70))
    table("mood.csv", f"a,mood\n{rows}\n")
    assert json.loads(cli("train", "mood.csv", "-t", "mood", "--json").out)["task"] == "binary"


EVERYTHING = (
    [["--optimizer", name] for name in OPTIMIZERS]
    + [["--schedule", name] for name in SCHEDULES]
    + [["--activation", name] for name in ACTIVATIONS]
    + [["--norm", name] for name in NORMS]
    + [["--loss", name] for name in VALUE_LOSSES]
    + [
        ["--norm", "batch", "--batch-size", "19"],  # 96 rows: a batch of a single row would be left
        ["--layers", "none"],
        ["--layers", "8,4", "--dropout", "0"],
        ["--ema", "0.9", "--clip-norm", "1", "--warmup", "1", "--weight-decay", "0.1"],
        ["--metric", "rmse", "--metric", "mae"],
        ["--validation", "0", "--test", "0"],
        ["--patience", "0", "--stop-loss", "0.001", "--time-limit", "1h"],
        ["--kind", "age=category", "--ignore", "city", "--most-levels", "3", "--no-flag-missing"],
    ]
)


@pytest.mark.parametrize("options", EVERYTHING, ids=" ".join)
def test_every_option_trains(cli, table, options):
    table("houses.csv")
    found = scores(cli("train", "houses.csv", "-t", "price", "--epochs", 2, "--json", *options))
    assert all(np.isfinite(value) for part in found.values() for value in part.values())


def test_rare_classes_count_as_much_when_balanced(cli, table):
    draw = np.random.default_rng(0)
    rows = [f"{draw.normal(0, 1):.3f},common" for _ in range(190)] + [
        f"{draw.normal(1.5, 1):.3f},rare" for _ in range(30)
    ]
    table("lopsided.csv", "x,class\n" + "\n".join(rows))
    recalls = []
    for weight in ("none", "balanced"):
        cli("train", "lopsided.csv", "-t", "class", "--class-weight", weight, "--name", weight, "-q")
        matrix = np.array(
            json.loads(cli("evaluate", weight, "lopsided.csv", "--json").out)["confusion"]["lopsided.csv"]
        )
        recalls.append(matrix[1, 1] / matrix[1].sum())
    assert recalls[1] > recalls[0] + 0.2


def test_a_time_limit_ends_it(cli):
    shown = cli("train", "iris", "--time-limit", "0.05", "--patience", 0, "--epochs", 100_000, "-q")
    assert "stopped: the time limit of 0.05 seconds is reached" in shown.out


def test_divergence_is_told_with_what_to_try(cli, table):
    table("houses.csv")
    shown = cli("train", "houses.csv", "-t", "price", "--optimizer", "sgd", "--lr", "1e9")
    assert shown.code == 1
    assert "Stopped before the update" in shown.err
    assert "chainrule find-lr" in shown.err
    assert "The run is kept in runs/houses-1." in shown.err
    assert "failed" in cli("runs").out


@pytest.mark.parametrize(
    ("source", "metric", "least"),
    [
        ("digits", "accuracy", 0.97),
        ("breast_cancer", "accuracy", 0.96),
        ("wine", "accuracy", 0.95),
        ("iris", "accuracy", 0.93),
    ],
)
def test_the_defaults_do_well_on_the_shipped_sets(cli, source, metric, least):
    assert scores(cli("train", source, "--json"))["test"][metric] >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "metric", "least"),
    [
        ("digits", "accuracy", 0.98),
        ("breast_cancer", "accuracy", 0.97),
        ("wine", "accuracy", 0.97),
        ("iris", "accuracy", 0.94),
        ("diabetes", "r2", 0.44),
    ],
)
def test_the_defaults_do_well_on_average_over_seeds(cli, source, metric, least):
    found = [scores(cli("train", source, "--json", "--seed", seed))["test"][metric] for seed in range(5)]
    assert np.mean(found) >= least
