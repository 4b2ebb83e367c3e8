"""Elementary functions within their stated bounds, for every kind of number."""

import ctypes

import numpy as np
import pytest
from tests.engines.native.accuracy import ORACLES, ulps
from tests.engines.native.kernels import HERE, Kernel, load, parsed, runnable

from chainrule import dtypes
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.polynomial import ULP, bits_of, float_of
from chainrule.engines.native.values import Vectors

ENDS = (0.0, 1.0, 2.0, 3.0, 0.5, 1e-45, 1.17549435e-38, 3.4028235e38, 1e30, 1e-30, 7.0, 0.3333, np.inf, np.nan)
ENDS = np.array([*ENDS, *[-x for x in ENDS]])
WIDE = np.finfo(np.longdouble).nmant > 52  # elsewhere float64 is compared with float64
processors = pytest.mark.parametrize("target", runnable(), ids=lambda target: target.cpu)


def bound(name, dtype, target):
    """What the table states."""
    more = 0 if target.has("fma") or not target.x86 else 1
    return ULP[name][dtype == np.float64] + more + (0 if dtype == np.float32 or WIDE else 1)


def patterns(step, dtype=np.float32):
    width = 32 if dtype == np.float32 else 64
    count = 2**32 // step
    return (np.arange(count, dtype=np.uint64) * (2**width // count)).astype(f"u{width // 8}").view(dtype)


def reals(seed, dtype):
    """Numbers where functions have their bends."""
    rng = np.random.default_rng(seed)
    spread = [rng.uniform(-a, a, 40_000) for a in (1.0, 10.0, 110.0, 750.0, 2.0**21)]
    small = [sign * 10.0 ** rng.uniform(-20, 3, 40_000) for sign in (1, -1)]
    near = np.pi / 2 * np.arange(1, 40_000)
    return np.concatenate([ENDS, *spread, *small, rng.uniform(0.5, 2.0, 40_000), near]).astype(dtype)


def check(name, result, exact, arguments, limit):
    error = ulps(result, exact)
    worst = np.argmax(error)
    at = [a[worst] for a in arguments]
    assert error[worst] <= limit, f"{name}{at}: {result[worst]!r} for {exact[worst]!r}, {error[worst]:.3f} ulp"


def oracle(name, x):
    with np.errstate(all="ignore"):
        return ORACLES[name](x.astype(np.float64 if x.dtype == np.float32 else np.longdouble))


@processors
@pytest.mark.parametrize("name", ORACLES)
def test_float32_functions_keep_their_bound(name, target):
    x = np.concatenate([patterns(1009), reals(1, np.float32)])[:: 20 if name == "erf" else 1]  # its oracle is slow
    kernel = Kernel(lambda m, x: getattr(m, name)(x), [np.float32], target.lanes(4), target)
    check(name, kernel(x), oracle(name, x), [x], bound(name, np.float32, target))


@processors
@pytest.mark.parametrize("name", ORACLES)
def test_float64_functions_keep_their_bound(name, target):
    x = np.concatenate([patterns(100_003, np.float64), reals(2, np.float64), [6381956970095103 * 2.0**797]])
    x = x[:: 20 if name == "erf" else 1]
    kernel = Kernel(lambda m, x: getattr(m, name)(x), [np.float64], target.lanes(8), target)
    check(name, kernel(x), oracle(name, x), [x], bound(name, np.float64, target))


@processors
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["power", "arctan2"])
def test_functions_of_two_numbers_keep_their_bound(name, dtype, target):
    rng = np.random.default_rng(3)
    ends = np.meshgrid(ENDS, ENDS)
    any_bits = patterns(50_021, dtype)
    a = [ends[0].ravel(), any_bits, np.abs(any_bits), rng.lognormal(0, 2, 50_000), rng.uniform(0.9, 1.1, 50_000)]
    a = [*a, 1 + rng.normal(0, 1e-6, 50_000)]
    b = [ends[1].ravel(), rng.permutation(any_bits), rng.normal(0, 1, len(any_bits)), rng.normal(0, 20, 50_000)]
    b = [*b, rng.normal(0, 1000, 50_000), rng.normal(0, 1e8, 50_000)]
    with np.errstate(all="ignore"):
        a, b = np.concatenate(a).astype(dtype), np.concatenate(b).astype(dtype)
        wide = np.float64 if dtype == np.float32 else np.longdouble
        exact = getattr(np, name)(a.astype(wide), b.astype(wide))
    kernel = Kernel(lambda m, a, b: getattr(m, name)(a, b), [dtype, dtype], target.lanes(4), target)
    check(name, kernel(a, b), exact, [a, b], bound(name, dtype, target))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_bits_do_not_depend_on_the_number_of_lanes(lanes, dtype):
    x = np.concatenate([patterns(2_000_003, dtype), reals(4, dtype)[::50]])
    for name in (*ORACLES, "abs", "floor", "ceil", "rint", "sign"):
        apply = lambda m, x, name=name: getattr(m, name)(x)
        one, other = (Kernel(apply, [dtype], n)(x) for n in (lanes, 16))
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8), err_msg=name)


