"""Failing and trying again: budgets per cause, back-off, deadlines, attempts that were lost."""

from __future__ import annotations

import pytest
from core_play import RAISED, Grant, Play

from resilient_exec.core.messages import Send
from resilient_exec.model.events import Event
from resilient_exec.model.policies import RetryPolicy, as_policy, default_wait
from resilient_exec.model.task import Lost, TimedOut

# -- retries -----------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_backs_off_for_the_delay_and_is_sent_again() -> None:
    p = Play()
    p.running("a", Grant(2.0))
    assert p.died("a") == ["lane_lost L0", "died a#1", "backing_off a#1"]
    assert p.commands[-1] == Event(0.0, "backing_off", "a", 1, detail={"delay": 2.0})
    assert p.next_due() == 2.0
    assert p.after(1.9) == []
    assert p.after(0.2) == ["lane_starting L0", "StartWorker L0"]
    assert p.ready() == ["lane_ready L0", "sent a#2", "Send L0 a#2"]
    p.begun("a", 2)
    assert p.ended("a", 2)[-1] == "Settle a returned 2"


def test_an_exception_that_the_policy_accepts_backs_off_and_the_warm_worker_gets_it_again() -> None:
    p = Play()
    p.running("a", Grant(1.0))
    assert p.ended("a", outcome=RAISED) == ["raised a#1", "backing_off a#1"]
    assert p.after(1) == ["sent a#2", "Send L0 a#2"]


def test_other_tasks_run_while_one_backs_off() -> None:
    p = Play()
    p.running("a", Grant(5.0))
    p.submit("b")
    p.ended("a", outcome=RAISED)
    p.begun("b")
    assert p.ended("b")[-1] == "Settle b returned 1"


def test_the_policy_is_told_cause_counts_attempts_time_and_exception() -> None:
    seen = []

    class Spy:
        asks_user = False

        def next_delay(self, failure):
            seen.append(failure._replace(counts=dict(failure.counts)))
            return 1.0

    p = Play()
    p.running("a", Spy(), timeout=30)
    p.after(4)
    p.died("a")
    p.after(1)
    p.ready()
    p.begun("a", 2)
    p.ended("a", 2, outcome=RAISED)
    assert seen == [
        ("a", "died", {"died": 1}, 1, 4.0, None, False, ""),
        ("a", "raised", {"died": 1, "raised": 1}, 2, 5.0, RAISED.exception, True, ""),
    ]


def _fail(p: Play, attempt: int, how: str) -> list[str]:
    """Run the attempt of ``a`` from its sending to its failing in that way; the answer to the last word."""
    if not any(isinstance(c, Send) for c in p.commands):
        p.when_due()
        if p.lane()["state"] == "starting":
            p.ready()
    p.begun("a", attempt)
    if how == "timed_out":
        p.when_due()
        return p.died("a", attempt)
    return p.died("a", attempt) if how == "died" else p.ended("a", attempt, outcome=RAISED)


@pytest.mark.parametrize(
    ("policy", "failures", "outcome"),
    [
        (RetryPolicy(), ["died", "died", "timed_out", "died"], "died"),
        (RetryPolicy(), ["timed_out", "died", "died", "timed_out"], "timed_out"),
        (RetryPolicy(), ["died", "died", "died"], "died"),
        (RetryPolicy(), ["timed_out", "timed_out"], "timed_out"),
        (RetryPolicy(), ["raised"], "raised"),
        (RetryPolicy(errors=1), ["died", "raised", "died", "raised"], "raised"),
        (RetryPolicy(0, 0), ["died"], "died"),
        (as_policy(1), ["died"], "died"),
        (as_policy(3), ["died", "timed_out", "died"], "died"),
        (as_policy(3), ["raised"], "raised"),
    ],
)
def test_each_cause_has_a_budget_of_its_own(policy: RetryPolicy, failures: list[str], outcome: str) -> None:
    p = Play()
    p.sent("a", policy, timeout=1000)
    for attempt, how in enumerate(failures[:-1], start=1):
        assert _fail(p, attempt, how)[-1] == f"backing_off a#{attempt}"
    assert _fail(p, len(failures), failures[-1])[-1] == f"Settle a {outcome} {len(failures)}"


