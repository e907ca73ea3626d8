"""A machine that is short of memory: what is told of it, who is held back, and that all the same everything ends."""

from __future__ import annotations

import pytest
from core_play import RAISED, Grant, Play

from resilient_exec.core.states import State
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.task import Raised

SOFT = Raised(SoftTimeout("5 s are over"), Evidence(traceback="File x.py"))
STACKS = Evidence(stacks="File x.py")


def _event(p: Play, kind: str) -> Event:
    (event,) = [c for c in p.commands if isinstance(c, Event) and c.kind == kind]
    return event


# -- the machine's memory: what is told --------------------------------------------------------------------------------


def test_a_change_of_the_level_is_told_once() -> None:
    p = Play()
    assert p.memory("ok") == []
    assert p.memory("low", 5) == ["memory_low"]
    assert p.commands[0].detail == {"available": 5}
    assert p.memory("low", 4) == []
    assert p.memory("critical") == ["memory_critical"]
    assert p.memory("critical") == []
    assert p.memory("ok") == ["memory_ok"]


# -- the machine's memory: holding back --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["low", "critical"])
def test_while_memory_is_not_ok_no_attempt_is_sent_beside_another(level: str) -> None:
    p = Play(lanes=2)
    p.running("a")
    p.submit("b")
    assert p.memory(level) == [f"memory_{level}"]
    assert p.ready(1) == ["lane_ready L1"]
    p.submit("c")
    assert [p.state(key) for key in "abc"] == [State.RUNNING, State.QUEUED, State.QUEUED]


@pytest.mark.parametrize("level", ["low", "critical"])
def test_while_memory_is_not_ok_no_worker_is_started_beside_a_running_attempt(level: str) -> None:
    p = Play(lanes=3)
    p.running("a")
    p.memory(level)
    assert p.submit("b") == ["queued b"]


@pytest.mark.parametrize("level", ["low", "critical"])
def test_when_memory_is_low_for_ever_tasks_still_run_one_by_one(level: str) -> None:
    p = Play(lanes=3)
    p.memory(level)
    assert p.submit("a") == ["queued a", "lane_starting L0", "StartWorker L0"]
    assert p.submit("b") == ["queued b"]  # one worker is enough for one attempt
    assert p.submit("c") == ["queued c"]
    assert p.ready()[-1] == "Send L0 a#1"
    p.begun("a")
    assert p.memory(level) == []
    assert p.ended("a")[-1] == "Send L0 b#1"
    p.begun("b")
    assert p.died("b")[-2:] == ["lane_starting L0", "StartWorker L0"]
    assert p.ready()[-1] == "Send L0 c#1"
    p.begun("c")
    p.ended("c")
    assert [p.settled[key].outcome.kind for key in "abc"] == ["returned", "died", "returned"]


def test_when_memory_is_low_a_worker_that_cannot_be_started_is_tried_again() -> None:
    p = Play(lanes=2)
    p.memory("low")
    p.submit("a")
    assert p.start_failed() == ["lane_failed L0"]
    assert p.when_due() == ["lane_starting L0", "StartWorker L0"]


KILLED = "a kill is on its way"


@pytest.mark.parametrize("busy", [KILLED, "it has not begun"])
def test_one_that_is_not_gone_yet_still_takes_the_only_place(busy: str) -> None:
    p = Play(lanes=2)
    p.sent("a")
    p.submit("b")
    p.memory("low")
    p.ready(1)
    if busy == KILLED:
        p.begun("a")
        p.kill("a")
    assert p.state("b") is State.QUEUED
    assert [word for word in p.gone() if word.startswith("Send")] == [
        "Send L1 b#1" if busy == KILLED else "Send L1 a#1"
    ]


def test_when_memory_is_low_a_back_off_does_not_take_the_place() -> None:
    p = Play(lanes=2)
    p.running("a", Grant(5.0))
    p.memory("low")
    p.submit("b")
    assert p.ended("a", outcome=RAISED)[-1] == "Send L0 b#1"
    p.begun("b")
    assert p.after(5) == []
    assert p.ended("b")[-1] == "Send L0 a#2"


def test_when_memory_is_low_a_cancelled_task_does_not_take_the_place() -> None:
    p = Play()
    p.memory("low")
    p.sent("a")
    p.submit("b")
    assert p.cancel("a")[-1] == "Send L0 b#1"


def test_when_memory_is_low_nothing_is_sent_ahead() -> None:
    p = Play(depth=3)
    p.memory("low")
    p.running("a")
    assert p.submit("b") == ["queued b"]
    assert p.ended("a")[-1] == "Send L0 b#1"


def test_two_idle_lanes_are_both_used_when_memory_comes_back() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    p.memory("low")
    for key in "defg":
        p.submit(key)
    assert p.ended("b", lane=1)[-1] == "Settle b returned 1"
    assert p.ended("c", lane=2)[-1] == "Settle c returned 1"
    assert p.memory("ok") == ["memory_ok", "sent d#1", "Send L2 d#1", "sent e#1", "Send L1 e#1"]


def test_workers_are_started_for_all_who_waited_when_memory_comes_back() -> None:
    p = Play(lanes=3)
    p.running("a")
    p.memory("low")
    p.submit("b")
    p.submit("c")
    assert [w for w in p.memory("ok") if w.startswith("Start")] == ["StartWorker L1", "StartWorker L2"]


def test_from_critical_to_low_nothing_is_let_in() -> None:
    p = Play(lanes=2)
    p.running("a")
    p.memory("critical")
    p.submit("b")
    assert p.memory("low") == ["memory_low"]
