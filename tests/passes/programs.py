"""Small Programs for the tests of passes, and a look at what became of them."""

import numpy as np

from chainrule.compile import trace_program
from chainrule.core.tensor import tensor
from chainrule.engines.native.lowering import lower
from chainrule.engines.reference import ReferenceEngine
from chainrule.passes.grouping import Grouping

RNG = np.random.default_rng(0)


def real(*shape, dtype="float32"):
    return tensor(RNG.normal(size=shape), dtype=dtype)


def traced(f, *inputs):
    return trace_program(f, *inputs)


def names(program):
    """The primitives of the computed nodes, in order."""
    return [node.primitive.name for node in program.nodes if node.primitive.kind != "source"]


def kernels(f, *inputs):
    """The kernels of a function: kind, sizes and the names of the nodes in each."""
    grouping = Grouping(lower(traced(f, *inputs)))
    return [
        (k.kind, k.sizes, [grouping.nodes[n].primitive.name for n in k.nodes], len(k.outputs)) for k in grouping.kernels
    ]


def run(program, *inputs):
    return ReferenceEngine().compile(program)([np.asarray(x.value, order="C") for x in inputs])


def assert_keeps(rewrite, f, *inputs, exact=True):
    """A pass changes no value; the rewritten Program."""
    program = traced(f, *inputs)
    after = rewrite(program)
    for a, b in zip(run(after, *inputs), run(program, *inputs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if exact:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-5, atol=1e-6)
    return after
