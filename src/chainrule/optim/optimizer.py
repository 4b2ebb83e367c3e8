"""Optimizer: the shell around a rule. It knows the model's parameters, keeps the state, and applies the updates.

What an optimiser computes is its `rule`, a Transform; see algorithms.py. The shell adds the learning rate (a number or
a schedule), groups of parameters, saving, and two ways to be called: `update(model, grads)`, and PyTorch's `step()`.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import ConfigError, ShapeError, StateError
from chainrule.optim.groups import DEFAULT, check_all_used, label_of, read_groups
from chainrule.optim.parameters import Parameters, check_binding, detached
from chainrule.optim.saving import restored, shared, state_tensors
from chainrule.optim.schedules import rate_at
from chainrule.optim.settings import listed, number
from chainrule.optim.transform import State, Tensors, Transform, Updates, sequence, working
from chainrule.primitives.operators import cast_to


class Member(NamedTuple):
    """What an optimiser notes of a parameter: its group and its shape."""

    label: str
    shape: Shape


class Binding(tree.Unseen):
    """The model that an optimiser was made for. To the compiler all bindings are alike: the model is an argument."""

    def __init__(self, model: Any) -> None:
        self.model = model


class Outer(Protocol):
    """What `chain` and `accumulate` put around an optimiser. Compared by value, so that equal ones compile once."""

    def __call__(self, inner: Transform) -> Transform:
        """The Transform around that of the optimiser, whose state it keeps under 'inner'."""

    def describe(self, inner: str) -> str:
        """How it is printed around the text of the optimiser."""


class Optimizer(tree.Stateful):
    """Base class of all optimisers. A subclass gives its settings to `__init__` and makes its `rule` of them.

    `params` (a Module, or a dict of floating-point tensors) binds the optimiser at once, which `step()` needs; without
    it the state is made by `init`, or by the first `update`. `lr` is a number of at least 0 or a schedule. `groups` is
    a list of dicts {'params': pattern, setting: value, ...}: for parameters whose name matches the pattern (as in file
    names, '*.bias'; or a function (name, tensor) -> bool; or a list of these) the settings given there hold; the first
    match wins. Raises ConfigError for settings that make no sense, unknown ones, and patterns that match nothing.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.SGD(lr=0.5, groups=[{"params": "b*", "lr": 0.0}])
    >>> params = {"w": cr.tensor([1.0]), "bias": cr.tensor([1.0])}
    >>> new = optimizer.update(params, {"w": cr.tensor([1.0]), "bias": cr.tensor([1.0])})
    >>> new["w"].tolist(), new["bias"].tolist(), optimizer.steps
    ([0.5], [1.0], 1)
    """

    _never_written = frozenset(["members"])

    def __init__(self, params: Any, lr: Any, groups: Any, **settings: Any) -> None:
        if params is not None:
            check_binding(params, type(self).__name__)
        self.settings = settings
        self.groups = read_groups(groups, settings, type(self).__name__)
        self.schedules: dict[str, Callable[[Tensor], Any]] = {}
        self.rates: dict[str, Tensor] = {}  # float64 scalars; those that follow a schedule are not here
        self._set_rate(DEFAULT, lr)
        for group in self.groups:
            if "lr" in group.settings:
                self._set_rate(group.label, group.settings.pop("lr"))
        for label in (DEFAULT, *[group.label for group in self.groups]):
            self.rule(**self._settings_of(label))  # a setting that makes no sense is found now, not at the first step
        self.outer: tuple[Outer, ...] = ()  # what chain and accumulate put around
        self.members: dict[str, Member] = {}
        self.state: dict[str, Any] | None = None
        self.binding = Binding(params)
        if params is not None:
            self.init(params)

    def rule(self, **settings: Any) -> Transform:
        """The Transform from gradients to the direction that, times −lr, is added to the parameters."""
        raise ConfigError(f"{type(self).__name__} defines no rule(self, ...); use one of the optimisers made of it.")

    def __repr__(self) -> str:
        rate = repr(self.schedules[DEFAULT]) if DEFAULT in self.schedules else self.lr
        parts = [f"lr={rate}", *[f"{k}={v!r}" for k, v in self.settings.items()]]
        parts += [f"groups=[{', '.join(map(str, self.groups))}]"] if self.groups else []
        text = f"{type(self).__name__}({', '.join(parts)})"
        for outer in self.outer:
            text = outer.describe(text)
        return text

    # -- the learning rate

    @property
    def lr(self) -> Any:
        """The learning rate of the next update, as a float (as a tensor while it is traced). Set it to a number or a
        schedule.

        A new number is not a new signature of a compiled step. Groups that have an lr of their own keep it.
        """
        if DEFAULT in self.rates:  # the state, which may be inside of a compiled function, need not be looked at
            rate = self.rates[DEFAULT]
        else:
            rate = self._rate(DEFAULT, self._core_state()["step"] if self.state is not None else 0)
        return rate if rate.value is None else float(rate)

    @lr.setter
    def lr(self, lr: Any) -> None:
        self._set_rate(DEFAULT, lr)

    def _set_rate(self, label: str, lr: Any) -> None:
        schedules = {k: s for k, s in self.schedules.items() if k != label}
        rates = {k: r for k, r in self.rates.items() if k != label}
        if isinstance(lr, Tensor):
            if lr.shape != () or not dtypes.is_float(lr.dtype):
                raise ConfigError(f"lr is a number, a schedule, or a floating-point scalar; got {lr!r:.80}.")
            rates[label] = detached(cast_to(lr, dtypes.float64))
        elif callable(lr):
            schedules[label] = lr
        else:
            rates[label] = wrap(np.asarray(number("lr", lr, 0), np.float64))
        self.schedules, self.rates = schedules, rates

    def _rate(self, label: str, step: Any) -> Tensor:
        label = label if label in self.rates or label in self.schedules else DEFAULT
        return self.rates[label] if label in self.rates else rate_at(self.schedules[label], step)

    # -- making the state

    def init(self, params: Any) -> Self:
        """Make the state afresh for the trained parameters of `params`; returns the optimiser."""
        self._start(Parameters(params))
        return self

    def add(self, params: Any) -> Self:
        """Make state for those trained parameters of `params` that have none yet, and keep the rest; returns the
        optimiser.

        `update` does this by itself, but a compiled step cannot: call it after unfreezing parameters.
        """
        view = Parameters(params)
        if self.state is None:
            self._start(view)
        else:
            self._extend(view.tensors)
        return self

    def _start(self, view: Parameters) -> None:
        tensors = view.tensors
        if any(p.value is None for p in tensors.values()):
            raise ConfigError(
                f"This {type(self).__name__} had no state when the compiled function was called, and a compiled step "
                "cannot make it. Make it before: optimizer.init(model)."
            )
        labels = {name: label_of(self.groups, name, p) for name, p in tensors.items()}
        check_all_used(self.groups, labels, tensors, view.frozen())
        self.members, self.state = {}, None
        self._extend(tensors)

    def _extend(self, tensors: Tensors) -> None:
        new = {name: p for name, p in tensors.items() if name not in self.members}
        if not new:
            return
        if self.state is not None and any(p.value is None for p in new.values()):
            raise ConfigError(
                f"{listed(new)} had no state when the compiled function was called (frozen until now?), and a compiled "
                "step cannot make it. Call optimizer.add(model) before."
            )
        made = {name: Member(label_of(self.groups, name, p), p.shape) for name, p in new.items()}
        self.members = {**self.members, **made}
        fresh = self._core().init({name: working(p) for name, p in new.items()})
        self.state = fresh if self.state is None else _merged(self.state, fresh)

    def prepare(self, modules: list[Any]) -> None:
        """Make the state before a step is compiled: cr.compile calls this with the Modules beside the optimiser."""
        if self.state is not None:
            return
        if len(modules) != 1:
            count = f"{len(modules)} Modules stand" if modules else "no Module stands"
            raise ConfigError(
                f"{type(self).__name__} has no state yet, and {count} beside it among the arguments of the compiled "
                f"function. Make the state before: optimizer.init(model), or {type(self).__name__}(model, ...)."
            )
        self.init(modules[0])

    # -- the step

    def update(self, params: Any, grads: Any) -> Any:
        """One step: `params` (a Module is changed in place, anything else made anew) moved by its gradients; returned.

        `grads` is what value_and_grad returns: for a Module or a dict of tensors a dict {name: gradient}. A gradient
        that is None leaves its parameter alone. Works eagerly and inside of a compiled function. Raises GradientError
        for gradients that are missing or belong to no parameter, ShapeError and DTypeError for those that do not fit.

        >>> import chainrule as cr
        >>> from chainrule import optim
        >>> optimizer, params = optim.SGD(lr=0.25), {"w": cr.tensor([3.0])}
        >>> for _ in range(3):
        ...     value, grads = cr.value_and_grad(lambda p: (p["w"] ** 2).sum())(params)
        ...     params = optimizer.update(params, grads)
        >>> params["w"].tolist()
        [0.375]
        """
        view = Parameters(params)
        return self._apply(view, view.gradients(grads))

    def step(self) -> None:
        """One step with the `.grad` that loss.backward() has left on the parameters of the bound model.

        The model gets new tensors, whose .grad is None. A bound dict is changed in place, too.
        Raises ConfigError when the optimiser is not bound, GradientError when no parameter has a gradient.

        >>> import chainrule as cr
        >>> from chainrule import optim
        >>> params = {"w": cr.tensor([3.0], requires_grad=True)}
        >>> optimizer = optim.SGD(params, lr=0.25)
        >>> (params["w"] * params["w"]).sum().backward()
        >>> optimizer.step()
        >>> params["w"].tolist()
        [1.5]
        """
        view = self._bound_view()
        self._hand_back(self._apply(view, view.left_by_backward()))

    def zero_grad(self) -> None:
        """Set the `.grad` of the bound model's parameters to None."""
        self._bound_view().forget_gradients()

    def _bound_view(self) -> Parameters:
        if self.binding.model is None:
            raise ConfigError(
                f"This {type(self).__name__} is not bound to a model, so it cannot know whose .grad is meant. Bind it: "
                f"{type(self).__name__}(model, ...); or use optimizer.update(model, grads)."
            )
        return Parameters(self.binding.model)

    def _hand_back(self, result: Any) -> None:
        if isinstance(self.binding.model, dict):
            self.binding.model.update(result)

    def _apply(self, view: Parameters, grads: Updates) -> Any:
        params = view.tensors
        for name, p in params.items():
            if name in self.members and self.members[name].shape != p.shape:
                raise ShapeError(
                    f"{name!r} has shape {p.shape}; when this optimiser was initialised it had "
                    f"{self.members[name].shape}. Another model needs another optimiser, or optimizer.init(model)."
                )
        if self.state is None:
            self._start(view)
        self._extend(params)
        wide = {name: working(p) for name, p in params.items()}
        given = {name: None if g is None else cast_to(g, wide[name].dtype) for name, g in grads.items()}
        updates, self.state = self._core().update(given, self.state, wide)
        changed = {name: (wide[name], u) for name, u in updates.items() if u is not None}
        return view.replaced({name: cast_to(p + u, params[name].dtype) for name, (p, u) in changed.items()})

    # -- the same as a Transform

    def _core(self) -> Transform:
        """The optimiser as a pure pair of functions, with what was put around it."""
        result = Transform(self._begin, self._advance, "inner")
        for outer in self.outer:
            result = outer(result)
        return result

    def wrapped(self, outer: Outer) -> Self:
        """A copy, without state, whose Transform is `outer` of this one's: what `chain` and `accumulate` return."""
        result = copy.copy(self)
        result.outer = (*self.outer, outer)
        result.members, result.state = {}, None
        if result.binding.model is not None:
            result.init(result.binding.model)
        return result

    def _begin(self, params: Tensors) -> State:
        state: dict[str, Any] = {"step": wrap(np.asarray(0, np.int64))}
        for label, names in self._by_label().items():
            _put(state, self._rule_of(label).init({n: params[n] for n in names if n in params}))
        return state

    def _advance(self, grads: Updates, state: State, params: Tensors) -> tuple[Updates, State]:
        updates: Updates = dict.fromkeys(grads)
        new = {**_copied(state), "step": state["step"] + 1}
        slots = {key: part for key, part in state.items() if key != "step"}
        for label, names in self._by_label().items():
            mine = {n: grads[n] for n in names if n in grads}
            kept = {key: _restricted(part, names) for key, part in slots.items()} if self.groups else slots
            directions, after = self._rule_of(label).update(mine, kept, params)
            _put(new, after)
            rate = -self._rate(label, state["step"])
            updates.update({n: None if d is None else cast_to(rate, d.dtype) * d for n, d in directions.items()})
        return updates, new

    def _by_label(self) -> dict[str, list[str]]:
        result: dict[str, list[str]] = {}
        for name, member in self.members.items():
            result.setdefault(member.label, []).append(name)
        return result

    def _settings_of(self, label: str) -> dict[str, Any]:
        own = next((group.settings for group in self.groups if group.label == label), {})
        return {**self.settings, **own}

    def _rule_of(self, label: str) -> Transform:
        return sequence(self.rule(**self._settings_of(label)))

    # -- looking inside, saving

    def _core_state(self) -> dict[str, Any]:
        state: Any = self.state
        while "inner" in state:
            state = state["inner"]
        return state

    @property
    def steps(self) -> int:
        """How many updates were done so far. With accumulate, only those that changed the parameters count."""
        return int(self._core_state()["step"]) if self.state is not None else 0

    def slots(self, name: str) -> dict[str, Tensor]:
        """What is kept for one parameter: {'mean': ..., 'square': ..., 'step': ...} for Adam. StateError if unknown.

        >>> import chainrule as cr
        >>> from chainrule import optim
        >>> optimizer = optim.SGD({"w": cr.tensor([1.0])}, lr=0.1, momentum=0.9)
        >>> optimizer.slots("w")["trace"].tolist()
        [0.0]
        """
        if name not in self.members:
            raise StateError(f"There is no state for {name!r}; there is for {list(self.members) or 'none yet'}.")
        return _of_parameter(self.state, name)

    def _saved(self) -> dict[str, Any]:
        return {"lr": self.rates, **(self.state or {})}

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors of the state by name: 'lr.default', 'step', 'adam.mean.0.weight', … A schedule is not among them.

        >>> import chainrule as cr
        >>> from chainrule import optim
        >>> list(optim.SGD({"w": cr.tensor([1.0])}, lr=0.1, momentum=0.9).state_dict())
        ['lr.default', 'step', 'momentum.trace.w']
        """
        return state_tensors(self._saved())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict` to the bit; StateError (and no change) unless names, shapes and dtypes agree."""
        if self.state is None:
            raise StateError(
                f"This {type(self).__name__} has no state to load into yet: call optimizer.init(model) before."
            )
        loaded = restored(self._saved(), state, f"{type(self).__name__} with the parameters {list(self.members)}")
        self.rates = loaded.pop("lr")
        self.state = shared(loaded, self._clock_of)

    def _clock_of(self, name: str, number: Tensor) -> str | None:
        """Which parameters count their steps together when they have made equally many: those of one group."""
        member = self.members.get(name)
        if member is None or (member.shape == () and number.dtype != dtypes.int64):  # of shape (), too, may be a slot
            return None
        return member.label


