"""The losses as modules. What they compute, shapes and errors are said in chainrule.losses.

PyTorch's names, arguments and defaults. Given weights are buffers: they are saved with the module.
"""

from typing import Any, Literal

from chainrule import losses
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.losses.checks import Reduction, check_reduction
from chainrule.nn.module import Module


class Loss(Module):
    """What all losses have: a reduction, 'mean', 'sum' or 'none', checked when the loss is made."""

    reductions: tuple[str, ...] = ("none", "mean", "sum")

    def __init__(self, reduction: str) -> None:
        check_reduction(type(self).__name__, reduction, self.reductions)
        self.reduction: Any = reduction

    def _register_weight(self, name: str, weight: Any) -> None:
        self.register_buffer(name, None if weight is None else as_tensor(weight))


class MSELoss(Loss):
    """Squared error; see chainrule.losses.mse.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.MSELoss()(cr.tensor([1.0, 5.0]), cr.tensor([2.0, 2.0])))
    5.0
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape."""
        return losses.mse(input, target, self.reduction)


class L1Loss(Loss):
    """Absolute error; see chainrule.losses.l1.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.L1Loss()(cr.tensor([1.0, 5.0]), cr.tensor([2.0, 2.0])))
    2.0
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape."""
        return losses.l1(input, target, self.reduction)


class HuberLoss(Loss):
    """Squared error near the target, absolute error from a distance of `delta` on; see chainrule.losses.huber.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.HuberLoss("none")(cr.tensor([0.5, 3.0]), cr.tensor([0.0, 0.0])).tolist()
    [0.125, 2.5]
    """

    def __init__(self, reduction: Reduction = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape."""
        return losses.huber(input, target, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """Absolute error, rounded off within a distance of `beta`; see chainrule.losses.smooth_l1.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SmoothL1Loss("none")(cr.tensor([0.5, 3.0]), cr.tensor([0.0, 0.0])).tolist()
    [0.125, 2.5]
    """

    def __init__(self, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape."""
        return losses.smooth_l1(input, target, self.reduction, self.beta)


class PoissonNLLLoss(Loss):
    """Negative log likelihood of counts; see chainrule.losses.poisson_nll.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.PoissonNLLLoss()(cr.tensor([0.0]), cr.tensor([3.0])))
    1.0
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (expectations or their logarithms) and target (counts) of one shape."""
        return losses.poisson_nll(input, target, self.log_input, self.full, self.eps, self.reduction)


class GaussianNLLLoss(Loss):
    """Negative log likelihood with a normal distribution; see chainrule.losses.gaussian_nll.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.GaussianNLLLoss()(cr.tensor([1.0]), cr.tensor([3.0]), cr.tensor([1.0])))
    2.0
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        """Input (means) and target of one shape, var (variances) a number or as chainrule.losses.gaussian_nll says."""
        return losses.gaussian_nll(input, target, var, self.full, self.eps, self.reduction)


class CrossEntropyLoss(Loss):
    """The loss of a classifier, given its logits; see chainrule.losses.cross_entropy.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.CrossEntropyLoss()(cr.tensor([[0.0, 0.0]]), cr.tensor([1])))
    0.693...
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (N, C, ...) of logits; target (N, ...) of class indices, or (N, C, ...) of probabilities."""
        return losses.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class CTCLoss(Loss):
    """The loss of a sequence of labels that is not aligned with its steps; see chainrule.losses.ctc.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> log_probs = cr.log_softmax(cr.zeros((4, 2, 3)))
    >>> nn.CTCLoss(reduction="none")(log_probs, cr.tensor([[1, 2], [1, 0]]), [4, 4], [2, 1]).shape
    (2,)
    """

    def __init__(self, blank: int = 0, reduction: Reduction = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any) -> Tensor:
        """log_probs (T, N, C) or (T, C); targets (N, S), (sum of lengths,) or (S,); lengths (N,) or ()."""
        return losses.ctc(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )


class NLLLoss(Loss):
    """Minus the log probability of the target's class; see chainrule.losses.nll.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.NLLLoss()(cr.tensor([[-0.5, -2.0]]), cr.tensor([1])))
    2.0
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (N, C, ...) of log probabilities, target (N, ...) of class indices."""
        return losses.nll(input, target, self.weight, self.ignore_index, self.reduction)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities; see chainrule.losses.binary_cross_entropy.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.BCELoss()(cr.tensor([0.5]), cr.tensor([1.0])))
    0.693...
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape, numbers from 0 to 1."""
        return losses.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits; see chainrule.losses.binary_cross_entropy_with_logits.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.BCEWithLogitsLoss()(cr.tensor([-1000.0]), cr.tensor([1.0])))
    1000.0
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, reduction: Reduction = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self._register_weight("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (logits) and target (from 0 to 1) of one shape."""
        return losses.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence; see chainrule.losses.kl_div. The right mean is reduction="batchmean".

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.KLDivLoss("batchmean")(cr.tensor([[0.0, -1.0]]), cr.tensor([[1.0, 0.0]])))
    0.0
    """

    reductions = ("none", "mean", "sum", "batchmean")

    def __init__(
        self, reduction: Literal["none", "mean", "sum", "batchmean"] = "mean", log_target: bool = False
    ) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (log probabilities) and target (probabilities, or their logarithms) of one shape."""
        return losses.kl_div(input, target, self.reduction, self.log_target)


class HingeEmbeddingLoss(Loss):
    """For distances: small where the target is 1, at least `margin` where it is −1; see losses.hinge_embedding.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.HingeEmbeddingLoss(reduction="none")(cr.tensor([0.5, 0.25]), cr.tensor([1, -1])).tolist()
    [0.5, 0.75]
    """

    def __init__(self, margin: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target (1 or −1) of one shape."""
        return losses.hinge_embedding(input, target, self.margin, self.reduction)


class MarginRankingLoss(Loss):
    """The first should be larger where the target is 1, smaller where −1; see chainrule.losses.margin_ranking.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.MarginRankingLoss(1.0)(cr.tensor([2.0]), cr.tensor([5.0]), cr.tensor([1])))
    4.0
    """

    def __init__(self, margin: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """All of one shape; target 1 or −1."""
        return losses.margin_ranking(input1, input2, target, self.margin, self.reduction)


class MultiMarginLoss(Loss):
    """Multi-class hinge loss on scores; see chainrule.losses.multi_margin.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.MultiMarginLoss()(cr.tensor([[0.0, 2.0]]), cr.tensor([0])))
    1.5
    """

    weight: Tensor | None

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.p, self.margin = p, margin
        self._register_weight("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input (N, C) of scores, target (N,) of class indices."""
        return losses.multi_margin(input, target, self.p, self.margin, self.weight, self.reduction)


class CosineEmbeddingLoss(Loss):
    """Vectors should point the same way where the target is 1, apart where −1; see losses.cosine_embedding.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.CosineEmbeddingLoss()(cr.tensor([[1.0, 0.0]]), cr.tensor([[0.0, 1.0]]), cr.tensor([1])))
    1.0
    """

    def __init__(self, margin: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Inputs (N, features), target (N,) of 1 or −1."""
        return losses.cosine_embedding(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """The anchor should be nearer to the positive than to the negative, by `margin`; see losses.triplet_margin.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> a, b, c = cr.tensor([[0.0]]), cr.tensor([[1.0]]), cr.tensor([[3.0]])
    >>> float(nn.TripletMarginLoss(margin=5.0)(a, b, c))
    3.0
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """All (N, features)."""
        return losses.triplet_margin(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )
