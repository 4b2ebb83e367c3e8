"""Attention and transformers against PyTorch's, in float64: results, weights, gradients by inputs and parameters."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}
few = settings(max_examples=40, deadline=None)
sizes = st.integers(1, 4)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def grid(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def mask_of(kind, *shape, seed=3):
    """None, truth values, or numbers with −∞ among them. The last row of the truth values hides or shows all."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(shape) < 0.4
    if kind == "bool":
        hidden[..., -1, :] = True
        return hidden
    return None if kind is None else np.where(hidden, -math.inf, rng.normal(size=shape))


# -- the function


@few
@given(
    lead=st.sampled_from([(), (2,), (2, 3)]), queries=sizes, keys=sizes, width=sizes, out=sizes,
    mask=st.sampled_from([None, "bool", "float"]), scale=st.sampled_from([None, 0.3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_scaled_dot_product_attention(agree, lead, queries, keys, width, out, mask, scale, seed):
    arrays = [
        drawn(*lead, n, w, seed=seed + i) for i, (n, w) in enumerate([(queries, width), (keys, width), (keys, out)])
    ]
    m = mask_of(mask, queries, keys, seed=seed)
    theirs_mask = None if m is None else torch.tensor(m)

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, theirs_mask, scale=scale)

    ours = lambda q, k, v: cr.scaled_dot_product_attention(q, k, v, m, scale=scale)
    agree(ours, theirs, *arrays, order=1)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (5, 3), (1, 1)])
def test_causal_attention_and_its_second_derivative(agree, queries, keys):
    """Of the composed form, since PyTorch's fused kernel has no second derivative."""
    arrays = [drawn(2, 3, n, w, seed=i) for i, (n, w) in enumerate([(queries, 6), (keys, 6), (keys, 5)])]

    def theirs(q, k, v):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    agree(lambda q, k, v: cr.scaled_dot_product_attention(q, k, v, is_causal=True), theirs, *arrays)


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (6, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_grouped_queries(agree, heads, groups, mask):
    arrays = [drawn(2, heads, 3, 4), drawn(2, groups, 5, 4, seed=1), drawn(2, groups, 5, 6, seed=2)]
    m = mask_of(mask, 2, heads, 3, 5)
    agree(
        lambda q, k, v: cr.scaled_dot_product_attention(q, k, v, m, enable_gqa=True),
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, None if m is None else torch.tensor(m), enable_gqa=True
        ),
        *arrays,
        order=1,
    )


def test_no_keys_and_no_queries():
    for q, k in ((0, 3), (3, 0)):
        arrays = [drawn(2, q, 4), drawn(2, k, 4), drawn(2, k, 5)]
        expected = F.scaled_dot_product_attention(*map(torch.tensor, arrays)).numpy()
        np.testing.assert_array_equal(cr.scaled_dot_product_attention(*arrays), expected)


# -- layers


def pair(name, *args, dtype=True, **kwargs):
    """Our layer and PyTorch's, in float64, with the same random weights, loaded from PyTorch's state_dict."""
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.normal(size=tuple(p.shape)) * 0.5 + (0.5 if p.ndim == 1 else 0)))
    ours = getattr(nn, name)(*args, **kwargs).to("float64")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    return ours, theirs


def compare(ours, theirs, arrays, our_options=None, their_options=None):
    """Results (the first of a tuple is differentiated), and gradients by inputs and parameters."""
    their_options = our_options if their_options is None else their_options
    as_torch = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in (their_options or {}).items()}
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*leaves, **as_torch)
    first = expected[0] if isinstance(expected, tuple) else expected
    direction = drawn(*first.shape, seed=9)
    (first * torch.tensor(direction)).sum().backward()

    def f(model, *xs):
        out = model(*xs, **(our_options or {}))
        return ((out[0] if isinstance(out, tuple) else out) * cr.tensor(direction)).sum(), out

    (_, out), (by_parameters, *by_inputs) = cr.value_and_grad(f, argnums=range(len(arrays) + 1), has_aux=True)(
        ours, *map(cr.tensor, arrays)
    )
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (out, expected)), strict=True):
        if b is None:
            assert a is None
        else:
            assert a.shape == tuple(b.shape)
            np.testing.assert_allclose(a, b.detach().numpy(), **TOLERANCE)
    for x, g in zip(leaves, by_inputs, strict=True):
        np.testing.assert_allclose(g, x.grad.numpy(), **TOLERANCE)
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert set(by_parameters) == set(gradients)
    for name, g in gradients.items():
        np.testing.assert_allclose(by_parameters[name], g, err_msg=name, rtol=1e-8, atol=1e-10)


