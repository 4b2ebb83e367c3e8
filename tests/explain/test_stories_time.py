"""Stories of recurrent layers and of attention: each term against NumPy in float64."""

import functools

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn
from chainrule.explanation import explain

close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-12)


@pytest.fixture(autouse=True)
def _seeded():
    """Equal weights in every run."""
    cr.random.manual_seed(11)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Outputs(nn.Module):
    """What a recurrent layer says at all steps, rows first; `lengths` where sequences are packed."""

    def __init__(self, layer, lengths=None):
        self.layer, self.lengths = layer, lengths

    def forward(self, x):
        if self.lengths is not None:
            packed = nn.pack_padded_sequence(x, cr.tensor(self.lengths), enforce_sorted=False)
            return cr.permute_dims(self.layer(packed)[0].data, (1, 0, 2))
        y = self.layer(x)[0]
        return y if self.layer.batch_first else cr.permute_dims(y, (1, 0, 2))


def told(layer, steps=5, rows=3, lengths=None):
    model = Outputs(layer, lengths)
    model.to("float64")
    shape = (rows, steps, 3) if layer.batch_first else (steps, rows, 3)
    explanation = explain(model, random(*shape), None, loss=error_of, engine="reference")
    return next(one.story for one in explanation.layers if one.path == "layer"), explanation


def error_of(y, _):
    return cr.sum(y * y * cr.cos(cr.reshape(cr.arange(float(y.size), dtype="float64"), y.shape)))


def from_output(h):
    """The error of what is returned, (steps, rows, units) as `h` is; the loss goes through rows first."""
    turned = h.transpose(1, 0, 2)
    return (2 * turned * np.cos(np.arange(float(h.size)).reshape(turned.shape))).transpose(1, 0, 2)


def weights(explanation, end="l0"):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [explanation.parameters[f"layer.{name}_{end}"].value for name in names]


# -- each kind, step by step and back again


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn(nonlinearity, batch_first):
    story, explanation = told(nn.RNN(3, 4, nonlinearity=nonlinearity, batch_first=batch_first))
    w, v, b, c = weights(explanation)
    x = random(3, 5, 3).transpose(1, 0, 2) if batch_first else random(5, 3, 3)
    f, slope = {
        "tanh": (np.tanh, lambda h: 1 - h * h),
        "relu": (lambda z: np.maximum(z, 0), lambda h: (h > 0) * 1.0),
    }[nonlinearity]
    h = [np.zeros((3, 4))]
    for now in x:
        h.append(f(now @ w.T + b + h[-1] @ v.T + c))
    h = np.stack(h)
    out = from_output(h[1:])
    later, delta = np.zeros((5, 3, 4)), np.zeros((6, 3, 4))
    for t in reversed(range(5)):
        later[t] = delta[t + 1] @ v
        delta[t] = (out[t] + later[t]) * slope(h[t + 1])
    assert story.kind == "recurrent" and all(term.axes[0] == "step" for term in story.terms)
    close(story["hidden"], h[1:])
    close(story["error from the output"], out)
    close(story["error from the step after"], later)
    close(story["error of hidden"], out + later)
    close(story["δ of hidden"], delta[:5])
    by_step = np.einsum("trg,trh->tgh", delta[:5], h[:-1])
    close(story["weight_hh_l0 gradient by step"], by_step)
    close(story["weight_hh_l0 gradient norm by step"], np.linalg.norm(by_step.reshape(5, -1), axis=1))
    close(story["weight_ih_l0 gradient by step"], np.einsum("trg,tri->tgi", delta[:5], x))
    close(by_step.sum(axis=0), explanation.parameters["layer.weight_hh_l0"].gradient)


