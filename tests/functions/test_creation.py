"""Making tensors, against NumPy."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import chainrule.functions as cr
from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import ConfigError, DataError, DTypeError, ShapeError


def assert_same(y: Tensor, expected: np.ndarray) -> None:
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(y), expected)


@pytest.mark.parametrize("shape", [(), 0, 3, (3,), [2, 3], (0, 2), (1, 2, 3)])
@pytest.mark.parametrize("dtype", dtypes.ALL)
def test_constants(shape: Any, dtype: Any) -> None:
    assert_same(cr.zeros(shape, dtype), np.zeros(shape, dtype))
    assert_same(cr.ones(shape, dtype), np.ones(shape, dtype))
    assert_same(cr.full(shape, 1, dtype), np.full(shape, 1, dtype))
    assert cr.empty(shape, dtype).shape == np.zeros(shape).shape
    x = np.zeros(shape, dtype)
    assert_same(cr.ones_like(x), np.ones(shape, dtype))
    assert_same(cr.zeros_like(x, dtype=np.int32), np.zeros(shape, np.int32))
    assert_same(cr.full_like(x, 1), np.full(shape, 1, dtype))
    assert cr.empty_like(x).dtype == dtype


def test_default_dtypes() -> None:
    assert cr.zeros(2).dtype == cr.ones(2).dtype == cr.eye(2).dtype == cr.linspace(0, 1, 3).dtype == np.float32
    assert cr.full(2, 1.5).dtype == np.float32
    assert cr.full(2, 1).dtype == np.int64
    assert cr.full(2, True).dtype == np.bool_
    assert cr.full(2, np.float64(1.5)).dtype == np.float64
    assert cr.arange(3).dtype == np.int64
    assert cr.arange(3.0).dtype == np.float32


def test_constants_take_the_memory_of_one_number() -> None:
    assert np.asarray(cr.ones((100_000, 100_000))).strides == (0, 0)


@settings(max_examples=200, deadline=None)
@given(start=st.integers(-9, 9), stop=st.integers(-9, 9), step=st.integers(-4, 4).filter(bool))
def test_arange_of_integers(start: int, stop: int, step: int) -> None:
    assert_same(cr.arange(start, stop, step), np.arange(start, stop, step))
    assert_same(cr.arange(stop), np.arange(stop))
    assert_same(cr.arange(start, stop, step, dtype=np.float32), np.arange(start, stop, step).astype(np.float32))


@pytest.mark.parametrize("given", [(1.5,), (0, 1, 0.1), (1, 0, -0.25), (0.5, 3), (0, 1, 1 / 3), (2.0, 1.0), (-1.0,)])
def test_arange_of_floats(given: tuple[float, ...]) -> None:
    assert_same(cr.arange(*given, dtype=np.float64), np.arange(*given))
    assert cr.arange(*given).shape == np.arange(*given).shape


def test_arange_does_not_add_up_errors() -> None:
    assert float(cr.arange(0, 1000, 0.1)[-1]) == np.float32(999.9)


@settings(max_examples=100, deadline=None)
@given(start=st.floats(-1e3, 1e3), stop=st.floats(-1e3, 1e3), num=st.integers(0, 7), endpoint=st.booleans())
def test_linspace(start: float, stop: float, num: int, endpoint: bool) -> None:
    expected = np.linspace(start, stop, num, endpoint=endpoint)
    assert_same(cr.linspace(start, stop, num, dtype=np.float64, endpoint=endpoint), expected)


def test_linspace_between_tensors() -> None:
    a, b = tensor(2.0), tensor(np.array(5.0))
    y = cr.linspace(a, b, 4)
    assert y.dtype == np.float64
    np.testing.assert_allclose(np.asarray(y), [2, 3, 4, 5], rtol=1e-15)
    assert cr.linspace(a, 5, 4, dtype=np.float32, endpoint=False).tolist() == [2, 2.75, 3.5, 4.25]
    gradients = grad(lambda a, b: cr.sum(cr.linspace(a, b, 4) ** 2), argnums=(0, 1))(a, b)
    np.testing.assert_allclose([float(g) for g in gradients], [2 * (2 + 2 + 4 / 3), 2 * (1 + 8 / 3 + 5)], rtol=1e-6)
    assert cr.linspace(tensor([1.0, 2.0])[0], 2.0, 0).shape == (0,)


@pytest.mark.parametrize("k", [-4, -1, 0, 1, 2, 5])
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4), (4, 2), (0, 3), (1, 1)])
def test_eye_and_triangles(rows: int, columns: int, k: int) -> None:
    assert_same(cr.eye(rows, columns, k=k, dtype=np.int32), np.eye(rows, columns, k, dtype=np.int32))
    x = np.random.default_rng(0).normal(size=(2, rows, columns))
    assert_same(cr.tril(x, k=k), np.tril(x, k))
    assert_same(cr.triu(x, k=k), np.triu(x, k))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sizes", [(), (3,), (3, 2), (2, 3, 4), (2, 0)])
def test_meshgrid(sizes: tuple[int, ...], indexing: Any) -> None:
    vectors = [np.arange(n) * 1.5 for n in sizes]
    got, expected = cr.meshgrid(*vectors, indexing=indexing), np.meshgrid(*vectors, indexing=indexing)
    assert len(got) == len(expected)
    for y, wanted in zip(got, expected, strict=True):
        assert_same(y, wanted)


def test_asarray_and_from_dlpack() -> None:
    x = tensor([1.0, 2.0])
    assert cr.asarray(x) is x
    assert cr.asarray(x, dtype=np.float64).dtype == np.float64
    given = np.arange(3.0)
    y = cr.asarray(given)
    given[0] = 9
    assert y.tolist() == [0, 1, 2]
    z = cr.from_dlpack(given)
    given[1] = 9
    assert z.tolist() == [9, 1, 2]
    assert cr.from_dlpack(x) is x
    np.testing.assert_array_equal(np.from_dlpack(x), [1, 2])


def test_a_value_to_fill_with_may_be_differentiated() -> None:
    assert float(grad(lambda v: cr.sum(cr.full((2, 3), v)))(tensor(2.0))) == 6


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: cr.zeros((-1, 2)), ShapeError),
        (lambda: cr.zeros((1.5,)), ShapeError),
        (lambda: cr.zeros("ab"), ShapeError),
        (lambda: cr.zeros(2, "complex64"), DTypeError),
        (lambda: cr.zeros(2, 3), DTypeError),
        (lambda: cr.full(2, [1, 2]), ShapeError),
        (lambda: cr.full(2, 300, np.uint8), DTypeError),
        (lambda: cr.arange(0, 1, 0), ConfigError),
        (lambda: cr.linspace(0, 1, -1), ShapeError),
        (lambda: cr.linspace(tensor([0.0]), 1, 3), ShapeError),
        (lambda: cr.eye(-1), ShapeError),
        (lambda: cr.tril([1.0, 2.0]), ShapeError),
        (lambda: cr.meshgrid([1.0], [[1.0]]), ShapeError),
        (lambda: cr.meshgrid([1.0], indexing="yx"), ConfigError),
        (lambda: cr.asarray(np.ones(2), copy=False), DataError),
        (lambda: cr.from_dlpack([1.0]), DTypeError),
        (lambda: cr.from_dlpack(np.ones(2, np.complex64)), DTypeError),
    ],
)
def test_mistakes(bad: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bad()
