"""What an optimiser makes of a gradient: its state before and after, and the chain of formulas down to Δw.

The formulas are read off the traced step, so they are what was computed, whatever the optimiser: each value that is
used twice, each new state and the change of the weight get a line, in terms of those before.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from chainrule.core.autodiff import ALIAS
from chainrule.core.tensor import SYMBOL, Tensor
from chainrule.observe import Observation
from chainrule.program.build import TRANSPARENT

Array = np.ndarray
INFIX = {"add": "+", "sub": "−", "mul": "·", "div": "/"}
SYMBOLS = {
    "mean": "m", "square": "v", "trace": "b", "norm": "n", "largest": "v̄", "step": "t", "sum": "s", "delta": "d",
    "product": "p",
}  # fmt: skip
SHORT = {"maximum": "max", "minimum": "min"}
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
    """The update of one parameter: Δw, the optimiser's state, the chain of terms.

    symbols  what the formulas begin from, by symbol: w, lr, m, t, ...
    """

    change: Array
    slots: list[Slot] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    symbols: dict[str, Array] = field(default_factory=dict)


def update_of(observation: Observation, parameter: str, gradient: Tensor, owner: str = "optimizer") -> Update | None:
    """The update of the parameter with this path among the arguments; None where the step left it alone."""
    after = observation.after.get(parameter)
    if after is None:
        return None
    before = observation.before[parameter]
    name = parameter.partition(".")[2]
    slots = _slots(observation, name, owner)
    writer = Writer(observation, gradient, parameter, slots)
    update = Update(_difference(after, before))
    update.slots = [Slot(slot, observation.before[path], observation.after[path]) for path, slot in slots]
    update.terms = writer.terms(update.change)
    update.symbols = writer.used
    return update


def _slots(observation: Observation, name: str, owner: str) -> list[tuple[str, str]]:
    """Path and name of each tensor of the state that belongs to the parameter of this name.

    The name of one parameter may end as another is called: 'inner.0.weight' and '0.weight'. The longest counts.
    """
    others = [path.partition(".")[2] for path in observation.before if path.endswith(f".{name}")]
    longer = [f".{other}" for other in others if other.endswith(f".{name}") and f"model.{other}" in observation.before]
    return [
        (path, path.removesuffix(f".{name}").rpartition(".")[2])
        for path in observation.before
        if path.startswith(f"{owner}.state.") and path in observation.after
        if path.endswith(f".{name}") and not path.endswith(tuple(longer))
    ]


def _difference(after: Array, before: Array) -> Array:
    kind = np.float64 if after.dtype == np.float64 else np.float32
    return after.astype(kind) - before.astype(kind)


class Writer:
    """Writes the formulas of one update."""

    def __init__(
        self, observation: Observation, gradient: Tensor, parameter: str, slots: list[tuple[str, str]]
    ) -> None:
        self.observation = observation
        self.new = {leaf.path: leaf.value for leaf in observation.traced.after.leaves}
        self.named: dict[int, str] = {observation.symbols[parameter].serial: "w", gradient.serial: "g"}
        self.target = self.new[parameter]
        self.slots = slots
        self.results: dict[int, tuple[str, str]] = {}
        self.used: dict[str, Array] = {}
        self._foreign: dict[int, bool] = {}
        for path, slot in slots:
            short = SYMBOLS.get(slot, slot)
            self.named[observation.symbols[path].serial] = short
            new = _seen_through(self.new[path])
            if new.primitive.kind != "source" and new.serial not in self.named:
                self.results[new.serial] = (slot, f"{short}′")
        for path, symbol in observation.symbols.items():
            if path.startswith("optimizer.rates."):
                self.named[symbol.serial] = "lr"
            elif path.startswith("optimizer.state.") and path.rpartition(".")[2] == "step":
                self.named[symbol.serial] = "t"

    def terms(self, change: Array) -> list[Term]:
        """The gradient, each new state, what they are scaled to, and Δw: in the order of computation."""
        found = [Term("gradient", "g", "∂loss/∂w", self.observation.value(self._gradient()))]
        step = self._step()
        found += self._shared(_seen_through(self.target) if step is None else step)
        for serial in sorted([s for s in self.results if self._reaches(s)]):
            slot, symbol = self.results[serial]
            found.append(self._line(f"new {slot}", symbol, self._tensor(serial)))
        if step is None:
            formula = f"w′ = {self._write(_seen_through(self.target), 0)}"
            return [*found, Term("update", "Δw", formula, change)]
        rate = self._rate(step)
        if rate is not None:
            found.append(self._line("learning rate", "lr", rate))
        for tensor in self._corrected(step):
            inner = next(i for i in map(_seen_through, tensor.inputs) if i.serial in self.results)
            slot, symbol = self.results[inner.serial]
            found.append(self._line(f"bias-corrected {slot}", f"{symbol[0]}\u0302", tensor))
        return [*found, Term("update", "Δw", f"Δw = {self._write(step, 0)}", change)]

    def _line(self, name: str, symbol: str, tensor: Tensor) -> Term:
        """A line for a tensor, which has the symbol in those that follow."""
        formula = self._write(tensor, 0)
        self.named[tensor.serial] = symbol
        return Term(name, symbol, f"{symbol} = {formula}", self.observation.value(tensor))

    def _shared(self, step: Tensor) -> list[Term]:
        """Numbers that are made of more than this parameter: the factor by which all gradients are clipped."""
        tops: dict[int, Tensor] = {}
        for x in [step, *map(self._tensor, self.results)]:
            tops |= {t.serial: t for t in self._tops(x)}
        found = []
        for serial in sorted(tops):
            top = tops[serial]
            norms = [x for x in _below(top, set(self.named)) if x.primitive.name == "sqrt" and self._is_foreign(x)]
            if len(norms) == 1:
                self.named[norms[0].serial] = "‖g‖"
                value = self.observation.value(norms[0])
                found.append(Term("norm of all gradients", "‖g‖", "‖g‖ = √Σ g² over all parameters", value))
                found.append(self._line("clipping", "c", top))
            else:
                symbol = f"k{len(found) or ''}"
                self.named[serial] = symbol
                value = self.observation.value(top)
                found.append(Term("scale", symbol, f"{symbol} = a number made of all gradients", value))
        return found

    def _tops(self, x: Tensor) -> list[Tensor]:
        """Single numbers in the making of `x` that depend on other parameters, nearest to `x`."""
        found, seen, stack = [], set(), [x]
        while stack:
            t = _seen_through(stack.pop())
            if t.serial in seen or t.serial in self.named or not self._is_foreign(t):
                continue
            seen.add(t.serial)
            if (t.size == 1 and self.target.size != 1) or not t.inputs:
                found.append(t)
            else:
                stack.extend(t.inputs)
        return found

    def _is_foreign(self, x: Tensor) -> bool:
        """Whether it is made of tensors that have no symbol here: of other parameters, or of the data."""
        stack = [_seen_through(x)]
        while stack:
            t = stack[-1]
            inputs = [] if t.serial in self.named or t.value is not None else [_seen_through(i) for i in t.inputs]
            missing = [i for i in inputs if i.serial not in self._foreign]
            if missing and t.serial not in self._foreign:
                stack += missing
                continue
            stack.pop()
            without = t.primitive is SYMBOL and t.serial not in self.named
            self._foreign.setdefault(t.serial, without or any(self._foreign[i.serial] for i in inputs))
        return self._foreign[_seen_through(x).serial]

    def _rate(self, step: Tensor) -> Tensor | None:
        """The learning rate, where a schedule makes it of the step count: the factor of all of Δw."""
        if step.primitive.name != "mul":
            return None
        for x in map(_seen_through, step.inputs):
            while x.primitive.name in ("neg", "broadcast", "reshape", "cast"):
                x = _seen_through(x.inputs[0])
            if x.size == 1 and x.inputs and self._follows_the_clock(x):
                return x
        return None

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
                    if state.serial not in self.results or not x.shape == state.shape == self.target.shape:
                        continue
                    if self._follows_the_clock(factor) and factor.serial not in self.named:
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
        if x.serial in self.named and (not top or not x.inputs):
            if x.primitive is SYMBOL:
                self.used[self.named[x.serial]] = self.observation.value(x)
            return self.named[x.serial]
        if x.value is not None:
            return _number(x.value) if x.value.size == 1 or _uniform(x.value) else "…"
        name, inputs = x.primitive.name, list(x.inputs)
        if name in ("broadcast", "reshape", "cast", "copy"):
            return self._write(inputs[0], tightness, False)
        if name == "mul" and _seen_through(inputs[0]).serial == _seen_through(inputs[1]).serial:
            return f"{self._base(inputs[0])}²"
        if name in INFIX:
            level = 1 if name in ("add", "sub") else TIGHT
            second = level + 1 if name in ("sub", "div") else level
            parts = self._write(inputs[0], level, False), self._write(inputs[1], second, False)
            text = f"{parts[0]} {INFIX[name]} {parts[1]}"
            return f"({text})" if level < tightness else text
        if name == "neg":
            return f"−{self._write(inputs[0], 3, False)}"
        if name == "sqrt":
            return f"√{self._write(inputs[0], 3, False)}"
        if name in ("power", "pow"):
            return f"{self._base(inputs[0])}^{self._write(inputs[1], 3, False)}"
        if name == "abs":
            return f"|{self._write(inputs[0], 0, False)}|"
        if not inputs:
            return name
        return f"{SHORT.get(name, name)}({', '.join(self._write(i, 0, False) for i in inputs)})"

    def _base(self, x: Tensor) -> str:
        """What is raised to a power."""
        text = self._write(x, 3, False)
        return f"({text})" if text.startswith(("√", "−")) else text


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
