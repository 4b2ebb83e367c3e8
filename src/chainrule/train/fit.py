"""`fit`: train a model on data. And `evaluate`: loss and metrics of a model on data."""

import math
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.tensor import full
from chainrule.engines import DEFAULT_ENGINE, STANDARD
from chainrule.nn import Module
from chainrule.optim import EMA, Optimizer
from chainrule.train.batches import read
from chainrule.train.criterion import (
    check_loss,
    class_weights,
    criterion,
    takes_probabilities,
    with_class_weights,
)
from chainrule.train.divergence import TrainingDiverged
from chainrule.train.evaluation import evaluate as evaluate_batches
from chainrule.train.evaluation import evaluation
from chainrule.train.history import History
from chainrule.train.interrupts import Interrupted
from chainrule.train.loop import Setup, Training
from chainrule.train.metrics.choice import as_metrics
from chainrule.train.progress import number
from chainrule.train.settings import Settings
from chainrule.train.setup import check_model, float_dtype, make_setup
from chainrule.train.state import arrays_of, load_arrays
from chainrule.train.steps import Steps
from chainrule.train.store import Run

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class FitResult:
    """What came of a training. `model` is the one that was given to `fit`, with the weights that were kept.

    `history` is a list of rows (`history.columns` the same by column), `best` the best value of the column `monitor`,
    reached in epoch `best_epoch`; `reason` says why training stopped; `run` is the folder, or None. `rows_per_second`
    is how fast it was (0 where that was too short to tell), on `device`, where the engine tells that. `loss` and
    `optimizer` are those that were given: with them `cr.explain(result, x, y)` has all it needs.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> result = cr.fit(nn.Linear(1, 1), (np.ones((4, 1)), np.ones((4, 1))), loss=losses.mse,
    ...                 optimizer=optim.SGD(lr=0.1), epochs=3, progress="silent")
    >>> result.reason, result.best_epoch, result.history.columns["epoch"]
    ('all 3 epochs done', 3, [1, 2, 3])
    """

    model: Module
    history: History
    monitor: str
    best: float
    best_epoch: int
    reason: str
    epochs: int
    steps: int
    seconds: float
    run: Path | None
    rows_per_second: float = 0.0
    device: str = ""
    loss: Any = None
    optimizer: Optimizer | None = None

    def __repr__(self) -> str:
        where = f", run={str(self.run)!r}" if self.run is not None else ""
        return (
            f"FitResult({self.epochs} epochs, {self.steps} steps, best {self.monitor} {number(self.best)} in epoch "
            f"{self.best_epoch}, stopped: {self.reason}{where})"
        )


