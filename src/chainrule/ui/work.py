"""Long computations on threads of their own, so that the server goes on answering while one runs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from chainrule.ui.answers import Refused

T = TypeVar("T")

LOOK_SECONDS = 0.1  # how often to look whether the server ends


class Workers:
    """At most `most` computations at a time; the others wait for their turn.

    The threads are daemons: when the server ends, what they compute is of use to nobody, and they end with it, while
    the threads of a common pool would be waited for.
    """

    def __init__(self, most: int, closing: Callable[[], bool]) -> None:
        self.turns, self.closing = asyncio.Semaphore(most), closing

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(*arguments)` returns or raises; 503 when the server ends before."""
        async with self.turns:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()

            def deliver(result: Any, error: BaseException | None) -> None:
                if done.cancelled():
                    return
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)

            def compute() -> None:
                result, error = None, None
                try:
                    result = work(*arguments)
                except BaseException as raised:
                    error = raised
                with suppress(RuntimeError):  # the loop is closed: the server has ended
                    loop.call_soon_threadsafe(deliver, result, error)

            threading.Thread(target=compute, daemon=True, name="chainrule ui").start()
            while not (await asyncio.wait([done], timeout=LOOK_SECONDS))[0]:
                if self.closing():
                    done.cancel()
                    raise Refused(503, "The server ends.")
            return done.result()
