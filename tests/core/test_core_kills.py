"""Ending attempts: kills that come late, results that are quicker, kills upon kills, workers that do not begin."""

from __future__ import annotations

import pytest
from core_play import RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import AttemptEnded, Begun, Kill, Progress, StartFailed, WorkerGone
from resilient_exec.core.states import State
from resilient_exec.model.task import Killed, TimedOut


def _doomed(**task: object) -> Play:
    """Lane 0 has been told to kill ``a``, which is over its time; ``b`` waits."""
    p = Play()
    p.running("a", timeout=2.0, **task)
    p.submit("b")
    p.after(2)
    assert p.state("a") is State.DOOMED
    return p


# -- the result and the kill -------------------------------------------------------------------------------------------


def test_a_result_that_beats_the_kill_is_kept_and_the_worker_goes_on() -> None:
    p = _doomed()
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1", "sent b#1", "Send L0 b#1"]
    assert p.settled["a"].outcome is VALUE


def test_an_exception_that_beats_the_kill_is_the_outcome_and_not_a_timeout() -> None:
    p = _doomed()
    assert p.ended("a", outcome=RAISED)[:3] == ["raised a#1", "settled a#1", "Settle a raised 1"]


def test_a_result_that_beats_the_kill_of_the_user_is_kept() -> None:
    p = Play()
    p.running("a")
    assert p.kill("a") == ["doomed a#1", "Kill L0 a#1"]
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_a_kill_names_its_attempt_and_the_next_one_in_that_lane_is_another() -> None:
    p = _doomed()
    (kill,) = [c for c in p.commands if isinstance(c, Kill)]
    p.ended("a")
    p.begun("b")
    assert (kill.number, kill.attempt, kill.unless_begun) == ("a", 1, False)
    assert p.state("b") is State.RUNNING
    assert p.after(1000) == []  # neither the kill nor its deadline is left


def test_a_late_kill_that_was_answered_by_a_result_does_not_touch_the_retry_of_the_same_task() -> None:
    p = Play()
    p.running("a", Grant(0.0), timeout=2.0)
    p.after(2)
    p.ended("a", outcome=RAISED)
    assert p.after(0) == ["sent a#2", "Send L0 a#2"]
    p.begun("a", 2)
    assert p.state("a") is State.RUNNING
    assert p.next_due() == 4.0


def test_the_word_doomed_does_not_outlive_its_attempt() -> None:
    """A death of the second attempt is a death, although the first one was ended for its timeout."""
    p = Play()
    p.running("a", Grant(1.0), timeout=2.0)
    p.after(2)
    p.died("a")
    p.after(1)
    p.ready()
    p.begun("a", 2)
    assert p.died("a", 2)[-1] == "Settle a died 2"


def test_a_death_after_the_kill_was_ordered_has_the_name_of_the_kill() -> None:
    p = _doomed()
    assert "Settle a timed_out 1" in p.died("a")


def test_a_timeout_that_the_policy_forgives_is_tried_again_after_the_death() -> None:
    p = Play()
    p.running("a", Grant(1.0), timeout=2.0)
    assert p.after(2) == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a") == ["lane_lost L0", "timed_out a#1", "backing_off a#1"]
    assert p.after(1)[-1] == "StartWorker L0"


# -- kills by the user, in every state ---------------------------------------------------------------------------------


def test_a_kill_of_a_queued_task_settles_it_at_once() -> None:
    p = Play()
    p.submit("a")
    assert p.kill("a") == ["settled a", "Settle a killed 0"]
    assert p.ready() == ["lane_ready L0"]


def test_a_kill_of_a_task_that_backs_off_settles_it_at_once() -> None:
    p = Play()
    p.running("a", Grant(5.0))
    p.died("a")
    assert p.kill("a") == ["settled a#1", "Settle a killed 1"]
    assert p.next_due() is None
    assert p.after(5) == []


def test_a_kill_of_a_sent_task_kills_its_worker_and_is_not_charged() -> None:
    p = Play()
    policy = Grant(1.0)
    p.sent("a", policy)
    assert p.kill("a") == ["doomed a#1", "Kill L0 a#1"]
    assert p.gone() == ["lane_lost L0", "killed a#1", "settled a#1", "Settle a killed 0"]
    assert policy.asked == []


