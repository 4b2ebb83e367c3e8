"""Convolutions by Winograd's transforms in machine code: every size, epilogues, threads, processors, digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native import kernels
from tests.engines.native.suite import SuiteEngine, bits, native, on_threads

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.core.tensor import wrap
from chainrule.engines.native import winograd_blocks as blocks
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.emit import emit
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.native.jit import compile_object
from chainrule.engines.native.key import key_of
from chainrule.errors import CompileError, ConfigError
from chainrule.passes import winograd as passes
from chainrule.passes.views import View
from chainrule.primitives.convolve import convolve


def padded(low, high):
    return {"strides": (1, 1), "low": low, "high": high, "input_step": (1, 1), "kernel_step": (1, 1)}


def arrays(*shapes):
    rng = np.random.default_rng(1)
    return [wrap(rng.uniform(-1, 1, shape).astype(np.float32)) for shape in shapes]


def gradients(attributes):
    def all_of(x, w, dy):
        y, pull = cr.vjp(lambda x, w: convolve(x, w, **attributes), x, w)
        return (y, *pull(dy))

    return all_of


def compiled(f, *inputs, tile=2, parts=None, **how):
    """The function made native with tiles of one size, the gradient in so many parts, if given, and its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "best", lambda *sizes: tile)
        patch.setattr(passes, "FEWEST_IMAGES", 1)
        if parts is not None:
            patch.setattr(passes, "portions", lambda *sizes: parts)
        made = native(f, **how)
        results = made(*inputs)
    forms = [planned.form for planned in made.engine.compiled[-1][3].kernels]
    assert ("winograd" in forms) == (tile is not None)
    return made, [np.asarray(y) for y in results]


def errors(found, f, *inputs):
    """The largest error of each result, in parts of what the absolute values would give: no sum cancels there."""
    double = [np.asarray(x).astype(np.float64) for x in inputs]
    exact = [np.asarray(y) for y in f(*map(wrap, double))]
    scale = [np.asarray(y).max() for y in f(*[wrap(np.abs(x)) for x in double])]
    return [np.abs(y - e).max() / s for y, e, s in zip(found, exact, scale, strict=True)]


BOUNDS = {2: 1e-6, 3: 1e-6, 4: 3e-6}


@settings(max_examples=16, deadline=None)
@given(
    st.integers(1, 3), st.tuples(st.integers(1, 13), st.integers(1, 13)), st.integers(1, 40), st.integers(1, 70),
    st.integers(0, 2), st.sampled_from([2, 3, 4]), st.integers(1, 8),
)  # fmt: skip
def test_any_size(batch, space, channels, out, padding, tile, parts):
    space = tuple(max(n, 3 - 2 * padding) for n in space)
    attributes = padded((padding, padding), (padding, padding))
    x, w = arrays((batch, *space, 1, channels), (3, 3, 1, channels, out))
    f, (dy,) = gradients(attributes), arrays(convolve(x, w, **attributes).shape)
    made, found = compiled(f, x, w, dy, tile=tile, parts=parts)
    assert max(errors(found, f, x, w, dy)) < BOUNDS[tile]
    assert all(bits(on_threads(made, n)(x, w, dy)) == bits(found) for n in (2, 5))


@pytest.mark.parametrize("tile", [2, 3, 4])
@pytest.mark.parametrize(
    ("batch", "space", "channels", "out", "low", "high"),
    [
        (7, (13, 12), 48, 130, (1, 1), (1, 1)),  # several blocks of tiles, panels that are not full
        (1, (3, 3), 16, 16, (0, 0), (0, 0)),  # one tile
        (2, (9, 10), 33, 64, (0, 1), (2, 0)),  # unequal ends
        (40, (5, 6), 256, 17, (1, 1), (1, 1)),  # rows of a whole number of kilobytes
    ],
)
def test_bits_do_not_depend_on_threads_and_blocks(batch, space, channels, out, low, high, tile):
    attributes = padded(low, high)
    x, w = arrays((batch, *space, 1, channels), (3, 3, 1, channels, out))
    f, (dy,) = gradients(attributes), arrays(convolve(x, w, **attributes).shape)
    made, found = compiled(f, x, w, dy, tile=tile)
    assert max(errors(found, f, x, w, dy)) < BOUNDS[tile]
    for threads in (1, 2, 3, 4, 7):
        assert bits(on_threads(made, threads)(x, w, dy)) == bits(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "FEWEST_TILES", 1)
        patch.setattr(blocks, "CACHE_SHARE", 64)
        other, again = compiled(f, x, w, dy, tile=tile)
    assert bits(again) == bits(found)
    large, small = (max(k.scratch_bytes for k in m.engine.compiled[-1][3].kernels) for m in (made, other))
    assert small < large or batch == 1


