"""State stays sound: exceptions in the middle, threads, deep chains, memory, other processes."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, losses, nn, optim
from chainrule.core.tensor import context

RNG = np.random.default_rng(0)
X = cr.tensor(RNG.normal(size=(16, 6)).astype(np.float32))
Y = cr.tensor(RNG.integers(0, 4, 16))


def network(seed=0):
    cr.random.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def step_backward(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = losses.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def state(*objects):
    return [{k: v.numpy().tobytes() for k, v in x.state_dict().items()} for x in objects]


# -- exceptions


def boom(*args):
    raise RuntimeError("boom")


def test_an_exception_in_a_loss_leaves_the_model_as_it_was():
    model = network()
    before, count = state(model), int(model[3].generator.count)
    with pytest.raises(RuntimeError, match="boom"):
        cr.value_and_grad(lambda m: boom(m(X)))(model)
    assert state(model) == before and int(model[3].generator.count) == count
    assert context.modules == () and context.of is None


def test_an_exception_in_a_rule_leaves_no_trace():
    with pytest.raises(RuntimeError, match="boom"):
        cr.grad(cr.custom_vjp(lambda x: x * 2, boom))(1.0)
    assert context.of is None and float(cr.grad(lambda x: x * x)(2.0)) == 4


def test_exceptions_while_tracing_and_while_running_leave_model_and_optimiser_as_they_were():
    model = network()
    optimizer = optim.Adam(model, lr=0.1)
    before = state(model, optimizer)
    fast = cr.compile(lambda m, o, x, y: boom(step(m, o, x, y)))
    with pytest.raises(RuntimeError, match="boom"):
        fast(model, optimizer, X, Y)
    assert state(model, optimizer) == before and fast.compilations == 0
    fast = cr.compile(step, engine="reference")
    first = float(fast(copy.deepcopy(model), copy.deepcopy(optimizer), X, Y))
    with pytest.raises(errors.IndexOutOfRange, match="index 103"):
        fast(model, optimizer, X, Y + 100)
    assert state(model, optimizer) == before
    assert float(fast(model, optimizer, X, Y)) == first


# -- eager, compiled, checkpointed: one arithmetic


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta",
                                  "Lion"])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_eager_and_compiled_training_have_the_same_bits(name, dtype):
    eager = network().to(dtype)
    compiled = copy.deepcopy(eager)
    optimizers = [getattr(optim, name)(m, lr=1e-2) for m in (eager, compiled)]
    fast = cr.compile(step, engine="reference")
    for _ in range(4):
        a, b = step(eager, optimizers[0], X, Y), fast(compiled, optimizers[1], X, Y)
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert state(eager, optimizers[0]) == state(compiled, optimizers[1])


class Checkpointed(nn.Module):
    def __init__(self, on):
        self.on = on
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head((cr.checkpoint(self.body) if self.on else self.body)(x))


@pytest.mark.parametrize("run", [step, cr.compile(step), step_backward], ids=["eager", "compiled", "backward"])
def test_checkpoint_of_a_module_with_state_changes_no_bit(run):
    found = []
    for on in (True, False):
        cr.random.manual_seed(0)
        model = Checkpointed(on)
        optimizer = optim.SGD(model, lr=0.1)
        for _ in range(3):
            run(model, optimizer, X, Y)
        found.append(state(model))
    assert found[0] == found[1]


CUBE = cr.custom_vjp(lambda x: x**3, lambda dy, y, x: (dy * 3 * x * x,))


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        (cr.checkpoint(lambda x: cr.tanh(cr.sin(x) * x)), lambda x: cr.tanh(cr.sin(x) * x)),
        (CUBE, lambda x: x * x * x),
        (cr.checkpoint(lambda x: cr.sin(CUBE(x))), lambda x: cr.sin(x * x * x)),
        (cr.checkpoint(lambda x: cr.checkpoint(cr.sin)(x) * x), lambda x: cr.sin(x) * x),
        (cr.compile(cr.checkpoint(cr.compile(cr.sin))), cr.sin),
        (cr.checkpoint(lambda x: cr.grad(lambda z: cr.sum(cr.sin(z) * z))(x)), lambda x: cr.cos(x) * x + cr.sin(x)),
    ],
)
def test_checkpoint_and_own_rules_up_to_the_third_order(own, plain):
    x = cr.tensor(RNG.normal(size=4))

    def total(f):
        return lambda z: cr.sum(f(z))

    for _ in range(3):
        own, plain = cr.grad(total(own)), cr.grad(total(plain))
        np.testing.assert_allclose(own(x).numpy(), plain(x).numpy(), rtol=1e-12)
        np.testing.assert_allclose(cr.compile(own)(x).numpy(), plain(x).numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)),
        lambda: (nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 4)),
        lambda: (nn.Linear(6, 5), nn.BatchNorm1d(5), nn.SiLU(), nn.Linear(5, 4)),
        lambda: (nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.Softplus()),
    ],
    ids=["tanh", "layer norm", "batch norm", "group and rms norm"],
)
def test_third_derivatives_through_modules_and_a_loss(layers):
    cr.random.manual_seed(0)
    model = nn.Sequential(*layers()).to("float64")
    x = cr.tensor(RNG.normal(size=(5, 6)))
    cr.check_gradients(lambda m, x: losses.cross_entropy(m(x), Y[:5], label_smoothing=0.1), model, x, order=3)


# -- threads


def test_threads_train_different_models_eagerly_and_compiled():
    shared = cr.compile(step, engine="reference")
    runs = [step, step_backward, shared, shared, cr.compile(step, engine="reference")]
    models = [network(seed) for seed in range(len(runs))]
    train = lambda run, m: [run(m, o, X, Y).numpy().tobytes() for o in [optim.Adam(m, lr=1e-2)] for _ in range(15)]
    expected = [train(step if run is shared else run, copy.deepcopy(m)) for run, m in zip(runs, models, strict=True)]
    found = [None] * len(runs)

    def work(i):
        found[i] = train(runs[i], models[i])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(runs))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(before)
    assert found == expected and shared.compilations == 1


# -- depth


def chain(x, n):
    for _ in range(n):
        x = x + 1.0
    return x


def test_a_chain_of_100000_in_grad_backward_and_deletion():
    n = 100_000
    assert float(cr.grad(lambda x: chain(x, n))(1.0)) == 1
    w = cr.tensor(1.0, requires_grad=True)
    y = chain(w, n)
    y.backward()
    assert float(w.grad) == 1
    assert float(copy.deepcopy(y)) == float(pickle.loads(pickle.dumps(y))) == n + 1
    del y


@pytest.mark.slow
def test_a_chain_of_20000_in_compile_vjp_and_checkpoint():
    n = 20_000  # many times as deep as Python's recursion may go
    assert float(cr.compile(lambda x: chain(x, n))(cr.tensor(1.0))) == n + 1
    assert float(cr.vjp(lambda x: chain(x, n), 1.0)[1](1.0)[0]) == 1
    assert float(cr.grad(cr.checkpoint(lambda x: chain(x, n)))(1.0)) == 1


# -- memory, with the garbage collector off: nothing waits for it


ARRAYS = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)


def failing():
    with pytest.raises(errors.ShapeError):
        cr.value_and_grad(lambda m: losses.cross_entropy(m(X), Y) + X.reshape(7))(MODEL)


def evaluating():
    TOTAL[0] = TOTAL[0] + cr.sum((cr.argmax(MODEL(X), axis=1) == Y).astype("int64"))


MODEL, TOTAL = network(), [cr.tensor(0)]
OPTIMIZER, FAST = optim.Adam(MODEL, lr=1e-3), cr.compile(step)
LOOPS = {
    "functional": lambda: step(MODEL, OPTIMIZER, X, Y),
    "backward": lambda: step_backward(MODEL, OPTIMIZER, X, Y),
    "compiled": lambda: FAST(MODEL, OPTIMIZER, X, Y),
    "evaluation": evaluating,
    "exceptions": failing,
    "second order": lambda: cr.grad(lambda x: cr.sum(cr.grad(lambda z: cr.sum(cr.tanh(z) ** 2))(x)))(X),
    "checkpoint": lambda: cr.grad(cr.checkpoint(lambda x: cr.sum(cr.tanh(x))))(X),
    "jvp": lambda: cr.jvp(cr.tanh, (X,), (X,)),
}


@pytest.mark.parametrize("name", list(LOOPS))
def test_memory_does_not_grow(name):
    """Tensors alive after each round, counted, and the bytes of all arrays."""
    for _ in range(3):
        LOOPS[name]()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        counts, sizes = [], []
        for i in range(7):
            LOOPS[name]()
            counts.append(sum(isinstance(x, cr.Tensor) for x in gc.get_objects()))
            if i in (2, 6):
                arrays = tracemalloc.take_snapshot().filter_traces([ARRAYS])
                sizes.append(sum(trace.size for trace in arrays.traces))
    finally:
        tracemalloc.stop()
        gc.enable()
    assert counts[-1] == counts[2] and sizes[0] == sizes[1]


# -- other processes

PROGRAM = """
import hashlib, numpy as np, chainrule as cr
from chainrule import losses, nn, optim
cr.random.manual_seed(5)
model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))
optimizer = optim.Adam(model, lr=1e-2, groups=[{"params": "*.bias", "lr": 1e-3}])
generator = cr.random.Generator(1)
def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
fast = cr.compile(step)
for _ in range(5):
    fast(model, optimizer, generator.normal((8, 6)), generator.randint(0, 4, (8,)))
digest = hashlib.sha256(fast.text(locations=False).encode())
for name, x in {**model.state_dict(), **optimizer.state_dict()}.items():
    digest.update(name.encode() + x.numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_same_seed_gives_the_same_bits_in_every_process():
    source = os.path.dirname(os.path.dirname(cr.__file__))
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": source},
        ).stdout
        for seed in ("0", "1", "12345")
    }  # fmt: skip
    assert len(found) == 1 and len(found.pop().strip()) == 64
