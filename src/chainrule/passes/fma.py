"""a · b + c with one rounding, where nobody else reads a · b.

Decided here, on the Program, and never by an engine: so a value has the same bits whoever else looks at it.
"""

from typing import Any

from chainrule import dtypes
from chainrule.primitives import elementwise as e
from chainrule.program.program import Builder, Node, Program, rewrite


def _product_plus(m: Any, a: Any, b: Any, c: Any) -> Any:
    return m.fma(a, b, c)


def _product_minus(m: Any, a: Any, b: Any, c: Any) -> Any:
    return m.fma(a, b, -c)


def _minus_product(m: Any, a: Any, b: Any, c: Any) -> Any:
    return m.fma(-a, b, c)


fma = e.elementwise("fma", _product_plus)
fms = e.elementwise("fms", _product_minus)
fnma = e.elementwise("fnma", _minus_product)
FUSED = (fma, fms, fnma)


def fuse_multiply_add(program: Program) -> Program:
    """Form fma (a · b + c), fms (a · b − c) and fnma (c − a · b) in float32 and float64."""
    readers = program.readers()
    single = [i for i, node in enumerate(program.nodes) if node.primitive is e.mul and readers[i] == 1]
    numbers = {id(program.nodes[i]) for i in single}
    originals = iter(program.nodes)
    products: set[int] = set()

    def rule(builder: Builder, node: Node) -> int | None:
        original = next(originals)
        if id(original) in numbers:
            products.add(len(builder.nodes))
        if node.primitive not in (e.add, e.sub) or node.dtype not in (dtypes.float32, dtypes.float64):
            return None
        for side in (1, 0):  # the second operand first: whichever, but always the same
            x = node.inputs[side]
            if x in products and builder.nodes[x].primitive is e.mul:
                a, b = builder.nodes[x].inputs
                other = node.inputs[1 - side]
                kind = fma if node.primitive is e.add else fnma if side == 1 else fms
                return builder.make(kind, a, b, other, like=node)
        return None

    return rewrite(program, rule)
