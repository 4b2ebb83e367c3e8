"""Stories of neurons, embeddings, activations, dropout, sums and losses: each term against NumPy in float64."""

import functools
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.explanation import explain

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True)
def _seeded():
    """Equal weights in every run."""
    cr.random.manual_seed(11)


def arrays(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]


def told(model, x, y, loss=losses.mse, optimizer=None):
    model.to("float64")
    return explain(model, x, y, loss=loss, optimizer=optimizer, engine="reference")


def layer(explanation, path, kind=None):
    return next(one for one in explanation.layers if one.path == path and kind in (None, one.layer))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


erf = np.vectorize(math.erf)


def phi(z):
    return (1 + erf(z / np.sqrt(2))) / 2


SLOPES = {
    "Sigmoid": (nn.Sigmoid, sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "Tanh": (nn.Tanh, np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "ReLU": (nn.ReLU, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "LeakyReLU": (nn.LeakyReLU, lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "GELU": (nn.GELU, lambda z: z * phi(z), lambda z: phi(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)),
    "SiLU": (nn.SiLU, lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z)))),
    "Softplus": (nn.Softplus, lambda z: np.log1p(np.exp(z)), sigmoid),
    "ELU": (nn.ELU, lambda z: np.where(z > 0, z, np.exp(z) - 1), lambda z: np.where(z > 0, 1, np.exp(z))),
}


# -- layers of neurons


@pytest.mark.parametrize("name", SLOPES)
def test_every_term_of_two_layers_of_neurons(name):
    make, f, slope = SLOPES[name]
    (x, y), rate = arrays((4, 5), (4, 2)), 0.25
    model = nn.Sequential(nn.Linear(5, 3), make(), nn.Linear(3, 2), make())
    explanation = told(model, x, y, optimizer=optim.SGD(lr=rate))
    w = [explanation.parameters[f"{k}.weight"].value for k in (0, 2)]
    b = [explanation.parameters[f"{k}.bias"].value for k in (0, 2)]
    z1 = x @ w[0].T + b[0]
    z2 = f(z1) @ w[1].T + b[1]
    above2 = 2 * (f(z2) - y) / y.size  # output layer: derivative of the loss × slope
    delta2 = above2 * slope(z2)
    above1 = delta2 @ w[1]  # hidden layer: weighted errors × slope
    delta1 = above1 * slope(z1)
    expected = {
        "0": (x, z1, f(z1), slope(z1), above1, delta1),
        "2": (f(z1), z2, f(z2), slope(z2), above2, delta2),
    }
    for path, (a, z, activation, slopes, above, delta) in expected.items():
        story = layer(explanation, path).story
        assert story.kind == "neurons"
        assert [term.name for term in story.terms] == [
            "input", "weighted sum", "activation", "slope", "error from above", "error",
            "weight gradient", "bias gradient", "update", "bias update",
        ]  # fmt: skip
        for term, value in zip(story.terms, (a, z, activation, slopes, above, delta), strict=False):
            close(term.value, value, err_msg=term.name)
        close(story["weight gradient"], delta.T @ a)
        close(story["bias gradient"], delta.sum(axis=0))
        close(story["update"], -rate * delta.T @ a)
        close(story["bias update"], -rate * delta.sum(axis=0))
        close(story["error"], story["error from above"] * story["slope"])
    assert "the derivative of the loss" in layer(explanation, "2").story.terms[4].formula
    assert "weighted errors Σ w·δ of 2 Linear" in layer(explanation, "0").story.terms[4].formula


def test_functions_between_modules_are_activations():
    """The same network, with functions in forward: one of one node, and one of several."""

    class Functional(nn.Module):
        def __init__(self):
            self.hidden, self.out = nn.Linear(5, 3), nn.Linear(3, 2)

        def forward(self, x):
            return cr.tanh(self.out(cr.gelu(self.hidden(x))))

    x, y = arrays((4, 5), (4, 2))
    explanation = told(Functional(), x, y)
    hidden, out = layer(explanation, "hidden").story, layer(explanation, "out").story
    z = x @ explanation.parameters["hidden.weight"].value.T + explanation.parameters["hidden.bias"].value
    close(hidden["slope"], SLOPES["GELU"][2](z))
    close(hidden["activation"], SLOPES["GELU"][1](z))
    close(out["slope"], 1 - out["activation"] ** 2)
    close(out["error from above"], 2 * (out["activation"] - y) / y.size)


def test_a_network_without_modules_has_layers_too():
    class Bare(nn.Module):
        def __init__(self):
            self.w, self.b, self.v = [nn.Parameter(cr.tensor(array)) for array in arrays((5, 3), (3,), (3, 2), seed=4)]

        def forward(self, x):
            return cr.sigmoid(x @ self.w + self.b) @ self.v

    x, y = arrays((4, 5), (4, 2))
    explanation = explain(Bare(), x, y, loss=losses.mse, engine="reference")
    first, second = explanation.layers[:2]
    assert [one.layer for one in explanation.layers] == ["product", "product", "loss"]
    assert (first.parameters, second.parameters) == (("w", "b"), ("v",))
    w, b, v = (explanation.parameters[name].value for name in "wbv")
    a = sigmoid(x @ w + b)
    delta = (2 * (a @ v - y) / y.size) @ v.T * a * (1 - a)
    close(first.story["slope"], a * (1 - a))
    close(first.story["error"], delta)
    close(first.story["weight gradient"], x.T @ delta)  # as the parameter lies: (input, unit)
    close(second.story["weight gradient"], a.T @ (2 * (a @ v - y) / y.size))


def test_a_layer_that_is_called_twice_tells_what_each_call_adds():
    class Twice(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(cr.tanh(self.layer(x)))

    x, y = arrays((4, 3), (4, 3))
    explanation = told(Twice(), x, y)
    first, second = (one for one in explanation.layers if one.path == "layer")
    assert (first.call, second.call) == (0, 1)
    for one in (first, second):
        close(one.story["weight gradient"], one.story["error"].T @ one.story["input"])
    whole = explanation.parameters["layer.weight"].gradient
    close(first.story["weight gradient"] + second.story["weight gradient"], whole)


def test_frozen_layers_have_a_story_without_gradients():
    x, y = arrays((4, 5), (4, 2))
    model = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    model[2].requires_grad_(False)
    frozen = layer(told(model, x, y, optimizer=optim.SGD(lr=0.1)), "2")
    assert frozen.parameters == ()
    names = [term.name for term in frozen.story.terms]
    assert names == ["input", "weighted sum", "activation", "slope", "error from above", "error"]
    close(frozen.story["error"], frozen.story["error from above"] * frozen.story["slope"])


def test_the_story_of_one_unit():
    x, y = arrays((4, 5), (4, 2))
    explanation = told(nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)), x, y)
    first, w = layer(explanation, "0"), explanation.parameters["0.weight"].value
    total = np.zeros_like(w)
    for row in range(4):
        for unit in range(3):
            story = first.unit((row, unit))
            close(story["patch"], x[row])
            close(story["kernel"], w[unit])
            close(story["products"].sum() + story["bias"], story["weighted sum"])
            close(story["error"], first.story["error"][row, unit])
            total[unit] += story["weight gradient"]
    close(total, explanation.parameters["0.weight"].gradient)
    assert layer(explanation, "1").unit((0, 0)) is None


