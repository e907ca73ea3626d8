"""Speculation: which attempts get a twin, and what the two come to."""

from __future__ import annotations

import pytest
from chunk_game import chunk
from core_play import NEVER, RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import (
    AttemptEnded,
    Begun,
    ItemsEnded,
    Lagged,
    LaneReady,
    ResultsDiffer,
    Settle,
    Submitted,
)
from resilient_exec.core.states import Limits, State
from resilient_exec.core.stragglers import Peers
from resilient_exec.model.dossier import Dossier
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.packed import Batch, Packed, Slice, is_same_pickle
from resilient_exec.model.task import Died, NotSent, Raised, Returned

ONE, OTHER = Returned(Packed(b"1", bytes)), Returned(Packed(b"2", bytes))


def _known(lanes: int = 2, **limits: object) -> Play:
    """One task has taken 1 s, so the others are to take 2 s at most; lane 0 is idle."""
    p = Play(lanes, straggler_peers=1, straggler_floor=0.5, straggler_factor=2.0, **limits)
    p.running("w", label="f", speculate=True, timed=True)
    p.now += 1
    p.ended("w")
    return p


def _sent() -> Play:
    """``a`` runs in lane 0, its twin was sent to lane 1."""
    p = _known()
    p.running("a", label="f", speculate=True, timed=True)
    p.after(2)
    p.ready(1)
    return p


def _two(retry: object = NEVER, **task: object) -> Play:
    """``a`` runs in lane 0, its twin in lane 1; it is 3 s."""
    p = _known()
    p.running("a", retry, label="f", speculate=True, timed=True, **task)
    assert p.after(1.9) == []
    assert p.after(0.1) == ["lane_starting L1", "StartWorker L1"]
    assert p.ready(1) == ["lane_ready L1", "speculated a#1", "sent a#2", "Send L1 a#2"]
    p.begun("a", 2, lane=1)
    return p


# -- which attempts get a twin -----------------------------------------------------------------------------------------


def test_one_that_takes_far_longer_than_its_like_gets_a_twin_in_a_lane_that_is_idle() -> None:
    p = _two()
    (event,) = [event for event in p.core.story("a") if event.kind == "speculated"]
    assert event.detail == {"ran": pytest.approx(2.0), "limit": 2.0}
    assert p.after(100) == [], "there is a third attempt"


def test_without_speculate_nothing_runs_twice() -> None:
    p = _known()
    p.running("a", label="f")
    assert p.after(1000) == []


def test_nothing_is_known_of_tasks_with_another_label_or_of_too_few() -> None:
    p = _known()
    p.running("a", label="g", speculate=True, timed=True)
    assert p.after(1000) == []
    p = Play(2, straggler_peers=2)
    p.running("w", label="f", speculate=True, timed=True)
    p.ended("w")
    p.running("a", label="f", speculate=True, timed=True)
    assert p.after(1000) == []


def test_while_something_waits_there_is_no_twin() -> None:
    p = _known(lanes=2)
    p.submit("b", priority=1, label="g")
    p.submit("a", label="f", speculate=True, timed=True)
    p.ready(1)
    p.begun("b")
    p.begun("a", lane=1)
    p.submit("c", label="g")
    assert p.after(10) == []
    p.ended("b")
    assert p.state("c") is State.SENT, "the lane was given to a twin"
    p.begun("c")
    assert p.ended("c")[-2:] == ["sent a#2", "Send L0 a#2"]


def test_while_calls_of_a_chunk_wait_in_their_worker_there_is_no_twin() -> None:
    p = _known(lanes=3)
    p.running("a", label="f", speculate=True, timed=True)
    for lane in (1, 2):
        p.submit(lane, label="g")
    for lane in (1, 2):
        p.ready(lane)
        p.begun(lane, lane=lane)
    for lane in (1, 2):
        p.ended(lane, lane=lane)
    p.tell(Submitted(chunk(10, 3, NEVER)))
    assert p.after(5) == []
    p.tell(ItemsEnded(2, 10, 1, 2, Batch(b"", lambda *_: [0, 1])))
    assert [word for word in p.after(0) if "Send" in word] == []
    assert p.core._records["a"].twins is not None