def test_without_a_wait_of_its_own_a_policy_backs_off_by_the_default_wait() -> None:
    waits = []

    class Spy(RetryPolicy):
        def next_delay(self, failure):
            waits.append(default_wait(failure))
            return super().next_delay(failure)

    p = Play()
    p.running("a", Spy())
    p.died("a")
    assert p.next_due() == waits[0]


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_an_attempt_over_its_timeout_is_killed_and_settles_as_timed_out() -> None:
    p = Play()
    p.running("a", timeout=2.0)
    assert p.next_due() == 2.0
    assert p.after(1.9) == []
    assert p.after(0.1) == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a") == ["lane_lost L0", "timed_out a#1", "settled a#1", "Settle a timed_out 1"]
    assert p.settled["a"].outcome == TimedOut(2.0, 4000)


def test_the_timeout_counts_from_the_begin_of_each_attempt() -> None:
    p = Play()
    p.sent("a", Grant(5.0), timeout=3.0)
    p.after(2.9)
    p.begun("a")
    assert p.next_due() == pytest.approx(5.9)
    p.died("a")
    p.after(5)
    p.ready()
    p.after(2)
    p.begun("a", 2)
    assert p.next_due() == pytest.approx(p.now + 3)


def test_without_a_timeout_a_running_attempt_waits_for_no_clock() -> None:
    p = Play()
    p.running("a")
    assert p.next_due() is None
    assert p.after(1e9) == []


def test_a_result_in_time_takes_its_deadline_with_it() -> None:
    p = Play()
    p.running("a", timeout=2.0)
    p.ended("a")
    assert p.next_due() is None
    assert p.after(5) == []


def test_a_deadline_of_one_task_does_not_strike_the_next_in_that_worker() -> None:
    p = Play()
    p.running("a", timeout=2.0)
    p.submit("b", timeout=100.0)
    p.after(1)
    p.ended("a")
    p.begun("b")
    assert p.after(50) == []


# -- lost --------------------------------------------------------------------------------------------------------------


def test_an_attempt_whose_worker_went_before_it_began_is_sent_again_uncharged() -> None:
    p = Play()
    policy = Grant(1.0)
    p.sent("a", policy)
    assert p.gone() == ["lane_lost L0", "lost a#1", "lane_starting L0", "StartWorker L0"]
    assert p.ready() == ["lane_ready L0", "sent a#1", "Send L0 a#1"]
    assert policy.asked == []


def test_ten_lost_attempts_in_a_row_settle_the_task() -> None:
    p = Play()
    p.sent("a")
    for _ in range(9):
        assert p.gone()[-1] == "StartWorker L0"
        p.ready()
    assert p.gone() == ["lane_lost L0", "lost a#1", "settled a#1", "Settle a lost 0"]
    assert p.settled["a"].outcome == Lost("10 times in a row; gone")


def test_a_begin_ends_the_row_of_lost_attempts() -> None:
    p = Play()
    p.sent("a", Grant(0.5, 0.5))
    for attempt in (1, 2):
        for _ in range(9):
            p.gone()
            p.ready()
        p.begun("a", attempt)
        p.died("a", attempt)
        p.after(0.5)
        p.ready()
    p.begun("a", 3)
    assert p.ended("a", 3)[-1] == "Settle a returned 3"


def test_a_worker_that_died_before_its_begin_was_heard_is_charged_to_the_attempt_it_names() -> None:
    """The register of begins knows better than the channel: the note never left the dying worker."""
    p = Play()
    p.sent("a", Grant(1.0))
    assert p.died("a") == ["begun a#1", "lane_lost L0", "died a#1", "backing_off a#1"]
    p.after(1)
    assert p.ready()[-1] == "Send L0 a#2"
