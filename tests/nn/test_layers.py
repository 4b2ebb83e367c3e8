import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError

RNG = np.random.default_rng(2)
sizes = st.integers(1, 4)
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def rows(*shape, dtype="float32"):
    return cr.tensor(RNG.normal(size=shape).astype(dtype))


# -- shapes


@settings(max_examples=30, deadline=None)
@given(shape=shapes, n=sizes, m=sizes, bias=st.booleans())
def test_linear_shapes(shape, n, m, bias):
    layer = nn.Linear(n, m, bias=bias)
    x = RNG.normal(size=(*shape, n)).astype("float32")
    expected = x @ layer.weight.numpy().T + (layer.bias.numpy() if bias else 0)
    np.testing.assert_allclose(layer(cr.tensor(x)), expected, rtol=1e-4, atol=1e-5)
    assert layer(x).shape == (*shape, m)  # arrays are taken as well


@settings(max_examples=30, deadline=None)
@given(shape=shapes, a=sizes, b=sizes, m=sizes)
def test_bilinear_shapes(shape, a, b, m):
    layer = nn.Bilinear(a, b, m)
    x, y = RNG.normal(size=(*shape, a)), RNG.normal(size=(*shape, b))
    expected = np.einsum("...i,kij,...j->...k", x, layer.weight.numpy(), y) + layer.bias.numpy()
    np.testing.assert_allclose(layer(x, y), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, n=sizes, m=sizes)
def test_embedding_shapes(shape, n, m):
    layer = nn.Embedding(n, m)
    index = RNG.integers(0, n, shape)
    np.testing.assert_array_equal(layer(cr.tensor(index)), layer.weight.numpy()[index])


@settings(max_examples=50, deadline=None)
@given(shape=shapes, start=st.integers(-3, 3), end=st.integers(-3, 3))
def test_flatten_shapes(shape, start, end):
    x = RNG.normal(size=shape)
    n = max(len(shape), 1)
    valid = all(-n <= axis < n for axis in (start, end)) and start % n <= end % n
    if not valid:
        if shape:
            with pytest.raises(ShapeError):
                nn.Flatten(start, end)(x)
        return
    expected = x.reshape(1) if not shape else x.reshape(
        *shape[: start % n], math.prod(shape[start % n : end % n + 1]), *shape[end % n + 1 :]
    )  # fmt: skip
    np.testing.assert_array_equal(nn.Flatten(start, end)(x), expected)


def test_unflatten_shapes():
    x = rows(5, 12)
    assert nn.Unflatten(1, (3, 4))(x).shape == (5, 3, 4)
    assert nn.Unflatten(-1, [2, -1, 3])(x).shape == (5, 2, 2, 3)
    assert nn.Unflatten(0, (5, 1))(x).shape == (5, 1, 12)
    assert nn.Unflatten(1, (-1,))(rows(5, 0)).shape == (5, 0)
    np.testing.assert_array_equal(nn.Flatten()(nn.Unflatten(1, (3, 4))(x)), x)
    for size in ((5, -1), (3, 3)):
        with pytest.raises(ShapeError, match="does not divide into"):
            nn.Unflatten(1, size)(x)
    with pytest.raises(ConfigError, match="leave one extent open"):
        nn.Unflatten(1, (-1, -1))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 5), c=sizes, length=st.integers(2, 4), tail=st.booleans())
def test_normalisation_keeps_the_shape(n, c, length, tail):
    x = rows(n, c, length) if tail else rows(n, c)
    for layer in (nn.BatchNorm1d(c), nn.GroupNorm(c, c), nn.GroupNorm(1, c), nn.LayerNorm(x.shape[1:])):
        assert layer(x).shape == x.shape
    assert nn.RMSNorm(x.shape[-1])(x).shape == x.shape
    if tail:
        assert nn.InstanceNorm1d(c)(x).shape == x.shape
        assert nn.InstanceNorm1d(c)(x[0]).shape == x.shape[1:]


def test_identity_takes_anything():
    x = rows(2)
    assert nn.Identity(3, unused=True)(x) is x


