"""`diff_runs`: where two runs part, found by bisection rather than by making every step again.

The losses that both recorded, and the digests of the milestones that both kept, bracket the step without a replay.
Inside of the bracket, which is no longer than the way from one milestone to the next, states are compared by bisection:
the runs are replayed to a step, and if their states are equal there, the step lies after it. Both then make that one
step observed, and every value of it is compared.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.replaying.course import Course, Place, make_parts
from chainrule.replaying.difference import StepsDifference, compare, pair
from chainrule.replaying.nodes import (
    NodeDifference,
    RowDifference,
    first_difference,
    row_differences,
    same_bits,
    same_program,
)
from chainrule.replaying.states import saved_states
from chainrule.train.recorder import STEP_LOSS
from chainrule.train.store import Run

TAKEN = ("model", "data", "loss", "optimizer", "metrics", "schedule", "sample_weight", "ema")
NOT_NEEDED = ("validation", "stop", "callbacks", "progress")
State = dict[str, np.ndarray]
Parts = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Parting:
    """The step at which two runs part: their states are equal before it, and differ after it. Step 0: they begin so.

    state        the names of what differs: before the first step where `step` is 0, else after `step`
    node         the first value of that step that differs; None where `step` is 0
    rows         where the batch holds other data
    same_rows    whether both batches hold the rows of the same numbers
    same_steps   whether both runs carry out the same operations
    """

    step: int
    epoch: int
    state: tuple[str, ...]
    node: NodeDifference | None = None
    rows: tuple[RowDifference, ...] = ()
    same_rows: bool = True
    same_steps: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {
            "state": list(self.state),
            "node": None if self.node is None else self.node.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True)
class RunsDifference:
    """What differs between two runs.

    settings    (name, value of the one, value of the other) of all that their configurations do not share
    last        how many steps each has made
    losses      the first step whose recorded losses differ, with both; None where none does
    after       a step after which their states are known to be equal, from digests or replays; -1 for none
    parting     where they part; None where they do not, or where that was not looked for
    steps       two steps side by side, where they were asked for
    replayed    how many steps were made again for that, of `total`
    """

    run: str
    other: str
    settings: tuple[tuple[str, Any, Any], ...]
    last: tuple[int, int]
    losses: tuple[int, float, float] | None
    after: int
    parting: Parting | None = None
    steps: StepsDifference | None = None
    replayed: int = 0
    total: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {
            "settings": [list(each) for each in self.settings],
            "last": list(self.last),
            "losses": None if self.losses is None else list(self.losses),
            "parting": None if self.parting is None else self.parting.to_dict(),
            "steps": None if self.steps is None else self.steps.to_dict(),
        }


def diff_runs(
    run: str | Path | Run, other: str | Path | Run, parts: Parts | None = None, other_parts: Parts | None = None, *,
    steps: tuple[int, int] | None = None,
) -> RunsDifference:  # fmt: skip
    """What differs between two runs: settings, losses, and the step at which they part, down to the first value of it.

    parts  a function that makes what was given to `fit` anew: dict(model=..., data=..., loss=..., optimizer=..., ...),
           as `cr.replay` takes it; `other_parts` those of the other run, where they are not made alike. Without it,
           only what the runs recorded is compared, and no step is replayed
    steps  a step of each, to be compared side by side

    Raises what `cr.replay` raises.

    >>> import tempfile
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> def parts(y=3 * x + 1):
    ...     cr.random.manual_seed(0)
    ...     return dict(model=nn.Linear(1, 1), data=(x, y), loss=losses.mse, optimizer=optim.SGD(lr=0.3))
    >>> def other_parts():
    ...     return parts(np.where(x == 1, 7, 3 * x + 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, made in (("one", parts), ("other", other_parts)):
    ...         run = cr.fit(**made(), epochs=50, run_dir=f"{folder}/{name}", progress="silent")
    ...     found = cr.diff_runs(f"{folder}/one", f"{folder}/other", parts, other_parts)
    >>> found.parting.step, [(row.row, row.parts) for row in found.parting.rows], found.parting.node.inputs
    (2, [(63, ('y',))], ('y',))
    """
    runs = tuple([each if isinstance(each, Run) else Run.open(each) for each in (run, other)])
    one, two = runs
    recorded = _recorded(one, two)
    if parts is None:
        if steps is not None:
            raise ConfigError("To compare two steps, they are replayed, which needs `parts`: see cr.diff_runs.")
        return recorded
    a, b = _course(one, parts), _course(two, other_parts or parts)
    found = _Search(a, b, recorded).run()
    a.verdict(), b.verdict()
    made = None if steps is None else compare((a, b), pair(steps))
    return replace(found, steps=made, replayed=a.made + b.made, total=a.last + b.last)


def _course(run: Run, parts: Parts) -> Course:
    made = dict(parts())
    unknown = made.keys() - {*TAKEN, *NOT_NEEDED, "epochs"}
    missing = {"model", "data", "loss", "optimizer"} - made.keys()
    if unknown or missing:
        wrong = f"has {', '.join(sorted(unknown))}" if unknown else f"lacks {', '.join(sorted(missing))}"
        raise ConfigError(f"What parts() returned {wrong}. It makes a dict of: {', '.join(TAKEN)}.")
    return Course(run, make_parts(run, **{name: made[name] for name in TAKEN if name in made}))


# -- what was recorded


def _recorded(one: Run, other: Run) -> RunsDifference:
    """What can be told without a replay."""
    histories = [run.history() for run in (one, other)]
    losses = [{row["step"]: row[STEP_LOSS] for row in history if STEP_LOSS in row} for history in histories]
    apart = next(
        (k for k in sorted(losses[0].keys() & losses[1].keys()) if not _alike(losses[0][k], losses[1][k])), None
    )
    lasts = [max([0, *[row["step"] for row in history]]) for history in histories]
    low, _ = bracket(one, other, apart, set())
    return RunsDifference(
        one.name, other.name, tuple(settings_apart(one.config, other.config)), (lasts[0], lasts[1]),
        None if apart is None else (apart, losses[0][apart], losses[1][apart]), low,
        total=sum(lasts),
    )  # fmt: skip


def _alike(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def settings_apart(one: Any, other: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """The entries of two configurations that differ, with dots in their names; None where one has none."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = dict.fromkeys([*one, *other])
        inner = [settings_apart(one.get(k), other.get(k), f"{name}.{k}" if name else str(k)) for k in names]
        return [each for group in inner for each in group]
    return [] if one == other else [(name, one, other)]


def kind_of_state(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Which digest is to be compared: of the whole state; of the weights alone, where the optimisers differ from the
    beginning."""
    return "state" if one["state"] == other["state"] else "weights"


def bracket(one: Run, other: Run, loss: int | None, distrusted: set[int]) -> tuple[int, int | None]:
    """The last milestone that both runs have with equal states (-1 for none), before the first where they differ, and
    that one, or the first step with another loss; None where nothing shows that they part."""
    a, b = ({s.step: s.digests for s in saved_states(run)[0] if s.digests} for run in (one, other))
    steps = sorted((a.keys() & b.keys()) - distrusted)
    kind = kind_of_state(a[steps[0]], b[steps[0]]) if steps else "state"
    apart = [k for k in steps if a[k][kind] != b[k][kind]]
    high = min([*apart[:1], *([loss] if loss is not None else [])], default=None)
    low = max([k for k in steps if a[k][kind] == b[k][kind] and (high is None or k < high)], default=-1)
    return low, high


# -- where they part


class _Search:
    """Two courses on the way to the step at which they part."""

    def __init__(self, one: Course, other: Course, recorded: RunsDifference) -> None:
        self.one, self.other, self.recorded = one, other, recorded
        self.last = min(one.done, other.done)
        self.whole = True  # whether all of the states is compared, or the weights alone
        self.low = 0
        self.states: tuple[State, State] = ({}, {})
        self.places = (Place(), Place())

    def run(self) -> RunsDifference:
        """Find it."""
        self._begin(0)
        apart = self._apart(*self.states)
        if apart and all(not name.startswith("model.") for name in apart):
            self.whole, apart = False, self._apart(*self.states, whole=False)
        if apart:
            return replace(self.recorded, after=-1, parting=Parting(0, 1, apart))
        distrusted: set[int] = set()
        loss = None if self.recorded.losses is None else self.recorded.losses[0]
        while True:
            low, high = bracket(self.one.run, self.other.run, loss, distrusted)
            if low > self.low:
                self._begin(low)
            high = self._bisect(self.last + 1 if high is None else high, hint=high in (loss, None))
            if self.low >= self.last:
                return replace(self.recorded, after=self.low)
            parting = self._step(high)
            if parting is not None:
                return replace(self.recorded, after=high - 1, parting=parting)
            warnings.warn(
                f"The milestones of step {high} say that the runs differ there, but they do not: one is damaged. "
                "It is passed over.",
                stacklevel=3,
            )
            distrusted |= {high}
            loss = None if loss is not None and loss <= high else loss
            self._keep(high)

    def _begin(self, step: int) -> None:
        """Be after so many steps, where the states are equal."""
        for course in (self.one, self.other):
            course.go_back(step)
            course.forward(step)
        self._keep(step)

    def _keep(self, step: int) -> None:
        self.low, self.states = step, (self.one.arrays(), self.other.arrays())
        self.places = replace(self.one.place), replace(self.other.place)

    def _bisect(self, high: int, hint: bool) -> int:
        """Narrow the bracket: states equal after step `low`, not (as far as is known) after `high`, until that is the
        next step. With a hint `high` is likely the very one. Returns the new high."""
        while high - self.low > 1:
            probe = high - 1 if hint else (self.low + high) // 2
            hint = False
            walked = []
            for course, state, place in zip((self.one, self.other), self.states, self.places, strict=True):
                course.put(state, place)
                walked.append(course.forward(probe))
            if self._apart(self.one.arrays(), self.other.arrays()):
                unlike = [k for k, loss in walked[0].items() if not _alike(loss, walked[1][k])]
                high = min([probe, *unlike])
            else:
                self._keep(probe)
        return high

    def _apart(self, one: State, other: State, whole: bool | None = None) -> tuple[str, ...]:
        """The names of what differs."""
        whole = self.whole if whole is None else whole
        names = [name for name in dict.fromkeys([*one, *other]) if whole or name.startswith("model.")]
        return tuple([n for n in names if n not in one or n not in other or not same_bits(one[n], other[n])])

    def _step(self, step: int) -> Parting | None:
        """Make the step that follows the present states, observed; None where the states are equal after it, too."""
        for course, state, place in zip((self.one, self.other), self.states, self.places, strict=True):
            course.put(state, place)
        seen = self.one.look(), self.other.look()
        batches = self.one.batch(), self.other.batch()
        epoch = self.one.place.epoch
        for course in (self.one, self.other):
            course.make()
        apart = self._apart(self.one.arrays(), self.other.arrays())
        if not apart:
            return None
        return Parting(
            step, epoch, apart, first_difference(*seen), row_differences(*batches),
            np.array_equal(batches[0].rows, batches[1].rows), same_program(seen[0].program, seen[1].program),
        )  # fmt: skip
