"""Computations run beside the server, a bounded number at a time, and end with it."""

import asyncio
import threading

import pytest

from chainrule.ui.answers import Refused
from chainrule.ui.work import Workers


def test_results_and_errors_come_back():
    async def main():
        workers = Workers(2, lambda: False)
        assert await workers.run(divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await workers.run(divmod, 7, 0)

    asyncio.run(main())


def test_no_more_run_at_a_time_than_may():
    async def main():
        workers, guard, now, most = Workers(2, lambda: False), threading.Lock(), 0, 0

        def work():
            nonlocal now, most
            with guard:
                now, most = now + 1, max(most, now + 1)
            threading.Event().wait(0.02)
            with guard:
                now -= 1

        await asyncio.gather(*[workers.run(work) for _ in range(8)])
        assert most == 2

    asyncio.run(main())


def test_the_loop_goes_on_meanwhile():
    async def main():
        workers, free = Workers(1, lambda: False), threading.Event()
        waiting = asyncio.create_task(workers.run(free.wait, 10))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        free.set()
        assert await waiting is True

    asyncio.run(main())


def test_nobody_waits_for_a_computation_when_the_server_ends():
    async def main():
        ends, never = threading.Event(), threading.Event()
        waiting = asyncio.create_task(Workers(1, ends.is_set).run(never.wait))
        await asyncio.sleep(0.05)
        ends.set()
        with pytest.raises(Refused):
            await asyncio.wait_for(waiting, 5)
        never.set()

    asyncio.run(main())
