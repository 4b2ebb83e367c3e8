"""L-BFGS: convergence, both ways to write the closure, saving, failures."""

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError, Diverged, StateError
from chainrule.optim.line_search import Point, strong_wolfe


def rosenbrock(p):
    x, y = p["x"][0], p["x"][1]
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2


def closure(params, loss=rosenbrock):
    return lambda: cr.value_and_grad(loss)(params)


def at(*values):
    return {"x": cr.tensor(np.array(values))}


def test_it_finds_the_valley_floor_of_rosenbrock():
    params = at(-1.2, 1.0)
    optimizer = optim.LBFGS(params, line_search_fn="strong_wolfe", max_iter=60, tolerance_change=1e-16)
    first = optimizer.step(closure(params))
    assert float(first) == pytest.approx(24.2)
    np.testing.assert_allclose(params["x"].numpy(), [1.0, 1.0], atol=1e-6)
    calls = int(optimizer.state["evaluations"])
    assert optimizer.steps < 60 and calls < 80
    optimizer.step(closure(params))
    assert int(optimizer.state["evaluations"]) == calls + 1  # at the bottom one look is enough


def test_a_quadratic_of_n_dimensions_takes_about_n_moves():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    matrix, target = cr.tensor(a @ a.T + np.eye(5)), cr.tensor(rng.normal(size=(5, 1)))

    def loss(p):
        z = p["x"].reshape(5, 1) - target
        return (z.T @ (matrix @ z)).sum()

    params = at(*np.zeros(5))
    optimizer = optim.LBFGS(params, line_search_fn="strong_wolfe", max_iter=100, tolerance_change=1e-16)
    optimizer.step(closure(params, loss))
    np.testing.assert_allclose(params["x"].numpy(), target.numpy()[:, 0], atol=1e-6)
    assert optimizer.steps <= 20


def test_the_closure_may_call_backward_as_in_pytorch():
    rng = np.random.default_rng(0)
    x, y = cr.tensor(rng.normal(size=(20, 3))), cr.tensor(rng.normal(size=(20, 1)))
    one, two = nn.Linear(3, 1).to("float64"), nn.Linear(3, 1).to("float64")
    for model in (one, two):
        model.assign({"weight": cr.tensor(np.array([[0.3, -0.2, 0.1]])), "bias": cr.tensor(np.array([0.5]))})
    first, second = (optim.LBFGS(m, line_search_fn="strong_wolfe", tolerance_change=1e-16) for m in (one, two))

    def loss(model):
        return ((model(x) - y) ** 2).mean()

    def backward():
        first.zero_grad()
        value = loss(one)
        value.backward()
        return value

    for _ in range(3):
        a, b = first.step(backward), second.step(lambda: cr.value_and_grad(loss)(two))
        assert float(a) == float(b)
    solution, *_ = np.linalg.lstsq(np.hstack([x.numpy(), np.ones((20, 1))]), y.numpy(), rcond=None)
    np.testing.assert_allclose(one.weight.numpy()[0], solution[:3, 0], atol=1e-6)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_init_binds():
    params, optimizer = at(0.0, 0.0), optim.LBFGS(line_search_fn="strong_wolfe", max_iter=50)
    with pytest.raises(ConfigError, match=r"LBFGS\(model"):
        optimizer.step(closure(params))
    optimizer.init(params).step(closure(params))
    np.testing.assert_allclose(params["x"].numpy(), [1.0, 1.0], atol=1e-5)


def chained_rosenbrock(p):
    x, y = p["x"][:-1], p["x"][1:]
    return (100 * (y - x * x) ** 2 + (1 - x) ** 2).sum()


@pytest.mark.parametrize("settings", [{"lr": 0.02, "max_iter": 4}, {"line_search_fn": "strong_wolfe", "max_iter": 4}])
def test_saved_and_loaded_goes_on_with_the_same_bits(settings):
    params = at(*np.linspace(-1.0, 1.0, 10))
    optimizer = optim.LBFGS(params, **settings)
    for _ in range(5):
        optimizer.step(closure(params, chained_rosenbrock))
    middle, state = params["x"].numpy(), {n: x.numpy() for n, x in optimizer.state_dict().items()}
    assert sum(name.endswith("inverse") for name in state) > 10  # so that the order of names is not that of numbers
    for _ in range(2):
        optimizer.step(closure(params, chained_rosenbrock))
    assert not np.array_equal(middle, params["x"].numpy())

    other = at(*middle)
    again = optim.LBFGS(other, **settings)
    again.load_state_dict(dict(sorted(state.items())))
    for _ in range(2):
        again.step(closure(other, chained_rosenbrock))
    np.testing.assert_array_equal(other["x"].numpy(), params["x"].numpy())
    assert {n: x.tolist() for n, x in again.state_dict().items()} == {
        n: x.tolist() for n, x in optimizer.state_dict().items()
    }


