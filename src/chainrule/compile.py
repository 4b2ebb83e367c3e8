"""`compile`: trace a function, make a Program of it, run the passes, hand it to an engine; once for each signature.

Tensors and arrays among the arguments are traced. A Module, Optimizer or Generator is in-out: the function runs on a
copy whose tensors are symbols, and every tensor that it replaced is written back after each run. Everything else
(numbers, strings, flags) is static: another value is another signature.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_role
from chainrule.core.tensor import LEAVES, Tensor, symbol, wrap
from chainrule.engines import Executable, find
from chainrule.errors import ConfigError, TracedValueError
from chainrule.passes.pipeline import optimise
from chainrule.program.build import Result, build
from chainrule.program.captured import captured, unchanged
from chainrule.program.program import Program
from chainrule.program.text import text

MANY = 8  # compilations of one function after which a warning says what keeps changing


@dataclass(frozen=True)
class Specialisation:
    """A function compiled for one signature."""

    executable: Executable
    results: tree.Flat  # the structure of what the function returns; leaves that are not computed stand in it
    computed: tuple[int, ...]  # which leaves of the results come out of the Program, in order
    updated: tuple[int, ...]  # which leaves of the arguments the rest of the outputs replace
    statics: list[Any]  # the static arguments: kept alive, since some are told apart by identity


class Compiled:
    """A compiled function. `program` is that of the latest signature; `compilations` counts signatures."""

    def __init__(self, f: Callable[..., Any], engine: str) -> None:
        functools.update_wrapper(self, f)
        self.function = f
        self.engine = find(engine)
        self.signature = inspect.signature(f)
        self.cache: dict[Any, Specialisation] = {}
        self.latest: Specialisation | None = None

    @property
    def compilations(self) -> int:
        """How many signatures were compiled so far."""
        return len(self.cache)

    @property
    def program(self) -> Program:
        """The Program of the latest call; ConfigError before the first."""
        if self.latest is None:
            raise ConfigError("Nothing is compiled yet: a Program exists once the function has been called.")
        return self.latest.executable.program

    def text(self, locations: bool = True) -> str:
        """The Program of the latest call as text."""
        return text(self.program, locations)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the first time for a signature, compile it."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        _prepare(arguments)
        flat = tree.flatten(arguments)
        if any(isinstance(leaf.value, Tensor) and _inside(leaf.value) for leaf in flat.leaves):
            return self.function(*args, **kwargs)  # somebody else traces or differentiates: let them see through
        key = flat.spec, tuple([(leaf.value.shape, leaf.value.dtype, leaf.role) for leaf in flat.leaves])
        found = self.cache.get(key)
        if found is None:
            found = self.cache[key] = self._specialise(bound, flat)
            self._warn_of_many()
        self.latest = found
        return _run(found, flat)

    def _specialise(self, bound: inspect.BoundArguments, flat: tree.Flat) -> Specialisation:
        symbols = [symbol(leaf.path, tuple(leaf.value.shape), _dtype(leaf)) for leaf in flat.leaves]
        copies = tree.build(flat, symbols)
        bound.arguments.update(copies)
        with unchanged(captured(self.function), flat.objects):
            result = self.function(*bound.args, **bound.kwargs)
        after = tree.flatten(copies)
        updated = _updated(flat, symbols, after)
        results = tree.flatten(result, "result")
        if results.objects:
            raise ConfigError(
                f"{self._name}: a compiled function returns tensors; the {type(results.objects[0]).__name__} it "
                "returned is updated in place when it is an argument."
            )
        computed = tuple(i for i, leaf in enumerate(results.leaves) if isinstance(leaf.value, Tensor))
        outputs = [Result(results.leaves[i].path, results.leaves[i].value) for i in computed]
        outputs += [Result(flat.leaves[i].path, after.leaves[i].value, symbols[i]) for i in updated]
        program = optimise(build(self._name, symbols, outputs))
        return Specialisation(self.engine.compile(program), _without_tensors(results), computed, updated, flat.statics)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__).strip("<>")

    def _warn_of_many(self) -> None:
        if len(self.cache) == MANY:
            warnings.warn(
                f"{self._name} was compiled for {MANY} signatures. Shapes, dtypes and plain Python values belong to "
                "the signature: pass a number that changes from call to call as a tensor.",
                stacklevel=3,
            )


def _inside(x: Tensor) -> bool:
    return x.value is None or any(scope.open and scope is not LEAVES for scope in x.scopes)


def _dtype(leaf: tree.Leaf) -> dtypes.DType:
    return dtypes.as_dtype(leaf.value.dtype)


def _prepare(arguments: dict[str, Any]) -> None:
    """Let optimisers make their state before tracing, from the modules beside them."""
    objects = [x for x in arguments.values() if isinstance(x, tree.Stateful)]
    for x in objects:
        prepare = getattr(x, "prepare", None)
        if prepare is not None:
            prepare([other for other in objects if other is not x and not hasattr(other, "prepare")])


def _updated(flat: tree.Flat, symbols: Sequence[Tensor], after: tree.Flat) -> tuple[int, ...]:
    """Which leaves the function replaced."""
    if after.spec != flat.spec:
        raise TracedValueError(
            f"The compiled function changed the structure of its arguments: {tree.difference(flat.spec, after.spec)}. "
            "Only tensors inside may change, and they stay where they are: count in a buffer (register_buffer), return "
            "activations, do the rest outside."
        )
    changed = [i for i, leaf in enumerate(after.leaves) if leaf.value is not symbols[i]]
    for i in changed:
        if flat.leaves[i].role == "value":
            raise TracedValueError(
                f"The compiled function replaced {flat.leaves[i].path} inside an argument. Plain containers are not "
                "in-out: return the new value, or keep it in a Module."
            )
        old, new = symbols[i], after.leaves[i].value
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise TracedValueError(
                f"{flat.leaves[i].path} was {old.dtype.name}{list(old.shape)} before the compiled function and "
                f"{new.dtype.name}{list(new.shape)} after it. State keeps its shape and dtype."
            )
    return tuple(changed)


def _without_tensors(results: tree.Flat) -> tree.Flat:
    """The structure of the results alone, so that a cached signature keeps no graph alive."""
    leaves = [leaf._replace(value=None) if isinstance(leaf.value, Tensor) else leaf for leaf in results.leaves]
    return tree.Flat(leaves, results.spec, results.statics, [], [])


def _run(found: Specialisation, flat: tree.Flat) -> Any:
    inputs: list[Any] = [leaf.value.value if isinstance(leaf.value, Tensor) else leaf.value for leaf in flat.leaves]
    outputs = found.executable(inputs)
    borrowed = [leaf.value for leaf in flat.leaves if isinstance(leaf.value, np.ndarray)]
    outputs = [_own(y, borrowed) for y in outputs]
    count = len(found.computed)
    leaves = [leaf.value for leaf in found.results.leaves]
    for i, y in zip(found.computed, outputs[:count], strict=True):
        leaves[i] = wrap(y)
    if found.updated:
        new = [leaf.value for leaf in flat.leaves]
        for i, y in zip(found.updated, outputs[count:], strict=True):
            new[i] = as_role(wrap(y), flat.leaves[i].role)
        tree.build(flat, new, in_place=True)
    return tree.build(found.results, leaves)


def _own(y: np.ndarray, borrowed: list[np.ndarray]) -> np.ndarray:
    """A result never shares memory with an array of the caller, who may write to it."""
    return y.copy() if any(np.may_share_memory(y, a) for a in borrowed) else y


def compile(f: Callable[..., Any] | None = None, *, engine: str = "reference") -> Any:
    """A faster function with the same meaning: traced once for each signature, then run by `engine`.

    Tensors and arrays are traced; Modules, Optimizers and Generators are updated in place; other arguments are static.
    `f` may be a Module: `cr.compile(model)(x)`. Also a decorator. Raises TracedValueError where the function needs a
    value while it is traced, changes the structure of an argument, uses a parameter that is no argument, or changes a
    Module, Optimizer or Generator that is none.

    >>> import chainrule as cr
    >>> fast = cr.compile(lambda x: cr.sum(x * x))
    >>> float(fast(cr.tensor([1.0, 2.0]))), fast.compilations
    (5.0, 1)
    """
    if f is None:
        return functools.partial(compile, engine=engine)
    if isinstance(f, tree.Stateful):
        return CompiledModule(f, engine)
    return Compiled(f, engine)


class CompiledModule(Compiled):
    """A compiled Module: called like the Module itself."""

    def __init__(self, module: tree.Stateful, engine: str) -> None:
        super().__init__(_call_module, engine)
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the first time for a signature, compile it."""
        return super().__call__(self.module, *args, **kwargs)


def _call_module(module: Any, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def trace_program(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Program:
    """The Program of `f` at these arguments, without running it.

    >>> import chainrule as cr
    >>> len(cr.trace_program(lambda x: x + 1, cr.tensor([1.0])).nodes)
    4
    """
    compiled = Compiled(f, "reference")
    bound = compiled.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    _prepare(arguments)
    return compiled._specialise(bound, tree.flatten(arguments)).executable.program