def fit(
    model: Module, data: Any, *, loss: Any, optimizer: Optimizer, epochs: int | None = None, batch_size: int = 32,
    validation: Any = None, metrics: Any = (), stop: Any = None, schedule: Any = None, seed: int = 0,
    run_dir: str | Path | Run | None = None, callbacks: Iterable[Any] = (), engine: str = DEFAULT_ENGINE,
    class_weight: Any = None, sample_weight: Any = None, clip_norm: float | None = None, ema: EMA | None = None,
    monitor: str | None = None, keep_best: bool = True, shuffle: bool = True, checkpoint_every: int | str = "30 s",
    progress: Any = "auto", threads: int | None = None, precision: str = STANDARD, milestones: int = 256,
    record: int | str | None = "auto",
) -> FitResult:  # fmt: skip
    """Train `model` on `data` by minibatches, and keep the best weights.

    data         (x, y): arrays with rows along their first axis; x may be a tuple or dict of arrays, which the model
                 gets as arguments. x alone (an array or a dict, or (x, None)): unsupervised, and the loss is
                 loss(model(x), x). Floating-point values are converted to the dtype of the model, batch by batch;
                 memory-mapped arrays stay on the disk
    loss         (prediction, target) -> mean over the rows of a batch: from chainrule.losses, of nn, or your own
    optimizer    optim.Adam(lr=1e-3), say; or LBFGS, best with one batch of all rows
    epochs       at most so many passes over the data; may be left out when `stop` is given
    batch_size   rows of an update; the last batch of an epoch has what is left
    validation   data to evaluate after each epoch, in evaluation mode: columns validation_... of the history
    metrics      names, objects of cr.metrics, or functions (prediction, target) -> number. On training data they are
                 those of the predictions made while training
    stop         a rule of cr.stop, or several. A loss that is no finite number always ends the training
    schedule     a function from the update count to the learning rate (see chainrule.optim), or a ReduceOnPlateau
    seed         decides the order of rows, and all that generators in the model draw (dropout)
    run_dir      folder to make for the run: configuration, metrics, checkpoints, log; see `cr.resume`. None: no files
    callbacks    objects derived from cr.train.Callback
    class_weight 'balanced', a dict or list of weights of classes; sample_weight (rows,) weights of rows. Together they
                 are scaled to the mean 1; the loss must know reduction='none'. Validation rows have theirs in (x, y, w)
    clip_norm    upper limit for the norm of the gradient
    ema          optim.EMA(decay): average the weights; evaluation, best weights and the result are those of the average
    monitor      the column that tells the best epoch: by default validation_loss, or loss without validation data
    keep_best    whether the model ends with the weights of the best epoch, instead of the last
    checkpoint_every  steps (500), or text ('500 steps', '30 s', '5 min')
    milestones   megabytes for states along the way, which `cr.replay` goes back to; 0: none
    record       when layers and parameters are looked at: 'auto' (2 % of the time), every so many steps, or None
    engine       what computes: 'reference' (NumPy), or 'native' (machine code for this processor), which makes many
                 steps before it comes back; on so many `threads` (by default CHAINRULE_THREADS, or the cores, up to 8)
    precision    'standard', or 'fast': convolutions may be less exact (see the float policy)
    progress     'auto' (a bar on a terminal, else lines), 'rich', 'plain', 'silent', or a Progress of one's own

    The model is changed in place; it trains in training mode, is left in evaluation mode. The same seed gives the same
    bits, interrupted and resumed or not. Ctrl-C and SIGTERM are heard between two steps: the state is saved, and
    `cr.train.Interrupted` (a KeyboardInterrupt), or SystemExit, raised; a second one kills.
    Raises ConfigError and DataError for what cannot work, before the first step; `cr.train.TrainingDiverged` (a
    cr.errors.Diverged) with the weights of the step before, when loss, gradient or weights are not finite.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> model = nn.Linear(1, 1)
    >>> run = cr.fit(model, (x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3), epochs=20, progress="silent")
    >>> [round(w.item(), 3) for w in model.parameters()], run.reason
    ([3.0, 1.0], 'all 20 epochs done')
    """
    settings = Settings(
        epochs, batch_size, seed, shuffle, engine, clip_norm, keep_best, monitor, class_weight, checkpoint_every,
        threads, precision, milestones, record,
    )  # fmt: skip
    setup = make_setup(
        model, data, loss=loss, optimizer=optimizer, validation=validation, metrics=metrics, stop=stop,
        schedule=schedule, callbacks=list(callbacks), sample_weight=sample_weight, ema=ema, progress=progress,
        settings=settings,
    )  # fmt: skip
    model.seed(settings.seed)
    if run_dir is None or isinstance(run_dir, Run):
        if run_dir is not None:
            attach(setup, run_dir)
        return execute(Training(setup))
    path = Path(run_dir)
    with Run.create(
        path.parent, path.name, config=configuration(setup, loss), monitor=setup.monitor, mode=setup.mode
    ) as run:
        attach(setup, run)
        return execute(Training(setup))


def attach(setup: Setup, run: Run) -> None:
    """Let a training write to a run."""
    digests = {"data": setup.data, "validation": setup.validation}
    setup.recorder.attach(run, {name: d and d.fingerprint() for name, d in digests.items()}, setup.batches)
    leaves = tree.flatten([setup.model, setup.optimizer, setup.ema]).leaves
    state_bytes = sum(math.prod(leaf.value.shape) * leaf.value.dtype.itemsize for leaf in leaves)
    setup.recorder.keep_milestones(state_bytes, setup.settings.milestones * MEGABYTE)


def configuration(setup: Setup, loss: Any) -> dict[str, Any]:
    """What a run tells about how it was made: the settings, which `resume` reads, and the rest for people."""
    return {
        "fit": setup.settings.to_json(),
        "model": repr(setup.model),
        "optimizer": repr(setup.optimizer),
        "loss": getattr(loss, "__name__", repr(loss)),
        "metrics": [metric.name for metric in setup.metrics],
        "rows": setup.data.rows,
        "validation_rows": setup.validation.rows if setup.validation is not None else 0,
    }


