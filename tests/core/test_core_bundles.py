"""Bundles: tasks with a future each that are sent many at once, and stay tasks by themselves; without a process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from chunk_game import Game, Worker, bundle, chunk, finish
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_core_chunks import ChunkGame

from resilient_exec.core.chunks import Group, Groups, Pace
from resilient_exec.core.messages import CancelAsked, KillAsked, ShutdownAsked, Submitted, TakenBack
from resilient_exec.model.task import Returned, Task


def quick() -> Pace:
    pace = Pace()
    pace.learn(10_000, 1e-3)
    return pace


def playing(size: int = 5, lanes: int = 1, **limits: Any) -> Game:
    """Quick ones, sent as one."""
    game = Game(lanes, **limits)
    game.tell(Submitted(bundle(0, size, game, pace=quick())))
    game.start_all()
    return game


def of(game: Game, number: int) -> str:
    return getattr(game.settled[number], "kind", str(game.settled[number]))


def sizes(game: Game) -> list[int]:
    return [calls for *_, calls in game.sent]


def test_tasks_of_which_nothing_is_known_are_sent_one_by_one_as_any_other() -> None:
    game = Game(1)
    game.tell(Submitted(bundle(0, 3, game)))
    game.start_all()
    assert game.sent == [(0, 0, 0)]
    finish(game)
    assert set(game.executed.values()) == {1}


def test_quick_ones_are_sent_many_at_once() -> None:
    game = Game(1)
    game.tell(Submitted(bundle(0, 40, game)))
    finish(game)  # they take no time
    assert sizes(game)[0] == 0
    assert max(sizes(game)) == 5, "as many as their group allows"


@pytest.mark.parametrize("took", [0.05, 0.01])
def test_few_are_not_worth_a_bundle(took: float) -> None:
    slow = Pace()
    slow.learn(30, 30 * took)
    game = Game(1)
    game.tell(Submitted(bundle(0, 12, game, pace=slow)))
    game.start_all()
    assert sizes(game) == [0]


def test_each_has_a_story_of_its_own_with_its_key() -> None:
    game = playing()
    assert [event.key for event in game.core.story(3)] == [3, 3]
    assert [event.kind for event in game.core.story(3)] == ["queued", "sent"]
    assert game.core.task(3) is not None
    assert game.core.story(99) == ()


def test_one_that_waits_is_cancelled_by_itself() -> None:
    game = Game(1)
    game.tell(Submitted(bundle(0, 5, game)))
    for number in (2, 0, 4):
        game.tell(CancelAsked(number))
        assert game.settled[number] is None
    finish(game)
    assert game.executed == Counter({1: 1, 3: 1})


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("told_first", [True, False])
def test_one_that_was_sent_is_cancelled_by_itself(number: int, told_first: bool) -> None:
    game = playing()
    worker = game.lanes[0]
    worker.begin()
    worker.queue.remove((number, 1))  # by the mark: the worker passes over it, and says so
    passed_over = TakenBack(0, ((number, 1, 1),))
    if told_first:
        game.tell(passed_over)
        game.tell(CancelAsked(number))
    else:
        game.tell(CancelAsked(number))
        game.tell(passed_over)
    assert game.settled == {number: None}
    worker.end()
    finish(game)
    assert game.executed == Counter({one: 1 for one in range(5) if one != number})
    assert [of(game, one) for one in range(5) if one != number] == ["returned"] * 4


def test_one_is_killed_by_itself() -> None:
    game = playing()
    game.lanes[0].begin()
    game.tell(KillAsked(3))  # it has not begun: it is taken back
    assert of(game, 3) == "killed"
    game.lanes[0].end()
    finish(game)
    assert [of(game, number) for number in range(5)] == ["returned"] * 3 + ["killed", "returned"]
    assert set(game.executed.values()) == {1}


def test_a_kill_of_the_one_that_runs_repeats_none_of_the_others() -> None:
    game = playing()
    worker = game.lanes[0]
    worker.begin()
    worker.end()
    worker.begin()
    game.tell(KillAsked(1))
    assert of(game, 1) == "killed"
    finish(game)
    assert [of(game, number) for number in range(5)] == ["returned", "killed", "returned", "returned", "returned"]
    assert set(game.executed.values()) == {1}


def test_what_was_sent_behind_one_that_takes_long_runs_elsewhere() -> None:
    game = Game(2)
    game.tell(Submitted(Task(100, game, key=100)))
    game.start_all()
    game.lanes[0].begin()
    pace = quick()
    game.tell(Submitted(bundle(0, 5, game, pace=pace)))
    game.start_all()
    first = next(worker for worker in game.lanes.values() if worker.queue)
    first.begin()
    game.after(0.006)
    game.after(0.02)
    assert first.queue == []
    finish(game)
    assert game.executed == Counter({100: 1, 0: 1, 1: 1, 2: 1, 3: 1, 4: 1})


def test_a_shutdown_cancels_those_that_wait_each_by_itself() -> None:
    game = Game(1)
    game.tell(Submitted(bundle(0, 6, game)))
    game.start_all()
    game.lanes[0].begin()
    game.tell(ShutdownAsked(cancel=True))
    finish(game)
    assert of(game, 0) == "returned"
    assert [game.settled[number] for number in range(1, 6)] == [None] * 5


def test_a_chunk_is_not_sent_whole_behind_an_attempt_that_has_just_ended() -> None:
    game = Game(1)
    for number in range(100, 140):
        game.tell(Submitted(Task(number, game, key=number)))
    game.tell(Submitted(bundle(0, 12, game, pace=quick())))
    finish(game)
    assert max(sizes(game)) <= 5


def test_a_group_is_found_by_the_number_of_any_of_its_calls() -> None:
    groups, first, second = Groups(), Group(10, Pace(), 300, bundled=True), Group(310, Pace(), 1)
    groups.add(first)
    groups.add(first)
    groups.add(second)
    assert [groups.find(number) for number in (9, 10, 200, 309, 310, 311)] == [None, first, first, first, second, None]
    assert groups.chunk(310) is second
    assert groups.chunk(10) is None, "a bundle goes by the numbers of its tasks"
    assert groups.find("key") is None
    groups.discard(first)
    groups.discard(first)
    assert groups.find(200) is None
    assert groups.find(310) is second


# -- at random ---------------------------------------------------------------------------------------------------------


class BundleGame(ChunkGame):
    """The same game with bundles among the chunks, whose tasks are cancelled and killed one by one."""

    @rule(size=st.integers(2, 12), is_quick=st.booleans(), priority=st.integers(0, 1))
    def submit_bundle(self, size: int, is_quick: bool, priority: int) -> None:
        pace = quick() if is_quick else Pace()
        self.game.tell(
            Submitted(bundle(self.next, size, self.game, pace=pace, timeout=self.timeout, priority=priority))
        )
        if not hasattr(self, "bundled"):
            self.bundled: list[int] = []
        self.bundled += range(self.next, self.next + size)
        self.next += size

    @precondition(lambda self: hasattr(self, "bundled"))
    @rule(data=st.data(), told_first=st.booleans())
    def cancel_one(self, data: Any, told_first: bool) -> None:
        """A future can be cancelled until its task has begun: the worker passes over it, and says so."""
        left = [one for one in self.bundled if one not in self.game.settled and not self.game.executed[one]]
        if not left:
            return
        number = data.draw(st.sampled_from(left))
        facts = []
        for worker in self.game.lanes.values():
            held = [call for call in worker.queue if call[0] == number]
            if held:
                worker.queue.remove(held[0])
                facts = [TakenBack(worker.number, ((*held[0], 1),))]
                self._tell_before(worker, number)
        if told_first and facts:
            # It is sent again, perhaps; the shell marks it at once, and the word of the cancel comes next.
            self.game.tell(facts[0])
            for worker in self.game.lanes.values():
                worker.queue = [call for call in worker.queue if call[0] != number]
            self.game.tell(CancelAsked(number))
        else:
            self.game.tell(CancelAsked(number))
            for fact in facts:
                self.game.tell(fact)
        assert self.game.settled[number] is None

    def _tell_before(self, worker: Worker, number: int) -> None:
        """What is before it is told before the worker says that it passes over it."""
        if any(call[0] < number for call in worker.staged):
            self.tell(worker.number)

    @precondition(lambda self: hasattr(self, "bundled"))
    @rule(data=st.data())
    def kill_one(self, data: Any) -> None:
        left = [one for one in self.bundled if one not in self.game.settled]
        if left:
            self.game.tell(KillAsked(data.draw(st.sampled_from(left))))

    @rule(data=st.data(), calls=st.integers(1, 6))
    def submit_chunk(self, data: Any, calls: int) -> None:
        del data
        self.firsts.append(self.next)
        self.game.tell(Submitted(chunk(self.next, calls, self.game, timeout=self.timeout)))
        self.next += calls


TestBundleGame = BundleGame.TestCase
TestBundleGame.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_what_returns_by_itself_teaches_the_pace() -> None:
    game = Game(1)
    pace = Pace()
    game.tell(Submitted(bundle(0, 8, game, pace=pace)))
    finish(game)
    assert pace.mean is not None
    assert isinstance(game.settled[0], Returned)
