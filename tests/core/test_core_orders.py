"""Orders have answers; a policy with the user's strategies is asked elsewhere; a process that did not run."""

from __future__ import annotations

import pytest
from core_play import RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import (
    Answered,
    AskPolicy,
    Begun,
    EndStart,
    EndStop,
    Kill,
    Lagged,
    PolicyAnswered,
    StartFailed,
)
from resilient_exec.core.states import State
from resilient_exec.model.policies import RetryPolicy

# -- answers -----------------------------------------------------------------------------------------------------------


def test_each_order_that_is_answered_has_a_serial_of_its_own() -> None:
    p = Play()
    p.submit("a")
    p.after(120)
    orders = [c for c in p.commands if isinstance(c, EndStart)]
    p.ready()
    p.kill("a")
    orders += [c for c in p.commands if isinstance(c, Kill)]
    assert len({order.order for order in orders}) == len(orders) == 2


def test_a_kill_that_found_nothing_leaves_its_lane_in_use() -> None:
    """The lane does not have what it was to kill: the task is not lost by that, nor is the lane given up."""
    p = Play()
    p.running("a", timeout=2.0)
    p.submit("b")
    p.after(2)
    assert p.answered()[:3] == ["timed_out a#1", "settled a#1", "Settle a timed_out 1"]
    assert p.commands[-1].number == "b"
    assert p.state("b") is State.SENT
    p.begun("b")
    assert p.after(100) == []


def test_a_kill_that_spares_what_has_begun_leaves_it_running() -> None:
    p = Play()
    p.sent("a", timeout=50.0)
    p.after(10)
    p.begun("a")
    assert p.answered() == []
    assert (p.state("a"), p.lane()["state"], p.next_due()) == (State.RUNNING, "busy", 60.0)


def test_a_frozen_attempt_that_its_lane_does_not_have_is_sent_again_uncharged() -> None:
    p = Play()
    p.sent("a")
    p.after(10)
    assert p.answered() == ["lost a#1", "sent a#1", "Send L0 a#1"]


def test_an_answer_to_another_order_is_not_believed() -> None:
    p = Play()
    p.running("a", timeout=2.0)
    p.after(2)
    assert p.tell(Answered(0, 77)) == []
    assert p.lane()["state"] == "killing"


def test_an_answer_about_a_start_or_a_stop_waits_for_its_end() -> None:
    p = Play()
    p.submit("a")
    p.after(120)
    assert p.answered() == []
    assert p.tell(StartFailed(0, "no"))[0] == "lane_failed L0"


def test_a_stop_that_takes_too_long_is_ended_by_a_command_of_its_own() -> None:
    p = Play(max_tasks_per_worker=1)
    p.running("a")
    p.ended("a")
    p.after(5)
    assert isinstance(p.commands[-1], EndStop)


# -- policies ----------------------------------------------------------------------------------------------------------


def _asked(**task: object) -> Play:
    p = Play()
    p.running("a", RetryPolicy(errors=5, wait=lambda _: 2.0), **task)
    p.ended("a", outcome=RAISED)
    return p


def test_a_policy_with_strategies_is_asked_elsewhere() -> None:
    p = _asked()
    (ask,) = [c for c in p.commands if isinstance(c, AskPolicy)]
    assert (ask.number, ask.attempt, ask.failure.cause) == ("a", 1, "raised")
    assert p.state("a") is State.BACKING_OFF
    assert p.tell(PolicyAnswered("a", 1, 2.0)) == ["backing_off a#1"]
    assert p.after(2) == ["sent a#2", "Send L0 a#2"]


def test_a_policy_that_says_no_leaves_the_outcome_as_it_was() -> None:
    p = _asked()
    assert p.tell(PolicyAnswered("a", 1, None)) == ["settled a#1", "Settle a raised 1"]
    assert p.settled["a"].outcome is RAISED


def test_a_policy_that_does_not_answer_in_time_is_taken_for_a_no() -> None:
    p = _asked()
    assert p.after(10) == ["policy_late a#1", "settled a#1", "Settle a raised 1"]
    assert p.tell(PolicyAnswered("a", 1, 2.0)) == []


def test_a_kill_and_a_shutdown_wait_for_no_policy() -> None:
    p = _asked()
    assert p.kill("a") == ["settled a#1", "Settle a killed 1"]
    p = _asked()
    assert "Settle a killed 1" in p.shutdown(cancel=True)


def test_an_answer_about_an_earlier_attempt_is_not_believed() -> None:
    p = _asked()
    p.tell(PolicyAnswered("a", 1, 0.0))
    p.after(0)
    p.begun("a", 2)
    p.ended("a", 2, outcome=RAISED)
    assert p.tell(PolicyAnswered("a", 1, None)) == []
    assert p.state("a") is State.BACKING_OFF


