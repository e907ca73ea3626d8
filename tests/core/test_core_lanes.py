"""Workers that start, wear out, fail to start or to end; and the end of the pool."""

from __future__ import annotations

import pytest
from core_play import RAISED, Grant, Play

from resilient_exec.model.errors import PoolBroken

# -- recycling ---------------------------------------------------------------------------------------------------------


def test_a_worker_is_replaced_after_as_many_attempts_as_it_may_run() -> None:
    p = Play(max_tasks_per_worker=2)
    p.running("a")
    p.ended("a")
    p.running("b")
    p.submit("c")
    assert p.ended("b") == [
        "returned b#1",
        "settled b#1",
        "Settle b returned 1",
        "lane_stopping L0",
        "StopWorker L0",
    ]
    assert p.gone() == ["lane_lost L0", "lane_starting L0", "StartWorker L0"]
    assert p.ready()[-1] == "Send L0 c#1"
    p.begun("c")
    assert p.ended("c")[-1] == "Settle c returned 1"  # the count began anew


def test_an_attempt_that_raised_wears_the_worker_too() -> None:
    p = Play(max_tasks_per_worker=1)
    p.running("a")
    assert p.ended("a", outcome=RAISED)[-1] == "StopWorker L0"


def test_a_worn_worker_that_does_not_end_in_time_is_killed_and_then_given_up() -> None:
    p = Play(max_tasks_per_worker=1)
    p.running("a")
    p.ended("a")
    assert p.after(5) == ["lane_overdue L0", "EndStop L0"]
    p.submit("b")
    assert p.after(10) == ["lane_abandoned L0", "Abandon L0", "lane_starting L1", "StartWorker L1"]


def test_a_worn_worker_that_was_killed_is_replaced() -> None:
    p = Play(max_tasks_per_worker=1)
    p.running("a")
    p.submit("b")
    p.ended("a")
    p.after(5)
    assert p.gone() == ["lane_lost L0", "lane_starting L0", "StartWorker L0"]


def test_a_worker_that_dies_idle_costs_nothing_and_is_replaced_when_it_is_needed() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    assert p.gone() == ["lane_lost L0"]
    assert p.submit("b") == ["queued b", "lane_starting L0", "StartWorker L0"]


# -- starts that fail --------------------------------------------------------------------------------------------------


def test_a_failed_start_is_tried_again_after_a_wait_that_doubles() -> None:
    p = Play(start_failures=100, first_start_wait=0.1, longest_start_wait=1.0)
    p.submit("a")
    waits = []
    for _ in range(6):
        assert p.start_failed() == ["lane_failed L0"]
        waits.append(round(p.next_due() - p.now, 9))
        assert p.when_due() == ["lane_starting L0", "StartWorker L0"]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_nothing_is_started_while_the_wait_lasts() -> None:
    p = Play(lanes=3)
    p.submit("a")
    p.start_failed()
    assert p.submit("b") == ["queued b"]
    assert p.after(0.1) == ["lane_starting L0", "StartWorker L0", "lane_starting L1", "StartWorker L1"]


def test_a_start_that_succeeds_opens_the_gate() -> None:
    p = Play(lanes=2)
    p.submit("a")
    p.submit("b")
    assert p.start_failed(0) == ["lane_failed L0"]
    assert p.ready(1) == ["lane_ready L1", "sent a#1", "Send L1 a#1", "lane_starting L0", "StartWorker L0"]


def test_a_start_that_succeeds_forgets_the_failures() -> None:
    p = Play(start_failures=2)
    p.submit("a")
    p.start_failed()
    p.when_due()
    p.ready()
    p.gone()
    assert p.start_failed() == ["lane_failed L0"]
    assert p.next_due() == pytest.approx(p.now + 0.1)
    p.when_due()
    assert p.start_failed()[1] == "pool_broken"


def test_three_failures_in_a_row_break_the_pool_with_the_workers_own_words() -> None:
    p = Play()
    p.running("a", Grant(1000.0))
    p.died("a")
    p.submit("b")
    for _ in range(2):
        p.start_failed()
        p.when_due()
    assert p.start_failed(why="ModuleNotFoundError: nope") == [
        "lane_failed L0",
        "pool_broken",
        "settled a#1",
        "Settle a PoolBroken 1",
        "settled b",
        "Settle b PoolBroken 0",
    ]
    error = p.settled["b"].outcome
    assert isinstance(error, PoolBroken)
    assert "ModuleNotFoundError: nope" in str(error)
    assert "3 times in a row" in str(error)
    assert p.next_due() is None


def test_a_broken_pool_refuses_what_comes_and_can_be_shut_down() -> None:
    p = Play(start_failures=1)
    p.submit("a")
    p.start_failed()
    assert p.submit("b") == ["settled b", "Settle b PoolBroken 0"]
    assert p.shutdown() == ["pool_closing", "CloseLane L0"]
    assert p.closed() == ["lane_closed L0", "Finish"]


