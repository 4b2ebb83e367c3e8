"""The functions, losses and random numbers in machine code against the reference, with their derivatives."""

import threading

import numpy as np
import pytest
from tests.engines.native.suite import assert_close, check, leaves, native, reference
from tests.functions.cases import CASES

import chainrule as cr
from chainrule import dtypes, losses, tree
from chainrule.core.tensor import tensor

CHUNK = 8  # cases that are compiled together
LOOSE = 1e-10  # float64, after a derivative


def total(result):
    """One number that all floats in a result enter, each with a weight of its own."""
    summed = tensor(0.0, dtype="float64")
    for leaf in tree.flatten(result).leaves:
        if dtypes.is_float(leaf.value.dtype):
            x = leaf.value.astype("float64")
            summed = summed + cr.sum(x * cr.cos(cr.reshape(cr.arange(x.size, dtype="float64"), x.shape)))
    return summed


def batches(cases):
    return [pytest.param(cases[i : i + CHUNK], id=f"{cases[i].name} …") for i in range(0, len(cases), CHUNK)]


@pytest.mark.parametrize("cases", batches([c for c in CASES if c.name != "nonzero"]))
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_values(cases, dtype):
    if dtype == np.float32:
        cases = [c for c in cases if c.smooth]
    inputs = [[tensor(x.astype(dtype) if x.dtype == np.float64 else x) for x in c.inputs] for c in cases]
    f = lambda inputs: [c.function(*xs) for c, xs in zip(cases, inputs, strict=True)]
    check(f, inputs, tolerance=1e-12 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("cases", batches([c for c in CASES if c.smooth]))
def test_derivatives(cases):
    inputs = [[tensor(x) for x in c.inputs] for c in cases]

    def f(inputs):
        for c, xs in zip(cases, inputs, strict=True):
            places = [k for k, x in enumerate(xs) if dtypes.is_float(x.dtype)]
            yield cr.value_and_grad(lambda *xs, c=c: total(c.function(*xs)), argnums=tuple(places))(*xs)

    check(lambda inputs: list(f(inputs)), inputs, tolerance=LOOSE)


# -- losses

RNG = np.random.default_rng(1)
LOGITS, SAME = RNG.normal(size=(19, 5)), RNG.normal(size=(19, 5))
CLASSES, SIGNS, SHARES = RNG.integers(0, 5, 19), RNG.choice([-1.0, 1.0], (19, 5)), RNG.dirichlet(np.ones(5), 19)
IGNORED = np.where(RNG.random(19) < 0.3, -100, CLASSES)
WEIGHT = RNG.uniform(0.5, 2, 5)
PICTURE = RNG.normal(size=(4, 5, 3, 2))
PIXELS = RNG.integers(0, 5, (4, 3, 2))
P = RNG.uniform(0.05, 0.95, (19, 5))
CORNERS = RNG.uniform(0, 1, (2, 19, 2))
BOXES = np.concatenate([CORNERS[0], CORNERS[0] + 0.1 + CORNERS[1]], 1)
STEPS = np.log(RNG.dirichlet(np.ones(5), (9, 3)))
LOSSES = {
    "cross_entropy": (losses.cross_entropy, (LOGITS, CLASSES), {}),
    "cross_entropy weighted": (losses.cross_entropy, (LOGITS, CLASSES), {"weight": WEIGHT}),
    "cross_entropy smoothed": (losses.cross_entropy, (LOGITS, CLASSES), {"label_smoothing": 0.2}),
    "cross_entropy ignoring": (losses.cross_entropy, (LOGITS, IGNORED), {}),
    "cross_entropy all": (losses.cross_entropy, (LOGITS, IGNORED), {"weight": WEIGHT, "label_smoothing": 0.1}),
    "cross_entropy of probabilities": (losses.cross_entropy, (LOGITS, SHARES), {"weight": WEIGHT}),
    "cross_entropy of pictures": (losses.cross_entropy, (PICTURE, PIXELS), {"weight": WEIGHT}),
    "cross_entropy of one row": (losses.cross_entropy, (LOGITS[0], CLASSES[0]), {}),
    "nll": (losses.nll, (np.log(SHARES), CLASSES), {"weight": WEIGHT}),
    "nll ignoring": (losses.nll, (np.log(SHARES), IGNORED), {"ignore_index": -100}),
    "binary_cross_entropy": (losses.binary_cross_entropy, (P, (P > 0.4) * 1.0), {"weight": WEIGHT}),
    "with_logits": (losses.binary_cross_entropy_with_logits, (LOGITS, P), {"weight": WEIGHT, "pos_weight": WEIGHT}),
    "with_logits extreme": (losses.binary_cross_entropy_with_logits, (LOGITS * 500, (P > 0.5) * 1.0), {}),
    "kl_div": (losses.kl_div, (np.log(SHARES), SHARES[::-1].copy()), {}),
    "kl_div log": (losses.kl_div, (np.log(SHARES), np.log(SHARES[::-1])), {"log_target": True}),
    "mse": (losses.mse, (LOGITS, SAME), {}),
    "mse weighted": (losses.mse, (LOGITS, SAME), {"weight": P}),
    "l1": (losses.l1, (LOGITS, SAME), {}),
    "huber": (losses.huber, (LOGITS, SAME), {"delta": 0.7, "weight": P}),
    "smooth_l1": (losses.smooth_l1, (LOGITS, SAME), {"beta": 0.5}),
    "poisson_nll": (losses.poisson_nll, (LOGITS, CLASSES[:, None] * np.ones(5)), {"full": True}),
    "poisson_nll of means": (losses.poisson_nll, (P, P), {"log_input": False}),
    "gaussian_nll": (losses.gaussian_nll, (LOGITS, SAME, P), {"full": True}),
    "hinge_embedding": (losses.hinge_embedding, (LOGITS, SIGNS), {}),
    "margin_ranking": (losses.margin_ranking, (LOGITS, SAME, SIGNS), {"margin": 0.3}),
    "multi_margin": (losses.multi_margin, (LOGITS, CLASSES), {"weight": WEIGHT}),
    "multi_margin squared": (losses.multi_margin, (LOGITS, CLASSES), {"p": 2, "margin": 0.5}),
    "cosine_embedding": (losses.cosine_embedding, (LOGITS, SAME, SIGNS[:, 0]), {"margin": 0.1}),
    "triplet_margin": (losses.triplet_margin, (LOGITS, SAME, P), {"swap": True}),
    "iou": (losses.iou, (BOXES, BOXES[::-1].copy()), {}),
    "giou": (losses.giou, (BOXES, BOXES[::-1].copy()), {}),
    "focal": (losses.focal, (LOGITS, CLASSES), {"weight": WEIGHT}),
    "sigmoid_focal": (losses.sigmoid_focal, (LOGITS, (P > 0.5) * 1.0), {}),
    "ctc": (losses.ctc, (STEPS, RNG.integers(1, 5, (3, 4)), np.array([9, 7, 8]), np.array([4, 2, 0])), {}),
    "triplet_margin p": (losses.triplet_margin, (LOGITS, SAME, P), {"p": 3.0}),
}


def test_every_loss_is_here():
    assert set(losses.__all__) - {f.__name__ for f, _, _ in LOSSES.values()} <= {"Reduction"}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_losses(name, dtype):
    loss, arrays, options = LOSSES[name]
    inputs = [tensor(np.asarray(a).astype(dtype) if np.asarray(a).dtype == np.float64 else a) for a in arrays]
    tensors = {k: tensor(v.astype(dtype)) for k, v in options.items() if isinstance(v, np.ndarray)}
    rest = {k: v for k, v in options.items() if k not in tensors}

    def f(first, others, tensors):
        for reduction in ("mean", "sum", "none"):
            of_first = lambda x, r=reduction: loss(x, *others, reduction=r, **tensors, **rest)
            yield of_first(first)
            yield cr.value_and_grad(lambda x, g=of_first: total(g(x)))(first)

    run = lambda first, others, tensors: list(f(first, others, tensors))
    check(run, inputs[0], inputs[1:], tensors, tolerance=2e-5 if dtype == np.float32 else 1e-11)


def test_if_all_targets_are_ignored_the_mean_is_no_number():
    f = lambda x, y: losses.cross_entropy(x, y)
    assert np.isnan(float(native(f)(tensor(LOGITS), tensor(np.full(19, -100)))))


# -- random numbers


def test_random_numbers_have_the_same_bits():
    def draw(generator):
        yield generator.uniform((3, 17))
        yield generator.uniform((1000,), dtype="float64")
        yield generator.bernoulli(0.3, (33, 5))
        yield generator.randint(0, 1000, (41,))
        yield generator.permutation(50)

    f = lambda generator: list(draw(generator))
    one, two = cr.random.Generator(5), cr.random.Generator(5)
    fast, slow = native(f), reference(f)
    for _ in range(3):
        for a, b in zip(leaves(fast(one)), leaves(slow(two)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_random_numbers_that_are_computed_agree():
    f = lambda generator: [
        generator.normal((700,)),
        generator.normal((33, 3), dtype="float64"),
        generator.uniform((99,), -2.0, 5.0),
    ]
    one, two = cr.random.Generator(6), cr.random.Generator(6)
    for a, b in zip(leaves(native(f)(one)), leaves(reference(f)(two)), strict=True):
        assert_close(a, b, 1e-5 if a.dtype == np.float32 else 1e-11)


def test_threads_of_the_caller_do_not_disturb_each_other():
    """One compiled function, called by several threads at once with arrays large enough to be read where they are."""
    f = native(lambda x: cr.sum(cr.exp(cr.tanh(x)) * x, axis=1))
    inputs = [tensor(np.random.default_rng(i).normal(size=(300, 300)).astype(np.float32)) for i in range(4)]
    expected = [leaves(f(x))[0] for x in inputs]
    wrong = []

    def call(i):
        for _ in range(200):
            if (leaves(f(inputs[i]))[0] != expected[i]).any():
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