def _restricted(slots: dict[str, Tensors], names: list[str]) -> dict[str, Tensors]:
    """The part of the state {slot: {name: tensor}} that belongs to the parameters of one group."""
    return {slot: {n: entries[n] for n in names if n in entries} for slot, entries in slots.items()}


def _of_parameter(state: Any, name: str) -> dict[str, Tensor]:
    """The tensors that stand under `name` in the dicts of `state`, by the names of these dicts."""
    found: dict[str, Tensor] = {}
    for key, child in state.items() if isinstance(state, dict) else ():
        if isinstance(child, dict) and isinstance(child.get(name), Tensor):
            found[key] = child[name]
        else:
            found.update(_of_parameter(child, name))
    return found


def _copied(state: Any) -> Any:
    return {k: _copied(v) for k, v in state.items()} if isinstance(state, dict) else state


def _put(state: dict[str, Any], part: dict[str, Any]) -> None:
    """Write the leaves of `part` into the dicts of `state`, which keep their order."""
    for key, value in part.items():
        if isinstance(value, dict):
            _put(state.setdefault(key, {}), value)
        else:
            state[key] = value


def _merged(old: Any, fresh: Any) -> Any:
    """`old`, with those parts of `fresh` that it lacks."""
    if not isinstance(old, dict) or not isinstance(fresh, dict):
        return old
    both = {key: _merged(value, fresh[key]) if key in fresh else value for key, value in old.items()}
    return {**both, **{key: value for key, value in fresh.items() if key not in old}}
