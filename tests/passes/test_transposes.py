"""(A · B)ᵀ = Bᵀ · Aᵀ."""

from tests.passes.programs import assert_keeps, names, real

from chainrule.passes.dead import dead
from chainrule.passes.transposes import transposes
from chainrule.primitives import contract, layout

A, B = real(5, 4, dtype="float64"), real(4, 3, dtype="float64")


def turned(f, *inputs):
    return names(dead(assert_keeps(transposes, f, *inputs, exact=False)))


def test_a_product_that_is_only_read_transposed_is_turned():
    assert turned(lambda a, b: contract.matmul(a, b).T, A, B) == ["transpose", "transpose", "matmul"]


def test_what_is_transposed_already_is_read_as_it_is():
    assert turned(lambda a, b: contract.matmul(b.T, a.T).T, A, B) == ["matmul"]


def test_a_product_with_other_readers_stays():
    f = lambda a, b: (lambda y: [y, y.T])(contract.matmul(a, b))
    assert turned(f, A, B) == ["matmul", "transpose"]


def test_stacks_are_turned_matrix_by_matrix():
    a, b = real(2, 5, 4, dtype="float64"), real(2, 4, 3, dtype="float64")
    f = lambda axes: lambda a, b: layout.transpose(contract.matmul(a, b), axes=axes)
    assert turned(f((0, 2, 1)), a, b) == ["transpose", "transpose", "matmul"]
    assert turned(f((1, 0, 2)), a, b) == ["matmul", "transpose"]
