"""Normalisation: statistics over the right axes, running statistics, derivatives."""

import math

import numpy as np
import pytest

from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.normalisation import batch_norm, group_norm, instance_norm, layer_norm, rms_norm

RNG = np.random.default_rng(3)
X = RNG.normal(2, 3, (4, 6, 5))  # (batch, channels, length)
WEIGHT, BIAS = RNG.normal(size=6), RNG.normal(size=6)


def standardised(x, axes, eps=1e-5):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)


def per_channel(a):
    return a[None, :, None]


def test_each_kind_takes_its_statistics_over_its_axes():
    x, weight, bias = tensor(X), tensor(WEIGHT), tensor(BIAS)
    last_weight, last_bias = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5))
    groups = standardised(X.reshape(4, 3, 10), 2).reshape(X.shape)
    cases = [
        (layer_norm(x, 5), standardised(X, 2)),
        (
            layer_norm(x, (6, 5), tensor(last_weight), tensor(last_bias)),
            standardised(X, (1, 2)) * last_weight + last_bias,
        ),
        (rms_norm(x, [5], eps=0.5), X / np.sqrt((X**2).mean(2, keepdims=True) + 0.5)),
        (group_norm(x, 3, weight, bias), groups * per_channel(WEIGHT) + per_channel(BIAS)),
        (instance_norm(x, weight, bias), standardised(X, 2) * per_channel(WEIGHT) + per_channel(BIAS)),
        (
            batch_norm(x, weight=weight, bias=bias, training=True).y,
            standardised(X, (0, 2)) * per_channel(WEIGHT) + per_channel(BIAS),
        ),
        (batch_norm(tensor(X[:, :, 0]), training=True).y, standardised(X[:, :, 0], 0)),
    ]
    for ours, expected in cases:
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_group_norm_with_one_group_or_one_a_channel():
    x = tensor(X)
    np.testing.assert_allclose(group_norm(x, 1).numpy(), layer_norm(x, (6, 5)).numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(group_norm(x, 6).numpy(), instance_norm(x).numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w, b: layer_norm(x.mT, 6, w, b),
        lambda x, w, b: rms_norm(x.mT, 6, w) + b,
        lambda x, w, b: group_norm(x, 2, w, b),
        lambda x, w, b: instance_norm(x, w, b),
        lambda x, w, b: batch_norm(x, weight=w, bias=b, training=True).y,
        lambda x, w, b: batch_norm(x, tensor(BIAS), tensor(abs(BIAS)), w, b).y,
    ],
    ids=["layer", "rms", "group", "instance", "batch training", "batch evaluation"],
)
def test_derivatives_by_input_weight_and_bias(f):
    check_gradients(f, tensor(X[:3, :, :4]), tensor(WEIGHT), tensor(BIAS), order=2)


def test_running_statistics_move_towards_those_of_the_batch():
    mean, var = tensor(BIAS), tensor(abs(WEIGHT))
    y, new_mean, new_var = batch_norm(tensor(X), mean, var, training=True, momentum=0.3)
    np.testing.assert_allclose(new_mean.numpy(), 0.7 * BIAS + 0.3 * X.mean((0, 2)), rtol=1e-13)
    np.testing.assert_allclose(new_var.numpy(), 0.7 * abs(WEIGHT) + 0.3 * X.var((0, 2), ddof=1), rtol=1e-13)
    np.testing.assert_allclose(y.numpy(), standardised(X, (0, 2)), rtol=1e-12, atol=1e-13)
    assert (mean.numpy() == BIAS).all()


def test_without_momentum_they_are_the_average_of_all_batches():
    batches = [RNG.normal(i, 1 + i, (5, 2)) for i in range(4)]
    for number in (lambda i: i, lambda i: tensor(i)):
        mean, var = tensor([9.0, 9.0], "float64"), tensor([9.0, 9.0], "float64")
        for i, batch in enumerate(batches):
            _, mean, var = batch_norm(
                tensor(batch), mean, var, training=True, momentum=None, num_batches_tracked=number(i + 1)
            )
        np.testing.assert_allclose(mean.numpy(), np.mean([b.mean(0) for b in batches], 0), rtol=1e-13)
        np.testing.assert_allclose(var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-13)


