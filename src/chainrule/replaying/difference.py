"""`diff_steps`: two steps of a run side by side."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chainrule.errors import ConfigError
from chainrule.nn import Module
from chainrule.optim import EMA, Optimizer
from chainrule.replaying.course import Course, make_parts
from chainrule.replaying.measures import StepMeasures, measured, norm
from chainrule.replaying.step import Replayed
from chainrule.train.store import Run


@dataclass(frozen=True)
class StepsDifference:
    """Two steps, of one run or of two. `moved` is by layer how far the weights before the one are from those before
    the other (layers of the same shapes); `replayed` says how many steps were made again for that, of how many."""

    first: StepMeasures
    second: StepMeasures
    moved: dict[str, float]
    replayed: int
    total: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"first": self.first.to_dict(), "second": self.second.to_dict()}


def diff_steps(
    run: str | Path | Run, model: Module, data: Any, *, loss: Any, optimizer: Optimizer, steps: tuple[int, int],
    validation: Any = None, metrics: Any = (), stop: Any = None, schedule: Any = None, callbacks: Iterable[Any] = (),
    sample_weight: Any = None, ema: EMA | None = None, progress: Any = None,
) -> StepsDifference:  # fmt: skip
    """What is different at step `steps[1]` of a run from step `steps[0]`: loss, gradients, updates, weights.

    Both are replayed; for the arguments and what is raised see `cr.replay`.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def parts():
    ...     return dict(model=nn.Linear(1, 1), data=(x, 3 * x + 1), loss=losses.mse, optimizer=optim.SGD(lr=0.3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = cr.fit(**parts(), epochs=50, run_dir=f"{folder}/line", progress="silent").run
    ...     found = cr.diff_steps(run, **parts(), steps=(1, 100))
    >>> found.first.gradient_norm > 1 > 1e-3 > found.second.gradient_norm, found.replayed < found.total == 100
    (True, True)
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    course = Course(
        opened,
        make_parts(
            opened, model, data, loss=loss, optimizer=optimizer, metrics=metrics, schedule=schedule,
            sample_weight=sample_weight, ema=ema,
        ),
    )  # fmt: skip
    return compare((course, course), pair(steps))


def pair(steps: Any) -> tuple[int, int]:
    """The two steps; ConfigError where there are not two."""
    if not isinstance(steps, (tuple, list)) or len(steps) != 2:
        raise ConfigError(f"steps={steps!r}: give two, such as steps=(100, 200).")
    return steps[0], steps[1]


def compare(courses: tuple[Course, Course], steps: tuple[int, int]) -> StepsDifference:
    """A step of each course."""
    one, other = courses
    checked = one.check(steps[0]), other.check(steps[1])
    before = sum({id(course): course.made for course in courses}.values())
    first, second = measured(one, checked[0]), measured(other, checked[1])
    both = {id(course): course for course in courses}.values()
    return StepsDifference(
        first[0], second[0], _moved(first[1], second[1]), sum(course.made for course in both) - before,
        sum(course.last for course in both),
    )  # fmt: skip


def _moved(first: Replayed, second: Replayed) -> dict[str, float]:
    squares: dict[str, float] = {}
    trained = {name for name, _ in first.model.named_parameters()} & second.before.keys()
    for name, array in first.before.items():
        if name in trained and second.before[name].shape == array.shape:
            path = name.rpartition(".")[0]
            squares[path] = squares.get(path, 0.0) + norm(second.before[name] - array) ** 2
    return {path: square**0.5 for path, square in squares.items()}
