"""The transforms that optimisers are made of. g is what comes in, p the parameter; what goes out is named u.

In a chain that makes an optimiser on its own, scale_by_learning_rate stands last: it turns the direction of ascent into
a step of descent. The moments of Adam and its relatives stand in adaptive.py, clipping in clipping.py.
"""

from typing import Any

import numpy as np

from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError
from chainrule.functions.choice import where
from chainrule.optim.schedules import rate_at
from chainrule.optim.settings import flag, number, pair
from chainrule.optim.transform import State, Tensors, Transform, Updates, counting, per_parameter
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import cast_to, maximum


def scale(factor: float) -> Transform:
    """u = factor · g.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> negate = optim.scale(-1.0)
    >>> negate.update({"w": cr.tensor([4.0])}, {}, {"w": cr.tensor([1.0])})[0]["w"].tolist()
    [-4.0]
    """
    factor = number("factor", factor)
    return per_parameter("scale", lambda g, p: factor * g, factor=factor)


def scale_by_learning_rate(lr: Any) -> Transform:
    """u = −lr · g: a step downhill. `lr` is a number, kept as a float64 tensor in the state, or a schedule.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> descend, params = optim.scale_by_learning_rate(optim.exponential(0.5, gamma=0.1)), {"w": cr.tensor([1.0])}
    >>> updates, state = descend.update({"w": cr.tensor([4.0])}, descend.init(params), params)
    >>> descend.update({"w": cr.tensor([4.0])}, state, params)[0]["w"].tolist()
    [-0.2...]
    """
    schedule = lr if callable(lr) else None
    if schedule is None:
        number("lr", lr, 0)

    def init(params: Tensors) -> State:
        return {"lr": wrap(np.asarray(lr, np.float64))} if schedule is None else {"step": wrap(np.asarray(0, np.int64))}

    def update(updates: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
        rate = -(state["lr"] if schedule is None else rate_at(schedule, state["step"]))
        new = state if schedule is None else {"step": state["step"] + 1}
        return {n: None if g is None else cast_to(rate, g.dtype) * g for n, g in updates.items()}, new

    settings = {} if schedule is None else {"schedule": schedule}
    return Transform(init, update, "learning_rate", constant=schedule is None, **settings)


def add_decayed_weights(weight_decay: float) -> Transform:
    """u = g + weight_decay · p.

    Before the moments this is the gradient of weight_decay · ‖p‖² / 2 added to the loss; after them it is decoupled
    weight decay. Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> decay = optim.add_decayed_weights(0.5)
    >>> decay.update({"w": cr.tensor([1.0])}, {}, {"w": cr.tensor([4.0])})[0]["w"].tolist()
    [3.0]
    """
    decay = number("weight_decay", weight_decay, 0)
    return per_parameter("decay", lambda g, p: g + decay * p, weight_decay=decay)


def trace(momentum: float, dampening: float = 0.0, nesterov: bool = False) -> Transform:
    """Momentum: b = momentum · b + (1 − dampening) · g, at the first step b = g; u = b, or g + momentum · b (nesterov).

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013); that rate and
    dampening stay outside of the sum is PyTorch's form.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> momentum, params = optim.trace(0.5), {"w": cr.tensor([0.0])}
    >>> updates, state = momentum.update({"w": cr.tensor([4.0])}, momentum.init(params), params)
    >>> momentum.update({"w": cr.tensor([4.0])}, state, params)[0]["w"].tolist()
    [6.0]
    """
    momentum, dampening = number("momentum", momentum, 0), number("dampening", dampening)
    if flag("nesterov", nesterov) and (momentum == 0 or dampening != 0):
        raise ConfigError(f"nesterov needs momentum > 0 and dampening 0; got {momentum:g} and {dampening:g}.")

    def outgoing(g: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return g + momentum * b if nesterov else b, b

    def plain(g: Tensor, p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return outgoing(g, momentum * b + g)

    def dampened(g: Tensor, p: Tensor, b: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        return outgoing(g, where(first, g, momentum * b + (1 - dampening) * g))

    rule, clock = (plain, None) if dampening == 0 else (dampened, counting(lambda t: (t == 1,)))
    settings = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    return per_parameter("momentum", rule, {"trace": 0.0}, clock, **settings)


def scale_by_lion(betas: tuple[float, float] = (0.9, 0.99)) -> Transform:
    """u = sign(β₁ · m + (1 − β₁) · g), then m = β₂ · m + (1 − β₂) · g.

    Source: Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> lion, params = optim.scale_by_lion(), {"w": cr.tensor([0.0, 0.0])}
    >>> lion.update({"w": cr.tensor([4.0, -0.1])}, lion.init(params), params)[0]["w"].tolist()
    [1.0, -1.0]
    """
    b1, b2 = pair("betas", betas)

    def rule(g: Tensor, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return e.sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g

    return per_parameter("lion", rule, {"mean": 0.0}, betas=(b1, b2))


def scale_by_rms(alpha: float = 0.99, eps: float = 1e-8, centered: bool = False) -> Transform:
    """v = α · v + (1 − α) · g²; u = g / (√v + ε).

    With `centered`, √(v − m²) stands for √v, where m is the like mean of g: the standard deviation of the gradient. A
    difference that rounding has made negative counts as 0.
    Source: Tieleman and Hinton, "Lecture 6.5: RMSProp" (2012); centered: Graves, "Generating sequences with recurrent
    neural networks" (2013), section 4.2.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> rms, params = optim.scale_by_rms(alpha=0.75), {"w": cr.tensor([0.0])}
    >>> rms.update({"w": cr.tensor([8.0])}, rms.init(params), params)[0]["w"].tolist()
    [2.0]
    """
    alpha, eps = number("alpha", alpha, 0, 1), number("eps", eps, 0)

    def plain(g: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        v = alpha * v + (1 - alpha) * (g * g)
        return g / (e.sqrt(v) + eps), v

    def about_the_mean(g: Tensor, p: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        v, m = alpha * v + (1 - alpha) * (g * g), m + (1 - alpha) * (g - m)
        return g / (e.sqrt(maximum(v - m * m, 0.0)) + eps), v, m

    settings: dict[str, Any] = {"alpha": alpha, "eps": eps, "centered": flag("centered", centered)}
    if centered:
        return per_parameter("rms", about_the_mean, {"square": 0.0, "mean": 0.0}, **settings)
    return per_parameter("rms", plain, {"square": 0.0}, **settings)


def scale_by_adagrad(initial_accumulator_value: float = 0.0, eps: float = 1e-10, lr_decay: float = 0.0) -> Transform:
    """s = s + g²; u = g / (√s + ε) / (1 + (t − 1) · lr_decay), with t = 1, 2, … the number of the step.

    Source: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization"
    (2011).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> adagrad, params = optim.scale_by_adagrad(), {"w": cr.tensor([0.0])}
    >>> updates, state = adagrad.update({"w": cr.tensor([3.0])}, adagrad.init(params), params)
    >>> adagrad.update({"w": cr.tensor([4.0])}, state, params)[0]["w"].tolist()
    [0.8...]
    """
    start = number("initial_accumulator_value", initial_accumulator_value, 0)
    eps, decay = number("eps", eps, 0), number("lr_decay", lr_decay, 0)

    def plain(g: Tensor, p: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s + g * g
        return g / (e.sqrt(s) + eps), s

    def decayed(g: Tensor, p: Tensor, s: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        u, s = plain(g, p, s)
        return share * u, s

    rule, clock = (plain, None) if decay == 0 else (decayed, counting(lambda t: (1 / (1 + (t - 1) * decay),)))
    settings = {"initial_accumulator_value": start, "eps": eps, "lr_decay": decay}
    return per_parameter("adagrad", rule, {"sum": start}, clock, **settings)


def scale_by_adadelta(rho: float = 0.9, eps: float = 1e-6) -> Transform:
    """v = ρ · v + (1 − ρ) · g²; u = g · √(d + ε) / √(v + ε); d = ρ · d + (1 − ρ) · u².

    Source: Zeiler, "ADADELTA: an adaptive learning rate method" (2012), algorithm 1.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> adadelta, params = optim.scale_by_adadelta(rho=0.75, eps=1.0), {"w": cr.tensor([0.0])}
    >>> adadelta.update({"w": cr.tensor([2.0])}, adadelta.init(params), params)[0]["w"].tolist()
    [1.41421...]
    """
    rho, eps = number("rho", rho, 0, 1), number("eps", eps, 0)

    def rule(g: Tensor, p: Tensor, v: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        v = rho * v + (1 - rho) * (g * g)
        u = g * (e.sqrt(d + eps) / e.sqrt(v + eps))
        return u, v, rho * d + (1 - rho) * (u * u)

    return per_parameter("adadelta", rule, {"square": 0.0, "delta": 0.0}, rho=rho, eps=eps)