def test_a_state_that_does_not_fit():
    params = at(-1.2, 1.0)
    optimizer = optim.LBFGS(params)
    fresh = optimizer.state_dict()
    optimizer.step(closure(params))
    state = optimizer.state_dict()
    optimizer.load_state_dict(fresh)
    for message, given in {
        r"direction is float64\[3\]": {**state, "direction": cr.zeros((3,), dtype="float64")},
        "unexpected: 'more'": {**state, "more": cr.tensor(1.0)},
        "missing: 'step'": {n: x for n, x in state.items() if n != "step"},
    }.items():
        with pytest.raises(StateError, match=message):
            optimizer.load_state_dict(given)


def test_a_loss_that_is_no_number_leaves_the_parameters_where_they_were():
    params = at(2.0)
    optimizer = optim.LBFGS(params, lr=10.0)
    with pytest.raises(Diverged, match="strong_wolfe"):
        optimizer.step(closure(params, lambda p: cr.log(p["x"]).sum()))
    assert params["x"].tolist() == [2.0]
    broken = at(-1.0)
    with pytest.raises(Diverged, match="nothing was changed"):
        optim.LBFGS(broken).step(closure(broken, lambda p: cr.log(p["x"]).sum()))
    assert broken["x"].tolist() == [-1.0]


def test_the_line_search_backs_off_from_where_there_is_no_number():
    params = at(2.0)
    optimizer = optim.LBFGS(params, lr=50.0, line_search_fn="strong_wolfe", max_iter=50)
    optimizer.step(closure(params, lambda p: (p["x"] - cr.log(p["x"])).sum()))
    assert params["x"].tolist() == pytest.approx([1.0], abs=1e-5)


def test_what_it_cannot_do():
    params = at(1.0)
    with pytest.raises(ConfigError, match=r"step\(closure\)"):
        optim.LBFGS(params).update(params, {"x": cr.tensor([1.0])})
    with pytest.raises(ConfigError, match="None, 'strong_wolfe'"):
        optim.LBFGS(params, line_search_fn="wolfe")
    with pytest.raises(ConfigError, match="max_iter"):
        optim.LBFGS(params, max_iter=0)


@pytest.mark.parametrize("first", [1e-4, 0.1, 1.0, 7.0])
@pytest.mark.parametrize(
    ("phi", "slope"),
    [
        (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
        (lambda t: -t * math.exp(-t), lambda t: (t - 1) * math.exp(-t)),
        (lambda t: t**4 - 2 * t, lambda t: 4 * t**3 - 2),
        (lambda t: 0.2 * (t - 5) ** 2 + math.cos(t + 1.0), lambda t: 0.4 * (t - 5) - math.sin(t + 1.0)),
    ],
)
def test_the_line_search_satisfies_the_strong_wolfe_conditions(phi, slope, first):
    nothing = cr.zeros((0,))

    def point(t):
        return Point(t, phi(t), nothing, slope(t))

    start = point(0.0)
    found = strong_wolfe(point, start, first, longest=1.0, tolerance=1e-12, limit=60)
    assert found.loss <= start.loss + 1e-4 * found.t * start.slope
    assert abs(found.slope) <= 0.9 * abs(start.slope)


def test_the_line_search_ends_and_never_goes_up():
    """Far out the loss is flat to the last bit; the best point that was seen is then all there is."""
    calls = []

    def point(t):
        calls.append(t)
        return Point(t, -t * math.exp(-t), cr.zeros((0,)), (t - 1) * math.exp(-t))

    start = point(0.0)
    assert strong_wolfe(point, start, 300.0, longest=1.0, tolerance=1e-12, limit=60).loss <= start.loss
    assert len(calls) <= 62
