"""Whole trainings against PyTorch, in float64 and step for step: eager and compiled."""

import math

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import losses, nn, optim

STEPS = 50
RTOL, ATOL = 1e-9, 1e-11


def follow(ours, theirs, our_optimizer, their_optimizer, our_loss, their_loss, batches, engine, names=None):
    """Train both from the same start; losses after each step, all parameters and buffers at the end are the same."""
    their_names = names or {name: name for name in ours.state_dict()}
    ours.load_state_dict({o: theirs.state_dict()[t].numpy() for o, t in their_names.items()})

    def step(model, optimizer, *batch):
        loss, grads = cr.value_and_grad(lambda m: our_loss(m, *batch))(model)
        optimizer.update(model, grads)
        return loss

    our_optimizer.init(ours)
    run = step if engine == "eager" else cr.compile(step, engine=engine)
    for batch in batches:
        their_optimizer.zero_grad()
        expected = their_loss(theirs, *[torch.from_numpy(x.copy()) for x in batch])
        expected.backward()
        their_optimizer.step()
        found = run(ours, our_optimizer, *[cr.tensor(x) for x in batch])
        np.testing.assert_allclose(float(found), expected.item(), rtol=RTOL, atol=ATOL)
    state = theirs.state_dict()
    for name, their_name in their_names.items():
        found, expected = np.asarray(ours.state_dict()[name]), state[their_name].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=name)


def batches(seed, *makers):
    rng = np.random.default_rng(seed)
    return [tuple(make(rng) for make in makers) for _ in range(STEPS)]


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


engines = pytest.mark.parametrize("engine", ["eager", "reference"])


@engines
def test_mlp_with_batch_norm_and_adam(engine):
    ours = nn.Sequential(
        nn.Linear(6, 16, dtype="float64"),
        nn.BatchNorm1d(16, dtype="float64"),
        nn.ReLU(),
        nn.Linear(16, 16, dtype="float64"),
        nn.BatchNorm1d(16, momentum=None, dtype="float64"),
        nn.Tanh(),
        nn.Linear(16, 4, dtype="float64"),
    )
    t = torch.nn
    theirs = t.Sequential(
        t.Linear(6, 16), t.BatchNorm1d(16), t.ReLU(), t.Linear(16, 16), t.BatchNorm1d(16, momentum=None), t.Tanh(),
        t.Linear(16, 4),
    )  # fmt: skip
    follow(
        ours, theirs, optim.Adam(lr=1e-2, weight_decay=1e-3),
        torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=1e-3),
        lambda m, x, y: losses.cross_entropy(m(x), y, label_smoothing=0.1),
        lambda m, x, y: t.functional.cross_entropy(m(x), y, label_smoothing=0.1),
        batches(0, lambda r: r.normal(size=(9, 6)), lambda r: r.integers(0, 4, 9)), engine,
    )  # fmt: skip
    x = np.random.default_rng(9).normal(size=(5, 6))
    np.testing.assert_allclose(
        np.asarray(ours.eval()(cr.tensor(x))), theirs.eval()(torch.from_numpy(x)).detach().numpy(), rtol=1e-7, atol=1e-9
    )


