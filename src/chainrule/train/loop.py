"""The training loop. All of its state stands in a `Position`, the tensors of the model, and those of the optimiser.

What happens next is a function of that state and of the data alone, never of the clock (a time limit excepted): so a
run that was killed goes on from its last checkpoint to the same bits.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ConfigError, Diverged, IndexOutOfRange
from chainrule.nn import Module
from chainrule.optim import EMA, Optimizer, ReduceOnPlateau
from chainrule.train.batches import Batch, Data, row_order
from chainrule.train.callbacks import Callback
from chainrule.train.divergence import TrainingDiverged, diverged, gradients_of
from chainrule.train.history import History
from chainrule.train.interrupts import Signals
from chainrule.train.metrics import Metric
from chainrule.train.progress import Progress, Standing
from chainrule.train.recorder import Recorder, State
from chainrule.train.rules import AnyOf, Mode, better
from chainrule.train.settings import Settings
from chainrule.train.state import Snapshot, arrays_of, load_arrays
from chainrule.train.steps import Outcome, Steps

SHOWN_EVERY = 0.1  # seconds between two reports to the progress display


@dataclass
class Setup:
    """What stays the same during a training. Made and checked by chainrule.train.setup."""

    model: Module
    optimizer: Optimizer
    data: Data
    validation: Data | None
    steps: Steps
    metrics: list[Metric]
    rules: AnyOf
    dtype: dtypes.DType
    monitor: str
    mode: Mode
    ema: EMA | None
    plateau: ReduceOnPlateau | None
    callbacks: list[Callback]
    progress: Progress
    settings: Settings
    recorder: Recorder

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.data.rows // self.settings.batch_size)


@dataclass
class Position:
    """Where a training is. `epoch` (from 1) is under way, and `batch` of its batches are done."""

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # over the rows of this epoch so far
    row_count: int = 0
    recorded: int = 0  # rows of the history
    seconds: float = 0.0
    best: float = math.nan
    best_epoch: int = 0
    best_step: int = 0
    finished: str = ""  # why, once it is


@dataclass
class Training:
    """A training under way: its setup, position and history. Callbacks get it.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> class Tell(cr.train.Callback):
    ...     def on_step(self, training, loss):
    ...         print(training.position.epoch, training.position.batch, training.position.step)
    >>> run = cr.fit(nn.Linear(1, 1), (np.ones((5, 1)), np.ones((5, 1))), loss=losses.mse, optimizer=optim.SGD(lr=0.1),
    ...              epochs=2, batch_size=3, callbacks=[Tell()], progress="silent")
    1 1 1
    1 2 2
    2 1 3
    2 2 4
    """

    setup: Setup
    position: Position = field(default_factory=Position)
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.best_weights: dict[str, np.ndarray] | None = None
        self.signals = Signals()
        self.asked = ""  # the reason that a callback gave to stop
        self._started = time.perf_counter()
        self._seconds_before = 0.0
        self._steps_before = 0
        self._first_step_at = 0.0
        self._shown = 0.0
        self._rate = 0.0

    @property
    def model(self) -> Module:
        """The model in training."""
        return self.setup.model

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser."""
        return self.setup.optimizer

    def stop(self, reason: str) -> None:
        """End the training after the present step; for callbacks."""
        self.asked = str(reason) or "a callback stopped it"

    # -- running

    def run(self) -> bool:
        """Train until a rule ends it; False when a signal did. Raises TrainingDiverged."""
        s, p = self.setup, self.position
        self._started, self._seconds_before, self._steps_before = time.perf_counter(), p.seconds, p.step
        if not self.model.training:
            self.model.train()
        self._objects = Snapshot.objects_of(self.model, self.optimizer, s.ema)
        with self.signals:
            s.progress.start(self.standing())
            for callback in s.callbacks:
                callback.on_start(self)
            if s.recorder.wanted and not p.step:
                self.save()
            while not p.finished:
                if not self._epoch():
                    self.save()
                    return False
            self.save()
        return True

    def _epoch(self) -> bool:
        """The rest of the present epoch, and what follows it. False when a signal came."""
        s, p = self.setup, self.position
        order = row_order(s.settings.seed, p.epoch, s.data.rows, s.settings.shuffle)
        reason = ""
        while p.batch < s.batches and not reason:
            rows = order[p.batch * s.settings.batch_size : (p.batch + 1) * s.settings.batch_size]
            loss = self._step(s.data.gather(rows, s.dtype))
            for callback in s.callbacks:
                callback.on_step(self, loss)
            self._tick()
            reason = s.rules.after_step(p.step, p.seconds) or self.asked
            if self.signals.pending is not None:
                return False
            if p.batch < s.batches and not reason and s.recorder.due(p.step):
                self.save()
        return self._close(reason)

    def _step(self, batch: Batch) -> float:
        s, p = self.setup, self.position
        before = Snapshot(self._objects)
        try:
            outcome = s.steps.train(s.model, s.optimizer, s.ema, batch)
        except IndexOutOfRange as error:
            raise self._explained(error, batch) from error
        except Diverged as error:  # L-BFGS notices by itself
            before.restore()
            raise self._lost(TrainingDiverged(f"step {p.step + 1}: {error}", p.step + 1, batch.rows)) from error
        if not outcome.finite:
            before.restore()
            told = diverged(s.steps, s.model, batch, outcome, p.step + 1, float(s.optimizer.lr))
            before.restore()
            raise self._lost(told)
        self._count(batch, outcome)
        return outcome.loss

    def _count(self, batch: Batch, outcome: Outcome) -> None:
        s, p = self.setup, self.position
        p.step, p.batch = p.step + 1, p.batch + 1
        p.loss_sum += outcome.loss * len(batch.rows)
        p.row_count += len(batch.rows)
        for metric in s.metrics:
            metric.update(outcome.prediction, batch.x if batch.y is None else batch.y)
        s.recorder.loss(p.step, p.epoch, outcome.loss)

    def _explained(self, error: IndexOutOfRange, batch: Batch) -> IndexOutOfRange:
        """An index that does not exist, such as a class: run eagerly, the loss says more about it."""
        try:
            gradients_of(self.setup.steps, self.model, batch)
        except IndexOutOfRange as clearer:
            error = clearer
        return IndexOutOfRange(f"{error} The batch holds the rows {', '.join(map(str, batch.rows.tolist()))}.")

    def _lost(self, error: TrainingDiverged) -> TrainingDiverged:
        """Leave the last good state on the disk, to look at and to try again from."""
        self.save()
        return error

    def _close(self, reason: str) -> bool:
        """Evaluate, write the row of the history, ask the rules, and turn to the next epoch."""
        s, p = self.setup, self.position
        with s.ema.applied(s.model) if s.ema is not None else nullcontext():
            validation = self._evaluate()
            if validation is None:
                return False
            row = self._row(validation)
            self.history.append(row)
            improved = better(row[s.monitor], p.best, s.mode) or not p.best_epoch
            if improved:
                p.best, p.best_epoch, p.best_step = row[s.monitor], p.epoch, p.step
                if s.settings.keep_best:
                    self.best_weights = arrays_of(s.model, "model")
        p.recorded += 1
        s.recorder.row(row)
        if s.plateau is not None:
            s.plateau.update(row[s.monitor])
        for callback in s.callbacks:
            callback.on_epoch(self, row)
        p.finished = s.rules.after_epoch(p.epoch, row) or "" if p.batch == s.batches else ""
        p.finished = reason or self.asked or p.finished
        s.progress.epoch(self.standing())
        if p.batch == s.batches:
            self._next_epoch()
        if s.settings.keep_best and improved and s.recorder.wanted:
            s.recorder.best = self.state()
        if not p.finished and s.recorder.due(p.step):
            self.save()
        return True

    def _next_epoch(self) -> None:
        p = self.position
        p.epoch, p.batch, p.loss_sum, p.row_count = p.epoch + 1, 0, 0.0, 0
        for metric in self.setup.metrics:
            metric.reset()

    def _row(self, validation: Mapping[str, float]) -> dict[str, Any]:
        s, p = self.setup, self.position
        row = {"epoch": p.epoch, "step": p.step, "loss": p.loss_sum / p.row_count}
        row |= {metric.name: _number(metric) for metric in s.metrics}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        self._tick()
        return row | {"learning_rate": float(s.optimizer.lr), "seconds": p.seconds}

    def _evaluate(self) -> dict[str, float] | None:
        """Loss and metrics on the validation data, {} without any; None when a signal came."""
        s = self.setup
        if s.validation is None:
            return {}
        return evaluate(s.steps, s.model, s.validation, s.metrics, s.settings.batch_size, s.dtype, self.signals)

    # -- showing

    def _tick(self) -> None:
        """Look at the clock."""
        p, now = self.position, time.perf_counter()
        p.seconds = self._seconds_before + now - self._started
        if p.step == self._steps_before + 1:
            self._first_step_at = p.seconds  # it compiled; the rate is that of the steps after it
        elif p.step > self._steps_before + 1 and p.seconds > self._first_step_at:
            rows = (p.step - self._steps_before - 1) * self.setup.data.rows / self.setup.batches
            self._rate = rows / (p.seconds - self._first_step_at)
        if now - self._shown >= SHOWN_EVERY and p.row_count:
            self._shown = now
            self.setup.progress.step(self.standing())

    def standing(self) -> Standing:
        """What a progress display shows."""
        s, p = self.setup, self.position
        left = None
        if s.settings.epochs is not None and self._rate:
            done = ((p.epoch - 1) * s.batches + p.batch) * s.data.rows / s.batches
            left = max(0.0, s.settings.epochs * s.data.rows - done) / self._rate
        return Standing(
            p.epoch, s.settings.epochs, p.batch, s.batches, p.loss_sum / p.row_count if p.row_count else math.nan,
            self._rate, left, self.history[-1] if self.history else {}, s.monitor,
            p.best if p.best_epoch else None, p.best_epoch or None,
        )  # fmt: skip

    # -- state

    def state(self) -> State:
        """Everything that a checkpoint holds, as arrays and JSON values."""
        s, p = self.setup, self.position
        tensors = arrays_of(s.model, "model")
        tensors |= {f"optimizer.{name}": np.asarray(x) for name, x in s.optimizer.state_dict().items()}
        if s.ema is not None:
            tensors |= arrays_of(s.ema, "ema")
            if p.step:  # before the first there is nothing to average
                with s.ema.applied(s.model):
                    tensors |= arrays_of(s.model, "average")
        tensors |= {f"metric.{m.name}.{name}": array for m in s.metrics for name, array in m.sums.items()}
        if s.plateau is not None:
            tensors |= {f"plateau.{name}": np.asarray(x) for name, x in s.plateau.state_dict().items()}
        values = {
            "position": dataclasses.asdict(p),
            "rules": [rule.state() for rule in s.rules.remembering],
            "callbacks": [callback.state() for callback in s.callbacks],
            "data": s.recorder.fingerprint,
            "settings": s.settings.to_json(),
        }
        return State(p.step, tensors, values)

    def save(self) -> None:
        """Write a checkpoint, if there is a run to write it to."""
        if self.setup.recorder.wanted:
            self._tick()
            p = self.position
            is_best = self.setup.settings.keep_best and p.best_epoch > 0 and p.best_step == p.step
            self.setup.recorder.save(self.state(), is_best)

    def load(self, state: State) -> None:
        """Go back to a checkpoint. CheckpointError when it is of another model, optimiser, or set of data."""
        s = self.setup
        load_arrays(s.model, "model", state.tensors, "model")
        s.optimizer.load_state_dict(state.part("optimizer"))
        if s.ema is not None:
            load_arrays(s.ema, "ema", state.tensors, "average of weights")
        if s.plateau is not None:
            s.plateau.load_state_dict(state.part("plateau"))
        for metric in s.metrics:
            metric.sums = {name: array.copy() for name, array in state.part(f"metric.{metric.name}").items()}
        _load_each(s.rules.remembering, state.values["rules"], "stopping rules")
        _load_each(s.callbacks, state.values["callbacks"], "callbacks")
        self.position = Position(**state.values["position"])