def test_a_retry_of_one_that_took_too_long_has_its_own_time() -> None:
    p = _known(lanes=2)
    p.submit("x", label="g")
    p.begun("x")
    p.submit("a", Grant(0.0), label="f", speculate=True, timed=True)
    p.ready(1)
    p.begun("a", lane=1)
    assert p.after(5) == []
    p.died("a", lane=1)
    p.after(0)
    p.ready(1)
    p.begun("a", 2, lane=1)
    assert p.ended("x")[-1] == "Settle x returned 1"
    assert p.after(1.9) == []
    assert p.after(0.1)[-1] == "Send L0 a#3"


def test_memory_that_is_low_and_a_shutdown_that_cancels_let_nothing_run_twice() -> None:
    p = _known()
    p.memory("low")
    p.running("a", label="f", speculate=True, timed=True)
    assert p.after(10) == []
    assert p.memory("ok") == ["memory_ok", "lane_starting L1", "StartWorker L1"]
    p.shutdown(cancel=True)
    assert p.ready(1) == ["lane_ready L1"]


def test_a_shutdown_that_waits_lets_the_last_ones_be_rescued() -> None:
    p = _known()
    p.running("a", label="f", speculate=True, timed=True)
    p.shutdown()
    p.after(2)
    assert p.ready(1)[-1] == "Send L1 a#2"
    p.begun("a", 2, lane=1)
    assert p.ended("a", 2, lane=1)[-1] == "Kill L0 a#1"
    assert p.died("a")[-4:] == ["settled a#2", "Settle a returned 2", "CloseLane L0", "CloseLane L1"]


def test_time_in_which_this_process_was_stopped_makes_nobody_a_straggler() -> None:
    p = _known()
    p.running("a", label="f", speculate=True, timed=True)
    p.now += 50
    p.tell(Lagged(50.0, stopped=True))
    assert p.after(1.9) == []
    assert p.after(0.1) == ["lane_starting L1", "StartWorker L1"]


def test_each_straggler_gets_its_twin_when_its_time_has_come() -> None:
    p = _known(lanes=4)
    p.running("a", label="f", speculate=True, timed=True)
    p.now += 0.5
    p.submit("b", label="f", speculate=True, timed=True)
    p.ready(1)
    p.begun("b", lane=1)
    p.now += 1.5
    p.after(0)
    assert p.ready(2)[-1] == "Send L2 a#2"
    p.begun("a", 2, lane=2)
    assert p.after(0.4) == []
    assert p.after(0.1) == ["lane_starting L3", "StartWorker L3"]
    assert p.ready(3)[-1] == "Send L3 b#2"


def test_calls_of_a_chunk_are_rescued_too() -> None:
    p = Play(2, straggler_peers=1, straggler_floor=0.5)
    p.tell(Submitted(chunk(0, 4, NEVER, label="f", speculate=True, timed=True)))
    p.ready()
    p.tell(ItemsEnded(0, 0, 1, 3, Batch(b"", lambda *_: [0, 1, 2]), began=0.0, ended=0.3))
    p.tell(Begun(0, 3, 1, 4000, 0.3))
    assert p.after(0.8) == ["lane_starting L1", "StartWorker L1"]
    assert p.ready(1)[-1] == "Send L1 3#2"
    p.tell(ItemsEnded(1, 3, 2, 1, Batch(b"", lambda *_: [3]), began=0.8, ended=0.9))
    assert p.died(3)[-1] == "Settle 3 returned 2"
    assert len(p.settled) == 2
    assert not p.core.is_busy


def test_whoever_labels_each_task_anew_does_not_fill_the_memory() -> None:
    p = Play()
    for number in range(3000):
        p.sent(number, label=str(number), speculate=True, timed=True)
        p.tell(AttemptEnded(0, number, 1, VALUE, began=p.now, ended=p.now))
    assert len(p.core._peers) <= 1000


