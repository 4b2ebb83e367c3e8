"""Activations and softmax: closed forms, derivatives, kinks, extreme values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions import activations as act

INF, NAN = float("inf"), float("nan")


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log1pexp(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
# name, function of a tensor, the same by hand, its kinks
CASES = [
    ("relu", act.relu, lambda x: max(x, 0.0), (0,)),
    ("leaky_relu", act.leaky_relu, lambda x: x if x > 0 else 0.01 * x, (0,)),
    ("leaky_relu 0.3", lambda x: act.leaky_relu(x, 0.3), lambda x: x if x > 0 else 0.3 * x, (0,)),
    ("elu", act.elu, lambda x: x if x > 0 else math.expm1(x), (0,)),
    ("elu 0.7", lambda x: act.elu(x, alpha=0.7), lambda x: x if x > 0 else 0.7 * math.expm1(x), (0,)),
    ("selu", act.selu, lambda x: SCALE * (x if x > 0 else ALPHA * math.expm1(x)), (0,)),
    ("celu", act.celu, lambda x: x if x > 0 else math.expm1(x), (0,)),
    ("celu 2", lambda x: act.celu(x, alpha=2.0), lambda x: x if x > 0 else 2 * math.expm1(x / 2), (0,)),
    ("gelu", act.gelu, lambda x: x * phi(x), ()),
    (
        "gelu tanh",
        lambda x: act.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        (),
    ),
    ("silu", act.silu, lambda x: x * logistic(x), ()),
    ("mish", act.mish, lambda x: x * math.tanh(log1pexp(x)), ()),
    ("softplus", act.softplus, log1pexp, ()),
    ("softplus 3", lambda x: act.softplus(x, beta=3.0), lambda x: log1pexp(3 * x) / 3, ()),
    ("hardtanh", act.hardtanh, lambda x: min(max(x, -1.0), 1.0), (-1, 1)),
    ("hardtanh -2 0.5", lambda x: act.hardtanh(x, -2.0, 0.5), lambda x: min(max(x, -2.0), 0.5), (-2, 0.5)),
    ("relu6", act.relu6, lambda x: min(max(x, 0.0), 6.0), (0, 6)),
    ("hardsigmoid", act.hardsigmoid, lambda x: min(max(x + 3, 0.0), 6.0) / 6, (-3, 3)),
    ("hardswish", act.hardswish, lambda x: x * min(max(x + 3, 0.0), 6.0) / 6, (-3, 3)),
    ("sigmoid", act.sigmoid, logistic, ()),
    ("log_sigmoid", act.log_sigmoid, lambda x: -log1pexp(-x), ()),
]
NAMES = [case[0] for case in CASES]
GRID = np.array([-30.0, -6.5, -3.0, -2.0, -1.3, -0.4, -1e-9, 0.0, 1e-9, 0.2, 0.5, 1.0, 2.7, 3.0, 6.0, 7.1, 30.0])


def slope(f, x, dtype="float64"):
    return grad(lambda t: f(t).sum())(tensor(x, dtype)).numpy()


@pytest.mark.parametrize("name, f, by_hand, kinks", CASES, ids=NAMES)
def test_values_are_those_of_the_formula(name, f, by_hand, kinks):
    np.testing.assert_allclose(f(tensor(GRID)).numpy(), [by_hand(x) for x in GRID], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name, f, by_hand, kinks", CASES, ids=NAMES)
def test_derivatives_are_the_numerical_ones(name, f, by_hand, kinks):
    x = np.random.default_rng(0).uniform(-4, 7, (3, 5))
    for kink in kinks:
        x = np.where(abs(x - kink) < 0.05, kink + 0.1, x)
    check_gradients(f, tensor(x), order=2)


@pytest.mark.parametrize(
    "f, at, expected",
    [
        (act.relu, 0.0, 0.0),
        (act.relu6, 0.0, 0.0),
        (act.relu6, 6.0, 0.0),
        (act.hardtanh, -1.0, 0.0),
        (act.hardtanh, 1.0, 0.0),
        (act.hardsigmoid, -3.0, 0.0),
        (act.hardsigmoid, 3.0, 0.0),
        (act.hardswish, -3.0, 0.0),
        (act.hardswish, 3.0, 1.0),
        (act.leaky_relu, 0.0, 0.01),
        (lambda x: act.elu(x, 0.7), 0.0, 0.7),
        (act.celu, 0.0, 1.0),
        (act.selu, 0.0, SCALE * ALPHA),
    ],
)
def test_the_slope_at_a_kink_is_the_documented_one(f, at, expected):
    assert slope(f, [at])[0] == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name, f, by_hand, kinks", CASES, ids=NAMES)
def test_extreme_values_give_finite_and_right_results(name, f, by_hand, kinks, dtype):
    x = tensor([-300.0, 300.0, -88.0, 88.0, -1e-30, 1e-30, -0.0, 0.0], dtype)
    exact = [by_hand(v) for v in np.asarray(x).astype(np.float64).tolist()]
    tolerance = {"float32": 1e-6, "float64": 1e-13, "bfloat16": 4e-3, "float16": 5e-4}[dtype]
    assert f(x).dtype.name == dtype
    np.testing.assert_allclose(f(x).numpy().astype(np.float64), exact, rtol=tolerance, atol=1e-36)
    slopes = slope(f, x, dtype).astype(np.float64)
    assert np.isfinite(slopes).all()
    far = {"hardtanh": (0, 0), "relu6": (0, 0), "hardsigmoid": (0, 0), "sigmoid": (0, 0), "log_sigmoid": (1, 0)}
    low = {"leaky_relu": 0.01, "leaky_relu 0.3": 0.3}.get(name, 0)
    expected = far.get(name.split()[0], (low, SCALE if name == "selu" else 1))
    np.testing.assert_allclose(slopes[:2], expected, rtol=tolerance, atol=1e-36)


@pytest.mark.parametrize("name, f, by_hand, kinks", CASES, ids=NAMES)
def test_nan_passes_and_the_largest_numbers_do_not_overflow(name, f, by_hand, kinks):
    assert np.isnan(f(tensor([NAN])).numpy()).all()
    assert np.isnan(f(tensor([NAN], "bfloat16")).numpy().astype(np.float32)).all()
    if name != "softplus 3":  # 3x overflows, rightly
        assert np.isfinite(f(tensor([-3e38, 3e38])).numpy()).all()


@pytest.mark.parametrize("name, f, by_hand, kinks", CASES, ids=NAMES)
def test_halves_are_rounded_once(name, f, by_hand, kinks):
    x = np.linspace(-4, 4, 41)
    for dtype in (dtypes.bfloat16, dtypes.float16):
        half = tensor(x, dtype)
        expected = f(half.astype("float32")).astype(dtype)
        assert (np.asarray(f(half)) == np.asarray(expected)).all()


def test_integers_become_float32():
    x = tensor([-1, 0, 2])
    assert act.relu(x).tolist() == [0, 0, 2]
    assert act.sigmoid(x).dtype == act.softmax(x).dtype == act.gelu(x).dtype == act.logsumexp(x).dtype == dtypes.float32


def test_softplus_switches_only_when_asked():
    x = tensor([19.0, 25.0], "float64")
    exact, switched = act.softplus(x).numpy(), act.softplus(x, threshold=20.0).numpy()
    assert exact[1] > 25.0 and switched[1] == 25.0
    assert exact[0] == switched[0] == log1pexp(19.0)


def test_arguments_that_make_no_sense():
    x = tensor([1.0])
    with pytest.raises(ConfigError, match="min_val"):
        act.hardtanh(x, 1.0, -1.0)
    with pytest.raises(ConfigError, match="approximate"):
        act.gelu(x, approximate="erf")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="beta"):
        act.softplus(x, beta=0.0)
    with pytest.raises(ConfigError, match="alpha"):
        act.celu(x, alpha=0.0)


# -- softmax and its relatives

SHAPES = [((5,), -1), ((3, 4), 0), ((3, 4), -1), ((2, 3, 4), 1)]


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_softmax_log_softmax_and_logsumexp_by_their_formulas(shape, axis):
    x = np.random.default_rng(1).normal(0, 3, shape)
    powers = np.exp(x)
    total = powers.sum(axis, keepdims=True)
    np.testing.assert_allclose(act.softmax(tensor(x), axis).numpy(), powers / total, rtol=1e-14)
    np.testing.assert_allclose(act.log_softmax(tensor(x), axis).numpy(), x - np.log(total), rtol=1e-13)
    np.testing.assert_allclose(act.logsumexp(tensor(x), axis, keepdims=True).numpy(), np.log(total), rtol=1e-14)
    assert act.logsumexp(tensor(x), axis).shape == total.squeeze(axis).shape
    for f in (act.softmax, act.log_softmax, act.logsumexp):
        check_gradients(lambda t, f=f: f(t, axis=axis), tensor(x), order=2)


def test_logsumexp_over_several_axes():
    x = np.random.default_rng(2).normal(0, 3, (2, 3, 4))
    for axis in (None, (0, 2), (1, -1)):
        expected = np.log(np.exp(x).sum(axis))
        np.testing.assert_allclose(act.logsumexp(tensor(x), axis).numpy(), expected, rtol=1e-14)
        check_gradients(lambda t, axis=axis: act.logsumexp(t, axis), tensor(x))


@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=6), st.floats(-1e4, 1e4, width=32))
def test_softmax_is_a_distribution_and_ignores_a_shift(row, shift):
    x = np.array(row)
    p = act.softmax(tensor(x)).numpy()
    assert (p >= 0).all() and p.sum() == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(act.softmax(tensor(x + shift)).numpy(), p, rtol=1e-9, atol=1e-300)
    log_sum = float(act.logsumexp(tensor(x)))
    assert max(row) <= log_sum <= max(row) + math.log(len(row)) + 1e-12


def test_large_logits_in_float32():
    x = tensor([[300.0, -300.0, 300.0], [1e30, 0.0, -1e30]])
    assert act.softmax(x).tolist() == [[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]
    np.testing.assert_allclose(
        act.log_softmax(x).numpy(), [[-math.log(2), -600 - math.log(2), -math.log(2)], [0, -1e30, -2e30]], rtol=1e-6
    )
    np.testing.assert_allclose(act.logsumexp(x, 1).numpy(), [300 + math.log(2), 1e30], rtol=1e-7)
    for f in (act.softmax, act.log_softmax, act.logsumexp):
        assert np.isfinite(slope(f, x, "float32")).all()


def test_minus_infinity_masks():
    x = tensor([0.0, -INF, 1.0])
    p = act.softmax(x).numpy()
    assert p[1] == 0 and p.sum() == pytest.approx(1)
    assert act.log_softmax(x).tolist()[1] == -INF
    assert float(act.logsumexp(x)) == pytest.approx(math.log(1 + math.e))
    weighted = grad(lambda t: (act.softmax(t) * tensor([1.0, 2.0, 3.0])).sum())(x).numpy()
    assert np.isfinite(weighted).all() and weighted[1] == 0
    assert slope(act.logsumexp, x, "float32")[1] == 0


def test_a_row_of_minus_infinity_alone():
    x = tensor([[-INF, -INF], [0.0, 0.0]])
    assert act.logsumexp(x, 1).tolist() == [-INF, pytest.approx(math.log(2))]
    assert slope(lambda t: act.logsumexp(t, 1), x, "float32").tolist() == [[0, 0], [0.5, 0.5]]
    assert np.isnan(act.softmax(x).numpy()[0]).all() and np.isnan(act.log_softmax(x).numpy()[0]).all()


def test_infinity_and_nan_in_a_row():
    assert float(act.logsumexp(tensor([INF, 0.0]))) == INF
    assert float(act.logsumexp(tensor([INF, -INF]))) == INF
    for f in (act.softmax, act.log_softmax, act.logsumexp):
        assert np.isnan(f(tensor([0.0, NAN, -INF])).numpy()).all()


def test_axes_that_do_not_exist_or_are_empty():
    for f in (act.softmax, act.log_softmax, act.logsumexp):
        with pytest.raises(ShapeError, match="axis 2"):
            f(tensor([[1.0]]), 2)
        with pytest.raises(ShapeError, match="nothing"):
            f(tensor(np.zeros((2, 0))), 1)
        assert f(tensor(np.zeros((0, 2))), axis=1).size == 0
    with pytest.raises(ShapeError, match="twice"):
        act.logsumexp(tensor([[1.0]]), (0, -2))


def test_one_hot():
    rows = act.one_hot(tensor([[1, 0], [2, 2]]), 3, "int32")
    assert rows.dtype == dtypes.int32
    assert (rows.numpy() == np.eye(3, dtype=np.int32)[[[1, 0], [2, 2]]]).all()
    assert act.one_hot(tensor(1, "uint8"), 2).tolist() == [0.0, 1.0]
    assert act.one_hot(tensor(np.zeros((0,), np.int64)), 4).shape == (0, 4)
    for index in (-1, 3):
        with pytest.raises(IndexOutOfRange, match=str(index)):
            act.one_hot(tensor([0, index]), 3)
    with pytest.raises(DTypeError, match="float32"):
        act.one_hot(tensor([0.0]), 3)
    with pytest.raises(ConfigError, match="classes"):
        act.one_hot(tensor([0]), 0)
