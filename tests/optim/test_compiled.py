"""Optimisers inside compiled functions: the same bits as eagerly, and no compilation that is not needed."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError

X = cr.tensor(np.random.default_rng(0).normal(size=(8, 3)), dtype="float32")
Y = cr.tensor(np.random.default_rng(1).normal(size=(8, 1)), dtype="float32")

OPTIMISERS = {
    "SGD": lambda: optim.SGD(lr=0.1),
    "SGD dampened": lambda: optim.SGD(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "nesterov": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "RMSprop": lambda: optim.RMSprop(lr=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda: optim.Adagrad(lr=0.1, lr_decay=0.1),
    "Adadelta": lambda: optim.Adadelta(),
    "Lion": lambda: optim.Lion(lr=0.01, weight_decay=0.1),
    "Adam": lambda: optim.Adam(lr=0.1, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda: optim.AdamW(lr=optim.warmup(2, optim.cosine(0.1, 10))),
    "Adamax": lambda: optim.Adamax(lr=0.1),
    "NAdam": lambda: optim.NAdam(lr=0.1),
    "RAdam": lambda: optim.RAdam(lr=0.1),
    "groups": lambda: optim.Adam(
        lr=0.1, groups=[{"params": "*.bias", "lr": 0.5}, {"params": "0.*", "betas": (0.5, 0.6)}]
    ),
    "chain": lambda: optim.chain(optim.clip_by_global_norm(0.1), optim.Adam(lr=0.1), optim.clip_by_value(0.05)),
    "accumulate": lambda: optim.accumulate(optim.chain(optim.clip_by_value(0.1), optim.AdamW(lr=0.1)), 3),
    "composed": lambda: optim.Composed(optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(0.1))),
}


def network():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    rng = np.random.default_rng(2)
    model.assign({n: cr.tensor(rng.normal(size=p.shape), dtype="float32") for n, p in model.named_parameters()})
    return model


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    return loss


@pytest.mark.parametrize("name", OPTIMISERS)
def test_compiled_steps_have_the_bits_of_eager_ones_and_compile_once(name):
    eager_model, fast_model = network(), network()
    eager, compiled, fast = OPTIMISERS[name](), OPTIMISERS[name](), cr.compile(step, engine="reference")
    for _ in range(7):
        eager_loss, fast_loss = step(eager_model, eager, X, Y), fast(fast_model, compiled, X, Y)
        assert float(eager_loss) == float(fast_loss)
    assert fast.compilations == 1
    for (n, p), (m, q) in zip(eager.state_dict().items(), compiled.state_dict().items(), strict=True):
        assert n == m
        np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=n)
    for p, q in zip(eager_model.parameters(), fast_model.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert eager.steps == compiled.steps


def test_a_new_learning_rate_compiles_nothing_and_counts():
    model, optimizer, fast = network(), optim.SGD(lr=0.1), cr.compile(step, engine="reference")
    fast(model, optimizer, X, Y)
    optimizer.lr = 0.0
    before = model.state_dict()
    fast(model, optimizer, X, Y)
    assert fast.compilations == 1
    for n, p in model.named_parameters():
        np.testing.assert_array_equal(p.numpy(), before[n].numpy())


def test_equal_optimisers_share_what_was_compiled():
    fast = cr.compile(step, engine="reference")
    for lr in (0.1, 0.2, 0.3):
        model = network()
        fast(model, optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(model, lr=lr)), X, Y)
        fast(model, optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(lr=lr)), X, Y)
    assert fast.compilations == 1
    fast(model, optim.chain(optim.clip_by_global_norm(2.0), optim.Adam(lr=lr)), X, Y)
    assert fast.compilations == 2


def test_eager_and_compiled_steps_may_be_mixed():
    one, two = network(), network()
    first, second, fast = optim.Adam(one, lr=0.1), optim.Adam(two, lr=0.1), cr.compile(step, engine="reference")
    for i in range(4):
        step(one, first, X, Y)
        (fast if i % 2 else step)(two, second, X, Y)
    ((two(X) - Y) ** 2).mean().backward()
    second.step()
    ((one(X) - Y) ** 2).mean().backward()
    first.step()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_without_state_and_without_one_module_the_error_says_what_to_do():
    def bare(optimizer, w, g):
        return optimizer.update({"w": w}, {"w": g})["w"]

    def both(a, b, optimizer, x):
        return (a(x) + b(x)).sum()

    optimizer = optim.SGD(lr=0.5)
    with pytest.raises(ConfigError, match=r"no Module stands beside it.*optimizer.init\(model\)"):
        cr.compile(bare)(optimizer, cr.tensor([1.0]), cr.tensor([1.0]))
    optimizer.init({"w": cr.tensor([1.0])})
    assert cr.compile(bare)(optimizer, cr.tensor([1.0]), cr.tensor([1.0])).tolist() == [0.5]
    with pytest.raises(ConfigError, match="2 Modules stand"):
        cr.compile(both)(network(), network(), optim.SGD(), X)
    with pytest.raises(ConfigError, match="Compile the closure"):
        cr.compile(step, engine="reference")(network(), optim.LBFGS(), X, Y)


def test_thawed_parameters_need_state_before_a_compiled_step():
    model, optimizer, fast = network(), optim.Adam(lr=0.1), cr.compile(step, engine="reference")
    model[0].requires_grad_(False)
    fast(model, optimizer, X, Y)
    model[0].requires_grad_(True)
    with pytest.raises(ConfigError, match=r"'0.weight', '0.bias' had no state.*optimizer.add\(model\)"):
        fast(model, optimizer, X, Y)
    optimizer.add(model)
    before = model.state_dict()["0.weight"].numpy()
    fast(model, optimizer, X, Y)
    np.testing.assert_allclose(np.abs(model.state_dict()["0.weight"].numpy() - before), 0.1, rtol=1e-2)


def test_a_moving_average_inside_of_a_compiled_step():
    def averaged(model, optimizer, ema, x, y):
        loss = step(model, optimizer, x, y)
        ema.update(model)
        return loss

    one, two, fast = network(), network(), cr.compile(averaged, engine="reference")
    first, second = optim.EMA(0.5, bias_correction=True).init(one), optim.EMA(decay=0.5, bias_correction=True)
    a, b = optim.SGD(lr=0.1), optim.SGD(lr=0.1)
    for _ in range(3):
        averaged(one, a, first, X, Y)
        fast(two, b, second, X, Y)
    assert fast.compilations == 1
    for n, x in first.weights().items():
        np.testing.assert_array_equal(x.numpy(), second.weights()[n].numpy())


def test_plain_transforms_are_traced_too():
    transform = optim.chain(optim.clip_by_global_norm(1.0), optim.scale_by_adam(), optim.scale_by_learning_rate(0.1))
    params, grads = {"w": cr.tensor([1.0, 2.0])}, {"w": cr.tensor([3.0, -4.0])}
    state = transform.init(params)
    fast = cr.compile(lambda g, s, p: transform.update(g, s, p), engine="reference")
    for _ in range(3):
        wanted, after = transform.update(grads, state, params)
        got, state = fast(grads, state, params)
        np.testing.assert_array_equal(got["w"].numpy(), wanted["w"].numpy())
        np.testing.assert_array_equal(state["adam"]["square"]["w"].numpy(), after["adam"]["square"]["w"].numpy())


# -- one count of steps for all parameters that make them together -----------------------------------------------------


def counts_of(fast):
    """The inputs of a compiled step that count the steps of parameters."""
    names = [fast.program.nodes[i].name for i in fast.program.inputs]
    return [name for name in names if ".adam.step." in name or ".nadam.step." in name or ".nadam.product." in name]


def same(one, two):
    for (n, p), (m, q) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert n == m
        np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=n)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: optim.Adam(lr=0.1), 1),
        (lambda: optim.NAdam(lr=0.1), 2),
        (lambda: optim.Adam(lr=0.1, groups=[{"params": "*.bias", "lr": 0.5}]), 2),
        (lambda: optim.accumulate(optim.AdamW(lr=0.1), 3), 1),
    ],
)
def test_parameters_that_step_together_count_together(make, count):
    one, two, a, b, fast = network(), network(), make(), make(), cr.compile(step, engine="reference")
    for i in range(9):
        if i % 3 == 2:
            assert float(step(one, a, X, Y)) == float(step(two, b, X, Y))
        else:
            assert float(step(one, a, X, Y)) == float(fast(two, b, X, Y))
            assert len(counts_of(fast)) == count
    assert fast.compilations == 1
    same(a, b)


def test_a_frozen_parameter_keeps_a_count_of_its_own():
    one, two, a, b, fast = (
        network(),
        network(),
        optim.Adam(lr=0.1),
        optim.Adam(lr=0.1),
        cr.compile(step, engine="reference"),
    )
    for frozen in (False, True, True, False, False):
        one[0].requires_grad_(not frozen), two[0].requires_grad_(not frozen)
        for _ in range(2):
            assert float(step(one, a, X, Y)) == float(fast(two, b, X, Y))
        same(a, b)
    assert [int(b.slots(n)["step"]) for n in ("0.weight", "0.bias", "2.weight", "2.bias")] == [6, 6, 10, 10]
    assert len(counts_of(fast)) == 2  # the two of the frozen layer count together, and so do the others
    assert fast.compilations == 3  # together; frozen; free again with two counts


def test_a_gradient_that_is_none_leaves_the_others_together():
    def partial(model, optimizer, x, y):
        loss, grads = cr.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.update(model, {**grads, "2.bias": None})
        return loss

    one, two, a, b = network(), network(), optim.NAdam(lr=0.1), optim.NAdam(lr=0.1)
    fast, usual = cr.compile(partial, engine="reference"), cr.compile(step, engine="reference")
    for _ in range(3):
        assert float(partial(one, a, X, Y)) == float(fast(two, b, X, Y))
    assert fast.compilations == 1 and len(counts_of(fast)) == 4
    assert float(step(one, a, X, Y)) == float(usual(two, b, X, Y))
    same(a, b)


@pytest.mark.parametrize("make", [lambda: optim.Adam(lr=0.1), lambda: optim.NAdam(lr=0.1, groups=[
    {"params": "*.bias", "lr": 0.5}])])  # fmt: skip
def test_loaded_counts_are_shared_again(make):
    model, optimizer, fast = network(), make(), cr.compile(step, engine="reference")
    for _ in range(3):
        fast(model, optimizer, X, Y)
    weights, state = model.state_dict(), {n: x.numpy() for n, x in optimizer.state_dict().items()}
    assert len([n for n in state if ".step." in n]) == 4  # saved under each parameter's name
    losses = [float(fast(model, optimizer, X, Y)) for _ in range(3)]
    model[0].requires_grad_(False)
    step(model, optimizer, X, Y)  # the counts part
    model[0].requires_grad_(True)

    again = make().init(network())
    for other in (optimizer, again):
        other.load_state_dict(state)
        model.load_state_dict(weights)
        assert [float(fast(model, other, X, Y)) for _ in range(3)] == losses
    assert fast.compilations == 1


def test_counts_that_differ_stay_apart_when_loaded():
    model, optimizer = network(), optim.Adam(lr=0.1)
    step(model, optimizer, X, Y)
    model[0].requires_grad_(False)
    step(model, optimizer, X, Y)
    model[0].requires_grad_(True)
    state = optimizer.state_dict()
    again = optim.Adam(lr=0.1).init(model)
    again.load_state_dict(state)
    same(again, optimizer)
    twin, fast = network(), cr.compile(step, engine="reference")
    twin.load_state_dict(model.state_dict())
    assert float(fast(twin, again, X, Y)) == float(step(model, optimizer, X, Y))
    assert len(counts_of(fast)) == 2
    same(again, optimizer)


def test_parameters_that_are_single_numbers_do_not_share_their_moments():
    params = {"a": cr.tensor(1.0), "b": cr.tensor(2.0)}
    optimizer = optim.Adam(params, lr=0.1)
    optimizer.load_state_dict(optimizer.state_dict())
    slots = [optimizer.slots(n) for n in params]
    assert slots[0]["mean"] is not slots[1]["mean"] and slots[0]["step"] is slots[1]["step"]