SETTINGS = [
    {},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
    {"kdim": 5, "vdim": 3},
    {"vdim": 3, "bias": False, "add_bias_kv": True},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masks", [(None, None), ("bool", None), (None, "bool"), ("float", "float"), ("3-D", "bool")])
@pytest.mark.parametrize("call", grid(need_weights=[True, False], average_attn_weights=[False, True]), ids=str)
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_multihead_attention(options, batch_first, masks, call):
    ours, theirs = pair("MultiheadAttention", 6, 2, batch_first=batch_first, **options)
    n, queries, keys, heads = 3, 4, 5, 2
    widths = (6, options.get("kdim", 6), options.get("vdim", 6))
    arrays = [drawn(n, t, w, seed=i) for i, (t, w) in enumerate(zip((queries, keys, keys), widths, strict=True))]
    if not batch_first:
        arrays = [a.swapaxes(0, 1).copy() for a in arrays]
    attn = mask_of(
        "float" if masks[0] == "3-D" else masks[0], *((n * heads,) if masks[0] == "3-D" else ()), queries, keys
    )
    if attn is not None:
        attn[..., 0] = 0  # PyTorch gives NaN, asked for weights, where nothing is seen; here every query sees one key
    padding = mask_of(masks[1], n, keys)
    if padding is not None:
        padding[..., 0] = 0
    compare(ours, theirs, arrays, {"attn_mask": attn, "key_padding_mask": padding, **call})


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_self_attention_without_a_batch(batch_first, training):
    ours, theirs = pair("MultiheadAttention", 6, 2, batch_first=batch_first)
    x, memory = drawn(4, 6), drawn(5, 6, seed=1)
    attn, padding = mask_of("float", 2, 4, 4), mask_of("float", 4)
    attn[..., 0] = padding[0] = 0

    class Ours(nn.Module):
        def __init__(self):
            self.layer = ours

        def forward(self, x, **k):
            return self.layer(x, x, x, **k)

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = theirs

        def forward(self, x, **k):
            return self.layer(x, x, x, **k)

    for options in ({}, {"attn_mask": attn, "key_padding_mask": padding}):
        compare(Ours().train(training), Theirs().train(training), [x], options)
        theirs.zero_grad()
    compare(ours, theirs, [x, memory, memory + 1])


def test_fully_masked_queries_get_nothing():
    """As PyTorch does without weights; with weights PyTorch gives NaN, and we what we give without."""
    ours, theirs = pair("MultiheadAttention", 6, 2, batch_first=True)
    x, mask = drawn(2, 4, 6), np.array([[False] * 4, [True] * 4, [False, True] * 2, [True] * 3 + [False]])
    compare(ours, theirs, [x, x + 1, x - 1], {"attn_mask": mask, "need_weights": False})
    y, weights = ours(x, x + 1, x - 1, attn_mask=mask)
    np.testing.assert_array_equal(y, ours(x, x + 1, x - 1, attn_mask=mask, need_weights=False)[0])
    np.testing.assert_array_equal(weights[:, 1], np.zeros((2, 4)))
    assert torch.isnan(theirs(*map(torch.tensor, (x, x + 1, x - 1)), attn_mask=torch.tensor(mask))[0][:, 1]).all()


def test_causal_attention_of_a_layer():
    """PyTorch's is_causal says that the mask is causal; ours hides later keys with the mask or without."""
    ours, theirs = pair("MultiheadAttention", 6, 3, batch_first=True)
    x = [drawn(2, 4, 6, seed=i) for i in range(3)]
    mask = ~np.tri(4, dtype=bool)
    for need_weights in (True, False):
        given = {"attn_mask": mask, "is_causal": True, "need_weights": need_weights}
        for options in (given, {**given, "attn_mask": None}):
            compare(ours, theirs, x, options, given)
            theirs.zero_grad()


LAYER = {"d_model": 6, "nhead": 2, "dim_feedforward": 10, "dropout": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        *grid(norm_first=[True, False], activation=["relu", "gelu"], batch_first=[True, False]),
        {"bias": False},
        {"layer_norm_eps": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_layers_of_transformers(options, training):
    x, memory = drawn(3, 4, 6), drawn(5, 4, 6, seed=1)
    if options.get("batch_first"):
        x, memory = (a.swapaxes(0, 1).copy() for a in (x, memory))
    causal, padding = ~np.tri(3, dtype=bool), np.array([[False, True, True]] * 2 + [[False] * 3] * 2)
    memory_mask, memory_padding = mask_of("bool", 3, 5), mask_of("bool", 4, 5)
    memory_mask[:, 0] = memory_padding[:, 0] = False
    ours, theirs = pair("TransformerEncoderLayer", **LAYER, **options)
    ours.train(training), theirs.train(training)
    for masks in ({}, {"src_mask": causal, "is_causal": True}, {"src_mask": causal, "src_key_padding_mask": padding}):
        compare(ours, theirs, [x], masks)
        theirs.zero_grad()
    ours, theirs = pair("TransformerDecoderLayer", **LAYER, **options)
    ours.train(training), theirs.train(training)
    several = {"tgt_mask": causal, "tgt_key_padding_mask": padding, "memory_mask": memory_mask}
    for masks in (
        {},
        {"tgt_mask": causal, "tgt_is_causal": True},
        {**several, "memory_key_padding_mask": memory_padding},
    ):
        compare(ours, theirs, [x, memory], masks)
        theirs.zero_grad()


def test_activations_that_are_functions_or_modules():
    x = drawn(3, 4, 6)
    for ours_given, theirs_given in ((cr.tanh, torch.tanh), (nn.SiLU(), torch.nn.SiLU())):
        ours = nn.TransformerEncoderLayer(**LAYER, activation=ours_given).to("float64")
        theirs = torch.nn.TransformerEncoderLayer(**LAYER, activation=theirs_given).double()
        ours.load_state_dict(theirs.state_dict())
        compare(ours, theirs, [x])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize("options", grid(norm_first=[True, False], batch_first=[True, False]), ids=str)
def test_transformer(options):
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    ours, theirs = pair("Transformer", **LAYER, **sizes, **options)
    src, tgt = drawn(5, 4, 6), drawn(3, 4, 6, seed=1)
    if options["batch_first"]:
        src, tgt = (a.swapaxes(0, 1).copy() for a in (src, tgt))
    mask = np.asarray(nn.Transformer.generate_square_subsequent_mask(3, "float64"))
    np.testing.assert_array_equal(mask, torch.nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64))
    padding = np.zeros((4, 5))
    padding[:2, 3:] = -math.inf
    for masks in ({}, {"tgt_mask": mask, "tgt_is_causal": True}, {"tgt_mask": mask, "src_key_padding_mask": padding}):
        compare(ours, theirs, [src, tgt], masks)
        theirs.zero_grad()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MultiheadAttention", {"embed_dim": 60, "num_heads": 4, "add_bias_kv": True}),
        ("MultiheadAttention", {"embed_dim": 60, "num_heads": 4, "kdim": 50, "vdim": 70}),
        ("TransformerDecoderLayer", {"d_model": 60, "nhead": 4, "dim_feedforward": 100}),
        ("Transformer", {"d_model": 60, "nhead": 4, "dim_feedforward": 100, "num_encoder_layers": 1,
                         "num_decoder_layers": 1}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_layers_start_alike(name, options):
    """The spread of every weight; biases that start at 0 do so exactly."""
    torch.manual_seed(0)
    theirs = dict(getattr(torch.nn, name)(**options).named_parameters())
    ours = dict(getattr(nn, name)(**options, generator=cr.random.Generator(0)).named_parameters())
    assert list(ours) == list(theirs)
    for path, x in theirs.items():
        a, b = np.asarray(ours[path]), x.detach().numpy()
        assert (a == 0).all() == (b == 0).all(), path
        if b.size >= 3000:
            assert abs(a.std() / b.std() - 1) < 0.1, path
            assert abs(abs(a).max() / abs(b).max() - 1) < 0.02, path
