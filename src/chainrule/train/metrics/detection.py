"""The metric of finding objects: mean average precision."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from chainrule.core.tensor import tensor
from chainrule.detection.boxes import box_area, pairs
from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.train.metrics.base import Metric, as_array

Protocol = Literal["coco", "voc", "voc2007"]
WRONG, RIGHT, IGNORED = 0, 1, 2
COCO_THRESHOLDS = tuple((50 + 5 * i) / 100 for i in range(10))
COCO_DETECTIONS = 100
RECALLS = {"coco": 100, "voc": None, "voc2007": 10}  # None: all of them


class MeanAveragePrecision(Metric):
    """The area below the curve of precision over recall, averaged over classes and thresholds of IoU.

    Predictions are a dict of "boxes" (images, n, 4), "scores" (images, n) and "classes" (images, n), targets one of
    "boxes" (images, m, 4), "classes" (images, m) and, where wanted, "ignored" (images, m): objects that need not be
    found. A score of −∞ or NaN, or a class below 0, marks what only fills up. Or both are lists of such dicts, one an
    image, without the first axis. Boxes are (x1, y1, x2, y2); a box is as wide as x2 − x1.

    protocol        how boxes are matched, and what the area is
      "coco"        each found box, best first, takes the object of its class with the largest IoU of those not taken;
                    at most 100 boxes of a class in an image count; precision at 101 recalls, 0, 0.01, ..., 1. The
                    IoU with an ignored object is the share of the found box that lies in it, and many may lie there
      "voc"         each found box wants the object with the largest IoU, and is wrong where that is taken; the exact
                    area (VOC 2010 and later)
      "voc2007"     the same with precision at 11 recalls, 0, 0.1, ..., 1
    iou_thresholds  one or several; by default 0.5, 0.55, ..., 0.95 for coco and 0.5 for voc

    In all three the precision at a recall is the best at this or any higher recall, and 0 beyond the last. A box is
    right where its IoU reaches the threshold. Classes without objects that are to be found do not count; NaN where
    there are none. Sources: Lin et al., "Microsoft COCO" (2014), and its evaluation code; Everingham et al., "The
    PASCAL visual object classes challenge: a retrospective" (2015), section 2.2.

    >>> import chainrule as cr
    >>> found = {"boxes": [[[0, 0, 4, 4], [5, 5, 9, 9]]], "scores": [[0.9, 0.8]], "classes": [[0, 0]]}
    >>> truth = {"boxes": [[[0, 0, 4, 5], [20, 0, 24, 4]]], "classes": [[0, 0]]}
    >>> cr.metrics.MeanAveragePrecision("voc")(found, truth)
    0.5
    """

    name = "map"
    mode = "max"
    by_rows = True

    def __init__(
        self, protocol: Protocol = "coco", iou_thresholds: float | Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if protocol not in get_args(Protocol):
            raise ConfigError(
                f"MeanAveragePrecision: protocol={protocol!r} is not known; it is one of {get_args(Protocol)}."
            )
        if iou_thresholds is None:
            iou_thresholds = COCO_THRESHOLDS if protocol == "coco" else 0.5
        self.protocol = protocol
        self.iou_thresholds = tuple(np.atleast_1d(np.asarray(iou_thresholds, np.float64)).tolist())
        if not self.iou_thresholds or not all(0 < t <= 1 for t in self.iou_thresholds):
            raise ConfigError(
                f"MeanAveragePrecision: iou_thresholds={iou_thresholds!r} are numbers above 0 and at most 1."
            )
        self.name = name or type(self).name

    def update(self, prediction: Any, target: Any) -> None:
        """Take in the images of one batch."""
        found, truths = list(_images(prediction, "scores")), list(_images(target, "ignored"))
        if len(found) != len(truths):
            raise ShapeError(f"{self.name}: predictions are for {len(found)} images, targets for {len(truths)}.")
        for image, truth in zip(found, truths, strict=True):
            image = image.only((image.values > -np.inf) & (image.classes >= 0))
            truth = truth.only(truth.classes >= 0)
            if np.isnan(truth.boxes).any():
                raise DataError(f"{self.name}: a target box is {truth.boxes[np.isnan(truth.boxes).any(axis=1)][0]}.")
            self.extend("objects", truth.classes[truth.values == 0])
            for kind in np.unique(image.classes):
                self._match(int(kind), image.only(image.classes == kind), truth.only(truth.classes == kind))

    def _match(self, kind: int, found: "Image", truth: "Image") -> None:
        """Decide for the boxes of one class in one image whether they are right, wrong, or ignored."""
        order = np.argsort(-found.values, kind="stable")[: COCO_DETECTIONS if self.protocol == "coco" else None]
        found, ignored = found.only(order), truth.values > 0
        areas = pairs(self.name, tensor(found.boxes), tensor(truth.boxes))
        shared, union = areas.shared.numpy(), areas.union.numpy()
        if self.protocol == "coco":  # of an ignored object, which may be a crowd, a box covers only a part
            union = np.where(ignored, box_area(tensor(found.boxes)).numpy()[:, None], union)
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        choose = _coco_outcomes if self.protocol == "coco" else _voc_outcomes
        self.extend("scores", found.values)
        self.extend("classes", np.full(len(found.values), kind))
        self.extend("outcomes", choose(iou, ignored, np.asarray(self.iou_thresholds)))

    def compute(self) -> float:
        """A number from 0 to 1."""
        table = list(self._table().values())
        return float(np.mean(table)) if table else math.nan

    def by_class(self) -> dict[int, float]:
        """The mean over thresholds for each class of which there are objects."""
        return {kind: float(np.mean(values)) for kind, values in self._table().items()}

    def by_threshold(self) -> dict[float, float]:
        """The mean over classes for each threshold."""
        table = list(self._table().values())
        means = np.mean(table, axis=0).tolist() if table else [math.nan] * len(self.iou_thresholds)
        return dict(zip(self.iou_thresholds, means, strict=True))

    def _table(self) -> dict[int, list[float]]:
        """The average precision of each class at each threshold."""
        kinds, counts = np.unique(self.sums.get("objects", np.zeros(0, np.int64)), return_counts=True)
        result = {}
        for kind, objects in zip(kinds.tolist(), counts.tolist(), strict=True):
            mine = self.sums["classes"] == kind if "classes" in self.sums else np.zeros(0, bool)
            if not mine.any():
                result[kind] = [0.0] * len(self.iou_thresholds)
                continue
            order = np.argsort(-self.sums["scores"][mine], kind="stable")
            outcomes = self.sums["outcomes"][mine][order]
            result[kind] = [_average_precision(column, objects, RECALLS[self.protocol]) for column in outcomes.T]
        return result


class Image(NamedTuple):
    """The boxes of one image; `values` are scores of what was found, or whether an object is ignored."""

    boxes: np.ndarray
    classes: np.ndarray
    values: np.ndarray

    def only(self, chosen: np.ndarray) -> "Image":
        """Some of them."""
        return Image(self.boxes[chosen], self.classes[chosen], self.values[chosen])


def _images(batch: Any, values: str) -> Iterator[Image]:
    """The images of a batch: a dict of arrays, or one dict for each image."""
    if not isinstance(batch, dict):
        if not all(isinstance(image, dict) for image in batch):
            raise DataError('map: takes dicts of "boxes", "classes" and, for predictions, "scores"; see its docstring.')
        for image in batch:
            yield from _images({name: as_array(part)[None] for name, part in image.items()}, values)
        return
    needed = ("boxes", "classes", "scores") if values == "scores" else ("boxes", "classes")
    missing = [name for name in needed if name not in batch]
    if missing:
        raise DataError(f"map: there is no {missing[0]!r} in the dict with {', '.join(map(repr, batch))}.")
    classes = as_array(batch["classes"])
    shape = classes.shape
    boxes = as_array(batch["boxes"]).astype(np.float64)
    others = as_array(batch.get(values, np.zeros(shape))).astype(np.float64)
    if classes.ndim != 2 or others.shape != shape or (boxes.shape != (*shape, 4) and boxes.size + classes.size):
        raise ShapeError(
            f"map: boxes (images, n, 4), classes and {values} (images, n) were expected; got {boxes.shape}, "
            f"{classes.shape} and {others.shape}."
        )
    yield from map(Image, boxes.reshape(*shape, 4), classes.astype(np.int64), others)


def _coco_outcomes(iou: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(found, thresholds). An object that is to be found goes before an ignored one; of equals the last is taken."""
    result = np.full((len(iou), len(thresholds)), WRONG, np.uint8)
    taken = np.zeros((len(thresholds), iou.shape[1]), bool)
    last = iou.shape[1] - 1
    for i, row in enumerate(iou):
        free = (row >= thresholds[:, None]) & ~taken
        for group, outcome in ((~ignored, RIGHT), (ignored, IGNORED)):
            candidates = free & group & (result[i] == WRONG)[:, None]
            chosen = candidates.any(axis=1)
            result[i, chosen] = outcome
            if outcome == RIGHT and chosen.any():
                best = last - np.where(candidates, row, -1)[:, ::-1].argmax(axis=1)
                taken[chosen, best[chosen]] = True
    return result


def _voc_outcomes(iou: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(found, thresholds)."""
    result = np.full((len(iou), len(thresholds)), WRONG, np.uint8)
    taken = np.zeros((len(thresholds), iou.shape[1]), bool)
    for i, row in enumerate(iou if iou.shape[1] else ()):
        best = int(row.argmax())
        reached = row[best] >= thresholds
        if ignored[best]:
            result[i, reached] = IGNORED
        else:
            result[i, reached & ~taken[:, best]] = RIGHT
            taken[reached, best] = True
    return result


def _average_precision(outcomes: np.ndarray, objects: int, recalls: int | None) -> float:
    """From what became of the boxes of a class, best first: at the recalls 0, 1 / recalls, ..., 1, or exactly."""
    right = np.cumsum(outcomes[outcomes != IGNORED] == RIGHT)
    precision = right / np.arange(1, len(right) + 1)
    best_from_here = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if recalls is None:
        steps = np.diff(right, prepend=0) > 0
        return float(best_from_here[:-1][steps].sum() / objects)
    # In whole numbers, so that no recall is missed by rounding.
    place = np.searchsorted(recalls * right, np.arange(recalls + 1) * objects)
    return float(best_from_here[place].sum() / (recalls + 1))
