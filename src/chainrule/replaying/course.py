"""The course of a run made again: from a state that it kept, forward by the very steps that it made, to the same bits.

Nothing is written to the run. The steps are those of `fit`: the same compiled function, many at once; rows come in the
order that seed and epoch determine. What `fit` measures between epochs is not measured again; where the learning rate
depends on it, the history of the run tells what it was.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import CheckpointError, ConfigError, Diverged
from chainrule.nn import Module
from chainrule.observe import Observation, observe_call
from chainrule.optim import EMA, LBFGS, Optimizer, ReduceOnPlateau
from chainrule.replaying.states import saved_states
from chainrule.train.batches import Batch, Data, row_order
from chainrule.train.checkpoint import CheckpointWarning
from chainrule.train.chunks import Chunks, spreads
from chainrule.train.criterion import check_loss, criterion, takes_probabilities
from chainrule.train.feed import Feed
from chainrule.train.metrics.choice import as_metrics
from chainrule.train.recorder import STEP_LOSS
from chainrule.train.settings import Settings
from chainrule.train.setup import apply_schedule, check_data, check_model, check_optimizer, float_dtype
from chainrule.train.state import course_arrays, load_course
from chainrule.train.steps import Steps
from chainrule.train.store import Run


class ReplayWarning(UserWarning):
    """A replay did not meet the losses that the run recorded; the message says where, and what may be the cause."""


@dataclass(frozen=True)
class Parts:
    """What a course is made of: what was given to `fit`, checked."""

    model: Module
    optimizer: Optimizer
    data: Data
    steps: Steps
    dtype: dtypes.DType
    ema: EMA | None
    plateau: ReduceOnPlateau | None
    settings: Settings
    loss: Any

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.data.rows // self.settings.batch_size)


@dataclass
class Place:
    """Where a course is: `batch` batches of epoch `epoch` (from 1) are done, and `recorded` rows of the history."""

    epoch: int = 1
    batch: int = 0
    step: int = 0
    recorded: int = 0

    @classmethod
    def of(cls, position: Mapping[str, Any]) -> "Place":
        """From the position that a state was saved with."""
        return cls(*[int(position[name]) for name in ("epoch", "batch", "step", "recorded")])


def make_parts(
    run: Run, model: Any, data: Any, *, loss: Any, optimizer: Any, metrics: Any = (), schedule: Any = None,
    sample_weight: Any = None, ema: EMA | None = None,
) -> Parts:  # fmt: skip
    """The parts of a run, checked, with the plain settings that it remembers."""
    states, _ = saved_states(run)
    known = {} if not states else max(states, key=lambda state: "outputs" in state.values).values
    told = known.get("settings", run.config.get("fit"))
    if told is None:
        raise CheckpointError(f"{run.path} does not know its settings, so that its steps cannot be replayed.")
    settings = Settings.from_json(told)
    model = check_model(model)
    read, _ = check_data(data, None, sample_weight, settings.class_weight)
    _check_data(run, known, read)
    optimizer = check_optimizer(optimizer, model, settings.clip_norm)
    plateau = apply_schedule(optimizer, schedule)
    if ema is not None and ema.state is None:
        ema.init(model)
    # Whether a step hands out its predictions belongs to what was compiled.
    given = bool(as_metrics(metrics, takes_probabilities(loss)))
    outputs = bool(known.get("outputs", run.config.get("metrics", given)))
    objective = criterion(check_loss(loss), read.weight is not None)
    steps = Steps(
        objective, settings.engine, settings.clip_norm, outputs, settings.threads, settings.precision
    )  # fmt: skip
    return Parts(model, optimizer, read, steps, float_dtype(model), ema, plateau, settings, loss)


def _check_data(run: Run, known: Mapping[str, Any], data: Data) -> None:
    expected = known.get("data", {}).get("data")
    if expected is not None and data.fingerprint() != expected:
        raise CheckpointError(
            f"The data given now are not what {run.path} was trained with: shapes, dtypes or values differ. "
            "A replay needs the very same rows in the same order, with the same weights."
        )


class Course:
    """A run on its way once more. `made` counts the steps that were made, `agreed` those whose recorded loss was met.

    `differing` is the first step whose loss is not the recorded one, and both losses.
    """

    def __init__(self, run: Run, parts: Parts) -> None:
        self.run, self.parts = run, parts
        history = run.history()
        self.losses = {row["step"]: row[STEP_LOSS] for row in history if STEP_LOSS in row}
        self.rows = [row for row in history if "loss" in row]
        self.states, self.damage = saved_states(run)
        self.first = course_arrays(parts.model, parts.optimizer, parts.ema, parts.plateau)
        self.place = Place()
        self.start = -1  # the step of the state that was gone back to
        self.given = False  # whether that is the model as it was given
        self.made = self.agreed = 0
        self.differing: tuple[int, float, float] | None = None
        self.walked: dict[int, float] = {}
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def done(self) -> int:
        """How many steps the run has made."""
        return max([0, *self.losses, *[row["step"] for row in self.rows], *[state.step for state in self.states]])

    @property
    def last(self) -> int:
        """The last step that can be replayed: of a run that failed, the one that failed."""
        return self.done + (self.run.status == "failed")

    def check(self, step: Any, name: str = "Step") -> int:
        """The step, if the run has made it; ConfigError says which it has."""
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
            raise ConfigError(f"{name}: the number of a step, from 1, was expected; got {step!r}.")
        if not 1 <= step <= self.last:
            made = f"has made the steps 1 to {self.last}" if self.last else "has made no step yet"
            raise ConfigError(f"{name} {step} is out of range: {self.run.path} {made}.")
        return int(step)

    @property
    def watched(self) -> bool:
        """Whether the compiled step looks out for values that are not finite, as in `fit`: it belongs to the step."""
        return not (self.parts.steps.chunked and spreads(self.parts.optimizer))

    # -- going back

    def go_back(self, step: int) -> None:
        """Be where the run was after so many steps, or at the nearest state before that is kept."""
        for state in [s for s in reversed(self.states) if s.step <= step]:
            try:
                tensors = state.read()
            except CheckpointError as error:
                self.damage.append(str(error))
                self.states.remove(state)
                continue
            self._warn_of_damage(f"the state after step {state.step} is used instead")
            self.put(tensors, Place.of(state.values["position"]))
            self.start, self.given = state.step, False
            return
        # Model and optimiser as they were given are those that the run began with, if they were made in the same way.
        self._warn_of_damage("the model is taken as it was given")
        self.put(self.first, Place())
        self.parts.model.seed(self.parts.settings.seed)
        self.start, self.given = 0, True

    def _warn_of_damage(self, instead: str) -> None:
        if self.damage:
            message = f"{'; '.join(self.damage)} For this replay {instead}."
            self.damage = []
            warnings.warn(message, CheckpointWarning, stacklevel=4)

    def put(self, tensors: Mapping[str, np.ndarray], place: Place) -> None:
        """Be at a state."""
        p = self.parts
        load_course(p.model, p.optimizer, p.ema, p.plateau, tensors)
        if not p.model.training:
            p.model.train()
        self.place = replace(place)

    def arrays(self) -> dict[str, np.ndarray]:
        """The state now, copied."""
        p = self.parts
        return {k: x.copy() for k, x in course_arrays(p.model, p.optimizer, p.ema, p.plateau).items()}

    # -- going forward

    def forward(self, step: int) -> dict[int, float]:
        """Make the steps up to this one; their losses by step. Raises Diverged where the run did."""
        self.walked = {}
        with self._chunks() as chunks:
            self._turn()
            while self.place.step < step:
                self._advance(chunks, step - self.place.step)
                self._turn()
        return self.walked

    def make(self) -> float:
        """Make one step, even one that `fit` stopped before; its loss."""
        p, batch = self.parts, self.batch()
        with self._chunks() as chunks:
            ran = None if chunks is None else chunks.run(self._rows(), self.place.batch, 1)
        if ran is not None and ran.error is not None:
            raise ran.error
        if ran is not None and len(ran.losses):
            loss = float(ran.losses[0])
        else:  # by itself, or undone since something was not finite
            loss = p.steps.train(p.model, p.optimizer, p.ema, batch).loss
        self._count(np.asarray([loss]))
        return loss

    def look(self) -> Observation:
        """Every value of the next step, which is not made."""
        p, batch = self.parts, self.batch()
        if isinstance(p.optimizer, LBFGS):
            return observe_call(p.steps.gradient, p.model, batch.x, batch.y, batch.weight)
        return observe_call(
            p.steps.training, p.model, p.optimizer, p.ema, batch.x, batch.y, batch.weight, self.watched
        )  # fmt: skip

    def batch(self) -> Batch:
        """The batch of the next step."""
        self._turn()
        size, p = self.parts.settings.batch_size, self.parts
        return p.data.gather(self._rows()[self.place.batch * size :][:size], p.dtype)

    @contextmanager
    def _chunks(self) -> Iterator[Chunks | None]:
        """Many steps at once, where `fit` makes them so."""
        p = self.parts
        if not p.steps.chunked or isinstance(p.optimizer, LBFGS):
            yield None
            return
        chunks = Chunks(
            p.steps.training, lambda b: (p.model, p.optimizer, p.ema, b.x, b.y, b.weight, self.watched),
            Feed(p.data, p.dtype), p.settings.batch_size, trains=True,
        )  # fmt: skip
        try:
            yield chunks
        finally:
            chunks.close()

    def _advance(self, chunks: Chunks | None, most: int) -> None:
        p, rows = self.parts, self._rows()
        most = min(most, self._until_row())
        ran = None if chunks is None else chunks.run(rows, self.place.batch, most)
        if ran is None:
            outcome = p.steps.train(p.model, p.optimizer, p.ema, self.batch())
            self._count(np.asarray([outcome.loss]))
            return
        self._count(ran.losses)
        if ran.error is not None:
            raise ran.error
        if ran.bad is not None:
            raise Diverged(f"step {self.place.step + 1} of {self.run.path}: the loss is {ran.bad}. It ended there.")

    def _until_row(self) -> int:
        """How many steps may follow until the run wrote a row of its history."""
        if self.parts.plateau is None or self.place.recorded >= len(self.rows):
            return self.parts.batches
        return max(1, int(self.rows[self.place.recorded]["step"]) - self.place.step)

    def _turn(self) -> None:
        """What followed the present step before the next: the rate was lowered, another epoch begun."""
        place = self.place
        while place.recorded < len(self.rows) and self.rows[place.recorded]["step"] <= place.step:
            if self.parts.plateau is not None:
                self._lower(self.rows[place.recorded])
            place.recorded += 1
        if place.batch >= self.parts.batches:
            place.epoch, place.batch = place.epoch + 1, 0

    def _lower(self, row: Mapping[str, Any]) -> None:
        assert self.parts.plateau is not None
        if self.run.monitor not in row:
            raise CheckpointError(
                f"The history of {self.run.path} has no {self.run.monitor} at step {row['step']}, on which the "
                "learning rate depends: metrics.sqlite was changed or lost."
            )
        self.parts.plateau.update(row[self.run.monitor])

    def _rows(self) -> np.ndarray:
        """The order of the rows in the present epoch."""
        epoch, settings = self.place.epoch, self.parts.settings
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, row_order(settings.seed, epoch, self.parts.data.rows, settings.shuffle)
        return self._order[1]

    def _count(self, losses: np.ndarray) -> None:
        place = self.place
        for k, loss in enumerate(losses.tolist(), place.step + 1):
            self.walked[k] = loss
            recorded = self.losses.get(k)
            if recorded is not None:
                same = loss == recorded or (loss != loss and recorded != recorded)
                self.agreed += same
                if not same and self.differing is None:
                    self.differing = k, loss, recorded
        place.step, place.batch = place.step + len(losses), place.batch + len(losses)
        self.made += len(losses)

    def verdict(self) -> bool | None:
        """Whether all losses were those that the run recorded; None where none was recorded.

        Where they were not, that is warned of; CheckpointError if the model as given was taken for the first state.
        """
        if self.differing is None:
            return True if self.agreed else None
        step, loss, recorded = self.differing
        told = f"The replay of step {step} of {self.run.path} gave the loss {loss!r}, the run recorded {recorded!r}."
        if self.given:
            raise CheckpointError(
                f"{told} No state before that step is kept, and the model as it was given is not what the run began "
                "with: make model and optimiser in the same way, with the same seeds."
            )
        warnings.warn(
            f"{told} Is anything given now (loss, schedule, ema, data) not what was given to fit, did a callback "
            "change the model, or was it another kind of processor? What follows is not the run to the bit.",
            ReplayWarning,
            stacklevel=3,
        )
        return False
