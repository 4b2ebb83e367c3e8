"""LLVM IR as text: numbers of Python are constants, strings are values.

Everything is explicit: vector types, phis, rotated loops. So LLVM needs none of its passes, only instruction selection
and register allocation, and what is written here is what runs.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.engines.native.merging import MANY, merged

Index = int | str  # an i64: known now, or a value of the function

SCALARS = {
    dtypes.float32: "float",
    dtypes.float64: "double",
    dtypes.float16: "half",
    dtypes.bfloat16: "bfloat",
    dtypes.int32: "i32",
    dtypes.uint32: "i32",
    dtypes.int64: "i64",
    dtypes.uint8: "i8",
    dtypes.bool_: "i8",
}
"""How one element lies in memory."""


def literal(value: object, dtype: dtypes.DType) -> str:
    """A constant as LLVM writes it in registers: exact, and truth values are i1.

    >>> from chainrule.engines.native.ir import literal
    >>> literal(1.5, np.dtype(np.float32)), literal(-1, np.dtype(np.uint8)), literal(True, np.dtype(np.bool_))
    ('0x3FF8000000000000', '-1', 'true')
    """
    if dtype == dtypes.bool_:
        return "true" if value else "false"
    if dtypes.is_float(dtype):  # the hexadecimal form is that of a double also where the type is float
        wide = float(np.asarray(value).astype(dtype))
        return f"0x{struct.unpack('Q', struct.pack('d', wide))[0]:016X}"
    return str(int(value))  # type: ignore[call-overload]


class Loop:
    """What the body of a loop sees: the counter, and carried values, whose successors it puts into `next`."""

    def __init__(self, counter: str, carried: list[str]) -> None:
        self.counter = counter
        self.carried = carried
        self.next: list[str] = list(carried)
        self.out: list[str] = []  # the values after the loop


class Argument(NamedTuple):
    """An operand with its type."""

    type: str
    value: Index


class Function:
    """One function being written. `parameters` are 'type name'; they can be used as '%name'."""

    def __init__(
        self, module: "Module", name: str, parameters: Sequence[str], returns: str = "void", internal: bool = True,
        attributes: str = "nounwind noinline",
    ) -> None:  # fmt: skip
        self.module, self.name = module, name
        self.lines: list[str] = []
        self.count = 0
        self.current = "entry"
        pairs = [parameter.rsplit(" ", 1) for parameter in parameters]
        self.parameters = [f"%{name}" for _, name in pairs]
        signature = ", ".join(f"{type} %{name}" for type, name in pairs)
        linkage = "internal " if internal else ""
        self.head = f"define {linkage}{returns} @{name}({signature}) {attributes} {{\nentry:"
        module.add(name, self)

    # -- lines

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append("  " + text)

    def op(self, text: str) -> str:
        """An instruction with a result; its name."""
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self) -> str:
        """A fresh name for a block."""
        self.count += 1
        return f"b{self.count}"

    def block(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.current = label

    def ret(self, value: str = "void") -> None:
        """Return; `value` is 'type value'."""
        self.line(f"ret {value}")

    def text(self) -> str:
        """The finished function."""
        return self.head + "\n" + "\n".join(self.lines) + "\n}\n"

    # -- i64 arithmetic, folded where both sides are known

    def add(self, a: Index, b: Index) -> Index:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return b if a == 0 else a if b == 0 else self.op(f"add nsw i64 {a}, {b}")

    def sub(self, a: Index, b: Index) -> Index:
        """a − b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.op(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Index, b: Index) -> Index:
        """a · b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        return b if a == 1 else a if b == 1 else self.op(f"mul nsw i64 {a}, {b}")

    def div(self, a: Index, b: Index) -> Index:
        """a / b rounded down, both not negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if b == 1 else self.op(f"udiv i64 {a}, {b}")

    def rem(self, a: Index, b: Index) -> Index:
        """What is left by `div`."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return 0 if b == 1 else self.op(f"urem i64 {a}, {b}")

    def min(self, a: Index, b: Index) -> Index:
        """The smaller one."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.intrinsic("llvm.smin.i64", "i64", ("i64", a), ("i64", b))

    def max(self, a: Index, b: Index) -> Index:
        """The larger one."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.intrinsic("llvm.smax.i64", "i64", ("i64", a), ("i64", b))

    def compare(self, predicate: str, a: Index, b: Index) -> str:
        """icmp of two i64: an i1."""
        return self.op(f"icmp {predicate} i64 {a}, {b}")

    def slice(self, count: Index, thread: Index, threads: Index) -> tuple[Index, Index]:
        """The part [lo, hi) of `count` pieces of work that belongs to a thread."""
        return self.div(self.mul(thread, count), threads), self.div(self.mul(self.add(thread, 1), count), threads)

    # -- memory

    def element(self, extents: Sequence[tuple[int, int]], number: Index) -> Index:
        """Σ stride · index for the flat `number` of a block of axes (extent, stride)."""
        if not extents:
            return 0
        total: Index = 0
        for extent, stride in reversed(extents[1:]):
            total = self.add(total, self.mul(self.rem(number, extent), stride))
            number = self.div(number, extent)
        return self.add(total, self.mul(number, extents[0][1]))

    def address(self, pointer: str, index: Index, element: str) -> str:
        """The address of an element of the given type."""
        return pointer if index == 0 else self.op(f"getelementptr {element}, ptr {pointer}, i64 {index}")

    def load(self, type: str, pointer: str, align: int = 1) -> str:
        """Read a value."""
        return self.op(f"load {type}, ptr {pointer}, align {align}")

    def store(self, type: str, value: Index, pointer: str, align: int = 1) -> None:
        """Write a value."""
        self.line(f"store {type} {value}, ptr {pointer}, align {align}")

    # -- calls

    def intrinsic(self, name: str, returns: str, *arguments: tuple[str, Index], flags: str = "") -> str:
        """Call an intrinsic with a result, declaring it. A type may carry attributes: 'ptr align 4'."""
        self.module.declare(name, returns, [type for type, _ in arguments])
        return self.op(f"call {flags} {returns} @{name}({_list(arguments)})")

    def effect(self, name: str, *arguments: tuple[str, Index]) -> None:
        """Call an intrinsic without a result."""
        self.module.declare(name, "void", [type for type, _ in arguments])
        self.line(f"call void @{name}({_list(arguments)})")

    def prefetch(self, pointer: str, to_write: bool = False) -> None:
        """Ask for a line, which may lie outside of memory."""
        arguments: tuple[tuple[str, Index], ...] = (("ptr", pointer), ("i32", int(to_write)), ("i32", 3), ("i32", 1))
        self.effect("llvm.prefetch.p0", *arguments)

    def call(self, name: str, *arguments: tuple[str, Index], returns: str = "void") -> str:
        """Call a function of this module; its result, '' where there is none."""
        if returns == "void":
            self.line(f"call void @{name}({_list(arguments)})")
            return ""
        return self.op(f"call {returns} @{name}({_list(arguments)})")

    # -- control

    @contextmanager
    def loop(self, lo: Index, hi: Index, step: int = 1, carry: Sequence[tuple[str, str]] = ()) -> Iterator[Loop]:
        """for counter in range(lo, hi, step), with carried values (type, start); `loop.out` holds them afterwards."""
        known = isinstance(lo, int) and isinstance(hi, int)
        if known and lo >= hi:  # type: ignore[operator]
            raise ValueError("a loop that never runs is not to be written")
        before, body, end = self.current, self.label(), self.label()
        if known:
            self.line(f"br label %{body}")
        else:
            enter = self.compare("slt", lo, hi)
            self.line(f"br i1 {enter}, label %{body}, label %{end}")
        self.block(body)
        counter = self.op("phi i64 @")
        at = len(self.lines) - 1
        loop = Loop(counter, [self.op(f"phi {type} @") for type, _ in carry])
        yield loop
        following = self.op(f"add nsw i64 {counter}, {step}")
        again = self.compare("slt", following, hi)
        latch = self.current
        self.line(f"br i1 {again}, label %{body}, label %{end}")
        starts = [lo, *[start for _, start in carry]]
        for k, (start, new) in enumerate(zip(starts, [following, *loop.next], strict=True)):
            self.lines[at + k] = self.lines[at + k][:-1] + f"[ {start}, %{before} ], [ {new}, %{latch} ]"
        self.block(end)
        loop.out = loop.next
        if not known:
            loop.out = [
                self.op(f"phi {type} [ {start}, %{before} ], [ {new}, %{latch} ]")
                for (type, start), new in zip(carry, loop.next, strict=True)
            ]

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """if condition: ..."""
        inside, after = self.label(), self.label()
        self.line(f"br i1 {condition}, label %{inside}, label %{after}")
        self.block(inside)
        yield
        self.line(f"br label %{after}")
        self.block(after)


def _list(arguments: Sequence[tuple[str, Index]]) -> str:
    return ", ".join(f"{type} {value}" for type, value in arguments)


class Verbatim:
    """A function given as text."""

    def __init__(self, body: str) -> None:
        self.body = body

    def text(self) -> str:
        """The text."""
        return self.body


class Module:
    """Functions and declarations. `memo` remembers what was emitted once, such as a micro-kernel, by its key."""

    def __init__(self) -> None:
        self.functions: dict[str, Function | Verbatim] = {}
        self.declarations: dict[str, str] = {}
        self.memo: dict[object, str] = {}

    def add(self, name: str, function: "Function | Verbatim") -> None:
        """Take a function; two of one name are a mistake of ours."""
        if name in self.functions:
            raise ValueError(f"two functions are called {name}")
        self.functions[name] = function

    def declare(self, name: str, returns: str, types: Sequence[str]) -> None:
        """Declare an intrinsic."""
        if name in self.declarations:
            return
        bare = ", ".join(type.split()[0] if type.startswith("ptr") else type for type in types)
        self.declarations[name] = f"declare {returns} @{name}({bare})"

    def text(self) -> str:
        """The whole module."""
        texts = {name: f.text() for name, f in self.functions.items()}
        written = merged(texts) if len(texts) >= MANY else texts.values()
        return "\n".join([*self.declarations.values(), *written])
