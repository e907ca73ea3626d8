"""A process that did not run for a while: for how long, and whether it was stopped or only busy."""

from __future__ import annotations

import pytest

from resilient_exec.supervisor.clock import LagWatch


class Clocks:
    def __init__(self):
        self.now, self.used = 100.0, 5.0
        self.watch = LagWatch(lambda: self.now, lambda: self.used)

    def after(self, seconds, used, meant):
        """What is told when so many seconds have passed, so many of them used, and ``meant`` were to be waited."""
        self.now += seconds
        self.used += used
        return self.watch.look(meant)


def test_who_is_in_time_is_told_nothing():
    clocks = Clocks()
    assert clocks.after(1.0, 0.0, 1.0) is None
    assert clocks.after(0.6, 0.6, 0.5) is None
    assert clocks.after(0.001, 0.0, 0.5) is None


def test_a_stop_is_told_with_all_of_the_wait_in_which_it_began():
    assert Clocks().after(30.5, 0.0, 0.5) == (30.5, True)


def test_a_process_that_used_the_time_was_busy():
    """The interpreter was held by somebody else."""
    seconds, stopped = Clocks().after(1.5, 0.9, 0.5)
    assert seconds == pytest.approx(1.5)
    assert not stopped


def test_who_waits_for_no_deadline_is_late_for_none():
    clocks = Clocks()
    assert clocks.after(50.0, 0.0, None) is None
    assert clocks.after(0.5, 0.0, 0.5) is None
