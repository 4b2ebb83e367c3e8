"""The methods of tensors are the functions, under the names that users of NumPy and PyTorch expect."""

from typing import Any

import numpy as np
import pytest

import chainrule.functions as cr
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import ShapeError
from chainrule.functions.methods import METHODS

x = tensor(np.random.default_rng(2).uniform(0.1, 2, (2, 3, 4)))


def test_every_method_has_a_line_of_documentation_and_stands_on_tensors() -> None:
    for name, method in METHODS.items():
        assert method.__doc__
        assert getattr(Tensor, name) is method


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std", "all", "any", "argmax", "argmin"])
def test_reductions(name: str) -> None:
    for arguments in ((), (1,), (-1,)):
        np.testing.assert_array_equal(
            np.asarray(getattr(x, name)(*arguments)), np.asarray(getattr(cr, name)(x, *arguments))
        )
    assert getattr(x, name)(axis=1, keepdims=True).shape == (2, 1, 4)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "abs", "sin", "cos", "square", "round", "sort", "norm"])
def test_functions_of_one(name: str) -> None:
    np.testing.assert_array_equal(np.asarray(getattr(x, name)()), np.asarray(getattr(cr, name)(x)))


def test_shapes() -> None:
    assert x.reshape(6, -1).shape == x.reshape((6, 4)).shape == (6, 4)
    assert x.reshape(-1).shape == (24,)
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == (2, 12)
    assert x.flatten(0, 1).shape == (6, 4)
    assert tensor(1.0).flatten().shape == (1,)
    assert tensor(np.zeros((0, 2, 3))).flatten(1).shape == (0, 6)
    assert x.unsqueeze(0).shape == x.expand_dims(0).shape == (1, 2, 3, 4)
    assert x.unsqueeze(-1).squeeze(-1).shape == x.shape
    assert x.permute(2, 0, 1).shape == x.permute((2, 0, 1)).shape == (4, 2, 3)
    assert x.swapaxes(0, -1).shape == (4, 3, 2)
    with pytest.raises(ShapeError):
        x.flatten(2, 1)


def test_transpose_has_numpys_meaning_and_pytorchs() -> None:
    assert x.transpose().shape == (4, 3, 2)
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == (4, 2, 3)
    assert x.transpose(1, 2).shape == x.transpose(-1, -2).shape == (2, 4, 3)
    matrix = tensor([[1, 2, 3], [4, 5, 6]])
    assert matrix.transpose(1, 0).shape == matrix.transpose().shape == (3, 2)
    with pytest.raises(ShapeError, match="swapaxes"):
        matrix.transpose(0, 1)


def test_iteration() -> None:
    a, b = tensor([[1, 2], [3, 4]])
    assert a.tolist() == [1, 2]
    assert b.tolist() == [3, 4]
    assert [float(y) for y in tensor([1.0, 2.0])] == [1, 2]
    assert list(tensor(np.zeros((0, 2)))) == []
    with pytest.raises(ShapeError):
        iter(tensor(1.0))


def test_others() -> None:
    assert x.clip(0.5, 1.5).max().item() == 1.5
    assert tensor([1, 2, 3]).cumsum().tolist() == [1, 3, 6]
    assert tensor([3, 1, 2]).argsort().tolist() == [1, 2, 0]
    assert tensor([1, 2, 3]).take([2, 0]).tolist() == [3, 1]
    assert tensor([[1, 2], [3, 4]]).trace().item() == 5
    assert tensor([[1, 2], [3, 4]]).diagonal().tolist() == [1, 4]
    assert tensor([1, 2]).matmul(tensor([3, 4])).item() == 11


def test_detach() -> None:
    w = tensor(3.0, requires_grad=True)
    (w * w.detach()).backward()
    gradient: Any = w.grad
    assert float(gradient) == 3
