"""Transforms: gradients go in, updates come out. Optimisers are chains of them.

A Transform is a pair of pure functions over dicts {parameter name: tensor}:

    init(params) -> state                               a tree of tensors: dicts, lists, tuples
    update(updates, state, params) -> (updates, state)  the last of a chain is added to the parameters

They work on values and on traced tensors alike. A gradient that is None belongs to a parameter that takes no part in
this step: it stays None, and its state stays as it is. float16 and bfloat16 parameters have float32 state and float32
updates. Source of the idea: Hessel et al., "Optax: composable gradient transformation and optimisation, in JAX!"
(2020).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, StateError
from chainrule.optim.settings import listed
from chainrule.primitives.operators import cast_to

Tensors = dict[str, Tensor]
Updates = dict[str, Tensor | None]
State = Any


class Described:
    """Something that is known by its name and settings: equal ones count as one when a step is compiled.

    Without settings it is equal to itself alone, since nothing is known of it then.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Described) or type(self) is not type(other):
            return self is other
        same = self.name == other.name and repr(self.settings) == repr(other.settings)  # 1 and 1.0 are not the same
        return bool(self.settings) and same and self.settings == other.settings

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.settings)))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


class Transform(Described):
    """A pair of functions, init and update; see the head of this file. `settings` describe it, and must be complete.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> halve = optim.Transform(lambda params: {}, lambda g, state, params: ({k: v / 2 for k, v in g.items()}, state))
    >>> updates, state = halve.update({"w": cr.tensor([4.0])}, halve.init({}), {"w": cr.tensor([1.0])})
    >>> updates["w"].tolist()
    [2.0]
    """

    def __init__(
        self,
        init: Callable[[Tensors], State],
        update: Callable[[Updates, State, Tensors], tuple[Updates, State]],
        name: str = "transform",
        **settings: Any,
    ) -> None:
        super().__init__(name, settings)
        self.init, self.update = init, update


def working_dtype(dtype: dtypes.DType) -> dtypes.DType:
    """The dtype in which a parameter of `dtype` is updated: float32 for float16 and bfloat16."""
    return dtypes.float32 if dtype in dtypes.HALVES else dtype


def working(x: Tensor) -> Tensor:
    """`x` in its working dtype."""
    return cast_to(x, working_dtype(x.dtype))


class Clock(NamedTuple):
    """Numbers that every parameter keeps beside its slots, such as the count of its steps.

    start   their names and first values
    tick    (numbers,) -> (numbers after this step, coefficients for the rule); scalars, float64 where they are real
    """

    start: dict[str, np.generic]
    tick: Callable[[tuple[Tensor, ...]], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]


def counting(coefficients: Callable[[Tensor], tuple[Tensor, ...]]) -> Clock:
    """A Clock that counts steps; the coefficients are a function of the number of this step: 1.0, 2.0, …"""

    def tick(numbers: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        step = numbers[0] + 1
        return (step,), coefficients(cast_to(step, dtypes.float64))

    return Clock({"step": np.int64(0)}, tick)


def per_parameter(
    name: str,
    rule: Callable[..., Any],
    slots: Mapping[str, float] | None = None,
    clock: Clock | None = None,
    **settings: Any,
) -> Transform:
    """A Transform that treats each parameter alone.

    rule    (gradient, parameter, *slots, *coefficients) -> (update, *new slots), in the working dtype
    slots   tensors of the parameter's shape that it keeps from step to step, and what they are filled with at first

    Each parameter has its own step count: one that had no gradient for a while (frozen, or a branch that was not taken)
    goes on where it stopped, as in PyTorch. Parameters that made equal steps share the numbers that follow from it.
    """
    filled = slots or {}

    def init(params: Tensors) -> State:
        state: dict[str, Tensors] = {}
        for number, start in clock.start.items() if clock else ():
            state[number] = dict.fromkeys(params, wrap(np.asarray(start)))
        for slot, fill in filled.items():
            state[slot] = {n: wrap(np.full(p.shape, fill, working_dtype(p.dtype))) for n, p in params.items()}
        return state

    def update(updates: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
        tick = _once(clock)
        result: Updates = {}
        new = {slot: dict(entries) for slot, entries in state.items()}
        for n, g in updates.items():
            if g is None:
                result[n] = None
                continue
            try:
                p, kept = params[n], {slot: entries[n] for slot, entries in state.items()}
            except KeyError:
                raise StateError(f"{name} has no state for {n!r}; init was called for {_names(state)}.") from None
            dtype = working_dtype(p.dtype)
            numbers, coefficients = tick([kept[number] for number in clock.start] if clock else [], dtype)
            outcome = rule(cast_to(g, dtype), cast_to(p, dtype), *[kept[s] for s in filled], *coefficients)
            result[n], *after = outcome if isinstance(outcome, tuple) else (outcome,)
            for slot, x in zip((*(clock.start if clock else ()), *filled), (*numbers, *after), strict=True):
                new[slot][n] = x
        return result, new

    return Transform(init, update, name, **settings)


def _once(clock: Clock | None) -> Callable[[list[Tensor], dtypes.DType], Any]:
    """The tick of `clock`, computed once for all parameters that hold the very same numbers."""
    ticked: dict[tuple[int, ...], Any] = {}
    converted: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}

    def tick(numbers: list[Tensor], dtype: dtypes.DType) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        if clock is None:
            return (), ()
        key = tuple(map(id, numbers))
        if key not in ticked:
            ticked[key] = numbers, *clock.tick(tuple(numbers))  # the old ones too: an id is that of a living object
        _, after, coefficients = ticked[key]
        if (key, dtype) not in converted:
            converted[key, dtype] = tuple(c if c.dtype == dtypes.bool_ else cast_to(c, dtype) for c in coefficients)
        return after, converted[key, dtype]

    return tick


def _names(state: Mapping[str, Tensors]) -> str:
    names = [n for entries in state.values() for n in entries]
    return listed(dict.fromkeys(names)) if names else "no parameter"


def sequence(*parts: Transform) -> Transform:
    """One Transform that applies `parts` in this order. Its state is a dict {name of the part: state of the part}."""
    flat: list[Transform] = []
    for part in parts:
        if not isinstance(part, Transform):
            raise ConfigError(
                f"A chain is made of transforms, such as optim.clip_by_global_norm(1.0); got {part!r:.80}."
            )
        flat += part.settings.get("parts", ()) if part.name == "chain" else [part]
    keys: list[str] = []
    for part in flat:
        times = sum(other.name == part.name for other in flat[: len(keys)])
        keys.append(part.name if times == 0 else f"{part.name}_{times + 1}")

    def init(params: Tensors) -> State:
        return {key: part.init(params) for key, part in zip(keys, flat, strict=True)}

    def update(updates: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
        new = {}
        for key, part in zip(keys, flat, strict=True):
            updates, new[key] = part.update(updates, state[key], params)
        return updates, new

    return Transform(init, update, "chain", parts=tuple(flat))
