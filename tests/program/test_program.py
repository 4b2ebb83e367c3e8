"""Tracing to a Program, its text, its verification, and its memory plan."""

from dataclasses import replace

import numpy as np
import pytest

from chainrule import errors
from chainrule.compile import compile, trace_program
from chainrule.core.autodiff import grad, value_and_grad
from chainrule.core.tensor import tensor
from chainrule.functions.custom import checkpoint
from chainrule.passes.liveness import plan_memory
from chainrule.primitives import elementwise as e
from chainrule.program.program import Node, Output, Program, verify
from chainrule.program.text import text


def step(params, x, y):
    """Logistic regression, one step of gradient descent."""

    def loss(p):
        z = (x @ p["w"] + p["b"])[:, 0]
        return (e.softplus(z) - y * z).sum() / 4

    value, grads = value_and_grad(loss)(params)
    return value, {name: params[name] - 0.5 * grads[name] for name in params}


def arguments():
    rng = np.random.default_rng(0)
    f32 = lambda *shape: tensor(rng.standard_normal(shape).astype(np.float32))
    return {"w": f32(3, 1), "b": f32(1)}, f32(4, 3), tensor(np.array([0, 1, 1, 0], np.float32))


GOLDEN = """\
program step
  input   params.w f32[3, 1]
  input   params.b f32[1]
  input   x f32[4, 3]
  input   y f32[4]
forward
  %4  f32[4, 1]      = matmul(x, params.w)
  %6  f32[4, 1]      = add(%4, broadcast(params.b))
  %7  f32[4]         = reshape(%6, [4])
  %8  f32[4]         = softplus(%7)
  %9  f32[4]         = mul(y, %7)
  %10 f32[4]         = sub(%8, %9)
  %11 f32[1]         = sum(%10, axes=(0,))
  %12 f32[]          = reshape(%11, [])
  %14 f32[]          = div(%12, 4.0)
backward
  %19 f32[4]         = mul(-0.25, y)         of %9
  %20 f32[4]         = sigmoid(%7)           of %8
  %21 f32[4]         = mul(0.25, %20)        of %8
  %22 f32[4]         = add(%19, %21)         of %8
  %23 f32[4, 1]      = reshape(%22, [4, 1])  of %7
  %24 f32[1, 1]      = sum(%23, axes=(0,))   of broadcast(params.b)
  %25 f32[1]         = reshape(%24, [1])     of broadcast(params.b)
  %27 f32[3, 1]      = matmul(x.T, %23)      of %4
update
  %30 f32[3, 1]      = mul(0.5, %27)
  %31 f32[3, 1]      = sub(params.w, %30)
  %33 f32[1]         = mul(0.5, %25)
  %34 f32[1]         = sub(params.b, %33)
out
  result.0 = %14
  result.1.w = %31
  result.1.b = %34
"""


def test_the_text_is_stable():
    assert text(trace_program(step, *arguments()), locations=False) == GOLDEN


def test_print_shows_the_text_and_repr_is_short():
    program = trace_program(step, *arguments())
    assert str(program) == text(program)
    assert repr(program) == f"<program step: {len(program.nodes)} nodes>"


def test_nodes_know_their_line():
    lines = text(trace_program(step, *arguments())).splitlines()
    row = next(line for line in lines if "softplus" in line)
    assert "test_program.py:" in row


def test_backward_nodes_know_their_forward_node():
    program = trace_program(step, *arguments())
    for node in program.nodes:
        if node.part == "backward" and node.of is not None:
            assert program.nodes[node.of].part == "forward"
    sigmoid = next(n for n in program.nodes if n.primitive.name == "sigmoid")
    assert program.nodes[sigmoid.of].primitive.name == "softplus"


def test_equal_programs_of_equal_functions():
    assert text(trace_program(step, *arguments())) == text(trace_program(step, *arguments()))


def test_recomputation_is_not_merged_away():
    f = lambda x: e.sin(e.sin(x)).sum()
    x = tensor(np.ones(3))
    count = lambda g: sum(n.primitive.name == "sin" for n in trace_program(value_and_grad(g), x).nodes)
    assert count(f) == 2
    assert count(lambda x: checkpoint(lambda v: e.sin(e.sin(v)))(x).sum()) == 3


def test_symbols_must_not_escape():
    kept = []
    trace_program(lambda x: kept.append(x) or x * 2, tensor(1.0))
    with pytest.raises(errors.TracedValueError, match="another traced function"):
        trace_program(lambda y: y + kept[0], tensor(1.0))


def test_a_parameter_must_be_an_argument():
    w = tensor(1.0, requires_grad=True)
    with pytest.raises(errors.TracedValueError, match="not an argument"):
        compile(lambda x: x * w)(tensor(2.0))


def broken(change):
    program = trace_program(lambda x: e.sin(x) + e.cos(x), tensor([1.0]))
    return change(program)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, nodes=(*p.nodes[:-1], replace(p.nodes[-1], shape=(7,)))),
        lambda p: replace(p, nodes=(*p.nodes[:-1], replace(p.nodes[-1], dtype=np.dtype(np.int64)))),
        lambda p: replace(p, nodes=(*p.nodes[:-1], replace(p.nodes[-1], inputs=(1, 9)))),
        lambda p: replace(p, nodes=(*p.nodes[:-1], replace(p.nodes[-1], of=3))),
        lambda p: replace(p, inputs=()),
        lambda p: replace(p, outputs=(Output("a", 1, 0), Output("b", 2, 0))),
        lambda p: replace(p, outputs=(Output("a", 1, 1),)),
    ],
)
def test_verification_finds_what_is_broken(change):
    with pytest.raises(errors.ProgramError):
        verify(broken(change))


def test_the_memory_plan_counts_what_is_alive():
    def f(x):  # 4 kB each: a chain needs two values at a time
        for _ in range(10):
            x = e.sin(x)
        return x

    x = tensor(np.ones(1024, np.float32))
    assert plan_memory(trace_program(f, x)).peak_bytes == 2 * 4096
    assert plan_memory(trace_program(grad(lambda v: f(v).sum()), x)).peak_bytes >= 10 * 4096


def test_views_share_memory():
    x = tensor(np.ones((32, 32), np.float32))
    plan = plan_memory(trace_program(lambda x: e.sin(x).T.T[1:, None], x))
    assert plan.peak_bytes == 32 * 32 * 4


def test_an_empty_program_is_a_program():
    program = trace_program(lambda x: x, tensor(1.0))
    assert isinstance(program, Program) and isinstance(program.nodes[0], Node)
    assert program.outputs[0].node == 0
