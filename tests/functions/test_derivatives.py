"""jacobian and hessian: shapes, values, trees, nesting."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule.functions as cr
from chainrule import tree
from chainrule.compile import compile
from chainrule.core.autodiff import grad, jvp, vjp
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import GradientError
from chainrule.functions import hessian, jacobian

rng = np.random.default_rng(5)


def test_the_jacobian_of_a_linear_map_is_its_matrix() -> None:
    matrix = rng.normal(size=(3, 4))
    j = jacobian(lambda x: cr.matmul(matrix, x))(tensor(rng.normal(size=4)))
    np.testing.assert_array_equal(np.asarray(j), matrix)


def test_shapes_are_those_of_the_result_and_the_argument() -> None:
    x = tensor(rng.normal(size=(2, 3)))
    assert jacobian(lambda x: cr.sum(x, axis=1))(x).shape == (2, 2, 3)
    assert jacobian(cr.sum)(x).shape == (2, 3)
    assert jacobian(lambda x: x * 2)(tensor(1.0)).shape == ()
    assert jacobian(lambda x: x[:0])(x).shape == (0, 3, 2, 3)
    assert jacobian(lambda x: cr.exp(x))(tensor(np.zeros((0, 2)))).shape == (0, 2, 0, 2)
    assert hessian(cr.sum)(x).shape == (2, 3, 2, 3)


def test_the_hessian_of_a_quadratic_form() -> None:
    matrix = rng.normal(size=(4, 4))
    h = hessian(lambda x: cr.einsum("i,ij,j", x, matrix, x))(tensor(rng.normal(size=4)))
    np.testing.assert_allclose(np.asarray(h), matrix + matrix.T, rtol=1e-13)


def test_the_hessian_of_a_product_of_functions() -> None:
    x = rng.normal(size=3)
    h = hessian(lambda x: cr.sin(x[0]) * cr.exp(x[1]) * x[2])(tensor(x))
    s, c, e = np.sin(x[0]), np.cos(x[0]), np.exp(x[1])
    expected = [[-s * e * x[2], c * e * x[2], c * e], [c * e * x[2], s * e * x[2], s * e], [c * e, s * e, 0]]
    np.testing.assert_allclose(np.asarray(h), expected, rtol=1e-12)


def test_rows_are_vjps_and_columns_are_jvps() -> None:
    def f(x: Tensor) -> Tensor:
        return cr.tanh(cr.matmul(x, matrix)) * cr.sum(x)

    matrix, x = tensor(rng.normal(size=(3, 2))), tensor(rng.normal(size=3))
    j = np.asarray(jacobian(f)(x))
    for i, unit in enumerate(np.eye(2)):
        np.testing.assert_allclose(np.asarray(vjp(f, x)[1](tensor(unit))[0]), j[i], rtol=1e-13)
    for k, unit in enumerate(np.eye(3)):
        np.testing.assert_allclose(np.asarray(jvp(f, (x,), (tensor(unit),))[1]), j[:, k], rtol=1e-13)


@dataclass
class Point:
    x: Any
    y: Any


def test_trees_of_arguments_and_results() -> None:
    def f(p: Point) -> dict[str, Any]:
        return {"sum": p.x + cr.sum(p.y), "list": [p.y * p.x, 3]}

    j = jacobian(f)(Point(tensor(2.0), tensor([1.0, 3.0])))
    assert j["sum"].x.item() == 1
    assert j["sum"].y.tolist() == [1, 1]
    assert j["list"][0].x.tolist() == [1, 3]
    assert j["list"][0].y.tolist() == [[2, 0], [0, 2]]
    assert j["list"][1] == 3


def test_several_arguments() -> None:
    def f(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    a, b = tensor([1.0, 2.0]), tensor([5.0, 7.0])
    da, db = jacobian(f, argnums=(0, 1))(a, b)
    assert da.tolist() == [[5, 0], [0, 7]]
    assert db.tolist() == [[1, 0], [0, 2]]
    assert jacobian(f, argnums=1)(a, b).tolist() == [[1, 0], [0, 2]]
    h = hessian(lambda a, b: cr.sum(a * a * b), argnums=(0, 1))(a, b)
    assert h[0][0].tolist() == [[10, 0], [0, 14]]
    assert h[0][1].tolist() == h[1][0].tolist() == [[2, 0], [0, 4]]
    assert h[1][1].tolist() == [[0, 0], [0, 0]]


def test_integers_have_no_derivatives() -> None:
    j = jacobian(lambda p: cr.take(p["x"], p["i"]))({"x": tensor([1.0, 2.0]), "i": tensor([1])})
    assert j["i"] is None
    assert j["x"].tolist() == [[0, 1]]


class Layer(tree.Stateful):
    def __init__(self) -> None:
        self.weight = tensor([2.0, 3.0])
        self.calls = tensor(0)

    def role(self, name: str) -> tree.Role:
        return "parameter" if name == "weight" else "state"

    def __call__(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return cr.sum(self.weight * self.weight * x)


def test_derivatives_by_the_parameters_of_a_stateful_object() -> None:
    layer = Layer()
    assert jacobian(lambda m: m(tensor([1.0, 10.0])))(layer)["weight"].tolist() == [4, 60]
    assert layer.calls.item() == 1
    h = hessian(lambda m: m(tensor([1.0, 10.0])))(layer)
    assert h["weight"]["weight"].tolist() == [[2, 0], [0, 20]]


def test_nesting() -> None:
    third = jacobian(hessian(lambda x: cr.sum(x**3)))(tensor([1.0, 2.0]))
    assert third.shape == (2, 2, 2)
    assert third[0, 0].tolist() == [6, 0]
    assert third[1, 1].tolist() == [0, 6]
    of_trace = grad(lambda x: cr.trace(jacobian(lambda y: y * y * y)(x)))(tensor([1.0, 2.0]))
    assert of_trace.tolist() == [6, 12]


def test_a_jacobian_can_be_compiled() -> None:
    x = tensor(rng.normal(size=3))
    f = jacobian(lambda x: cr.sin(x) * cr.sum(x))
    np.testing.assert_allclose(np.asarray(compile(f)(x)), np.asarray(f(x)), rtol=1e-14)


def test_what_has_no_jacobian() -> None:
    with pytest.raises(GradientError, match="floating"):
        jacobian(lambda x: cr.argmax(x))(tensor([1.0]))
    with pytest.raises(GradientError):
        hessian(lambda x: x)(tensor([1.0, 2.0]))
    with pytest.raises(GradientError):
        jacobian(lambda x: x, argnums=1)(tensor([1.0]))
