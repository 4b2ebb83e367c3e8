"""Two steps, and two runs: what differs, where they part, and with how few steps that is found."""

import json
import shutil

import numpy as np
import pytest
from tests.replay.runs import LONG, LONG_X, LONG_Y, ODD_ROW, ODD_STEP, SETTINGS, long, long_with_another_row, plain

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import CheckpointError, ConfigError
from chainrule.replaying import diff_runs, diff_steps, replay
from chainrule.replaying.nodes import row_differences, same_bits
from chainrule.replaying.parting import settings_apart
from chainrule.train import fit
from chainrule.train.batches import Batch, row_order
from chainrule.train.checkpoint import CheckpointWarning
from chainrule.train.milestones import list_milestones
from chainrule.train.store import Run

LAST = 2000


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory):
    """Runs of 2,000 steps: one, an equal one, one with another row, one with another rate."""
    folder = tmp_path_factory.mktemp("long")
    for name, parts in (
        ("one", long()),
        ("same", long()),
        ("row", long_with_another_row()),
        ("rate", long(lr=0.011)),
    ):
        fit(**parts, **LONG, run_dir=folder / name)
    fit(**long(), **LONG | {"seed": 6}, run_dir=folder / "seed")
    return folder


@pytest.fixture
def runs(long_runs, tmp_path):
    """A copy of them, to damage."""
    shutil.copytree(long_runs, tmp_path / "runs")
    return tmp_path / "runs"


# -- two runs


def check_row(found):
    """The runs part where the other row is used, and it is told which, and where that shows first."""
    parting = found.parting
    assert parting.step == ODD_STEP
    assert parting.epoch == 1
    assert found.after == ODD_STEP - 1
    assert parting.same_rows and parting.same_steps
    assert [(row.row, row.other_row, row.place, row.parts) for row in parting.rows] == [(ODD_ROW, ODD_ROW, 2, ("x",))]
    assert parting.node.inputs == ("x",)
    assert (parting.node.op, parting.node.module, parting.node.layer) == ("matmul", "0", "Linear")
    assert parting.node.part == "forward"
    assert "model.0.weight" in parting.state
    return True


def test_two_runs_that_differ_in_one_row_part_where_it_is_used(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row)
    assert check_row(found)
    assert found.settings == ()
    step, a, b = found.losses
    assert ODD_STEP <= step < ODD_STEP + 40 and a != b  # of 2,000 losses every 40th is recorded
    assert found.total == 2 * LAST
    assert found.replayed <= 2 * 64 + 2 * 1 + 64  # at most the way between two milestones, for both, and some again
    assert found.replayed < found.total / 16


def test_the_states_before_are_equal_and_those_after_are_not(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row)
    one = replay(long_runs / "one", **long(), step=found.parting.step)
    row = replay(long_runs / "row", **long_with_another_row(), step=found.parting.step)
    assert all(same_bits(one.before[name], row.before[name]) for name in one.before)
    assert not all(same_bits(one.after[name], row.after[name]) for name in one.after)


def test_what_was_recorded_alone_brackets_it_without_a_replay(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "row")
    assert found.replayed == 0
    assert found.parting is None
    assert found.after == ODD_STEP // 64 * 64  # the last milestone before
    assert ODD_STEP <= found.losses[0] < ODD_STEP + 40


def test_runs_that_do_not_part(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "same", long)
    assert (found.parting, found.losses, found.settings, found.after) == (None, None, (), LAST)
    assert found.replayed <= 2 * 64


def test_another_learning_rate(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "rate", long, lambda: long(lr=0.011))
    assert [name for name, _, _ in found.settings] == ["optimizer"]
    assert found.parting.step == 1
    assert found.parting.rows == ()
    assert found.parting.node.part == "update"
    assert found.parting.node.inputs == ("optimizer.rates.default",)
    assert found.replayed <= 2 * 64


def test_another_seed(long_runs):
    """Without dropout the seed decides the order of rows alone."""
    found = diff_runs(long_runs / "one", long_runs / "seed", long)
    assert found.settings == (("fit.seed", 5, 6),)
    assert found.parting.step == 1
    assert not found.parting.same_rows
    rows = row_order(5, 1, 8000)[:4], row_order(6, 1, 8000)[:4]
    assert [(row.row, row.other_row) for row in found.parting.rows] == list(zip(*map(list, rows), strict=True))
    assert found.parting.node.inputs == ("x", "y")


def test_another_seed_with_dropout_shows_in_the_generator(tmp_path):
    for seed in (3, 4):
        fit(**plain(), **SETTINGS | {"epochs": 1, "seed": seed}, run_dir=tmp_path / str(seed))
    found = diff_runs(tmp_path / "3", tmp_path / "4", plain)
    assert found.parting.step == 0
    assert found.parting.state == ("model.3.generator.key",)


