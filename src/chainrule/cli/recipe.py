"""From options to what `fit` takes: the loss, the optimiser with its schedule, the rules for stopping, the metrics."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chainrule import losses, optim
from chainrule.cli.checks import seconds
from chainrule.cli.options import (
    CLASS_LOSSES,
    CLASS_METRICS,
    VALUE_LOSSES,
    VALUE_METRICS,
    TrainingOptions,
)
from chainrule.data.findings import counted
from chainrule.data.shipped import Task
from chainrule.errors import ConfigError
from chainrule.train import stop
from chainrule.train.callbacks import Callback
from chainrule.train.tensorboard import TensorBoard

LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": losses.cross_entropy, "multi_margin": losses.multi_margin, "mse": losses.mse, "l1": losses.l1,
    "huber": losses.huber, "smooth_l1": losses.smooth_l1,
}  # fmt: skip

OPTIMIZERS: dict[str, tuple[str, Callable[..., optim.Optimizer], float]] = {
    "adam": ("Adam", optim.Adam, 0.003),
    "adamw": ("AdamW", optim.AdamW, 0.003),
    "nadam": ("NAdam", optim.NAdam, 0.003),
    "radam": ("RAdam", optim.RAdam, 0.003),
    "adamax": ("Adamax", optim.Adamax, 0.005),
    "sgd": ("SGD", optim.SGD, 0.05),
    "rmsprop": ("RMSprop", optim.RMSprop, 0.001),
    "adagrad": ("Adagrad", optim.Adagrad, 0.03),
    "adadelta": ("Adadelta", optim.Adadelta, 1.0),
    "lion": ("Lion", optim.Lion, 0.0005),
    "lbfgs": ("L-BFGS", functools.partial(optim.LBFGS, line_search_fn="strong_wolfe"), 1.0),
}
"""What each is called, how it is made, and its learning rate when none is asked for."""

ADAPTIVE = ("adam", "adamw", "nadam", "radam", "adamax", "lion")
"""Optimisers whose steps do not shrink with the gradient: networks with convolutions get a third of their rate."""

NEVER = 1_000_000_000
"""A patience that no training exhausts."""

WITH_MOMENTUM = ("sgd", "rmsprop")

FEW_ROWS = 1000
"""Below this many training rows a batch has 32 rows, so that an epoch has some steps, and AdamW decays strongly."""


@dataclass(frozen=True)
class Recipe:
    """The options of training with nothing left open."""

    options: TrainingOptions
    task: Task
    rows: int  # of the training part
    has_validation: bool
    batch_norm: bool
    convolves: bool = False

    def check(self) -> None:
        """Raise ConfigError for options that do not go together, before anything is begun."""
        o = self.options
        self.loss_function(), self.metrics(), self.learning_rate()
        if o.class_weight == "balanced" and self.task == "regression":
            raise ConfigError("--class-weight balanced needs classes, but the target is an amount.")
        if o.optimizer == "lbfgs" and (o.weight_decay or o.schedule != "constant" or o.warmup or o.clip_norm):
            without = "--schedule, --warmup, --weight-decay and --clip-norm"
            raise ConfigError(f"--optimizer lbfgs finds its own steps, which {without} would disturb: leave them out.")
        if self.batch_norm and self.batch_size == 1:
            raise ConfigError(
                "--norm batch needs batches of two rows or more. Try --norm layer, or a larger --batch-size."
            )

    @property
    def batch_size(self) -> int:
        """Rows a step. L-BFGS measures along a line, which needs the same rows every time: all of them."""
        size = self.options.batch_size
        if size is None:
            size = self.rows if self.options.optimizer == "lbfgs" else 32 if self.rows < FEW_ROWS else 64
        size = min(size, self.rows)
        while self.batch_norm and 1 < size < self.rows and self.rows % size == 1:
            size += 1  # a last batch of a single row has no variance to normalise by
        return size

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch; the last batch may be a smaller one."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def lr(self) -> float:
        """The learning rate at the beginning (after the warm-up)."""
        if self.options.lr is not None:
            return self.options.lr
        usual = OPTIMIZERS[self.options.optimizer][2]
        return usual / 3 if self.convolves and self.options.optimizer in ADAPTIVE else usual

    @property
    def loss(self) -> str:
        """The name of the loss. Raises ConfigError for one that does not fit the task."""
        fitting = VALUE_LOSSES if self.task == "regression" else CLASS_LOSSES
        name = self.options.loss or fitting[0]
        if name not in fitting:
            raise ConfigError(f"--loss {name} does not fit a {self.task} task. Fitting: {', '.join(fitting)}.")
        return name

    @property
    def label_smoothing(self) -> float:
        """The share of the truth that is spread over all classes."""
        asked = self.options.label_smoothing
        if self.loss == "cross_entropy":
            return 0.05 if asked is None else asked
        if asked:
            raise ConfigError(f"--label-smoothing goes with the loss cross_entropy, not with {self.loss}.")
        return 0.0

    @property
    def weight_decay(self) -> float:
        """How strongly weights are pulled to 0; for AdamW the share of the learning rate by which they shrink."""
        if self.options.weight_decay is not None:
            return self.options.weight_decay
        if self.options.optimizer != "adamw":
            return 0.0
        return 1.0 if self.rows < FEW_ROWS else 0.01

    def loss_function(self) -> Callable[..., Any]:
        """The loss itself."""
        if self.label_smoothing:
            return functools.partial(losses.cross_entropy, label_smoothing=self.label_smoothing)
        return LOSSES[self.loss]

    def optimizer(self) -> optim.Optimizer:
        """A fresh optimiser."""
        name = self.options.optimizer
        make = OPTIMIZERS[name][1]
        settings: dict[str, Any] = {"lr": self.learning_rate()}
        if name in WITH_MOMENTUM:
            settings["momentum"] = self.options.momentum
        if name != "lbfgs":
            settings["weight_decay"] = self.weight_decay
        return make(**settings)

    def learning_rate(self) -> Any:
        """A number, or a schedule over the steps of all epochs."""
        total = self.options.epochs * self.steps_per_epoch
        rise = round(self.options.warmup * self.steps_per_epoch)
        if rise >= total:
            raise ConfigError(f"--warmup {self.options.warmup:g} is not shorter than --epochs {self.options.epochs}.")
        rest, lr = total - rise, self.lr
        after: Any = lr
        match self.options.schedule:
            case "cosine":
                after = optim.cosine(lr, T_max=rest)
            case "cosine_restarts":
                after = optim.cosine_restarts(lr, T_0=max(1, rest // 15), T_mult=2)  # 1 + 2 + 4 + 8: four cycles
            case "linear":
                after = optim.linear(lr, total_iters=rest, start_factor=1.0, end_factor=0.0)
            case "polynomial":
                after = optim.polynomial(lr, total_iters=rest, power=2.0)
            case "exponential":
                after = optim.exponential(lr, gamma=0.01 ** (1 / rest))  # a hundredth at the end
            case "step":
                after = optim.step(lr, step_size=max(1, rest // 3), gamma=0.1)
            case "one_cycle":
                after = optim.one_cycle(lr, total_steps=max(2, rest))
        return optim.warmup(rise, then=after) if rise else after

    def stop(self) -> list[stop.Rule]:
        """The rules for stopping."""
        rules: list[stop.Rule] = []
        if self.options.patience:
            rules.append(stop.plateau(self.options.patience, self.options.min_delta))
        if self.options.stop_loss is not None:
            rules.append(stop.threshold(self.options.stop_loss))
        if self.options.time_limit is not None:
            rules.append(stop.time(seconds(self.options.time_limit)))
        return rules

    def schedule(self, optimizer: optim.Optimizer) -> optim.ReduceOnPlateau | None:
        """What lowers the learning rate from outside when the validation loss no longer falls, if asked for."""
        if self.options.schedule != "plateau":
            return None
        return optim.ReduceOnPlateau(optimizer, factor=0.5, patience=max(1, (self.options.patience or 10) // 2 - 1))

    def callbacks(self) -> list[Callback]:
        """What runs along: files for TensorBoard, where they were asked for."""
        folder = self.options.tensorboard
        return [] if folder is None else [TensorBoard(folder)]

    def ema(self) -> optim.EMA | None:
        """The running average of the weights, if one was asked for."""
        return None if self.options.ema is None else optim.EMA(decay=self.options.ema)

    def metrics(self) -> list[str]:
        """The metrics of each epoch: the task's own, and those asked for. ConfigError for one that does not fit."""
        own = "r2" if self.task == "regression" else "accuracy"
        fitting: tuple[str, ...] = VALUE_METRICS if self.task == "regression" else CLASS_METRICS
        if self.task != "binary":
            fitting = tuple(name for name in fitting if name != "auc")
        for name in self.options.metric:
            if name not in fitting:
                raise ConfigError(f"--metric {name} does not fit a {self.task} task. Fitting: {', '.join(fitting)}.")
        return list(dict.fromkeys([own, *self.options.metric]))

    def line(self) -> str:
        """The training in one line: `Adam 0.003, batch 64, stop on plateau (10 epochs)`."""
        o = self.options
        parts = [f"{OPTIMIZERS[o.optimizer][0]} {self.lr:g}"]
        if o.schedule != "constant":
            parts[0] += f" ({o.schedule.replace('_', ' ')})"
        if o.warmup:
            parts.append(f"warm-up {o.warmup:g} epochs")
        if self.weight_decay:
            parts.append(f"weight decay {self.weight_decay:g}")
        if self.label_smoothing:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        if o.clip_norm is not None:
            parts.append(f"gradients clipped at {o.clip_norm:g}")
        if o.ema is not None:
            parts.append(f"weights averaged ({o.ema:g})")
        if o.class_weight == "balanced":
            parts.append("classes balanced")
        parts += [f"batch {self.batch_size:,}", f"at most {counted(o.epochs, 'epoch')}"]
        if o.patience and o.patience != NEVER:
            parts.append(
                f"stop on plateau ({o.patience} epochs{'' if self.has_validation else ', of the training loss'})"
            )
        if o.stop_loss is not None:
            parts.append(f"or loss {o.stop_loss:g}")
        if o.time_limit is not None:
            parts.append(f"or after {o.time_limit}")
        return ", ".join(parts)
