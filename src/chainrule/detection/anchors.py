"""Anchors: boxes laid out over an image, which of them stands for which object, and how far it is from it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.detection.boxes import box_iou, boxes_of, corners
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.choice import clip, where
from chainrule.functions.creation import arange
from chainrule.functions.exponential import exp, log
from chainrule.functions.manipulation import concat
from chainrule.functions.precision import rounded_once
from chainrule.functions.searching import any, argmax
from chainrule.functions.statistics import max

BACKGROUND, IGNORED = -1, -2
LIMIT = math.log(1000 / 16)


def anchor_boxes(
    image_size: tuple[int, int],
    grid: tuple[int, int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float] = (1.0,),
    dtype: Any = dtypes.float32,
) -> Tensor:
    """Boxes around the middle of each cell of a grid (rows, columns) over an image (height, width).

    Each cell has one for each of `aspect_ratios` (height / width), and for each of these one for each of `sizes` (the
    root of the area): (rows · columns · ratios · sizes, 4), cells row by row. Several feature maps: one call each, and
    `cr.concat`. Raises ConfigError unless all numbers are positive.
    Source: Ren et al., "Faster R-CNN" (2015), section 3.1.1.

    >>> import chainrule as cr
    >>> cr.detection.anchor_boxes((8, 16), (1, 2), sizes=[4.0], aspect_ratios=[1.0, 4.0]).tolist()
    [[2.0, 2.0, 6.0, 6.0], [3.0, 0.0, 5.0, 8.0], [10.0, 2.0, 14.0, 6.0], [11.0, 0.0, 13.0, 8.0]]
    """
    for name, given in (("image_size", image_size), ("grid", grid), ("sizes", sizes), ("aspect_ratios", aspect_ratios)):
        if not len(given) or not all(math.isfinite(n) and n > 0 for n in given):
            raise ConfigError(f"anchor_boxes: {name}={given!r} takes positive numbers.")
    (height, width), (rows, columns) = image_size, grid
    roots = np.sqrt(np.asarray(aspect_ratios, np.float64))[:, None]
    lengths = np.asarray(sizes, np.float64)
    extents = np.stack([lengths / roots, lengths * roots], axis=-1).reshape(-1, 2)  # (ratios · sizes, 2): width, height
    x, y = (np.arange(columns) + 0.5) * (width / columns), (np.arange(rows) + 0.5) * (height / rows)
    middles = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)  # (cells, 1, 2)
    boxes = np.concatenate([middles - extents / 2, middles + extents / 2], axis=-1)
    return wrap(boxes.reshape(-1, 4).astype(dtypes.as_dtype(dtype)))


def match_anchors(anchors: Any, boxes: Any, high: float = 0.5, low: float | None = None, claim: bool = True) -> Tensor:
    """Which box each anchor stands for: (n, 4), (..., m, 4) -> (..., n) of int64.

    That is the number of the box with which it has the largest IoU (of equal ones the first), where this is at least
    `high`; −1 (background) where it is below `low` (by default `high`), and −2 (to be ignored) between the two. With
    `claim`, a box takes the anchor with which it overlaps most in any case, so that no box that overlaps with an anchor
    is lost; where several boxes want the same, the one with the largest IoU gets it. Boxes of area 0 match nothing: use
    such to fill up batches. Raises ConfigError unless 0 < low ≤ high.
    Source: Liu et al., "SSD: single shot multibox detector" (2016), section 2.2.

    >>> import chainrule as cr
    >>> anchors = cr.tensor([[0.0, 0.0, 4.0, 4.0], [3.0, 0.0, 7.0, 4.0], [8.0, 0.0, 12.0, 4.0]])
    >>> boxes = cr.tensor([[0.0, 0.0, 4.0, 5.0], [9.0, 0.0, 19.0, 4.0]])
    >>> cr.detection.match_anchors(anchors, boxes).tolist()
    [0, -1, 1]
    """
    low = high if low is None else low
    if not 0 < low <= high:
        raise ConfigError(f"match_anchors: the thresholds are 0 < low ≤ high; got low={low!r}, high={high!r}.")
    iou = box_iou(anchors, boxes)  # (..., n, m)
    if not iou.shape[-1] or not iou.shape[-2]:
        return full(iou.shape[:-1], BACKGROUND, dtypes.int64)
    iou = where(iou > 0, iou, 0)  # NaN overlaps with nothing
    best, box = max(iou, axis=-1), argmax(iou, axis=-1)
    found = where(best >= high, box, where(best >= low, IGNORED, BACKGROUND))
    if not claim:
        return found
    wanted = argmax(iou, axis=-2)[..., None, :] == arange(iou.shape[-2])[:, None]  # (..., n, m)
    claims = where(wanted, iou, 0)
    return where(any(claims > 0, axis=-1), argmax(claims, axis=-1), found)


@rounded_once
def encode_boxes(boxes: Any, anchors: Any, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """How boxes differ from their anchors, as a network learns it: (..., 4), (..., 4) -> (..., 4).

    ((x − x_anchor) / w_anchor, (y − y_anchor) / h_anchor, log(w / w_anchor), log(h / h_anchor)) times `weights`, for
    centres (x, y), widths w and heights h. Degenerate boxes and anchors give ±∞ or NaN: mask them with `cr.where`.
    Source: Girshick et al., "Rich feature hierarchies for accurate object detection" (2014), appendix C.

    >>> import chainrule as cr
    >>> cr.detection.encode_boxes(cr.tensor([3.0, 2.0, 7.0, 4.0]), cr.tensor([2.0, 2.0, 6.0, 4.0])).tolist()
    [0.25, 0.0, 0.0, 0.0]
    """
    (low, high), (anchor_low, anchor_high) = _two("encode_boxes", boxes, anchors)
    extents, anchor_extents = high - low, anchor_high - anchor_low
    shift = ((low + high) / 2 - (anchor_low + anchor_high) / 2) / anchor_extents
    x, y, w, h = weights
    return concat([shift * _pair(x, y, shift), log(extents / anchor_extents) * _pair(w, h, shift)], axis=-1)


@rounded_once
def decode_boxes(
    deltas: Any, anchors: Any, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), limit: float = LIMIT
) -> Tensor:
    """The boxes that differ from their anchors by `deltas`: what `encode_boxes` did is undone.

    (..., 4), (..., 4) -> (..., 4). Logarithms of the extents beyond `limit` count as `limit`, so that a network that
    has not learned much yet makes no infinite boxes.

    >>> import chainrule as cr
    >>> cr.detection.decode_boxes(cr.tensor([0.25, 0.0, 0.0, 0.0]), cr.tensor([2.0, 2.0, 6.0, 4.0])).tolist()
    [3.0, 2.0, 7.0, 4.0]
    """
    (shift, growth), (anchor_low, anchor_high) = _two("decode_boxes", deltas, anchors, "deltas")
    x, y, w, h = weights
    anchor_extents = anchor_high - anchor_low
    middle = (anchor_low + anchor_high) / 2 + shift / _pair(x, y, shift) * anchor_extents
    half = exp(clip(growth / _pair(w, h, growth), max=limit)) * anchor_extents / 2
    return concat([middle - half, middle + half], axis=-1)


def _two(name: str, boxes: Any, anchors: Any, argument: str = "boxes") -> tuple[Any, Any]:
    first, second = boxes_of(name, boxes, argument), boxes_of(name, anchors, "anchors")
    if first.shape[-second.ndim :] != second.shape:
        raise ShapeError(
            f"{name}: {argument} has shape {first.shape} and anchors has shape {second.shape}; expected are "
            f"(..., n, 4) and (n, 4), or equal shapes. Take the box of each anchor first: boxes[matches]."
        )
    return corners(first), corners(second)


def _pair(first: float, second: float, like: Tensor) -> Tensor:
    return wrap(np.asarray([first, second], like.dtype))
