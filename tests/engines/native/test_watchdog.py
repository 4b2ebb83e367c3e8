"""The watchdog against a machine that is made up: how long a step takes, and how many waits are long, is given."""

import pytest

from chainrule.engines.native.watchdog import LAST_PATIENCE, RETURN_PATIENCE, Watchdog


class Machine:
    """A clock, and steps whose cost depends on the threads and on whether another process takes a core."""

    def __init__(self, quiet, busy, long_waits=0.0):
        self.now = 100.0
        self.quiet, self.busy, self.long_waits = quiet, busy, long_waits  # seconds a step by threads; waits a second
        self.disturbed = False
        self.watchdog = Watchdog(lambda: self.now)
        self.used = []

    def work(self, seconds, wanted=2, steps=1):
        """Run for so long; the share of steps that each number of threads did in that time."""
        end, done = self.now + seconds, {}
        while self.now < end:
            threads = self.watchdog.threads(wanted)
            took = (self.busy if self.disturbed else self.quiet)[threads] * steps
            self.now += took
            waits_a_second = 200.0 if self.disturbed else self.long_waits
            self.watchdog.record(threads, took, round(took * waits_a_second + 0.3) if threads > 1 else 0, steps)
            done[threads] = done.get(threads, 0) + steps
        total = sum(done.values())
        return {threads: count / total for threads, count in done.items()}


QUIET, BUSY = {1: 1.0e-3, 2: 0.6e-3}, {1: 1.1e-3, 2: 4.0e-3}


def machine(**more):
    return Machine(QUIET, BUSY, **more)


def test_nothing_changes_on_a_quiet_machine():
    assert machine().work(10) == {2: 1.0}


def test_fewer_threads_while_a_core_is_taken_and_all_again_afterwards():
    here = machine()
    here.work(1)
    here.disturbed = True
    here.work(0.3)
    assert here.work(60)[1] > 0.95
    here.disturbed = False
    here.work(2 * LAST_PATIENCE)
    assert here.work(10) == {2: 1.0}


def test_a_machine_that_is_busy_from_the_start():
    here = machine()
    here.disturbed = True
    here.work(0.3)
    assert here.work(60)[1] > 0.95


def test_waits_that_are_long_for_a_good_reason_cost_next_to_nothing():
    here = machine(long_waits=1000.0)
    assert here.work(60)[2] > 0.998


def test_a_short_disturbance_is_soon_forgotten():
    here = machine()
    here.work(1)
    here.disturbed = True
    here.work(0.2)
    here.disturbed = False
    here.work(2)
    assert here.work(5) == {2: 1.0}


def test_hiccups_change_nothing():
    here = machine()
    for _ in range(30):
        assert here.work(1.9) == {2: 1.0}
        here.disturbed = True
        assert here.work(0.04) == {2: 1.0}
        here.disturbed = False


def test_what_was_tried_in_vain_is_tried_again_when_work_costs_more():
    here = machine(long_waits=1000.0)
    here.work(5)
    here.disturbed = True
    here.work(3)
    assert here.work(10)[1] > 0.95


def test_after_a_long_disturbance_all_threads_are_soon_back():
    here = machine()
    here.disturbed = True
    here.work(60)
    here.disturbed = False
    here.work(RETURN_PATIENCE + 0.5)
    assert here.work(5) == {2: 1.0}


def test_long_chunks_of_different_length_are_compared_by_their_work():
    here = machine()
    here.work(1, steps=200)
    here.disturbed = True
    here.work(3, steps=100)
    assert here.work(60, steps=300)[1] > 0.9
    here.disturbed = False
    here.work(2 * LAST_PATIENCE, steps=50)
    assert here.work(10, steps=170) == {2: 1.0}


def test_half_and_half_again():
    """Eight are wanted, two cores are free."""
    costs = {1: 8.0e-3, 2: 4.5e-3, 4: 9e-3, 8: 20e-3}
    here = Machine({8: 1.2e-3, 4: 2.3e-3, 2: 4.2e-3, 1: 8e-3}, costs)
    here.disturbed = True
    here.work(5, wanted=8)
    assert here.work(60, wanted=8)[2] > 0.9
    here.disturbed = False
    here.work(2 * LAST_PATIENCE, wanted=8)
    assert here.work(5, wanted=8) == {8: 1.0}


def test_runs_that_could_not_have_their_threads_do_not_count():
    here = machine()
    here.work(1)
    for _ in range(1000):
        here.watchdog.record(1, 1.0, 0)
    assert here.watchdog.threads(2) == 2


@pytest.mark.parametrize("wanted", [1, 2, 3, 8])
def test_another_wish_begins_anew(wanted):
    here = machine()
    here.disturbed = True
    here.work(5)
    assert here.watchdog.threads(wanted + 8) == wanted + 8
