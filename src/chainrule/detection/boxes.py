"""Boxes: their formats, areas, and overlaps. Everything here can be differentiated and traced."""

from typing import Any, NamedTuple

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.arithmetic import maximum, minimum
from chainrule.functions.choice import clip, over
from chainrule.functions.manipulation import concat, stack
from chainrule.functions.precision import rounded_once
from chainrule.primitives.operators import cast_to

FORMATS = ("xyxy", "xywh", "cxcywh")


def boxes_of(name: str, boxes: Any, argument: str = "boxes") -> Tensor:
    """Floating-point boxes (..., 4); ShapeError for another last axis."""
    boxes = as_tensor(boxes)
    if boxes.shape[-1:] != (4,):
        raise ShapeError(f"{name}: {argument} has shape {boxes.shape}; expected (..., 4), four numbers a box.")
    return boxes if dtypes.is_float(boxes.dtype) else cast_to(boxes, dtypes.default_float)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The left upper and the right lower corner, each (..., 2)."""
    return boxes[..., :2], boxes[..., 2:]


def product(extents: Tensor) -> Tensor:
    """Width times height."""
    return extents[..., 0] * extents[..., 1]


@rounded_once
def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Tensor:
    """Boxes (..., 4) in another format.

    "xyxy": two corners; "xywh": the left upper corner, width, height; "cxcywh": the centre, width, height.
    Raises ConfigError for another format, ShapeError for another last axis.

    >>> import chainrule as cr
    >>> cr.detection.box_convert(cr.tensor([1.0, 2.0, 5.0, 4.0]), "xyxy", "cxcywh").tolist()
    [3.0, 3.0, 4.0, 2.0]
    """
    for argument, given in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if given not in FORMATS:
            raise ConfigError(f"box_convert: {argument}={given!r} is not known; it is one of {', '.join(FORMATS)}.")
    boxes = boxes_of("box_convert", boxes)
    if in_fmt == out_fmt:
        return boxes
    low, extents = corners(boxes)
    if in_fmt == "xyxy":
        extents = extents - low
    elif in_fmt == "cxcywh":
        low = low - extents / 2
    if out_fmt == "xyxy":
        return concat([low, low + extents], axis=-1)
    return concat([low if out_fmt == "xywh" else low + extents / 2, extents], axis=-1)


@rounded_once
def box_area(boxes: Any) -> Tensor:
    """Width times height: (..., 4) -> (...). 0 for degenerate boxes.

    >>> import chainrule as cr
    >>> cr.detection.box_area(cr.tensor([[0.0, 0.0, 4.0, 3.0], [4.0, 0.0, 0.0, 3.0]])).tolist()
    [12.0, 0.0]
    """
    low, high = corners(boxes_of("box_area", boxes))
    return product(clip(high - low, 0))


class Overlap(NamedTuple):
    """Areas (...) of two boxes: what they share, what they cover together, and the least box around them."""

    shared: Tensor
    union: Tensor
    hull: Tensor


def overlap(a: Tensor, b: Tensor) -> Overlap:
    """Box by box, for shapes that stretch to one."""
    (low_a, high_a), (low_b, high_b) = corners(a), corners(b)
    shared = product(clip(minimum(high_a, high_b) - maximum(low_a, low_b), 0))
    hull = product(clip(maximum(high_a, high_b) - minimum(low_a, low_b), 0))
    return Overlap(shared, box_area(a) + box_area(b) - shared, hull)


def iou_of(found: Overlap) -> Tensor:
    """The shared part of the union; 0 where there is nothing."""
    return over(found.shared, found.union)


def giou_of(found: Overlap) -> Tensor:
    """The same, less the part of the hull that neither box covers."""
    return iou_of(found) - over(clip(found.hull - found.union, 0), found.hull)


def pairs(name: str, boxes1: Any, boxes2: Any) -> Overlap:
    """Each of (..., n, 4) with each of (..., m, 4): areas (..., n, m)."""
    a, b = boxes_of(name, boxes1, "boxes1"), boxes_of(name, boxes2, "boxes2")
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(
            f"{name} takes lists of boxes (..., n, 4) and (..., m, 4); got {a.shape} and {b.shape}. Write box[None]."
        )
    return overlap(a[..., :, None, :], b[..., None, :, :])


@rounded_once
def box_iou(boxes1: Any, boxes2: Any) -> Tensor:
    """How much of what two boxes cover together they share, from 0 to 1: (..., n, 4), (..., m, 4) -> (..., n, m).

    0 where neither covers anything. Source: Jaccard, "Étude comparative de la distribution florale" (1901).

    >>> import chainrule as cr
    >>> a, b = cr.tensor([[0.0, 0.0, 2.0, 2.0]]), cr.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    >>> cr.detection.box_iou(a, b).tolist()
    [[0.333..., 0.0]]
    """
    return iou_of(pairs("box_iou", boxes1, boxes2))


@rounded_once
def generalized_box_iou(boxes1: Any, boxes2: Any) -> Tensor:
    """IoU less the share of the least box around both that neither covers: above −1, and at most the IoU.

    (..., n, 4), (..., m, 4) -> (..., n, m). Unlike the IoU it tells near boxes from far ones when they do not overlap.
    Source: Rezatofighi et al., "Generalized intersection over union" (2019), algorithm 1.

    >>> import chainrule as cr
    >>> a, b = cr.tensor([[0.0, 0.0, 1.0, 1.0]]), cr.tensor([[1.0, 0.0, 2.0, 1.0], [3.0, 0.0, 4.0, 1.0]])
    >>> cr.detection.generalized_box_iou(a, b).tolist()
    [[0.0, -0.5]]
    """
    return giou_of(pairs("generalized_box_iou", boxes1, boxes2))


@rounded_once
def clip_boxes_to_image(boxes: Any, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) with what lies outside of the image cut off; size is (height, width).

    >>> import chainrule as cr
    >>> cr.detection.clip_boxes_to_image(cr.tensor([-3.0, 2.0, 30.0, 40.0]), (20, 10)).tolist()
    [0.0, 2.0, 10.0, 20.0]
    """
    boxes = boxes_of("clip_boxes_to_image", boxes)
    height, width = size
    limits = (width, height, width, height)
    return stack([clip(boxes[..., i], 0, limit) for i, limit in enumerate(limits)], axis=-1)
