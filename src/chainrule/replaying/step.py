"""`replay`: one step of a past run, made again to the bit."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.explanation import Explanation, explain
from chainrule.nn import Module
from chainrule.optim import EMA, LBFGS, Optimizer
from chainrule.replaying.course import Course, Parts, make_parts
from chainrule.train.batches import Batch
from chainrule.train.steps import map_arrays
from chainrule.train.store import Run


@dataclass(frozen=True)
class Replayed:
    """A step that was made again. `model` and `optimizer` are those that were given, as they were before it.

    step, epoch    from 1
    batch          what it learned from: .x, .y, .weight, and .rows, their numbers in the data
    loss           of the batch, before the update; `recorded` is what the run wrote down, or None
    learning_rate  before the step
    before, after  all that belongs to the model by name (weights, buffers, generators), as arrays, before and after it
    start, made    the step of the state that it began from, and how many steps were made from there, this one included
    exact          whether every recorded loss on the way was met to the bit; None where the run recorded none of them

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def parts():
    ...     return dict(model=nn.Linear(1, 1), data=(x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = cr.fit(**parts(), epochs=50, run_dir=f"{folder}/line", progress="silent").run
    ...     seventh = cr.replay(run, **parts(), step=7)
    >>> seventh.epoch, seventh.batch.rows.size, seventh.loss == seventh.recorded, seventh.exact
    (4, 32, True, True)
    """

    step: int
    epoch: int
    batch: Batch
    loss: float
    recorded: float | None
    learning_rate: float
    model: Module
    optimizer: Optimizer
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    start: int
    made: int
    exact: bool | None
    run: Path
    parts: Parts

    def __repr__(self) -> str:
        return f"Replayed(step {self.step} of {self.run.name}, epoch {self.epoch}, loss {self.loss:.6g})"

    def explain(self, row: int | None = None) -> Explanation:
        """The explanation of this step: see `cr.explain`. With `row`, that of one row of the batch alone.

        It looks at the model as it is now: ask before it is used for something else.
        """
        s, x, y, weight = self.parts.settings, self.batch.x, self.batch.y, self.batch.weight
        if row is not None:
            if not 0 <= row < len(self.batch.rows):
                raise ConfigError(
                    f"row={row}: the batch of step {self.step} has the rows 0 to {len(self.batch.rows) - 1}."
                )
            x, y, weight = [map_arrays(lambda array: array[row : row + 1], part) for part in (x, y, weight)]
        return explain(
            self.model, x, y, loss=self.parts.loss, step=self.step, engine=s.engine, weight=weight,
            optimizer=None if isinstance(self.optimizer, LBFGS) else self.optimizer, clip_norm=s.clip_norm,
            threads=s.threads, precision=s.precision,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The step in JSON values, without its arrays."""
        return {
            "run": str(self.run),
            "step": self.step,
            "epoch": self.epoch,
            "rows": self.batch.rows.tolist(),
            "loss": self.loss,
            "recorded": self.recorded,
            "learning_rate": self.learning_rate,
            "start": self.start,
            "made": self.made,
            "exact": self.exact,
        }


def replay(
    run: str | Path | Run, model: Module, data: Any, *, loss: Any, optimizer: Optimizer, step: int,
    validation: Any = None, metrics: Any = (), stop: Any = None, schedule: Any = None, callbacks: Iterable[Any] = (),
    sample_weight: Any = None, ema: EMA | None = None, progress: Any = None,
) -> Replayed:  # fmt: skip
    """Make step `step` of a past run again, to the bit, and show what it saw and did.

    Give what was given to `fit`, as for `cr.resume`: model and optimiser made in the same way, the same data, loss,
    schedule, ema and weights of rows. (`validation`, `stop`, `callbacks` and `progress` are not needed; they may be
    given so that the same arguments will do.) The nearest state that the run kept is loaded, the steps up to `step`
    are made as `fit` made them, and then that one. The run itself is only read; it may be under way.

    The model is left in training mode, as it was before that step. Steps count from 1; the step that ended a run
    because something was not finite can be replayed, too. What callbacks changed in a model is not made again.

    Raises ConfigError for a step that the run has not made, CheckpointError when there is no such run, or data, model
    or optimiser are others. Warns (ReplayWarning) where a loss is not the one that the run recorded.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def parts():
    ...     return dict(model=nn.Linear(1, 1), data=(x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = cr.fit(**parts(), epochs=50, run_dir=f"{folder}/line", progress="silent").run
    ...     last = cr.replay(run, **parts(), step=100)
    >>> [round(w.item(), 3) for w in last.after.values()], last.made < 64
    ([3.0, 1.0], True)
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    parts = make_parts(
        opened, model, data, loss=loss, optimizer=optimizer, metrics=metrics, schedule=schedule,
        sample_weight=sample_weight, ema=ema,
    )  # fmt: skip
    return replayed(Course(opened, parts), step)


def replayed(course: Course, step: int) -> Replayed:
    """A step of a course."""
    step = course.check(step)
    course.go_back(step - 1)
    course.forward(step - 1)
    start, made = course.start, step - course.start
    before, batch = course.arrays(), course.batch()
    place, rate = replace(course.place), float(course.parts.optimizer.lr)
    loss = course.make()
    after = course.arrays()
    course.put(before, place)
    return Replayed(
        step, place.epoch, batch, loss, course.losses.get(step), rate, course.parts.model, course.parts.optimizer,
        _weights(before), _weights(after), start, made, course.verdict(), course.run.path, course.parts,
    )  # fmt: skip


def _weights(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What belongs to the model."""
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
