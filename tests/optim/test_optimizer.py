"""The shell around the rules: two ways to make a step, groups, learning rates, saving, errors."""

import copy
import gc
import tracemalloc

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError, DTypeError, GradientError, ShapeError, StateError

X = cr.tensor(np.random.default_rng(0).normal(size=(16, 3)))
Y = cr.tensor(np.random.default_rng(1).normal(size=(16, 2)))


def network():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to("float64")
    rng = np.random.default_rng(2)
    model.assign({n: cr.tensor(rng.normal(size=p.shape)) for n, p in model.named_parameters()})
    return model


def loss(model):
    return ((model(X) - Y) ** 2).mean()


def train(model, optimizer, steps):
    for _ in range(steps):
        _, grads = cr.value_and_grad(loss)(model)
        optimizer.update(model, grads)
    return {n: p.numpy() for n, p in model.named_parameters()}


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]), err_msg=name)


# -- making a step


def test_update_changes_a_module_in_place_and_returns_it():
    model, optimizer = network(), optim.SGD(lr=0.1)
    before = model.state_dict()
    _, grads = cr.value_and_grad(loss)(model)
    assert optimizer.update(model, grads) is model
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.numpy(), before[name].numpy() - 0.1 * grads[name].numpy(), rtol=1e-14)


def test_update_of_a_dict_returns_a_new_one():
    params = {"w": cr.tensor([1.0]), "n": cr.tensor([3])}
    new = optim.SGD(lr=1.0).update(params, {"w": cr.tensor([0.25]), "n": None})
    assert params["w"].tolist() == [1.0] and new["w"].tolist() == [0.75] and new["n"].tolist() == [3]


def test_update_of_nested_structures_and_several_modules():
    pair = {"encoder": nn.Linear(3, 4), "scales": [cr.tensor([2.0, 2.0, 2.0])]}

    def total(p):
        return (p["encoder"](X.astype("float32") * p["scales"][0]) ** 2).sum()

    _, grads = cr.value_and_grad(total)(pair)
    optimizer, before = optim.SGD(lr=0.01), pair["encoder"].weight.numpy()
    new = optimizer.update(pair, grads)
    np.testing.assert_allclose(
        new["encoder"].weight.numpy(), before - np.float32(0.01) * grads["encoder"]["weight"].numpy(), rtol=1e-6
    )
    assert new["encoder"] is pair["encoder"] and new["scales"][0].tolist() != [2.0, 2.0, 2.0]
    assert "encoder.weight" in optimizer.members and "scales.0" in optimizer.members


def test_step_uses_what_backward_has_left_and_equals_update():
    left, right = network(), network()
    ours, theirs = optim.Adam(left, lr=0.1), optim.Adam(lr=0.1)
    for _ in range(5):
        ours.zero_grad()
        loss(left).backward()
        ours.step()
        assert all(p.grad is None and p.requires_grad for p in left.parameters())
    train(right, theirs, 5)
    assert_equal(left.state_dict(), right.state_dict())


def test_step_of_a_bound_dict_changes_the_dict():
    params = {"w": cr.tensor([3.0], requires_grad=True), "unused": cr.tensor([1.0], requires_grad=True)}
    optimizer = optim.SGD(params, lr=0.25)
    for _ in range(2):
        (params["w"] * params["w"]).sum().backward()
        optimizer.step()
    assert params["w"].tolist() == [0.75] and params["w"].requires_grad
    assert params["unused"].tolist() == [1.0]


def test_zero_grad_forgets():
    model = network()
    optimizer = optim.SGD(model)
    loss(model).backward()
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_tied_weights_move_together():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    x = X.astype("float32")
    _, grads = cr.value_and_grad(lambda m: (m(x) ** 2).sum())(model)
    optim.Adam(lr=0.1).update(model, grads)
    assert model[0].weight is model[1].weight