class Block(nn.Module):
    """A transformer block with causal attention: x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, width, heads):
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, dtype="float64") for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False, dtype="float64")
        self.out = nn.Linear(width, width, dtype="float64")
        self.up, self.down = nn.Linear(width, 4 * width, dtype="float64"), nn.Linear(4 * width, width, dtype="float64")

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (
            part.reshape(batch, time, self.heads, width // self.heads).swapaxes(1, 2)  # (batch, heads, time, head_dim)
            for part in cr.unstack(self.qkv(self.norm1(x)).reshape(batch, time, 3, width), axis=2)
        )
        scores = q @ k.mT / math.sqrt(width // self.heads)
        scores = cr.where(cr.tril(cr.ones((time, time))) > 0, scores, -math.inf)
        mixed = (cr.softmax(scores, axis=-1) @ v).swapaxes(1, 2).reshape(batch, time, width)
        x = x + self.out(mixed)
        return x + self.down(cr.gelu(self.up(self.norm2(x)), approximate="tanh"))


class TorchBlock(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.out = torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (
            p.reshape(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for p in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Language(nn.Module):
    """Embedding, blocks, and the embedding's weight again for the logits."""

    def __init__(self, words, width):
        self.embedding = nn.Embedding(words, width, dtype="float64")
        self.blocks = nn.ModuleList([Block(width, 2), Block(width, 2)])
        self.head = nn.Linear(width, words, bias=False, dtype="float64")
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TorchLanguage(torch.nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.embedding = torch.nn.Embedding(words, width)
        self.blocks = torch.nn.ModuleList([TorchBlock(width, 2), TorchBlock(width, 2)])
        self.head = torch.nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@engines
def test_transformer_block_with_adamw(engine):
    ours, theirs = Block(8, 2), TorchBlock(8, 2)
    follow(
        ours, theirs, optim.AdamW(lr=3e-3, weight_decay=0.1),
        torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=0.1),
        lambda m, x, y: losses.mse(m(x), y), lambda m, x, y: torch.nn.functional.mse_loss(m(x), y),
        batches(1, lambda r: r.normal(size=(3, 5, 8)), lambda r: r.normal(size=(3, 5, 8))), engine,
    )  # fmt: skip


@engines
def test_language_model_with_a_tied_output(engine):
    ours, theirs = Language(11, 8), TorchLanguage(11, 8)
    follow(
        ours, theirs, optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(lr=3e-3)), Clipped(theirs),
        lambda m, x, y: losses.cross_entropy(m(x).reshape(-1, 11), y.reshape(-1)),
        lambda m, x, y: torch.nn.functional.cross_entropy(m(x).reshape(-1, 11), y.reshape(-1)),
        batches(2, lambda r: r.integers(0, 11, (2, 6)), lambda r: r.integers(0, 11, (2, 6))), engine,
    )  # fmt: skip
    assert ours.head.weight is ours.embedding.weight


class Clipped:
    """Adam behind PyTorch's clip_grad_norm_."""

    def __init__(self, model):
        self.model, self.inner = model, torch.optim.Adam(model.parameters(), lr=3e-3)

    def zero_grad(self):
        self.inner.zero_grad()

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, error_if_nonfinite=True)
        self.inner.step()


class Recurrent(nn.Module):
    """A plain recurrent layer, unrolled by hand."""

    def __init__(self, inputs, hidden):
        self.into = nn.Linear(inputs, hidden, dtype="float64")
        self.over = nn.Linear(hidden, hidden, dtype="float64")
        self.out = nn.Linear(hidden, 1, dtype="float64")

    def forward(self, x):
        h = cr.zeros((x.shape[0], self.over.in_features), dtype=x.dtype)
        for t in range(x.shape[1]):
            h = cr.tanh(self.into(x[:, t]) + self.over(h))
        return self.out(h)[:, 0]


class TorchRecurrent(torch.nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.rnn, self.out = torch.nn.RNN(inputs, hidden, batch_first=True), torch.nn.Linear(hidden, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])[:, 0]


@engines
def test_recurrent_network_with_momentum(engine):
    ours, theirs = Recurrent(3, 7), TorchRecurrent(3, 7)
    names = {"into.weight": "rnn.weight_ih_l0", "into.bias": "rnn.bias_ih_l0", "over.weight": "rnn.weight_hh_l0",
             "over.bias": "rnn.bias_hh_l0", "out.weight": "out.weight", "out.bias": "out.bias"}  # fmt: skip
    follow(
        ours, theirs, optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
        torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True),
        lambda m, x, y: losses.smooth_l1(m(x), y), lambda m, x, y: torch.nn.functional.smooth_l1_loss(m(x), y),
        batches(3, lambda r: r.normal(size=(4, 8, 3)), lambda r: r.normal(size=4)), engine, names,
    )  # fmt: skip


