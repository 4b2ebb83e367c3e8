"""`resume`: go on with a run that was interrupted, to the same bits. And `load_weights`: those that a run has kept."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np

from chainrule.errors import CheckpointError
from chainrule.nn import Module
from chainrule.optim import EMA, Optimizer
from chainrule.train.checkpoint import list_checkpoints
from chainrule.train.fit import FitResult, attach, conclude, execute, result_of
from chainrule.train.loop import Training
from chainrule.train.milestones import forget_after
from chainrule.train.recorder import State
from chainrule.train.settings import Settings
from chainrule.train.setup import make_setup
from chainrule.train.state import load_arrays
from chainrule.train.store import Run


def resume(
    run_dir: str | Path | Run,
    model: Module,
    data: Any,
    *,
    loss: Any,
    optimizer: Optimizer,
    epochs: int | None = None,
    validation: Any = None,
    metrics: Any = (),
    stop: Any = None,
    schedule: Any = None,
    callbacks: Iterable[Any] = (),
    sample_weight: Any = None,
    ema: EMA | None = None,
    progress: Any = "auto",
) -> FitResult:
    """Go on with the run in `run_dir` from its last checkpoint, as if it had never been interrupted.

    Give what was given to `fit`: model and optimiser made in the same way, the same data, loss, metrics, rules and
    schedule. Weights, optimiser state, generators, position, history and the plain settings (batch size, seed, engine,
    ...) come from the run. A finished run is returned as it is, unless `epochs` asks for more than it had.
    Raises CheckpointError when there is no such run, somebody else trains it, or model, optimiser or data are others.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def parts():
    ...     return dict(model=nn.Linear(1, 1), data=(x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = cr.fit(**parts(), epochs=2, run_dir=f"{folder}/line", progress="silent")
    ...     second = cr.resume(f"{folder}/line", **parts(), epochs=5, progress="silent")
    >>> first.epochs, second.epochs, len(second.history)
    (2, 5, 5)
    """
    opened = run_dir if isinstance(run_dir, Run) else Run.open(run_dir, train=True)
    with nullcontext(opened) if isinstance(run_dir, Run) else opened as run:
        try:
            training, more = _restored(
                run, model, data, loss=loss, optimizer=optimizer, validation=validation, metrics=metrics, stop=stop,
                schedule=schedule, callbacks=list(callbacks), sample_weight=sample_weight, ema=ema, progress=progress,
                epochs=epochs,
            )  # fmt: skip
        except BaseException:
            run.set_status("interrupted", "it could not be resumed with what was given")
            raise
        if training.position.finished and not more:
            conclude(training)
            return result_of(training)
        training.position.finished = ""
        run.log(f"goes on in epoch {training.position.epoch}, after step {training.position.step}")
        return execute(training)


def _restored(run: Run, model: Any, data: Any, epochs: int | None, **parts: Any) -> tuple[Training, bool]:
    """The training as it was at its last checkpoint, and whether more epochs are asked for than it had then."""
    state = State.of(run.load("last")) if list_checkpoints(run.checkpoints) else None
    settings = _settings(run, state)
    if epochs is not None:
        settings = Settings.from_json(settings.to_json() | {"epochs": epochs})
    setup = make_setup(model, data, settings=settings, **parts)
    model.seed(settings.seed)
    attach(setup, run)
    training = Training(setup)
    if state is None:  # killed before its first checkpoint, which is written before the first step
        run.truncate_after(0)
        forget_after(run.path, 0)
        return training, True
    _check_data(state, setup.recorder.fingerprint, run)
    training.load(state)
    run.truncate_after(state.step)
    forget_after(run.path, state.step)
    training.history = setup.recorder.history(training.position.recorded)
    if settings.keep_best and training.position.best_epoch:
        training.best_weights = _best_weights(run, training.position.best_step)
    return training, epochs is not None and epochs >= training.position.epoch


def _settings(run: Run, state: State | None) -> Settings:
    values = state.values["settings"] if state is not None else run.config.get("fit")
    if values is None:
        raise CheckpointError(
            f"{run.path} ended before its first checkpoint, and does not know its settings. Start it anew."
        )
    return Settings.from_json(values)


def _check_data(state: State, fingerprint: dict[str, Any], run: Run) -> None:
    for name, digest in fingerprint.items():
        if digest != state.values["data"].get(name):
            raise CheckpointError(
                f"The {name} given now {'is' if name == 'validation' else 'are'} not what {run.path} was "
                "trained with: shapes, dtypes or values differ. To go on with other data, make a new run "
                "from its weights: cr.train.load_weights(model, run)."
            )


def _best_weights(run: Run, step: int) -> dict[str, np.ndarray]:
    checkpoint = run.load("best")
    if checkpoint.step != step:
        raise CheckpointError(
            f"The best checkpoint of {run.path}, of step {step}, is gone; the best now is of step "
            f"{checkpoint.step}. Restore it from a backup."
        )
    return _weights(State.of(checkpoint))


def _weights(state: State) -> dict[str, np.ndarray]:
    """The weights to use: averaged ones where there are any."""
    averaged = state.part("average")
    return {f"model.{name}": averaged.get(name, array).copy() for name, array in state.part("model").items()}


def load_weights(model: Module, run: str | Path | Run, which: Literal["best", "last"] | int = "best") -> Module:
    """Give `model` the weights of a run: those of its best epoch, the last, or those after a given step; returns it.

    "best" is the last where the run kept no best. Raises CheckpointError when there is none, or the model is another.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x, model = np.linspace(-1, 1, 64).reshape(-1, 1), nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = cr.fit(model, (x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3), epochs=20,
    ...                  run_dir=f"{folder}/line", progress="silent")
    ...     copy = cr.train.load_weights(nn.Linear(1, 1), run.run)
    >>> bool((copy.weight == model.weight).item())
    True
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    if which == "best" and not any(info.best for info in list_checkpoints(opened.checkpoints)):
        which = "last"
    load_arrays(model, "model", _weights(State.of(opened.load(which))), "model")
    return model.eval()