def test_other_initial_weights(tmp_path):
    def other():
        parts = plain()
        parts["model"].assign({"4.bias": parts["model"][4].bias + 1})
        return parts

    fit(**plain(), **SETTINGS | {"epochs": 1}, run_dir=tmp_path / "one")
    fit(**other(), **SETTINGS | {"epochs": 1}, run_dir=tmp_path / "other")
    found = diff_runs(tmp_path / "one", tmp_path / "other", plain, other)
    assert (found.parting.step, found.parting.state, found.parting.node) == (0, ("model.4.bias",), None)
    assert found.replayed == 0


def test_another_optimizer(tmp_path):
    def other():
        return long() | {"optimizer": optim.SGD(lr=0.01)}

    settings = LONG | {"batch_size": 40}
    fit(**long(), **settings, run_dir=tmp_path / "one")
    fit(**other(), **settings, run_dir=tmp_path / "other")
    found = diff_runs(tmp_path / "one", tmp_path / "other", long, other)
    assert found.parting.step == 1
    assert not found.parting.same_steps
    assert found.parting.rows == ()


class Doubling(nn.Module):
    """A network of one's own, with lines of source."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)

    def forward(self, x):
        hidden = self.inner(x)  # a line to be found
        return hidden * 2.0


def test_the_line_of_source_of_the_first_value_is_told(tmp_path):
    def make(x=LONG_X):
        cr.random.manual_seed(1)
        return long(x) | {"model": Doubling()}

    def other():
        x = LONG_X.copy()
        x[int(row_order(5, 1, 8000)[40 * 7]), 0] += 1
        return make(x)

    settings = LONG | {"batch_size": 40}
    fit(**make(), **settings, run_dir=tmp_path / "one")
    fit(**other(), **settings, run_dir=tmp_path / "other")
    parting = diff_runs(tmp_path / "one", tmp_path / "other", make, other).parting
    assert parting.step == 8
    node = parting.node
    assert (node.file, node.source) == (__file__, "hidden = self.inner(x)  # a line to be found")
    assert (node.module, node.layer) == ("inner", "Linear")
    assert node.count == 1 and node.index == (0, 0) and node.values[0] != node.values[1]
    assert node.largest == pytest.approx(abs(node.values[0] - node.values[1]))


def test_layers_of_this_package_have_no_line(long_runs):
    node = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row).parting.node
    assert (node.file, node.line, node.source) == ("", 0, "")


def test_two_steps_of_two_runs(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row, steps=(1370, 1370))
    assert found.steps.first.loss == found.steps.second.loss
    assert set(found.steps.moved.values()) == {0.0}
    later = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row, steps=(2000, 2000))
    assert min(later.steps.moved.values()) > 0
    assert (later.steps.first.run, later.steps.second.run) == ("one", "row")


def test_as_json(long_runs):
    found = diff_runs(long_runs / "one", long_runs / "row", long, long_with_another_row, steps=(1, 2))
    told = json.loads(json.dumps(found.to_dict()))
    assert told["parting"]["step"] == ODD_STEP
    assert told["parting"]["node"]["op"] == "matmul"
    assert told["parting"]["rows"] == [{"place": 2, "row": ODD_ROW, "other_row": ODD_ROW, "parts": ["x"]}]
    assert told["steps"]["second"]["step"] == 2
    assert told["last"] == [LAST, LAST]


# -- what is lost or damaged


def test_without_milestones_it_takes_longer_and_finds_the_same(runs):
    with_them = diff_runs(runs / "one", runs / "row", long, long_with_another_row)
    for name in ("one", "row"):
        shutil.rmtree(runs / name / "milestones")
    found = diff_runs(runs / "one", runs / "row", long, long_with_another_row)
    assert check_row(found)
    assert with_them.replayed * 5 < found.replayed
    shutil.rmtree(runs / "one" / "checkpoints")  # nor any checkpoint: from the model as it was given
    assert check_row(diff_runs(runs / "one", runs / "row", long, long_with_another_row))


def test_without_milestones_of_one_run(runs):
    shutil.rmtree(runs / "row" / "milestones")
    assert check_row(diff_runs(runs / "one", runs / "row", long, long_with_another_row))


def test_a_damaged_milestone_is_passed_over(runs):
    before = ODD_STEP // 64 * 64
    path = list_milestones(runs / "one")[0][before].path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.warns(CheckpointWarning, match=f"step-{before:09d}"):
        found = diff_runs(runs / "one", runs / "row", long, long_with_another_row)
    assert check_row(found)


@pytest.mark.parametrize("step", [640, ODD_STEP // 64 * 64])
def test_a_milestone_with_a_wrong_digest_misleads_nobody(runs, step):
    """It says that the states differ long before they do."""
    path = list_milestones(runs / "one")[0][step].path
    content = path.read_bytes()
    digest = list_milestones(runs / "one")[0][step].digests["state"].encode()
    path.write_bytes(content.replace(digest, b"0" * 64))
    with pytest.warns(UserWarning, match=f"step {step} say that the runs differ there, but they do not|is damaged"):
        found = diff_runs(runs / "one", runs / "row", long, long_with_another_row)
    assert check_row(found)


def test_a_run_that_was_cut_short_is_compared_as_far_as_it_went(tmp_path, long_runs):
    settings = LONG | {"batch_size": 8}  # 1,000 steps, other batches
    fit(**long(), **settings, run_dir=tmp_path / "short")
    found = diff_runs(long_runs / "one", tmp_path / "short", long)
    assert found.last == (2000, 1000)
    assert found.parting.step == 1
    assert not found.parting.same_rows


def test_parts_that_make_no_sense(long_runs):
    one, row = long_runs / "one", long_runs / "row"
    with pytest.raises(ConfigError, match="lacks loss"):
        diff_runs(one, row, lambda: {k: v for k, v in long().items() if k != "loss"})
    with pytest.raises(ConfigError, match="has colour"):
        diff_runs(one, row, lambda: long() | {"colour": 1})
    with pytest.raises(ConfigError, match="needs `parts`"):
        diff_runs(one, row, steps=(1, 2))
    with pytest.raises(CheckpointError, match="The data given now are not"):
        diff_runs(one, row, long, lambda: long() | {"data": (LONG_X[:100], LONG_Y[:100])})


# -- two steps of a run


def test_two_steps(long_runs):
    found = diff_steps(long_runs / "one", **long(), steps=(80, 1999))
    first, second = (replay(long_runs / "one", **long(), step=k) for k in (80, 1999))
    assert (found.first.loss, found.second.loss) == (first.loss, second.loss)
    assert found.first.exact and first.exact  # the loss of step 80 is recorded
    for told, made in ((found.first, first), (found.second, second)):
        for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
            change = made.after[name].astype(np.float64) - made.before[name]
            assert told.parameters[name].update == pytest.approx(float(np.linalg.norm(change)), rel=1e-12)
            assert told.parameters[name].weights == pytest.approx(float(np.linalg.norm(made.before[name])), rel=1e-6)
        inner = [told.parameters[f"0.{name}"].gradient for name in ("weight", "bias")]
        assert told.layers["0"].gradient == pytest.approx(float(np.hypot(*inner)), rel=1e-12)
        every = [m.gradient for m in told.parameters.values()]
        assert told.gradient_norm == pytest.approx(float(np.linalg.norm(every)), rel=1e-12)
    moved = [second.before[f"2.{name}"].astype(np.float64) - first.before[f"2.{name}"] for name in ("weight", "bias")]
    assert found.moved["2"] == pytest.approx(float(np.sqrt(sum((m**2).sum() for m in moved))), rel=1e-6)
    assert (found.replayed, found.total) == (80 - 64 + 1999 - 1984, LAST)


def test_the_gradient_is_the_one_of_the_batch(tmp_path):
    """Of an SGD step the change is −rate × gradient, which tells what the gradient was."""

    def make():
        return plain() | {"optimizer": optim.SGD(lr=0.5)}

    fit(**make(), **SETTINGS | {"epochs": 2, "clip_norm": 0.01}, run_dir=tmp_path / "run")
    found = diff_steps(tmp_path / "run", **make(), steps=(3, 12))
    for told in (found.first, found.second):
        assert told.gradient_norm == pytest.approx(0.01, rel=1e-4)  # as it was clipped
        for measures in told.parameters.values():
            assert measures.update == pytest.approx(0.5 * measures.gradient, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("steps", [(0, 1), (1, 2001), (5,), 5, ("1", 2)])
def test_steps_that_there_are_not(long_runs, steps):
    with pytest.raises(ConfigError, match=r"1 to 2000|give two|number of a step"):
        diff_steps(long_runs / "one", **long(), steps=steps)


# -- comparing


def test_settings_apart():
    one = {"fit": {"seed": 1, "epochs": 2}, "loss": "mse", "same": [1, 2]}
    other = {"fit": {"seed": 2, "epochs": 2}, "extra": True, "same": [1, 2]}
    assert settings_apart(one, other) == [("fit.seed", 1, 2), ("loss", "mse", None), ("extra", None, True)]


def test_bits_are_compared_and_not_values():
    nan = np.array([np.nan, 1.0])
    assert same_bits(nan, nan.copy())
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert not same_bits(np.zeros(2, np.float32), np.zeros(2))
    assert same_bits(np.zeros((0, 3)), np.zeros((0, 3)))
    assert same_bits(np.array(1), np.array(1))


def test_rows_of_nested_data_are_compared_part_by_part():
    rows = np.array([7, 8])
    x = {"a": np.zeros((2, 3)), "b": np.zeros((2, 2))}
    other = {"a": x["a"], "b": np.array([[0.0, 0], [0, 1]])}
    found = row_differences(
        Batch(x, np.array([1, 2]), None, rows), Batch(other, np.array([1, 3]), np.array([1.0, 2.0]), rows)
    )
    assert [(row.place, row.row, row.parts) for row in found] == [(0, 7, ("weight",)), (1, 8, ("x", "y", "weight"))]


def test_runs_may_be_given_open(long_runs):
    with_objects = diff_runs(Run.open(long_runs / "one"), Run.open(long_runs / "same"), long)
    assert with_objects.parting is None
