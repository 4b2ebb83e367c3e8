"""Work with the Session of a compiled function other than one step after another: many at once, or trying and undoing.

As long as that lasts, the tensors of Modules, Optimizers and Generators stay in the Session (see `chainrule.resident`).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from chainrule.compile import Compiled, Specialisation
from chainrule.resident import Home, Resident

Result = TypeVar("Result")


class Stay:
    """The objects among the arguments of a compiled function, in its Session.

    parameters    which of the held inputs are trained, as ChunkSession.finite takes them
    result_bytes  what a step hands back
    loaded        whether anything had to be copied in, save what another stay has left: else that one goes on here
    device        what it runs on, in words, and on how many `threads`
    """

    def __init__(self, found: Specialisation, home: Home, resident: Resident) -> None:
        self.found, self.home, self.resident = found, home, resident
        self.loaded = resident.loaded
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

    def like(self, other: "Stay") -> bool:
        """Whether objects could pass from one to the other: those for which one was compiled suit the other as well."""
        return self.home.like(other.home)

    def pass_on(self, other: "Stay") -> bool:
        """Let the objects move to the Session of another stay `like` this one, unseen, since nothing has changed
        from when they moved in here. False where somebody has looked: then all of them have to be looked through."""
        resident = self.resident.pass_on(other.home)
        if resident is None:
            return False
        other.resident, other.loaded = resident, False
        return True

    def leave(self) -> None:
        """Let the objects have all of their tensors back, and their values, so that they need the Session no more."""
        if self.home.lender.able is not None:
            self.home.lender.able.forget()
        self.home.empty()

    def returned(self, results: Sequence[np.ndarray]) -> Any:
        """What the function returns, with these arrays in it."""
        return self.found.returned(results)


def enter(compiled: Compiled, *args: Any, after: Stay | None = None) -> Stay | None:
    """Let the objects among the arguments of a compiled function move into its Session, compiled for these arguments.

    It takes over what the Session of the stay before has in its memory, without a copy where that is laid out alike.
    None where the engine has no ChunkSession, or the objects have to stay where they are.
    """
    while True:
        look = compiled.look(args, {})
        home = None if look.found is None else look.found.home
        if look.found is None or home is None or look.watches is None or home.lender.able is None:
            return None
        resident = home.enter(look.flat, look.watches, look.changes, after.home if after is not None else None)
        if resident is not None:  # else another thread had taken the tensors out first: look again
            return Stay(look.found, home, resident)