@processors
def test_fma_rounds_once_in_float32(target):
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 100_000)).astype(np.float32)
    c = (-a * b * (1 + rng.normal(0, 1e-6, len(a)))).astype(np.float32)  # most of the product cancels
    a, b, c = np.concatenate([[a, b, c], patterns(40_009)[:105_000].reshape(3, -1)], axis=1)
    result = Kernel(lambda m, a, b, c: m.fma(a, b, c), [np.float32] * 3, 8, target)(a, b, c)
    with np.errstate(all="ignore"):
        exact = a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)
    check("fma", result, exact, [a, b, c], 0.5)


@processors
def test_fma_keeps_what_a_product_loses_in_float64(target):
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 100_000))
    lost = Kernel(lambda m, a, b: m.fma(a, b, -(a * b)), [np.float64] * 2, 8, target)(a, b)
    exact = [
        float(int(x * 2**80) * int(y * 2**80) - (int(x * y * 2**80) << 80)) / 2.0**160
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_array_equal(lost, exact)


# -- every float32 there is


def exhaustive(name, step):
    """A function worst(ptr errors, ptr patterns) over 16 of every `step` float32, against the same in float64."""
    module = Module()
    f = Function(module, "kernel", ["ptr errors", "ptr places"], internal=False)
    m = Vectors(f, 16, HERE)
    start = [m.constant(0, dtypes.float64), m.constant(0, dtypes.int32)]
    with f.loop(0, 2**32, step, carry=[(v.type, v.x) for v in start]) as loop:
        pattern = m.lane_numbers(loop.counter, dtypes.int32)
        x = m.bitcast(pattern, dtypes.float32)
        error = error_of(m, m.astype(apply(m, name, x), dtypes.float64), apply(m, name, m.astype(x, dtypes.float64)))
        worst, place = m.value(loop.carried[0], dtypes.float64), m.value(loop.carried[1], dtypes.int32)
        more = error > worst
        loop.next = [m.where(more, error, worst).x, m.where(more, pattern, place).x]
    m.store(m.value(loop.out[0], dtypes.float64), "%errors", 0)
    m.store(m.value(loop.out[1], dtypes.int32), "%places", 0)
    f.ret()
    return load(parsed(module, HERE), HERE)


def apply(m, name, x):
    return getattr(m, name)(x)


def error_of(m, given, truth):
    """`accuracy.ulps` as vector code."""
    top = 2.0**128
    nan = (given != given) & (truth != truth)
    signs = (bits_of(m, given) ^ bits_of(m, truth)) < 0
    signs = signs & (given == 0.0) & (truth == 0.0)
    given, truth = (m.maximum(m.minimum(v, top), -top) for v in (given, truth))
    unit = float_of(m, bits_of(m, m.abs(truth)) & (0x7FF << 52))
    unit = m.minimum(m.maximum(unit, 2.0**-126), 2.0**127) * 2.0**-23
    error = m.abs(given - truth) / unit
    error = m.where(nan, 0.0, m.where(error == error, error, np.inf))
    return m.where(signs, np.inf, error)


@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(16, id="all", marks=pytest.mark.thorough), pytest.param(208, id="many")])
@pytest.mark.parametrize("name", list(ORACLES))
def test_every_float32(name, step):
    """All 2³² of them; or a thirteenth, 330 million."""
    address, _keep = exhaustive(name, step)
    errors, places = np.zeros(16), np.zeros(16, np.int32)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(errors.ctypes.data, places.ctypes.data)
    worst = np.argmax(errors)
    assert 0.3 < errors[worst] <= ULP[name][0], f"{name}({places.view(np.float32)[worst]!r}): {errors[worst]} ulp"
