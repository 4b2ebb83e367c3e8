import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.errors import ConfigError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def rows(*shape, dtype="float64"):
    return cr.tensor(RNG.normal(size=shape).astype(dtype))


def layer_of(*args, **kwargs):
    """With biases that are not 0."""
    layer = nn.MultiheadAttention(*args, generator=cr.random.Generator(0), **kwargs).to("float64")
    layer.assign({name: rows(*p.shape) * 0.5 for name, p in layer.named_parameters()})
    return layer


@settings(max_examples=20, deadline=None)
@given(
    heads=st.integers(1, 3), width=st.integers(1, 3), batch=st.integers(0, 3), queries=st.integers(0, 4),
    keys=st.integers(0, 4), batch_first=st.booleans(),
)  # fmt: skip
def test_shapes(heads, width, batch, queries, keys, batch_first):
    layer = layer_of(heads * width, heads, kdim=5, vdim=2, batch_first=batch_first)
    inputs = [rows(batch, n, w) for n, w in ((queries, heads * width), (keys, 5), (keys, 2))]
    inputs = inputs if batch_first else [x.swapaxes(0, 1) for x in inputs]
    y, weights = layer(*inputs)
    assert y.shape == inputs[0].shape
    assert weights.shape == (batch, queries, keys)
    assert layer(*inputs, average_attn_weights=False)[1].shape == (batch, heads, queries, keys)
    if keys:
        np.testing.assert_allclose(cr.sum(weights, axis=-1), np.ones((batch, queries)), rtol=1e-12)


def test_one_tensor_or_several_equal_ones():
    """Projections of one tensor are one product; of equal ones several, with the same numbers."""
    layer = layer_of(6, 2, batch_first=True)
    x, memory = rows(2, 4, 6), rows(2, 3, 6)
    same = lambda t: cr.tensor(t.numpy())
    for one, several in (((x, x, x), (x, same(x), same(x))), ((x, memory, memory), (x, memory, same(memory)))):
        np.testing.assert_allclose(layer(*one)[0], layer(*several)[0], rtol=1e-12, atol=1e-13)


def test_derivatives_to_second_order():
    layer = layer_of(4, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True)
    mask = np.array([[False, True, False]] * 2)
    f = lambda layer, x, memory: layer(x, memory, memory, attn_mask=mask)[0]
    cr.check_gradients(f, layer, rows(2, 2, 4), rows(2, 3, 4), order=2)


def test_masks_of_truth_values_and_of_numbers_say_the_same():
    layer = layer_of(6, 2, batch_first=True)
    x = rows(3, 4, 6)
    hidden, padding = RNG.random((4, 4)) < 0.3, RNG.random((3, 4)) < 0.3
    as_numbers = lambda m: np.where(m, -math.inf, 0.0)
    y, weights = layer(x, x, x, padding, attn_mask=hidden)
    for attn in (as_numbers(hidden), np.tile(hidden, (6, 1, 1)), np.tile(hidden, (2, 1, 1))):
        again, weights_again = layer(x, x, x, as_numbers(padding), attn_mask=attn)
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(weights_again, weights)
    gone = hidden[None] | padding[:, None]
    assert (np.asarray(weights)[gone] == 0).all() and (np.asarray(weights)[~gone] > 0).all()


def test_causal_with_and_without_a_mask():
    layer = layer_of(6, 2, batch_first=True)
    x, mask = rows(2, 5, 6), ~np.tri(5, dtype=bool)
    expected = layer(x, x, x, attn_mask=mask)[0]
    np.testing.assert_array_equal(layer(x, x, x, is_causal=True)[0], expected)
    np.testing.assert_array_equal(layer(x, x, x, is_causal=True, attn_mask=mask, need_weights=False)[0], expected)
    changed = cr.concat([x[:, :3], rows(2, 2, 6)], axis=1)
    np.testing.assert_array_equal(layer(changed, changed, changed, is_causal=True)[0][:, :3], expected[:, :3])


