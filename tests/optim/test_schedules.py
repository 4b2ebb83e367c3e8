"""Learning-rate schedules: closed forms, ends, restarts, joins; the plateau."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import optim
from chainrule.errors import ConfigError, StateError

ALL = [
    optim.constant(0.1),
    optim.linear(0.1, 10),
    optim.step(0.1, 3),
    optim.multistep(0.1, [2, 5]),
    optim.exponential(0.1, 0.9),
    optim.polynomial(0.1, 10, 2.0),
    optim.cosine(0.1, 10, 0.01),
    optim.cosine_restarts(0.1, 2, 2),
    optim.cosine_restarts(0.1, 3),
    optim.one_cycle(0.1, 20),
    optim.one_cycle(0.1, 20, three_phase=True, anneal_strategy="linear"),
    optim.warmup(4, optim.cosine(0.1, 10)),
    optim.join([0.1, optim.exponential(0.1, 0.9)], [5]),
]


def values(schedule, steps):
    return [float(schedule(t)) for t in range(steps)]


@given(st.floats(1e-6, 10), st.integers(1, 1000), st.integers(0, 2000), st.floats(0, 1))
def test_closed_forms(lr, total, t, gamma):
    done = min(t / total, 1.0)
    close = lambda schedule, value: float(schedule(t)) == pytest.approx(value, rel=1e-9, abs=1e-300)
    assert close(optim.linear(lr, total, 0.25, 0.5), lr * (0.25 + 0.25 * done))
    assert close(optim.step(lr, total, gamma), lr * gamma ** (t // total))
    assert close(optim.exponential(lr, gamma), lr * gamma**t)
    assert close(optim.polynomial(lr, total, 2.0), lr * (1 - done) ** 2)
    assert float(optim.cosine(lr, total)(t)) == pytest.approx(lr * 0.5 * (1 + math.cos(math.pi * done)), abs=1e-15)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_gives_float64_scalars_of_numbers_and_of_tensors(schedule):
    for t in range(30):
        rate = schedule(t)
        assert rate.shape == () and rate.dtype == cr.float64
        assert 0 <= float(rate) <= 0.1 * (1 + 1e-12)
        assert float(schedule(cr.tensor(t))) == float(rate)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_can_be_compiled(schedule):
    fast = cr.compile(lambda t: schedule(t), engine="reference")
    for t in range(30):
        assert float(fast(cr.tensor(t))) == float(schedule(t))
    assert fast.compilations == 1


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_rates_stay_finite_for_very_large_counts(schedule):
    assert math.isfinite(float(schedule(10**9)))


def test_a_cosine_stays_at_its_end():
    assert values(optim.cosine(1.0, 4, eta_min=0.25), 8)[4:] == [0.25] * 4


@given(st.integers(1, 30), st.integers(2, 5))
def test_restarts_come_at_their_very_step(first, factor):
    schedule = optim.cosine_restarts(1.0, first, factor)
    begin, length = 0, first
    while begin < 10**7:
        assert float(schedule(begin)) == 1.0
        if length > 1:
            share = (length - 1) / length
            assert float(schedule(begin + length - 1)) == pytest.approx(0.5 * (1 + math.cos(math.pi * share)), abs=1e-9)
        begin, length = begin + length, length * factor


def test_one_cycle_has_its_corners():
    schedule = optim.one_cycle(1.0, total_steps=101, pct_start=31 / 101, div_factor=10.0, final_div_factor=100.0)
    rates = values(schedule, 120)
    assert rates[0] == pytest.approx(0.1) and rates[30] == max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.001) and rates[119] == pytest.approx(0.001)
    assert np.all(np.diff(rates[:31]) > 0) and np.all(np.diff(rates[30:101]) < 0)


def test_warmup_rises_straight_and_hands_over():
    schedule = optim.warmup(4, optim.step(1.0, 2, gamma=0.5), start_factor=0.2)
    assert values(schedule, 9) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.5, 0.5, 0.25])
    assert values(optim.warmup(0, 0.5), 3) == [0.5] * 3
    assert values(optim.warmup(2, 0.5), 4) == [0.0, 0.25, 0.5, 0.5]


def test_joined_schedules_count_from_where_they_begin():
    schedule = optim.join([lambda t: 10 + t, lambda t: 20 + t, 7.0], [2, 5])
    assert values(schedule, 7) == [10, 11, 20, 21, 22, 7, 7]


def test_a_join_does_not_mix_in_what_is_not_defined_before_its_beginning():
    schedule = optim.join([1.0, lambda t: (t + 1) ** -0.5], [3])
    assert values(schedule, 5) == pytest.approx([1, 1, 1, 1, 0.5**0.5])


def test_equal_schedules_are_equal_and_print_their_settings():
    assert optim.cosine(0.1, 5) == optim.cosine(0.1, 5) and hash(optim.cosine(0.1, 5)) == hash(optim.cosine(0.1, 5))
    assert optim.cosine(0.1, 5) != optim.cosine(0.1, 6) and optim.constant(0.1) != optim.linear(0.1, 5)
    assert optim.warmup(2, optim.cosine(0.1, 5)) == optim.warmup(2, optim.cosine(0.1, 5))
    assert repr(optim.step(0.1, 3)) == "step(lr=0.1, step_size=3, gamma=0.1)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.constant(-0.1), "lr must be at least 0"),
        (lambda: optim.linear(0.1, 0), "total_iters is a whole number of at least 1"),
        (lambda: optim.step(0.1, 2.5), "step_size is a whole number"),
        (lambda: optim.multistep(0.1, [5, 2]), "must not decrease"),
        (lambda: optim.multistep(0.1, 5), "milestones is a list"),
        (lambda: optim.cosine(0.1, T_max=0), "T_max"),
        (lambda: optim.cosine_restarts(0.1, 5, 0), "T_mult"),
        (lambda: optim.one_cycle(0.1, 10, pct_start=1.5), "pct_start"),
        (lambda: optim.one_cycle(0.1, 10, pct_start=0.0), "without a step"),
        (lambda: optim.one_cycle(0.1, 10, anneal_strategy="cosine"), "'cos', 'linear'"),
        (lambda: optim.join([0.1], [1]), "1 schedules need 0 milestones"),
        (lambda: optim.join([lambda t: cr.zeros((2,))], [])(0), "returned shape"),
        (lambda: optim.warmup(-1, 0.1), "steps is a whole number"),
        (
            lambda: optim.SGD(lr=lambda t: "fast").update({"w": cr.tensor([1.0])}, {"w": cr.tensor([1.0])}),
            "is a number",
        ),
    ],
)
def test_schedules_that_make_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# -- plateau


def test_the_plateau_lowers_all_rates_down_to_a_floor():
    optimizer = optim.SGD(lr=1.0, groups=[{"params": "b", "lr": 0.1}])
    plateau = optim.ReduceOnPlateau(optimizer, factor=0.1, patience=0, min_lr=0.05)
    assert [plateau.update(m) for m in (1.0, 1.0, 1.0, 1.0)] == [False, True, True, False]
    assert {label: float(rate) for label, rate in optimizer.rates.items()} == {"default": 0.05, "0": 0.05}


def test_a_metric_that_is_no_number_is_no_improvement():
    plateau = optim.ReduceOnPlateau(optim.SGD(lr=1.0), patience=1)
    assert [plateau.update(m) for m in (1.0, math.nan, math.nan)] == [False, False, True]
    assert plateau.best == 1.0


def test_the_plateau_goes_on_where_it_was_saved():
    metrics = np.random.default_rng(0).normal(size=40)
    straight = optim.ReduceOnPlateau(optim.SGD(lr=1.0), factor=0.5, patience=2, cooldown=1)
    wanted = [straight.update(m) for m in metrics]
    first = optim.ReduceOnPlateau(optim.SGD(lr=1.0), factor=0.5, patience=2, cooldown=1)
    got = [first.update(m) for m in metrics[:17]]
    second = optim.ReduceOnPlateau(optim.SGD(lr=first.optimizer.lr), factor=0.5, patience=2, cooldown=1)
    second.load_state_dict({n: x.numpy() for n, x in first.state_dict().items()})
    got += [second.update(m) for m in metrics[17:]]
    assert got == wanted and any(wanted)
    with pytest.raises(StateError, match="missing: 'bad'"):
        second.load_state_dict({"best": cr.tensor(1.0)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.ReduceOnPlateau(optim.SGD(lr=optim.cosine(0.1, 5))), "follows cosine"),
        (lambda: optim.ReduceOnPlateau(optim.SGD(), mode="least"), "'min', 'max'"),
        (lambda: optim.ReduceOnPlateau(optim.SGD(), factor=1.0), "factor"),
        (lambda: optim.ReduceOnPlateau(optim.SGD(), patience=-1), "patience"),
    ],
)
def test_plateaus_that_make_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
