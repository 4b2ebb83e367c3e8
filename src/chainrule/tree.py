"""Nested structures with tensors inside: flatten them to a list of leaves, build them again from other leaves.

Containers are dicts, lists, tuples, named tuples, dataclasses and `Stateful` objects (Module, Optimizer, Generator).
A leaf is a Tensor or a NumPy array; everything else is static: it belongs to the structure, not to the leaves.
The same Stateful object met twice is one object; the same parameter of a Module met twice (tied weights) is one leaf.
"""

import collections
import copy
import dataclasses
import functools
import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

Role = Literal["value", "parameter", "frozen", "state"]


class LeafBase:
    """What `flatten` takes for a leaf: the base class of Tensor."""

    __slots__ = ()


class Absent(Protocol):
    """Attributes of a Stateful object that stand elsewhere for a while: in the memory of a compiled function."""

    def settle(self) -> None:
        """Bring them back."""


class _WithAttributes:
    """Gives Stateful the `__dict__` that its own `__dict__` looks after."""


_INSIDE: Any = vars(_WithAttributes)["__dict__"]


def attributes(thing: "Stateful") -> dict[str, Any]:
    """`vars(thing)`, with everything in it: what stands elsewhere is brought back first."""
    while True:  # another thread may take it away again; but a dict that was once whole stays so
        inside: dict[str, Any] = _INSIDE.__get__(thing)
        absent = inside.get("_absent_attributes")
        if absent is None:
            return inside
        absent.settle()
        if _INSIDE.__get__(thing).get("_absent_attributes") is absent:  # too late: the garbage collector has it
            del _INSIDE.__get__(thing)["_absent_attributes"]


def _set_attributes(thing: "Stateful", inside: dict[str, Any]) -> None:
    attributes(thing)
    _INSIDE.__set__(thing, inside)


class Stateful(_WithAttributes):
    """An object whose tensors a training step replaces: the base class of Module, Optimizer and Generator.

    Between the calls of a compiled function its tensors may stay inside of that function (see `chainrule.resident`).
    Then they are taken out of its attributes, and `_absent_attributes` is set. Who looks for one of them does not find
    it, which leads to `__getattr__`; who sets an attribute comes by `__setattr__`; who takes `vars()` comes by
    `__dict__`; copies and pickles are made by `__reduce_ex__`: all of these bring the tensors back first.
    """

    path: str = ""
    __dict__ = property(attributes, _set_attributes)
    _absent_attributes: Absent | None = None
    _never_written: frozenset[str] = frozenset()  # attributes whose containers are replaced, never written to in place

    def role(self, name: str) -> Role:
        """What the tensor in attribute `name` is: a trained 'parameter', a 'frozen' one, or other 'state'."""
        return "state"

    def __init_subclass__(cls, **options: Any) -> None:
        """See that what a subclass has in the place of these methods brings the tensors back as well."""
        super().__init_subclass__(**options)
        _bring_back_first(cls)

    def __reduce_ex__(self, protocol: Any) -> Any:
        attributes(self)
        return super().__reduce_ex__(protocol)


def _bring_back_first(cls: type[Stateful]) -> None:
    """Give `cls` its __getattr__, __setattr__ and __delattr__ (its own, or those of a mixin), as `Stateful` says."""
    for name, after in (("__getattr__", _found), ("__setattr__", _settled), ("__delattr__", _settled)):
        method = getattr(cls, name, object.__getattribute__)
        if not hasattr(method, "brings_back"):
            method = after(method)
            method.brings_back = True
            setattr(cls, name, method)


def _found(method: Callable[..., Any]) -> Any:
    """A `__getattr__` that looks again once everything is back, and only then asks `method`."""

    @functools.wraps(method)
    def found(self: Stateful, name: str) -> Any:
        inside = attributes(self)
        return inside[name] if name in inside else method(self, name)

    return found


def _settled(method: Callable[..., Any]) -> Any:
    @functools.wraps(method)
    def settled(self: Stateful, *arguments: Any) -> None:
        attributes(self)
        method(self, *arguments)
        thread = threading.get_ident()
        _changes[thread] = _changes.get(thread, 0) + 1
        attributes(self)  # if another thread has taken them away meanwhile, the change has still to be seen

    return settled


_changes: dict[int, int] = {}  # how many attributes each thread has set


def changes_elsewhere() -> dict[int, int]:
    """How many attributes of Stateful objects other threads have set: equal before and after where none was set."""
    mine = threading.get_ident()
    return {thread: count for thread, count in _changes.copy().items() if thread != mine}


_bring_back_first(Stateful)


def names_of(thing: Stateful) -> tuple[str, ...]:
    """The names of the attributes that are there, in order."""
    return tuple(_INSIDE.__get__(thing))


def take_out(thing: Stateful, names: Sequence[str], absent: Absent) -> None:
    """Remove attributes; `absent` knows how to bring them back."""
    inside = _INSIDE.__get__(thing)
    _INSIDE.__set__(thing, {"_absent_attributes": absent, **{n: x for n, x in inside.items() if n not in names}})


