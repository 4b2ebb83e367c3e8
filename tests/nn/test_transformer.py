import copy

import numpy as np
import pytest
from tests.nn.gpt import GPT, loss_of, spread, step

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ConfigError, ShapeError

RNG = np.random.default_rng(0)
SMALL = {"d_model": 8, "nhead": 2, "dim_feedforward": 12}


def rows(*shape, dtype="float32"):
    return cr.tensor(RNG.normal(size=shape).astype(dtype))


def batch(n=3, length=8, vocabulary=11):
    x = RNG.integers(0, vocabulary, (n, length))
    return cr.tensor(x), cr.tensor((x * 3 + 1) % vocabulary)


def test_derivatives_to_second_order():
    model = nn.Transformer(
        4, 2, 1, 1, 5, 0.0, "gelu", norm_first=True, batch_first=True, generator=cr.random.Generator(0)
    )
    f = lambda model, src, tgt: model(src, tgt, tgt_is_causal=True)
    cr.check_gradients(f, model.to("float64"), rows(1, 2, 4, dtype="float64"), rows(1, 2, 4, dtype="float64"), order=2)


@pytest.mark.parametrize("norm_first", [True, False])
def test_layers_are_the_sums_of_the_papers(norm_first):
    layer = nn.TransformerEncoderLayer(**SMALL, dropout=0.0, norm_first=norm_first, batch_first=True)
    x = rows(2, 3, 8)
    attention = lambda x: layer.self_attn(x, x, x)[0]
    network = lambda x: layer.linear2(cr.relu(layer.linear1(x)))
    if norm_first:
        h = x + attention(layer.norm1(x))
        expected = h + network(layer.norm2(h))
    else:
        h = layer.norm1(x + attention(x))
        expected = layer.norm2(h + network(h))
    np.testing.assert_array_equal(layer(x), expected)


