"""L-BFGS: quasi-Newton steps from the last few changes of gradient and position. It calls the loss itself."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor, full, wrap
from chainrule.errors import ConfigError, Diverged, StateError
from chainrule.optim.line_search import Point, strong_wolfe
from chainrule.optim.optimizer import Binding, Optimizer, Outer
from chainrule.optim.saving import as_saved, restored
from chainrule.optim.settings import count, number, one_of
from chainrule.optim.transform import Tensors, Transform, Updates, sequence, working
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import concat, reshape, slice, sum
from chainrule.primitives.operators import cast_to

CURVATURE = 1e-10  # a pair (change of gradient, step) is kept when its product is larger
PAIR = ("gradient_change", "step", "inverse")


class LBFGS(Optimizer):
    """Limited-memory BFGS: p ← p + t · d with d = −H g, H built of the last `history_size` changes of p and g.

    `step(closure)` makes up to `max_iter` such moves and calls the closure up to `max_eval` times (1.25 · max_iter by
    default). It stops when no gradient exceeds tolerance_grad, or loss or parameters change by less than
    tolerance_change. With line_search_fn None, t is lr (and at the very first move lr · min(1, 1 / ‖g‖₁)); with
    'strong_wolfe' that is the first trial of a line search. For losses that are the same at each call: full batches, no
    dropout. There are no groups, and it is not for compiled functions (the closure may be one). Raises Diverged when
    the loss is not a number; the parameters are then those before the move.

    Source: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization" (1989); Nocedal and
    Wright, Numerical Optimization (2006), algorithm 7.4.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> params = {"w": cr.tensor([3.0, -2.0])}
    >>> optimizer = optim.LBFGS(params, line_search_fn="strong_wolfe")
    >>> loss = optimizer.step(lambda: cr.value_and_grad(lambda p: ((p["w"] - 1.0) ** 2).sum())(params))
    >>> [round(x, 4) for x in params["w"].tolist()]
    [1.0, 1.0]
    """

    def __init__(
        self,
        params: Any = None,
        lr: Any = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        count("max_iter", max_iter, 1)
        super().__init__(
            params, lr, None, max_iter=max_iter,
            max_eval=max_iter * 5 // 4 if max_eval is None else count("max_eval", max_eval, 1),
            tolerance_grad=number("tolerance_grad", tolerance_grad, 0),
            tolerance_change=number("tolerance_change", tolerance_change, 0),
            history_size=count("history_size", history_size, 1),
            line_search_fn=one_of("line_search_fn", line_search_fn, (None, "strong_wolfe")),
        )  # fmt: skip

    def init(self, params: Any) -> Self:
        """Bind to `params` and forget all that was learnt of the loss; returns the optimiser."""
        self.binding = Binding(params)
        return super().init(params)

    def rule(self, **settings: Any) -> Transform:
        """None: it is no function of the gradient alone."""
        return sequence()

    def update(self, params: Any, grads: Any) -> Any:
        """Not to be had: L-BFGS evaluates the loss several times a step, so it takes a closure."""
        raise ConfigError(
            "LBFGS evaluates the loss several times a step. Call optimizer.step(closure) instead of update."
        )

    def wrapped(self, outer: Outer) -> Self:
        """Not to be had."""
        raise ConfigError("LBFGS cannot be chained or accumulated: it evaluates the loss itself.")

    def prepare(self, modules: list[Any]) -> None:
        """Not to be had: the number of evaluations depends on values."""
        raise ConfigError("LBFGS cannot be part of a compiled function. Compile the closure that it calls instead.")

    def step(self, closure: Callable[[], Any]) -> Tensor:  # type: ignore[override]
        """Minimise: `closure()` returns the loss at the bound model's present parameters; returns the first loss.

        The closure calls loss.backward() and returns the loss, or returns (loss, grads) as value_and_grad does.
        """
        if self.binding.model is None:
            raise ConfigError(
                "LBFGS moves the model that it is bound to: LBFGS(model, ...), or optimizer.init(model) first."
            )
        search = _Search(self, closure)
        first, loss, gradient = search.evaluate()
        if _finite(loss, gradient) and _largest(gradient) > self.settings["tolerance_grad"]:
            self._minimise(search, Point(0.0, loss, gradient, 0.0))
        elif not _finite(loss, gradient):
            raise Diverged(f"LBFGS: the loss is {loss} or has gradients that are no numbers; nothing was changed.")
        self.state = {**(self.state or {}), "evaluations": self._count("evaluations") + search.calls}
        return first

    def _count(self, name: str) -> Tensor:
        return (self.state or {}).get(name, wrap(np.asarray(0, np.int64)))

    def _minimise(self, search: "_Search", here: Point) -> None:
        tolerance = self.settings["tolerance_change"]
        memory = _Memory(dict(self.state or {}), self.settings["history_size"])
        for move in range(1, self.settings["max_iter"] + 1):
            lr = float(self._rate("default", memory.moves))
            direction = memory.direction(here.gradient)
            first = memory.moves == 0
            t = lr * min(1.0, 1.0 / float(sum_all(e.abs(here.gradient)))) if first else lr
            slope = dot(here.gradient, direction)
            memory.moves += 1
            memory.gradient, memory.last_direction, memory.last_length = here.gradient, direction, t
            if slope > -tolerance:
                break
            last = move == self.settings["max_iter"]
            there = search.along(direction, here._replace(t=0.0, slope=slope), t, evaluate=not last)
            memory.last_length = there.t
            before, here = here, there
            if (
                last
                or search.calls >= self.settings["max_eval"]
                or _largest(here.gradient) <= self.settings["tolerance_grad"]
                or _largest(direction) * here.t <= tolerance
                or abs(here.loss - before.loss) < tolerance
            ):
                break
        self.state = {**(self.state or {}), **memory.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict` to the bit, with as many pairs of changes as it holds."""
        if self.state is None:
            raise StateError("This LBFGS has no state to load into yet: call optimizer.init(model) before.")
        size = int(np.sum([np.prod(m.shape, dtype=np.int64) for m in self.members.values()]))
        shapes = {"direction": (size,), "gradient": (size,), "gradient_change": (size,), "step": (size,)}
        own: dict[str, Any] = {"lr": self.rates, "step": self._count("step")}
        for name in state:
            x = as_saved(name, state[name])
            if name in ("evaluations", "length", "scale") or name.startswith(("history.", "direction", "gradient")):
                wanted = shapes.get(name.rpartition(".")[2], ())
                _put_path(own, name.split("."), full(wanted, 0, x.dtype))
        loaded = restored(own, state, "LBFGS")
        self.rates = loaded.pop("lr")
        self.state = loaded