# -- messages


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(64, 2)(rows(32, 65)), ShapeError, r"Linear expects last axis 64, got shape \(32, 65\)"),
        (lambda: nn.Linear(1, 2)(cr.tensor(1.0)), ShapeError, r"got shape \(\)"),
        (lambda: nn.Linear(6 / 2, 2), ConfigError, r"in_features is a whole number, not 3\.0\. Divide with //"),
        (lambda: nn.Linear(3, -2), ConfigError, "out_features is a whole number of at least 0, not -2"),
        (lambda: nn.Linear(3, 2, dtype="int32"), DTypeError, "int32"),
        (lambda: nn.Bilinear(2, 3, 1)(rows(4, 2), rows(5, 3)), ShapeError, r"last axes 2 and 3 and else equal"),
        (lambda: nn.Embedding(10, 2)(cr.tensor([3, 10])), IndexOutOfRange, "Embedding has rows 0 to 9.*10"),
        (lambda: nn.Embedding(10, 2)(cr.tensor([-1])), IndexOutOfRange, "Embedding has rows 0 to 9.*-1"),
        (lambda: nn.Embedding(10, 2)(cr.tensor([1.0])), DTypeError, "index is made of integers"),
        (lambda: nn.Embedding(10, 2, padding_idx=10), ConfigError, "padding_idx=10 is outside"),
        (lambda: nn.Embedding.from_pretrained([1.0]), ShapeError, r"\(rows, features\)"),
        (lambda: nn.BatchNorm1d(3)(rows(4, 2)), ShapeError, r"C = 3, got shape \(4, 2\)"),
        (lambda: nn.BatchNorm1d(3)(rows(4, 3, 2, 2)), ShapeError, r"expects \(N, C\) or \(N, C, L\)"),
        (lambda: nn.BatchNorm1d(3)(rows(1, 3)), ShapeError, r"more than one number; .*\(1, 3\).*eval\(\)"),
        (lambda: nn.InstanceNorm1d(3)(rows(4, 3, 1)), ShapeError, "needs two or more"),
        (lambda: nn.GroupNorm(3, 4), ConfigError, "4 channels cannot be divided into 3"),
        (lambda: nn.GroupNorm(2, 4)(rows(3, 6)), ShapeError, "C = 4"),
        (lambda: nn.LayerNorm((2, 3))(rows(3, 2)), ShapeError, r"ends in \(2, 3\), got \(3, 2\)"),
        (lambda: nn.RMSNorm(())(rows(3)), ConfigError, "normalized_shape is empty"),
        (lambda: nn.Dropout(1.5), ConfigError, "p is a probability from 0 to 1, not 1.5"),
        (lambda: nn.Dropout(math.nan), ConfigError, "not nan"),
        (lambda: nn.PReLU(0), ConfigError, "at least one"),
        (lambda: nn.PReLU(3)(rows(4, 2)), ShapeError, "3 channels on axis 1"),
        (lambda: nn.MSELoss("avg"), ConfigError, "MSELoss: reduction='avg' is not known"),
        (lambda: nn.MSELoss("batchmean"), ConfigError, "MSELoss: reduction='batchmean' is not known"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- dropout


def test_dropout_scales_what_it_keeps():
    layer = nn.Dropout(0.25, generator=cr.random.Generator(0))
    y = layer(cr.tensor(np.ones(10_000, "float32"))).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 10_000)


def test_dropout_draws_anew_and_backward_uses_the_same_mask():
    layer = nn.Dropout(0.5)
    ones = cr.tensor(np.ones(200, "float32"))
    assert layer(ones).tolist() != layer(ones).tolist()
    y, pull = cr.vjp(layer, ones)
    assert pull(ones)[0].tolist() == y.tolist()


def test_dropout_hands_on_in_evaluation_and_without_probability():
    x = rows(5)
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropped_positions_let_no_nan_through():
    x = cr.tensor(np.full(1000, np.nan, "float32"))
    y = nn.Dropout(0.5)(x).numpy()
    assert 0 < np.isnan(y).sum() < 1000 and set(y[~np.isnan(y)]) == {0.0}
    value, gradient = cr.value_and_grad(lambda x: nn.Dropout(1.0)(x).sum())(x)
    assert float(value) == 0 and not gradient.numpy().any()


