"""The textbook's 2-2-2 network, its example and learning rate (those of examples/by_hand.py), explained in two ways.

`explanation()` is made by NumPy alone, in the form of `Explanation.to_dict()`, so that the page can be tested on its
own; `by_library()` is what the library says.
"""

import runpy
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import nn, optim
from chainrule.explanation import explain

BY_HAND = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "by_hand.py"))
LINEAR, SIGMOID, LOSS = "return model(x)", "return model(x)", "return cr.sum((t - o) ** 2) / 2"


def array(value):
    value = np.asarray(value, np.float64)
    return {"shape": list(value.shape), "dtype": "float64", "data": value.ravel().tolist()}


class Notes:
    """The nodes of a step in the order in which they are computed; their gradients are filled in afterwards."""

    def __init__(self):
        self.nodes, self.values = [], []

    def __call__(self, op, inputs, value, rule="", name="", role="", module="", layer="", source=""):
        value = np.asarray(value, np.float64)
        node = {"id": len(self.nodes), "op": op, "inputs": inputs, "shape": list(value.shape), "dtype": "float64"}
        node |= {"name": name, "role": role, "module": module, "layer": layer, "rule": rule, "source": source}
        node |= {"file": "by_hand.py" if source else "", "line": 64 if source else 0}
        self.nodes.append(node | {"value": array(value), "gradient": None, "downstream": [], "observed": True})
        self.values.append(value)
        return node["id"]

    def back(self, node, gradient, **downstream):
        """Say the gradient of a node and what it hands to its inputs, by position: `to0=…`."""
        note = self.nodes[node]
        note["gradient"] = array(gradient)
        note["downstream"] = [
            {"to": note["inputs"][int(key[2:])], "value": array(value)} for key, value in downstream.items()
        ]


def _linear(notes, a, weight, bias, path):
    where = {"module": path, "layer": "Linear", "source": LINEAR}
    turned = notes("transpose", [weight], notes.values[weight].T, "dx = dyᵀ", **where)
    product = notes(
        "matmul", [a, turned], notes.values[a] @ notes.values[turned], "dA = dy · Bᵀ, dB = Aᵀ · dy", **where
    )
    spread = notes("broadcast", [bias], notes.values[bias][None], "dx = Σ dy", **where)
    z = notes("add", [product, spread], notes.values[product] + notes.values[spread], "da = dy, db = dy", **where)
    nodes = [turned, product, spread, z]
    return z, {"path": path, "layer": "Linear", "call": 0, "inputs": [a], "output": z, "nodes": nodes}


def _sigmoid(notes, z, path):
    y = notes(
        "sigmoid", [z], 1 / (1 + np.exp(-notes.values[z])), "dx = dy · y · (1 − y)", "", "", path, "Sigmoid", SIGMOID
    )
    return y, {"path": path, "layer": "Sigmoid", "call": 0, "inputs": [z], "output": y, "nodes": [y]}


def explanation():
    """The whole step: forward, loss, backward, update by gradient descent."""
    notes = Notes()
    x = notes("input", [], [BY_HAND["INPUT"]], name="x", role="input")
    t = notes("input", [], [BY_HAND["TARGET"]], name="y", role="input")
    layers, parameters, a = [], {}, x
    for k, (weight, bias) in enumerate([("HIDDEN", "HIDDEN_BIAS"), ("OUTPUT", "OUTPUT_BIAS")]):
        w = notes("parameter", [], BY_HAND[weight], name=f"{2 * k}.weight", role="parameter")
        b = notes("parameter", [], [BY_HAND[bias]] * 2, name=f"{2 * k}.bias", role="parameter")
        z, linear = _linear(notes, a, w, b, str(2 * k))
        a, sigmoid = _sigmoid(notes, z, str(2 * k + 1))
        parameters |= {f"{2 * k}.weight": w, f"{2 * k}.bias": b}
        layers += [linear | {"parameters": [f"{2 * k}.weight", f"{2 * k}.bias"]}, sigmoid | {"parameters": []}]
    value = notes.values
    difference = notes("sub", [t, a], value[t] - value[a], "da = dy, db = −dy", source=LOSS)
    square = notes("mul", [difference] * 2, value[difference] ** 2, "da = dy · b, db = dy · a", source=LOSS)
    total = notes("sum", [square], value[square].sum(keepdims=True), "dx = dy, broadcast", source=LOSS)
    scalar = notes("reshape", [total], value[total].reshape(()), "dx = dy, reshaped", source=LOSS)
    two = notes("constant", [], 2.0, role="constant")
    loss = notes("div", [scalar, two], value[scalar] / 2, "da = dy / b, db = −dy · y / b", source=LOSS)

    notes.back(loss, 1.0, to0=0.5)
    notes.back(scalar, 0.5, to0=[[0.5]])
    notes.back(total, [[0.5]], to0=[[0.5, 0.5]])
    half = value[difference] / 2
    notes.back(square, [[0.5, 0.5]], to0=half, to1=half)
    notes.back(difference, 2 * half, to1=-2 * half)
    upstream = -2 * half
    stories = []
    for linear, sigmoid in [(layers[2], layers[3]), (layers[0], layers[1])]:
        turned, product, spread, z = linear["nodes"]
        y, a = value[sigmoid["output"]], linear["inputs"][0]
        w, b = (parameters[name] for name in linear["parameters"])
        slope = y * (1 - y)
        delta = upstream * slope
        notes.back(sigmoid["output"], upstream, to0=delta)
        notes.back(z, delta, to0=delta, to1=delta)
        notes.back(spread, delta, to0=delta[0])
        to_a, to_turned = delta @ value[w], value[a].T @ delta
        notes.back(product, delta, to0=to_a, to1=to_turned)
        notes.back(turned, to_turned, to0=to_turned.T)
        notes.back(w, to_turned.T)
        notes.back(b, delta[0])
        linear["story"] = {"kind": "neurons", "terms": _terms(value[a], value[z], y, slope, upstream, delta)}
        sigmoid["story"] = None
        stories.append(linear)
        upstream = to_a
    notes.back(x, upstream)
    return {
        "format": "chainrule explanation 1", "engine": "numpy", "step": None, "rows": 1, "loss": float(value[loss]),
        "model": "Sequential", "optimizer": f"SGD(lr={BY_HAND['RATE']})", "nodes": notes.nodes, "layers": layers,
        "loss_change": _loss_change(notes, parameters), "program": "program step",
        "parameters": [_parameter(notes, name, node) for name, node in parameters.items()],
    }  # fmt: skip