def test_frozen_parameters_stay_and_may_thaw_later():
    model = network()
    model[0].requires_grad_(False)
    optimizer = optim.Adam(model, lr=0.1)
    assert list(optimizer.members) == ["2.weight", "2.bias"]
    before = model.state_dict()
    train(model, optimizer, 3)
    assert_equal(
        {n: before[n] for n in ("0.weight", "0.bias")}, {n: model.state_dict()[n] for n in ("0.weight", "0.bias")}
    )
    model[0].requires_grad_(True)
    train(model, optimizer, 1)
    change = model.state_dict()["0.weight"].numpy() - before["0.weight"].numpy()
    np.testing.assert_allclose(np.abs(change), 0.1, rtol=1e-3)  # a first step of Adam: the count is its own
    assert int(optimizer.slots("0.weight")["step"]) == 1 and int(optimizer.slots("2.weight")["step"]) == 4


def test_parameters_keep_no_history():
    model, optimizer = network(), optim.AdamW(lr=0.1, weight_decay=0.1)
    train(model, optimizer, 2)
    tensors = [*model.parameters(), *optimizer.state_dict().values()]
    assert all(not x.inputs for x in tensors)
    assert not any(x.requires_grad for x in optimizer.state_dict().values())


@pytest.mark.parametrize("way", ["update", "step"])
def test_an_eager_loop_does_not_grow(way):
    model = network()
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.AdamW(model, lr=0.01, weight_decay=0.1))

    def one():
        if way == "update":
            _, grads = cr.value_and_grad(loss)(model)
            optimizer.update(model, grads)
        else:
            loss(model).backward()
            optimizer.step()

    for _ in range(5):
        one()
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(60):
        one()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert len(gc.get_objects()) - objects < 60
    assert grown < 30_000


def test_steps_leave_no_reference_cycles_behind():
    model = network()
    optimizer = optim.Adam(model, lr=0.01)
    _, grads = cr.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            optimizer.update(model, grads)
        assert len(gc.get_objects()) - before < 50
    finally:
        gc.enable()


# -- learning rates and groups


def test_the_learning_rate_can_be_read_and_set():
    optimizer = optim.SGD(lr=0.5)
    assert optimizer.lr == 0.5
    optimizer.lr *= 0.5
    assert optimizer.lr == 0.25
    assert optimizer.update({"w": cr.tensor([1.0])}, {"w": cr.tensor([1.0])})["w"].tolist() == [0.75]
    optimizer.lr = cr.tensor(0.125)
    assert optimizer.lr == 0.125 and optimizer.state_dict()["lr.default"].dtype == cr.float64
    with pytest.raises(ConfigError, match="lr must be at least 0"):
        optimizer.lr = -1.0
    with pytest.raises(ConfigError, match="floating-point scalar"):
        optimizer.lr = cr.tensor([1.0, 2.0])


def test_a_schedule_is_followed_from_the_count_of_updates():
    optimizer, params = optim.SGD(lr=lambda t: 1.0 / (1.0 + t)), {"w": cr.tensor([0.0])}
    for expected in (1.0, 0.5, 1 / 3):
        assert optimizer.lr == pytest.approx(expected, rel=1e-15)
        assert optimizer.update(params, {"w": cr.tensor([-1.0])})["w"].tolist() == pytest.approx([expected], rel=1e-6)
    optimizer.lr = optim.step(1.0, step_size=2)  # t goes on at 3
    assert optimizer.lr == pytest.approx(0.1)
    optimizer.lr = 0.5
    assert optimizer.lr == 0.5 and not optimizer.schedules


def test_groups_by_pattern_list_and_function_first_match_wins():
    params = {
        n: cr.tensor(np.ones((2,) * (1 + n.endswith("weight")))) for n in ("a.weight", "a.bias", "b.weight", "b.bias")
    }
    groups = [
        {"params": "b.*", "lr": 0.0},
        {"params": lambda name, p: p.ndim < 2, "weight_decay": 0.0, "lr": 1.0},
        {"params": ["nothing", "a.w*"], "lr": optim.constant(0.5)},
    ]
    optimizer = optim.SGD(lr=9.0, weight_decay=1.0, groups=groups)
    new = optimizer.update(params, {n: p * 0 + 0.25 for n, p in params.items()})
    assert float(new["b.weight"][0, 0]) == 1.0 and float(new["b.bias"][0]) == 1.0
    assert float(new["a.bias"][0]) == 0.75
    assert float(new["a.weight"][0, 0]) == 1.0 - 0.5 * 1.25


