"""Derivatives against finite differences: for tests, and for everybody who writes a rule.

Differences are taken along random unit directions with the five-point stencil in float64, so the tolerance is fixed and
does not grow with the number of elements. Source: Chainer's gradient_check; Fornberg, "Generation of finite difference
formulas" (1988), table 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import Linearised, differentiable
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import GradientError

Arrays = list[np.ndarray]
STEP = 1e-3
TOLERANCE = 1e-7


def check_gradients(
    f: Callable[..., Any],
    *inputs: Any,
    order: int = 2,
    directions: int = 2,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare the derivatives of `f` at `inputs` up to `order` with numerical ones; say nothing when they agree.

    Inputs are tensors, arrays, Modules or trees of them; floating-point leaves are taken in float64. Results may be any
    tree of tensors. Raises GradientError that names the input, the element and both numbers, and says so when the point
    looks like a kink (where a numerical derivative means nothing).

    >>> import chainrule as cr
    >>> cr.check_gradients(lambda x: cr.sin(x) * x, cr.tensor([0.5, 2.0]), order=2)
    """
    rng = np.random.default_rng(seed)
    flat = tree.flatten(list(inputs))
    moving = [i for i, leaf in enumerate(flat.leaves) if differentiable(leaf)]
    if not moving:
        raise GradientError("check_gradients: no input is floating point, so there is nothing to differentiate.")
    start = [np.asarray(flat.leaves[i].value).astype(np.float64) for i in moving]
    names = [flat.leaves[i].path for i in moving]
    weights: dict[int, np.ndarray] = {}

    def scalar(values: Sequence[Any]) -> Tensor:
        """The results, weighted by fixed random numbers and added up."""
        leaves = [leaf.value for leaf in flat.leaves]
        for i, value in zip(moving, values, strict=True):
            leaves[i] = value
        total: Tensor | None = None
        for k, leaf in enumerate(tree.flatten(f(*tree.build(flat, leaves))).leaves):
            if not dtypes.is_float(leaf.value.dtype):
                continue
            if leaf.value.dtype != dtypes.float64:
                raise GradientError(
                    f"check_gradients: the function turned float64 into {leaf.value.dtype.name} inside."
                )
            if k not in weights:
                weights[k] = rng.uniform(0.5, 1.5, leaf.value.shape) * rng.choice([-1.0, 1.0], leaf.value.shape)
            term = (leaf.value * wrap(weights[k])).sum()
            total = term if total is None else total + term
        if total is None:
            raise GradientError("check_gradients: the function returned no floating-point tensor.")
        return total

    function: Callable[[Sequence[Any]], Tensor] = scalar
    for level in range(1, order + 1):
        for _ in range(directions):
            _compare(function, start, names, _unit(rng, start), level, tolerance)
        function = _along(function, _unit(rng, start))


def _unit(rng: np.random.Generator, like: Arrays) -> Arrays:
    direction = [rng.standard_normal(a.shape) for a in like]
    length = np.sqrt(sum(float((d * d).sum()) for d in direction)) or 1.0
    return [d / length for d in direction]


def _gradient(function: Callable[[Sequence[Any]], Tensor], at: list[Any]) -> list[Tensor]:
    linear = Linearised(lambda values: function(values), (at,), (0,))
    if linear.result.size != 1:
        raise GradientError("check_gradients compares derivatives of scalars.")
    grads = linear.pull([linear.result], [wrap(np.ones(linear.result.shape))])
    return [g for g in grads if g is not None]


def _along(function: Callable[[Sequence[Any]], Tensor], direction: Arrays) -> Callable[[Sequence[Any]], Tensor]:
    """The derivative of `function` along `direction`, as a function: its gradient is of the next order."""

    def derivative(values: Sequence[Any]) -> Tensor:
        parts = [(g * wrap(d)).sum() for g, d in zip(_gradient(function, list(values)), direction, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    return derivative


def _compare(
    function: Callable[[Sequence[Any]], Tensor],
    start: Arrays,
    names: list[str],
    direction: Arrays,
    level: int,
    tolerance: float,
) -> None:
    def value(t: float) -> float:
        return float(function([wrap(a + t * d) for a, d in zip(start, direction, strict=True)]))

    exact = [g.numpy() for g in _gradient(function, [wrap(a) for a in start])]
    ours = sum(float((g * d).sum()) for g, d in zip(exact, direction, strict=True))
    numerical, scale = _difference(value)
    if _agree(ours, numerical, scale, tolerance):
        return
    what = f"derivative of order {level}"
    if _looks_like_a_kink(value):
        raise GradientError(
            f"{what}: at this point the function seems to have a kink (its slopes from the two sides differ), so the "
            f"numerical {numerical:.6g} says nothing about {ours:.6g}. Check at another point."
        )
    worst = max(_elements(function, start, exact), key=lambda found: found[0], default=None)
    where = ""
    if worst is not None:
        _, i, element, mine, theirs = worst
        where = f" Worst: input {names[i]}, element {list(map(int, element))}: {mine:.9g}, numerically {theirs:.9g}."
    raise GradientError(f"{what}: {ours:.9g} along a random direction, numerically {numerical:.9g}.{where}")


def _difference(value: Callable[[float], float]) -> tuple[float, float]:
    """The five-point derivative at 0, and the size of the values that it was made of."""
    points = [value(k * STEP) for k in (-2, -1, 1, 2)]
    slope = (8 * (points[2] - points[1]) - (points[3] - points[0])) / (12 * STEP)
    return slope, max(abs(p) for p in points)


def _agree(a: float, b: float, scale: float, tolerance: float) -> bool:
    return bool(abs(a - b) <= tolerance * (1 + max(abs(a), abs(b)) + scale))


def _looks_like_a_kink(value: Callable[[float], float]) -> bool:
    """Whether a jump, or a difference between the slopes from the two sides, stays when the step shrinks."""
    middle = value(0.0)

    def jump(h: float) -> float:
        return abs(value(h) - value(-h))

    def bend(h: float) -> float:
        return abs((value(h) - middle) / h - (middle - value(-h)) / h)

    return any(gap(STEP) > 1e-6 and gap(STEP / 8) > 0.5 * gap(STEP) for gap in (jump, bend))


def _elements(
    function: Callable[[Sequence[Any]], Tensor], start: Arrays, exact: Arrays, most: int = 2000
) -> list[tuple[float, int, tuple[int, ...], float, float]]:
    """(error, input, element, ours, numerical) one by one: only asked for when something is wrong."""
    found = []
    for i, array in enumerate(start):
        for element in list(np.ndindex(array.shape))[:most]:

            def value(t: float, i: int = i, element: tuple[int, ...] = element) -> float:
                moved = [a.copy() for a in start]
                moved[i][element] += t
                return float(function([wrap(a) for a in moved]))

            numerical, _ = _difference(value)
            ours = float(exact[i][element])
            found.append((abs(ours - numerical), i, element, ours, numerical))
    return found
