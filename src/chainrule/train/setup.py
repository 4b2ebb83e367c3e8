"""From the arguments of `fit` to a checked Setup. Whatever can be wrong is found here, before the first step."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.compile import trace_program
from chainrule.errors import ConfigError, ShapeError
from chainrule.nn import Module
from chainrule.optim import EMA, LBFGS, Optimizer, ReduceOnPlateau
from chainrule.optim.optimizer import Binding
from chainrule.train import progress, progress_rich
from chainrule.train.batches import Data, read
from chainrule.train.callbacks import Callback
from chainrule.train.criterion import check_loss, class_weights, criterion, takes_probabilities, with_class_weights
from chainrule.train.loop import Setup
from chainrule.train.metrics import Metric
from chainrule.train.metrics.choice import as_metrics
from chainrule.train.recorder import Every, Recorder
from chainrule.train.rules import AnyOf, Modes, as_rules
from chainrule.train.rules import epochs as epoch_limit
from chainrule.train.settings import Settings
from chainrule.train.steps import Steps


def check_model(model: Any) -> Module:
    """The model, if it is one; ConfigError otherwise."""
    if isinstance(model, type) and issubclass(model, Module):
        raise ConfigError(f"model is the class {model.__name__}; give an object of it: {model.__name__}(...).")
    if not isinstance(model, Module):
        raise ConfigError(
            f"model is of type {type(model).__name__}; an nn.Module was expected, such as nn.Sequential(...)."
        )
    return model


def float_dtype(model: Module) -> dtypes.DType:
    """The dtype in which a model computes: data are given to it in this one."""
    found = [leaf.value.dtype for leaf in tree.flatten(model).leaves if leaf.role in ("parameter", "frozen")]
    floats = [dtypes.as_dtype(dtype) for dtype in found if dtypes.is_float(dtype)]
    return dtypes.promote(*floats) if floats else dtypes.default_float


def find_progress(wanted: Any) -> progress.Progress:
    """The display for a name or an object; 'auto' is a bar on a terminal, and lines elsewhere."""
    if wanted == "auto":
        wanted = "rich" if progress.on_terminal() else "plain"
    return progress_rich.RichProgress() if wanted == "rich" else progress.find(wanted)


def check_optimizer(optimizer: Any, model: Module, clip_norm: Any) -> Optimizer:
    """The optimiser with its state made for the model; ConfigError where they do not go together."""
    if isinstance(optimizer, type):
        raise ConfigError(
            f"optimizer is the class {optimizer.__name__}; give an object of it: {optimizer.__name__}(...)."
        )
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer={optimizer!r:.80} is no optimiser. Try optim.Adam(lr=1e-3).")
    bound = optimizer.binding.model
    if bound is not None and bound is not model:
        raise ConfigError(
            f"This {type(optimizer).__name__} was made for another model. Make one for this model, or leave "
            f"the model out: {type(optimizer).__name__}(lr=...)."
        )
    if isinstance(optimizer, LBFGS):
        if clip_norm is not None:
            raise ConfigError(
                "LBFGS searches along a line, which clipped gradients would mislead: leave clip_norm out."
            )
        if bound is None:
            optimizer.binding = Binding(model)
        if optimizer.state is None:
            optimizer.init(model)
    else:
        optimizer.prepare([model])
    return optimizer


def apply_schedule(optimizer: Optimizer, schedule: Any) -> ReduceOnPlateau | None:
    """Give the optimiser a schedule, or return the object that lowers its rate from outside."""
    if schedule is None:
        return None
    if isinstance(schedule, ReduceOnPlateau):
        if schedule.optimizer is not optimizer:
            raise ConfigError(
                "This ReduceOnPlateau lowers the rate of another optimiser. Make it with the one given to fit."
            )
        return schedule
    if not callable(schedule):
        raise ConfigError(
            f"schedule={schedule!r:.80} is none. Try optim.cosine(1e-3, T_max=steps), a function from the step "
            "to the rate, or optim.ReduceOnPlateau(optimizer)."
        )
    optimizer.lr = schedule
    return None


def check_data(data: Any, validation: Any, sample_weight: Any, class_weight: Any) -> tuple[Data, Data | None]:
    """Both sets of data, with the weights of their rows."""
    train = read(data, "data", sample_weight)
    weights = class_weights(class_weight, train)
    train = with_class_weights(train, weights, "data")
    if validation is None:
        return train, None
    held_out = with_class_weights(read(validation, "validation"), weights, "validation")
    if (train.y is None) != (held_out.y is None):
        raise ConfigError(
            f"{'validation' if train.y is None else 'data'} has targets, the other has none. Give both the same "
            "structure, (x, y)."
        )
    shapes = [[leaf.value.shape[1:] for leaf in tree.flatten([d.x, d.y]).leaves] for d in (train, held_out)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"The rows of data have the shapes {shapes[0]}, those of validation {shapes[1]}; they must be alike."
        )
    return train, held_out


def modes_of(metrics: Sequence[Metric], validated: bool) -> Modes:
    """What can be monitored."""
    own = {"loss": "min"} | {metric.name: metric.mode for metric in metrics}
    held_out = {f"validation_{name}": mode for name, mode in own.items()} if validated else {}
    return Modes(own | held_out, "validation_loss" if validated else "loss")  # type: ignore[arg-type]


def make_setup(
    model: Any, data: Any, *, loss: Any, optimizer: Any, validation: Any = None, metrics: Any = (), stop: Any = None,
    schedule: Any = None, callbacks: Any = (), sample_weight: Any = None, ema: Any = None, progress: Any = "auto",
    settings: Settings,
) -> Setup:  # fmt: skip
    """Everything checked and put together; see `fit` for the arguments. The optimiser gets its state here."""
    model = check_model(model)
    rules = [copy.deepcopy(rule) for rule in as_rules(stop)]
    if settings.epochs is None and not rules:
        raise ConfigError("Nothing says when to stop. Give epochs=20, or stop=cr.stop.plateau(patience=10), or both.")
    if settings.epochs is not None:
        rules.append(epoch_limit(settings.epochs))
    train, held_out = check_data(data, validation, sample_weight, settings.class_weight)
    weighted = train.weight is not None or (held_out is not None and held_out.weight is not None)
    objective = criterion(check_loss(loss), weighted)
    measured = as_metrics(metrics, takes_probabilities(loss))
    modes = modes_of(measured, held_out is not None)
    name, mode = modes.of(settings.monitor)
    for rule in rules:
        rule.bind(modes)
    optimizer = check_optimizer(optimizer, model, settings.clip_norm)
    plateau = apply_schedule(optimizer, schedule)
    if plateau is not None and plateau.mode != mode:
        raise ConfigError(
            f"ReduceOnPlateau has mode={plateau.mode!r}, but of {name}, which is monitored, the best is the "
            f"{mode}. Give mode={mode!r}, or another monitor."
        )
    if ema is not None and not isinstance(ema, EMA):
        raise ConfigError(f"ema={ema!r:.80} is none: try optim.EMA(decay=0.999).")
    if ema is not None and ema.state is None:
        ema.init(model)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(f"{callback!r:.80} is no callback: derive it from cr.train.Callback.")
    setup = Setup(
        model=model, optimizer=optimizer, data=train, validation=held_out, loss=loss,
        steps=Steps(
            objective, settings.engine, settings.clip_norm, bool(measured), settings.threads, settings.precision,
        ),
        metrics=measured, rules=AnyOf(rules), dtype=float_dtype(model), monitor=name, mode=mode, ema=ema,
        plateau=plateau, callbacks=list(callbacks), progress=find_progress(progress), settings=settings,
        recorder=Recorder(Every.of(settings.checkpoint_every)),
    )  # fmt: skip
    check_last_batch(setup)
    return setup


def check_last_batch(setup: Setup) -> None:
    """A last batch of one row is tried now, not when an epoch ends: batch normalisation has no variance there."""
    rows, size = setup.data.rows, setup.settings.batch_size
    if rows == 1 or rows % size != 1 % size:
        return
    one = setup.data.gather(np.arange(1), setup.dtype)
    setup.model.train()
    try:
        trace_program(setup.steps.objective, setup.model, one.x, one.y, one.weight)
    except ShapeError as error:
        raise ConfigError(
            f"{rows} rows in batches of {size} leave a last batch of a single row, and the model cannot train on one: "
            f"{error} Try batch_size={next(n for n in range(size + 1, rows + 1) if rows % n != 1)}."
        ) from error
