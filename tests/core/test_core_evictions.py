"""A machine that runs out of memory: who is evicted, and that it costs nobody anything but time, up to a budget."""

from __future__ import annotations

import itertools

from core_play import DIED, GIB, RAISED, Grant, Play

from resilient_exec.core.admission import Admission
from resilient_exec.core.messages import Kill, MachineMemory
from resilient_exec.core.states import State
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import Evicted, Killed, Raised

SOFT = Raised(SoftTimeout("5 s are over"), Evidence(traceback="File x.py"))
STACKS = Evidence(stacks="File x.py")


def _event(p: Play, kind: str) -> Event:
    (event,) = [c for c in p.commands if isinstance(c, Event) and c.kind == kind]
    return event


# -- the machine's memory: evictions -----------------------------------------------------------------------------------


def _short(*keys: str, retry: object = Grant(), **limits: object) -> Play:
    """These run in lanes of their own, the last one as the youngest, which has just been ordered to be evicted."""
    p = Play(lanes=len(keys), **limits)
    p.all_running(*keys, retry=retry)
    lane = len(keys) - 1
    assert p.memory("critical", 100 * 2**20) == [
        "memory_critical",
        f"doomed {keys[-1]}#1",
        f"Kill L{lane} {keys[-1]}#1",
    ]
    return p


def test_the_youngest_attempt_is_evicted_and_queued_again() -> None:
    p = _short("a", "b")
    assert p.died("b", lane=1) == ["lane_lost L1", "evicted b#1", "backing_off b#1"]
    assert _event(p, "evicted").detail == {"pid": DIED.pid, "why": "the machine had 100 MiB of memory left"}
    assert p.after(0.5) == []  # due again, and held back: memory is still critical, and `a` runs
    assert p.state("b") is State.QUEUED
    assert p.memory("ok") == ["memory_ok", "lane_starting L1", "StartWorker L1"]
    assert p.ready(1)[-1] == "Send L1 b#2"


def test_the_youngest_is_the_one_that_began_last_whatever_its_lane_and_place_in_the_queue() -> None:
    p = Play(lanes=3)
    for key in "abc":
        p.submit(key)
    for lane in range(3):
        p.ready(lane)
    for lane, key in ((1, "b"), (2, "c"), (0, "a")):
        p.begun(key, lane=lane)
        p.now += 1
    assert p.memory("critical")[1] == "doomed a#1"


def test_the_age_of_an_attempt_is_that_of_its_own_begin_and_not_of_its_tasks_first() -> None:
    p = Play(lanes=2)
    p.now = 1.0
    p.running("a", Grant(0.0))
    p.submit("b")
    p.ready(1)
    p.now = 2.0
    p.begun("b", lane=1)
    p.now = 3.0
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    assert p.memory("critical")[1] == "doomed a#2"


def test_memory_that_is_only_low_evicts_nobody() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b")
    assert p.memory("low") == ["memory_low"]


def test_the_only_running_attempt_is_never_evicted() -> None:
    p = Play(lanes=2)
    p.running("a")
    assert p.memory("critical") == ["memory_critical"]
    assert p.memory("critical") == []
    assert p.state("a") is State.RUNNING


def test_a_second_attempt_is_not_evicted_before_the_first_is_gone() -> None:
    p = _short("a", "b", "c")
    assert p.memory("critical") == []
    p.died("c", lane=2)
    assert p.memory("critical") == ["doomed b#1", "Kill L1 b#1"]
    p.died("b", lane=1)
    assert p.memory("critical") == []


def test_nobody_is_evicted_while_another_has_been_sent_and_not_begun() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b")
    p.submit("c")
    p.ready(2)
    assert p.memory("critical") == ["memory_critical"]
    p.begun("c", lane=2)
    assert p.memory("critical") == ["doomed c#1", "Kill L2 c#1"]


def test_nobody_is_evicted_while_a_kill_is_under_way() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    p.kill("a")
    assert p.memory("critical") == ["memory_critical"]
    p.died("a")
    assert p.memory("critical") == ["doomed c#1", "Kill L2 c#1"]