def test_running_statistics_carry_no_gradient():
    def f(x):
        _, mean, var = batch_norm(x, tensor(BIAS), tensor(BIAS), training=True)
        return mean.sum() + var.sum()

    assert not grad(f)(tensor(X)).numpy().any()
    tracked = tensor(X, requires_grad=True)
    assert not batch_norm(tracked, tensor(BIAS), tensor(BIAS), training=True).running_mean.requires_grad


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    mean, var = tensor(BIAS), tensor(abs(WEIGHT))
    y, after_mean, after_var = batch_norm(tensor(X), mean, var, eps=1e-3)
    expected = (X - per_channel(BIAS)) / np.sqrt(per_channel(abs(WEIGHT)) + 1e-3)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    assert after_mean is mean and after_var is var


def test_a_large_offset_does_not_cancel_and_a_constant_gives_the_bias():
    x = (RNG.normal(size=(64, 8)) + 1e4).astype(np.float32)
    exact = standardised(x.astype(np.float64), 1)
    rounding = np.spacing(np.float32(1e4)) / x.std(1).min()  # of the mean; E[x²] − E[x]² would be off by more than 1
    np.testing.assert_allclose(layer_norm(tensor(x), 8).numpy(), exact, atol=1.5 * rounding, rtol=1e-4)
    constant = tensor(np.full((3, 4), 7.0, np.float32))
    assert layer_norm(constant, 4, bias=tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [[1, 2, 3, 4]] * 3
    assert not grad(lambda t: layer_norm(t, 4).sum())(constant).numpy().any()


def test_rms_norm_uses_the_epsilon_of_its_dtype():
    x = np.full((1, 2), 1e-5)
    for dtype in ("float32", "float64"):
        eps = float(np.finfo(dtype).eps)
        expected = 1e-5 / math.sqrt(1e-10 + eps)
        np.testing.assert_allclose(rms_norm(tensor(x, dtype), 2).numpy(), expected, rtol=1e-5)


def test_dtypes():
    half = tensor(X, "bfloat16")
    for f in (lambda x: layer_norm(x, 5), lambda x: group_norm(x, 2), lambda x: batch_norm(x, training=True).y):
        assert f(half).dtype == dtypes.bfloat16
        assert (np.asarray(f(half)) == np.asarray(f(half.astype("float32")).astype(dtypes.bfloat16))).all()
    # running statistics keep their own dtype, and do not widen the result
    y, mean, var = batch_norm(half, tensor(BIAS, "float32"), tensor(BIAS, "float32"), training=True)
    assert (y.dtype, mean.dtype, var.dtype) == (dtypes.bfloat16, dtypes.float32, dtypes.float32)
    y, mean, _ = batch_norm(tensor(X, "float32"), tensor(BIAS), tensor(BIAS), training=True)
    assert (y.dtype, mean.dtype) == (dtypes.float32, dtypes.float64)
    assert layer_norm(tensor([[1, 2]]), 2).dtype == dtypes.float32


def test_mistakes_are_explained():
    x = tensor(X)
    with pytest.raises(ShapeError, match=r"normalized_shape=\(4,\)"):
        layer_norm(x, 4)
    with pytest.raises(ShapeError, match="weight"):
        layer_norm(x, 5, tensor([1.0]))
    with pytest.raises(ConfigError, match="6 channels"):
        group_norm(x, 4)
    with pytest.raises(ShapeError, match="batch, channels"):
        batch_norm(tensor([1.0]), training=True)
    with pytest.raises(ConfigError, match="training=False"):
        batch_norm(x)
    with pytest.raises(ConfigError, match="both"):
        batch_norm(x, running_mean=tensor(BIAS))
    with pytest.raises(ShapeError, match="more than one number"):
        batch_norm(tensor(X[:1, :, 0]), training=True)
    with pytest.raises(ConfigError, match="num_batches_tracked"):
        batch_norm(x, tensor(BIAS), tensor(BIAS), training=True, momentum=None)
    with pytest.raises(ShapeError, match="running_mean"):
        batch_norm(x, tensor([0.0]), tensor([1.0]))
    with pytest.raises(ShapeError, match="fewer than two"):
        instance_norm(tensor(X[:, :, :1]))