def test_groups_with_other_slots_than_the_rest():
    params = {"w": cr.tensor([1.0]), "b": cr.tensor([1.0])}
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9, groups=[{"params": "b", "momentum": 0.0}])
    assert list(optimizer.slots("w")) == ["trace"] and list(optimizer.slots("b")) == []
    grads = {"w": cr.tensor([1.0]), "b": cr.tensor([1.0])}
    for _ in range(2):
        params = optimizer.update(params, grads)
    assert params["w"].tolist() == pytest.approx([1 - 0.1 - 0.19]) and params["b"].tolist() == pytest.approx([0.8])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"params": "*.bais"}], r"matches no parameter.*'0.weight'"),
        ([{"params": "*.bias"}, {"params": "0.bias"}], "earlier group has taken '0.bias'"),
        ([{"params": "*.bias", "weight_decya": 0.1}], "weight_decya.*Did you mean 'weight_decay'"),
        ([{"params": "*.bias", "lr": -1.0}], "lr must be at least 0"),
        ([{"params": "*.bias", "betas": (2.0, 0.9)}], "betas"),
        ([{"weight_decay": 0.1}], "needs 'params'"),
        ([{"params": cr.tensor([1.0])}], "needs 'params'"),
        ("*.bias", "groups is a list of dicts"),
    ],
)
def test_groups_that_make_no_sense(groups, message):
    with pytest.raises(ConfigError, match=message):
        optim.Adam(network(), groups=groups)


def test_a_group_may_wait_for_frozen_parameters():
    model = network()
    model[0].requires_grad_(False)
    optimizer = optim.SGD(model, lr=0.1, groups=[{"params": "0.*", "lr": 0.0}])
    model[0].requires_grad_(True)
    before = model.state_dict()["0.weight"]
    train(model, optimizer, 1)
    assert_equal({"0.weight": before}, {"0.weight": model.state_dict()["0.weight"]})


# -- saving


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=0.1, momentum=0.9, dampening=0.1),
        lambda: optim.Adam(lr=optim.cosine(0.1, T_max=10), amsgrad=True),
        lambda: optim.NAdam(lr=0.05, groups=[{"params": "*.bias", "lr": 0.5}]),
        lambda: optim.chain(optim.clip_by_global_norm(0.1), optim.RMSprop(lr=0.05, centered=True, momentum=0.5)),
        lambda: optim.accumulate(optim.Adagrad(lr=0.1, lr_decay=0.1), steps=3),
    ],
)
def test_saved_and_loaded_goes_on_with_the_same_bits(make):
    model, optimizer = network(), make()
    train(model, optimizer, 4)
    weights, state = model.state_dict(), {n: x.numpy() for n, x in optimizer.state_dict().items()}
    straight = train(model, optimizer, 5)

    other, again = network(), make()
    other.load_state_dict(weights)
    again.init(other)
    again.load_state_dict(dict(sorted(state.items())))
    assert_equal(train(other, again, 5), straight)
    assert_equal(again.state_dict(), optimizer.state_dict())


def test_loading_copies():
    params = {"w": cr.tensor([1.0])}
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9)
    state = {n: x.numpy() for n, x in optimizer.state_dict().items()}
    optimizer.load_state_dict(state)
    state["momentum.trace.w"][:] = 7.0
    assert optimizer.slots("w")["trace"].tolist() == [0.0]


def test_loading_what_does_not_fit_changes_nothing():
    optimizer = optim.Adam({"w": cr.tensor([1.0])}, lr=0.1)
    state = optimizer.state_dict()
    wrong = {
        "missing: 'adam.mean.w'": {n: x for n, x in state.items() if n != "adam.mean.w"},
        "unexpected: 'more'": {**state, "more": cr.tensor([1.0])},
        r"adam.mean.w is float32\[2\] in the state and float32\[1\] here": {
            **state,
            "adam.mean.w": cr.tensor([1.0, 2.0]),
        },
        "lr.default is float32": {**state, "lr.default": cr.tensor(0.5)},
        "adam.mean.w of the state is no tensor": {**state, "adam.mean.w": [1.0]},
    }
    for message, given in wrong.items():
        with pytest.raises(StateError, match=message):
            optimizer.load_state_dict(given)
    assert_equal(optimizer.state_dict(), state)
    with pytest.raises(StateError, match=r"optimizer.init\(model\)"):
        optim.Adam().load_state_dict(state)


