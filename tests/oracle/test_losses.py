"""Losses: the same values, gradients and gradients of gradients as PyTorch's, over all combinations of arguments."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from chainrule import losses
from chainrule.core.autodiff import grad
from chainrule.core.tensor import tensor

REDUCTIONS = ("none", "mean", "sum")
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
SEEDS = st.integers(0, 2**32)
few = settings(max_examples=6, deadline=None)


def combinations(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def both(ours, theirs, *fixed, **options):
    """The two functions with the same further arguments (arrays or None) and options."""

    def as_theirs(a):
        return torch.from_numpy(np.asarray(a)) if isinstance(a, (np.ndarray, np.generic)) else a

    def as_ours(a):
        return tensor(a) if isinstance(a, (np.ndarray, np.generic)) else a

    return (
        lambda *x: ours(*x, *map(as_ours, fixed), **{k: as_ours(v) for k, v in options.items()}),
        lambda *x: theirs(*x, *map(as_theirs, fixed), **{k: as_theirs(v) for k, v in options.items()}),
    )


# -- element by element


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@few
@given(SHAPES, SEEDS)
def test_mse_l1_and_huber(agree, reduction, weighted, shape, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 2, (2, *shape))
    more = {"reduction": reduction, **({"weight": rng.uniform(0.2, 2, shape)} if weighted else {})}
    agree(*both(losses.mse, F.mse_loss, **more), x, y)
    agree(*both(losses.l1, F.l1_loss, **more), x, y)
    for delta in (1.0, 0.4, 3.0):
        agree(*both(losses.huber, F.huber_loss, delta=delta, **more), x, y)


@pytest.mark.parametrize("options", combinations(reduction=REDUCTIONS, beta=(1.0, 0.3, 0.0)), ids=str)
@few
@given(SHAPES, SEEDS)
def test_smooth_l1(agree, options, shape, seed):
    x, y = np.random.default_rng(seed).normal(0, 2, (2, *shape))
    agree(*both(losses.smooth_l1, F.smooth_l1_loss, **options), x, y)


POISSON = combinations(reduction=REDUCTIONS, log_input=(True, False), full=(False, True), eps=(1e-8, 0.1))


@pytest.mark.parametrize("options", POISSON, ids=str)
@few
@given(SHAPES, SEEDS)
def test_poisson_nll(agree, options, shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, shape) if options["log_input"] else rng.uniform(0.1, 4, shape)
    counts = np.asarray(rng.poisson(3, shape), np.float64)
    agree(*both(losses.poisson_nll, F.poisson_nll_loss, counts, **options), x)


@pytest.mark.parametrize("options", combinations(reduction=REDUCTIONS, full=(False, True), eps=(1e-6, 0.5)), ids=str)
@few
@given(array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=4), SEEDS, st.data())
def test_gaussian_nll(agree, options, shape, seed, data):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 2, (2, *shape))
    axis = data.draw(st.integers(0, len(shape) - 1))
    narrow = tuple(1 if i == axis else n for i, n in enumerate(shape))
    for like in (shape, shape[:-1], narrow):
        agree(*both(losses.gaussian_nll, F.gaussian_nll_loss, **options), x, y, rng.uniform(0.1, 2, like))
    agree(*both(losses.gaussian_nll, F.gaussian_nll_loss, var=0.7, **options), x, y)


@pytest.mark.parametrize("options", combinations(reduction=REDUCTIONS, weighted=("no", "all", "last")), ids=str)
@few
@given(array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), SEEDS)
def test_binary_cross_entropies(agree, options, shape, seed):
    rng = np.random.default_rng(seed)
    reduction, weighted = options.values()
    weight = {"no": None, "all": rng.uniform(0.1, 2, shape), "last": rng.uniform(0.1, 2, shape[-1:])}[weighted]
    p, target = rng.uniform(0.02, 0.98, (2, *shape))
    hard = np.round(target)
    for t in (target, hard):
        agree(*both(losses.binary_cross_entropy, F.binary_cross_entropy, t, weight, reduction=reduction), p)
        for pos_weight in (None, rng.uniform(0.1, 3, shape), rng.uniform(0.1, 3, shape[-1:])):
            more = {"weight": weight, "reduction": reduction, "pos_weight": pos_weight}
            pair = both(losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, t, **more)
            agree(*pair, rng.normal(0, 4, shape))
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):  # derivatives by the target, too
        agree(*both(getattr(losses, name), getattr(F, name), reduction=reduction), p, target, order=1)


def test_binary_cross_entropy_at_0_and_1(agree):
    p, t = np.meshgrid([0.0, 1e-13, 0.3, 1.0 - 1e-13, 1.0], [0.0, 0.4, 1.0])
    pair = both(losses.binary_cross_entropy, F.binary_cross_entropy, t, reduction="none")
    agree(*pair, p, order=1, rtol=1e-8)  # PyTorch holds the 1e-12 of the slope in float32


@pytest.mark.parametrize(
    "options", combinations(reduction=(*REDUCTIONS, "batchmean"), log_target=(False, True)), ids=str
)
@few
@given(array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), SEEDS)
@pytest.mark.filterwarnings("ignore:reduction. 'mean'")
def test_kl_div(agree, options, shape, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.uniform(0.05, 0.95, (2, *shape))
    target = np.log(q) if options["log_target"] else q
    agree(*both(losses.kl_div, F.kl_div, **options), np.log(p), target)
    if not options["log_target"]:
        agree(*both(losses.kl_div, F.kl_div, np.where(q < 0.5, 0.0, q), **options), np.log(p))


@pytest.mark.parametrize("options", combinations(reduction=REDUCTIONS, margin=(1.0, 0.2)), ids=str)
@few
@given(SHAPES, SEEDS)
def test_hinge_embedding_and_margin_ranking(agree, options, shape, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, (2, *shape))
    target = rng.choice([-1.0, 1.0], shape)
    agree(*both(losses.hinge_embedding, F.hinge_embedding_loss, target, **options), a)
    agree(*both(losses.margin_ranking, F.margin_ranking_loss, target, **options), a, b)


# -- classes

CLASSES = combinations(
    reduction=REDUCTIONS, weighted=(False, True), ignore_index=(-100, 1), label_smoothing=(0.0, 0.1, 1.0)
)
BATCHES = st.sampled_from([None, (3,), (1,), (2, 3), (2, 2, 3), (2, 1, 2, 2)])


def with_classes(batch, classes):
    return (classes,) if batch is None else (batch[0], classes, *batch[1:])


@pytest.mark.parametrize("options", CLASSES, ids=str)
@few
@given(BATCHES, st.integers(2, 5), SEEDS)
def test_cross_entropy_of_indices(agree, options, batch, classes, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, with_classes(batch, classes))
    target = rng.integers(0, classes, batch or ())
    if batch is not None:
        target.flat[0] = 0  # not all ignored: the mean of nothing is NaN in both
    elif options["ignore_index"] == 1:
        target = np.asarray(0)
    weight = rng.uniform(0.2, 2, classes) if options["weighted"] else None
    more = {k: v for k, v in options.items() if k != "weighted"}
    agree(*both(losses.cross_entropy, F.cross_entropy, np.asarray(target), weight, **more), x)
    del more["label_smoothing"]
    agree(*both(losses.nll, F.nll_loss, np.asarray(target), weight, **more), x)


@pytest.mark.parametrize(
    "options", combinations(reduction=REDUCTIONS, weighted=(False, True), label_smoothing=(0.0, 0.2)), ids=str
)
@few
@given(BATCHES, st.integers(1, 5), SEEDS)
def test_cross_entropy_of_probabilities(agree, options, batch, classes, seed):
    rng = np.random.default_rng(seed)
    x, p = rng.normal(0, 3, with_classes(batch, classes)), rng.uniform(0, 1, with_classes(batch, classes))
    weight = rng.uniform(0.2, 2, classes) if options["weighted"] else None
    more = {"weight": weight, "reduction": options["reduction"], "label_smoothing": options["label_smoothing"]}
    agree(*both(losses.cross_entropy, F.cross_entropy, **more), x, p)


@pytest.mark.parametrize(
    "options", combinations(reduction=REDUCTIONS, p=(1, 2), margin=(1.0, 0.3), weighted=(False, True)), ids=str
)
@few
@given(st.sampled_from([(), (1,), (4,)]), st.integers(1, 5), SEEDS)
def test_multi_margin(agree, options, batch, classes, seed):
    rng = np.random.default_rng(seed)
    x, target = rng.normal(0, 1, (*batch, classes)), np.asarray(rng.integers(0, classes, batch))
    weight = rng.uniform(0.2, 2, classes) if options["weighted"] else None
    more = {k: v for k, v in options.items() if k != "weighted"}
    # order 1: PyTorch has no second derivative of it
    agree(*both(losses.multi_margin, F.multi_margin_loss, target, weight=weight, **more), x, order=1)


# -- distances


@pytest.mark.parametrize("options", combinations(reduction=REDUCTIONS, margin=(0.0, 0.4, -0.3)), ids=str)
@few
@given(st.sampled_from([(), (1,), (4,)]), st.integers(2, 5), SEEDS)
def test_cosine_embedding(agree, options, batch, features, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, (2, *batch, features))
    target = np.asarray(rng.choice([-1.0, 1.0], batch))
    agree(*both(losses.cosine_embedding, F.cosine_embedding_loss, target, **options), a, b)


TRIPLETS = combinations(
    reduction=REDUCTIONS, margin=(1.0, 3.0), p=(2.0, 1.0, 3.0, float("inf")), eps=(1e-6, 0.1), swap=(False, True)
)


@pytest.mark.parametrize("options", TRIPLETS, ids=str)
@few
@given(st.sampled_from([(), (1,), (4,), (2, 3)]), st.integers(1, 5), SEEDS)
def test_triplet_margin(agree, options, batch, features, seed):
    a, b, c = np.random.default_rng(seed).normal(0, 1, (3, *batch, features))
    agree(*both(losses.triplet_margin, F.triplet_margin_loss, **options), a, b, c)


# -- float32 at ±300, against PyTorch in float64


def test_extreme_logits_in_float32_against_float64():
    x = np.array([[300.0, -300.0, 0.0], [-300.0, -300.0, 300.0], [300.0, 300.0, 299.0], [-300.0, 0.5, -0.5]])
    y, p = np.array([1, 2, 0, 1]), np.array([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    cases = [
        both(losses.cross_entropy, F.cross_entropy, y, reduction="sum"),
        both(losses.cross_entropy, F.cross_entropy, y, reduction="sum", label_smoothing=0.1),
        both(losses.cross_entropy, F.cross_entropy, p, reduction="sum"),
        both(losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, p, reduction="sum"),
        both(losses.multi_margin, F.multi_margin_loss, y, p=2, reduction="sum"),
        both(losses.smooth_l1, F.smooth_l1_loss, p, reduction="sum"),
    ]
    for ours, theirs in cases:
        reference = torch.from_numpy(x).requires_grad_()
        loss = theirs(reference)
        loss.backward()
        np.testing.assert_allclose(float(ours(tensor(x, "float32"))), loss.item(), rtol=1e-6)
        gradient = grad(ours)(tensor(x, "float32")).numpy()
        np.testing.assert_allclose(gradient, reference.grad.numpy(), rtol=2e-6, atol=1e-7)
