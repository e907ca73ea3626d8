"""Quick attempts: how many a worker may hold, and what becomes of those that were sent ahead when one is not quick."""

from __future__ import annotations

from core_play import RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import AttemptEnded, Look, Send, TimePassed
from resilient_exec.core.states import State
from resilient_exec.model.memory_level import MemoryLevel


def _end(p: Play, key: str, took: float, lane: int = 0) -> list[str]:
    """Tell the end of an attempt of which nothing was heard since it was sent."""
    p.now += took
    return p.tell(AttemptEnded(lane, key, 1, VALUE, 0, False, p.now - took, p.now))


def _sends(p: Play) -> int:
    return sum(isinstance(command, Send) for command in p.commands)


def _adaptive(**limits: object) -> Play:
    return Play(depth=8, first_depth=1, ahead=0.004, **limits)


def test_an_end_with_its_times_tells_the_begin_too() -> None:
    p = Play()
    p.sent("a")
    p.now = 5.0
    words = p.tell(AttemptEnded(0, "a", 1, VALUE, 0, False, 2.0, 4.0))
    assert words == ["begun a#1", "returned a#1", "settled a#1", "Settle a returned 1"]
    assert [event.at for event in p.settled["a"].story] == [0.0, 0.0, 2.0, 5.0, 5.0]
    assert p.settled["a"].elapsed == 3.0


def test_a_failure_of_which_nothing_was_heard_is_charged_and_tried_again() -> None:
    p = Play()
    p.sent("a", Grant(1.0))
    assert p.tell(AttemptEnded(0, "a", 1, RAISED, 0, False, 0.0, 0.0))[-1] == "backing_off a#1"


def test_what_returns_unheard_and_leaves_its_worker_unfit_is_the_last_in_it() -> None:
    p = Play()
    p.sent("a")
    words = p.tell(AttemptEnded(0, "a", 1, VALUE, 0, "a umask", 0.0, 0.0))
    assert words[-3:] == ["Settle a returned 1", "lane_stopping L0", "StopWorker L0"]


def test_the_time_of_what_returns_unheard_is_counted_from_the_begin_of_its_first_attempt() -> None:
    p = Play()
    p.sent("a", Grant(1.0))
    p.after(1.0)
    p.tell(AttemptEnded(0, "a", 1, RAISED, 0, "", 0.5, 1.0))
    p.after(1.0)
    p.tell(AttemptEnded(0, "a", 2, VALUE, 0, "", 2.5, 3.0))
    assert p.settled["a"].elapsed == p.now - 0.5


def test_behind_what_returns_unheard_nothing_is_sent_while_memory_is_low_and_another_runs() -> None:
    p = Play(lanes=2)
    for key in "ac":
        p.submit(key)
    p.ready(0)
    p.ready(1)
    p.memory(MemoryLevel.LOW)
    p.submit("b")
    assert p.tell(AttemptEnded(0, "a", 1, VALUE, 0, "", 0.0, 0.0))[-1] == "Settle a returned 1"


def test_one_that_was_doomed_behind_what_returns_unheard_is_killed_then() -> None:
    p = Play(depth=2)
    for key in "abc":
        p.submit(key)
    p.ready()
    p.kill("b")
    assert p.tell(AttemptEnded(0, "a", 1, VALUE, 0, "", 0.0, 0.0))[-1] == "Kill L0 b#1"


def test_a_worker_may_hold_twice_as_many_after_each_quick_attempt() -> None:
    p = _adaptive()
    for number in range(40):
        p.submit(str(number))
    p.ready()
    assert _sends(p) == 1
    held = []
    for number in range(5):
        _end(p, str(number), 0.0)
        held.append(len(next(iter(p.core._lanes)).holds))
    assert held == [2, 4, 8, 8, 8]


def test_a_worker_holds_no_more_than_a_few_milliseconds_of_work() -> None:
    p = _adaptive()
    for number in range(40):
        p.submit(str(number))
    p.ready()
    for number in range(6):
        _end(p, str(number), 0.001)
    assert len(next(iter(p.core._lanes)).holds) == 4


def test_the_first_long_attempt_ends_the_sending_ahead() -> None:
    p = _adaptive()
    for number in range(40):
        p.submit(str(number))
    p.ready()
    for number in range(4):
        _end(p, str(number), 0.0)
    _end(p, "4", 0.5)
    assert _sends(p) == 0
    for number in range(5, 12):
        _end(p, str(number), 0.5)
    assert _sends(p) == 1


def test_a_new_worker_is_known_nothing_of() -> None:
    p = _adaptive()
    for number in range(40):
        p.submit(str(number))
    p.ready()
    for number in range(4):
        _end(p, str(number), 0.0)
    p.gone()
    p.ready()
    assert _sends(p) == 1


