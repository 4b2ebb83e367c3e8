"""Which row an element belongs to: against moving one row's values, and through every kind of operation."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.compile import trace_program
from chainrule.program.interpret import Interpreter
from chainrule.program.program import observe
from chainrule.train.provenance import SEVERAL, along, rows_of_inputs, together, trace_rows

R = np.random.default_rng(0)
W = R.normal(size=(3, 3)).astype(np.float32)
KERNEL = R.normal(size=(2, 3, 2, 2)).astype(np.float32)
ROWS = 4


def by_hand(f, x):
    """For each element of f(x) the row it depends on, by moving one row after the other."""
    base = np.asarray(f(cr.tensor(x)))
    found = np.zeros(base.shape, np.int64)
    for row in range(ROWS):
        moved = x.copy()
        moved[row] += R.uniform(0.5, 1.0, x[row].shape).astype(np.float32)
        changed = np.asarray(f(cr.tensor(moved))) != base
        found = np.where(changed, np.where(found == 0, row + 1, SEVERAL), found)
    return found


CASES = {
    "elementwise": (lambda x: cr.exp(x) * 2, (3,)),
    "matmul": (lambda x: x @ W, (3,)),
    "batched matmul": (lambda x: x @ cr.mT(x) if hasattr(cr, "mT") else x @ x.mT, (2, 3)),
    "weight gradient": (lambda x: x.T @ x, (3,)),
    "sum over features": (lambda x: cr.sum(x, axis=1), (3,)),
    "sum over rows": (lambda x: cr.sum(x, axis=0), (3,)),
    "transposed": (lambda x: cr.permute_dims(x, (2, 0, 1)), (2, 3)),
    "rows merged with time": (lambda x: cr.reshape(x, (-1, 3)) @ W, (2, 3)),
    "concatenated": (lambda x: cr.concat([x, x * 2], axis=0), (3,)),
    "flipped": (lambda x: cr.flip(x, axis=0), (3,)),
    "padded": (lambda x: cr.pad(x, ((1, 2), (0, 0))), (3,)),
    "taken": (lambda x: cr.take(x, cr.tensor(np.array([2, 0, 0])), axis=0), (3,)),
    "running sum": (lambda x: cr.cumulative_sum(x, axis=1), (3,)),
    "convolution": (lambda x: cr.conv2d(x, KERNEL), (3, 4, 4)),
    "pooling": (lambda x: cr.avg_pool2d(x, 2), (3, 4, 4)),
    "masked": (lambda x: cr.where(x > 0, x, -x), (3,)),
    "loop": (
        lambda x: cr.scan(lambda c, now: (c + now @ W, c * 2.0), cr.zeros((ROWS, 3)), cr.permute_dims(x, (1, 0, 2)))[0],
        (5, 3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_that_an_element_depends_on(name):
    f, shape = CASES[name]
    x = R.uniform(0.1, 1.0, (ROWS, *shape)).astype(np.float32)
    program = trace_program(f, cr.tensor(x))
    run = Interpreter(observe(program, range(len(program.nodes))))
    values = run([x] + [np.zeros(program.nodes[i].shape) for i in program.inputs[1:]])[len(program.outputs) :]
    given = rows_of_inputs(program, [program.nodes[program.inputs[0]].name], ROWS)
    found = trace_rows(program, given, program.outputs[0].node, values.__getitem__)
    np.testing.assert_array_equal(np.broadcast_to(found, program.nodes[program.outputs[0].node].shape), by_hand(f, x))


def test_a_mean_over_the_batch_does_not_take_an_element_from_its_row():
    x = R.normal(size=(ROWS, 3)).astype(np.float32)
    program = trace_program(lambda x: (x - cr.mean(x, axis=0)) / cr.std(x, axis=0), cr.tensor(x))
    given = rows_of_inputs(program, ["x"], ROWS)
    found = trace_rows(program, given, program.outputs[0].node)
    assert np.broadcast_to(found, (ROWS, 3)).tolist() == [[i + 1] * 3 for i in range(ROWS)]


def test_weights_belong_to_no_row():
    program = trace_program(lambda w: cr.exp(w), cr.tensor(W))
    assert trace_rows(program, rows_of_inputs(program, ["x"], 3), program.outputs[0].node) is None


def test_together_and_along():
    one, two, none, several = (np.array([v]) for v in (1, 2, 0, SEVERAL))
    assert together(one, two) == SEVERAL and together(one, none) == 1 and together(several, two) == 2
    assert together(none, several) == SEVERAL and together(none, none) == 0 and together(one, one, several) == 1
    rows = np.array([[1, 1, 0], [1, 2, 0], [0, 0, 0], [SEVERAL, 0, 3]])
    assert along(rows, (1,)).ravel().tolist() == [1, SEVERAL, 0, 3]
    assert along(np.zeros((2, 0), np.int64), (1,)).tolist() == [[0], [0]]
