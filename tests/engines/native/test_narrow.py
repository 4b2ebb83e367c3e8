"""Narrow rows, a row a lane: the very bits of the form that works on one row at a time."""

import ctypes
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.kernels import load, parsed, runnable

import chainrule as cr
from chainrule import dtypes
from chainrule.engines.native import host as hosts
from chainrule.engines.native import narrow
from chainrule.engines.native.emit import emit
from chainrule.engines.native.executable import NativeExecutable
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.jit import compile_object
from chainrule.engines.native.lowering import lower
from chainrule.engines.native.manifest import manifest_of
from chainrule.engines.native.memory import Arena
from chainrule.engines.native.plan import make_plan
from chainrule.engines.native.transposing import load_columns, store_columns, sums_across
from chainrule.engines.native.values import Vectors
from chainrule.engines.reference import ReferenceEngine
from chainrule.errors import IndexOutOfRange

processors = pytest.mark.parametrize("target", runnable(), ids=lambda target: target.cpu)
HERE = hosts.detect()


def on_processors(columns, dtype=(np.float32,)):
    """Each processor with the numbers of columns that its vectors hold."""
    cases = [(t, d, c) for t in runnable() for d in dtype for c in columns if c <= t.lanes(np.dtype(d).itemsize)]
    if len(dtype) == 1:
        return pytest.mark.parametrize("target, columns", [(t, c) for t, _, c in cases])
    return pytest.mark.parametrize("target, dtype, columns", cases)


def random(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng((seed, *shape))
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 7, shape).astype(dtype)
    return rng.normal(0, 2, shape).astype(dtype)


def built(program, target, as_narrow):
    with patch.object(narrow, "fits", narrow.fits if as_narrow else lambda *_: False):
        plan = make_plan(program, (), target)
    code = compile_object(emit(plan), target)
    return plan, NativeExecutable(program, manifest_of(program, plan), code, 1, lambda: plan)


def both(f, *arrays, target=HERE, narrow_kernels=1):
    """The results of both forms, after a check that both were there; the first ones are those of the narrow form."""
    traced = cr.trace_program(f, *[cr.tensor(a) for a in arrays])
    program = lower(traced)
    plan, first = built(program, target, True)
    assert sum(k.form == "narrow" for k in plan.kernels) >= narrow_kernels, [(k.form, k.kernel) for k in plan.kernels]
    other, second = built(program, target, False)
    assert not any(k.form == "narrow" for k in other.kernels)
    return first(arrays), second(arrays), traced


def same_bits(f, *arrays, target=HERE, tolerance=1e-5, **options):
    found, expected, program = both(f, *arrays, target=target, **options)
    with np.errstate(all="ignore"):
        exact = ReferenceEngine().compile(program)(arrays)
    for a, b, c in zip(found, expected, exact, strict=True):
        assert a.dtype == b.dtype == c.dtype and a.shape == b.shape == c.shape
        assert bits(a) == bits(b), (a, b)
        wide = [x.astype(np.float64) for x in (a, c)]
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def bits(array):
    """The bytes, with all NaN alike."""
    if dtypes.is_float(array.dtype):
        array = np.where(np.isnan(array.astype(np.float64)), np.array(np.nan, array.dtype), array)
    return array.tobytes()


def layer_norm(x, w, b):
    centred = x - cr.mean(x, axis=1, keepdims=True)
    return centred / cr.sqrt(cr.mean(centred * centred, axis=1, keepdims=True) + 1e-5) * w + b


def classified(x, w, b, target):
    """Softmax cross-entropy of a linear layer, and its gradients."""

    def loss(x, w, b):
        return cr.losses.cross_entropy(x @ w.T + b, target, reduction="none")

    def total(x, w, b):
        return cr.sum(loss(x, w, b))

    return loss(x, w, b), *cr.grad(total, argnums=(0, 1, 2))(x, w, b)


@on_processors(columns=[*range(1, 9), 10, 11, 13, 16])
def test_every_number_of_columns(columns, target):
    x = random((16 + 3 * columns % 20, columns))

    def f(x):
        s = cr.softmax(x, axis=1)
        return s, cr.sum(x, axis=1), cr.max(x, axis=1, keepdims=True) * 2.0, s <= 0.25

    same_bits(f, x, target=target)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 70), st.integers(2, 16), st.sampled_from(["sum", "prod", "max", "min"]), st.integers(0, 99))
def test_reductions(rows, columns, name, seed):
    x = random((rows, columns), seed=seed)
    x[np.random.default_rng(seed).random(x.shape) < 0.2] = -0.0
    x[np.random.default_rng(seed + 1).random(x.shape) < 0.2] = 0.0
    x[np.random.default_rng(seed + 2).random(x.shape) < 0.05] = [np.nan, np.inf, -np.inf][seed % 3]

    def f(x):
        r = getattr(cr, name)(x, axis=1, keepdims=True)
        return r, x - r, cr.copysign(1.0, r) * x

    found, expected, _ = both(f, x)
    assert [bits(a) for a in found] == [bits(b) for b in expected]


