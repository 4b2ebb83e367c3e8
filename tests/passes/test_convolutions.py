"""Convolutions as products: the same values, and never zeros multiplied for nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.core.tensor import wrap
from chainrule.engines.reference import ReferenceExecutable
from chainrule.passes.convolutions import convolutions
from chainrule.primitives.convolve import convolve
from chainrule.program.program import verify


def run(program, arrays):
    return ReferenceExecutable(program)([np.asarray(x) for x in arrays])


@st.composite
def convolution(draw):
    spatial = draw(st.integers(0, 2))
    axes = [draw(st.tuples(*[st.integers(1, 3)] * 4)) for _ in range(spatial)]
    small = st.integers(1, 3)
    batch, groups, taken, out = draw(small), draw(st.integers(1, 2)), draw(small), draw(small)
    space, low, high = [], [], []
    for window, _, apart, step in axes:
        lo, hi = draw(st.integers(-1, 2)), draw(st.integers(-1, 2))
        reach = (window - 1) * step + 1
        fewest = max(1, -(-(max(reach - lo - hi, 1) - 1) // apart) + 1)
        space.append(fewest + draw(st.integers(0, 4)))
        low.append(lo)
        high.append(hi)
    windows, strides, input_step, kernel_step = (tuple(a[k] for a in axes) for k in range(4))
    x, w = (batch, *space, groups, taken), (*windows, groups, taken, out)
    attributes = {
        "strides": strides, "low": tuple(low), "high": tuple(high), "input_step": input_step, "kernel_step": kernel_step
    }  # fmt: skip
    return x, w, attributes


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [wrap(rng.integers(-4, 5, shape).astype(np.float64)) for shape in shapes]


def lowered_equals(f, *xs):
    program = cr.trace_program(f, *xs)
    lowered = verify(convolutions(program))
    for expected, found in zip(run(program, xs), run(lowered, xs), strict=True):
        np.testing.assert_array_equal(found, expected)
    return lowered


@settings(max_examples=150, deadline=None)
@given(convolution())
def test_the_values_stay(case):
    x, w, attributes = case
    lowered_equals(lambda x, w: convolve(x, w, **attributes), *arrays(x, w))


@settings(max_examples=150, deadline=None)
@given(convolution())
def test_the_gradients_stay(case):
    x, w, attributes = case
    y = convolve(*arrays(x, w), **attributes)
    (dy,) = arrays(y.shape)

    def gradients(x, w, dy):
        return cr.vjp(lambda x, w: convolve(x, w, **attributes), x, w)[1](dy)

    lowered_equals(gradients, *arrays(x, w), dy)


def test_a_strided_convolution_gives_back_without_multiplying_zeros():
    x, w = arrays((2, 8, 8, 1, 3), (3, 3, 1, 3, 4))
    attributes = {"strides": (2, 2), "low": (1, 1), "high": (1, 1), "input_step": (1, 1), "kernel_step": (1, 1)}
    dy = arrays((2, 4, 4, 1, 4))[0]
    program = lowered_equals(lambda x, w, dy: cr.vjp(lambda x: convolve(x, w, **attributes), x)[1](dy)[0], x, w, dy)
    products = [n for n in program.nodes if n.primitive.name == "matmul"]
    assert len(products) == 4
    assert sum(program.nodes[n.inputs[1]].shape[1] for n in products) == 9 * 4  # each tap is used once


def test_a_window_of_one_element_is_a_plain_product():
    x, w = arrays((2, 5, 5, 1, 3), (1, 1, 1, 3, 4))
    attributes = {"strides": (1, 1), "low": (0, 0), "high": (0, 0), "input_step": (1, 1), "kernel_step": (1, 1)}
    program = lowered_equals(lambda x, w: convolve(x, w, **attributes), x, w)
    assert "patches" not in {n.primitive.name for n in program.nodes}


def test_depthwise_convolutions_are_no_products_of_matrices():
    x, w, dy = arrays((2, 5, 4, 1), (3, 4, 1, 1), (2, 5, 4, 1))
    attributes = {"strides": (1,), "low": (1,), "high": (1,), "input_step": (1,), "kernel_step": (1,)}

    def all_of(x, w, dy):
        y, pull = cr.vjp(lambda x, w: convolve(x, w, **attributes), x, w)
        return y, *pull(dy)

    names = [n.primitive.name for n in lowered_equals(all_of, x, w, dy).nodes]
    assert names.count("depthwise") == 2 and names.count("depthwise_gradient") == 1 and "matmul" not in names
