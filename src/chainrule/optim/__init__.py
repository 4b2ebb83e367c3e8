"""Optimisers: rules that turn gradients into better parameters, and what goes with them.

    SGD, RMSprop, Adagrad, Adadelta, Lion, Adam, AdamW, Adamax, NAdam, RAdam, LBFGS    ready to use; PyTorch's arguments
    chain, accumulate, Composed, trace, scale_by_..., clip_by_...                      the parts that they are made of
    constant, linear, step, cosine, one_cycle, warmup, join, ...                       schedules, in the place of an lr
    clip_grad_norm, clip_grad_value, global_norm                                       clipping as functions
    EMA, ReduceOnPlateau                                                               beside the optimiser

`optimizer.update(model, grads)` makes a step with the gradients of `cr.value_and_grad`; `optimizer.step()` with those
that `loss.backward()` has left, as in PyTorch.
"""

from chainrule.optim.accumulation import accumulate
from chainrule.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from chainrule.optim.adaptive import scale_by_adam, scale_by_adamax, scale_by_nadam, scale_by_radam
from chainrule.optim.algorithms import SGD, Adadelta, Adagrad, Lion, RMSprop
from chainrule.optim.chaining import Composed, chain
from chainrule.optim.clipping import clip_by_global_norm, clip_by_value, clip_grad_norm, clip_grad_value, global_norm
from chainrule.optim.ema import EMA
from chainrule.optim.lbfgs import LBFGS
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.plateau import ReduceOnPlateau
from chainrule.optim.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential,
    join,
    linear,
    multistep,
    one_cycle,
    polynomial,
    step,
    warmup,
)
from chainrule.optim.transform import Transform
from chainrule.optim.transforms import (
    add_decayed_weights,
    scale,
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_rms,
    trace,
)

__all__ = [  # noqa: RUF022  (plain alphabetical order)
    "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Composed", "EMA", "LBFGS", "Lion", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "ReduceOnPlateau", "SGD", "Schedule", "Transform", "accumulate", "add_decayed_weights",
    "chain", "clip_by_global_norm", "clip_by_value", "clip_grad_norm", "clip_grad_value", "constant", "cosine",
    "cosine_restarts", "exponential", "global_norm", "join", "linear", "multistep", "one_cycle", "polynomial",
    "scale", "scale_by_adadelta", "scale_by_adagrad", "scale_by_adam", "scale_by_adamax",
    "scale_by_learning_rate", "scale_by_lion", "scale_by_nadam", "scale_by_radam", "scale_by_rms", "step",
    "trace", "warmup",
]  # fmt: skip
