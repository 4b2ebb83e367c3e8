"""`scan`: a loop over sequences, as one node. Its function is traced once, on symbols, and may reach outside."""

from collections.abc import Callable
from typing import Any, NamedTuple

from chainrule import dtypes, tree
from chainrule.control.body import dependent, make_body, outside
from chainrule.control.loop import loop, part, parts
from chainrule.core.autodiff import as_tensor, number
from chainrule.core.tensor import Scope, Tensor, full, serials, symbol
from chainrule.errors import ConfigError, DTypeError, ShapeError, TracedValueError
from chainrule.primitives.operators import cast_to
from chainrule.program.captured import captured, unchanged
from chainrule.random import default_generator

CHANGED = (
    "The function of a scan changes {}: it is traced once, for all steps, so the change would happen once. Carry what "
    "changes from step to step, or draw all random numbers before the scan and hand them over in xs."
)


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Run `carry, y = f(carry, x)` over the first axis of `xs`, from `init` on: the last carry, and all y.

    init    a tensor, or a tree of them: floating point; `f` returns a carry of the same structure, shapes and dtypes
    xs      a tensor (length, ...), or a tree of them; `f` gets x = xs[t]. None: only `length` counts
    length  the number of steps, where `xs` does not tell
    reverse go from the last step to the first; y of step t stands at position t all the same

    All y are stacked: a tensor (...) of floating point, or a tree of them, becomes (length, ...). The graph does not
    grow with the number of steps: `f` is traced once. It may reach outside for tensors, weights say, which get their
    gradients; but what it changes (a Module, an Optimizer, a Generator) is a TracedValueError. Where a derivative may
    be asked for, carries, products of matrices, exponentials and the like are kept for each step; the rest is computed
    again. Raises ShapeError, DTypeError or TracedValueError for a carry that changes, ConfigError without a length.
    Source: the scan of functional programming; its derivative: Werbos, "Backpropagation through time" (1990).

    >>> import chainrule as cr
    >>> total, running = cr.scan(lambda total, x: (total + x, total + x), cr.tensor(0.0), cr.tensor([1.0, 2.0, 3.0]))
    >>> float(total), running.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    first, sequences = _tensors(init, "carry"), _tensors(xs, "x")
    for leaf in first.leaves:
        _check_float(leaf.path, leaf.value)
    length = _length(sequences, length)
    traced = _trace(f, first, sequences)
    if length == 0 or not traced.carries + traced.ys:
        last = [leaf.value for leaf in first.leaves]
        steps = [full((length, *y.shape), 0, y.dtype) for y in traced.ys]
    else:
        last, steps = _run(traced, first, sequences, length, reverse)
    return tree.build(first, last), tree.build(traced.structure, steps)


def _tensors(values: Any, path: str) -> tree.Flat:
    """A tree of tensors, taken apart."""
    flat = tree.flatten(number(values), path)
    if flat.objects:
        raise DTypeError(f"scan: {path} holds a {type(flat.objects[0]).__name__}; it takes tensors, or trees of them.")
    numbers = [x for x in flat.statics if isinstance(x, (bool, int, float))]
    if numbers:
        raise DTypeError(f"scan: {path} holds {numbers[0]!r}; make it a tensor, as in cr.tensor({float(numbers[0])}).")
    flat.leaves = [leaf._replace(value=as_tensor(leaf.value)) for leaf in flat.leaves]
    return flat


def _check_float(path: str, x: Tensor) -> None:
    if not dtypes.is_float(x.dtype):
        raise DTypeError(
            f"scan: {path} is {x.dtype.name}; what is carried, and what a step produces, is floating point. Count in "
            "floating point, convert with x.astype(...), or take counts from xs=cr.arange(n)."
        )


def _length(sequences: tree.Flat, length: int | None) -> int:
    for leaf in sequences.leaves:
        if not leaf.value.shape:
            raise ShapeError(f"scan: {leaf.path} has no axes; the steps go along its first.")
        if length is None:
            length = leaf.value.shape[0]
        if leaf.value.shape[0] != length:
            raise ShapeError(f"scan: {leaf.path} has shape {leaf.value.shape}; expected are {length} steps.")
    if length is None or length < 0:
        raise ConfigError(f"scan: length={length}; it takes the number of steps, or xs with a first axis.")
    return length


class Traced(NamedTuple):
    """A function traced on symbols.

    symbols    of the carries, which are kept in the dtype `stored`, and of the slices of the sequences
    carries    the new ones
    ys         what a step produces; `structure` is that of their tree
    lifted     tensors from outside, which become inputs
    start      older tensors are from outside
    """

    symbols: list[Tensor]
    carries: list[Tensor]
    ys: list[Tensor]
    structure: tree.Flat
    lifted: list[Tensor]
    stored: dtypes.DType
    start: int


