"""Every elementwise primitive, run with vectors through its declared meaning, against NumPy."""

import itertools

import numpy as np
import pytest
from tests.engines.native.kernels import (
    ARM,
    HERE,
    PLAIN,
    WITHOUT_AVX512,
    Kernel,
    machine,
    module_of,
    parsed,
    runnable,
    undefined_symbols,
)

from chainrule import dtypes
from chainrule.core.tensor import wrap
from chainrule.engines.native.arithmetic import DIVISION_BY_ZERO, NEGATIVE_POWER
from chainrule.errors import ChainruleError
from chainrule.primitives import ALL
from chainrule.primitives.samples import EXTREMES

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # NumPy's word on NaN
PRIMITIVES = [p for p in ALL.values() if p.kind == "elementwise"]
OF_FLOATS = {  # integers are converted before these
    "div", "copysign", "nextafter", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "atan2", "tanh", "sigmoid", "softplus", "erf",
}  # fmt: skip
EXACT = {
    "add", "sub", "mul", "div", "neg", "mod", "floordiv", "floor", "ceil", "round", "sign", "abs", "maximum", "minimum",
    "copysign", "nextafter", "sqrt", "equal", "less", "less_equal", "and", "or", "xor", "not", "shift_left",
    "shift_right", "where", "cast", "random_bits",
}  # fmt: skip
FAR = {np.dtype(np.float32): 8, np.dtype(np.float64): 8}  # NumPy's own functions are up to 4 ulp off


def values(dtype, rng, count=300):
    """Random numbers of a dtype, small, large, and at its ends."""
    if dtype == dtypes.bool_:
        return rng.random(count) < 0.5
    if dtypes.is_integer(dtype):
        low, high = dtypes.integer_limits(dtype)
        some = [rng.integers(max(low, -9), 9, count), rng.integers(low, high, count, endpoint=True, dtype=dtype)]
        return np.concatenate([[low, high, low + 1, high - 1, 0, 1, 2], *some]).astype(dtype)
    with np.errstate(all="ignore"):
        some = [rng.normal(0, s, count) for s in (1e-3, 1, 20)]
        return np.concatenate([EXTREMES, *some]).astype(dtype)


def cases(primitive):
    """(dtypes of the inputs, attributes) that a primitive takes."""
    arity = len(primitive.samples[0].inputs)
    if primitive.name == "cast":
        return [((a,), {"dtype": b}) for a in dtypes.ALL for b in dtypes.ALL]
    if primitive.name == "random_bits":
        return [((dtypes.uint32,) * 4, {})]
    if primitive.name == "where":
        return [((dtypes.bool_, d, d), {}) for d in dtypes.ALL]
    taken = dtypes.FLOATS if primitive.name in OF_FLOATS else dtypes.ALL
    return [((d,) * arity, {}) for d in taken if accepts(primitive, (d,) * arity)]


def accepts(primitive, kinds):
    try:
        primitive.infer(*[wrap(np.ones(1, kind)) for kind in kinds])
        primitive.evaluate(kinds[0], tuple(np.ones(1, kind) for kind in kinds), {})
    except (ChainruleError, TypeError):  # NumPy has no sign of truth values
        return False
    return True


def expression(primitive, kinds, attributes):
    """What an engine does: halves are float32 inside, and results take the declared dtype."""
    output = primitive.infer(*[wrap(np.ones(1, kind)) for kind in kinds], **attributes)[1]

    def apply(m, *inputs):
        wide = [m.astype(x, dtypes.float32) if x.dtype in dtypes.HALVES else x for x in inputs]
        return m.astype(primitive.meaning(m, *wide, **attributes), output)

    return apply, output


