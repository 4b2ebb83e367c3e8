"""Differentiation: nesting, structures, accumulation, conventions, depth and memory."""

import dataclasses
import gc
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import errors, tree
from chainrule.core.autodiff import grad, jvp, stop_gradient, value_and_grad, vjp
from chainrule.core.check import check_gradients
from chainrule.core.tensor import LEAVES, Tensor, tensor
from chainrule.functions.custom import checkpoint, custom_vjp
from chainrule.primitives import elementwise as e
from chainrule.primitives import operators as o


def f64(*values):
    return tensor(np.array(values if len(values) > 1 else values[0], np.float64))


def total(x):
    from chainrule.primitives import layout

    return layout.reshape(layout.sum(x, axes=tuple(range(x.ndim))), shape=()) if x.ndim else x


@given(st.integers(1, 6), st.floats(0.3, 2.0))
def test_derivatives_nest_to_any_order(order, x):
    f = e.exp
    for _ in range(order):
        f = grad(f)
    assert float(f(f64(x))) == pytest.approx(math.exp(x), rel=1e-12)


def test_no_perturbation_confusion():
    inner = lambda x: grad(lambda y: x * y)(f64(1.0))
    assert float(grad(lambda x: x * inner(x))(f64(3.0))) == 6
    # d/dx [x · d/dy (x + y)] = 1
    assert float(grad(lambda x: x * grad(lambda y: x + y)(f64(1.0)))(f64(1.0))) == 1


def test_a_tensor_used_twice_gets_both_gradients():
    assert float(grad(lambda x: x * x + e.sin(x) * x)(f64(0.5))) == pytest.approx(
        1.0 + math.sin(0.5) + 0.5 * math.cos(0.5)
    )


def test_an_unused_argument_has_gradient_zero():
    ga, gb = grad(lambda a, b: a * 2, argnums=(0, 1))(f64(1.0), f64([1.0, 2.0]))
    assert float(ga) == 2
    assert gb.tolist() == [0, 0]


def test_the_same_tensor_as_two_arguments():
    x = f64(3.0)
    assert [float(g) for g in grad(lambda a, b: a * a * b, argnums=(0, 1))(x, x)] == [18, 9]


@dataclasses.dataclass
class Pair:
    first: Tensor
    second: dict


def test_gradients_have_the_structure_of_the_argument():
    at = {"a": [f64(1.0), f64(2.0)], "p": Pair(f64(3.0), {"n": tensor(4)}), "t": (f64(5.0), "static")}
    g = grad(lambda v: v["a"][0] * v["a"][1] * v["p"].first * v["p"].second["n"] + v["t"][0])(at)
    assert isinstance(g["p"], Pair)
    assert (float(g["a"][0]), float(g["a"][1]), float(g["p"].first)) == (24, 12, 8)
    assert g["p"].second["n"] is None
    assert float(g["t"][0]) == 1


def test_aux_comes_back_without_history():
    (value, aux), g = value_and_grad(lambda x: (x * x, {"seen": x + 1}), has_aux=True)(f64(2.0))
    assert (float(value), float(aux["seen"]), float(g)) == (4, 3, 4)
    assert aux["seen"].inputs == () and value.inputs == () and g.inputs == ()


@pytest.mark.parametrize("bad", [lambda x: x, lambda x: 3.0, lambda x: (x, x), lambda x: total(x).astype("int64")])
def test_only_one_number_has_a_gradient(bad):
    with pytest.raises(errors.GradientError, match="one floating-point number"):
        grad(bad)(f64([1.0, 2.0]))


def test_argnums_outside():
    with pytest.raises(errors.GradientError, match="argnums"):
        grad(lambda x: x, argnums=1)(f64(1.0))


def test_vjp_pulls_back_trees_repeatedly():
    y, pull = vjp(lambda a, b: {"sum": a + b, "product": a * b}, f64(2.0), f64(5.0))
    assert float(y["product"]) == 10
    for scale in (1.0, 3.0):
        da, db = pull({"sum": f64(0.0), "product": f64(scale)})
        assert (float(da), float(db)) == (5 * scale, 2 * scale)
    with pytest.raises(errors.GradientError, match="structure"):
        pull({"sum": f64(0.0)})


