"""Chains, clipping, accumulation, and optimisers made of transforms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError, DTypeError, GradientError

GRADS = [{"w": cr.tensor([3.0, -4.0]), "b": cr.tensor([12.0])}, {"w": cr.tensor([0.1, 0.2]), "b": cr.tensor([-0.2])}]
PARAMS = {"w": cr.tensor([1.0, 1.0]), "b": cr.tensor([1.0])}


def run(optimizer, params=PARAMS, grads=GRADS):
    for g in grads:
        params = optimizer.update(params, g)
    return {n: p.numpy() for n, p in params.items()}


def assert_close(a, b, rtol=1e-6):
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, err_msg=name)


# -- clipping


def test_the_norm_is_that_of_all_gradients_together():
    assert float(optim.global_norm(GRADS[0])) == 13.0
    assert float(optim.global_norm(GRADS[0], 1)) == 19.0
    assert float(optim.global_norm(GRADS[0], math.inf)) == 12.0
    assert float(optim.global_norm({"a": None, "b": [cr.tensor([3.0]), {"c": cr.tensor(4.0)}]})) == 5.0
    assert float(optim.global_norm({})) == 0.0 and float(optim.global_norm({"w": cr.zeros((0,))})) == 0.0


def test_the_norm_does_not_overflow():
    huge = {"w": cr.tensor(np.array([3e30, 4e30], np.float32))}
    clipped, norm = optim.clip_grad_norm(huge, 1.0)
    assert float(norm) == pytest.approx(5e30)
    assert clipped["w"].tolist() == pytest.approx([0.6, 0.8])
    halves, _ = optim.clip_grad_norm({"w": cr.tensor(np.array([300.0, 400.0], np.float16))}, 1.0)
    assert halves["w"].dtype == cr.float16 and halves["w"].tolist() == pytest.approx([0.6, 0.8], rel=1e-3)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_after_clipping_the_norm_is_at_most_the_limit_and_the_direction_is_kept(values, limit):
    clipped, norm = optim.clip_grad_norm({"g": cr.tensor(np.array(values))}, limit)
    assert float(optim.global_norm(clipped)) <= limit * (1 + 1e-12)
    if float(norm) + 1e-6 < limit:
        assert clipped["g"].tolist() == values
    np.testing.assert_allclose(
        clipped["g"].numpy() * float(norm), np.array(values) * float(optim.global_norm(clipped)), rtol=1e-6, atol=1e-12
    )


def test_clipping_keeps_the_structure_and_none():
    clipped, _ = optim.clip_grad_norm({"a": [cr.tensor([9.0]), None], "b": None}, 1.0)
    assert clipped["b"] is None and clipped["a"][1] is None


def test_a_norm_that_is_no_number_shows():
    broken = {"w": cr.tensor([float("nan"), 1.0])}
    clipped, norm = optim.clip_grad_norm(broken, 1.0)
    assert math.isnan(float(norm)) and np.isnan(clipped["w"].numpy()).all()
    with pytest.raises(GradientError, match="norm of the gradients is nan"):
        optim.clip_grad_norm(broken, 1.0, error_if_nonfinite=True)


def test_an_infinite_limit_only_measures():
    clipped, norm = optim.clip_grad_norm(GRADS[0], math.inf)
    assert clipped["w"].tolist() == [3.0, -4.0] and float(norm) == 13.0


def test_clipping_by_value_keeps_nan():
    clipped = optim.clip_grad_value({"w": cr.tensor([float("nan"), float("inf"), -0.5, -9.0])}, 1.0)["w"].tolist()
    assert math.isnan(clipped[0]) and clipped[1:] == [1.0, -0.5, -1.0]


def test_clipping_integers_is_refused():
    with pytest.raises(DTypeError, match="'w' is no floating-point tensor"):
        optim.clip_grad_norm({"w": cr.tensor([1])}, 1.0)


@pytest.mark.parametrize("limit", [-1.0, float("nan"), "1", None])
def test_limits_that_make_no_sense(limit):
    for make in (optim.clip_by_global_norm, optim.clip_by_value):
        with pytest.raises(ConfigError):
            make(limit)


# -- chains


def test_an_optimiser_in_a_chain_sees_clipped_gradients():
    chained = run(optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(lr=0.1)))
    by_hand = run(optim.Adam(lr=0.1), grads=[optim.clip_grad_norm(g, 1.0)[0] for g in GRADS])
    assert_close(chained, by_hand)
    plain = run(optim.Adam(lr=0.1))
    assert abs(plain["b"] - chained["b"]) > 1e-3


def test_the_norm_is_taken_over_all_groups():
    optimizer = optim.chain(optim.clip_by_global_norm(1.3), optim.SGD(lr=1.0, groups=[{"params": "b", "lr": 0.1}]))
    new = run(optimizer, grads=GRADS[:1])
    assert_close(new, {"w": np.array([1 - 0.3, 1 + 0.4]), "b": np.array([1 - 0.1 * 1.2])})


def test_what_stands_after_an_optimiser_sees_its_updates():
    new = run(optim.chain(optim.SGD(lr=0.5), optim.clip_by_value(1.0)), grads=GRADS[:1])
    assert_close(new, {"w": np.array([0.0, 2.0]), "b": np.array([0.0])})


def test_a_chain_of_an_optimiser_is_an_optimiser():
    adam = optim.Adam(lr=0.1)
    optimizer = optim.chain(optim.clip_by_value(1.0), adam)
    assert isinstance(optimizer, optim.Adam) and optimizer is not adam and adam.state is None
    optimizer.lr = 0.25
    assert optimizer.lr == 0.25 and adam.lr == 0.1
    run(optimizer)
    assert optimizer.steps == 2 and list(optimizer.slots("w")) == ["step", "mean", "square"]


def test_a_chain_of_a_bound_optimiser_is_bound():
    params = {"w": cr.tensor([5.0], requires_grad=True)}
    optimizer = optim.chain(optim.clip_by_value(1.0), optim.SGD(params, lr=1.0))
    (params["w"] ** 2).sum().backward()
    optimizer.step()
    assert params["w"].tolist() == [4.0]


def test_chains_may_be_nested():
    inner = optim.chain(optim.clip_by_value(2.0), optim.SGD(lr=0.5))
    outer = optim.chain(optim.scale(0.5), inner, optim.scale(2.0))
    new = run(outer, grads=GRADS[:1])
    assert_close(new, {"w": np.array([1 - 1.5, 1 + 2.0]), "b": np.array([1 - 2.0])})
    assert "chain(scale(factor=0.5), chain(clip_by_value" in repr(outer)


@pytest.mark.parametrize(
    ("built", "ready"),
    [
        (
            lambda: optim.chain(optim.add_decayed_weights(0.1), optim.trace(0.9), optim.scale_by_learning_rate(0.1)),
            lambda: optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
        ),
        (
            lambda: optim.chain(
                optim.scale_by_adam(), optim.add_decayed_weights(0.1), optim.scale_by_learning_rate(optim.step(0.1, 1))
            ),
            lambda: optim.AdamW(lr=optim.step(0.1, 1), weight_decay=0.1),
        ),
    ],
)
def test_optimisers_built_by_hand_are_the_ready_ones(built, ready):
    grads = GRADS * 3
    assert_close(run(optim.Composed(built()), grads=grads), run(ready(), grads=grads))
    composed = optim.Composed(built(), {n: p for n, p in PARAMS.items()})
    run(composed, grads=grads)
    again = optim.Composed(built(), PARAMS)
    again.load_state_dict(composed.state_dict())
    assert_close(run(again), run(composed), rtol=0)


def test_the_same_part_twice_has_two_states():
    twice = optim.chain(optim.trace(0.5), optim.trace(0.5))
    state = twice.init(PARAMS)
    assert list(state) == ["momentum", "momentum_2"]
    updates, state = twice.update(GRADS[0], state, PARAMS)
    updates, _ = twice.update(GRADS[0], state, PARAMS)
    assert updates["b"].tolist() == [12.0 * (1 + 0.5 + 0.5)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.chain(optim.Adam(), optim.SGD()), "one optimiser"),
        (lambda: optim.chain(optim.clip_by_value(1.0), "Adam"), "made of transforms"),
        (lambda: optim.chain(1.0, optim.Adam()), "made of transforms"),
        (lambda: optim.Composed(optim.Adam()), "takes a transform"),
        (lambda: optim.chain(optim.Transform(dict, lambda g, s, p: (g, s), "inner"), optim.Adam()), "cannot be named"),
        (lambda: optim.chain(optim.clip_by_value(1.0), optim.LBFGS()), "cannot be chained"),
    ],
)
def test_chains_that_make_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# -- accumulation


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=0.1, momentum=0.9),
        lambda: optim.Adam(lr=optim.exponential(0.1, 0.5)),
        lambda: optim.chain(optim.clip_by_global_norm(0.1), optim.RMSprop(lr=0.1)),
    ],
)
def test_accumulated_small_batches_equal_a_big_batch(make):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 3)), rng.normal(size=(24, 1))

    def loss(model, rows):
        return ((model(cr.tensor(x[rows])) - cr.tensor(y[rows])) ** 2).mean()

    small, big = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to("float64") for _ in range(2))
    small.assign({n: cr.tensor(rng.normal(size=p.shape)) for n, p in small.named_parameters()})
    big.load_state_dict(small.state_dict())
    accumulating, plain = optim.accumulate(make(), steps=4), make()
    for _ in range(3):
        for k in range(4):
            _, grads = cr.value_and_grad(lambda m: loss(m, slice(6 * k, 6 * k + 6)))(small)  # noqa: B023
            before = small.state_dict()
            accumulating.update(small, grads)
            changed = any(not np.array_equal(before[n].numpy(), p.numpy()) for n, p in small.named_parameters())
            assert changed == (k == 3)
        _, grads = cr.value_and_grad(lambda m: loss(m, slice(None)))(big)
        plain.update(big, grads)
    for name, p in small.named_parameters():
        np.testing.assert_allclose(p.numpy(), big.state_dict()[name].numpy(), rtol=1e-10)
    assert accumulating.steps == plain.steps == 3
    assert accumulating.lr == plain.lr


def test_accumulation_of_sums():
    optimizer = optim.accumulate(optim.SGD(lr=1.0), steps=2, average=False)
    assert run(optimizer, grads=[{"w": cr.tensor([1.0, 0.0]), "b": cr.tensor([1.0])}] * 4)["w"].tolist() == [-3.0, 1.0]


def test_accumulation_over_one_step_is_the_optimiser_itself():
    assert_close(run(optim.accumulate(optim.Adam(lr=0.1), 1)), run(optim.Adam(lr=0.1)), rtol=0)


def test_accumulating_transforms():
    transform = optim.accumulate(optim.trace(0.5), steps=2)
    state, updates = transform.init(PARAMS), []
    for _ in range(4):
        update, state = transform.update({"w": cr.tensor([1.0, 2.0]), "b": None}, state, PARAMS)
        updates.append(update["w"].tolist())
        assert update["b"] is None
    assert updates == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [1.5, 3.0]]


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2", True])
def test_accumulation_that_makes_no_sense(steps):
    with pytest.raises(ConfigError, match="steps is a whole number of at least 1"):
        optim.accumulate(optim.SGD(), steps)
    with pytest.raises(ConfigError, match="takes an optimiser or a transform"):
        optim.accumulate("SGD", 2)