def draw(primitive, kinds, rng):
    """All pairs of extremes and many random combinations, without what is an error or undefined."""
    columns = [values(kind, rng) for kind in kinds]
    if primitive.name == "cast":
        return columns
    pairs = list(itertools.product(*[c[:14] for c in columns])) if len(kinds) == 2 else []
    more = [rng.permutation(c) for c in columns]
    columns = [np.concatenate([[p[i] for p in pairs], c]).astype(c.dtype) for i, c in enumerate(more)]
    size = min(map(len, columns))
    columns = [c[:size] for c in columns]
    if not dtypes.is_float(kinds[-1]) and kinds[-1] != dtypes.bool_:
        if primitive.name in ("mod", "floordiv"):
            columns[1][columns[1] == 0] = 3
        if primitive.name == "pow":
            columns[1] = np.where(columns[1] < 0, ~columns[1], columns[1])
    return columns


def compare(primitive, given, expected, inputs):
    given, expected = (a.astype(np.float32) if a.dtype in dtypes.HALVES else a for a in (given, expected))
    if primitive.name in EXACT:
        np.testing.assert_array_equal(given, expected)
    elif given.dtype.kind == "f":
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(given[~finite], expected[~finite])
        spacing = np.spacing(np.abs(expected[finite])).astype(np.float64)
        error = np.abs(given[finite].astype(np.float64) - expected[finite]) / spacing
        assert error.max(initial=0) <= FAR[given.dtype]
    else:
        np.testing.assert_array_equal(given, expected)
    if given.dtype.kind == "f" and primitive.name not in ("maximum", "minimum"):  # where both zeros are as large
        zero = (given == 0) & (expected == 0)
        np.testing.assert_array_equal(np.signbit(given[zero]), np.signbit(expected[zero]))


def defined(primitive, kinds, attributes, columns):
    """Conversions of floats to unsigned integers are NumPy's only where they fit into the signed one."""
    target = attributes.get("dtype")
    if primitive.name == "cast" and dtypes.is_float(kinds[0]) and target == dtypes.uint32:
        x = columns[0].astype(np.float64)
        return [columns[0][(x > -(2.0**31)) & (x < 2.0**32)]]
    return columns


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda p: p.name)
def test_meaning_agrees_with_numpy(primitive, lanes):
    agree(primitive, lanes, HERE)


@pytest.mark.parametrize("target", [t for t in runnable() if t is not HERE], ids=lambda t: t.cpu)
@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda p: p.name)
def test_meaning_agrees_with_numpy_on_lesser_processors(primitive, target):
    agree(primitive, 4, target)


def agree(primitive, lanes, target):
    rng = np.random.default_rng(lanes)
    for kinds, attributes in cases(primitive):
        apply, output = expression(primitive, kinds, attributes)
        columns = defined(primitive, kinds, attributes, draw(primitive, kinds, rng))
        with np.errstate(all="ignore"):
            expected = primitive.evaluate(output, tuple(columns), attributes)
        given = Kernel(apply, kinds, lanes, target)(*columns)
        assert given.dtype == output
        try:
            compare(primitive, given, expected, columns)
        except AssertionError as error:
            raise AssertionError(f"{primitive.name} {kinds} {attributes} lanes {lanes}: {error}") from error


@pytest.mark.parametrize("target", [ARM, PLAIN, WITHOUT_AVX512, HERE], ids=lambda t: f"{t.triple}-{t.cpu}")
@pytest.mark.parametrize("lanes", [1, 4, pytest.param(16, marks=[pytest.mark.slow, pytest.mark.thorough])])
def test_everything_compiles_without_a_run_time_library(target, lanes):
    for primitive in PRIMITIVES:
        for kinds, attributes in cases(primitive):
            apply, _ = expression(primitive, kinds, attributes)
            module, _ = module_of(apply, kinds, lanes, target)
            found = undefined_symbols(machine(target).emit_object(parsed(module, target)))
            assert found == [], (primitive.name, kinds)


def test_calls_into_a_library_would_be_found():
    module, _ = module_of(lambda m, x: m.call("floor", x), [dtypes.float32], 4, PLAIN)
    assert undefined_symbols(machine(PLAIN).emit_object(parsed(module, PLAIN))) == ["floorf"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.cpu)