def test_those_sent_ahead_of_an_evicted_attempt_are_queued_again_uncharged() -> None:
    p = Play(lanes=2, depth=2)
    policy = Grant(1.0)
    for key in "abcd":
        p.submit(key, policy)
    p.ready(0)
    p.begun("a")
    p.ready(1)
    p.now = 1.0
    p.begun("c", lane=1)
    assert p.memory("critical") == ["memory_critical", "doomed c#1", "Kill L1 c#1"]
    assert p.died("c", lane=1) == ["lane_lost L1", "evicted c#1", "backing_off c#1", "lost d#1"]
    assert policy.asked == []


def test_a_result_that_beats_the_eviction_is_kept() -> None:
    p = _short("a", "b")
    assert p.ended("b", lane=1) == ["returned b#1", "settled b#1", "Settle b returned 1"]
    assert p.memory("critical") == []


def test_an_exception_that_beats_the_eviction_is_charged_and_is_no_eviction() -> None:
    policy = Grant(1.0)
    p = _short("a", "b", retry=policy)
    assert p.ended("b", lane=1, outcome=RAISED) == ["raised b#1", "backing_off b#1"]
    assert policy.asked == [("raised", 1)]


def test_the_users_kill_during_an_eviction_ends_the_task_for_good() -> None:
    policy = Grant(1.0)
    p = _short("a", "b", retry=policy)
    assert p.kill("b", "the user") == []
    assert p.died("b", lane=1)[-1] == "Settle b killed 1"
    assert p.settled["b"].outcome == Killed("the user", DIED.pid)
    assert policy.asked == []


def test_a_timeout_during_an_eviction_changes_nothing() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b", timeout=5.0, soft_timeout=4.0)
    p.memory("critical")
    assert [word for word in p.after(4) if "b#1" in word] == []
    assert "evicted b#1" in p.died("b", lane=1)


def test_a_word_about_its_own_memory_during_an_eviction_changes_nothing() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b", memory_limit=GIB)
    p.memory("critical")
    assert p.swollen("b", lane=1) == []
    assert "evicted b#1" in p.died("b", lane=1)


def test_an_eviction_while_the_pool_shuts_down_in_peace_is_tried_again() -> None:
    p = _short("a", "b")
    assert p.shutdown() == ["pool_closing"]
    assert p.died("b", lane=1) == ["lane_lost L1", "evicted b#1", "backing_off b#1"]
    p.after(1)
    assert p.ended("a")[-1] == "Send L0 b#2"
    p.begun("b", 2)
    assert "Settle b returned 2" in p.ended("b", 2)


def test_an_eviction_after_a_shutdown_that_cancels_is_the_end_of_the_task() -> None:
    p = _short("a", "b")
    p.shutdown(cancel=True)
    assert p.died("b", lane=1)[-1] == "Settle b evicted 1"
    assert p.state("a") is State.RUNNING


def test_an_eviction_during_a_shutdown_that_kills_ends_as_killed() -> None:
    p = _short("a", "b")
    assert p.shutdown(kill=True) == ["pool_closing", "doomed a#1", "Kill L0 a#1"]
    assert p.died("b", lane=1)[-1] == "Settle b killed 1"


def test_a_shutdown_that_cancels_settles_an_evicted_task_that_waits() -> None:
    p = _short("a", "b")
    p.died("b", lane=1)
    assert p.shutdown(cancel=True) == ["pool_closing", "settled b#1", "Settle b killed 1"]


def test_a_lane_that_does_not_answer_an_eviction_is_given_up_and_the_task_queued_again() -> None:
    p = _short("a", "b")
    assert p.after(10) == ["lane_abandoned L1", "Abandon L1", "evicted b#1", "backing_off b#1"]
    p.memory("ok")
    assert p.after(1)[-1] == "StartWorker L2"


def _evict(p: Play, attempt: int) -> list[str]:
    """Have ``b`` begin beside ``a``, and evict it."""
    p.memory("ok")
    if p.state("b") is not State.RUNNING:
        while p.state("b") is State.BACKING_OFF:
            p.when_due()
        p.ready(1)
        p.begun("b", attempt, lane=1)
    assert p.memory("critical")[-1] == f"Kill L1 b#{attempt}"
    return p.died("b", attempt, lane=1)


