"""Comparing a saved state with a model: what fits, and one message that says all that does not."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor, tensor, wrap
from chainrule.errors import StateError

SHOWN = 10  # names listed a kind of difference


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class LoadReport(_Keys):
    """What `load_state_dict` found: `missing, unexpected = report`, and `converted` {name: 'float64 to float32'}."""

    converted: dict[str, str]

    def __repr__(self) -> str:
        converted = f", converted={self.converted}" if self.converted else ""
        return f"LoadReport(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys}{converted})"


def close_names(name: str, known: Iterable[str]) -> str:
    """A hint ' Did you mean ...?' for a name that is not known, or ''."""
    close = difflib.get_close_matches(name, [k for k in known if k], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def compare(
    label: str, own: Mapping[str, Tensor], state: Mapping[str, Any], strict: bool
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of `state` that replace those of `own`, converted to their dtypes; StateError lists what differs."""
    given = {name: _as_tensor(name, value) for name, value in state.items()}
    names: dict[int, list[str]] = {}  # of each tensor; several when it is tied
    for name, x in own.items():
        names.setdefault(id(x), []).append(name)
    missing = [name for name, x in own.items() if not any(tied in given for tied in names[id(x)])]
    unexpected = [name for name in given if name not in own]
    new: dict[str, Tensor] = {}
    converted: dict[str, str] = {}
    wrong: list[str] = []
    for name, x in given.items():
        if name not in own:
            continue
        old = own[name]
        if x.shape != old.shape:
            wrong.append(f"{name} has shape {x.shape} in the state and {old.shape} in the model")
        elif not _convertible(x.dtype, old.dtype):
            wrong.append(f"{name} is {x.dtype.name} in the state and {old.dtype.name} in the model")
        else:
            if x.dtype != old.dtype:
                converted[name] = f"{x.dtype.name} to {old.dtype.name}"
            new[name] = x.astype(old.dtype)
    wrong += _torn(names, new)
    if wrong or (strict and (missing or unexpected)):
        hints = [f"{name}{close_names(name, missing)}" for name in unexpected]
        missing_shapes = [f"{name} of shape {own[name].shape}" for name in missing]
        parts = [("missing", missing_shapes), ("unexpected", hints), ("does not fit", wrong)]
        lines = [_listed(title, items) for title, items in parts if items and (strict or title == "does not fit")]
        raise StateError(f"The state does not fit {label}; nothing was loaded.\n" + "\n".join(lines))
    report = LoadReport(missing, unexpected)
    report.converted = converted
    return new, report


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return wrap(np.array(value)) if isinstance(value, (np.ndarray, np.generic)) else tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise StateError(f"{name} of the state is no tensor or array: {error}") from error


def _convertible(given: dtypes.DType, own: dtypes.DType) -> bool:
    """Floats take anything but lose nothing of their kind; integers and truth values take their own kind only."""
    if dtypes.is_float(own):
        return True
    return given == own or (dtypes.is_integer(given) and dtypes.is_integer(own))


def _torn(names: Mapping[int, list[str]], new: dict[str, Tensor]) -> list[str]:
    """Tied weights whose names hold different values; where they are equal, only the first name is kept in `new`."""
    torn = []
    for tied in names.values():
        first, *others = [name for name in tied if name in new] or [""]
        for name in others:
            if not np.array_equal(np.asarray(new[first]), np.asarray(new[name]), equal_nan=True):
                torn.append(f"{first} and {name} are one tied weight in the model, with different values in the state")
            new.pop(name)
    return torn


def _listed(title: str, items: list[str]) -> str:
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return f"  {title} ({len(items)}): " + "; ".join(items[:SHOWN] + more)
