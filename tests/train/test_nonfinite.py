"""A value that is not finite is named: the operation with its numbers, the row, the line, the layer."""

import json

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.train import TrainingDiverged, fit

RANDOM = np.random.default_rng(5)
ENGINES = pytest.mark.parametrize("engine", ["reference", "native"])


def fails(model, data, engine="reference", **options):
    """What the error found."""
    settings = {"loss": losses.mse, "optimizer": optim.SGD(lr=1e-3), "epochs": 1, "batch_size": 8, "progress": "silent"}
    with pytest.raises(TrainingDiverged) as caught:
        fit(model, data, engine=engine, **settings | options)
    return caught.value, caught.value.finding


def line_of(text):
    """The number of the line in this file that ends so."""
    with open(__file__, encoding="utf-8") as file:
        (found,) = [i for i, line in enumerate(file, 1) if line.rstrip().endswith(text) and "line_of" not in line]
    return found


class Share(nn.Module):
    """The logarithm of a share of a sum: of 0, where a row has a share of 0."""

    def __init__(self):
        self.scale = nn.Parameter(np.ones(2, np.float32))

    def forward(self, x):
        share = x * cr.abs(self.scale)
        return cr.log(share)  # the planted logarithm


def planted(row, rows=2504):
    """Data in which only one row has a share of 0."""
    x = RANDOM.uniform(0.1, 1.0, (rows, 2)).astype(np.float32)
    x[row, 1] = 0.0
    return x, np.log(x + 0.1)


@ENGINES
def test_a_logarithm_of_0_planted_in_one_row_of_step_312_is_named(engine):
    from chainrule.train.batches import row_order

    order = row_order(seed=3, epoch=1, rows=2504)
    row = int(order[311 * 8 + 5])  # the sixth row of the batch of step 312
    model = nn.Sequential(Share(), nn.Linear(2, 2))
    error, found = fails(model, planted(row), engine, seed=3, optimizer=optim.Adam(lr=1e-3))
    assert error.step == found.step == 312
    assert (found.op, found.text, found.inputs, found.value) == ("log", "log(0) = −inf", (0.0,), -np.inf)
    assert (found.row, found.data_row, found.data_rows, found.index) == (5, row, (row,), (5, 1))
    assert (found.module, found.layer, found.file) == ("0", "Share", __file__)
    assert found.line == line_of("# the planted logarithm")
    assert found.part == "forward" and found.count == 1
    message = str(error)
    assert "step 312" in message and "weights are those of step 311" in message
    assert "first non-finite value: log(0) = −inf" in message
    assert f"row      5 of the batch (row {row} of the training data)" in message
    assert f"test_nonfinite.py:{found.line}: return cr.log(share)" in message
    assert "remedy   cross_entropy on logits" in message
    assert all(np.isfinite(np.asarray(p)).all() for p in model.parameters())
    assert json.loads(json.dumps(found.to_dict()))["value"] == "-Infinity"


X = RANDOM.normal(size=(32, 4)).astype(np.float32)
Y = RANDOM.normal(size=(32, 1)).astype(np.float32)


