"""Flat passes: what an optimiser does to parameters of any shape, in one pass, with the results of the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import bits, compare, native, on_threads, plans, real

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.division import Rows
from chainrule.engines.native.evaluate import Place
from chainrule.errors import CompileError


def runs(compiled):
    """How many parameters each pass goes through."""
    (plan, *_) = plans(compiled)
    return [len(k.run) for k in plan.kernels if k.run and not k.absorbed]


def mlp(dtype="float32"):
    generator = cr.random.Generator(0)
    layers = [nn.Linear(n, m, dtype=dtype, generator=generator) for n, m in ((7, 33), (33, 20), (20, 3))]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def trained(run, optimizer, steps=5, dtype="float32"):
    """Losses and weights after some steps."""
    model, x, y = mlp(dtype), real(12, 7, dtype=dtype), cr.arange(12) % 3
    found = [run(model, optimizer, x, y) for _ in range(steps)]
    return [np.asarray(loss) for loss in found], {k: np.asarray(v) for k, v in model.state_dict().items()}


CLIPPED = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "momentum": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda: optim.Adam(lr=1e-2),
    "adamw": lambda: optim.AdamW(lr=1e-2),
    "rmsprop": lambda: optim.RMSprop(lr=1e-3, momentum=0.5),
    "adagrad": lambda: optim.Adagrad(lr=1e-2),
}


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipped_updates_are_one_pass(name, dtype):
    def optimizer():
        return optim.chain(optim.clip_by_global_norm(0.5), CLIPPED[name]())

    compiled = native(step, 2)
    found, expected = trained(compiled, optimizer(), dtype=dtype), trained(step, optimizer(), dtype=dtype)
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    for key, value in expected[1].items():
        np.testing.assert_allclose(found[1][key], value, rtol=10 * tolerance, atol=tolerance)
    assert runs(compiled) == [6]
    for threads in (1, 3, 4, 7):
        again = trained(on_threads(compiled, threads), optimizer(), dtype=dtype)
        assert bits(again[0]) == bits(found[0])
        assert bits(again[1]) == bits(found[1])


@pytest.mark.parametrize("clipped", [False, True])
def test_accumulated_gradients_join_their_products_or_are_one_pass(clipped):
    def optimizer():
        inner = optim.chain(optim.clip_by_global_norm(0.5), optim.Adam(lr=1e-2)) if clipped else optim.Adam(lr=1e-2)
        return optim.accumulate(inner, steps=3)

    compiled = native(step, 2)
    found, expected = trained(compiled, optimizer(), steps=9), trained(step, optimizer(), steps=9)
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5)
    for key, value in expected[1].items():
        np.testing.assert_allclose(found[1][key], value, rtol=2e-4, atol=2e-5)
    assert runs(compiled) == ([6] if clipped else [])


# -- Programs of one's own: state that is updated


class State(nn.Module):
    """Some tensors that a step changes."""

    def __init__(self, values):
        self.names = [f"s{k}" for k in range(len(values))]
        for name, value in zip(self.names, values, strict=True):
            self.register_buffer(name, cr.tensor(np.array(value)))

    def apply(self, f):
        for name, value in zip(self.names, f(*[getattr(self, name) for name in self.names]), strict=True):
            setattr(self, name, value)


def updated(f, *values, steps=3, expected=None):
    """Hold a function that returns new state for old against the reference, over some steps."""

    def make(run):
        state, loss = State(values), cr.tensor(1.0)
        for _ in range(steps):
            run(state, loss)
        return {name: np.asarray(getattr(state, name)) for name in state.names}

    def one(state, loss):
        state.apply(f)
        return loss * 2

    compiled = native(one, 2)
    found, reference = make(compiled), make(one)
    for key, value in reference.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=1e-6)
    for threads in (1, 3, 7):
        assert bits(make(on_threads(compiled, threads))) == bits(found)
    assert expected is None or runs(compiled) == expected
    return compiled


def numbers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


SHAPES = st.lists(
    st.sampled_from([(), (0,), (1,), (2,), (15,), (16,), (17,), (3, 5), (100,), (8, 16), (1, 33), (300,), (40, 40)]),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([np.float32, np.float64]), st.integers(0, 2))
def test_parameters_of_any_shape(shapes, dtype, kind):
    values = [numbers(*shape, dtype=dtype, seed=k) for k, shape in enumerate(shapes)]
    number = numbers(5, seed=9)

    def f(*state):
        *weights, first = state
        scale = cr.sum(cr.exp(first))
        new = [w * 0.5 + scale.astype(w.dtype) for w in weights]
        if kind == 1:
            new = [cr.sin(w) * w - n for w, n in zip(weights, new, strict=True)]
        if kind == 2:
            new = [cr.where(w < 0, n, w) for w, n in zip(weights, new, strict=True)]
        return *new, first * 0.9

    updated(f, *values, number)


RULES = {
    "half": lambda x, other, new: x * 0.5,
    "both": lambda x, other, new: x * 0.5 + other,
    "sine": lambda x, other, new: cr.sin(other) - x,
    "other": lambda x, other, new: other * 0.5,
    "new": lambda x, other, new: x * 0.5 + new,
    "sum": lambda x, other, new: x + cr.mean(other),
    "kept": lambda x, other, new: cr.where(cr.sum(other) < 0, x, x * 0.25),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_updates_that_read_each_other(data):
    shapes = data.draw(st.lists(st.sampled_from([(20,), (3, 9), (5,), (1, 40)]), min_size=2, max_size=9))
    alike = [[k for k, other in enumerate(shapes) if other == shape] for shape in shapes]
    rules = [data.draw(st.sampled_from(sorted(RULES))) for _ in shapes]
    others = [data.draw(st.sampled_from(found)) for found in alike]

    def f(*state):
        new: list = []
        for k, x in enumerate(state):
            made = new[others[k]] if others[k] < k else state[others[k]]
            new.append(RULES[rules[k]](x, state[others[k]], made))
        return new

    updated(f, *[numbers(*shape, seed=k) for k, shape in enumerate(shapes)])


def test_values_that_are_read_by_two_lie_beside_the_same_others():
    def f(a, b, c, d):
        return a * 2 + c, b * 2 + d, c * 0.5 - a, d * 0.5 - b

    updated(f, numbers(20), numbers(3, 9), numbers(20, seed=1), numbers(3, 9, seed=1))


def test_values_that_would_have_to_lie_beside_different_others():
    def f(a, c, p1, p2, p3):
        return a * 2 + p1, c * 2 + p2, cr.sin(p1), p2 * 0.5, p3 * 0.5

    updated(f, numbers(20), numbers(3, 9), numbers(20, seed=1), numbers(3, 9, seed=1), numbers(5), expected=[2])


def test_what_is_read_by_all_is_no_run():
    def f(a, b, g):
        return a - g, b - g, g * 0.9

    updated(f, numbers(20), numbers(20, seed=1), numbers(20, seed=2))


def test_chains_that_read_each_other_are_no_run():
    def f(a, b, c):
        new = a * 0.5
        return new, b - new, c - b

    updated(f, numbers(20), numbers(20, seed=1), numbers(20, seed=2))


def test_state_that_changes_places():
    updated(lambda a, b: (b * 0.5, a * 0.5), numbers(20), numbers(20, seed=1))


def test_floats_of_different_width_are_different_runs():
    values = [numbers(9), numbers(30), numbers(9, dtype=np.float64), numbers(30, dtype=np.float64)]
    updated(lambda *ws: tuple(w * 0.5 + 1 for w in ws), *values, expected=[2, 2])


def test_stacks_of_products_that_are_a_run_are_not_cut_as_stacks():
    def f(a, b, c, d):
        p, q = a @ b, c @ d
        scale = 1 / cr.sum(cr.exp(p))
        return p * scale, q * scale, cr.sum(p * scale, axis=1), cr.sum(q * scale, axis=1)

    xs = real(12, 9, 5), real(12, 5, 20), real(12, 7, 5), real(12, 5, 40)
    compiled = compare(f, *xs, others=(1, 3, 7))
    assert max(runs(compiled)) >= 2


def test_nothing_is_computed_in_place_that_others_still_read():
    def f(a, b, c):
        return a * 0.5, b * 0.5, c + cr.sum(a) + cr.sum(b)

    updated(f, numbers(200), numbers(17), numbers(30, 3))


def test_a_vector_of_one_row_does_not_join_for_a_number():
    def f(w, other):
        norm = cr.sqrt(cr.sum(other * other))
        return w - 0.1 * w / norm, other - 0.1 * other / norm

    compiled = updated(f, numbers(33), numbers(5, 33), expected=[2])
    assert not plans(compiled)[0].schedule.copied


def test_softmax_of_one_row_stays_one_kernel():
    compiled = native(lambda x: cr.softmax(x, axis=1))
    compiled(real(1, 40))
    assert len(plans(compiled)[0].kernels) == 1


# -- the proof of a plan


@pytest.fixture
def plan():
    return plans(updated(lambda *ws: tuple(w * 0.5 + 1 for w in ws), numbers(9), numbers(30), numbers(4, 40)))[0]


def wrong(plan, message):
    with pytest.raises(CompileError, match=message):
        verify_plan(plan)


def test_values_that_lie_apart(plan):
    run = next(k.run for k in plan.kernels if k.run)
    (new,) = run[1].kernel.outputs
    old = plan.schedule.in_place[new]
    plan.places[new] = plan.places[old] = Place(plan.arena_bytes)
    plan.arena_bytes += 4096
    wrong(plan, "do not lie alike")


def test_kernels_of_a_run_that_do_not_follow_each_other(plan):
    plan.kernels.reverse()
    wrong(plan, "is not followed by")


def test_too_many_elements(plan):
    next(k for k in plan.kernels if k.run).elements += 16
    wrong(plan, "do not lie alike")


def test_a_run_that_is_cut_in_another_way(plan):
    first = next(k for k in plan.kernels if k.run)
    first.form, first.share = "rows", Rows(9, 1, 0)
    wrong(plan, "does not go through the whole")


def test_a_barrier_inside_of_a_run(plan):
    next(k.run for k in plan.kernels if k.run)[1].barrier = True
    wrong(plan, "others are computed")
