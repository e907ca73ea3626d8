"""The end of the pool: plain, with cancel, with kill; lanes that do not close; ``Finish`` exactly once."""

from __future__ import annotations

import pytest
from core_play import RAISED, Grant, Play

from resilient_exec.core.messages import CloseLane
from resilient_exec.model.errors import PoolClosed
from resilient_exec.model.task import Killed, NotSent


def test_shutdown_of_an_unused_pool_finishes_at_once() -> None:
    p = Play()
    assert p.shutdown() == ["pool_closing", "Finish"]
    assert p.core.finished


def test_shutdown_lets_everything_run_to_its_end_then_closes_the_lanes_then_finishes() -> None:
    p = Play(lanes=2)
    p.running("a", Grant(1.0))
    p.submit("b")
    p.submit("c")
    assert p.shutdown() == ["pool_closing"]
    assert p.died("a") == ["lane_lost L0", "died a#1", "backing_off a#1", "lane_starting L0", "StartWorker L0"]
    p.ready(1)
    p.begun("b", lane=1)
    p.ended("b", lane=1)
    p.begun("c", lane=1)
    p.after(1)
    assert p.ready(0) == ["lane_ready L0", "sent a#2", "Send L0 a#2"]
    p.begun("a", 2)
    assert p.ended("a", 2)[-1] == "Settle a returned 2"
    assert p.ended("c", lane=1) == [
        "returned c#1",
        "settled c#1",
        "Settle c returned 1",
        "CloseLane L0",
        "CloseLane L1",
    ]
    assert p.closed(1) == ["lane_closed L1"]
    assert p.closed(0) == ["lane_closed L0", "Finish"]


def test_finish_is_said_once() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    assert p.shutdown() == ["pool_closing", "CloseLane L0"]
    assert p.shutdown(cancel=True) == []
    assert p.closed()[-1] == "Finish"
    assert p.closed() == p.shutdown(kill=True) == p.after(1000) == []
    assert p.submit("b") == ["settled b", "Settle b PoolClosed 0"]


def test_a_task_that_comes_after_the_shutdown_is_refused() -> None:
    p = Play()
    p.running("a")
    p.shutdown()
    assert p.submit("b") == ["settled b", "Settle b PoolClosed 0"]
    assert isinstance(p.settled["b"].outcome, PoolClosed)
    assert p.submit("c", problem=NotSent("no")) == ["settled c", "Settle c not_sent 0"]


def test_shutdown_with_cancel_drops_what_waits_and_lets_what_runs_end() -> None:
    p = Play(lanes=2)
    p.running("a")
    p.submit("b")
    p.submit("c")
    assert p.shutdown(cancel=True) == [
        "pool_closing",
        "settled b",
        "Settle b cancelled 0",
        "settled c",
        "Settle c cancelled 0",
    ]
    assert p.ended("a")[-3:] == ["Settle a returned 1", "CloseLane L0", "CloseLane L1"]


def test_shutdown_with_cancel_ends_what_backs_off() -> None:
    """Its future was running once and cannot be cancelled any more: it is ended."""
    p = Play()
    p.running("a", Grant(50.0))
    p.died("a")
    assert p.shutdown(cancel=True) == ["pool_closing", "settled a#1", "Settle a killed 1", "CloseLane L0"]
    assert p.settled["a"].outcome == Killed("shutdown()")


def test_shutdown_with_cancel_ends_what_was_lost_once_and_queues_again() -> None:
    p = Play()
    p.sent("a")
    p.gone()
    assert p.shutdown(cancel=True)[:3] == ["pool_closing", "settled a#1", "Settle a killed 0"]


def test_nothing_is_tried_again_after_a_shutdown_with_cancel() -> None:
    p = Play()
    p.running("a", Grant(1.0))
    p.shutdown(cancel=True)
    assert p.died("a") == ["lane_lost L0", "died a#1", "settled a#1", "Settle a died 1", "CloseLane L0"]


def test_shutdown_with_kill_ends_what_waits_and_what_backs_off_and_what_runs_and_what_was_sent_ahead() -> None:
    p = Play(depth=2)
    p.running("a", Grant(50.0))
    p.ended("a", outcome=RAISED)
    for key in "bcd":
        p.submit(key, Grant(50.0))
    p.begun("b")
    assert p.shutdown(kill=True) == [
        "pool_closing",
        "settled a#1",
        "Settle a killed 1",
        "settled d",
        "Settle d cancelled 0",
        "doomed b#1",
        "Kill L0 b#1",
        "doomed c#1",
        "TakeBack L0 c#1",
    ]
    assert p.died("b") == [
        "lane_lost L0",
        "killed b#1",
        "settled b#1",
        "Settle b killed 1",
        "killed c#1",
        "settled c#1",
        "Settle c killed 0",
        "CloseLane L0",
    ]


def test_a_kill_can_follow_a_plain_shutdown() -> None:
    p = Play()
    p.running("a", Grant(1.0))
    p.shutdown()
    assert p.shutdown(kill=True) == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a")[-2:] == ["Settle a killed 1", "CloseLane L0"]


def test_a_lane_that_is_being_killed_is_closed_when_it_has_answered() -> None:
    p = Play(max_tasks_per_worker=1)
    p.running("a")
    p.ended("a")
    p.after(5)
    assert p.shutdown() == ["pool_closing"]
    assert p.gone() == ["lane_lost L0", "CloseLane L0"]


def test_a_lane_that_starts_is_closed_when_its_task_was_cancelled() -> None:
    p = Play()
    p.submit("a")
    assert p.shutdown(cancel=True)[-1] == "CloseLane L0"
    assert p.ready() == p.start_failed() == []
    assert p.closed() == ["lane_closed L0", "Finish"]


def test_a_lane_that_does_not_close_in_time_is_killed_then_given_up_then_the_pool_finishes() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    p.shutdown()
    assert p.after(5) == ["lane_overdue L0", "EndStop L0"]
    assert p.after(10) == ["lane_abandoned L0", "Abandon L0", "Finish"]


@pytest.mark.parametrize("late", [False, True])
def test_a_closing_lane_may_say_that_its_worker_went_before_it_says_that_it_closed(late: bool) -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    p.shutdown()
    if late:
        p.after(5)
    assert p.gone() == ["lane_lost L0"]
    assert p.next_due() == p.now + 5  # it is still watched
    assert p.closed() == ["lane_closed L0", "Finish"]


def test_each_lane_is_closed_once() -> None:
    p = Play(lanes=2)
    for lane, key in enumerate("ab"):
        p.submit(key)
        p.ready(lane)
        p.begun(key, lane=lane)
    p.ended("a")
    p.ended("b", lane=1)
    p.shutdown()
    closes = [c.lane for c in p.commands if isinstance(c, CloseLane)]
    p.gone(0)
    assert closes == [0, 1]
    assert [c for c in p.commands if isinstance(c, CloseLane)] == []
