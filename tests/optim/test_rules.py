"""The transforms, against closed forms and the formulas of their papers."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import optim
from chainrule.errors import ConfigError, StateError

ALGORITHMS = [
    optim.SGD, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Lion, optim.Adam, optim.AdamW, optim.Adamax,
    optim.NAdam, optim.RAdam,
]  # fmt: skip
SCALES = [
    optim.scale_by_adam(), optim.scale_by_adam(amsgrad=True), optim.scale_by_adamax(), optim.scale_by_nadam(),
    optim.scale_by_radam(), optim.scale_by_rms(), optim.scale_by_rms(centered=True), optim.scale_by_adagrad(),
    optim.scale_by_adagrad(lr_decay=0.1), optim.scale_by_adadelta(), optim.scale_by_lion(), optim.trace(0.9),
    optim.trace(0.9, dampening=0.5), optim.trace(0.9, nesterov=True), optim.add_decayed_weights(0.1), optim.scale(2.0),
    optim.clip_by_value(0.5), optim.clip_by_global_norm(1.0), optim.scale_by_learning_rate(0.1),
    optim.scale_by_learning_rate(optim.exponential(0.1, 0.9)),
]  # fmt: skip


def run(transform, grads, start=0.0, dtype="float64"):
    """The updates of one parameter for a list of gradients."""
    params = {"w": cr.tensor(np.full(np.shape(grads[0]), start), dtype=dtype)}
    state, updates = transform.init(params), []
    for g in grads:
        update, state = transform.update({"w": cr.tensor(np.asarray(g), dtype=dtype)}, state, params)
        updates.append(update["w"].numpy())
    return updates


def test_momentum_of_a_constant_gradient_is_a_geometric_series():
    updates = run(optim.trace(0.9), [2.0] * 30)
    for t, u in enumerate(updates, start=1):
        assert u == pytest.approx(2.0 * (1 - 0.9**t) / (1 - 0.9), rel=1e-12)


def test_dampening_does_not_touch_the_first_step():
    assert [float(u) for u in run(optim.trace(0.5, dampening=0.75), [4.0, 4.0, 4.0])] == [4.0, 3.0, 2.5]


def test_nesterov_looks_one_step_ahead():
    plain, ahead = run(optim.trace(0.9), [1.0, -2.0, 3.0]), run(optim.trace(0.9, nesterov=True), [1.0, -2.0, 3.0])
    for g, b, u in zip([1.0, -2.0, 3.0], plain, ahead, strict=True):
        assert u == pytest.approx(g + 0.9 * b, rel=1e-14)


@given(st.floats(0.01, 100), st.integers(1, 50))
def test_adam_of_a_constant_gradient_makes_steps_of_one(g, steps):
    for u in run(optim.scale_by_adam(eps=0.0), [g] * steps):
        assert u == pytest.approx(1.0, rel=1e-9)


def test_amsgrad_never_forgets_a_large_gradient():
    grads = [100.0] + [1.0] * 50
    plain = run(optim.scale_by_adam(betas=(0.0, 0.5)), grads)[-1]
    kept = run(optim.scale_by_adam(betas=(0.0, 0.5), amsgrad=True), grads)[-1]
    assert plain == pytest.approx(1.0, rel=1e-6)
    assert kept == pytest.approx(1 / np.sqrt(0.5 * 100.0**2), rel=1e-6)


def test_rms_of_a_constant_gradient():
    for t, u in enumerate(run(optim.scale_by_rms(alpha=0.9, eps=0.0), [3.0] * 20), start=1):
        assert u == pytest.approx(1 / np.sqrt(1 - 0.9**t), rel=1e-12)


def test_centered_rms_survives_a_difference_that_rounding_makes_negative():
    updates = run(optim.scale_by_rms(alpha=0.5, centered=True), [np.float64(0.1)] * 200)
    assert np.isfinite(updates).all()


def test_adagrad_of_a_constant_gradient_falls_with_the_root():
    for t, u in enumerate(run(optim.scale_by_adagrad(eps=0.0), [5.0] * 20), start=1):
        assert u == pytest.approx(1 / np.sqrt(t), rel=1e-12)


def test_lion_is_the_formula_of_its_paper():
    rng = np.random.default_rng(0)
    grads, m = rng.normal(size=(20, 7)), np.zeros(7)
    for g, u in zip(grads, run(optim.scale_by_lion((0.9, 0.99)), list(grads)), strict=True):
        np.testing.assert_array_equal(u, np.sign(0.9 * m + 0.1 * g))
        m = 0.99 * m + 0.01 * g


def test_lion_with_decoupled_decay_against_the_paper():
    rng = np.random.default_rng(1)
    optimizer, params = optim.Lion(lr=0.1, betas=(0.8, 0.95), weight_decay=0.3), {"w": cr.tensor(rng.normal(size=5))}
    p, m = params["w"].numpy(), np.zeros(5)
    for _ in range(20):
        g = rng.normal(size=5)
        p, m = p - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.3 * p), 0.95 * m + 0.05 * g
        params = optimizer.update(params, {"w": cr.tensor(g)})
        np.testing.assert_allclose(params["w"].numpy(), p, rtol=1e-12)


def test_decoupled_decay_does_not_pass_through_the_moments():
    params, zero = {"w": cr.tensor([2.0])}, {"w": cr.tensor([0.0])}
    assert optim.AdamW(lr=0.5, weight_decay=0.5).update(params, zero)["w"].tolist() == [1.5]
    assert optim.Adam(lr=0.5, weight_decay=0.5).update(params, zero)["w"].tolist() == pytest.approx([1.5], rel=1e-6)
    assert optim.Adam(lr=0.5, weight_decay=9.0).update(params, zero)["w"].tolist() == pytest.approx([1.5], rel=1e-6)


@pytest.mark.parametrize("transform", SCALES, ids=str)
def test_a_gradient_of_none_leaves_update_and_state_alone(transform):
    params = {"a": cr.tensor([1.0, 2.0]), "b": cr.tensor([3.0])}
    first, state = transform.update(
        {"a": cr.tensor([1.0, -2.0]), "b": cr.tensor([2.0])}, transform.init(params), params
    )
    assert set(first) == {"a", "b"}
    update, after = transform.update({"a": None, "b": cr.tensor([1.0])}, state, params)
    assert update["a"] is None and update["b"].shape == (1,)
    for slot, entries in after.items():
        if isinstance(entries, dict):
            assert entries["a"] is state[slot]["a"]
            assert list(entries) == list(state[slot])


@pytest.mark.parametrize("transform", SCALES, ids=str)
def test_transforms_are_pure(transform):
    params = {"a": cr.tensor([1.0, 2.0])}
    state, grads = transform.init(params), {"a": cr.tensor([1.0, -2.0])}
    first, _ = transform.update(grads, state, params)
    again, _ = transform.update(grads, state, params)
    assert first["a"].tolist() == again["a"].tolist()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_halves_keep_float32_moments_and_round_once(algorithm, dtype):
    numpy_dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=6).astype(numpy_dtype), rng.normal(size=(5, 6)).astype(numpy_dtype)
    half, exact = {"w": cr.tensor(start)}, {"w": cr.tensor(start.astype(np.float32))}
    ours, reference = algorithm(lr=0.1), algorithm(lr=0.1)
    for g in grads:
        before = half["w"].numpy().astype(np.float32)
        half = ours.update(half, {"w": cr.tensor(g)})
        exact = reference.update({"w": cr.tensor(before)}, {"w": cr.tensor(g.astype(np.float32))})
        np.testing.assert_array_equal(half["w"].numpy(), exact["w"].numpy().astype(numpy_dtype))
    kept = [x for name, x in ours.state_dict().items() if x.shape == (6,)]
    assert all(x.dtype == cr.float32 for x in kept)
    assert half["w"].dtype == cr.tensor(start).dtype


def test_small_gradients_do_not_vanish_in_float16_moments():
    params = {"w": cr.tensor(np.array([1.0], np.float16))}
    optimizer = optim.Adam(lr=0.5)
    new = optimizer.update(params, {"w": cr.tensor(np.array([1e-4], np.float16))})
    assert new["w"].tolist() == [0.5]  # the square, 1e-8, is 0 in float16


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_nan_in_a_gradient_reaches_its_own_element_alone(algorithm):
    new = algorithm(lr=0.1).update({"w": cr.tensor([1.0, 2.0])}, {"w": cr.tensor([float("nan"), 1.0])})["w"].numpy()
    assert np.isnan(new[0]) and np.isfinite(new[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_empty_and_scalar_parameters(algorithm):
    params = {"none": cr.zeros((0, 3)), "one": cr.tensor(1.0)}
    new = algorithm(lr=0.1).update(params, {"none": cr.zeros((0, 3)), "one": cr.tensor(1.0)})
    assert new["none"].shape == (0, 3) and new["one"].shape == () and float(new["one"]) < 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_maximize_goes_uphill_as_far_as_minimising_goes_down(algorithm):
    up, down = {"w": cr.tensor([0.0, 0.0])}, {"w": cr.tensor([0.0, 0.0])}
    climber, faller = algorithm(lr=0.1, maximize=True), algorithm(lr=0.1)
    for g in ([1.0, -2.0], [0.5, 3.0]):
        up, down = climber.update(up, {"w": cr.tensor(g)}), faller.update(down, {"w": cr.tensor(g)})
        assert up["w"].tolist() == [-x for x in down["w"].tolist()]


def test_state_is_needed_for_each_parameter():
    adam = optim.scale_by_adam()
    with pytest.raises(StateError, match=r"no state for 'b'.*'a'"):
        adam.update({"b": cr.tensor([1.0])}, adam.init({"a": cr.tensor([1.0])}), {"b": cr.tensor([1.0])})


def test_transforms_with_equal_settings_are_equal():
    assert optim.clip_by_value(1) == optim.clip_by_value(1.0)
    assert hash(optim.clip_by_value(1)) == hash(optim.clip_by_value(1.0))
    assert optim.clip_by_value(1.0) != optim.clip_by_value(2.0)
    assert optim.scale_by_adam() != optim.scale_by_radam()
    nothing = lambda params: {}
    unknown = [optim.Transform(nothing, lambda g, s, p: (g, s)) for _ in range(2)]
    assert unknown[0] != unknown[1] and unknown[0] == unknown[0]
    assert optim.chain(optim.scale(2.0), optim.trace(0.9)) == optim.chain(optim.scale(2.0), optim.trace(0.9))
    assert optim.chain(optim.scale(2.0), optim.trace(0.9)) != optim.chain(optim.scale(2.0), optim.trace(0.8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.Adam(lr=-1), "lr must be at least 0"),
        (lambda: optim.Adam(lr="0.1"), "lr is a number"),
        (lambda: optim.Adam(lr=float("nan")), "lr is a number"),
        (lambda: optim.Adam(lr=float("inf")), "finite"),
        (lambda: optim.Adam(lr=True), "lr is a number"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), r"betas\[1\] must be in \[0, 1\)"),
        (lambda: optim.Adam(betas=0.9), "pair of numbers"),
        (lambda: optim.Adam(eps=-1e-8), "eps must be"),
        (lambda: optim.Adam(weight_decay=-0.1), "weight_decay must be"),
        (lambda: optim.Adam(amsgrad=1), "amsgrad is True or False"),
        (lambda: optim.SGD(nesterov=True), "nesterov needs momentum"),
        (lambda: optim.SGD(momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs momentum"),
        (lambda: optim.SGD(momentum=-0.9), "momentum must be"),
        (lambda: optim.RMSprop(alpha=1.5), r"alpha must be in \[0, 1\]"),
        (lambda: optim.Adagrad(initial_accumulator_value=-1), "initial_accumulator_value must be"),
        (lambda: optim.scale(float("nan")), "factor is a number"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
