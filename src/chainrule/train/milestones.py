"""Milestones: states from all along the way of a run, so that any of its steps can soon be made again.

    runs/digits-1/milestones/step-000000128.safetensors

The files are written as checkpoints are, but without waiting for the disk, and they are for going back, never for
going on: `resume` does not look at them.

Which steps have one follows from the number of steps, their work and the size of the state, never from the clock: two
equal runs have milestones at the same steps. At step n those of the multiples of `spacing(n)` are kept. The spacing
doubles as the run grows, so that there are no more of them than `MOST`, nor than the budget allows; any step is then at
most about a sixteenth of the run away from the milestone before it, or one that is made again in no time: where steps
take microseconds, writing one state takes longer than a thousand steps. So behind the first steps milestones are so far
apart that the steps between two take a hundred times as long as writing one, by the work in a step and a fast machine.

The header of each holds digests of the weights and of the whole state: whether two runs were in the same state is told
without reading an array.
"""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import CheckpointError
from chainrule.train.checkpoint import checkpoint_files, delete_checkpoints_after, peek_state, save_checkpoint

MOST = 33  # milestones that are kept: that of step 0, and 32 others
FIRST = 64  # steps between two of them at first, which are made again in no time
CHEAP = 1 << 18  # bytes of a state up to which that is fine; larger ones are further apart
WIDEST = 16  # times as far apart, at most: large states belong to slow steps
EARLY = 2048  # steps up to which the work of a step makes no difference
WRITING, WRITING_BYTE = 2e-3, 3e-9  # seconds to write one, and each byte of it, at most
RARE = 100  # times as long should pass between two, behind the early ones


@dataclass(frozen=True)
class Milestone:
    """What can be told about a milestone without reading its arrays. `values` is what the header holds."""

    step: int
    path: Path
    values: Mapping[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        """See `digests`."""
        return dict(self.values["digests"])


class Milestones:
    """Says which steps of a run get one, and writes them.

    >>> from pathlib import Path
    >>> from chainrule.train.milestones import Milestones
    >>> small = Milestones(Path("milestones"), state_bytes=1000, budget=1 << 20)
    >>> small.due(0), small.until_due(0), small.due(64), small.due(2112), small.due(2176)
    (True, 64, True, False, True)
    >>> [small.spacing(step) for step in (64, 2048, 2049, 4096, 100_000)]
    [64, 64, 64, 128, 4096]
    >>> small.expect(seconds=1e-4)
    >>> [small.spacing(step) for step in (64, 2048, 2049, 4096, 100_000)]
    [64, 64, 2048, 2048, 4096]
    """

    def __init__(self, folder: Path, state_bytes: int, budget: int) -> None:
        self.folder = folder
        self.most = min(MOST, budget // max(1, state_bytes))
        self.state_bytes = state_bytes
        self.apart = 1  # steps between two behind the first ones, at least
        self.between = (0, 0)  # no step between these two, which were looked for last, has one
        self.first = FIRST * min(WIDEST, 1 << max(0, math.ceil(math.log2(max(1, state_bytes) / CHEAP))))

    def expect(self, seconds: float) -> None:
        """A step should take so long, by the work in it."""
        writing = WRITING + WRITING_BYTE * self.state_bytes
        self.apart = math.ceil(RARE * writing / max(seconds, 1e-9))
        self.between = (0, 0)

    def spacing(self, step: int) -> int:
        """How many steps are between two milestones in a run of so many steps."""
        spacing = self.first
        while step > EARLY and spacing < self.apart:
            spacing *= 2
        while step // spacing + 1 > max(self.most, 1):
            spacing *= 2
        return spacing

    def due(self, step: int) -> bool:
        """Whether this step has one."""
        if self.between[0] < step < self.between[1]:  # asked for after every chunk of steps
            return False
        return self.most > 0 and step % self.spacing(step) == 0

    def until_due(self, step: int) -> float:
        """How many steps may follow until one is due."""
        if self.most < 2:
            return math.inf
        if not self.between[0] <= step < self.between[1]:
            spacing = self.spacing(step)
            while (wider := self.spacing((step // spacing + 1) * spacing)) != spacing:
                spacing = wider
            self.between = step, step - step % spacing + spacing
        return self.between[1] - step

    def save(self, step: int, tensors: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Write one, and delete those that have become too many."""
        save_checkpoint(self.folder, step, tensors, {**values, "digests": digests(tensors)}, sync=False)
        spacing = self.spacing(step)
        if spacing == self.spacing(max(0, step - spacing)):
            return
        for earlier, path in checkpoint_files(self.folder).items():
            if earlier % spacing:
                with suppress(FileNotFoundError, PermissionError):
                    path.unlink()


def folder_of(run: Path) -> Path:
    """Where the milestones of a run are."""
    return run / "milestones"


def digests(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """One digest of the model ('weights': parameters, buffers, generators) and one of everything ('state').

    >>> import numpy as np
    >>> from chainrule.train.milestones import digests
    >>> one, other = ({"model.weight": np.ones(2), "optimizer.step": np.array(step)} for step in (1, 2))
    >>> [digests(one)[name] == digests(other)[name] for name in ("weights", "state")]
    [True, False]
    """
    weights = {name: array for name, array in tensors.items() if name.startswith("model.")}
    model = _digest(weights)
    rest = _digest({name: array for name, array in tensors.items() if name not in weights})
    return {"weights": model, "state": hashlib.sha256(f"{model} {rest}".encode()).hexdigest()}


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    result = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        result.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        result.update(array.reshape(-1).view(np.uint8).data)
    return result.hexdigest()


def list_milestones(run: Path) -> tuple[dict[int, Milestone], list[str]]:
    """The milestones of a run by step, and what is wrong with those that are damaged, as far as their headers tell."""
    found, damage = {}, []
    if folder_of(run).is_dir():
        for step, path in checkpoint_files(folder_of(run)).items():
            try:
                values = peek_state(path)
                if not values.keys() >= {"position", "digests", "data", "settings", "outputs"}:
                    raise CheckpointError(f"{path} was not written by a training.")
                found[step] = Milestone(step, path, values)
            except FileNotFoundError:
                continue  # thinned out meanwhile
            except CheckpointError as error:
                damage.append(str(error))
    return found, damage


def forget_after(run: Path, step: int) -> None:
    """Delete those of later steps: a run that is resumed from an earlier one makes them anew."""
    if folder_of(run).is_dir():
        delete_checkpoints_after(folder_of(run), step)