def test_jvp_agrees_with_differences():
    f = lambda x, w: e.tanh(o.matmul(x, w))
    rng = np.random.default_rng(0)
    x, w, dx, dw = (tensor(rng.standard_normal(s)) for s in [(2, 3), (3, 4), (2, 3), (3, 4)])
    y, dy = jvp(f, (x, w), (dx, dw))
    h = 1e-6
    numerical = (np.asarray(f(x + h * dx, w + h * dw)) - np.asarray(f(x - h * dx, w - h * dw))) / (2 * h)
    np.testing.assert_allclose(np.asarray(dy), numerical, atol=1e-8)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(f(x, w)))


def test_jvp_nests():
    d = lambda f: lambda x: jvp(f, (x,), (f64(1.0),))[1]
    assert float(d(d(d(e.sin)))(f64(0.3))) == pytest.approx(-math.cos(0.3))


def test_stop_gradient_stops_it_at_every_order():
    assert float(grad(lambda x: stop_gradient(x) * x)(f64(3.0))) == 3
    assert float(grad(grad(lambda x: stop_gradient(x) * x * x))(f64(3.0))) == 6


# -- rules of one's own


def test_custom_vjp_is_used_and_can_be_differentiated():
    cube = custom_vjp(lambda x: x * x * x, lambda dy, y, x: (dy * 3 * x * x,))
    assert float(grad(cube)(f64(2.0))) == 12
    assert float(grad(grad(cube))(f64(2.0))) == 12
    check_gradients(cube, f64([0.5, 1.5]))
    with pytest.raises(errors.GradientError):
        check_gradients(custom_vjp(lambda x: x * x, lambda dy, y, x: (dy * x,)), f64([0.5, 1.5]))


def test_custom_vjp_refuses_what_it_cannot_see():
    with pytest.raises(errors.GradientError, match="closes over"):
        grad(lambda w: custom_vjp(lambda x: x * w, lambda dy, y, x: (dy,))(f64(1.0)))(f64(2.0))


