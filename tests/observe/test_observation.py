"""One call of a compiled step looked into: the same bits, every gradient, every call of a module."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim, tree
from chainrule.core.tensor import context
from chainrule.observe import observe_call
from chainrule.train.criterion import criterion
from chainrule.train.steps import Steps

RNG = np.random.default_rng(0)


def images(rows=5):
    return RNG.normal(size=(rows, 2, 8, 8)).astype(np.float32)


class Recurrent(nn.Module):
    def __init__(self, kind):
        self.layer, self.head = kind(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        self.embedding, self.layer = nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(cr.mean(self.layer(self.embedding(x)), axis=1))


def networks():
    vector = RNG.normal(size=(9, 7)).astype(np.float32)
    sequence = RNG.normal(size=(4, 6, 5)).astype(np.float32)
    return {
        "mlp": (nn.Sequential(nn.Linear(7, 6), nn.GELU(), nn.Dropout(0.3), nn.Linear(6, 3)), vector),
        "norms": (
            nn.Sequential(nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.LayerNorm(6), nn.Linear(6, 3)), vector,
        ),
        "convolutions": (
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(64, 3)),
            images(),
        ),
        "rnn": (Recurrent(nn.RNN), sequence),
        "lstm": (Recurrent(nn.LSTM), sequence),
        "gru": (Recurrent(nn.GRU), sequence),
        "attention": (Attending(), RNG.integers(0, 11, (4, 5))),
    }  # fmt: skip


NETWORKS = networks()
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optim.AdamW(lr=0.01),
}


def made(name):
    model, x = networks()[name]
    model.seed(3)
    return model.train(), x, np.arange(len(x)) % 3


def bits(thing):
    return {leaf.path: np.asarray(leaf.value).tobytes() for leaf in tree.flatten(thing).leaves}


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_sees_the_step_that_trains(name, engine):
    for optimizer in OPTIMIZERS.values():
        model, x, y = made(name)
        optimizer = optimizer()
        optimizer.prepare([model])
        steps = Steps(criterion(losses.cross_entropy, False), engine, clip_norm=1.0)
        before = bits({"model": model, "optimizer": optimizer})
        seen = observe_call(steps.training, model, optimizer, None, x, y, None, True)
        assert bits({"model": model, "optimizer": optimizer}) == before  # looking changes nothing
        loss, _, _ = steps.training(model, optimizer, None, x, y, None, True)
        after = tree.flatten({"model": model, "optimizer": optimizer}).leaves
        assert seen.value(seen.result[0]).tobytes() == np.asarray(loss).tobytes()
        for leaf in after:
            now = seen.after.get(leaf.path, seen.before[leaf.path])
            assert np.asarray(now).tobytes() == np.asarray(leaf.value).tobytes(), leaf.path


@pytest.mark.parametrize("name", NETWORKS)
def test_its_gradients_are_those_of_value_and_grad(name):
    model, x, y = made(name)
    steps = Steps(criterion(losses.cross_entropy, False), "native")
    seen = observe_call(steps.gradient, model, x, y, None)
    expected = seen.result[1]
    assert expected
    symbols = {path.removeprefix("model."): symbol for path, symbol in seen.symbols.items()}
    totals = {flow.input.inputs[0].serial: flow.input for flow in seen.record.flows.values() if flow.input.inputs}
    for path, gradient in expected.items():
        alias = totals[symbols[path].serial]  # what the derivative is taken by stands for the symbol
        assert np.array_equal(seen.gradient(alias), seen.value(gradient)), path


@pytest.mark.parametrize("name", ["mlp", "norms", "convolutions", "attention"])
def test_every_gradient_is_the_sum_of_what_is_handed_down(name):
    model, x, y = made(name)
    seen = observe_call(Steps(criterion(losses.cross_entropy, False), "native").gradient, model, x, y, None)
    loss = seen.result[0].serial
    sums = {}
    for flow in seen.record.flows.values():
        part = seen.value(flow.downstream).astype(np.float64)
        sums[flow.input.serial] = sums.get(flow.input.serial, 0) + part
        assert flow.node.serial == loss or np.array_equal(seen.value(flow.upstream), seen.gradient(flow.node))
    assert len(sums) > 10
    for flow in seen.record.flows.values():
        np.testing.assert_allclose(seen.gradient(flow.input), sums[flow.input.serial], rtol=1e-5, atol=1e-6)


def test_calls_of_modules_are_known_with_what_they_got_and_returned():
    model, x, y = made("mlp")
    seen = observe_call(Steps(criterion(losses.cross_entropy, False), "native").gradient, model, x, y, None)
    assert [(c.path, c.layer) for c in seen.record.calls] == [
        ("model.0", "Linear"), ("model.1", "GELU"), ("model.2", "Dropout"), ("model.3", "Linear"),
        ("model", "Sequential"),
    ]  # fmt: skip
    first, last = seen.record.calls[0], seen.record.calls[-2]
    assert np.array_equal(seen.value(first.inputs[0]), x)
    weight, bias = np.asarray(model[0].weight), np.asarray(model[0].bias)
    np.testing.assert_allclose(seen.value(first.outputs[0]), x @ weight.T + bias, rtol=1e-5, atol=1e-6)
    assert seen.value(last.outputs[0]).shape == (9, 3)


def test_most_values_are_observed_and_the_others_are_right():
    """Where a pass has found something simpler, NumPy computes the value: by the same meaning."""
    model, x, y = made("norms")
    seen = observe_call(Steps(criterion(losses.cross_entropy, False), "native").gradient, model, x, y, None)
    values = {f.node.serial: f.node for f in seen.record.flows.values()}.values()
    count = [seen.observed(t) for t in values]
    assert sum(count) > 0.8 * len(count)
    plain = observe_call(Steps(criterion(losses.cross_entropy, False), "reference").gradient, model, x, y, None)
    other = {f.node.serial: f.node for f in plain.record.flows.values()}.values()
    for mine, theirs in zip(values, other, strict=True):
        np.testing.assert_allclose(seen.value(mine), plain.value(theirs), rtol=2e-4, atol=1e-5)


def test_nobody_watches_afterwards():
    with pytest.raises(ZeroDivisionError):
        observe_call(cr.compile(lambda x: x * (1 / 0)), cr.tensor(1.0))
    assert context.witness is None
    compiled = cr.compile(lambda x: cr.sum(x * x))
    compiled(cr.tensor([1.0]))
    assert not compiled.program.places


def test_a_second_derivative_is_seen_as_a_whole():
    """Of a node that two derivatives meet, the gradient is that of the outer one."""
    slope = cr.grad(lambda x: cr.sum(x**3))
    outer = cr.compile(cr.value_and_grad(lambda x: cr.sum(slope(x) ** 2)))
    x = cr.tensor([1.0, 2.0])
    seen = observe_call(outer, x)
    alias = next(
        f.input for f in seen.record.flows.values() if f.input.inputs and f.input.inputs[0] is seen.symbols["x"]
    )
    np.testing.assert_allclose(seen.gradient(alias), 36 * np.asarray(x) ** 3, rtol=1e-6)
