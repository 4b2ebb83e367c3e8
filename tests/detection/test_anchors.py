"""Anchors: where they lie, which box they stand for, how boxes are told by them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import detection
from chainrule.errors import ConfigError, ShapeError

RNG = np.random.default_rng(3)


def random_boxes(rng, *shape):
    low = rng.uniform(0, 20, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(1, 10, (*shape, 2))], axis=-1)


# -- the grid


def test_anchors_have_the_places_areas_and_ratios_asked_for():
    anchors = detection.anchor_boxes((60, 80), (3, 2), [8, 16, 32], [0.5, 2.0], dtype="float64")
    assert anchors.shape == (3 * 2 * 2 * 3, 4)
    boxes = detection.box_convert(anchors, "xyxy", "cxcywh").numpy().reshape(3, 2, 2, 3, 4)
    np.testing.assert_allclose(boxes[..., 0], np.array([20, 60])[None, :, None, None] * np.ones((3, 2, 2, 3)))
    np.testing.assert_allclose(boxes[..., 1], np.array([10, 30, 50])[:, None, None, None] * np.ones((3, 2, 2, 3)))
    np.testing.assert_allclose(np.sqrt(boxes[..., 2] * boxes[..., 3]), np.array([8, 16, 32]) * np.ones((3, 2, 2, 3)))
    np.testing.assert_allclose(boxes[..., 3] / boxes[..., 2], np.array([0.5, 2.0])[:, None] * np.ones((3, 2, 2, 3)))


@pytest.mark.parametrize("wrong", [{"grid": (0, 2)}, {"sizes": []}, {"aspect_ratios": [-1.0]}, {"sizes": [math.nan]}])
def test_anchors_need_positive_numbers(wrong):
    given = {"image_size": (8, 8), "grid": (2, 2), "sizes": [4.0]} | wrong
    with pytest.raises(ConfigError, match=f"anchor_boxes: {next(iter(wrong))}="):
        detection.anchor_boxes(**given)


# -- matching


def slow_match(anchors, boxes, high, low, claim):
    """By loops over what the docstring says."""

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        if not (width > 0 and height > 0):
            return 0.0
        shared = width * height
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    table = [[iou(a, b) for b in boxes] for a in anchors]
    found = []
    for row in table:
        best = max(row)
        found.append(row.index(best) if best >= high else -2 if best >= low else -1)
    wanted = {}
    for j in range(len(boxes)):
        column = [row[j] for row in table]
        if max(column) > 0:
            wanted.setdefault(column.index(max(column)), []).append(j)
    for i, candidates in wanted.items() if claim else ():
        found[i] = max(candidates, key=lambda j: (table[i][j], -j))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_matching_does_what_it_says(seed, n, m, claim):
    rng = np.random.default_rng(seed)
    anchors, boxes = random_boxes(rng, n), random_boxes(rng, m)
    boxes[rng.random(m) < 0.2] = 0
    found = detection.match_anchors(cr.tensor(anchors), cr.tensor(boxes), 0.4, 0.2, claim)
    assert found.tolist() == slow_match(anchors.tolist(), boxes.tolist(), 0.4, 0.2, claim)
    assert found.dtype == cr.int64


def test_no_box_that_overlaps_is_lost_unless_two_want_the_same_anchor():
    anchors = cr.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    boxes = cr.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 3.0, 3.0], [29.0, 9.0, 40.0, 40.0]])
    assert detection.match_anchors(anchors, boxes).tolist() == [1, 2]
    assert detection.match_anchors(anchors, boxes, claim=False).tolist() == [-1, -1]


def test_nothing_to_match_is_background():
    anchors = cr.tensor(random_boxes(RNG, 3))
    assert detection.match_anchors(anchors, cr.zeros((0, 4))).tolist() == [-1] * 3
    assert detection.match_anchors(anchors, cr.zeros((2, 4))).tolist() == [-1] * 3
    assert detection.match_anchors(anchors, cr.full((2, 4), math.nan)).tolist() == [-1] * 3
    assert detection.match_anchors(cr.zeros((0, 4)), cr.ones((2, 4))).tolist() == []
    with pytest.raises(ConfigError, match=r"low=0\.6, high=0\.5"):
        detection.match_anchors(anchors, anchors, 0.5, 0.6)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_batches_are_matched_image_by_image_and_compiled(engine):
    anchors, boxes = (cr.tensor(random_boxes(RNG, *shape).astype("float32")) for shape in ((9,), (3, 4)))
    together = cr.compile(detection.match_anchors, engine=engine)(anchors, boxes)
    assert together.tolist() == [detection.match_anchors(anchors, boxes[i]).tolist() for i in range(3)]


# -- telling boxes by anchors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.floats(0.1, 20)] * 4))
def test_encoding_and_decoding_undo_each_other(seed, weights):
    rng = np.random.default_rng(seed)
    boxes, anchors = (cr.tensor(random_boxes(rng, 5)) for _ in range(2))
    deltas = detection.encode_boxes(boxes, anchors, weights)
    np.testing.assert_allclose(detection.decode_boxes(deltas, anchors, weights).numpy(), boxes.numpy(), rtol=1e-9)


def test_encoding_by_hand():
    anchor, box = cr.tensor([0.0, 0.0, 10.0, 20.0]), cr.tensor([5.0, 0.0, 25.0, 10.0])
    expected = [1.0, -0.5, math.log(2), -2 * math.log(2)]
    found = detection.encode_boxes(box, anchor, (1, 2, 1, 2))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_decoding_is_limited_and_encoding_shows_degenerate_boxes():
    anchor = cr.tensor([0.0, 0.0, 16.0, 16.0])
    low, high = detection.decode_boxes(cr.tensor([0.0, 0.0, 1e4, -1e4]), anchor).tolist()[::2]
    assert high - low == pytest.approx(1000, rel=1e-5)
    flat = detection.encode_boxes(cr.tensor([3.0, 3.0, 3.0, 5.0]), anchor).tolist()
    assert flat[2] == -math.inf and all(map(math.isfinite, (*flat[:2], flat[3])))


def test_anchors_that_do_not_fit_are_explained():
    with pytest.raises(ShapeError, match=r"Take the box of each anchor first: boxes\[matches\]"):
        detection.encode_boxes(cr.ones((3, 4)), cr.ones((9, 4)))
    with pytest.raises(ShapeError, match="deltas has shape"):
        detection.decode_boxes(cr.ones((9, 3)), cr.ones((9, 4)))


def test_derivatives_of_encoding_and_decoding():
    anchors = cr.tensor(random_boxes(RNG, 3))
    deltas = cr.tensor(RNG.normal(0, 0.5, (2, 3, 4)))
    cr.check_gradients(lambda d: detection.decode_boxes(d, anchors, (10, 10, 5, 5)), deltas, order=2)
    cr.check_gradients(lambda b: detection.encode_boxes(b, anchors), cr.tensor(random_boxes(RNG, 3)), order=2)
