"""Finding objects in images: boxes and how much they overlap, anchors, and choosing among found boxes.

A box is four numbers along the last axis, (x1, y1, x2, y2): its left upper and its right lower corner, in pixels or any
other unit, x to the right and y downwards. A box whose right corner does not lie to the right of and below the left one
is degenerate: its area is 0, and it overlaps with nothing. NaN passes through everything that is computed, and is never
chosen. Names are those of torchvision where it has the function. Losses of boxes stand in `chainrule.losses` (iou,
giou, sigmoid_focal), the mean average precision in `cr.metrics`.
"""

from chainrule.detection.anchors import anchor_boxes, decode_boxes, encode_boxes, match_anchors
from chainrule.detection.boxes import box_area, box_convert, box_iou, clip_boxes_to_image, generalized_box_iou
from chainrule.detection.suppression import non_maximum_suppression, suppression_mask

__all__ = [
    "anchor_boxes",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "decode_boxes",
    "encode_boxes",
    "generalized_box_iou",
    "match_anchors",
    "non_maximum_suppression",
    "suppression_mask",
]
