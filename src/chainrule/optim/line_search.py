"""A line search for a step length that satisfies the strong Wolfe conditions.

With φ(t) the loss at the distance t along a direction: φ(t) ≤ φ(0) + c₁ t φ'(0), and |φ'(t)| ≤ c₂ |φ'(0)|.
Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6, with the safeguards of Mark Schmidt's
minFunc that PyTorch took over: the next trial lies between 1.01 and 10 times as far, and within a bracket it keeps a
tenth of the bracket away from the ends once it has come near to one twice.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from chainrule.core.tensor import Tensor

SUFFICIENT_DECREASE = 1e-4  # c₁
CURVATURE = 0.9  # c₂


class Point(NamedTuple):
    """A point on the line: its distance t; there the loss, the gradient (a vector), and φ' = gradient · direction."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def strong_wolfe(
    evaluate: Callable[[float], Point], start: Point, t: float, longest: float, tolerance: float, limit: int
) -> Point:
    """A point that satisfies the conditions, or the best found with `limit` evaluations after the first.

    `start` is the point at 0, `t` the first trial, `longest` the largest magnitude in the direction: the search ends
    when the bracket times that is shorter than `tolerance`. A loss that is not finite counts as too high.
    """
    found, bracket, trials = _bracketed(evaluate, start, t, limit)
    if found is not None:
        return found
    low, high = _ordered(*bracket)
    near_an_end = False
    while trials < limit and abs(bracket[1].t - bracket[0].t) * longest >= tolerance:
        first, last = sorted(point.t for point in bracket)
        t = _cubic_minimum(bracket[0], bracket[1], first, last)
        margin = 0.1 * (last - first)
        close = min(last - t, t - first) < margin
        if close and (near_an_end or t >= last or t <= first):
            t = last - margin if abs(t - last) < abs(t - first) else first + margin
            close = False
        near_an_end = close
        point, trials = evaluate(t), trials + 1
        if _too_high(point, start) or not point.loss < bracket[low].loss:
            bracket[high] = point
            low, high = _ordered(*bracket)
            continue
        done = abs(point.slope) <= -CURVATURE * start.slope
        if not done and point.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
        if done:
            break
    return bracket[low]


def _bracketed(
    evaluate: Callable[[float], Point], start: Point, t: float, limit: int
) -> tuple[Point | None, list[Point], int]:
    """Go farther until a point is good enough, or a good one lies between two; also how often it went farther."""
    before, point = start, evaluate(t)
    for trials in range(limit):
        if _too_high(point, start) or (trials > 1 and not point.loss < before.loss):
            return None, [before, point], trials
        if abs(point.slope) <= -CURVATURE * start.slope:
            return point, [], trials
        if point.slope >= 0:
            return None, [before, point], trials
        t = _cubic_minimum(before, point, point.t + 0.01 * (point.t - before.t), point.t * 10)
        before, point = point, evaluate(t)
    return None, [start, point], limit


def _too_high(point: Point, start: Point) -> bool:
    return not point.loss <= start.loss + SUFFICIENT_DECREASE * point.t * start.slope


def _ordered(a: Point, b: Point) -> tuple[int, int]:
    """The places of the lower and of the higher one."""
    return (0, 1) if a.loss <= b.loss else (1, 0)


def _cubic_minimum(a: Point, b: Point, first: float, last: float) -> float:
    """Where the cubic through two points with these slopes is least, within [first, last]; else the middle."""
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t) if a.t != b.t else math.nan
    square = d1 * d1 - a.slope * b.slope
    if square >= 0:
        d2 = math.sqrt(square)
        width = b.slope - a.slope + 2 * d2
        t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / width) if width != 0 else math.nan
        if math.isfinite(t):
            return min(max(t, first), last)
    return (first + last) / 2
