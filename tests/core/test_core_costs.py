"""Costs that are learned: what takes longest goes first."""

from __future__ import annotations

from chunk_game import chunk
from core_play import NEVER, VALUE, Grant, Play

from resilient_exec.core.messages import AttemptEnded, ItemsEnded, Submitted
from resilient_exec.core.states import Limits
from resilient_exec.core.stragglers import Peers
from resilient_exec.model.packed import Batch
from resilient_exec.model.task import Task


def _learned(p: Play, key: str, **task: object) -> list[str]:
    return p.submit(key, label=key[0], cost=None, timed=True, **task)


def _ran(p: Play, key: str, seconds: float) -> None:
    """A task with that label has taken so long, unseen."""
    _learned(p, key)
    if p.lane()["state"] == "starting":
        p.ready()
    began, p.now = p.now, p.now + seconds
    p.tell(AttemptEnded(0, key, 1, VALUE, began=began, ended=p.now))


def _order(p: Play, *keys: str) -> str:
    """In which order these are sent, that wait for the lane."""
    order = ""
    for _ in keys:
        (number,) = [record.task.number for lane in p.core._lanes for record in lane.holds]
        p.begun(number)
        began, p.now = p.now, p.now + (1.0 if number[0] == "l" else 0.02)
        p.tell(AttemptEnded(0, number, 1, VALUE, began=began, ended=p.now))
        left = [record.task.number for lane in p.core._lanes for record in lane.holds]
        order += " ".join(left) + " "
    return order.strip()


def test_the_longest_goes_first_of_those_that_are_known() -> None:
    p = Play()
    _ran(p, "s0", 0.02)
    _ran(p, "l0", 1.0)
    p.submit("x")
    for key in ("s1", "s2", "l1", "s3", "l2"):
        _learned(p, key)
    assert _order(p, "x", "l1", "l2", "s1", "s2") == "l1 l2 s1 s2 s3"


def test_what_is_not_known_goes_first_and_then_where_it_belongs() -> None:
    """Forty short ones, then a long one: it goes second, since the first of the short ones has been seen by then."""
    p = Play()
    for key in ("s1", "s2", "s3", "l1", "l2"):
        _learned(p, key)
    p.ready()
    assert _order(p, "s1", "l1") == "l1 l2"


def test_a_cost_that_is_given_counts() -> None:
    p = Play()
    _ran(p, "l0", 1.0)
    p.submit("x")
    _learned(p, "l1")
    p.submit("cheap", label="l", cost=0.1, timed=True)
    p.submit("dear", label="s", cost=9.0)
    assert _order(p, "x", "dear", "l1") == "dear l1 cheap"


def test_a_priority_counts_more() -> None:
    p = Play()
    _ran(p, "s0", 0.02)
    _ran(p, "l0", 1.0)
    p.submit("x")
    _learned(p, "l1")
    _learned(p, "s1", priority=1)
    assert _order(p, "x", "s1") == "s1 l1"


def test_what_is_tried_again_has_the_cost_of_its_label() -> None:
    p = Play()
    _ran(p, "s0", 0.02)
    _ran(p, "l0", 1.0)
    p.submit("l1", Grant(1.0), label="l", cost=None, timed=True)
    p.begun("l1")
    p.died("l1")
    p.submit("x")
    p.ready()
    _learned(p, "s1")
    p.after(1)
    assert _order(p, "x") == "l1"


def test_calls_of_a_chunk_are_learned_from_too() -> None:
    p = Play()
    p.tell(Submitted(chunk(0, 4, NEVER, label="l", cost=None, timed=True)))
    p.ready()
    p.tell(ItemsEnded(0, 0, 1, 4, Batch(b"", lambda *_: [0, 1, 2, 3]), began=0.0, ended=4.0))
    assert p.core._usual("l") == 0.524288
    assert p.core._usual("unknown") == float("inf")


def test_the_usual_time_is_a_power_of_two_so_that_noise_changes_no_order() -> None:
    peers = Peers(Limits())
    assert peers.usual() == float("inf")
    for took in (0.9, 0.8, 1.0):
        peers.learn(took)
        assert peers.usual() == 0.524288
    for took, usual in ((0.0, 5e-7), (1e-6, 1e-6), (3e-3, 2.048e-3), (100.0, 67.108864)):
        peers = Peers(Limits())
        peers.learn(took)
        assert peers.usual() == usual


def test_of_tasks_that_are_not_timed_nothing_is_learned() -> None:
    assert Task("a", NEVER).timed is False
    p = Play()
    p.running("a", label="l")
    p.ended("a")
    assert not p.core._peers