def _put_path(tree_: dict[str, Any], path: list[str], value: Tensor) -> None:
    for key in path[:-1]:
        tree_ = tree_.setdefault(key, {})
    tree_[path[-1]] = value


class _Memory:
    """What L-BFGS remembers from move to move, as vectors over all parameters."""

    def __init__(self, state: dict[str, Any], size: int) -> None:
        self.size = size
        self.moves = int(state["step"])
        self.gradient: Tensor | None = state.get("gradient")
        self.last_direction: Tensor | None = state.get("direction")
        self.last_length = float(state["length"]) if "length" in state else 0.0
        self.scale = float(state["scale"]) if "scale" in state else 1.0
        history = state.get("history", {})
        pairs = [history[key] for key in sorted(history, key=int)]  # a file may put '10' before '9'
        self.pairs = [(p["gradient_change"], p["step"], float(p["inverse"])) for p in pairs]

    def state(self) -> dict[str, Any]:
        """As a tree of tensors."""
        assert self.gradient is not None and self.last_direction is not None
        history = {
            str(i): dict(zip(PAIR, (y, s, _scalar(inverse)), strict=True))
            for i, (y, s, inverse) in enumerate(self.pairs)
        }
        return {
            "step": wrap(np.asarray(self.moves, np.int64)),
            "gradient": self.gradient,
            "direction": self.last_direction,
            "length": _scalar(self.last_length),
            "scale": _scalar(self.scale),
            "history": history,
        }

    def direction(self, gradient: Tensor) -> Tensor:
        """−H g by the two loops of algorithm 7.4, after noting the change since the last move."""
        if self.gradient is None or self.last_direction is None:
            return -gradient
        y, s = gradient - self.gradient, self.last_direction * self.last_length
        product = dot(y, s)
        if product > CURVATURE:
            self.pairs = [*self.pairs, (y, s, 1.0 / product)][-self.size :]
            self.scale = product / dot(y, y)
        q, weights = -gradient, []
        for y, s, inverse in reversed(self.pairs):
            weights.append(dot(s, q) * inverse)
            q = q - y * weights[-1]
        d = q * self.scale
        for (y, s, inverse), weight in zip(self.pairs, reversed(weights), strict=True):
            d = d + s * (weight - dot(y, d) * inverse)
        return d


