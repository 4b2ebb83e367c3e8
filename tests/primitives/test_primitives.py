"""Every primitive on the samples of its declaration: derivatives, extremes, dtypes, compiled against eager."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from chainrule import dtypes, errors
from chainrule.compile import compile
from chainrule.control import LOOPS
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor, wrap
from chainrule.engines import ENGINES
from chainrule.primitives import ALL
from chainrule.primitives.samples import EXTREMES

PRIMITIVES = {**ALL, **{p.name: p for p in LOOPS}}
SAMPLES = [pytest.param(p, s, id=f"{p.name}-{i}") for p in PRIMITIVES.values() for i, s in enumerate(p.samples)]
ELEMENTWISE = [p for p in ALL.values() if p.kind == "elementwise"]
FLOATS = [p for p in ELEMENTWISE if any(i.kind == "real" for s in p.samples for i in s.inputs)]


def draw(sample, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [wrap(np.asarray(i.draw(rng, np.dtype(dtype)))) for i in sample.inputs]


def test_every_primitive_has_samples():
    assert [p.name for p in PRIMITIVES.values() if not p.samples] == []


def differentiable(primitive, sample):
    """Whether numbers of full precision go in and come out."""
    result = primitive(*draw(sample), **sample.attributes)
    return sample.smooth and result.dtype == dtypes.float64


SMOOTH = [p for p in SAMPLES if differentiable(*p.values)]


def test_what_has_no_derivative_has_no_rule():
    smooth = {p.values[0].name for p in SMOOTH}
    without = {p.name for p in PRIMITIVES.values() if p.name not in smooth}
    assert all(ALL[name].vjp is None for name in without)
    assert {"equal", "less", "argmax", "argsort", "iota", "random_bits", "any", "floordiv"} <= without


@pytest.mark.parametrize(("primitive", "sample"), SMOOTH)
def test_derivatives_of_order_one_and_two(primitive, sample):
    xs = draw(sample)
    check_gradients(lambda *a: primitive(*a, **sample.attributes), *xs, order=2)


@pytest.mark.parametrize(("primitive", "sample"), SAMPLES)
@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.filterwarnings("ignore:There is no native code")
def test_compiled_equals_eager(primitive, sample, engine):
    for dtype in (np.float32, np.float64):
        xs = draw(sample, dtype)
        f = lambda *a: primitive(*a, **sample.attributes)
        expected, found = f(*xs), compile(f, engine=engine)(*xs)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if engine == "reference" or not dtypes.is_float(expected.dtype):
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        else:  # an engine rounds in its own way, within a few units in the last place
            close = 8 * float(ml_dtypes.finfo(expected.dtype).eps)
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=close, atol=close)


@pytest.mark.parametrize(("primitive", "sample"), SAMPLES)
def test_what_is_inferred_is_what_comes_out(primitive, sample):
    for dtype in (np.float32, np.float64):
        xs = draw(sample, dtype)
        y = primitive(*xs, **sample.attributes)
        assert (y.value.shape, y.value.dtype) == (y.shape, y.dtype)


def floats_but(*names):
    """Those that take real numbers, for a parametrised test; `names` have tests of their own or other rules."""
    return pytest.mark.parametrize("primitive", [p for p in FLOATS if p.name not in names], ids=lambda p: p.name)


@floats_but("where", "cast", "erf", "nextafter", "floordiv")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values_follow_numpy(primitive, dtype):
    """Against a scalar-by-scalar run in long double where NumPy has it, at infinities, denormals, zeros and NaN."""
    reference = {"erf": None, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softplus": lambda x: np.logaddexp(x, 0)}
    arity = len([i for i in primitive.samples[0].inputs if i.kind == "real"])
    names = {"sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "pow": "power",
             "mod": "remainder", "round": "rint", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
             "atan2": "arctan2"}  # fmt: skip
    function = reference.get(primitive.name) or getattr(np, names.get(primitive.name, primitive.name))
    points = np.array(list(itertools.product(EXTREMES, repeat=arity)), dtype).T
    with np.errstate(all="ignore"):
        expected = function(*[p.astype(np.longdouble) for p in points])
        exact = expected.astype(dtype) if expected.dtype != np.bool_ else expected
    found = np.asarray(primitive(*[tensor(p) for p in points]))
    if primitive.name in ("sin", "cos", "tan", "mod"):  # arguments of 3e38: reduction is NumPy's business
        keep = np.all(np.abs(points) < 1e30, axis=0) | ~np.isfinite(points).all(axis=0)
        found, exact = found[keep], exact[keep]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, exact, rtol=tolerance, atol=np.finfo(dtype).tiny)


@floats_but("where", "cast", "equal", "less", "less_equal", "pow", "floordiv")  # choices, comparisons, 1 ** nan = 1
def test_nan_passes_through(primitive):
    arity = len(primitive.samples[0].inputs)
    for place in range(1 if primitive.name == "copysign" else arity):
        xs = [tensor(np.array([np.nan if i == place else 0.5])) for i in range(arity)]
        assert np.isnan(np.asarray(primitive(*xs))).all(), place


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=lambda d: d.name)
@floats_but("cast", "nextafter")
def test_halves_are_computed_in_float32_and_rounded_once(primitive, dtype):
    sample = primitive.samples[0]
    xs = [wrap(x.value.astype(dtype)) if x.dtype == np.float64 else x for x in draw(sample)]
    wide = [wrap(x.value.astype(np.float32)) if x.dtype == dtype else x for x in xs]
    found, exact = primitive(*xs, **sample.attributes), primitive(*wide, **sample.attributes)
    assert found.dtype == (dtype if dtypes.is_float(exact.dtype) else exact.dtype)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(exact).astype(found.dtype))


@pytest.mark.parametrize("primitive", [p for p in ELEMENTWISE if len(p.samples[0].inputs) > 1], ids=lambda p: p.name)
def test_primitives_neither_broadcast_nor_promote(primitive):
    xs = draw(primitive.samples[0])
    if primitive.name != "random_bits":
        with pytest.raises(errors.ShapeError, match="differ"):
            primitive(*xs[:-1], wrap(np.asarray(xs[-1])[:1]), **primitive.samples[0].attributes)


def test_integer_division_by_zero_raises():
    for name in ("floordiv", "mod"):
        with pytest.raises(ZeroDivisionError):
            ALL[name](tensor([1, 2]), tensor([1, 0]))


def test_an_index_outside_raises():
    with pytest.raises(IndexError, match="axis of size 3"):
        ALL["take"](tensor([1.0, 2.0, 3.0]), tensor([0, 3]))
    with pytest.raises(IndexError, match="-1"):
        ALL["scatter_add"](tensor([1.0, 2.0, 3.0]), tensor([-1]), tensor([1.0]))


def test_threefry_known_answers():
    """The Random123 distribution's known-answer vectors for threefry2x32 with 20 rounds, first word."""
    vectors = [
        ((0, 0, 0, 0), 0x6B200159),
        ((0xFFFFFFFF,) * 4, 0x1CB996FC),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0xC4923A9C),
    ]
    for inputs, expected in vectors:
        assert int(ALL["random_bits"](*[tensor(np.uint32(v)) for v in inputs])) == expected
