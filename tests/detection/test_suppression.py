"""Non-maximum suppression: against loops, its promises, ties, classes, broken boxes, both of its forms."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import detection
from chainrule.detection import suppression
from chainrule.errors import ConfigError, DTypeError, ShapeError, TracedValueError

FAR = [[0.0, 0.0, 1.0, 1.0], [5.0, 0.0, 6.0, 1.0], [9.0, 9.0, 10.0, 10.0]]


def case(seed, n, levels=1000):
    """Boxes that overlap often, scores with ties, classes."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 12, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 8, (n, 2))], axis=1).astype(np.float32)
    return boxes, (rng.integers(0, levels, n) / levels).astype(np.float32), rng.integers(0, 3, n)


def slow(boxes, scores, threshold, classes):
    left, kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), []
    while left:
        best, *left = left
        kept.append(best)

        def near(i, best=best):
            iou = detection.box_iou(cr.tensor(boxes[[best]]), cr.tensor(boxes[[i]])).item()
            return iou > np.float32(threshold) and classes[i] == classes[best]  # in the dtype of the boxes

        left = [i for i in left if not near(i)]
    return kept


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 14), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([3, 1000]))
@example(1764, 12, 0.3, 3)  # an overlap of 0.3 as float32 has it
def test_both_forms_do_what_loops_do(seed, n, threshold, levels):
    boxes, scores, classes = case(seed, n, levels)
    expected = slow(boxes, scores, threshold, classes)
    given = cr.tensor(boxes), cr.tensor(scores), threshold, cr.tensor(classes)
    kept = detection.non_maximum_suppression(*given)
    assert (kept.tolist(), kept.dtype) == (expected, cr.int64)
    mask = detection.suppression_mask(*given)
    assert (np.flatnonzero(mask.numpy()).tolist(), mask.shape) == (sorted(expected), (n,))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_no_two_that_are_kept_overlap_and_each_other_overlaps_with_a_better_one(seed, threshold):
    boxes, scores, _ = case(seed, 40)
    kept = detection.non_maximum_suppression(boxes, scores, threshold).numpy()
    iou = detection.box_iou(boxes, boxes).numpy()
    among = iou[np.ix_(kept, kept)] > threshold
    np.fill_diagonal(among, False)
    assert not among.any()
    assert (np.diff(scores[kept]) <= 0).all()
    for i in set(range(40)) - set(kept.tolist()):
        assert any(iou[i, k] > threshold and scores[k] >= scores[i] for k in kept)


def test_more_boxes_than_fit_into_a_block(monkeypatch):
    boxes, scores, classes = case(1, 60)
    expected = slow(boxes, scores, 0.3, classes)
    monkeypatch.setattr(suppression, "BLOCK", 7)
    assert detection.non_maximum_suppression(boxes, scores, 0.3, classes).tolist() == expected
    assert detection.non_maximum_suppression(boxes, scores, 0.3, classes, max_outputs=9).tolist() == expected[:9]
    assert detection.non_maximum_suppression(boxes, scores, 0.3, classes, max_outputs=0).tolist() == []


def test_a_box_that_is_dropped_drops_nobody():
    chain = cr.tensor([[0.0, 0.0, 4.0, 1.0], [2.0, 0.0, 6.0, 1.0], [4.0, 0.0, 8.0, 1.0]])
    scores = cr.tensor([0.9, 0.8, 0.7])
    assert detection.non_maximum_suppression(chain, scores, 0.3).tolist() == [0, 2]
    assert detection.suppression_mask(chain, scores, 0.3).tolist() == [True, False, True]


def test_equal_scores_go_by_their_place_and_an_iou_at_the_threshold_stays():
    same = cr.tensor([[0.0, 0.0, 2.0, 2.0]] * 3)
    assert detection.non_maximum_suppression(same, cr.ones(3)).tolist() == [0]
    halves = cr.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    assert detection.non_maximum_suppression(halves, cr.ones(2), 0.5).tolist() == [0, 1]
    assert detection.non_maximum_suppression(halves, cr.ones(2), 0.49).tolist() == [0]


@pytest.mark.parametrize(("score", "box"), [(math.nan, FAR[1]), (-math.inf, FAR[1]), (0.9, [5.0, math.nan, 6.0, 1.0])])
def test_what_is_broken_is_not_kept_and_drops_nobody(score, box):
    boxes, scores = cr.tensor([FAR[0], box, FAR[0]]), cr.tensor([0.5, score, 0.6])
    assert detection.non_maximum_suppression(boxes, scores).tolist() == [2]
    assert detection.suppression_mask(boxes, scores).tolist() == [False, False, True]


def test_low_scores_and_degenerate_boxes():
    scores = cr.tensor([0.5, 0.2, 0.7])
    assert detection.non_maximum_suppression(cr.tensor(FAR), scores, score_threshold=0.2).tolist() == [2, 0]
    points = cr.tensor([[1.0, 1.0, 1.0, 1.0]] * 2)
    assert detection.non_maximum_suppression(points, cr.ones(2)).tolist() == [0, 1]  # they overlap with nothing
    assert detection.non_maximum_suppression(cr.zeros((0, 4)), cr.zeros(0)).tolist() == []
    assert detection.suppression_mask(cr.zeros((0, 4)), cr.zeros(0)).tolist() == []


@pytest.mark.filterwarnings("ignore:There is no native code for scan")
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_the_mask_can_be_compiled(engine):
    boxes, scores, classes = map(cr.tensor, case(4, 20))
    compiled = cr.compile(lambda b, s, c: detection.suppression_mask(b, s, 0.3, c), engine=engine)
    assert compiled(boxes, scores, classes).tolist() == detection.suppression_mask(boxes, scores, 0.3, classes).tolist()


def test_mistakes_are_explained():
    boxes, scores = cr.tensor(FAR), cr.ones(3)
    with pytest.raises(TracedValueError, match=r"use detection\.suppression_mask inside"):
        cr.compile(detection.non_maximum_suppression, engine="reference")(boxes, scores)
    with pytest.raises(ShapeError, match="of one image"):
        detection.non_maximum_suppression(boxes, cr.ones(2))
    with pytest.raises(ShapeError, match="of one image"):
        detection.suppression_mask(boxes, scores, classes=cr.tensor([0, 1]))
    with pytest.raises(ConfigError, match=r"iou_threshold=1\.5"):
        detection.suppression_mask(boxes, scores, 1.5)
    with pytest.raises(ConfigError, match="max_outputs=-1"):
        detection.non_maximum_suppression(boxes, scores, max_outputs=-1)
    with pytest.raises(DTypeError, match="classes are whole numbers"):
        detection.non_maximum_suppression(boxes, scores, classes=scores)