@on_processors(columns=[1, 2, 3, 4], dtype=[np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 3, 4, 8, 11, 16, 17, 45, 300])
def test_products_into_few_columns(depth, columns, dtype, target):
    x, w, b = random((37, depth), dtype), random((columns, depth), dtype, 1), random((columns,), dtype, 2)
    x[3], w[0, 0] = 0, -1  # products that are −0
    same_bits(lambda x, w, b: (x @ w.T, cr.tanh(x @ w.T + b)), x, w, b, target=target, tolerance=1e-4)


@on_processors(columns=[1, 2, 3, 4], dtype=[np.float32, np.float64])
@pytest.mark.parametrize(
    ("image", "window", "settings"),
    [
        ((2, 8, 5, 7), (2, 2), {}),
        ((3, 5, 6, 4), (3, 3), {"padding": 1}),
        ((2, 33, 9, 9), (1, 1), {"stride": 2}),
        ((1, 4, 9, 8), (3, 3), {"padding": (2, 1), "dilation": 2, "stride": (1, 2)}),
        ((3, 7, 17), (5,), {"padding": 3}),
        ((2, 3, 4, 5, 6), (3, 2, 2), {"padding": 1}),
        ((1, 3, 4, 4), (6, 6), {"padding": 3}),  # every window reaches over a border
    ],
)
def test_convolutions_into_few_channels(image, window, settings, columns, dtype, target):
    name = f"conv{len(window)}d"
    x, w = random(image, dtype), random((columns, image[1], *window), dtype, 1) / 8
    b = random((columns,), dtype, 2)
    same_bits(lambda x, w, b: cr.tanh(getattr(cr, name)(x, w, b, **settings)), x, w, b, target=target, tolerance=1e-4)


@on_processors(columns=[1, 2, 3], dtype=[np.float32, np.float64])
def test_transposed_convolutions_into_few_channels(columns, dtype, target):
    x, w = random((2, 32, 5, 4), dtype), random((32, columns, 3, 3), dtype, 1) / 8
    settings = {"stride": 2, "padding": 1, "output_padding": 1}
    same_bits(lambda x, w: cr.conv_transpose2d(x, w, **settings), x, w, target=target, narrow_kernels=3, tolerance=1e-4)


def test_few_windows_of_few_elements_are_tiles():
    """What is done with windows of fewer elements takes no longer by tiles."""
    program = lower(cr.trace_program(cr.conv2d, cr.ones((4, 3, 9, 9)), cr.ones((1, 3, 3, 3))))
    assert [k.form for k in make_plan(program, (), HERE).kernels if k.kernel.kind == "contract"] == ["contract"]


@pytest.mark.parametrize("depth", [5, 16, 40])
def test_a_sum_of_negative_zeros_is_zero(depth):
    x, w = np.full((16, depth), -0.0, np.float32), np.ones((1, depth), np.float32)
    (found,), (expected,), _ = both(lambda x, w: x @ w.T, x, w)
    assert bits(found) == bits(expected)
    assert not np.signbit(found).any()
    if depth == 5:
        (found,), (expected,), _ = both(lambda x: cr.sum(x, axis=1), x)
        assert bits(found) == bits(expected)
        assert not np.signbit(found).any()


@processors
@pytest.mark.parametrize("rows, depth, columns", [(16, 16, 3), (200, 100, 2), (32, 784, 4), (19, 5, 1), (40, 33, 4)])
def test_classification(rows, depth, columns, target):
    x, w, b = random((rows, depth)), random((columns, depth), seed=1) / depth**0.5, random((columns,), seed=2)
    y = np.random.default_rng(3).integers(0, columns, rows)
    y[::5] = -100  # ignored
    same_bits(classified, x, w, b, y, target=target, tolerance=1e-4)


@pytest.mark.parametrize("dtype", [*map(np.dtype, "fdeilB"), np.dtype(ml_dtypes.bfloat16)])
@pytest.mark.parametrize("rows, columns", [(16, 5), (21, 8), (50, 1), (33, 3)])
def test_dtypes(rows, columns, dtype):
    x, y = random((rows, columns), dtype), random((rows, columns), np.bool_, 1)
    if np.dtype(dtype).itemsize == 8 and columns > 4:
        columns = 4
        x, y = x[:, :4].copy(), y[:, :4].copy()

    def f(x, y):
        r = cr.sum(x, axis=1, keepdims=True)
        either = cr.any(y, axis=1, keepdims=True)
        return r, cr.where(y, x, r), x < r, either, cr.all(y, axis=1), y & either

    same_bits(f, x, y, tolerance=0.05)


def test_operands_of_every_kind():
    x, t, row, column, wide = random((32, 6)), random((6, 32)), random((32, 1)), random((6,)), random((32, 20))
    each = random((4, 1, 6), seed=3)

    def f(x, t, row, column, wide, each):
        sums = cr.sum(x * t.T + row, axis=1, keepdims=True)
        parts = wide[:, 2:8] * wide[:, ::-1][:, 1:13:2] + wide[:, 3:4] + cr.flip(x, axis=0)
        numbers = cr.arange(6, dtype=cr.float32) * cr.arange(32, dtype=cr.float32)[:, None]
        stacked = cr.reshape(cr.broadcast_to(each, (4, 8, 6)), (32, 6))
        return sums + parts * column, numbers + sums, stacked * sums, cr.sum(stacked + wide[:, 7:1:-1], axis=1)

    same_bits(f, x, t, row, column, wide, each)


