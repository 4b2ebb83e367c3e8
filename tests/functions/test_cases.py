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
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "alibi",
    "alpha_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "bilinear", "celu",
    "channel_shuffle", "checkpoint", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "custom_vjp", "dropout", "dropout1d", "dropout2d", "dropout3d", "elu", "embedding",
    "feature_alpha_dropout", "fold", "gelu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "hessian",
    "instance_norm", "interpolate", "jacobian", "layer_norm", "leaky_relu", "linear", "local_response_norm",
    "log_sigmoid", "log_softmax", "logsumexp", "max_pool1d", "max_pool2d", "max_pool3d", "mish", "one_hot",
    "pixel_shuffle", "pixel_unshuffle", "relu", "relu6", "rms_norm", "rotary_encoding", "scaled_dot_product_attention",
    "selu", "sigmoid", "silu", "sinusoidal_encoding", "softmax", "softplus", "unfold",
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
