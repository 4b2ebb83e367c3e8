"""compile: signatures, in-out state, what it refuses; eager, compiled and hand-written NumPy agree."""

import gc
import warnings

import numpy as np
import pytest
from tests.sessions import CheckedEngine

from chainrule import errors, tree
from chainrule.compile import compile
from chainrule.core.autodiff import grad, value_and_grad
from chainrule.core.tensor import LEAVES, tensor
from chainrule.engines import ENGINES
from chainrule.primitives import elementwise as e
from chainrule.primitives import operators as o

pytestmark = pytest.mark.parametrize("engine", [*sorted(ENGINES), "checked"])


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    monkeypatch.setitem(ENGINES, "checked", CheckedEngine())


class Counter(tree.Stateful):
    def __init__(self):
        self.weight = tensor(np.ones((2, 2), np.float32), requires_grad=True)
        self.count = tensor(0)
        self.rate = 0.1

    def role(self, name):
        return "parameter" if name == "weight" else "state"


def train(model, x):
    loss, grads = value_and_grad(lambda m: (e.tanh(x @ m.weight) ** 2).sum())(model)
    model.weight = model.weight - model.rate * grads["weight"]
    model.count = model.count + 1
    return loss


def by_hand(w, x):
    h = np.tanh(x @ w)
    return (h**2).sum(), w - np.float32(0.1) * (x.T @ (2 * h * (1 - h * h)))


def test_state_is_in_out_and_agrees_with_numpy(engine):
    x = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    eager, compiled, w = Counter(), Counter(), np.ones((2, 2), np.float32)
    fast = compile(train, engine=engine)
    for i in range(5):
        a, b = float(train(eager, tensor(x))), float(fast(compiled, x))
        c, w = by_hand(w, x)
        assert a == pytest.approx(b, rel=1e-6) and a == pytest.approx(c, rel=1e-5)
        assert int(compiled.count) == i + 1
    np.testing.assert_allclose(np.asarray(compiled.weight), np.asarray(eager.weight), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(compiled.weight), w, rtol=1e-5)
    assert compiled.weight.scopes == {LEAVES}
    assert fast.compilations == 1


def test_the_second_call_compiles_nothing(engine):
    calls = []

    def f(x, n, flag=False):
        calls.append((x.shape, n, flag))
        return x * n

    fast = compile(f, engine=engine)
    x = tensor([1.0, 2.0])
    for _ in range(3):
        fast(x, 2)
    assert len(calls) == fast.compilations == 1
    fast(x, 3)
    fast(x, n=3, flag=True)
    fast(tensor([1.0]), 2)
    fast(x.astype("float64"), 2)
    fast(x, 2.0)
    assert len(calls) == fast.compilations == 6


def test_a_setting_of_a_module_is_part_of_the_signature(engine):
    model, fast = Counter(), compile(lambda m: m.weight * m.rate, engine=engine)
    assert float(fast(model)[0, 0]) == pytest.approx(0.1)
    model.rate = 0.5
    assert float(fast(model)[0, 0]) == 0.5
    assert fast.compilations == 2


def test_results_keep_their_structure(engine):
    fast = compile(lambda x: {"a": x, "b": (x + 1, "text", None, 3)}, engine=engine)
    for _ in range(2):
        result = fast(tensor(1.0))
        assert (float(result["a"]), float(result["b"][0]), result["b"][1:]) == (1, 2, ("text", None, 3))


def test_results_do_not_share_memory_with_the_callers_arrays(engine):
    x = np.ones((2, 3), np.float32)
    y = compile(lambda x: (x, x.T), engine=engine)(x)
    x[:] = 7
    assert float(y[0][0, 0]) == float(y[1][0, 0]) == 1


def test_kwargs_defaults_and_varargs(engine):
    fast = compile(lambda a, *rest, scale=2.0: (a + rest[0]) * scale, engine=engine)
    assert float(fast(tensor(1.0), tensor(2.0))) == 6
    assert float(fast(tensor(1.0), tensor(2.0), scale=tensor(3.0))) == 9


def test_derivatives_see_through_a_compiled_function(engine):
    fast = compile(lambda x: e.sin(x) * x, engine=engine)
    x = tensor(np.float64(0.5))
    fast(x)
    assert float(grad(fast)(x)) == pytest.approx(np.sin(0.5) + 0.5 * np.cos(0.5))
    assert float(compile(grad(grad(fast)), engine=engine)(x)) == pytest.approx(2 * np.cos(0.5) - 0.5 * np.sin(0.5))


