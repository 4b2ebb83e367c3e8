"""Recurrent layers: against their cells, packed against one by one, compiled against eager, learning, mistakes.

tests/oracle/test_recurrent.py compares with PyTorch.
"""

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, losses, nn, optim
from chainrule.program.program import Program

pytestmark = pytest.mark.filterwarnings("ignore:There is no native code")
LAYERS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}


def drawn(*shape, seed=0, dtype=np.float64):
    return cr.tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def made(name, *args, **kwargs):
    return getattr(nn, name)(*args, **kwargs, generator=cr.random.Generator(1)).to("float64")


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_cell_from_step_to_step(name, bias):
    layer = made(name, 3, 4, bias=bias)
    cell = LAYERS[name](3, 4, bias=bias).to("float64")
    cell.load_state_dict({key.removesuffix("_l0"): x for key, x in layer.state_dict().items()})
    x = drawn(5, 2, 3)
    state, outputs = None, []
    for t in range(5):
        state = cell(x[t], state)
        outputs.append(state[0] if name == "LSTM" else state)
    y, last = layer(x)
    close(y, cr.stack(outputs))
    for a, b in zip(last, state, strict=True) if name == "LSTM" else [(last, state)]:
        close(a[0], b)


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives(name):
    layer = made(name, 2, 2, num_layers=2, bidirectional=True)
    cr.check_gradients(lambda layer, x: layer(x), layer, drawn(3, 2, 2), order=2, directions=1)


@pytest.mark.parametrize("lengths", [[5, 2, 0, 3], [5, 5, 5, 5]])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_are_read_one_by_one(name, lengths):
    layer = made(name, 3, 4, num_layers=2, bidirectional=True)
    x = drawn(5, 4, 3)
    state = drawn(4, 4, 4, seed=3)
    hx = (state, state * 2) if name == "LSTM" else state
    packed, last = layer(nn.pack_padded_sequence(x, lengths), hx)
    padded, _ = nn.pad_packed_sequence(packed)
    for b, n in enumerate(lengths):
        alone = tuple(s[:, b] for s in hx) if name == "LSTM" else hx[:, b]
        y, end = layer(x[:n, b], alone)
        close(padded[:n, b], y)
        assert not np.asarray(padded)[n:, b].any()
        for a, e in zip(last, end, strict=True) if name == "LSTM" else [(last, end)]:
            close(a[:, b], e)


def test_what_stands_behind_the_end_of_a_sequence_is_not_read():
    layer, lengths = made("GRU", 3, 4, bidirectional=True), cr.tensor([4, 2])
    x = drawn(4, 2, 3)
    mask = nn.pack_padded_sequence(x, lengths).mask[:, :, None]
    other = cr.where(mask, x, 1e3)

    def f(layer, x):
        return cr.sum(nn.pad_packed_sequence(layer(nn.pack_padded_sequence(x, lengths))[0])[0] ** 2)

    first, second = (cr.value_and_grad(f, argnums=(0, 1))(layer, given) for given in (x, other))
    close(first[0], second[0])
    close(first[1][1], second[1][1])
    for name, g in first[1][0].items():
        close(g, second[1][0][name])


def test_lengths_may_be_traced():
    """One compiled step serves all lengths."""
    layer = made("LSTM", 3, 4, num_layers=2)

    def f(layer, x, lengths):
        padded, _ = nn.pad_packed_sequence(layer(nn.pack_padded_sequence(x, lengths, batch_first=True))[0])
        return cr.sum(padded**2)

    fast = cr.compile(cr.value_and_grad(f), engine="reference")
    x = drawn(3, 5, 3)
    for lengths in ([5, 3, 1], [1, 2, 4]):
        (a, ga), (b, gb) = fast(layer, x, cr.tensor(lengths)), cr.value_and_grad(f)(layer, x, cr.tensor(lengths))
        close(a, b)
        for name, g in ga.items():
            close(g, gb[name])
    assert fast.compilations == 1


def bodies(program):
    return [x for node in program.nodes for x in node.attributes.values() if isinstance(x, Program)]


@pytest.mark.parametrize("name", LAYERS)
def test_graphs_do_not_grow_and_products_are_left_out_of_the_loops(name):
    layer = made(name, 3, 4)

    def f(layer, x):
        y, _ = layer(x)
        return cr.sum(y**2)

    programs = [cr.trace_program(cr.value_and_grad(f), layer, drawn(n, 2, 3)) for n in (3, 50)]
    assert len({len(p.nodes) for p in programs}) == 1
    inner = bodies(programs[0])
    assert len({len(b.nodes) for p in programs for b in bodies(p)}) == len({len(b.nodes) for b in inner})
    products = [sum(node.primitive.name == "matmul" for node in p.nodes) for p in (programs[0], *inner)]
    assert products == [3, 1, 1]  # x · W and its two gradients' contractions over all steps; h · W; its gradient by h


def test_learning_in_pieces_is_learning_from_each_piece_alone():
    layer, x = made("LSTM", 2, 3), drawn(6, 1, 2)
    loss = lambda layer, x, state: cr.sum(layer(x, state)[0] ** 2)
    _, state = layer(x[:3])
    cut = tuple(cr.stop_gradient(s) for s in state)

    def both(layer, x):
        y, state = layer(x[:3])
        return cr.sum(y**2) + loss(layer, x[3:], tuple(cr.stop_gradient(s) for s in state))

    together = cr.grad(both)(layer, x)
    first, second = cr.grad(loss)(layer, x[:3], None), cr.grad(loss)(layer, x[3:], cut)
    for name, g in together.items():
        close(g, first[name] + second[name])


