"""Module: a part of a network, with named parameters, buffers and parts of its own.

All attributes live in `vars(self)`, where `tree.flatten` finds them, so a Module can be differentiated
(`value_and_grad(f)(model)`), compiled (an in-out argument) and saved without knowing how. Three kinds of tensors:

    parameter   assigned as `nn.Parameter(...)`: trained, or frozen by `requires_grad_(False)`
    buffer      `register_buffer(...)`: saved with the model but not trained, like the statistics of batch normalisation
    plain       any other tensor attribute: carried along, neither trained nor saved

Tensors are immutable, so training replaces them: after an update a name holds another tensor. One tensor under several
names (tied weights) stays one tensor under all of them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from chainrule import dtypes, tree
from chainrule.core.autodiff import stop_gradient
from chainrule.core.tensor import LEAVES, NONE, Tensor, context, is_leaf, wrap
from chainrule.errors import ConfigError, DTypeError, ShapeError, StateError
from chainrule.nn import serialization
from chainrule.nn.parameter import Parameter, contains_parameters, in_derivative
from chainrule.nn.state import LoadReport, close_names, compare
from chainrule.random import Generator, fold_in, key


class Place(NamedTuple):
    """Where a Module (name '') or one of its parameters and buffers stands: path from the root, owner, depth."""

    path: str
    module: "Module"
    name: str
    depth: int

    @property
    def tensor(self) -> Tensor:
        """The tensor at this place."""
        found: Tensor = vars(self.module)[self.name]
        return found


class Module(tree.Stateful):
    """Base class of all layers and networks. Write `forward`, call the object.

    Modules in attributes, and in lists, tuples and dicts in attributes, belong to it; `super().__init__()` may be left
    out. Inside of `value_and_grad` and `compile` a Module is a copy that knows its `path` in the whole.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self, features):
    ...         self.weight = nn.Parameter(cr.ones(features))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> model = Scale(3)
    >>> cr.grad(lambda m: cr.sum(m(cr.tensor([1.0, 2.0, 3.0]))))(model)["weight"].tolist()
    [1.0, 2.0, 3.0]
    """

    _never_written = frozenset(["_parameters", "_buffers"])
    training: bool
    _parameters: dict[str, bool]  # name -> whether it is trained
    _buffers: dict[str, bool]  # name -> whether it is saved

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the records before `__init__`, so that a subclass need not call that of Module."""
        module = super().__new__(cls)
        vars(module).update(training=True, _parameters={}, _buffers={})
        return module

    def __init__(self) -> None:
        pass

    # -- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass writes its own."""
        raise ConfigError(f"{self.label} defines no forward(self, ...).")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, noting for traced nodes and errors which module is at work."""
        outer = context.modules
        context.modules = (*outer, (self.path, type(self).__name__))
        try:
            result = self.forward(*args, **kwargs)
        finally:
            context.modules = outer
        if context.witness is not None:
            context.witness.called(self.path, self, (args, kwargs), result)
        return result

    @property
    def label(self) -> str:
        """What errors call this module: its class, and its path where that is known."""
        return f"{type(self).__name__} {self.path!r}" if self.path else type(self).__name__

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif name in self._parameters:
            vars(self)[name] = self._as_parameter(name, value)
        elif name in self._buffers and not (value is None or isinstance(value, Tensor)):
            raise DTypeError(f"{self.label}: the buffer {name!r} is a tensor or None, not {type(value).__name__}.")
        elif contains_parameters(value):
            raise ConfigError(
                f"{self.label}: Parameters in a {type(value).__name__} would not be found. Give each its own name, "
                f'setattr(self, f"{name}_{{i}}", nn.Parameter(...)), or put them into Modules in an nn.ModuleList.'
            )
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._note(parameters={k: v for k, v in self._parameters.items() if k != name})
        self._note(buffers={k: v for k, v in self._buffers.items() if k != name})

    def _note(self, **records: dict[str, bool]) -> None:
        """Replace a record. Never written to in place, since copies made for tracing share it."""
        for name, record in records.items():
            if vars(self)[f"_{name}"] != record:
                vars(self)[f"_{name}"] = record

    def _as_parameter(self, name: str, value: Any) -> Tensor | None:
        """What is stored for a tensor assigned to a parameter's name: itself if it is tied or traced, else a leaf."""
        if value is None or in_derivative(value):
            return value
        if not isinstance(value, Tensor):
            raise DTypeError(
                f"{self.label}: the parameter {name!r} is a tensor or None, not {type(value).__name__}. "
                f"Convert it: cr.tensor(..., dtype=...)."
            )
        if is_leaf(value):
            self._note(parameters={**self._parameters, name: True})
            return value
        return Parameter(value, self._parameters[name])

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """What assigning a Parameter does; with None the name stands for a parameter that may come later."""
        self._note(buffers={k: v for k, v in self._buffers.items() if k != name})
        trained = parameter is None or parameter.requires_grad
        self._note(parameters={**self._parameters, name: trained})
        vars(self)[name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is not trained but belongs to the state; with persistent=False it is not saved."""
        if name in self._parameters:
            raise ConfigError(f"{self.label}: {name!r} is a parameter already; `del` it before making it a buffer.")
        self._note(buffers={**self._buffers, name: persistent})
        setattr(self, name, tensor)

    def role(self, name: str) -> tree.Role:
        """'parameter' or 'frozen' for a parameter, 'state' for everything else."""
        if name in self._parameters:
            return "parameter" if self._parameters[name] else "frozen"
        return "state"

    # -- what is inside

    def _places(self) -> Iterator[Place]:
        """Every module, parameter and buffer under each of its names, in the order of `tree.flatten`."""
        flat = tree.flatten(self)
        return _walk(flat, flat.spec, {}, "", 0, frozenset())

    def _tensors(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for place in self._places():
            if place.name and place.name in vars(place.module)[kind] and id(place.tensor) not in seen:
                seen.add(id(place.tensor))
                yield place.path, place.tensor

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs (path, tensor) of all parameters, frozen ones too. Tied ones come once, under their first name."""
        return self._tensors("_parameters")

    def parameters(self) -> Iterator[Tensor]:
        """All parameters, frozen ones too; tied ones once. Made anew by every update, so ask again after it."""
        return (tensor for _, tensor in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs (path, tensor) of all buffers."""
        return self._tensors("_buffers")

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """Pairs (path, module), first this module itself with the path ''. A module that is used twice comes once."""
        seen: set[int] = set()
        for place in self._places():
            if not place.name and id(place.module) not in seen:
                seen.add(id(place.module))
                yield place.path, place.module

    def modules(self) -> Iterator["Module"]:
        """This module and all those inside."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Pairs (path, module) of the modules that stand directly inside, each once."""
        found: dict[int, tuple[str, Module]] = {}
        for place in self._places():
            if not place.name and place.depth == 1:
                found.setdefault(id(place.module), (place.path, place.module))
        return iter(found.values())

    def children(self) -> Iterator["Module"]:
        """The modules that stand directly inside."""
        return (module for _, module in self.named_children())

    def get_submodule(self, target: str) -> "Module":
        """The module at a path such as 'encoder.0'; '' is this one. ConfigError when there is none."""
        found = {place.path: place.module for place in self._places() if not place.name}
        if target not in found:
            raise ConfigError(f"{self.label} has no part {target!r}.{close_names(target, found)}")
        return found[target]

    def parameter_count(self, trainable_only: bool = False) -> int:
        """The number of elements of all parameters; tied ones count once."""
        leaves = tree.flatten(self).leaves
        return sum(x.value.size for x in leaves if x.role == "parameter" or (x.role == "frozen" and not trainable_only))

    # -- changing what is inside

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers, by path, new values of the same shape and dtype. All or nothing.

        All names of a tied parameter get the new value, whichever of them is given. Parameters become new leaves
        without history, ready for the next `loss.backward()`. Raises StateError for an unknown path, ShapeError or
        DTypeError for a tensor that does not fit.

        >>> import chainrule as cr
        >>> from chainrule import nn
        >>> layer = nn.Linear(2, 1)
        >>> layer.assign({"bias": cr.tensor([0.5])})
        >>> layer.bias.tolist()
        [0.5]
        """
        places = [place for place in self._places() if place.name]
        at = {place.path: place for place in places}
        new: dict[int, tuple[str, Tensor]] = {}
        for path, x in tensors.items():
            if path not in at:
                raise StateError(f"{self.label} has no parameter or buffer {path!r}.{close_names(path, at)}")
            old = at[path].tensor
            if x.shape != old.shape:
                raise ShapeError(f"{self.label}: {path!r} has shape {old.shape}; the new value has {x.shape}.")
            if x.dtype != old.dtype:
                raise DTypeError(
                    f"{self.label}: {path!r} is {old.dtype.name}; the new value is {x.dtype.name}. "
                    f'Convert it: .astype("{old.dtype.name}").'
                )
            if id(old) in new and new[id(old)][1] is not x:
                names = f"{new[id(old)][0]!r} and {path!r}"
                raise StateError(f"{self.label}: {names} are one tied weight, but were given two values.")
            new[id(old)] = path, x
        self._replace(places, {key: x for key, (_, x) in new.items()})

    def _replace(self, places: list[Place], new: dict[int, Tensor]) -> None:
        """Put new tensors in the places of the old ones, which are named by their id."""
        made: dict[int, Tensor] = {}
        for place in places:
            key = id(place.tensor)
            if key in new and key not in made:
                x, role = new[key], place.module.role(place.name)
                if not in_derivative(x):
                    x = wrap(x.known("assign")) if role == "state" else Parameter(x, role == "parameter")
                made[key] = x
        for place in places:
            if id(place.tensor) in made:
                vars(place.module)[place.name] = made[id(place.tensor)]

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all inside (dropout drops, batch normalisation uses the batch)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze all parameters inside.

        A frozen parameter is left alone by `value_and_grad`, `loss.backward()` and the optimisers. Freeze a tied weight
        through a module that holds all its names.
        """
        for place in self._places():
            if place.name in place.module._parameters and dtypes.is_float(place.tensor.dtype):
                place.module._note(parameters={**place.module._parameters, place.name: requires_grad})
                if not in_derivative(place.tensor):  # the same object, so that ties with modules outside last
                    place.tensor.scopes = frozenset([LEAVES]) if requires_grad else NONE
        return self

    def zero_grad(self) -> None:
        """Forget the `.grad` that `loss.backward()` has left on the parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: Any) -> Self:
        """Convert the floating-point parameters and buffers to another floating-point dtype, in place."""
        wanted = dtypes.as_dtype(dtype)
        if not dtypes.is_float(wanted):
            raise DTypeError(f"{self.label}: parameters are floating-point; {wanted.name} is not.")
        places = [place for place in self._places() if place.name and dtypes.is_float(place.tensor.dtype)]
        self._replace(places, {id(p.tensor): p.tensor.astype(wanted) for p in places})
        return self

    def apply(self, function: Callable[["Module"], Any]) -> Self:
        """Call `function` with every module inside and at last with this one."""
        for child in list(self.children()):
            child.apply(function)
        function(self)
        return self

    def seed(self, seed: int) -> Self:
        """Start every random Generator inside (that of a Dropout, say) afresh, from the seed and its own path."""
        flat = tree.flatten(self)
        for found, path in zip(flat.objects, flat.object_paths, strict=True):
            if isinstance(found, Generator):
                digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
                found.seed(fold_in(key(seed), int.from_bytes(digest, "little") >> 2))  # fold_in takes 62 bits
        return self

    # -- saving and loading

    def state_dict(self) -> dict[str, Tensor]:
        """All parameters and persistent buffers by path, without history. Tied ones stand under each of their names."""
        made: dict[int, Tensor] = {}
        return {
            place.path: made.setdefault(id(place.tensor), stop_gradient(place.tensor))
            for place in self._places()
            if place.name and place.module._buffers.get(place.name, True)
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Take over the tensors or arrays of a `state_dict`, converted to the dtypes that the module has.

        Of a tied weight one name suffices. Returns the names that were missing and unexpected (allowed only with
        strict=False) and the dtypes that were converted. Raises StateError with all differences in one message, and
        then nothing has changed.

        >>> from chainrule import nn
        >>> model = nn.Linear(2, 3)
        >>> model.load_state_dict(nn.Linear(2, 3).state_dict())
        LoadReport(missing_keys=[], unexpected_keys=[])
        """
        own = {
            place.path: place.tensor
            for place in self._places()
            if place.name and place.module._buffers.get(place.name, True)
        }
        new, report = compare(self.label, own, state, strict)
        self.assign(new)
        return report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `state_dict` to a safetensors file, whole or not at all."""
        serialization.save(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> LoadReport:
        """Load a safetensors file; see `load_state_dict`. StateError when the file is missing or damaged."""
        return self.load_state_dict(serialization.load(path), strict)

    # -- showing

    def extra_repr(self) -> str:
        """The settings that `repr` shows in the brackets: attributes that are numbers, strings, flags or tuples."""
        names = [name for name in vars(self) if name != "training" and name[0] != "_" and self.role(name) == "state"]
        shown = [n for n in names if n not in self._buffers and isinstance(vars(self)[n], (int, float, str, tuple))]
        return ", ".join(f"{name}={vars(self)[name]!r}" for name in shown if name != "path")

    def __repr__(self) -> str:
        settings = self.extra_repr()
        children = [place for place in self._places() if not place.name and place.depth == 1]
        lines = [f"({place.path}): {place.module!r}".replace("\n", "\n  ") for place in children]
        if not lines:
            return f"{type(self).__name__}({settings})"
        return "\n  ".join([f"{type(self).__name__}({settings}", *lines]) + "\n)"


def _walk(
    flat: tree.Flat, spec: tree.Spec, specs: dict[int, tree.Spec], path: str, depth: int, around: frozenset[int]
) -> Iterator[Place]:
    """The places in `spec`. `specs` holds the objects met before, `around` those that we are inside of."""
    if spec.kind == "again":
        if spec.number in around:  # a part that refers back to the whole
            return
        spec = specs[spec.number]
    module = None
    if spec.kind == "object":
        specs[spec.number] = spec
        around |= {spec.number}
        owner = flat.objects[spec.number]
        if isinstance(owner, Module):
            module = owner
            yield Place(path, module, "", depth)
            depth += 1
    for name, child in zip(spec.names, spec.children, strict=True):
        if module is None or (name not in module._parameters and name not in module._buffers):
            yield from _walk(flat, child, specs, tree.join(path, name), depth, around)
        elif vars(module)[name] is not None:
            yield Place(tree.join(path, name), module, name, depth)
