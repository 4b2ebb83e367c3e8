"""What an optimiser makes of a gradient: its state before and after, and the chain of formulas down to Δw.

The formulas are read off the traced step, so they are what was computed, whatever the optimiser: each value that is
used twice, each new state and the change of the weight get a line, in terms of those before.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from chainrule.core.autodiff import ALIAS
from chainrule.core.tensor import Tensor
from chainrule.observe import Observation
from chainrule.program.build import TRANSPARENT

Array = np.ndarray
INFIX = {"add": "+", "sub": "−", "mul": "·", "div": "/"}
SYMBOLS = {"mean": "m", "square": "v", "trace": "b", "norm": "n", "largest": "v̄", "step": "t"}
TIGHT = 2  # how tightly · and / bind; + and − have 1, everything else 3


class Slot(NamedTuple):
    """A tensor of an optimiser's state that belongs to one parameter, before and after the step."""

    name: str
    before: Array
    after: Array


class Term(NamedTuple):
    """A line of the chain from the gradient to Δw."""

    name: str
    symbol: str
    formula: str
    value: Array


@dataclass
class Update:
    """The update of one parameter: Δw, the optimiser's state, the chain of terms."""

    change: Array
    slots: list[Slot] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)


def update_of(observation: Observation, parameter: str, gradient: Tensor, owner: str = "optimizer") -> Update | None:
    """The update of the parameter with this path among the arguments; None where the step left it alone."""
    after = observation.after.get(parameter)
    if after is None:
        return None
    before = observation.before[parameter]
    name = parameter.partition(".")[2]
    slots = [
        (path, path.removesuffix(f".{name}").rpartition(".")[2])
        for path in observation.before
        if path.startswith(f"{owner}.state.") and path.endswith(f".{name}") and path in observation.after
    ]
    writer = Writer(observation, gradient, parameter, slots)
    update = Update(_difference(after, before))
    update.slots = [Slot(slot, observation.before[path], observation.after[path]) for path, slot in slots]
    update.terms = writer.terms(update.change)
    return update


def _difference(after: Array, before: Array) -> Array:
    kind = np.float64 if after.dtype == np.float64 else np.float32
    return after.astype(kind) - before.astype(kind)


