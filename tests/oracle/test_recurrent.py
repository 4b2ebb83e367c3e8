"""RNN, LSTM, GRU, their cells and packed sequences against PyTorch's, in float64: results and derivatives."""

import itertools

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}
LAYERS = ["RNN", "LSTM", "GRU"]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pair(name, *args, **kwargs):
    """Our module and PyTorch's with the same random weights in float64, under the same names, in the same order."""
    ours, theirs = getattr(nn, name)(*args, **kwargs).to("float64"), getattr(torch.nn, name)(*args, **kwargs).double()
    rng = np.random.default_rng(1)
    state = {key: rng.normal(size=tuple(x.shape)) * 0.5 for key, x in theirs.state_dict().items()}
    assert [n for n, _ in ours.named_parameters()] == list(state)
    theirs.load_state_dict({key: torch.tensor(x) for key, x in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


def flat(results):
    """The tensors in nested tuples."""
    return [x for r in results for x in flat(r)] if isinstance(results, (tuple, list)) else [results]


def compare(ours, theirs, call, their_call, *inputs):
    """Results, gradients, and gradients of the sum of squared gradients, by inputs and parameters."""
    given = [torch.tensor(x, requires_grad=True) for x in inputs]
    outputs = flat(their_call(theirs, *given))
    weights = [drawn(*y.shape, seed=9 + k) for k, y in enumerate(outputs)]
    loss = sum((y * torch.tensor(w)).sum() for y, w in zip(outputs, weights, strict=True))
    leaves = [*theirs.parameters(), *given]
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    seconds = torch.autograd.grad(sum((g * g).sum() for g in grads), leaves, allow_unused=True)

    def f(model, *xs):
        found = flat(call(model, *xs))
        return sum(cr.sum(y * cr.tensor(w)) for y, w in zip(found, weights, strict=True)), found

    numbers = range(len(inputs) + 1)

    def first(*arguments):
        (_, found), grads = cr.value_and_grad(f, argnums=numbers, has_aux=True)(*arguments)
        everything = [*grads[0].values(), *grads[1:]]
        return sum(cr.sum(g * g) for g in everything), (found, everything)

    arguments = (ours, *[cr.tensor(x) for x in inputs])
    (_, (found, ours_first)), second = cr.value_and_grad(first, argnums=numbers, has_aux=True)(*arguments)
    ours_second = [*second[0].values(), *second[1:]]
    for y, expected in zip(found, outputs, strict=True):
        np.testing.assert_allclose(np.asarray(y), expected.detach().numpy(), **TOLERANCE)
    for g, expected in zip(ours_first, grads, strict=True):
        np.testing.assert_allclose(np.asarray(g), expected.detach().numpy(), **TOLERANCE)
    for g, expected in zip(ours_second, seconds, strict=True):
        expected = np.zeros(g.shape) if expected is None else expected.numpy()
        np.testing.assert_allclose(np.asarray(g), expected, rtol=1e-8, atol=1e-9)


def first_state(name, shape, proj=0, seed=5):
    if name != "LSTM":
        return [drawn(*shape, seed=seed)]
    return [drawn(*shape[:-1], proj or shape[-1], seed=seed), drawn(*shape, seed=seed + 1)]


def call(name, given):
    """Run a layer on x and the state that follows, if any."""

    def run(layer, x, *state):
        hx = None if not given else tuple(state) if name == "LSTM" else state[0]
        return layer(x, hx)

    return run


@pytest.mark.parametrize(
    ("layers", "bias", "batch_first", "bidirectional", "given"),
    list(itertools.product([1, 2], [True, False], [True, False], [True, False], [True, False])),
)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, layers, bias, batch_first, bidirectional, given):
    options = {"num_layers": layers, "bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
    ours, theirs = pair(name, 3, 4, **options)
    x = drawn(2, 5, 3) if batch_first else drawn(5, 2, 3)
    state = first_state(name, (layers * (1 + bidirectional), 2, 4)) if given else []
    compare(ours, theirs, call(name, given), call(name, given), x, *state)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("given", [True, False])
def test_a_single_sequence(name, given):
    ours, theirs = pair(name, 3, 4, num_layers=2, bidirectional=True)
    state = first_state(name, (4, 4)) if given else []
    compare(ours, theirs, call(name, given), call(name, given), drawn(5, 3), *state)


@pytest.mark.parametrize("length", [1, 2])
def test_short_sequences(length):
    compare(*pair("GRU", 3, 4, bidirectional=True), call("GRU", False), call("GRU", False), drawn(length, 2, 3))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_projections(layers, bidirectional):
    ours, theirs = pair("LSTM", 3, 5, num_layers=layers, proj_size=2, bidirectional=bidirectional)
    state = first_state("LSTM", (layers * (1 + bidirectional), 2, 5), proj=2)
    compare(ours, theirs, call("LSTM", True), call("LSTM", True), drawn(4, 2, 3), *state)


def test_relu():
    ours, theirs = pair("RNN", 3, 4, nonlinearity="relu", num_layers=2)
    compare(ours, theirs, call("RNN", False), call("RNN", False), drawn(4, 2, 3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(2,), ()])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("name", "more"), [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})])
