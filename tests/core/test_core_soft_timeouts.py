"""Soft timeouts: when SoftTimeout is raised in a task, and what becomes of it."""

from __future__ import annotations

import pytest
from core_play import DIED, RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import RaiseSoftTimeout
from resilient_exec.core.states import State
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.task import Outcome, Raised, TimedOut

SOFT = Raised(SoftTimeout("5 s are over"), Evidence(traceback="File x.py"))
STACKS = Evidence(stacks="File x.py")


def _event(p: Play, kind: str) -> Event:
    (event,) = [c for c in p.commands if isinstance(c, Event) and c.kind == kind]
    return event


# -- soft timeouts -----------------------------------------------------------------------------------------------------


def test_a_soft_timeout_is_raised_in_the_task_when_its_time_is_over_and_not_before() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    assert p.after(4.9) == []
    p.now = 5.0
    assert p.after(0) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    assert p.commands[1] == RaiseSoftTimeout(0, "a", 1)
    assert _event(p, "soft_timeout").detail == {"limit": 5.0}
    assert p.state("a") is State.RUNNING


def test_a_soft_timeout_is_counted_from_the_begin_and_not_from_the_sending() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0)
    p.after(3)
    p.begun("a")
    assert p.next_due() == 8.0


def test_a_soft_timeout_without_a_hard_one_is_raised_once_and_waits_for_ever() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.next_due() is None
    assert p.after(1e6) == []
    assert "Settle a returned 1" in p.ended("a")


def test_the_hard_timeout_is_counted_from_the_begin_and_not_from_the_soft_one() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0, timeout=8.0)
    p.after(1)
    p.begun("a")
    assert p.after(5) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    assert p.next_due() == 9.0
    assert p.after(2.9) == []
    p.now = 9.0
    assert p.after(0) == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a")[-1] == "Settle a timed_out 1"
    assert p.settled["a"].outcome == TimedOut(8.0, DIED.pid)


def test_a_hard_timeout_is_not_put_off_by_a_soft_one_whose_word_came_late() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    assert p.after(20) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1", "doomed a#1", "Kill L0 a#1"]