class _Search:
    """The loss as a function of one vector, and moves along a line. It counts the calls of the closure."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any]) -> None:
        self.optimizer, self.closure, self.calls = optimizer, closure, 0

    def evaluate(self) -> tuple[Tensor, float, Tensor]:
        """Loss (as given, and as a number) and gradient at the present parameters."""
        self.calls += 1
        result = self.closure()
        view = self.optimizer._bound_view()
        if isinstance(result, tuple):
            result, grads = result[0], view.gradients(result[1])
        else:
            grads = view.left_by_backward()
        return result, float(result), _vector(view.tensors, grads)

    def along(self, direction: Tensor, here: Point, t: float, evaluate: bool) -> Point:
        """Move from here along `direction`, by t or as far as the line search says. Diverged if that is nowhere."""
        origin, settings = self.optimizer._bound_view().tensors, self.optimizer.settings

        def trial(t: float) -> Point:
            self.place(origin, direction, t)
            _, loss, gradient = self.evaluate()
            if not _finite(loss, gradient):
                return Point(t, math.inf, gradient, math.nan)
            return Point(t, loss, gradient, dot(gradient, direction))

        if settings["line_search_fn"] is not None:
            limit = settings["max_eval"] - self.calls
            there = strong_wolfe(trial, here, t, _largest(direction), settings["tolerance_change"], limit)
            self.place(origin, direction, there.t)
        elif evaluate:
            there = trial(t)
        else:  # after the last move nobody asks for the loss
            self.place(origin, direction, t)
            there = here._replace(t=t)
        if not math.isfinite(there.loss):
            self.place(origin, direction, 0.0)
            raise Diverged(
                f"LBFGS: the loss is not a number after a move of length {t:g}; the parameters are those before it. "
                "Try line_search_fn='strong_wolfe', or a lower lr."
            )
        return there

    def place(self, origin: Tensors, direction: Tensor, t: float) -> None:
        """Give the bound model the parameters origin + t · direction."""
        new, begin = {}, 0
        for name, p in origin.items():
            part = reshape(slice(direction, start=(begin,), stop=(begin + p.size,), step=(1,)), shape=p.shape)
            wide = working(p)
            new[name] = cast_to(wide + cast_to(part, wide.dtype) * t, p.dtype) if t else p
            begin += p.size
        self.optimizer._hand_back(self.optimizer._bound_view().replaced(new))


def _vector(params: Tensors, grads: Updates) -> Tensor:
    """All gradients as one vector; 0 for those that are None."""
    dtype = dtypes.promote(*[working(p).dtype for p in params.values()])
    parts = []
    for name, p in params.items():
        g = grads[name]
        parts.append(full((p.size,), 0, dtype) if g is None else reshape(cast_to(g, dtype), shape=(p.size,)))
    return concat(*parts, axis=0)


def _scalar(x: float) -> Tensor:
    return wrap(np.asarray(x, np.float64))


def sum_all(x: Tensor) -> Tensor:
    """The sum of a vector, a scalar."""
    return reshape(sum(x, axes=(0,)), shape=())


def dot(a: Tensor, b: Tensor) -> float:
    """The inner product, by a plain sum: its bits do not depend on the threads of a matrix library."""
    return float(sum_all(a * b))


def _largest(x: Tensor) -> float:
    return float(np.max(np.abs(np.asarray(x)), initial=0.0))


def _finite(loss: float, gradient: Tensor) -> bool:
    return math.isfinite(loss) and bool(np.isfinite(np.asarray(gradient)).all())
