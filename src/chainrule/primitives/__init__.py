"""All primitives, a file a family. `ALL` lists them for engines, tests and docs."""

from chainrule.core import autodiff
from chainrule.core.primitive import Primitive
from chainrule.primitives import contract, convolve, elementwise, index, indexing, layout, operators, reduce, window

FAMILIES = (elementwise, layout, reduce, contract, convolve, index, window)
ALL: dict[str, Primitive] = {
    p.name: p for family in FAMILIES for p in vars(family).values() if isinstance(p, Primitive)
}

__all__ = [
    "ALL",
    "FAMILIES",
    "autodiff",
    "contract",
    "convolve",
    "elementwise",
    "index",
    "indexing",
    "layout",
    "operators",
    "reduce",
    "window",
]
