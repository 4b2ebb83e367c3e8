"""Arguments of every make: shared and tied Modules, containers of all kinds, numbers, closures."""

import collections
import copy
import dataclasses
import functools
import pickle

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, nn, optim

X = cr.ones((3, 2))


class Around(nn.Module):
    def __init__(self, name, inner):
        setattr(self, name, inner)
        self.own = nn.Linear(2, 2)


# -- Modules that share


def test_a_part_shared_by_two_arguments_has_its_gradient_in_both():
    shared = nn.Linear(2, 2)
    a, b = Around("encoder", shared), Around("decoder", shared)
    grad_a, grad_b = cr.grad(lambda a, b: cr.sum(a.encoder(X) + 2 * b.decoder(X)), argnums=(0, 1))(a, b)
    assert list(grad_a) == ["encoder.weight", "encoder.bias", "own.weight", "own.bias"]
    assert list(grad_b) == ["decoder.weight", "decoder.bias", "own.weight", "own.bias"]
    assert grad_a["encoder.bias"].tolist() == grad_b["decoder.bias"].tolist() == [9, 9]
    optim.SGD(lr=0.1).update(b, grad_b)


def test_a_weight_tied_across_a_dict_comes_once_under_its_first_name():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    models = {"generator": first, "d": second}
    grads = cr.grad(lambda m: cr.sum(m["generator"](X) + m["d"](X)))(models)
    assert {k: list(v) for k, v in grads.items()} == {"generator": ["weight", "bias"], "d": ["bias"]}
    assert grads["generator"]["weight"].tolist() == [[6, 6], [6, 6]]
    optim.SGD(lr=0.1).update(models, grads)
    assert first.weight is second.weight


def test_the_same_module_as_two_arguments():
    m = nn.Linear(2, 2)
    a, b = cr.grad(lambda a, b: cr.sum(a(X) + b(X)), argnums=(0, 1))(m, m)
    assert a["bias"].tolist() == b["bias"].tolist() == [6, 6]


