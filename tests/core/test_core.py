"""The way of a task through the core: sent, begun, ended, settled; order, retries, deadlines, cancelling."""

from __future__ import annotations

import gc
import weakref

from core_play import DIED, NEVER, RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import LaneReady, Send, Settle, StartWorker, Submitted
from resilient_exec.core.states import State
from resilient_exec.model.events import Event
from resilient_exec.model.task import Killed, NotSent, Raised, Task

# -- the good way ----------------------------------------------------------------------------------------------------


def test_a_task_is_queued_sent_begun_returned_and_settled() -> None:
    p = Play()
    assert p.submit("a") == ["queued a", "lane_starting L0", "StartWorker L0"]
    assert p.ready() == ["lane_ready L0", "sent a#1", "Send L0 a#1"]
    assert p.begun("a") == ["begun a#1"]
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1"]
    assert p.settled["a"].outcome is VALUE


def test_commands_carry_time_lane_detail_and_the_whole_story() -> None:
    p = Play()
    p.now = 1.0
    queued = Event(1.0, "queued", "a")
    task = Task("a", NEVER, key="a", label="world 7")
    assert p.core.handle(Submitted(task), 1.0) == [
        queued,
        Event(1.0, "lane_starting", lane=0),
        StartWorker(0),
    ]
    sent = Event(2.5, "sent", "a", 1, 0)
    assert p.core.handle(LaneReady(0, 77), 2.5) == [
        Event(2.5, "lane_ready", lane=0, detail={"pid": 77}),
        sent,
        Send(0, "a", 1, task),
    ]
    p.now = 3.0
    p.begun("a")
    begun = Event(3.0, "begun", "a", 1, 0, {"pid": 4000})
    assert p.commands == [begun]
    p.now = 5.0
    p.ended("a", outcome=RAISED)
    raised = Event(5.0, "raised", "a", 1, 0, {"exception": "ValueError"})
    settled = Event(5.0, "settled", "a", 1, None, {"how": "failed"})
    assert p.commands[:-1] == [raised, settled]
    settle = p.settled["a"]
    assert tuple(settle.story) == (queued, sent, begun, raised, settled)
    assert settle == Settle("a", RAISED, 1, 2.0, settle.story, task)


def test_the_elapsed_time_of_a_task_counts_from_its_first_begin() -> None:
    p = Play()
    p.sent("a", Grant(10.0))
    p.after(3)
    p.begun("a")
    p.after(1)
    p.died("a")
    p.after(10)
    p.ready()
    p.begun("a", 2)
    p.after(1)
    p.ended("a", 2)
    assert p.settled["a"].elapsed == 12.0


def test_a_task_that_never_began_settles_with_no_time_and_no_attempt() -> None:
    p = Play()
    p.submit("a")
    p.after(5)
    assert p.kill("a") == ["settled a", "Settle a killed 0"]
    assert p.settled["a"].elapsed == 0.0


def test_a_call_that_could_not_be_pickled_settles_at_once_and_starts_nothing() -> None:
    p = Play()
    problem = NotSent("argument 0 is a lock")
    assert p.submit("a", problem=problem) == ["settled a", "Settle a not_sent 0"]
    assert p.settled["a"].outcome is problem


def test_the_next_task_goes_to_the_warm_worker() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    assert p.submit("b") == ["queued b", "sent b#1", "Send L0 b#1"]


def test_the_lane_used_last_is_used_first() -> None:
    p = Play(lanes=2)
    p.submit("a")
    p.submit("b")
    p.ready(0)
    p.ready(1)
    p.begun("a", lane=0)
    p.begun("b", lane=1)
    p.ended("b", lane=1)
    p.ended("a", lane=0)
    assert p.submit("c")[-1] == "Send L0 c#1"


def test_no_more_workers_are_started_than_tasks_wait_or_lanes_are_allowed() -> None:
    p = Play(lanes=2)
    assert p.submit("a")[-1] == "StartWorker L0"
    assert p.submit("b")[-1] == "StartWorker L1"
    assert p.submit("c") == ["queued c"]
    p.ready(0)
    p.begun("a")
    p.ended("a")
    assert p.submit("d") == ["queued d"]


def test_an_exception_of_the_task_is_its_outcome_and_the_worker_goes_on() -> None:
    p = Play()
    p.running("a")
    p.submit("b")
    assert p.ended("a", outcome=RAISED) == [
        "raised a#1",
        "settled a#1",
        "Settle a raised 1",
        "sent b#1",
        "Send L0 b#1",
    ]


# -- order -------------------------------------------------------------------------------------------------------------


def _order_of_sending(p: Play, count: int) -> list[object]:
    order = []
    for _ in range(count):
        (send,) = [c for c in p.commands if isinstance(c, Send)]
        order.append(send.number)
        p.begun(send.number)
        p.ended(send.number)
    return order


def test_equal_tasks_go_in_the_order_of_submission() -> None:
    p = Play()
    for key in "dacb":
        p.submit(key)
    p.ready()
    assert _order_of_sending(p, 4) == ["d", "a", "c", "b"]


def test_a_larger_priority_goes_first_and_equal_ones_in_order() -> None:
    p = Play()
    for key, priority in [("a", 0), ("b", 2), ("c", -1), ("d", 2), ("e", 0.5)]:
        p.submit(key, priority=priority)
    p.ready()
    assert _order_of_sending(p, 5) == ["b", "d", "e", "a", "c"]