def _trace(f: Callable[[Any, Any], tuple[Any, Any]], first: tree.Flat, sequences: tree.Flat) -> Traced:
    """Trace `f`. It is done again where it turns out that something from outside is wider than the carries, or that it
    is differentiated by what only comes from outside and a loop inside has to know."""
    given = [leaf.value for leaf in (*first.leaves, *sequences.leaves)]
    stored, scopes = _widest(given), _scopes(given)
    while True:
        traced = _attempt(f, first, sequences, stored, scopes)
        seen = [*given, *traced.ys, *traced.lifted]
        inner = any([x.primitive.kind == "control" for x in _inside(traced)])
        wider, more = _widest(seen), _scopes(seen) if inner else scopes
        if (wider, more) == (stored, scopes):
            return traced
        stored, scopes = wider, more


def _attempt(
    f: Callable[[Any, Any], tuple[Any, Any]],
    first: tree.Flat,
    sequences: tree.Flat,
    stored: dtypes.DType,
    scopes: frozenset[Scope],
) -> Traced:
    start = next(serials)
    carries = [symbol(leaf.path, leaf.value.shape, stored) for leaf in first.leaves]
    slices = [symbol(leaf.path, leaf.value.shape[1:], leaf.value.dtype) for leaf in sequences.leaves]
    for x in (*carries, *slices):
        x.scopes = scopes
    narrow = [cast_to(x, leaf.value.dtype) for x, leaf in zip(carries, first.leaves, strict=True)]
    with unchanged({"the default generator": default_generator(), **captured(f)}, [], CHANGED):
        result = f(tree.build(first, narrow), tree.build(sequences, slices))
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TracedValueError(f"The function of a scan returns a pair (carry, y), y may be None; got {result!r:.200}.")
    after, ys = _tensors(result[0], "carry"), _tensors(result[1], "y")
    _check_carries(first, after)
    for leaf in ys.leaves:
        _check_float(leaf.path, leaf.value)
    new, produced = [cast_to(leaf.value, stored) for leaf in after.leaves], [leaf.value for leaf in ys.leaves]
    symbols = [*carries, *slices]
    return Traced(symbols, new, produced, ys, outside([*new, *produced], symbols, start), stored, start)


def _check_carries(first: tree.Flat, after: tree.Flat) -> None:
    if after.spec != first.spec:
        raise TracedValueError(
            f"The function of a scan returns a carry of another structure: {tree.difference(first.spec, after.spec)}."
        )
    for before, now in zip(first.leaves, after.leaves, strict=True):
        a, b = before.value, now.value
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ShapeError(
                f"scan: {before.path} is {a.dtype.name}{list(a.shape)} before a step and {b.dtype.name}{list(b.shape)} "
                "after it; a carry keeps its shape and dtype. Start with the shape that a step returns; x.astype(...)."
            )


def _inside(traced: Traced) -> list[Tensor]:
    inside, met = dependent([*traced.carries, *traced.ys], traced.symbols, traced.start)
    return [met[serial] for serial in inside & met.keys()]


def _widest(tensors: list[Tensor]) -> dtypes.DType:
    floats = [x.dtype for x in tensors if dtypes.is_float(x.dtype)]
    return dtypes.promote(*floats) if floats else dtypes.default_float


def _scopes(tensors: list[Tensor]) -> frozenset[Scope]:
    return frozenset([scope for x in tensors for scope in x.scopes if scope.open])


def _run(
    traced: Traced, first: tree.Flat, sequences: tree.Flat, length: int, reverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """The last carries and all that the steps produce."""
    distinct = {y.serial: y for y in traced.ys}  # what is produced under two names is produced once
    count = len(traced.carries)
    inputs = {f"constant.{i}": x for i, x in enumerate(traced.lifted)}
    inputs |= {x.attributes["name"]: x for x in traced.symbols}
    carries = [x.attributes["name"] for x in traced.symbols[:count]]
    body = make_body("step", inputs, carries, [*traced.carries, *distinct.values()], traced.stored, traced.start)
    init = [cast_to(leaf.value, traced.stored) for leaf in first.leaves]
    result = loop(body, traced.lifted, init, [leaf.value for leaf in sequences.leaves], length, reverse)
    found = [part(result, place) for place in parts(body, count, length)]  # what it saves stands behind them
    last = [_as(x, leaf.value.dtype) for x, leaf in zip(found, first.leaves, strict=False)]
    products = dict(zip(distinct, found[count:], strict=True))
    return last, [_as(products[y.serial], y.dtype) for y in traced.ys]


def _as(x: Tensor | None, dtype: dtypes.DType) -> Tensor:
    assert x is not None
    return cast_to(x, dtype)
