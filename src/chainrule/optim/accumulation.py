"""Gradient accumulation: the gradients of several small batches make the update of one large batch."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from chainrule import tree
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError
from chainrule.functions.choice import where
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.settings import count, flag
from chainrule.optim.transform import State, Tensors, Transform, Updates, working_dtype
from chainrule.primitives.operators import cast_to

Either = TypeVar("Either", Optimizer, Transform)


@dataclass(frozen=True)
class Accumulated:
    """A Transform around another, which it gives the mean (or sum) of `steps` gradients at every steps-th call."""

    steps: int
    average: bool

    def __call__(self, inner: Transform) -> Transform:
        """The Transform around `inner`. Other calls return updates of 0 and leave the state of `inner` as it was."""

        def init(params: Tensors) -> State:
            zeros = {n: wrap(np.zeros(p.shape, working_dtype(p.dtype))) for n, p in params.items()}
            return {"count": wrap(np.asarray(0, np.int64)), "sum": zeros, "inner": inner.init(params)}

        def update(updates: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
            counted = state["count"] + 1
            due = counted == self.steps
            sums = {n: state["sum"][n] for n, g in updates.items() if g is not None}
            sums = {n: s + cast_to(updates[n], s.dtype) for n, s in sums.items()}  # type: ignore[arg-type]
            means: Updates = dict.fromkeys(updates)
            means.update({n: s / self.steps if self.average else s for n, s in sums.items()})
            changes, after = inner.update(means, state["inner"], params)
            kept = {**state["sum"], **{n: where(due, 0.0, s) for n, s in sums.items()}}
            return {n: None if u is None else where(due, u, 0.0) for n, u in changes.items()}, {
                "count": where(due, 0, counted),
                "sum": kept,
                "inner": _chosen(due, after, state["inner"]),
            }

        return Transform(init, update, "accumulate", steps=self.steps, average=self.average, inner=inner)

    def describe(self, inner: str) -> str:
        """How it is printed around the text of an optimiser."""
        return f"accumulate({inner}, steps={self.steps}{'' if self.average else ', average=False'})"


def _chosen(due: Tensor, after: State, before: State) -> State:
    """`after` where the update was due, else `before`. What was shared in both stays shared."""
    new, old = tree.flatten(after), tree.flatten(before)
    made: dict[tuple[int, int], Tensor] = {}
    for a, b in zip(new.leaves, old.leaves, strict=True):
        pair = id(a.value), id(b.value)
        if pair not in made:
            made[pair] = a.value if a.value is b.value else where(due, a.value, b.value)
    return tree.build(new, [made[id(a.value), id(b.value)] for a, b in zip(new.leaves, old.leaves, strict=True)])


def accumulate(inner: Either, steps: int, average: bool = True) -> Either:
    """`inner` (an optimiser or a transform), applied at every `steps`-th call to the mean gradient of these calls.

    With average=False to their sum. The mean of k batches of n rows is the gradient of one batch of k · n rows when the
    loss is a mean. Step counts and schedules of `inner` count the updates that are applied. A parameter whose gradient
    is None in a call takes no part in it; what it has gathered waits for a call that is due and has a gradient for it.
    Returns a new optimiser without state (or the state of a bound model made afresh).

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer, params = optim.accumulate(optim.SGD(lr=1.0), steps=2), {"w": cr.tensor([0.0])}
    >>> params = optimizer.update(params, {"w": cr.tensor([1.0])})
    >>> params["w"].tolist(), optimizer.update(params, {"w": cr.tensor([3.0])})["w"].tolist()
    ([0.0], [-2.0])
    """
    outer = Accumulated(count("steps", steps, 1), flag("average", average))
    if isinstance(inner, Optimizer):
        return inner.wrapped(outer)
    if isinstance(inner, Transform):
        return outer(inner)
    raise ConfigError(f"accumulate takes an optimiser or a transform; got {inner!r:.80}.")
