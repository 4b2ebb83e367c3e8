"""Non-maximum suppression: of boxes that mean the same object, only the best."""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.control import scan
from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, wrap
from chainrule.detection.boxes import box_iou, boxes_of
from chainrule.errors import ConfigError, DTypeError, ShapeError, TracedValueError
from chainrule.functions.creation import eye, triu
from chainrule.functions.searching import all, argsort, take
from chainrule.functions.statistics import sum
from chainrule.primitives.operators import cast_to

BLOCK = 256  # boxes that are compared with all others at once


def non_maximum_suppression(
    boxes: Any,
    scores: Any,
    iou_threshold: float = 0.5,
    classes: Any = None,
    score_threshold: float = -np.inf,
    max_outputs: int | None = None,
) -> Tensor:
    """The numbers of the boxes that are kept, best first: (n, 4), (n,) -> (kept,) of int64.

    The box with the highest score is kept, and all whose IoU with it is above `iou_threshold` are dropped; then the
    same with those that are left. Of equal scores the first comes first. With `classes` (n,) only boxes of one class
    drop one another. Boxes whose score is not above `score_threshold`, and those with NaN in them, are not kept; at
    most `max_outputs` are. It needs values; in traced functions use `suppression_mask`. Raises TracedValueError there,
    ShapeError for shapes that do not fit, ConfigError for a threshold outside of [0, 1].
    Source: Felzenszwalb et al., "Object detection with discriminatively trained part-based models" (2010), section 3.3.

    >>> import chainrule as cr
    >>> boxes = cr.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [9.0, 9.0, 12.0, 12.0]])
    >>> scores = cr.tensor([0.6, 0.9, 0.7])
    >>> cr.detection.non_maximum_suppression(boxes, scores).tolist()
    [1, 2]
    >>> cr.detection.non_maximum_suppression(boxes, scores, classes=cr.tensor([0, 1, 1])).tolist()
    [1, 2, 0]
    """
    name = "non_maximum_suppression"
    boxes, scores, kinds = _checked(name, boxes, scores, classes, iou_threshold)
    if max_outputs is not None and max_outputs < 0:
        raise ConfigError(f"{name}: max_outputs={max_outputs} is a number of boxes, or None.")
    known = [x.value for x in (boxes, scores, kinds)]
    if any(value is None for value in known):
        raise TracedValueError(
            f"{name} needs the values of boxes and scores, since it decides how many are kept, but they are only being "
            "traced. Call it on the results of the compiled function, or use detection.suppression_mask inside."
        )
    good = (scores.numpy() > score_threshold) & ~np.isnan(boxes.numpy()).any(axis=1)
    left = np.argsort(-scores.numpy().astype(np.float64), kind="stable")
    left = left[good[left]]
    kept: list[int] = []
    limit = len(left) if max_outputs is None else max_outputs
    while len(left) and len(kept) < limit:
        head = left[:BLOCK]
        near = box_iou(boxes.numpy()[head], boxes.numpy()[left]).numpy() > iou_threshold
        near &= kinds.numpy()[head][:, None] == kinds.numpy()[left]
        dropped = np.zeros(len(left), bool)
        for i, number in enumerate(head):
            if not dropped[i]:
                kept.append(int(number))
                dropped |= near[i]
        left = left[len(head) :][~dropped[len(head) :]]
    return wrap(np.asarray(kept[:limit], np.int64))


def suppression_mask(boxes: Any, scores: Any, iou_threshold: float = 0.5, classes: Any = None) -> Tensor:
    """Whether each box is kept by non-maximum suppression: (n, 4), (n,) -> (n,) of truth values.

    The same boxes as by `non_maximum_suppression`, in a form whose shape does not depend on values, so that it can be
    compiled. It compares all pairs of boxes, in n steps one after the other. No gradient flows through it.

    >>> import chainrule as cr
    >>> boxes = cr.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [9.0, 9.0, 12.0, 12.0]])
    >>> cr.detection.suppression_mask(boxes, cr.tensor([0.6, 0.9, 0.7])).tolist()
    [False, True, True]
    """
    boxes, scores, kinds = _checked("suppression_mask", boxes, scores, classes, iou_threshold)
    n = scores.shape[0]
    order = argsort(scores, descending=True)
    boxes, scores, kinds = (take(stop_gradient(x), order, axis=0) for x in (boxes, scores, kinds))
    good = (scores > -np.inf) & all(boxes == boxes, axis=1)
    near = (box_iou(boxes, boxes) > iou_threshold) & (kinds[:, None] == kinds)
    later = triu(cast_to(near, dtypes.float32), k=1)  # row i: the worse boxes that box i drops, if it is kept itself

    def step(kept: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        own, drops = x
        return kept * (1 - sum(kept * own) * drops), None

    kept, _ = scan(step, cast_to(good, dtypes.float32), (eye(n), later))
    return take(kept > 0, argsort(order), axis=0)


def _checked(name: str, boxes: Any, scores: Any, classes: Any, iou_threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and classes (all 0 where none are given) that fit together."""
    if not 0 <= iou_threshold <= 1:
        raise ConfigError(f"{name}: iou_threshold={iou_threshold!r} is a share from 0 to 1.")
    boxes, scores = boxes_of(name, boxes), as_tensor(scores)
    kinds = as_tensor(np.zeros(scores.shape, np.int64) if classes is None else classes)
    if boxes.ndim != 2 or scores.shape != boxes.shape[:1] or kinds.shape != scores.shape:
        raise ShapeError(
            f"{name} takes the boxes (n, 4) of one image, scores (n,) and classes (n,); got {boxes.shape}, "
            f"{scores.shape} and {kinds.shape}."
        )
    if not dtypes.is_integer(kinds.dtype):
        raise DTypeError(f"{name}: classes are whole numbers; got {kinds.dtype.name}. Write classes.astype('int64').")
    return boxes, scores, kinds
