"""What has no elements."""

import numpy as np
import pytest
from tests.passes.programs import assert_keeps, names, real

from chainrule.core.tensor import wrap
from chainrule.passes.dead import dead
from chainrule.passes.empties import empties
from chainrule.primitives import ALL, contract, index, layout
from chainrule.primitives import elementwise as e

NOTHING, SOME = real(0, 3), real(2, 3)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x, y: e.exp(x), []),
        (lambda x, y: layout.sum(x, axes=(0,)), ["broadcast"]),
        (lambda x, y: ALL["prod"](x, axes=(0,)), ["broadcast"]),
        (lambda x, y: layout.sum(x, axes=(1,)), []),
        (lambda x, y: contract.matmul(x.T, x), ["broadcast"]),
        (lambda x, y: contract.matmul(x, y.T), []),
        (lambda x, y: layout.pad(x, low=(1, 0), high=(1, 0), interior=(3, 0)), ["broadcast"]),
        (lambda x, y: layout.concat(x, y, x, axis=0), []),
        (lambda x, y: layout.concat(y, x, y, axis=0), ["concat"]),
        (lambda x, y: index.take(y, wrap(np.zeros((0, 2), np.int64))), []),
        (lambda x, y: index.scatter_add(y, wrap(np.zeros(0, np.int64)), x), []),
        (lambda x, y: y + 1, ["add"]),
    ],
)
def test_nothing_is_computed_of_nothing(f, expected):
    computed = [
        n for n in names(dead(assert_keeps(empties, f, NOTHING, SOME))) if n != "broadcast" or "broadcast" in expected
    ]
    assert computed == expected or computed == ["broadcast", *expected]


def test_a_product_and_all_of_nothing_are_one_and_true():
    truth = wrap(np.zeros((0, 2), bool))
    f = lambda x, t: [ALL["prod"](x, axes=(0,)), ALL["all"](t, axes=(0,)), ALL["any"](t, axes=(0,))]
    assert_keeps(empties, f, NOTHING, truth)
