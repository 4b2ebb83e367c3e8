"""What a diagnosis is, and a report of several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "note")
"""It cannot learn like this; it learns worse than it could; good to know."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a network learns badly: the cause, what shows it, and what to do.

    kind      a name such as 'vanishing-gradients'; docs/diagnosis.md explains each
    severity  'error' (it cannot learn like this), 'warning' (worse than it could), or 'note'
    where     the path of the layer or parameter; '' for the data, or the network as a whole
    message   one sentence; `evidence`: the numbers behind it; `remedy`: what to try

    >>> from chainrule.diagnosis import Diagnosis
    >>> print(Diagnosis("dead-relus", "warning", "1", "layer 1 (ReLU): 12 of 16 units are dead", ("0 in all rows",),
    ...                 "Try LeakyReLU."))
    warning: layer 1 (ReLU): 12 of 16 units are dead
      0 in all rows
      remedy: Try LeakyReLU.
    """

    kind: str
    severity: str
    where: str
    message: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "evidence": list(self.evidence)}

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.message}", *[f"  {line}" for line in self.evidence]]
        return "\n".join([*lines, f"  remedy: {self.remedy}"] if self.remedy else lines)


@dataclass(frozen=True)
class Report(Sequence[Diagnosis]):
    """The diagnoses of a network and its data, the gravest first. `facts` are the numbers that were measured.

    >>> from chainrule.diagnosis import Report
    >>> report = Report((), {"loss": 0.25})
    >>> report.healthy, len(report), print(report)
    nothing wrong was found
    (True, 0, None)
    """

    diagnoses: tuple[Diagnosis, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(d.severity == "note" for d in self.diagnoses)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def __getitem__(self, index: Any) -> Any:
        return self.diagnoses[index]

    def __iter__(self) -> Iterator[Diagnosis]:
        return iter(self.diagnoses)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"healthy": self.healthy, "diagnoses": [d.to_dict() for d in self], "facts": dict(self.facts)}

    def __str__(self) -> str:
        return "\n".join(map(str, self.diagnoses)) or "nothing wrong was found"
