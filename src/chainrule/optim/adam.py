"""Adam and its relatives: AdamW, Adamax, NAdam, RAdam.

Argument names and defaults are PyTorch's. In the rules g is the gradient, p the parameter, t = 1, 2, … the step, and
all operations go element by element. The arguments params, lr and groups are explained at `Optimizer`.
"""

from typing import Any

from chainrule.optim.adaptive import scale_by_adam, scale_by_adamax, scale_by_nadam, scale_by_radam
from chainrule.optim.algorithms import with_decay
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.settings import flag
from chainrule.optim.transform import Transform


class Adam(Optimizer):
    """Steps in units of the running root mean square of the gradient, along its running mean.

    g ← g + weight_decay · p;  m ← β₁ · m + (1 − β₁) · g;  v ← β₂ · v + (1 − β₂) · g²;
    p ← p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε).
    With `amsgrad` the largest v so far stands for v. With `decoupled_weight_decay` it is AdamW.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015); amsgrad: Reddi, Kale and Kumar, "On the
    convergence of Adam and beyond" (2018).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Adam(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-0.1])})["w"].tolist()
    [2.5]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        amsgrad: bool,
        maximize: bool,
        decoupled_weight_decay: bool,
    ) -> Transform:
        """The moments, with weight decay before or after them."""
        decoupled = flag("decoupled_weight_decay", decoupled_weight_decay)
        return with_decay(scale_by_adam(betas, eps, amsgrad), weight_decay, maximize, decoupled)


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p − lr · weight_decay · p beside the step of Adam, not through its moments.

    m ← β₁ · m + (1 − β₁) · g;  v ← β₂ · v + (1 − β₂) · g²;
    p ← p − lr · (m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + weight_decay · p).

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.AdamW(lr=0.5, weight_decay=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-0.1])})["w"].tolist()
    [2.0]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True, groups=groups
        )


class Adamax(Optimizer):
    """Adam with the largest magnitude in the place of the root mean square.

    g ← g + weight_decay · p;  m ← β₁ · m + (1 − β₁) · g;  n ← max(β₂ · n, |g| + ε);  p ← p − lr / (1 − β₁ᵗ) · m / n.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015), section 7.1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Adamax(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-8.0])})["w"].tolist()
    [2.5]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(params, lr, groups, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def rule(  # type: ignore[override]
        self, betas: tuple[float, float], eps: float, weight_decay: float, maximize: bool
    ) -> Transform:
        """Weight decay, then the moments."""
        return with_decay(scale_by_adamax(betas, eps), weight_decay, maximize)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum.

    g ← g + weight_decay · p;  m, v and v̂ = v / (1 − β₂ᵗ) as in Adam;  μₜ = β₁ · (1 − ½ · 0.96^(t · momentum_decay));
    p ← p − lr · (μₜ₊₁ · m / (1 − μ₁⋯μₜ₊₁) + (1 − μₜ) · g / (1 − μ₁⋯μₜ)) / (√v̂ + ε).
    With `decoupled_weight_decay` the decay does not pass through the moments: p ← p − lr · weight_decay · p.

    Source: Dozat, "Incorporating Nesterov momentum into Adam" (2016).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.NAdam(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-8.0])})["w"].tolist()
    [2.528...]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum_decay: float,
        decoupled_weight_decay: bool,
        maximize: bool,
    ) -> Transform:
        """The moments, with weight decay before or after them."""
        decoupled = flag("decoupled_weight_decay", decoupled_weight_decay)
        return with_decay(scale_by_nadam(betas, eps, momentum_decay), weight_decay, maximize, decoupled)


class RAdam(Optimizer):
    """Adam that makes steps of plain momentum until its second moment has seen enough gradients to be trusted.

    g ← g + weight_decay · p;  m and v as in Adam;  ρ∞ = 2 / (1 − β₂) − 1;  ρₜ = ρ∞ − 2t · β₂ᵗ / (1 − β₂ᵗ);
    p ← p − lr · m / (1 − β₁ᵗ) · r · √(1 − β₂ᵗ) / (√v + ε) where ρₜ > 5, else p ← p − lr · m / (1 − β₁ᵗ);
    r² = (ρₜ − 4)(ρₜ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρₜ).
    With `decoupled_weight_decay` the decay does not pass through the moments: p ← p − lr · weight_decay · p.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond" (2020).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.RAdam(lr=0.5)
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-8.0])})["w"].tolist()
    [6.0]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        groups: Any = None,
    ) -> None:
        super().__init__(
            params, lr, groups, betas=betas, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )  # fmt: skip

    def rule(  # type: ignore[override]
        self,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decoupled_weight_decay: bool,
        maximize: bool,
    ) -> Transform:
        """The moments, with weight decay before or after them."""
        decoupled = flag("decoupled_weight_decay", decoupled_weight_decay)
        return with_decay(scale_by_radam(betas, eps), weight_decay, maximize, decoupled)