def test_layers_hold_different_generators():
    ones = cr.tensor(np.ones(200, "float32"))
    assert nn.Dropout(0.5)(ones).tolist() != nn.Dropout(0.5)(ones).tolist()


def test_dropout_moves_on_inside_value_and_grad_and_compile():
    ones = cr.tensor(np.ones(100, "float32"))
    ways = {
        "eager": lambda m: m(ones),
        "value_and_grad": lambda m: cr.value_and_grad(lambda m: (m(ones).sum(), m(ones)), has_aux=True)(m)[0][1],
        "compiled": cr.compile(lambda m: m(ones)),
    }
    drawn = {}
    for name, way in ways.items():
        layer = nn.Dropout(0.5, generator=cr.random.Generator(5))
        drawn[name] = [way(layer).tolist() for _ in range(4)]
    assert drawn["eager"] == drawn["compiled"]
    assert len({str(y) for y in drawn["eager"]}) == 4
    layer = nn.Dropout(0.5, generator=cr.random.Generator(5))
    pairs = [ways["value_and_grad"](layer).tolist() for _ in range(2)]  # each run draws twice and returns the second
    assert pairs == [drawn["eager"][1], drawn["eager"][3]]


# -- batch normalisation and its state


def test_running_statistics():
    layer = nn.BatchNorm1d(3, momentum=0.3)
    x = RNG.normal(2.0, 3.0, size=(6, 3, 4)).astype("float32")
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.3 * x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.7 + 0.3 * x.var((0, 2), ddof=1), rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1 and layer.num_batches_tracked.dtype == "int64"
    before = layer.running_mean
    layer.eval()(x)
    assert layer.running_mean is before and layer.num_batches_tracked.item() == 1
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0, 0] and layer.running_var.tolist() == [1, 1, 1]
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(3, momentum=0.5), nn.InstanceNorm1d(3, affine=True, track_running_stats=True)], ids=repr
)
def test_running_statistics_carry_no_history(layer):
    scale = cr.tensor(2.0, requires_grad=True)
    layer(rows(4, 3, 5) * scale)
    for statistic in (layer.running_mean, layer.running_var):
        assert not statistic.inputs and not statistic.requires_grad

    def f(m, x):
        m(x)
        return m.running_mean.sum() + m.running_var.sum() + 0 * x.sum()

    assert not cr.grad(f, argnums=1)(layer, rows(4, 3, 5)).numpy().any()


def test_momentum_none_is_the_plain_average():
    layer = nn.BatchNorm1d(2, momentum=None)
    batches = [RNG.normal(size=(5, 2)).astype("float32") for _ in range(4)]
    for batch in batches:
        layer(batch)
    np.testing.assert_allclose(layer.running_mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.running_var, np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-5)


def test_without_running_statistics_the_batch_counts_in_evaluation_too():
    layer = nn.BatchNorm1d(2, track_running_stats=False).eval()
    assert list(layer.state_dict()) == ["weight", "bias"]
    np.testing.assert_allclose(layer(rows(50, 2)).numpy().mean(0), 0, atol=1e-5)
    with pytest.raises(ShapeError, match="more than one number"):
        layer(rows(1, 2))


def test_a_batch_of_one_is_fine_in_evaluation_and_with_positions():
    assert nn.BatchNorm1d(3).eval()(rows(1, 3)).shape == (1, 3)
    assert nn.BatchNorm1d(3)(rows(1, 3, 2)).shape == (1, 3, 2)


def test_a_failed_call_leaves_the_statistics_alone():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ShapeError):
        layer(rows(1, 3))
    assert layer.num_batches_tracked.item() == 0


