"""Products and sums with one rounding."""

import numpy as np
import pytest
from tests.passes.programs import assert_keeps, names, real

from chainrule.core.tensor import wrap
from chainrule.passes.fma import fuse_multiply_add
from chainrule.primitives import elementwise as e

A, B, C = (real(5, 4) for _ in range(3))


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda a, b, c: a * b + c, ["mul", "fma"]),
        (lambda a, b, c: c + a * b, ["mul", "fma"]),
        (lambda a, b, c: a * b - c, ["mul", "fms"]),
        (lambda a, b, c: c - a * b, ["mul", "fnma"]),
        (lambda a, b, c: a * b + a * c, ["mul", "mul", "fma"]),
        (lambda a, b, c: (lambda p: [p, p + c])(a * b), ["mul", "add"]),
        (lambda a, b, c: (lambda p: p + p)(a * b), ["mul", "add"]),
    ],
)
def test_where_nobody_else_reads_the_product(f, expected):
    assert names(assert_keeps(fuse_multiply_add, f, A, B, C, exact=False)) == expected


def test_the_product_of_the_second_operand_goes_in():
    program = assert_keeps(fuse_multiply_add, lambda a, b, c: a * b + a * c, A, B, C, exact=False)
    fused, product = program.nodes[program.outputs[0].node], program.nodes[4]
    assert fused.primitive.name == "fma"
    assert fused.inputs == (0, 2, 3)
    assert product.primitive is e.mul


def test_whole_numbers_and_halves_are_left_alone():
    for dtype in (np.int32, np.float16):
        xs = [wrap(np.ones(3, dtype)) for _ in range(3)]
        assert names(assert_keeps(fuse_multiply_add, lambda a, b, c: a * b + c, *xs)) == ["mul", "add"]


def test_one_rounding():
    a = wrap(np.array([1 + 2.0**-12], np.float32))
    c = wrap(np.array([-1 - 2.0**-11], np.float32))
    program = assert_keeps(fuse_multiply_add, lambda a, c: a * a + c, a, c, exact=False)
    value = program.nodes[program.outputs[0].node].primitive.evaluate(
        np.dtype(np.float32), (a.value, a.value, c.value), {}
    )
    assert value == 2.0**-24