def test_lists_dicts_and_frozen_parts_of_a_module():
    class Parts(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(2, 2), {"a": (nn.Linear(2, 2),)}]
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

        def forward(self, x):
            return self.frozen(self.layers[1]["a"][0](self.layers[0](x)))

    def step(model, optimizer, x):
        loss, grads = cr.value_and_grad(lambda m: cr.sum(m(x) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    model, fast, optimizer = Parts(), cr.compile(step), optim.SGD(lr=1e-3)
    before = model.frozen.weight.tolist()
    losses = [float(fast(model, optimizer, X)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2] and fast.compilations == 1
    assert model.frozen.weight.tolist() == before
    assert list(cr.grad(lambda m: cr.sum(m(X)))(model)) == [
        "layers.0.weight", "layers.0.bias", "layers.1.a.0.weight", "layers.1.a.0.bias",
    ]  # fmt: skip


# -- containers


@dataclasses.dataclass
class Computed:
    w: object
    scale: object = dataclasses.field(init=False)

    def __post_init__(self):
        self.scale = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    w: object
    _: dataclasses.KW_ONLY
    name: str = "frozen"


Pair = collections.namedtuple("Pair", "w n")


@pytest.mark.parametrize(
    "make",
    [
        lambda w: {"w": w, "other": None},
        lambda w: collections.OrderedDict(w=w),
        lambda w: collections.defaultdict(list, w=w),
        lambda w: Computed(w),
        lambda w: Frozen(w, name="n"),
        lambda w: Pair(w, 3),
        lambda w: {"w": w, "deep": [{"a": (1, "b", {2, 3})}]},
    ],
)
def test_containers_go_through_grad_and_compile(make):
    get = lambda p: p["w"] if isinstance(p, dict) else p.w
    point = make(cr.tensor([1.0, 2.0]))
    gradient = cr.grad(lambda p: cr.sum(get(p) ** 2))
    for f in (gradient, cr.compile(gradient)):
        assert type(f(point)) is type(point)
        assert get(f(point)).tolist() == [2, 4]


def test_a_defaultdict_keeps_its_factory():
    given = collections.defaultdict(list, w=cr.tensor(1.0))
    assert cr.compile(lambda d: d)(given)["new"] == []


# -- numbers


def test_numbers_are_differentiated_like_scalars():
    assert float(cr.grad(lambda x: x * x)(3.0)) == 6
    assert float(cr.grad(lambda x: x * x)(np.float32(3.0))) == 6
    assert float(cr.grad(cr.grad(cr.sin))(0.0)) == 0
    assert [float(v) for v in cr.jvp(lambda x: x * x, (3.0,), (2.0,))] == [9, 12]
    assert float(cr.vjp(lambda x: x * x, 3.0)[1](1.0)[0]) == 6


def test_argnums_count_from_the_end_too():
    f = lambda a, b: a * b * b
    assert float(cr.grad(f, argnums=-1)(2.0, 3.0)) == 12
    assert [float(g) for g in cr.grad(f, argnums=(-1, 0))(2.0, 3.0)] == [12, 9]


def test_keyword_arguments_are_handed_on():
    f = lambda x, *, scale=1.0: x * x * scale
    assert float(cr.grad(f)(3.0, scale=2.0)) == 12
    assert [float(v) for v in cr.value_and_grad(f)(cr.tensor(3.0), scale=2.0)] == [18, 12]


def test_numpy_scalars_are_static_by_their_bits():
    fast = cr.compile(lambda x, c: x / c)
    assert float(fast(cr.tensor(1.0), np.float32(0.0))) == np.inf
    assert float(fast(cr.tensor(1.0), np.float32(-0.0))) == -np.inf
    for _ in range(3):
        fast(cr.tensor(1.0), np.float32("nan"))
    assert fast.compilations == 3


# -- what integers made of parameters remember


def test_counts_made_of_parameters_keep_no_graph_alive():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    for x in (w > 1, cr.argmax(w), cr.sign(w), w.astype("int64"), cr.sum((w > 1).astype("int64"))):
        assert not x.requires_grad and x.inputs == ()
        assert np.array_equal(copy.deepcopy(x).numpy(), x.numpy())
        assert np.array_equal(pickle.loads(pickle.dumps(x)).numpy(), x.numpy())
    assert copy.deepcopy(w).requires_grad and not copy.deepcopy(w * 2).requires_grad
    loss = cr.sum(cr.where(w > 1, w * w, 0.0)) + cr.sum(cr.sign(w) * w)
    loss.backward()
    assert w.grad.tolist() == [1, 5]


def test_tensors_format_like_numbers():
    loss = cr.tensor(1.23456)
    assert f"{loss:.3f} {cr.tensor(7):03d}" == "1.235 007"
    assert f"{loss}" == str(loss)
    with pytest.raises(errors.ShapeError, match="one element"):
        f"{cr.ones(2):.3f}"


# -- closures of compiled functions

GENERATOR = cr.random.Generator(0)


def helper(x):
    return cr.dropout(x, 0.5, generator=GENERATOR)


def state(x):
    return {k: v.numpy().tobytes() for k, v in x.state_dict().items()}


def test_a_compiled_function_may_not_change_what_is_no_argument():
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model, lr=0.1)
    norm = nn.BatchNorm1d(2).requires_grad_(False)
    before = state(optimizer), state(norm), int(GENERATOR.count)

    def step(model, x):
        loss, grads = cr.value_and_grad(lambda m: cr.sum(m(x)))(model)
        optimizer.update(model, grads)
        return loss

    class Trainer:
        def __init__(self):
            self.norm = norm

        def run(self, x):
            return self.norm(x)

    for f, args, name in [
        (step, (model, X), "optimizer, an Adam"),
        (lambda x: (lambda: norm(x))(), (X,), "norm, a BatchNorm1d"),
        (helper, (X,), "GENERATOR, a Generator"),
        (lambda x: helper(x) + 1, (X,), "GENERATOR"),
        (functools.partial(lambda n, x: n(x), norm), (X,), "a BatchNorm1d"),
        (Trainer().run, (X,), "self.norm"),
    ]:
        with pytest.raises(errors.TracedValueError, match=f"changes .*{name}.* not an argument"):
            cr.compile(f)(*args)
        assert (state(optimizer), state(norm), int(GENERATOR.count)) == before


def test_what_a_compiled_function_only_reads_may_stay_outside():
    norm, scale = nn.BatchNorm1d(2).requires_grad_(False).eval(), cr.tensor(2.0)
    fast = cr.compile(lambda x: norm(x) * scale)
    np.testing.assert_allclose(fast(X).numpy(), 2 * norm(X).numpy(), rtol=1e-6)


def test_an_exception_while_tracing_leaves_captured_objects_as_they_were():
    norm = nn.BatchNorm1d(2).requires_grad_(False)
    before = state(norm)

    def f(x):
        norm(x)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        cr.compile(f)(X)
    assert state(norm) == before


def test_a_compiled_module_is_a_compiled_function():
    class Scale(nn.Module):
        def forward(self, x, by=2.0):
            return x * by

    fast = cr.compile(Scale())
    assert fast(X, by=3.0).tolist() == (3 * X).tolist()
    assert fast.compilations == 1 and "mul" in fast.text()
