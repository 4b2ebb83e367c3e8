"""Looking at a network now and then while it trains: what a run records of layers and parameters, and what is wrong.

A probe makes the next step on copies, with every value kept (chainrule.observe), and puts it in numbers
(chainrule.diagnosis.statistics). Nothing of the training changes by it. How often there is one, the clock decides: so
seldom that all probes together take no more than a share of the training. Small steps are made by NumPy, which needs no
compiling and may differ from the engine in the last bits; large ones by the engine itself.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chainrule import tree
from chainrule.compile import Compiled
from chainrule.diagnosis import Diagnosis, Watch
from chainrule.diagnosis.statistics import statistics
from chainrule.errors import ChainruleError, ConfigError
from chainrule.observe import Observer
from chainrule.optim import LBFGS
from chainrule.primitives import contract, convolve
from chainrule.program.program import Program
from chainrule.train.batches import Batch
from chainrule.train.callbacks import Callback

if TYPE_CHECKING:
    from chainrule.train.loop import Setup, Training

AUTO = "auto"
SHARE = 0.01  # of the training time that probes may take
CLOSEST = 0.25  # seconds between two probes, at least
PROBES = 256  # in a run of any length about that many, and as many again each time it has become e times as long
NATIVE_WORK = 2e10  # multiplications from which on NumPy takes longer than compiling pays for
TRACING = 2.5e-4  # seconds a node takes to be traced, roughly and at most; COMPILING: by the native engine
COMPILING = 1e-2
BY_NUMPY = 1e-9  # seconds a multiplication takes NumPy, roughly and at most; NATIVELY: the native engine
NATIVELY = 1e-10
LEAST_WORK, LEAST_VALUE = 5e-12, 1e-11  # seconds a multiplication, and a value, take a fast machine at least
KEEPING = 3e-8  # seconds for each value that is kept and looked at


class Budget:
    """When the next probe may come: while all of them together take no more than a share of the time beside them.

    >>> from chainrule.train.recording import Budget
    >>> now = [0.0]
    >>> budget = Budget(share=0.03, clock=lambda: now[0])
    >>> budget.allows(expected=0.3)
    False
    >>> now[0] = 10.0
    >>> budget.allows(expected=0.3), budget.allows(expected=0.31)
    (True, False)
    """

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share, self.clock = share, clock
        self.begun = clock()
        self.spent = 0.0
        self.last = -math.inf  # when the latest probe ended

    def allows(self, expected: float) -> bool:
        """Whether one that takes `expected` seconds may come now."""
        now = self.clock()
        beside = now - self.begun - self.spent
        apart = max(CLOSEST, (now - self.begun) / PROBES)
        return self.spent + expected <= self.share * beside and now - self.last >= apart

    def took(self, seconds: float) -> None:
        """A probe has just ended."""
        self.spent += seconds
        self.last = self.clock()


class Recording:
    """Makes the probes of a training, and hands what they show to its run, its display and its callbacks."""

    def __init__(self, setup: "Setup", clock: Callable[[], float] = time.perf_counter) -> None:
        self.setup = setup
        self.every: Any = setup.settings.record
        listened = any([type(c).on_record is not Callback.on_record for c in setup.callbacks])
        self.active = self.every is not None and (setup.recorder.run is not None or listened)
        self.clock = clock
        self.budget: Budget | None = None  # from the first step on
        self.expected: float | None = None  # seconds that the next probe takes
        self.observers: dict[int, Observer] = {}  # by the number of rows
        self.watch = Watch(keeps_best=setup.settings.keep_best)

    def due(self, step: int, rows: int) -> bool:
        """Whether a probe comes now, on a batch of so many rows. By the clock only batches of the usual size count."""
        if not self.active:
            return False
        if self.every != AUTO:
            return step % int(self.every) == 0
        if self.budget is None:
            self.budget = Budget(clock=self.clock)
        if rows < min(self.setup.settings.batch_size, self.setup.data.rows):
            return False
        if self.expected is None:
            program = self._program()
            if program is None:
                return False
            self.expected = expected_seconds(program, self._natively(program))
        return self.budget.allows(self.expected)

    def until_due(self, step: int) -> float:
        """How many steps may follow until a probe is due by their number."""
        return int(self.every) - step % int(self.every) if self.active and self.every != AUTO else math.inf

    def take(self, training: "Training", batch: Batch) -> None:
        """Make a probe of the next step, whose batch it is. What goes wrong with it ends the recording, no more."""
        begun = self.clock()
        try:
            seconds = self._take(training, batch)
        except Exception as error:
            self.active = False
            self.setup.recorder.log(f"recording ends at step {training.position.step}: {error}")
            if not isinstance(error, (ChainruleError, MemoryError)):  # those are about the step, which comes next
                warnings.warn(f"The recording of the run has failed, and ends: {error!r}", stacklevel=2)
            return
        if self.budget is not None:
            self.budget.took(self.clock() - begun + seconds)

    def _take(self, training: "Training", batch: Batch) -> float:
        """A probe. Returns what it costs beside: bringing the weights back to where the engine has them."""
        s, p = self.setup, training.position
        begun = self.clock()
        tree.flatten([s.model, s.optimizer, s.ema])  # they come out of the engine's memory
        fetched = self.clock() - begun
        function, arguments = self._call(batch)
        observer = self.observers.get(len(batch.rows))
        if observer is None:
            observer = self._observer(function, arguments, len(batch.rows))
        begun = self.clock()
        try:
            seen = observer(*arguments)
        except ConfigError:  # a callback has changed the model, say
            seen = self._observer(function, arguments, len(batch.rows))(*arguments)
        found = dataclasses.replace(statistics(seen), learning_rate=float(s.optimizer.lr))
        snapshot = found.to_dict()
        if s.recorder.run is not None:
            s.recorder.run.record_snapshot(p.step + 1, p.epoch, snapshot)  # the step that it looks at
        for diagnosis in self.watch.look(found, training.history):
            self._tell(training, diagnosis)
        for callback in s.callbacks:
            callback.on_record(training, snapshot)
        self.expected = self.clock() - begun + 2 * fetched
        return fetched

    def _tell(self, training: "Training", diagnosis: Diagnosis) -> None:
        s, p = self.setup, training.position
        text = f"{diagnosis.severity}: {diagnosis.message}{f'. {diagnosis.remedy}' if diagnosis.remedy else ''}"
        if s.recorder.run is not None:
            s.recorder.run.record_diagnosis(p.step + 1, p.epoch, diagnosis.to_dict())
        s.recorder.log(f"step {p.step + 1}: {text}")
        say = getattr(s.progress, "say", None)
        if say is not None:
            say(text)

    def _call(self, batch: Batch) -> tuple[Compiled, tuple[Any, ...]]:
        """What is observed: a step; of L-BFGS loss and gradient."""
        s = self.setup
        if isinstance(s.optimizer, LBFGS):
            return s.steps.gradient, (s.model, batch.x, batch.y, batch.weight)
        return s.steps.training, (s.model, s.optimizer, s.ema, batch.x, batch.y, batch.weight, False)

    def _observer(self, function: Compiled, arguments: tuple[Any, ...], rows: int) -> Observer:
        program = self._program()
        if program is not None and self._natively(program):
            made = Observer(function, *arguments)
        else:
            made = Observer(Compiled(function.function, "reference"), *arguments, optimised=False)
        self.observers[rows] = made
        return made

    def _program(self) -> Program | None:
        """The Program of the steps; None before the first."""
        function = self.setup.steps.gradient if isinstance(self.setup.optimizer, LBFGS) else self.setup.steps.training
        return None if function.latest is None else function.program

    def _natively(self, program: Program) -> bool:
        return self.setup.settings.engine != "reference" and work(program) > NATIVE_WORK


def work(program: Program) -> float:
    """How many multiplications the products and convolutions of a Program take.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule.train.recording import work
    >>> work(cr.trace_program(lambda a, b: a @ b, np.ones((2, 3)), np.ones((3, 5))))
    30.0
    """
    total = 0.0
    for node in program.nodes:
        if node.primitive is contract.matmul:
            total += float(node.size) * program.nodes[node.inputs[0]].shape[-1]
        elif node.primitive is convolve.convolve:
            kernel = program.nodes[node.inputs[1]]
            total += float(node.size) * math.prod(kernel.shape[:-3]) * kernel.shape[-2]
        elif node.primitive.kind == "control":
            total += work(node.attributes["body"]) * node.attributes["length"]
    return total


def least_seconds(program: Program) -> float:
    """About how long a run of a Program takes a fast machine."""
    return work(program) * LEAST_WORK + sum([node.size for node in program.nodes]) * LEAST_VALUE


def expected_seconds(program: Program, natively: bool) -> float:
    """About how long the first probe of a Program takes, rather more than less."""
    nodes, values = len(program.nodes), float(sum([node.size for node in program.nodes]))
    each, multiplication = (COMPILING, NATIVELY) if natively else (TRACING, BY_NUMPY)
    return nodes * each + work(program) * multiplication + values * KEEPING
