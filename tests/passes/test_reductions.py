"""Reductions one block of axes at a time."""

import numpy as np
import pytest
from tests.passes.programs import assert_keeps, names, real

from chainrule import dtypes
from chainrule.core.tensor import wrap
from chainrule.passes.reductions import blocks, reductions
from chainrule.primitives import ALL, index, layout


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 4), (1,), [(1,)]),
        ((3, 4), (0,), [(0,)]),
        ((3, 4), (0, 1), [(1,), (0,)]),
        ((2, 3, 4), (0, 2), [(2,), (0,)]),
        ((2, 3, 4), (1, 2), [(1, 2)]),
        ((2, 3, 4), (0, 1), [(0, 1)]),
        ((2, 3, 4), (0, 1, 2), [(2,), (0, 1)]),
        ((2, 1, 4), (0, 1, 2), [(1, 2), (0,)]),
        ((7,), (0,), [(0,)]),
        ((1, 1), (0, 1), [(0, 1)]),
        ((3, 4), (), [()]),
    ],
)
def test_blocks(shape, axes, expected):
    assert blocks(shape, axes) == expected


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("axes", [(0, 2), (0, 1, 2), (1,)])
def test_the_values_stay(name, axes):
    after = assert_keeps(reductions, lambda x: ALL[name](x, axes=axes), real(3, 4, 5, dtype="float64"), exact=False)
    assert names(after).count(name) == len(blocks((3, 4, 5), axes))


def test_positions_of_extremes_are_left_alone():
    assert names(assert_keeps(reductions, lambda x: ALL["argmax"](x, axes=(0,)), real(3, 4))) == ["argmax"]


@pytest.mark.parametrize("dtype", dtypes.HALVES, ids=str)
def test_half_precision_is_rounded_once(dtype):
    x = wrap((np.arange(1, 601).reshape(20, 30) / 300).astype(dtype))
    assert names(assert_keeps(reductions, lambda x: layout.sum(x, axes=(0, 1)), x)) == ["cast", "sum", "sum", "cast"]
    many = wrap(np.ones((600, 2), dtype))
    f = lambda x: index.scatter_add(x[:3], wrap(np.arange(600) // 599), x)
    assert names(assert_keeps(reductions, f, many)) == ["slice", "cast", "cast", "scatter_add", "cast"]