def lstm_by_hand(x, w, v, b, c, out_of):
    steps, rows, hidden = len(x), x.shape[1], v.shape[1]
    h, cell, gates = np.zeros((steps + 1, rows, hidden)), np.zeros((steps + 1, rows, hidden)), []
    for t in range(steps):
        i, f, g, o = np.split(x[t] @ w.T + b + h[t] @ v.T + c, 4, axis=1)
        gates.append([sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)])
        cell[t + 1] = gates[t][1] * cell[t] + gates[t][0] * gates[t][2]
        h[t + 1] = gates[t][3] * np.tanh(cell[t + 1])
    out, later = out_of(h[1:]), np.zeros((steps, rows, hidden))
    dh, dc, deltas = np.zeros((rows, hidden)), np.zeros((steps + 1, rows, hidden)), np.zeros((steps, 4, rows, hidden))
    for t in reversed(range(steps)):
        i, f, g, o = gates[t]
        later[t] = dh
        error = out[t] + dh
        held = np.tanh(cell[t + 1])
        forget = gates[t + 1][1] if t + 1 < steps else 0.0
        dc[t] = error * o * (1 - held**2) + forget * dc[t + 1]
        deltas[t] = [
            dc[t] * g * i * (1 - i), dc[t] * cell[t] * f * (1 - f), dc[t] * i * (1 - g * g), error * held * o * (1 - o),
        ]  # fmt: skip
        dh = np.concatenate(deltas[t], axis=1) @ v
    return h, cell, np.array(gates), out, later, dc[:steps], deltas


def test_lstm():
    story, explanation = told(nn.LSTM(3, 4))
    x, (w, v, b, c) = random(5, 3, 3), weights(explanation)
    h, cell, gates, out, later, dc, deltas = lstm_by_hand(x, w, v, b, c, from_output)
    for k, name in enumerate(("input gate", "forget gate", "candidate", "output gate")):
        close(story[name], gates[:, k])
        close(story[f"δ of {name}"], deltas[:, k])
    close(story["cell"], cell[1:])
    close(story["hidden"], h[1:])
    close(story["error from the output"], out)
    close(story["error from the step after"], later)
    close(story["error of hidden"], out + later)
    close(story["error of cell"], dc)
    delta = np.concatenate([deltas[:, k] for k in range(4)], axis=-1)
    close(story["weight_hh_l0 gradient by step"], np.einsum("trg,trh->tgh", delta, h[:-1]))
    close(story["weight_ih_l0 gradient by step"].sum(axis=0), explanation.parameters["layer.weight_ih_l0"].gradient)


def test_gru():
    story, explanation = told(nn.GRU(3, 4))
    x, (w, v, b, c) = random(5, 3, 3), weights(explanation)
    h, gates, inner = np.zeros((6, 3, 4)), [], []
    for t in range(5):
        zr, zu, zn = np.split(x[t] @ w.T + b, 3, axis=1)
        hr, hu, hn = np.split(h[t] @ v.T + c, 3, axis=1)
        r, u = sigmoid(zr + hr), sigmoid(zu + hu)
        n = np.tanh(zn + r * hn)
        gates.append((r, u, n))
        inner.append(hn)
        h[t + 1] = (1 - u) * n + u * h[t]
    out, dh = from_output(h[1:]), np.zeros((3, 4))
    for t in reversed(range(5)):
        r, u, n = gates[t]
        close(story["error from the step after"][t], dh)
        error = out[t] + dh
        dn = error * (1 - u) * (1 - n * n)
        du = error * (h[t] - n) * u * (1 - u)
        dr = dn * inner[t] * r * (1 - r)
        for name, gate, delta in (("reset gate", r, dr), ("update gate", u, du), ("candidate", n, dn)):
            close(story[name][t], gate)
            close(story[f"δ of {name}"][t], delta)
        close(story["error of hidden"][t], error)
        dh = error * u + np.concatenate([dr, du, dn * r], axis=1) @ v
    close(story["weight_hh_l0 gradient by step"].sum(axis=0), explanation.parameters["layer.weight_hh_l0"].gradient)


