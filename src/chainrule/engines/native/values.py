"""Vectors in registers, with the operators and names that meanings of primitives use: the `m` of the native engine.

A `Value` holds one dtype in `lanes` lanes; one lane is a scalar. float16 and bfloat16 live in memory only: in registers
they are float32, rounded after each operation. Truth values are i1 in registers and bytes in memory.
"""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.engines.native import arithmetic, bits, exponential, polynomial, powers, roots, special, trigonometry
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import SCALARS, Function, Index, literal

Mask = int | str | None  # the first n lanes, a vector of i1, or all


class Value:
    """A vector. Operators take Values of the same dtype or numbers."""

    __slots__ = ("dtype", "m", "x")

    def __init__(self, m: "Vectors", x: str, dtype: dtypes.DType) -> None:
        self.m, self.x, self.dtype = m, x, dtype

    @property
    def type(self) -> str:
        """Its type in IR."""
        return self.m.type(self.dtype)

    def _binary(self, other: Any, of_floats: str, of_integers: str, reverse: bool = False) -> "Value":
        a, b = self, self.m.lift(other, self.dtype)
        if reverse:
            a, b = b, a
        instruction = of_floats if dtypes.is_float(self.dtype) else of_integers
        return Value(self.m, self.m.f.op(f"{instruction} {a.type} {a.x}, {b.x}"), self.dtype)

    def __add__(self, other: Any) -> "Value":
        return self._binary(other, "fadd", "or" if self.dtype == dtypes.bool_ else "add")

    def __radd__(self, other: Any) -> "Value":
        return self.m.lift(other, self.dtype) + self

    def __sub__(self, other: Any) -> "Value":
        return self._binary(other, "fsub", "sub")

    def __rsub__(self, other: Any) -> "Value":
        return self._binary(other, "fsub", "sub", reverse=True)

    def __mul__(self, other: Any) -> "Value":
        return self._binary(other, "fmul", "and" if self.dtype == dtypes.bool_ else "mul")

    def __rmul__(self, other: Any) -> "Value":
        return self.m.lift(other, self.dtype) * self

    def __truediv__(self, other: Any) -> "Value":
        return roots.divide(self.m, self, self.m.lift(other, self.dtype))

    def __rtruediv__(self, other: Any) -> "Value":
        return roots.divide(self.m, self.m.lift(other, self.dtype), self)

    def __and__(self, other: Any) -> "Value":
        return self._binary(other, "", "and")

    def __or__(self, other: Any) -> "Value":
        return self._binary(other, "", "or")

    def __xor__(self, other: Any) -> "Value":
        return self._binary(other, "", "xor")

    def __invert__(self) -> "Value":
        return self ^ (True if self.dtype == dtypes.bool_ else -1)

    def __lshift__(self, other: Any) -> "Value":
        return bits.shift_left(self.m, self, other)

    def __rshift__(self, other: Any) -> "Value":
        return bits.shift_right(self.m, self, other)

    def __neg__(self) -> "Value":
        if dtypes.is_float(self.dtype):
            return Value(self.m, self.m.f.op(f"fneg {self.type} {self.x}"), self.dtype)
        return 0 - self

    def __lt__(self, other: Any) -> "Value":
        return self.m.compare("olt", "lt", self, other)

    def __le__(self, other: Any) -> "Value":
        return self.m.compare("ole", "le", self, other)

    def __gt__(self, other: Any) -> "Value":
        return self.m.compare("ogt", "gt", self, other)

    def __ge__(self, other: Any) -> "Value":
        return self.m.compare("oge", "ge", self, other)

    def __eq__(self, other: Any) -> "Value":  # type: ignore[override]
        return self.m.compare("oeq", "eq", self, other)

    def __ne__(self, other: Any) -> "Value":  # type: ignore[override]
        return self.m.compare("une", "ne", self, other)

    __hash__ = None  # type: ignore[assignment]