def test_a_task_tried_again_keeps_its_old_place() -> None:
    p = Play()
    p.running("a", Grant(1.0))
    p.submit("b")
    p.submit("c")
    p.died("a")
    p.after(1)
    assert p.ready()[-1] == "Send L0 a#2"


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_a_queued_task_is_cancelled_and_never_sent() -> None:
    p = Play()
    p.submit("a")
    p.submit("b")
    assert p.cancel("a") == ["settled a", "Settle a cancelled 0"]
    assert p.ready()[1:] == ["sent b#1", "Send L0 b#1"]


def test_a_cancel_found_at_the_sending_frees_the_lane_for_the_next() -> None:
    p = Play()
    p.sent("a")
    p.submit("b")
    assert p.cancel("a")[1:] == ["settled a#1", "Settle a cancelled 0", "sent b#1", "Send L0 b#1"]


def test_a_cancel_found_at_the_sending_leaves_the_worker_idle_where_nothing_waits() -> None:
    p = Play()
    p.sent("a")
    p.cancel("a")
    assert p.lane()["state"] == "idle"
    assert p.next_due() is None


def test_a_cancel_of_what_has_begun_or_is_unknown_does_nothing() -> None:
    p = Play()
    p.running("a", Grant(1.0))
    assert p.cancel("a") == p.cancel("nobody") == []
    p.died("a")
    assert p.cancel("a") == []
    assert p.state("a") is State.BACKING_OFF


# -- what can be seen --------------------------------------------------------------------------------------------------


def test_counts_follow_every_task() -> None:
    p = Play(lanes=3)
    seen = lambda: ({str(s): n for s, n in p.core.counts.items() if n}, dict(p.core.ended))
    for key in "abcd":
        p.submit(key, Grant(9.0), timeout=5 if key == "b" else None)
    assert seen() == ({"queued": 4}, {})
    for lane in range(3):
        p.ready(lane)
    assert seen() == ({"queued": 1, "sent": 3}, {})
    for lane, key in enumerate("abc"):
        p.begun(key, lane=lane)
    p.after(5)
    p.died("c", lane=2)
    assert seen() == ({"queued": 1, "running": 1, "doomed": 1, "backing_off": 1}, {})
    p.ended("a")
    p.begun("d")
    p.ended("d", outcome=Raised(ValueError()))
    p.kill("d")
    p.submit("e", problem=NotSent("no"))
    p.kill("c")
    assert seen() == ({"doomed": 1}, {"done": 1, "failed": 3})
    p.submit("f")
    p.cancel("f")
    assert seen()[1] == {"done": 1, "failed": 3, "cancelled": 1}


def test_a_snapshot_of_the_lanes_says_who_runs_what_and_for_how_long() -> None:
    p = Play(lanes=2)
    p.running("a", Grant(1.0))
    p.died("a")
    p.after(1)
    p.ready()
    p.begun("a", 2)
    p.after(3)
    p.submit("b")
    row = {"lane": 0, "state": "busy", "pid": 4000, "key": "a", "attempt": 2, "elapsed": 3.0}
    starting = {"lane": 1, "state": "starting", "pid": None, "key": None, "attempt": 0, "elapsed": None}
    assert p.core.lanes(p.now) == [row, starting]


def test_unsettled_tasks_and_their_stories_can_be_asked_for() -> None:
    p = Play()
    p.running("a")
    p.submit("b")
    assert p.core.unsettled() == ("a", "b")
    assert [e.kind for e in p.core.story("a")] == ["queued", "sent", "begun"]
    p.ended("a")
    assert p.core.unsettled() == ("b",)
    assert p.core.story("a") == ()


def test_the_story_handed_over_does_not_grow_afterwards() -> None:
    p = Play()
    p.running("a")
    story = p.core.story("a")
    p.ended("a")
    assert len(story) == 3


def test_what_is_settled_is_not_kept_alive_by_its_timer() -> None:
    """Most tasks end long before their deadline.  Fewer than 256 entries may be left behind, however many came."""
    p = Play()
    policies = []
    for number in range(2000):
        policy = Grant()
        policies.append(weakref.ref(policy))
        p.running(number, policy, timeout=1e6)
        p.ended(number)
    del policy
    p.commands.clear()
    p.settled.clear()
    gc.collect()
    assert sum(ref() is not None for ref in policies) < 256


def test_cancelled_tasks_are_not_kept_alive_by_the_queue_once_it_is_empty() -> None:
    p = Play()
    policies = []
    for number in range(300):
        policy = Grant()
        policies.append(weakref.ref(policy))
        p.submit(number, policy)
    del policy
    for number in range(300):
        p.cancel(number)
    p.commands.clear()
    p.settled.clear()
    gc.collect()
    assert not any(ref() for ref in policies)


def test_a_key_can_be_used_again_once_its_task_has_settled() -> None:
    p = Play()
    p.running("a")
    p.ended("a")
    p.settled.clear()
    p.running("a")
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_killing_settles_with_the_words_of_who_asked() -> None:
    p = Play()
    p.submit("a")
    p.kill("a", "the watchdog")
    assert p.settled["a"].outcome == Killed("the watchdog")


def test_died_keeps_its_evidence() -> None:
    p = Play()
    p.running("a")
    p.died("a")
    assert p.settled["a"].outcome is DIED
