import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import StateError


class Tied(nn.Module):
    def __init__(self):
        self.embed = nn.Embedding(6, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index):
        return self.head(self.middle(self.embed(index)))


INDEX = cr.tensor(np.array([0, 3, 5, 3]))


def loss(model):
    y = model(INDEX)
    return (y * y).sum()


def test_a_tied_weight_is_one_parameter_with_two_names():
    model = Tied()
    assert [n for n, _ in model.named_parameters()] == ["embed.weight", "middle.weight", "middle.bias"]
    state = model.state_dict()
    assert state["embed.weight"] is state["head.weight"]
    assert model.parameter_count() == 24 + 20


def test_its_gradient_is_the_sum_over_its_uses():
    model = Tied()
    _, grads = cr.value_and_grad(loss)(model)
    untied = Tied()
    untied.load_state_dict(model.state_dict())
    untied.head.weight = nn.Parameter(model.embed.weight)
    _, parts = cr.value_and_grad(loss)(untied)
    assert list(parts) == ["embed.weight", "middle.weight", "middle.bias", "head.weight"]
    both = parts["embed.weight"].numpy() + parts["head.weight"].numpy()
    np.testing.assert_allclose(grads["embed.weight"].numpy(), both, rtol=1e-5, atol=1e-6)
    loss(model).backward()
    np.testing.assert_allclose(model.head.weight.grad.numpy(), both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_assign_reaches_all_names(name):
    model = Tied()
    model.assign({name: cr.tensor(np.ones((6, 4), "float32"))})
    assert model.embed.weight is model.head.weight
    assert model.head.weight.tolist() == np.ones((6, 4)).tolist()


def test_assign_refuses_two_values_for_one_weight():
    model = Tied()
    zeros, ones = cr.tensor(np.zeros((6, 4), "float32")), cr.tensor(np.ones((6, 4), "float32"))
    with pytest.raises(StateError, match=r"'embed.weight' and 'head.weight' are one tied weight"):
        model.assign({"embed.weight": zeros, "head.weight": ones})
    model.assign({"embed.weight": ones, "head.weight": ones})
    assert model.embed.weight is model.head.weight


@pytest.mark.parametrize("change", ["to", "freeze", "deepcopy", "load", "eager step", "compiled step"])
def test_ties_last(change):
    model = Tied()
    if change == "to":
        model.to("float64")
    elif change == "freeze":
        model.requires_grad_(False)
        model.requires_grad_(True)
    elif change == "deepcopy":
        model = copy.deepcopy(model)
    elif change == "load":
        model.load_state_dict(Tied().state_dict())
    else:
        step = step_down if change == "eager step" else cr.compile(step_down)
        before = model.embed.weight.numpy()
        step(model)
        assert not np.array_equal(before, model.embed.weight.numpy())
    assert model.embed.weight is model.head.weight
    assert model.embed.weight.requires_grad
    assert len(list(model.parameters())) == 3
    loss(model).backward()
    assert model.head.weight.grad is not None


def step_down(model):
    _, grads = cr.value_and_grad(loss)(model)
    parameters = dict(model.named_parameters())
    model.assign({name: parameters[name] - 0.01 * g for name, g in grads.items()})


def test_a_tie_made_after_an_update():
    model = Tied()
    cr.compile(step_down)(model)
    model.head.weight = nn.Parameter(np.zeros((6, 4), "float32"))
    model.head.weight = model.embed.weight
    assert model.head.weight is model.embed.weight
    assert [n for n, _ in model.named_parameters()] == ["embed.weight", "middle.weight", "middle.bias"]


def test_freezing_one_name_does_not_tear_the_tie():
    model = Tied()
    model.head.requires_grad_(False)
    assert model.embed.weight is model.head.weight


def test_loading_needs_one_name_of_a_tied_weight():
    model, other = Tied(), Tied()
    state = other.state_dict()
    del state["embed.weight"]
    model.load_state_dict(state)
    assert model.embed.weight.tolist() == other.embed.weight.tolist()
    assert model.embed.weight is model.head.weight


def test_loading_refuses_different_values_for_a_tied_weight():
    model = Tied()
    state = {**model.state_dict(), "head.weight": cr.tensor(np.ones((6, 4), "float32"))}
    with pytest.raises(StateError, match=r"embed\.weight and head.weight are one tied weight in the model"):
        model.load_state_dict(state)


def test_two_parameters_made_of_one_tensor_are_not_tied():
    x = cr.tensor([1.0])
    model = nn.Module()
    model.a, model.b = nn.Parameter(x), nn.Parameter(x)
    assert [n for n, _ in model.named_parameters()] == ["a", "b"]
