"""CTC against PyTorch's, in float64, behind a log_softmax: losses, gradients, targets in all forms."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


def compare(logits, targets, input_lengths, target_lengths, zero_infinity=True, **options):
    """The loss and its gradient by the logits; gradients only where all losses are finite or counted as 0."""
    given = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.ctc_loss(
        torch.log_softmax(given, -1),
        torch.tensor(targets),
        torch.tensor(input_lengths),
        torch.tensor(target_lengths),
        zero_infinity=zero_infinity,
        **options,
    )
    weights = np.random.default_rng(3).normal(size=tuple(theirs.shape))
    (theirs * torch.tensor(weights)).sum().backward()

    def f(logits):
        loss = losses.ctc(
            cr.log_softmax(logits), cr.tensor(targets), input_lengths, target_lengths,
            zero_infinity=zero_infinity, **options,
        )  # fmt: skip
        return cr.sum(loss * cr.tensor(weights)), loss

    (_, loss), gradient = cr.value_and_grad(f, has_aux=True)(cr.tensor(logits))
    np.testing.assert_allclose(np.asarray(loss), theirs.detach().numpy(), **TOLERANCE)
    if zero_infinity:
        np.testing.assert_allclose(np.asarray(gradient), given.grad.numpy(), **TOLERANCE)


@given(
    seed=st.integers(0, 1000),
    steps=st.integers(1, 8),
    batch=st.integers(1, 3),
    most=st.integers(1, 4),
    classes=st.integers(2, 4),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    together=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_random_batches(seed, steps, batch, most, classes, reduction, together):
    """Repeated labels, empty targets, targets that do not fit: all are drawn."""
    rng = np.random.default_rng(seed)
    blank = int(rng.integers(classes))
    labels = np.array([c for c in range(classes) if c != blank])
    targets = rng.choice(labels, size=(batch, most))
    input_lengths = rng.integers(1, steps + 1, batch).tolist()
    target_lengths = rng.integers(0, most + 1, batch).tolist()
    if together:
        targets = np.concatenate([row[:n] for row, n in zip(targets, target_lengths, strict=True)])
    logits = rng.normal(size=(steps, batch, classes))
    compare(logits, targets, input_lengths, target_lengths, blank=blank, reduction=reduction)


@pytest.mark.parametrize(
    ("reduction", "zero_infinity"), list(itertools.product(["none", "sum", "mean"], [True, False]))
)
def test_targets_that_do_not_fit_are_infinitely_unlikely(reduction, zero_infinity):
    logits = np.random.default_rng(0).normal(size=(3, 2, 4))
    targets = np.array([[1, 1, 2], [1, 2, 3]])  # the first needs a blank between its ones
    compare(logits, targets, [3, 3], [3, 3], zero_infinity, reduction=reduction)


def test_a_single_sequence():
    logits = np.random.default_rng(0).normal(size=(6, 4))
    for reduction in ("none", "sum", "mean"):
        compare(logits, np.array([1, 2, 2]), 6, 3, reduction=reduction)


def test_long_sequences_do_not_underflow():
    rng = np.random.default_rng(0)
    compare(rng.normal(size=(200, 2, 20)) * 5, rng.integers(1, 20, size=(2, 50)), [200, 150], [50, 40])


def test_the_module():
    logits = np.random.default_rng(0).normal(size=(6, 2, 4))
    targets, lengths = np.array([[1, 2, 3], [3, 3, 0]]), ([6, 5], [3, 2])
    for options in ({}, {"blank": 1, "reduction": "sum", "zero_infinity": True}):
        ours = nn.CTCLoss(**options)(cr.log_softmax(cr.tensor(logits)), cr.tensor(targets), *lengths)
        theirs = torch.nn.CTCLoss(**options)(
            torch.log_softmax(torch.tensor(logits), -1), torch.tensor(targets), *map(torch.tensor, lengths)
        )
        np.testing.assert_allclose(float(ours), float(theirs), **TOLERANCE)
