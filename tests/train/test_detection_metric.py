"""Mean average precision: worked out by hand, against a loop that knows each protocol, batches, mistakes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.train.metrics import MeanAveragePrecision

PROTOCOLS = ("coco", "voc", "voc2007")


def box(i, width=4.0):
    """Box number i of a row of boxes that do not touch; narrower ones have the IoU width / 4 with it."""
    return [10.0 * i, 0.0, 10.0 * i + width, 4.0]


def image(boxes, classes=None, **values):
    classes = [0] * len(boxes) if classes is None else classes
    return {"boxes": np.asarray(boxes, np.float64).reshape(-1, 4), "classes": np.asarray(classes, int), **values}


def value(found, scores, truth, protocol="voc", thresholds=0.5, **options):
    metric = MeanAveragePrecision(protocol, thresholds)
    return metric([image(found, scores=np.asarray(scores, float))], [image(truth, **options)])


# -- by hand


@pytest.mark.parametrize(
    ("outcomes", "objects", "coco", "voc", "voc2007"),
    [
        ("1", 1, 1.0, 1.0, 1.0),
        ("0", 1, 0.0, 0.0, 0.0),
        ("", 1, 0.0, 0.0, 0.0),
        ("11", 2, 1.0, 1.0, 1.0),
        ("1", 2, 51 / 101, 1 / 2, 6 / 11),  # recalls 0 to 0.5 are reached
        ("01", 1, 1 / 2, 1 / 2, 1 / 2),
        ("10", 1, 1.0, 1.0, 1.0),  # what comes behind the last object costs nothing
        ("101", 2, (51 + 50 * 2 / 3) / 101, (1 + 2 / 3) / 2, (6 + 5 * 2 / 3) / 11),
        ("0111", 3, 3 / 4, 3 / 4, 3 / 4),  # the best precision at this or a higher recall
        ("1001", 3, (34 + 33 / 2) / 101, (1 + 1 / 2) / 3, (4 + 3 / 2) / 11),
    ],
)
def test_the_area_worked_out_by_hand(outcomes, objects, coco, voc, voc2007):
    """Found boxes in the order of their scores: 1 lies on an object, 0 nowhere."""
    right = iter(range(objects))
    found = [box(next(right)) if o == "1" else box(50 + i) for i, o in enumerate(outcomes)]
    scores = [1 - i / 10 for i in range(len(outcomes))]
    truth = [box(i) for i in range(objects)]
    for protocol, expected in zip(PROTOCOLS, (coco, voc, voc2007), strict=True):
        assert value(found, scores, truth, protocol) == pytest.approx(expected, abs=1e-15)


def test_recalls_are_counted_in_whole_numbers():
    """7 of 100 objects are a recall of 0.07, though 0.07 · 100 is not 7 in floating point."""
    truth = [box(i) for i in range(100)]
    for n in (7, 14, 28, 29, 55, 56, 57):
        assert value(truth[:n], [1.0] * n, truth, "coco") == (n + 1) / 101


def test_thresholds_of_coco():
    metric = MeanAveragePrecision()
    assert metric.iou_thresholds == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    metric.update([image([box(0, 3.0)], scores=[1.0])], [image([box(0)])])
    assert metric.by_threshold() == {t: float(t <= 0.75) for t in metric.iou_thresholds}
    assert metric.compute() == pytest.approx(0.6)


def test_an_object_is_found_once():
    assert value([box(0), box(0)], [0.9, 0.8], [box(0), box(1)]) == 1 / 2
    assert value([box(0), box(0), box(1)], [0.9, 0.8, 0.7], [box(0), box(1)]) == pytest.approx((1 + 2 / 3) / 2)


def test_a_box_that_wants_a_taken_object_may_take_the_next_best_for_coco_alone():
    truth = [[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0]]
    found = [[0.0, 0.0, 10.0, 10.0], [0.5, 0.0, 10.5, 10.0]]  # the second is nearer to the first object
    assert value(found, [0.9, 0.8], truth, "coco", 0.5) == 1.0
    assert value(found, [0.9, 0.8], truth, "voc", 0.5) == 0.5


def test_boxes_find_objects_of_their_class_in_their_image():
    found, truth = image([box(0), box(1)], [0, 1], scores=[0.9, 0.8]), image([box(0), box(1)], [1, 1])
    metric = MeanAveragePrecision("voc")
    metric.update([found, image([box(0)], [1], scores=[0.7])], [truth, image([box(5)], [1])])
    assert metric.by_class() == {1: pytest.approx(1 / 3)}  # of three objects the first found one is right
    assert metric.compute() == pytest.approx(1 / 3)
    metric.update([image([], scores=[])], [image([box(0)], [7])])
    assert metric.by_class() == {1: pytest.approx(1 / 3), 7: 0.0}
    assert metric.compute() == pytest.approx(1 / 6)


def test_ignored_objects_count_neither_way():
    ignored = np.array([0, 1])
    for protocol in PROTOCOLS:
        assert value([box(0), box(1)], [0.8, 0.9], [box(0), box(1)], protocol, ignored=ignored) == 1.0
        assert value([box(0), box(2)], [0.8, 0.9], [box(0), box(1)], protocol, ignored=ignored) == 0.5
    crowd = [0.0, 0.0, 100.0, 100.0]
    inside = [[float(i), 0.0, i + 3.0, 3.0] for i in range(0, 40, 5)]
    assert value([*inside, box(20)], [0.9] * 8 + [0.5], [crowd, box(20)], "coco", ignored=[1, 0]) == 1.0
    assert value([*inside, box(20)], [0.9] * 8 + [0.5], [crowd, box(20)], "voc", ignored=[1, 0]) == pytest.approx(1 / 9)


def test_an_object_to_be_found_goes_before_an_ignored_one():
    truth = [[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]]
    assert value([truth[1]], [1.0], truth, "coco", ignored=[0, 1]) == 1.0


def test_at_most_100_boxes_of_a_class_in_an_image_count_for_coco():
    found = [box(50 + i) for i in range(100)] + [box(0)]
    scores = np.linspace(1, 0.5, 101)
    assert value(found, scores, [box(0)], "coco") == 0.0
    assert value(found, scores, [box(0)], "voc") == pytest.approx(1 / 101)


def test_what_fills_up_does_not_count():
    found = {
        "boxes": [[box(0), box(1), box(2), box(3)]], "scores": [[0.5, -math.inf, math.nan, 0.9]],
        "classes": [[0, 0, 0, -1]],
    }  # fmt: skip
    truth = {"boxes": [[box(0), [math.nan] * 4]], "classes": [[0, -1]]}
    assert MeanAveragePrecision("voc")(found, truth) == 1.0


def test_broken_boxes_are_wrong_and_nothing_is_nan():
    assert value([[math.nan] * 4, box(0)], [0.9, 0.8], [box(0)]) == 0.5
    assert value([[4.0, 0.0, 0.0, 4.0], box(0)], [0.9, 0.8], [box(0)]) == 0.5
    assert math.isnan(value([box(0)], [0.9], []))
    assert math.isnan(MeanAveragePrecision().compute())
    assert value([], [], [box(0)]) == 0.0
    with pytest.raises(DataError, match="a target box is"):
        value([box(0)], [1.0], [[math.nan] * 4])


# -- against a loop


def slow_average_precision(images, protocol, threshold):
    """One class, by the words of the docstring. Each image is (boxes, scores, objects, ignored)."""

    def area(b):
        return max(b[2] - b[0], 0) * max(b[3] - b[1], 0)

    def share(b, o, ignored):
        inner = area((max(b[0], o[0]), max(b[1], o[1]), min(b[2], o[2]), min(b[3], o[3])))
        union = area(b) if ignored and protocol == "coco" else area(b) + area(o) - inner
        return inner / union if union else 0

    listed, wanted = [], 0
    for boxes, scores, objects, ignored in images:
        wanted += len(objects) - sum(ignored)
        taken = [False] * len(objects)
        for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
            shares = [share(boxes[i], o, skip) for o, skip in zip(objects, ignored, strict=True)]
            if protocol == "coco":
                good = [j for j in range(len(objects)) if shares[j] >= threshold and not (taken[j] and not ignored[j])]
                best = max(good, key=lambda j: (not ignored[j], shares[j], j), default=None)
            else:
                best = max(range(len(objects)), key=lambda j: (shares[j], -j), default=None)
                if best is not None and shares[best] < threshold:
                    best = None
            if best is not None and ignored[best]:
                continue
            listed.append((scores[i], best is not None and not taken[best]))
            if best is not None:
                taken[best] = True
    listed.sort(key=lambda pair: -pair[0])
    points, right = [], 0
    for n, (_, good) in enumerate(listed, 1):
        right += good
        points.append((right, right / n))
    if protocol == "voc":
        return sum(max([p for r, p in points if r >= k], default=0) for k in range(1, wanted + 1)) / wanted
    steps = 100 if protocol == "coco" else 10
    best = [max([p for r, p in points if r * steps >= k * wanted], default=0) for k in range(steps + 1)]
    return sum(best) / (steps + 1)


def random_image(rng):
    def boxes(n):
        low = rng.integers(0, 6, (n, 2))
        return np.concatenate([low, low + rng.integers(0, 6, (n, 2))], axis=1).astype(float)

    n, m = rng.integers(0, 7, 2)
    found = image(boxes(n), rng.integers(0, 2, n), scores=rng.permutation(n) / 7 + rng.random())
    return found, image(boxes(m), rng.integers(0, 2, m), ignored=(rng.random(m) < 0.2).astype(int))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(PROTOCOLS), st.sampled_from([0.3, 0.5, 0.75]))
def test_the_metric_does_what_its_docstring_says(seed, protocol, threshold):
    rng = np.random.default_rng(seed)
    pairs = [random_image(rng) for _ in range(4)]
    metric = MeanAveragePrecision(protocol, threshold)
    metric.update([found for found, _ in pairs], [truth for _, truth in pairs])
    expected = {}
    for kind in (0, 1):
        images = []
        for found, truth in pairs:
            mine, own = found["classes"] == kind, truth["classes"] == kind
            images.append((
                found["boxes"][mine].tolist(), found["scores"][mine].tolist(), truth["boxes"][own].tolist(),
                truth["ignored"][own].tolist(),
            ))  # fmt: skip
        if sum(len(objects) - sum(ignored) for _, _, objects, ignored in images):
            expected[kind] = pytest.approx(slow_average_precision(images, protocol, threshold), abs=1e-12)
    assert metric.by_class() == expected


# -- batches, checkpoints, mistakes


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_matters_not_how_images_are_cut_into_batches(protocol):
    rng = np.random.default_rng(1)
    found = {"boxes": rng.random((8, 6, 4)), "scores": rng.random((8, 6)), "classes": rng.integers(0, 3, (8, 6))}
    truth = {"boxes": rng.random((8, 3, 4)), "classes": rng.integers(-1, 3, (8, 3))}
    for part in (found, truth):
        part["boxes"][..., 2:] += part["boxes"][..., :2] * 0.3
    whole = MeanAveragePrecision(protocol, 0.1)(found, truth)
    assert 0 < whole < 1
    for size in (1, 3):
        metric = MeanAveragePrecision(protocol, 0.1)
        for i in range(0, 8, size):
            metric.update(*({k: v[i : i + size] for k, v in part.items()} for part in (found, truth)))
        assert metric.compute() == whole
    lists = [[{k: v[i] for k, v in part.items()} for i in range(8)] for part in (found, truth)]
    assert MeanAveragePrecision(protocol, 0.1)(*lists) == whole
    tensors = [{k: cr.tensor(v) for k, v in part.items()} for part in (found, truth)]
    assert MeanAveragePrecision(protocol, 0.1)(*tensors) == whole


def test_mistakes_are_explained():
    found, truth = image([box(0)], scores=[1.0]), image([box(0)])
    with pytest.raises(ConfigError, match="protocol='pascal' is not known"):
        MeanAveragePrecision("pascal")
    with pytest.raises(ConfigError, match="numbers above 0 and at most 1"):
        MeanAveragePrecision("coco", [0.5, 50])
    with pytest.raises(ShapeError, match="predictions are for 1 images, targets for 2"):
        MeanAveragePrecision()([found], [truth, truth])
    with pytest.raises(DataError, match="there is no 'scores'"):
        MeanAveragePrecision()([truth], [truth])
    with pytest.raises(ShapeError, match=r"boxes \(images, n, 4\)"):
        MeanAveragePrecision()([found | {"scores": [1.0, 2.0]}], [truth])
    with pytest.raises(DataError, match="takes dicts"):
        MeanAveragePrecision()([[0.0, 0.0, 1.0, 1.0]], [truth])