def test_a_hard_timeout_before_the_soft_one_strikes_at_its_own_time() -> None:
    p = Play()
    p.running("a", soft_timeout=8.0, timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_a_soft_timeout_at_the_time_of_the_hard_one_is_not_raised() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_without_a_soft_timeout_none_is_raised() -> None:
    p = Play()
    p.running("a", timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_a_task_that_puts_itself_in_order_and_returns_after_its_soft_timeout_has_returned() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.after(5)
    assert p.ended("a")[:3] == ["returned a#1", "settled a#1", "Settle a returned 1"]
    p.gone()  # the worker in which it was interrupted
    assert p.next_due() is None


def test_a_soft_timeout_that_leaves_the_task_is_a_timeout_whose_cause_it_is() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=SOFT)[:3] == ["timed_out a#1", "settled a#1", "Settle a timed_out 1"]
    outcome = p.settled["a"].outcome
    assert outcome == TimedOut(5.0, 4000, "soft_timeout", SOFT.exception)
    assert outcome.evidence is SOFT.evidence
    told = p.settled["a"].story[-2]
    assert (told.detail["what"], told.evidence) == ("soft_timeout", SOFT.evidence)


def test_a_soft_timeout_that_leaves_the_task_is_charged_to_the_timeouts() -> None:
    p = Play()
    policy = Grant(1.0)
    p.running("a", policy, soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=SOFT) == ["timed_out a#1", "backing_off a#1", "lane_stopping L0", "StopWorker L0"]
    assert policy.asked == [("timed_out", 1)]


def test_a_subclass_of_soft_timeout_counts_as_one() -> None:
    class Mine(SoftTimeout):
        pass

    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert "Settle a timed_out 1" in p.ended("a", outcome=Raised(Mine("x")))


def test_another_exception_after_a_soft_timeout_is_the_tasks_own() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert "Settle a raised 1" in p.ended("a", outcome=RAISED)
    assert p.settled["a"].outcome is RAISED


def _replace(p: Play) -> None:
    """The worker in which the task was interrupted goes; another one is there when it is needed."""
    p.gone()
    p.submit("to have a worker started")
    p.ready()
    p.begun("to have a worker started")
    p.ended("to have a worker started")
    del p.settled["to have a worker started"]


@pytest.mark.parametrize("outcome", [SOFT, RAISED, VALUE])
def test_a_worker_in_which_a_task_was_interrupted_is_replaced(outcome: Outcome) -> None:
    """An import may stand half-way, a lock may be held for ever; even if the task put things in order and returned."""
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.submit("b")
    p.after(5)
    assert p.ended("a", outcome=outcome)[-2:] == ["lane_stopping L0", "StopWorker L0"]
    assert p.gone() == ["lane_lost L0", "lane_starting L0", "StartWorker L0"]
    assert p.ready() == ["lane_ready L0", "sent b#1", "Send L0 b#1"]


def test_a_worker_whose_task_returned_before_its_soft_timeout_is_kept() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.submit("b")
    p.after(4)
    assert p.ended("a")[-1] == "Send L0 b#1"


def test_a_soft_timeout_out_of_a_task_that_has_none_is_its_own_exception() -> None:
    """It may come from a pool inside the task."""
    p = Play()
    p.running("a", timeout=9.0)
    assert p.ended("a", outcome=SOFT)[-1] == "Settle a raised 1"
    assert p.settled["a"].outcome is SOFT


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_soft_timeout_that_leaves_the_task_before_its_time_is_the_tasks_own_exception(attempt: int) -> None:
    p = Play()
    p.running("a", Grant(0.0), soft_timeout=5.0)
    if attempt == 2:
        p.after(5)
        p.ended("a", outcome=SOFT)
        _replace(p)
        p.after(0)
        p.begun("a", 2)
    p.after(4.9)
    assert p.ended("a", attempt, outcome=SOFT)[0] == f"raised a#{attempt}"


def test_a_second_attempt_gets_its_soft_timeout_anew() -> None:
    p = Play()
    p.running("a", Grant(1.0, 1.0), soft_timeout=5.0, timeout=8.0)
    for attempt in (1, 2, 3):
        assert p.after(5) == [f"soft_timeout a#{attempt}", f"RaiseSoftTimeout L0 a#{attempt}"]
        p.ended("a", attempt, outcome=SOFT)
        _replace(p)
        p.after(1)
        if attempt < 3:
            p.begun("a", attempt + 1)
            assert p.next_due() == p.now + 5
    assert p.settled["a"].attempts == 3


def test_a_soft_timeout_during_a_kill_is_not_raised() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.kill("a")
    assert p.after(5) == []
    assert p.died("a")[-1] == "Settle a killed 1"


def test_a_soft_timeout_that_beats_the_kill_for_the_hard_one_stands() -> None:
    p = Play()
    p.running("a", Grant(1.0), soft_timeout=5.0, timeout=8.0)
    p.after(8)
    assert p.state("a") is State.DOOMED
    assert p.ended("a", outcome=SOFT)[:2] == ["timed_out a#1", "backing_off a#1"]
    (told,) = [event for event in p.core.story("a") if event.kind == "timed_out"]
    assert told.detail == {"pid": 4000, "limit": 5.0, "what": "soft_timeout"}


def test_a_death_after_the_soft_timeout_is_a_death() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.after(5)
    assert p.died("a")[-1] == "Settle a died 1"


def test_a_begin_that_crosses_the_kill_of_the_frozen_has_its_whole_soft_timeout() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0, timeout=8.0)
    p.after(10)
    p.begun("a")
    assert p.next_due() == 15.0
    assert p.after(5) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]


def test_one_that_begins_while_it_is_doomed_is_not_told_of_its_soft_timeout() -> None:
    p = Play(kill_timeout=50.0)
    p.sent("a", soft_timeout=5.0)
    p.kill("a")
    p.begun("a")
    assert p.after(10) == []


def test_the_soft_timeout_of_one_that_settled_in_time_does_not_strike_the_next() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.submit("b")
    p.ended("a")
    p.begun("b")
    assert p.after(100) == []