def test_an_eviction_is_not_charged_to_any_budget_of_the_task() -> None:
    policy = RetryPolicy(deaths=0, timeouts=0, memory=0, total=2)
    p = Play(lanes=2)
    p.all_running("a", "b", retry=policy)
    for attempt in range(1, 6):
        assert _evict(p, attempt)[-1] == f"backing_off b#{attempt}"
    p.memory("ok")
    p.after(30)
    p.ready(1)
    p.begun("b", 6, lane=1)
    assert p.ended("b", 6, lane=1)[-1] == "Settle b returned 6"


def test_an_eviction_is_not_counted_among_the_attempts_in_all() -> None:
    policy = RetryPolicy(deaths=5, total=2)
    p = Play(lanes=2)
    p.all_running("a", "b", retry=policy)
    for attempt in (1, 2, 3):
        _evict(p, attempt)
    p.memory("ok")
    for attempt, ends in ((4, "backing_off b#4"), (5, "Settle b died 5")):
        p.after(30)
        p.ready(1)
        p.begun("b", attempt, lane=1)
        assert p.died("b", attempt, lane=1)[-1] == ends


def test_an_eviction_does_not_lengthen_the_wait_after_a_failure() -> None:
    asked = []

    class Policy:
        asks_user = False

        def next_delay(self, failure: object) -> float:
            asked.append((dict(failure.counts), failure.attempts))
            return 1.0

    p = Play(lanes=2)
    p.all_running("a", "b", retry=Policy())
    _evict(p, 1)
    p.memory("ok")
    p.after(1)
    p.ready(1)
    p.begun("b", 2, lane=1)
    p.died("b", 2, lane=1)
    assert asked == [({"died": 1}, 1)]


def test_a_task_that_is_evicted_ten_times_ends() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b")
    for attempt in range(1, 10):
        assert _evict(p, attempt)[-1] == f"backing_off b#{attempt}"
    assert _evict(p, 10) == ["lane_lost L1", "evicted b#10", "settled b#10", "Settle b evicted 10"]
    assert p.settled["b"].outcome == Evicted("the machine had 1024 MiB of memory left", DIED.pid)
    assert p.state("a") is State.RUNNING


def test_evictions_are_counted_in_all_and_not_in_a_row() -> None:
    p = Play(lanes=2, uncharged=2)
    p.all_running("a", "b", retry=Grant(0.0))
    _evict(p, 1)
    p.memory("ok")
    p.after(1)
    p.ready(1)
    p.begun("b", 2, lane=1)
    p.died("b", 2, lane=1)
    p.after(0)
    assert _evict(p, 3)[-1] == "Settle b evicted 3"


def test_an_evicted_task_waits_longer_each_time_but_never_longer_than_half_a_minute() -> None:
    delays = [Admission.delay(n) for n in range(1, 100)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert all(before <= after for before, after in itertools.pairwise(delays))
    assert delays[-1] == 30.0


def test_when_memory_is_critical_for_ever_all_tasks_still_come_to_their_end() -> None:
    """The guard evicts down to one attempt, then lets them through one by one."""
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    for key, lane in (("c", 2), ("b", 1)):
        assert p.memory("critical")[-1] == f"Kill L{lane} {key}#1"
        p.died(key, lane=lane)
    p.after(100)
    assert p.ended("a")[-1] == "Send L0 b#2"
    for key, then in (("b", "Send L0 c#2"), ("c", "Settle c returned 2")):
        p.begun(key, 2)
        assert p.memory("critical") == []
        assert p.ended(key, 2)[-1] == then


def test_an_evicted_task_comes_back_to_its_old_place_in_the_queue() -> None:
    p = _short("a", "b")
    p.submit("c")
    p.died("b", lane=1)
    p.after(0.5)
    assert p.ended("a")[-1] == "Send L0 b#2"


def test_a_kill_for_an_eviction_names_its_attempt_and_does_not_spare_what_has_begun() -> None:
    p = _short("a", "b")
    (kill,) = [c for c in p.commands if isinstance(c, Kill)]
    assert kill == Kill(1, "b", 1, kill.order, unless_begun=False)


def test_the_level_is_taken_as_it_is_told_even_by_a_pool_that_has_ended() -> None:
    p = Play()
    p.shutdown()
    assert p.core.finished
    assert p.tell(MachineMemory(MemoryLevel.LOW, 5)) == ["memory_low"]