def test_bilinear():
    class Model(nn.Module):
        def __init__(self):
            self.b = nn.Bilinear(3, 4, 2)

        def forward(self, first, second):
            return self.b(first, second)

    a, b, y = arrays((5, 3), (5, 4), (5, 2))
    story = layer(told(Model(), (a, b), y), "b").story
    close(story["input 1"], a)
    close(story["input 2"], b)
    close(story["weight gradient"], np.einsum("ro,ri,rj->oij", story["error"], a, b))


def test_axes_of_more_than_two_dimensions():
    x, y = arrays((4, 6, 5), (4, 6, 2))
    story = layer(told(nn.Sequential(nn.Linear(5, 2)), x, y), "0").story
    assert story.terms[1].axes == ("row", "position", "unit")
    close(story["weight gradient"], np.einsum("rpo,rpi->oi", story["error"], x))


def test_embedding_gives_gradients_to_the_rows_that_were_looked_up():
    index, (y,) = np.array([[1, 4], [4, 2], [0, 4]]), arrays((3, 2))
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(6, 2))
    story = layer(told(model, index, y), "0").story
    expected = np.zeros((6, 3))
    np.add.at(expected, index, story["error"])
    close(story["weight gradient"], expected)
    assert story["times looked up"].tolist() == [1, 1, 1, 0, 3, 0]
    assert (story["weight gradient"][[3, 5]] == 0).all()


# -- what has no weights


def test_dropout_does_to_errors_what_it_did_to_values():
    x, y = arrays((6, 8), (6, 8))
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.25), nn.Linear(8, 8))
    explanation = told(model, x, y)
    story = layer(explanation, "1").story
    assert set(np.unique(story["mask"]).round(12)) == {0.0, round(4 / 3, 12)}
    close(story["activation"], story["mask"] * story["input"])
    close(story["error"], story["mask"] * story["error from above"])
    close(layer(explanation, "0").story["error"], story["error"])
    assert layer(told(model.eval(), x, y), "1").story is None


