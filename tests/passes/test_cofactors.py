"""Products that are added, with the error taken out of both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, plans, real

import chainrule as cr
from chainrule.engines.native.lowering import lower
from chainrule.passes.cofactors import cofactors

ACTIVATIONS = {
    "gelu": cr.gelu,
    "tanh": lambda x: cr.gelu(x, "tanh"),
    "silu": cr.silu,
    "mish": cr.mish,
    "sine": lambda x: x * cr.sin(x) * cr.exp(-x * x),
}


def gradients(activation):
    def f(x, w, v):
        return cr.grad(lambda *a: cr.sum((activation(a[0] @ a[1]) @ a[2]) ** 2), (0, 1, 2))(x, w, v)

    return f


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derivatives_of_activations(name, dtype):
    xs = [real(*shape, dtype=dtype) for shape in ((9, 5), (5, 33), (33, 4))]
    compare(gradients(ACTIVATIONS[name]), *xs, others=(1, 3), rtol=2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_one_value_is_stored_for_the_way_back(name):
    compiled = compare(gradients(ACTIVATIONS[name]), real(9, 5), real(5, 33), real(33, 4))
    (plan,) = plans(compiled)
    first = next(k for k in plan.kernels if k.form == "contract")
    assert sum(plan.grouping.nodes[n].shape == (9, 33) for n in first.kernel.outputs) == 2


@pytest.mark.parametrize("x", [-300.0, -30.0, -1e-30, 0.0, 1e-30, 30.0, 300.0])
@pytest.mark.parametrize("name", ["gelu", "tanh", "silu", "mish"])
def test_extreme_values(name, x):
    def f(x, w):
        return (cr.grad(lambda x: cr.sum(ACTIVATIONS[name](x @ w)))(x),)

    compare(f, cr.tensor(np.full((3, 1), x, np.float32)), cr.tensor(np.ones((1, 20), np.float32)))


def sums_of_two_products(f, *xs):
    """Whether the pass changes anything."""
    program = cr.trace_program(f, *xs)
    return cofactors(program) is not program


def test_what_is_left_as_it_is():
    a, b = real(6, 6), real(6, 6, seed=1)
    g = lambda a, b: cr.exp(a @ b)
    assert sums_of_two_products(lambda a, b: (lambda p: p * a + p * cr.sin(b))(g(a, b)), a, b) is True
    assert sums_of_two_products(lambda a, b: (lambda p: (p * a, p * a + p * b))(g(a, b))[1], a, b) is True
    assert sums_of_two_products(lambda a, b: (lambda p, q: (q, q + p * b))(g(a, b), g(a, b) * a), a, b) is False
    assert sums_of_two_products(lambda a, b: (lambda p: p + p * b)(g(a, b)), a, b) is False
    assert sums_of_two_products(lambda a, b: a * b + a * cr.sin(b), a, b) is False  # nothing is later
    assert sums_of_two_products(lambda a, b: (lambda p: p * a + p * (b @ a))(g(a, b)), a, b) is False


TERMS = {
    "x": lambda x, y, g: x,
    "y": lambda x, y, g: y,
    "half": lambda x, y, g: y * 0.5,
    "sine": lambda x, y, g: cr.sin(x),
    "error": lambda x, y, g: g,
    "later": lambda x, y, g: cr.tanh(g),
    "row": lambda x, y, g: x[:1],
}
PRODUCTS = st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(PRODUCTS, min_size=2, max_size=3), st.booleans())
def test_sums_of_any_products(products, read_twice):
    def f(x, y, w):
        g = x @ w
        terms = []
        for names in products:
            term = TERMS[names[0]](x, y, g)
            for name in names[1:]:
                term = term * TERMS[name](x, y, g)
            terms.append(term)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return (total * 2, terms[0] + 1) if read_twice else (total * 2,)

    compare(f, real(4, 17), real(4, 17, seed=1), real(17, 17, seed=2), others=(1, 3), rtol=1e-4)


def test_halves_and_integers_are_left_alone():
    def f(x, w):
        p = x @ w
        return p * x + p * w

    for dtype in ("float16", "int32"):
        x = cr.tensor(np.ones((4, 4), dtype))
        assert sums_of_two_products(f, x, x) is False
    assert lower(cr.trace_program(f, real(4, 4), real(4, 4))).outputs
