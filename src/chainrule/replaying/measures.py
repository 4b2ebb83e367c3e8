"""What one step did, in numbers: the loss, and for each layer the norms of weights, their gradient, their change."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chainrule.replaying.course import Course
from chainrule.replaying.step import Replayed, replayed
from chainrule.train.steps import map_arrays


@dataclass(frozen=True)
class Measures:
    """Norms of what belongs to one layer, or to one parameter: `update` is that of the change by the step."""

    weights: float
    gradient: float
    update: float

    @property
    def ratio(self) -> float:
        """How large the change is against the weights."""
        return self.update / self.weights if self.weights else float("nan")


@dataclass(frozen=True)
class StepMeasures:
    """A step in numbers. `layers` and `parameters` are by path; the gradient is the one that the optimiser got."""

    run: str
    step: int
    epoch: int
    rows: tuple[int, ...]
    loss: float
    learning_rate: float
    gradient_norm: float
    layers: dict[str, Measures]
    parameters: dict[str, Measures]
    exact: bool | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"rows": list(self.rows)}


def measured(course: Course, step: int) -> tuple[StepMeasures, Replayed]:
    """A step of a course, replayed and measured."""
    made = replayed(course, step)
    p, batch, place = course.parts, made.batch, replace(course.place)
    before = course.arrays()
    _, gradients, _, _ = p.steps.gradient(p.model, batch.x, batch.y, batch.weight)
    found = map_arrays(np.array, {name: g for name, g in gradients.items() if g is not None})
    course.put(before, place)  # the generators have moved on
    parameters = {
        name: Measures(norm(made.before[name]), norm(gradient), norm(_change(made, name)))
        for name, gradient in found.items()
    }
    layers: dict[str, list[Measures]] = {}
    for name, one in parameters.items():
        layers.setdefault(name.rpartition(".")[0], []).append(one)
    numbers = {path: _joined(each) for path, each in layers.items()}
    told = StepMeasures(
        made.run.name, step, made.epoch, tuple(made.batch.rows.tolist()), made.loss, made.learning_rate,
        _joined(list(parameters.values())).gradient, numbers, parameters, made.exact,
    )  # fmt: skip
    return told, made


def norm(array: np.ndarray) -> float:
    """The Euclidean norm."""
    return float(np.linalg.norm(np.asarray(array, np.float64)))


def _change(made: Replayed, name: str) -> np.ndarray:
    return np.asarray(made.after[name], np.float64) - np.asarray(made.before[name], np.float64)


def _joined(each: list[Measures]) -> Measures:
    """The norms of several arrays taken as one."""
    return Measures(*[float(np.hypot.reduce([getattr(m, n) for m in each])) for n in ("weights", "gradient", "update")])
