"""A tensor is a node: how it was made, its inputs, shape, dtype, and its value once that is known.

Eagerly, `apply` computes the value at once and forgets how it was made, unless a derivative may be asked for: a tensor
keeps its history only while it depends on a leaf of an open `Scope`. While a function is traced, its arguments are
symbols without a value, and `apply` only records. The two need no mode: what an operation does follows from its inputs.
"""

import itertools
import os
import sys
import threading
from typing import Any, NamedTuple, cast

import numpy as np

from chainrule import dtypes
from chainrule.core.attached import Attached, Witness
from chainrule.core.primitive import Primitive, Shape, same_type
from chainrule.errors import DTypeError, GradientError, ShapeError, TracedValueError
from chainrule.tree import LeafBase

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Scope:
    """Somebody who may ask for derivatives: while it is open, what depends on its leaves keeps its history."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = True


LEAVES = Scope()  # never closed: the leaves made with requires_grad=True, for loss.backward()
NONE: frozenset[Scope] = frozenset()


class Location(NamedTuple):
    """Where a traced node was made: the module's path and class, and the user's file and line."""

    module: str = ""
    layer: str = ""
    file: str = ""
    line: int = 0


class _Context(threading.local):
    """What a traced node notes beside its inputs. It never changes what is computed."""

    modules: tuple[tuple[str, str], ...] = ()  # (path, class) of the modules being called
    of: "Tensor | None" = None  # the forward node whose backward rule is running
    witness: Witness | None = None


context = _Context()
serials = itertools.count()


def _location() -> Location:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return Location(*(context.modules[-1] if context.modules else ("", "")), frame.f_code.co_filename, frame.f_lineno)


class Tensor(LeafBase, Attached):
    """An immutable n-dimensional array that knows how it was made.

    Make one with `chainrule.tensor`. Operators and functions follow the Python Array API standard.

    >>> import chainrule as cr
    >>> x = cr.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> (x @ x.T).shape
    (2, 2)
    """

    __slots__ = (
        "__weakref__",
        "attributes",
        "dtype",
        "grad",
        "inputs",
        "location",
        "of",
        "primitive",
        "scopes",
        "serial",
        "shape",
        "value",
    )
    __array_priority__ = 1000  # NumPy leaves `array + tensor` to us
    __array_ufunc__ = None

    def __init__(
        self,
        primitive: Primitive,
        inputs: "tuple[Tensor, ...]",
        attributes: dict[str, Any],
        shape: Shape,
        dtype: dtypes.DType,
        value: np.ndarray | None,
        scopes: frozenset[Scope] = NONE,
    ) -> None:
        self.primitive, self.inputs, self.attributes = primitive, inputs, attributes
        self.shape, self.dtype, self.value, self.scopes = shape, dtype, value, scopes
        self.serial = next(serials)  # inputs have smaller serials than what is made of them
        self.grad: Tensor | None = None
        self.of: Tensor | None = None
        self.location: Location | None = None

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def requires_grad(self) -> bool:
        """Whether `loss.backward()` reaches this tensor or what it was made of."""
        return LEAVES in self.scopes

    # -- values: everything below needs one, and says so when the tensor is traced

    def known(self, wanted: str) -> np.ndarray:
        """The value, or a TracedValueError that says what wanted it and what to do."""
        if self.value is not None:
            return self.value
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        made = f", made in line {self.location.line} of {self.location.file}" if self.location else ""
        raise TracedValueError(
            f"{wanted} needs the value of a tensor, but it is only being traced and has none yet "
            f"(line {frame.f_lineno} of {frame.f_code.co_filename}; {self!r}{made}). "
            "Write the choice with cr.where, keep the computation in tensors, or do this outside of the compiled "
            "function."
        )

    def numpy(self) -> np.ndarray:
        """A copy of the value as a NumPy array. TracedValueError without one, GradientError inside of a derivative."""
        return self._exported(".numpy()").copy()

    def item(self) -> Any:
        """The value of a tensor with one element as a Python scalar; ShapeError when there are more."""
        return self._scalar(".item()")

    def _scalar(self, wanted: str) -> Any:
        value = self.known(wanted)
        if value.size != 1:
            raise ShapeError(f"{wanted} takes a tensor with one element; this one has shape {self.shape}.")
        return value.item()

    def tolist(self) -> Any:
        """The value as nested Python lists."""
        return self.known(".tolist()").tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._exported("np.asarray(...)")
        if copy or (dtype is not None and np.dtype(dtype) != value.dtype):
            return value.astype(dtype or value.dtype, copy=True)
        view = value.view()
        view.flags.writeable = False  # tensors are immutable, and others may share these bytes
        return view

    def _exported(self, wanted: str) -> np.ndarray:
        """The value for a library that knows no derivatives; GradientError where one would be cut off in silence."""
        value = self.known(wanted)
        if _is_differentiated(self):
            raise GradientError(
                f"{wanted} of a tensor that is being differentiated: no gradient would come back through NumPy. Keep "
                "the computation in tensors; to look at the numbers, take cr.stop_gradient(x) first."
            )
        return value

    def __dlpack__(self, **options: Any) -> Any:
        return self.known("DLPack").copy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU

    def __float__(self) -> float:
        return float(self._scalar("float(...)"))

    def __int__(self) -> int:
        return int(self._scalar("int(...)"))

    def __index__(self) -> int:
        if not dtypes.is_integer(self.dtype):
            raise DTypeError(f"Only integer tensors serve as an index; this one is {self.dtype.name}.")
        return int(self._scalar("an index or a size"))

    def __bool__(self) -> bool:
        return bool(self._scalar("a truth value (if, while, and, or, not)"))

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len() of a tensor without axes.")
        return self.shape[0]

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        return tensor(self.known("copy.deepcopy"), requires_grad=is_leaf(self))

    def __reduce__(self) -> Any:
        return tensor, (self.known("pickle"), None, is_leaf(self))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("Tensors are immutable. Instead of x[i] = v write x = cr.where(mask, v, x) or cr.scatter_add.")

    def __format__(self, spec: str) -> str:
        return format(self._scalar(f"the format {spec!r}"), spec) if spec else str(self)

    def __repr__(self) -> str:
        kind = f"shape={self.shape}, dtype={self.dtype.name}"
        if self.value is None:
            return f"Tensor(traced, {kind})"
        text = np.array2string(self.value, separator=", ", prefix="Tensor(", threshold=100, precision=6)
        return f"Tensor({text}, {kind}{', requires_grad=True' if is_leaf(self) else ''})"


def _no_meaning(m: Any, *arrays: Any, **attributes: Any) -> Any:
    raise AssertionError("a leaf is given, not computed")


VALUE = Primitive("value", "source", _no_meaning, same_type)  # a known tensor without history
SYMBOL = Primitive("symbol", "source", _no_meaning, same_type)  # an argument of a function being traced


def apply(primitive: Primitive, *inputs: Tensor, **attributes: Any) -> Tensor:
    """Make the tensor `primitive(*inputs)`: compute it when all inputs are known, else record it."""
    shape, dtype = primitive.infer(*inputs, **attributes)
    scopes = NONE
    traced = False
    for x in inputs:
        traced = traced or x.value is None
        if x.scopes is not scopes and x.scopes:
            scopes = scopes | x.scopes
    if scopes and not all([scope.open for scope in scopes]):
        scopes = frozenset([scope for scope in scopes if scope.open])
    if LEAVES in scopes and (primitive.vjp is None or not dtypes.is_float(dtype)):
        scopes = scopes - {LEAVES}  # no gradient comes back through a count of hits, so it keeps no graph alive
    if traced:
        node = Tensor(primitive, inputs, attributes, shape, dtype, None, scopes)
        node.of = context.of
        node.location = node.of.location if node.of is not None else _location()
        return node
    value = primitive.evaluate(dtype, tuple([cast(np.ndarray, x.value) for x in inputs]), attributes)
    if not scopes and inputs:
        return Tensor(VALUE, (), {}, shape, dtype, value)
    return Tensor(primitive, inputs, attributes, shape, dtype, value, scopes)


Primitive.__call__ = apply  # type: ignore[method-assign, assignment]


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a tensor of a copy of `data`: a number, nested lists, a NumPy array, or a tensor.

    Without `dtype`, arrays keep theirs, Python floats become float32, integers int64. With `requires_grad`,
    `loss.backward()` leaves the gradient in `.grad`. Raises DTypeError for a dtype that chainrule does not have, and
    ShapeError for ragged lists. A copy has no history, so making one of a tensor that is being differentiated is a
    GradientError.

    >>> import chainrule as cr
    >>> cr.tensor([1.0, 2.0])
    Tensor([1., 2.], shape=(2,), dtype=float32)
    """
    if _is_differentiated(data):
        raise GradientError(
            "cr.tensor copies numbers, so no gradient would come back to the tensors in its argument, which are being "
            "differentiated. Write cr.stack([a, b]) to join tensors, x.astype(...) to convert one; or say "
            "cr.stop_gradient(x) if that is meant."
        )
    if isinstance(data, Tensor):
        data = data.known("cr.tensor")
    given = isinstance(data, (np.ndarray, np.generic))
    try:
        value = np.array(data)
    except ValueError:
        raise ShapeError(f"Rows of different lengths make no tensor: {data!r:.80}.") from None
    if value.dtype.kind not in "biuf" and value.dtype not in dtypes.ALL:
        raise DTypeError(f"A tensor is made of numbers or truth values, each of at most 64 bits; got {data!r:.80}.")
    if dtype is not None:
        value = value.astype(dtypes.as_dtype(dtype))
    elif (not given and value.dtype.kind in "fiu") or (value.size == 0 and not given):
        value = value.astype(dtypes.default_float if value.dtype.kind == "f" else dtypes.default_integer)
    result = wrap(value)
    if requires_grad:
        if not dtypes.is_float(result.dtype):
            raise DTypeError(f"Only floating-point tensors have gradients; this one is {result.dtype.name}.")
        result.scopes = frozenset([LEAVES])
    return result


