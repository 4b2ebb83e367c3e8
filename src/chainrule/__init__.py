"""chainrule trains neural networks by backpropagation, and shows how they learn.

    import chainrule as cr
    from chainrule import losses, nn, optim

    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    run = cr.fit(model, (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=1e-3), epochs=20, seed=0)

Array functions follow the Python Array API standard; layers, losses and optimisers follow PyTorch.
"""

from importlib import import_module
from math import e, inf, nan, pi
from typing import TYPE_CHECKING, Any

from chainrule import data, dtypes, errors, losses, nn, optim, random
from chainrule.compile import compile, trace_program
from chainrule.core.autodiff import grad, jvp, stop_gradient, value_and_grad, vjp
from chainrule.core.check import check_gradients
from chainrule.core.tensor import Tensor, tensor
from chainrule.dtypes import bfloat16, float16, float32, float64, int32, int64, uint8, uint32
from chainrule.dtypes import bool_ as bool
from chainrule.functions import *
from chainrule.version import __version__

if TYPE_CHECKING:
    from chainrule import train
    from chainrule.train import metrics, stop
    from chainrule.train.find_lr import find_lr
    from chainrule.train.fit import evaluate, fit
    from chainrule.train.resume import resume

newaxis = None

__all__ = [
    "Tensor",
    "__version__",
    "abs",
    "acos",
    "acosh",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "batch_norm",
    "bfloat16",
    "bilinear",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bool",
    "broadcast_arrays",
    "broadcast_to",
    "ceil",
    "celu",
    "check_gradients",
    "checkpoint",
    "clip",
    "compile",
    "concat",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "custom_vjp",
    "data",
    "diagonal",
    "diff",
    "divide",
    "dropout",
    "dtypes",
    "e",
    "einsum",
    "elu",
    "embedding",
    "empty",
    "empty_like",
    "equal",
    "errors",
    "evaluate",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "find_lr",
    "fit",
    "flip",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_dlpack",
    "full",
    "full_like",
    "gelu",
    "grad",
    "greater",
    "greater_equal",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hessian",
    "hypot",
    "inf",
    "instance_norm",
    "int32",
    "int64",
    "isfinite",
    "isinf",
    "isnan",
    "jacobian",
    "jvp",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "losses",
    "matmul",
    "matrix_norm",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "meshgrid",
    "metrics",
    "min",
    "minimum",
    "mish",
    "moveaxis",
    "multiply",
    "nan",
    "negative",
    "newaxis",
    "nextafter",
    "nn",
    "nonzero",
    "norm",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "optim",
    "outer",
    "pad",
    "permute_dims",
    "pi",
    "positive",
    "pow",
    "prod",
    "random",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "repeat",
    "reshape",
    "resume",
    "rms_norm",
    "roll",
    "round",
    "scatter_add",
    "searchsorted",
    "selu",
    "sigmoid",
    "sign",
    "signbit",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "sort",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "stop",
    "stop_gradient",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensor",
    "tensordot",
    "tile",
    "trace",
    "trace_program",
    "train",
    "tril",
    "triu",
    "trunc",
    "uint8",
    "uint32",
    "unstack",
    "value_and_grad",
    "var",
    "vecdot",
    "vector_norm",
    "vjp",
    "where",
    "zeros",
    "zeros_like",
]

_TRAINING = ("evaluate", "find_lr", "fit", "metrics", "resume", "stop")


def __getattr__(name: str) -> Any:
    """Training loads when it is first asked for: it brings a database and more, of no use to array functions."""
    if name == "train":
        return import_module("chainrule.train")
    if name in _TRAINING:
        return getattr(import_module("chainrule.train"), name)
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
