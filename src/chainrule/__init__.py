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
from chainrule.functions import *  # noqa: F403  (its __all__ is exact, and tested)
from chainrule.functions import __all__ as _functions
from chainrule.version import __version__

if TYPE_CHECKING:
    from chainrule import train
    from chainrule.train import metrics, stop
    from chainrule.train.find_lr import find_lr
    from chainrule.train.fit import evaluate, fit
    from chainrule.train.resume import resume

newaxis = None

__all__ = sorted(
    [
        "Tensor", "bfloat16", "bool", "check_gradients", "compile", "data", "dtypes", "e", "errors", "evaluate",
        "find_lr", "fit", "float16", "float32", "float64", "grad", "inf", "int32", "int64", "jvp", "losses", "metrics",
        "nan", "newaxis", "nn", "optim", "pi", "random", "resume", "stop", "stop_gradient", "tensor", "trace_program",
        "train", "uint8", "uint32", "value_and_grad", "vjp", "__version__", *_functions,
    ]
)  # fmt: skip

_TRAINING = ("evaluate", "find_lr", "fit", "metrics", "resume", "stop")


def __getattr__(name: str) -> Any:
    """Training loads when it is first asked for: it brings a database and more, which an array function has no use for."""
    if name == "train":
        return import_module("chainrule.train")
    if name in _TRAINING:
        return getattr(import_module("chainrule.train"), name)
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
