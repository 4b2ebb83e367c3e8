"""Matrices of derivatives: jacobian and hessian, for any tree of arguments and results."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import Linearised, grad, settle
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import GradientError
from chainrule.functions.manipulation import reshape, stack


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns all derivatives of the results of `f` by the arguments `argnums`.

    For a result of shape s and an argument of shape t the derivatives have shape s + t: [i, j] is that of element i of
    the result by element j of the argument. Results and arguments may be trees: each tensor of the result is replaced
    by the tree of the derivatives by the argument (for a Module a dict {parameter name: derivatives}; None by
    integers). It takes a backward pass for each element of the results.
    Raises GradientError when a result is not a floating-point tensor.
    Source: Griewank and Walther, Evaluating Derivatives (2008), section 3.2.

    >>> import chainrule as cr
    >>> cr.jacobian(lambda x: x * x)(cr.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(f)
    def wrapped(*args: Any) -> Any:
        at = Linearised(f, args, numbers)
        results = tree.flatten(at.result)
        derivatives = []
        for leaf in results.leaves:
            by_argument = at.in_arguments(_derivatives(at, leaf.value))
            derivatives.append(by_argument[0] if isinstance(argnums, int) else tuple(by_argument))
        return tree.build(results, derivatives)

    return wrapped


def _derivatives(at: Linearised, y: Any) -> list[Tensor | None]:
    """The derivatives of `y` by each leaf of the arguments: a backward pass for each element."""
    if not isinstance(y, Tensor) or not dtypes.is_float(y.dtype):
        raise GradientError(f"A jacobian is that of floating-point tensors; the function returned {y!r:.200}.")
    rows = [at.pull([y], [_unit(y, i)]) for i in range(y.size)]
    result: list[Tensor | None] = []
    for k, x in enumerate(at.wrt):
        parts = [row[k] for row in rows]
        if x is None:
            result.append(None)
        elif not parts:
            result.append(full(y.shape + x.shape, 0, x.dtype))
        else:
            result.append(settle(reshape(stack(parts), y.shape + x.shape)))
    return result


def _unit(y: Tensor, i: int) -> Tensor:
    """The cotangent that picks element `i` of `y`."""
    unit = np.zeros(y.size, y.dtype)
    unit[i] = 1
    return wrap(unit.reshape(y.shape))


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the second derivatives of `f`, which returns one floating-point number.

    For an argument of shape t they have shape t + t; for trees see `jacobian`. Raises GradientError when `f` does not
    return one number.

    >>> import chainrule as cr
    >>> cr.hessian(lambda x: x[0] * x[0] * x[1])(cr.tensor([1.0, 2.0])).tolist()
    [[4.0, 2.0], [2.0, 0.0]]
    """
    return jacobian(grad(f, argnums), argnums)