def test_a_sum_of_two_paths_hands_the_error_to_both():
    x, y = arrays((4, 3), (4, 2))
    explanation = told(nn.Sequential(nn.Residual(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 2)), x, y)
    story = layer(explanation, "0", "sum").story
    close(story["sum"], story["path 1"] + story["path 2"])
    close(story["error"], layer(explanation, "1").story["error"] @ explanation.parameters["1.weight"].value)
    handed = [story[name] for name in ("error of path 1", "error of path 2") if name in story]
    assert handed
    for error in handed:
        close(error, story["error"])


@pytest.mark.parametrize("log", [False, True])
def test_softmax_mixes_the_errors_of_a_row(log):
    x, y = arrays((4, 3), (4, 3))
    story = layer(told(nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(-1) if log else nn.Softmax(-1)), x, y), "1").story
    z = story["weighted sum"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    above = story["error from above"]
    expected = above - p * above.sum(1, keepdims=True) if log else p * (above - (above * p).sum(1, keepdims=True))
    close(story["error"], expected)


# -- losses


def last(explanation):
    assert explanation.layers[-1].layer == "loss"
    return explanation.layers[-1].story


@pytest.mark.parametrize("loss", [losses.cross_entropy, nn.CrossEntropyLoss()])
def test_cross_entropy(loss):
    (x,), y = arrays((5, 4)), np.array([0, 2, 1, 2, 0])
    explanation = told(nn.Sequential(nn.Linear(4, 3)), x, y, loss)
    story = last(explanation)
    z = x @ explanation.parameters["0.weight"].value.T + explanation.parameters["0.bias"].value
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    close(story["logits"], z)
    close(story["probabilities"], p)
    close(story["wanted"], np.eye(3)[y])
    close(story["error"], (p - np.eye(3)[y]) / 5)
    close(story["loss"], -np.log(p[np.arange(5), y]).mean())
    assert "(p − t) / 5" in next(term.formula for term in story.terms if term.name == "error")


def test_the_plain_formula_is_not_claimed_where_it_does_not_hold():
    (x,), y = arrays((5, 4)), np.array([0, 2, 1, 2, 0])
    weighted = functools.partial(losses.cross_entropy, weight=cr.tensor([1.0, 5.0, 2.0]))
    story = last(told(nn.Sequential(nn.Linear(4, 3)), x, y, weighted))
    assert "/ 5" not in next(term.formula for term in story.terms if term.name == "error")


def test_binary_cross_entropy_with_logits_and_of_probabilities():
    (x,), y = arrays((5, 4)), np.array([[0.0], [1], [1], [0], [1]])
    story = last(told(nn.Sequential(nn.Linear(4, 1)), x, y, losses.binary_cross_entropy_with_logits))
    close(story["probabilities"], sigmoid(story["logits"]))
    close(story["error"], (story["probabilities"] - y) / 5)
    story = last(told(nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), x, y, losses.binary_cross_entropy))
    said = story["prediction"]
    close(story["error"], (said - y) / (said * (1 - said)) / 5)
    assert "(y − t) / (y · (1 − y)) / 5" in next(term.formula for term in story.terms if term.name == "error")


def test_mse_and_losses_of_ones_own():
    x, y = arrays((5, 4), (5, 2))
    story = last(told(nn.Sequential(nn.Linear(4, 2)), x, y))
    close(story["error"], 2 * (story["prediction"] - y) / 10)
    close(story["loss"], ((story["prediction"] - y) ** 2).mean())
    own = last(told(nn.Sequential(nn.Linear(4, 2)), x, y, lambda a, b: cr.sum(cr.abs(a - b) ** 3)))
    close(own["error"], 3 * np.abs(own["difference"]) ** 2 * np.sign(own["difference"]))


# -- JSON


def test_layers_as_json_name_nodes_and_parameters_that_are_there():
    x, y = arrays((4, 5), (4, 2))
    explanation = told(nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)), x, y, optimizer=optim.Adam(lr=0.1))
    written = explanation.to_dict()
    ids, names = {n["id"] for n in written["nodes"]}, {p["name"] for p in written["parameters"]}
    assert [(one["path"], one["layer"], one["call"]) for one in written["layers"]] == [
        ("0", "Linear", 0), ("1", "ReLU", 0), ("2", "Linear", 0), ("", "loss", 0),
    ]  # fmt: skip
    for one in written["layers"]:
        assert {*one["nodes"], *one["inputs"], one["output"]} <= ids and set(one["parameters"]) <= names
        for term in one["story"]["terms"]:
            assert len(term["axes"]) == len(term["value"]["shape"])
    assert [one["nodes"][-1] for one in written["layers"]] == [one["output"] for one in written["layers"]]
