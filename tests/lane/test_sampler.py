"""The gauge: how often it looks, what it keeps, when something counts as over its limit or as idle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exec.lane import sampler as module
from resilient_exec.lane.sampler import Gauge
from resilient_exec.process.memory import Activity

GIB = 1 << 30
MIB = 1 << 20


class FakeMemory:
    """Stands in for :mod:`resilient_exec.process.memory`: the test says what is held and done."""

    Activity = Activity

    def __init__(self):
        self.resident = self.proportional = 0
        self.cpu, self.io = 0.0, 0
        self.dear_looks = 0

    def resident_of(self, _):
        return self.resident

    def proportional_of(self, _):
        self.dear_looks += 1
        return self.proportional

    def activity(self, _):
        return Activity(self.cpu, self.io)


@pytest.fixture
def memory(monkeypatch):
    fake = FakeMemory()
    monkeypatch.setattr(module, "memory", fake)
    return fake


def test_below_the_limit_the_dear_look_is_not_taken(memory):
    memory.resident = GIB // 2
    assert Gauge(GIB, None, 0.0).look([1], 0.0) is None
    assert memory.dear_looks == 0


def test_shared_pages_alone_are_no_excess(memory):
    memory.resident, memory.proportional = 4 * GIB, GIB // 2
    gauge = Gauge(GIB, None, 0.0)
    assert gauge.look([1, 2], 0.0) is None
    assert gauge.peak == GIB // 2


def test_while_it_cannot_be_over_the_limit_the_dear_look_is_not_repeated(memory):
    """The kernel stops the process for it: with much that is shared that would be all the time."""
    memory.resident, memory.proportional = 4 * GIB, GIB // 2
    gauge = Gauge(GIB, None, 0.0)
    gauge.look([1, 2], 0.0)
    memory.resident += GIB // 4
    assert gauge.look([1, 2], 0.1) is None
    assert gauge.samples[-1][1] == GIB // 2 + GIB // 4
    assert memory.dear_looks == 1
    memory.resident += GIB // 2
    memory.proportional = GIB + 1
    assert gauge.look([1, 2], 0.2) == GIB + 1
    assert memory.dear_looks == 2


def test_sharing_that_ends_is_noticed_within_half_a_second(memory):
    memory.resident, memory.proportional = 4 * GIB, GIB // 2
    gauge = Gauge(GIB, None, 0.0)
    gauge.look([1, 2], 0.0)
    memory.proportional = 3 * GIB
    assert gauge.look([1, 2], 0.4) is None
    assert gauge.look([1, 2], 0.5) == 3 * GIB


def test_what_is_really_held_over_the_limit_is_told(memory):
    memory.resident = memory.proportional = GIB + 1
    assert Gauge(GIB, None, 0.0).look([1], 0.0) == GIB + 1


def test_at_its_limit_it_is_not_over_it(memory):
    memory.resident = memory.proportional = GIB
    assert Gauge(GIB, None, 0.0).look([1], 0.0) is None


@given(held=st.integers(0, 2 * GIB), rate=st.integers(1, 1 << 30))
def test_whoever_takes_a_gigabyte_a_second_is_seen_before_a_quarter_over_the_limit(held, rate):
    gauge = Gauge(GIB, None, 0.0)
    wait = gauge._interval(held)
    assert 0 < wait <= 0.5
    if held <= GIB:
        assert held + rate * wait <= 1.25 * GIB


def test_without_a_limit_it_looks_twice_a_second_and_first_after_half_of_one(memory):
    gauge = Gauge(None, None, 100.0)
    assert gauge.due == 100.5
    gauge.look([1], 100.5)
    assert gauge.due == 101.0


def test_with_a_limit_it_looks_at_once(memory):
    assert Gauge(GIB, None, 100.0).due == 100.0


@pytest.mark.parametrize("looks", [1, 48, 49, 5_000])
def test_it_keeps_a_few_dozen_samples_from_the_whole_time_and_the_peak_of_all(memory, looks):
    gauge = Gauge(None, None, 0.0)
    for number in range(looks):
        memory.resident = 7 * GIB if number == looks // 2 else number
        gauge.look([1], float(number))
    times = [at for at, _ in gauge.samples]
    assert len(times) <= 48
    assert times == sorted(set(times))
    assert times[0] == 0.0
    assert times[-1] >= 0.9 * (looks - 1)
    assert gauge.peak == 7 * GIB


def idle_of(gauge, pids, now):
    """What is told at a look: once for each time that nothing moves."""
    idle = gauge.idle_for(pids, now)
    if idle is not None:
        gauge.told()
    return idle


# -- idleness --------------------------------------------------------------------------------------------------------


def walk(gauge, start, end):
    """Look twice a second; when it was told to be idle, and for how long."""
    looks = [start + step / 2 for step in range(int((end - start) * 2) + 1)]
    return [(at, idle) for at in looks if (idle := idle_of(gauge, [1], at)) is not None]


def test_it_is_told_once_that_nothing_has_moved_for_long_enough(memory):
    assert walk(Gauge(None, 10.0, 0.0), 0.0, 60.0) == [(10.0, 10.0)]


@pytest.mark.parametrize("field", ["cpu", "io"])
def test_a_move_begins_the_time_anew_and_it_is_told_again(memory, field):
    gauge = Gauge(None, 10.0, 0.0)
    assert walk(gauge, 0.0, 9.0) == []
    setattr(memory, field, 1)
    assert walk(gauge, 9.5, 25.0) == [(19.5, 10.0)]
    setattr(memory, field, 2)
    assert walk(gauge, 25.5, 40.0) == [(35.5, 10.0)]


def test_less_than_one_percent_of_a_cpu_is_nothing(memory):
    gauge = Gauge(None, 10.0, 0.0)
    assert walk(gauge, 0.0, 9.0) == []
    memory.cpu = 0.09
    assert walk(gauge, 9.5, 11.0) == [(10.0, 10.0)]


def test_the_time_in_which_nobody_looked_does_not_count(memory):
    """After Ctrl-Z and fg: the workers were stopped with their parent."""
    gauge = Gauge(None, 10.0, 0.0)
    assert walk(gauge, 0.0, 8.0) == []
    assert walk(gauge, 5_000.0, 5_000.5) == []
    assert walk(gauge, 5_001.0, 5_001.0) == [(5_001.0, 10.0)]


def test_a_sum_that_falls_because_a_process_ended_is_a_move(memory):
    memory.cpu = 5.0
    gauge = Gauge(None, 10.0, 0.0)
    idle_of(gauge, [1], 0.0)
    memory.cpu = 1.0
    assert walk(gauge, 0.5, 10.0) == []


def test_without_a_stall_timeout_nothing_is_idle(memory):
    assert walk(Gauge(None, None, 0.0), 0.0, 100.0) == []


def test_it_looks_often_enough_for_a_short_stall_timeout(memory):
    gauge = Gauge(None, 0.4, 0.0)
    gauge.look([1], 0.0)
    assert gauge.due == pytest.approx(0.1)