def test_cells(name, more, given, lead, bias):
    ours, theirs = pair(f"{name}Cell", 3, 4, bias=bias, **more)
    state = first_state(name, (*lead, 4)) if given else []
    compare(ours, theirs, call(name, given), call(name, given), drawn(*lead, 3), *state)


@pytest.mark.parametrize("lengths", [[5, 3, 1], [2, 5, 4], [5, 5, 5]])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences(name, given, batch_first, lengths):
    ours, theirs = pair(name, 3, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = drawn(3, 5, 3) if batch_first else drawn(5, 3, 3)
    state = first_state(name, (4, 3, 4)) if given else []

    def run(library):
        def packed(layer, x, *state):
            together = library.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
            output, last = call(name, given)(layer, together, *state)
            padded, counts = library.pad_packed_sequence(output, batch_first=batch_first)
            assert counts.tolist() == lengths
            return padded, last

        return packed

    compare(ours, theirs, run(nn), run(torch.nn.utils.rnn), x, *state)


def test_padding_and_packing():
    sequences = [drawn(n, 2, seed=n) for n in (4, 2, 3)]
    rnn = torch.nn.utils.rnn
    for batch_first, side in itertools.product([True, False], ["left", "right"]):
        ours = nn.pad_sequence([cr.tensor(x) for x in sequences], batch_first, -1.0, side)
        theirs = rnn.pad_sequence([torch.tensor(x) for x in sequences], batch_first, -1.0, side)
        np.testing.assert_array_equal(np.asarray(ours), theirs.numpy())
    ours = nn.pack_sequence([cr.tensor(x) for x in sequences], enforce_sorted=False)
    theirs = rnn.pack_sequence([torch.tensor(x) for x in sequences], enforce_sorted=False)
    np.testing.assert_array_equal(np.asarray(ours.batch_sizes), theirs.batch_sizes.numpy())
    for total in (None, 6):
        options = {"batch_first": True, "padding_value": 7.0, "total_length": total}
        (x, n), (y, m) = nn.pad_packed_sequence(ours, **options), rnn.pad_packed_sequence(theirs, **options)
        np.testing.assert_array_equal(np.asarray(x), y.numpy())
        assert n.tolist() == m.tolist()


@pytest.mark.parametrize("name", LAYERS)
def test_starting_weights_are_drawn_from_the_same_distribution(name):
    torch.manual_seed(0)
    ours = getattr(nn, name)(60, 50, generator=cr.random.Generator(0))
    theirs = getattr(torch.nn, name)(60, 50)
    for (a, x), (b, y) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (a, x.shape) == (b, tuple(y.shape))
        assert np.abs(np.asarray(x)).max() <= 50**-0.5
        assert abs(float(cr.std(x)) - float(y.detach().std())) < 0.02
