"""Event files as TensorBoard itself reads them, against the records of the run."""

import warnings

import numpy as np
import pytest

from chainrule import losses, nn, optim
from chainrule.interop.tensorboard import EventWriter
from chainrule.train import Run, TensorBoard, export_run, fit, resume

pytestmark = pytest.mark.oracle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)


def read(folder):
    """What TensorBoard finds in a folder, all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
        found.Reload()
    return found


def parts(**options):
    return {
        "model": nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)),
        "data": (X, Y),
        "loss": losses.mse,
        "optimizer": optim.Adam(lr=1e-2),
        "epochs": 3,
        "progress": "silent",
        "validation": (X[:8], Y[:8]),
    } | options


def scalars(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def compare(found, run):
    """Scalars and histograms of the files are those of the run."""
    snapshots = run.snapshots()
    assert len(snapshots) >= 3
    for name in ("loss", "validation_loss", "learning_rate"):
        expected = [(row["step"], np.float32(row[name])) for row in run.history() if name in row]
        assert scalars(found, name) == expected
    for name in ("loss", "gradient_norm"):
        assert scalars(found, f"recorded/{name}") == [(s["step"], np.float32(s[name])) for s in snapshots]
    assert scalars(found, "layers/1 ReLU/dead") == [(s["step"], np.float32(s["layers"][1]["dead"])) for s in snapshots]
    tags = found.Tags()["histograms"]
    assert {f"parameters/0.weight/{part}" for part in ("value", "gradient", "update")} <= set(tags)
    for tag, get in (
        ("layers/0 Linear/output", lambda s: s["layers"][0]["output"]),
        ("parameters/2.weight/update", lambda s: s["parameters"][2]["update"]),
    ):
        events = found.Histograms(tag)
        assert [event.step for event in events] == [s["step"] for s in snapshots]
        for event, snapshot in zip(events, snapshots, strict=True):
            expected, value = get(snapshot), event.histogram_value
            assert (value.min, value.max) == (expected["min"], expected["max"])
            assert value.bucket == expected["histogram"]["counts"]
            assert value.num == sum(value.bucket)
            assert value.sum / value.num == pytest.approx(expected["mean"], rel=1e-12, abs=1e-15)
            assert value.sum_squares == pytest.approx(expected["norm"] ** 2)
            assert list(value.bucket_limit) == sorted(value.bucket_limit)
            assert value.bucket_limit[-1] == expected["max"]


def test_tensorboard_shows_what_the_run_has_recorded(tmp_path):
    fit(**parts(run_dir=tmp_path / "run", record=1, callbacks=[TensorBoard(tmp_path / "events")]))
    run = Run.open(tmp_path / "run")
    compare(read(tmp_path / "events"), run)
    export_run(run, tmp_path / "exported")
    found = read(tmp_path / "exported")
    compare(found, run)
    expected = [(row["step"], np.float32(row["batch_loss"])) for row in run.history() if "batch_loss" in row]
    assert scalars(found, "batch_loss") == expected


def test_a_training_that_goes_on_makes_void_what_came_after_its_checkpoint(tmp_path):
    writer = EventWriter(tmp_path / "events")  # of a training that was killed after its last checkpoint
    for step in (2, 4, 6, 8):
        writer.scalar("recorded/loss", 99.0, step)
    writer.flush()
    fit(**parts(run_dir=tmp_path / "run", epochs=2, record=1))
    resume(
        tmp_path / "run",
        **{name: value for name, value in parts().items() if name not in ("epochs",)},
        epochs=3,
        callbacks=[],
    )
    run = Run.open(tmp_path / "run")
    assert [s["step"] for s in run.snapshots()] == [1, 2, 3, 4, 5, 6]
    again = EventWriter(tmp_path / "events")
    again.restart(5)
    again.scalar("recorded/loss", 1.0, 6)
    again.flush()
    assert scalars(read(tmp_path / "events"), "recorded/loss") == [(2, 99.0), (4, 99.0), (6, 1.0)]