def test_compiled_functions_nest(engine):
    inner = compile(lambda x: x * 2, engine=engine)
    assert float(compile(lambda x: inner(x) + 1, engine=engine)(tensor(3.0))) == 7


def test_errors_inside_a_compiled_step_raise(engine):
    with pytest.raises(IndexError):
        compile(lambda x, i: x[i], engine=engine)(tensor([1.0, 2.0]), tensor([5]))
    with pytest.raises(ZeroDivisionError):
        compile(o.floor_divide, engine=engine)(tensor([1]), tensor([0]))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_while_a_step_is_compiled(engine, enabled):
    seen, before = [], gc.isenabled()

    def step(x, fails):
        seen.append(gc.isenabled())
        if fails:
            raise ValueError("on purpose")
        return x + 1

    try:
        (gc.enable if enabled else gc.disable)()
        compiled = compile(step, engine=engine)
        compiled(tensor([1.0]), False)
        with pytest.raises(ValueError, match="on purpose"):
            compiled(tensor([1.0]), True)
        assert seen == [False, False] and gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_structure_may_not_change(engine):
    def grow(m):
        m.more = tensor(1.0)
        return m.weight

    with pytest.raises(errors.TracedValueError, match="structure"):
        compile(grow, engine=engine)(Counter())

    def reshape(m):
        m.weight = m.weight[0]
        return m.count

    with pytest.raises(errors.TracedValueError, match=r"float32\[2, 2\] before .* float32\[2\] after"):
        compile(reshape, engine=engine)(Counter())


def test_plain_containers_are_not_in_out(engine):
    def mutate(d):
        d["x"] = d["x"] + 1
        return d["x"]

    with pytest.raises(errors.TracedValueError, match="return the new value"):
        compile(mutate, engine=engine)({"x": tensor(1.0)})


def test_a_module_cannot_be_returned(engine):
    with pytest.raises(errors.ConfigError, match="updated in place"):
        compile(lambda m: m, engine=engine)(Counter())


def test_many_signatures_warn_once(engine):
    fast = compile(lambda x, n: x * n, engine=engine)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for i in range(12):
            fast(tensor(1.0), float(i))
    assert len(seen) == 1 and "as a tensor" in str(seen[0].message)


def test_unknown_engines_are_named(engine):
    with pytest.raises(errors.ConfigError, match=r"Engines: .*reference"):
        compile(lambda x: x, engine="warp")


def test_a_failed_trace_leaves_nothing_behind(engine):
    fast = compile(lambda x: x if x > 0 else -x, engine=engine)
    with pytest.raises(errors.TracedValueError):
        fast(tensor(1.0))
    assert fast.compilations == 0
    with pytest.raises(errors.ConfigError, match="Nothing is compiled"):
        _ = fast.program


def test_memory_does_not_grow_with_steps(engine):
    import gc

    from chainrule.core.tensor import Tensor

    model, fast, x = Counter(), compile(train, engine=engine), tensor(np.ones((5, 2), np.float32))
    counts = []
    for steps in (3, 17):  # looking takes long, where many tests have run before
        for _ in range(steps):
            fast(model, x)
        gc.collect()
        counts.append(sum(isinstance(o, Tensor) for o in gc.get_objects()))
    assert counts[1] == counts[0]


class Pair(tree.Stateful):
    def __init__(self, a, b):
        self.a, self.b = a, b


def test_equal_state_may_part_and_meet(engine):
    def part(pair):
        pair.a = pair.a + 1
        return pair.a + pair.b

    def meet(pair):
        pair.a = pair.b = pair.a * pair.b
        return pair.a

    zero = tensor(0)
    pair, one, other = Pair(zero, zero), compile(part, engine=engine), compile(meet, engine=engine)
    assert [int(one(pair)) for _ in range(3)] == [1, 2, 3]
    assert (int(pair.a), int(pair.b), one.compilations) == (3, 0, 1)
    pair.b = tensor(2)
    assert [int(other(pair)) for _ in range(3)] == [6, 36, 1296]
    assert int(one(pair)) == 2593 and (int(pair.a), int(pair.b)) == (1297, 1296)
    same = tensor(5)
    pair.a = pair.b = same
    assert int(other(pair)) == 25 and int(pair.b) == 25 and int(same) == 5


def test_state_that_is_shared_goes_in_once(engine):
    def both(pair):
        pair.a = pair.b = pair.a + 1
        return pair.b

    shared = tensor(0)
    pair, fast = Pair(shared, shared), compile(both, engine=engine)
    assert [int(fast(pair)) for _ in range(3)] == [1, 2, 3]
    assert len(fast.program.inputs) == 1 and pair.a is pair.b and fast.compilations == 1
