"""What a function reaches without being given it: Modules, Optimizers and Generators in its closure and globals.

Tracing runs the function once. An object that it changes then, without having it as an argument, would be left with
traced tensors inside or would change this once and never again; so it is put back as it was, and the change reported.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from chainrule import tree
from chainrule.errors import TracedValueError

Named = tuple[str, Any]
EMPTY = CellType()  # of a name that is bound later
COMPLAINT = (
    "The compiled function changes {} that is not an argument: the change would happen once, while it is traced, and "
    "never again. Make it an argument, as in step(model, optimizer, x, y)."
)


def captured(f: Any) -> dict[str, tree.Stateful]:
    """The Stateful objects that `f`, or a function of the user's that it names, refers to; by the name it uses."""
    found: dict[str, tree.Stateful] = {}
    seen: set[int] = set()
    waiting: list[Named] = [("", f)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tree.Stateful):
            found[name] = value
        else:
            waiting.extend(_reached(name, value))
    return found


def _reached(name: str, value: Any) -> Iterable[Named]:
    if isinstance(value, functools.partial):
        return [(name, value.func), *[(name, x) for x in (*value.args, *value.keywords.values())]]
    if isinstance(value, MethodType):
        if isinstance(value.__self__, tree.Stateful):
            return [(name, value.__func__), ("self", value.__self__)]
        inside = getattr(value.__self__, "__dict__", {})
        return [(name, value.__func__), *[(f"self.{n}", x) for n, x in inside.items()]]
    if isinstance(value, (list, tuple)):
        return [(f"{name}[{i}]", x) for i, x in enumerate(value) if isinstance(x, tree.Stateful)]
    if isinstance(value, dict):
        return [(f"{name}[{k!r}]", x) for k, x in value.items() if isinstance(x, tree.Stateful)]
    if not isinstance(value, FunctionType):
        return []
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    inside = [(n, cell.cell_contents) for n, cell in cells if cell != EMPTY]
    if not (value.__module__ or "").startswith("chainrule."):
        inside += [(n, value.__globals__[n]) for n in _names(value.__code__) if n in value.__globals__]
    return inside


def _names(code: CodeType) -> Iterator[str]:
    """The global names in a function and in those written inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@contextmanager
def unchanged(
    objects: dict[str, tree.Stateful], arguments: Sequence[tree.Stateful], complaint: str = COMPLAINT
) -> Iterator[None]:
    """Put `objects` back if they change in the meantime, and raise TracedValueError, which names the first."""
    given = {id(x) for x in arguments}
    watched = [(name, tree.flatten(x)) for name, x in objects.items() if id(x) not in given]
    before = [(name, flat, [(x, dict(vars(x))) for x in flat.objects]) for name, flat in watched]
    first = ""
    try:
        yield
    finally:
        for name, old, attributes in before:
            new = tree.flatten(old.objects[0])
            same = new.spec == old.spec and all(a.value is b.value for a, b in zip(old.leaves, new.leaves, strict=True))
            if not same:
                first = first or f"{name}, {_with_article(type(old.objects[0]).__name__)}"
                for x, inside in attributes:
                    vars(x).clear()
                    vars(x).update(inside)
    if first:
        raise TracedValueError(complaint.format(first))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"