@engines
def test_gan_with_a_gradient_penalty(engine):
    """Two models, two optimisers, a derivative inside of a derivative: one step function."""

    def two(make, activation):
        return make.Sequential(make.Linear(4, 8), activation(), make.Linear(8, 4)), make.Sequential(
            make.Linear(4, 8), activation(), make.Linear(8, 1)
        )

    theirs = two(torch.nn, torch.nn.Tanh)
    ours = [m.to("float64") for m in two(nn, nn.Tanh)]
    for mine, other in zip(ours, theirs, strict=True):
        mine.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})

    def step(generator, critic, generator_optimizer, critic_optimizer, real, noise, mix):
        def critic_loss(c):
            fake = cr.stop_gradient(generator(noise))
            between = mix * real + (1 - mix) * fake
            slopes = cr.grad(lambda x: cr.sum(c(x)))(between)
            penalty = cr.mean((cr.sqrt(cr.sum(slopes**2, axis=1)) - 1) ** 2)
            return cr.mean(c(fake)) - cr.mean(c(real)) + 10 * penalty

        loss_c, grads = cr.value_and_grad(critic_loss)(critic)
        critic_optimizer.update(critic, grads)
        loss_g, grads = cr.value_and_grad(lambda g: -cr.mean(critic(g(noise))))(generator)
        generator_optimizer.update(generator, grads)
        return loss_c, loss_g

    optimizers = [optim.Adam(m, lr=1e-2, betas=(0.5, 0.9)) for m in ours]
    others = [torch.optim.Adam(m.parameters(), lr=1e-2, betas=(0.5, 0.9)) for m in theirs]
    run = step if engine == "eager" else cr.compile(step, engine=engine)
    g, c = theirs
    for real, noise, mix in batches(
        4, lambda r: r.normal(size=(6, 4)), lambda r: r.normal(size=(6, 4)), lambda r: r.random((6, 1))
    ):
        x, z, a = (torch.from_numpy(v) for v in (real, noise, mix))
        fake = g(z).detach()
        between = (a * x + (1 - a) * fake).requires_grad_()
        (slopes,) = torch.autograd.grad(c(between).sum(), between, create_graph=True)
        loss_c = c(fake).mean() - c(x).mean() + 10 * ((slopes.square().sum(1).sqrt() - 1) ** 2).mean()
        others[1].zero_grad()
        loss_c.backward()
        others[1].step()
        loss_g = -c(g(z)).mean()
        others[0].zero_grad()
        loss_g.backward()
        others[0].step()
        found = run(*ours, *optimizers, *[cr.tensor(v) for v in (real, noise, mix)])
        np.testing.assert_allclose([float(v) for v in found], [loss_c.item(), loss_g.item()], rtol=RTOL, atol=ATOL)


def test_state_dicts_are_exchanged_both_ways():
    ours, theirs = Language(11, 8), TorchLanguage(11, 8)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 6))
    ours.load_state_dict(theirs.state_dict())  # PyTorch's tensors as they are
    expected = theirs(torch.from_numpy(tokens)).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours(cr.tensor(tokens))), expected, rtol=1e-12)
    other = TorchLanguage(11, 8)
    report = other.load_state_dict({k: torch.from_dlpack(v) for k, v in ours.state_dict().items()})
    assert report.missing_keys == report.unexpected_keys == []
    np.testing.assert_array_equal(other(torch.from_numpy(tokens)).detach().numpy(), expected)


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "int32", "int64", "uint8", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 5)])
def test_dlpack_both_ways(name, shape):
    values = np.random.default_rng(0).integers(0, 2, shape).astype(name)
    ours, theirs = cr.tensor(values), torch.from_numpy(values.copy())
    back = torch.from_dlpack(ours)
    assert back.dtype == theirs.dtype and torch.equal(back, theirs)
    taken = cr.from_dlpack(theirs)
    assert taken.dtype == values.dtype and np.array_equal(np.asarray(taken), values)
    theirs.fill_(1)
    back.fill_(1)
    assert np.array_equal(np.asarray(taken), values) and np.array_equal(np.asarray(ours), values)  # copies
    assert np.array_equal(np.from_dlpack(ours), values)
    assert np.array_equal(np.asarray(cr.from_dlpack(values)), values)
