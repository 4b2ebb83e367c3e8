import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ConfigError, ShapeError

X = cr.tensor(np.random.default_rng(1).normal(size=(3, 4)).astype("float32"))


def layers(n=3):
    return [nn.Linear(4, 4) for _ in range(n)]


def test_sequential_calls_one_after_the_other():
    first, second = layers(2)
    assert nn.Sequential(first, nn.ReLU(), second)(X).tolist() == second(cr.relu(first(X))).tolist()


def test_sequential_of_nothing_hands_on():
    assert nn.Sequential()(X) is X


def test_sequential_from_a_dict_keeps_the_names():
    model = nn.Sequential({"inner": nn.Linear(4, 2), "unit": nn.ReLU()})
    assert list(model.state_dict()) == ["inner.weight", "inner.bias"]
    assert model[1] is model.unit
    model.append(nn.Linear(2, 1))
    assert list(model.state_dict())[2:] == ["2.weight", "2.bias"]


@pytest.mark.parametrize("kind", [nn.Sequential, lambda *parts: nn.ModuleList(parts)])
def test_order(kind):
    a, b, c = layers()
    model = kind(a, b)
    model.append(c)
    assert list(model) == [a, b, c] and len(model) == 3 and model[-1] is c
    model.insert(1, c)
    assert list(model) == [a, c, b, c]
    del model[1]
    assert list(model) == [a, b, c]
    model[1] = c
    assert list(model) == [a, c, c]
    model.extend([b])
    assert list(model) == [a, c, c, b]
    assert [name for name, _ in model.named_modules()][1:] == ["0", "1", "3"]
    del model[1:3]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(IndexError):
        model[7]


def test_slices_share_their_parts():
    model = nn.Sequential(*layers()).eval()
    part = model[1:]
    assert isinstance(part, nn.Sequential) and list(part) == list(model)[1:] and not part.training
    assert next(iter(part.state_dict())) == "1.weight"
    assert next(iter(nn.ModuleList(layers())[1:].state_dict())) == "0.weight"


def test_a_list_may_be_extended_by_itself():
    model = nn.ModuleList(layers(2))
    model.extend(model)
    assert len(model) == 4 and model[0] is model[2]


def test_module_dict():
    a, b = layers(2)
    heads = nn.ModuleDict({"a": a})
    heads["b"] = b
    assert list(heads) == ["a", "b"] == list(heads.keys()) and list(heads.values()) == [a, b]
    assert "a" in heads and "training" not in heads and len(heads) == 2
    assert dict(heads.items()) == {"a": a, "b": b}
    heads["a"] = b
    assert heads["a"] is b
    assert heads.pop("a") is b and "a" not in heads
    del heads["b"]
    assert len(heads) == 0
    with pytest.raises(KeyError):
        heads["b"]


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training", "train"])
def test_names_that_cannot_be(name):
    with pytest.raises(ConfigError, match="choose another"):
        nn.ModuleDict({name: nn.ReLU()})
    with pytest.raises(ConfigError, match="choose another"):
        nn.Sequential({name: nn.ReLU()})


def test_what_is_no_module():
    with pytest.raises(ConfigError, match=r"given the class ReLU; make an object of it: ReLU\(...\)"):
        nn.Sequential(nn.Linear(4, 4), nn.ReLU)
    with pytest.raises(ConfigError, match="Put a function into a Module"):
        nn.Sequential(cr.relu)
    with pytest.raises(ConfigError, match="holds Modules, not 3"):
        nn.ModuleList([3])


def test_lists_and_dicts_are_not_called():
    with pytest.raises(ConfigError, match="ModuleList defines no forward"):
        nn.ModuleList(layers())(X)


def test_residual():
    inner = nn.Linear(4, 4)
    np.testing.assert_array_equal(nn.Residual(inner)(X), np.asarray(X + inner(X)))
    model = nn.Residual(inner, nn.Tanh())
    np.testing.assert_array_equal(model(X), np.asarray(X + cr.tanh(inner(X))))
    assert list(model.state_dict()) == ["inner.0.weight", "inner.0.bias"]
    with pytest.raises(ShapeError, match=r"Residual adds its input, of shape \(3, 4\).*shape \(3, 1\)"):
        nn.Residual(nn.Linear(4, 1))(X)


def test_gradients_through_containers():
    model = nn.Sequential(nn.Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)).to("float64")
    cr.check_gradients(lambda m, x: m(x), model, cr.tensor(np.asarray(X, "float64")))