def test_copies_of_a_layer_drop_different_elements():
    layer = nn.TransformerEncoderLayer(**SMALL, dropout=0.5)
    stack = nn.TransformerEncoder(layer, 3)
    keys = [tuple(m.generator.key.tolist()) for m in stack.modules() if hasattr(m, "generator")]
    assert len(keys) == len(set(keys)) == 3 * 4
    weights = [np.asarray(part.linear1.weight) for part in stack.layers]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert weights[0] is not layer.linear1.weight.value
    again = nn.TransformerEncoder(layer, 3)
    x = rows(4, 2, 8)
    np.testing.assert_array_equal(stack(x), again(x))
    assert not np.array_equal(stack.train()(x), again.eval()(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tan"), ConfigError, "'relu', 'gelu', a function"),
        (lambda: nn.TransformerEncoderLayer(8, 2, activation=nn.GELU), ConfigError, "a function or a Module"),
        (lambda: nn.TransformerEncoderLayer(8, 3), ConfigError, "cannot be divided among num_heads=3"),
        (lambda: nn.Transformer(8, 2, 1, 1)(rows(3, 2, 8), rows(3, 1, 8)), ShapeError, "with E = 8 and equal N"),
        (lambda: nn.Transformer(8, 2, 1, 1)(rows(3, 2, 7), rows(3, 2, 7)), ShapeError, r"src \(3, 2, 7\)"),
        (lambda: nn.SinusoidalEncoding(7), ConfigError, "d_model=7 must be even"),
        (lambda: nn.SinusoidalEncoding(8)(rows(3, 7)), ShapeError, r"E = 8, got shape \(3, 7\)"),
        (lambda: nn.LearnedEncoding(4, 8)(rows(5, 8)), ShapeError, "positions 0 to 3; 0 to 4"),
        (lambda: nn.LearnedEncoding(4, 8)(rows(2, 8), 3), ShapeError, "positions 0 to 3; 3 to 4"),
        (lambda: nn.TransformerEncoder(nn.Linear(8, 8), 2).make_cache(1, 3), ConfigError, "has no make_cache"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", [nn.SinusoidalEncoding(8, batch_first=True), nn.LearnedEncoding(9, 8, True)], ids=str)
def test_added_encodings(kind):
    x = rows(2, 6, 8)
    whole = kind(x)
    np.testing.assert_array_equal(kind(x[0]), whole[0])
    for offset in (4, cr.tensor(4)):
        np.testing.assert_array_equal(kind(x[:, 4:], offset), whole[:, 4:])
    columns = copy.copy(kind)
    columns.batch_first = False
    np.testing.assert_array_equal(columns(x.swapaxes(0, 1)).swapaxes(0, 1), whole)
    np.testing.assert_array_equal(cr.compile(lambda k, x, o: k(x, o))(kind, x[:, 4:], cr.tensor(4)), whole[:, 4:])


def test_a_learned_encoding_learns():
    layer = nn.LearnedEncoding(4, 2)
    g = cr.grad(lambda layer: cr.sum(layer(cr.zeros((2, 3, 2))) * 2))(layer)["weight"]
    assert g.tolist() == [[6.0, 6.0], [6.0, 6.0], [0.0, 0.0], [0.0, 0.0]]


# -- caches


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_decoder_with_a_cache_is_what_it_is_without(norm_first, batch_first):
    layer = nn.TransformerDecoderLayer(**SMALL, norm_first=norm_first, batch_first=batch_first)
    decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8)).eval().to("float64")
    decoder.assign({name: rows(*p.shape, dtype="float64") for name, p in decoder.named_parameters()})
    turned = (lambda x: x) if batch_first else (lambda x: x.swapaxes(0, 1))
    tgt, memory = rows(3, 5, 8, dtype="float64"), turned(rows(3, 4, 8, dtype="float64"))
    expected = turned(decoder(turned(tgt), memory, tgt_is_causal=True))
    cache, made = decoder.make_cache(memory, 6), []
    for part in (tgt[:, :2], tgt[:, 2:3], tgt[:, 3:4], tgt[:, 4:]):
        made.append(turned(decoder(turned(part), cache=cache)))
    np.testing.assert_allclose(cr.concat(made, axis=1), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rotary", [True, False])
def test_a_gpt_with_a_cache_is_what_it_is_without(rotary):
    model, (x, _) = spread(GPT(rotary=rotary).eval()), batch()
    cache, expected = model.make_cache(3, 9), model(x)
    made = [model(x[:, i:j], cache=cache) for i, j in ((0, 4), (4, 5), (5, 8))]
    np.testing.assert_allclose(cr.concat(made, axis=1), expected, rtol=1e-3, atol=1e-3)


# -- compiled


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_training_step_is_the_same_on_every_engine(dropout):
    """With SGD: the gradient of the bias of keys is 0 but for rounding, which Adam would make steps of."""
    models, batches = {}, [batch() for _ in range(3)]
    for engine in ("eager", "reference", "native"):
        model, optimizer = GPT(dropout=dropout), optim.SGD(lr=0.1)
        fast = step if engine == "eager" else cr.compile(step, engine=engine)
        losses = [float(fast(model, optimizer, x, y)) for x, y in batches]
        models[engine] = losses, model.state_dict()
        if engine == "native":
            assert "no native code" not in fast.explain_plan()
            assert fast.compilations == 1
    for engine in ("reference", "native"):
        np.testing.assert_allclose(models[engine][0], models["eager"][0], rtol=1e-5)
        for name, p in models["eager"][1].items():
            np.testing.assert_allclose(models[engine][1][name], p, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_gradients_of_a_transformer_on_every_engine(engine):
    model = nn.Transformer(**SMALL, num_encoder_layers=1, num_decoder_layers=1, dropout=0.0, batch_first=True)
    src, tgt, padding = rows(2, 5, 8), rows(2, 4, 8), cr.tensor([[False] * 5, [False, False, True, True, True]])

    def gradients(model, src, tgt, padding):
        return cr.value_and_grad(
            lambda m: cr.sum(
                m(src, tgt, src_key_padding_mask=padding, memory_key_padding_mask=padding, tgt_is_causal=True)[..., 0]
                ** 2
            )
        )(model)

    expected, slopes = gradients(model, src, tgt, padding)
    value, found = cr.compile(gradients, engine=engine)(model, src, tgt, padding)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for name, g in slopes.items():
        np.testing.assert_allclose(found[name], g, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_summary_and_halves():
    model, (x, _) = GPT(), batch()
    assert "MultiheadAttention" in str(nn.summary(model, x))
    expected = model(x)
    halves = model.to("bfloat16")(x)
    assert halves.dtype == "bfloat16"
    np.testing.assert_allclose(halves.astype("float32"), expected, atol=0.1)


def test_a_gpt_learns():
    model, optimizer, (x, y) = GPT(layers=1), optim.Adam(lr=1e-2), batch(16)
    fast = cr.compile(step)
    first = float(loss_of(model, x, y))
    for _ in range(60):
        last = float(fast(model, optimizer, x, y))
    assert last < first / 10
