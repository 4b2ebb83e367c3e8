"""A Program as text: stable, so that it can be compared, and readable, so that it can teach.

    program step
      in-out  model.0.weight f32[10, 64]
      input   x f32[32, 64]
    forward
      %3  f32[32, 10]  = matmul(x, model.0.weight.T)       0 Linear  train.py:14
    backward
      %9  f32[32, 10]  = sub(%8, %7)                                             of %3
    update
      %12 f32[10, 64]  = sub(model.0.weight, %11)
    out
      loss = %8
      model.0.weight ← %12

Constants, and layout operations with one reader on an input or a constant, are written where they are read. The body of
a loop stands, indented, below its node.
"""

import os
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.primitive import Shape
from chainrule.program.program import CONSTANT, INPUT, Node, Part, Program

PARTS: tuple[Part, ...] = ("forward", "backward", "update")


def type_text(shape: Shape, dtype: dtypes.DType) -> str:
    """`f32[32, 10]`."""
    return f"{dtypes.SHORT[dtype]}{list(shape)}"


def text(program: Program, locations: bool = True) -> str:
    """The text form; without `locations` it does not depend on where the traced source stands."""
    lines = [f"program {program.name}"]
    updated = {out.updates for out in program.outputs}
    for i in program.inputs:
        node = program.nodes[i]
        lines.append(f"  {'in-out' if i in updated else 'input '}  {node.name} {type_text(node.shape, node.dtype)}")
    inlined = _inlined(program)
    width = len(str(len(program.nodes))) + 1
    for part in PARTS:
        rows = []
        for i, node in enumerate(program.nodes):
            if node.part == part and node.primitive is not INPUT and i not in inlined:
                typed = f"{'%' + str(i):<{width}} {type_text(node.shape, node.dtype):<14}"
                left = f"  {typed} = {_call(program, i, inlined)}"
                note = _note(node, program, inlined) if locations else _of(node, program, inlined)
                rows.append((left, note, _bodies(node, locations)))
        if rows:
            lines.append(part)
            column = min(max(len(left) for left, _, _ in rows), 100)
            for left, note, below in rows:
                lines.extend([f"{left:<{column}}  {note}".rstrip(), *below])
    lines.append("out")
    for out in program.outputs:
        arrow = "=" if out.updates is None else "←"
        lines.append(f"  {out.name} {arrow} {_reference(program, out.node, inlined)}")
    return "\n".join(lines) + "\n"


def _bodies(node: Node, locations: bool) -> list[str]:
    """The Programs among the attributes of a node, indented."""
    bodies = [x for x in node.attributes.values() if isinstance(x, Program)]
    return [f"      {line}".rstrip() for body in bodies for line in text(body, locations).splitlines()]


def _inlined(program: Program) -> set[int]:
    """Nodes written where they are read: small constants, and single-reader layout on inputs and constants."""
    readers = program.readers()
    found: set[int] = set()
    for i, node in enumerate(program.nodes):
        if node.primitive is CONSTANT:
            if node.size == 1:
                found.add(i)
        elif node.primitive.kind != "layout" or len(node.inputs) != 1:
            continue
        elif readers[i] == 1 or _of_constant(program, i):
            source = program.nodes[node.inputs[0]]
            if source.primitive is INPUT or node.inputs[0] in found:
                found.add(i)
    return found - {out.node for out in program.outputs}


def _of_constant(program: Program, i: int) -> bool:
    return program.nodes[program.nodes[i].inputs[0]].primitive is CONSTANT


def _reference(program: Program, i: int, inlined: set[int]) -> str:
    node = program.nodes[i]
    if node.primitive is INPUT:
        return node.name
    if i not in inlined:
        return f"%{i}"
    if node.primitive is CONSTANT:
        return _value(node.attributes["value"].reshape(()))
    source = program.nodes[node.inputs[0]]
    if node.primitive.name == "broadcast" and source.primitive is CONSTANT and node.inputs[0] in inlined:
        return _value(source.attributes["value"].reshape(()))
    if node.primitive.name == "broadcast":
        return f"broadcast({_reference(program, node.inputs[0], inlined)})"
    return _call(program, i, inlined)


def _call(program: Program, i: int, inlined: set[int]) -> str:
    node = program.nodes[i]
    if node.primitive is CONSTANT:
        return f"constant({_digest(node.attributes['value'])})"
    operands = [_reference(program, x, inlined) for x in node.inputs]
    if node.primitive.name == "transpose" and node.ndim == 2:
        return f"{operands[0]}.T"
    attributes = [f"{k}={_attribute(v)}" for k, v in node.attributes.items() if k not in ("shape",) or not operands]
    if node.primitive.name in ("reshape", "broadcast"):
        attributes = [str(list(node.shape))]
    return f"{node.primitive.name}({', '.join(operands + attributes)})"


def _attribute(value: Any) -> str:
    if isinstance(value, Program):
        return value.name
    return dtypes.SHORT[value] if isinstance(value, np.dtype) else repr(value)


def _value(value: np.ndarray) -> str:
    return str(value[()])


def _digest(value: np.ndarray) -> str:
    flat = [str(v) for v in value.reshape(-1)[:4]]
    return "[" + ", ".join(flat) + (", …]" if value.size > 4 else "]")


def _of(node: Node, program: Program, inlined: set[int]) -> str:
    if node.of is None or program.nodes[node.of].primitive is INPUT:
        return ""
    return f"of {_reference(program, node.of, inlined)}"


def _note(node: Node, program: Program, inlined: set[int]) -> str:
    where = ""
    if node.location and node.location.file:
        layer = f"{node.location.module} {node.location.layer}".strip()
        where = f"{layer + '  ' if layer else ''}{os.path.basename(node.location.file)}:{node.location.line}"
    return "  ".join(part for part in (_of(node, program, inlined), where) if part)


Program.__str__ = text  # type: ignore[method-assign, assignment]  # print(program); it cannot import its own printer
