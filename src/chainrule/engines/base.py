"""What an engine is: something that compiles a verified Program to a function of arrays.

The inputs of a Program are of two kinds. Those that are *held* belong to Modules, Optimizers and Generators, and the
Program may update them; the others are *passed* anew to each call. An engine may offer a Session, in whose memory the
held ones stay from one call to the next.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from chainrule.program.program import Program

STANDARD, FAST = "standard", "fast"
PRECISIONS = (STANDARD, FAST)
"""How exact a compiled step is: as the float policy says; or with convolutions that are less so, for speed."""


class Session(Protocol):
    """A compiled Program with the held inputs in memory of its own. It is used by one thread at a time.

    All arrays handed in are of the dtypes and shapes of the Program, only read, and not looked at again after `load` or
    `step` has returned; those of `step` are dense and row-major. Those that come out are new and belong to the caller.
    """

    def load(self, arrays: Sequence[np.ndarray | None]) -> None:
        """Copy in all held inputs, in the order of `held`. None: what is there stays; never so the first time (but
        what a ChunkSession has copied or taken is there)."""

    def step(self, passed: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once, on the passed inputs in their order: the results (the outputs that update nothing).

        An error that it raises (IndexOutOfRange, say) leaves the held inputs as they were before.
        """

    def fetch(self) -> list[np.ndarray]:
        """The present values of those held inputs that the Program updates, in the order of the updating outputs."""


class Chunk(NamedTuple):
    """What came of many steps: each result of all steps that were completed, (steps, *shape of one), and what ended
    them early, if something did. The held inputs are as they were before the step that failed."""

    results: list[np.ndarray]
    error: Exception | None = None


@runtime_checkable
class ChunkSession(Session, Protocol):
    """A Session that also makes many steps without coming back, can undo them, and hands its state to others of its
    kind. Engines need not have it."""

    def chunk(self, sources: Sequence[np.ndarray], rows: np.ndarray, steps: int, watch: bool) -> Chunk:
        """Make `steps` steps. Each takes its rows from the sources: the next as many of the numbers `rows` (int64) as
        the passed inputs have.

        Sources come in the order of the passed inputs: (any number of rows, *the rest of its shape), dense and
        row-major, of its dtype, or float64 for float32 and the other way round. Nobody checks the row numbers.
        With `watch` the steps may end with one whose first result is not finite; that one counts as completed.
        """

    def save(self) -> None:
        """Remember all held inputs as they are now, for `restore`."""

    def restore(self) -> None:
        """Make the held inputs what they were at the last `save`."""

    @property
    def remembers(self) -> bool:
        """Whether there is something to restore."""

    def forget(self) -> None:
        """Let go of what `save` remembered."""

    def finite(self, held: Sequence[int]) -> bool:
        """Whether the held inputs of these numbers hold no infinity and no NaN. They are floating-point."""

    def get(self, held: int) -> np.ndarray:
        """The present value of the held input of this number."""

    def copy(self, other: Session, theirs: int, mine: int) -> bool:
        """Copy a held input of another Session to one of its own, both given by number; False if it cannot."""

    def take(self, other: Session) -> bool:
        """Take over all that another Session holds; if it is laid out alike, with its memory and what it remembers. The
        other is as if it were new. False, and nothing has changed, if their held inputs are not of the same shapes and
        dtypes."""


class Executable(Protocol):
    """A compiled Program: arrays in the order of `program.inputs` to arrays in the order of `program.outputs`."""

    program: Program

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it once."""

    def open(self) -> Session | None:
        """A new Session, independent of others; None from an engine that has none."""

    def explain(self) -> str:
        """How it is run, in words."""


class Engine(Protocol):
    """A way to run Programs.

    What engines may have besides: `chunks`, which is True where Sessions are ChunkSessions; `on(threads, autotune,
    precision)`, which gives the same engine on so many threads, or raises ConfigError for a number that is none.
    """

    name: str

    def compile(self, program: Program, held: tuple[int, ...] = ()) -> Executable:
        """Make the Program executable. `held` are the positions, in `program.inputs`, of the held inputs."""
