"""The chain from a gradient to Δw: its formulas give the new weights, and what the update does to the loss."""

import re

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.explanation import explain
from chainrule.train.batches import Batch
from chainrule.train.criterion import criterion
from chainrule.train.setup import check_optimizer
from chainrule.train.steps import Steps

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "decay": lambda: optim.SGD(lr=0.1, weight_decay=0.05),
    "momentum": lambda: optim.SGD(lr=0.1, momentum=0.9),
    "nesterov": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(lr=0.01),
    "adam with decay": lambda: optim.Adam(lr=0.01, weight_decay=0.1),
    "amsgrad": lambda: optim.Adam(lr=0.01, amsgrad=True),
    "adamw": lambda: optim.AdamW(lr=0.01, weight_decay=0.1),
    "rmsprop": lambda: optim.RMSprop(lr=0.01),
    "rmsprop, centred": lambda: optim.RMSprop(lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda: optim.Adagrad(lr=0.05),
    "adadelta": lambda: optim.Adadelta(lr=0.5),
    "adamax": lambda: optim.Adamax(lr=0.01),
    "nadam": lambda: optim.NAdam(lr=0.01),
    "lion": lambda: optim.Lion(lr=0.001),
    "schedule": lambda: optim.SGD(lr=optim.cosine(0.1, T_max=10), momentum=0.9),
    "maximised": lambda: optim.SGD(lr=0.1, maximize=True),
}
CLIPPED = {"clipped": 0.01, "not clipped": None}


def parts():
    rng = np.random.default_rng(3)
    cr.random.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return model, rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)


def trained(make, clip_norm, engine="reference", steps=3):
    """The same model and optimiser after some steps, and a function that makes one more."""
    model, x, y = parts()
    optimizer = check_optimizer(make(), model, clip_norm)
    compiled = Steps(criterion(losses.mse, False), engine, clip_norm)
    batch = Batch(x, y, None, np.arange(6))
    for _ in range(steps):
        compiled.train(model, optimizer, None, batch)
    return model, optimizer, x, y, lambda: compiled.train(model, optimizer, None, batch)


class Root:
    """√x is written `root ** x`, which binds as tightly."""

    def __pow__(self, x):
        return np.sqrt(x)


FUNCTIONS = {
    "root": Root(), "max": np.maximum, "min": np.minimum, "abs": np.abs, "sign": np.sign, "cos": np.cos,
    "where": np.where,
}  # fmt: skip
SIGNS = {"²": " ** 2", "^": " ** ", "√": " root ** ", "−": "-", "·": "*"}


def evaluated(formula, known):
    """The right side of a formula, as arithmetic in float64."""
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", formula.partition(" = ")[2].replace("‖g‖", "norm"))
    known = {symbol.replace("‖g‖", "norm"): value for symbol, value in known.items()}
    names = {symbol: f"q{i}" for i, symbol in enumerate(sorted(known, key=len, reverse=True))}
    for sign, python in SIGNS.items():
        text = text.replace(sign, python)
    for symbol, name in names.items():
        text = re.sub(rf"(?<!\w){re.escape(symbol)}(?![\w\u0302\u0304′])", name, text)
    values = {name: np.asarray(known[symbol], np.float64) for symbol, name in names.items()}
    return eval(text, {"__builtins__": {}}, FUNCTIONS | values)


@pytest.mark.parametrize("clip_norm", CLIPPED.values(), ids=CLIPPED)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_updates_are_those_of_the_optimiser(make, clip_norm):
    check_update(make, clip_norm, "reference")


@pytest.mark.parametrize("name", ["schedule", "amsgrad", "adamw", "rmsprop, centred", "lion"])
def test_updates_are_those_of_the_optimiser_on_the_native_engine(name):
    check_update(OPTIMIZERS[name], 0.01, "native")


def check_update(make, clip_norm, engine):
    """Δw and the state before and after are those of a step made by an equal optimiser, to the bit."""
    model, optimizer, x, y, one_more = trained(make, clip_norm, engine)
    kept = {name: np.array(a) for name, a in optimizer.state_dict().items()}
    explanation = explain(model, x, y, loss=losses.mse, optimizer=optimizer, clip_norm=clip_norm, engine=engine)
    assert all(np.array_equal(kept[name], np.asarray(a)) for name, a in optimizer.state_dict().items())
    before = {name: np.asarray(p).copy() for name, p in model.named_parameters()}
    one_more()
    after = {name: np.asarray(p) for name, p in model.named_parameters()}
    state = {path: np.asarray(a) for path, a in optimizer.state_dict().items()}
    for name, parameter in explanation.parameters.items():
        assert np.array_equal(parameter.value, before[name])
        assert np.array_equal(parameter.update.change, after[name] - before[name])
        for slot in parameter.update.slots:
            ours = [p for p in state if p.endswith(f"{slot.name}.{name}")]
            assert len(ours) == 1
            assert np.array_equal(slot.before, kept[ours[0]])
            assert np.array_equal(slot.after, state[ours[0]])