def test_dropout_between_layers():
    layer = made("GRU", 3, 64, num_layers=2, dropout=0.5).seed(0)
    x = drawn(4, 2, 3)
    a, b = layer(x)[0], layer(x)[0]
    assert not np.array_equal(a, b)
    close(layer.seed(0)(x)[0], a)
    layer.eval()
    assert np.array_equal(layer(x)[0], layer(x)[0])
    plain = made("GRU", 3, 64, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    close(layer(x)[0], plain(x)[0])
    compiled = cr.compile(lambda layer, x: layer(x)[0], engine="reference")
    close(compiled(layer.train().seed(0), x), a)
    with pytest.warns(UserWarning, match="only one"):
        nn.LSTM(3, 4, dropout=0.5)


class Adding(nn.Module):
    """The sum of the two numbers that are marked in a sequence."""

    def __init__(self, name):
        generator = cr.random.Generator(0)
        self.layer = getattr(nn, name)(2, 16, batch_first=True, generator=generator)
        self.out = nn.Linear(16, 1, generator=generator)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])[:, 0]


@pytest.mark.parametrize(("name", "engine"), [("LSTM", "reference"), ("GRU", "native")])
def test_learning_to_add(name, engine):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(256, 5, 2)).astype(np.float32)
    x[:, :, 1] = 0
    for row in x:
        row[rng.choice(5, 2, replace=False), 1] = 1
    y = (x[:, :, 0] * x[:, :, 1]).sum(axis=1)
    model, optimizer = Adding(name), optim.Adam(lr=0.02)

    @cr.compile(engine=engine)
    def step(model, optimizer, x, y):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x), y))(model)
        optimizer.update(model, grads)
        return loss

    found = [float(step(model, optimizer, cr.tensor(x), cr.tensor(y))) for _ in range(200)]
    assert found[-1] < 0.1 * y.var()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_other_dtypes(dtype):
    layer = nn.LSTM(3, 4, dtype=dtype, generator=cr.random.Generator(1))
    y, (h, c) = layer(cr.ones((5, 2, 3), dtype=dtype))
    assert {y.dtype.name, h.dtype.name, c.dtype.name} == {dtype}
    exact, _ = layer.to("float64")(cr.ones((5, 2, 3), dtype="float64"))
    np.testing.assert_allclose(np.asarray(y.astype("float64")), np.asarray(exact), atol=0.05)


def test_no_steps_and_no_batch():
    layer = made("LSTM", 3, 4)
    y, (h, c) = layer(drawn(0, 2, 3))
    assert y.shape == (0, 2, 4)
    assert not np.asarray(h).any() and not np.asarray(c).any()
    assert layer(drawn(5, 0, 3))[0].shape == (5, 0, 4)


MISTAKES = [
    (lambda: nn.LSTM(3, 4)(cr.ones((5, 2, 4))), errors.ShapeError, "steps, batch, 3"),
    (lambda: nn.LSTM(3, 4, batch_first=True)(cr.ones(3)), errors.ShapeError, "batch, steps, 3"),
    (lambda: nn.LSTM(3, 4)(cr.ones((5, 2, 3)), cr.ones((1, 2, 4))), errors.ShapeError, "pair"),
    (lambda: nn.GRU(3, 4)(cr.ones((5, 2, 3)), cr.ones((1, 3, 4))), errors.ShapeError, "first state"),
    (lambda: nn.GRUCell(3, 4)(cr.ones((2, 3)), cr.ones((2, 3))), errors.ShapeError, "state"),
    (lambda: nn.LSTMCell(3, 4)(cr.ones((2, 3)), cr.ones((2, 4))), errors.ShapeError, "pair"),
    (lambda: nn.RNNCell(3, 4)(cr.ones((2, 2, 3))), errors.ShapeError, "expects"),
    (lambda: nn.RNN(3, 4, nonlinearity="sin"), errors.ConfigError, "tanh"),
    (lambda: nn.LSTM(3, 4, proj_size=4), errors.ConfigError, "smaller"),
    (lambda: nn.LSTM(3, 0), errors.ConfigError, "hidden_size"),
    (lambda: nn.LSTM(3, 4, num_layers=2, dropout=1.5), errors.ConfigError, "probability"),
    (lambda: nn.pack_padded_sequence(cr.ones((3, 2)), [4, 1]), errors.DataError, "3 steps"),
    (lambda: nn.pack_padded_sequence(cr.ones((3, 2)), [1]), errors.ShapeError, "lengths"),
    (lambda: nn.pack_padded_sequence(cr.ones((3, 2)), [1.0, 2.0]), errors.DTypeError, "whole"),
    (lambda: nn.pack_padded_sequence(cr.ones(3), [1]), errors.ShapeError, "steps, batch"),
    (lambda: nn.pad_sequence([]), errors.ShapeError, "none"),
    (lambda: nn.pad_sequence([cr.ones((2, 3)), cr.ones((2, 4))]), errors.ShapeError, "length"),
    (lambda: nn.pad_sequence([cr.ones(2)], padding_side="up"), errors.ConfigError, "left"),
    (
        lambda: nn.pad_packed_sequence(nn.pack_sequence([cr.ones(3)]), total_length=2),
        errors.ConfigError,
        "total_length=2",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