def test_remainders_are_exact(target, dtype):
    rng = np.random.default_rng(9)
    width = 8 * np.dtype(dtype).itemsize
    a, b = rng.integers(0, 2**width, (2, 50_000), dtype=f"u{width // 8}").view(dtype)
    digits = np.finfo(dtype).nmant + 1
    near = 2.0**digits - rng.integers(1, 9, 50_000)  # divisors with all their digits
    many = np.floor(near * 2.0 ** rng.uniform(0, digits, 50_000)) - rng.integers(0, 9, 50_000)
    a, b = np.concatenate([a, many.astype(dtype)]), np.concatenate([b, near.astype(dtype)])
    with np.errstate(all="ignore"):
        expected = np.remainder(a, b), np.floor_divide(a, b)
    for apply, exact in zip(
        (lambda m, a, b: m.remainder(a, b), lambda m, a, b: m.floor_divide(a, b)), expected, strict=True
    ):
        np.testing.assert_array_equal(Kernel(apply, [dtype] * 2, 8, target)(a, b), exact)


# -- halves


@pytest.mark.parametrize("dtype", dtypes.HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.cpu)
def test_every_half_goes_through_registers_unchanged(target, dtype):
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    for lanes in (1, 8, 16):
        wide = Kernel(lambda m, x: m.astype(x, dtypes.float32), [dtype], lanes, target)(x)
        np.testing.assert_array_equal(wide, x.astype(np.float32))
        back = Kernel(lambda m, x: x, [dtype], lanes, target)(x)
        same = (back.view(np.uint16) == x.view(np.uint16)) | (np.isnan(back.astype(np.float32)) & np.isnan(wide))
        assert same.all()


@pytest.mark.parametrize("source", [dtypes.float32, dtypes.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("dtype", dtypes.HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.cpu)
def test_floats_round_to_the_nearest_half(target, dtype, source):
    halves = np.arange(2**16, dtype=np.uint16).view(dtype).astype(source)
    with np.errstate(all="ignore"):
        middle = (halves[1:] + halves[:-1]) / 2  # ties, and what is a little to either side of them
        near = [np.nextafter(middle, -np.inf), middle, np.nextafter(middle, np.inf), [65519.99, 65520, 1e38]]
        x = np.concatenate(near).astype(source)
        expected = x.astype(dtype).astype(np.float32)
        for convert in (lambda m, x: m.astype(x, dtype), lambda m, x: m.astype(m.astype(x, dtype), dtypes.float32)):
            np.testing.assert_array_equal(Kernel(convert, [source], 16, target)(x).astype(np.float32), expected)


# -- errors


def test_errors_are_reported_lane_by_lane():
    told = []
    kernel = Kernel(lambda m, a, b: m.remainder(a, b) + m.floor_divide(a, b), [np.int32] * 2, 4, HERE,
                    fail=lambda condition, code, value: told.append((condition.dtype, code, value)))  # fmt: skip
    assert told == [(dtypes.bool_, DIVISION_BY_ZERO, None)] * 2
    kernel(np.array([1, -(2**31), 5, 0], np.int32), np.array([0, -1, 0, 0], np.int32))  # no trap
    told.clear()
    Kernel(lambda m, a, b: m.power(a, b), [np.int64] * 2, 4, HERE, fail=lambda *args: told.append(args[1]))
    assert told == [NEGATIVE_POWER]


def test_the_lanes_that_are_reported_are_those_with_a_zero():
    conditions = []

    def divide(m, a, b):
        m.floor_divide(a, b)
        return conditions.pop()

    kernel = Kernel(divide, [np.uint8] * 2, 8, HERE, fail=lambda condition, code, value: conditions.append(condition))
    b = np.array([0, 1, 2, 0, 255, 0, 3, 4], np.uint8)
    np.testing.assert_array_equal(kernel(b, b), b == 0)