class Writer:
    """Writes the formulas of one update."""

    def __init__(self, observation: Observation, gradient: Tensor, parameter: str, slots: list[tuple[str, str]]) -> None:
        self.observation = observation
        self.new = {leaf.path: leaf.value for leaf in observation.traced.after.leaves}
        self.named: dict[int, str] = {observation.symbols[parameter].serial: "w", gradient.serial: "g"}
        self.target = self.new[parameter]
        self.slots = slots
        self.results: dict[int, tuple[str, str]] = {}
        for path, slot in slots:
            symbol = SYMBOLS.get(slot, slot)
            self.named[observation.symbols[path].serial] = symbol
            new = _seen_through(self.new[path])
            if new.primitive.kind != "source" and new.serial not in self.named:
                self.results[new.serial] = (slot, f"{symbol}′")
        for path, symbol in observation.symbols.items():
            if path.startswith("optimizer.rates."):
                self.named[symbol.serial] = "lr"
            elif path.startswith("optimizer.state.") and path.rpartition(".")[2] == "step":
                self.named[symbol.serial] = "t"

    def terms(self, change: Array) -> list[Term]:
        """The gradient, each new state, what they are scaled to, and Δw: in the order of computation."""
        found = [Term("gradient", "g", "∂loss/∂w", self.observation.value(self._gradient()))]
        lines = sorted([s for s in self.results if self._reaches(s)])
        for serial in lines:
            slot, symbol = self.results[serial]
            tensor = self._tensor(serial)
            formula = self._write(tensor, 0)
            self.named[serial] = symbol
            found.append(Term(f"new {slot}", symbol, f"{symbol} = {formula}", self.observation.value(tensor)))
        step = self._step()
        if step is not None:
            for tensor in self._corrected(step):
                inner = next(i for i in map(_seen_through, tensor.inputs) if i.serial in self.results)
                slot, symbol = self.results[inner.serial]
                hat = f"{symbol[0]}\u0302"
                formula = self._write(tensor, 0)
                self.named[tensor.serial] = hat
                value = self.observation.value(tensor)
                found.append(Term(f"bias-corrected {slot}", hat, f"{hat} = {formula}", value))
            found.append(Term("update", "Δw", f"Δw = {self._write(step, 0)}", change))
        else:
            found.append(Term("update", "Δw", f"w′ = {self._write(_seen_through(self.target), 0)}", change))
        return found

    def _gradient(self) -> Tensor:
        serial = next(s for s, name in self.named.items() if name == "g")
        return next(t for t in self.observation.record.totals.values() if t.serial == serial)

    def _step(self) -> Tensor | None:
        """What is added to the weight."""
        new = _seen_through(self.target)
        if new.primitive.name == "add" and len(new.inputs) == 2:
            first, second = map(_seen_through, new.inputs)
            if self.named.get(first.serial) == "w":
                return second
        return None

    def _corrected(self, step: Tensor) -> list[Tensor]:
        """Products of a new state of the parameter's shape with a number that depends on the step count alone."""
        found = {}
        for x in _below(step, set(self.named)):
            if x.primitive.name in ("mul", "div") and len(x.inputs) == 2:
                first, second = map(_seen_through, x.inputs)
                for state, factor in ((first, second), (second, first)):
                    if state.serial in self.results and x.shape == state.shape and self._follows_the_clock(factor):
                        found[x.serial] = x
        return [found[serial] for serial in sorted(found)]

    def _follows_the_clock(self, factor: Tensor) -> bool:
        """Whether it is a number that depends on the step count, and on nothing else."""
        names = {self.named[x.serial] for x in _below(factor, set()) if x.serial in self.named}
        return names == {"t"}

    def _reaches(self, serial: int) -> bool:
        return self._tensor(serial).shape == self.target.shape

    def _tensor(self, serial: int) -> Tensor:
        path = next(p for p, _ in self.slots if _seen_through(self.new[p]).serial == serial)
        return _seen_through(self.new[path])

    def _write(self, x: Tensor, tightness: int, top: bool = True) -> str:
        """An expression; in parentheses where what stands around it binds as tightly."""
        x = _seen_through(x)
        if not top and x.serial in self.named or x.serial in self.named and not x.inputs:
            return self.named[x.serial]
        if x.value is not None:
            return _number(x.value) if x.value.size == 1 or _uniform(x.value) else "…"
        name, inputs = x.primitive.name, list(x.inputs)
        if name in ("broadcast", "reshape", "cast", "copy"):
            if x.serial in self.named:
                return self.named[x.serial]
            return self._write(inputs[0], tightness, False)
        if name in INFIX:
            level = 1 if name in ("add", "sub") else TIGHT
            second = level + 1 if name in ("sub", "div") else level
            parts = self._write(inputs[0], level, False), self._write(inputs[1], second, False)
            if name == "mul" and parts[0] == parts[1]:
                return f"{parts[0]}²"
            text = f"{parts[0]} {INFIX[name]} {parts[1]}"
            return f"({text})" if level < tightness else text
        if name == "neg":
            return f"−{self._write(inputs[0], 3, False)}"
        if name == "sqrt":
            return f"√{self._write(inputs[0], 3, False)}"
        if name in ("power", "pow"):
            return f"{self._write(inputs[0], 3, False)}^{self._write(inputs[1], 3, False)}"
        if not inputs:
            return name
        return f"{name}({', '.join(self._write(i, 0, False) for i in inputs)})"


def _seen_through(x: Tensor) -> Tensor:
    """What stands behind nodes that only matter to derivatives."""
    while x.value is None and x.inputs and (x.primitive in TRANSPARENT or x.primitive is ALIAS):
        x = x.inputs[0]
    return x


def _below(x: Tensor, ends: set[int]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    stack = [x]
    while stack:
        t = _seen_through(stack.pop())
        if t.serial not in found and t.serial not in ends:
            found[t.serial] = t
            stack.extend(t.inputs)
    return list(found.values())


def _uniform(value: Array) -> bool:
    return bool(value.size) and not any(value.strides)


def _number(value: Array) -> str:
    return str(value.reshape(-1)[0]).removesuffix(".0").replace("-", "−")