def _load_each(things: Sequence[Any], states: Sequence[Any], kind: str) -> None:
    if len(things) != len(states):
        raise ConfigError(f"The run had {len(states)} {kind}; now there are {len(things)}. Give the same as before.")
    for thing, values in zip(things, states, strict=True):
        thing.load(values)


def _number(metric: Metric) -> float:
    value = metric.compute()
    if not isinstance(value, (int, float, np.number)):
        raise ConfigError(
            f"The metric {metric.name} gives {type(value).__name__}, not one number, so it has no place in a "
            "history. Use it after training: cr.evaluate(model, data, metrics=...)."
        )
    return float(value)


def evaluate(
    steps: Steps, model: Module, data: Data, metrics: list[Metric], batch_size: int, dtype: dtypes.DType,
    signals: Signals | None = None, numbers: bool = True,
) -> Any:  # fmt: skip
    """Loss and metrics of a model in evaluation mode; None when a signal came. The model stays as it is."""
    fresh = [metric.fresh() for metric in metrics]
    before = Snapshot(Snapshot.objects_of(model))
    total = 0.0
    try:
        model.eval()
        for batch in data.in_order(batch_size, dtype):
            loss, prediction = steps.evaluate(model, batch)
            total += loss * len(batch.rows)
            for metric in fresh:
                metric.update(prediction, batch.x if batch.y is None else batch.y)
            if signals is not None and signals.pending is not None:
                return None
    finally:
        before.restore()
    return {"loss": total / data.rows} | {m.name: _number(m) if numbers else m.compute() for m in fresh}