def test_directions_and_layers_are_told_one_by_one():
    story, explanation = told(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    x, ends = random(5, 3, 3), ("l0", "l0_reverse", "l1", "l1_reverse")
    for end in ends:
        assert story[f"{end} hidden"].shape == (5, 3, 4)
        total = story[f"{end} weight_hh_{end} gradient by step"].sum(axis=0)
        close(total, explanation.parameters[f"layer.weight_hh_{end}"].gradient)
        total = story[f"{end} weight_ih_{end} gradient by step"].sum(axis=0)
        close(total, explanation.parameters[f"layer.weight_ih_{end}"].gradient)
    backwards = lstm_by_hand(x[::-1], *weights(explanation, "l0_reverse"), lambda h: h)
    close(story["l0_reverse hidden"], backwards[0][:0:-1])
    close(story["l0_reverse cell"], backwards[1][:0:-1])
    assert (story["l0_reverse error from the step after"][0] == 0).all()  # the last step that is computed
    assert (story["l0 error from the step after"][4] == 0).all()


def test_packed_sequences_learn_up_to_their_end():
    lengths = [5, 2, 3]
    story, explanation = told(nn.LSTM(3, 4), lengths=lengths)
    x, inside = random(5, 3, 3), np.arange(5)[:, None] < np.array(lengths)
    out = np.zeros((5, 3, 4))
    for row, length in enumerate(lengths):
        alone = lstm_by_hand(x[:length, row : row + 1], *weights(explanation), lambda h: h)
        close(story["hidden"][:length, row], alone[0][1:, 0])
        out[:length, row] = alone[0][1:, 0]
    above = from_output(out)
    for row, length in enumerate(lengths):
        given = above[:length, row : row + 1]
        alone = lstm_by_hand(x[:length, row : row + 1], *weights(explanation), lambda h, given=given: given)
        close(story["error of hidden"][:length, row], (given + alone[4])[:, 0])
        close(story["δ of forget gate"][:length, row], alone[6][:, 1, 0])
    assert (story["error of hidden"][~inside] == 0).all()


def test_projected_states():
    story, explanation = told(nn.LSTM(3, 5, proj_size=4))
    close(story["weight_hh_l0 gradient by step"].sum(axis=0), explanation.parameters["layer.weight_hh_l0"].gradient)
    close(story["weight_hr_l0 gradient by step"].sum(axis=0), explanation.parameters["layer.weight_hr_l0"].gradient)
    held = story["output gate"] * np.tanh(story["cell"])
    close(story["hidden"], held @ explanation.parameters["layer.weight_hr_l0"].value.T)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_are_told_call_by_call(cell):
    class Steps(nn.Module):
        def __init__(self):
            self.cell = cell(3, 4)

        def forward(self, x):
            state = None
            for t in range(3):
                state = self.cell(x[t], state)
            return state[0] if isinstance(state, tuple) else state

    class Scanned(Steps):
        def forward(self, x):
            zeros = cr.zeros((2, 4), dtype="float64")
            first = (zeros, zeros) if cell is nn.LSTMCell else zeros
            last, _ = cr.scan(lambda state, now: (self.cell(now, state), None), first, x)
            return last[0] if isinstance(last, tuple) else last

    told = []
    for make in (Steps, Scanned):
        cr.random.manual_seed(5)
        model = make()
        model.to("float64")
        explanation = explain(model, random(3, 2, 3), random(2, 4), loss=losses.mse, engine="reference")
        told.append([one.story for one in explanation.layers if one.story.kind == "recurrent"])
    by_call, (in_scan,) = told
    assert len(by_call) == 3
    names = [term.name for term in by_call[0].terms]
    assert "hidden" in names and any(name.startswith("δ of") for name in names)
    for name in names:
        close(np.concatenate([story[name] for story in by_call]), in_scan[name], err_msg=name)


def test_vanishing_through_time_shows_in_the_norms():
    model = Outputs(nn.RNN(3, 4))
    model.to("float64")
    model.assign({"layer.weight_hh_l0": cr.tensor(0.3 * np.eye(4))})

    def last(y, _):
        return cr.sum(y[:, -1] ** 2)

    explanation = explain(model, random(12, 3, 3), None, loss=last, engine="reference")
    story = next(one.story for one in explanation.layers if one.path == "layer")
    norms = story["weight_ih_l0 gradient norm by step"]
    assert (norms[1:] > norms[:-1]).all() and norms[0] < 1e-4 * norms[-1]


# -- attention


class Attending(nn.Module):
    def __init__(self, causal=False, dropout=0.0, padded=False):
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=dropout)
        self.causal, self.padded = causal, padded

    def forward(self, x):
        mask = cr.tensor(np.arange(5) >= np.array([[5], [3], [4]])) if self.padded else None
        return self.attention(x, x, x, key_padding_mask=mask, is_causal=self.causal)[0]


