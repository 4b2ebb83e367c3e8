"""The losses for finding objects as modules. What they compute, shapes and errors are said in chainrule.losses."""

from chainrule import losses
from chainrule.core.tensor import Tensor
from chainrule.losses.checks import Reduction
from chainrule.nn.losses import Loss


class IoULoss(Loss):
    """1 − IoU of boxes; see chainrule.losses.iou.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.IoULoss()(cr.tensor([[0.0, 0.0, 2.0, 2.0]]), cr.tensor([[0.0, 0.0, 2.0, 1.0]])))
    0.5
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Boxes (..., 4) of one shape."""
        return losses.iou(input, target, self.reduction)


class GIoULoss(Loss):
    """1 − generalised IoU of boxes; see chainrule.losses.giou.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.GIoULoss()(cr.tensor([[0.0, 0.0, 1.0, 1.0]]), cr.tensor([[3.0, 0.0, 4.0, 1.0]])))
    1.5
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Boxes (..., 4) of one shape."""
        return losses.giou(input, target, self.reduction)


class SigmoidFocalLoss(Loss):
    """Binary cross-entropy that cares for what is wrong; see chainrule.losses.sigmoid_focal.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.SigmoidFocalLoss(reduction="none")(cr.tensor([0.0]), cr.tensor([1.0])).tolist()
    [0.043...]
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits and answers (0 or 1) of one shape."""
        return losses.sigmoid_focal(input, target, self.alpha, self.gamma, self.reduction)


class FocalLoss(Loss):
    """Cross-entropy that cares for what is wrong; see chainrule.losses.focal.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> float(nn.FocalLoss()(cr.tensor([[0.0, 0.0]]), cr.tensor([1])))
    0.173...
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self.gamma, self.ignore_index = gamma, ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, classes, ...) and class indices (batch, ...)."""
        return losses.focal(input, target, self.weight, self.gamma, self.ignore_index, self.reduction)
