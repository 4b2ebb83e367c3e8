"""The states that a run kept: its milestones, and its checkpoints where there is no milestone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import CheckpointError
from chainrule.train.checkpoint import list_checkpoints, load_checkpoint, peek_state
from chainrule.train.milestones import list_milestones
from chainrule.train.store import Run


@dataclass(frozen=True)
class Saved:
    """A state after so many steps. `values` is what its header holds; `digests` is empty for a checkpoint."""

    step: int
    path: Path
    values: Mapping[str, Any]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of the weights and of the whole state."""
        return dict(self.values.get("digests", {}))

    def read(self) -> dict[str, np.ndarray]:
        """Its arrays; CheckpointError where they are damaged or gone."""
        try:
            tensors = load_checkpoint(self.path.parent, self.step).tensors
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} is gone.") from None
        return {name: x for name, x in tensors.items() if not name.startswith(("average.", "metric."))}


def saved_states(run: Run) -> tuple[list[Saved], list[str]]:
    """All that can be gone back to, by step (of one step the milestone last), and what is wrong with the others."""
    milestones, damage = list_milestones(run.path)
    found = []
    if run.checkpoints.is_dir():
        for info in list_checkpoints(run.checkpoints):
            if info.damage:
                damage.append(f"{info.path} is damaged: {info.damage}.")
            else:
                try:
                    values = peek_state(info.path)
                except FileNotFoundError:
                    continue  # pruned meanwhile
                if values.keys() >= {"position", "settings", "data"}:
                    found.append(Saved(info.step, info.path, values))
    found += [Saved(step, m.path, m.values) for step, m in milestones.items()]
    return sorted(found, key=lambda state: state.step), damage
