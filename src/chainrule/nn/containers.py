"""Modules that hold others: Sequential, ModuleList, ModuleDict, Residual.

The parts are attributes named '0', '1', ... or by their keys, so parameters have the paths that PyTorch gives them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from chainrule.errors import ConfigError, ShapeError
from chainrule.nn.module import Module


def _is_module(owner: Module, part: Any) -> Module:
    if isinstance(part, type) and issubclass(part, Module):
        raise ConfigError(
            f"{owner.label} was given the class {part.__name__}; make an object of it: {part.__name__}(...)."
        )
    if not isinstance(part, Module):
        raise ConfigError(
            f"{owner.label} holds Modules, not {part!r:.80} of type {type(part).__name__}. "
            "Put a function into a Module of its own, with the function in `forward`."
        )
    return part


class _Ordered(Module):
    """What Sequential and ModuleList share: Modules in an order, under names that are numbers unless given."""

    def _parts(self) -> dict[str, Module]:
        return {name: part for name, part in vars(self).items() if isinstance(part, Module)}

    def _set_parts(self, parts: Mapping[str, Module]) -> None:
        for name in self._parts():
            del vars(self)[name]
        for name, part in parts.items():
            vars(self)[name] = _is_module(self, part)

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._parts().values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module:
        """The part at a position; a slice gives a container of the same (not copied) parts."""
        if not isinstance(index, slice):
            return list(self._parts().values())[index]
        chosen = type(self).__new__(type(self))
        chosen.training = self.training
        chosen._set_parts(self._sliced(index))
        return chosen

    def _sliced(self, index: slice) -> dict[str, Module]:
        return _numbered(list(self)[index])

    def __setitem__(self, index: int, part: Module) -> None:
        vars(self)[list(self._parts())[index]] = _is_module(self, part)

    def __delitem__(self, index: int | slice) -> None:
        parts = list(self)
        del parts[index]
        self._set_parts(_numbered(parts))

    def append(self, part: Module) -> Self:
        """Add a part at the end."""
        _add(self, str(len(self)), part)
        return self

    def extend(self, parts: Iterable[Module]) -> Self:
        """Add parts at the end."""
        for part in list(parts):
            self.append(part)
        return self

    def insert(self, index: int, part: Module) -> Self:
        """Add a part before the one at `index`; all are numbered anew."""
        parts = list(self)
        parts.insert(index, part)
        self._set_parts(_numbered(parts))
        return self


def _numbered(parts: Iterable[Module]) -> dict[str, Module]:
    return {str(i): part for i, part in enumerate(parts)}


class Sequential(_Ordered):
    """Modules called one after the other, each with the result of the one before.

    Given as arguments, or as one dict {name: module}.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> model(cr.ones((5, 4))).shape
    (5, 2)
    """

    def __init__(self, *parts: Any) -> None:
        named = parts[0] if len(parts) == 1 and isinstance(parts[0], Mapping) else _numbered(parts)
        for name, part in named.items():
            _add(self, name, part)

    def _sliced(self, index: slice) -> dict[str, Module]:
        return dict(list(self._parts().items())[index])  # under the names they have, as in PyTorch

    def forward(self, x: Any) -> Any:
        """The parts, one after the other."""
        for part in self:
            x = part(x)
        return x


class ModuleList(_Ordered):
    """A list of Modules; how they are called is the business of the Module around it.

    >>> from chainrule import nn
    >>> layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    >>> len(layers), layers[-1].out_features
    (3, 4)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)


class ModuleDict(Module):
    """A dict of Modules; how they are called is the business of the Module around it.

    >>> from chainrule import nn
    >>> heads = nn.ModuleDict({"price": nn.Linear(8, 1), "kind": nn.Linear(8, 5)})
    >>> heads["kind"].out_features, list(heads)
    (5, ['price', 'kind'])
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.update(modules or {})

    def _parts(self) -> dict[str, Module]:
        return {name: part for name, part in vars(self).items() if isinstance(part, Module)}

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts())

    def __contains__(self, name: object) -> bool:
        return name in self._parts()

    def __getitem__(self, name: str) -> Module:
        return self._parts()[name]

    def __setitem__(self, name: str, part: Module) -> None:
        _add(self, name, part)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parts().keys()

    def values(self) -> Iterable[Module]:
        """The Modules."""
        return self._parts().values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Pairs of name and Module."""
        return self._parts().items()

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add the Modules of another dict."""
        for name, part in modules.items():
            _add(self, name, part)

    def pop(self, name: str) -> Module:
        """Take a Module out; KeyError when there is none of this name."""
        part = self._parts()[name]
        delattr(self, name)
        return part


def _add(owner: Module, name: str, part: Any) -> None:
    """Set a part under a name that is neither empty, nor a path, nor something that the container has already."""
    taken = hasattr(owner, name) and not isinstance(vars(owner).get(name), Module)
    if not name or "." in name or taken:
        why = "is an attribute of the container" if taken else "must be non-empty and without dots"
        raise ConfigError(f"{owner.label}: the name {name!r} {why}; choose another.")
    vars(owner)[name] = _is_module(owner, part)


class Residual(Module):
    """The input plus what a Module makes of it: y = x + f(x); several Modules are taken as a Sequential.

    Where f changes the shape, a `shortcut` does the same to the input: y = shortcut(x) + f(x). The shapes of both parts
    must be equal (ShapeError otherwise).
    Source: He et al., "Deep residual learning for image recognition" (2015), equations 1 and 2.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.Residual(nn.Linear(4, 4), nn.ReLU())(cr.ones((2, 4))).shape
    (2, 4)
    """

    def __init__(self, *parts: Module, shortcut: Module | None = None) -> None:
        self.inner = parts[0] if len(parts) == 1 else Sequential(*parts)
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        """x + f(x)."""
        y = self.inner(x)
        shortcut = getattr(self, "shortcut", None)
        around = x if shortcut is None else shortcut(x)
        if y.shape != around.shape:
            what = "its input" if shortcut is None else "what the shortcut makes of its input"
            raise ShapeError(
                f"{self.label} adds {what}, of shape {around.shape}, to what the inner module makes of it, of shape "
                f"{y.shape}; the two must be equal."
            )
        return around + y
