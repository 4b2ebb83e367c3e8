"""linear, bilinear, embedding, dropout as functions."""

import numpy as np
import pytest

from chainrule import dtypes
from chainrule.core.autodiff import grad, vjp
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor
from chainrule.errors import ConfigError, DTypeError, IndexOutOfRange, ShapeError
from chainrule.functions.layers import bilinear, dropout, embedding, linear
from chainrule.random import Generator, key

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3), (0,), (2, 0, 3)])
def test_linear(lead):
    x, weight, bias = RNG.normal(size=(*lead, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=3)
    y = linear(tensor(x), tensor(weight), tensor(bias))
    assert y.shape == (*lead, 3)
    np.testing.assert_allclose(y.numpy(), x @ weight.T + bias, rtol=1e-13)
    np.testing.assert_allclose(linear(tensor(x), tensor(weight)).numpy(), x @ weight.T, rtol=1e-13)
    if x.size:
        check_gradients(linear, tensor(x), tensor(weight), tensor(bias))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_bilinear(lead):
    a, b = RNG.normal(size=(*lead, 4)), RNG.normal(size=(*lead, 2))
    weight, bias = RNG.normal(size=(3, 4, 2)), RNG.normal(size=3)
    y = bilinear(tensor(a), tensor(b), tensor(weight), tensor(bias))
    np.testing.assert_allclose(y.numpy(), np.einsum("...i,oij,...j->...o", a, weight, b) + bias, rtol=1e-12)
    check_gradients(bilinear, tensor(a), tensor(b), tensor(weight), tensor(bias))


def test_linear_in_bfloat16_is_rounded_once():
    x, weight, bias = (tensor(RNG.normal(size=s), "bfloat16") for s in ((5, 4), (3, 4), (3,)))
    exact = linear(*[t.astype("float32") for t in (x, weight, bias)]).astype("bfloat16")
    assert (np.asarray(linear(x, weight, bias)) == np.asarray(exact)).all()


def test_embedding_looks_up_rows_and_adds_up_their_gradients():
    weight = tensor(RNG.normal(size=(5, 3)))
    index = tensor([[0, 2], [2, 2]])
    assert (embedding(index, weight).numpy() == weight.numpy()[index.numpy()]).all()
    assert embedding(tensor(4, "uint8"), weight).shape == (3,)
    gradient = grad(lambda w: embedding(index, w).sum())(weight).numpy()
    assert gradient.tolist() == [[1] * 3, [0] * 3, [3] * 3, [0] * 3, [0] * 3]
    check_gradients(lambda w: embedding(index, w), weight)


@pytest.mark.parametrize("padding", [2, -3])
def test_the_padding_row_is_looked_up_but_gets_no_gradient(padding):
    weight = tensor(RNG.normal(size=(5, 3)))
    index = tensor([[0, 2], [2, 4]])
    y, pull = vjp(lambda w: embedding(index, w, padding_idx=padding), weight)
    assert (y.numpy() == weight.numpy()[index.numpy()]).all()
    assert pull(y * 0 + 1)[0].numpy().tolist() == [[1] * 3, [0] * 3, [0] * 3, [0] * 3, [1] * 3]


def test_dropout_keeps_the_expectation_and_draws_new_masks():
    generator = Generator(5)
    x = tensor(np.full((200, 200), 3.0, np.float32))
    first, second = (dropout(x, 0.2, generator=generator).numpy() for _ in range(2))
    kept = first != 0
    np.testing.assert_allclose(first[kept], 3 / 0.8, rtol=1e-6)
    assert abs(kept.mean() - 0.8) < 4 * np.sqrt(0.2 * 0.8 / kept.size)
    agree = ((first != 0) == (second != 0)).mean()
    assert abs(agree - (0.8**2 + 0.2**2)) < 0.01  # as two independent masks do
    assert int(generator.count) == 2


def test_dropout_by_key_is_repeatable_and_its_gradient_is_the_mask():
    x = tensor(RNG.normal(size=(6, 7)))
    y = dropout(x, 0.5, generator=key(1))
    assert (dropout(x, 0.5, generator=key(1)).numpy() == y.numpy()).all()
    gradient = grad(lambda t: dropout(t, 0.5, generator=key(1)).sum())(x).numpy()
    assert set(gradient.ravel()) == {0.0, 2.0}
    assert ((gradient == 2) == (y.numpy() != 0)).all()
    check_gradients(lambda t: dropout(t, 0.5, generator=key(1)), x)


def test_dropout_at_the_ends():
    x = tensor([1.0, float("inf")])
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0) is x
    assert dropout(x, 1.0).tolist() == [0.0, 0.0]
    assert dropout(tensor([1, 2]), 1.0).dtype == dtypes.float32
    assert dropout(tensor([1.0], "bfloat16"), 0.5, generator=key(0)).dtype == dtypes.bfloat16


def test_mistakes_are_explained():
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(5, 4\)"):
        linear(tensor(np.ones((2, 3))), tensor(np.ones((5, 4))))
    with pytest.raises(ShapeError, match="bias"):
        linear(tensor(np.ones((2, 4))), tensor(np.ones((5, 4))), tensor(np.ones(4)))
    with pytest.raises(ShapeError, match="bilinear"):
        bilinear(tensor(np.ones((2, 3))), tensor(np.ones((1, 3))), tensor(np.ones((5, 3, 3))))
    with pytest.raises(DTypeError, match="order is embedding"):
        embedding(tensor([[0.5]]), tensor([[0.5]]))
    with pytest.raises(IndexOutOfRange, match="5"):
        embedding(tensor([5]), tensor(np.ones((5, 2))))
    with pytest.raises(IndexOutOfRange, match="-1"):
        embedding(tensor([-1]), tensor(np.ones((5, 2))))
    with pytest.raises(IndexOutOfRange, match="padding_idx"):
        embedding(tensor([0]), tensor(np.ones((5, 2))), padding_idx=5)
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="probability"):
            dropout(tensor([1.0]), p)
    with pytest.raises(ConfigError, match="generator"):
        dropout(tensor([1.0]))
    with pytest.raises(DTypeError, match="key"):
        dropout(tensor([1.0]), generator=tensor([1, 2]))