def test_a_sent_task_that_begins_while_its_kill_is_on_the_way_stays_doomed() -> None:
    p = Play()
    p.sent("a", timeout=1.0)
    p.kill("a")
    assert p.begun("a") == ["begun a#1"]
    assert p.state("a") is State.DOOMED
    assert p.next_due() == 10.0  # the kill's own deadline, not the timeout
    assert p.died("a")[-1] == "Settle a killed 1"


def test_a_kill_of_a_running_task_settles_it_without_asking_its_policy() -> None:
    p = Play()
    policy = Grant(1.0)
    p.running("a", policy)
    assert p.kill("a", "the user") == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a") == ["lane_lost L0", "killed a#1", "settled a#1", "Settle a killed 1"]
    assert p.settled["a"].outcome == Killed("the user", 4000)
    assert policy.asked == []


def test_a_kill_during_the_kill_for_a_timeout_beats_the_retry() -> None:
    p = _doomed(retry=Grant(1.0, 1.0))
    assert p.kill("a", "the user") == []  # one kill is enough
    assert p.died("a")[:4] == ["lane_lost L0", "killed a#1", "settled a#1", "Settle a killed 1"]
    assert p.settled["a"].outcome == Killed("the user", 4000)


def test_a_kill_during_a_kill_beats_the_retry_of_an_exception_that_was_quicker() -> None:
    p = _doomed(retry=Grant(1.0, 1.0))
    p.kill("a")
    assert p.ended("a", outcome=RAISED)[:3] == ["raised a#1", "settled a#1", "Settle a raised 1"]


def test_a_kill_of_what_is_unknown_or_settled_does_nothing() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    assert p.kill("a") == p.kill("nobody") == []


# -- a worker that does not begin --------------------------------------------------------------------------------------


def test_a_worker_that_does_not_begin_in_time_is_killed_unless_it_has_begun() -> None:
    p = Play(begin_timeout=7.0)
    p.sent("a")
    assert p.after(6.9) == []
    assert p.after(0.1) == ["frozen a#1", "Kill L0 a#1 unless begun"]


def test_a_begin_that_crosses_the_kill_of_the_frozen_spares_the_attempt() -> None:
    p = Play()
    p.sent("a", timeout=50.0)
    p.after(10)
    assert p.begun("a") == ["begun a#1"]
    assert (p.state("a"), p.lane()["state"]) == (State.RUNNING, "busy")
    assert p.next_due() == 60.0  # its timeout; the deadline of that kill is gone
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_an_attempt_lost_with_its_frozen_worker_is_not_charged() -> None:
    p = Play()
    policy = Grant(1.0)
    p.sent("a", policy)
    p.after(10)
    assert p.gone() == ["lane_lost L0", "lost a#1", "lane_starting L0", "StartWorker L0"]
    assert policy.asked == []


def test_bytes_that_flow_into_the_worker_put_its_stall_off() -> None:
    p = Play()
    p.sent("a")
    p.after(9)
    assert p.progress() == []
    assert p.after(9) == []
    assert p.after(1) == ["frozen a#1", "Kill L0 a#1 unless begun"]


def test_bytes_after_the_begin_do_not_change_the_timeout() -> None:
    p = Play()
    p.running("a", timeout=30.0)
    p.progress()
    assert p.next_due() == 30.0


def test_the_users_kill_of_a_frozen_attempt_does_not_spare_it() -> None:
    p = Play()
    p.sent("a")
    p.after(10)
    assert p.kill("a") == ["doomed a#1", "Kill L0 a#1"]
    assert p.gone()[1:] == ["killed a#1", "settled a#1", "Settle a killed 0"]


def test_a_cancel_found_at_the_sending_of_a_frozen_attempt_still_waits_for_the_lane() -> None:
    p = Play(kill_timeout=3.0)
    p.sent("a")
    p.after(10)
    assert p.cancel("a") == ["TakeBack L0 a#1", "settled a#1", "Settle a cancelled 0"]
    assert p.lane()["state"] == "killing"
    assert p.after(3) == ["lane_abandoned L0", "Abandon L0"]


# -- a lane that does not answer ---------------------------------------------------------------------------------------


def _abandoned() -> Play:
    """Lane 0 did not answer the kill of ``a`` (attempt 1); lane 1 is up and has been sent attempt 2."""
    p = Play()
    p.running("a", Grant(1.0), timeout=2.0)
    p.after(2)
    p.after(10)
    p.after(1)
    p.ready(1)
    return p