def test_the_pool_is_not_broken_while_another_worker_is_alive() -> None:
    p = Play(lanes=2)
    p.running("a")
    p.submit("b")
    for _ in range(5):
        assert p.start_failed(1) == ["lane_failed L1"]
        assert p.when_due()[-1] == "StartWorker L1"
    assert p.core.broken is None
    p.ended("a")
    p.begun("b")
    assert p.ended("b")[-1] == "Settle b returned 1"


def test_the_pool_is_not_broken_while_another_worker_is_on_its_way() -> None:
    p = Play(lanes=2, start_failures=1)
    p.submit("a")
    p.submit("b")
    assert p.start_failed(0) == ["lane_failed L0"]
    assert p.start_failed(1)[1] == "pool_broken"


def test_the_pool_is_not_broken_while_nobody_waits_for_a_worker() -> None:
    """A lane that was given up late must not be the last word of a pool that has done its work."""
    p = Play(lanes=2, start_failures=1, kill_timeout=3.0)
    p.submit("a")
    p.after(120)
    p.ready(1)
    p.begun("a", lane=1)
    p.shutdown()
    assert p.ended("a", lane=1)[-2:] == ["Settle a returned 1", "CloseLane L1"]
    assert p.after(3) == ["lane_abandoned L0", "Abandon L0"]
    assert p.core.broken is None


def test_with_no_worker_left_the_next_failure_breaks_the_pool() -> None:
    p = Play(lanes=2)
    p.running("a", Grant(0.0))
    p.submit("b")
    for _ in range(4):
        p.start_failed(1)
        p.when_due()
    p.gone(0)
    assert p.core.broken is None
    assert p.start_failed(1)[1] == "pool_broken"


def test_the_gate_keeps_no_other_timer_from_firing() -> None:
    p = Play(lanes=2)
    p.running("a", timeout=50.0)
    p.submit("b")
    p.start_failed(1)
    p.shutdown(cancel=True)
    assert p.after(50) == ["doomed a#1", "Kill L0 a#1"]


# -- starts that hang --------------------------------------------------------------------------------------------------


def test_a_start_over_its_time_is_killed_and_counts_as_failed() -> None:
    p = Play(start_timeout=30.0)
    p.submit("a")
    assert p.after(30) == ["lane_overdue L0", "EndStart L0"]
    assert p.start_failed(why="given up") == ["lane_failed L0"]
    assert p.after(0.1) == ["lane_starting L0", "StartWorker L0"]


def test_a_worker_that_becomes_ready_just_when_its_start_is_given_up_is_used() -> None:
    p = Play()
    p.submit("a")
    p.after(120)
    assert p.ready() == ["lane_ready L0", "sent a#1", "Send L0 a#1"]


def test_a_start_that_cannot_be_ended_costs_the_lane_and_counts_as_failed() -> None:
    p = Play(start_failures=2)
    p.submit("a")
    p.after(120)
    assert p.after(10) == ["lane_abandoned L0", "Abandon L0"]
    assert p.after(0.1) == ["lane_starting L1", "StartWorker L1"]
    p.after(120)
    assert p.after(10) == [
        "lane_abandoned L1",
        "Abandon L1",
        "pool_broken",
        "settled a",
        "Settle a PoolBroken 0",
    ]
    assert "nothing within 120 s" in p.core.broken


def test_a_running_worker_that_cannot_be_killed_is_no_failed_start() -> None:
    p = Play(start_failures=1)
    p.running("a")
    p.submit("b")
    p.kill("a")
    assert p.after(10)[-1] == "StartWorker L1"
    assert p.core.broken is None


def test_a_lane_that_ends_by_itself_on_every_start_breaks_the_pool_instead_of_looping() -> None:
    p = Play()
    p.submit("a")
    assert p.closed(0) == ["lane_closed L0"]
    assert p.when_due() == ["lane_starting L1", "StartWorker L1"]
    p.closed(1)
    p.when_due()
    assert p.closed(2)[1] == "pool_broken"


def test_a_lane_that_ends_by_itself_gives_back_what_it_held() -> None:
    p = Play(depth=2)
    p.running("a", Grant(1.0))
    p.submit("b")
    assert p.closed() == [
        "lane_closed L0",
        "died a#1",
        "backing_off a#1",
        "lost b#1",
        "lane_starting L1",
        "StartWorker L1",
    ]


def test_a_broken_pool_stays_broken_whatever_its_lanes_still_say() -> None:
    p = Play(2, start_failures=1)
    p.submit("a")
    p.submit("b")
    p.start_failed(0)
    assert p.start_failed(1)[1] == "pool_broken"
    p.closed(0)
    p.closed(1)
    assert p.core.broken is not None
    assert p.submit("c") == ["settled c", "Settle c PoolBroken 0"]