def test_checkpoint_has_the_same_derivatives_and_sees_captured_tensors():
    def f(x, w):
        block = checkpoint(lambda h: e.tanh(e.sin(h * w) * h))
        return total(block(block(x)) * w)

    def plain(x, w):
        block = lambda h: e.tanh(e.sin(h * w) * h)
        return total(block(block(x)) * w)

    x, w = f64([0.3, 0.7]), f64([1.1, 0.9])
    for a, b in zip(grad(f, (0, 1))(x, w), grad(plain, (0, 1))(x, w), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    check_gradients(f, x, w, order=2)


def test_checkpoint_stores_less():
    def chain(x):
        for _ in range(20):
            x = e.sin(x)
        return x

    def peak(block):
        x = tensor(np.ones(100_000))
        tracemalloc.start()
        grad(lambda x: total(block(block(block(x)))))(x)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(checkpoint(chain)) < 0.6 * peak(chain)


# -- conventions


@pytest.mark.parametrize(
    ("f", "x", "slope"),
    [
        (e.abs, 0.0, 0),
        (e.sign, 0.5, 0),
        (e.floor, 0.5, 0),
        (lambda x: o.maximum(x, 1.0), 1.0, 0.5),
        (lambda x: o.minimum(x, 1.0), 1.0, 0.5),
        (lambda x: x**2, 0.0, 0),
        (lambda x: o.power(x, 2.5), 0.0, 0),
        (lambda x: o.power(x, tensor(np.float64(0.0))), 0.0, 0),
    ],
)
def test_ties_share_and_kinks_take_zero(f, x, slope):
    assert float(grad(f)(f64(x))) == slope


def test_nan_passes_through_maximum_and_its_gradient():
    for a, b in ((np.nan, 1.0), (1.0, np.nan)):
        assert math.isnan(float(o.maximum(f64(a), f64(b))))
        assert all(math.isnan(float(g)) for g in grad(o.maximum, (0, 1))(f64(a), f64(b)))


# -- leaves, depth, memory


def test_backward_fills_grad_of_leaves_and_adds_up():
    w = tensor([1.0, 2.0], requires_grad=True)
    x = tensor([3.0, 4.0])
    total(w * x).backward()
    total(w * x).backward()
    assert w.grad.tolist() == [6, 8]
    assert x.grad is None
    assert w.grad.inputs == () and not w.grad.requires_grad


def test_backward_says_what_is_missing():
    with pytest.raises(errors.GradientError, match="requires_grad=True"):
        (tensor(1.0) * 2).backward()
    with pytest.raises(errors.GradientError, match="needs its gradient"):
        (tensor([1.0, 2.0], requires_grad=True) * 2).backward()


def test_a_functional_gradient_of_a_leaf_can_be_differentiated_by_backward():
    w = tensor(3.0, requires_grad=True)
    (grad(lambda v: v * v * v)(w)).backward()
    assert float(w.grad) == 18


def test_gradients_flow_to_what_a_function_closes_over():
    w = tensor(3.0, requires_grad=True)
    grad(lambda x: x * x * w)(tensor(2.0)).backward()
    assert float(w.grad) == 4


def test_a_chain_of_20_000_nodes():
    def deep(x):
        for _ in range(20_000):
            x = x + 1
        return x

    assert float(grad(deep)(f64(0.0))) == 1
    w = tensor(0.0, requires_grad=True)
    y = deep(w)
    y.backward()
    assert float(w.grad) == 1
    del y
    gc.collect()


def test_a_training_loop_keeps_no_history():
    w = tensor(np.ones(10))
    loss = lambda w: total(e.tanh(w) * w)

    def alive():
        gc.collect()
        return sum(isinstance(x, Tensor) for x in gc.get_objects())

    counts = []
    for steps in (3, 27):  # looking takes long, where many tests have run before
        for _ in range(steps):
            value, g = value_and_grad(loss)(w)
            w = w - 0.1 * g
        counts.append(alive())
    assert counts[1] == counts[0]
    assert value.inputs == ()


class Box(tree.Stateful):
    def __init__(self):
        self.weight = tensor(2.0, requires_grad=True)
        self.calls = tensor(0)

    def role(self, name):
        return "parameter" if name == "weight" else "state"


def test_a_stateful_argument_gets_named_gradients_and_its_state_is_written_back():
    box = Box()

    def f(b, x):
        b.calls = b.calls + 1
        return b.weight * x

    value, g = value_and_grad(f)(box, f64(3.0))
    assert (float(value), {k: float(v) for k, v in g.items()}) == (6, {"weight": 3})
    assert int(box.calls) == 1
    assert box.weight.scopes == {LEAVES} and value.inputs == ()


def test_a_function_may_not_change_the_structure_of_a_module():
    def f(b):
        b.extra = tensor(1.0)
        return b.weight

    with pytest.raises(errors.GradientError, match=r"extra was added .* only tensors change"):
        grad(f)(Box())


# -- check_gradients itself


def test_check_names_input_element_and_both_numbers():
    wrong = custom_vjp(lambda x: x * x, lambda dy, y, x: (dy * x * tensor(np.array([2.0, 2.0, 2.5])),))
    with pytest.raises(errors.GradientError, match=r"input 0, element \[2\]: .*numerically"):
        check_gradients(wrong, f64([1.0, 1.0, 3.0]))


def test_check_notices_wrong_second_derivatives():
    hidden = custom_vjp(lambda x: x * x, lambda dy, y, x: (dy * stop_gradient(2 * x),))
    check_gradients(hidden, f64([1.0, 2.0]), order=1)
    with pytest.raises(errors.GradientError, match="order 2"):
        check_gradients(hidden, f64([1.0, 2.0]), order=2)


def test_check_notices_kinks():
    with pytest.raises(errors.GradientError, match="kink"):
        check_gradients(lambda x: e.where(x <= 0, x * 0, x), f64([0.0, 1.0]))


def test_check_needs_something_to_differentiate_in_float64():
    with pytest.raises(errors.GradientError, match="no input is floating point"):
        check_gradients(lambda x: x, tensor([1]))
    with pytest.raises(errors.GradientError, match="turned float64 into float32"):
        check_gradients(lambda x: x.astype("float32"), f64([1.0]))
    with pytest.raises(errors.GradientError, match="no floating-point tensor"):
        check_gradients(lambda x: x > 0, f64([1.0]))


def test_backward_while_tracing_says_what_to_write_instead():
    from chainrule.compile import compile

    with pytest.raises(errors.GradientError, match="value_and_grad"):
        compile(lambda x: (x * x).backward())(tensor(1.0))


@pytest.mark.parametrize("export", [np.asarray, lambda x: x.numpy()])
def test_a_gradient_is_not_cut_off_by_numpy_in_silence(export):
    with pytest.raises(errors.GradientError, match="stop_gradient"):
        grad(lambda x: x * float(np.sum(export(x))))(f64(2.0))
    assert float(grad(lambda x: x * float(np.sum(export(stop_gradient(x)))))(f64(2.0))) == 2
    assert export(tensor(1.0, requires_grad=True) * 2) == 2  # no derivative under way
