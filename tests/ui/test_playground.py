"""The playground: real networks that go forwards and backwards to the same bits, and what is seen of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn
from chainrule.ui import playground_api
from chainrule.ui.answers import Refused
from chainrule.ui.playground import ACTIVATIONS, MILESTONES, OPTIMIZERS, RECENT, Kept, Playground, Settings
from chainrule.ui.playground_api import IDLE_SECONDS, MOST_SESSIONS, Sessions, read_settings
from chainrule.ui.playground_data import CLASSES, EDGE, FEATURES, drawn, features, grid, own, titles
from chainrule.ui.playground_view import BOUNDARY, view

PLAIN = Settings(["x", "y"], [4, 3], "tanh", "sgd", 0.03, 0.0, 10, 0)


def playground(data="spiral", rows=60, noise=0.1, **changes):
    return Playground(drawn(data, rows, noise, 0), Settings(**(vars(PLAIN) | changes)))


def bits(played):
    tensors = {**played.model.state_dict(), **{f"o.{k}": x for k, x in played.optimizer.state_dict().items()}}
    return {name: np.asarray(x).tobytes() for name, x in tensors.items()}


# steps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_forwards_and_twenty_back_are_thirty_to_the_bit(optimizer):
    played = playground(optimizer=optimizer, regularisation=0.01)
    at, seen = {0: bits(played)}, {0: view(played)}
    for step in range(1, 51):
        played.go(step)
        at[step], seen[step] = bits(played), view(played)
    played.go(30)
    assert bits(played) == at[30] != at[29]
    for step in (29, 31, 50, 7, 0, 1, 49):
        played.go(step)
        assert bits(played) == at[step]
        assert view(played) == seen[step]


def test_going_far_and_back_beyond_what_is_kept_whole_gives_the_same_bits():
    played = playground(layers=[2], batch=30)
    straight = playground(layers=[2], batch=30)
    straight.go(77)
    played.go(300)
    played.go(77)
    assert bits(played) == bits(straight)
    assert view(played) == view(straight)
    assert len(played.kept.states) <= 2 * RECENT + MILESTONES + 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_kept_states_stay_few_and_step_0_among_them(jumps):
    kept, at = Kept(), 0
    kept.put(0, 0)
    for jump in jumps:
        if jump <= at:
            at = kept.nearest(max(jump - 1, 0))
            assert kept.states[at] == at
        while at < jump:
            at += 1
            kept.put(at, at)
        assert 0 in kept.states
        assert len(kept.states) <= 2 * RECENT + MILESTONES + 1
        assert all(kept.nearest(k) == k for k in range(max(0, jump - RECENT // 2), jump + 1) if k in kept.states)


def test_a_step_is_that_of_the_same_network_trained_by_hand():
    played = playground(optimizer="adam", learning_rate=0.01)
    model, optimizer = played.before()
    played.go(1)
    x, y = played.rows_of(1)
    loss, gradients = cr.value_and_grad(lambda m: losses.binary_cross_entropy_with_logits(m(x), y))(model)
    optimizer.update(model, gradients)
    assert float(loss) == played.observed.loss
    for name, tensor in model.state_dict().items():
        assert np.array_equal(np.asarray(tensor), np.asarray(played.model.state_dict()[name]))
        assert np.array_equal(np.asarray(gradients[name]), played.observed.gradients[name])


def test_every_row_comes_once_in_an_epoch_and_the_last_batch_is_kept():
    played = playground(rows=50, batch=10)  # 35 rows for training
    assert played.batches == 4
    for epoch in (0, 1):
        rows = np.concatenate([played.rows(4 * epoch + k) for k in (1, 2, 3, 4)])
        assert sorted(rows) == list(range(35))
    assert len(played.rows(4)) == 5
    assert not np.array_equal(played.rows(1), played.rows(5))


@pytest.mark.parametrize("data", [title["id"] for title in titles()])
def test_networks_learn_every_data_set(data):
    inputs = list(FEATURES) if data == "spiral" else ["x", "y"]
    played = playground(
        data, rows=150, noise=0.0, layers=[8, 8], optimizer="adam", learning_rate=0.05, batch=20, features=inputs
    )
    before = played.loss(played.inputs, played.targets)
    played.go(150)
    assert played.loss(played.inputs, played.targets) < 0.6 * before


def test_weights_shrink_by_the_penalty_and_biases_do_not():
    free, held = playground(), playground(regularisation=0.5)
    for played in (free, held):
        played.go(1)
    weight, bias = free.linear[0].weight, free.linear[0].bias
    start = playground().linear[0].weight
    assert np.allclose(held.linear[0].weight, np.asarray(weight) - 0.03 * 0.5 * np.asarray(start), atol=1e-7)
    assert np.array_equal(held.linear[0].bias, bias)


# what is seen


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_slopes_and_errors_are_those_of_the_textbook(activation):
    """The error of a unit is the weighted errors of the next layer times the slope; gradients are error × input."""
    played = playground(activation=activation, layers=[3, 2], batch=7)
    played.go(5)
    model, _ = played.before()
    seen, observed = view(played)["layers"], played.observed
    x, y = (np.asarray(t, np.float64) for t in played.rows_of(5))
    values, sums, value = [x], [], cr.tensor(x.astype(np.float32))
    for layer in model:
        value = layer(value)
        (sums if isinstance(layer, nn.Linear) else values).append(np.asarray(value, np.float64))
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    error = (1 / (1 + np.exp(-sums[-1])) - y) / len(y)
    for number in (2, 1, 0):
        assert np.allclose(observed.errors[number], error, atol=1e-6)
        units = seen[number]["units"]
        assert np.allclose([u["error"] for u in units], np.abs(error).mean(0), atol=1e-6)
        assert np.allclose([u["weight_gradients"] for u in units], error.T @ values[number], atol=1e-6)
        assert np.allclose([u["bias_gradient"] for u in units], error.sum(0), atol=1e-6)
        if number:
            f, z = ACTIVATIONS[activation](), sums[number - 1]
            slope = (np.asarray(f(cr.tensor(z + 1e-5)), np.float64) - np.asarray(f(cr.tensor(z - 1e-5)))) / 2e-5
            assert np.allclose([u["slope"] for u in seen[number - 1]["units"]], slope.mean(0), atol=1e-4)
            error = error @ np.asarray(linear[number].weight, np.float64) * slope
    assert [u["slope"] for u in seen[2]["units"]] == [1.0]


def test_the_state_has_the_shape_of_the_contract():
    played = playground(layers=[4, 3], features=["x", "y", "x²"])
    for step in (0, 3):
        played.go(step)
        state = view(played)
        assert (state["step"], state["size"], len(state["boundary"])) == (step, BOUNDARY, BOUNDARY**2)
        assert [len(layer["units"]) for layer in state["layers"]] == [4, 3, 1]
        assert [len(layer["units"][0]["weights"]) for layer in state["layers"]] == [3, 4, 3]
        for unit in (unit for layer in state["layers"] for unit in layer["units"]):
            assert len(unit["map"]) == 400
            assert len(unit["weight_gradients"]) == len(unit["weights"])
        assert all(0 <= p <= 1 for p in state["boundary"])
        assert state["batch"] == (played.rows(step).tolist() if step else [])


def test_the_boundary_goes_from_the_top_down_and_from_left_to_right():
    points = grid(3)
    assert points.tolist() == [[-6, 6], [0, 6], [6, 6], [-6, 0], [0, 0], [6, 0], [-6, -6], [0, -6], [6, -6]]
    played = playground("gauss", layers=[], learning_rate=1.0)  # class 1 lies at the upper right
    played.go(30)
    boundary = np.array(view(played)["boundary"]).reshape(BOUNDARY, BOUNDARY)
    assert boundary[0, -1] > 0.9 > 0.1 > boundary[-1, 0]


def test_a_dead_unit_is_told_from_a_living_one():
    played = playground(activation="relu", layers=[2])
    weight, bias = np.asarray(played.linear[0].weight).copy(), np.array([-1000.0, 1000.0], np.float32)
    played.model.load_state_dict({**played.model.state_dict(), "0.weight": weight, "0.bias": bias})
    assert [unit["dead"] for unit in view(played)["layers"][0]["units"]] == [True, False]


def test_a_rate_that_is_too_high_is_shown_and_not_hidden():
    played = playground("plane", activation="relu", learning_rate=1000.0, optimizer="momentum")
    played.go(50)
    with np.errstate(all="ignore"):
        assert not np.isfinite(view(played)["loss"])


# data


@pytest.mark.parametrize("name", list(CLASSES))
def test_classes_are_balanced_inside_of_the_plane_and_follow_the_seed(name):
    points = drawn(name, 100, 0.0, 3)
    assert len(points.train) == 70 and len(points.test) == 30
    every = np.concatenate([points.train_targets, points.test_targets])
    assert sorted(set(every)) == [0, 1] and every.sum() == 50
    assert np.abs(points.train).max() <= EDGE
    assert np.array_equal(points.train, drawn(name, 100, 0.0, 3).train)
    assert not np.array_equal(points.train, drawn(name, 100, 0.0, 4).train)
    assert not np.array_equal(points.train, drawn(name, 100, 0.1, 3).train)


def test_own_columns_are_scaled_to_the_plane_and_the_scale_is_told():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1000, 2000, 20), rng.uniform(-0.01, 0.01, 20)
    points = own(x.tolist(), y.tolist(), [3.0, 7.0] * 10, 0)
    assert points.task == "classification"
    every = np.concatenate([points.train, points.test])
    assert every.min(0).tolist() == [-5, -5] and every.max(0).tolist() == [5, 5]
    low, high = points.scale["x"]
    assert np.allclose(sorted(low + (every[:, 0] + 6) / 12 * (high - low)), sorted(x))
    assert set(points.train_targets) == {0.0, 1.0}
    numbers = own(x.tolist(), y.tolist(), (x * 2).tolist(), 0)
    assert numbers.task == "regression"
    assert min(numbers.train_targets) >= 0 and max(numbers.train_targets) <= 1


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=10, max_size=30, unique=True))
def test_own_columns_of_any_size_stay_finite(column):
    try:
        points = own(column, column[::-1], [0.0, 1.0] * (len(column) // 2) + [0.0] * (len(column) % 2), 0)
    except Refused:
        assert max(map(abs, column)) > 1e100
        return
    assert np.isfinite(points.train).all()
    assert np.abs(points.train).max() <= EDGE


def test_features_are_what_they_are_called():
    points = np.array([[2.0, 3.0], [-1.0, 0.5]])
    expected = [[2, 3, 4, 9, 6, np.sin(2), np.sin(3)], [-1, 0.5, 1, 0.25, -0.5, np.sin(-1), np.sin(0.5)]]
    assert np.allclose(features(list(FEATURES), points), expected)


# requests

WRONG = [
    {"dataset": "other"}, {"dataset": 1}, {"noise": -0.1}, {"noise": 1.5}, {"noise": "0.1"}, {"noise": True},
    {"rows": 9}, {"rows": 2001}, {"rows": 20.0}, {"rows": None}, {"features": []}, {"features": ["z"]},
    {"features": ["x", "x"]}, {"features": "x"}, {"features": [["x"]]}, {"features": [1]}, {"layers": [0]},
    {"layers": [9]}, {"layers": [1] * 7}, {"layers": 3}, {"layers": [True]}, {"layers": [2.0]}, {"activation": "step"},
    {"activation": None}, {"optimizer": "lbfgs"}, {"learning_rate": 0}, {"learning_rate": -1}, {"learning_rate": 1e9},
    {"batch": 0}, {"regularisation": -1}, {"seed": -1}, {"seed": 2**40}, {"seed": 1.5}, {"unknown": 1},
    {"dataset": "own"}, {"own": {"x": [], "y": [], "target": []}}, {"dataset": "own", "own": []},
    {"learning_rate": 10**400},
    {"dataset": "own", "own": {"x": [1] * 10, "y": [1] * 10}},
    {"dataset": "own", "own": {"x": [1, 2] * 5, "y": [1, 2] * 5, "target": [0, 1] * 4}},
    {"dataset": "own", "own": {"x": [1] * 10, "y": [1, 2] * 5, "target": [0, 1] * 5}},
    {"dataset": "own", "own": {"x": [1, 2] * 5, "y": [1, 2] * 5, "target": [1] * 10}},
    {"dataset": "own", "own": {"x": [1, 2] * 5, "y": [1, 2] * 5, "target": [0, "1"] * 5}},
    {"dataset": "own", "own": {"x": [1, 2] * 5, "y": [1, 2] * 5, "target": [0, None] * 5}},
    {"dataset": "own", "own": {"x": [1, 2] * 1001, "y": [1, 2] * 1001, "target": [0, 1] * 1001}},
    {"dataset": "own", "own": {"x": [1, 2] * 5, "y": [1, 2] * 5, "target": [0, 1] * 5, "z": []}},
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG, ids=lambda body: str(body)[:40])
def test_requests_that_make_no_sense_are_refused_with_a_message(site, body):
    answer = site.post("/api/playground", body)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]) > 15
    assert "Traceback" not in answer.text and "mistake of chainrule" not in answer.text


def test_a_network_is_made_stepped_moved_and_dropped(site):
    made = site.post("/api/playground", {"layers": [3], "rows": 30, "batch": 5, "dataset": "moons"}).json()
    assert made.keys() == {"id", "data", "state"}
    assert made["state"]["step"] == 0
    assert [len(point) for point in made["data"]["points"]] == [3] * 21
    assert len(made["data"]["test"]) == 9
    address = f"/api/playground/{made['id']}"
    on = site.post(f"{address}/step", {"steps": 12}).json()
    assert on["step"] == 12 and on["epoch"] == 2 and "explanation" not in on
    back = site.post(f"{address}/step", {"steps": -5}).json()
    there = site.post(f"{address}/to", {"step": 7}).json()
    assert back == there and back["step"] == 7
    assert site.post(f"{address}/step", {"steps": -1000}).json()["step"] == 0
    assert site.post(f"{address}/to", {"step": 12}).json() == on
    assert site.request("DELETE", address).status_code == 200
    for method, path, body in (("POST", "/step", {"steps": 1}), ("POST", "/to", {"step": 1}), ("DELETE", "", None)):
        assert site.request(method, address + path, json=body).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [("step", {}), ("step", {"steps": 1001}), ("step", {"steps": -1001}), ("step", {"steps": 1.0}), ("to",
     {"step": -1}), ("step", {"steps": "1"}), ("step", {"steps": 1, "explain": 1}), ("step", {"steps": 1, "more": 1}),
     ("to", {}), ("to", {"step": 1001}), ("to", {"step": 10**9}), ("to", {"step": 10**30}), ("step", {"step": 1})],
)  # fmt: skip
def test_steps_that_make_no_sense_are_refused(site, path, body):
    name = site.post("/api/playground", {"layers": [], "rows": 10}).json()["id"]
    answer = site.post(f"/api/playground/{name}/{path}", body)
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_a_network_that_leaves_the_numbers_is_sent_as_standard_json(site):
    body = {"dataset": "bumps", "learning_rate": 1000, "activation": "relu", "rows": 20}
    name = site.post("/api/playground", body).json()["id"]
    answer = site.post(f"/api/playground/{name}/step", {"steps": 60})
    assert answer.status_code == 200
    assert answer.json()["loss"] in ("NaN", "Infinity")  # as words: JSON has no such numbers
    assert site.post(f"/api/playground/{name}/step", {"steps": 1, "explain": True}).status_code == 200


def test_the_explanation_of_a_step_is_of_that_step(site):
    name = site.post("/api/playground", {"layers": [2], "rows": 20, "batch": 4, "optimizer": "adam"}).json()["id"]
    state = site.post(f"/api/playground/{name}/step", {"steps": 3, "explain": True}).json()
    told = state["explanation"]
    assert told["format"] == "chainrule explanation 1"
    assert (told["step"], told["rows"]) == (3, 4)
    assert told["loss"] == state["batch_loss"]
    gradients = {p["name"]: np.array(p["gradient"]["data"]).reshape(p["gradient"]["shape"]) for p in told["parameters"]}
    for number, path in ((0, "0"), (1, "2")):
        units = state["layers"][number]["units"]
        assert np.array_equal(gradients[f"{path}.weight"], [unit["weight_gradients"] for unit in units])
        assert np.array_equal(gradients[f"{path}.bias"], [unit["bias_gradient"] for unit in units])
    again = site.post(f"/api/playground/{name}/to", {"step": 3}).json()
    assert again == {key: value for key, value in state.items() if key != "explanation"}


def test_defaults_make_sense():
    points, chosen = read_settings({})
    assert len(points.train) + len(points.test) == 200
    assert chosen == Settings(["x", "y"], [4, 3], "tanh", "sgd", 0.03, 0.0, 10, 0)


def test_what_there_is_to_choose_from_is_told(site):
    told = site.get("/api/playground/datasets").json()
    assert {entry["id"] for entry in told["datasets"]} == {
        "circle",
        "xor",
        "gauss",
        "spiral",
        "moons",
        "plane",
        "bumps",
    }
    assert told["features"] == ["x", "y", "x²", "y²", "xy", "sin x", "sin y"]
    for name in told["features"]:
        assert site.post("/api/playground", {"features": [name], "rows": 10, "layers": []}).status_code == 200


# sessions


def test_the_least_recently_used_goes_first():
    sessions = Sessions()
    names = [sessions.add(i) for i in range(MOST_SESSIONS)]
    sessions.get(names[0])
    sessions.add("one more")
    assert sessions.get(names[0]) == 0
    with pytest.raises(Refused):
        sessions.get(names[1])


def test_what_nobody_uses_goes():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first, second = sessions.add("first"), sessions.add("second")
    now[0] = IDLE_SECONDS - 1
    sessions.get(second)
    now[0] = IDLE_SECONDS + 1
    with pytest.raises(Refused):
        sessions.get(first)
    assert sessions.get(second) == "second"
    assert len(sessions.kept) == 1


def test_names_of_sessions_cannot_be_guessed(site):
    names = {site.post("/api/playground", {"layers": [], "rows": 10}).json()["id"] for _ in range(3)}
    assert len(names) == 3 and all(len(name) >= 16 for name in names)
    assert playground_api.MOST_SESSIONS == 16
