"""The training loop. All of its state stands in a `Position`, the tensors of the model, and those of the optimiser.

What happens next is a function of that state and of the data alone, never of the clock (a time limit excepted): so a
run that was killed goes on from its last checkpoint to the same bits.
"""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ConfigError, Diverged, IndexOutOfRange
from chainrule.nn import Module
from chainrule.optim import EMA, LBFGS, Optimizer, ReduceOnPlateau
from chainrule.train.batches import Batch, Data
from chainrule.train.callbacks import Callback
from chainrule.train.chunks import LONGEST, Chunks, Ran, added, measure, spreads
from chainrule.train.divergence import TrainingDiverged, diverged, gradients_of, search_diverged
from chainrule.train.evaluation import column, evaluate, evaluation
from chainrule.train.feed import Feed, Order
from chainrule.train.history import History
from chainrule.train.interrupts import Signals
from chainrule.train.metrics import Metric
from chainrule.train.progress import Progress, Standing
from chainrule.train.recorder import Recorder, State
from chainrule.train.recording import Recording, least_seconds
from chainrule.train.rules import AnyOf, Mode, better
from chainrule.train.settings import Settings
from chainrule.train.state import Snapshot, arrays_of, course_arrays, load_course
from chainrule.train.steps import Steps, map_arrays

SHOWN_EVERY = 0.1  # seconds between two reports to the progress display