def _is_differentiated(data: Any) -> bool:
    """Whether a derivative is being taken by `data`, or by a tensor in this list."""
    if isinstance(data, (list, tuple)):
        return any(map(_is_differentiated, data))
    return isinstance(data, Tensor) and any([scope.open and scope is not LEAVES for scope in data.scopes])


def wrap(value: np.ndarray) -> Tensor:
    """A tensor around an array that nobody will write to; no copy."""
    return Tensor(VALUE, (), {}, value.shape, dtypes.as_dtype(value.dtype), value)


def full(shape: Shape, number: Any, dtype: dtypes.DType) -> Tensor:
    """A tensor of equal elements; it takes the memory of one."""
    try:
        one = np.asarray(number, dtype)
    except OverflowError:
        raise DTypeError(f"{number} does not fit into {dtype.name}.") from None
    return Tensor(VALUE, (), {}, shape, dtype, np.ndarray(shape, dtype, one, 0, (0,) * len(shape)))


def symbol(name: str, shape: Shape, dtype: dtypes.DType) -> Tensor:
    """An argument of a function being traced: a tensor without a value."""
    return Tensor(SYMBOL, (), {"name": name}, shape, dtype, None)


def is_leaf(x: Tensor) -> bool:
    """Whether `x` was made with requires_grad=True, rather than computed from such tensors."""
    return LEAVES in x.scopes and not x.inputs


def attach(methods: dict[str, Any]) -> None:
    """Give Tensor methods made on a higher floor (typed in chainrule.core.attached)."""
    for name, method in methods.items():
        setattr(Tensor, name, method)