def test_deepcopy_of_model_and_optimizer_stays_together():
    model = network()
    optimizer = optim.Adam(model, lr=0.1)
    other, twin = copy.deepcopy((model, optimizer))
    loss(other).backward()
    twin.step()
    assert not np.array_equal(other[0].weight.numpy(), model[0].weight.numpy())
    assert optimizer.steps == 0 and twin.steps == 1


def test_init_starts_afresh():
    model, optimizer = network(), optim.Adam(lr=0.1)
    train(model, optimizer, 3)
    optimizer.init(model)
    assert optimizer.steps == 0 and not optimizer.slots("0.weight")["mean"].numpy().any()


def test_repr_tells_the_settings():
    text = repr(optim.SGD(lr=0.1, momentum=0.9, groups=[{"params": "*.bias", "lr": 1.0}]))
    assert text.startswith("SGD(lr=0.1, momentum=0.9") and "'*.bias'" in text
    assert "cosine(lr=0.1, T_max=5" in repr(optim.Adam(lr=optim.cosine(0.1, T_max=5)))
    assert repr(optim.accumulate(optim.chain(optim.scale(2.0), optim.SGD(lr=0.1)), 3)).startswith(
        "accumulate(chain(scale(factor=2.0), SGD(lr=0.1,"
    )


# -- errors


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"w": cr.tensor([1.0])}, GradientError, "gradient of 'b' is missing"),
        ({"w": cr.tensor([1.0]), "b": None, "c": cr.tensor([1.0])}, GradientError, "no trained parameter is named 'c'"),
        ({"w": cr.tensor([1.0, 2.0]), "b": None}, ShapeError, r"'w' has shape \(2,\); the parameter has \(1,\)"),
        ({"w": cr.tensor([1]), "b": None}, DTypeError, "'w' is int64"),
        (cr.tensor([1.0]), GradientError, "of type Tensor do not fit"),
        ((cr.tensor(1.0), {"w": cr.tensor([1.0])}), GradientError, "value, grads = cr.value_and_grad"),
    ],
)
def test_gradients_that_do_not_fit(grads, error, message):
    optimizer, params = optim.SGD(lr=0.1), {"w": cr.tensor([1.0]), "b": cr.tensor([1.0])}
    with pytest.raises(error, match=message):
        optimizer.update(params, grads)


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (lambda: optim.Adam(1e-3), r"Adam\(lr=0.001\)"),
        (lambda: optim.Adam(network().parameters()), r"Adam\(model\)"),
        (lambda: optim.Adam(list(network().parameters())), r"Adam\(model\)"),
        (lambda: optim.Adam(network().named_parameters()), r"Adam\(model\)"),
        (lambda: optim.Adam(dict(network().named_parameters())), "would not see their new values"),
        (lambda: optim.Adam({}), "no trainable tensor"),
        (lambda: optim.Adam({"w": cr.tensor([1])}), "no trainable tensor"),
        (lambda: optim.Adam(network().requires_grad_(False)), "4 frozen parameters and no trained one"),
        (lambda: optim.Adam().update(network().parameters(), {}), "pass the model itself"),
        (lambda: optim.Adam().step(), "not bound to a model"),
        (lambda: optim.Optimizer(None, 0.1, None), "defines no rule"),
    ],
)
def test_models_that_are_none(bind, message):
    with pytest.raises(ConfigError, match=message):
        bind()


def test_step_without_backward_says_so():
    model = network()
    optimizer = optim.SGD(model)
    with pytest.raises(GradientError, match=r"loss.backward\(\)"):
        optimizer.step()


def test_another_model_needs_another_optimizer():
    optimizer = optim.SGD({"w": cr.tensor([1.0])})
    with pytest.raises(ShapeError, match=r"optimizer.init\(model\)"):
        optimizer.update({"w": cr.tensor([1.0, 2.0])}, {"w": cr.tensor([1.0, 2.0])})


def test_slots_of_an_unknown_parameter():
    with pytest.raises(StateError, match="no state for 'v'"):
        optim.Adam({"w": cr.tensor([1.0])}).slots("v")
