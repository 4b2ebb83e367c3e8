"""What a training writes to its run: the history, the loss of steps, checkpoints, lines for people. Or nothing."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.checkpoint import Checkpoint
from chainrule.train.divergence import TrainingDiverged
from chainrule.train.history import History
from chainrule.train.milestones import Milestones, folder_of
from chainrule.train.store import Run

KEPT = 3  # checkpoints, beside the best
STEP_LOSS = "batch_loss"
STEP_LOSSES = 50  # losses of steps written an epoch, at least, at the beginning of a run
FREQUENT = 2048  # of them; then every second one, and half as many again each time there are twice as many steps


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: arrays by name, and JSON values."""

    step: int
    tensors: dict[str, np.ndarray]
    values: dict[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "State":
        """The content of a checkpoint; CheckpointError when `fit` did not write it."""
        if not checkpoint.state.keys() >= {"position", "rules", "callbacks", "data", "settings"}:
            raise CheckpointError(f"{checkpoint.path} was not written by a training. Choose another run.")
        return cls(checkpoint.step, checkpoint.tensors, checkpoint.state)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with `prefix.`, without it."""
        return {name[len(prefix) + 1 :]: x for name, x in self.tensors.items() if name.startswith(f"{prefix}.")}


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: every so many steps, or seconds."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: Any) -> "Every":
        """From a number of steps, or text: '500 steps', '30 seconds', '30 s', '5 min'. ConfigError for others."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return cls(steps=value)
        match = (
            re.fullmatch(r"(\d+(?:\.\d*)?)\s*(steps?|s|seconds?|min|minutes?)", value)
            if isinstance(value, str)
            else None
        )
        if match is None or not float(match[1]) > 0 or (match[2].startswith("step") and not match[1].isdigit()):
            raise ConfigError(
                f"checkpoint_every={value!r}: give a number of steps, or text such as '500 steps', '30 s' or '5 min'."
            )
        if match[2].startswith("step"):
            return cls(steps=int(match[1]))
        return cls(seconds=float(match[1]) * (60 if match[2].startswith("min") else 1))


class Recorder:
    """Writes to a run, or, without one, nowhere.

    The best state is held back until the next checkpoint is due: it is written before that one, and a run that improves
    every few milliseconds does not wait for the disk each time.
    """

    def __init__(self, every: Every) -> None:
        self.every = every
        self.run: Run | None = None
        self.fingerprint: dict[str, Any] = {}
        self.step_loss_every = 1
        self.best: State | None = None
        self.saved_at = time.monotonic()
        self.saved_step = -1
        self.between = (0, 0)  # of no step between these two, which were looked for last, the loss is written
        self.milestones: Milestones | None = None

    def attach(self, run: Run, fingerprint: dict[str, Any], batches: int) -> None:
        """Write to this run. `fingerprint` tells the data; `batches` is their number in an epoch."""
        self.run, self.fingerprint = run, fingerprint
        self.step_loss_every = max(1, batches // STEP_LOSSES)

    def keep_milestones(self, state_bytes: int, budget: int) -> None:
        """Let the run keep milestones of states of this size, of no more bytes than that in all."""
        if self.run is not None and budget:
            self.milestones = Milestones(folder_of(self.run.path), state_bytes, budget)
            if not self.milestones.most:
                self.run.log(
                    f"keeps no milestones, so replaying a step takes longer: one takes {state_bytes / 1e6:,.0f} MB "
                    f"of the {budget / 1e6:,.0f} MB that milestones= allows"
                )

    @property
    def wanted(self) -> bool:
        """Whether anything is written."""
        return self.run is not None

    def log(self, text: str) -> None:
        """A line for people."""
        if self.run is not None:
            self.run.log(text)

    def lost(self, error: TrainingDiverged, epoch: int) -> None:
        """Say in the message how to look at the step again, and keep what was found."""
        if self.run is not None:
            self.run.record_diagnosis(error.step, epoch, error.diagnosis())
            by_command = f"chainrule replay {self.run.path} --step {error.step}"
            by_code = f"cr.replay({str(self.run.path)!r}, model, data, ..., step={error.step})"
            error.args = (f"{error}\nreplay it: {by_command if 'source' in self.run.config else by_code}",)

    def losses(self, step: int, epoch: int, losses: np.ndarray) -> None:
        """The losses of batches, the first of which was that of `step`; some of them are written: the longer the run,
        the fewer, since writing one takes longer than a step of a small network."""
        after = step + len(losses)
        if self.run is None or (self.between[0] < step and after <= self.between[1]):
            return
        points = []
        next_step = step
        while True:
            every = self.step_loss_every << (next_step // (FREQUENT * self.step_loss_every)).bit_length()
            next_step += -next_step % every  # the steps from which on there are fewer are multiples of both
            if next_step >= after:
                break
            points.append((next_step, float(losses[next_step - step])))
            next_step += 1
        self.between = after - 1, next_step
        if points:
            self.run.record_series(STEP_LOSS, epoch, points)

    def until_due(self, step: int) -> float:
        """How many steps may follow until a checkpoint or a milestone is due by their number."""
        every = self.every.steps
        checkpoint = math.inf if self.run is None or every is None else every - step % every
        return checkpoint if self.milestones is None else min(checkpoint, self.milestones.until_due(step))

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the history."""
        if self.run is not None:
            self.run.record(**row)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written now."""
        if self.run is None:
            return False
        if self.every.steps is not None:
            return step % self.every.steps == 0 and step != self.saved_step
        return time.monotonic() - self.saved_at >= (self.every.seconds or 0.0)

    def save(self, state: State, is_best: bool = False) -> None:
        """Write a checkpoint, and before it the best state if that is new and another one."""
        if self.run is None:
            return
        best, self.best = self.best, None
        if best is not None and best.step != state.step:
            self.run.save(best.step, best.tensors, best.values, best=True)
        self.run.save(state.step, state.tensors, state.values, best=is_best, keep=KEPT)
        self.saved_at, self.saved_step = time.monotonic(), state.step

    def history(self, rows: int) -> History:
        """The first `rows` rows of the history that the run holds."""
        assert self.run is not None
        found = [row for row in self.run.history() if "loss" in row][:rows]
        if len(found) < rows:
            raise CheckpointError(
                f"{self.run.path} holds {len(found)} rows of history, but its checkpoint was written "
                f"after {rows}: metrics.sqlite was changed or lost. Resume an earlier checkpoint."
            )
        names = [[name for name in row if name not in (STEP_LOSS, "step", "epoch")] for row in found]
        return History(
            {"epoch": row["epoch"], "step": row["step"]} | {name: row[name] for name in own}
            for row, own in zip(found, names, strict=True)
        )
