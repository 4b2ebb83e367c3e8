import gc

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.tensor import Tensor

RNG = np.random.default_rng(3)
X = cr.tensor(RNG.normal(size=(16, 5)).astype("float32"))
Y = cr.tensor((RNG.normal(size=(16, 2))).astype("float32"))


def network():
    return nn.Sequential(
        nn.Linear(5, 8, generator=cr.random.Generator(1)),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(0.25, generator=cr.random.Generator(2)),
        nn.Linear(8, 2, generator=cr.random.Generator(3)),
    )


def loss(model, x, y):
    error = model(x) - y
    return (error * error).mean()


def step(model, x, y):
    value, grads = cr.value_and_grad(lambda m: loss(m, x, y))(model)
    parameters = dict(model.named_parameters())
    model.assign({name: parameters[name] - 0.1 * g for name, g in grads.items()})
    return value


def backward_step(model, x, y):
    model.zero_grad()
    value = loss(model, x, y)
    value.backward()
    model.assign({name: p - 0.1 * p.grad for name, p in model.named_parameters()})
    return value


def attribute_step(model, x, y):
    _, grads = cr.value_and_grad(lambda m: loss(m, x, y))(model)
    model[0].weight = model[0].weight - 0.1 * grads["0.weight"]


def numbers(model):
    return {name: x.numpy() for name, x in model.state_dict().items()}


def assert_equal(a, b, **tolerance):
    a, b = numbers(a), numbers(b)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)


def test_the_ways_to_train_agree():
    functional, shell, compiled = network(), network(), network()
    fast = cr.compile(step)
    for _ in range(5):
        values = step(functional, X, Y), backward_step(shell, X, Y), fast(compiled, X, Y)
        np.testing.assert_allclose([float(v) for v in values], float(values[0]), rtol=1e-5)
    assert_equal(functional, shell, rtol=1e-4, atol=1e-6)
    assert_equal(functional, compiled, rtol=1e-4, atol=1e-6)
    assert fast.compilations == 1
    assert functional[1].num_batches_tracked.item() == shell[1].num_batches_tracked.item() == 5
    assert compiled[1].num_batches_tracked.item() == 5


def test_training_reduces_the_loss():
    model = network()
    first = float(step(model, X, Y))
    for _ in range(200):
        step(model, X, Y)
    assert float(loss(model.eval(), X, Y)) < 0.3 * first


def test_value_and_grad_writes_the_statistics_back():
    model = nn.Sequential(nn.BatchNorm1d(5))
    cr.value_and_grad(lambda m: loss(m, X, X))(model)
    by_hand = nn.BatchNorm1d(5)
    by_hand(X)
    np.testing.assert_allclose(model[0].running_mean, by_hand.running_mean, rtol=1e-6)
    np.testing.assert_allclose(model[0].running_var, by_hand.running_var, rtol=1e-6)
    assert model[0].num_batches_tracked.item() == 1
    assert not model[0].running_mean.inputs and not model[0].running_mean.requires_grad
    assert model[0].weight.requires_grad and model.path == "" == model[0].path


def test_evaluation_changes_nothing():
    model = network().eval()
    before = numbers(model)
    first, second = model(X), cr.compile(lambda m, x: m(x))(model, X)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    after = numbers(model)
    assert all((before[k] == after[k]).all() for k in before)


def test_train_and_eval_are_two_signatures():
    model = network()
    fast = cr.compile(lambda m, x: m(x))
    fast(model, X)
    fast(model.eval(), X)
    fast(model, X)
    fast(model.train(), X)
    assert fast.compilations == 2


def test_backward_works_after_a_compiled_step():
    model = network()
    cr.compile(step)(model, X, Y)
    loss(model, X, Y).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_module_can_be_compiled_itself():
    model = network().eval()
    np.testing.assert_allclose(cr.compile(model)(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_model_computes_in_its_dtype(dtype):
    model, x = network().to(dtype), X.astype(dtype)
    assert model(x).dtype == dtype
    value, grads = cr.value_and_grad(lambda m: loss(m, x, Y.astype(dtype)))(model)
    assert value.dtype == dtype and {g.dtype.name for g in grads.values()} == {dtype}
    assert model[1].running_mean.dtype == dtype and model[1].num_batches_tracked.dtype == "int64"


def test_frozen_parameters_stay_in_a_compiled_step():
    model = network()
    model[0].requires_grad_(False)
    weight = model[0].weight
    cr.compile(step)(model, X, Y)
    assert model[0].weight is weight


@pytest.fixture
def no_garbage_collector():
    """What is in a reference cycle stays, and is counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


LOOPS = {
    "value_and_grad": step,
    "backward": backward_step,
    "assignment": attribute_step,
    "forward": lambda m, x, y: m(x),
    "compiled": cr.compile(step),
    "saving": lambda m, x, y: m.load_state_dict(m.state_dict()),
    "summary": lambda m, x, y: nn.summary(m, x),
    "changing": lambda m, x, y: m.train().to("float32").requires_grad_().zero_grad(),
}


@pytest.mark.parametrize("way", LOOPS)
def test_a_loop_does_not_grow_and_leaves_no_cycles(way, no_garbage_collector):
    model = network()

    def tensors():
        return sum(issubclass(type(x), Tensor) for x in gc.get_objects())

    for _ in range(3):
        LOOPS[way](model, X, Y)
    before = tensors()
    for _ in range(10):
        LOOPS[way](model, X, Y)
    assert tensors() == before


def test_differentiating_through_an_update():
    """A parameter assigned inside of a derivative keeps its history: learning to learn."""
    layer = nn.Linear(1, 1, bias=False).to("float64")
    layer.weight = cr.tensor([[2.0]], dtype="float64")

    def after_one_step(m):
        gradient = cr.grad(lambda m: (m.weight * m.weight * m.weight).sum())(m)["weight"]
        m.assign({"weight": m.weight - 0.1 * gradient})
        return (m.weight * m.weight).sum()

    gradient = cr.grad(after_one_step)(layer)["weight"]
    w = 2.0
    np.testing.assert_allclose(gradient, [[2 * (w - 0.3 * w**2) * (1 - 0.6 * w)]])
    np.testing.assert_allclose(layer.weight, [[w - 0.3 * w**2]])
    assert layer.weight.requires_grad and not layer.weight.inputs


def test_traced_nodes_know_their_module():
    model = network()
    program = cr.trace_program(lambda m, x: m(x), model, X)
    found = {(n.location.module, n.location.layer) for n in program.nodes if n.location is not None}
    assert {path.rpartition(".")[2] for path, _ in found} >= {"0", "1", "2", "3", "4"}
    assert {layer for _, layer in found} >= {"Linear", "BatchNorm1d", "Tanh", "Dropout"}


def test_a_module_is_an_argument_like_others():
    model = network()
    extra = cr.tensor(2.0)
    value, (grads, by_extra) = cr.value_and_grad(lambda m, s: loss(m, X, Y) * s, argnums=(0, 1))(model, extra)
    np.testing.assert_allclose(float(by_extra) * 2, float(value), rtol=1e-5)
    assert list(grads) == [name for name, _ in model.named_parameters()]


def test_modules_in_containers_are_found():
    models = {"a": nn.Linear(5, 2), "b": [nn.Linear(5, 2)]}
    grads = cr.grad(lambda ms: loss(ms["a"], X, Y) + loss(ms["b"][0], X, Y))(models)
    assert list(grads["a"]) == ["weight", "bias"] == list(grads["b"][0])
