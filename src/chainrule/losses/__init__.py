"""Losses: what training makes small. Names without `_loss`, arguments, defaults and results are PyTorch's.

`reduction` is "mean" (the default), "sum", or "none" for the losses as they come: one for each element (mse, l1, huber,
smooth_l1, the binary cross-entropies, kl_div, poisson_nll, gaussian_nll, hinge_embedding, margin_ranking), or one for
each class decided, row or triplet (cross_entropy, nll, multi_margin, cosine_embedding, triplet_margin).

Three things are stricter than in PyTorch. Shapes must be equal: nothing broadcasts in a loss, since (n, 1) against (n,)
would compare each prediction with every target. The mean of an empty batch is an error, not NaN. Targets that are no
classes, or no probabilities, are errors wherever their values are known. And where the two libraries choose different
subgradients at a kink, these follow the rule of this one, 0: hinge_embedding, margin_ranking, cosine_embedding and
triplet_margin have no gradient where the margin is met exactly.
"""

from chainrule.losses.classification import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    nll,
)
from chainrule.losses.ctc import ctc
from chainrule.losses.detection import focal, giou, iou, sigmoid_focal
from chainrule.losses.margin import cosine_embedding, hinge_embedding, margin_ranking, multi_margin, triplet_margin
from chainrule.losses.regression import gaussian_nll, huber, l1, mse, poisson_nll, smooth_l1

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding",
    "cross_entropy",
    "ctc",
    "focal",
    "gaussian_nll",
    "giou",
    "hinge_embedding",
    "huber",
    "iou",
    "kl_div",
    "l1",
    "margin_ranking",
    "mse",
    "multi_margin",
    "nll",
    "poisson_nll",
    "sigmoid_focal",
    "smooth_l1",
    "triplet_margin",
]
