"""Nested structures with tensors inside: flatten them to a list of leaves, build them again from other leaves.

Containers are dicts, lists, tuples, named tuples, dataclasses and `Stateful` objects (Module, Optimizer, Generator).
A leaf is a Tensor or a NumPy array; everything else is static: it belongs to the structure, not to the leaves.
The same Stateful object met twice is one object; the same parameter of a Module met twice (tied weights) is one leaf.
"""

import collections
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Role = Literal["value", "parameter", "frozen", "state"]


class LeafBase:
    """What `flatten` takes for a leaf: the base class of Tensor."""

    __slots__ = ()


class Stateful:
    """An object whose tensors a training step replaces: the base class of Module, Optimizer and Generator."""

    path: str = ""

    def role(self, name: str) -> Role:
        """What the tensor in attribute `name` is: a trained 'parameter', a 'frozen' one, or other 'state'."""
        return "state"


class Leaf(NamedTuple):
    """One leaf of a flattened tree: its path (`model.0.weight`), its value and its role."""

    path: str
    value: Any
    role: Role


class Spec(NamedTuple):
    """The structure at one place of a tree, as a tuple that compares and hashes quickly.

    kind      'leaf', 'static', 'items' (a container), 'object' (a Stateful), 'again' (one that was met before)
    type      of the container or object
    names     keys, fields, attributes
    children  their structures
    number    which leaf, object or static value it is
    token     what tells one static value from another
    live      whether a leaf or object stands here or below: what `build` has to make again
    """

    kind: Literal["leaf", "static", "items", "object", "again"]
    container: Any = None
    names: tuple[Any, ...] = ()
    children: tuple[Any, ...] = ()
    number: int = 0
    token: Any = None
    live: bool = True


@dataclasses.dataclass
class Flat:
    """A flattened tree: its leaves, its structure (hashable), its static values, and the Stateful objects met."""

    leaves: list[Leaf]
    spec: Spec
    statics: list[Any]
    objects: list[Stateful]
    object_paths: list[str]


def flatten(tree: Any, path: str = "") -> Flat:
    """Take a tree apart. Leaves come in a fixed order: that of the arguments, keys, fields and attributes."""
    flat = Flat([], Spec("static"), [], [], [])
    flat.spec = _walk(tree, path, "value", flat, {}, {})
    return flat


# Recursion below is by plain functions: a closure that calls itself is a reference cycle, and would keep tensors alive
# until the garbage collector comes by.


def _walk(node: Any, path: str, role: Role, flat: Flat, objects: dict[int, int], parameters: dict[int, int]) -> Spec:
    """The structure of `node`; its leaves and Stateful objects are appended to `flat`."""
    if isinstance(node, (LeafBase, np.ndarray)):
        if role in ("parameter", "frozen"):
            known = parameters.setdefault(id(node), len(flat.leaves))
            if known < len(flat.leaves):
                if role == "frozen":  # a tied weight that is frozen under one name is frozen
                    flat.leaves[known] = flat.leaves[known]._replace(role="frozen")
                return Spec("leaf", number=known)
        flat.leaves.append(Leaf(path, node, role))
        return Spec("leaf", number=len(flat.leaves) - 1)
    if isinstance(node, Stateful):
        if id(node) in objects:
            return Spec("again", number=objects[id(node)])
        index = objects[id(node)] = len(flat.objects)
        flat.objects.append(node)
        flat.object_paths.append(path)
        inside = vars(node)
        names = tuple([name for name in inside if name != "path"])
        children = [_walk(inside[n], join(path, n), node.role(n), flat, objects, parameters) for n in names]
        return Spec("object", type(node), names, tuple(children), index)
    items = None if type(node) in PLAIN else _items(node)
    if items is None:
        flat.statics.append(node)
        return Spec("static", number=len(flat.statics) - 1, token=_token(node), live=False)
    children = [_walk(v, join(path, n), role, flat, objects, parameters) for n, v in items]
    live = any([child.live for child in children])
    factory = node.default_factory if isinstance(node, collections.defaultdict) else None
    return Spec("items", type(node), tuple([n for n, _ in items]), tuple(children), token=factory, live=live)


def _items(node: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, (list, tuple)):
        return list(zip(getattr(node, "_fields", range(len(node))), node, strict=True))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(f.name, getattr(node, f.name)) for f in dataclasses.fields(node)]
    return None


PLAIN = (int, float, str, bool, type(None))


def _token(value: Any) -> Any:
    """What tells a static value from another: 1, True and 1.0 differ, and so do 0.0 and −0.0."""
    if type(value) is float:
        return float, value.hex()
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)  # by identity: who keeps the token must keep the value alive, too
    return type(value), value


