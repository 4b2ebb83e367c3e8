"""Explicit copies."""

import numpy as np
import pytest
from tests.passes.programs import assert_keeps, names, real, traced

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.passes.copies import copies, matrix
from chainrule.passes.views import View, views
from chainrule.primitives import ALL, contract, index, layout

X = real(6, 4)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(0, (3, 4), (4, 1)), (0, 4, 1)),
        (View(0, (3, 4), (1, 3)), (0, 1, 3)),
        (View(0, (3, 4), (8, 2)), None),
        (View(0, (3, 4), (4, -1)), None),
        (View(0, (3, 4), (-4, 1)), None),
        (View(0, (3, 4), (0, 1)), None),
        (View(0, (1, 4), (9, 1)), (0, 0, 1)),
        (View(0, (5, 3, 4), (12, 4, 1)), (12, 4, 1)),
        (View(0, (5, 3, 4), (0, 4, 1)), (0, 4, 1)),
        (View(0, (2, 5, 3, 4), (60, 12, 4, 1)), (12, 4, 1)),
        (View(0, (2, 5, 3, 4), (12, 24, 4, 1)), (((2, 12), (5, 24)), 4, 1)),
        (View(0, (7, 2, 5, 3, 4), (40, 0, 24, 1, 8)), (((7, 40), (2, 0), (5, 24)), 1, 8)),
        (View(0, (2, 5, 3, 4), (12, 24, 2, 3)), None),
    ],
)
def test_what_a_product_can_read(view, expected):
    assert matrix(view) == expected


@pytest.mark.parametrize(
    ("f", "count"),
    [
        (lambda x: x + 1, 0),
        (lambda x: x, 1),  # an output is no input
        (lambda x: [x + 1, layout.reshape(x + 2, shape=(24,))], 0),
        (lambda x: (lambda y: [y, y])(x * 2), 1),  # no two outputs are one memory
        (lambda x: (lambda y: [y, layout.reshape(y, shape=(24,))])(x * 2), 1),
        (lambda x: (x * 2).T, 1),
        (lambda x: layout.reshape((x * 2).T, shape=(24,)) + 0.5, 1),
        (lambda x: contract.matmul(x, x.T), 0),
        (lambda x: contract.matmul(layout.flip(x, (1,)), x.T), 1),
        (lambda x: index.take(x, wrap(np.array([1, 0]))), 0),
        (lambda x: index.take(x.T, wrap(np.array([1, 0]))), 1),
        (lambda x: index.take(layout.reshape(x, shape=(24,)), wrap(np.array([1, 3]))), 0),
        (lambda x: ALL["cumsum"](x.T, axis=0, reverse=False), 1),
        (lambda x: ALL["argmax"](layout.flip(x, (0,)), axes=(1,)), 1),
        (lambda x: layout.sum(x.T, axes=(1,)), 0),
        (lambda x: layout.sum(layout.transpose(layout.reshape(x, shape=(2, 3, 4)), axes=(1, 0, 2)), axes=(1, 2)), 1),
    ],
)
def test_copies_where_they_are_needed_alone(f, count):
    assert names(assert_keeps(copies, f, X)).count("copy") == count


def test_a_value_is_copied_once_for_all_who_need_that():
    f = lambda x: [contract.matmul(layout.flip(x, (1,)), x.T), contract.matmul(layout.flip(x, (1,)), x.T + 1)]
    program = traced(
        lambda x: (lambda y: [contract.matmul(y, x.T), contract.matmul(y, x.T + 1)])(layout.flip(x, (1,))), X
    )
    assert names(copies(program)).count("copy") == 1
    assert_keeps(copies, f, X)


def test_outputs_own_dense_memory():
    program = copies(traced(lambda x: [x, x.T, x.T + 1, cr.ones((3,)), layout.broadcast(x[:1], shape=(5, 4))], X))
    found = views(program)
    bases = [found[out.node].base for out in program.outputs]
    assert len(set(bases)) == len(bases)
    for out in program.outputs:
        assert found[out.node].dense
        assert program.nodes[found[out.node].base].primitive.kind != "source"
