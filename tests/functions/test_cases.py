"""What holds for every function: its derivatives are right, and tracing it changes nothing."""

from typing import Any

import numpy as np
import pytest
from tests.functions.cases import CASES, Case

import chainrule.functions as functions
from chainrule import tree
from chainrule.compile import compile
from chainrule.core.check import check_gradients
from chainrule.core.tensor import tensor

WITHOUT_INPUTS = {"arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "ones", "zeros"}
NEED_VALUES = {"nonzero"}
ELSEWHERE = {  # tested with the networks' functions, the derivatives and the rules of one's own
    "batch_norm", "bilinear", "celu", "checkpoint", "custom_vjp", "dropout", "elu", "embedding", "gelu", "group_norm",
    "hardsigmoid", "hardswish", "hardtanh", "hessian", "instance_norm", "jacobian", "layer_norm", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "logsumexp", "mish", "one_hot", "relu", "relu6", "rms_norm", "selu",
    "sigmoid", "silu", "softmax", "softplus",
}  # fmt: skip


def leaves(result: Any) -> list[np.ndarray]:
    return [np.asarray(leaf.value) for leaf in tree.flatten(result).leaves]


def test_every_function_has_a_case() -> None:
    covered = {word for case in CASES for word in case.name.split()}
    assert set(functions.__all__) - covered - WITHOUT_INPUTS - NEED_VALUES - ELSEWHERE == set()


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth], ids=lambda c: c.name)
def test_derivatives_of_order_one_and_two(case: Case) -> None:
    check_gradients(case.function, *[tensor(x) for x in case.inputs], order=2)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_tracing_changes_no_bit(case: Case) -> None:
    inputs = [tensor(x) for x in case.inputs]
    eager = leaves(case.function(*inputs))
    traced = leaves(compile(case.function, engine="reference")(*inputs))
    assert len(eager) == len(traced)
    for a, b in zip(eager, traced, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth], ids=lambda c: c.name)
def test_float32_stays_float32(case: Case) -> None:
    inputs = [tensor(x.astype(np.float32) if x.dtype == np.float64 else x) for x in case.inputs]
    expected = leaves(case.function(*[tensor(x) for x in case.inputs]))
    for y, wanted in zip(leaves(case.function(*inputs)), expected, strict=True):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, wanted, rtol=2e-4, atol=1e-5)
