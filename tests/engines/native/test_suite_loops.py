"""Loops against the reference: carries, products, derivatives, loops in loops, errors, threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, native, on_threads, plans, real

import chainrule as cr
from chainrule import errors, losses, nn
from chainrule.core.tensor import wrap
from chainrule.engines.native.cuts import FEWEST_ROWS
from chainrule.engines.native.host import detect


def leaves(result):
    (carry, ys) = result
    carry = carry if isinstance(carry, tuple) else (carry,)
    return (*carry, *(ys if isinstance(ys, tuple) else (ys,)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.integers(1, 5), st.sampled_from([1, 3, 16, 33]), st.booleans())
def test_a_recurrent_layer(length, batch, width, reverse):
    def f(h, x, w):
        return leaves(cr.scan(lambda h, x: ((y := cr.tanh(h @ w + x)), y * 2.0), h, x, reverse=reverse))

    compare(f, real(batch, width), real(length, batch, width), real(width, width))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_derivatives(dtype):
    def f(h, x, w):
        def loss(h, x, w):
            last, ys = cr.scan(lambda h, x: ((y := cr.tanh(h @ w + x)), y * y), h, x)
            return cr.sum(last) + cr.sum(ys * ys)

        return cr.grad(loss, (0, 1, 2))(h, x, w)

    compare(f, *(real(*s, dtype=dtype) for s in ((4, 18), (11, 4, 18), (18, 18))))


def test_carries_that_change_places():
    def f(a, b, x):
        return leaves(cr.scan(lambda c, x: ((c[1], c[0] + x), c[0] * c[1]), (a, b), x))

    compare(f, real(7), real(7, seed=1), real(6, 7))


def test_a_carry_that_nobody_changes_and_one_that_forgets():
    def f(a, b, x):
        return leaves(cr.scan(lambda c, x: ((c[0], x), c[0] + c[1]), (a, b), x))

    compare(f, real(5), real(5, seed=1), real(4, 5))


def test_rows_looked_up_by_the_numbers_of_a_sequence():
    def f(table, h, numbers):
        return leaves(cr.scan(lambda h, n: (h * 0.5 + cr.take(table, n, axis=0), h), h, numbers))

    numbers = wrap(np.random.default_rng(0).integers(0, 6, (8, 3)))
    compare(f, real(6, 5), real(3, 5), numbers)
    with pytest.raises(errors.IndexOutOfRange, match="index 6 is outside of an axis of size 6"):
        native(f, 2)(real(6, 5), real(3, 5), wrap(np.array([[0, 1, 2], [3, 6, 5]])))


def test_state_is_as_it_was_after_an_error_in_a_loop():
    class Table(nn.Module):
        def __init__(self):
            self.rows = nn.Parameter(real(6, 5))

    def step(model, numbers):
        last, _ = cr.scan(lambda h, n: (h + cr.take(model.rows, n, axis=0), None), cr.zeros((5,)), numbers)
        model.rows = model.rows + 1.0
        return last

    model = Table()
    before = np.asarray(model.rows).copy()
    compiled = native(step, 2)
    with pytest.raises(errors.IndexOutOfRange):
        compiled(model, wrap(np.array([0, 9])))
    np.testing.assert_array_equal(np.asarray(model.rows), before)


def test_a_loop_in_a_loop():
    def f(h, x, w):
        def outer(h, row):
            last, ys = cr.scan(lambda h, x: ((y := cr.tanh(h @ w + x)), y), h, row)
            return last * 0.5, cr.sum(ys, axis=0)

        return leaves(cr.scan(outer, h, x))

    compare(f, real(2, 5), real(3, 4, 2, 5), real(5, 5))


def test_derivatives_of_a_loop_in_a_loop():
    def f(h, x, w):
        def inner(h, x):
            product = h @ w
            y = cr.tanh(product[:, :5] * cr.sigmoid(product[:, 5:]) + x)
            return y, y * y

        def outer(h, row):
            last, ys = cr.scan(inner, h, row)
            return last * 0.5, cr.sum(ys, axis=0)

        def loss(h, x, w):
            last, ys = cr.scan(outer, h, x)
            return cr.sum(last) + cr.sum(ys * ys)

        return cr.grad(loss, (0, 1, 2))(h, x, w)

    compare(f, real(2, 5), real(3, 4, 2, 5), real(5, 10))


def test_a_loop_without_sequences():
    compare(lambda x: leaves(cr.scan(lambda x, _: (x * 1.5 - 0.1, x), x, length=13)), real(3, 3))


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_layers_train_alike_and_with_the_same_bits_on_any_number_of_threads(layer):
    module = layer(6, 19, num_layers=2, bidirectional=True)
    x, target = real(7, 3, 6), real(7, 3, 38)

    def f(module, x, target):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x)[0], target))(module)
        return loss, *grads.values()

    compiled = compare(f, module, x, target)
    first = compiled(module, x, target)
    for threads in (1, 3, 4, 7):
        for a, b in zip(first, on_threads(compiled, threads)(module, x, target), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("layer, width", [(nn.RNN, 33), (nn.LSTM, 16), (nn.LSTM, 45), (nn.GRU, 48)])
def test_in_a_loop_threads_keep_to_their_rows_and_do_not_wait(layer, width):
    batch = FEWEST_ROWS * detect().cores + 3
    module = layer(6, width, batch_first=True)
    x, target = real(batch, 21, 6), real(batch, 21, width)

    def f(module, x, target):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x)[0], target))(module)
        return loss, *grads.values()

    compiled = compare(f, module, x, target)
    assert len(plans(compiled)[1:]) == 2
    for loop in plans(compiled)[1:]:
        assert not loop.repeat_barrier and not loop.finish_barrier and not any(k.barrier for k in loop.kernels)
    first = compiled(module, x, target)
    for threads in (1, 2, 3, 4, 7):
        again = on_threads(compiled, threads)
        for _ in range(5):
            for a, b in zip(first, again(module, x, target), strict=True):
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_in_a_loop_that_mixes_rows_threads_wait():
    """What a step makes of one row is read beside another one in the next step."""
    batch = FEWEST_ROWS * detect().cores

    def f(h, x, w):
        return leaves(cr.scan(lambda h, x: ((y := cr.tanh(cr.flip(h, (0,)) @ w + x)), y), h, x))

    compiled = compare(f, real(batch, 17), real(9, batch, 17), real(17, 17))
    assert all(loop.repeat_barrier for loop in plans(compiled)[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("columns", [1, 5, 16, 35, 200])
def test_values_side_by_side_are_written_by_the_kernel_that_makes_them(columns, dtype):
    def f(a, b):
        c = a * b
        return cr.concat([c - a, c, a + b], axis=1), cr.sum(c, axis=1)

    compiled = compare(f, *((real(7, columns, seed=k) * 9).astype(dtype) for k in (1, 2)))
    plan = plans(compiled)[0]
    kind = {k.form for k in plan.kernels if any(plan.grouping.joins(n) for n in k.kernel.nodes)}
    assert kind == {"rows" if columns > 1 else "single"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("columns", [8, 200])
def test_gradients_side_by_side_have_no_negative_zeros(columns, dtype):
    """They are a sum of paddings, and −0 + 0 is 0."""

    def f(x, y):
        gradients = cr.grad(lambda x: cr.sum(cr.tanh(x[:, :columns]) * y + cr.tanh(x[:, columns:]) * y))(x)
        return gradients, gradients @ gradients.T

    y = np.asarray(real(9, columns, dtype=dtype)).copy()
    y[:, ::3] = -0.0
    xs = real(9, 2 * columns, dtype=dtype), wrap(y)
    compiled = compare(f, *xs, rtol=2e-3 if dtype == np.float16 else 2e-5)
    plan = plans(compiled)[0]
    assert {k.form for k in plan.kernels if any(map(plan.grouping.joins, k.kernel.nodes))} == {"rows"}
    assert not np.signbit(np.asarray(compiled(*xs)[0])[:, :columns][:, ::3]).any()


def test_what_is_the_same_in_each_step_is_computed_before():
    compiled = native(lambda h, x, w: leaves(cr.scan(lambda h, x: (h @ cr.exp(w).T + x, None), h, x)))
    compiled(real(2, 4), real(5, 2, 4), real(4, 4))
    *_, plan = compiled.engine.compiled[0]
    loop = next(k.loop for k in plan.kernels if k.loop is not None)
    inside = {n.primitive.name for n in loop.program.nodes}
    assert "exp" not in inside and "transpose" not in inside
    assert "in each step" in compiled.explain_plan()