def test_looking_up():
    x, table, index = random((40, 3)), random((7,)), random((40,), np.int64)

    def f(x, table, index):
        return cr.sum(x, axis=1) * cr.take(table, index, axis=0)

    same_bits(f, x, table, index)
    index[39] = 7
    with pytest.raises(IndexOutOfRange, match="7"):
        both(f, x, table, index)


def test_layer_norm_and_its_gradients():
    x, w, b = random((45, 10)), random((10,), seed=1), random((10,), seed=2)

    def f(x, w, b):
        return layer_norm(x, w, b), *cr.grad(lambda *a: cr.sum(cr.sin(layer_norm(*a))), argnums=(0, 1, 2))(x, w, b)

    same_bits(f, x, w, b, tolerance=1e-4)


def test_any_number_of_threads_gives_the_same():
    x, w, b = random((83, 20)), random((3, 20), seed=1), random((3,), seed=2)
    y = np.random.default_rng(3).integers(0, 3, 83)
    program = lower(cr.trace_program(classified, *[cr.tensor(a) for a in (x, w, b, y)]))
    plan, one = built(program, HERE, True)
    code = compile_object(emit(plan), HERE)
    alone = one((x, w, b, y))
    for threads in (2, 3):
        others = NativeExecutable(program, manifest_of(program, plan), code, threads, lambda: plan)((x, w, b, y))
        assert [bits(a) for a in alone] == [bits(a) for a in others]


# -- turning


def turned(dtype, lanes, pitch, columns, rows, target):
    """A function that loads columns and stores them one after another, and then as rows."""
    module = Module()
    f = Function(module, "kernel", ["ptr from", "ptr one", "ptr two", "i64 start"], internal=False)
    m = Vectors(f, lanes, target)
    values = load_columns(m, "%from", "%start", dtype, pitch, columns, rows)
    for k, value in enumerate(values):
        m.store(value, "%one", k * lanes)
    store_columns(m, values, "%two", 0, rows)
    f.ret()
    address, keep = load(parsed(module, target), target)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(address), keep


BLOCKS = {2: (1, 2), 4: (1, 2, 3, 4), 8: range(1, 9), 16: (1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 16)}
TURNED = [(np.float32, lanes) for lanes in BLOCKS] + [(np.float64, 8), (np.int64, 16), (np.uint8, 16), (np.bool_, 16)]


@processors
@pytest.mark.parametrize("dtype, lanes", TURNED)
def test_columns_come_and_go(dtype, lanes, target):
    for columns in BLOCKS[lanes]:
        turns(np.dtype(dtype), lanes, columns, target)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_columns_of_halves_come_and_go(dtype):
    for columns in (2, 3, 7):
        turns(np.dtype(dtype), 16, columns, runnable()[0])


def turns(dtype, lanes, columns, target):
    for rows, pitch in ((lanes, columns), (max(1, lanes - 3), columns), (lanes - 1, columns + 2)):
        data = random(((rows - 1) * pitch + columns,), dtype)
        source, one, two = (
            Arena(n * dtype.itemsize, guard=True, alignment=dtype.itemsize)
            for n in (data.size, columns * lanes, rows * columns)
        )
        source.array.view(dtype)[:] = data
        function, _keep = turned(dtype, lanes, pitch, columns, rows, target)
        function(source.address, one.address, two.address, 0)
        expected = np.lib.stride_tricks.sliding_window_view(data, columns)[::pitch][:rows]
        found = one.array.view(dtype).reshape(columns, lanes)
        assert np.array_equal(found[:, :rows], expected.T) and not found[:, rows:].any()
        assert np.array_equal(two.array.view(dtype).reshape(rows, columns), expected)
        assert source.intact and one.intact and two.intact


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_sums_across_add_neighbours_first(lanes):
    module = Module()
    f = Function(module, "kernel", ["ptr from", "ptr to"], internal=False)
    m = Vectors(f, lanes, HERE)
    rows = [m.load("%from", i * lanes, np.dtype(np.float32)) for i in range(lanes)]
    halves = [sums_across(rows[: lanes // 2]), sums_across(rows[lanes // 2 :])]
    m.store(sums_across(rows), "%to", 0)
    m.store(sums_across(halves, lanes // 2), "%to", lanes)
    f.ret()
    address, _keep = load(parsed(module, HERE), HERE)
    data, result = random((lanes, lanes)) * np.float32(1e3), np.empty((2, lanes), np.float32)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(data.ctypes.data, result.ctypes.data)
    expected = data
    while expected.shape[1] > 1:
        expected = expected[:, ::2] + expected[:, 1::2]
    assert np.array_equal(result[0], expected[:, 0]) and np.array_equal(result[1], expected[:, 0])
