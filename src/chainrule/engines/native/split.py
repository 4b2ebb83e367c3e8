"""What the engine cannot lower splits the step there: native code before and after it, the reference in between."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from chainrule import dtypes
from chainrule.control import LOOPS
from chainrule.core.primitive import Primitive
from chainrule.engines.base import Executable
from chainrule.engines.native.host import Host, detect
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.singles import SingleWriter
from chainrule.engines.native.values import Value, Vectors
from chainrule.engines.reference import ReferenceExecutable
from chainrule.passes.grouping import REDUCTIONS
from chainrule.primitives import contract
from chainrule.primitives.convolve import convolve
from chainrule.program.program import CONSTANT, INPUT, Builder, Node, Output, Program

LAYOUT = ("reshape", "transpose", "broadcast", "slice", "pad", "concat")


def lowered(program: Program, n: int) -> bool:
    """Whether the engine has code for a node."""
    node = program.nodes[n]
    kind, name = node.primitive.kind, node.primitive.name
    if kind == "source" or node.primitive in (contract.matmul, convolve):
        return True
    if node.primitive in LOOPS:
        body: Program = node.attributes["body"]
        known = all(lowered(body, i) for i in range(len(body.nodes)))
        return known and not any(x.primitive is CONSTANT and x.size > 1 for x in body.nodes)
    if kind == "elementwise":
        given = tuple(program.nodes[x].dtype for x in node.inputs)
        return _has_meaning(node.primitive, given, tuple(sorted(node.attributes.items())), detect())
    return kind == "window" or name in REDUCTIONS or name in LAYOUT or hasattr(SingleWriter, f"_{name}")


@cache
def _has_meaning(primitive: Primitive, given: tuple[dtypes.DType, ...], attributes: tuple, host: Host) -> bool:
    """Whether the declared meaning can be written with what the engine's vectors offer."""
    f = Function(Module(), "trial", ())
    m = Vectors(f, host.lanes(4), host, lambda condition, code, value=None: None)
    wide = [dtypes.float32 if d in dtypes.HALVES else d for d in given]
    operands = [Value(m, f"%x{k}", d) for k, d in enumerate(wide)]
    try:
        return isinstance(primitive.meaning(m, *operands, **dict(attributes)), Value)
    except (AttributeError, TypeError, KeyError, NotImplementedError):
        return False


class SplitExecutable:
    """A Program in several parts, each run by the engine that can."""

    def __init__(self, program: Program, compile_part: Callable[[Program], Executable]) -> None:
        self.program = program
        self.foreign = [n for n in range(len(program.nodes)) if not lowered(program, n)]
        self.parts: list[tuple[Executable, tuple[int, ...], tuple[int, ...]]] = []
        stage = self._stages()
        for number in sorted({s for n, s in enumerate(stage) if program.nodes[n].primitive is not INPUT}):
            part, given, made = _part(program, stage, number)
            if made:
                native = number % 2 == 0
                self.parts.append((compile_part(part) if native else ReferenceExecutable(part), given, made))

    def _stages(self) -> list[int]:
        """Even stages are native, odd ones are not; each reads what earlier ones made."""
        stage: list[int] = []
        foreign = set(self.foreign)
        for n, node in enumerate(self.program.nodes):
            latest = max([stage[x] for x in node.inputs], default=0)
            stage.append(latest + (latest % 2 != (n in foreign)))
        return stage

    def open(self) -> None:
        """No session: between the parts everything is in Python."""
        return

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the parts one after the other."""
        values: dict[int, np.ndarray] = dict(zip(self.program.inputs, inputs, strict=True))
        for executable, given, made in self.parts:
            values.update(zip(made, executable([values[n] for n in given]), strict=True))
        return [values[out.node] for out in self.program.outputs]

    def explain(self) -> str:
        """Which nodes are run by the reference engine, and the plans of the parts."""
        nodes = self.program.nodes
        lines = [f"%{n} {nodes[n].primitive.name} {_where(nodes[n])}".rstrip() for n in self.foreign]
        plans = [part.explain() for part, _, _ in self.parts if hasattr(part, "explain")]
        return "\n\n".join(
            ["run by the reference engine, since there is no native code:\n  " + "\n  ".join(lines), *plans]
        )


def _part(program: Program, stage: list[int], number: int) -> tuple[Program, tuple[int, ...], tuple[int, ...]]:
    """The nodes of a stage as a Program of their own; which values it is given, and which it makes for others."""
    wanted = {out.node for out in program.outputs}
    wanted |= {x for n, node in enumerate(program.nodes) if stage[n] != number for x in node.inputs}
    builder, new = Builder(), {}
    given: list[int] = []
    for n, node in enumerate(program.nodes):
        if stage[n] != number or node.primitive is INPUT:
            continue
        for x in node.inputs:
            if x not in new:
                given.append(x)
                new[x] = builder.add(_input(program.nodes[x], f"%{x}"))
        inputs = tuple([new[x] for x in node.inputs])
        new[n] = builder.add(node.moved(inputs, None))
    made = [n for n in sorted(wanted) if stage[n] == number and program.nodes[n].primitive is not INPUT]
    outputs = tuple([Output(f"%{n}", new[n]) for n in made])
    inputs = tuple([new[x] for x in given])
    return Program(program.name, tuple(builder.nodes), inputs, outputs), tuple(given), tuple(made)


def _where(node: Node) -> str:
    return f"{node.location.file}:{node.location.line}" if node.location is not None else ""


def _input(node: Node, name: str) -> Node:
    return Node(
        INPUT, (), {"name": name, "shape": node.shape, "dtype": node.dtype}, node.shape, node.dtype, node.location
    )