def build(flat: Flat, leaves: Sequence[Any], in_place: bool = False) -> Any:
    """The tree with other leaves. Stateful objects are shallow copies, or with `in_place` the originals, written to."""
    return _make(flat.spec, flat, leaves, in_place, {})


def _make(spec: Spec, flat: Flat, leaves: Sequence[Any], in_place: bool, made: dict[int, Stateful]) -> Any:
    if spec.kind == "leaf":
        return leaves[spec.number]
    if spec.kind == "static":
        return flat.statics[spec.number]
    if spec.kind == "again":
        return made[spec.number]
    if spec.kind == "items":
        return _refill(spec, [_make(child, flat, leaves, in_place, made) for child in spec.children])
    original = flat.objects[spec.number]
    made[spec.number] = result = original if in_place else copy.copy(original)
    for name, child in zip(spec.names, spec.children, strict=True):
        if child.live:
            vars(result)[name] = _make(child, flat, leaves, in_place, made)
    if not in_place:
        result.path = original.path or flat.object_paths[spec.number]  # the outermost name is the one people know
    return result


def _refill(spec: Spec, children: list[Any]) -> Any:
    kind: Any = spec.container
    if issubclass(kind, collections.defaultdict):
        return kind(spec.token, zip(spec.names, children, strict=True))
    if issubclass(kind, dict):
        return kind(zip(spec.names, children, strict=True))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(*children)
    if issubclass(kind, (list, tuple)):
        return kind(children)
    result = object.__new__(
        kind
    )  # not by calling it: a dataclass may compute fields, and refuse what takes no argument
    for name, child in zip(spec.names, children, strict=True):
        object.__setattr__(result, name, child)
    return result


def collect(flat: Flat, values: Sequence[Any], keep: Callable[[Leaf], bool]) -> list[Any]:
    """The children of the root, each like `build` makes it, save that a Stateful object becomes a dict {path inside it:
    value} of the leaves to `keep`. What is met twice in one child comes once, under its first name."""
    specs: dict[int, Spec] = {}
    _find_objects(flat.spec, specs)
    return [_collect(child, flat, values, keep, specs, set()) for child in flat.spec.children]


def _find_objects(spec: Spec, specs: dict[int, Spec]) -> None:
    if spec.kind == "object":
        specs[spec.number] = spec
    for child in spec.children:
        _find_objects(child, specs)


def _collect(
    spec: Spec,
    flat: Flat,
    values: Sequence[Any],
    keep: Callable[[Leaf], bool],
    specs: dict[int, Spec],
    seen: set[tuple[str, int]],
) -> Any:
    if spec.kind == "leaf":
        return values[spec.number]
    if spec.kind == "items":
        return _refill(spec, [_collect(child, flat, values, keep, specs, seen) for child in spec.children])
    if spec.kind == "static":
        return None
    return {path: values[i] for path, i in _leaves_inside(spec, "", specs, seen) if keep(flat.leaves[i])}


def _leaves_inside(
    spec: Spec, path: str, specs: dict[int, Spec], seen: set[tuple[str, int]]
) -> Iterator[tuple[str, int]]:
    """(path, number) of the leaves not `seen` yet."""
    place = ("leaf" if spec.kind == "leaf" else "object", spec.number)
    if spec.kind in ("leaf", "object", "again"):
        if place in seen:
            return
        seen.add(place)
    if spec.kind == "leaf":
        yield path, spec.number
    spec = specs[spec.number] if spec.kind == "again" else spec
    for name, child in zip(spec.names, spec.children, strict=True):
        yield from _leaves_inside(child, join(path, name), specs, seen)


def difference(old: Spec, new: Spec, path: str = "") -> str:
    """Where two structures first differ, in words: 'layer.calls changed from 0 to 1'; '' where they do not."""
    for name in (*new.names, *old.names):
        if (name in new.names) != (name in old.names):
            return f"{join(path, name)} was {'added' if name in new.names else 'removed'}"
    for name, a, b in zip(old.names, old.children, new.children, strict=False):
        found = difference(a, b, join(path, name)) if old.names == new.names else ""
        if found:
            return found
    if old.kind == new.kind == "static" and old.token != new.token and old.token[0] in PLAIN:
        return f"{path} changed from {old.token[1]} to {new.token[1]}"
    return "" if old == new else f"{path or 'the structure'} was exchanged, tied or reordered"


def join(path: str, name: Any) -> str:
    """The path of the child `name` below `path`."""
    return f"{path}.{name}" if path else str(name)