def made(forward, outputs=1):
    """A linear layer, and a function of its output."""

    class Made(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(4, outputs)

        def forward(self, x):
            return forward(self.linear(x), x)

    return Made()


@ENGINES
def test_an_infinite_slope_is_found_in_the_backward_pass(engine):
    model = made(lambda h, x: cr.sqrt(cr.abs(h * x[:, :1] * 0)))
    error, found = fails(model, (X, Y), engine)
    assert (found.part, found.op, found.value) == ("backward", "div", np.inf)
    assert found.of == "sqrt(0) = 0"
    assert found.row == 0 and len(found.rows) == 8
    assert "in the derivative of sqrt(0) = 0" in str(error)
    assert "slope of √ at 0 is infinite" in str(error)
    assert "the gradient of linear.weight is not finite" in str(error)


@ENGINES
def test_an_update_to_infinity_is_found_in_the_update(engine):
    error, found = fails(nn.Linear(4, 1), (X * 1e10, Y), engine, optimizer=optim.SGD(lr=3e38))
    assert (found.part, found.op, found.name) == ("update", "mul", "weight")
    assert found.row is None and found.rows == ()
    assert "in the update of weight" in str(error)
    assert "a lower learning rate" in str(error)


def test_a_learning_rate_beyond_float32_is_the_cause():
    error, found = fails(nn.Linear(4, 1), (X, Y), optimizer=optim.Adam(lr=1e300))
    assert (found.part, found.op) == ("update", "cast")
    assert "a lower learning rate" in str(error)


def test_zero_by_zero_names_only_the_rows_concerned():
    x = np.abs(X) + 0.1
    x[13] = 0.0
    model = nn.Sequential(made(lambda h, x: x / cr.sum(x, axis=1, keepdims=True)), nn.Linear(4, 1))
    error, found = fails(model, (x, Y))
    assert (found.text, found.inputs) == ("0 / 0 = NaN", (0.0, 0.0))
    assert found.data_rows == (13,) and found.count == 4
    assert error.rows[found.row] == 13
    assert "denominator" in str(error)


def test_an_exponential_that_overflows_is_told_with_its_argument():
    _, found = fails(nn.Sequential(made(lambda h, x: cr.exp(1000 * x)), nn.Linear(4, 1)), (X, Y))
    assert found.op == "exp" and found.value == np.inf and found.inputs[0] > 88.7
    assert found.inputs[0] == pytest.approx(1000 * X[found.data_row, found.index[1]], rel=1e-6)


def test_an_infinity_that_was_put_in_by_a_mask_is_not_the_cause():
    x = np.abs(X)
    x[9] = -1.0  # all of this row is masked
    model = nn.Sequential(made(lambda h, x: cr.softmax(cr.where(x > 0, h, -np.inf), axis=-1), 4), nn.Linear(4, 1))
    error, found = fails(model, (x, Y))
    assert found.text == "−inf − −inf = NaN"
    assert found.data_rows == (9,)
    assert "unmasked" in str(error)


def test_infinities_that_nobody_reads_are_not_the_cause():
    def forward(h, x):
        harmless = cr.where(x > 0, cr.log(cr.abs(x) * 0), 1.0)  # −inf
        harmless = cr.where(x > -np.inf, 1.0, harmless)
        return h * cr.mean(harmless, axis=1, keepdims=True) + cr.log(cr.abs(x[:, 1:2]))

    x = X.copy()
    x[21, 1] = 0.0
    _, found = fails(made(forward), (x, Y))
    assert found.text == "log(0) = −inf" and found.data_rows == (21,)
    assert found.shape == (8, 1)


def test_a_constant_infinity_that_reaches_the_loss_is_named():
    error, found = fails(made(lambda h, x: cr.where(x[:, :1] > 1.5, np.inf, h)), (X, Y))
    assert found.op in ("where", "constant", "sub") and not np.isfinite(found.value)
    assert "select with cr.where" in str(error) or "put in on purpose" in str(error)


def test_a_weight_that_was_no_number_before_is_named():
    model = nn.Linear(4, 1)
    model.assign({"weight": cr.tensor(np.array([[1, 2, np.nan, 3]], np.float32))})
    error, found = fails(model, (X, Y))
    assert (found.op, found.name, found.index) == ("input", "weight", (0, 2))
    assert "was not finite before the step" in str(error)


def test_an_overflow_in_a_product_tells_its_range():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    huge = np.full((4, 4), 1e38, np.float32)
    model.assign({"0.weight": cr.tensor(huge), "1.weight": cr.tensor(np.full((1, 4), 10, np.float32))})
    _, found = fails(model, (X, Y))
    assert found.op in ("matmul", "mul") and found.part == "forward"
    assert found.layer == "Linear" and np.isfinite(found.inputs).all()


# -- inside of loops


class Product(nn.Module):
    """A loop of one's own: in each step a logarithm is taken."""

    def __init__(self):
        self.weight = nn.Parameter(np.full(2, 0.5, np.float32))

    def forward(self, x):
        def step(carry, now):
            carry = carry * self.weight + cr.log(now)  # inside of the loop
            return carry, carry

        last, _ = cr.scan(step, cr.zeros((x.shape[0], 2)), cr.permute_dims(x, (1, 0, 2)))
        return cr.sum(last, axis=1, keepdims=True)


@ENGINES
@pytest.mark.parametrize("at", [0, 7, 11])
def test_inside_of_a_loop_the_step_of_time_is_named(engine, at):
    x = RANDOM.uniform(0.5, 1.5, (32, 12, 2)).astype(np.float32)
    x[17, at, 1] = 0.0
    error, found = fails(Product(), (x, Y), engine)
    assert (found.text, found.time_step, found.data_rows) == ("log(0) = −inf", (at,), (17,))
    assert found.index == (found.row, 1)
    assert found.line == line_of("# inside of the loop")
    assert f"time     step {at} of the sequence" in str(error)


@ENGINES
def test_in_a_recurrent_layer_whose_state_explodes(engine):
    class Recurrent(nn.Module):
        def __init__(self):
            self.recurrent = nn.RNN(2, 3, nonlinearity="relu", batch_first=True)
            self.output = nn.Linear(3, 1)
            self.recurrent.assign({"weight_hh_l0": cr.tensor(np.full((3, 3), 1e5, np.float32))})
            self.recurrent.assign({"weight_ih_l0": cr.tensor(np.ones((3, 2), np.float32))})

        def forward(self, x):
            return self.output(self.recurrent(x)[0][:, -1])

    x = np.full((32, 12, 2), 0.0, np.float32)
    x[5] = 1.0  # of the others only the bias grows
    model = Recurrent()
    model.recurrent.assign({f"bias_{part}_l0": cr.tensor(np.zeros(3, np.float32)) for part in ("ih", "hh")})
    error, found = fails(model, (x, Y), engine)
    assert (found.module, found.layer, found.data_rows) == ("recurrent", "RNN", (5,))
    assert found.time_step == (7,)  # 2 · (3e5)^t passes 3.4e38
    assert "time     step 7" in str(error)


# -- L-BFGS, and the run


def test_lbfgs_tells_where_it_was_lost():
    model = made(lambda h, x: cr.log(h * 0))
    error, found = fails(model, (X, Y), optimizer=optim.LBFGS(), batch_size=32)
    assert error.step == 1 and (found.op, found.value) == ("log", -np.inf)
    assert "first non-finite value: log(" in str(error)
    model = nn.Linear(4, 1)
    before = np.asarray(model.weight).copy()
    error, found = fails(model, (X, Y), optimizer=optim.LBFGS(lr=1e38, max_iter=3), batch_size=32)
    assert found is not None and not np.isfinite(found.value)
    assert np.array_equal(before, np.asarray(model.weight))


def test_in_a_chunk_of_many_steps_the_finding_is_the_same():
    x, y = planted(1777)
    found = []
    for engine in ("reference", "native"):
        model = nn.Sequential(Share(), nn.Linear(2, 2))
        model.assign({"1.weight": cr.tensor(np.eye(2, dtype=np.float32))})
        found.append(fails(model, (x, y), engine, seed=1)[1].to_dict())
    assert found[0] == found[1]


def test_the_run_says_how_to_replay_the_step_and_keeps_what_was_found(tmp_path):
    x, y = planted(100)
    model = nn.Sequential(Share(), nn.Linear(2, 2))
    error, found = fails(model, (x, y), run_dir=tmp_path / "run")
    by_code = f"cr.replay({str(tmp_path / 'run')!r}, model, data, ..., step={error.step})"
    assert str(error).endswith(f"\nreplay it: {by_code}")
    run = cr.train.Run.open(tmp_path / "run")
    (diagnosis,) = run.diagnoses()
    assert (diagnosis["kind"], diagnosis["severity"], diagnosis["step"]) == ("non-finite", "error", error.step)
    assert diagnosis["finding"]["data_row"] == 100 == found.data_row
    assert diagnosis["evidence"][0] == "first non-finite value: log(0) = −inf"
    assert diagnosis["remedy"].startswith("cross_entropy on logits")


def test_dropout_and_batch_statistics_are_those_of_the_step():
    """The step that is made again draws the same numbers, and nothing of the model has changed after it."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), made_last(), nn.Linear(8, 1))
    error, found = fails(model, (X, Y), epochs=50)
    assert found.text == "log(0) = −inf"
    assert error.step >= 1 and all(np.isfinite(np.asarray(p)).all() for p in model.parameters())


def made_last():
    class Last(nn.Module):
        def forward(self, x):
            return cr.log(cr.abs(x))  # dropout makes zeros

    return Last()