def test_more_labels_may_run_at_once_than_are_remembered() -> None:
    p = Play(1100)
    for number in range(1100):
        p.submit(number, label=str(number), speculate=True, timed=True)
        p.ready(number)
        p.begun(number, lane=number)
    for number in range(1100):
        assert p.ended(number, lane=number)[-1] == f"Settle {number} returned 1"
    p.submit("last", label="last", speculate=True, timed=True)
    assert len(p.core._peers) <= 1100


# -- what the two come to ----------------------------------------------------------------------------------------------


def test_the_twin_that_returns_first_wins_and_the_first_one_is_killed() -> None:
    p = _two()
    assert p.ended("a", 2, lane=1) == ["returned a#2", "doomed a#1", "Kill L0 a#1"]
    assert "a" not in p.settled, "it has settled while an attempt of it runs"
    stuck = Died(-9, 4000, evidence=Evidence(stacks="where it hangs"))
    assert p.died("a", outcome=stuck) == ["lane_lost L0", "outrun a#1", "settled a#2", "Settle a returned 2"]
    assert p.settled["a"].outcome is VALUE
    dossier = Dossier.of("a", "f", "", p.settled["a"].story)
    assert [(one.number, one.outcome, one.lane) for one in dossier.attempts] == [(1, "outrun", 0), (2, "returned", 1)]
    assert "where it hangs" in str(dossier)
    assert "was outrun: attempt 2 has ended first" in str(dossier)


def test_the_first_one_that_returns_after_all_wins_and_its_twin_is_killed() -> None:
    p = _two()
    assert p.ended("a") == ["returned a#1", "doomed a#2", "Kill L1 a#2"]
    assert p.died("a", 2, lane=1)[-2:] == ["settled a#1", "Settle a returned 2"]


def test_a_twin_that_has_not_begun_is_killed_as_well() -> None:
    p = _sent()
    assert p.ended("a")[-1] == "Kill L1 a#2"
    assert p.gone(1)[-2:] == ["settled a#1", "Settle a returned 1"]


def test_where_both_return_the_first_result_counts_and_a_different_one_is_told() -> None:
    p = _two()
    p.ended("a", 2, lane=1, outcome=ONE)
    assert p.ended("a", outcome=OTHER) == [
        "returned a#1",
        "differed a#1",
        "ResultsDiffer a kept 2 not 1",
        "settled a#2",
        "Settle a returned 2",
    ]
    assert p.settled["a"].outcome is ONE
    assert next(c for c in p.commands if isinstance(c, ResultsDiffer)).task.key == "a"
    assert p.answered(0) == []


def test_where_both_return_the_same_nothing_is_told() -> None:
    p = _two()
    p.ended("a", 2, lane=1, outcome=ONE)
    assert p.ended("a", outcome=Returned(Packed(b"1", bytes))) == ["returned a#1", "settled a#2", "Settle a returned 2"]


def test_what_is_the_same() -> None:
    def of(*values: object) -> Slice:
        return Slice(Batch(b"", lambda _, count: list(values)[:count]), len(values) - 1, 1)

    nan = float("nan")
    assert is_same_pickle(Packed(b"1", bytes), Packed(bytearray(b"1"), bytes))
    assert not is_same_pickle(Packed(b"1", bytes), Packed(b"2", bytes))
    assert is_same_pickle(of(0, (1, nan)), of((1, nan)))
    assert not is_same_pickle(of(1), of(True))
    assert not is_same_pickle(of(1), Packed(b"1", bytes))
    assert is_same_pickle(of(Packed(b"1", bytes)), Packed(b"1", bytes))


def test_an_exception_wins_too_and_is_charged_once() -> None:
    retry = Grant(1.0)
    p = _two(retry)
    assert p.ended("a", 2, lane=1, outcome=RAISED) == ["raised a#2", "doomed a#1", "Kill L0 a#1"]
    assert retry.asked == []
    assert p.died("a")[-2:] == ["outrun a#1", "backing_off a#2"]
    assert retry.asked == [("raised", 1)]
    assert p.after(1.0)[-1] == "Send L1 a#3"
    p.begun("a", 3, lane=1)
    assert p.ended("a", 3, lane=1)[-1] == "Settle a returned 3"


