"""Products, diagonals, norms and sums of products, against NumPy."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import chainrule.functions as cr
from chainrule import dtypes
from chainrule.core.autodiff import grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import ConfigError, DTypeError, ShapeError

INF = math.inf
rng = np.random.default_rng(11)


def assert_close(y: Tensor, expected: Any, rtol: float = 1e-12) -> None:
    expected = np.asarray(expected)
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(np.asarray(y), expected, rtol=rtol, atol=1e-12)


# -- einsum

EINSUMS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("i->i", ((3,),)),
    ("i->", ((3,),)),
    ("ij->ji", ((2, 3),)),
    ("ij->j", ((2, 3),)),
    ("ij", ((2, 3),)),
    ("ba", ((2, 3),)),
    ("aB", ((2, 3),)),
    ("ii", ((3, 3),)),
    ("ii->i", ((3, 3),)),
    ("iij->j", ((3, 3, 2),)),
    ("iji->ij", ((3, 2, 3),)),
    ("iii->i", ((3, 3, 3),)),
    ("iijj->ij", ((2, 2, 3, 3),)),
    ("...i->...", ((2, 3, 4),)),
    ("i...->...i", ((2, 3, 4),)),
    ("i...", ((2, 3),)),
    ("...ij->...ji", ((2, 3, 4),)),
    ("...ii->...i", ((2, 3, 3),)),
    ("...->...", ((2, 3),)),
    ("...", ((2, 3),)),
    (" i j -> j i ", ((2, 3),)),
    (",->", ((), ())),
    (",i->i", ((), (3,))),
    ("i,i", ((3,), (3,))),
    ("i,i->i", ((3,), (3,))),
    ("i,j", ((3,), (2,))),
    ("i,j->ji", ((3,), (2,))),
    ("i,j->", ((3,), (2,))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("ij,jk->ki", ((2, 3), (3, 4))),
    ("ij,kj->ik", ((2, 3), (4, 3))),
    ("ij,ij->", ((2, 3), (2, 3))),
    ("ij,ij->i", ((2, 3), (2, 3))),
    ("ij,ij->ij", ((2, 3), (2, 3))),
    ("ij,ji->", ((2, 3), (3, 2))),
    ("ij,k->", ((2, 3), (4,))),
    ("ij,jk->", ((2, 3), (3, 4))),
    ("ij,ik->jk", ((2, 3), (2, 4))),
    ("ii,ij->j", ((3, 3), (3, 2))),
    ("ijj,jk->ik", ((2, 3, 3), (3, 4))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("bij,jk->bik", ((2, 3, 4), (4, 5))),
    ("bqhd,bkhd->bhqk", ((2, 3, 2, 4), (2, 5, 2, 4))),
    ("bhqk,bkhd->bqhd", ((2, 2, 3, 5), (2, 5, 2, 4))),
    ("abcd,cdef->abef", ((2, 3, 2, 2), (2, 2, 3, 2))),
    ("abc,cba->", ((2, 3, 4), (4, 3, 2))),
    ("abc,acd,ade->abe", ((2, 3, 4), (2, 4, 2), (2, 2, 3))),
    ("i,ij,j->", ((3,), (3, 4), (4,))),
    ("i,i,i->i", ((3,), (3,), (3,))),
    ("ij,jk,kl,lm->im", ((2, 3), (3, 2), (2, 4), (4, 2))),
    ("ab,bc,ca->", ((2, 3), (3, 4), (4, 2))),
    ("ij,ik,il->jkl", ((2, 3), (2, 4), (2, 5))),
    ("a,b,c->cab", ((2,), (3,), (4,))),
    ("...ij,...jk->...ik", ((5, 2, 3), (5, 3, 4))),
    ("...ij,...jk->...ik", ((1, 2, 3), (5, 3, 4))),
    ("...ij,...jk->...ik", ((2, 3), (5, 3, 4))),
    ("...ij,...jk", ((6, 1, 2, 3), (5, 3, 4))),
    ("...i,...i->...", ((2, 1, 3), (4, 3))),
    ("...i,i->...", ((2, 4, 3), (3,))),
    ("i...,i...->...", ((3, 2, 1), (3, 4))),
    ("...,...->...", ((2, 3), (3,))),
    ("...a,...b->ba...", ((2, 3), (1, 4))),
    ("b...,...->b...", ((2, 3), ())),
    ("ij,jk->ik", ((0, 3), (3, 2))),
    ("ij,jk->ik", ((2, 0), (0, 2))),
    ("ij->i", ((2, 0),)),
    ("ij,jk->ik", ((1, 1), (1, 1))),
]


@pytest.mark.parametrize(("subscripts", "shapes"), EINSUMS, ids=[f"{s} {k}" for k, (s, _) in enumerate(EINSUMS)])
def test_einsum(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    operands = [rng.normal(size=shape) for shape in shapes]
    assert_close(cr.einsum(subscripts, *operands), np.einsum(subscripts, *operands))
    whole = [rng.integers(-5, 5, shape).astype(np.int32) for shape in shapes]
    assert_close(cr.einsum(subscripts, *whole), np.einsum(subscripts, *whole))


@pytest.mark.parametrize(("subscripts", "shapes"), [e for e in EINSUMS if all(0 not in s for s in e[1])])
def test_derivatives_of_einsum(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    operands = [tensor(rng.normal(size=shape)) for shape in shapes]
    check_gradients(lambda *xs: cr.einsum(subscripts, *xs), *operands, order=2, directions=1)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_einsum_of_random_subscripts(data: st.DataObject) -> None:
    extents = {letter: n for n, letter in enumerate("abcd", start=1)}
    parts = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    wanted = data.draw(st.permutations(sorted(set("".join(parts)))))
    wanted = wanted[: data.draw(st.integers(0, len(wanted)))]
    subscripts = f"{','.join(parts)}->{''.join(wanted)}"
    operands = [rng.normal(size=tuple(extents[letter] for letter in part)) for part in parts]
    assert_close(cr.einsum(subscripts, *operands), np.einsum(subscripts, *operands), rtol=1e-10)


def test_einsum_promotes() -> None:
    a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.int32)
    assert cr.einsum("ij,jk", a, b).dtype == np.float32
    assert cr.einsum("ij,jk", a, b.astype(np.float64)).dtype == np.float64


a23, a33 = np.ones((2, 3)), np.ones((3, 3))


@pytest.mark.parametrize(
    ("subscripts", "operands", "error"),
    [
        ("ij,jk->ik", (a23,), ConfigError),
        ("ij->ik", (a23,), ConfigError),
        ("ij->ii", (a23,), ConfigError),
        ("i1->i", (a23,), ConfigError),
        ("i..j->i", (a23,), ConfigError),
        ("...i...->i", (a23,), ConfigError),
        ("ij->...i...j", (a23,), ConfigError),
        ("ij->i->j", (a23,), ConfigError),
        ("i->i", (a23,), ShapeError),
        ("ijk->i", (a23,), ShapeError),
        ("ii->i", (a23,), ShapeError),
        ("ij,jk->ik", (a23, a23), ShapeError),
        ("...,...->...", (a23, np.ones(2)), ShapeError),
        ("i->i", (np.array([True]),), DTypeError),
        ("", (), ConfigError),
    ],
)
def test_mistakes_in_einsum(subscripts: str, operands: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match="einsum"):
        cr.einsum(subscripts, *operands)


# -- tensordot, vecdot, outer, matmul


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((2, 3, 4), (3, 4, 5)), 2),
        (((2, 3), (3, 4)), 1),
        (((2, 3), (4, 5)), 0),
        (((2, 3), (2, 3)), 2),
        (((2, 3, 4), (4, 5, 2)), ([0, 2], [2, 0])),
        (((2, 3, 4), (4, 5, 2)), ((-1,), (0,))),
        (((2, 3, 4), (5, 4)), (2, 1)),
        (((2, 2), (2, 2)), ([0, 1], [1, 0])),
        (((0, 3), (3, 2)), 1),
    ],
)
def test_tensordot(shapes: Any, axes: Any) -> None:
    a, b = (rng.normal(size=shape) for shape in shapes)
    assert_close(cr.tensordot(a, b, axes=axes), np.tensordot(a, b, axes=axes))


@pytest.mark.parametrize(
    ("shape_a", "shape_b", "axis"),
    [((3,), (3,), -1), ((2, 3), (3,), -1), ((4, 1, 3), (2, 3), -1), ((2, 3), (4, 2, 3), -2)],
)
def test_vecdot(shape_a: Any, shape_b: Any, axis: int) -> None:
    a, b = rng.normal(size=shape_a), rng.normal(size=shape_b)
    assert_close(cr.vecdot(a, b, axis=axis), np.vecdot(a, b, axis=axis))


def test_products() -> None:
    a, b = rng.normal(size=3), rng.normal(size=4)
    assert_close(cr.outer(a, b), np.outer(a, b))
    stack = rng.normal(size=(2, 3, 4))
    assert_close(cr.matmul(stack, b), stack @ b)
    assert_close(cr.matmul(a, stack), a @ stack)
    assert_close(cr.matrix_transpose(stack), np.swapaxes(stack, -1, -2))


@pytest.mark.parametrize("offset", [-5, -2, -1, 0, 1, 2, 3, 9])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (5, 2, 3), (0, 3), (3, 0), (1, 1)])
def test_diagonal_and_trace(shape: tuple[int, ...], offset: int) -> None:
    x = rng.normal(size=shape)
    assert_close(cr.diagonal(x, offset=offset), np.linalg.diagonal(x, offset=offset))
    assert_close(cr.trace(x, offset=offset), np.linalg.trace(x, offset=offset))


# -- norms


@pytest.mark.parametrize("ord", [2, 1, INF, -INF, 0, 3, 1.5, -2])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), (2, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_vector_norm(ord: float, axis: Any, keepdims: bool) -> None:
    x = rng.normal(size=(2, 3, 4))
    expected = np.linalg.vector_norm(x, ord=ord, axis=axis, keepdims=keepdims)
    assert_close(cr.vector_norm(x, ord=ord, axis=axis, keepdims=keepdims), expected)


@pytest.mark.parametrize("ord", ["fro", 1, -1, INF, -INF])
@pytest.mark.parametrize("keepdims", [False, True])
def test_matrix_norm(ord: Any, keepdims: bool) -> None:
    x = rng.normal(size=(2, 3, 4))
    assert_close(cr.matrix_norm(x, ord=ord, keepdims=keepdims), np.linalg.matrix_norm(x, ord=ord, keepdims=keepdims))


@pytest.mark.parametrize(
    ("ord", "axis"),
    [(None, None), (None, 1), (None, (0, 2)), (1, 1), (3, -1), ("fro", (0, 1)), (1, (2, 0)), (INF, (0, 2))],
)
@pytest.mark.parametrize("keepdims", [False, True])
def test_norm(ord: Any, axis: Any, keepdims: bool) -> None:
    x = rng.normal(size=(2, 3, 4))
    assert_close(cr.norm(x, ord, axis, keepdims), np.linalg.norm(x, ord, axis, keepdims))


@pytest.mark.parametrize("ord", [2, 3, 1.5, 1, INF])
def test_the_norm_of_nothing_but_zeros_has_gradient_zero(ord: float) -> None:
    def f(x: Tensor) -> Tensor:
        return cr.sum(cr.vector_norm(x, axis=1, ord=ord))

    x = tensor(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 5.0]]))
    first = np.asarray(grad(f)(x))
    second = np.asarray(grad(lambda x: cr.sum(grad(f)(x) * tensor([1.0, 2.0])))(x))
    assert first[0].tolist() == [0, 0]
    assert second[0].tolist() == [0, 0]
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    assert np.any(first[1])
    assert first[2].tolist() == [0, 1]


@pytest.mark.parametrize("ord", [2, 3])
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
def test_norms_of_tiny_and_huge_numbers(ord: float, size: float) -> None:
    x = (np.array([3.0, -4.0, 0.0]) * size).astype(np.float32)
    expected = np.linalg.norm(x.astype(np.float64), ord)
    assert float(cr.vector_norm(tensor(x), ord=ord)) == pytest.approx(expected, rel=1e-6 if size > 1e-40 else 1e-3)
    g = np.asarray(grad(lambda x: cr.vector_norm(x, ord=ord))(tensor(x)))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(
        g, np.sign(wide) * (np.abs(wide) / expected) ** (ord - 1), rtol=1e-5 if size > 1e-40 else 1e-2
    )


def test_norms_of_infinities_nan_and_nothing() -> None:
    assert float(cr.norm(tensor([INF, 1.0]))) == INF
    assert math.isnan(float(cr.norm(tensor([math.nan, 1.0]))))
    assert float(cr.norm(np.zeros(0, np.float32))) == 0
    assert cr.vector_norm(np.zeros((2, 0)), axis=1).tolist() == [0, 0]
    assert cr.vector_norm(np.zeros((2, 0)), axis=0).shape == (0,)
    assert cr.norm(tensor([3, 4])).dtype == np.float32
    assert cr.norm(cr.full(100, 1000.0, dtypes.float16)).item() == 10000


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: cr.matmul(a23, a23), ShapeError),
        (lambda: cr.matmul(1.0, a23), ShapeError),
        (lambda: cr.matrix_transpose(np.ones(3)), ShapeError),
        (lambda: cr.outer(a23, a23), ShapeError),
        (lambda: cr.diagonal(np.ones(3)), ShapeError),
        (lambda: cr.trace(np.ones(3)), ShapeError),
        (lambda: cr.vecdot(a23, np.ones(2)), ShapeError),
        (lambda: cr.vecdot(a23, np.ones((4, 2, 3)), axis=0), ShapeError),
        (lambda: cr.vecdot(1.0, a23), ShapeError),
        (lambda: cr.tensordot(a23, a23, axes=1), ShapeError),
        (lambda: cr.tensordot(a23, a23, axes=3), ShapeError),
        (lambda: cr.tensordot(a23, a23, axes=([0, 1], [0])), ShapeError),
        (lambda: cr.tensordot(a23, a23, axes=([0, 0], [0, 0])), ShapeError),
        (lambda: cr.matrix_norm(np.ones(3)), ShapeError),
        (lambda: cr.matrix_norm(a23, ord=2), ConfigError),
        (lambda: cr.matrix_norm(a23, ord="nuc"), ConfigError),
        (lambda: cr.norm(np.ones((2, 2, 2)), ord=1), ShapeError),
        (lambda: cr.norm(a23, axis=2), ShapeError),
    ],
)
def test_mistakes(bad: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bad()