def _terms(a, z, y, slope, upstream, delta):
    rows = [
        ("input", "a", "a", ["row", "input"], a),
        ("weighted sum", "z", "z = Σ w·a + b", ["row", "unit"], z),
        ("activation", "f(z)", "f(z) = 1 / (1 + e⁻ᶻ)", ["row", "unit"], y),
        ("slope", "f′(z)", "f′(z) = f(z) · (1 − f(z))", ["row", "unit"], slope),
        ("error from above", "∂L/∂a", "∂L/∂f(z)", ["row", "unit"], upstream),
        ("error", "δ", "δ = ∂L/∂a · f′(z)", ["row", "unit"], delta),
        ("weight gradient", "∂L/∂w", "∂L/∂w = δ · a", ["unit", "input"], delta.T @ a),
        ("bias gradient", "∂L/∂b", "∂L/∂b = δ", ["unit"], delta[0]),
        ("update", "Δw", "Δw = −lr · ∂L/∂w", ["unit", "input"], -BY_HAND["RATE"] * (delta.T @ a)),
    ]
    keys = ("name", "symbol", "formula", "axes")
    return [dict(zip(keys, row[:4], strict=True)) | {"value": array(row[4])} for row in rows]


def _parameter(notes, name, node):
    gradient = np.reshape(notes.nodes[node]["gradient"]["data"], notes.nodes[node]["shape"])
    step = {"name": "step", "symbol": "Δw", "formula": "Δw = −lr · g", "value": array(-BY_HAND["RATE"] * gradient)}
    change = float(-BY_HAND["RATE"] * (gradient**2).sum())
    return {
        "name": name, "node": node, "value": notes.nodes[node]["value"], "gradient": array(gradient),
        "update": step["value"], "state": [], "terms": [step], "loss_change": {"predicted": change, "actual": None},
    }  # fmt: skip


def _loss_change(notes, parameters):
    """What the step promises by the slope (−lr · ‖g‖²), and what it brings."""
    moved, predicted = {}, 0.0
    for name, node in parameters.items():
        gradient = np.reshape(notes.nodes[node]["gradient"]["data"], notes.nodes[node]["shape"])
        moved[name] = notes.values[node] - BY_HAND["RATE"] * gradient
        predicted -= BY_HAND["RATE"] * float((gradient**2).sum())
    a = np.array([BY_HAND["INPUT"]])
    for k in ("0", "2"):
        a = 1 / (1 + np.exp(-(a @ moved[f"{k}.weight"].T + moved[f"{k}.bias"])))
    after = float(((np.array(BY_HAND["TARGET"]) - a) ** 2).sum() / 2)
    return {"predicted": predicted, "actual": after - BY_HAND["by_hand"]()["loss"][0]}


class TwoTwoTwo(nn.Module):
    """Two inputs, two hidden and two output units, all sigmoid."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        h = cr.sigmoid(self.hidden(x))
        return cr.sigmoid(self.output(h))


def half_squared_error(prediction, target):
    return cr.sum((target - prediction) ** 2) / 2


def by_library():
    """The same step, computed and explained by the library in double precision."""
    model = TwoTwoTwo().to("float64")
    state = {
        "hidden.weight": BY_HAND["HIDDEN"],
        "hidden.bias": [BY_HAND["HIDDEN_BIAS"]] * 2,
        "output.weight": BY_HAND["OUTPUT"],
        "output.bias": [BY_HAND["OUTPUT_BIAS"]] * 2,
    }
    model.load_state_dict({name: np.array(value) for name, value in state.items()})
    x, y = np.array([BY_HAND["INPUT"]]), np.array([BY_HAND["TARGET"]])
    return explain(model, x, y, loss=half_squared_error, optimizer=optim.SGD(lr=BY_HAND["RATE"])).to_dict()
