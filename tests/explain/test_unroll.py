"""Loops taken apart: the bits of the step, gradients at every time step, and why through time."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError
from chainrule.explanation import explain
from chainrule.explanation.unroll import Inside, Returned

LAYERS = {
    "rnn": lambda: nn.RNN(3, 4),
    "rnn of relu": lambda: nn.RNN(3, 4, nonlinearity="relu", bidirectional=True),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "lstm with projection": lambda: nn.LSTM(3, 5, proj_size=4),
    "gru": lambda: nn.GRU(3, 4, bidirectional=True),
    "gru without bias": lambda: nn.GRU(3, 4, bias=False),
}


@pytest.fixture(autouse=True)
def _seeded():
    """Equal weights in every run."""
    cr.random.manual_seed(11)


class Last(nn.Module):
    """A recurrent layer, and a linear one on its outputs at all steps, added up."""

    def __init__(self, layer, lengths=None):
        self.rnn = layer
        ends = 2 if layer.bidirectional else 1
        self.fc = nn.Linear(ends * (layer.proj_size or layer.hidden_size), 2)
        self.lengths = lengths

    def forward(self, x):
        if self.lengths is not None:
            x = nn.pack_padded_sequence(x, cr.tensor(self.lengths), enforce_sorted=False)
        y, _ = self.rnn(x)
        y = y.data if self.lengths is not None else y
        return self.fc(cr.sum(y, axis=1 if self.rnn.batch_first else 0))


def data(steps=5, rows=3, features=3, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(steps, rows, features)).astype(np.float32), random.integers(0, 2, rows)


def explained(layer, engine="reference", dtype=None, lengths=None, **sizes):
    model = Last(layer, lengths)
    if dtype is not None:
        model.to(dtype)
    return explain(model, *data(**sizes), loss=losses.cross_entropy, engine=engine)


def loops(explanation):
    return list(explanation.graph.loops.values())


def observed(explanation, tensor):
    return explanation.observation.value(tensor)


def check_sums(why):
    """Children and rest add up to the value, wherever the tree is open."""
    for one in why:
        if one.expanded and (one.children or one.rest):
            total = sum(child.part for child in one.children) + (one.rest.value if one.rest else 0)
            np.testing.assert_allclose(total, one.value, rtol=2e-4, atol=2e-7)


# -- values


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_steps_have_the_bits_of_the_loop(name, engine):
    explanation = explained(LAYERS[name](), engine)
    assert loops(explanation)
    for loop in loops(explanation):
        whole = observed(explanation, loop.tensor)
        for k, part in enumerate(loop.parts):
            flat = whole[part.start : part.stop].reshape(part.shape)
            if k < loop.carries:
                assert (loop.value(loop.result(k, loop.order[-1])) == flat).all()
            else:
                made = np.stack([loop.value(loop.find(t, loop.body.results[k])) for t in range(loop.length)])
                assert made.tobytes() == flat.tobytes()


def test_what_is_not_carried_has_the_bits_of_the_loop_too():
    """Gates are products that the loop saved for its derivative: found in its own result, and made again."""
    explanation = explained(nn.LSTM(3, 4), "native")
    (loop,) = loops(explanation)
    saved = loop.body.results[loop.carries + 1 :]
    assert {x.primitive.name for x in saved} >= {"sigmoid", "tanh"}
    nodes = [node for node in explanation.nodes if isinstance(node, Inside)]
    assert all(node.observed for node in nodes)
    assert {node.value.dtype for node in nodes} == {np.dtype(np.float32)}


# -- gradients


@pytest.mark.parametrize("name", LAYERS)
def test_contributions_of_the_steps_add_up_to_the_observed_gradients(name):
    explanation = explained(LAYERS[name](), "native")
    for loop in loops(explanation):
        for k in range(loop.constants):
            total = sum(loop.contribution(t, k) for t in range(loop.length))
            seen = explanation.observation.gradient(loop.tensor.inputs[k])
            np.testing.assert_allclose(total, seen, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_the_slices_are_those_of_the_sequence(name):
    explanation = explained(LAYERS[name](), "native")
    for loop in loops(explanation):
        symbol, sequence = loop.body.symbols[loop.first], loop.tensor.inputs[loop.first]
        made = np.stack([loop.gradient(loop.find(t, symbol)) for t in range(loop.length)])
        np.testing.assert_allclose(made, explanation.observation.gradient(sequence), rtol=1e-4, atol=1e-6)


def test_backpropagation_through_time_by_hand():
    """The textbook's recurrence (Deep Learning, equations 10.20 to 10.26), for tanh units, in NumPy."""
    explanation = explained(nn.RNN(3, 4), dtype="float64")
    value = {name: p.value for name, p in explanation.parameters.items()}
    x, y = data()
    steps, rows = x.shape[:2]
    h = [np.zeros((rows, 4))]
    for t in range(steps):
        z = x[t] @ value["rnn.weight_ih_l0"].T + value["rnn.bias_ih_l0"] + value["rnn.bias_hh_l0"]
        h.append(np.tanh(z + h[-1] @ value["rnn.weight_hh_l0"].T))
    logits = sum(h[1:]) @ value["fc.weight"].T + value["fc.bias"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    from_output = ((p - np.eye(2)[y]) / rows) @ value["fc.weight"]
    error, delta = [None] * steps, np.zeros((rows, 4))
    for t in reversed(range(steps)):
        error[t] = from_output + delta @ value["rnn.weight_hh_l0"]
        delta = error[t] * (1 - h[t + 1] ** 2)
    for t in range(steps):
        node = explanation.find(f"rnn@{t}")
        np.testing.assert_allclose(node.value, h[t + 1], rtol=1e-12)
        np.testing.assert_allclose(node.gradient, error[t], rtol=1e-10, atol=1e-14)


@settings(max_examples=8, deadline=None)
@given(steps=st.integers(1, 6), rows=st.integers(1, 3), reverse=st.booleans())
def test_any_loop_of_ones_own(steps, rows, reverse):
    check_own(steps, rows, reverse, "reference")


def test_a_loop_of_ones_own_on_the_native_engine():
    check_own(3, 2, True, "native")


def check_own(steps, rows, reverse, engine):
    """Two carries, one handed on unchanged; products that are a slice, a carry, and a mean with a rule of its own."""

    class Own(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(cr.tensor(np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)))

        def forward(self, x):
            def step(state, now):
                h, first = state
                new = cr.layer_norm(cr.tanh(now + h @ self.w) * first, 4)
                return (new, first), (now, new, cr.std(new, axis=1))

            state = (cr.zeros((rows, 4)), x[0] * 0.5 + 1)
            (h, first), (same, seen, spread) = cr.scan(step, state, x, reverse=reverse)
            return h + first + cr.mean(same, axis=0) + cr.sum(seen, axis=0) + cr.sum(spread, axis=0)[:, None]

    random = np.random.default_rng(steps)
    x, y = random.normal(size=(steps, rows, 4)).astype(np.float32), random.normal(size=(rows, 4)).astype(np.float32)
    explanation = explain(Own(), x, y, loss=losses.mse, engine=engine)
    (loop,) = loops(explanation)
    whole = observed(explanation, loop.tensor)
    for at, start, shape in loop.results():
        assert (loop.value(at) == whole[start : start + int(np.prod(shape))].reshape(shape)).all()
    total = sum(loop.contribution(t, 0) for t in range(steps))
    np.testing.assert_allclose(total, explanation.observation.gradient(loop.tensor.inputs[0]), rtol=1e-3, atol=1e-5)
    for node in explanation.nodes:
        assert all(i < node.id for i in node.inputs)
    check_sums(explanation.why("w", depth=4))
    json.dumps(explanation.to_dict(), allow_nan=False)


def test_a_loop_in_a_loop_is_a_node_of_the_outer_one():
    class Nested(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(cr.tensor([[0.5, -0.2], [0.1, 0.3]]))

        def forward(self, x):
            def outer(h, now):
                h, _ = cr.scan(lambda g, _: (cr.tanh(g @ self.w + now), None), h, length=2)
                return h, h

            return cr.scan(outer, cr.zeros((3, 2)), x)[0]

    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    explanation = explain(Nested(), x, np.zeros((3, 2), np.float32), loss=losses.mse, engine="reference")
    (loop,) = loops(explanation)
    assert {x.primitive.name for x in loop.tensors} >= {"scan"}
    total = sum(loop.contribution(t, 0) for t in range(4))
    np.testing.assert_allclose(total, explanation.observation.gradient(loop.tensor.inputs[0]), rtol=1e-4, atol=1e-6)


def test_sequences_that_end_early_hand_nothing_back_after_their_end():
    explanation = explained(nn.GRU(3, 4), "native", lengths=[5, 2, 3])
    (loop,) = loops(explanation)
    error = np.stack([explanation.find(f"rnn@{t}").gradient for t in range(4)])
    assert (error[2:, 1] == 0).all() and (error[3:, 2] == 0).all()
    assert (error[:, 0] != 0).any(axis=-1).all()
    total = sum(loop.contribution(t, 0) for t in range(5))
    np.testing.assert_allclose(total, explanation.observation.gradient(loop.tensor.inputs[0]), rtol=1e-4, atol=1e-6)


def test_a_frozen_loop_has_values_and_no_gradients():
    model = Last(nn.RNN(3, 4))
    model.rnn.requires_grad_(False)
    explanation = explain(model, *data(), loss=losses.cross_entropy)
    node = explanation.find("rnn@2")
    assert node.value.shape == (3, 4) and node.gradient is None
    with pytest.raises(ConfigError, match="has no gradient"):
        explanation.why("rnn@2")


# -- why


@pytest.mark.parametrize("name", LAYERS)
def test_why_goes_through_time(name):
    explanation = explained(LAYERS[name](), "native")
    random = np.random.default_rng(2)
    for parameter in [p for p in explanation.parameters.values() if p.name.startswith("rnn.")]:
        index = [int(random.integers(n)) for n in parameter.value.shape]
        check_sums(explanation.why(f"{parameter.name}{index}", depth=3, width=4))
    why = explanation.why("rnn.weight_hh_l0", depth=1, width=100)
    steps = {explanation.nodes[child.node].step for child in why.children}
    assert len(steps) > 1 and None not in steps


def test_the_error_of_a_step_comes_from_its_output_and_from_the_next_step():
    explanation = explained(nn.RNN(3, 4), "native")
    why = explanation.why("rnn@1[2, 3]", depth=1, width=20)
    assert why.value == explanation.find("rnn@1").gradient[2, 3]
    check_sums(why)
    after = [child for child in why.children if explanation.nodes[child.node].step == 2]
    assert len(after) == 4  # the four units of the next step
    weight = explanation.parameters["rnn.weight_hh_l0"].value
    assert sorted(child.local for child in after) == sorted(weight[:, 3].astype(np.float64))
    last = explanation.why("rnn@4[2, 3]", depth=1)
    assert {explanation.nodes[child.node].step for child in last.children} == {None}


def test_the_parts_of_a_step_are_spoken_of_by_name():
    explanation = explained(nn.LSTM(3, 4), "native")
    spoken = str(explanation.why("rnn.weight_hh_l0[1, 2]", depth=6, width=50))
    for words in ("sum of input gate 1 in row", "hidden 2 in row", "cell 1 in row", "candidate 1 in row", "at step 3"):
        assert words in spoken
    for layer, parts in (
        (nn.RNN(3, 4), ["hidden", "sum of hidden"]),
        (nn.GRU(3, 4), ["reset gate", "sum of candidate"]),
    ):
        nodes = explained(layer, lengths=[5, 2, 3]).nodes
        for part in parts:
            assert len([node for node in nodes if node.part == part]) == 5


def test_steps_are_called_after_their_module_layer_and_direction():
    one, two = explained(nn.LSTM(3, 4)), explained(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    assert one.find("rnn@2").shape == one.find("rnn@2.c").shape == (3, 4)
    for name in ("rnn.l0@0", "rnn.l0_reverse@0.c", "rnn.l1@4", "rnn.l1_reverse@4"):
        assert two.find(name).step == int(name.partition("@")[2][0])
    with pytest.raises(ConfigError, match="Nothing here is called 'rnn@5'"):
        one.why("rnn@5")


# -- JSON and long loops


def test_each_node_stands_behind_its_inputs_and_is_json():
    explanation = explained(nn.GRU(3, 4), "native")
    written = json.loads(explanation.to_json())
    assert [node["id"] for node in written["nodes"]] == list(range(len(explanation.nodes)))
    assert all(i < node["id"] for node in written["nodes"] for i in node["inputs"])
    inside = [node for node in explanation.nodes if isinstance(node, Inside) and node.gradient is not None]
    handed = {to["to"] for node in written["nodes"] for to in node["downstream"]}
    assert {node.id for node in inside} <= handed


def test_what_is_handed_to_a_node_of_a_step_is_its_gradient():
    explanation = explained(nn.LSTM(3, 4), "native")
    for node in explanation.nodes:
        if isinstance(node, Inside) and node.gradient is not None:
            total = sum(explanation.nodes[e.node].downstream(e.position) for e in explanation.graph.consumers[node.id])
            np.testing.assert_allclose(total, node.gradient, rtol=1e-12, atol=1e-15)


def test_long_loops_stay_one_node_and_have_a_story_all_the_same():
    explanation = explained(nn.RNN(3, 4), steps=65)
    assert not any(isinstance(node, (Inside, Returned)) for node in explanation.nodes)
    check_sums(explanation.why("rnn.weight_hh_l0[1, 2]", depth=2))
    story = next(layer.story for layer in explanation.layers if layer.layer == "RNN")
    assert story["hidden"].shape == (65, 3, 4)
    norms = story["weight_hh_l0 gradient by step"].sum(axis=0)
    np.testing.assert_allclose(norms, explanation.parameters["rnn.weight_hh_l0"].gradient, rtol=1e-4, atol=1e-6)


def test_how_long_a_loop_is_taken_apart_can_be_said():
    model, (x, y) = Last(nn.RNN(3, 4)), data()
    whole = explain(model, x, y, loss=losses.cross_entropy, engine="reference", unroll=4)
    assert not any(isinstance(node, Inside) for node in whole.nodes)
    apart = explain(model, x, y, loss=losses.cross_entropy, engine="reference", unroll=5)
    assert {node.step for node in apart.nodes if isinstance(node, Inside)} == set(range(5))
    one, other = whole.why("rnn.weight_hh_l0[1, 2]", depth=1), apart.why("rnn.weight_hh_l0[1, 2]", depth=1)
    assert one.value == other.value
    assert {whole.nodes[child.node].op for child in one.children} == {"scan"}
    assert {apart.nodes[child.node].op for child in other.children} == {"matmul"}
    check_sums(one)


def test_loops_with_many_numbers_are_one_node_in_json():
    explanation = explained(nn.LSTM(3, 40), rows=8)
    written = explanation.to_dict()
    (scan,) = [node for node in written["nodes"] if node["op"] == "scan"]
    (loop,) = loops(explanation)
    assert scan["inputs"] == [explanation.graph.of(x).id for x in loop.tensor.inputs]
    assert {to["to"] for to in scan["downstream"]} <= set(scan["inputs"]) and scan["downstream"]
    ids = {node["id"] for node in written["nodes"]}
    assert all(i in ids for node in written["nodes"] for i in node["inputs"])
    assert all(i in ids for layer in written["layers"] for i in [*layer["nodes"], *layer["inputs"], layer["output"]])
    assert explanation.find("rnn@3").shape == (8, 40)  # in Python all is there


def test_looking_inside_leaves_the_step_as_it_was():
    model = Last(nn.LSTM(3, 4))
    before = {name: x.numpy() for name, x in model.named_parameters()}
    explanation = explain(model, *data(), loss=losses.cross_entropy, optimizer=optim.Adam(lr=0.1))
    explanation.to_dict()
    explanation.why("rnn@2")
    for name, x in model.named_parameters():
        assert (x.numpy() == before[name]).all()
