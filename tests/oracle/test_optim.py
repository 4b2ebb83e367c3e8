"""Optimisers and schedules step for step against PyTorch, in float64."""

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import optim

STEPS = 20
START = {
    "layer.weight": np.random.default_rng(0).normal(size=(4, 3)),
    "layer.bias": np.random.default_rng(1).normal(size=(4,)),
    "gain": np.random.default_rng(2).normal(size=()),
}
CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.6), "amsgrad": True}),
    ("Adam", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5, "betas": (0.8, 0.95)}),
    ("AdamW", {"lr": 0.1, "amsgrad": True, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.1, "betas": (0.7, 0.8), "eps": 1e-2, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "betas": (0.7, 0.9), "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.1, "betas": (0.7, 0.9), "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.8, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.8, "centered": True}),
    ("RMSprop", {"lr": 0.1, "momentum": 0.5, "centered": True, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
]
NAMES = [f"{name}-{'-'.join(settings)}" for name, settings in CASES]


@pytest.fixture(autouse=True)
def float64():
    """PyTorch keeps NAdam's product of momenta in its default dtype, whatever the parameter has."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradients(step):
    """Numbers of very different size, so that every term of a rule counts."""
    rng = np.random.default_rng(100 + step)
    return {name: rng.normal(size=x.shape) * 10.0 ** rng.integers(-4, 3, x.shape) for name, x in START.items()}


def in_torch(make, steps=STEPS, absent=lambda step, name: False):
    params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in START.items()}
    optimizer, path = make(params), []
    for step in range(steps):
        for name, g in gradients(step).items():
            params[name].grad = None if absent(step, name) else torch.tensor(g)
        optimizer.step()
        path.append({name: p.detach().numpy().copy() for name, p in params.items()})
    return path


def in_chainrule(optimizer, steps=STEPS, absent=lambda step, name: False):
    params, path = {name: cr.tensor(x) for name, x in START.items()}, []
    for step in range(steps):
        grads = {name: None if absent(step, name) else cr.tensor(g) for name, g in gradients(step).items()}
        params = optimizer.update(params, grads)
        path.append({name: p.numpy() for name, p in params.items()})
    return path


def assert_same(ours, theirs, rtol=1e-9):
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=0, err_msg=f"{name} at step {step}")


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_every_step_equals_pytorchs(name, settings):
    theirs = in_torch(lambda params: getattr(torch.optim, name)(list(params.values()), **settings))
    assert_same(in_chainrule(getattr(optim, name)(**settings)), theirs)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_every_step_equals_pytorchs_when_some_gradients_are_none(name, settings):
    def absent(step, parameter):
        return (parameter == "layer.bias" and step < 7) or (parameter == "gain" and step % 3 == 1)

    theirs = in_torch(lambda params: getattr(torch.optim, name)(list(params.values()), **settings), absent=absent)
    assert_same(in_chainrule(getattr(optim, name)(**settings), absent=absent), theirs)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_float32_stays_close_to_pytorchs_float64(name, settings):
    theirs = in_torch(lambda params: getattr(torch.optim, name)(list(params.values()), **settings))
    params = {n: cr.tensor(x, dtype="float32") for n, x in START.items()}
    optimizer = getattr(optim, name)(**settings)
    for step in range(STEPS):
        params = optimizer.update(params, {n: cr.tensor(g, dtype="float32") for n, g in gradients(step).items()})
    scale = max(float(np.abs(x).max()) for x in theirs[-1].values())
    for n, p in params.items():
        assert p.dtype == cr.float32
        np.testing.assert_allclose(p.numpy(), theirs[-1][n], rtol=2e-4, atol=1e-5 * scale)


def test_the_defaults_are_pytorchs():
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta"):
        theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).defaults
        ours = getattr(optim, name)()
        assert ours.lr == theirs["lr"], name
        for setting, value in ours.settings.items():
            assert theirs[setting] == value, (name, setting)


def test_groups_equal_pytorchs():
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}

    def make(params):
        rest = [p for n, p in params.items() if not n.endswith("bias")]
        bias = {"params": [params["layer.bias"]], "weight_decay": 0.0, "momentum": 0.0, "lr": 0.01}
        return torch.optim.SGD([{"params": rest}, bias], **settings)

    group = {"params": "*.bias", "weight_decay": 0.0, "momentum": 0.0, "lr": 0.01}
    assert_same(in_chainrule(optim.SGD(**settings, groups=[group])), in_torch(make))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_clipping_by_norm_equals_pytorchs(norm_type, max_norm):
    given = gradients(0)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in START.values()]
    for p, g in zip(params, given.values(), strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type=norm_type)
    ours, our_norm = optim.clip_grad_norm({n: cr.tensor(g) for n, g in given.items()}, max_norm, norm_type)
    assert float(our_norm) == pytest.approx(float(norm), rel=1e-12)
    for p, g in zip(params, ours.values(), strict=True):
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), rtol=1e-12)


def test_clipping_by_value_equals_pytorchs():
    given = gradients(0)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in START.values()]
    for p, g in zip(params, given.values(), strict=True):
        p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_value_(params, 0.3)
    ours = optim.clip_grad_value({n: cr.tensor(g) for n, g in given.items()}, 0.3)
    for p, g in zip(params, ours.values(), strict=True):
        np.testing.assert_array_equal(g.numpy(), p.grad.numpy())


# -- schedules

schedulers = torch.optim.lr_scheduler
SCHEDULES = [
    (optim.constant(0.3), lambda o: schedulers.LambdaLR(o, lambda t: 1.0)),
    (optim.linear(0.3, 7), lambda o: schedulers.LinearLR(o, total_iters=7)),
    (optim.linear(0.3, 9, 0.2, 0.9), lambda o: schedulers.LinearLR(o, 0.2, 0.9, total_iters=9)),
    (optim.step(0.3, 4), lambda o: schedulers.StepLR(o, 4)),
    (optim.step(0.3, 3, gamma=0.7), lambda o: schedulers.StepLR(o, 3, gamma=0.7)),
    (optim.multistep(0.3, [2, 5, 5, 11]), lambda o: schedulers.MultiStepLR(o, [2, 5, 5, 11])),
    (optim.exponential(0.3, 0.9), lambda o: schedulers.ExponentialLR(o, 0.9)),
    (optim.polynomial(0.3, 15), lambda o: schedulers.PolynomialLR(o, 15)),
    (optim.polynomial(0.3, 15, power=2.5), lambda o: schedulers.PolynomialLR(o, 15, power=2.5)),
    (optim.cosine(0.3, T_max=40), lambda o: schedulers.CosineAnnealingLR(o, T_max=40)),
    (optim.cosine(0.3, T_max=40, eta_min=0.01), lambda o: schedulers.CosineAnnealingLR(o, T_max=40, eta_min=0.01)),
    (optim.cosine_restarts(0.3, 7), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 7)),
    (optim.cosine_restarts(0.3, 3, 2, 0.01), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, 2, 0.01)),
    (optim.cosine_restarts(0.3, 1, 3), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 1, 3)),
    (optim.one_cycle(0.3, 40), lambda o: schedulers.OneCycleLR(o, 0.3, 40, cycle_momentum=False)),
    (
        optim.one_cycle(0.3, 40, 0.4, "linear", 10.0, 100.0, three_phase=True),
        lambda o: schedulers.OneCycleLR(o, 0.3, 40, None, None, 0.4, "linear", False, 0.85, 0.95, 10.0, 100.0, True),
    ),
    (
        optim.one_cycle(0.3, 40, three_phase=True),
        lambda o: schedulers.OneCycleLR(o, 0.3, 40, cycle_momentum=False, three_phase=True),
    ),
    (
        optim.join([0.3, optim.exponential(0.3, 0.9), optim.step(0.3, 2)], [4, 11]),
        lambda o: schedulers.SequentialLR(
            o,
            [schedulers.ConstantLR(o, 1.0), schedulers.ExponentialLR(o, 0.9), schedulers.StepLR(o, 2)],
            [4, 11],
        ),
    ),
    (
        optim.warmup(5, optim.exponential(0.3, 0.9), start_factor=0.2),
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o, 0.2, total_iters=5), schedulers.ExponentialLR(o, 0.9)], [5]
        ),
    ),
]


@pytest.mark.parametrize(("schedule", "make"), SCHEDULES, ids=[str(s)[:60] for s, _ in SCHEDULES])
@pytest.mark.filterwarnings("ignore")
def test_schedules_equal_pytorchs(schedule, make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for t in range(40):
        rate = optimizer.param_groups[0]["lr"]
        assert float(schedule(t)) == pytest.approx(rate, rel=1e-9, abs=1e-16), t
        optimizer.step()
        scheduler.step()


def test_training_with_a_schedule_equals_pytorchs():
    params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in START.items()}
    theirs = torch.optim.AdamW(list(params.values()), lr=0.1)
    scheduler = schedulers.CosineAnnealingLR(theirs, T_max=STEPS)
    path = []
    for step in range(STEPS):
        for name, g in gradients(step).items():
            params[name].grad = torch.tensor(g)
        theirs.step()
        scheduler.step()
        path.append({name: p.detach().numpy().copy() for name, p in params.items()})
    assert_same(in_chainrule(optim.AdamW(lr=optim.cosine(0.1, T_max=STEPS))), path)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3)])
def test_plateau_equals_pytorchs(mode, threshold_mode, patience, cooldown):
    settings = {
        "mode": mode, "factor": 0.5, "patience": patience, "threshold": 0.1, "threshold_mode": threshold_mode,
        "cooldown": cooldown, "min_lr": 0.01,
    }  # fmt: skip
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = schedulers.ReduceLROnPlateau(theirs, **settings)
    ours = optim.SGD(lr=0.3)
    plateau = optim.ReduceOnPlateau(ours, **settings)
    metrics = np.random.default_rng(3).normal(size=60)
    for metric in metrics:
        scheduler.step(metric)
        plateau.update(metric)
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)


def test_the_moving_average_of_weights_equals_pytorchs():
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay=0.9)
    )
    ema = optim.EMA(decay=0.9)
    for step in range(10):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(np.random.default_rng(step).normal(size=tuple(p.shape))))
        averaged.update_parameters(model)
        ema.update({n: cr.tensor(p.detach().numpy()) for n, p in model.named_parameters()})
    for name, p in averaged.module.named_parameters():
        np.testing.assert_allclose(ema.weights()[name].numpy(), p.detach().numpy(), rtol=1e-12)


# -- L-BFGS

A = np.random.default_rng(5).normal(size=(6, 6))
CURVATURE = A @ A.T + 0.1 * np.eye(6)


def rosenbrock(p):
    x, y = p["x"][:-1], p["x"][1:]
    return (100 * (y - x * x) ** 2 + (1 - x) ** 2).sum() + (p["b"] * p["b"]).sum()


def quadratic(p):
    x = p["x"].reshape(6, 1)
    matrix = torch.tensor(CURVATURE) if isinstance(x, torch.Tensor) else cr.tensor(CURVATURE)
    return 0.5 * (x.T @ (matrix @ x)).sum() + ((p["b"] - 1) ** 4).sum()


def wavy(p):
    module = torch if isinstance(p["x"], torch.Tensor) else cr
    return (module.sin(3 * p["x"]) + 0.1 * p["x"] ** 2).sum() + (p["b"] ** 2).sum()


@pytest.mark.parametrize("loss", [rosenbrock, quadratic, wavy])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.001, "max_iter": 5},
        {"lr": 0.1, "max_iter": 4, "max_eval": 3, "history_size": 2},
        {"line_search_fn": "strong_wolfe", "max_iter": 4},
        {"line_search_fn": "strong_wolfe", "history_size": 3, "lr": 0.5, "max_iter": 6},
        {"line_search_fn": "strong_wolfe", "max_eval": 2, "lr": 3.0},
        {"line_search_fn": "strong_wolfe", "max_iter": 20, "lr": 100.0},
    ],
    ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()),
)
def test_lbfgs_equals_pytorchs(loss, settings):
    if loss is rosenbrock and settings.get("lr") == 0.1:
        settings = {**settings, "lr": 0.003}  # longer fixed steps fly off to infinity, there and here
    start = {"x": np.random.default_rng(7).normal(size=6), "b": np.array([[0.3, -0.4]])}
    theirs = {n: torch.nn.Parameter(torch.tensor(x)) for n, x in start.items()}
    ours = {n: cr.tensor(x) for n, x in start.items()}
    their_calls, our_calls = [], []
    their_optimizer = torch.optim.LBFGS(list(theirs.values()), **settings)
    our_optimizer = optim.LBFGS(ours, **settings)

    def their_closure():
        their_optimizer.zero_grad()
        value = loss(theirs)
        value.backward()
        their_calls.append(value.item())
        return value

    def our_closure():
        value, grads = cr.value_and_grad(loss)(ours)
        our_calls.append(float(value))
        return value, grads

    for step in range(6):
        first = their_optimizer.step(their_closure)
        ours_first = our_optimizer.step(our_closure)
        assert len(our_calls) == len(their_calls), f"step {step}"
        if first.item() < 1e-14:  # at the bottom only rounding is left to be compared
            break
        assert float(ours_first) == pytest.approx(first.item(), rel=1e-7, abs=1e-13)
        for n, p in theirs.items():
            np.testing.assert_allclose(
                ours[n].numpy(), p.detach().numpy(), rtol=1e-7, atol=1e-9, err_msg=f"step {step}"
            )
