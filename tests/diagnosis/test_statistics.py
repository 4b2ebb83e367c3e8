"""Statistics of an observed step: against NumPy, and which layers there are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import chainrule as cr
from chainrule import nn, optim
from chainrule.diagnosis.statistics import Distribution, layer_statistics, snapshot, statistics
from chainrule.observe import observe_call

X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def step(model, optimizer, x, y):
    loss, gradients = cr.value_and_grad(lambda m: cr.mean((m(x) - y) ** 2))(model)
    optimizer.update(model, gradients)
    return loss


def observed(model, x=X, y=Y, optimizer=None, engine="reference"):
    optimizer = optim.SGD(lr=0.1) if optimizer is None else optimizer
    return observe_call(cr.compile(step, engine=engine), model.train(), optimizer, x, y)


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(arrays(np.float32, st.integers(1, 50), elements=finite))
def test_a_distribution_is_what_numpy_says(array):
    found = Distribution.of(array)
    wide = array.astype(np.float64)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-9, abs=1e-9 * np.abs(wide).max())
    assert found.std == pytest.approx(wide.std(), rel=1e-6, abs=1e-9 * np.abs(wide).max())
    assert found.norm == pytest.approx(np.linalg.norm(wide), rel=1e-9)
    assert (found.min, found.max) == (wide.min(), wide.max())
    assert found.zeros == np.mean(wide == 0)
    assert sum(found.counts) == array.size and len(found.counts) == 32


def test_a_histogram_is_that_of_numpy():
    values = np.random.default_rng(3).normal(size=1000)
    found = Distribution.of(values)
    counts, edges = np.histogram(values, bins=32)
    assert np.abs(np.asarray(found.counts) - counts).sum() <= 2  # values on an edge may fall on either side
    assert (found.low, found.high) == (edges[0], edges[-1])


def test_values_that_are_not_finite_are_counted_and_left_out():
    found = Distribution.of(np.array([1.0, np.nan, np.inf, 3.0, 0.0]))
    assert (found.nonfinite, found.mean, found.max, found.zeros) == (2, 4 / 3, 3.0, 0.2)
    nothing = Distribution.of(np.array([np.nan, np.inf]))
    assert (nothing.nonfinite, nothing.norm, sum(nothing.counts)) == (2, 0.0, 0)
    assert Distribution.of(np.zeros((0, 3))).norm == 0.0


def test_numbers_near_the_largest_do_not_overflow():
    found = Distribution.of(np.array([1.7e308, -1.7e308]))
    assert found.std == pytest.approx(1.7e308) and found.mean == 0.0


def test_layers_are_the_modules_without_children_and_functions_that_are_applied():
    class Mixed(nn.Module):
        def __init__(self):
            self.first = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
            self.second = nn.Linear(5, 3)

        def forward(self, x):
            return cr.sigmoid(self.second(cr.relu(self.first(x))))

    found = layer_statistics(observed(Mixed()))
    assert [(layer.path, layer.layer) for layer in found] == [
        ("first.0", "Linear"),
        ("first.1", "Tanh"),
        ("", "relu"),
        ("second", "Linear"),
        ("", "sigmoid"),
    ]
    assert all(layer.gradient is not None and layer.gradient.shape == layer.output.shape for layer in found)
    assert all(layer.file == __file__ for layer in found)
    by_name = {layer.layer: layer for layer in found}
    np.testing.assert_allclose(by_name["Tanh"].slope, 1 - np.tanh(by_name["Tanh"].input) ** 2, rtol=1e-5)
    np.testing.assert_array_equal(by_name["relu"].slope, by_name["relu"].input > 0)
    y = by_name["sigmoid"].output
    np.testing.assert_allclose(by_name["sigmoid"].slope, y * (1 - y), rtol=1e-6)


def test_one_recurrent_or_attention_layer_is_one_layer_and_a_layer_called_twice_is_two():
    class Twice(nn.Module):
        def __init__(self):
            self.recurrent = nn.LSTM(6, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.same = nn.Linear(4, 4)

        def forward(self, x):
            h, _ = self.recurrent(x)
            h, _ = self.attention(h, h, h)
            return self.same(self.same(h))

    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    y = np.zeros((3, 5, 4), np.float32)
    found = layer_statistics(observed(Twice(), x, y))
    assert [(layer.path, layer.call) for layer in found] == [
        ("recurrent", 0),
        ("attention", 0),
        ("same", 0),
        ("same", 1),
    ]
    assert [layer.unit_axis for layer in found] == [2, 2, 2, 2]


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_gradients_and_updates_are_those_of_the_step(engine):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    expected_loss, expected = cr.value_and_grad(lambda m: cr.mean((m(cr.tensor(X)) - cr.tensor(Y)) ** 2))(model)
    found = statistics(observed(model, optimizer=optim.SGD(lr=0.5), engine=engine))
    assert found.loss == pytest.approx(float(expected_loss), rel=1e-5)
    assert found.learning_rate == 0.5
    squares = 0.0
    for parameter in found.parameters:
        gradient = np.asarray(expected[parameter.name])
        np.testing.assert_allclose(parameter.gradient, gradient, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(parameter.update, -0.5 * gradient, rtol=1e-3, atol=1e-6)
        expected_ratio = np.linalg.norm(parameter.update) / np.linalg.norm(parameter.value)
        assert parameter.ratio == pytest.approx(expected_ratio, rel=1e-5)
        squares += float((gradient.astype(np.float64) ** 2).sum())
    assert found.gradient_norm == pytest.approx(np.sqrt(squares), rel=1e-4)


def test_dead_units_and_saturated_outputs_are_told():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 3))
    bias = np.array([-100, 1, -100, 1], np.float32)
    model.assign({"0.bias": cr.tensor(bias), "2.weight": cr.tensor(np.zeros((8, 4), np.float32))})
    model.assign({"2.bias": cr.tensor(np.array([20, -20, 0, 0, 0, 0, 0, 0], np.float32))})
    layers = {layer.path: layer for layer in layer_statistics(observed(model))}
    assert layers["1"].dead == 0.5 and layers["1"].dead_units.tolist() == [True, False, True, False]
    assert layers["3"].saturated == 0.25
    assert layers["0"].dead is None and layers["0"].saturated is None and layers["1"].saturated is None


def test_units_of_pictures_are_channels():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 3))
    bias = np.array([-100, 1, 1], np.float32)
    model.assign({"0.bias": cr.tensor(bias)})
    x = np.random.default_rng(0).normal(size=(16, 1, 6, 6)).astype(np.float32)
    relu = layer_statistics(observed(model, x))[1]
    assert relu.unit_axis == 1 and relu.dead_units.tolist() == [True, False, False]


def test_frozen_parameters_are_left_out_and_unused_ones_have_no_gradient():
    class Parts(nn.Module):
        def __init__(self):
            self.used, self.frozen, self.unused = nn.Linear(6, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.frozen(self.used(x))

    found = {p.name: p for p in statistics(observed(Parts())).parameters}
    assert list(found) == ["used.weight", "used.bias", "unused.weight", "unused.bias"]
    assert found["unused.weight"].gradient is None
    assert found["used.weight"].gradient is not None


def test_a_snapshot_is_plain_json():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    found = json.loads(json.dumps(snapshot(observed(model)), allow_nan=False))
    assert found.keys() == {"layers", "parameters", "learning_rate", "loss", "gradient_norm"}
    assert found["layers"][1]["dead"] is not None
    assert len(found["parameters"][0]["update"]["histogram"]["counts"]) == 32


def test_observing_changes_nothing():
    model, optimizer = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3)), optim.Adam()
    optimizer.prepare([model])
    before = [np.asarray(leaf.value).copy() for leaf in cr.tree.flatten([model, optimizer]).leaves]
    statistics(observed(model, optimizer=optimizer))
    after = [np.asarray(leaf.value) for leaf in cr.tree.flatten([model, optimizer]).leaves]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
