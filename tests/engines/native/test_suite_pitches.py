"""Rows that are padded to whole vectors: the same numbers, whoever meets them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, plans, real

import chainrule as cr
from chainrule import losses, nn
from chainrule.core.tensor import wrap


def pitches(compiled):
    """How far apart rows are, of all values where they are padded."""
    return {storage.pitch for storage in plans(compiled)[0].storage.values() if storage.pitch}


def check(f, *xs, expected=None, **how):
    """Against the reference, on many numbers of threads; `expected`: how far apart padded rows are."""
    compiled = compare(f, *xs, others=(1, 3, 4), **how)
    assert expected is None or pitches(compiled) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("width", "pitch"), [(96, set()), (100, {112}), (111, {112}), (120, {128}), (125, {128}), (113, set()), (15, {16})]
)
def test_networks_of_that_width(width, pitch, dtype):
    layers = [nn.Linear(7, width), nn.Tanh(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)]
    model, x, y = nn.Sequential(*layers), real(21, 7, dtype=dtype), cr.arange(21) % 3
    for parameter in model.parameters():
        parameter.value = parameter.value.astype(dtype)

    def f(model, x, y):
        loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
        return loss, *grads.values()

    check(f, model, x, y, expected=pitch)


def test_what_would_put_rows_into_few_sets_of_the_cache_stays_as_it_is():
    check(lambda x, w: (cr.tanh(x @ w) @ w.T,), real(9, 5), real(5, 250), expected=set())


def test_norms_dropout_and_softmax_over_padded_rows():
    class Model(nn.Module):
        def __init__(self):
            self.a, self.b, self.c = nn.Linear(7, 100), nn.Linear(100, 100), nn.Linear(100, 100)
            self.batch, self.layer = nn.BatchNorm1d(100), nn.LayerNorm(100)

        def forward(self, x):
            hidden = cr.dropout(self.batch(self.a(x)), 0.25, generator=cr.random.key(3))
            hidden = cr.softmax(self.layer(self.b(hidden)), axis=1) * hidden
            return self.c(hidden) + hidden

    model, x, y = Model(), real(40, 7), real(40, 100)

    def f(model, x, y):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x), y))(model)
        return loss, *grads.values()

    check(f, model, x, y, expected={112})


@pytest.mark.parametrize(
    "use",
    [
        lambda h: cr.sum(h, axis=0),
        lambda h: cr.sum(h, axis=1),
        lambda h: h.T @ h,
        lambda h: h @ h.T,
        lambda h: h[3:17, 5:98] * 2.0,
        lambda h: h[::2],
        lambda h: h[:, ::3] + 1.0,
        lambda h: cr.flip(h, (0, 1)) * h,
        lambda h: h.reshape((10, 2, 100)) * 2.0,
        lambda h: h.reshape((2000,)) * 2.0,
        lambda h: h.reshape((5, 400)) @ real(400, 3),
        lambda h: cr.concat([h, h * 2.0], axis=1),
        lambda h: h.cumsum(0),
        lambda h: cr.take(h, cr.arange(4) * 3, axis=0),
        lambda h: h.T * 2.0,
        lambda h: cr.max(h, axis=0),
        lambda h: cr.where(h > 0.5, h, -h),
    ],
)
def test_all_sorts_of_readers(use):
    check(lambda x, w: (use(cr.tanh(x @ w)),), real(20, 9), real(9, 100))


STEPS = {
    "unary": lambda h, g, w: cr.tanh(h),
    "both": lambda h, g, w: h * g + 0.5,
    "row": lambda h, g, w: h - w[0],
    "column": lambda h, g, w: h - cr.max(h, axis=1, keepdims=True),
    "columns": lambda h, g, w: g * cr.mean(h, axis=0),
    "softmax": lambda h, g, w: cr.softmax(h, axis=1) + g,
    "product": lambda h, g, w: h @ w,
    "turned": lambda h, g, w: h @ w.T + g,
    "square": lambda h, g, w: (h @ g.T) @ h * 0.1,
    "gram": lambda h, g, w: h @ (g.T @ h) * 0.1,
    "choice": lambda h, g, w: cr.where(h > w[0], h, w[1] * 0.5),
    "flip": lambda h, g, w: cr.flip(h, (0,)) + g,
}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([14, 15, 16, 29, 30, 31, 45, 62, 100, 120]), st.integers(8, 40),
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8), st.booleans(),
)  # fmt: skip
def test_whatever_follows_one_another(width, rows, steps, derivative):
    def f(x, u, v, w):
        h, g = x @ u, cr.tanh(x @ v)
        for step in steps:
            h, g = STEPS[step](h, g, w), h
        return cr.mean(h * h), cr.sum(g, axis=0)

    shapes = ((rows, 6), (6, width), (6, width), (width, width))
    xs = [real(*shape, seed=k) * 0.3 for k, shape in enumerate(shapes)]
    run = (lambda *xs: cr.grad(lambda *ys: f(*ys)[0], (0, 1, 2, 3))(*xs)) if derivative else f
    check(run, *xs, rtol=2e-4)


def test_integers_are_not_divided_by_padding():
    def f(a, b):
        quotient = (a @ b) // (b[:1] * 0 + 3)
        return cr.sum(quotient // cr.maximum(abs(quotient), 1), axis=0), quotient @ quotient.T

    xs = [wrap(np.random.default_rng(k).integers(1, 9, shape)) for k, shape in enumerate(((12, 4), (4, 100)))]
    check(f, *xs)