class Vectors:
    """Writes vector instructions into a function. `fail(condition, code, value)` is called by what can go wrong."""

    def __init__(self, f: Function, lanes: int, host: Host, fail: Any = None) -> None:
        self.f, self.lanes, self.host, self.fail = f, lanes, host, fail

    # -- types and constants

    def element(self, dtype: dtypes.DType) -> str:
        """The type of a lane in registers."""
        return "i1" if dtype == dtypes.bool_ else "float" if dtype in dtypes.HALVES else SCALARS[dtype]

    def type(self, dtype: dtypes.DType) -> str:
        """The type of a vector in registers."""
        return f"<{self.lanes} x {self.element(dtype)}>"

    def constant(self, value: Any, dtype: dtypes.DType) -> Value:
        """The same number in all lanes."""
        kind = dtypes.float32 if dtype in dtypes.HALVES else dtype
        number = np.asarray(value).astype(dtype) if dtype in dtypes.HALVES else value
        return Value(self, f"splat ({self.element(dtype)} {literal(number, kind)})", dtype)

    def lift(self, value: Any, dtype: dtypes.DType) -> Value:
        """A Value; numbers become constants."""
        return value if isinstance(value, Value) else self.constant(value, dtype)

    def value(self, x: str, dtype: dtypes.DType) -> Value:
        """A Value that is known by name."""
        return Value(self, x, dtype)

    def lane_numbers(self, start: Index, dtype: dtypes.DType) -> Value:
        """start, start + 1, …: the positions of the lanes, converted to `dtype` (wrapping where it is too narrow)."""
        steps = ", ".join(f"i64 {i}" for i in range(self.lanes))
        positions = Value(self, f"<{steps}>", dtypes.int64)
        if start != 0:
            positions = positions + self.splat_of(start, dtypes.int64)
        return self.astype(positions, dtype)

    def splat_of(self, scalar: Index, dtype: dtypes.DType) -> Value:
        """A scalar of the function in all lanes."""
        if isinstance(scalar, int):
            return self.constant(scalar, dtype)
        one = self.f.op(f"insertelement {self.type(dtype)} poison, {self.element(dtype)} {scalar}, i64 0")
        if self.lanes == 1:
            return Value(self, one, dtype)
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return Value(
            self, self.f.op(f"shufflevector {self.type(dtype)} {one}, {self.type(dtype)} poison, {zeros}"), dtype
        )

    def lane(self, value: Value, number: int) -> str:
        """One lane as a scalar."""
        return self.f.op(f"extractelement {value.type} {value.x}, i64 {number}")

    def mask(self, count: Mask) -> str:
        """A mask as IR."""
        if isinstance(count, str):
            return count
        lanes = self.lanes if count is None else count
        return "<" + ", ".join(f"i1 {int(i < lanes)}" for i in range(self.lanes)) + ">"

    # -- memory

    def load(self, pointer: str, index: Index, dtype: dtypes.DType, mask: Mask = None) -> Value:
        """Neighbouring elements; lanes outside of the mask are 0 and are not read."""
        kind, size = SCALARS[dtype], dtype.itemsize
        address = self.f.address(pointer, index, kind)
        vector = f"<{self.lanes} x {kind}>"
        if mask is None or mask == self.lanes:
            return self._widen(self.f.load(vector, address, size), dtype)
        short = (
            dtype in dtypes.HALVES
        )  # as integers: AVX2 would take bfloat apart by calling a function that is not there
        masked = f"<{self.lanes} x i16>" if short else vector
        name = f"llvm.masked.load.v{self.lanes}{'i16' if short else _suffix(kind)}.p0"
        arguments = (
            (f"ptr align {size}", address),
            (f"<{self.lanes} x i1>", self.mask(mask)),
            (masked, "zeroinitializer"),
        )
        x = self.f.intrinsic(name, masked, *arguments)
        return self._widen(self.f.op(f"bitcast {masked} {x} to {vector}") if short else x, dtype)

    def store(self, value: Value, pointer: str, index: Index, mask: Mask = None) -> None:
        """Write neighbouring elements, those of the mask alone."""
        if mask == 1 and self.lanes > 1:  # LLVM 22 writes four bytes when one lane of truncated integers is stored
            return self.store_lane(value, pointer, index)
        kind, size = SCALARS[value.dtype], value.dtype.itemsize
        address = self.f.address(pointer, index, kind)
        vector, x = f"<{self.lanes} x {kind}>", self._narrow(value)
        if mask is None or mask == self.lanes:
            self.f.store(vector, x, address, size)
            return
        if value.dtype in dtypes.HALVES:  # as integers: AVX2 would store bfloat by calling a function that is not there
            x, kind = self.f.op(f"bitcast {vector} {x} to <{self.lanes} x i16>"), "i16"
        name = f"llvm.masked.store.v{self.lanes}{_suffix(kind)}.p0"
        lanes = (f"<{self.lanes} x i1>", self.mask(mask))
        self.f.effect(name, (f"<{self.lanes} x {kind}>", x), (f"ptr align {size}", address), lanes)

    def load_splat(self, pointer: str, index: Index, dtype: dtypes.DType) -> Value:
        """One element in all lanes."""
        kind = SCALARS[dtype]
        if dtype in dtypes.HALVES:
            one = Vectors(self.f, 1, self.host)
            return self.splat_of(one.lane(one.load(pointer, index, dtype), 0), dtype)
        scalar = self.f.load(kind, self.f.address(pointer, index, kind), dtype.itemsize)
        if dtype == dtypes.bool_:
            scalar = self.f.op(f"trunc i8 {scalar} to i1")
        return self.splat_of(scalar, dtype)

    def store_lane(self, value: Value, pointer: str, index: Index, number: int = 0) -> None:
        """Write one lane."""
        single = Vectors(self.f, 1, self.host, self.fail)
        scalar = f"{self.element(value.dtype)} {self.lane(value, number)}"
        one = self.f.op(f"insertelement {single.type(value.dtype)} poison, {scalar}, i64 0")
        single.store(Value(single, one, value.dtype), pointer, index)

    def gather(self, pointer: str, indices: Value, dtype: dtypes.DType, mask: Mask = None) -> Value:
        """Elements anywhere: `indices` are int64 element numbers."""
        kind = SCALARS[dtype]
        vector, pointers = f"<{self.lanes} x {kind}>", f"<{self.lanes} x ptr>"
        addresses = self.f.op(f"getelementptr {kind}, ptr {pointer}, {indices.type} {indices.x}")
        name = f"llvm.masked.gather.v{self.lanes}{_suffix(kind)}.v{self.lanes}p0"
        arguments = (
            (f"{pointers} align {dtype.itemsize}", addresses),
            (f"<{self.lanes} x i1>", self.mask(mask)),
            (vector, "zeroinitializer"),
        )
        return self._widen(self._gather(name, vector, pointers, arguments), dtype)

    def _gather(self, name: str, vector: str, pointers: str, arguments: Any) -> str:
        self.f.module.declare(name, vector, [pointers, f"<{self.lanes} x i1>", vector])
        listed = ", ".join(f"{type} {value}" for type, value in arguments)
        return self.f.op(f"call {vector} @{name}({listed})")

    def _widen(self, x: str, dtype: dtypes.DType) -> Value:
        """From how it lies in memory to how it stands in registers."""
        if dtype == dtypes.bool_:
            return Value(self, self.f.op(f"trunc <{self.lanes} x i8> {x} to {self.type(dtype)}"), dtype)
        if dtype in dtypes.HALVES:
            return bits.widen_half(self, x, dtype)
        return Value(self, x, dtype)

    def _narrow(self, value: Value) -> str:
        if value.dtype == dtypes.bool_:
            return self.f.op(f"zext {value.type} {value.x} to <{self.lanes} x i8>")
        if value.dtype in dtypes.HALVES:
            return bits.narrow_half(self, value)
        return value.x

    # -- comparisons, choice, conversion

    def compare(self, of_floats: str, of_integers: str, a: Value, b: Any) -> Value:
        """A truth value in each lane."""
        b = self.lift(b, a.dtype)
        if dtypes.is_float(a.dtype):
            return Value(self, self.f.op(f"fcmp {of_floats} {a.type} {a.x}, {b.x}"), dtypes.bool_)
        signed = a.dtype in (dtypes.int32, dtypes.int64)
        predicate = of_integers if of_integers in ("eq", "ne") else ("s" if signed else "u") + of_integers
        return Value(self, self.f.op(f"icmp {predicate} {a.type} {a.x}, {b.x}"), dtypes.bool_)

    def where(self, condition: Value, a: Any, b: Any) -> Value:
        """a where the condition holds, else b."""
        dtype = a.dtype if isinstance(a, Value) else b.dtype
        a, b = self.lift(a, dtype), self.lift(b, dtype)
        return Value(self, self.f.op(f"select {condition.type} {condition.x}, {a.type} {a.x}, {b.type} {b.x}"), dtype)

    def select_lanes(self, mask: Mask, a: Value, b: Value) -> Value:
        """a in the lanes of the mask, b in the others."""
        return Value(
            self, self.f.op(f"select <{self.lanes} x i1> {self.mask(mask)}, {a.type} {a.x}, {b.type} {b.x}"), a.dtype
        )

    def any_lane(self, condition: Value) -> str:
        """Whether the condition holds in any lane: an i1."""
        return self.f.intrinsic(f"llvm.vector.reduce.or.v{self.lanes}i1", "i1", (condition.type, condition.x))

    def fma(self, a: Value, b: Any, c: Any) -> Value:
        """a · b + c, rounded once."""
        b, c = self.lift(b, a.dtype), self.lift(c, a.dtype)
        return self.call("fma", a, b, c) if polynomial.has_fma(self) else roots.fused(self, a, b, c)

    def call(self, name: str, *arguments: Value) -> Value:
        """An LLVM intrinsic of vectors of one dtype, such as 'fma', 'sqrt', 'floor'."""
        first = arguments[0]
        full = f"llvm.{name}.v{self.lanes}{_suffix(self.element(first.dtype))}"
        return Value(self, self.f.intrinsic(full, first.type, *[(a.type, a.x) for a in arguments]), first.dtype)

    def astype(self, x: Value, dtype: dtypes.DType) -> Value:
        """Convert, as NumPy does."""
        return bits.convert(self, x, dtype)

    def rounded(self, x: Value, dtype: dtypes.DType) -> Value:
        """A float32 rounded to a half, still in float32 registers."""
        return bits.rounded(self, x, dtype)

    def bitcast(self, x: Value, dtype: dtypes.DType) -> Value:
        """The same bits as another dtype of the same width."""
        return Value(self, self.f.op(f"bitcast {x.type} {x.x} to {self.type(dtype)}"), dtype)


def _suffix(kind: str) -> str:
    return {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}.get(kind, kind)


for _family in (arithmetic, bits, exponential, powers, roots, special, trigonometry):
    for _name in _family.NAMES:  # m.exp(x) is exponential.exp(m, x)
        setattr(Vectors, _name, getattr(_family, _name))