def execute(training: Training) -> FitResult:
    """Run a training, whatever comes of it, and tell everybody how it ended."""
    setup, run = training.setup, training.setup.recorder.run
    message = "failed"
    try:
        if training.run():
            message = conclude(training)
            for callback in setup.callbacks:
                callback.on_end(training, training.position.finished)
        else:
            message = interruption(training)
    except TrainingDiverged as error:
        error.result = result_of(training)
        message = str(error)
        if run is not None:
            run.set_status("failed", message.partition("\n")[0])
        raise
    except Exception as error:
        message = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        setup.recorder.log(message)
        setup.progress.finish(message.partition("\n")[0])  # the rest of a long one is in the exception
    if training.position.finished:
        if training.signals.pending is not None:
            signal.raise_signal(training.signals.pending)  # it came when there was nothing left to interrupt
        return result_of(training)
    if run is not None:
        run.set_status("interrupted", training.signals.name)
    if training.signals.pending == signal.SIGINT:
        raise Interrupted(message, result_of(training))
    raise SystemExit(128 + (training.signals.pending or 0))


def conclude(training: Training) -> str:
    """Give the model the weights to keep, and the run its status; returns the last line."""
    setup, p = training.setup, training.position
    kept = ""
    if setup.settings.keep_best and training.best_weights is not None:
        load_arrays(setup.model, "model", training.best_weights, "model")
        kept = f"; weights of epoch {p.best_epoch} kept"
    elif setup.ema is not None:
        with setup.ema.applied(setup.model):
            averaged = arrays_of(setup.model, "model")
        load_arrays(setup.model, "model", averaged, "model")
        kept = "; averaged weights kept"
    setup.model.eval()
    if setup.recorder.run is not None:
        complete = setup.settings.epochs is not None and p.epoch > setup.settings.epochs
        setup.recorder.run.set_status("finished" if complete else "stopped", p.finished)
    return f"stopped: {p.finished}{kept}"


def interruption(training: Training) -> str:
    """What to say when a signal ended the training."""
    p, run = training.position, training.setup.recorder.run
    at = f"{training.signals.name} in epoch {p.epoch}, after step {p.step}"
    if run is None:
        return f"{at}. Nothing was saved, since no run_dir was given; the model has the weights of this step."
    return f"{at}. Everything is saved; go on with cr.resume({str(run.path)!r}, model, data, loss=..., optimizer=...)."


def result_of(training: Training) -> FitResult:
    """The result so far."""
    s, p, run = training.setup, training.position, training.setup.recorder.run
    return FitResult(
        s.model, training.history, s.monitor, p.best, p.best_epoch, p.finished, p.epoch - 1 + (p.batch > 0), p.step,
        p.seconds, None if run is None else run.path, training.rows_per_second, training.device, s.loss, s.optimizer,
    )  # fmt: skip


def evaluate(
    model: Module, data: Any, *, loss: Any = None, metrics: Any = (), batch_size: int = 32,
    engine: str = DEFAULT_ENGINE, class_weight: Any = None, threads: int | None = None,
    precision: str = STANDARD,
) -> dict[str, Any]:  # fmt: skip
    """Loss (where one is given) and metrics of `model` on `data`, in evaluation mode. The model stays as it is.

    Arguments are those of `fit`. Metrics may give more than a number here, like the confusion matrix.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn
    >>> cr.evaluate(nn.Identity(), (np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])), loss=losses.mse, metrics="mae")
    {'loss': 2.0, 'mae': 1.0}
    """
    settings = Settings(
        batch_size=batch_size, engine=engine, class_weight=class_weight, threads=threads, precision=precision
    )
    read_data = read(data)
    read_data = with_class_weights(read_data, class_weights(settings.class_weight, read_data), "data")
    measured = as_metrics(metrics, loss is not None and takes_probabilities(loss))
    weighted = read_data.weight is not None
    objective = _no_loss if loss is None else criterion(check_loss(loss), weighted)
    steps = Steps(objective, engine, outputs=bool(measured), threads=threads, precision=precision)
    model = check_model(model)
    size, dtype = settings.batch_size, float_dtype(model)
    chunks = evaluation(steps, model, read_data, size, dtype) if steps.chunked else None
    values = evaluate_batches(steps, model, read_data, measured, size, dtype, numbers=False, chunks=chunks)
    if chunks is not None:
        chunks.close()
    return {name: value for name, value in values.items() if name != "loss" or loss is not None}


def _no_loss(prediction: Any, target: Any, weight: Any) -> Any:
    return full((), 0, dtypes.float32)
