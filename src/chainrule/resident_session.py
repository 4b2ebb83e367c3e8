"""Work with the Session of a compiled function other than one step after another: many at once, or trying and undoing.

As long as that lasts, the tensors of Modules, Optimizers and Generators stay in the Session (see `chainrule.resident`).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from chainrule.compile import Compiled, Specialisation
from chainrule.engines.base import ChunkSession
from chainrule.resident import Home, Resident

Result = TypeVar("Result")


class Stay:
    """The objects among the arguments of a compiled function, in its Session.

    parameters    which of the held inputs are trained, as ChunkSession.finite takes them
    result_bytes  what a step hands back
    device        what it runs on, in words, and on how many `threads`
    """

    def __init__(self, found: Specialisation, home: Home, resident: Resident) -> None:
        self.found, self.resident = found, resident
        self.parameters = [k for k, i in enumerate(home.held) if home.roles.get(i) == "parameter"]
        program = found.executable.program
        self.result_bytes = sum(program.nodes[out.node].nbytes for out in program.outputs if out.updates is None)
        describe = getattr(found.executable, "describe", None)
        self.device = "" if describe is None else str(describe())
        self.threads = int(getattr(found.executable, "threads", 1))

    @property
    def current(self) -> bool:
        """Whether the tensors are still there: nobody has looked."""
        return self.resident.ready()

    def use(self, work: Callable[[Any], Result]) -> Result | None:
        """What `work` gives, done with the Session; None if somebody has looked meanwhile, and nothing was done."""
        return self.resident.use(work)

    def returned(self, results: Sequence[np.ndarray]) -> Any:
        """What the function returns, with these arrays in it."""
        return self.found.returned(results)


def enter(compiled: Compiled, *args: Any) -> Stay | None:
    """Let the objects among the arguments of a compiled function move into its Session, compiled for these arguments.

    None where the engine has no ChunkSession, or the objects have to stay where they are.
    """
    while True:
        look = compiled.look(args, {})
        home = None if look.found is None else look.found.home
        if look.found is None or home is None or look.watches is None or not isinstance(home.session, ChunkSession):
            return None
        resident = home.enter(look.flat, look.watches, look.changes)
        if resident is not None:  # else another thread had taken the tensors out first: look again
            return Stay(look.found, home, resident)