def test_dropout_is_for_training_and_repeats_with_its_seed():
    layer = layer_of(8, 2, dropout=0.5, batch_first=True)
    x = rows(2, 10, 8)
    first, second = layer.seed(1)(x, x, x), layer(x, x, x)
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(layer.seed(1)(x, x, x)[0], first[0])
    dropped = np.asarray(layer(x, x, x, average_attn_weights=False)[1]) == 0
    assert 0.4 < dropped.mean() < 0.6
    layer.eval()
    np.testing.assert_array_equal(layer(x, x, x)[0], layer(x, x, x)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: nn.MultiheadAttention(6, 4), ConfigError, "embed_dim=6 cannot be divided among num_heads=4"),
        (lambda m, x: nn.MultiheadAttention(6, 0), ConfigError, "num_heads is a whole number of at least 1"),
        (lambda m, x: nn.MultiheadAttention(6, 2, dropout=2), ConfigError, "dropout is a probability"),
        (lambda m, x: m(x, x, x[:1]), ShapeError, r"\(2, 3, 6\), \(2, 3, 6\), \(1, 3, 6\) do not fit"),
        (lambda m, x: m(x, x[..., :5], x), ShapeError, "E = 6, 6 and 6"),
        (lambda m, x: m(x, x[0], x[0]), ShapeError, "do not fit"),
        (lambda m, x: m(x, x), ConfigError, "key and value both"),
        (lambda m, x: m(x), ConfigError, "memory_cache"),
        (lambda m, x: m(x, x, x, attn_mask=np.zeros((3, 2), bool)), ShapeError, r"attn_mask has shape \(3, 2\)"),
        (lambda m, x: m(x, x, x, np.zeros((3, 2), bool)), ShapeError, r"expected \(2, 3\)"),
        (lambda m, x: m(x, x, x, attn_mask=np.zeros((3, 3), int)), DTypeError, "True: left out"),
        (lambda m, x: m(x, x, x, cache=m.make_cache(3, 9)), ShapeError, r"\(batch, heads\) = \(3, 2\)"),
        (lambda m, x: m(x, x, x, cache=m.make_cache(2, 2)), ShapeError, "room for max_length=2 tokens; got 3 more"),
        (lambda m, x: m(x, x, x, cache=m.memory_cache(x, x)), ConfigError, "full cache"),
        (lambda m, x: m(x, cache=m.memory_cache(x, x), is_causal=True), ConfigError, "where the queries stand"),
        (lambda m, x: m.memory_cache(x, x).offset, ConfigError, "no next position"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call(nn.MultiheadAttention(6, 2, batch_first=True), rows(2, 3, 6, dtype="float32"))


def test_copies_and_pickles():
    layer = nn.MultiheadAttention(8, 2, batch_first=True, rotary=nn.RotaryEncoding(interleaved=True))
    x = rows(2, 3, 8, dtype="float32")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other(x, x, x)[0], layer(x, x, x)[0])
    assert repr(layer).splitlines()[0].startswith("MultiheadAttention(embed_dim=8, num_heads=2")


# -- caches


@pytest.mark.parametrize("rotary", [None, nn.RotaryEncoding(), nn.RotaryEncoding(interleaved=True)], ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("chunks", [(5,), (1, 1, 1, 1, 1), (2, 3), (3, 1, 1)], ids=str)
def test_with_a_cache_it_is_what_it_is_without(rotary, batch_first, chunks):
    layer = layer_of(8, 2, batch_first=batch_first, rotary=rotary)
    x = rows(3, 5, 8)
    whole = x if batch_first else x.swapaxes(0, 1)
    expected = layer(whole, whole, whole, is_causal=True)[0]
    cache, made, begin = layer.make_cache(3, 7), [], 0
    for n in chunks:
        part = x[:, begin : begin + n] if batch_first else x[:, begin : begin + n].swapaxes(0, 1)
        y, weights = layer(part, part, part, cache=cache)
        assert weights.shape == (3, n, 7)
        made.append(y)
        begin += n
    assert int(cache.position) == 5
    np.testing.assert_allclose(cr.concat(made, axis=1 if batch_first else 0), expected, rtol=1e-10, atol=1e-12)
    cache.reset()
    part = whole[:, :1] if batch_first else whole[:1]
    np.testing.assert_allclose(layer(part, part, part, cache=cache)[0], made[0][:, :1] if batch_first else made[0][:1])


def test_a_cache_without_a_batch():
    layer, x = layer_of(4, 2), rows(3, 4)
    cache = layer.make_cache(1, 3)
    made = [layer(x[i : i + 1], x[i : i + 1], x[i : i + 1], cache=cache)[0] for i in range(3)]
    np.testing.assert_allclose(cr.concat(made), layer(x, x, x, is_causal=True)[0], rtol=1e-10, atol=1e-12)


def test_a_full_cache_says_so():
    layer, x = layer_of(4, 2), rows(1, 1, 4)
    cache = layer.make_cache(1, 2)
    layer(x, x, x, cache=cache), layer(x, x, x, cache=cache)
    with pytest.raises(ShapeError, match="max_length=2 tokens; got 1 more; 2 were seen before"):
        layer(x, x, x, cache=cache)


def test_rows_of_a_cache_change_places():
    layer, x = layer_of(4, 2, batch_first=True), rows(3, 4, 4)
    cache, rows_wanted = layer.make_cache(3, 4), cr.tensor([2, 0, 0, 1])
    layer(x[:, :3], x[:, :3], x[:, :3], cache=cache)
    cache.reorder(rows_wanted)
    last = cr.take(x[:, 3:], rows_wanted, axis=0)
    expected = cr.take(layer(x, x, x, is_causal=True)[0][:, 3:], rows_wanted, axis=0)
    np.testing.assert_allclose(layer(last, last, last, cache=cache)[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_compiled_step_is_compiled_once(engine):
    layer = nn.MultiheadAttention(8, 2, batch_first=True, rotary=nn.RotaryEncoding()).eval()
    x = rows(2, 6, 8, dtype="float32")
    step = cr.compile(lambda layer, cache, x: layer(x, x, x, cache=cache, need_weights=False)[0], engine=engine)
    cache = layer.make_cache(2, 6)
    made = [step(layer, cache, x[:, i : i + 1]) for i in range(6)]
    assert step.compilations == 1
    expected = layer(x, x, x, is_causal=True)[0]
    np.testing.assert_allclose(cr.concat(made, axis=1), expected, rtol=1e-4, atol=1e-5)
    assert int(cache.position) == 6
    if engine == "native":
        assert "no native code" not in step.explain_plan()
