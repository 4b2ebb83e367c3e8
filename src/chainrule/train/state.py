"""The tensors of a model and what goes with it: as named arrays and back to the bit, and undone after a bad step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule import tree
from chainrule.core.autodiff import as_role
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import CheckpointError, ConfigError
from chainrule.nn import Module
from chainrule.optim import EMA, Optimizer, ReduceOnPlateau

SHOWN = 5  # differences listed in a message


def arrays_of(thing: Any, prefix: str) -> dict[str, np.ndarray]:
    """All tensors of a Module (parameters, buffers, generators, others) by path. Nothing is copied.

    >>> from chainrule import nn
    >>> from chainrule.train.state import arrays_of
    >>> list(arrays_of(nn.Linear(2, 1), "model"))
    ['model.weight', 'model.bias']
    """
    leaves = tree.flatten(thing, prefix).leaves
    found = {leaf.path: np.asarray(leaf.value) for leaf in leaves}
    if len(found) != len(leaves):
        names = [leaf.path for leaf in leaves]
        raise ConfigError(f"Two tensors have the path {next(n for n in names if names.count(n) > 1)!r}. Rename one.")
    return found


def load_arrays(thing: Any, prefix: str, arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Put the arrays back in the places of the tensors, in place. CheckpointError, and no change, unless all fit."""
    flat = tree.flatten(thing, prefix)
    given = {name: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
    own = {leaf.path: leaf for leaf in flat.leaves}
    wrong = []
    for name, leaf in own.items():
        if name in given and (tuple(leaf.value.shape), leaf.value.dtype) != (given[name].shape, given[name].dtype):
            wrong.append(f"{name} is {_kind(given[name])} in the checkpoint and {_kind(leaf.value)} in the {what}")
    wrong += [f"{name} is missing" for name in own if name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in own]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise CheckpointError(
            f"The checkpoint does not fit this {what}: {'; '.join(wrong[:SHOWN])}{more}. "
            f"Build the {what} as it was built for the run."
        )
    new_leaves = []
    for leaf in flat.leaves:
        array = np.array(given[leaf.path])
        new_leaves.append(as_role(wrap(array), leaf.role) if isinstance(leaf.value, Tensor) else array)
    tree.build(flat, new_leaves, in_place=True)


def course_arrays(
    model: Module, optimizer: Optimizer, ema: EMA | None, plateau: ReduceOnPlateau | None
) -> dict[str, np.ndarray]:
    """All that the course of a training depends on, by name: model, optimiser, averages, what lowers the rate."""
    tensors = arrays_of(model, "model")
    tensors |= {f"optimizer.{name}": np.asarray(x) for name, x in optimizer.state_dict().items()}
    if ema is not None:
        tensors |= arrays_of(ema, "ema")
    if plateau is not None:
        tensors |= {f"plateau.{name}": np.asarray(x) for name, x in plateau.state_dict().items()}
    return tensors


def load_course(
    model: Module, optimizer: Optimizer, ema: EMA | None, plateau: ReduceOnPlateau | None,
    tensors: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """Take back what `course_arrays` returned. CheckpointError or StateError where it does not fit."""
    load_arrays(model, "model", tensors, "model")
    optimizer.load_state_dict(_part(tensors, "optimizer"))
    if ema is not None:
        load_arrays(ema, "ema", tensors, "average of weights")
    if plateau is not None:
        plateau.load_state_dict(_part(tensors, "plateau"))


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) + 1 :]: array for name, array in tensors.items() if name.startswith(f"{prefix}.")}


def _kind(x: Any) -> str:
    return f"{x.dtype.name}{list(x.shape)}"


class Snapshot:
    """What Modules, optimisers and generators are made of at one moment; nothing is copied, since tensors never change.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> from chainrule.train.state import Snapshot
    >>> layer = nn.Linear(1, 1)
    >>> before, weight = Snapshot(Snapshot.objects_of(layer)), layer.weight
    >>> layer.assign({"weight": cr.tensor([[7.0]])})
    >>> before.restore()
    >>> layer.weight is weight
    True
    """

    def __init__(self, objects: list[tree.Stateful]) -> None:
        self.saved = [(thing, dict(vars(thing))) for thing in objects]

    @staticmethod
    def objects_of(*things: Any) -> list[tree.Stateful]:
        """Every Stateful object in `things`: what a Snapshot is taken of."""
        return tree.flatten(list(things)).objects

    def restore(self) -> None:
        """Make everything as it was."""
        for thing, attributes in self.saved:
            vars(thing).clear()
            vars(thing).update(attributes)
