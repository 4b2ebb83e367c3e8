"""Losses for finding objects: by hand, in the limits, derivatives, mistakes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn
from chainrule.errors import ConfigError, DataError, IndexOutOfRange, ShapeError

RNG = np.random.default_rng(8)
LOGITS, YES = RNG.normal(0, 2, (5, 3)), np.where(RNG.random((5, 3)) < 0.5, 1.0, 0.0)
CLASSES = np.array([2, 0, 1, 1, 2])
A = np.array([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 4.0, 3.5], [6.0, 6.0, 8.0, 7.0]])
B = np.array([[0.5, -1.0, 3.0, 2.0], [1.2, 1.3, 3.0, 2.5], [0.0, 0.0, 1.0, 1.0]])


def f64(x):
    return cr.tensor(np.asarray(x, np.float64))


# -- boxes


def test_losses_of_boxes_are_one_less_the_overlap():
    for loss, overlap in ((losses.iou, cr.detection.box_iou), (losses.giou, cr.detection.generalized_box_iou)):
        expected = 1 - np.diagonal(overlap(f64(A), f64(B)).numpy())
        np.testing.assert_allclose(loss(f64(A), f64(B), "none").numpy(), expected, rtol=1e-15)
        assert loss(f64(A), f64(B)).item() == pytest.approx(expected.mean())
        assert loss(f64(A), f64(B), "sum").item() == pytest.approx(expected.sum())
        assert loss(f64(A[0]), f64(B[0]), "none").shape == ()
        cr.check_gradients(lambda a, b, loss=loss: loss(a, b, "none"), f64(A), f64(B), order=2)


def test_giou_draws_boxes_together_that_do_not_overlap():
    target = f64([[0.0, 0.0, 1.0, 1.0]])
    box = f64([[5.0, 3.0, 6.0, 4.0]])
    assert not cr.grad(losses.iou)(box, target).numpy().any()
    assert (cr.grad(losses.giou)(box, target).numpy()[0, :2] > 0).all()  # descent moves its corner to the target
    for _ in range(300):
        box = box - 0.5 * cr.grad(losses.giou)(box, target)
    assert cr.detection.box_iou(box, target).item() > 0.01


def test_an_inverted_prediction_is_drawn_right():
    target, box = f64([[0.0, 0.0, 2.0, 2.0]]), f64([[1.5, 1.5, 0.5, 0.5]])
    assert losses.giou(box, target).item() == 1.0
    assert np.isfinite(cr.grad(losses.giou)(box, target).numpy()).all()


# -- classes


def test_sigmoid_focal_by_hand():
    p = 1 / (1 + np.exp(-LOGITS))
    right = np.where(YES == 1, p, 1 - p)
    for alpha, gamma in ((0.25, 2.0), (None, 2.0), (0.9, 0.5), (0.0, 1.0), (0.5, 0.0)):
        weight = 1.0 if alpha is None else np.where(YES == 1, alpha, 1 - alpha)
        expected = -weight * (1 - right) ** gamma * np.log(right)
        found = losses.sigmoid_focal(f64(LOGITS), f64(YES), alpha, gamma, "none")
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
        assert losses.sigmoid_focal(f64(LOGITS), f64(YES), alpha, gamma).item() == pytest.approx(expected.mean())
        for y in (f64(YES), f64(0.1 + 0.8 * YES)):
            cr.check_gradients(lambda x, y=y, a=alpha, g=gamma: losses.sigmoid_focal(x, y, a, g), f64(LOGITS), order=2)


def test_focal_by_hand():
    p = np.exp(LOGITS)
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(5), CLASSES]
    weight = np.array([0.5, 1.0, 3.0])
    for gamma in (2.0, 0.5, 1.0):
        plain = -((1 - p) ** gamma) * np.log(p)
        found = losses.focal(f64(LOGITS), cr.tensor(CLASSES), gamma=gamma, reduction="none")
        np.testing.assert_allclose(found.numpy(), plain, rtol=1e-12)
        weighted = losses.focal(f64(LOGITS), cr.tensor(CLASSES), f64(weight), gamma).item()
        assert weighted == pytest.approx((plain * weight[CLASSES]).sum() / weight[CLASSES].sum())
        cr.check_gradients(lambda x, g=gamma: losses.focal(x, cr.tensor(CLASSES), gamma=g), f64(LOGITS), order=2)


def test_without_gamma_they_are_the_cross_entropies():
    images = f64(RNG.normal(size=(2, 4, 3, 3)))
    target = cr.tensor(RNG.integers(0, 4, (2, 3, 3)))
    ignoring = cr.where(target == 1, -100, target)
    weight = f64([1.0, 2.0, 3.0, 4.0])
    for options in ({}, {"reduction": "none"}, {"reduction": "sum", "weight": weight}):
        for labels in (target, ignoring):
            found, expected = losses.focal(images, labels, gamma=0.0, **options), losses.cross_entropy(
                images, labels, **options
            )  # fmt: skip
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)
    found = losses.sigmoid_focal(f64(LOGITS), f64(YES), None, 0.0)
    assert found.item() == pytest.approx(losses.binary_cross_entropy_with_logits(f64(LOGITS), f64(YES)).item())


@settings(max_examples=40, deadline=None)
@given(st.floats(-1e4, 1e4), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.0, 5.0]))
def test_far_logits_give_finite_losses_and_gradients(logit, answer, gamma):
    for dtype in ("float32", "float64"):
        x = cr.tensor(logit, dtype)
        value, slope = cr.value_and_grad(lambda x: losses.sigmoid_focal(x, answer, gamma=gamma))(x)
        assert math.isfinite(value.item()) and value.item() >= 0
        assert math.isfinite(slope.item())
        pair, target = cr.tensor([[logit, 0.0]], dtype), cr.tensor([int(answer)])
        value, slope = cr.value_and_grad(lambda x, k=target: losses.focal(x, k, gamma=gamma))(pair)
        assert math.isfinite(value.item()) and np.isfinite(slope.numpy()).all()


def test_nan_passes_through():
    nan = float("nan")
    assert math.isnan(losses.sigmoid_focal(cr.tensor([nan]), cr.tensor([1.0])).item())
    assert math.isnan(losses.focal(cr.tensor([[nan, 1.0]]), cr.tensor([1])).item())
    assert math.isnan(losses.giou(cr.tensor([[0.0, nan, 1.0, 1.0]]), cr.tensor([[0.0, 0.0, 1.0, 1.0]])).item())


# -- modules, engines, mistakes


def test_modules_hand_on_their_settings():
    x, y, k, w = f64(LOGITS), f64(YES), cr.tensor(CLASSES), f64([1.0, 2.0, 3.0])
    pairs = [
        (nn.IoULoss("sum")(f64(A), f64(B)), losses.iou(f64(A), f64(B), "sum")),
        (nn.GIoULoss("none")(f64(A), f64(B)), losses.giou(f64(A), f64(B), "none")),
        (nn.SigmoidFocalLoss(0.3, 1.5, "sum")(x, y), losses.sigmoid_focal(x, y, 0.3, 1.5, "sum")),
        (nn.FocalLoss(w, 1.5, 1, "none")(x, k), losses.focal(x, k, w, 1.5, 1, "none")),
    ]
    assert all((found == expected).all() for found, expected in pairs)
    assert list(nn.FocalLoss(w).state_dict()) == ["weight"]


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_they_can_be_compiled(engine):
    boxes = cr.tensor(A.astype("float32")), cr.tensor(B.astype("float32"))
    logits, yes, classes = cr.tensor(LOGITS.astype("float32")), cr.tensor(YES.astype("float32")), cr.tensor(CLASSES)
    for loss, inputs in (
        (losses.giou, boxes), (losses.sigmoid_focal, (logits, yes)), (losses.focal, (logits, classes)),
    ):  # fmt: skip
        expected = cr.value_and_grad(loss)(*inputs)
        for a, b in zip(cr.compile(cr.value_and_grad(loss), engine=engine)(*inputs), expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=1e-6)


def test_mistakes_are_explained():
    x, y = f64(LOGITS), f64(YES)
    with pytest.raises(ShapeError, match=r"input has shape \(5, 3\); expected \(..., 4\)"):
        losses.giou(x, x)
    with pytest.raises(ShapeError, match="must be equal"):
        losses.iou(f64(A), f64(B[0]))
    with pytest.raises(ShapeError, match="an empty batch has no mean"):
        losses.iou(cr.zeros((0, 4)), cr.zeros((0, 4)))
    with pytest.raises(ConfigError, match="gamma=-1"):
        losses.focal(x, cr.tensor(CLASSES), gamma=-1)
    with pytest.raises(ConfigError, match="or None for none"):
        losses.sigmoid_focal(x, y, alpha=-1)
    with pytest.raises(DataError, match="target must lie between 0 and 1"):
        losses.sigmoid_focal(x, y * 2)
    with pytest.raises(IndexOutOfRange, match="3 classes"):
        losses.focal(x, cr.tensor([0, 1, 2, 3, 0]))
    with pytest.raises(ConfigError, match="reduction='avg'"):
        nn.FocalLoss(reduction="avg")
