"""The native engine as a whole: other processors, observed Programs, the cache, what is not native, plans in words."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, meaning, nn, optim, tree
from chainrule.compile import Compiled, compile
from chainrule.core.tensor import tensor
from chainrule.engines import find
from chainrule.engines.native import autotune, cache, manifest
from chainrule.engines.native import engine as engine_module
from chainrule.engines.native.emit import emit
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.native.executable import NativeExecutable
from chainrule.engines.native.explain import explain
from chainrule.engines.native.host import detect, of
from chainrule.engines.native.jit import compile_object, emit_assembly
from chainrule.engines.native.lowering import lower
from chainrule.engines.native.plan import make_plan
from chainrule.engines.native.split import SplitExecutable
from chainrule.engines.native.tile_plans import candidates
from chainrule.engines.native.tiles import Contraction
from chainrule.errors import ConfigError
from chainrule.primitives import elementwise as e
from chainrule.program.program import observe

AVX2 = of("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma,+f16c")
PLAIN = of("x86_64-unknown-linux-gnu", "x86-64", "")
NEON = of("aarch64-unknown-linux-gnu", "cortex-a72", "+neon")


def training_step(*layers, loss=losses.cross_entropy, optimizer=None, rows=19, inputs=20, outputs=3):
    """The Program of a step as the engines get it, and arrays for it."""
    model, opt = nn.Sequential(*layers), optimizer or optim.Adam(lr=1e-3)
    model.seed(0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, inputs)).astype(np.float32)
    y = rng.integers(0, outputs, rows)
    if loss is not losses.cross_entropy:
        y = rng.normal(size=(rows, outputs)).astype(np.float32)

    def step(model, opt, x, y):
        value, gradients = cr.value_and_grad(lambda m: loss(m(x), y))(model)
        opt.update(model, gradients)
        return value

    compiled = Compiled(step, "reference")
    compiled(model, opt, x, y)
    program = compiled.program
    leaves = tree.flatten({"model": model, "opt": opt, "x": x, "y": y}).leaves
    values = {leaf.path: np.asarray(leaf.value) for leaf in leaves}
    return program, [values[program.nodes[i].name] for i in program.inputs]


def mlp(act=nn.ReLU, *more):
    return nn.Linear(20, 33), *more, act(), nn.Linear(33, 17), act(), nn.Linear(17, 3)


def planned(program, host):
    low = lower(program)
    held = tuple(i for i in low.inputs if low.nodes[i].name not in ("x", "y"))
    return make_plan(low, held, host)


@pytest.mark.parametrize("host", [AVX2, PLAIN], ids=["avx2", "x86-64"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
def test_narrower_processors(host, act):
    program, arrays = training_step(*mlp(act))
    plan = planned(program, host)
    code = compile_object(emit(plan), host)
    found = NativeExecutable(program, manifest.manifest_of(program, plan), code, 1, lambda: plan)(arrays)
    expected = find("reference").compile(program)(arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
def test_a_whole_step_for_arm(act):
    program, _ = training_step(*mlp(act))
    text = emit(planned(program, NEON))
    assert "x86" not in text
    assert compile_object(text, NEON)  # raises where a function of a run-time library would be needed
    assembly = emit_assembly(text, NEON)
    assert "fmla" in assembly and "v0.4s" in assembly


OBSERVED = {
    "adam": lambda: training_step(*mlp()),
    "norms": lambda: training_step(
        *mlp(nn.Tanh, nn.BatchNorm1d(33), nn.LayerNorm(33)), optimizer=optim.SGD(lr=0.1, momentum=0.9)
    ),
    "mse": lambda: training_step(*mlp(nn.GELU), loss=losses.mse),
}


@pytest.mark.parametrize("name", OBSERVED)
def test_observing_changes_no_bit(name):
    program, arrays = OBSERVED[name]()
    engine = NativeEngine(threads=1)
    plain = engine.compile(program)(arrays)
    rng = np.random.default_rng(0)
    everything = range(len(program.nodes))
    for chosen in (everything, rng.choice(len(program.nodes), 12, replace=False)):
        numbers = [int(n) for n in chosen]
        seen = observe(program, numbers)
        found = engine.compile(seen)(arrays)
        for a, b in zip(plain, found[: len(plain)], strict=True):
            assert a.tobytes() == b.tobytes()
        expected = find("reference").compile(seen)(arrays)[len(plain) :]
        for n, a, b in zip(numbers, found[len(plain) :], expected, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype) == (program.nodes[n].shape, program.nodes[n].dtype)
            if program.nodes[n].dtype == np.float32:  # sums that cancel leave rounding alone
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_second_process_finds_the_code(monkeypatch, tmp_path):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    program, arrays = training_step(*mlp())
    first = NativeEngine(threads=1).compile(program)
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "compile_object", lambda *_: pytest.fail("compiled again"))
        patch.setattr(engine_module, "make_plan", lambda *_: pytest.fail("planned again"))
        second = NativeEngine(threads=1).compile(program)
        for a, b in zip(first(arrays), second(arrays), strict=True):
            assert a.tobytes() == b.tobytes()
    assert second.explain() == first.explain()


def test_a_manifest_that_makes_no_sense_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    put = cache.put
    monkeypatch.setattr(cache, "put", lambda key, entry: put(key, cache.Entry(entry.code, {"other": 1})))
    f = compile(lambda x: x * 3, engine="native")
    assert f(tensor([2.0])).tolist() == [6.0]
    monkeypatch.undo()
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    assert compile(lambda x: x * 3, engine="native")(tensor([2.0])).tolist() == [6.0]


def test_a_manifest_survives_json():
    program, _ = training_step(*mlp())
    known = manifest.manifest_of(program, planned(program, detect()))
    assert manifest.from_json(manifest.to_json(known)) == known


def test_another_value_of_a_constant_is_another_program():
    x = tensor([1.0, 2.0, 3.0])
    f = [compile(lambda x, k=k: x * np.float32(k) + cr.tensor([k, 1.0, 2.0]), engine="native") for k in (2.0, 5.0)]
    assert [g(x).tolist() for g in f] == [[4.0, 5.0, 8.0], [10.0, 11.0, 17.0]]


def test_what_is_not_native_splits_the_step(monkeypatch):
    monkeypatch.setattr(meaning, "strange", lambda x: np.sin(x) * 2, raising=False)
    strange = e.elementwise("strange", lambda m, x: m.strange(x))

    def f(x, w):
        return cr.tanh(strange(cr.exp(x @ w))) + strange(x @ w).sum(), cr.sum(x)

    rng = np.random.default_rng(0)
    x, w = tensor(rng.random((5, 4), np.float32)), tensor(rng.random((4, 3), np.float32))
    fast = compile(f, engine="native")
    with pytest.warns(UserWarning, match="no native code for strange"):
        found = fast(x, w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        compile(lambda x: strange(x) + 1, engine="native")(x)
    for a, b in zip(found, f(x, w), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5)
    assert isinstance(fast.latest.executable, SplitExecutable)
    assert "strange" in fast.explain_plan()


def test_the_plan_in_words():
    program, _ = training_step(*mlp())
    words = explain(
        planned(program, of("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512vl,+avx512bw,+avx512dq"))
    )
    for part in ("index maps", "kernels", "storages", "barriers", "memory", "model.0.weight", "panels of", "matmul"):
        assert part in words
    fast = compile(lambda x: x + 1, engine="native")
    with pytest.raises(ConfigError, match="has been called"):
        fast.explain_plan()
    fast(tensor([1.0]))
    assert "add" in fast.explain_plan()
    slow = compile(lambda x: x + 1, engine="reference")
    slow(tensor([1.0]))
    assert "NumPy" in slow.explain_plan()


def test_autotune_changes_no_bit_and_remembers(monkeypatch, tmp_path):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "SECONDS", 1e-3)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((33, 64), (64, 80)))
    plain = compile(lambda a, b: a @ b, engine="native")(a, b)
    tuned = compile(lambda a, b: a @ b, engine="native", autotune=True)(a, b)
    assert np.asarray(plain).tobytes() == np.asarray(tuned).tobytes()
    product = Contraction(33, 80, 64, a_row=64, b_depth=80, c_row=80)
    chosen = autotune.choose(product, detect())
    assert chosen in candidates(product, detect())
    monkeypatch.setattr(autotune, "_measure", lambda *_: pytest.fail("measured again"))
    assert autotune.choose(product, detect()) == chosen


def test_threads_and_autotune_are_of_the_native_engine():
    with pytest.raises(ConfigError, match="reference engine has nothing to choose"):
        compile(lambda x: x, engine="reference", threads=2)
    with pytest.raises(ConfigError, match="threads=0"):
        compile(lambda x: x, engine="native", threads=0)


def test_small_steps_run_on_one_thread():
    program, _ = training_step(*mlp())
    small = NativeEngine().compile(program)
    assert small.threads == 1
    assert NativeEngine(threads=3).compile(program).threads == 3


def test_observe_names_what_it_shows():
    program, _ = training_step(*mlp())
    seen = observe(program, [40, 41])
    assert [out.name for out in seen.outputs[-2:]] == ["%40", "%41"]
    assert replace(seen, outputs=program.outputs).outputs == program.outputs
