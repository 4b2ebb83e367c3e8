"""A small GPT, and what it is asked in tests: a training step on both engines, generation with a cache."""

import numpy as np

import chainrule as cr
from chainrule import losses, nn


class GPT(nn.Module):
    """Tokens (N, length) -> logits (N, length, vocabulary), each of the tokens up to its own."""

    def __init__(self, vocabulary=11, width=16, heads=2, layers=2, block=12, dropout=0.0, seed=0, rotary=False):
        generator = cr.random.Generator(seed)
        self.tokens = nn.Embedding(vocabulary, width, generator=generator)
        self.positions = None if rotary else nn.LearnedEncoding(block, width, batch_first=True, generator=generator)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True, generator=generator
        )
        if rotary:
            layer.self_attn.rotary = nn.RotaryEncoding()
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width))
        self.head = nn.Linear(width, vocabulary, bias=False, generator=generator)

    def forward(self, tokens, cache=None):
        x = self.tokens(tokens)
        if self.positions is not None:
            x = self.positions(x, 0 if cache is None else cache[0].offset)
        return self.head(self.blocks(x, is_causal=True, cache=cache))

    def make_cache(self, batch_size, max_length):
        return self.blocks.make_cache(batch_size, max_length)


def spread(model, seed=1, by=0.7):
    """Weights far enough from 0 that the next token matters."""
    rng = np.random.default_rng(seed)
    model.assign({n: cr.tensor(rng.normal(size=p.shape).astype("float32") * by) for n, p in model.named_parameters()})
    return model


def loss_of(model, x, y):
    logits = model(x)
    return losses.cross_entropy(logits.reshape((-1, logits.shape[-1])), y.reshape((-1,)))


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(loss_of)(model, x, y)
    optimizer.update(model, grads)
    return loss
