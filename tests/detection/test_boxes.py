"""Boxes: formats, areas, overlaps; degenerate boxes, empty lists, NaN; what holds for all boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import detection
from chainrule.errors import ConfigError, ShapeError

NAN = float("nan")
UNIT = [0.0, 0.0, 1.0, 1.0]
COORDINATE = st.floats(-100, 100, width=32)
POINTS = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
SORTED = POINTS.map(lambda p: (min(p[0], p[2]), min(p[1], p[3]), max(p[0], p[2]), max(p[1], p[3])))
some = settings(max_examples=60, deadline=None)


def f64(values):
    return cr.tensor(np.asarray(values, np.float64))


def iou(a, b):
    return detection.box_iou(f64([a]), f64([b])).item()


def giou(a, b):
    return detection.generalized_box_iou(f64([a]), f64([b])).item()


# -- by hand


@pytest.mark.parametrize(
    ("other", "share", "general"),
    [
        (UNIT, 1.0, 1.0),
        ([0.5, 0.0, 1.5, 1.0], 1 / 3, 1 / 3),
        ([0.5, 0.5, 1.5, 1.5], 0.25 / 1.75, 0.25 / 1.75 - 0.5 / 2.25),
        ([0.25, 0.25, 0.75, 0.75], 0.25, 0.25),
        ([1.0, 0.0, 2.0, 1.0], 0.0, 0.0),  # they touch
        ([1.0, 1.0, 2.0, 2.0], 0.0, -0.5),
        ([3.0, 0.0, 4.0, 1.0], 0.0, -0.5),
        ([9.0, 9.0, 10.0, 10.0], 0.0, -0.98),
    ],
)
def test_overlaps_worked_out_by_hand(other, share, general):
    assert iou(UNIT, other) == pytest.approx(share, abs=1e-15)
    assert giou(UNIT, other) == pytest.approx(general, abs=1e-15)


def test_degenerate_boxes_cover_nothing():
    line, point, inverted = [0.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0]
    half_inverted = [1.0, 0.0, 0.0, 1.0]
    assert detection.box_area(cr.tensor([line, point, inverted, half_inverted])).tolist() == [0.0] * 4
    for a in (line, point, inverted, half_inverted):
        for b in (UNIT, line, point, inverted, half_inverted):
            assert iou(a, b) == iou(b, a) == 0.0
        assert giou(a, UNIT) == 0.0  # the hull is the unit box, and all of it is covered
        assert giou(a, [2.0, 0.0, 3.0, 1.0]) < 0
        assert giou(a, a) == 0.0


def test_nan_passes_through():
    broken = [0.0, NAN, 1.0, 1.0]
    assert np.isnan(detection.box_area(cr.tensor(broken)).item())
    assert np.isnan(iou(broken, UNIT)) and np.isnan(iou(UNIT, broken))
    assert np.isnan(giou(broken, UNIT))
    assert np.isnan(detection.box_convert(cr.tensor(broken), "xyxy", "cxcywh").numpy()).tolist() == [
        False, True, False, True,
    ]  # fmt: skip
    clipped = detection.clip_boxes_to_image(cr.tensor(broken), (5, 5)).numpy()
    assert np.isnan(clipped).tolist() == [False, True, False, False]


def test_lists_without_boxes_and_batches_of_lists():
    none, three = cr.zeros((0, 4)), cr.ones((3, 4))
    assert detection.box_iou(none, three).shape == (0, 3)
    assert detection.generalized_box_iou(three, none).shape == (3, 0)
    assert detection.box_area(none).shape == (0,)
    assert detection.box_convert(none, "xywh", "xyxy").shape == (0, 4)
    assert detection.box_iou(cr.ones((3, 4)), cr.ones((2, 5, 4))).shape == (2, 3, 5)


def test_formats_by_hand():
    as_corners = cr.tensor([[1.0, 2.0, 5.0, 4.0]])
    for name, expected in (("xywh", [1.0, 2.0, 4.0, 2.0]), ("cxcywh", [3.0, 3.0, 4.0, 2.0])):
        assert detection.box_convert(as_corners, "xyxy", name).tolist() == [expected]
        assert detection.box_convert(cr.tensor([expected]), name, "xyxy").tolist() == as_corners.tolist()
        assert detection.box_convert(cr.tensor([expected]), name, name).tolist() == [expected]


def test_integers_become_floats_and_halves_are_rounded_once():
    assert detection.box_iou(cr.tensor([[0, 0, 2, 2]]), cr.tensor([[0, 0, 2, 1]])).tolist() == [[0.5]]
    a = cr.tensor([[0.0, 0.0, 300.0, 300.0]], dtype="float16")
    assert detection.box_iou(a, a).tolist() == [[1.0]]  # 90,000 is more than float16 holds


def test_mistakes_are_explained():
    with pytest.raises(ShapeError, match=r"boxes has shape \(3,\); expected \(..., 4\)"):
        detection.box_area(cr.ones(3))
    with pytest.raises(ShapeError, match=r"Write box\[None\]"):
        detection.box_iou(cr.ones(4), cr.ones((2, 4)))
    with pytest.raises(ConfigError, match="out_fmt='xyhw' is not known"):
        detection.box_convert(cr.ones(4), "xyxy", "xyhw")


# -- for all boxes


@some
@given(POINTS, POINTS)
def test_iou_and_giou_keep_their_ranges_and_are_symmetric(a, b):
    share, general = iou(a, b), giou(a, b)
    assert 0 <= share <= 1
    assert -1 <= general <= share
    assert (share, general) == (iou(b, a), giou(b, a))


@some
@given(SORTED)
def test_a_box_is_itself(a):
    expected = 1.0 if a[0] < a[2] and a[1] < a[3] and (a[2] - a[0]) * (a[3] - a[1]) > 0 else 0.0
    assert iou(a, a) == giou(a, a) == expected


@some
@given(SORTED, SORTED, st.integers(1, 8))
def test_iou_does_not_see_the_scale(a, b, power):
    larger = [[x * 2.0**power for x in box] for box in (a, b)]
    assert iou(*larger) == iou(a, b)


@some
@given(SORTED, SORTED)
def test_iou_is_that_of_counted_cells(a, b):
    """On whole numbers the areas can be counted."""
    a, b = ([round(x / 10) for x in box] for box in (a, b))
    cells = [{(x, y) for x in range(x1, x2) for y in range(y1, y2)} for x1, y1, x2, y2 in (a, b)]
    union = len(cells[0] | cells[1])
    assert iou(a, b) == pytest.approx(len(cells[0] & cells[1]) / union if union else 0.0)


@some
@given(POINTS, st.sampled_from(["xyxy", "xywh", "cxcywh"]), st.sampled_from(["xyxy", "xywh", "cxcywh"]))
def test_formats_there_and_back(box, first, second):
    there = detection.box_convert(f64(box), first, second)
    np.testing.assert_allclose(detection.box_convert(there, second, first).numpy(), box, atol=1e-9)


@some
@given(POINTS, st.integers(1, 60), st.integers(1, 60))
def test_clipped_boxes_lie_in_the_image(box, height, width):
    x1, y1, x2, y2 = detection.clip_boxes_to_image(f64(box), (height, width)).tolist()
    assert all(0 <= x <= width for x in (x1, x2))
    assert all(0 <= y <= height for y in (y1, y2))


# -- derivatives, engines

A = np.array([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 4.0, 3.5], [6.0, 6.0, 8.0, 7.0]])
B = np.array([[0.5, -1.0, 3.0, 2.0], [1.2, 1.3, 3.0, 2.5]])


@pytest.mark.parametrize("f", [detection.box_iou, detection.generalized_box_iou])
def test_derivatives_of_overlaps(f):
    cr.check_gradients(f, f64(A), f64(B), order=2)


@pytest.mark.parametrize("f", [detection.box_area, lambda x: detection.box_convert(x, "cxcywh", "xywh")])
def test_derivatives_of_single_boxes(f):
    cr.check_gradients(f, f64(A), order=2)


def test_gradients_of_degenerate_boxes_are_finite():
    for box in ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], UNIT):
        for f in (detection.box_iou, detection.generalized_box_iou):
            for other in (UNIT, [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0]):
                gradient = cr.grad(lambda a, f=f, b=other: cr.sum(f(a, f64([b]))))(f64([box]))
                assert np.isfinite(gradient.numpy()).all()


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_overlaps_can_be_compiled(engine):
    a, b = cr.tensor(A.astype("float32")), cr.tensor(B.astype("float32"))
    for f in (detection.box_iou, detection.generalized_box_iou):
        np.testing.assert_allclose(cr.compile(f, engine=engine)(a, b).numpy(), f(a, b).numpy(), rtol=1e-5, atol=1e-6)
