"""What `train` and `resume` show around a training: the plan before it, the outcome and the next commands after it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainrule.cli import display
from chainrule.cli.network import Network
from chainrule.cli.recipe import Recipe
from chainrule.cli.results import Part, answering, show
from chainrule.data.findings import counted
from chainrule.errors import ChainruleError
from chainrule.train.files import atomic_write
from chainrule.train.fit import FitResult
from chainrule.train.progress import rate
from chainrule.train.setup import find_progress
from chainrule.train.store import Run

if TYPE_CHECKING:
    from chainrule.data import Prepared

MOST_NOTES = 12
ENGINE_TITLES = {"reference": "reference (NumPy)", "native": "native (machine code for this processor)"}


class Interruption(ChainruleError):
    """A signal ended the training; the message says how to go on, `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Live:
    """The display of `fit`, without its last line: what it says there is told with the results, and about commands."""

    def __init__(self, silent: bool) -> None:
        inner = find_progress("silent" if silent else "auto")
        self.start, self.step, self.epoch, self._inner = inner.start, inner.step, inner.epoch, inner
        self.say = getattr(inner, "say", None)

    def finish(self, message: str) -> None:
        """End the display."""
        self._inner.finish("")


def plan(prepared: "Prepared", network: Network, recipe: Recipe, parameters: int) -> None:
    """What was found in the data, and what will be done."""
    for line in prepared.summary:
        display.say(line)
    notes(prepared.notes)
    display.field("network", network.line(parameters))
    display.field("training", recipe.line())
    engine = recipe.options.engine
    display.field("engine", ENGINE_TITLES.get(engine, engine))
    display.say()


def notes(sentences: tuple[str, ...] | list[str]) -> None:
    """What was repaired or noticed, a line each."""
    for sentence in sentences[:MOST_NOTES]:
        display.say(f"  · {sentence}", "yellow")
    if len(sentences) > MOST_NOTES:
        display.say(f"  · and {len(sentences) - MOST_NOTES} more: see log.txt of the run", "yellow")


@dataclass(frozen=True)
class Outcome:
    """A training that has ended: scores by part of the data, and all that there is to tell."""

    result: FitResult
    prepared: "Prepared"
    network: Network
    parts: tuple[Part, ...]
    scores: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, result: FitResult, prepared: "Prepared", network: Network, recipe: Recipe) -> "Outcome":
        """Score the network on every part of the data that has rows."""
        parts = parts_of(result.model, prepared, recipe.options.engine)
        scores = {part.name: part.scores(prepared.preparation, recipe.loss_function()) for part in parts}
        return cls(result, prepared, network, parts, scores)

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        r = self.result
        return {
            "run": str(r.run),
            "task": self.prepared.task,
            "target": self.prepared.preparation.target_name,
            "rows": {part.name: len(part.truth) for part in self.parts},
            "network": self.network.to_json(),
            "parameters": r.model.parameter_count(),
            "reason": r.reason,
            "epochs": r.epochs,
            "steps": r.steps,
            "best_epoch": r.best_epoch,
            "seconds": r.seconds,
            "rows_per_second": r.rows_per_second,
            "device": r.device,
            "scores": self.scores,
            "notes": list(self.prepared.notes),
        }

    def tell(self, as_json: bool, quiet: bool) -> None:
        """Show it, and keep it beside the run as results.json."""
        value = display.finite(self.as_json())
        if self.result.run is not None:
            atomic_write(self.result.run / "results.json", json.dumps(value, ensure_ascii=False, indent=1).encode())
        if as_json:
            display.print_json(value)
            return
        r = self.result
        kept = f"; weights of epoch {r.best_epoch} kept" if r.best_epoch else ""
        display.say(f"stopped: {r.reason}{kept}")
        show(self.parts, self.scores, self.prepared.preparation)
        if r.rows_per_second:
            display.field("speed", f"{rate(r.rows_per_second)} rows/s" + (f" on {r.device}" if r.device else ""))
        display.field("run", f"{r.run}   ({counted(r.epochs, 'epoch')} in {display.duration(r.seconds)})")
        if not quiet:
            name = shlex.quote(str(r.run))
            display.say()
            display.say(
                f"next: chainrule predict {name} FILE · chainrule evaluate {name} · chainrule explain {name}", "dim"
            )


def parts_of(model: Any, prepared: "Prepared", engine: str) -> tuple[Part, ...]:
    """The parts of the data that have rows, with the answers of the network."""
    arrays = {
        "train": (prepared.x_train, prepared.y_train),
        "validation": (prepared.x_validation, prepared.y_validation),
        "test": (prepared.x_test, prepared.y_test),
    }
    answer = answering(model, engine)
    return tuple(Part(name, y, answer(x)) for name, (x, y) in arrays.items() if len(x))


def interruption(run: Run, code: int, what: str) -> Interruption:
    """What to tell when a signal has ended the training."""
    where = shlex.quote(str(run.path))
    return Interruption(
        f"{what}: training is interrupted, and everything is saved.\nGo on with: chainrule resume {where}", code
    )


def fit_data(prepared: "Prepared") -> tuple[Any, Any]:
    """The training part and the validation part (None where it has no rows) as `fit` takes them."""
    validation = (prepared.x_validation, prepared.y_validation) if len(prepared.x_validation) else None
    return (prepared.x_train, prepared.y_train), validation
