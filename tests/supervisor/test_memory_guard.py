"""When the machine's memory counts as low, as critical, and as enough again."""

from __future__ import annotations

import itertools

import pytest

from resilient_exec.process.memory import Machine
from resilient_exec.supervisor import memory_guard as module
from resilient_exec.supervisor.memory_guard import Pressure, default_reserve

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def levels(monkeypatch):
    """What is told, look by look, for these amounts of available memory."""
    ticks = itertools.count(1)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks) * 1.0)

    def play(*available, reserve=GIB):
        amounts = iter(available)
        pressure = Pressure(reserve, lambda: Machine(next(amounts), 16 * GIB))
        words = [pressure.look() for _ in available]
        return [str(word.level) if word is not None else "-" for word in words]

    return play


def test_enough_is_not_told(levels):
    assert levels(8 * GIB, 2 * GIB, GIB) == ["-", "-", "-"]


def test_a_change_of_level_is_told_once(levels):
    assert levels(8 * GIB, GIB - 1, GIB - 2, 8 * GIB, 8 * GIB) == ["-", "low", "-", "ok", "-"]


def test_a_critical_level_is_told_at_each_look(levels):
    assert levels(GIB // 2 - 1, 0, GIB // 2) == ["critical", "critical", "low"]


def test_a_little_more_than_the_reserve_is_not_yet_enough_again(levels):
    assert levels(GIB - 1, GIB + 1, int(1.24 * GIB), int(1.26 * GIB)) == ["low", "-", "-", "ok"]


def test_by_default_four_percent_are_reserved_and_half_a_gibibyte_at_most(levels):
    assert default_reserve(2 * GIB) == int(0.04 * 2 * GIB)
    assert default_reserve(1 << 40) == 512 * MIB
    assert levels(512 * MIB - 1, reserve=None) == ["low"]


def test_where_nothing_is_known_nothing_is_told():
    assert Pressure(GIB, lambda: None).look() is None


def test_it_looks_four_times_a_second_at_most(monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    looks = []
    pressure = Pressure(GIB, lambda: looks.append(1))
    for _ in range(5):
        pressure.look()
    assert len(looks) == 1


def test_it_looks_half_as_often_where_there_is_plenty(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock) / 100)
    looks = []

    def machine():
        looks.append(1)
        return Machine(16 * GIB if len(looks) < 5 else 2 * GIB, 16 * GIB)

    pressure = Pressure(GIB, machine)
    intervals = []
    while len(looks) < 8:
        pressure.look()
        intervals.append(pressure.interval)
    assert len(intervals) == 4 * 50 + 3 * 25 + 1
    assert set(intervals[:200]) == {0.5}
    assert set(intervals[201:]) == {0.25}