@pytest.mark.parametrize("outcome", [RAISED, NotSent("a lock")])
def test_what_ends_by_itself_settles_the_task(outcome: object) -> None:
    p = _two()
    p.ended("a", outcome=outcome)
    assert p.died("a", 2, lane=1)[-1].startswith("Settle a ")
    assert p.settled["a"].outcome is outcome


def test_the_death_of_one_leaves_the_task_to_the_other_uncharged() -> None:
    retry = Grant(0.0)
    for dies, lives in ((1, 2), (2, 1)):
        p = _two(retry)
        assert p.died("a", dies, lane=dies - 1)[-1] == f"died a#{dies}"
        assert retry.asked == []
        assert p.ended("a", lives, lane=lives - 1)[-2:] == [f"settled a#{lives}", "Settle a returned 2"]
        assert p.settled["a"].outcome is VALUE


def test_the_death_of_both_is_charged_once() -> None:
    retry = Grant(0.0)
    p = _two(retry)
    p.died("a", 2, lane=1)
    assert p.died("a", 1)[-2:] == ["died a#1", "backing_off a#1"]
    assert retry.asked == [("died", 1)]
    p.after(0)
    p.ready(0)
    assert (p.core._records["a"].attempt, p.core._records["a"].begun) == (3, 2)
    p.begun("a", 3)
    assert p.died("a", 3)[-1] == "Settle a died 3"
    assert retry.asked == [("died", 1), ("died", 2)]


def test_a_task_of_which_both_have_died_waits_as_any_other() -> None:
    p = _two(Grant(9.0))
    p.died("a")
    assert p.died("a", 2, lane=1)[-1] == "backing_off a#2"
    assert p.shutdown(cancel=True)[-3] == "Settle a killed 2"


def test_one_pair_for_each_attempt_that_is_charged() -> None:
    """A task that hangs in each of its attempts must not hang for ever."""
    p = _two(Grant(0.0), timeout=5.0)
    assert p.when_due() == ["doomed a#1", "Kill L0 a#1"]
    p.died("a")
    assert p.when_due() == ["doomed a#2", "Kill L1 a#2"], "the twin has got a twin"
    assert p.died("a", 2, lane=1)[-1] == "backing_off a#2"
    p.after(0)
    p.ready(1)
    p.begun("a", 3, lane=1)
    p.after(2)
    assert p.ready(0)[-1] == "Send L0 a#4", "the next attempt has no twin"
    p.begun("a", 4)
    p.after(5)
    p.died("a", 3, lane=1)
    assert p.died("a", 4)[-1] == "Settle a timed_out 4"


def test_each_has_its_own_timeout() -> None:
    p = _two(timeout=3.0)
    assert p.after(0.9) == []
    assert p.after(0.1) == ["doomed a#1", "Kill L0 a#1"]
    p.died("a")
    assert p.after(1.9) == []
    assert p.after(0.1) == ["doomed a#2", "Kill L1 a#2"]
    assert p.died("a", 2, lane=1)[-1] == "Settle a timed_out 2"


def test_a_result_that_comes_while_the_other_is_killed_for_its_time_is_kept() -> None:
    p = _two(timeout=3.0)
    p.after(1)
    assert p.ended("a", 2, lane=1) == ["returned a#2"]
    assert p.died("a")[-3:] == ["timed_out a#1", "settled a#2", "Settle a returned 2"]


def test_a_soft_timeout_that_leaves_one_of_them_leaves_the_task_to_the_other() -> None:
    p = _two(soft_timeout=2.5)
    assert p.after(0.5) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    told = p.ended("a", outcome=Raised(SoftTimeout("over")))
    assert "timed_out a#1" in told
    assert "a" not in p.settled
    assert p.ended("a", 2, lane=1)[-1] == "Settle a returned 2"


def test_a_twin_is_evicted_first_and_that_is_no_eviction_of_the_task() -> None:
    p = _two()
    assert p.memory("critical") == ["memory_critical", "doomed a#2", "Kill L1 a#2"]
    assert p.died("a", 2, lane=1) == ["lane_lost L1", "evicted a#2"]
    assert p.ended("a")[-1] == "Settle a returned 2"