@dataclass
class Setup:
    """What stays the same during a training. Made and checked by chainrule.train.setup."""

    model: Module
    optimizer: Optimizer
    data: Data
    validation: Data | None
    loss: Any
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
        s = self.setup
        self.best_weights: dict[str, np.ndarray] | None = None
        self.signals = Signals()
        self.asked = ""  # the reason that a callback gave to stop
        self._started = time.perf_counter()
        self._seconds_before = 0.0
        self._steps_before = self._rows_before = 0
        self._first: tuple[int, float] | None = None  # the step at which the rate begins to be measured, and when
        self._shown = 0.0
        self._rate = 0.0
        self._at_once = 1  # steps that may be made before anybody has to be asked
        self._order = Order(s.settings.seed, s.data.rows, s.settings.shuffle)
        self._chunks: Chunks | None = None
        self._validation: Chunks | None = None
        self.recording = Recording(s)
        self.device = ""  # what the steps run on, where the engine tells

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
        self._rows_before = len(self.history)
        if not self.model.training:
            self.model.train()
        self._objects = Snapshot.objects_of(self.model, self.optimizer, s.ema)
        with self.signals, self._chunked():
            s.progress.start(self.standing())
            for callback in s.callbacks:
                callback.on_start(self)
            if s.recorder.wanted and not p.step:
                self.save()
                self._milestone()
            while not p.finished:
                if not self._epoch():
                    self.save()
                    return False
            self.save()
        return True

    @contextmanager
    def _chunked(self) -> Iterator[None]:
        """Let the engine make many steps at once, if it can."""
        s = self.setup
        each = s.rules.want_each_step or any(_overrides(c.on_step, Callback.on_step) for c in s.callbacks)
        self._at_once = 1 if each else s.batches
        if s.steps.chunked and not isinstance(s.optimizer, LBFGS):
            watched = not spreads(s.optimizer)
            self._chunks = Chunks(
                s.steps.training, lambda b: (s.model, s.optimizer, s.ema, b.x, b.y, b.weight, watched),
                Feed(s.data, s.dtype), s.settings.batch_size, trains=True,
            )  # fmt: skip
            stay = self._chunks.enter(min(s.settings.batch_size, s.data.rows))
            self.device = stay.device if stay is not None else ""
            if stay is not None and s.recorder.milestones is not None:
                s.recorder.milestones.expect(least_seconds(s.steps.training.program))
            self._order.another = stay is not None and stay.threads < (os.cpu_count() or 1)
            s.recorder.log(f"runs on {self.device}") if self.device else None
            if s.validation is not None:
                self._validation = evaluation(s.steps, s.model, s.validation, s.settings.batch_size, s.dtype)
        try:
            yield
        finally:
            self._order.close()
            for chunks in (self._chunks, self._validation):
                if chunks is not None:
                    chunks.close()

    def _epoch(self) -> bool:
        """The rest of the present epoch, and what follows it. False when a signal came."""
        s, p = self.setup, self.position
        order = self._order.of(p.epoch)
        if s.settings.epochs is None or p.epoch < s.settings.epochs:
            self._order.ahead(p.epoch + 1)
        reason = ""
        while p.batch < s.batches and not reason:
            if self.recording.due(p.step, len(self._rows(order))):
                self.recording.take(self, s.data.gather(self._rows(order), s.dtype))
            loss = self._advance(order)
            for callback in s.callbacks:
                callback.on_step(self, loss)
            self._tick()
            self._milestone()
            reason = s.rules.after_step(p.step, p.seconds) or self.asked
            if self.signals.pending is not None:
                return False
            if p.batch < s.batches and not reason and s.recorder.due(p.step):
                self.save()
        return self._close(reason)

    def _rows(self, order: np.ndarray) -> np.ndarray:
        """The rows of the next batch."""
        size = self.setup.settings.batch_size
        return order[self.position.batch * size : (self.position.batch + 1) * size]

    def _advance(self, order: np.ndarray) -> float:
        """Make a step, or as many as the engine makes at once; the loss of the last."""
        s, p = self.setup, self.position
        ran = None
        if self._chunks is not None:
            due = min(s.recorder.until_due(p.step), self.recording.until_due(p.step))
            most = int(min(self._at_once, due, s.batches))
            ran = self._chunks.run(order, p.batch, most, min(s.rules.seconds_left(p.seconds), LONGEST))
        if ran is None:
            return self._step(s.data.gather(self._rows(order), s.dtype))
        if len(ran.losses):
            rows = order[p.batch * s.settings.batch_size :][: len(ran.losses) * len(self._rows(order))]
            targets = s.data.targets(rows, s.dtype) if s.metrics else None
            self._count(rows, ran.losses, ran.predictions, targets)
        if ran.error is not None or ran.bad is not None:
            raise self._failed(ran, s.data.gather(self._rows(order), s.dtype))
        return float(ran.losses[-1])

    def _failed(self, ran: Ran, batch: Batch) -> Exception:
        """What the batch after a chunk did. Model and optimiser are as they were before it."""
        if ran.bad is None:
            assert ran.error is not None
            return self._explained(ran.error, batch) if isinstance(ran.error, IndexOutOfRange) else ran.error
        return self._diverged(Snapshot(self._objects), batch, ran.bad)

    def _step(self, batch: Batch) -> float:
        s, p = self.setup, self.position
        before = Snapshot(self._objects)
        try:
            outcome = s.steps.train(s.model, s.optimizer, s.ema, batch)
        except IndexOutOfRange as error:
            raise self._explained(error, batch) from error
        except Diverged as error:  # L-BFGS notices by itself
            told = search_diverged(s.steps, s.model, s.optimizer, batch, error, p.step + 1)
            before.restore()
            raise self._lost(told) from error
        if not outcome.finite:
            before.restore()
            raise self._diverged(before, batch, outcome.loss)
        one = map_arrays(lambda array: array[None], outcome.prediction)
        self._count(batch.rows, np.asarray([outcome.loss]), one, batch.x if batch.y is None else batch.y)
        return outcome.loss

    def _diverged(self, before: Snapshot, batch: Batch, loss: float) -> TrainingDiverged:
        """The story of a step that was undone."""
        s, p = self.setup, self.position
        told = diverged(s.steps, s.model, s.optimizer, s.ema, batch, loss, p.step + 1)
        before.restore()
        return self._lost(told)

    def _count(self, rows: np.ndarray, losses: np.ndarray, predictions: Any, targets: Any) -> None:
        """Take note of steps: their rows (all of them), losses, and what the model returned in each."""
        s, p = self.setup, self.position
        first, steps = p.step + 1, len(losses)
        p.step, p.batch, p.row_count = p.step + steps, p.batch + steps, p.row_count + len(rows)
        p.loss_sum = added(p.loss_sum, losses, len(rows) // steps)
        measure(s.metrics, predictions, targets, steps)
        s.recorder.losses(first, p.epoch, losses)

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
        self.setup.recorder.lost(error, self.position.epoch)
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
                    self.best_weights = None  # its memory is free before there are others
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
            s.recorder.best = None
            s.recorder.best = self.state()
        if not p.finished and s.recorder.due(p.step):
            self.save()
        return True

    def _next_epoch(self) -> None:
        p = self.position
        if len(self.history) == self._rows_before + 1:
            self._first = None  # what was compiled since, for evaluation and a last batch of fewer rows, does not count
        p.epoch, p.batch, p.loss_sum, p.row_count = p.epoch + 1, 0, 0.0, 0
        for metric in self.setup.metrics:
            metric.reset()

    def _row(self, validation: Mapping[str, float]) -> dict[str, Any]:
        s, p = self.setup, self.position
        row = {"epoch": p.epoch, "step": p.step, "loss": p.loss_sum / p.row_count}
        row |= {metric.name: column(metric) for metric in s.metrics}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        self._tick()
        return row | {"learning_rate": float(s.optimizer.lr), "seconds": p.seconds}

    def _evaluate(self) -> dict[str, float] | None:
        """Loss and metrics on the validation data, {} without any; None when a signal came."""
        s = self.setup
        if s.validation is None:
            return {}
        return evaluate(
            s.steps, s.model, s.validation, s.metrics, s.settings.batch_size, s.dtype, self.signals,
            chunks=self._validation,
        )  # fmt: skip

    # -- showing

    def _tick(self) -> None:
        """Look at the clock."""
        p, now = self.position, time.perf_counter()
        p.seconds = self._seconds_before + now - self._started
        if self._first is None and p.step > self._steps_before:
            self._first = p.step, p.seconds  # it compiled; the rate is that of the steps after it
        elif self._first is not None and p.step > self._first[0] and p.seconds > self._first[1]:
            rows = (p.step - self._first[0]) * self.setup.data.rows / self.setup.batches
            self._rate = rows / (p.seconds - self._first[1])
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
            p.best if p.best_epoch else None, p.best_epoch or None, self.device,
        )  # fmt: skip

    @property
    def rows_per_second(self) -> float:
        """Rows trained on in a second, evaluation and saving included; 0 as long as nobody knows."""
        return self._rate

    # -- state

    def state(self) -> State:
        """Everything that a checkpoint holds, as arrays and JSON values."""
        s, p = self.setup, self.position
        tensors = course_arrays(s.model, s.optimizer, s.ema, s.plateau)
        if s.ema is not None and p.step:  # before the first there is nothing to average
            with s.ema.applied(s.model):
                tensors |= arrays_of(s.model, "average")
        tensors |= {f"metric.{m.name}.{name}": array for m in s.metrics for name, array in m.sums.items()}
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

    def _milestone(self) -> None:
        """Write a milestone, if there is one at this step."""
        s, p = self.setup, self.position
        if s.recorder.milestones is not None and s.recorder.milestones.due(p.step):
            position = {"epoch": p.epoch, "batch": p.batch, "step": p.step, "recorded": p.recorded}
            values = {"position": position, "data": s.recorder.fingerprint, "settings": s.settings.to_json()}
            arrays = course_arrays(s.model, s.optimizer, s.ema, s.plateau)
            s.recorder.milestones.save(p.step, arrays, values | {"outputs": bool(s.metrics)})

    def load(self, state: State) -> None:
        """Go back to a checkpoint. CheckpointError when it is of another model, optimiser, or set of data."""
        s = self.setup
        load_course(s.model, s.optimizer, s.ema, s.plateau, state.tensors)
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


def _overrides(method: Any, original: Any) -> bool:
    return getattr(method, "__func__", None) is not original
