"""Sending ahead: several attempts in one worker.  The head runs; a death charges it alone."""

from __future__ import annotations

import pytest
from core_play import Grant, Play

from resilient_exec.core.messages import Send
from resilient_exec.core.states import State


def _loaded(depth: int = 2, tasks: str = "abc", **limits: object) -> Play:
    """One lane in which ``a`` runs and the next ``depth - 1`` have been sent ahead."""
    p = Play(depth=depth, **limits)
    for key in tasks:
        p.submit(key, Grant(1.0))
    p.ready()
    p.begun("a")
    return p


@pytest.mark.parametrize(("depth", "sent"), [(1, "a"), (2, "ab"), (3, "abc")])
def test_as_many_are_sent_as_the_depth_allows(depth: int, sent: str) -> None:
    p = Play(depth=depth)
    for key in "abcd":
        p.submit(key)
    p.ready()
    assert "".join(c.number for c in p.commands if isinstance(c, Send)) == sent


def test_the_end_of_the_head_makes_room_for_one_more() -> None:
    p = _loaded()
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1", "sent c#1", "Send L0 c#1"]
    assert p.begun("b") == ["begun b#1"]


def test_an_idle_worker_is_used_before_anything_is_sent_ahead() -> None:
    p = Play(lanes=2, depth=2)
    p.submit("a")
    p.submit("b")
    p.ready(0)  # takes both: the other lane is not up yet
    p.ready(1)
    p.begun("a")
    assert p.submit("c") == ["queued c", "sent c#1", "Send L1 c#1"]


@pytest.mark.parametrize("depth", [2, 3])
def test_a_death_charges_the_head_and_the_others_queue_again_at_their_old_place(depth: int) -> None:
    p = _loaded(depth, "abcd")
    lost = ["lost b#1", "lost c#1"][: depth - 1]
    assert p.died("a") == [
        "lane_lost L0",
        "died a#1",
        "backing_off a#1",
        *lost,
        "lane_starting L0",
        "StartWorker L0",
    ]
    p.ready()
    assert "".join(c.number for c in p.commands if isinstance(c, Send)) == "bcd"[:depth]


def test_a_worker_that_dies_between_two_attempts_charges_nobody() -> None:
    p = _loaded()
    p.ended("a")
    assert p.gone() == ["lane_lost L0", "lost b#1", "lost c#1", "lane_starting L0", "StartWorker L0"]


def test_a_begin_of_one_that_is_not_the_head_is_not_believed() -> None:
    p = _loaded()
    assert p.begun("b") == []
    assert p.state("b") is State.SENT


def test_only_the_head_is_watched_for_stalling() -> None:
    p = _loaded()
    assert p.next_due() is None  # `a` runs without a timeout, `b` cannot have begun yet
    p.now = 100.0
    p.ended("a")
    assert p.next_due() == 110.0
    assert p.after(10) == ["frozen b#1", "Kill L0 b#1 unless begun"]
    assert p.gone()[:3] == ["lane_lost L0", "lost b#1", "lost c#1"]


def test_one_sent_ahead_that_is_found_cancelled_leaves_the_deadline_of_the_head_alone() -> None:
    p = Play(depth=2)
    p.running("a", timeout=60.0)
    p.submit("b")
    assert p.cancel("b") == ["TakeBack L0 b#1", "settled b#1", "Settle b cancelled 0"]
    assert p.next_due() == 60.0
    assert p.submit("c") == ["queued c", "sent c#1", "Send L0 c#1"]


def test_one_sent_ahead_that_is_found_cancelled_leaves_the_head_as_long_to_begin_as_it_had() -> None:
    p = Play(depth=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.now = 4.0
    p.cancel("b")
    assert p.next_due() == 10.0


def test_one_sent_ahead_that_is_found_cancelled_does_not_put_the_head_under_a_deadline() -> None:
    p = _loaded()
    p.cancel("b")
    assert p.next_due() is None
    assert p.after(1000) == ["TakeBack L0 c#1"]  # `a` keeps it waiting


def test_a_head_that_is_found_cancelled_hands_the_watch_over_to_the_next() -> None:
    p = Play(depth=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.after(4)
    assert p.cancel("a") == ["TakeBack L0 a#1", "settled a#1", "Settle a cancelled 0"]
    assert p.next_due() == 14.0
    assert p.begun("b") == ["begun b#1"]


def test_a_kill_of_one_sent_ahead_waits_until_it_is_the_head() -> None:
    p = _loaded()
    assert p.kill("b") == ["doomed b#1", "TakeBack L0 b#1"]
    assert p.state("a") is State.RUNNING
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1", "Kill L0 b#1"]
    assert p.gone()[:4] == ["lane_lost L0", "killed b#1", "settled b#1", "Settle b killed 0"]


def test_a_killed_one_that_begins_and_ends_before_its_kill_arrives_keeps_its_result() -> None:
    p = _loaded()
    p.kill("b")
    p.ended("a")
    p.begun("b")
    assert p.ended("b") == ["returned b#1", "settled b#1", "Settle b returned 1", "sent c#1", "Send L0 c#1"]


def test_a_killed_one_sent_ahead_settles_when_the_head_takes_the_worker_along() -> None:
    p = _loaded()
    p.kill("b")
    assert p.died("a")[:6] == [
        "lane_lost L0",
        "died a#1",
        "backing_off a#1",
        "killed b#1",
        "settled b#1",
        "Settle b killed 0",
    ]


def test_the_timeout_of_the_head_takes_the_others_back_uncharged() -> None:
    p = Play(depth=2)
    p.running("a", timeout=5.0)
    p.submit("b")
    assert p.after(5) == ["TakeBack L0 b#1", "doomed a#1", "Kill L0 a#1"]
    assert p.submit("c") == ["queued c"]  # nothing is sent to a worker that is being killed
    assert p.died("a")[:5] == ["lane_lost L0", "timed_out a#1", "settled a#1", "Settle a timed_out 1", "lost b#1"]


def test_one_sent_ahead_goes_on_when_the_result_of_the_head_beats_its_kill() -> None:
    p = Play(depth=2)
    p.running("a", timeout=5.0)
    p.submit("b", timeout=7.0)
    p.after(5)
    p.ended("a")
    p.begun("b")
    assert p.next_due() == 12.0


def test_the_lane_that_is_given_up_gives_everything_back() -> None:
    p = Play(depth=3)
    p.running("a", timeout=5.0)
    p.submit("b")
    p.submit("c")
    p.after(5)
    assert p.after(10)[:6] == [
        "lane_abandoned L0",
        "Abandon L0",
        "timed_out a#1",
        "settled a#1",
        "Settle a timed_out 1",
        "lost b#1",
    ]
    assert p.ready(1)[1:] == ["sent b#1", "Send L1 b#1", "sent c#1", "Send L1 c#1"]


def test_no_more_are_sent_ahead_than_the_worker_may_run() -> None:
    p = _loaded(3, "abcd", max_tasks_per_worker=2)
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1"]  # b is its last
    p.begun("b")
    assert p.ended("b")[-3:] == ["Settle b returned 1", "lane_stopping L0", "StopWorker L0"]
    assert p.gone() == ["lane_lost L0", "lane_starting L0", "StartWorker L0"]


def test_one_that_is_doomed_ahead_still_counts_among_those_the_worker_may_run() -> None:
    """It may begin, and end, before its kill arrives."""
    p = Play(depth=3, max_tasks_per_worker=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.after(10)  # `a` does not begin: a kill is on its way, which will spare it
    p.kill("b")
    p.submit("c")
    assert p.begun("a") == ["begun a#1"]
