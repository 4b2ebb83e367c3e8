"""`compile`: trace a function, make a Program of it, run the passes, hand it to an engine; once for each signature.

Tensors and arrays among the arguments are traced. A Module, Optimizer or Generator is in-out: the function runs on a
copy whose tensors are symbols, and every tensor that it replaced is written back after each run. Everything else
(numbers, strings, flags) is static: another value is another signature.
"""

import functools
import gc
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from chainrule import dtypes, tree
from chainrule.calling import Form, Shortcut, is_inside
from chainrule.core.autodiff import as_role
from chainrule.core.tensor import VALUE, Tensor, symbol, wrap
from chainrule.engines import DEFAULT_ENGINE, STANDARD, Executable, find
from chainrule.errors import ConfigError, TracedValueError
from chainrule.passes.pipeline import optimise
from chainrule.program.build import Result, build
from chainrule.program.captured import captured, unchanged
from chainrule.program.program import Program
from chainrule.program.text import text
from chainrule.resident import Home, Resident, Watch, places

MANY = 8  # compilations of one function after which a warning says what keeps changing


@contextmanager
def without_collector() -> Iterator[None]:
    """Compiling makes many small objects that stay, and the garbage collector would walk through them over and over.
    So it rests meanwhile."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True, eq=False)
class Specialisation:
    """A function compiled for one signature.

    executable  what runs it
    make        makes what the function returns of its leaves
    constants   the leaves that are not computed, in their places
    computed    the other leaves, which come out of the Program, in order: their numbers and dtypes
    inputs      which leaves of the arguments go into the Program, in order: one of those that are tied
    updated     which of these the rest of the outputs replace, in order
    tied        for each leaf of the arguments the one whose value it has: itself, or the first that it is tied to
    home        where the tensors of objects stay between calls; None where the engine or the objects do not allow it
    statics     static arguments that are told apart by identity, kept alive for that
    """

    executable: Executable
    make: Callable[[list[Any]], Any]
    constants: list[Any]
    computed: tuple[tuple[int, dtypes.DType], ...]
    inputs: tuple[int, ...]
    updated: tuple[int, ...]
    tied: tuple[int, ...]
    home: Home | None
    statics: list[Any]

    def returned(self, arrays: Sequence[np.ndarray]) -> Any:
        """What the function returns, with these arrays in it."""
        leaves = self.constants.copy()
        for (i, dtype), y in zip(self.computed, arrays, strict=True):
            leaves[i] = Tensor(VALUE, (), {}, y.shape, dtype, y)
        return self.make(leaves)


class Traced(NamedTuple):
    """A function traced for the leaves of its arguments.

    symbols   what the leaves stood for, and `after` the leaves when it had run
    results   what it returned; `computed` are the leaves of that which are tensors, with their numbers
    inputs    which leaves of the arguments go into the Program, in order; `owned` are those that belong to objects
    updated   which of the inputs have new values, in the order of the outputs behind the results
    tied      see Specialisation
    """

    program: Program
    symbols: list[Tensor]
    after: tree.Flat
    results: tree.Flat
    computed: list[tuple[int, tree.Leaf]]
    inputs: tuple[int, ...]
    owned: list[int]
    updated: tuple[int, ...]
    tied: tuple[int, ...]


class Look(NamedTuple):
    """The arguments of a call, looked at.

    form, values  how they were given
    changes       how many attributes had been set when it was begun: see `Resident.move_in`
    flat          all that is in them
    found         what the function is compiled to; None where somebody else traces or differentiates the arguments
    watches       see `Home.watch`; None where the tensors have to stay in the objects
    """

    form: Form
    values: tuple[Any, ...]
    changes: dict[int, int]
    flat: tree.Flat
    found: Specialisation | None
    watches: Mapping[int, Watch] | None


class Compiled:
    """A compiled function. `program` is that of the latest signature; `compilations` counts signatures."""

    def __init__(
        self, f: Callable[..., Any], engine: str, threads: int | None = None, autotune: bool = False,
        precision: str = STANDARD,
    ) -> None:  # fmt: skip
        functools.update_wrapper(self, f)
        self.function = f
        self.engine = find(engine, threads, autotune, precision)
        self.signature = inspect.signature(f)
        self.forms: dict[Any, Form] = {}
        self.cache: dict[Any, Specialisation] = {}
        self.latest: Specialisation | None = None
        self.shortcut: tuple[Shortcut, Specialisation] | None = None

    @property
    def compilations(self) -> int:
        """How many signatures were compiled so far."""
        return len({id(found) for found in self.cache.values()})

    @property
    def program(self) -> Program:
        """The Program of the latest call; ConfigError before the first."""
        if self.latest is None:
            raise ConfigError("Nothing is compiled yet: a Program exists once the function has been called.")
        return self.latest.executable.program

    def text(self, locations: bool = True) -> str:
        """The Program of the latest call as text."""
        return text(self.program, locations)

    def explain_plan(self) -> str:
        """How the latest call is run: index maps, kernels, storages, the shares of threads and barriers, memory."""
        if self.latest is None:
            raise ConfigError("Nothing is compiled yet: a plan exists once the function has been called.")
        return self.latest.executable.explain()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the first time for a signature, compile it."""
        if self.shortcut is not None:
            shortcut, found = self.shortcut
            resident = shortcut.resident()
            if resident is not None and resident.ready():
                passed = shortcut.passed(args, kwargs)
                arrays = None if passed is None else resident.step(passed)
                if arrays is not None:
                    self.latest = found
                    return found.returned(arrays)
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The long way: look at all that is in the arguments."""
        form, values, changes, flat, found, watches = self.look(args, kwargs)
        if found is None:
            return self.function(*args, **kwargs)  # somebody else traces or differentiates: let them see through
        if found.home is None or watches is None:
            return _run(found, flat)
        arrays, state = found.home.run(flat, watches, _passed(found, flat), changes)
        if isinstance(state, Resident):
            self.shortcut = Shortcut(form, values, state), found
        else:
            _write_back(flat, state)
        return found.returned(arrays)

    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Look:
        """What is in the arguments of a call; compiled for them, if that was not done before."""
        form = self.form(len(args), tuple(kwargs))
        values = form.values(args, kwargs)
        arguments = form.arguments(values)
        prepare(arguments)
        changes = tree.changes_elsewhere()
        flat = tree.flatten(arguments)
        if any([isinstance(leaf.value, Tensor) and is_inside(leaf.value) for leaf in flat.leaves]):
            return Look(form, values, changes, flat, None, None)
        found = self.latest = self._specialisation(flat, arguments)
        watches = None if found.home is None else found.home.watch(flat)
        return Look(form, values, changes, flat, found, watches)

    def form(self, count: int, names: tuple[str, ...]) -> Form:
        """How arguments given in this way are read."""
        if (count, names) not in self.forms:
            self.forms[count, names] = Form(self.signature, count, names)
        return self.forms[count, names]

    def _specialisation(self, flat: tree.Flat, arguments: dict[str, Any]) -> Specialisation:
        """The one for these arguments, out of the cache if it is there."""
        types = tuple([(leaf.value.shape, leaf.value.dtype, leaf.role) for leaf in flat.leaves])
        tied = ties(flat)
        found = self.cache.get((flat.spec, types, tied))
        if found is None:
            found = self._specialise(flat, arguments, tied)
            self.cache[flat.spec, types, tied] = self.cache[flat.spec, types, found.tied] = found
            self._warn_of_many()
        return found

    @without_collector()
    def _specialise(self, flat: tree.Flat, arguments: dict[str, Any], tied: tuple[int, ...]) -> Specialisation:
        made = self.trace(flat, arguments, tied)
        results, inputs, owned = made.results, made.inputs, made.owned
        executable = self.engine.compile(optimise(made.program), tuple([inputs.index(i) for i in owned]))
        source = {i: first for i, first in enumerate(made.tied) if first in made.updated}
        home = Home.of(executable, flat, owned, source) if owned else None
        return Specialisation(
            executable,
            tree.maker(results.spec, results.statics),
            [None if isinstance(leaf.value, Tensor) else leaf.value for leaf in results.leaves],
            tuple([(i, leaf.value.dtype) for i, leaf in made.computed]),
            inputs,
            made.updated,
            made.tied,
            home,
            [x for x in flat.statics if not tree.is_hashable(x)],
        )

    def trace(self, flat: tree.Flat, arguments: dict[str, Any], tied: tuple[int, ...]) -> Traced:
        """The Program for these arguments, before any pass."""
        symbols, after, result = self._trace(flat, arguments, tied)
        while (finer := _parted(tied, after)) != tied:  # the step has made different values of what was tied
            tied = finer
            symbols, after, result = self._trace(flat, arguments, tied)
        updated = tuple([i for i in _changed(flat, symbols, after) if tied[i] == i])
        results = tree.flatten(result, "result")
        if results.objects:
            raise ConfigError(
                f"{self._name}: a compiled function returns tensors; the {type(results.objects[0]).__name__} it "
                "returned is updated in place when it is an argument."
            )
        inputs = tuple([i for i, first in enumerate(tied) if i == first])
        computed = [(i, leaf) for i, leaf in enumerate(results.leaves) if isinstance(leaf.value, Tensor)]
        outputs = [Result(leaf.path, leaf.value) for _, leaf in computed]
        outputs += [Result(flat.leaves[i].path, after.leaves[i].value, symbols[i]) for i in updated]
        program = build(self._name, [symbols[i] for i in inputs], outputs)
        objects = {i for place in places(flat.spec) for i in place.leaves}
        owned = [i for i in inputs if i in objects]
        return Traced(program, symbols, after, results, computed, inputs, owned, updated, tied)

    def _trace(
        self, flat: tree.Flat, arguments: dict[str, Any], tied: tuple[int, ...]
    ) -> tuple[list[Tensor], tree.Flat, Any]:
        """Run the function on symbols: these, the arguments after it, and what it returns."""
        made = {i: symbol(x.path, tuple(x.value.shape), dtypes.as_dtype(x.value.dtype)) for i, x in _firsts(flat, tied)}
        symbols = [made[first] for first in tied]
        copies = tree.build(flat, symbols)
        bound = inspect.BoundArguments(self.signature, copies)
        with unchanged(captured(self.function), flat.objects):
            result = self.function(*bound.args, **bound.kwargs)
        after = tree.flatten(copies)
        if after.spec != flat.spec:
            raise TracedValueError(
                "The compiled function changed the structure of its arguments: "
                f"{tree.difference(flat.spec, after.spec)}. Only tensors inside may change, and they stay where they "
                "are: count in a buffer (register_buffer), return activations, do the rest outside."
            )
        return symbols, after, result

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__).strip("<>")

    def _warn_of_many(self) -> None:
        if self.compilations == MANY:
            warnings.warn(
                f"{self._name} was compiled for {MANY} signatures. Shapes, dtypes and plain Python values belong to "
                "the signature: pass a number that changes from call to call as a tensor.",
                stacklevel=5,
            )


def prepare(arguments: dict[str, Any]) -> None:
    """Let optimisers make their state before tracing, from the modules beside them."""
    objects = [x for x in arguments.values() if isinstance(x, tree.Stateful)]
    for x in objects:
        prepare = getattr(x, "prepare", None)
        if prepare is not None:
            prepare([other for other in objects if other is not x and not hasattr(other, "prepare")])


def ties(flat: tree.Flat) -> tuple[int, ...]:
    """For each leaf the first one with the same tensor, among the state of objects: such as a count of steps that all
    parameters share. (The same parameter met twice is one leaf already.)"""
    first: dict[int, int] = {}
    return tuple([first.setdefault(id(x), i) if role == "state" else i for i, (_, x, role) in enumerate(flat.leaves)])


def _firsts(flat: tree.Flat, tied: tuple[int, ...]) -> list[tuple[int, tree.Leaf]]:
    return [(i, leaf) for i, (leaf, first) in enumerate(zip(flat.leaves, tied, strict=True)) if i == first]


def _parted(tied: tuple[int, ...], after: tree.Flat) -> tuple[int, ...]:
    """The ties that are left when the leaves have the values of `after`."""
    first: dict[tuple[int, int], int] = {}
    pairs = zip(tied, after.leaves, strict=True)
    return tuple([first.setdefault((t, id(leaf.value)), i) for i, (t, leaf) in enumerate(pairs)])


def _changed(flat: tree.Flat, symbols: Sequence[Tensor], after: tree.Flat) -> list[int]:
    """Which leaves the function replaced."""
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
    return changed


def _array(leaf: tree.Leaf) -> np.ndarray:
    return cast(np.ndarray, leaf.value.value if isinstance(leaf.value, Tensor) else leaf.value)


def _passed(found: Specialisation, flat: tree.Flat) -> list[np.ndarray]:
    """The arrays that a Session does not hold."""
    held = set(found.home.held) if found.home is not None else ()
    return [np.asarray(_array(flat.leaves[i]), order="C") for i in found.inputs if i not in held]


def _run(found: Specialisation, flat: tree.Flat) -> Any:
    """One call without a Session: all arrays go in, and all come out."""
    outputs = found.executable([_array(flat.leaves[i]) for i in found.inputs])
    borrowed = [leaf.value for leaf in flat.leaves if isinstance(leaf.value, np.ndarray)]
    outputs = [_own(y, borrowed) for y in outputs]
    count = len(found.computed)
    made = {i: as_role(wrap(y), flat.leaves[i].role) for i, y in zip(found.updated, outputs[count:], strict=True)}
    if made:
        _write_back(flat, {i: made[first] for i, first in enumerate(found.tied) if first in made})
    return found.returned(outputs[:count])


def _write_back(flat: tree.Flat, new: dict[int, Tensor]) -> None:
    """Put new tensors into the arguments, by leaf."""
    tree.build(flat, [new.get(i, leaf.value) for i, leaf in enumerate(flat.leaves)], in_place=True)


def _own(y: np.ndarray, borrowed: list[np.ndarray]) -> np.ndarray:
    """A result never shares memory with an array of the caller, who may write to it."""
    return y.copy() if any(np.may_share_memory(y, a) for a in borrowed) else y


def compile(
    f: Callable[..., Any] | None = None, *, engine: str = DEFAULT_ENGINE, threads: int | None = None,
    autotune: bool = False, precision: str = STANDARD,
) -> Any:  # fmt: skip
    """A faster function with the same meaning: traced once for each signature, then run by `engine`.

    Tensors and arrays are traced; Modules, Optimizers and Generators are updated in place; other arguments are static.
    `f` may be a Module: `cr.compile(model)(x)`. Also a decorator. On the native engine results have the same bits on
    any number of `threads` (by default as many as pay); `autotune` times products once and remembers the fastest way,
    `precision="fast"` lets convolutions be less exact, for speed (see the float policy).
    Raises TracedValueError where the function needs a value while it is traced, changes the structure of an argument,
    uses a parameter that is no argument, or changes a Module, Optimizer or Generator that is none.

    >>> import chainrule as cr
    >>> fast = cr.compile(lambda x: cr.sum(x * x))
    >>> float(fast(cr.tensor([1.0, 2.0]))), fast.compilations
    (5.0, 1)
    """
    if f is None:
        return functools.partial(compile, engine=engine, threads=threads, autotune=autotune, precision=precision)
    made = CompiledModule if isinstance(f, tree.Stateful) else Compiled
    return made(f, engine, threads, autotune, precision)


class CompiledModule(Compiled):
    """A compiled Module: called like the Module itself."""

    def __init__(self, module: tree.Stateful, *settings: Any) -> None:
        super().__init__(_call_module, *settings)
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
    form = compiled.form(len(args), tuple(kwargs))
    arguments = form.arguments(form.values(args, kwargs))
    prepare(arguments)
    return compiled._specialisation(tree.flatten(arguments), arguments).executable.program
