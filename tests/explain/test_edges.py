"""Odd models, odd data, numbers that are none: explained all the same, or refused with a message that helps."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ChainruleError, ConfigError
from chainrule.explanation import explain


def strict(text):
    """JSON without NaN and infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def looked_at(explanation):
    """All that one can ask of an explanation works; the JSON is strict and says the same."""
    data = strict(explanation.to_json())
    assert len(data["nodes"]) == len(explanation.nodes)
    str(explanation), repr(explanation)
    for name, parameter in explanation.parameters.items():
        if parameter.node is not None and parameter.node.gradient is not None and parameter.gradient.size:
            why = explanation.why(name, depth=2)
            str(why)
            strict(json.dumps(why.to_dict(), allow_nan=False))
    return data


def small(rows=3, columns=2):
    rng = np.random.default_rng(0)
    cr.random.manual_seed(1)
    model = nn.Sequential(nn.Linear(columns, 3), nn.ReLU(), nn.Linear(3, 2))
    return model, rng.normal(size=(rows, columns)).astype(np.float32), rng.integers(0, 2, rows)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, -300.0, 300.0, 1e38, np.inf, -np.inf, np.nan]), min_size=4, max_size=4))
def test_extreme_inputs(values):
    model, _, y = small(2)
    x = np.array(values, np.float32).reshape(2, 2)
    for loss in (losses.cross_entropy, lambda p, t: losses.mse(p[:, 0], t.astype("float32"))):
        explanation = explain(model, x, y, loss=loss, optimizer=optim.Adam(lr=0.1), engine="reference")
        data = looked_at(explanation)
        assert (data["loss"] in ("NaN", "Infinity", "-Infinity")) == (not np.isfinite(explanation.loss))


@pytest.mark.parametrize("factor", [300.0, 1e20, np.nan])
def test_extreme_weights_on_both_engines(factor, engine):
    model, x, y = small()
    for name, p in model.state_dict().items():
        model.load_state_dict({name: np.asarray(p) * np.float32(factor)}, strict=False)
    explanation = explain(model, x, y, loss=losses.cross_entropy, optimizer=optim.SGD(lr=0.1), engine=engine)
    looked_at(explanation)
    assert explanation.loss_change is not None


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows(rows, engine):
    model, x, y = small(rows)
    explanation = explain(model, x, y, loss=losses.cross_entropy, engine=engine)
    assert looked_at(explanation)["rows"] == rows
    assert f"{rows} row{'s' * (rows > 1)}" in str(explanation)


def test_no_rows(engine):
    """The mean over nothing is refused by the losses; a sum is 0, and so are all gradients."""
    model, x, y = small()
    with pytest.raises(ChainruleError):
        explain(model, x[:0], y[:0], loss=losses.cross_entropy, engine=engine)
    explanation = explain(model, x[:0], y[:0], loss=lambda p, t: cr.sum(p**2), engine=engine)
    assert explanation.loss == 0 and explanation.rows == 0
    assert not any(p.gradient.any() for p in explanation.parameters.values())
    assert explanation.why("0.weight[0, 1]").children == []
    looked_at(explanation)
    with pytest.raises(ConfigError, match="is empty"):
        explanation.why("0")


class Scalar(nn.Module):
    """A slope and an offset, both single numbers."""

    def __init__(self):
        self.slope, self.offset = nn.Parameter(cr.tensor(2.0)), nn.Parameter(cr.tensor(0.5))

    def forward(self, x):
        return x * self.slope + self.offset


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.NAdam, optim.Adagrad])
def test_parameters_that_are_single_numbers(make, engine):
    x = np.array([1.0, 2.0, 3.0], np.float32)
    explanation = explain(Scalar(), x, 3 * x, loss=losses.mse, optimizer=make(lr=0.01), engine=engine)
    slope, offset = explanation.why("slope"), explanation.why("offset[]")
    assert slope.value == pytest.approx(np.mean(2 * (2 * x + 0.5 - 3 * x) * x))
    assert offset.value == pytest.approx(np.mean(2 * (2 * x + 0.5 - 3 * x)))
    assert sum(child.part for child in slope.children) == pytest.approx(slope.value)
    assert "Δw = " in str(slope)
    looked_at(explanation)


def test_a_model_without_parameters(engine):
    x = np.array([[1.0, 2.0]], np.float32)
    explanation = explain(nn.Sequential(nn.Tanh()), x, x, loss=losses.mse, engine=engine)
    assert explanation.parameters == {}
    assert explanation.loss == pytest.approx(float(np.mean((np.tanh(x) - x) ** 2)))
    looked_at(explanation)
    with pytest.raises(ConfigError, match="no gradient"):
        explanation.why("0[0, 1]")


def test_no_target_is_the_input():
    model = nn.Sequential(nn.Linear(3, 3))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    one, other = explain(model, x, loss=losses.mse), explain(model, x, x, loss=losses.mse)
    assert one.loss == other.loss
    assert np.array_equal(one.parameters["0.weight"].gradient, other.parameters["0.weight"].gradient)
    note = one.why("0.weight[0, 0]", depth=1).children[0]
    row = note.index[0]
    assert note.note == f"returned {one.words.prediction.value[row, 0]:.3g}, wanted {x[row, 0]:.3g}".replace("-", "−")


