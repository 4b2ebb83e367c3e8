"""The learning-rate finder."""

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError, Diverged
from chainrule.train import find_lr, fit
from chainrule.train.find_lr import _smoothed, _steepest

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [3.0]], np.float32)


def find(model=None, optimizer=None, data=(X, Y), **options):
    cr.random.manual_seed(0)
    model = model or nn.Linear(3, 1)
    return find_lr(model, data, **({"loss": losses.mse, "optimizer": optimizer or optim.SGD(lr=0.1)} | options))


def test_rates_grow_by_the_same_factor_until_the_loss_blows_up():
    found = find(smallest=1e-4, largest=1e3, steps=71)
    ratios = np.array(found.rates[1:]) / found.rates[:-1]
    assert found.rates[0] == pytest.approx(1e-4)
    assert ratios == pytest.approx(10**0.1)
    assert len(found.rates) < 71
    assert found.losses[-1] > found.losses[0] > min(found.losses)
    assert all(map(math.isfinite, found.losses))


def test_the_suggestion_trains_and_the_end_of_the_sweep_does_not():
    # with unit variances the largest curvature of the mean squared error is about 2, so that rates above 1 diverge
    found = find(steps=200)
    assert 0.003 < found.suggestion < 1
    assert found.rates[-1] > 0.7
    lowest = found.rates[int(np.argmin(found.smoothed))]
    assert found.cautious == lowest / 10
    assert found.suggestion <= lowest


def test_model_and_optimiser_stay_as_they_were():
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    optimizer = optim.Adam(lr=0.123)
    fit(model, (X, Y), loss=losses.mse, optimizer=optimizer, epochs=1, progress="silent")
    before = {k: np.asarray(v).copy() for k, v in model.state_dict().items()}
    moments = {k: np.asarray(v).copy() for k, v in optimizer.state_dict().items()}
    count = int(model[2].generator.count)
    first = find_lr(model, (X, Y), loss=losses.mse, optimizer=optimizer)
    second = find_lr(model, (X, Y), loss=losses.mse, optimizer=optimizer)
    assert first == second
    assert optimizer.lr == 0.123
    assert not model.training
    assert int(model[2].generator.count) == count
    assert all(np.array_equal(before[k], np.asarray(v)) for k, v in model.state_dict().items())
    assert all(np.array_equal(moments[k], np.asarray(v)) for k, v in optimizer.state_dict().items())


def test_an_optimiser_without_state_has_none_afterwards():
    optimizer = optim.Adam(lr=0.1)
    find(optimizer=optimizer)
    assert optimizer.state is None


def test_everything_is_restored_when_it_fails():
    model = nn.Linear(3, 1)
    model.assign({"weight": cr.tensor(np.full((1, 3), 1e30, np.float32))})
    with pytest.raises(Diverged, match="rate is not the reason"):
        find(model)
    assert np.asarray(model.weight).tolist() == np.full((1, 3), 1e30, np.float32).tolist()
    assert model.training


def test_small_data_are_taken_again_and_again():
    found = find(data=(X[:8], Y[:8]), batch_size=3, steps=40)
    assert len(found.rates) > 3


def test_the_table_and_its_text():
    found = find(steps=30)
    assert found.table[3] == {"rate": found.rates[3], "loss": found.losses[3], "smoothed": found.smoothed[3]}
    text = str(found)
    assert text.count("< steepest") == 1
    assert text.splitlines()[-1].startswith("suggestion ")


def test_smoothing_is_a_weighted_mean():
    assert _smoothed([5.0]) == pytest.approx([5.0])
    assert _smoothed([4.0] * 5) == pytest.approx([4.0] * 5)
    assert _smoothed([1.0, 2.0])[1] == pytest.approx((0.9 * 1 + 2) / 1.9)


def test_the_steepest_descent_is_found():
    slope = [0, 0, 0, 0, 0, 0, -1, -1, -5, -1, 0, 2, 9]
    values = (100 + np.cumsum(slope)).tolist()
    assert _steepest(values) in (7, 8)  # the fall of 5 lies between 7 and 8


@pytest.mark.parametrize(
    "options",
    [{"smallest": 0.0}, {"smallest": 1.0, "largest": 0.1}, {"largest": math.inf}, {"steps": 2}, {"steps": 10.0},
     {"optimizer": optim.LBFGS()}, {"batch_size": 0}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError):
        find(**options)
