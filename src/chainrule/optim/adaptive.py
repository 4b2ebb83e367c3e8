"""Adam and its relatives as transforms: g comes in, u goes out; m is the mean of gradients, v that of their squares.

The corrections for the start from zero depend on the step count t = 1, 2, … alone. They are computed in float64 and
converted to the parameter's dtype as the last thing.
"""

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor
from chainrule.functions.choice import where
from chainrule.optim.settings import flag, number, pair
from chainrule.optim.transform import Clock, Transform, counting, per_parameter
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import cast_to, maximum

MOMENTS = {"mean": 0.0, "square": 0.0}


def scale_by_adam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, amsgrad: bool = False) -> Transform:
    """m = β₁ · m + (1 − β₁) · g; v = β₂ · v + (1 − β₂) · g²; u = m̂ / (√v̂ + ε), m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 −
    β₂ᵗ).

    With `amsgrad` the largest v so far stands in the place of v in u.
    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1; amsgrad: Reddi, Kale and
    Kumar, "On the convergence of Adam and beyond" (2018), with the corrections that PyTorch keeps.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> adam, params = optim.scale_by_adam(), {"w": cr.tensor([0.0, 0.0])}
    >>> updates, state = adam.update({"w": cr.tensor([5.0, -0.1])}, adam.init(params), params)
    >>> [round(x, 5) for x in updates["w"].tolist()]
    [1.0, -1.0]
    """
    (b1, b2), eps = pair("betas", betas), number("eps", eps, 0)

    def moments(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)

    def plain(g: Tensor, p: Tensor, m: Tensor, v: Tensor, c1: Tensor, c2: Tensor) -> tuple[Tensor, ...]:
        m, v = moments(g, m, v)
        return c1 * m / (c2 * e.sqrt(v) + eps), m, v

    def largest(g: Tensor, p: Tensor, m: Tensor, v: Tensor, top: Tensor, c1: Tensor, c2: Tensor) -> tuple[Tensor, ...]:
        m, v = moments(g, m, v)
        top = maximum(top, v)
        return c1 * m / (c2 * e.sqrt(top) + eps), m, v, top

    clock = counting(lambda t: (1 / (1 - b1**t), 1 / e.sqrt(1 - b2**t)))
    settings = {"betas": (b1, b2), "eps": eps, "amsgrad": flag("amsgrad", amsgrad)}
    if amsgrad:
        return per_parameter("adam", largest, {**MOMENTS, "largest": 0.0}, clock, **settings)
    return per_parameter("adam", plain, MOMENTS, clock, **settings)


def scale_by_adamax(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Transform:
    """m = β₁ · m + (1 − β₁) · g; n = max(β₂ · n, |g| + ε); u = m / (1 − β₁ᵗ) / n.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 2; ε as in PyTorch.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> adamax, params = optim.scale_by_adamax(), {"w": cr.tensor([0.0])}
    >>> adamax.update({"w": cr.tensor([5.0])}, adamax.init(params), params)[0]["w"].tolist()
    [1.0]
    """
    (b1, b2), eps = pair("betas", betas), number("eps", eps, 0)

    def rule(g: Tensor, p: Tensor, m: Tensor, n: Tensor, c1: Tensor) -> tuple[Tensor, ...]:
        m, n = b1 * m + (1 - b1) * g, maximum(b2 * n, e.abs(g) + eps)
        return c1 * m / n, m, n

    clock = counting(lambda t: (1 / (1 - b1**t),))
    return per_parameter("adamax", rule, {"mean": 0.0, "norm": 0.0}, clock, betas=(b1, b2), eps=eps)


def scale_by_nadam(
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, momentum_decay: float = 4e-3
) -> Transform:
    """Adam with Nesterov's momentum: u = (μₜ₊₁ · m / (1 − Πₜ₊₁) + (1 − μₜ) · g / (1 − Πₜ)) / (√v̂ + ε).

    m, v, v̂ are those of Adam, μₜ = β₁ · (1 − ½ · 0.96^(t · momentum_decay)), Πₜ = μ₁ · … · μₜ.
    Source: Dozat, "Incorporating Nesterov momentum into Adam" (2016).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> nadam, params = optim.scale_by_nadam(), {"w": cr.tensor([0.0])}
    >>> updates, state = nadam.update({"w": cr.tensor([5.0])}, nadam.init(params), params)
    >>> list(state)
    ['step', 'product', 'mean', 'square']
    """
    (b1, b2), eps = pair("betas", betas), number("eps", eps, 0)
    decay = number("momentum_decay", momentum_decay, 0)

    def tick(numbers: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        step = numbers[0] + 1
        t = cast_to(step, dtypes.float64)
        mu, following = (b1 * (1 - 0.5 * 0.96 ** (s * decay)) for s in (t, t + 1))
        product = numbers[1] * mu
        return (step, product), (following / (1 - product * following), (1 - mu) / (1 - product), 1 / (1 - b2**t))

    def rule(
        g: Tensor, p: Tensor, m: Tensor, v: Tensor, of_mean: Tensor, of_gradient: Tensor, c2: Tensor
    ) -> tuple[Tensor, ...]:
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)
        return (of_mean * m + of_gradient * g) / (e.sqrt(c2 * v) + eps), m, v

    clock = Clock({"step": np.int64(0), "product": np.float64(1)}, tick)
    return per_parameter("nadam", rule, MOMENTS, clock, betas=(b1, b2), eps=eps, momentum_decay=decay)


def scale_by_radam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Transform:
    """Adam that holds v back until enough gradients were seen for its variance to be bounded.

    With ρ∞ = 2 / (1 − β₂) − 1 and ρₜ = ρ∞ − 2t · β₂ᵗ / (1 − β₂ᵗ): where ρₜ > 5, u = r · m̂ · √(1 − β₂ᵗ) / (√v + ε) with
    r² = (ρₜ − 4)(ρₜ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρₜ); before that, u = m̂.
    Source: Liu et al., "On the variance of the adaptive learning rate and beyond" (2020), algorithm 2.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> radam, params = optim.scale_by_radam(), {"w": cr.tensor([0.0])}
    >>> radam.update({"w": cr.tensor([5.0])}, radam.init(params), params)[0]["w"].tolist()
    [5.0]
    """
    (b1, b2), eps = pair("betas", betas), number("eps", eps, 0)
    limit = 2 / (1 - b2) - 1

    def coefficients(t: Tensor) -> tuple[Tensor, ...]:
        unseen = 1 - b2**t
        length = limit - 2 * t * b2**t / unseen
        enough = length > 5.0
        ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        return 1 / (1 - b1**t), enough, e.sqrt(where(enough, ratio, 1.0) * unseen)

    def rule(
        g: Tensor, p: Tensor, m: Tensor, v: Tensor, c1: Tensor, enough: Tensor, rectified: Tensor
    ) -> tuple[Tensor, ...]:
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)
        return c1 * m * where(enough, rectified / (e.sqrt(v) + eps), 1.0), m, v

    return per_parameter("radam", rule, MOMENTS, counting(coefficients), betas=(b1, b2), eps=eps)
