"""The moving average of weights."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError, StateError


def walk(ema, values):
    for value in values:
        ema.update({"w": cr.tensor([value])})
    return ema.weights()["w"].tolist()


def test_the_average_is_the_weighted_sum():
    weights = [1.0, 5.0, -2.0, 4.0]
    expected = 0.0
    for w in weights:
        expected = 0.75 * expected + 0.25 * w
    assert walk(optim.EMA(decay=0.75).init({"w": cr.tensor([0.0])}), weights) == pytest.approx([expected])


def test_bias_correction_of_constant_weights_is_exact():
    assert walk(optim.EMA(decay=0.99, bias_correction=True), [3.0] * 4) == pytest.approx([3.0], rel=1e-6)
    assert walk(optim.EMA(decay=0.5, bias_correction=True), [1.0, 4.0]) == pytest.approx([(0.25 + 2.0) / 0.75])


def test_an_average_without_start_begins_at_the_first_weights():
    assert walk(optim.EMA(decay=0.5), [4.0]) == [4.0]
    assert walk(optim.EMA(decay=0.5), [4.0, 8.0]) == [6.0]


def test_applied_swaps_the_weights_of_a_module_in_and_out():
    model = nn.Linear(2, 1)
    ema = optim.EMA(decay=0.5).init(model)
    start = model.state_dict()
    model.assign({"weight": cr.tensor([[9.0, 9.0]])})
    ema.update(model)
    trained = dict(model.named_parameters())
    with ema.applied(model) as same:
        assert same is model
        np.testing.assert_allclose(model.weight.numpy(), 0.5 * (start["weight"].numpy() + 9.0), rtol=1e-6)
        assert model.weight.requires_grad
    assert all(p is trained[n] for n, p in model.named_parameters())
    with pytest.raises(ZeroDivisionError), ema.applied(model):
        raise ZeroDivisionError
    assert all(p is trained[n] for n, p in model.named_parameters())


def test_tied_weights_are_swapped_together():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    with optim.EMA(decay=0.5).init(model).applied(model):
        assert model[0].weight is model[1].weight
    assert model[0].weight is model[1].weight


def test_halves_are_averaged_in_float32():
    ema = optim.EMA(decay=0.999).init({"w": cr.tensor(np.array([1.0], np.float16))})
    for _ in range(10):
        ema.update({"w": cr.tensor(np.array([1.001], np.float16))})
    assert ema.weights()["w"].dtype == cr.float32 and float(ema.weights()["w"][0]) > 1.0
    with ema.applied({"w": cr.tensor(np.array([1.0], np.float16))}) as averaged:
        assert averaged["w"].dtype == cr.float16


def test_saved_and_loaded_goes_on_with_the_same_bits():
    first = optim.EMA(decay=0.9, bias_correction=True)
    walk(first, [1.0, 2.0, 3.0])
    second = optim.EMA(decay=0.9, bias_correction=True).init({"w": cr.tensor([0.0])})
    second.load_state_dict({n: x.numpy() for n, x in first.state_dict().items()})
    assert walk(first, [7.0]) == walk(second, [7.0])


def test_errors_say_what_to_do():
    with pytest.raises(StateError, match=r"ema.init\(model\)"):
        optim.EMA().weights()
    with pytest.raises(StateError, match="no step"):
        optim.EMA(bias_correction=True).init({"w": cr.tensor([1.0])}).weights()
    with pytest.raises(StateError, match="does not know v"):
        optim.EMA().init({"w": cr.tensor([1.0])}).update({"w": cr.tensor([1.0]), "v": cr.tensor([1.0])})
    with pytest.raises(ConfigError, match="decay must be in"):
        optim.EMA(decay=1.0)
    with pytest.raises(ConfigError, match="decay is a number; got Linear"):
        optim.EMA(nn.Linear(2, 1))
