"""The state of an optimiser as names and tensors, and back, to the bit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import StateError
from chainrule.optim.settings import listed


def state_tensors(state: Any) -> dict[str, Tensor]:
    """All tensors of a tree by path."""
    return {leaf.path: leaf.value for leaf in tree.flatten(state).leaves}


def restored(own: Any, given: Mapping[str, Any], owner: str) -> Any:
    """The tree `own` with the tensors (or arrays) that `given` names; StateError unless names, shapes, dtypes agree."""
    flat = tree.flatten(own)
    saved = {name: as_saved(name, x) for name, x in given.items()}
    problems = []
    missing = [leaf.path for leaf in flat.leaves if leaf.path not in saved]
    unexpected = sorted(set(saved) - {leaf.path for leaf in flat.leaves})
    if missing:
        problems.append(f"missing: {listed(missing)}")
    if unexpected:
        problems.append(f"unexpected: {listed(unexpected)}")
    for path, old, _ in flat.leaves:
        new = saved.get(path)
        if new is not None and (new.shape, new.dtype) != (old.shape, old.dtype):
            was, wanted = f"{new.dtype.name}{list(new.shape)}", f"{old.dtype.name}{list(old.shape)}"
            problems.append(f"{path} is {was} in the state and {wanted} here")
    if problems:
        raise StateError(f"The state does not fit this {owner}; nothing was loaded. {'; '.join(problems)}.")
    return tree.build(flat, [saved[leaf.path] for leaf in flat.leaves])


def shared(state: Any, group: Callable[[str, Tensor], Any]) -> Any:
    """The state, a nesting of dicts, in which equal numbers {name: number} of one group are one tensor again.

    The group of a number is what `group(name, number)` says; None for one that stays by itself.
    """
    if not isinstance(state, dict):
        return state
    made: dict[Any, Tensor] = {}
    result: dict[str, Any] = {}
    for name, x in state.items():
        label = group(name, x) if isinstance(x, Tensor) and not x.shape else None
        if label is None:
            result[name] = shared(x, group)
        else:
            result[name] = made.setdefault((label, x.dtype, np.asarray(x).tobytes()), x)
    return result


def as_saved(name: str, x: Any) -> Tensor:
    """A copy of a saved tensor or array, of its own dtype."""
    if not isinstance(x, (Tensor, np.ndarray, np.generic)):
        raise StateError(f"{name} of the state is no tensor or array but {x!r:.80}.")
    value = np.array(x.known("load_state_dict") if isinstance(x, Tensor) else x)
    if value.dtype not in dtypes.ALL:
        raise StateError(f"{name} of the state has the unknown dtype {value.dtype}.")
    return wrap(value)
