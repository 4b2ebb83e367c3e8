"""Losses: closed forms, derivatives, reductions, weights, extreme values, mistakes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import dtypes, losses
from chainrule.compile import compile
from chainrule.core.autodiff import grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor
from chainrule.engines import ENGINES
from chainrule.errors import ConfigError, DataError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions.activations import log_softmax, one_hot, sigmoid

RNG = np.random.default_rng(5)
INF, NAN = float("inf"), float("nan")
X, Y = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
P = RNG.uniform(0.05, 0.95, (4, 3))
Q = RNG.uniform(0.05, 0.95, (4, 3))
W = RNG.uniform(0.2, 2, (4, 3))
SIGNS = np.where(RNG.random((4, 3)) < 0.5, -1.0, 1.0)
CLASSES = np.array([2, 0, 1, 2])


def f64(x):
    return tensor(x, "float64")


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# name, loss of (input, others..., reduction), inputs, losses by hand with reduction="none"
ELEMENTWISE = [
    ("mse", losses.mse, (X, Y), (X - Y) ** 2),
    ("l1", losses.l1, (X, Y), abs(X - Y)),
    (
        "huber",
        lambda x, y, reduction: losses.huber(x, y, reduction, delta=0.7),
        (X, Y),
        np.where(abs(X - Y) <= 0.7, (X - Y) ** 2 / 2, 0.7 * (abs(X - Y) - 0.35)),
    ),
    (
        "smooth_l1",
        lambda x, y, reduction: losses.smooth_l1(x, y, reduction, beta=0.5),
        (X, Y),
        np.where(abs(X - Y) < 0.5, (X - Y) ** 2, abs(X - Y) - 0.25),
    ),
    ("poisson_nll", losses.poisson_nll, (X, abs(Y)), np.exp(X) - abs(Y) * X),
    (
        "poisson_nll of expectations",
        lambda x, y, reduction: losses.poisson_nll(x, y, log_input=False, reduction=reduction),
        (P, Q),
        P - Q * np.log(P + 1e-8),
    ),
    ("gaussian_nll", losses.gaussian_nll, (X, Y, P), (np.log(P) + (X - Y) ** 2 / P) / 2),
    ("binary_cross_entropy", losses.binary_cross_entropy, (P, Q), -(Q * np.log(P) + (1 - Q) * np.log(1 - P))),
    (
        "binary_cross_entropy_with_logits",
        losses.binary_cross_entropy_with_logits,
        (X, Q),
        Q * np.log1p(np.exp(-X)) + (1 - Q) * np.log1p(np.exp(X)),
    ),
    ("kl_div", losses.kl_div, (np.log(P), Q), Q * (np.log(Q) - np.log(P))),
    (
        "kl_div of logarithms",
        lambda x, y, reduction: losses.kl_div(x, y, reduction, log_target=True),
        (np.log(P), np.log(Q)),
        Q * (np.log(Q) - np.log(P)),
    ),
    (
        "hinge_embedding",
        lambda x, y, reduction: losses.hinge_embedding(x, y, 0.8, reduction),
        (X, SIGNS),
        np.where(SIGNS == 1, X, np.maximum(0, 0.8 - X)),
    ),
    (
        "margin_ranking",
        lambda x, y, t, reduction: losses.margin_ranking(x, y, t, 0.3, reduction),
        (X, Y, SIGNS),
        np.maximum(0, -SIGNS * (X - Y) + 0.3),
    ),
]
COSINES = (X * Y).sum(1) / np.sqrt((X * X).sum(1) * (Y * Y).sum(1))
GAPS = np.maximum(0, 0.6 - X[np.arange(4), CLASSES][:, None] + X) * (np.arange(3) != CLASSES[:, None])
ROWWISE = [
    ("cross_entropy", losses.cross_entropy, (X, CLASSES), -np.log(softmax(X))[np.arange(4), CLASSES]),
    ("cross_entropy of probabilities", losses.cross_entropy, (X, P), -(P * np.log(softmax(X))).sum(1)),
    ("nll", losses.nll, (X, CLASSES), -X[np.arange(4), CLASSES]),
    (
        "multi_margin",
        lambda x, y, reduction: losses.multi_margin(x, y, margin=0.6, reduction=reduction),
        (X, CLASSES),
        GAPS.sum(1) / 3,
    ),
    (
        "multi_margin p=2",
        lambda x, y, reduction: losses.multi_margin(x, y, 2, 0.6, reduction=reduction),
        (X, CLASSES),
        (GAPS**2).sum(1) / 3,
    ),
    (
        "cosine_embedding",
        lambda x, y, t, reduction: losses.cosine_embedding(x, y, t, -0.2, reduction),
        (X, Y, SIGNS[:, 0]),
        np.where(SIGNS[:, 0] == 1, 1 - COSINES, np.maximum(0, COSINES + 0.2)),
    ),
    (
        "triplet_margin",
        lambda a, b, c, reduction: losses.triplet_margin(a, b, c, eps=0.0, reduction=reduction),
        (X, Y, P),
        np.maximum(0, 1 + np.linalg.norm(X - Y, axis=1) - np.linalg.norm(X - P, axis=1)),
    ),
]
CASES = ELEMENTWISE + ROWWISE
NAMES = [case[0] for case in CASES]


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_values_are_those_of_the_formula(name, loss, inputs, by_hand):
    given = [tensor(x) for x in inputs]
    np.testing.assert_allclose(loss(*given, reduction="none").numpy(), by_hand, rtol=1e-10)
    np.testing.assert_allclose(float(loss(*given, reduction="sum")), by_hand.sum(), rtol=1e-10)
    np.testing.assert_allclose(float(loss(*given, reduction="mean")), by_hand.mean(), rtol=1e-10)
    assert loss(*given, reduction="mean").shape == ()


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_derivatives_are_the_numerical_ones(name, loss, inputs, by_hand):
    moving = [x for x in inputs if x.dtype == np.float64 and x is not SIGNS]
    fixed = [tensor(x) for x in inputs[len(moving) :]]
    if name == "cosine_embedding":
        moving, fixed = moving[:2], [tensor(SIGNS[:, 0])]
    for reduction in ("none", "mean"):
        check_gradients(lambda *x, r=reduction: loss(*x, *fixed, reduction=r), *[tensor(x) for x in moving], order=2)


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_compiled_losses_are_the_eager_ones(name, loss, inputs, by_hand):
    given = [tensor(x) for x in inputs]
    fast = compile(lambda *x: loss(*x, reduction="mean"), engine="reference")
    assert float(fast(*given)) == float(loss(*given, reduction="mean"))


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_dtypes_of_results(name, loss, inputs, by_hand):
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 5e-2), ("float16", 1e-2)):
        given = [tensor(x, dtype if x.dtype == np.float64 else None) for x in inputs]
        result = loss(*given, reduction="mean")
        assert result.dtype.name == dtype
        np.testing.assert_allclose(float(result), by_hand.mean(), rtol=tolerance, atol=tolerance / 5)


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_empty_batches_have_a_sum_but_no_mean(name, loss, inputs, by_hand):
    given = [tensor(x[:0]) for x in inputs]
    assert loss(*given, reduction="none").size == 0
    assert float(loss(*given, reduction="sum")) == 0
    with pytest.raises(ShapeError, match="empty batch"):
        loss(*given, reduction="mean")
    with pytest.raises(ConfigError, match="'average'"):
        loss(*[tensor(x) for x in inputs], reduction="average")


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_shapes_that_would_broadcast_are_errors(name, loss, inputs, by_hand):
    first, *rest = [tensor(x) for x in inputs]
    if rest[0].shape == first.shape:
        for wrong in (rest[0][:, :1], rest[0][:1], rest[0][0], rest[0][:, :, None]):
            with pytest.raises(ShapeError, match=r"\(4, 3\)"):
                loss(first, wrong, *rest[1:], reduction="mean")
    with pytest.raises(DTypeError, match="floating point"):
        loss(first.astype("int64"), *rest, reduction="mean")


def test_a_column_against_a_row_is_explained():
    column, row = f64([[1.0], [2.0]]), f64([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"every other.*target\.reshape\(\(2, 1\)\)"):
        losses.mse(column, row)
    with pytest.raises(ShapeError, match=r"target\.reshape\(\(2,\)\)"):
        losses.cross_entropy(f64([[1.0, 2.0], [3.0, 4.0]]), tensor([[0], [1]]))


# -- weights of elements


def test_weighted_means_of_regression_losses():
    given = tensor(X), tensor(Y)
    squares, distances = (X - Y) ** 2, abs(X - Y)
    assert float(losses.mse(*given, weight=tensor(W))) == pytest.approx((squares * W).sum() / W.sum())
    assert float(losses.l1(*given, weight=tensor(W))) == pytest.approx((distances * W).sum() / W.sum())
    half = np.where(distances < 1, squares / 2, distances - 0.5)
    assert float(losses.huber(*given, weight=tensor(W))) == pytest.approx((half * W).mean())
    for loss in (losses.mse, losses.l1, losses.huber):
        weighted = loss(*given, "none", weight=tensor(W)).numpy()
        np.testing.assert_allclose(weighted, loss(*given, "none").numpy() * W)
        assert float(loss(*given, "sum", weight=tensor(W))) == pytest.approx(weighted.sum())
        with pytest.raises(ShapeError, match="weight"):
            loss(*given, weight=tensor(W[:, :1]))


def test_weights_of_binary_cross_entropies_stretch():
    for loss, x in ((losses.binary_cross_entropy, P), (losses.binary_cross_entropy_with_logits, X)):
        plain = loss(tensor(x), tensor(Q), reduction="none").numpy()
        for weight in (W, W[0], W[:, :1]):
            weighted = loss(tensor(x), tensor(Q), tensor(weight), reduction="none").numpy()
            np.testing.assert_allclose(weighted, plain * weight)
            assert float(loss(tensor(x), tensor(Q), tensor(weight))) == pytest.approx((plain * weight).mean())
        with pytest.raises(ShapeError, match="weight"):
            loss(tensor(x), tensor(Q), tensor(W[:2]))
    yes, no = Q * np.log1p(np.exp(-X)), (1 - Q) * np.log1p(np.exp(X))
    for pos_weight in (W, W[0], np.array(3.0)):
        weighted = losses.binary_cross_entropy_with_logits(
            tensor(X), tensor(Q), reduction="none", pos_weight=tensor(pos_weight)
        )
        np.testing.assert_allclose(weighted.numpy(), pos_weight * yes + no)


# -- cross-entropy


def test_cross_entropy_of_any_batch_shape_has_the_classes_on_axis_1():
    x = RNG.normal(size=(2, 5, 3, 4))
    target = RNG.integers(0, 5, (2, 3, 4))
    rows = losses.cross_entropy(tensor(np.moveaxis(x, 1, -1).reshape(-1, 5)), tensor(target.ravel()), reduction="none")
    maps = losses.cross_entropy(tensor(x), tensor(target), reduction="none")
    np.testing.assert_allclose(maps.numpy().ravel(), rows.numpy(), rtol=1e-14)
    single = losses.cross_entropy(tensor(x[0, :, 0, 0]), tensor(target[0, 0, 0]))
    assert single.shape == () and float(single) == pytest.approx(float(rows[0]))
    hot = np.moveaxis(one_hot(tensor(target), 5, "float64").numpy(), -1, 1)
    np.testing.assert_allclose(losses.cross_entropy(tensor(x), tensor(hot), reduction="none").numpy(), maps.numpy())


def test_cross_entropy_weights_ignored_targets_and_smoothing():
    weight = np.array([0.5, 2.0, 1.0])
    target = np.array([2, 7, 1, 0])  # the second is ignored
    log_p = np.log(softmax(X))
    kept = np.array([0, 2, 3])
    w = weight[target[kept]]
    hard = -log_p[kept, target[kept]]
    soft = -(log_p[kept] * weight).sum(1) / 3

    def loss(reduction, **options):
        return losses.cross_entropy(tensor(X), tensor(target), ignore_index=7, reduction=reduction, **options).numpy()

    assert loss("mean") == pytest.approx(hard.mean())
    assert loss("mean", weight=tensor(weight)) == pytest.approx((hard * w).sum() / w.sum())
    assert loss("sum", weight=tensor(weight)) == pytest.approx((hard * w).sum())
    smooth = 0.9 * hard * w + 0.1 * soft
    np.testing.assert_allclose(
        loss("none", weight=tensor(weight), label_smoothing=0.1), [smooth[0], 0, smooth[1], smooth[2]]
    )
    assert loss("mean", weight=tensor(weight), label_smoothing=0.1) == pytest.approx(smooth.sum() / w.sum())
    plain = 0.9 * hard - 0.1 * log_p[kept].mean(1)
    assert loss("mean", label_smoothing=0.1) == pytest.approx(plain.mean())
    gradient = grad(lambda x: losses.cross_entropy(x, tensor(target), ignore_index=7, label_smoothing=0.1))(tensor(X))
    assert not gradient.numpy()[1].any() and gradient.numpy()[0].all()


def test_smoothed_indices_equal_smoothed_probabilities():
    hot = one_hot(tensor(CLASSES), 3, "float64")
    for smoothing in (0.0, 0.2, 1.0):
        a = losses.cross_entropy(tensor(X), tensor(CLASSES), label_smoothing=smoothing)
        b = losses.cross_entropy(tensor(X), hot, label_smoothing=smoothing)
        assert float(a) == pytest.approx(float(b), rel=1e-14)


def test_all_targets_ignored_gives_nan_as_the_mean_of_nothing():
    target = tensor([-100, -100])
    assert math.isnan(float(losses.cross_entropy(tensor(X[:2]), target)))
    assert float(losses.cross_entropy(tensor(X[:2]), target, reduction="sum")) == 0


def test_small_unsigned_targets_meet_the_default_ignore_index():
    a = losses.cross_entropy(tensor(X), tensor(CLASSES, "uint8"))
    assert float(a) == float(losses.cross_entropy(tensor(X), tensor(CLASSES)))


def test_nll_of_log_softmax_is_cross_entropy():
    a = losses.nll(log_softmax(tensor(X), 1), tensor(CLASSES), tensor(W[0]))
    assert float(a) == pytest.approx(float(losses.cross_entropy(tensor(X), tensor(CLASSES), tensor(W[0]))), rel=1e-14)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, losses.multi_margin])
def test_class_indices_that_do_not_fit(loss):
    x = tensor(X)
    for index in (3, -1):
        with pytest.raises(IndexOutOfRange, match=rf"at \(2,\) is {index}, .* 3 classes, 0 to 2"):
            loss(x, tensor([0, 1, index, 2]))
    with pytest.raises(DTypeError, match="bool"):
        loss(x, tensor([True, False, True, True]))
    with pytest.raises(ShapeError, match=r"\(4,\); got \(3,\)"):
        loss(x, tensor([0, 1, 2]))
    with pytest.raises(ShapeError, match="probabilities"):
        loss(x, tensor(np.ones((4, 3), np.int64)))
    with pytest.raises(ShapeError, match="one for each class"):
        loss(x, tensor(CLASSES), weight=tensor(np.ones(4)))
    with pytest.raises(ShapeError, match="classes"):
        loss(tensor(1.0), tensor(0))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, losses.multi_margin])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_class_that_does_not_exist_is_refused_in_compiled_functions_too(loss, engine):
    fast = compile(lambda x, y: loss(x, y), engine=engine)
    exact = 0 if engine == "reference" else 1e-12
    expected = pytest.approx(float(loss(tensor(X), tensor(CLASSES))), rel=exact, abs=0)
    assert float(fast(tensor(X), tensor(CLASSES))) == expected
    for index in (3, -1):
        with pytest.raises(IndexOutOfRange):
            fast(tensor(X), tensor([0, 1, index, 2]))


def test_floating_targets_of_cross_entropy_are_probabilities():
    with pytest.raises(ShapeError, match="class indices cast it to integers"):
        losses.cross_entropy(tensor(X), tensor([0.0, 1.0, 2.0, 0.0]))
    with pytest.raises(DTypeError, match=r"astype\('int64'\)"):
        losses.nll(tensor(X), tensor([0.0, 1.0, 2.0, 0.0]))
    with pytest.raises(ConfigError, match="label_smoothing"):
        losses.cross_entropy(tensor(X), tensor(CLASSES), label_smoothing=1.5)


# -- extreme values, in float32


def test_cross_entropy_at_300_logits():
    x = tensor([[300.0, -300.0], [300.0, -300.0], [300.0, 300.0]])
    target = tensor([0, 1, 0])
    assert losses.cross_entropy(x, target, reduction="none").tolist() == pytest.approx([0, 600, math.log(2)], rel=1e-6)
    gradient = grad(lambda t: losses.cross_entropy(t, target, reduction="sum"))(x).numpy()
    np.testing.assert_allclose(gradient, [[0, 0], [1, -1], [-0.5, 0.5]], atol=1e-7)
    smooth = losses.cross_entropy(x, target, label_smoothing=0.1, reduction="none").tolist()
    assert smooth == pytest.approx([30, 570, math.log(2)], rel=1e-6)
    hot = one_hot(target, 2)
    assert losses.cross_entropy(x, hot, reduction="none").tolist() == pytest.approx([0, 600, math.log(2)], rel=1e-6)


def test_a_masked_class_costs_nothing_unless_it_is_the_target():
    x = tensor([[0.0, -INF, 0.0]])
    assert float(losses.cross_entropy(x, tensor([0]))) == pytest.approx(math.log(2))
    gradient = grad(lambda t: losses.cross_entropy(t, tensor([0])))(x).numpy()
    np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5]], atol=1e-7)
    assert float(losses.cross_entropy(x, tensor([1]))) == INF


@pytest.mark.parametrize("ignore_index", [-100, 0, 1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_an_ignored_target_cannot_spoil_the_loss(ignore_index, label_smoothing):
    x = tensor([[-INF, -INF, 0.0], [1.0, 2.0, 3.0]])

    def loss(t):
        return losses.cross_entropy(
            t, tensor([ignore_index, 2]), ignore_index=ignore_index, label_smoothing=label_smoothing
        )

    alone = losses.cross_entropy(x[1:], tensor([2]), label_smoothing=label_smoothing)
    assert float(loss(x)) == pytest.approx(float(alone))
    gradient = grad(loss)(x).numpy()
    assert not gradient[0].any() and np.isfinite(gradient).all()


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_binary_cross_entropy_with_logits_at_300(pos_weight):
    x, target = tensor([300.0, 300.0, -300.0, -300.0, 20.0, -20.0]), tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    weight = None if pos_weight is None else tensor(pos_weight)

    def loss(t, reduction="none"):
        return losses.binary_cross_entropy_with_logits(t, target, reduction=reduction, pos_weight=weight)

    w, tiny = pos_weight or 1.0, math.exp(-20)
    assert loss(x).tolist() == pytest.approx([0, 300, 300 * w, 0, w * tiny, tiny], rel=1e-6, abs=1e-38)
    gradient = grad(lambda t: loss(t, "sum"))(x).numpy()
    np.testing.assert_allclose(gradient, [0, 1, -w, 0, -w * tiny, tiny], rtol=1e-6, atol=1e-38)


def test_binary_cross_entropy_at_0_and_1():
    p, target = tensor([0.0, 0.0, 1.0, 1.0]), tensor([0.0, 1.0, 0.0, 1.0])
    assert losses.binary_cross_entropy(p, target, reduction="none").tolist() == [0, 100, 100, 0]
    gradient = grad(lambda t: losses.binary_cross_entropy(t, target, reduction="sum"))(p).numpy()
    np.testing.assert_allclose(gradient, [0, -1e12, 1e12, 0], rtol=1e-6)
    exact = losses.binary_cross_entropy(sigmoid(tensor(X)), tensor(Q))
    assert float(exact) == pytest.approx(float(losses.binary_cross_entropy_with_logits(tensor(X), tensor(Q))))


def test_regression_losses_at_large_errors():
    x, y = tensor([1e18, -300.0, 0.0]), tensor([-1e18, 300.0, 0.0])
    for loss, values, slopes in (
        (losses.l1, [2e18, 600, 0], [1, -1, 0]),
        (losses.huber, [2e18, 599.5, 0], [1, -1, 0]),
        (losses.smooth_l1, [2e18, 599.5, 0], [1, -1, 0]),
        (losses.mse, [4e36, 360000, 0], [4e18, -1200, 0]),
    ):
        assert loss(x, y, "none").tolist() == pytest.approx(values, rel=1e-6)
        np.testing.assert_allclose(grad(lambda t, f=loss: f(t, y, "sum"))(x).numpy(), slopes, rtol=1e-6)


def test_kl_div_where_the_target_is_0():
    x, target = tensor([-INF, -1.0, 0.0]), tensor([0.0, 0.0, 1.0])
    assert losses.kl_div(x, target, "none").tolist() == [0, 0, 0]
    assert losses.kl_div(x, tensor([-INF, -INF, 0.0]), "none", log_target=True).tolist() == [0, 0, 0]
    for log_target, t in ((False, target), (True, tensor([-INF, -INF, 0.0]))):
        gradient = grad(lambda v, t=t, k=log_target: losses.kl_div(v, t, "sum", log_target=k))(x).numpy()
        assert gradient.tolist() == [0, 0, -1]


def test_batchmean():
    total = float(losses.kl_div(tensor(np.log(P)), tensor(Q), "sum"))
    assert float(losses.kl_div(tensor(np.log(P)), tensor(Q), "batchmean")) == pytest.approx(total / 4)
    with pytest.raises(ShapeError, match="empty"):
        losses.kl_div(tensor(P[:0]), tensor(Q[:0]), "batchmean")
    with pytest.raises(ConfigError, match="batchmean"):
        losses.mse(tensor(X), tensor(Y), "batchmean")  # type: ignore[arg-type]


def test_gaussian_nll_variances():
    given = tensor(X), tensor(Y)
    full = losses.gaussian_nll(*given, tensor(P), reduction="none", full=True).numpy()
    density = np.exp(-((X - Y) ** 2) / (2 * P)) / np.sqrt(2 * np.pi * P)
    np.testing.assert_allclose(full, -np.log(density), rtol=1e-12)
    for var, like in ((P[:, :1], P[:, :1]), (P[:, 0], P[:, :1]), (P[:1], P[:1]), (np.array(0.3), 0.3)):
        expected = (np.log(like) + (X - Y) ** 2 / like) / 2
        ours = losses.gaussian_nll(*given, tensor(var), reduction="none")
        np.testing.assert_allclose(ours.numpy(), np.broadcast_to(expected, X.shape), rtol=1e-12)
        check_gradients(lambda v: losses.gaussian_nll(*given, v), tensor(var))
    assert float(losses.gaussian_nll(*given, 0.3)) == pytest.approx(float(losses.gaussian_nll(*given, f64(0.3))))
    with pytest.raises(ShapeError, match="var"):
        losses.gaussian_nll(*given, tensor(P[:1, :1]))
    with pytest.raises(DataError, match="negative"):
        losses.gaussian_nll(*given, tensor(-P))


def test_a_variance_below_eps_counts_as_eps_with_the_gradient_there():
    x, y, var = f64([1.0]), f64([3.0]), f64([1e-9])
    at_eps = grad(lambda v: losses.gaussian_nll(x, y, v, eps=1e-2, reduction="sum"))(f64([1e-2])).numpy()
    below = grad(lambda v: losses.gaussian_nll(x, y, v, eps=1e-2, reduction="sum"))(var).numpy()
    np.testing.assert_allclose(below, at_eps, rtol=1e-12)
    assert float(losses.gaussian_nll(x, y, var, eps=1e-2)) == pytest.approx((math.log(1e-2) + 400) / 2)


def test_poisson_nll_with_the_term_of_stirling():
    target = f64([0.0, 1.0, 2.0, 50.0])
    x = f64([0.5, 0.5, 0.5, 4.0])
    full = losses.poisson_nll(x, target, full=True, reduction="none").numpy()
    exact = [math.exp(a) - a * t + math.lgamma(t + 1) for a, t in zip(x.tolist(), target.tolist(), strict=True)]
    assert full == pytest.approx(exact, abs=0.05)
    assert full[3] == pytest.approx(exact[3], abs=2e-3)  # Stirling's error is 1 / 12n


# -- margins


def test_margins_met_exactly_have_no_gradient():
    one = f64([[1.0, 1.0]])
    cases = [
        (lambda x: losses.hinge_embedding(x, f64([[-1, -1]]), margin=1.0), one),
        (lambda x: losses.margin_ranking(x, one, f64([[1, 1]]), margin=0.0), one),
        (lambda x: losses.multi_margin(x, tensor([0]), margin=0.0), one),
    ]
    for loss, x in cases:
        assert not grad(loss)(x).numpy().any()


def test_triplet_margin_norms_swap_and_eps():
    a, b, c = RNG.normal(size=(3, 5, 4))
    for p, order in ((1.0, 1), (2.0, 2), (3.0, 3), (1.5, 1.5), (INF, np.inf)):

        def distance(u, v, order=order):
            return np.linalg.norm(u - v + 1e-6, ord=order, axis=-1)

        far = np.minimum(distance(a, c), distance(b, c))
        for swap, second in ((False, distance(a, c)), (True, far)):
            ours = losses.triplet_margin(tensor(a), tensor(b), tensor(c), 0.5, p, swap=swap, reduction="none")
            np.testing.assert_allclose(ours.numpy(), np.maximum(0, 0.5 + distance(a, b) - second), rtol=1e-12)
            check_gradients(
                lambda *x, p=p, s=swap: losses.triplet_margin(*x, 5.0, p, swap=s), tensor(a), tensor(b), tensor(c)
            )
    same = tensor(a, "float32")
    gradient = grad(lambda x: losses.triplet_margin(x, same, same, eps=0.0))(same)
    assert np.isfinite(gradient.numpy()).all()


def test_cosine_embedding_of_zeros_and_of_large_rows():
    zero = tensor([[0.0, 0.0], [0.0, 0.0]])
    target = tensor([1, -1])
    assert losses.cosine_embedding(zero, zero, target, reduction="none").tolist() == [1.0, 0.0]
    assert np.isfinite(grad(lambda x: losses.cosine_embedding(x, zero, target))(zero).numpy()).all()
    large = tensor([[3e10, 4e10]])
    assert float(losses.cosine_embedding(large, large, tensor([1]))) == pytest.approx(0, abs=1e-6)
    single = losses.cosine_embedding(f64([3.0, 4.0]), f64([4.0, 3.0]), tensor(-1), reduction="none")
    assert single.shape == () and float(single) == pytest.approx(0.96)
    with pytest.raises(ShapeError, match="each row"):
        losses.cosine_embedding(tensor(X), tensor(Y), tensor([1, -1]))


def test_targets_that_are_no_signs_and_no_probabilities():
    x = tensor(X)
    zero_one = tensor((SIGNS > 0).astype(np.float64))
    for call in (
        lambda: losses.hinge_embedding(x, zero_one),
        lambda: losses.margin_ranking(x, x, zero_one),
        lambda: losses.cosine_embedding(x, x, zero_one[:, 0] * 0),
    ):
        with pytest.raises(DataError, match=r"contains 0\.0.*2 \* target - 1"):
            call()
    with pytest.raises(DataError, match="with_logits"):
        losses.binary_cross_entropy(x, tensor(Q))
    with pytest.raises(DataError, match="target"):
        losses.binary_cross_entropy(tensor(P), tensor(Q + 1))
    with pytest.raises(DataError, match="target"):
        losses.binary_cross_entropy_with_logits(x, tensor(SIGNS))
    for call in (
        lambda: losses.huber(x, x, delta=0.0),
        lambda: losses.smooth_l1(x, x, beta=-1.0),
        lambda: losses.multi_margin(x, tensor(CLASSES), p=3),
        lambda: losses.triplet_margin(x, x, x, margin=0.0),
        lambda: losses.triplet_margin(x, x, x, p=0.0),
    ):
        with pytest.raises(ConfigError):
            call()


def test_integers_and_truth_values_serve_as_numerical_targets():
    x = tensor([0.5, 2.0])
    assert float(losses.mse(x, tensor([1, 2]))) == 0.125
    assert losses.mse(x, tensor([1, 2])).dtype == dtypes.float32
    labels = losses.binary_cross_entropy_with_logits(x, tensor([True, False]), reduction="none")
    assert labels.tolist() == pytest.approx([math.log1p(math.exp(-0.5)), math.log1p(math.exp(2.0))])
    assert losses.mse(x, tensor([1.0, 2.0], "float64")).dtype == dtypes.float64


@pytest.mark.parametrize("name, loss, inputs, by_hand", CASES, ids=NAMES)
def test_nan_is_not_swallowed(name, loss, inputs, by_hand):
    first = inputs[0].copy()
    first[0] = NAN
    assert math.isnan(float(loss(tensor(first), *[tensor(x) for x in inputs[1:]], reduction="mean")))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_cross_entropy_is_at_least_the_entropy_of_its_target(rows, classes, seed):
    rng = np.random.default_rng(seed)
    x, p = rng.normal(0, 3, (rows, classes)), softmax(rng.normal(0, 2, (rows, classes)))
    entropy = -(p * np.log(p)).sum(1)
    loss = losses.cross_entropy(tensor(x), tensor(p), reduction="none").numpy()
    assert (loss >= entropy - 1e-12).all()
    best = losses.cross_entropy(tensor(np.log(p)), tensor(p), reduction="none").numpy()
    np.testing.assert_allclose(best, entropy, rtol=1e-9, atol=1e-12)
