"""Schedules: functions from the count t of updates done so far (0 for the first) to the learning rate of the next one.

A schedule stands wherever a learning rate may: `optim.Adam(lr=optim.cosine(1e-3, T_max=1000))`. It is called with t as
a float64 scalar tensor and returns a scalar; so it works traced, and the rate changes from step to step without a
compilation. Any function written in tensors will do: `lambda t: 0.1 / (1 + t)`.

Arguments have PyTorch's names, save that the rate that PyTorch takes from the optimiser comes first. A step here is an
update, not an epoch: multiply by the number of batches where epochs are meant.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from chainrule import dtypes
from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError
from chainrule.functions.choice import where
from chainrule.optim.settings import count, flag, number, one_of
from chainrule.optim.transform import Described
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import cast_to, minimum

Formula = Callable[[Tensor], Any]


class Schedule(Described):
    """A function from the step count to the rate, with a name and settings to be known and printed by.

    >>> from chainrule import optim
    >>> schedule = optim.linear(1.0, total_iters=4, start_factor=1.0, end_factor=0.0)
    >>> schedule, [float(schedule(t)) for t in range(5)]
    (linear(lr=1.0, total_iters=4, start_factor=1.0, end_factor=0.0), [1.0, 0.75, 0.5, 0.25, 0.0])
    """

    def __init__(self, formula: Formula, name: str, **settings: Any) -> None:
        super().__init__(name, settings)
        self.formula = formula

    def __call__(self, step: Any) -> Tensor:
        """The rate after `step` updates (a number or a scalar tensor): a float64 scalar."""
        return rate_at(self.formula, step)


def rate_at(schedule: Callable[[Tensor], Any], step: Any) -> Tensor:
    """The value of a schedule, or of a function in the place of one, as a float64 scalar. ConfigError for others."""
    rate = schedule(cast_to(as_tensor(step), dtypes.float64))
    if not isinstance(rate, Tensor):
        rate = full((), number("the value of a schedule", rate), dtypes.float64)
    if rate.shape != ():
        raise ConfigError(f"A schedule returns one number; {schedule!r:.80} returned shape {rate.shape}.")
    return cast_to(rate, dtypes.float64)


def as_schedule(rate: Any) -> Callable[[Tensor], Any]:
    """`rate` if it is a schedule; else the schedule that stays at this number."""
    return rate if callable(rate) else constant(rate)


def _rate(lr: Any) -> float:
    return number("lr", lr, 0)


def _annealed(start: float, end: float, share: Tensor) -> Tensor:
    """From start to end along half a period of the cosine, as share goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1 + e.cos(math.pi * share))


def constant(lr: float) -> Schedule:
    """lr, always.

    >>> from chainrule import optim
    >>> float(optim.constant(0.1)(7))
    0.1
    """
    lr = _rate(lr)
    return Schedule(lambda t: lr, "constant", lr=lr)