def attended(**settings):
    model = Attending(**settings)
    model.to("float64")
    explanation = explain(model, random(3, 5, 8), random(3, 5, 8, seed=1), loss=losses.mse, engine="reference")
    return next(one.story for one in explanation.layers if one.layer == "MultiheadAttention"), explanation


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"padded": True}, {"dropout": 0.4}])
def test_attention_head_by_head(settings):
    story, explanation = attended(**settings)
    p = {name.partition(".")[2]: one.value for name, one in explanation.parameters.items()}
    x = random(3, 5, 8)
    q, k, v = (
        part.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3)
        for part in np.split(x @ p["in_proj_weight"].T + p["in_proj_bias"], 3, axis=-1)
    )
    scores = q @ k.swapaxes(-1, -2) / 2
    if settings.get("causal"):
        scores = np.where(np.tri(5, dtype=bool), scores, -np.inf)
    if settings.get("padded"):
        scores = np.where((np.arange(5) < np.array([[5], [3], [4]]))[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    close(story["queries"], q)
    close(story["keys"], k)
    close(story["values"], v)
    close(story["scores"], scores)
    close(story["weights"], weights)
    read = story["weights after dropout"] if "dropout" in settings else weights
    mask = np.divide(read, weights, out=np.ones_like(read), where=weights > 0)
    close(story["output"], read @ v)
    merged = story["output"].transpose(0, 2, 1, 3).reshape(3, 5, 8)
    y = merged @ p["out_proj.weight"].T + p["out_proj.bias"]
    back = (2 * (y - random(3, 5, 8, seed=1)) / y.size) @ p["out_proj.weight"]
    dy = back.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3)
    dw = mask * (dy @ v.swapaxes(-1, -2))
    ds = weights * (dw - (dw * weights).sum(-1, keepdims=True))
    close(story["error of output"], dy)
    close(story["error of weights"], dw)
    close(story["error of scores"], ds)
    close(story["query gradient"], ds @ k / 2)
    close(story["key gradient"], ds.swapaxes(-1, -2) @ q / 2)
    close(story["value gradient"], read.swapaxes(-1, -2) @ dy)
    assert story.terms[3].axes == ("row", "head", "query", "key")


def test_attention_that_is_the_whole_model_is_one_layer():
    class Alone(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    model = Alone(8, 2, batch_first=True)
    model.to("float64")
    x, y = random(3, 5, 8), random(3, 5, 8, seed=1)
    explanation = explain(model, x, y, loss=losses.mse, engine="reference")
    assert [one.layer for one in explanation.layers] == ["Alone", "loss"]
    assert explanation.layers[0].story.kind == "attention"


def test_attention_as_a_function_and_in_transformer_layers():
    class Own(nn.Module):
        def __init__(self):
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return x + cr.scaled_dot_product_attention(self.q(x), self.k(x), x, is_causal=True)

    model = Own()
    model.to("float64")
    x, y = random(3, 5, 8), random(3, 5, 8, seed=1)
    explanation = explain(model, x, y, loss=losses.mse, engine="reference")
    kinds = [one.layer for one in explanation.layers]
    assert kinds == ["Linear", "Linear", "attention", "sum", "loss"]
    story = explanation.layers[2].story
    close(story["output"], story["weights"] @ x)
    w, dw = story["weights"], story["error of weights"]
    close(story["error of scores"], w * (dw - (dw * w).sum(-1, keepdims=True)))
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0, activation="gelu"))
    model.to("float64")
    explanation = explain(model, x, y, loss=losses.mse, engine="reference")
    paths = [(one.path, one.layer) for one in explanation.layers]
    assert ("0.self_attn", "MultiheadAttention") in paths and paths.count(("0", "sum")) == 2
    inner = next(one.story for one in explanation.layers if one.path == "0.linear1")
    close(inner["error"], inner["error from above"] * inner["slope"])
    assert (inner["slope"] > -0.2).all() and (inner["slope"] < 1.2).all()
