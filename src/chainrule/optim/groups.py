"""Parameter groups: settings of their own for the parameters whose names match a pattern."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError
from chainrule.optim.settings import close_to, listed
from chainrule.optim.transform import Tensors

DEFAULT = "default"  # the label of the parameters that no group takes
Pattern = str | Callable[[str, Tensor], bool]


@dataclass(frozen=True)
class Group:
    """The parameters that one of `patterns` matches, and the settings that differ for them."""

    label: str
    patterns: tuple[Pattern, ...]
    settings: dict[str, Any]

    def takes(self, name: str, parameter: Tensor) -> bool:
        """Whether the parameter belongs to this group, if no group before it takes it."""
        return any(fnmatch.fnmatchcase(name, p) if isinstance(p, str) else p(name, parameter) for p in self.patterns)

    def __str__(self) -> str:
        return f"group {self.label} ({', '.join(map(repr, self.patterns))})"


def read_groups(groups: Any, allowed: Iterable[str], optimizer: str) -> tuple[Group, ...]:
    """The groups of `groups=[{'params': '*.bias', 'weight_decay': 0.0}, ...]`; ConfigError for what makes no sense."""
    if groups is None:
        return ()
    if not isinstance(groups, Sequence) or isinstance(groups, str) or not all(isinstance(g, Mapping) for g in groups):
        raise ConfigError(f"groups is a list of dicts such as {{'params': '*.bias', 'lr': 0.1}}; got {groups!r:.100}.")
    allowed = ("lr", *allowed)
    result = []
    for i, given in enumerate(groups):
        settings = dict(given)
        pattern = settings.pop("params", None)
        unknown = [key for key in settings if key not in allowed]
        if unknown:
            raise ConfigError(
                f"Group {i} has the key {unknown[0]!r}, which {optimizer} does not know."
                f"{close_to(unknown[0], allowed)} Known are 'params', {listed(allowed, 20)}."
            )
        patterns = tuple(pattern) if isinstance(pattern, (list, tuple)) else (pattern,)
        if not patterns or not all(isinstance(p, str) or callable(p) for p in patterns):
            raise ConfigError(
                f"Group {i} needs 'params': a pattern such as '*.bias', a function (name, tensor) -> bool, or a list "
                f"of these; got {pattern!r:.80}. Parameters are named, since each step replaces the tensors."
            )
        result.append(Group(str(i), patterns, settings))
    return tuple(result)


def label_of(groups: Iterable[Group], name: str, parameter: Tensor) -> str:
    """The label of the first group that takes the parameter."""
    return next((group.label for group in groups if group.takes(name, parameter)), DEFAULT)


def check_all_used(groups: Iterable[Group], labels: Mapping[str, str], params: Tensors, frozen: Iterable[str]) -> None:
    """ConfigError when a group got no parameter, unless it is waiting for frozen ones."""
    for group in groups:
        if group.label in labels.values():
            continue
        if any(isinstance(p, str) and fnmatch.filter(frozen, p) for p in group.patterns):
            continue
        taken = [name for name, p in params.items() if group.takes(name, p)]
        if taken:
            raise ConfigError(f"{group}: an earlier group has taken {listed(taken)} already; the first match wins.")
        raise ConfigError(f"{group} matches no parameter. There are {listed(params, 20)}.")