def test_a_twin_whose_worker_is_lost_before_it_begins_is_not_sent_again() -> None:
    p = _sent()
    assert p.gone(1) == ["lane_lost L1", "lost a#2"]
    assert p.after(100) == []
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_a_twin_that_is_taken_back_is_not_sent_again() -> None:
    p = _sent()
    assert p.taken_back("a", 2, lane=1) == ["taken_back a#2"]
    assert p.lane(1)["state"] == "idle"
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_a_twin_that_alone_is_left_and_is_lost_is_sent_again() -> None:
    p = _known()
    p.running("a", Grant(), label="f", speculate=True, timed=True)
    p.after(2)
    p.ready(1)
    p.died("a")
    assert p.gone(1)[:3] == ["lane_lost L1", "lost a#2", "lane_starting L1"]
    p.ready(1)
    p.begun("a", 2, lane=1)
    assert p.ended("a", 2, lane=1)[-1] == "Settle a returned 2"


# -- kills -------------------------------------------------------------------------------------------------------------


def test_a_kill_ends_both() -> None:
    p = _two(Grant(0.0))
    assert p.kill("a") == ["doomed a#1", "Kill L0 a#1", "doomed a#2", "Kill L1 a#2"]
    assert p.died("a") == ["lane_lost L0", "killed a#1"]
    assert p.died("a", 2, lane=1)[-1] == "Settle a killed 2"


def test_a_kill_that_comes_when_one_has_returned_changes_nothing() -> None:
    p = _two()
    p.ended("a", 2, lane=1)
    assert p.kill("a") == []
    assert p.died("a")[-1] == "Settle a returned 2"


def test_a_kill_that_comes_when_one_has_raised_lets_nothing_be_tried_again() -> None:
    p = _two(Grant(0.0))
    p.ended("a", 2, lane=1, outcome=RAISED)
    p.kill("a")
    assert p.died("a")[-1] == "Settle a raised 2"


def test_a_shutdown_that_kills_ends_both() -> None:
    p = _two()
    assert p.shutdown(kill=True)[1:] == ["doomed a#1", "Kill L0 a#1", "doomed a#2", "Kill L1 a#2"]
    p.died("a", 2, lane=1)
    assert p.died("a")[-3:-1] == ["Settle a killed 2", "CloseLane L0"]
    p.closed(0)
    assert p.closed(1)[-1] == "Finish"


def test_a_lane_that_does_not_answer_its_kill_is_given_up_and_the_task_settles() -> None:
    p = _two()
    p.ended("a", 2, lane=1)
    assert p.after(9.9) == []
    assert p.after(0.1) == ["lane_abandoned L0", "Abandon L0", "outrun a#1", "settled a#2", "Settle a returned 2"]


def test_a_running_task_counts_once() -> None:
    p = _two()
    assert p.core.counted() == {"pending": 0, "running": 1, "backing_off": 0}
    p.ended("a", 2, lane=1)
    assert p.core.counted() == {"pending": 0, "running": 1, "backing_off": 0}
    p.died("a")
    assert sum(p.core.counts.values()) == 0
    assert isinstance(p.commands[-1], Settle)


# -- how long they usually take ----------------------------------------------------------------------------------------


def test_a_straggler_is_what_takes_a_multiple_of_what_nine_of_ten_have_taken() -> None:
    peers = Peers(Limits())
    for _ in range(4):
        peers.learn(1.0)
        assert peers.longest() is None
    peers.learn(9.0)
    assert peers.longest() == 18.0
    for _ in range(20):
        peers.learn(1.0)
    assert peers.longest() == 2.0


def test_only_the_last_hundred_count_and_a_pause_of_a_moment_is_no_straggler() -> None:
    peers = Peers(Limits())
    for number in range(300):
        peers.learn(5.0 if number < 200 else 0.001)
    assert peers.longest() == 0.25
    assert len(peers._sorted) == 100


def test_a_ready_lane_that_nobody_needs_any_more_stays_idle() -> None:
    p = _known()
    p.running("a", label="f", speculate=True, timed=True)
    p.after(2)
    p.ended("a")
    assert p.tell(LaneReady(1, 4001)) == ["lane_ready L1"]
    assert p.lane(1)["state"] == "idle"
