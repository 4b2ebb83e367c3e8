"""Sorting in native code against NumPy's meaning."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import dtypes, meaning
from chainrule.engines.native.emit import emit
from chainrule.engines.native.engine import NativeEngine
from chainrule.engines.native.sorting import SHORT
from chainrule.primitives import index

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32, np.int64, np.uint8, np.uint32, np.bool_)
ENGINE = NativeEngine(threads=1)
SPECIAL = (0.0, -0.0, np.nan, np.inf, -np.inf)


def program(x, axis, descending):
    return cr.trace_program(lambda x: index.argsort(x, axis=axis, descending=descending), cr.tensor(x))


def ordered(x, axis, descending):
    (result,) = ENGINE.compile(program(x, axis, descending))([x])
    return result


def expected(x, axis, descending):
    """NumPy does not know what NaN is in a bfloat16; every one of them is a float32, too."""
    return meaning.argsort(x.astype(np.float32) if x.dtype == ml_dtypes.bfloat16 else x, axis, descending)


def numbers(shape, dtype, seed):
    """Few different numbers, so that many are equal, and at the ends of what there is."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        low, high = dtypes.integer_limits(dtype)
        x = rng.integers(max(low, -3), 4, shape).astype(dtype)
        return np.where(rng.random(shape) < 0.2, rng.choice(np.array([low, high], dtype), shape), x)
    x = rng.integers(-3, 4, shape) * rng.choice([1.0, 0.5, 1e-3, 1e4], shape)
    return np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), x).astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any_axis_of_any_shape(shape, axis, dtype, descending, seed):
    x, axis = numbers(tuple(shape), dtype, seed), axis % len(shape)
    found, wanted = ordered(x, axis, descending), expected(x, axis, descending)
    assert found.dtype == np.int64 and np.array_equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_lengths_around_powers_of_two(dtype, descending):
    for length in (1, 2, 3, 15, 16, 17, SHORT - 1, SHORT, SHORT + 1):
        x = numbers((2, length), dtype, length)
        assert np.array_equal(ordered(x, 1, descending), expected(x, 1, descending))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", [1, -1, 0])
def test_long_lines(descending, order):
    x = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    x = np.zeros_like(x) if order == 0 else np.sort(x, axis=1)[:, ::order].copy()
    assert np.array_equal(ordered(x, 1, descending), expected(x, 1, descending))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_long_lines_of_any_dtype(dtype, descending):
    """All digits of the keys differ, few of them, or none."""
    rng, dtype = np.random.default_rng(1), np.dtype(dtype)
    bits = rng.integers(0, 256, (2, 3 * SHORT, dtype.itemsize), np.uint8)
    some = numbers((2, 3 * SHORT), dtype, 2)
    any_bits = bits[..., 0] > 127 if dtype == np.bool_ else bits.view(dtype)[..., 0]
    if dtype.kind not in "iub":  # denormal numbers are 0 in compiled code
        with np.errstate(invalid="ignore"):
            small = np.abs(any_bits.astype(np.float64)) < 1e-30
        any_bits = np.where(small, np.zeros((), dtype), any_bits)
    for x in (any_bits, some, np.full_like(some, some[0, 0])):
        assert np.array_equal(ordered(x, 1, descending), expected(x, 1, descending))
        assert np.array_equal(ordered(x.T.copy(), 0, descending), expected(x.T, 0, descending))


def test_equal_elements_keep_their_order_and_nan_is_the_largest():
    x = np.array([1, np.nan, -0.0, 0.0, 1, np.nan, -0.0], np.float32)
    assert ordered(x, 0, False).tolist() == [2, 3, 6, 0, 4, 1, 5]
    assert ordered(x, 0, True).tolist() == [1, 5, 0, 4, 2, 3, 6]


def test_an_empty_axis():
    assert ordered(np.zeros((3, 0), np.float32), 1, False).shape == (3, 0)
    assert ordered(np.zeros((0, 3), np.float32), 1, False).shape == (0, 3)


def test_what_is_sorted_alike_shares_its_code():
    def f(x, y):
        found = (index.argsort(v, axis=a, descending=False) for v, a in ((x, 0), (x, 1), (y, 0), (y, 1)))
        return (*found, index.argsort(x, axis=1, descending=True))

    x, y = np.zeros((3, 4), np.float32), np.zeros((2 * SHORT, SHORT + 1), np.float32)
    text = emit(ENGINE.plan(cr.trace_program(f, cr.tensor(x), cr.tensor(y))))
    written = [f"{name}(ptr %from" for name in ("@rank.float32.up", "@rank.float32.down", "@sort.float32.up")]
    assert [text.count(head) for head in written] == [1, 1, 1] and "@sort.float32.down" not in text