def linear(lr: float, total_iters: int, start_factor: float = 1 / 3, end_factor: float = 1.0) -> Schedule:
    """lr · (start_factor + (end_factor − start_factor) · t / total_iters), then constant.

    >>> from chainrule import optim
    >>> float(optim.linear(0.1, total_iters=10, start_factor=0.5)(5))
    0.075...
    """
    lr, total_iters = _rate(lr), count("total_iters", total_iters, 1)
    start, end = number("start_factor", start_factor, 0), number("end_factor", end_factor, 0)
    return Schedule(
        lambda t: lr * (start + (end - start) * minimum(t / total_iters, 1.0)),
        "linear", lr=lr, total_iters=total_iters, start_factor=start, end_factor=end,
    )  # fmt: skip


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """lr · gamma^⌊t / step_size⌋: a staircase.

    >>> from chainrule import optim
    >>> [round(float(optim.step(1.0, step_size=2)(t)), 6) for t in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    lr, step_size, gamma = _rate(lr), count("step_size", step_size, 1), number("gamma", gamma, 0)
    formula = lambda t: lr * gamma ** e.floor(t / step_size)  # noqa: E731
    return Schedule(formula, "step", lr=lr, step_size=step_size, gamma=gamma)


def multistep(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """lr · gamma^k, k the number of milestones that t has reached.

    >>> from chainrule import optim
    >>> [float(optim.multistep(1.0, [2, 3], gamma=0.5)(t)) for t in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    lr, gamma, points = _rate(lr), number("gamma", gamma, 0), _milestones(milestones)

    def formula(t: Tensor) -> Any:
        rate: Any = full((), lr, dtypes.float64)
        for point in points:
            rate = where(t >= point, rate * gamma, rate)
        return rate

    return Schedule(formula, "multistep", lr=lr, milestones=points, gamma=gamma)


def _milestones(milestones: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        raise ConfigError(f"milestones is a list of step counts; got {milestones!r:.80}.")
    points = tuple(count("a milestone", m) for m in milestones)
    if list(points) != sorted(points):
        raise ConfigError(f"milestones must not decrease; got {points}.")
    return points


def exponential(lr: float, gamma: float) -> Schedule:
    """lr · gammaᵗ.

    >>> from chainrule import optim
    >>> float(optim.exponential(1.0, gamma=0.5)(3))
    0.125
    """
    lr, gamma = _rate(lr), number("gamma", gamma, 0)
    return Schedule(lambda t: lr * gamma**t, "exponential", lr=lr, gamma=gamma)


def polynomial(lr: float, total_iters: int, power: float = 1.0) -> Schedule:
    """lr · (1 − t / total_iters)^power, then 0.

    >>> from chainrule import optim
    >>> float(optim.polynomial(1.0, total_iters=4, power=2.0)(2))
    0.25
    """
    lr, total_iters, power = _rate(lr), count("total_iters", total_iters, 1), number("power", power, 0)
    return Schedule(
        lambda t: lr * (1 - minimum(t / total_iters, 1.0)) ** power,
        "polynomial", lr=lr, total_iters=total_iters, power=power,
    )  # fmt: skip


def cosine(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """eta_min + (lr − eta_min) · (1 + cos(π t / T_max)) / 2, and eta_min after T_max (where PyTorch's rises again).

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), without restarts.

    >>> from chainrule import optim
    >>> [round(float(optim.cosine(1.0, T_max=2)(t)), 6) for t in range(4)]
    [1.0, 0.5, 0.0, 0.0]
    """
    lr, T_max, eta_min = _rate(lr), count("T_max", T_max, 1), number("eta_min", eta_min, 0)
    formula = lambda t: _annealed(lr, eta_min, minimum(t / T_max, 1.0))  # noqa: E731
    return Schedule(formula, "cosine", lr=lr, T_max=T_max, eta_min=eta_min)


def cosine_restarts(lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> Schedule:
    """Cosines from lr to eta_min one after the other: the first takes T_0 steps, each next one T_mult times as many.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017).

    >>> from chainrule import optim
    >>> [round(float(optim.cosine_restarts(1.0, T_0=2, T_mult=2)(t)), 3) for t in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    lr, T_0, T_mult = _rate(lr), count("T_0", T_0, 1), count("T_mult", T_mult, 1)
    eta_min = number("eta_min", eta_min, 0)

    def begin(cycle: Tensor) -> Tensor:  # T_0 (T_multⁿ − 1) / (T_mult − 1), a whole number
        return e.round(T_0 * (float(T_mult) ** cycle - 1) / (T_mult - 1))

    def formula(t: Tensor) -> Tensor:
        if T_mult == 1:
            return _annealed(lr, eta_min, t / T_0 - e.floor(t / T_0))
        cycle = e.floor(e.log1p(t * ((T_mult - 1) / T_0)) / math.log(T_mult))
        cycle = where(t >= begin(cycle + 1), cycle + 1, where(t < begin(cycle), cycle - 1, cycle))  # logs are rounded
        return _annealed(lr, eta_min, (t - begin(cycle)) / (T_0 * float(T_mult) ** cycle))

    return Schedule(formula, "cosine_restarts", lr=lr, T_0=T_0, T_mult=T_mult, eta_min=eta_min)


def one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """From max_lr / div_factor up to max_lr in the share pct_start of all steps, then down to the first /
    final_div_factor.

    With `three_phase` the way down has two parts: first to where the rise began, in as many steps, then to the end.
    After total_steps the rate stays. The cycle of momentum that PyTorch adds is not made. `anneal_strategy`: 'cos' or
    'linear'.
    Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates"
    (2018).

    >>> from chainrule import optim
    >>> schedule = optim.one_cycle(1.0, total_steps=20, pct_start=0.3, div_factor=10.0)
    >>> [round(float(schedule(t)), 5) for t in (0, 5, 12, 19)]
    [0.1, 1.0, 0.50001, 1e-05]
    """
    top, total_steps, pct = number("max_lr", max_lr, 0), count("total_steps", total_steps, 2), _share(pct_start)
    first = top / number("div_factor", div_factor, 1)
    last = first / number("final_div_factor", final_div_factor, 1)
    smooth = one_of("anneal_strategy", anneal_strategy, ("cos", "linear")) == "cos"
    rise = pct * total_steps - 1
    corners = [(0.0, first), (rise, top), (float(total_steps - 1), last)]
    if flag("three_phase", three_phase):
        corners.insert(2, (2 * rise, first))
    if any(a >= b for (a, _), (b, _) in pairwise(corners)):
        raise ConfigError(f"pct_start={pct:g} of total_steps={total_steps} leaves a phase of one_cycle without a step.")

    def formula(t: Tensor) -> Tensor:
        rate: Any = None
        for (begin, a), (end, b) in reversed(list(pairwise(corners))):
            share = minimum((t - begin) / (end - begin), 1.0)
            here = _annealed(a, b, share) if smooth else a + (b - a) * share
            rate = here if rate is None else where(t <= end, here, rate)
        return rate

    return Schedule(
        formula, "one_cycle", max_lr=top, total_steps=total_steps, pct_start=pct, anneal_strategy=anneal_strategy,
        div_factor=float(div_factor), final_div_factor=float(final_div_factor), three_phase=three_phase,
    )  # fmt: skip


def _share(pct_start: Any) -> float:
    return number("pct_start", pct_start, 0, 1)


def warmup(steps: int, then: Any, start_factor: float = 0.0) -> Schedule:
    """A straight rise from start_factor · then(0) to then(0) in `steps` steps; after that `then`, counted from there.

    `then` is a schedule or a number. Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour"
    (2017), section 2.2.

    >>> from chainrule import optim
    >>> schedule = optim.warmup(2, then=optim.exponential(1.0, gamma=0.5))
    >>> [float(schedule(t)) for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    steps, start, after = count("steps", steps), number("start_factor", start_factor, 0), as_schedule(then)

    def formula(t: Tensor) -> Tensor:
        rise = start + (1 - start) * minimum(t / max(steps, 1), 1.0)
        return where(t < steps, rise * rate_at(after, 0), rate_at(after, where(t < steps, 0.0, t - steps)))

    return Schedule(formula, "warmup", steps=steps, then=after, start_factor=start)


def join(schedules: Sequence[Any], milestones: Sequence[int]) -> Schedule:
    """One schedule after the other: the k-th change comes at t = milestones[k]. Each counts from where it begins.

    Numbers stand for constant rates.

    >>> from chainrule import optim
    >>> schedule = optim.join([0.5, optim.exponential(1.0, gamma=0.5)], milestones=[2])
    >>> [float(schedule(t)) for t in range(5)]
    [0.5, 0.5, 1.0, 0.5, 0.25]
    """
    points, parts = _milestones(milestones), tuple(as_schedule(s) for s in schedules)
    if len(parts) != len(points) + 1:
        raise ConfigError(f"join: {len(parts)} schedules need {len(parts) - 1} milestones; got {len(points)}.")

    def formula(t: Tensor) -> Tensor:
        rate = rate_at(parts[0], t)
        for point, part in zip(points, parts[1:], strict=True):
            rate = where(t >= point, rate_at(part, where(t < point, 0.0, t - point)), rate)
        return rate

    return Schedule(formula, "join", schedules=parts, milestones=points)
