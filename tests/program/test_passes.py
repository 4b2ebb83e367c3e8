"""Passes never change a bit: random Programs before and after, and the rewrites one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.compile import Compiled, trace_program
from chainrule.core.tensor import tensor
from chainrule.engines.reference import ReferenceEngine
from chainrule.passes import pipeline
from chainrule.passes.common import common
from chainrule.passes.dead import dead
from chainrule.passes.fold import fold
from chainrule.passes.simplify import simplify
from chainrule.primitives import elementwise as e
from chainrule.primitives import layout, reduce
from chainrule.program.program import CONSTANT, INPUT, rewrite, verify

UNARY = [e.sin, e.tanh, e.neg, e.abs, e.exp, e.sigmoid, lambda x: x * 1, lambda x: x + (-0.0), lambda x: x - 0,
         lambda x: x.T.T, lambda x: x / 1, lambda x: -(-x), lambda x: x[::-1], lambda x: x[:, ::2],
         lambda x: layout.reshape(layout.reshape(x, shape=(x.size,)), shape=x.shape),
         lambda x: x.astype("float64").astype("float32"), lambda x: layout.sum(x, axes=(0,)),
         lambda x: reduce.max(x, axes=(1,)) if x.shape[1] else x]  # fmt: skip
BINARY = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: e.where(a < b, a, b)]


@st.composite
def recipes(draw):
    """A list of (operation, operands) to be applied to a growing list of tensors."""
    steps = []
    for i in range(draw(st.integers(5, 40))):
        if draw(st.booleans()):
            steps.append((draw(st.integers(0, len(UNARY) - 1)), draw(st.integers(0, i + 1)), None))
        else:
            steps.append(
                (draw(st.integers(0, len(BINARY) - 1)), draw(st.integers(0, i + 1)), draw(st.integers(0, i + 1)))
            )
    return steps


def run(recipe):
    def f(a, b):
        values = [a, b]
        for which, i, j in recipe:
            x = values[i % len(values)]
            if j is None:
                values.append(UNARY[which](x))
            else:
                y = values[j % len(values)]
                values.append(BINARY[which](x, y) if x.shape == y.shape else x)
        return values[-3:]

    return f


SPECIAL = np.array([[0.0, -0.0, 1.0, np.nan], [np.inf, -np.inf, -1e-42, 3e38], [0.5, -1.5, 2.0, -7.0]], np.float32)


@settings(max_examples=60, deadline=None)
@given(recipes(), st.integers(0, 2**31))
def test_random_programs_keep_their_bits(recipe, seed):
    a, b = tensor(SPECIAL), tensor(np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32))
    f = run(recipe)
    eager = f(a, b)
    compiled = Compiled(f, "reference")(a, b)
    for x, y in zip(eager, compiled, strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("apply", pipeline.PIPELINE, ids=lambda p: p.__name__)
def test_each_pass_alone_keeps_the_meaning(apply, monkeypatch):
    monkeypatch.setattr(pipeline, "PIPELINE", ())
    x = tensor(SPECIAL)
    f = lambda x: (e.sin(x) * 1 + e.sin(x) + (tensor([1.0]) + 2)[0], x.T.T)
    program = trace_program(f, x)
    after = verify(apply(program))
    for a, b in zip(*(ReferenceEngine().compile(p)([x.value]) for p in (program, after)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_rewriting_that_changes_nothing_gives_the_same_program(raw):
    program = raw(lambda x: e.sin(x) + 1, tensor([1.0]))
    assert rewrite(program, lambda builder, node: None) is program
    assert rewrite(program, lambda builder, node: builder.add(node)) is program
    fewer = rewrite(program, lambda builder, node: node.inputs[0] if node.primitive is e.sin else None)
    assert fewer is not program and "sin" in names(program) and "sin" not in names(fewer)


def names(program):
    return [n.primitive.name for n in program.nodes if n.primitive not in (INPUT, CONSTANT)]


@pytest.fixture
def raw(monkeypatch):
    """Trace without passes."""
    monkeypatch.setattr(pipeline, "PIPELINE", ())
    return lambda f, *xs: trace_program(f, *xs)


def test_simplify_drops_what_changes_nothing(raw):
    x = tensor(np.ones((2, 3), np.float32))
    nothing = lambda x: -(-((x * 1 / 1 - 0 + -0.0).T.T))
    assert names(dead(simplify(raw(nothing, x)))) == []
    assert names(dead(simplify(raw(lambda x: x + 0.0, x)))) == ["broadcast", "add"]  # −0 + 0 is +0
    assert names(dead(simplify(raw(lambda x: x * 0.0, x)))) == ["broadcast", "mul"]  # NaN · 0 is NaN
    assert names(dead(simplify(raw(lambda x: x.astype("bfloat16").astype("float32"), x)))) == ["cast", "cast"]


def test_common_subexpressions_are_computed_once(raw):
    x = tensor([1.0])
    assert names(dead(common(raw(lambda x: e.sin(x) * e.sin(x) + e.cos(x), x)))) == ["sin", "mul", "cos", "add"]


def test_fold_keeps_equal_elements_as_one_number(raw):
    x = tensor(np.ones((100, 100), np.float32))
    half = lambda x: layout.broadcast(tensor(0.5), shape=x.shape)
    program = dead(fold(raw(lambda x: x * half(x), x)))
    assert max(n.size for n in program.nodes if n.primitive is CONSTANT) == 1


def test_dead_code_goes_and_inputs_stay(raw):
    program = dead(raw(lambda x, y: (e.sin(x), e.cos(x))[0], tensor(1.0), tensor(2.0)))
    assert names(program) == ["sin"] and len(program.inputs) == 2
