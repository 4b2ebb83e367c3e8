"""How the arguments of a call are found again at the next: by their names, and by what has to stay the same.

`Form` is how a function is called: so many positions, these keywords. `Shortcut` knows one call, and recognises the
next if only arrays have changed, without looking into Modules and Optimizers: they are where they were, see `resident`.
"""

import inspect
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.tensor import LEAVES, Tensor
from chainrule.lending import LentTensor
from chainrule.resident import Resident


class _Mark(NamedTuple):
    position: int


class Form:
    """The parameters of a function, for calls with `count` positional arguments and the keywords `names`."""

    def __init__(self, signature: inspect.Signature, count: int, names: tuple[str, ...]) -> None:
        marks = [_Mark(i) for i in range(count + len(names))]
        bound = signature.bind(*marks[:count], **dict(zip(names, marks[count:], strict=True)))
        bound.apply_defaults()
        self.names = names
        self.count = count
        self.defaults: tuple[Any, ...] = ()
        kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
        self.parameters = [(name, kinds[name], self._places(x, kinds[name])) for name, x in bound.arguments.items()]

    def _places(self, bound: Any, kind: Any) -> list[tuple[str, int]]:
        """(keyword, position) of the values that a parameter gets; the defaults stand behind the given ones."""
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return [("", mark.position) for mark in bound]
        if kind is inspect.Parameter.VAR_KEYWORD:
            return [(name, mark.position) for name, mark in bound.items()]
        if isinstance(bound, _Mark):
            return [("", bound.position)]
        self.defaults += (bound,)
        return [("", self.count + len(self.names) + len(self.defaults) - 1)]

    def values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments of a call, by position; the keywords come in the order of `names`."""
        return (*args, *kwargs.values(), *self.defaults)

    def order(self) -> Iterator[int]:
        """The positions in the order in which `tree.flatten(arguments)` meets them."""
        return (position for _, _, places in self.parameters for _, position in places)

    def arguments(self, values: Sequence[Any]) -> dict[str, Any]:
        """The arguments by name, as `inspect` has them."""
        found: dict[str, Any] = {}
        for name, kind, places in self.parameters:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                found[name] = tuple([values[i] for _, i in places])
            elif kind is inspect.Parameter.VAR_KEYWORD:
                found[name] = {keyword: values[i] for keyword, i in places}
            else:
                found[name] = values[places[0][1]]
        return found


def is_inside(x: Tensor) -> bool:
    """Whether somebody is tracing or differentiating this tensor."""
    traced = type(x) is not LentTensor and x.value is None  # a value that is in a Session may stay there
    return traced or any([scope.open and scope is not LEAVES for scope in x.scopes])


class Container(NamedTuple):
    """What a list, tuple, dict or dataclass among the arguments has to be like."""

    spec: tree.Spec
    leaves: tuple[tuple[tuple[int, ...], dtypes.DType], ...]
    objects: tuple[weakref.ref[tree.Stateful], ...]

    @staticmethod
    def of(value: Any) -> "Container":
        """What `value` is like."""
        flat = tree.outline(value)
        leaves = tuple([(tuple(leaf.value.shape), leaf.value.dtype) for leaf in flat.leaves])
        return Container(flat.spec, leaves, tuple(map(weakref.ref, flat.objects)))

    def arrays(self, value: Any) -> list[np.ndarray] | None:
        """The arrays in `value`, if it is like that."""
        flat = tree.outline(value)
        if flat.spec != self.spec or any(x is not ref() for x, ref in zip(flat.objects, self.objects, strict=True)):
            return None
        found = [_array(leaf.value, *kind) for leaf, kind in zip(flat.leaves, self.leaves, strict=True)]
        return None if any(x is None for x in found) else found  # type: ignore[return-value]


def _array(x: Any, shape: tuple[int, ...], dtype: dtypes.DType) -> np.ndarray | None:
    """The array of an argument, row-major; None unless it is a known one of this shape and dtype."""
    if isinstance(x, Tensor):
        if x.scopes and is_inside(x):
            return None
        x = x.value
    if type(x) is not np.ndarray or x.shape != shape or (x.dtype is not dtype and x.dtype != dtype):
        return None
    return x if x.flags.c_contiguous else np.asarray(x, order="C")


class Shortcut:
    """A call whose objects have become resident: from its arguments to those arrays that the Session asks for."""

    def __init__(self, form: Form, values: Sequence[Any], resident: Resident) -> None:
        self.form, self.resident = form, weakref.ref(resident)
        self.plain = not form.names and not form.defaults
        self.objects: list[tuple[int, weakref.ref[tree.Stateful]]] = []
        self.statics: list[tuple[int, Any]] = []
        self.arrays: list[tuple[int, Any, Any]] = []  # (position, shape, dtype), or (position, None, Container)
        for i in form.order():
            x = values[i]
            if isinstance(x, tree.Stateful):
                self.objects.append((i, weakref.ref(x)))
            elif isinstance(x, (Tensor, np.ndarray)):
                self.arrays.append((i, tuple(x.shape), x.dtype))
            elif tree.is_container(x):
                self.arrays.append((i, None, Container.of(x)))
            else:
                self.statics.append((i, x))

    def passed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[np.ndarray] | None:
        """The arrays of a call, if nothing else has changed since the last."""
        form = self.form
        if len(args) != form.count or ((kwargs or form.names) and tuple(kwargs) != form.names):
            return None
        values = args if self.plain else form.values(args, kwargs)
        for i, ref in self.objects:
            if values[i] is not ref():
                return None
        for i, known in self.statics:
            if values[i] is not known and tree.token(values[i]) != tree.token(known):
                return None
        found: list[np.ndarray] = []
        for i, shape, kind in self.arrays:
            if shape is None:
                inside = kind.arrays(values[i])
                if inside is None:
                    return None
                found += inside
            else:
                x = _array(values[i], shape, kind)
                if x is None:
                    return None
                found.append(x)
        return found