# -- a process that did not run ----------------------------------------------------------------------------------------


def _lag(p: Play, seconds: float, *, stopped: bool) -> list[str]:
    p.now += seconds
    return p.tell(Lagged(seconds, stopped))


def test_a_stop_gives_a_running_attempt_its_time_back() -> None:
    p = Play()
    p.running("a", timeout=5.0)
    p.now = 1.0
    assert _lag(p, 3.0, stopped=True) == []
    assert p.next_due() == 8.0


def test_it_does_so_once_in_an_attempt() -> None:
    p = Play()
    p.running("a", Grant(0.0), timeout=5.0)
    p.now = 1.0
    _lag(p, 3.0, stopped=True)
    _lag(p, 3.0, stopped=True)
    assert p.next_due() == 8.0
    p.when_due()
    p.died("a")
    p.after(0)
    p.ready()
    p.begun("a", 2)
    began = p.now
    p.now += 1
    _lag(p, 2.0, stopped=True)
    assert p.next_due() == began + 7


def test_a_busy_process_gives_no_attempt_more_time() -> None:
    p = Play()
    p.running("a", timeout=5.0)
    _lag(p, 3.0, stopped=False)
    assert p.next_due() == 5.0
    assert p.after(2) == ["doomed a#1", "Kill L0 a#1"]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_lane_that_could_not_run_either_is_not_given_up_for_that(*, stopped: bool) -> None:
    p = Play()
    p.running("a")
    p.kill("a")
    p.now = 1.0
    _lag(p, 20.0, stopped=stopped)
    assert p.next_due() == 30.0


def test_an_attempt_whose_begin_is_heard_of_after_the_stop_gets_its_time_back_too() -> None:
    p = Play()
    p.sent("a", timeout=5.0)
    p.now = 1.0
    _lag(p, 3.0, stopped=True)
    p.tell(Begun(0, "a", 1, 4000, 0.5))
    assert p.next_due() == 8.5


def test_one_that_began_after_the_stop_gets_nothing() -> None:
    p = Play()
    p.sent("a", timeout=5.0)
    _lag(p, 3.0, stopped=True)
    p.now = 6.0
    p.tell(Begun(0, "a", 1, 4000, 5.0))
    assert p.next_due() == 10.0


def test_the_soft_timeout_and_the_hard_one_are_put_off_together() -> None:
    p = Play()
    p.running("a", soft_timeout=2.0, timeout=5.0)
    p.now = 1.0
    _lag(p, 3.0, stopped=True)
    assert p.when_due() == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    assert (p.now, p.next_due()) == (5.0, 8.0)
    assert p.ended("a", outcome=VALUE)[-3] == "Settle a returned 1"


def test_a_policy_is_given_its_time_anew() -> None:
    p = _asked()
    _lag(p, 20.0, stopped=True)
    assert p.state("a") is State.BACKING_OFF
    assert p.next_due() == 30.0


# -- what is found while an order is on its way ------------------------------------------------------------------------


def test_a_kill_that_finds_its_attempt_taken_back_leaves_its_lane_in_use() -> None:
    p = Play()
    p.sent("a")
    p.kill("a")
    assert p.taken_back("a") == ["killed a#1", "settled a#1", "Settle a killed 0"]
    p.answered()
    assert p.submit("b")[-1] == "Send L0 b#1"
    assert p.begun("b") == ["begun b#1"]
    assert p.after(1000) == []


def test_so_does_one_at_the_end_of_the_pool() -> None:
    """The lane was given up after 10 s where a cancel raced with ``shutdown(kill=True)``."""
    p = Play()
    p.sent("a")
    p.shutdown(kill=True)
    assert p.taken_back("a")[-1] == "Settle a killed 0"
    assert p.answered() == ["CloseLane L0"]
    assert p.closed()[-1] == "Finish"


def test_what_was_sent_behind_one_that_was_taken_back_from_its_kill_stays_where_it_is() -> None:
    p = Play(depth=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.kill("a")
    p.taken_back("a")
    assert p.answered() == []
    assert p.begun("b") == ["begun b#1"]


def test_a_cancel_of_one_that_was_taken_for_frozen_leaves_its_lane_in_use() -> None:
    p = Play()
    p.sent("a")
    p.after(10)
    assert p.lane()["state"] == "killing"
    p.cancel("a")
    p.answered()
    assert p.submit("b")[-1] == "Send L0 b#1"


def test_a_cancel_of_one_that_was_taken_for_frozen_gives_none_of_those_behind_it_away() -> None:
    """They are in the worker still, and would run there and elsewhere."""
    p = Play(depth=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.after(10)
    p.cancel("a")
    assert p.answered() == []
    assert p.begun("b") == ["begun b#1"]