def test_targets_by_name_are_not_taken_for_the_input():
    x = np.ones((2, 2), np.float32)
    loss = lambda p, t: losses.mse(p, t["goal"])
    explanation = explain(nn.Sequential(nn.Linear(2, 2)), x, {"goal": 5 * x}, loss=loss)
    assert explanation.why("0.bias[0]").children[0].note.startswith("returned ")
    assert "wanted" not in str(explanation.why("0.bias[0]"))


def test_one_sample_without_an_axis_of_rows():
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 4))
    explanation = explain(model, np.array([2, 3, 4], np.float32), np.int64(2), loss=losses.cross_entropy)
    why = explanation.why("0.weight[1, 2]")
    assert why.children[0].text.startswith("error of unit 1 (0 Linear) × input 2 (x)")
    looked_at(explanation)


class Pair(nn.Module):
    """Two inputs."""

    def __init__(self):
        self.left, self.right = nn.Linear(2, 2), nn.Linear(3, 2)

    def forward(self, a, b):
        return self.left(a) + self.right(b)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs(kind, engine):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    x = (a, b) if kind is tuple else {"a": a, "b": b}
    explanation = explain(Pair(), x, np.zeros((4, 2), np.float32), loss=losses.mse, engine=engine)
    child = explanation.why("right.weight[1, 2]", depth=1).children[0]
    row = child.index[0]
    assert child.factor == f"input 2 in row {row} (x.{'b' if kind is dict else 1})"
    assert child.local == pytest.approx(float(b[row, 2]))
    looked_at(explanation)


def test_weights_of_rows(engine):
    model, x, y = small(4)
    weight = np.array([1.0, 0.0, 2.0, 1.0])
    explanation = explain(model, x, y, loss=losses.cross_entropy, weight=weight, engine=engine)
    each = np.asarray(losses.cross_entropy(model(cr.tensor(x)), cr.tensor(y), reduction="none"))
    assert explanation.loss == pytest.approx(float(np.mean(each * weight)), rel=1e-6)
    assert not explanation.find("2").gradient[1].any()
    looked_at(explanation)


def test_weights_of_classes_and_smoothed_targets():
    model, x, y = small(5)
    loss = functools.partial(losses.cross_entropy, label_smoothing=0.1, weight=cr.tensor([0.3, 0.7]))
    explanation = explain(model, x, y, loss=loss)
    looked_at(explanation)
    smooth = functools.partial(losses.cross_entropy, label_smoothing=0.1)
    child = explain(model, x, y, loss=smooth).why("2.weight[0, 0]", depth=1).children[0]
    assert "wanted 0.95" in child.note or "wanted 0.05" in child.note


def test_a_model_in_float64(engine):
    model, x, y = small()
    explanation = explain(model.to("float64"), x, y, loss=losses.cross_entropy, optimizer=optim.Adam(), engine=engine)
    assert {node.value.dtype.name for node in explanation.nodes if node.gradient is not None} == {"float64"}
    why = explanation.why("0.weight[0, 1]", width=100)
    assert sum(child.part for child in why.children) == pytest.approx(why.value, rel=1e-12)
    looked_at(explanation)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=".["), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(NAMES, NAMES)
def test_odd_names(first, second):
    if first == second or first in ("training", "path") or second in ("training", "path"):
        return
    model = nn.ModuleDict({first: nn.Linear(2, 2), second: nn.Linear(2, 1)})

    class Named(nn.Module):
        def __init__(self):
            self.parts = model

        def forward(self, x):
            return self.parts[second](cr.tanh(self.parts[first](x)))

    explanation = explain(Named(), np.ones((2, 2)), np.ones((2, 1)), loss=losses.mse, engine="reference")
    data = looked_at(explanation)
    assert f"parts.{first}.weight" in [p["name"] for p in data["parameters"]]
    why = explanation.why(f"parts.{first}.weight[1, 0]")
    assert why.value == float(explanation.parameters[f"parts.{first}.weight"].gradient[1, 0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": nn.Linear}, "class Linear"),
        ({"model": 3}, "nn.Module was expected"),
        ({"loss": losses}, "is no function"),
        ({"loss": lambda p, t: p}, "one floating-point number was expected"),
        ({"optimizer": "adam"}, "is no optimiser"),
        ({"optimizer": optim.LBFGS()}, "leave the optimizer out"),
        ({"engine": "quantum"}, "quantum"),
        ({"x": np.ones((3, 5), np.float32)}, "Linear"),
        ({"x": np.array([["a", "b"]])}, ""),
        ({"clip_norm": -1.0}, ""),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
    model, x, y = small()
    given = {"model": model, "x": x, "y": y, "loss": losses.cross_entropy, "optimizer": optim.SGD(lr=0.1)} | arguments
    with pytest.raises(ChainruleError) as error:
        explain(given.pop("model"), given.pop("x"), given.pop("y"), **given)
    assert said in str(error.value)


def test_large_arrays_become_summaries():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(100, 80), nn.ReLU(), nn.Linear(80, 3))
    explanation = explain(model, rng.normal(size=(64, 100)), rng.integers(0, 3, 64), loss=losses.cross_entropy)
    weight = next(p for p in looked_at(explanation)["parameters"] if p["name"] == "0.weight")
    summary = weight["gradient"]["summary"]
    exact = explanation.parameters["0.weight"].gradient.astype(np.float64)
    assert summary["norm"] == pytest.approx(np.linalg.norm(exact)) and sum(summary["histogram"]["counts"]) == 8000
    image = weight["gradient"]["image"]
    assert (image["rows"], image["columns"], len(image["data"])) == (64, 64, 4096)
