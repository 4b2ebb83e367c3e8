"""What products that are added have in common is multiplied once: a · g + b · g = (a + b) · g.

An activation that is itself a product, x · Φ(x) for GELU, x · σ(x) for SiLU, has a derivative of two terms, and the
error g comes along both. Taken out of them, it leaves a + b, which depends on the forward pass alone and is computed
there: one value is stored for the way back in place of three or four.

Only where g has more products, reductions and lookups above it than all else, and nobody else reads the terms.
"""

from chainrule import dtypes
from chainrule.passes.factors import factors_of, product_of
from chainrule.primitives import elementwise as e
from chainrule.program.program import Builder, Node, Program, rewrite

DEEPER = ("contract", "reduce", "index", "scan", "window", "control")


def cofactors(program: Program) -> Program:
    """Take the error out of sums of two products."""
    readers, originals = program.readers(), iter(range(len(program.nodes)))
    finder = _Finder()

    def rule(builder: Builder, node: Node) -> int | None:
        n = next(originals)
        found = finder.taken_out(builder, node) if node.primitive is e.add else None
        new = builder.add(node) if found is None else found
        finder.readers[new] = readers[n]
        return new

    return rewrite(program, rule)


class _Finder:
    def __init__(self) -> None:
        self.readers: dict[int, int] = {}  # of each node: how many others
        self.depth: list[int] = []  # what is above a node

    def taken_out(self, builder: Builder, node: Node) -> int | None:
        """A sum of two products with the error taken out."""
        if node.dtype not in (dtypes.float32, dtypes.float64) or node.size == 1:
            return None
        one, two = (factors_of(builder, x, self._read_once) for x in node.inputs)
        common = set(one) & set(two)
        if not common or len(one) == 1 or len(two) == 1:
            return None
        self._extend(builder)
        error = max(common, key=lambda x: (self.depth[x], x))
        one.remove(error)
        two.remove(error)
        if any(self.depth[x] >= self.depth[error] for x in one + two):
            return None
        self.readers[error] -= 1
        rest = builder.make(e.add, *[product_of(builder, part, node) for part in (one, two)], like=node)
        return builder.make(e.mul, rest, error, like=node)

    def _read_once(self, x: int) -> bool:
        return self.readers.get(x) == 1

    def _extend(self, builder: Builder) -> None:
        for node in builder.nodes[len(self.depth) :]:
            above = max([self.depth[x] for x in node.inputs], default=0)
            self.depth.append(above + (node.primitive.kind in DEEPER))