def test_what_follows_joins_the_kernel():
    """Bias, residual, rectifier and mask on the places, before anything is stored."""
    attributes = padded((1, 1), (1, 1))
    x, w, b, mask = arrays((2, 7, 9, 1, 20), (3, 3, 1, 20, 20), (20,), (2, 7, 9, 1, 20))

    def block(x, w, b, mask):
        return cr.where(mask > 0, cr.relu(convolve(x, w, **attributes) + b + x), 0.5)

    made, (found,) = compiled(lambda *xs: (block(*xs),), x, w, b, mask)
    np.testing.assert_allclose(found, np.asarray(block(x, w, b, mask)), rtol=1e-5, atol=1e-5)
    plan = made.engine.compiled[-1][3]
    assert [planned.form for planned in plan.kernels] == ["winograd", "winograd"]  # the kernel's transform and all else
    assert "k1  winograd; " in made.explain_plan() and " units" in made.explain_plan()


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 12)), st.integers(1, 40), st.integers(1, 70),
    st.sampled_from([2, 3, 4]), st.integers(1, 400),
)  # fmt: skip
def test_tiles_of_what_is_read(batch, space, channels, out, tile, together):
    """Where the result is larger than what is read; with what follows, and sums of each image."""
    attributes = padded((2, 2), (2, 2))
    shapes = (batch, *space, 1, channels), (3, 3, 1, channels, out), (out,)

    def f(x, w, b):
        y = convolve(x, w, **attributes)
        return y, cr.relu(y + b), cr.sum(y * y, axis=(1, 2))

    x, w, b = arrays(*shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "FEWEST_TILES", together)
        patch.setattr(blocks, "CACHE_SHARE", 1 << 20)
        made, found = compiled(f, x, w, b, tile=tile)
    spread = [n.attributes["spread"] for n in made.engine.compiled[-1][3].program.nodes if "spread" in n.attributes]
    larger = all(-(-(n + 2) // tile) == -(-n // tile) for n in space)
    assert spread == [not larger]
    assert max(errors(found, f, x, w, b)) < 4 * BOUNDS[tile]
    assert all(bits(on_threads(made, n)(x, w, b)) == bits(found) for n in (2, 5))


@pytest.mark.parametrize("tile", [2, 3])
def test_what_is_infinite_stays_in_its_picture(tile):
    attributes = padded((1, 1), (1, 1))
    x, w = arrays((3, 8, 8, 1, 16), (3, 3, 1, 16, 16))
    x = np.array(x)
    x[1, 4, 4, 0, 3] = np.inf
    _, (found,) = compiled(lambda x, w: (convolve(x, w, **attributes),), wrap(x), w, tile=tile)
    assert np.isfinite(found[[0, 2]]).all()
    assert not np.isfinite(found[1, 3:6, 3:6]).any()


def network():
    generator = cr.random.Generator(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, generator=generator), nn.ReLU()]
    for padding in (1, 0):
        layers += [nn.Conv2d(16, 16, 3, padding=padding, generator=generator), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5, generator=generator))


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def test_a_network_is_trained_as_by_the_reference():
    x, y = cr.random.Generator(3).normal((6, 3, 12, 11)), cr.arange(6) % 5
    trained = []
    for engine in ("native", "reference"):
        model, optimizer = network(), optim.SGD(lr=0.1)
        fast = native(step, threads=2) if engine == "native" else cr.compile(step, engine="reference")
        trained.append([[float(fast(model, optimizer, x, y)) for _ in range(5)], model.state_dict()])
        if engine == "native":
            assert [k.form for k in fast.engine.compiled[0][3].kernels].count("winograd") > 6
    np.testing.assert_allclose(*[run[0] for run in trained], rtol=1e-4)
    for name, value in trained[0][1].items():
        np.testing.assert_allclose(value, trained[1][1][name], rtol=1e-3, atol=1e-4, err_msg=name)


# -- processors


@pytest.mark.parametrize("tile", [2, 3])
def test_with_narrow_vectors(tile):
    attributes = padded((1, 1), (1, 1))
    x, w = arrays((2, 9, 8, 1, 10), (3, 3, 1, 10, 9))
    f, (dy,) = gradients(attributes), arrays((2, 9, 8, 1, 9))
    for machine in kernels.runnable():
        _, found = compiled(f, x, w, dy, tile=tile, host=machine)
        assert max(errors(found, f, x, w, dy)) < BOUNDS[tile]


