"""Losses for numbers: how far a prediction is from its target, and how likely the target was."""

import math

from chainrule.core.autodiff import as_tensor, stop_gradient
from chainrule.core.tensor import Tensor, full
from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.functions.choice import clip, where
from chainrule.functions.precision import rounded_once
from chainrule.functions.statistics import sum
from chainrule.losses.checks import Reduction, alike, filled, mismatch, predictions, reduced
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import broadcast_to, cast_to

PAIR = ("input", "target")


@rounded_once
def mse(input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None) -> Tensor:
    """Squared error (input − target)².

    input, target and weight of one shape -> (), or that shape with reduction="none". With a `weight` for each element
    the mean is Σ weight · loss / Σ weight. Raises ShapeError when shapes differ or the mean is of nothing, DTypeError
    for an input that is not floating point.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.mse(cr.tensor([1.0, 5.0]), cr.tensor([2.0, 2.0])))
    5.0
    """
    input, target = alike("mse", PAIR, input, target)
    error = input - target
    return _weighted_mean("mse", error * error, weight, reduction)


@rounded_once
def l1(input: Tensor, target: Tensor, reduction: Reduction = "mean", weight: Tensor | None = None) -> Tensor:
    """Absolute error |input − target|; its slope where they are equal is 0.

    Shapes, weighted mean and errors as for mse.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.l1(cr.tensor([1.0, 5.0]), cr.tensor([2.0, 2.0])))
    2.0
    """
    input, target = alike("l1", PAIR, input, target)
    return _weighted_mean("l1", abs(input - target), weight, reduction)


def _weighted_mean(name: str, losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return reduced(name, losses, reduction)
    weight = _same_shape(name, weight, losses)
    if reduction == "mean" and filled(name, losses):
        return sum(losses * weight) / sum(weight)
    return reduced(name, losses * weight, reduction)


def _same_shape(name: str, weight: Tensor, losses: Tensor) -> Tensor:
    weight = as_tensor(weight)
    if weight.shape != losses.shape:
        raise ShapeError(mismatch(name, "input", losses.shape, "weight", weight.shape))
    return cast_to(weight, losses.dtype)


@rounded_once
def huber(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the squared error up to a distance of `delta`, from there on a straight line of slope `delta`.

    Shapes and errors as for mse, ConfigError unless delta > 0. The mean of weighted losses divides by their number,
    as in PyTorch (unlike that of mse). Source: Huber, "Robust estimation of a location parameter" (1964).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> losses.huber(cr.tensor([0.5, 3.0]), cr.tensor([0.0, 0.0]), reduction="none").tolist()
    [0.125, 2.5]
    """
    if not delta > 0:
        raise ConfigError(f"huber: delta={delta} must be positive; it is the distance where the line begins.")
    input, target = alike("huber", PAIR, input, target)
    losses = _huber(input, target, delta)
    return reduced("huber", losses if weight is None else losses * _same_shape("huber", weight, losses), reduction)


def _huber(input: Tensor, target: Tensor, delta: float) -> Tensor:
    error = input - target
    held = clip(error, -delta, delta)
    return held * (error - 0.5 * held)  # ½ error² inside, delta · (|error| − ½ delta) outside


@rounded_once
def smooth_l1(input: Tensor, target: Tensor, reduction: Reduction = "mean", beta: float = 1.0) -> Tensor:
    """The absolute error less ½ beta, rounded off within a distance of `beta`: huber / beta, or l1 for beta = 0.

    Shapes and errors as for mse, ConfigError for a negative beta. Source: Girshick, "Fast R-CNN" (2015), equation 3.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> losses.smooth_l1(cr.tensor([0.5, 3.0]), cr.tensor([0.0, 0.0]), reduction="none").tolist()
    [0.125, 2.5]
    """
    if not beta >= 0:
        raise ConfigError(f"smooth_l1: beta={beta} is a distance and cannot be negative.")
    input, target = alike("smooth_l1", PAIR, input, target)
    losses = abs(input - target) if beta == 0 else _huber(input, target, beta) / beta
    return reduced("smooth_l1", losses, reduction)


@rounded_once
def poisson_nll(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of counts with a Poisson distribution, without the term log(target!).

    `input` is the logarithm of the expectation, or with log_input=False the expectation itself, to which `eps` is added
    before its logarithm is taken. `full` adds Stirling's approximation of log(target!) where target > 1.
    Shapes and errors as for mse.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.poisson_nll(cr.tensor([0.0]), cr.tensor([3.0])))
    1.0
    """
    x, target = alike("poisson_nll", PAIR, input, target)
    losses = e.exp(x) - target * x if log_input else x - target * e.log(x + eps)
    if full:
        several = target > 1
        n = where(several, target, 1)
        losses = losses + where(several, n * e.log(n) - n + 0.5 * e.log(2 * math.pi * n), 0)
    return reduced("poisson_nll", losses, reduction)


@rounded_once
def gaussian_nll(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood with a normal distribution: ½ (log var + (input − target)² / var).

    `var` is the variance: a number, of the shape of input, without its last axis, or with one axis of extent 1. Below
    `eps` it counts as `eps`, and its gradient is the one there. `full` adds the constant ½ log 2π.
    Raises ShapeError when shapes do not fit, DTypeError for an input that is not floating point, DataError for a
    negative variance. Source: Nix and Weigend, "Estimating the mean and variance of the target probability
    distribution" (1994).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.gaussian_nll(cr.tensor([1.0]), cr.tensor([3.0]), cr.tensor([1.0])))
    2.0
    """
    input, target = alike("gaussian_nll", PAIR, input, target)
    var = _variance(input, var, eps)
    error = input - target
    losses = 0.5 * (e.log(var) + error * error / var)
    return reduced("gaussian_nll", losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def _variance(input: Tensor, var: Tensor | float, eps: float) -> Tensor:
    """The variance in the shape and dtype of `input`, and at least eps."""
    var = full((), var, input.dtype) if isinstance(var, (int, float)) else predictions("gaussian_nll", var, "var")
    if var.value is not None and (var.value < 0).any():
        raise DataError(
            f"gaussian_nll: var is a variance; {var.value.min()} is negative. Learn its logarithm, or its root."
        )
    if var.shape == input.shape[:-1] and var.ndim:
        var = reshape(var, shape=(*var.shape, 1))
    differing = [n for n, m in zip(var.shape, input.shape, strict=False) if n != m]
    if var.ndim and (var.ndim != input.ndim or differing not in ([], [1])):
        raise ShapeError(mismatch("gaussian_nll", "input", input.shape, "var", var.shape))
    var = cast_to(var, input.dtype)
    return broadcast_to(where(var < eps, stop_gradient(eps - var) + var, var), input.shape)
