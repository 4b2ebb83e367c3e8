"""The optimisers with a fixed or running scale: SGD, RMSprop, Adagrad, Adadelta, Lion. Adam's family stands in adam.py.

Argument names and defaults are PyTorch's. In the rules g is the gradient, p the parameter, t = 1, 2, … the step, and
all operations go element by element. The arguments params, lr and groups are explained at `Optimizer`.
"""

from typing import Any

from chainrule.optim.optimizer import Optimizer
from chainrule.optim.settings import flag, number
from chainrule.optim.transform import Transform, sequence
from chainrule.optim.transforms import (
    add_decayed_weights,
    scale,
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_lion,
    scale_by_rms,
    trace,
)


def with_decay(direction: Transform, weight_decay: float, maximize: bool, decoupled: bool = False) -> Transform:
    """`direction` with weight decay before or (decoupled) after it; with `maximize` the gradient is negated first."""
    decay = [add_decayed_weights(weight_decay)] if number("weight_decay", weight_decay, 0) else []
    negate = [scale(-1.0)] if flag("maximize", maximize) else []
    return sequence(*negate, direction, *decay) if decoupled else sequence(*negate, *decay, direction)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    g ← g + weight_decay · p;  b ← momentum · b + (1 − dampening) · g  (at the first step b ← g);
    p ← p − lr · b, or with nesterov p ← p − lr · (g + momentum · b).
    With `maximize` the gradient is negated first. Without momentum b is g.

    Source: Robbins and Monro, "A stochastic approximation method" (1951); momentum as in Sutskever et al., "On the
    importance of initialization and momentum in deep learning" (2013). Raises ConfigError for nesterov without
    momentum.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.SGD(lr=0.5, momentum=0.9)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([1.0])})["w"].tolist()
    [1.5]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            maximize=maximize,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self, momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool
    ) -> Transform:
        """Weight decay, then momentum."""
        direction = trace(momentum, dampening, nesterov)
        return with_decay(direction if momentum else sequence(), weight_decay, maximize)


class RMSprop(Optimizer):
    """Steps in units of the running root mean square of the gradient.

    g ← g + weight_decay · p;  v ← α · v + (1 − α) · g²;  u = g / (√v + ε);
    b ← momentum · b + u;  p ← p − lr · b.
    With `centered`, √(v − m²) stands for √v, with m ← α · m + (1 − α) · g.

    Source: Tieleman and Hinton, "Lecture 6.5: RMSProp", COURSERA (2012); centered: Graves, "Generating sequences with
    recurrent neural networks" (2013).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.RMSprop(lr=0.1, alpha=0.75)
    >>> optimizer.update({"w": cr.tensor([1.0])}, {"w": cr.tensor([8.0])})["w"].tolist()
    [0.8...]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            maximize=maximize,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self, alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool
    ) -> Transform:
        """Weight decay, the scale, then momentum."""
        rms, heavy = scale_by_rms(alpha, eps, centered), trace(momentum)
        return with_decay(sequence(rms, heavy) if momentum else rms, weight_decay, maximize)


class Adagrad(Optimizer):
    """Steps in units of the root of the sum of all squared gradients so far.

    g ← g + weight_decay · p;  s ← s + g²;  p ← p − lr / (1 + (t − 1) · lr_decay) · g / (√s + ε).

    Source: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    JMLR 12 (2011).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Adagrad(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([1.0])}, {"w": cr.tensor([-8.0])})["w"].tolist()
    [1.5]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, maximize=maximize,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self, lr_decay: float, weight_decay: float, initial_accumulator_value: float, eps: float, maximize: bool
    ) -> Transform:
        """Weight decay, then the scale."""
        return with_decay(scale_by_adagrad(initial_accumulator_value, eps, lr_decay), weight_decay, maximize)


class Adadelta(Optimizer):
    """Steps whose size is the running root mean square of earlier steps over that of the gradients.

    g ← g + weight_decay · p;  v ← ρ · v + (1 − ρ) · g²;  u = g · √(d + ε) / √(v + ε);  d ← ρ · d + (1 − ρ) · u²;
    p ← p − lr · u.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method" (2012).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Adadelta(rho=0.75, eps=1.0)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([2.0])})["w"].tolist()
    [0.58578...]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(params, lr, groups, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def rule(  # type: ignore[override]
        self, rho: float, eps: float, weight_decay: float, maximize: bool
    ) -> Transform:
        """Weight decay, then the scale."""
        return with_decay(scale_by_adadelta(rho, eps), weight_decay, maximize)


class Lion(Optimizer):
    """Steps of one size: the sign of an interpolation between momentum and gradient, with decoupled weight decay.

    p ← p − lr · (sign(β₁ · m + (1 − β₁) · g) + weight_decay · p);  m ← β₂ · m + (1 − β₂) · g.
    Its authors advise an lr 3 to 10 times smaller, and a weight_decay as much larger, than for AdamW.

    Source: Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Lion(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-0.1])})["w"].tolist()
    [2.5]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(params, lr, groups, betas=betas, weight_decay=weight_decay, maximize=maximize)

    def rule(  # type: ignore[override]
        self, betas: tuple[float, float], weight_decay: float, maximize: bool
    ) -> Transform:
        """The sign, then weight decay."""
        return with_decay(scale_by_lion(betas), weight_decay, maximize, decoupled=True)