def test_lanes_take_turns_when_they_are_sent_ahead() -> None:
    p = Play(lanes=2, depth=4)
    p.submit("a")
    p.submit("b")
    p.ready(0)
    p.ready(1)
    p.cancel("b")
    p.cancel("a")
    for key in "cdefgh":
        p.submit(key)
    assert sorted(len(lane.holds) for lane in p.core._lanes) == [3, 3]


def test_nothing_is_sent_behind_an_attempt_that_may_be_interrupted() -> None:
    """Its worker may have to be replaced, and must not be used by another in between."""
    p = Play(depth=4)
    p.running("a", soft_timeout=5.0)
    assert p.submit("b") == ["queued b"]


def test_what_waits_behind_a_long_attempt_is_taken_back_and_runs_elsewhere() -> None:
    p = Play(lanes=2, depth=4)
    p.submit("a")
    p.submit("b")
    p.ready(0)  # takes both
    p.begun("a")
    p.ready(1)
    assert p.after(0.02) == ["TakeBack L0 b#1"]
    assert p.taken_back("b") == ["taken_back b#1", "sent b#1", "Send L1 b#1"]


def test_what_was_taken_back_is_neither_charged_nor_lost() -> None:
    p = Play(depth=2, uncharged=1)
    policy = Grant(1.0)
    p.running("a")
    p.submit("b", policy)
    p.after(1)
    assert p.taken_back("b") == ["taken_back b#1"]
    assert p.ended("a")[-2:] == ["sent b#1", "Send L0 b#1"]
    assert policy.asked == []


def test_nothing_is_sent_behind_an_attempt_that_has_run_for_long() -> None:
    p = Play(lanes=2, depth=4)
    p.running("a")
    p.now = 0.02
    assert p.submit("b") == ["queued b", "lane_starting L1", "StartWorker L1"]
    assert p.submit("c") == ["queued c"]
    assert p.ended("a")[-4:] == ["sent b#1", "Send L0 b#1", "sent c#1", "Send L0 c#1"]


def test_what_was_sent_ahead_counts_as_pending() -> None:
    p = Play(depth=4)
    p.running("a")
    p.submit("b")
    assert p.core.counted() == {"pending": 1, "running": 1, "backing_off": 0}


def test_what_has_begun_is_not_believed_to_be_taken_back() -> None:
    p = Play(depth=2)
    p.running("a")
    assert p.taken_back("a") == []
    assert p.state("a") is State.RUNNING


def test_a_head_that_is_taken_back_hands_the_watch_over_to_the_next() -> None:
    p = Play(depth=2)
    p.submit("a")
    p.submit("b")
    p.ready()
    p.now = 3.0
    p.taken_back("a")
    assert p.next_due() == 13.0


def test_one_that_was_killed_while_it_was_sent_ahead_settles_when_it_is_taken_back() -> None:
    p = Play(depth=2)
    p.running("a")
    p.submit("b")
    assert p.kill("b") == ["doomed b#1", "TakeBack L0 b#1"]
    assert p.taken_back("b") == ["killed b#1", "settled b#1", "Settle b killed 0"]
    assert p.state("a") is State.RUNNING


def test_a_lane_is_looked_at_soon_after_a_send_and_less_and_less_often() -> None:
    p = Play(look_interval=0.005)
    p.sent("a")
    looks = []
    while p.now < 2.0:
        p.now = p.core.next_due()
        if any(isinstance(command, Look) for command in p.core.handle(TimePassed(), p.now)):
            looks.append(p.now)
    pauses = [after - before for before, after in zip([0.0, *looks], looks, strict=False)]
    assert pauses[0] == 0.005
    assert [round(pause, 9) for pause in pauses] == sorted(round(pause, 9) for pause in pauses)
    assert max(pauses) <= 0.5


def test_the_next_head_is_looked_at_soon_however_long_the_last_one_took_to_begin() -> None:
    p = Play(depth=2, look_interval=0.005)
    p.submit("a")
    p.submit("b")
    p.ready()
    while p.now < 2.0:
        p.now = p.core.next_due()
        p.tell(TimePassed())
    p.begun("a")
    p.ended("a")
    assert p.core.next_due() == p.now + 0.005


def test_a_lane_whose_only_attempt_runs_is_not_looked_at() -> None:
    p = Play()
    p.running("a")
    p.after(0.005)
    assert p.core.next_due() is None


def test_of_equal_priority_the_dearest_goes_first() -> None:
    p = Play()
    for key, cost, priority in [("a", 1, 0), ("b", 5, 0), ("c", 5, 0), ("d", 0, 1)]:
        p.submit(key, cost=cost, priority=priority)
    p.ready()
    order = []
    for _ in range(4):
        (send,) = [c for c in p.commands if isinstance(c, Send)]
        order.append(send.number)
        p.begun(send.number)
        p.ended(send.number)
    assert order == ["d", "b", "c", "a"]
