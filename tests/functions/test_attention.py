import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, DTypeError, ShapeError

sizes = st.integers(1, 4)


def drawn(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def by_definition(q, k, v, mask=None, causal=False, scale=None):
    """Query by query, in plain loops."""
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for at in itertools.product(*map(range, q.shape[:-1])):
        seen = [
            j
            for j in range(k.shape[-2])
            if (not causal or j <= at[-1])
            and (mask is None or np.broadcast_to(mask, (*q.shape[:-1], k.shape[-2]))[(*at, j)])
        ]
        if seen:
            scores = [float(q[at] @ k[at[:-1]][j]) * (q.shape[-1] ** -0.5 if scale is None else scale) for j in seen]
            p = np.exp(np.array(scores) - max(scores))
            out[at] = (p / p.sum()) @ v[at[:-1]][seen]
    return out


@settings(max_examples=40, deadline=None)
@given(
    lead=st.sampled_from([(), (2,), (2, 3)]), queries=sizes, keys=sizes, width=sizes, masked=st.booleans(),
    causal=st.booleans(), scale=st.sampled_from([None, 0.3, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_what_the_definition_says(lead, queries, keys, width, masked, causal, scale, seed):
    q, k, v = drawn(*lead, queries, width, seed=seed), drawn(*lead, keys, width, seed=seed + 1), drawn(*lead, keys, 3)
    mask = np.random.default_rng(seed).random((queries, keys)) < 0.5 if masked else None
    y = cr.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    np.testing.assert_allclose(y, by_definition(q, k, v, mask, causal, scale), rtol=1e-10, atol=1e-12)


def test_heads_that_share_keys_are_as_if_keys_were_repeated():
    q, k, v = drawn(2, 6, 3, 4), drawn(2, 2, 5, 4, seed=1), drawn(2, 2, 5, 7, seed=2)
    y = cr.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    expected = by_definition(q, np.repeat(k, 3, 1), np.repeat(v, 3, 1), causal=True)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


MASKS = {
    "none": None,
    "truth values": np.array([[True, False, True], [False] * 3, [True] * 3, [False, False, True]]),
    "numbers": np.array([[0.5, -math.inf, 1.0], [-math.inf] * 3, [0.0, -2.0, 3.0], [-math.inf, -math.inf, 1.0]]),
}


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_derivatives_to_second_order(mask, causal):
    arrays = [cr.tensor(drawn(2, n, 5, seed=n)) for n in (4, 3, 3)]
    f = lambda q, k, v: cr.scaled_dot_product_attention(q, k, v, MASKS[mask], is_causal=causal)
    cr.check_gradients(f, *arrays, order=2)


def test_derivatives_by_a_mask_and_of_shared_heads():
    q, k, v = (cr.tensor(drawn(2, h, n, 3, seed=n)) for h, n in ((4, 3), (2, 5), (2, 5)))
    f = lambda q, k, v, bias: cr.scaled_dot_product_attention(q, k, v, bias, enable_gqa=True)
    cr.check_gradients(f, q, k, v, cr.tensor(drawn(3, 5)), order=2)


def test_what_sees_nothing_is_0_and_has_gradient_0():
    q, k, v = (cr.tensor(drawn(4, 5, seed=i)) for i in range(3))
    for mask in (np.zeros((4, 4), bool), np.full((4, 4), -np.inf)):
        f = lambda q, k, v, mask=mask: cr.sum(cr.scaled_dot_product_attention(q, k, v, mask))
        assert float(f(q, k, v)) == 0
        assert all(not np.asarray(g).any() for g in cr.grad(f, argnums=(0, 1, 2))(q, k, v))
    assert cr.scaled_dot_product_attention(q, k[:0], v[:0]).tolist() == np.zeros((4, 5)).tolist()


def test_large_scores_and_nan():
    x = cr.tensor([[1e3, 0.0], [0.0, 1e3]])
    np.testing.assert_array_equal(cr.scaled_dot_product_attention(x * 1e3, x, x), x)
    spoiled = cr.tensor([[float("nan"), 0.0], [0.0, 1.0]])
    assert np.isnan(np.asarray(cr.scaled_dot_product_attention(spoiled, x, x))).tolist() == [[True] * 2, [False] * 2]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_rounded_once(dtype):
    q, k, v = (cr.tensor(drawn(3, 8, seed=i)).astype(dtype) for i in range(3))
    y = cr.scaled_dot_product_attention(q, k, v)
    wide = cr.scaled_dot_product_attention(*[x.astype("float32") for x in (q, k, v)])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))


def test_dropout_keeps_the_mean_and_needs_a_generator():
    q, k = cr.zeros((1, 1)), cr.zeros((10_000, 1))
    v = cr.ones((10_000, 1))
    y = cr.scaled_dot_product_attention(q, k, v, dropout_p=0.3, generator=cr.random.Generator(0))
    assert 0 < abs(float(y) - 1) < 0.03
    with pytest.raises(ConfigError, match="generator"):
        cr.scaled_dot_product_attention(q, k, v, dropout_p=0.3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: cr.scaled_dot_product_attention(x, x[:, :2], x), ShapeError, "query and key agree in the last"),
        (lambda x: cr.scaled_dot_product_attention(x, x, x[:2]), ShapeError, "key and value in the last but one"),
        (lambda x: cr.scaled_dot_product_attention(x[0], x, x), ShapeError, "do not fit"),
        (lambda x: cr.scaled_dot_product_attention(x, x, x, cr.ones((5, 3))), ShapeError, r"mask of shape \(5, 3\)"),
        (lambda x: cr.scaled_dot_product_attention(x, x, x, cr.ones((2, 3, 3))), ShapeError, "does not stretch"),
        (lambda x: cr.scaled_dot_product_attention(x, x, x, np.eye(3, dtype=int)), DTypeError, "mask != 0"),
        (lambda x: cr.scaled_dot_product_attention(x, x, x, enable_gqa=True), ShapeError, "enable_gqa"),
        (lambda x: cr.rotary_encoding(x), ConfigError, "must be even; got 3"),
        (lambda x: cr.rotary_encoding(x[0]), ShapeError, "positions and features"),
        (lambda x: cr.sinusoidal_encoding(2, 4, base=0), ConfigError, "base=0 must be positive"),
        (lambda x: cr.sinusoidal_encoding(2, 4, offset=x), DTypeError, "offset is an integer"),
        (lambda x: cr.alibi(0, 3), ConfigError, "num_heads=0"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call(cr.tensor(drawn(3, 3)))


# -- positions


def test_sinusoidal_encoding_is_that_of_the_paper():
    table = np.asarray(cr.sinusoidal_encoding(50, 8, dtype="float64"))
    for p, i in itertools.product(range(50), range(4)):
        angle = p / 10000 ** (2 * i / 8)
        np.testing.assert_allclose(
            table[p, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)], rtol=1e-12, atol=1e-12
        )
    np.testing.assert_array_equal(cr.sinusoidal_encoding(5, 8, offset=45, dtype="float64"), table[45:])
    np.testing.assert_array_equal(cr.sinusoidal_encoding(5, 8, offset=cr.tensor(45), dtype="float64"), table[45:])


def test_far_positions_are_exact_to_the_last_digits():
    far = np.asarray(cr.sinusoidal_encoding(1, 2, offset=1_000_003))
    np.testing.assert_allclose(far, [[math.sin(1_000_003), math.cos(1_000_003)]], rtol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotary_encoding_turns_pairs(interleaved):
    x = drawn(2, 5, 6)
    y = np.asarray(cr.rotary_encoding(cr.tensor(x), interleaved=interleaved))
    for p, i in itertools.product(range(5), range(3)):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + 3)
        turned = (x[:, p, a] + 1j * x[:, p, b]) * np.exp(1j * p * 10000 ** (-2 * i / 6))
        np.testing.assert_allclose(y[:, p, a] + 1j * y[:, p, b], turned, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 1000), seed=st.integers(0, 99), interleaved=st.booleans())
def test_rotary_scores_depend_on_distances_alone(shift, seed, interleaved):
    q, k = cr.tensor(drawn(4, 6, seed=seed)), cr.tensor(drawn(4, 6, seed=seed + 1))
    scores = lambda offset: (
        cr.rotary_encoding(q, offset, interleaved=interleaved)
        @ cr.rotary_encoding(k, offset, interleaved=interleaved).mT
    )
    np.testing.assert_allclose(scores(shift), scores(0), rtol=1e-9, atol=1e-9)


def test_derivatives_of_rotary_encoding():
    for interleaved in (True, False):
        cr.check_gradients(lambda x, i=interleaved: cr.rotary_encoding(x, 3, interleaved=i), cr.tensor(drawn(4, 6)))


def test_alibi():
    assert np.asarray(cr.alibi(4, 1, 2))[:, 0, 1].tolist() == [-(2.0**-2), -(2.0**-4), -(2.0**-6), -(2.0**-8)]
    slopes = -np.asarray(cr.alibi(6, 1, 2, dtype="float64"))[:, 0, 1]
    np.testing.assert_allclose(slopes, [2.0**-n for n in (2, 4, 6, 8, 1, 3)])
    bias = np.asarray(cr.alibi(1, 3, 5, offset=2))[0]
    np.testing.assert_allclose(bias, -abs(np.arange(2, 5)[:, None] - np.arange(5)) * 2.0**-8)


# -- compiled


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_compiled(engine):
    q, k, v = (cr.tensor(drawn(2, h, n, 6, seed=n, dtype="float32")) for h, n in ((4, 5), (2, 7), (2, 7)))
    keep = cr.tensor(np.random.default_rng(0).random((2, 4, 5, 7)) < 0.3)

    def f(q, k, v, keep, offset):
        q, k = cr.rotary_encoding(q, offset), cr.rotary_encoding(k, interleaved=True)
        bias = cr.alibi(4, 5, 7, offset)
        y = cr.scaled_dot_product_attention(q, k, v, keep, enable_gqa=True)
        z = cr.scaled_dot_product_attention(q, k, v, bias, is_causal=True, enable_gqa=True)
        return (y + z * cr.sinusoidal_encoding(5, 6, offset))[0]

    derived = lambda q, k, v, keep, offset: cr.grad(lambda *x: cr.sum(f(*x, keep, offset) ** 2), argnums=(0, 1, 2))(
        q, k, v
    )
    for run in (f, lambda *x: derived(*x)[0], lambda *x: derived(*x)[1], lambda *x: derived(*x)[2]):
        fast = cr.compile(run, engine=engine)
        expected = run(q, k, v, keep, cr.tensor(3))
        np.testing.assert_allclose(fast(q, k, v, keep, cr.tensor(3)), expected, rtol=1e-4, atol=1e-5)
        if engine == "native":
            assert "no native code" not in fast.explain_plan()


@pytest.mark.parametrize(("queries", "keys", "width"), [(1, 1, 1), (5, 7, 3), (16, 16, 16), (33, 17, 20)])
@pytest.mark.parametrize("mask", [None, "causal", "truth values", "numbers"])
def test_native_is_the_reference(queries, keys, width, mask):
    """Values and gradients, of sizes around those of vectors; with rows that see nothing."""
    q, k, v = (drawn(2, 3, n, width, seed=n, dtype="float32") for n in (queries, keys, keys))
    seen = np.random.default_rng(0).random((queries, keys)) < 0.6
    seen[0] = False
    given = {"truth values": seen, "numbers": np.where(seen, 0.5, -np.inf).astype("float32")}.get(mask)

    def f(q, k, v, given):
        y = cr.scaled_dot_product_attention(q, k, v, given, is_causal=mask == "causal")
        return cr.sum(y * y), y

    run = cr.value_and_grad(f, argnums=(0, 1, 2), has_aux=True)
    native = cr.compile(run)
    (value, y), slopes = run(*map(cr.tensor, (q, k, v)), given)
    (fast_value, fast_y), fast_slopes = native(q, k, v, given)
    np.testing.assert_allclose(fast_value, value, rtol=1e-5)
    np.testing.assert_allclose(fast_y, y, rtol=1e-4, atol=1e-6)
    for a, b in zip(fast_slopes, slopes, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert "no native code" not in native.explain_plan()
