"""Many steps at once, where the engine can: it gets the order of the rows, and comes back after a tenth of a second.

Which steps are made together depends on the clock; what they compute does not. So nothing may depend on where a chunk
begins or ends: losses are added one after the other, and metrics see batch by batch unless it makes no difference.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from chainrule import tree
from chainrule.compile import Compiled
from chainrule.engines.base import ChunkSession
from chainrule.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop
from chainrule.optim.chaining import Around
from chainrule.resident_session import Stay, enter
from chainrule.train.batches import Batch
from chainrule.train.feed import Feed
from chainrule.train.metrics import Metric
from chainrule.train.steps import arrays, map_arrays

SECONDS = 0.1  # that a chunk should take, so that Ctrl-C is heard soon
LONGEST = 2.0  # where looking at all weights takes long, chunks take longer
OVERHEAD = 50  # times as long as that, at least
GROWTH = 8  # times as many steps as before, at most
AGAIN = 100  # times as long as saving the state: steps that take no longer are rather made again than saved
RESULTS = 64 << 20  # bytes of results that a chunk hands back, at most

SPREADING = (SGD, RMSprop, Adagrad, Adadelta, Adam, AdamW, Adamax, NAdam, RAdam)


def spreads(optimizer: Optimizer) -> bool:
    """Whether a gradient that is infinite or NaN always makes a weight that is: so that looking at weights is enough.

    Those that go by the sign, limit the value, or wait for more gradients do not.
    """
    outer = [part for around in optimizer.outer for part in _parts(around)]
    return type(optimizer) in SPREADING and set(outer) <= {"clip_by_global_norm", "add_decayed_weights"}


def _parts(around: Any) -> list[str]:
    return [part.name for part in (*around.before, *around.after)] if isinstance(around, Around) else ["unknown"]


class Pace:
    """How many steps a chunk should have, from how long those before took."""

    def __init__(self) -> None:
        self.steps = 1
        self.seconds = 0.0  # that a step takes

    def took(self, steps: int, seconds: float, besides: float) -> None:
        """A chunk of so many steps took so long, and `besides` what goes with every chunk."""
        self.seconds = seconds / steps
        goal = min(max(SECONDS, OVERHEAD * besides), LONGEST)
        self.steps = max(1, min(steps * GROWTH, int(goal / max(self.seconds, 1e-9))))

    def within(self, seconds: float) -> int:
        """How many steps should take no longer than that, but not more than a chunk has."""
        return max(1, min(self.steps, int(seconds / self.seconds))) if self.seconds and seconds > 0 else 1


class Trail:
    """The way back to where a Session was: a state that was saved, and the chunks that were made since.

    Where one Session takes over from another (for the last batch of an epoch), the trail goes on, if what was saved is
    taken over, too.
    """

    def __init__(self) -> None:
        self.cost = 0.0  # seconds that saving takes
        self.seconds = math.inf  # that the chunks took
        self.made: list[tuple[ChunkSession, Sequence[np.ndarray], np.ndarray, int]] = []

    def mark(self, session: ChunkSession) -> None:
        """Make sure that `back` leads to where the Session is now."""
        if self.seconds > AGAIN * self.cost or not session.remembers:
            self.save(session)

    def save(self, session: ChunkSession) -> None:
        """Begin a new trail here."""
        begun = time.perf_counter()
        session.save()
        self.cost, self.seconds, self.made = time.perf_counter() - begun, 0.0, []

    def follow(
        self, session: ChunkSession, sources: Sequence[np.ndarray], numbers: np.ndarray, steps: int, seconds: float
    ) -> None:
        """A chunk was made, on sources that stay as they are."""
        self.made.append((session, sources, numbers, steps))
        self.seconds += seconds

    def back(self, session: ChunkSession) -> None:
        """Lead the Session back."""
        session.restore()
        present = session
        for maker, sources, numbers, steps in self.made:
            present = _over(present, maker)
            present.chunk(sources, numbers, steps, True)
        _over(present, session)


def _over(present: ChunkSession, following: ChunkSession) -> ChunkSession:
    """Let another Session take over, if it is another."""
    if following is not present and not following.take(present):
        raise AssertionError("a Session does not take over what it once handed over")
    return following


class Ran(NamedTuple):
    """Some steps that went well, and why the next did not.

    losses       of each step, in float64
    predictions  what the model returned, (steps, *shape), in the structure that it has; None where nobody asked
    error        what the next step raised
    bad          the loss of the next step, which made something that is not finite. It was undone
    """

    losses: np.ndarray
    predictions: Any
    error: Exception | None = None
    bad: float | None = None


class Chunks:
    """Makes steps of a compiled function (..., x, y, weight) -> (loss, extreme or None, prediction or None).

    arguments  those of the function, for a batch
    size       rows of a batch, save of the last one
    trains     whether steps change weights: then they are undone when something is not finite
    """

    def __init__(
        self, compiled: Compiled, arguments: Callable[[Batch], tuple[Any, ...]], feed: Feed, size: int, trains: bool
    ) -> None:
        self.compiled, self.arguments, self.feed, self.size, self.trains = compiled, arguments, feed, size, trains
        self.paces: dict[int, Pace] = {}
        self.present: Stay | None = None
        self.stays: dict[int, Stay] = {}  # by the rows of a batch, all for objects of the same structure
        self.trail = Trail()
        self.possible = True

    def enter(self, rows: int) -> Stay | None:
        """Have model and optimiser in the engine, for batches of so many rows; None where it does not work that way."""
        before = self.present
        known = self.stays.get(rows)
        if before is not None and known is not None and before.current and (known is before or before.pass_on(known)):
            self.present = known
            return known
        self.present = None
        arguments = self.arguments(self.feed.example(rows)) if self.possible else ()
        stay = enter(self.compiled, *arguments, after=before) if self.possible else None
        self.possible = stay is not None
        if stay is not None:
            self.stays = {n: other for n, other in self.stays.items() if stay.like(other)} | {rows: stay}
            self.present = stay
            self.trail = Trail() if stay.loaded else self.trail
        return stay

    def close(self) -> None:
        """Let model and optimiser leave the engine, and end the thread that reads."""
        if self.present is not None:
            self.present.leave()
        self.present, self.stays = None, {}
        self.feed.close()

    def run(self, order: np.ndarray, batch: int, most: int, seconds: float = LONGEST) -> Ran | None:
        """Make up to `most` steps, the first with the rows of batch number `batch` of the order, and no more than fit
        into so many seconds. None where the engine cannot."""
        begin = batch * self.size
        rows = min(self.size, len(order) - begin)
        while (stay := self.enter(rows)) is not None:
            steps = self._steps(stay, order, begin, rows, most, seconds)
            sources, numbers = self.feed.rows(order, begin, steps * rows)
            after = begin + steps * rows
            if len(order) - after >= rows:
                self.feed.ahead(order, after, min(self.paces[rows].steps, most, (len(order) - after) // rows) * rows)
            work = _Work(stay, sources, numbers, rows, self.paces[rows])
            trail = self.trail if self.trains else None
            ran = stay.use(partial(work.run, steps=steps, trail=trail))
            if self.feed.streams:
                self.trail = Trail()  # the rows are not kept, so that no step could be made again
            if ran is not None:
                return ran
        return None

    def _steps(self, stay: Stay, order: np.ndarray, begin: int, rows: int, most: int, seconds: float) -> int:
        pace = self.paces.setdefault(rows, Pace())
        most, wanted = min(most, (len(order) - begin) // rows), pace.within(seconds)
        if most > wanted * 3 // 2:  # else all, rather than a short chunk behind
            most = wanted
        most = min(most, RESULTS // max(1, stay.result_bytes))
        return max(1, min(most, (self.feed.ready(order, begin) or self.feed.most) // rows))


class _Work:
    """A chunk under way."""

    def __init__(self, stay: Stay, sources: Sequence[np.ndarray], numbers: np.ndarray, rows: int, pace: Pace) -> None:
        self.stay, self.sources, self.numbers, self.rows, self.pace = stay, sources, numbers, rows, pace

    def run(self, session: ChunkSession, steps: int, trail: Trail | None) -> Ran:
        """Make the steps. With a trail they train, and those that are not good are undone."""
        if trail is not None:
            trail.mark(session)
        begun = time.perf_counter()
        made = self._steps(session, 0, steps, watch=trail is not None)
        seconds = time.perf_counter() - begun
        upper = None if trail is None else self._not_good(session, made)
        if trail is None or upper is None:
            if made.error is None:
                self.pace.took(steps, seconds, time.perf_counter() - begun - seconds)
                trail.follow(session, self.sources, self.numbers, steps, seconds) if trail is not None else None
            return Ran(*made[:2], made.error)
        good = self._search(session, upper, trail)
        predictions = map_arrays(lambda array: array[:good], made.predictions)
        return Ran(made.losses[:good], predictions, bad=float(made.losses[good]))

    def _steps(self, session: ChunkSession, first: int, last: int, watch: bool) -> "_Made":
        numbers = self.numbers[first * self.rows : last * self.rows]
        chunk = session.chunk(self.sources, numbers, last - first, watch)
        loss, extreme, prediction = self.stay.returned(chunk.results)
        losses = np.asarray(loss).astype(np.float64)
        finite = np.isfinite(losses) if extreme is None else np.isfinite(losses) & np.isfinite(np.asarray(extreme))
        return _Made(losses, arrays(prediction), chunk.error, finite)

    def _not_good(self, session: ChunkSession, made: "_Made") -> int | None:
        """After how many of the steps something is not finite for certain; None where everything is."""
        if not made.finite.all():
            return int(np.argmin(made.finite)) + 1
        return None if session.finite(self.stay.parameters) else len(made.losses)

    def _search(self, session: ChunkSession, upper: int, trail: Trail) -> int:
        """How many steps are good, when so many are not. The session then is where they lead to.

        A weight that is not finite stays so. The last step before a loss that is not finite is looked at first: mostly
        all before that loss is good.
        """
        low, high, middle = 0, upper, upper - 1
        while high - low > 1:
            trail.back(session)
            made = self._steps(session, low, middle, watch=True)
            if self._not_good(session, made) is None:
                low = middle
                trail.save(session)
            else:
                high = middle
            middle = (low + high) // 2
        trail.back(session)
        return low


class _Made(NamedTuple):
    """What a chunk gave. finite: of each step, whether what it returned is."""

    losses: np.ndarray
    predictions: Any
    error: Exception | None
    finite: np.ndarray


def added(total: float, losses: np.ndarray, rows: int) -> float:
    """total + loss · rows for one loss after the other, rounded each time."""
    return float(np.add.accumulate(np.concatenate([[total], losses * rows]))[-1])


def measure(metrics: Sequence[Metric], predictions: Any, targets: Any, steps: int) -> None:
    """Let metrics take in the predictions (steps, *shape) of as many batches, and their targets (all rows, ...)."""
    if not metrics:
        return
    given, wanted = tree.flatten(predictions), tree.flatten(targets)
    rows = len(wanted.leaves[0].value) // steps
    together = all(leaf.value.ndim > 1 and leaf.value.shape[1] == rows for leaf in given.leaves)
    for metric in metrics:
        if metric.by_rows and together:
            joined = [leaf.value.reshape(steps * rows, *leaf.value.shape[2:]) for leaf in given.leaves]
            metric.update(tree.build(given, joined), targets)
            continue
        for k in range(steps):
            part = [leaf.value[k * rows : (k + 1) * rows] for leaf in wanted.leaves]
            metric.update(tree.build(given, [leaf.value[k] for leaf in given.leaves]), tree.build(wanted, part))