def put_back(thing: Stateful, values: Mapping[str, Any], order: Sequence[str]) -> None:
    """Undo `take_out`: the attributes are all there again, at once and in their old order. One set since then stays."""
    inside = {**values, **_INSIDE.__get__(thing)}
    inside.pop("_absent_attributes", None)
    first = {name: inside[name] for name in order if name in inside}
    _INSIDE.__set__(thing, {**first, **inside})


def absent_of(thing: Stateful) -> Absent | None:
    """What `take_out` has left in the place of attributes."""
    return thing._absent_attributes


class Unseen:
    """A static value that makes no difference to the structure around it: all of one class are alike."""


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


def outline(tree: Any) -> Flat:
    """Like `flatten`, but Stateful objects are not looked into: each is an 'object' without children."""
    flat = Flat([], Spec("static"), [], [], [])
    flat.spec = _walk(tree, "", "value", flat, None, {})
    return flat


# Recursion below is by plain functions: a closure that calls itself is a reference cycle, and would keep tensors alive
# until the garbage collector comes by.


def _walk(
    node: Any, path: str, role: Role, flat: Flat, objects: dict[int, int] | None, parameters: dict[int, int]
) -> Spec:
    """The structure of `node`; its leaves and Stateful objects are appended to `flat`."""
    if type(node) in PLAIN:  # first, since most are
        flat.statics.append(node)
        return Spec("static", None, (), (), len(flat.statics) - 1, token(node), False)
    if isinstance(node, (LeafBase, np.ndarray)):
        if role in ("parameter", "frozen"):
            known = parameters.setdefault(id(node), len(flat.leaves))
            if known < len(flat.leaves):
                if role == "frozen":  # a tied weight that is frozen under one name is frozen
                    flat.leaves[known] = flat.leaves[known]._replace(role="frozen")
                return Spec("leaf", None, (), (), known)
        flat.leaves.append(Leaf(path, node, role))
        return Spec("leaf", None, (), (), len(flat.leaves) - 1)
    if isinstance(node, Stateful):
        if objects is not None and id(node) in objects:
            return Spec("again", number=objects[id(node)])
        index = len(flat.objects)
        flat.objects.append(node)
        flat.object_paths.append(path)
        if objects is None:
            return Spec("object", type(node), number=index)
        objects[id(node)] = index
        inside = attributes(node)
        names = tuple([name for name in inside if name != "path"])
        children = [_walk(inside[n], join(path, n), node.role(n), flat, objects, parameters) for n in names]
        return Spec("object", type(node), names, tuple(children), index)
    items = _items(node)
    if items is None:
        flat.statics.append(node)
        return Spec("static", number=len(flat.statics) - 1, token=token(node), live=False)
    children = [_walk(v, join(path, n), role, flat, objects, parameters) for n, v in items]
    live = any([child.live for child in children])
    factory = node.default_factory if isinstance(node, collections.defaultdict) else None
    return Spec("items", type(node), tuple([n for n, _ in items]), tuple(children), 0, factory, live)


def _items(node: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, (list, tuple)):
        return list(zip(getattr(node, "_fields", range(len(node))), node, strict=True))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(f.name, getattr(node, f.name)) for f in dataclasses.fields(node)]
    return None


PLAIN = frozenset([int, float, str, bool, type(None)])


def token(value: Any) -> Any:
    """What tells a static value from another: 1, True and 1.0 differ, and so do 0.0 and −0.0."""
    if type(value) in PLAIN:
        return type(value), value.hex() if type(value) is float else value
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if isinstance(value, Unseen):
        return type(value), None
    return type(value), value if is_hashable(value) else id(value)  # who keeps that id must keep the value alive, too


def is_hashable(value: Any) -> bool:
    """Whether `hash` takes the value: then `token` compares it by value, else by identity."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


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


def maker(spec: Spec, statics: Mapping[int, Any] | Sequence[Any]) -> Callable[[Any], Any]:
    """A function of leaves (anything that gives a leaf for its number) that makes what stands at one place of a tree,
    where no Stateful object is: the same as `build`, but quick when it is called again and again."""
    if spec.kind == "leaf":
        return operator.itemgetter(spec.number)
    if spec.kind == "static":
        value = statics[spec.number]
        return lambda leaves: value
    parts = [maker(child, statics) for child in spec.children]
    if spec.container is tuple:
        return lambda leaves: tuple([part(leaves) for part in parts])
    return lambda leaves: _refill(spec, [part(leaves) for part in parts])


def is_container(node: Any) -> bool:
    """Whether `flatten` looks into `node`, which is no Stateful object."""
    return (
        type(node) not in PLAIN and not isinstance(node, (LeafBase, np.ndarray, Stateful)) and _items(node) is not None
    )


def containers(node: Any) -> Iterator[Any]:
    """The dicts and lists in a container, itself included, that may be written to; that of a dataclass is its vars().

    Stateful objects are not looked into. TypeError for a dataclass that has slots, which cannot be seen from outside.
    """
    if not is_container(node):
        return
    if not isinstance(node, tuple):
        yield node if isinstance(node, (dict, list)) else vars(node)
    for _, value in _items(node) or ():
        yield from containers(value)


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
