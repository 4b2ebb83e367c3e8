"""All primitives, a file a family. `ALL` lists them for engines, tests and docs."""

from chainrule.core import autodiff
from chainrule.core.primitive import Primitive
from chainrule.primitives import contract, elementwise, index, indexing, layout, operators, reduce

FAMILIES = (elementwise, layout, reduce, contract, index)
ALL: dict[str, Primitive] = {
    p.name: p for family in FAMILIES for p in vars(family).values() if isinstance(p, Primitive)
}

__all__ = [
    "ALL",
    "FAMILIES",
    "autodiff",
    "contract",
    "elementwise",
    "index",
    "indexing",
    "layout",
    "operators",
    "reduce",
]