def test_a_lane_that_does_not_answer_a_kill_is_given_up_and_another_takes_over() -> None:
    p = Play()
    p.running("a", Grant(1.0), timeout=2.0)
    p.submit("b")
    assert p.after(2) == ["doomed a#1", "Kill L0 a#1"]
    assert p.after(9.9) == []
    assert p.after(0.1) == [
        "lane_abandoned L0",
        "Abandon L0",
        "timed_out a#1",
        "backing_off a#1",
        "lane_starting L1",
        "StartWorker L1",
    ]
    assert p.ready(1)[-1] == "Send L1 b#1"
    p.begun("b", lane=1)
    p.ended("b", lane=1)
    assert p.after(1) == ["sent a#2", "Send L1 a#2"]


def test_a_frozen_attempt_in_a_lane_that_does_not_answer_is_lost_and_not_charged() -> None:
    p = Play()
    policy = Grant(1.0)
    p.sent("a", policy)
    p.after(10)
    assert p.after(10) == ["lane_abandoned L0", "Abandon L0", "lost a#1", "lane_starting L1", "StartWorker L1"]
    assert policy.asked == []


def test_a_killed_task_in_a_lane_that_does_not_answer_settles_as_killed() -> None:
    p = Play()
    p.running("a")
    p.kill("a", "the user")
    assert p.after(10)[-1] == "Settle a killed 1"
    assert p.settled["a"].outcome == Killed("the user", 4000)


def test_a_timed_out_task_in_a_lane_that_does_not_answer_settles_as_timed_out() -> None:
    p = _doomed()
    p.after(10)
    assert p.settled["a"].outcome == TimedOut(2.0, 4000)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("kind", ["ready", "start_failed", "progress", "begun", "ended", "died", "gone", "closed"])
def test_the_ghost_of_a_lane_that_was_given_up_is_not_heard(kind: str, attempt: int) -> None:
    p = _abandoned()
    before = (p.state("a"), p.next_due(), p.core.lanes(p.now))
    names = {"begun", "ended", "died"}
    assert (getattr(p, kind)("a", attempt) if kind in names else getattr(p, kind)()) == []
    assert (p.state("a"), p.next_due(), p.core.lanes(p.now)) == before


# -- words from the past -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [
        Begun(0, "a", 1, 4000),
        AttemptEnded(0, "a", 1, VALUE),
        Begun(0, "a", 3, 4000),
        AttemptEnded(0, "a", 3, VALUE),
        Begun(1, "a", 2, 4000),
        AttemptEnded(1, "a", 2, VALUE),
        Begun(0, "b", 2, 4000),
        AttemptEnded(0, "b", 2, VALUE),
        Progress(0),
        Progress(1),
        Progress(7),
        WorkerGone(1, "a", 2),
        WorkerGone(7),
        StartFailed(0, "late"),
        Begun(0, "a", 2, 4000),
    ],
    ids=repr,
)
def test_a_word_about_another_lane_task_or_attempt_changes_nothing(late: object) -> None:
    p = Play(lanes=2)
    p.running("a", Grant(0.0), timeout=100.0)
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    before = (p.state("a"), p.next_due(), p.core.lanes(p.now))
    assert p.tell(late) == []
    assert (p.state("a"), p.next_due(), p.core.lanes(p.now)) == before


def test_an_end_without_a_begin_is_not_believed() -> None:
    p = Play()
    p.sent("a")
    assert p.ended("a") == []
    assert p.state("a") is State.SENT


def test_a_second_word_of_the_same_death_changes_nothing() -> None:
    p = Play()
    p.running("a", Grant(5.0))
    p.died("a")
    assert p.died("a") == p.gone() == []


def test_a_death_that_names_another_attempt_still_ends_the_worker_and_what_had_begun_in_it() -> None:
    p = Play()
    p.running("a")
    assert p.died("b", 3) == ["lane_lost L0", "died a#1", "settled a#1", "Settle a died 1"]


def test_one_that_was_killed_and_cancelled_settles_when_its_lane_answers_that_it_has_nothing() -> None:
    p = Play()
    p.sent("a")
    p.kill("a")
    assert p.cancel("a") == []
    assert p.answered() == ["killed a#1", "settled a#1", "Settle a killed 0"]


def test_the_answer_to_a_kill_of_what_was_taken_back_says_nothing_about_the_next() -> None:
    p = Play(depth=2)
    p.sent("a")
    p.submit("b")
    p.shutdown(kill=True)
    p.taken_back("a")
    assert p.answered() == ["Kill L0 b#1"]  # it may have begun meanwhile
    assert p.gone()[:4] == ["lane_lost L0", "killed b#1", "settled b#1", "Settle b killed 0"]