@pytest.mark.parametrize("clip_norm", CLIPPED.values(), ids=CLIPPED)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_formulas_evaluate_to_their_values(make, clip_norm):
    """Each line, from the values of the lines before and the state before the step."""
    model, optimizer, x, y, _ = trained(make, clip_norm)
    explanation = explain(model, x, y, loss=losses.mse, optimizer=optimizer, clip_norm=clip_norm, engine="reference")
    for parameter in explanation.parameters.values():
        terms = parameter.update.terms
        known = dict(parameter.update.symbols)
        assert [terms[0].symbol, terms[-1].symbol] == ["g", "Δw"]
        known["g"] = terms[0].value
        for term in terms[1:]:
            if term.symbol == "‖g‖":
                squares = [np.sum(p.gradient.astype(np.float64) ** 2) for p in explanation.parameters.values()]
                assert term.value == pytest.approx(np.sqrt(sum(squares)), rel=1e-6)
                known["‖g‖"] = term.value
                continue
            found = evaluated(term.formula, known | {"w": parameter.value})
            expected = term.value if not term.formula.startswith("w′") else parameter.value + term.value
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7, err_msg=f"{term.formula} {known.keys()}")
            known[term.symbol] = term.value


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "rmsprop", "lion"])
def test_tiny_updates_change_the_loss_as_predicted(name):
    model, x, y = parts()
    make = {
        "sgd": optim.SGD, "adam": optim.Adam, "rmsprop": optim.RMSprop, "lion": optim.Lion,
        "momentum": lambda lr: optim.SGD(lr=lr, momentum=0.9),
    }[name]  # fmt: skip
    apart = []
    for lr in (1e-3, 1e-4, 1e-5):
        explanation = explain(model, x, y, loss=losses.mse, optimizer=make(lr=lr), engine="reference")
        change = explanation.loss_change
        assert change.predicted < 0
        apart.append(abs(change.actual / change.predicted - 1))
        single = explanation.parameters["0.weight"].loss_change((1, 2))
        one = explanation.parameters["0.weight"]
        assert single.predicted == pytest.approx(float(one.gradient[1, 2]) * float(one.update.change[1, 2]), rel=1e-9)
        assert single.actual == pytest.approx(single.predicted, rel=0.1)
        assert sum(p.loss_change().predicted for p in explanation.parameters.values()) == pytest.approx(
            change.predicted
        )
    assert apart[0] < 0.1 and apart[2] < apart[0] / 20
    assert apart[2] < 2e-3


def test_groups_have_their_own_rates_and_what_is_frozen_has_none():
    model, x, y = parts()
    model[0].weight = nn.Parameter(model[0].weight, requires_grad=False)
    groups = [{"params": "*.bias", "lr": 0.01, "weight_decay": 0.0}]
    optimizer = optim.SGD(lr=0.1, weight_decay=0.5, groups=groups)
    explanation = explain(model, x, y, loss=losses.mse, optimizer=optimizer, engine="reference")
    assert list(explanation.parameters) == ["0.bias", "2.weight", "2.bias"]
    found = {
        name: (p.update.terms[-1].formula, float(p.update.symbols["lr"])) for name, p in explanation.parameters.items()
    }
    assert found["2.weight"] == ("Δw = −lr · (g + 0.5 · w)", 0.1)
    assert found["2.bias"] == found["0.bias"] == ("Δw = −lr · g", 0.01)


class Forgetful(nn.Module):
    """Has a layer that it makes no use of."""

    def __init__(self, inner):
        self.inner, self.spare = inner, nn.Linear(2, 2)

    def forward(self, x):
        return self.inner(x)


def test_parameters_that_the_loss_does_not_depend_on_have_no_update(engine):
    model, x, y = parts()
    model = Forgetful(model)
    explanation = explain(model, x, y, loss=losses.mse, optimizer=optim.SGD(lr=0.1), engine=engine)
    spare = explanation.parameters["spare.weight"]
    assert spare.update is None and not spare.gradient.any() and spare.loss_change() is None
    assert "spare.weight" in str(explanation)
