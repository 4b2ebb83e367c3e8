"""Random Programs in machine code: their values, derivatives and new states, and the same bits on any threads.

Beside the recipes of tests/program there are exact ones: whole numbers so small that nothing rounds. They may use what
jumps (comparisons, positions of extremes, rounding), and have to agree to the last bit in whatever order sums are made.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
from tests.engines.native.kernels import runnable
from tests.engines.native.suite import GUARDED, Again, SuiteEngine, assert_close, bits, leaves, native, on_threads
from tests.program.test_random_programs import SHAPES, Recipe, differentiated, flat

from chainrule import dtypes
from chainrule.compile import trace_program
from chainrule.core.tensor import full, wrap
from chainrule.engines.reference import ReferenceEngine
from chainrule.program.program import Output, verify

EXACT = ["add", "sub", "mul", "neg", "abs", "sign", "maximum", "minimum", "equal", "less", "less_equal", "where",
         "cast", "and", "or", "xor", "not", "shift_left", "shift_right", "floor", "ceil", "round", "mod", "floordiv",
         "reshape", "transpose", "broadcast", "slice", "pad", "concat", "sum", "max", "min", "any", "all", "prod",
         "argmax", "argmin", "matmul", "take", "scatter_add", "cumsum", "iota", "argsort", "random_bits"]  # fmt: skip
WIDER = [*SHAPES, (16,), (15,), (33, 5), (64, 3), (2, 70), (31, 32), (5, 17)]
LIMIT = {dtypes.float16: 1000, dtypes.bfloat16: 100}  # whole numbers up to here are exact, with room for an operation
LARGEST = 4000
THREADS = () if GUARDED else (2, 3, 4, 7)
BOUND = {dtypes.float32: 1e-4, dtypes.float64: 1e-10}


class Exact(Recipe):
    """A recipe in which no operation rounds."""

    names = EXACT
    largest = LARGEST

    def array(self):
        shape = self.pick(WIDER)
        dtype = self.pick([dtypes.float32] * 4 + [dtypes.float64] * 2 + list(dtypes.ALL))
        if dtype == dtypes.bool_:
            return np.asarray(self.rng.random(shape) < 0.5)
        return np.asarray(self.rng.integers(0 if dtype.kind == "u" else -3, 4, shape)).astype(dtype)

    def constant(self, shape, dtype):
        if self.rng.random() < 0.5:
            return full(shape, self.pick([0, 1]) if dtype == dtypes.bool_ else self.pick([0, 1, 1, 2]), dtype)
        return wrap(np.asarray(self.rng.integers(0, 2, shape), dtype))

    def takes(self, name, xs, y):
        """Whether the result, and all partial sums and products on the way to it, are exact."""
        if not dtypes.is_float(y.dtype):
            return True
        size = np.abs(np.asarray(y).astype(np.float64))
        if not (size <= LIMIT.get(y.dtype, 2**18)).all():
            return False
        parts = [np.abs(np.asarray(x).astype(np.float64)) for x in xs]
        if name == "matmul":
            return (parts[0] @ parts[1]).max(initial=0) < 2**18
        if name == "prod":
            with np.errstate(all="ignore"):
                return bool(parts[0].clip(1).prod() < 2**20)
        return name not in ("sum", "cumsum", "scatter_add") or sum(part.sum() for part in parts) < 2**18


def agree(found, expected, exact=False, bound=None):
    for x, y in zip(leaves(found), leaves(expected), strict=True):
        if exact:
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            np.testing.assert_array_equal(x, y)
        else:
            assert_close(x, y, bound or BOUND.get(y.dtype))


def same_bits_on_threads(compiled, inputs):
    expected = bits(compiled(*inputs))
    for threads in THREADS:
        other = on_threads(compiled, threads)
        assert all(bits(other(*inputs)) == expected for _ in range(3)), threads


@pytest.mark.parametrize("seed", range(50))
def test_exact_programs_give_the_bits_of_the_reference(seed):
    recipe = Exact(seed, 5 + seed % 36)
    compiled = native(recipe.results)
    agree(compiled(*recipe.inputs), recipe.results(*recipe.inputs), exact=True)
    same_bits_on_threads(compiled, recipe.inputs)


@pytest.mark.parametrize("seed", range(50))
def test_smooth_programs_and_their_derivatives_agree(seed):
    recipe = Recipe(seed, 5 + seed % 16, smooth=True)
    compiled = native(recipe.results)
    agree(compiled(*recipe.inputs), recipe.results(*recipe.inputs))
    derivative = differentiated(recipe)
    if derivative is not None:
        compiled = native(lambda *inputs: [x for x in flat(derivative(*inputs)) if x is not None])
        agree(compiled(*recipe.inputs), [x for x in flat(derivative(*recipe.inputs)) if x is not None], bound=1e-3)
    same_bits_on_threads(compiled, recipe.inputs)


# -- state


class Lasting(Exact):
    """One whose steps can be repeated on other numbers: nothing is divided."""

    names = [name for name in EXACT if name not in ("mod", "floordiv")]  # noqa: RUF012


def stateful(recipe):
    """A Program in which some values become the next values of inputs, and the positions of the held inputs."""
    program = trace_program(recipe.results, *recipe.inputs)
    updates = []
    for i in program.inputs:
        type_of = (program.nodes[i].shape, program.nodes[i].dtype)
        made = [k for k, node in enumerate(program.nodes) if node.inputs and (node.shape, node.dtype) == type_of]
        if made and recipe.rng.random() < 0.8:
            updates.append(Output(f"new {i}", made[-1] if recipe.rng.random() < 0.6 else recipe.pick(made), i))
    program = verify(replace(program, outputs=program.outputs + tuple(updates)))
    updated = {out.updates for out in updates}
    held = [k for k, i in enumerate(program.inputs) if i in updated or recipe.rng.random() < 0.5]
    return program, tuple(held)


def steps(session, program, arrays, held):
    """What two steps give, and the state after each; the passed inputs stay as they are."""
    session.load([arrays[k] for k in held])
    for _ in range(2):
        results, state = (
            iter(x) for x in (session.step([a for k, a in enumerate(arrays) if k not in held]), session.fetch())
        )
        yield [next(results) if out.updates is None else next(state) for out in program.outputs]


def small(arrays):
    """Whether another step is exact too."""
    return all(np.abs(np.asarray(a).astype(np.float64)).max(initial=0) < 8 for a in arrays)


@pytest.mark.parametrize("seed", range(50))
def test_programs_that_update_their_inputs(seed):
    recipe = Lasting(1000 + seed, 5 + seed % 36)
    program, held = stateful(recipe)
    engine, arrays = SuiteEngine(), [np.asarray(x.value, order="C") for x in recipe.inputs]
    found = list(steps(engine.compile(program, held).open(), program, arrays, held))
    expected = ReferenceEngine().compile(program)(arrays)
    agree(found[0], expected, exact=True)
    after = {
        program.inputs.index(out.updates): y
        for out, y in zip(program.outputs, expected, strict=True)
        if out.updates is not None
    }
    if small(after.values()):
        second = ReferenceEngine().compile(program)([np.asarray(after.get(k, a)) for k, a in enumerate(arrays)])
        agree(found[1], second, bound=1e-4)
    for threads in THREADS:
        again = steps(Again(engine, threads).compile(program, held).open(), program, arrays, held)
        assert [bits(x) for x in again] == [bits(x) for x in found]


@pytest.mark.parametrize("host", runnable(), ids=lambda host: f"{8 * host.vector_bytes} bits")
@pytest.mark.parametrize("seed", range(3000, 3006))
def test_other_vectors(seed, host):
    recipe = Exact(seed, 30)
    compiled = native(recipe.results, host=host, guarded=os.name == "posix")
    agree(compiled(*recipe.inputs), recipe.results(*recipe.inputs), exact=True)
    smooth = Recipe(seed, 15, smooth=True)
    agree(native(smooth.results, host=host)(*smooth.inputs), smooth.results(*smooth.inputs))


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, *[pytest.param(k, marks=pytest.mark.thorough) for k in range(1, 10)]])
def test_many_more(block):
    for seed in range(2000 + 60 * block, 2060 + 60 * block):
        test_exact_programs_give_the_bits_of_the_reference(seed)
        test_smooth_programs_and_their_derivatives_agree(seed)
        test_programs_that_update_their_inputs(seed)