# -- activations and losses as modules


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), cr.relu),
        (nn.ReLU6(), cr.relu6),
        (nn.LeakyReLU(0.2), lambda x: cr.leaky_relu(x, 0.2)),
        (nn.Hardtanh(-0.5, 0.25), lambda x: cr.hardtanh(x, -0.5, 0.25)),
        (nn.Hardsigmoid(), cr.hardsigmoid),
        (nn.Hardswish(), cr.hardswish),
        (nn.ELU(0.7), lambda x: cr.elu(x, 0.7)),
        (nn.SELU(), cr.selu),
        (nn.CELU(0.7), lambda x: cr.celu(x, 0.7)),
        (nn.GELU(), cr.gelu),
        (nn.GELU("tanh"), lambda x: cr.gelu(x, "tanh")),
        (nn.Sigmoid(), cr.sigmoid),
        (nn.LogSigmoid(), cr.log_sigmoid),
        (nn.SiLU(), cr.silu),
        (nn.Mish(), cr.mish),
        (nn.Softplus(2.0, 1.0), lambda x: cr.softplus(x, 2.0, 1.0)),
        (nn.Tanh(), cr.tanh),
        (nn.Softmax(0), lambda x: cr.softmax(x, 0)),
        (nn.LogSoftmax(), cr.log_softmax),
        (nn.PReLU(), lambda x: cr.leaky_relu(x, 0.25)),
    ],
)
def test_activations_are_the_functions(layer, function):
    x = rows(4, 5)
    np.testing.assert_array_equal(layer(x), np.asarray(function(x)))
    np.testing.assert_array_equal(cr.compile(lambda m, x: m(x), engine="reference")(layer, x), np.asarray(function(x)))


def test_prelu_learns_a_slope_for_each_channel():
    layer = nn.PReLU(3, init=0.5).to("float64")
    x = rows(2, 3, 4, dtype="float64")
    _, grads = cr.value_and_grad(lambda m: m(x).sum())(layer)
    expected = np.where(np.asarray(x) < 0, np.asarray(x), 0).sum((0, 2))
    np.testing.assert_allclose(grads["weight"], expected)
    cr.check_gradients(lambda m, x: m(x), layer, x)


def test_weights_of_losses_are_saved():
    loss = nn.BCEWithLogitsLoss(weight=cr.tensor([1.0, 2.0]), pos_weight=cr.tensor([3.0, 4.0]))
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    assert "weight" not in dict(loss.named_parameters())


# -- derivatives, numerically


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 2), (4, 3)),
        (nn.Linear(3, 2, bias=False), (2, 2, 3)),
        (nn.BatchNorm1d(3), (4, 3)),
        (nn.BatchNorm1d(3).eval(), (4, 3, 2)),
        (nn.GroupNorm(2, 4), (2, 4, 3)),
        (nn.InstanceNorm1d(2, affine=True), (2, 2, 3)),
        (nn.LayerNorm((2, 3)), (2, 2, 3)),
        (nn.RMSNorm(3), (4, 3)),
    ],
    ids=repr,
)
def test_derivatives(layer, shape):
    layer.to("float64")
    cr.check_gradients(lambda m, x: m(x), layer, rows(*shape, dtype="float64"))


def test_derivatives_of_bilinear_and_embedding():
    cr.check_gradients(
        lambda m, a, b: m(a, b),
        nn.Bilinear(2, 3, 2).to("float64"),
        rows(4, 2, dtype="float64"),
        rows(4, 3, dtype="float64"),
    )
    index = cr.tensor(np.array([[0, 2], [2, 1]]))
    cr.check_gradients(lambda m: m(index), nn.Embedding(4, 3).to("float64"))


def test_the_padding_row_is_zero_and_is_not_trained():
    layer = nn.Embedding(4, 3, padding_idx=-1)
    assert layer.padding_idx == 3 and layer.weight.numpy()[3].tolist() == [0, 0, 0]
    _, grads = cr.value_and_grad(lambda m: m(cr.tensor([0, 3, 3])).sum())(layer)
    assert grads["weight"].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_pretrained_tables_are_frozen_unless_told_otherwise():
    table = np.ones((2, 3), "float32")
    assert nn.Embedding.from_pretrained(table).role("weight") == "frozen"
    layer = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)
    assert layer.role("weight") == "parameter" and (layer.num_embeddings, layer.embedding_dim) == (2, 3)
    table[:] = 7
    assert layer.weight.tolist() == [[1, 1, 1]] * 2
