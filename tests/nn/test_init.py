import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.errors import ConfigError, ShapeError
from chainrule.nn import init

DRAWN = [
    init.uniform, init.normal, init.trunc_normal, init.xavier_uniform, init.xavier_normal, init.kaiming_uniform,
    init.kaiming_normal, init.orthogonal,
]  # fmt: skip
BIG = (200, 150)


def generator(seed=0):
    return cr.random.Generator(seed)


@pytest.mark.parametrize("f", DRAWN, ids=lambda f: f.__name__)
def test_shape_dtype_and_seed(f):
    for dtype in ("float32", "float64", "bfloat16"):
        x = f((3, 4), generator=generator(), dtype=dtype)
        assert x.shape == (3, 4) and x.dtype == dtype
    a, b, c = (np.asarray(f((30, 40), generator=generator(s))) for s in (1, 1, 2))
    assert (a == b).all() and not (a == c).any()
    assert f((3, 4)).tolist() != f((3, 4)).tolist()  # from the default generator, which moves on


def std_error(x):
    """Of the standard deviation of that many independent numbers, at most about."""
    return x.std() * math.sqrt(1 / x.size)


@pytest.mark.parametrize(
    ("x", "bound"),
    [
        (init.uniform(BIG, -0.5, 0.5, generator()), 0.5),
        (init.xavier_uniform(BIG, 2.0, generator()), 2 * math.sqrt(6 / 350)),
        (init.kaiming_uniform(BIG, generator=generator()), math.sqrt(6 / 150)),
        (init.kaiming_uniform(BIG, math.sqrt(5), generator=generator()), math.sqrt(1 / 150)),
        (init.kaiming_uniform(BIG, mode="fan_out", nonlinearity="relu", generator=generator()), math.sqrt(6 / 200)),
        (init.kaiming_uniform(BIG, nonlinearity="linear", generator=generator()), math.sqrt(3 / 150)),
        (init.kaiming_uniform((8, 30, 5, 5), generator=generator()), math.sqrt(6 / 750)),
    ],
)
def test_uniform_bounds(x, bound):
    x = x.numpy().astype("float64")
    assert np.abs(x).max() <= bound * (1 + 1e-6) and np.abs(x).max() > 0.99 * bound
    assert abs(x.std() - bound / math.sqrt(3)) < 4 * std_error(x)
    assert abs(x.mean()) < 4 * x.std() / math.sqrt(x.size)


@pytest.mark.parametrize(
    ("x", "mean", "std"),
    [
        (init.normal(BIG, 1.0, 0.1, generator()), 1.0, 0.1),
        (init.xavier_normal(BIG, 2.0, generator()), 0.0, 2 * math.sqrt(2 / 350)),
        (init.kaiming_normal(BIG, generator=generator()), 0.0, math.sqrt(2 / 150)),
        (init.kaiming_normal(BIG, nonlinearity="selu", generator=generator()), 0.0, 0.75 / math.sqrt(150)),
        (init.trunc_normal(BIG, std=0.02, generator=generator()), 0.0, 0.02),
    ],
)
def test_normal_moments(x, mean, std):
    x = x.numpy().astype("float64")
    assert abs(x.mean() - mean) < 4 * std / math.sqrt(x.size)
    assert abs(x.std() - std) < 4 * std_error(x)
    z = np.sort((x.ravel() - mean) / std)
    share = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    distance = np.abs(share - (np.arange(z.size) + 0.5) / z.size).max()
    assert distance < 1.95 / math.sqrt(z.size)  # Kolmogorov and Smirnov: one in a thousand


def test_trunc_normal_stays_inside_and_follows_the_tail():
    x = init.trunc_normal((20_000,), mean=1.0, std=2.0, a=2.0, b=5.0, generator=generator()).numpy()
    assert x.min() >= 2 and x.max() <= 5
    phi = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    up_to = lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2)))
    expected = 1 + 2 * (phi(0.5) - phi(2.0)) / (up_to(2.0) - up_to(0.5))
    assert abs(x.mean() - expected) < 4 * x.std() / math.sqrt(x.size)


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=4), gain=st.sampled_from([1.0, 0.5]))
def test_orthogonal(shape, gain):
    q = np.asarray(init.orthogonal(tuple(shape), gain, generator(), "float64")).reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-12)


def test_orthogonal_matrices_have_no_preferred_sign():
    signs = [np.linalg.det(np.asarray(init.orthogonal((3, 3), generator=generator(s)), "float64")) for s in range(200)]
    assert 70 < sum(d > 0 for d in signs) < 130


def test_constants():
    assert init.zeros((2, 2)).tolist() == [[0, 0], [0, 0]]
    assert init.ones((2,), "float64").dtype == "float64"
    assert init.constant((2,), 0.25).tolist() == [0.25, 0.25]
    assert init.eye((2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_gains():
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
    assert init.calculate_gain("leaky_relu", 2) == math.sqrt(2 / 5)
    assert init.calculate_gain("conv2d") == init.calculate_gain("linear") == init.calculate_gain("sigmoid") == 1
    assert init.calculate_gain("tanh") == 5 / 3 and init.calculate_gain("selu") == 0.75
    with pytest.raises(ConfigError, match="No gain is known for 'step'; known are"):
        init.calculate_gain("step")


def test_what_cannot_be():
    with pytest.raises(ShapeError, match="needs two axes"):
        init.xavier_uniform((3,))
    with pytest.raises(ShapeError, match="two axes or more"):
        init.orthogonal((3,))
    with pytest.raises(ShapeError, match="matrices"):
        init.eye((3,))
    with pytest.raises(ConfigError, match="'fan_in' or 'fan_out', not 'fan'"):
        init.kaiming_normal((3, 3), mode="fan")


def test_layers_start_as_documented():
    layer = nn.Linear(100, 400, generator=generator())
    for x in (layer.weight.numpy(), layer.bias.numpy()):
        assert 0.099 < np.abs(x).max() <= 0.1 and abs(x.std() - 0.1 / math.sqrt(3)) < 4 * std_error(x)
    layer = nn.Bilinear(100, 20, 10, generator=generator())
    assert 0.099 < np.abs(layer.weight.numpy()).max() <= 0.1 and np.abs(layer.bias.numpy()).max() <= 0.1
    table = nn.Embedding(500, 20, generator=generator()).weight.numpy()
    assert abs(table.mean()) < 0.04 and abs(table.std() - 1) < 0.03
    for norm in (nn.BatchNorm1d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.InstanceNorm1d(3, affine=True)):
        assert norm.weight.tolist() == [1, 1, 1] and norm.bias.tolist() == [0, 0, 0]


def test_the_default_generator_makes_models_repeatable():
    def weights():
        cr.random.manual_seed(7)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()

    a, b = weights(), weights()
    assert all(a[k].tolist() == b[k].tolist() for k in a)
    assert a["0.bias"].tolist() != a["1.bias"].tolist()


def test_layers_without_inputs_or_outputs():
    assert nn.Linear(0, 3)(cr.tensor(np.ones((2, 0), "float32"))).tolist() == [[0, 0, 0]] * 2
    assert nn.Linear(3, 0)(cr.tensor(np.ones((2, 3), "float32"))).shape == (2, 0)
