"""Layers, optimisers and training steps in machine code: against the reference, and bit for bit on any threads."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from tests.engines.native.kernels import runnable
from tests.engines.native.suite import GUARDED, assert_close, bits, native, on_threads, raised, reference

import chainrule as cr
from chainrule import errors, losses, nn, optim

THREADS = (2, 3, 4, 7)
RNG = np.random.default_rng(3)


def seed(n):
    return cr.random.Generator(n)


def rows(*shape):
    return RNG.normal(size=shape)


LINE, PAIR, IMAGE = rows(19, 12), rows(19, 12), rows(6, 12, 5)
LAYERS = {
    "Linear": (lambda d: nn.Linear(12, 33, dtype=d), LINE),
    "Linear without bias": (lambda d: nn.Linear(12, 1, bias=False, dtype=d), LINE),
    "Linear of stacks": (lambda d: nn.Linear(5, 17, dtype=d), IMAGE),
    "Flatten": (lambda d: nn.Flatten(), IMAGE),
    "Unflatten": (lambda d: nn.Unflatten(1, (3, 4)), LINE),
    "BatchNorm1d": (lambda d: nn.BatchNorm1d(12, dtype=d), LINE),
    "BatchNorm1d of sequences": (lambda d: nn.BatchNorm1d(12, dtype=d), IMAGE),
    "BatchNorm1d with a plain mean": (lambda d: nn.BatchNorm1d(12, momentum=None, dtype=d), LINE),
    "LayerNorm": (lambda d: nn.LayerNorm(12, dtype=d), LINE),
    "LayerNorm of two axes": (lambda d: nn.LayerNorm((12, 5), dtype=d), IMAGE),
    "RMSNorm": (lambda d: nn.RMSNorm(12, dtype=d), LINE),
    "GroupNorm": (lambda d: nn.GroupNorm(3, 12, dtype=d), IMAGE),
    "InstanceNorm1d": (lambda d: nn.InstanceNorm1d(12, affine=True, dtype=d), IMAGE),
    "Dropout": (lambda d: nn.Dropout(0.4, generator=seed(1)), LINE),
    "PReLU": (lambda d: nn.PReLU(12, dtype=d), LINE),
    "Residual": (lambda d: nn.Residual(nn.Sequential(nn.Linear(12, 12, dtype=d), nn.ReLU())), LINE),
    "Identity": (lambda d: nn.Identity(), LINE),
    **{
        layer.__name__: (lambda d, layer=layer: layer(), LINE)
        for layer in (
            nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
            nn.LogSoftmax, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Tanh,
        )
    },
    "GELU by tanh": (lambda d: nn.GELU("tanh"), LINE),
    "Softmax of an axis": (lambda d: nn.Softmax(1), IMAGE),
}  # fmt: skip
ELSEWHERE = {"Module", "ModuleDict", "ModuleList", "Parameter", "Sequential", "Row", "Summary", "init", "summary",
             "Bilinear", "Embedding"}  # fmt: skip


def numbers(x):
    return {name: np.asarray(value) for name, value in x.state_dict().items()}


def assert_alike(one, two, tolerance, context):
    one, two = numbers(one), numbers(two)
    assert list(one) == list(two)
    for name in one:
        assert_close(one[name], two[name], tolerance, (context, name))


def forward_and_back(layer, *inputs):
    """The output, and the gradients of a weighted sum of it by parameters and the first input."""

    def loss(layer, x, *rest):
        y = layer(x, *rest)
        return cr.sum(y * cr.cos(cr.reshape(cr.arange(y.size, dtype=y.dtype), y.shape))), y

    (_, y), by_parameter = cr.value_and_grad(loss, has_aux=True)(layer, *inputs)
    if inputs[0].dtype in (cr.int64, cr.int32):
        return y, by_parameter
    return y, by_parameter, cr.grad(lambda x: loss(layer, x, *inputs[1:])[0])(inputs[0])


def compare_layer(make, arrays, dtype):
    inputs = [cr.tensor(a.astype(dtype) if a.dtype == np.float64 else a) for a in arrays]
    one, two = make(dtype), make(dtype)
    rng = np.random.default_rng(0)
    for model in (one, two):
        rng = np.random.default_rng(0)
        model.assign({n: cr.tensor(rng.normal(size=p.shape), dtype=dtype) for n, p in model.named_parameters()})
    fast, slow = native(forward_and_back), reference(forward_and_back)
    bound = 1e-4 if dtype == "float32" else 1e-11
    for _ in range(3):
        for a, b in zip(
            cr.tree.flatten(fast(one, *inputs)).leaves, cr.tree.flatten(slow(two, *inputs)).leaves, strict=True
        ):
            assert_close(a.value, b.value, bound)
    assert_alike(one, two, bound, "state")
    evaluate, expected = native(lambda m, *x: m(*x)), reference(lambda m, *x: m(*x))
    assert_close(evaluate(one.eval(), *inputs), expected(two.eval(), *inputs), bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    make, x = LAYERS[name]
    compare_layer(make, (x,), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_several_inputs(dtype):
    compare_layer(lambda d: nn.Bilinear(12, 12, 3, dtype=d), (LINE, PAIR), dtype)
    compare_layer(lambda d: nn.Embedding(9, 4, padding_idx=2, dtype=d), (RNG.integers(0, 9, (7, 5)),), dtype)


# -- optimisers

OPTIMISERS = {
    "SGD": lambda: optim.SGD(lr=0.1),
    "SGD dampened": lambda: optim.SGD(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "SGD nesterov": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "RMSprop": lambda: optim.RMSprop(lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda: optim.Adagrad(lr=0.1, lr_decay=0.1),
    "Adadelta": lambda: optim.Adadelta(),
    "Lion": lambda: optim.Lion(lr=0.01, weight_decay=0.1),
    "Adam": lambda: optim.Adam(lr=0.02),
    "Adam amsgrad": lambda: optim.Adam(lr=0.02, amsgrad=True, weight_decay=0.1),
    "AdamW scheduled": lambda: optim.AdamW(lr=optim.warmup(2, optim.cosine(0.1, 10))),
    "Adamax": lambda: optim.Adamax(lr=0.02),
    "NAdam": lambda: optim.NAdam(lr=0.02),
    "RAdam": lambda: optim.RAdam(lr=0.02),
    "groups": lambda: optim.Adam(
        lr=0.02, groups=[{"params": "*.bias", "lr": 0.05}, {"params": "0.*", "betas": (0.5, 0.6)}]
    ),
    "norm clipped": lambda: optim.chain(optim.clip_by_global_norm(0.1), optim.Adam(lr=0.02), optim.clip_by_value(0.05)),
    "accumulate": lambda: optim.accumulate(optim.chain(optim.clip_by_value(0.1), optim.AdamW(lr=0.02)), 3),
    "composed": lambda: optim.Composed(optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(0.02))),
    **{
        f"schedule {name}": (lambda lr=lr: optim.SGD(lr=lr))
        for name, lr in {
            "step": optim.step(0.1, 2, 0.5), "exponential": optim.exponential(0.1, 0.9),
            "one_cycle": optim.one_cycle(0.1, 6),
            "polynomial": optim.polynomial(0.1, 5), "linear": optim.linear(0.1, 4),
            "restarts": optim.cosine_restarts(0.1, 3), "multistep": optim.multistep(0.1, [2, 3]),
        }.items()
    },
}  # fmt: skip


def network(dtype, widths=(7, 33, 16, 3)):
    layers = []
    for n, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Linear(a, b, dtype=dtype, generator=seed(n)), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


X, Y = rows(21, 7), RNG.integers(0, 3, 21)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers(name, dtype):
    x, y = cr.tensor(X, dtype=dtype), cr.tensor(Y)
    models, optimisers = [network(dtype) for _ in range(2)], [OPTIMISERS[name]() for _ in range(2)]
    compiled = native(step), reference(step)
    bound = 2e-4 if dtype == "float32" else 1e-10
    for _ in range(6):
        a, b = (f(m, o, x, y) for f, m, o in zip(compiled, models, optimisers, strict=True))
        assert_close(a, b, bound, name)
    assert_alike(*models, bound, name)
    if name != "Adadelta":  # its steps start from almost nothing
        assert_alike(*optimisers, bound * 10, name)


# -- whole steps, on any number of threads


def averaged(model, optimizer, ema, x, y):
    loss = step(model, optimizer, x, y)
    ema.update(model)
    return loss


def rich():
    """Most of what there is in one network."""
    return nn.Sequential(
        nn.Linear(30, 70, bias=False, generator=seed(1)), nn.BatchNorm1d(70), nn.Tanh(),
        nn.Dropout(0.2, generator=seed(2)),
        nn.Residual(nn.Sequential(nn.LayerNorm(70), nn.Linear(70, 70, generator=seed(3)), nn.GELU())),
        nn.Linear(70, 2, generator=seed(4)),
    )  # fmt: skip


def regression(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x), x))(model)
    optimizer.update(model, grads)
    return loss


def penalised(model, optimizer, x, y):
    """A gradient of a gradient."""

    def loss(m):
        value, slope = cr.value_and_grad(lambda x: losses.cross_entropy(m(x), y))(x)
        return value + 0.1 * cr.sum(slope * slope)

    value, grads = cr.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def embedded(model, optimizer, x, y):
    number = cr.argsort(x, axis=1)[:, :3] if x.shape[1] >= 3 else y
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(cr.mean(m(number), axis=1), y))(model)
    optimizer.update(model, grads)
    return loss


STEPS = {
    "tiny": (lambda: network("float32", (4, 16, 16, 3)), lambda: optim.Adam(lr=0.01), step, (16, 4, 3)),
    "tab": (lambda: network("float32", (30, 100, 2)), lambda: optim.Adam(lr=0.01), step, (200, 30, 2)),
    "odd": (lambda: network("float32", (31, 65, 17, 5)), lambda: optim.AdamW(lr=0.01), step, (33, 31, 5)),
    "one row": (lambda: network("float32", (8, 20, 3)), lambda: optim.SGD(lr=0.1, momentum=0.9), step, (1, 8, 3)),
    "one output": (lambda: network("float32", (8, 20, 1)), lambda: optim.SGD(lr=0.1), step, (37, 8, 1)),
    "double": (lambda: network("float64", (50, 64, 64, 10)), lambda: optim.Adam(lr=0.01), step, (64, 50, 10)),
    "rich": (rich, lambda: optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3), step, (67, 30, 2)),
    "rich clipped": (rich, lambda: optim.chain(optim.clip_by_global_norm(0.5), optim.Adam(lr=0.01)), step, (40, 30, 2)),
    "rich accumulated": (rich, lambda: optim.accumulate(optim.Adam(lr=0.01), 2), step, (40, 30, 2)),
    "autoencoder": (
        lambda: network("float32", (64, 40, 12, 40, 64)), lambda: optim.Adam(lr=0.01), regression, (50, 64, 2),
    ),
    "wide": (lambda: network("float32", (100, 300, 10)), lambda: optim.Adam(lr=0.01), step, (32, 100, 10)),
    "deep": (lambda: network("float32", (70, 90, 10)), lambda: optim.Adam(lr=0.01), step, (1100, 70, 10)),
    "penalised": (lambda: network("float32", (9, 17, 3)), lambda: optim.SGD(lr=0.1), penalised, (20, 9, 3)),
    "embedded": (
        lambda: nn.Sequential(nn.Embedding(12, 9), nn.Linear(9, 4)), lambda: optim.Adam(lr=0.01), embedded, (23, 12, 4),
    ),
}  # fmt: skip


def data(shape, dtype):
    rng = np.random.default_rng(4)
    n, columns, classes = shape
    return cr.tensor(rng.normal(size=(n, columns)), dtype=dtype), cr.tensor(rng.integers(0, classes, n))


def train(compiled, model, optimizer, x, y, steps=4):
    """The bits of the losses, and of all state after the steps."""
    history = [bits(compiled(model, optimizer, x, y)) for _ in range(steps)]
    return history, bits(numbers(model)), bits(numbers(optimizer))


@pytest.mark.parametrize("name", STEPS)
def test_training_steps(name):
    make, optimizer, f, shape = STEPS[name]
    model = make()
    model.assign({n: cr.tensor(np.asarray(p)) for n, p in model.named_parameters()})
    dtype = next(iter(model.parameters())).dtype
    x, y = data(shape, dtype)
    slow_model, slow_optimizer, slow = copy.deepcopy(model), optimizer(), reference(f)
    fast_model, fast_optimizer, fast = copy.deepcopy(model), optimizer(), native(f)
    bound = 1e-3 if dtype == np.float32 else 1e-9
    for _ in range(4):
        assert_close(fast(fast_model, fast_optimizer, x, y), slow(slow_model, slow_optimizer, x, y), bound)
    assert_alike(fast_model, slow_model, bound, name)
    if GUARDED:
        return
    expected = train(native(f), copy.deepcopy(model), optimizer(), x, y)
    for threads in THREADS:
        again = on_threads(fast, threads)
        for _ in range(2):
            assert train(again, copy.deepcopy(model), optimizer(), x, y) == expected, threads
            again = on_threads(fast, threads)


def test_deep_gradients_grow_apart_from_what_they_update():
    fast = native(step)
    fast(network("float32", (70, 90, 10)), optim.Adam(lr=0.01), *data((1100, 70, 10), "float32"))
    tiles = [planned.tiles for planned in fast.engine.compiled[-1][3].kernels if planned.tiles is not None]
    assert any(plan.sums and plan.blocks[0] > 4 for plan in tiles)
    assert "depth in blocks of" in fast.explain_plan()


@pytest.mark.parametrize("host", runnable(), ids=lambda host: f"{8 * host.vector_bytes} bits")
@pytest.mark.parametrize("name", ["odd", "rich", "double"])
def test_other_vectors(name, host):
    make, optimizer, f, shape = STEPS[name]
    one, two = make(), make()
    x, y = data(shape, next(iter(one.parameters())).dtype)
    fast, slow, optimisers = native(f, host=host), reference(f), [optimizer(), optimizer()]
    for _ in range(3):
        assert_close(fast(one, optimisers[0], x, y), slow(two, optimisers[1], x, y), 1e-3)
    assert_alike(one, two, 1e-3, name)


def test_a_moving_average():
    x, y = data((21, 7, 3), "float32")
    models, optimisers, means = (
        [make() for _ in range(2)]
        for make in (lambda: network("float32"), lambda: optim.Adam(lr=0.01), lambda: optim.EMA(0.9))
    )
    for f, model, optimizer, mean in zip(
        (native(averaged), reference(averaged)), models, optimisers, means, strict=True
    ):
        mean.init(model)
        for _ in range(5):
            f(model, optimizer, mean, x, y)
    for name, value in means[0].weights().items():
        assert_close(value, means[1].weights()[name], 1e-4, name)


# -- what fails leaves everything as it was


def test_a_step_that_fails_leaves_the_state_as_it_was():
    def f(model, optimizer, number, y):
        loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m[1](cr.take(m[0].weight, number, axis=0)), y))(
            model
        )
        optimizer.update(model, grads)
        return loss

    number, y = RNG.integers(0, 9, 20), cr.tensor(RNG.integers(0, 3, 20))
    wrong = number.copy()
    wrong[13] = 9
    for threads in (1, 3):
        model, optimizer = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 3)), optim.Adam(lr=0.1)
        fast = native(f, threads=threads)
        fast(model, optimizer, cr.tensor(number), y)
        before = bits(numbers(model)), bits(numbers(optimizer))
        for _ in range(2):
            with pytest.raises(errors.IndexOutOfRange, match="9"):
                fast(model, optimizer, cr.tensor(wrong), y)
            assert (bits(numbers(model)), bits(numbers(optimizer))) == before
        twin, other = copy.deepcopy(model), copy.deepcopy(optimizer)
        assert_close(
            fast(model, optimizer, cr.tensor(number), y), reference(f)(twin, other, cr.tensor(number), y), 1e-4
        )
        assert_alike(model, twin, 1e-4, "after")


def test_a_label_outside_raises_as_the_reference_does():
    x, y = data((21, 7, 3), "float32")
    assert raised(step, network("float32"), optim.SGD(lr=0.1), x, y) is None
    wrong = np.asarray(y).copy()
    wrong[5] = 3
    raised(step, network("float32"), optim.SGD(lr=0.1), x, cr.tensor(wrong))