@pytest.mark.parametrize("tile", [2, 3])
def test_other_processors_get_code(tile):
    attributes = padded((1, 1), (1, 1))
    x, w = arrays((2, 9, 8, 1, 19), (3, 3, 1, 19, 21))
    program = cr.trace_program(gradients(attributes), x, w, arrays((2, 9, 8, 1, 21))[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "best", lambda *sizes: tile)
        plan = SuiteEngine(host=kernels.ARM).plan(program)
    assert compile_object(emit(plan), kernels.ARM)


# -- digits


def two_passes(rectified=False):
    """Operands of a convolution, and its results in float64: forwards, the gradients of the input and of the kernel."""
    rng = np.random.default_rng(0)
    shapes = (8, 16, 16, 1, 64), (3, 3, 1, 64, 64), (8, 16, 16, 1, 64)
    x, w, dy = (rng.normal(size=s).astype(np.float32) for s in shapes)
    if rectified:
        x, dy = np.maximum(x, 0), dy * (rng.random(dy.shape) < 0.5).astype(np.float32)
    operands = [wrap(z) for z in (x, w, dy)]
    f = gradients(padded((1, 1), (1, 1)))
    return f, operands, [np.asarray(y) for y in cr.compile(f)(*[z.astype("float64") for z in operands])]


@pytest.mark.parametrize(("tile", "value", "of_kernel"), [(2, 1e-6, 5e-6), (3, 1.5e-6, 5e-6), (4, 4e-6, 1e-5)])
def test_digits_are_those_of_the_float_policy(tile, value, of_kernel):
    """In parts of the largest result, beside those of a plain sum."""
    f, operands, exact = two_passes()
    parts = lambda found: [np.abs(y - e).max() / np.abs(e).max() for y, e in zip(found, exact, strict=True)]
    found, plain = (parts(compiled(f, *operands, tile=t)[1]) for t in (tile, None))
    assert max(found[:2]) < value and found[2] < of_kernel
    if tile == 2:
        assert all(a < 1.5 * b for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize(
    ("tile", "rectified", "value", "of_kernel"),
    [(2, False, 0.8, 1.5), (2, True, 1, 2.2), (3, False, 1.3, 2.6), (3, True, 1.7, 4), (4, False, 2.2, 3.2),
     (4, True, 2.9, 4.8)],
)  # fmt: skip
def test_errors_beside_those_of_a_plain_product(tile, rectified, value, of_kernel):
    """As root mean squares. A plain product adds up the gradient of the kernel in portions, which is more exact."""
    f, operands, exact = two_passes(rectified)
    sizes = lambda found: [np.sqrt(np.mean((y - e) ** 2)) for y, e in zip(found, exact, strict=True)]
    found, plain = (sizes(compiled(f, *operands, tile=t)[1]) for t in (tile, None))
    forward, of_input, kernel = (a / b for a, b in zip(found, plain, strict=True))
    assert max(forward, of_input) < value and kernel < of_kernel


def test_precision_is_asked_for_by_name():
    x, w = arrays((16, 16, 16, 1, 32), (3, 3, 1, 32, 32))
    f = lambda x, w: convolve(x, w, **padded((1, 1), (1, 1)))
    standard, fast = (np.asarray(cr.compile(f, precision=name)(x, w)) for name in ("standard", "fast"))
    assert standard.tobytes() == np.asarray(cr.compile(f)(x, w)).tobytes() != fast.tobytes()
    np.testing.assert_allclose(fast, standard, rtol=0, atol=4e-6 * np.abs(standard).max())
    program = cr.trace_program(f, x, w)
    assert key_of(program, (), kernels.HERE, "False", "standard") != key_of(program, (), kernels.HERE, "False", "fast")
    assert NativeEngine().on(None, precision="fast").precision == "fast"
    with pytest.raises(ConfigError, match=r"no precision 'quick'\. Precisions: standard, fast"):
        cr.compile(f, precision="quick")
    with pytest.raises(ConfigError, match="the reference engine has nothing to choose"):
        cr.compile(f, engine="reference", precision="fast")


def test_training_takes_it(tmp_path):
    x, y = np.asarray(cr.random.Generator(3).normal((40, 3, 12, 12))), np.arange(40) % 5
    runs = []
    for precision in ("standard", "fast", "fast"):
        run = cr.fit(
            network(), (x, y), loss=losses.cross_entropy, optimizer=optim.SGD(lr=0.1), epochs=1, batch_size=20,
            progress="silent", precision=precision,
        )  # fmt: skip
        runs.append(bits(list(run.model.state_dict().values())))
    assert runs[0] != runs[1] == runs[2]
    with pytest.raises(ConfigError, match="no precision 'exact'"):
        cr.fit(network(), (x, y), loss=losses.cross_entropy, optimizer=optim.SGD(lr=0.1), epochs=1, precision="exact")


# -- the proof


def test_an_operand_in_another_order_is_noticed():
    x, w = arrays((2, 9, 8, 1, 16), (3, 3, 1, 16, 16))
    made, _ = compiled(lambda x, w: (convolve(x, w, **padded((1, 1), (1, 1))),), x, w)
    plan = made.engine.compiled[-1][3]
    n = next(n for n, node in enumerate(plan.grouping.nodes) if node.primitive is passes.winograd_convolution)
    operand = plan.grouping.nodes[n].inputs[0]
    view = plan.grouping.views[operand]
    plan.grouping.views[operand] = View(view.base, view.shape, (*view.strides[:-1], -1), 15)
    with pytest.raises(CompileError, match="cannot read"):
        verify_plan(plan)
