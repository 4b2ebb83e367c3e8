"""Factors that are the same for all addends of a sum are taken out of it: which, and that values stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.programs import names, real, run, traced

import chainrule as cr
from chainrule.passes.common import common
from chainrule.passes.dead import dead
from chainrule.passes.factors import factors
from chainrule.program.program import verify


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data(), st.sampled_from(["float32", "float64"]))
def test_values_stay(shape, data, dtype):
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    kept = [1 if a in axes else n for a, n in enumerate(shape)]
    inputs = [real(*s, dtype=dtype) for s in (shape, shape, kept, kept)]
    f = lambda x, y, c, d: (cr.sum(x * c * (y * d), axis=axes), cr.sum(c * x, axis=axes), cr.sum(c * d, axis=axes))
    program = traced(f, *inputs)
    for a, b in zip(run(program, *inputs), run(verify(factors(program)), *inputs), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-5)


def test_sums_that_differ_in_a_factor_become_one():
    f = lambda x, w: (cr.sum(x, axis=0), cr.sum(x * w, axis=0), cr.sum(w * x * 3, axis=0))
    program = traced(f, real(20, 30), real(30))
    assert names(program).count("sum") == 3
    assert names(dead(common(verify(factors(program))))).count("sum") == 1


def test_the_four_sums_of_a_batch_norm_become_two():
    def four(centred, dy, weight, scale):
        normed = centred * scale
        return [cr.sum(x, axis=(0, 1, 2)) for x in (dy, dy * normed, dy * weight, dy * weight * normed)]

    program = traced(four, real(4, 5, 5, 8), real(4, 5, 5, 8), real(8), real(8))
    assert names(program).count("sum") == 4
    assert names(dead(common(verify(factors(program))))).count("sum") == 2


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x, w: cr.sum(x * w, axis=1), [(20, 30), (20, 1)]),  # along the rows nothing is gained
        (lambda x, w: cr.sum(x * w, axis=0), [(20, 30), (20, 1)]),  # another factor for each addend
        (lambda x, w: cr.sum(x + w, axis=0), [(20, 30), (30,)]),
        (lambda x, w: cr.max(x * w, axis=0), [(20, 30), (30,)]),
    ],
)
def test_what_stays(f, shapes):
    program = traced(f, *[real(*s) for s in shapes])
    assert names(factors(program)) == names(program)


def test_halves_stay():
    """A product would be rounded, and so would a sum."""
    program = traced(lambda x, w: cr.sum(x * w, axis=0), real(20, 30, dtype="float16"), real(30, dtype="float16"))
    assert names(factors(program)) == names(program)
