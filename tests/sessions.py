"""An engine with Sessions, made of the reference engine: it holds others to what `engines.base` says of them."""

import numpy as np

from chainrule.engines.reference import ReferenceExecutable


class CheckedSession:
    """Copies of the held inputs. Counts what it is asked for, and objects to arrays that no Session has to take."""

    def __init__(self, executable):
        self.executable, program = executable, executable.program
        self.nodes = [program.nodes[i] for i in program.inputs]
        self.held = executable.held
        self.passed = [k for k in range(len(self.nodes)) if k not in self.held]
        self.position = {node: k for k, node in enumerate(program.inputs)}
        self.values = {}
        self.loads, self.steps, self.fetches = [], 0, 0
        self.during = lambda: None

    def _check(self, array, k):
        node = self.nodes[k]
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (node.shape, node.dtype)

    def load(self, arrays):
        loaded = 0
        for k, array in zip(self.held, arrays, strict=True):
            if array is None:
                assert k in self.values
            else:
                self._check(array, k)
                self.values[k] = array.copy()
                loaded += 1
        self.loads.append(loaded)

    def step(self, passed):
        inputs = dict(self.values)
        for k, array in zip(self.passed, passed, strict=True):
            self._check(array, k)
            assert array.flags.c_contiguous
            inputs[k] = array
        arrays = self.executable([inputs[k] for k in range(len(self.nodes))])
        outputs = list(zip(self.executable.program.outputs, arrays, strict=True))
        self.during()
        self.steps += 1
        self.values |= {self.position[o.updates]: y.copy() for o, y in outputs if o.updates is not None}
        return [y.copy() for o, y in outputs if o.updates is None]

    def fetch(self):
        self.fetches += 1
        updates = [out.updates for out in self.executable.program.outputs]
        return [self.values[self.position[node]].copy() for node in updates if node is not None]


class CheckedExecutable(ReferenceExecutable):
    """A ReferenceExecutable that can be opened, and remembers the Session."""

    def __init__(self, program, held, engine):
        super().__init__(program)
        self.held, self.engine = held, engine

    def open(self):
        self.engine.sessions.append(CheckedSession(self))
        return self.engine.sessions[-1]


class CheckedEngine:
    """Runs Programs by NumPy, and keeps state in Sessions, which it lists."""

    name = "checked"

    def __init__(self):
        self.sessions = []

    def compile(self, program, held=()):
        return CheckedExecutable(program, held, self)

    @property
    def session(self):
        """The only one."""
        (session,) = self.sessions
        return session
