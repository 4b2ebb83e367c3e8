"""What tells one compilation from another: the Program, the versions of all that makes the code, and the processor."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import chainrule.version
from chainrule.control import LOOPS
from chainrule.engines.native import cache as disk
from chainrule.engines.native import jit
from chainrule.engines.native.host import Host
from chainrule.passes.copies import copy
from chainrule.passes.fma import FUSED
from chainrule.primitives import ALL
from chainrule.program.program import CONSTANT, INPUT, Program

SOURCES = (
    "control",
    "engines",
    "passes",
    "primitives",
    "program",
)  # the parts of this package that decide what code comes out
KNOWN = {*ALL.values(), *LOOPS, *FUSED, copy, INPUT, CONSTANT}


def key_of(program: Program, held: tuple[int, ...], host: Host, *options: str) -> str | None:
    """The key of a Program; None where it has operations that are not ours, whose meaning no name tells."""
    if not _known(program):
        return None
    text = repr((_structure(program), held))
    return disk.digest("program", text, chainrule.version.__version__, _sources(), jit.version(), repr(host), *options)


def _known(program: Program) -> bool:
    bodies = [x for node in program.nodes for x in node.attributes.values() if isinstance(x, Program)]
    return all(node.primitive in KNOWN for node in program.nodes) and all(map(_known, bodies))


def _structure(program: Program) -> Any:
    nodes = [
        (n.primitive.name, n.inputs, _plain(n.attributes), n.shape, n.dtype.str, str(n.location or ""))
        for n in program.nodes
    ]
    return nodes, program.inputs, [(out.node, out.updates, out.observed) for out in program.outputs]


def _plain(attributes: dict[str, Any]) -> Any:
    """Attributes by value; of an array of several elements only its type, since the code does not hold its values."""
    return [(name, _value(v)) for name, v in attributes.items()]


def _value(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.shape, x.dtype.str, x.tobytes() if x.size == 1 else b""
    return _structure(x) if isinstance(x, Program) else x


@cache
def _sources() -> str:
    """A digest that changes when the source of the engine does."""
    root = Path(chainrule.version.__file__).parent
    files = [path for part in SOURCES for path in sorted((root / part).rglob("*.py"))]
    return disk.digest(*[f"{path.relative_to(root)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files])
