"""Products whose column slices meet each other: computed together, in registers, with the results of the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, native, plans, real

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.core.tensor import wrap
from chainrule.engines.native.plan import PACKED


def gates(compiled):
    return [k.kernel.gates for plan in plans(compiled) for k in plan.kernels if k.kernel.gates > 1]


def check(f, *xs, expected=None, **how):
    """Against the reference, on many numbers of threads; `expected`: the gates of the products that have such."""
    compiled = compare(f, *xs, others=(1, 3, 7), **how)
    assert expected is None or gates(compiled) == expected
    return compiled


def parts(product, count):
    width = product.shape[1] // count
    return [product[:, k * width : (k + 1) * width] for k in range(count)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.sampled_from([8, 9, 15, 16, 17, 32, 33, 70]), st.integers(2, 4), st.integers(2, 20),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_gates_of_any_size(rows, width, count, depth, dtype):
    def f(x, w, bias, column, row):
        pieces = parts(x @ w + bias, count)
        out = cr.sigmoid(pieces[0]) * column + row
        for piece in pieces[1:]:
            out = cr.tanh(out + piece) * pieces[0]
        return out, out * 2.0

    shapes = ((rows, depth), (depth, count * width), (count * width,), (rows, 1), (width,))
    check(f, *(real(*shape, dtype=dtype) for shape in shapes), expected=[count])


def test_a_product_that_is_read_as_a_whole_has_no_gates():
    def f(x, w):
        product = x @ w
        a, b = parts(product, 2)
        return a * cr.sigmoid(b), cr.sum(product, axis=1)

    check(f, real(9, 5), real(5, 32), expected=[])


def test_a_product_that_comes_out_beside_is_stored_too():
    def f(x, w):
        product = x @ w
        a, b = parts(product, 2)
        return a * cr.sigmoid(b), product

    check(f, real(9, 5), real(5, 34), expected=[2])


@pytest.mark.parametrize(
    ("first", "second"),
    [(slice(0, 16), slice(8, 24)), (slice(0, 32, 2), slice(1, 32, 2)), (slice(0, 12), slice(12, 24))],
)
def test_what_overlaps_or_lies_between_is_no_gate(first, second):
    def f(x, w):
        product = x @ w
        return (product[:, first] * cr.tanh(product[:, second]),)

    check(f, real(9, 5), real(5, 32), expected=[])


def test_a_gate_that_meets_what_a_later_kernel_makes():
    def f(x, w):
        a, b = parts(x @ w, 2)
        total = cr.sum(a, axis=1, keepdims=True)
        return cr.sigmoid(b) * a, b / (total * total + 1.0)

    check(f, real(9, 5), real(5, 64))


def test_a_gate_upside_down():
    def f(x, w):
        a, b, c = parts(x @ w, 3)
        return (c * cr.sigmoid(a) + b * cr.flip(a, (0,)),)

    check(f, real(9, 5), real(5, 48))


@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_other_dtypes_do_without(dtype):
    def f(x, w):
        a, b = parts(x @ w, 2)
        return (a * b,)

    xs = [(np.asarray(real(*shape)) * 4).astype(dtype) for shape in ((9, 5), (5, 32))]
    check(f, *map(wrap, xs), rtol=2e-3, expected=[])


@pytest.mark.parametrize("length", [1, PACKED - 1, PACKED, 13])
@pytest.mark.parametrize("width", [8, 16, 19, 32, 40])
@pytest.mark.parametrize(("layer", "count"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers(layer, count, width, length):
    module = layer(5, width)
    x, target = real(length, 37, 5), real(length, 37, width)

    def f(module, x, target):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x)[0], target))(module)
        return loss, *grads.values()

    compiled = check(f, module, x, target, expected=[count])
    packed = [bool(plan.storage) for plan in plans(compiled)[1:]]
    assert any(packed) == (length >= PACKED)


def test_the_gates_of_an_lstm_are_stored_but_not_its_product():
    module = nn.LSTM(5, 32)
    compiled = native(lambda module, x: module(x)[0], 2)
    compiled(module, real(9, 33, 5))
    loop = plans(compiled)[1]
    (kernel,) = [k.kernel for k in loop.kernels if k.kernel.gates == 4]
    names = [loop.program.nodes[n].primitive.name for n in kernel.nodes]
    assert names.count("sigmoid") == 3 and names.count("tanh") == 2
    assert all(loop.program.nodes[n].shape == (33, 32) for n in kernel.outputs)
    assert " × 4 × " in compiled.explain_plan()


def test_a_constant_of_a_loop_that_is_also_read_in_another_way_stays_as_it_is():
    def f(h, x, w):
        last, ys = cr.scan(lambda h, x: ((y := cr.tanh(h @ w + h * w * x)), y), h, x)
        return last, ys

    compiled = check(f, real(16, 16), real(PACKED, 16, 16), real(16, 16))
    assert not any(plan.storage for plan in plans(compiled)[1:])


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("width", [16, 19])
def test_training_of_layers_above_each_other_in_both_directions(layer, width):
    """The gradients of both directions are slices of one product, whose weight lies as the forward pass wants it."""

    def step(model, optimizer, x, y):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x)[0], y))(model)
        optimizer.update(model, grads)
        return loss

    def train(compiled):
        model = layer(9, width, 2, bidirectional=True)
        model.seed(0)
        for k, parameter in enumerate(model.parameters()):
            parameter.value = np.array(real(*parameter.shape, seed=k))
        optimizer = optim.Adam(lr=1e-2)
        found = [float(compiled(model, optimizer, real(11, 20, 9), real(11, 20, 2 * width))) for _ in range(4)]
        return found, [np.asarray(parameter) for parameter in model.parameters()]

    one, others = native(step, 1), native(step, 3)
    expected, _ = train(cr.compile(step, engine="reference"))
    found, weights = train(one)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    again, same = train(others)
    assert again == found
    for a, b in zip(weights, same, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_that_two_products_read_in_their_own_ways():
    def f(x, w):
        a, b = parts(x @ w, 2)
        return a * cr.sigmoid(b), cr.tanh(x @ w[:5]), a @ w.T[:16]

    check(f, real(9, 5), real(5, 32))


def test_a_node_that_does_not_fit_leaves_the_gates_as_they_are():
    """What reads a result of gates in another order goes to a kernel of its own; the product keeps its gates."""

    def f(x, w):
        a, b = parts(x @ w, 2)
        state = a * cr.sigmoid(b)
        return state.T * 2.0 + 1.0, cr.tanh(state), state[:, ::2] * 3.0

    check(f, real(9, 5), real(5, 32), expected=[2])
